//! The administrative calls of every stock client that has them. The clients check the answers themselves; here we
//! check that none of them left a step out.

mod support;

use support::clients::Client;
use support::modes::{Mode, for_every_mode_and_client, unique};

for_every_mode_and_client!(administers_topics_and_groups, crate::administers_topics_and_groups);

/// Every step that some client takes, and the clients whose interface does not offer it.
const STEPS: [(&str, &[Client]); 15] = [
    ("describe-cluster", &[]),
    ("create-topic", &[]),
    ("describe-topic", &[]),
    ("create-partitions", &[]),
    ("alter-configs", &[]),
    ("idempotent-produce", &[]),
    ("describe-producers", &[Client::ConfluentKafka, Client::Aiokafka, Client::KafkaJs, Client::Sarama]),
    ("list-offsets", &[]),
    ("delete-records", &[]),
    ("describe-log-dirs", &[Client::ConfluentKafka, Client::Aiokafka, Client::KafkaJs]),
    ("describe-group", &[]),
    ("list-groups", &[]),
    ("group-offsets", &[]),
    ("delete-group", &[Client::Aiokafka]),
    ("delete-topic", &[]),
];

fn administers_topics_and_groups(mode: Mode, client: Client) {
    let server = mode.shared();
    let steps = client.admin(server.bootstrap(), &unique("admin"));
    let expected: Vec<&str> =
        STEPS.iter().filter(|(_, lacking)| !lacking.contains(&client)).map(|&(step, _)| step).collect();
    assert_eq!(steps, expected);
}
