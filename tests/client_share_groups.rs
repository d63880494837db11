//! Share groups (KIP-932) with Java's share consumer: records are locked, accepted, released, rejected, and come again
//! when a lock ends; what was decided outlives the server; the tools see and move a group.

#![allow(clippy::disallowed_methods, reason = "the tests wait for other processes, in real time")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ChildStdin;
use std::time::{Duration, Instant};
use support::clients::{Client, java};
use support::modes::{Mode, unique};
use support::process::{PATIENCE, Process};
use support::records::records;
use support::server::{Options, Server};
use support::tools;

/// Longer than any test waits, so that a lock ends only where a test is about just that.
const LOCK_MS: &str = "60000";
/// A client on a busy machine can need seconds for a poll, and drops what it was sent when the lock has ended meanwhile.
const SHORT_LOCK_MS: &str = "10000";

fn options() -> Options {
    Mode::TwoShards
        .options()
        .set("group.share.heartbeat.interval.ms", "500")
        .set("group.share.session.timeout.ms", "6000")
        .set("group.share.assignment.interval.ms", "0")
        .set("group.share.record.lock.duration.ms", LOCK_MS)
        .set("share.coordinator.state.topic.num.partitions", "4")
}

/// A Java program that does what it is told, line by line.
struct Puppet {
    process: Process,
    stdin: ChildStdin,
}

impl Puppet {
    fn start(program: &str, args: &[&str]) -> Puppet {
        let mut command = java();
        command.args(["-Xmx256m", "-XX:+UseSerialGC", program]).args(args);
        let mut process = Process::spawn(format!("{program} {args:?}"), &mut command);
        let stdin = process.take_stdin();
        Puppet { process, stdin }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").and_then(|()| self.stdin.flush()).expect("the program listens");
    }

    fn hear(&mut self) -> String {
        self.process.next_line(Instant::now() + PATIENCE).expect("the program speaks")
    }
}

/// A member that polls and acknowledges when it is told to.
struct Member(Puppet);

/// A record as a poll brought it: offset and how often it has been delivered.
type Seen = BTreeMap<i64, i16>;

impl Member {
    fn join(server: &Server, group: &str, topic: &str, max_records: usize) -> Member {
        let max_records = max_records.to_string();
        Member(Puppet::start("ShareMember", &[server.bootstrap(), group, topic, &max_records]))
    }

    /// One poll.
    fn poll(&mut self, wait: Duration) -> Seen {
        self.0.tell(&format!("poll {}", wait.as_millis()));
        let mut seen = Seen::new();
        loop {
            let line = self.0.hear();
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["record", _, offset, deliveries] => {
                    let before = seen.insert(offset.parse().unwrap(), deliveries.parse().unwrap());
                    assert_eq!(before, None, "{line} came twice in one poll");
                }
                ["polled", count] => {
                    assert_eq!(count.parse(), Ok(seen.len()));
                    return seen;
                }
                _ => panic!("the member says {line:?}"),
            }
        }
    }

    /// Polls until there is something.
    fn poll_some(&mut self) -> Seen {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.poll(Duration::from_millis(500));
            if !seen.is_empty() {
                return seen;
            }
            assert!(Instant::now() < deadline, "nothing came");
        }
    }

    /// Polls until so many have come, and accepts each; the last ones' acknowledgements are still to be sent.
    fn accept_until(&mut self, count: usize) -> Seen {
        let mut came = Seen::new();
        while came.len() < count {
            let more = self.poll_some();
            self.say("accept", more.keys().copied());
            came.extend(more);
        }
        came
    }

    fn say(&mut self, what: &str, offsets: impl IntoIterator<Item = i64>) {
        offsets.into_iter().for_each(|offset| self.0.tell(&format!("{what} {offset}")));
    }

    fn commit(&mut self) -> String {
        self.0.tell("commit");
        self.0.hear()
    }

    fn leave(mut self) {
        self.0.tell("close");
        self.0.process.expect_success();
    }
}

fn produce(server: &Server, topic: &str, first: usize, count: usize) {
    let records = records(first, count);
    let acks = Client::Java.produce(server.bootstrap(), &[(topic.to_owned(), "none")], &records);
    assert_eq!((acks.failed.len(), acks.acked.len()), (0, count));
}

fn read_from_the_beginning(server: &Server, group: &str) {
    configure(server, group, "share.auto.offset.reset=earliest");
}

fn configure(server: &Server, group: &str, config: &str) {
    let alter = ["--alter", "--entity-type", "groups", "--entity-name", group, "--add-config", config];
    let args: Vec<&str> = ["--bootstrap-server", server.bootstrap()].into_iter().chain(alter).collect();
    tools::run("kafka.admin.ConfigCommand", &args);
}

fn seen(offsets: impl IntoIterator<Item = i64>, deliveries: i16) -> Seen {
    offsets.into_iter().map(|offset| (offset, deliveries)).collect()
}

/// That these came, each having been delivered so often; oftener if its member was too slow for a lock.
fn assert_came(came: &Seen, expected: impl IntoIterator<Item = (i64, i16)>) {
    let expected: Seen = expected.into_iter().collect();
    assert!(came.keys().eq(expected.keys()), "{came:?} came, not {expected:?}");
    assert!(
        came.values().zip(expected.values()).all(|(came, least)| came >= least),
        "{came:?} < {expected:?}"
    );
}

#[test]
fn records_are_accepted_released_rejected_and_come_again_when_their_lock_ends() {
    let mut server = Server::start(options().set("group.share.record.lock.duration.ms", SHORT_LOCK_MS));
    let (topic, group) = (unique("shared"), unique("share-group"));
    Client::Java.create(server.bootstrap(), std::slice::from_ref(&topic), 1, &[]);
    read_from_the_beginning(&server, &group);
    produce(&server, &topic, 0, 10);

    let mut first = Member::join(&server, &group, &topic, 100);
    assert_eq!(first.poll_some(), seen(0..10, 1));
    first.say("accept", 0..4);
    first.say("release", [4]);
    first.say("reject", [5]);
    assert_eq!(first.commit(), "committed");

    // What was released comes to another member, what is still locked when its lock ends. (Now and then the first one's
    // client has asked for more before it released; then that comes back to it, and to the other when this lock ends.)
    let mut second = Member::join(&server, &group, &topic, 100);
    assert_came(&second.accept_until(5), seen([4, 6, 7, 8, 9], 2));
    // The first member's locks are over, so its word does not count any more, and the second's does. (The client may or may
    // not send it, as it knows how long locks last.)
    first.say("accept", 6..10);
    first.commit();
    assert_eq!(second.commit(), "committed");
    produce(&server, &topic, 10, 1);
    assert_came(&second.poll_some(), [(10, 1)]);
    second.say("release", [10]);
    assert_eq!(second.commit(), "committed");

    server.kill_dash_nine();
    server.start_again();
    produce(&server, &topic, 11, 1);
    let mut third = Member::join(&server, &group, &topic, 100);
    // After the restart only what was not decided comes again.
    assert_came(&third.accept_until(2), [(10, 2), (11, 1)]);
    assert_eq!(third.commit(), "committed");
    assert!(third.poll(Duration::from_secs(1)).is_empty());
    third.leave();
    server.stop();
}

#[test]
fn a_record_that_was_delivered_too_often_comes_no_more_and_a_killed_members_records_come_at_once() {
    let server = Server::start(options().set("group.share.delivery.count.limit", "2"));
    let (topic, group) = (unique("worn"), unique("share-group"));
    Client::Java.create(server.bootstrap(), std::slice::from_ref(&topic), 1, &[]);
    read_from_the_beginning(&server, &group);
    produce(&server, &topic, 0, 3);
    let mut first = Member::join(&server, &group, &topic, 100);
    assert_eq!(first.poll_some(), seen(0..3, 1));
    let mut second = Member::join(&server, &group, &topic, 100);
    assert!(second.poll(Duration::from_millis(500)).is_empty(), "locked records came to another member");
    first.0.process.kill_dash_nine();
    assert_eq!(second.poll_some(), seen(0..3, 2));
    second.say("release", 0..3);
    assert_eq!(second.commit(), "committed");
    produce(&server, &topic, 3, 1);
    assert_eq!(second.poll_some(), seen([3], 1));
    second.say("accept", [3]);
    second.leave();
}

#[test]
fn members_share_partitions_and_every_record_is_accepted_once() {
    let server = Server::start(options());
    let (topic, group) = (unique("spread"), unique("share-group"));
    Client::Java.create(server.bootstrap(), std::slice::from_ref(&topic), 1, &[]);
    read_from_the_beginning(&server, &group);
    let mut members: Vec<Member> = (0..3).map(|_| Member::join(&server, &group, &topic, 50)).collect();
    for batch in 0..20 {
        produce(&server, &topic, batch * 50, 50);
    }
    let mut accepted = BTreeSet::new();
    let mut had: Vec<usize> = vec![0; members.len()];
    let deadline = Instant::now() + PATIENCE;
    while accepted.len() < 1_000 {
        assert!(Instant::now() < deadline, "{} records came", accepted.len());
        for (member, had) in members.iter_mut().zip(&mut had) {
            let records = member.poll(Duration::from_millis(100));
            if records.is_empty() {
                continue;
            }
            assert!(records.values().all(|deliveries| *deliveries == 1));
            member.say("accept", records.keys().copied());
            assert_eq!(member.commit(), "committed");
            *had += records.len();
            records.keys().for_each(|offset| assert!(accepted.insert(*offset), "{offset} came twice"));
        }
    }
    assert!(had.iter().all(|count| *count > 0), "a member had nothing: {had:?}");
    members.into_iter().for_each(Member::leave);
}

/// A producer that writes transactions as it is told.
struct Transactor(Puppet);

impl Transactor {
    fn start(server: &Server) -> Transactor {
        Transactor(Puppet::start("Transactor", &[server.bootstrap(), &unique("transactor")]))
    }

    fn tell(&mut self, line: &str) {
        self.0.tell(line);
        assert_eq!(self.0.hear(), "done", "{line}");
    }

    fn leave(self) {
        let Puppet { mut process, stdin } = self.0;
        drop(stdin);
        process.expect_success();
    }
}

#[test]
fn a_share_group_gets_what_is_committed_or_everything_as_its_isolation_level_says() {
    let mut server = Server::start(options());
    let (topic, committed, everything) = (unique("isolated"), unique("committed"), unique("everything"));
    Client::Java.create(server.bootstrap(), std::slice::from_ref(&topic), 1, &[]);
    configure(&server, &committed, "share.auto.offset.reset=earliest,share.isolation.level=read_committed");
    read_from_the_beginning(&server, &everything);
    let mut transactor = Transactor::start(&server);
    transactor.tell("begin");
    transactor.tell(&format!("send {topic} 3")); // 0, 1, 2
    transactor.tell("abort"); // 3
    transactor.tell("begin");
    transactor.tell(&format!("send {topic} 2")); // 4, 5
    produce(&server, &topic, 0, 1); // 6
    let mut member = Member::join(&server, &committed, &topic, 100);
    for _ in 0..4 {
        assert_eq!(member.poll(Duration::from_secs(1)), Seen::new(), "of an open or aborted transaction");
    }
    transactor.tell("commit"); // 7
    assert_eq!(member.accept_until(3), seen(4..7, 1));
    assert_eq!(member.commit(), "committed");
    member.leave();
    let mut member = Member::join(&server, &everything, &topic, 100);
    assert_eq!(member.accept_until(6), seen([0, 1, 2, 4, 5, 6], 1));
    member.leave();
    transactor.leave();
    server.stop();
}

#[test]
fn the_tools_describe_a_share_group_and_move_and_delete_its_offsets() {
    let server = Server::start(options());
    let (topic, group) = (unique("moved"), unique("share-group"));
    Client::Java.create(server.bootstrap(), std::slice::from_ref(&topic), 1, &[]);
    read_from_the_beginning(&server, &group);
    produce(&server, &topic, 0, 6);
    let mut member = Member::join(&server, &group, &topic, 100);
    assert_eq!(member.poll_some(), seen(0..6, 1));
    member.say("accept", 0..6);
    assert_eq!(member.commit(), "committed");
    let share_groups = |args: &[&str]| -> String {
        let all: Vec<&str> =
            ["--bootstrap-server", server.bootstrap()].into_iter().chain(args.iter().copied()).collect();
        tools::run("org.apache.kafka.tools.consumer.group.ShareGroupCommand", &all).join("\n")
    };
    assert!(share_groups(&["--list"]).contains(&group));
    let state = share_groups(&["--describe", "--group", &group, "--state"]);
    assert!(state.contains("Stable"), "{state}");
    member.leave();
    let offsets = share_groups(&["--describe", "--group", &group, "--offsets"]);
    let line = offsets.lines().find(|line| line.contains(&topic)).unwrap_or_default();
    let start_and_lag: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(start_and_lag, ["6", "0"], "{offsets}");
    let reset = ["--reset-offsets", "--group", &group, "--topic", &topic, "--to-earliest", "--execute"];
    share_groups(&reset);
    let mut member = Member::join(&server, &group, &topic, 100);
    assert_eq!(member.poll_some(), seen(0..6, 1));
    member.say("accept", 0..6);
    member.leave();
    share_groups(&["--delete-offsets", "--group", &group, "--topic", &topic]);
    let offsets = share_groups(&["--describe", "--group", &group, "--offsets"]);
    assert!(!offsets.contains(&topic), "{offsets}");
    share_groups(&["--delete", "--group", &group]);
    assert!(!share_groups(&["--list"]).contains(&group));
}
