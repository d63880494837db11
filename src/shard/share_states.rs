//! The share coordinators of this shard: one for each partition of `__share_group_state` that it owns.
//!
//! Carries out what the state machine asks for: records into the partition, and an answer when they are there.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use super::request::{ShareStateReply, ShareStateRequest};
use super::state_log::{self, StateEntry, StateLog};
use super::{Shard, ShardReply};
use crate::base::clock;
use crate::coordinator::group::StateRecord;
use crate::coordinator::share_states::ShareStates;
use crate::metadata::ClusterImage;
use crate::model::share::{ShareError, ShareKey};
use crate::model::{PartitionIndex, SHARE_GROUP_STATE_TOPIC, ShardId};
use crate::partition::Partition;
use crate::runtime::local::oneshot;
use crate::runtime::spawn_detached;

/// The share coordinators of one shard, by partition of the state topic.
#[derive(Default)]
pub(super) struct ShareCoordinators {
    hosts: RefCell<BTreeMap<PartitionIndex, Rc<ShareStateHost>>>,
}

struct ShareStateHost {
    log: StateLog,
    states: RefCell<ShareStates>,
    is_loaded: Cell<bool>,
}

/// Which partition of the state topic keeps `key`, and which shard owns that.
pub(super) fn state_owner(image: &ClusterImage, key: &ShareKey) -> Option<(PartitionIndex, ShardId)> {
    let topic = image.topic(SHARE_GROUP_STATE_TOPIC)?;
    let partition = key.state_partition(PartitionIndex::try_from(topic.partitions.len()).ok()?);
    Some((partition, topic.owner(partition)?))
}

impl Shard {
    /// Begins a request to the share coordinators: what it changes counts in the order of the calls, the future answers
    /// when it is in the log.
    pub(super) fn begin_share_state(
        self: &Rc<Self>,
        request: ShareStateRequest,
    ) -> Pin<Box<dyn Future<Output = ShardReply>>> {
        let now_ms = clock::now_ms();
        let answer = |reply| -> Pin<Box<dyn Future<Output = ShardReply>>> {
            Box::pin(async move { ShardReply::ShareState(reply) })
        };
        match request {
            ShareStateRequest::Read(key) => {
                let found = self.share_host_of(&key).map(|host| host.states.borrow().get(&key).cloned());
                answer(ShareStateReply::State(found))
            }
            ShareStateRequest::List { group_id } => {
                let mut listed = Vec::new();
                for host in self.share_coordinators.hosts.borrow().values() {
                    let states = host.states.borrow();
                    listed
                        .extend(states.of_group(&group_id).map(|(key, state)| (key.clone(), state.clone())));
                }
                answer(ShareStateReply::Listed(listed))
            }
            ShareStateRequest::Initialize { key, start_offset } => {
                let host = match self.share_host_of(&key) {
                    Ok(host) => host,
                    Err(error) => return answer(ShareStateReply::State(Err(error))),
                };
                let record = host.states.borrow_mut().initialize(&key, start_offset, now_ms);
                let state = host.states.borrow().get(&key).cloned();
                let stored = self.append_share_state(&host, vec![record]);
                Box::pin(async move {
                    ShardReply::ShareState(ShareStateReply::State(stored.await.map(|()| state)))
                })
            }
            ShareStateRequest::Write { key, state_epoch, start_offset, batches } => {
                let host = match self.share_host_of(&key) {
                    Ok(host) => host,
                    Err(error) => return answer(ShareStateReply::Written(Err(error))),
                };
                let written =
                    host.states.borrow_mut().write(&key, state_epoch, start_offset, &batches, now_ms);
                let Some(record) = written else {
                    return answer(ShareStateReply::Written(Err(ShareError::FencedStateEpoch)));
                };
                let stored = self.append_share_state(&host, vec![record]);
                Box::pin(async move { ShardReply::ShareState(ShareStateReply::Written(stored.await)) })
            }
            ShareStateRequest::Forget { keys } => self.forget_share_states(move |key| keys.contains(key)),
            ShareStateRequest::ForgetGroup { group_id } => {
                self.forget_share_states(move |key| key.group_id == group_id)
            }
        }
    }

    fn forget_share_states(
        self: &Rc<Self>,
        is_forgotten: impl Fn(&ShareKey) -> bool,
    ) -> Pin<Box<dyn Future<Output = ShardReply>>> {
        let hosts: Vec<_> = self.share_coordinators.hosts.borrow().values().cloned().collect();
        let mut appends = Vec::new();
        for host in hosts {
            let records = host.states.borrow_mut().forget(&is_forgotten);
            if !records.is_empty() {
                appends.push(self.append_share_state(&host, records));
            }
        }
        Box::pin(async move {
            let mut written = Ok(());
            for append in appends {
                written = written.and(append.await);
            }
            ShardReply::ShareState(ShareStateReply::Written(written))
        })
    }

    /// Forgets what share groups had read of topics that are gone.
    pub(super) fn forget_shares_of_missing_topics(self: &Rc<Self>, image: &ClusterImage) {
        let forgotten = self.forget_share_states(|key| image.topic_by_id(key.topic_id).is_none());
        spawn_detached(async move {
            forgotten.await;
        });
    }

    fn share_host_of(&self, key: &ShareKey) -> Result<Rc<ShareStateHost>, ShareError> {
        let (partition, _) = state_owner(&self.image(), key).ok_or(ShareError::StateNotAvailable)?;
        let host = self.share_coordinators.hosts.borrow().get(&partition).cloned();
        host.filter(|host| host.is_loaded.get()).ok_or(ShareError::StateNotAvailable)
    }

    /// The place in line is taken now.
    fn append_share_state(
        self: &Rc<Self>,
        host: &Rc<ShareStateHost>,
        records: Vec<StateRecord>,
    ) -> impl Future<Output = Result<(), ShareError>> + 'static {
        self.flusher.touch(host.log.partition().topic_partition());
        let records = records.into_iter().map(|record| (Some(record.key), record.value));
        let appending = host.log.append(records, None);
        let host = host.clone();
        let (answer, awaited) = oneshot();
        // A client that goes away does not stop it.
        spawn_detached(async move {
            let appended = appending.await;
            if let Err(error) = &appended {
                tracing::error!(partition = %host.log.partition().topic_partition(), %error, "cannot store share group state");
            }
            answer.give(appended.map(|_| ()).map_err(|_| ShareError::StateNotAvailable));
            rewrite_if_grown(&host).await;
        });
        async move { awaited.await.unwrap_or(Err(ShareError::StateNotAvailable)) }
    }

    /// Begins to keep the states of a partition of the state topic that has just been opened.
    pub(super) async fn load_share_states(self: &Rc<Self>, partition: Rc<Partition>) {
        let index = partition.topic_partition().partition;
        let mut states = ShareStates::default();
        let replayed = state_log::replay(&partition, |entry| {
            if let StateEntry::Record { key: Some(key), value, .. } = entry
                && let Err(error) = states.replay(key, value)
            {
                tracing::error!(partition = %partition.topic_partition(), %error, "a record of share group state is skipped");
            }
        })
        .await;
        if let Err(error) = replayed {
            tracing::error!(partition = %partition.topic_partition(), %error, "cannot load share group state");
        }
        let host = ShareStateHost {
            log: StateLog::new(partition),
            states: RefCell::new(states),
            is_loaded: Cell::new(true),
        };
        self.share_coordinators.hosts.borrow_mut().insert(index, Rc::new(host));
    }

    /// Keeps no state any more, because the server stops.
    pub(super) fn close_share_states(&self) {
        self.share_coordinators.hosts.borrow_mut().clear();
    }
}

/// Rewrites the live state at the log's end and lets the rest go, once the log is mostly history.
async fn rewrite_if_grown(host: &Rc<ShareStateHost>) {
    let live = || {
        let states = host.states.borrow();
        states.snapshot(clock::now_ms()).map(|it| (Some(it.key), it.value)).collect::<Vec<_>>()
    };
    host.log.rewrite_if_grown(|| host.states.borrow().live_bytes(), live).await;
}
