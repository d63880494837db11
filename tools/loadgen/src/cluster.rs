//! Who leads what: one immutable view, replaced by a refresher thread whenever a client met a broker that disagrees.
//!
//! Clients read the view without waiting for anyone: they keep an `Arc` and look at a version number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::protocol::StrBytes;

use crate::control::Control;

/// Metadata is asked for at most this often.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);
/// How long a new topic may take until every partition has a leader.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(30);

/// A topic's id on the wire from Produce 13 and Fetch 13 on; nil if the broker gives none.
pub type TopicId = uuid::Uuid;

/// One answer to Metadata, reduced to what routing needs.
#[derive(Clone, Debug)]
pub struct View {
    pub topic_id: TopicId,
    /// Leading node of each partition by index; `None` while there is none.
    pub leaders: Vec<Option<i32>>,
    /// `host:port` of each node.
    pub addresses: HashMap<i32, String>,
}

impl View {
    /// Reduces a reply about `topic`.
    ///
    /// # Errors
    /// The topic's error code, or a reply that makes no sense.
    pub fn new(response: &MetadataResponse, topic: &str) -> Result<Self> {
        let found = response.topics.first().context("Metadata answered without the topic")?;
        if let Some(error) = found.error_code.err() {
            return Err(anyhow::Error::from(error).context(format!("metadata of topic {topic}")));
        }
        let mut leaders = vec![None; found.partitions.len()];
        for partition in &found.partitions {
            let index = usize::try_from(partition.partition_index).context("a negative partition")?;
            ensure!(index < leaders.len(), "partition {index} of {}", leaders.len());
            leaders[index] = Some(partition.leader_id.0).filter(|&leader| leader >= 0);
        }
        let addresses = response.brokers.iter().map(|broker| {
            let host = broker.host.as_str();
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
            (broker.node_id.0, format!("{host}:{}", broker.port))
        });
        Ok(Self { topic_id: found.topic_id, leaders, addresses: addresses.collect() })
    }

    /// The node and address that lead a partition.
    pub fn leader(&self, partition: usize) -> Option<(i32, &str)> {
        let node = self.leaders.get(partition).copied().flatten()?;
        Some((node, self.addresses.get(&node)?))
    }

    fn is_complete(&self) -> bool {
        !self.leaders.is_empty() && (0..self.leaders.len()).all(|partition| self.leader(partition).is_some())
    }
}

/// How to make the topic, if it must be made.
pub struct TopicPlan {
    pub name: String,
    /// `None`: the topic must exist.
    pub partitions: Option<i32>,
    pub replication: i16,
    pub configs: Vec<(String, String)>,
}

/// Finds the topic, or creates it and waits for its leaders. Tells how many partitions it has on standard error if they
/// are not as many as planned.
///
/// # Errors
/// If it is missing and no number of partitions is given, or the leaders do not come.
pub fn ensure_topic(control: &mut Control, plan: &TopicPlan) -> Result<View> {
    let deadline = Instant::now() + LEADERS_TIMEOUT;
    let mut created = false;
    loop {
        match View::new(&control.metadata(&plan.name)?, &plan.name) {
            Ok(view) if view.is_complete() => {
                let count = view.leaders.len();
                if plan.partitions.is_some_and(|planned| usize::try_from(planned) != Ok(count)) {
                    eprintln!("topic {} exists with {count} partitions; using those", plan.name);
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
                control.create_topic(&plan.name, partitions, plan.replication, &plan.configs)?;
                created = true;
            }
        }
        if Instant::now() > deadline {
            bail!("topic {} has no leader for every partition after {LEADERS_TIMEOUT:?}", plan.name);
        }
        thread::sleep(Duration::from_millis(50));
    }
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
    pub fn start(view: View, bootstrap: String, topic: String) -> Result<Arc<Self>> {
        let (wanted, requests) = channel();
        let cluster =
            Arc::new(Self { current: Mutex::new(Arc::new(view)), version: AtomicU64::new(1), wanted });
        let refreshed = Arc::downgrade(&cluster);
        thread::Builder::new().name("metadata".to_string()).spawn(move || {
            let mut control = None;
            while next_request(&requests) {
                let Some(cluster) = refreshed.upgrade() else { return };
                match refresh(&mut control, &bootstrap, &cluster, &topic) {
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

fn refresh(control: &mut Option<Control>, bootstrap: &str, cluster: &Cluster, topic: &str) -> Result<View> {
    let control = match control {
        Some(control) => control,
        None => {
            // Any node of the last view will do when the bootstrap ones are gone.
            let fresh = Control::bootstrap(bootstrap).or_else(|error| {
                let view = cluster.view();
                view.addresses.values().find_map(|address| Control::connect(address).ok()).ok_or(error)
            })?;
            control.insert(fresh)
        }
    };
    View::new(&control.metadata(topic)?, topic)
}

/// Addresses of all nodes that lead a partition, with the partitions of each.
pub fn partitions_by_leader(view: &View) -> HashMap<String, Vec<i32>> {
    let mut by_leader: HashMap<String, Vec<i32>> = HashMap::new();
    for partition in 0..view.leaders.len() {
        if let (Some((_, address)), Ok(index)) = (view.leader(partition), i32::try_from(partition)) {
            by_leader.entry(address.to_string()).or_default().push(index);
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
