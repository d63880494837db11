//! Share sessions (KIP-932): which partitions a member of a share group reads over this connection.
//!
//! ```text
//! epoch   means
//! 0       a new session with these partitions; no acknowledgements yet
//! n > 0   as before, with these partitions added and those forgotten
//! -1      the last acknowledgements; everything locked is freed
//! ```
//! Lives on: the connection, like the session of a member that cannot come back over another one: when the connection
//! ends, what its members have locked is freed at once. A connection with sessions stays on its shard.
//! Bounds: `group.share.max.share.sessions` on a shard.
//! Source: Kafka's ShareSession, ShareSessionCache and ShareSessionContext.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::front::Front;
use crate::model::share::SharedPartition;
use crate::model::{PartitionIndex, Uuid};

/// The epoch of a request that begins a session.
pub(super) const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request that ends one.
pub(super) const FINAL_EPOCH: i32 = -1;

/// A partition as sessions know it.
pub(super) type SessionKey = (Uuid, PartitionIndex);

/// Why a request does not fit its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionError {
    /// There is no such session on this connection.
    NotFound,
    /// The epoch is not the next one.
    InvalidEpoch,
    /// There are as many as there may be.
    LimitReached,
}

struct Session {
    next_epoch: i32,
    /// With what is needed to free their locks.
    partitions: BTreeMap<SessionKey, SharedPartition>,
    /// Where the next answer begins, so that every partition has its turn.
    turn: usize,
}

/// The sessions of one connection, by group and member.
pub(super) struct ShareSessions {
    front: Rc<Front>,
    sessions: RefCell<BTreeMap<(String, String), Session>>,
}

/// Sessions of a shard.
#[derive(Debug, Default)]
pub(super) struct ShareSessionCount(Cell<usize>);

impl ShareSessions {
    pub(super) fn new(front: Rc<Front>) -> Self {
        ShareSessions { front, sessions: RefCell::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.borrow().is_empty()
    }

    /// Begins a session, in place of one that the member had.
    pub(super) fn begin(&self, group_id: &str, member_id: &str) -> Result<(), SessionError> {
        self.end(group_id, member_id);
        let count = &self.front.share_session_count.0;
        let limit = self.front.broker.config().group_share_max_share_sessions;
        if count.get() >= limit.div_ceil(self.front.broker.shards().max(1)) {
            return Err(SessionError::LimitReached);
        }
        count.set(count.get() + 1);
        let session = Session { next_epoch: 1, partitions: BTreeMap::new(), turn: 0 };
        self.sessions.borrow_mut().insert((group_id.to_owned(), member_id.to_owned()), session);
        Ok(())
    }

    /// Goes on with a session; `epoch` must be its next one.
    pub(super) fn go_on(&self, group_id: &str, member_id: &str, epoch: i32) -> Result<(), SessionError> {
        let mut sessions = self.sessions.borrow_mut();
        let key = (group_id.to_owned(), member_id.to_owned());
        let session = sessions.get_mut(&key).ok_or(SessionError::NotFound)?;
        if session.next_epoch != epoch {
            return Err(SessionError::InvalidEpoch);
        }
        session.next_epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        Ok(())
    }

    /// Whether there is such a session, whatever its epoch.
    pub(super) fn has(&self, group_id: &str, member_id: &str) -> bool {
        self.sessions.borrow().contains_key(&(group_id.to_owned(), member_id.to_owned()))
    }

    /// Adds and forgets partitions.
    pub(super) fn change(
        &self,
        group_id: &str,
        member_id: &str,
        added: Vec<(SessionKey, SharedPartition)>,
        forgotten: &[SessionKey],
    ) {
        let key = (group_id.to_owned(), member_id.to_owned());
        if let Some(session) = self.sessions.borrow_mut().get_mut(&key) {
            forgotten.iter().for_each(|key| drop(session.partitions.remove(key)));
            session.partitions.extend(added);
        }
    }

    /// The partitions of a session, another one first each time.
    pub(super) fn partitions(&self, group_id: &str, member_id: &str) -> Vec<(SessionKey, SharedPartition)> {
        let key = (group_id.to_owned(), member_id.to_owned());
        let mut sessions = self.sessions.borrow_mut();
        let Some(session) = sessions.get_mut(&key) else { return Vec::new() };
        let mut all: Vec<_> = session.partitions.iter().map(|(key, shared)| (*key, shared.clone())).collect();
        if !all.is_empty() {
            session.turn = (session.turn + 1) % all.len();
            all.rotate_left(session.turn);
        }
        all
    }

    /// Ends a session and frees what its member has locked.
    pub(super) fn end(&self, group_id: &str, member_id: &str) {
        let key = (group_id.to_owned(), member_id.to_owned());
        let ended = self.sessions.borrow_mut().remove(&key);
        if let Some(session) = ended {
            let count = &self.front.share_session_count.0;
            count.set(count.get().saturating_sub(1));
            let partitions = session.partitions.into_values().collect();
            self.front.broker.share_release(key.0, key.1, partitions);
        }
    }
}

impl Drop for ShareSessions {
    fn drop(&mut self) {
        let keys: Vec<_> = self.sessions.borrow().keys().cloned().collect();
        for (group_id, member_id) in keys {
            self.end(&group_id, &member_id);
        }
    }
}
