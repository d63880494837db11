//! The new group protocol (KIP-848) with the clients that speak it: the coordinator assigns, members come and go, old
//! members and new ones share a group, and everything outlives the server.

#![allow(clippy::disallowed_methods, reason = "the tests wait for other processes, in real time")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use support::clients::{Client, Member, wait_until};
use support::modes::{Mode, unique};
use support::records::{Record, records};
use support::server::{Options, Server};

const PARTITIONS: i32 = 24;

fn options() -> Options {
    Mode::TwoShards
        .options()
        .set("group.consumer.heartbeat.interval.ms", "500")
        .set("group.consumer.session.timeout.ms", "6000")
        .set("group.consumer.assignment.interval.ms", "0")
        .set("group.initial.rebalance.delay.ms", "0")
}

#[test]
fn java_members_come_and_go_and_nothing_is_lost_or_doubled() {
    members_come_and_go(Client::Java);
}

#[test]
fn confluent_kafka_members_come_and_go_and_nothing_is_lost_or_doubled() {
    members_come_and_go(Client::ConfluentKafka);
}

/// Three members over 24 partitions; one is killed, one is added, the server is killed in between.
fn members_come_and_go(client: Client) {
    let mut server = Server::start(options());
    let bootstrap = server.bootstrap().to_owned();
    let (topic, group) = (unique("modern"), unique("group"));
    client.create(&bootstrap, std::slice::from_ref(&topic), 24, &[]);
    let mut sent = 0;
    let mut send = |count| {
        let records: Vec<Record> = records(sent, count);
        let acks = client.produce(&bootstrap, &[(topic.clone(), "none")], &records);
        assert_eq!((acks.failed.len(), acks.acked.len()), (0, count));
        sent += count;
        sent
    };
    let join = || client.modern_member(&bootstrap, &group, &topic, None);
    let mut first = join();
    let mut second = join();
    let mut third = join();
    wait_until("three members own eight each", &mut [&mut first, &mut second, &mut third], own_equal_shares);
    let total = send(2_000);
    wait_until("they read and commit all", &mut [&mut first, &mut second, &mut third], |members| {
        have_read_and_committed(members, &[], total)
    });
    assert_read_once(&[&first, &second, &third]);

    first.process.kill_dash_nine();
    first.listen();
    wait_until("two members own twelve each", &mut [&mut second, &mut third], own_equal_shares);
    server.kill_dash_nine();
    server.start_again();
    let total = send(1_000);
    let mut fourth = join();
    wait_until(
        "three members own eight each again",
        &mut [&mut second, &mut third, &mut fourth],
        own_equal_shares,
    );
    let total = total.max(send(1_000));
    wait_until("they read and commit the rest", &mut [&mut second, &mut third, &mut fourth], |members| {
        have_read_and_committed(members, &[&first], total)
    });
    // All that was read before the kill had been committed, and a partition moves only when its reader has committed.
    assert_read_once(&[&first, &second, &third, &fourth]);
    for member in [&mut second, &mut third, &mut fourth] {
        member.process.close_stdin();
        member.listen_to_the_end();
    }
    server.stop();
}

/// A group goes from the classic protocol to the new one and back, a member at a time.
#[test]
fn a_group_moves_to_the_new_protocol_and_back_while_it_reads() {
    let mut server = Server::start(options());
    let bootstrap = server.bootstrap().to_owned();
    let (topic, group) = (unique("moved"), unique("group"));
    let client = Client::Java;
    client.create(&bootstrap, std::slice::from_ref(&topic), 24, &[]);
    let mut sent = 0;
    let mut send = |count| {
        let acks = client.produce(&bootstrap, &[(topic.clone(), "none")], &records(sent, count));
        assert_eq!((acks.failed.len(), acks.acked.len()), (0, count));
        sent += count;
        sent
    };
    let mut old = client.member(&bootstrap, &group, &topic, None);
    wait_until("the old member owns everything", &mut [&mut old], own_equal_shares);
    let total = send(500);
    wait_until("it reads and commits", &mut [&mut old], |members| {
        have_read_and_committed(members, &[], total)
    });

    let mut new = client.modern_member(&bootstrap, &group, &topic, None);
    wait_until("both protocols share the partitions", &mut [&mut old, &mut new], own_equal_shares);
    let total = send(500);
    wait_until("both read and commit", &mut [&mut old, &mut new], |members| {
        have_read_and_committed(members, &[], total)
    });
    old.process.close_stdin();
    old.listen_to_the_end();
    wait_until("the new member owns everything", &mut [&mut new], own_equal_shares);
    let total = send(500);
    wait_until("it reads and commits", &mut [&mut new], |members| {
        have_read_and_committed(members, &[&old], total)
    });

    let mut returned = Client::FranzGo.member(&bootstrap, &group, &topic, None);
    wait_until("an old member is back", &mut [&mut new, &mut returned], own_equal_shares);
    new.process.close_stdin();
    new.listen_to_the_end();
    wait_until("the old member owns everything", &mut [&mut returned], own_equal_shares);
    let total = send(500);
    wait_until("it reads and commits", &mut [&mut returned], |members| {
        have_read_and_committed(members, &[&old, &new], total)
    });
    returned.process.close_stdin();
    returned.listen_to_the_end();
    assert_read_once(&[&old, &new, &returned]);
    server.stop();
}

/// Every partition has one owner, and nobody has more than its share.
fn own_equal_shares(members: &[&Member]) -> bool {
    let mut owned: Vec<i32> = members.iter().flat_map(|member| member.assigned.clone()).collect();
    owned.sort_unstable();
    let share = usize::try_from(PARTITIONS).unwrap().div_ceil(members.len());
    owned.into_iter().eq(0..PARTITIONS) && members.iter().all(|member| member.assigned.len() <= share)
}

/// Every record was read by somebody, and the offset behind the last of each partition is committed.
fn have_read_and_committed(members: &[&Member], gone: &[&Member], total: usize) -> bool {
    let all = || members.iter().chain(gone);
    let read: BTreeSet<usize> =
        all().flat_map(|member| &member.records).map(|found| found.record.sequence()).collect();
    let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
    for found in all().flat_map(|member| &member.records) {
        let end = ends.entry(found.partition).or_default();
        *end = (*end).max(found.offset + 1);
    }
    let is_committed =
        |(partition, end): (&i32, &i64)| all().any(|member| member.committed.get(partition) == Some(end));
    read.len() == total && ends.iter().all(is_committed)
}

fn assert_read_once(members: &[&Member]) {
    let mut read: Vec<usize> =
        members.iter().flat_map(|member| &member.records).map(|found| found.record.sequence()).collect();
    read.sort_unstable();
    let count = read.len();
    read.dedup();
    assert_eq!(read.len(), count, "records were read twice");
}
