//! Deadlines by key, made for sessions: put off at every heartbeat, hardly ever reached.
//!
//! Invariants: every armed key has exactly one entry in the queue, at or before its deadline. Putting a deadline off
//! leaves the entry where it is (one hash lookup); when the entry comes up too early it is moved to the deadline then.
//! So `next_wake_ms` may wake the caller once for nothing per period, and never too late.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

#[derive(Debug, Clone, Copy)]
struct Timer {
    deadline_ms: i64,
    /// Where the queue has the entry; never after the deadline.
    queued_ms: i64,
}

/// A set of deadlines; at most one per key.
#[derive(Debug)]
pub(super) struct Timers<K> {
    armed: HashMap<K, Timer>,
    queue: BTreeSet<(i64, K)>,
}

impl<K: Clone + Ord + Hash> Timers<K> {
    pub(super) fn new() -> Self {
        Timers { armed: HashMap::new(), queue: BTreeSet::new() }
    }

    /// Arms `key` for `deadline_ms`, in place of what it was armed for.
    pub(super) fn set(&mut self, key: K, deadline_ms: i64) {
        match self.armed.get_mut(&key) {
            Some(timer) if deadline_ms >= timer.queued_ms => timer.deadline_ms = deadline_ms,
            Some(timer) => {
                self.queue.remove(&(timer.queued_ms, key.clone()));
                *timer = Timer { deadline_ms, queued_ms: deadline_ms };
                self.queue.insert((deadline_ms, key));
            }
            None => {
                self.queue.insert((deadline_ms, key.clone()));
                self.armed.insert(key, Timer { deadline_ms, queued_ms: deadline_ms });
            }
        }
    }

    /// Arms `key` unless it is armed for an earlier time.
    pub(super) fn set_if_earlier(&mut self, key: K, deadline_ms: i64) {
        if self.armed.get(&key).is_none_or(|timer| timer.deadline_ms > deadline_ms) {
            self.set(key, deadline_ms);
        }
    }

    pub(super) fn cancel(&mut self, key: &K) {
        if let Some((key, timer)) = self.armed.remove_entry(key) {
            self.queue.remove(&(timer.queued_ms, key));
        }
    }

    /// When to call `pop_expired` next.
    pub(super) fn next_wake_ms(&self) -> Option<i64> {
        self.queue.first().map(|(queued_ms, _)| *queued_ms)
    }

    /// A key whose deadline has come, earliest first; it is no longer armed.
    pub(super) fn pop_expired(&mut self, now_ms: i64) -> Option<K> {
        while self.next_wake_ms().is_some_and(|wake_ms| wake_ms <= now_ms) {
            let (_, key) = self.queue.pop_first()?;
            match self.armed.get_mut(&key) {
                Some(timer) if timer.deadline_ms > now_ms => {
                    timer.queued_ms = timer.deadline_ms;
                    self.queue.insert((timer.deadline_ms, key));
                }
                _ => {
                    self.armed.remove(&key);
                    return Some(key);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::Timers;

    #[test]
    fn a_deadline_put_off_does_not_fire_at_the_old_time() {
        let mut timers = Timers::new();
        timers.set("session", 10);
        timers.set("session", 30);
        assert_eq!(timers.pop_expired(20), None);
        assert_eq!(timers.next_wake_ms(), Some(30));
        assert_eq!(timers.pop_expired(30), Some("session"));
        assert_eq!(timers.next_wake_ms(), None);
    }

    #[test]
    fn a_deadline_brought_forward_fires_at_the_new_time() {
        let mut timers = Timers::new();
        timers.set("session", 300);
        timers.set("session", 10);
        assert_eq!(timers.pop_expired(10), Some("session"));
        assert_eq!(timers.pop_expired(300), None);
    }

    proptest! {
        #[test]
        fn timers_fire_as_a_plain_map_of_deadlines_would(
            steps in proptest::collection::vec((0u8..4, 0u8..6, 0i64..50), 0..200),
        ) {
            let mut timers = Timers::new();
            let mut model: HashMap<u8, i64> = HashMap::new();
            let mut now_ms = 0;
            for (action, key, delay_ms) in steps {
                match action {
                    0 => {
                        timers.set(key, now_ms + delay_ms);
                        model.insert(key, now_ms + delay_ms);
                    }
                    1 => {
                        timers.cancel(&key);
                        model.remove(&key);
                    }
                    2 => {
                        timers.set_if_earlier(key, now_ms + delay_ms);
                        let deadline_ms = model.entry(key).or_insert(i64::MAX);
                        *deadline_ms = (*deadline_ms).min(now_ms + delay_ms);
                    }
                    _ => {
                        now_ms += delay_ms;
                        while let Some(key) = timers.pop_expired(now_ms) {
                            prop_assert!(model.remove(&key).is_some_and(|deadline_ms| deadline_ms <= now_ms));
                        }
                        prop_assert!(model.values().all(|&deadline_ms| deadline_ms > now_ms));
                    }
                }
                let first_ms = model.values().min().copied();
                prop_assert!(timers.next_wake_ms().is_none() == first_ms.is_none());
                prop_assert!(timers.next_wake_ms() <= first_ms || first_ms.is_none());
            }
        }
    }
}
