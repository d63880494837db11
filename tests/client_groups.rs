//! Consumer groups with every stock client: partitions are shared out, a killed member's partitions are taken over,
//! and committed offsets outlive members and servers.

#![allow(clippy::disallowed_methods, reason = "the tests wait for other processes, in real time")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use support::clients::{Client, Member, wait_until};
use support::modes::{Mode, unique};
use support::records::{Acks, Consumed, Record, records};
use support::server::Server;

const PARTITIONS: i32 = 8;

mod sharing {
    crate::support::modes::for_every_mode_and_client!(
        a_killed_member_is_replaced_and_nothing_is_lost,
        crate::a_killed_member_is_replaced_and_nothing_is_lost
    );
}

mod offsets {
    crate::support::modes::for_every_mode_and_client!(
        committed_offsets_survive_a_stop_and_a_kill,
        crate::committed_offsets_survive_a_stop_and_a_kill
    );
}

fn a_killed_member_is_replaced_and_nothing_is_lost(mode: Mode, client: Client) {
    let server = mode.shared();
    let bootstrap = server.bootstrap();
    let (topic, group) = (unique("shared"), unique("group"));
    client.create(bootstrap, std::slice::from_ref(&topic), 8, &[]);
    let mut produced = Produced::default();
    produced.send(client, bootstrap, &topic, 400);

    let mut first = client.member(bootstrap, &group, &topic, None);
    let mut second = client.member(bootstrap, &group, &topic, None);
    wait_until("both members own partitions", &mut [&mut first, &mut second], |members| {
        let mut owned: Vec<i32> = members.iter().flat_map(|member| member.assigned.clone()).collect();
        owned.sort_unstable();
        owned.into_iter().eq(0..PARTITIONS) && members.iter().all(|member| !member.assigned.is_empty())
    });

    produced.send(client, bootstrap, &topic, 400);
    wait_until("two members consume and commit all", &mut [&mut first, &mut second], |members| {
        produced.are_consumed_and_committed_by(members)
    });
    for member in [&first, &second] {
        let late = member.records.iter().any(|found| found.record.sequence() >= 400);
        assert!(late, "a member owns {:?} and consumed nothing of them", member.assigned);
    }

    first.process.kill_dash_nine();
    first.listen();
    produced.send(client, bootstrap, &topic, 400);
    wait_until("the survivor owns everything", &mut [&mut second], |members| {
        members[0].assigned.iter().copied().collect::<BTreeSet<_>>().into_iter().eq(0..PARTITIONS)
    });
    wait_until("the survivor consumes and commits the rest", &mut [&mut second], |members| {
        produced.are_consumed_and_committed_by(&[&first, members[0]])
    });
    second.process.close_stdin();
    second.listen_to_the_end();
    produced.assert_contents(first.records.iter().chain(&second.records));

    // Who joins later starts where the others stopped: it sees what is new and nothing else.
    produced.send(client, bootstrap, &topic, 50);
    let mut third = client.member(bootstrap, &group, &topic, Some(50));
    third.listen_to_the_end();
    let seen: BTreeSet<usize> = third.records.iter().map(|found| found.record.sequence()).collect();
    assert!(seen.into_iter().eq(1200..1250), "the third member did not start at the committed offsets");
}

fn committed_offsets_survive_a_stop_and_a_kill(mode: Mode, client: Client) {
    let mut server = Server::start(mode.options());
    let (topic, group) = (unique("kept"), unique("group"));
    client.create(server.bootstrap(), std::slice::from_ref(&topic), 8, &[]);
    let mut produced = Produced::default();
    produced.send(client, server.bootstrap(), &topic, 1000);

    let mut consumed = Vec::new();
    let mut consume = |server: &Server, count| {
        let mut member = client.member(server.bootstrap(), &group, &topic, Some(count));
        member.listen_to_the_end();
        assert_eq!(member.records.len(), count);
        consumed.append(&mut member.records);
    };
    consume(&server, 300);
    server.restart();
    consume(&server, 300);
    server.kill_dash_nine();
    server.start_again();
    consume(&server, 400);

    let mut sequences: Vec<usize> = consumed.iter().map(|found| found.record.sequence()).collect();
    sequences.sort_unstable();
    assert!(sequences.into_iter().eq(0..1000), "records were read twice or never over the restarts");
    produced.assert_contents(consumed.iter());
    server.stop();
}

/// What was sent to a topic so far, and where it went.
#[derive(Default)]
struct Produced {
    records: Vec<Record>,
}

impl Produced {
    fn send(&mut self, client: Client, bootstrap: &str, topic: &str, count: usize) {
        let records = records(self.records.len(), count);
        let acks: Acks = client.produce(bootstrap, &[(topic.to_owned(), "none")], &records);
        assert_eq!((acks.failed.len(), acks.acked.len()), (0, count), "{:?}", acks.failed.first());
        self.records.extend(records);
    }

    /// Every record was seen by somebody, and the offset after the last of each partition is committed.
    fn are_consumed_and_committed_by(&self, members: &[&Member]) -> bool {
        let seen: BTreeSet<usize> =
            members.iter().flat_map(|member| &member.records).map(|found| found.record.sequence()).collect();
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for found in members.iter().flat_map(|member| &member.records) {
            let end = ends.entry(found.partition).or_default();
            *end = (*end).max(found.offset + 1);
        }
        let committed = |(partition, end): (&i32, &i64)| {
            members.iter().any(|member| member.committed.get(partition) == Some(end))
        };
        seen.len() == self.records.len() && ends.iter().all(committed)
    }

    fn assert_contents<'a>(&self, consumed: impl Iterator<Item = &'a Consumed>) {
        for found in consumed {
            assert_eq!(found.record, self.records[found.record.sequence()], "a record changed on the way");
        }
    }
}
