//! Every call of Java's Admin that makes sense for one node, by the same program (tests/clients/java/AdminSweep.java)
//! against Apache Kafka and LogStreams: the answers are the same but for what is listed here, with the reason.

mod support;

use std::collections::BTreeMap;
use std::thread;

use support::clients::java;
use support::process;
use support::server::{Options, Program, Server};

/// What LogStreams answers otherwise, by reason.
const DIFFERENT: [(&str, &[&str]); 9] = [
    (
        "features of what is not here: replicas, a controller quorum, Streams groups",
        &["describeFeatures finalized", "describeStreamsGroups of none"],
    ),
    (
        "defaults of our own: a sync each second, retention as one number, partitions that can be set while running",
        &[
            "describeConfigs of a topic: flush.ms",
            "describeConfigs afterwards: flush.ms",
            "describeConfigs of a broker",
        ],
    ),
    (
        "a config of our own",
        &["describeConfigs of a topic: write.path", "describeConfigs afterwards: write.path"],
    ),
    (
        "tiered storage is not here",
        &[
            "describeConfigs of a topic: local.retention.bytes",
            "describeConfigs of a topic: local.retention.ms",
            "describeConfigs of a topic: remote.log.copy.disable",
            "describeConfigs of a topic: remote.log.delete.on.disable",
            "describeConfigs of a topic: remote.storage.enable",
            "describeConfigs afterwards: local.retention.bytes",
            "describeConfigs afterwards: local.retention.ms",
            "describeConfigs afterwards: remote.log.copy.disable",
            "describeConfigs afterwards: remote.log.delete.on.disable",
            "describeConfigs afterwards: remote.storage.enable",
        ],
    ),
    (
        "Kafka sets it for the whole cluster when it makes one; here it is a default",
        &[
            "describeConfigs of a topic: min.insync.replicas",
            "describeConfigs afterwards: min.insync.replicas",
        ],
    ),
    (
        "Streams groups are not here yet",
        &[
            "describeConfigs of a group: streams.assignment.interval.ms",
            "describeConfigs of a group: streams.heartbeat.interval.ms",
            "describeConfigs of a group: streams.initial.rebalance.delay.ms",
            "describeConfigs of a group: streams.num.standby.replicas",
            "describeConfigs of a group: streams.session.timeout.ms",
        ],
    ),
    ("compaction is not here yet", &["incrementalAlterConfigs APPEND"]),
    (
        "one node has one directory and nowhere to move to",
        &[
            "alterReplicaLogDirs to nowhere",
            "alterPartitionReassignments to itself",
            "alterPartitionReassignments to nowhere",
            "alterPartitionReassignments back",
            "alterPartitionReassignments of none",
            "unregisterBroker",
        ],
    ),
    (
        "quotas and security are not here yet",
        &[
            "createDelegationToken",
            "describeDelegationToken",
            "expireDelegationToken",
            "renewDelegationToken",
            "alterClientQuotas",
            "alterUserScramCredentials",
        ],
    ),
];

fn sweep(program: Program) -> BTreeMap<String, String> {
    let options = Options::default()
        .set("transaction.state.log.num.partitions", "4")
        .set("offsets.topic.num.partitions", "4")
        .set("share.coordinator.state.topic.num.partitions", "4");
    let server = Server::start_program(program, options);
    let mut command = java();
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "AdminSweep", server.bootstrap()]);
    let lines = process::run(format!("AdminSweep of {program:?}"), &mut command, Vec::new());
    let answers = lines.iter().map(|line| line.split_once('\t').expect("a step and its answer"));
    answers.map(|(step, answer)| (step.to_owned(), answer.to_owned())).collect()
}

#[test]
fn javas_admin_is_answered_as_by_kafka() {
    let (kafka, ours) = thread::scope(|scope| {
        let kafka = scope.spawn(|| sweep(Program::Kafka));
        let ours = sweep(Program::LogStreams);
        (kafka.join().expect("Kafka was swept"), ours)
    });
    assert!(kafka.len() > 150, "Kafka answered {} steps only: {kafka:#?}", kafka.len());
    let mut may_differ: Vec<&str> = DIFFERENT.iter().flat_map(|(_, steps)| *steps).copied().collect();
    let mut wrong = Vec::new();
    for step in kafka.keys().chain(ours.keys().filter(|step| !kafka.contains_key(*step))) {
        if kafka.get(step) == ours.get(step) {
            continue;
        }
        match may_differ.iter().position(|known| known == step) {
            Some(index) => drop(may_differ.swap_remove(index)),
            None => {
                wrong.push(format!("{step}\n  Kafka:  {:?}\n  we say: {:?}", kafka.get(step), ours.get(step)))
            }
        }
    }
    assert!(wrong.is_empty(), "{} answers differ\n{}", wrong.len(), wrong.join("\n"));
    assert!(may_differ.is_empty(), "these do not differ any more: {may_differ:?}");
}
