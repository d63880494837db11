//! Who leads what: one immutable view, replaced by a refresher thread whenever a client met a broker that disagrees.
//!
//! Clients read the view without waiting for anyone: they keep an `Arc` and look at a version number.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::protocol::StrBytes;

use crate::control::Control;

/// Metadata is asked for at most this often.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);
/// How long a new topic may take until every partition has a leader.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(30);
const LEADERS_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A topic's id on the wire from Produce 13 and Fetch 13 on; nil if the broker gives none.
pub type TopicId = uuid::Uuid;

/// A topic of a run. Its partitions are numbered on from those of the topic before it, so a run knows partitions by one
/// number, their index.
#[derive(Clone, Debug)]
pub struct Topic {
    pub name: String,
    pub id: TopicId,
    pub first_partition: usize,
    pub partition_count: usize,
}

/// One answer to Metadata, reduced to what routing needs.
#[derive(Clone, Debug)]
pub struct View {
    pub topics: Vec<Topic>,
    /// Leading node of each partition by index; `None` while there is none.
    pub leaders: Vec<Option<i32>>,
    /// `host:port` of each node.
    pub addresses: HashMap<i32, String>,
    by_name: HashMap<String, usize>,
    by_id: HashMap<TopicId, usize>,
}

impl View {
    /// Reduces a reply about `names`. Partitions that `before` does not have are left out, so that indexes stay.
    ///
    /// # Errors
    /// A topic's error code, or a reply that makes no sense.
    pub fn new(response: &MetadataResponse, names: &[String], before: Option<&Self>) -> Result<Self> {
        let found: HashMap<&str, &MetadataResponseTopic> = response
            .topics
            .iter()
            .filter_map(|topic| topic.name.as_ref().map(|name| (name.as_str(), topic)))
            .collect();
        let addresses = response.brokers.iter().map(|broker| {
            let host = broker.host.as_str();
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
            (broker.node_id.0, format!("{host}:{}", broker.port))
        });
        let mut view = Self {
            topics: Vec::with_capacity(names.len()),
            leaders: Vec::new(),
            addresses: addresses.collect(),
            by_name: HashMap::new(),
            by_id: HashMap::new(),
        };
        for (topic_index, name) in names.iter().enumerate() {
            let found = found.get(name.as_str()).context("Metadata answered without the topic")?;
            if let Some(error) = found.error_code.err() {
                return Err(anyhow::Error::from(error).context(format!("metadata of topic {name}")));
            }
            let first_partition = view.leaders.len();
            let partition_count =
                before.map_or(found.partitions.len(), |before| before.topics[topic_index].partition_count);
            view.leaders.resize(first_partition + partition_count, None);
            for partition in &found.partitions {
                let index = usize::try_from(partition.partition_index).context("a negative partition")?;
                if index < partition_count {
                    view.leaders[first_partition + index] =
                        Some(partition.leader_id.0).filter(|&leader| leader >= 0);
                } else {
                    ensure!(before.is_some(), "partition {index} of {partition_count}");
                }
            }
            view.by_name.insert(name.clone(), topic_index);
            view.by_id.insert(found.topic_id, topic_index);
            view.topics.push(Topic {
                name: name.clone(),
                id: found.topic_id,
                first_partition,
                partition_count,
            });
        }
        Ok(view)
    }

    /// The node and address that lead a partition.
    pub fn leader(&self, partition: usize) -> Option<(i32, &str)> {
        let node = self.leaders.get(partition).copied().flatten()?;
        Some((node, self.addresses.get(&node)?))
    }

    /// The topic's index and the number within the topic of the partition with this index.
    pub fn place_of(&self, partition: usize) -> (usize, usize) {
        let topic = self.topics.partition_point(|topic| topic.first_partition <= partition) - 1;
        (topic, partition - self.topics[topic].first_partition)
    }

    /// A partition's index, found by its topic's name or, if that is empty, by its id.
    pub fn index_of(&self, name: &str, id: TopicId, number: i32) -> Option<usize> {
        let topic = if name.is_empty() { self.by_id.get(&id) } else { self.by_name.get(name) };
        let topic = &self.topics[*topic?];
        let number = usize::try_from(number).ok().filter(|&number| number < topic.partition_count)?;
        Some(topic.first_partition + number)
    }

    /// `TOPIC-PARTITION`, for messages.
    pub fn name_of(&self, partition: usize) -> String {
        let (topic, number) = self.place_of(partition);
        format!("{}-{number}", self.topics[topic].name)
    }

    /// First partition and number of partitions of each topic.
    pub fn spans(&self) -> Vec<(usize, usize)> {
        self.topics.iter().map(|topic| (topic.first_partition, topic.partition_count)).collect()
    }

    fn is_complete(&self) -> bool {
        self.topics.iter().all(|topic| topic.partition_count > 0)
            && (0..self.leaders.len()).all(|partition| self.leader(partition).is_some())
    }
}

/// How to make the topics, if they must be made.
pub struct TopicPlan {
    pub names: Vec<String>,
    /// `None`: the topics must exist.
    pub partitions: Option<i32>,
    pub replication: i16,
    pub configs: Vec<(String, String)>,
}

/// Finds the topics, or creates what is missing and waits for the leaders. Tells how many partitions there are on standard
/// error if they are not as many as planned.
///
/// # Errors
/// If one is missing and no number of partitions is given, or the leaders do not come.
pub fn ensure_topics(control: &mut Control, plan: &TopicPlan) -> Result<View> {
    let deadline = Instant::now() + LEADERS_TIMEOUT;
    let mut created = false;
    loop {
        let response = control.metadata(&plan.names)?;
        match View::new(&response, &plan.names, None) {
            Ok(view) if view.is_complete() => {
                let planned = plan.partitions.and_then(|planned| usize::try_from(planned).ok());
                let other = view.topics.iter().find(|topic| Some(topic.partition_count) != planned);
                if let (Some(_), Some(topic)) = (planned, other) {
                    let (name, count) = (&topic.name, topic.partition_count);
                    eprintln!("topic {name} exists with {count} partitions; using those");
                }
                return Ok(view);
            }
            Ok(_) => {}
            Err(error) if !is_missing(&error) => return Err(error),
            Err(_) if created => {}
            Err(error) => {
                let Some(partitions) = plan.partitions else {
                    return Err(error.context("give --partitions to create it"));
                };
                control.create_topics(
                    &missing(&response, plan),
                    partitions,
                    plan.replication,
                    &plan.configs,
                )?;
                created = true;
            }
        }
        if Instant::now() > deadline {
            bail!("not every partition has a leader after {LEADERS_TIMEOUT:?}");
        }
        thread::sleep(LEADERS_POLL_INTERVAL);
    }
}

/// The topics that a reply says are not there.
fn missing(response: &MetadataResponse, plan: &TopicPlan) -> Vec<String> {
    let known: HashSet<&str> = response
        .topics
        .iter()
        .filter(|topic| topic.error_code.err().is_none())
        .filter_map(|topic| topic.name.as_ref().map(|name| name.as_str()))
        .collect();
    plan.names.iter().filter(|name| !known.contains(name.as_str())).cloned().collect()
}

fn is_missing(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<ResponseError>()
        .is_some_and(|error| matches!(error, ResponseError::UnknownTopicOrPartition))
}

/// The current view, shared by all clients of a run.
pub struct Cluster {
    current: Mutex<Arc<View>>,
    version: AtomicU64,
    wanted: Sender<()>,
}

impl Cluster {
    /// Starts the refresher, which lives as long as the process.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(view: View, bootstrap: String) -> Result<Arc<Self>> {
        let (wanted, requests) = channel();
        let cluster =
            Arc::new(Self { current: Mutex::new(Arc::new(view)), version: AtomicU64::new(1), wanted });
        let refreshed = Arc::downgrade(&cluster);
        thread::Builder::new().name("metadata".to_string()).spawn(move || {
            let mut control = None;
            while next_request(&requests) {
                let Some(cluster) = refreshed.upgrade() else { return };
                match refresh(&mut control, &bootstrap, &cluster) {
                    Ok(view) => cluster.publish(view),
                    Err(_) => control = None, // The broker may be restarting; who asked will ask again.
                }
                thread::sleep(REFRESH_INTERVAL);
            }
        })?;
        Ok(cluster)
    }

    /// Counts the views; a client compares it with the one it has.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The newest view.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.current.lock().expect("no panic under this lock"))
    }

    /// Asks for a new view some time soon.
    pub fn request_refresh(&self) {
        let _ = self.wanted.send(()); // Gone only at the end of the process.
    }

    fn publish(&self, view: View) {
        *self.current.lock().expect("no panic under this lock") = Arc::new(view);
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// Waits for a request and takes all that came meanwhile with it.
fn next_request(requests: &Receiver<()>) -> bool {
    let received = requests.recv().is_ok();
    while requests.try_recv().is_ok() {}
    received
}

fn refresh(control: &mut Option<Control>, bootstrap: &str, cluster: &Cluster) -> Result<View> {
    let before = cluster.view();
    let control = match control {
        Some(control) => control,
        None => {
            // Any node of the last view will do when the bootstrap ones are gone.
            let fresh = Control::bootstrap(bootstrap).or_else(|error| {
                before.addresses.values().find_map(|address| Control::connect(address).ok()).ok_or(error)
            })?;
            control.insert(fresh)
        }
    };
    let names: Vec<String> = before.topics.iter().map(|topic| topic.name.clone()).collect();
    View::new(&control.metadata(&names)?, &names, Some(&before))
}

/// Addresses of all nodes that lead a partition, with the indexes of the partitions of each, ascending.
pub fn partitions_by_leader(view: &View) -> HashMap<String, Vec<usize>> {
    let mut by_leader: HashMap<String, Vec<usize>> = HashMap::new();
    for partition in 0..view.leaders.len() {
        if let Some((_, address)) = view.leader(partition) {
            by_leader.entry(address.to_string()).or_default().push(partition);
        }
    }
    by_leader
}

/// Says whether an error goes away by asking the right broker or by waiting.
pub fn is_transient(error: &ResponseError) -> bool {
    error.is_retriable()
        || matches!(
            error,
            ResponseError::NotLeaderOrFollower
                | ResponseError::UnknownTopicOrPartition
                | ResponseError::UnknownTopicId
                | ResponseError::LeaderNotAvailable
                | ResponseError::FencedLeaderEpoch
                | ResponseError::UnknownLeaderEpoch
        )
}

/// An error for people: the code's name without the protocol's shouting.
pub fn message_of(error: &ResponseError, detail: Option<&StrBytes>) -> String {
    match detail.map(StrBytes::as_str).filter(|detail| !detail.is_empty()) {
        Some(detail) => format!("{error}: {detail}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::{BrokerId, MetadataResponse};
    use kafka_protocol::protocol::StrBytes;

    use super::{TopicId, View};
    use crate::control::topic_name;

    fn response(topics: &[(&str, u8, i32)]) -> MetadataResponse {
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_static_str("::1"))
            .with_port(9092);
        let topics = topics.iter().map(|&(name, id, partitions)| {
            let partitions = (0..partitions).map(|index| {
                MetadataResponsePartition::default().with_partition_index(index).with_leader_id(BrokerId(1))
            });
            MetadataResponseTopic::default()
                .with_name(Some(topic_name(name)))
                .with_topic_id(TopicId::from_bytes([id; 16]))
                .with_partitions(partitions.collect())
        });
        MetadataResponse::default().with_brokers(vec![broker]).with_topics(topics.collect())
    }

    #[test]
    fn partitions_of_many_topics_have_one_numbering_that_stays() {
        let names = ["a".to_string(), "b".to_string()];
        // Brokers answer in any order.
        let view = View::new(&response(&[("b", 2, 3), ("a", 1, 2)]), &names, None).expect("sound");
        assert_eq!(view.leaders.len(), 5);
        assert_eq!((view.place_of(1), view.place_of(2), view.place_of(4)), ((0, 1), (1, 0), (1, 2)));
        assert_eq!(view.name_of(4), "b-2");
        assert_eq!(view.index_of("b", TopicId::nil(), 2), Some(4));
        assert_eq!(view.index_of("", TopicId::from_bytes([2; 16]), 0), Some(2));
        assert_eq!(view.index_of("b", TopicId::nil(), 3), None);
        assert_eq!(view.leader(0), Some((1, "[::1]:9092")));
        let grown = View::new(&response(&[("a", 1, 9), ("b", 2, 3)]), &names, Some(&view)).expect("sound");
        assert_eq!((grown.leaders.len(), grown.name_of(2)), (5, "b-0".to_string()));
    }
}
