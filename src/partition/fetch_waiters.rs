//! Those who wait for a partition to have more.
//!
//! A waiter says how many bytes would make its answer worth sending; each partition that it watches takes what it
//! appends off that number and wakes it at zero. So a fetch with a large `min_bytes` is woken once, not at every append.
//! The count is a hint: whoever is woken reads again and may wait again.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

/// A fetch that waits. Dropping it ends the wait.
pub struct FetchWaiter {
    missing_bytes: Cell<i64>,
    waker: RefCell<Option<Waker>>,
}

impl FetchWaiter {
    /// A waiter that wants `missing_bytes` more.
    pub fn new(missing_bytes: i64) -> Rc<Self> {
        Rc::new(FetchWaiter { missing_bytes: Cell::new(missing_bytes.max(1)), waker: RefCell::new(None) })
    }

    /// Resolves when enough bytes have come.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            if self.is_satisfied() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Wakes the waiter whatever it has.
    pub fn satisfy(&self) {
        self.missing_bytes.set(0);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn is_satisfied(&self) -> bool {
        self.missing_bytes.get() <= 0
    }

    fn give(&self, bytes: u64) {
        let missing = self.missing_bytes.get().saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.missing_bytes.set(missing);
        if missing <= 0 {
            self.satisfy();
        }
    }
}

/// The waiters of one partition.
#[derive(Default)]
pub(super) struct FetchWaiters {
    waiters: RefCell<Vec<Weak<FetchWaiter>>>,
    /// The count of entries at which the dead ones are swept out.
    sweep_at: Cell<usize>,
}

/// Entries below which sweeping is not worth it.
const SWEEP_COUNT_MIN: usize = 16;

impl FetchWaiters {
    /// Adds a waiter until it is satisfied or dropped.
    pub fn add(&self, waiter: &Rc<FetchWaiter>) {
        let mut waiters = self.waiters.borrow_mut();
        if waiters.len() >= self.sweep_at.get().max(SWEEP_COUNT_MIN) {
            waiters.retain(|waiter| waiter.strong_count() > 0);
            self.sweep_at.set(waiters.len() * 2);
        }
        waiters.push(Rc::downgrade(waiter));
    }

    /// Gives `bytes` to every waiter.
    pub fn notify(&self, bytes: u64) {
        let mut waiters = self.waiters.borrow_mut();
        waiters.retain(|waiter| {
            waiter.upgrade().is_some_and(|waiter| {
                waiter.give(bytes);
                !waiter.is_satisfied()
            })
        });
    }

    /// Wakes every waiter, as the partition is going away.
    pub fn wake_all(&self) {
        for waiter in self.waiters.take() {
            if let Some(waiter) = waiter.upgrade() {
                waiter.satisfy();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FetchWaiter, FetchWaiters};

    #[test]
    fn a_waiter_is_satisfied_by_enough_bytes_and_then_forgotten() {
        let waiters = FetchWaiters::default();
        let waiter = FetchWaiter::new(100);
        waiters.add(&waiter);
        waiters.notify(60);
        assert!(!waiter.is_satisfied());
        waiters.notify(40);
        assert!(waiter.is_satisfied());
        assert!(waiters.waiters.borrow().is_empty());
    }

    #[test]
    fn waiters_that_gave_up_do_not_pile_up() {
        let waiters = FetchWaiters::default();
        for _ in 0..10_000 {
            waiters.add(&FetchWaiter::new(1));
        }
        assert!(waiters.waiters.borrow().len() <= 64);
    }
}
