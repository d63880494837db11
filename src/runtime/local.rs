//! Waiting within one shard: a one-shot answer, a repeatable wake-up, a queue for turns. None ever crosses a thread.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

struct OneshotState<T> {
    value: Option<T>,
    waker: Option<Waker>,
    sender_gone: bool,
}

/// The giving end of a one-shot answer.
pub struct Answer<T>(Weak<RefCell<OneshotState<T>>>);

/// The receiving end: resolves to the answer, or to `None` when the giver was dropped without one.
pub struct Awaited<T>(Rc<RefCell<OneshotState<T>>>);

/// Makes a one-shot answer.
pub fn oneshot<T>() -> (Answer<T>, Awaited<T>) {
    let state = Rc::new(RefCell::new(OneshotState { value: None, waker: None, sender_gone: false }));
    (Answer(Rc::downgrade(&state)), Awaited(state))
}

impl<T> Answer<T> {
    /// Gives the answer; nobody may be waiting any more, which is no error.
    pub fn give(self, value: T) {
        if let Some(state) = self.0.upgrade() {
            state.borrow_mut().value = Some(value);
        } // the drop below wakes
    }

    /// Whether somebody still waits.
    pub fn is_awaited(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(state) = self.0.upgrade() {
            let mut state = state.borrow_mut();
            state.sender_gone = true;
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
    }
}

impl<T> Future for Awaited<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.borrow_mut();
        if let Some(value) = state.value.take() {
            return Poll::Ready(Some(value));
        }
        if state.sender_gone {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Wakes every task that waits for something to change. Waiters re-check their condition: a wake-up is a hint.
#[derive(Default)]
pub struct Event {
    generation: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Event {
    /// An event that nobody waits for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes all who wait now.
    pub fn notify(&self) {
        self.generation.set(self.generation.get().wrapping_add(1));
        if self.wakers.borrow().is_empty() {
            return;
        }
        let mut wakers = self.wakers.take();
        for waker in wakers.drain(..) {
            waker.wake();
        }
        // The next who waits finds the room for it.
        let mut waiting = self.wakers.borrow_mut();
        if waiting.is_empty() {
            *waiting = wakers;
        }
    }

    /// Resolves at the first `notify` after this call.
    pub fn wait(&self) -> impl Future<Output = ()> + '_ {
        let seen = self.generation.get();
        poll_fn(move |cx| {
            if self.generation.get() != seen {
                return Poll::Ready(());
            }
            let mut wakers = self.wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }
}

/// Gives turns in the order in which tickets were drawn. Drawing does not wait, so whoever draws first is first even if
/// it must do something slow before its turn comes.
#[derive(Default)]
pub struct TurnQueue(Rc<RefCell<Turns>>);

#[derive(Default)]
struct Turns {
    next_ticket: u64,
    now_serving: u64,
    /// Tickets that were dropped before their turn.
    given_up: BTreeSet<u64>,
    waiting: BTreeMap<u64, Waker>,
}

/// A place in the queue; while its turn lasts, nobody else's does. Dropping it passes the turn on.
pub struct Ticket {
    number: u64,
    turns: Rc<RefCell<Turns>>,
}

impl TurnQueue {
    /// A queue with nobody in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next place.
    pub fn draw(&self) -> Ticket {
        let mut turns = self.0.borrow_mut();
        let number = turns.next_ticket;
        turns.next_ticket += 1;
        Ticket { number, turns: self.0.clone() }
    }
}

impl Ticket {
    /// Resolves when it is this ticket's turn.
    pub fn turn(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|cx| {
            let mut turns = self.turns.borrow_mut();
            if turns.now_serving == self.number {
                return Poll::Ready(());
            }
            turns.waiting.insert(self.number, cx.waker().clone());
            Poll::Pending
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let turns = &mut *self.turns.borrow_mut();
        turns.waiting.remove(&self.number);
        if turns.now_serving != self.number {
            turns.given_up.insert(self.number);
            return;
        }
        turns.now_serving += 1;
        while turns.given_up.remove(&turns.now_serving) {
            turns.now_serving += 1;
        }
        if let Some(waker) = turns.waiting.remove(&turns.now_serving) {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::{Event, TurnQueue, oneshot};
    use crate::runtime::{block_on, spawn};

    #[test]
    fn an_answer_arrives_and_a_dropped_giver_is_noticed() {
        block_on(async {
            let (answer, awaited) = oneshot();
            let waiting = spawn(awaited);
            answer.give(7);
            assert_eq!(waiting.await, Some(7));
            let (answer, awaited) = oneshot::<u8>();
            drop(answer);
            assert_eq!(awaited.await, None);
        });
    }

    #[test]
    fn an_event_wakes_all_who_wait() {
        block_on(async {
            let event = Rc::new(Event::new());
            let waiting: Vec<_> = (0..3)
                .map(|_| {
                    let event = event.clone();
                    let wait = async move { event.wait().await };
                    spawn(wait)
                })
                .collect();
            crate::runtime::yield_now().await;
            event.notify();
            for task in waiting {
                task.await;
            }
        });
    }

    #[test]
    fn turns_come_in_the_order_of_tickets_and_skip_those_given_up() {
        block_on(async {
            let queue = TurnQueue::new();
            let (first, second, third) = (queue.draw(), queue.draw(), queue.draw());
            let waiting = spawn(async move {
                third.turn().await;
                3
            });
            crate::runtime::yield_now().await;
            drop(second);
            first.turn().await;
            drop(first);
            assert_eq!(waiting.await, 3);
        });
    }
}
