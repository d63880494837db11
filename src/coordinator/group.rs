//! Groups: the coordinator of the groups of one `__consumer_offsets` partition. Classic groups are done here, those of the
//! new protocols in `modern`.
//!
//! Lives on: the shard that owns the partition; never shared. Created empty, fed the partition's records by
//! `replay`, opened by `loaded`, ended by `close`.
//!
//! How to drive it. A verb ([`GroupCoordinator::handle`]) takes a request, a token to answer it by, and the time, and
//! gives [`Effects`]. The caller
//! 1. sends `replies` (the state they speak of is in the log already, or need not be),
//! 2. appends `records` to the partition in one go and in the order of the verbs, as a transactional batch if
//!    `producer` says so,
//! 3. reports the end of every append with [`GroupCoordinator::appended`] or [`GroupCoordinator::append_failed`], whose
//!    effects carry the replies that had to wait; reports may come in any order and take effect in that of the appends,
//! 4. keeps a timer for [`GroupCoordinator::next_deadline_ms`] and calls [`GroupCoordinator::on_timer`] then.
//!
//! Verbs may go on while appends are under way. Time is in wall-clock milliseconds, since commit times are stored and
//! retention counts by them; a clock that steps back only puts deadlines off.
//!
//! Promise: every token is answered exactly once (at the latest by `close`), replies never precede the log in what
//! they promise: an assignment is handed out, and an offset is visible, only once it is stored.
//! Does not: know of partitions' existence or of ACLs (fronts and broker do), notice closed connections (Kafka's does
//! not either: the session timeout speaks).
//! Source: Kafka 4's GroupCoordinatorService, GroupMetadataManager (its classic half) and OffsetMetadataManager.
//! Differs from Kafka in: a superseded join or sync is answered (RebalanceInProgress) and not forgotten; a new group is
//! first stored with its first generation; a static member's takeover is not undone when it cannot be stored, its
//! join only fails and is tried again; votes that tie are decided by the leader's order; groups are counted against
//! `groups_max`.

mod admin;
mod appends;
mod classic_group;
mod join;
mod membership;
pub mod modern;
mod offset_verbs;
mod offsets;
mod rebalance;
mod replay;
mod retention;
pub mod schema;
mod sync;
pub mod topics;
mod turn;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::base::random;
use crate::model::group::{GroupError, GroupReply, GroupRequest, GroupState, HeartbeatReply, ReplyToken};
use crate::model::{PartitionIndex, ProducerEpoch, ProducerId, Uuid};

use super::timers::Timers;

use appends::{AfterAppend, Append};
use classic_group::ClassicGroup;
use modern::{Kind, ModernGroup, ModernStore};
use offsets::GroupOffsets;
use topics::{NoTopics, Topics};
use turn::{Output, Turn};

pub use appends::AppendId;
pub use modern::assignor::Assignor;
pub use schema::StateRecord;

/// Most timers that one call of `on_timer` serves, so that it never holds the shard for long.
const TIMERS_PER_CALL_MAX: usize = 1_000;

/// The partition of `__consumer_offsets` that keeps `group_id`: Kafka's `Utils.abs(groupId.hashCode()) % count`.
///
/// Java hashes UTF-16 units: `s[0] * 31^(n-1) + ... + s[n-1]`, wrapping.
pub fn offsets_partition_for(group_id: &str, partition_count: PartitionIndex) -> PartitionIndex {
    let add = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(i32::from(unit));
    let hash = group_id.encode_utf16().fold(0, add);
    (hash & i32::MAX) % partition_count.max(1)
}

/// The limits and times that groups live by, named as in the configuration.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    /// Shortest session timeout that a member may ask for.
    pub group_min_session_timeout_ms: i32,
    /// Longest session timeout that a member may ask for.
    pub group_max_session_timeout_ms: i32,
    /// How long the first rebalance of an empty group waits for more members, again after each newcomer.
    pub group_initial_rebalance_delay_ms: i64,
    /// Most members of a group.
    pub group_max_size: usize,
    /// Most groups in this coordinator.
    pub groups_max: usize,
    /// How long an empty group keeps its offsets.
    pub offsets_retention_ms: i64,
    /// Longest note beside an offset.
    pub offset_metadata_max_bytes: usize,
    /// Those of consumer groups (KIP-848).
    pub consumer: ConsumerSettings,
    /// Those of share groups (KIP-932).
    pub share: ShareGroupSettings,
}

/// The limits and times of share groups (KIP-932), named as in the configuration after `group.share.`.
#[derive(Debug, Clone)]
pub struct ShareGroupSettings {
    /// Silence after which a member is removed.
    pub session_timeout_ms: i64,
    /// Time between heartbeats, as members are told.
    pub heartbeat_interval_ms: i32,
    /// Most members of a group.
    pub max_size: usize,
    /// Shortest time between two assignments.
    pub assignment_interval_ms: i64,
}

impl Default for ShareGroupSettings {
    fn default() -> Self {
        ShareGroupSettings {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            max_size: 200,
            assignment_interval_ms: 1_000,
        }
    }
}

/// The limits and times of consumer groups (KIP-848), named as in the configuration after `group.consumer.`.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    /// Silence after which a member is removed.
    pub session_timeout_ms: i64,
    /// Time between heartbeats, as members are told.
    pub heartbeat_interval_ms: i32,
    /// Most members of a group.
    pub max_size: usize,
    /// The assignors that members may wish; the first is the default.
    pub assignors: Vec<Assignor>,
    /// Shortest time between two assignments.
    pub assignment_interval_ms: i64,
    /// Longest time between two looks for topics that match expressions.
    pub regex_refresh_interval_ms: i64,
    /// Whether a classic group becomes a consumer group when a member of that protocol joins.
    pub may_upgrade: bool,
    /// Whether a consumer group becomes a classic one when only members of that protocol remain.
    pub may_downgrade: bool,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        ConsumerSettings {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            max_size: usize::MAX,
            assignors: vec![Assignor::Uniform, Assignor::Range],
            assignment_interval_ms: 1_000,
            regex_refresh_interval_ms: 10 * 60 * 1_000,
            may_upgrade: true,
            may_downgrade: true,
        }
    }
}

impl Default for GroupSettings {
    fn default() -> Self {
        GroupSettings {
            group_min_session_timeout_ms: 6_000,
            group_max_session_timeout_ms: 30 * 60 * 1_000,
            group_initial_rebalance_delay_ms: 0,
            group_max_size: usize::MAX,
            groups_max: usize::MAX,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offset_metadata_max_bytes: 4_096,
            consumer: ConsumerSettings::default(),
            share: ShareGroupSettings::default(),
        }
    }
}

/// What the caller is to carry out for the coordinator; see the module's header for the order.
#[derive(Debug, Default)]
#[must_use = "records are to be appended and replies to be sent"]
pub struct Effects {
    /// To be sent now.
    pub replies: Vec<(ReplyToken, GroupReply)>,
    /// To be appended to the partition.
    pub records: Vec<StateRecord>,
    /// Names the append when its end is reported; set exactly when there are records.
    pub append: Option<AppendId>,
    /// When set, the records are a part of this producer's transaction.
    pub producer: Option<(ProducerId, ProducerEpoch)>,
}

/// What is to happen to a group, or a member, at a deadline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum TimerKey {
    /// (group, member): the member has been silent for too long, or has not come back with its new id.
    Session(Arc<str>, Arc<str>),
    /// The join phase has lasted long enough.
    Join(Arc<str>),
    /// Members owe their SyncGroup.
    Sync(Arc<str>),
    /// Offsets may have expired.
    Retention(Arc<str>),
    /// (group, member of a new group): it owes partitions that were taken from it.
    Revocation(Arc<str>, Arc<str>),
    /// (group, member of the classic protocol in a consumer group): it owes its JoinGroup.
    MemberJoin(Arc<str>, Arc<str>),
    /// (group, member of the classic protocol in a consumer group): it owes its SyncGroup.
    MemberSync(Arc<str>, Arc<str>),
}

/// Everything about one group.
#[derive(Debug)]
struct Group {
    id: Arc<str>,
    /// Empty while the group speaks one of the new protocols.
    classic: ClassicGroup,
    modern: Option<Box<ModernGroup>>,
    /// What of the new protocols is on its way to the log.
    store: ModernStore,
    offsets: GroupOffsets,
    /// The group's record as it is in the log.
    stored: Option<Bytes>,
    /// What waits for an append on behalf of the group; it is not forgotten meanwhile.
    appends_under_way: usize,
    last_append: Option<AppendId>,
}

impl Group {
    fn new(id: Arc<str>, now_ms: i64) -> Self {
        let classic = ClassicGroup::empty(Some(now_ms));
        Group {
            id,
            classic,
            modern: None,
            store: ModernStore::default(),
            offsets: GroupOffsets::default(),
            stored: None,
            appends_under_way: 0,
            last_append: None,
        }
    }
}

type IdSource = Box<dyn FnMut() -> Uuid + Send>;

/// The coordinator of all groups that hash to one partition of `__consumer_offsets`.
pub struct GroupCoordinator {
    settings: GroupSettings,
    ids: IdSource,
    topics: Topics,
    is_loaded: bool,
    /// Ordered, so that what a seed produced once it produces again.
    groups: BTreeMap<Arc<str>, Group>,
    /// Which groups an open transaction has committed offsets to.
    transactions: HashMap<ProducerId, BTreeSet<Arc<str>>>,
    timers: Timers<TimerKey>,
    appends: BTreeMap<AppendId, Append>,
    next_append: u64,
    /// Counts offsets as they are stored; see `offsets`.
    sequence: u64,
}

impl GroupCoordinator {
    /// An empty coordinator that waits for `replay` and `loaded`.
    pub fn new(settings: GroupSettings) -> Self {
        GroupCoordinator::with_ids(settings, Box::new(random::uuid))
    }

    /// As `new`, with a source of member ids that a test can repeat.
    pub fn with_ids(settings: GroupSettings, ids: Box<dyn FnMut() -> Uuid + Send>) -> Self {
        GroupCoordinator {
            settings,
            ids,
            topics: Arc::new(NoTopics),
            is_loaded: false,
            groups: BTreeMap::new(),
            transactions: HashMap::new(),
            timers: Timers::new(),
            appends: BTreeMap::new(),
            next_append: 0,
            sequence: 0,
        }
    }

    /// Serves one request; `token` is answered in these effects or in later ones.
    pub fn handle(&mut self, token: ReplyToken, request: GroupRequest, now_ms: i64) -> Effects {
        if let Err(error) = self.check(&request) {
            return Effects::reply(token, request.refused(error));
        }
        if !self.is_loaded {
            return Effects::reply(token, refused_while_loading(&request));
        }
        match request {
            GroupRequest::Join(join) => self.join(token, join, now_ms),
            GroupRequest::Sync(sync) => self.sync(token, &sync, now_ms),
            GroupRequest::Heartbeat(heartbeat) => self.heartbeat(token, &heartbeat, now_ms),
            GroupRequest::Leave(leave) => self.leave(token, &leave, now_ms),
            GroupRequest::OffsetCommit(commit) => self.commit_offsets(token, &commit, now_ms),
            GroupRequest::OffsetFetch(fetch) => self.fetch_offsets(token, fetch),
            GroupRequest::OffsetDelete(delete) => self.delete_offsets(token, &delete, now_ms),
            GroupRequest::List(list) => Effects::reply(token, GroupReply::List(self.list(&list))),
            GroupRequest::Describe(describe) => {
                Effects::reply(token, GroupReply::Describe(self.describe(&describe)))
            }
            GroupRequest::Delete(delete) => self.delete_group(token, &delete, now_ms),
            GroupRequest::ConsumerHeartbeat(heartbeat) => self.consumer_heartbeat(token, heartbeat, now_ms),
            GroupRequest::DescribeConsumer(describe) => {
                let described = self.describe_modern(Kind::Consumer, &describe);
                Effects::reply(token, GroupReply::DescribeConsumer(described))
            }
            GroupRequest::ShareHeartbeat(heartbeat) => self.share_heartbeat(token, heartbeat, now_ms),
            GroupRequest::EnsureShare(ensure) => self.ensure_share_group(token, &ensure, now_ms),
            GroupRequest::DescribeShare(describe) => {
                let described = self.describe_modern(Kind::Share, &describe);
                Effects::reply(token, GroupReply::DescribeConsumer(described))
            }
        }
    }

    /// The topics are these from now on; groups take notice at their members' next heartbeats.
    pub fn set_topics(&mut self, topics: Topics) {
        self.topics = topics;
    }

    /// When `on_timer` is to be called next; none while nothing is due. It may be early, never late.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.timers.next_wake_ms()
    }

    /// Does what is due: sessions, rebalances and retention. Serves a bounded number of deadlines; when more are due,
    /// `next_deadline_ms` says so.
    pub fn on_timer(&mut self, now_ms: i64) -> Effects {
        let mut output = Output::default();
        for _ in 0..TIMERS_PER_CALL_MAX {
            let Some(key) = self.timers.pop_expired(now_ms) else { break };
            let group_id = match &key {
                TimerKey::Session(group_id, _) | TimerKey::Join(group_id) => group_id.clone(),
                TimerKey::Sync(group_id) | TimerKey::Retention(group_id) => group_id.clone(),
                TimerKey::Revocation(group_id, _) => group_id.clone(),
                TimerKey::MemberJoin(group_id, _) | TimerKey::MemberSync(group_id, _) => group_id.clone(),
            };
            self.turn(&group_id, &mut output, now_ms, |turn| match &key {
                TimerKey::Session(_, member_id) if turn.group.modern.is_some() => {
                    turn.expire_member(member_id)
                }
                TimerKey::Session(_, member_id) => turn.expire_session(member_id),
                TimerKey::Revocation(_, member_id)
                | TimerKey::MemberJoin(_, member_id)
                | TimerKey::MemberSync(_, member_id) => turn.expire_member(member_id),
                TimerKey::Join(_) => turn.expire_join(),
                TimerKey::Sync(_) => turn.expire_sync(),
                TimerKey::Retention(_) => turn.expire_offsets(),
            });
        }
        self.finish(output)
    }

    /// Answers everything that waits, with `error`, since the partition leaves this shard or the server stops. The
    /// coordinator is empty afterwards and takes nothing in until it is loaded again.
    pub fn close(&mut self, error: GroupError) -> Effects {
        let mut output = Output::default();
        for after in std::mem::take(&mut self.appends).into_values().flat_map(|append| append.after) {
            self.drop_append(after, error, &mut output);
        }
        for group in std::mem::take(&mut self.groups).into_values() {
            close_group(group, error, &mut output);
        }
        self.is_loaded = false;
        self.transactions.clear();
        self.timers = Timers::new();
        Effects { replies: output.replies, ..Effects::default() }
    }

    /// The number of groups.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// The number of members of all groups.
    pub fn member_count(&self) -> usize {
        let count = |group: &Group| {
            group.classic.member_count() + group.modern.as_ref().map_or(0, |modern| modern.member_count())
        };
        self.groups.values().map(count).sum()
    }

    fn check(&self, request: &GroupRequest) -> Result<(), GroupError> {
        let Some(group_id) = request.group_id() else { return Ok(()) };
        // Kafka lets clients commit, fetch, describe and delete under the empty id, for the sake of very old ones.
        let may_be_empty = match request {
            GroupRequest::OffsetCommit(commit) => commit.producer.is_none(),
            GroupRequest::OffsetFetch(_) | GroupRequest::Describe(_) | GroupRequest::Delete(_) => true,
            _ => false,
        };
        if (group_id.is_empty() && !may_be_empty) || group_id.len() > schema::STRING_BYTES_MAX {
            return Err(GroupError::InvalidGroupId);
        }
        Ok(())
    }

    /// Whether a group that is not there yet may be made.
    fn has_room_for_group(&self, group_id: &str) -> bool {
        self.groups.contains_key(group_id) || self.groups.len() < self.settings.groups_max
    }

    fn ensure_group(&mut self, group_id: &str, now_ms: i64) {
        if !self.groups.contains_key(group_id) {
            let id: Arc<str> = group_id.into();
            self.groups.insert(id.clone(), Group::new(id, now_ms));
        }
    }

    /// Lets `act` have a turn at one group, if it is there; a group that holds nothing afterwards is forgotten.
    fn turn(&mut self, group_id: &str, output: &mut Output, now_ms: i64, act: impl FnOnce(&mut Turn<'_>)) {
        self.turn_at(group_id, output, now_ms, |turn| {
            act(turn);
            turn.settle_modern();
        });
    }

    /// As `turn`, for what puts nothing out: no reply, no record.
    fn turn_silently(&mut self, group_id: &str, now_ms: i64, act: impl FnOnce(&mut Turn<'_>)) {
        let mut output = Output::default();
        self.turn_at(group_id, &mut output, now_ms, act);
        debug_assert!(output.records.is_empty() && output.replies.is_empty());
    }

    fn turn_at(&mut self, group_id: &str, output: &mut Output, now_ms: i64, act: impl FnOnce(&mut Turn<'_>)) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let mut turn = Turn {
            group,
            timers: &mut self.timers,
            settings: &self.settings,
            topics: &self.topics,
            ids: &mut self.ids,
            output,
            now_ms,
        };
        act(&mut turn);
        self.forget_if_unused(group_id);
    }

    /// As `turn`, for a verb that concerns one group and nothing else.
    fn turn_alone(&mut self, group_id: &str, now_ms: i64, act: impl FnOnce(&mut Turn<'_>)) -> Effects {
        let mut output = Output::default();
        self.turn(group_id, &mut output, now_ms, act);
        self.finish(output)
    }

    /// A group that was never stored and holds nothing leaves no trace.
    fn forget_if_unused(&mut self, group_id: &str) {
        let Some(group) = self.groups.get(group_id) else { return };
        if group.is_unused() {
            self.timers.cancel(&TimerKey::Retention(group.id.clone()));
            self.groups.remove(group_id);
        }
    }

    /// Makes effects of what the turns put out, and remembers what waits for the append.
    fn finish(&mut self, output: Output) -> Effects {
        let Output { replies, records, after, producer } = output;
        assert_eq!(
            records.is_empty(),
            after.is_empty(),
            "something waits for an append exactly when there is one"
        );
        if records.is_empty() {
            return Effects { replies, ..Effects::default() };
        }
        let append = self.begin_append(after);
        let Some(Append { after, .. }) = self.appends.get(&append) else { return Effects::default() };
        for group_id in after.iter().filter_map(AfterAppend::group_id) {
            if let Some(group) = self.groups.get_mut(group_id) {
                group.last_append = Some(append);
            }
        }
        Effects { replies, records, append: Some(append), producer }
    }

    /// The invariants of every group, for tests.
    #[cfg(test)]
    fn check_invariants(&self) {
        for group in self.groups.values() {
            group.classic.check_invariants();
            if let Some(modern) = &group.modern {
                modern.check_invariants();
                assert_eq!(group.classic.member_count(), 0);
            }
        }
    }
}

impl Group {
    fn is_unused(&self) -> bool {
        self.stored.is_none()
            && self.modern.is_none()
            && self.store.is_idle()
            && self.appends_under_way == 0
            && self.is_idle()
            && self.offsets.is_empty()
    }

    /// Whether it has no members, whichever protocol it speaks.
    fn is_empty(&self) -> bool {
        match &self.modern {
            Some(modern) => modern.is_empty(),
            None => self.classic.is_in(GroupState::Empty),
        }
    }

    /// Whether a member reads `topic`.
    fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.modern {
            Some(modern) => modern.is_subscribed_to(topic),
            None => self.classic.is_subscribed_to(topic),
        }
    }

    /// Whether nobody is in it or about to be.
    fn is_idle(&self) -> bool {
        self.is_empty() && self.classic.pending_joins.is_empty()
    }
}

impl Effects {
    fn reply(token: ReplyToken, reply: GroupReply) -> Self {
        Effects { replies: vec![(token, reply)], ..Effects::default() }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.records.is_empty()
    }
}

/// A heartbeat is let pass, as Kafka does: the member cannot know better yet.
fn refused_while_loading(request: &GroupRequest) -> GroupReply {
    match request {
        GroupRequest::Heartbeat(_) => GroupReply::Heartbeat(HeartbeatReply { error: None }),
        other => other.refused(GroupError::CoordinatorLoadInProgress),
    }
}

fn close_group(mut group: Group, error: GroupError, output: &mut Output) {
    let member_ids: Vec<Arc<str>> = group.classic.members().map(|member| member.id.clone()).collect();
    for member_id in member_ids {
        output.refuse_member(&mut group.classic, &member_id, &member_id, error);
    }
    for (token, reply) in group.store.take_waiting() {
        output.reply(token, reply.refused(error));
    }
}

#[cfg(test)]
mod tests;
