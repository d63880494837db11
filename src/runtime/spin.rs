//! Whether a thread that has nothing to do looks for work again at once (it spins) or sleeps in the kernel.
//!
//! Waking a sleeping CPU takes tens of microseconds on a virtual machine, more than a small request does. A client with
//! one request in flight puts the shard to sleep after each, and itself, since the answer comes late. A thread that
//! spins answers at once; where waking is dear it takes no more CPU than sleeping and waking would, elsewhere a quarter
//! more (PERF.md). One that spins in vain takes CPU from others. So [`Spin::WhileOneAsks`] spins only while one socket
//! sends small requests and nobody else any, and goes on only while they come soon.
//!
//! The [`executor`](super::executor) tells when tasks run and asks before it sleeps; [`tcp`](super::tcp) tells what is
//! read. All of it is of one thread.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::base::clock;

/// The longest wait that is spun through; a wait counts for no more.
const WAIT_MAX: Duration = Duration::from_micros(200);
/// Spinning is tried if the mean wait is below. It has the wakings of both CPUs in it then, the client's and ours.
const TRY_BELOW: Duration = Duration::from_micros(150);
/// A trial that brings the mean wait below goes on.
const KEEP_BELOW: Duration = Duration::from_micros(60);
/// The waits of a trial. The first ones are long: a host lets a CPU sleep less deeply once it was woken soon a few times.
const TRIAL_WAITS: u32 = 64;
/// The mean moves by this part of how far a wait is from it.
const MEAN_PART: u32 = 16;
/// A read of more is bulk: its sender does not wait for an answer to each.
const SMALL_READ_BYTES: usize = 16 * 1024;
/// How long nothing is tried after a trial that failed; twice as long after each further one.
const REST_MIN: Duration = Duration::from_millis(10);
const REST_MAX: Duration = Duration::from_secs(10);

/// When a thread spins before it sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spin {
    /// It sleeps at once.
    Never,
    /// It always spins for so long; for a core that nobody else uses.
    For(Duration),
    /// It spins while one socket asks again soon.
    WhileOneAsks,
}

impl Spin {
    /// Always for so long; never, if that is no time.
    pub fn fixed(limit: Duration) -> Self {
        if limit.is_zero() { Spin::Never } else { Spin::For(limit) }
    }
}

thread_local! {
    /// Whether a task has been polled since the thread last wanted to sleep.
    static IS_BUSY: Cell<bool> = const { Cell::new(true) };
    /// When the first task was polled since.
    static BUSY_SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    /// What was read since.
    static READS: Cell<Reads> = const { Cell::new(Reads::None) };
    static WATCH: RefCell<Watch> = RefCell::new(Watch::default());
}

/// What was read from sockets in a stretch of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    None,
    /// Little, from one socket.
    Small(RawFd),
    /// Much, or from several sockets.
    Other,
}

/// A task is polled.
pub fn note_poll() {
    if !IS_BUSY.replace(true) {
        BUSY_SINCE.set(Some(clock::monotonic()));
    }
}

/// So many bytes were read from `socket`.
pub fn note_read(socket: RawFd, bytes: usize) {
    let is_small = bytes <= SMALL_READ_BYTES;
    READS.set(match READS.get() {
        Reads::None if is_small => Reads::Small(socket),
        Reads::Small(same) if is_small && same == socket => return,
        _ => Reads::Other,
    });
}

/// Whether the thread, which has nothing to do, should look again instead of sleeping.
pub fn looks_again(spin: Spin) -> bool {
    WATCH.with_borrow_mut(|watch| watch.looks_again(spin, clock::monotonic()))
}

/// How long this thread has waited, and until when it spins.
#[derive(Default)]
struct Watch {
    asking: Asking,
    idle_since: Option<Instant>,
    spins_until: Option<Instant>,
}

impl Watch {
    fn looks_again(&mut self, spin: Spin, now: Instant) -> bool {
        if IS_BUSY.replace(false) {
            let limit = match spin {
                Spin::Never => Duration::ZERO,
                Spin::For(limit) => limit,
                Spin::WhileOneAsks => {
                    let waited = BUSY_SINCE.get().zip(self.idle_since).map(|(busy, idle)| busy - idle);
                    self.asking.note(READS.replace(Reads::None), waited.unwrap_or(WAIT_MAX), now);
                    if self.asking.is_spinning { WAIT_MAX } else { Duration::ZERO }
                }
            };
            self.idle_since = Some(now);
            self.spins_until = now.checked_add(limit);
        }
        self.spins_until.is_some_and(|until| now < until)
    }
}

/// Whether one socket asks, and how soon again.
struct Asking {
    socket: Option<RawFd>,
    /// Mean wait for the next request or for what this one needs; [`WAIT_MAX`] counts where another socket asked.
    mean_wait: Duration,
    is_spinning: bool,
    trial_waits: u32,
    rests_until: Option<Instant>,
    rest: Duration,
}

impl Default for Asking {
    fn default() -> Self {
        Asking {
            socket: None,
            mean_wait: WAIT_MAX,
            is_spinning: false,
            trial_waits: 0,
            rests_until: None,
            rest: REST_MIN,
        }
    }
}

impl Asking {
    /// `reads` came after a wait of `waited`.
    fn note(&mut self, reads: Reads, waited: Duration, now: Instant) {
        let socket = match reads {
            Reads::None => self.socket, // a timer or another thread, as when a sync is done: a wait that counts as well
            Reads::Small(socket) => Some(socket),
            Reads::Other => None,
        };
        let is_same = socket.is_some() && self.socket == socket;
        self.socket = socket;
        let wait = if is_same { waited.min(WAIT_MAX) } else { WAIT_MAX };
        self.mean_wait = (self.mean_wait * (MEAN_PART - 1) + wait) / MEAN_PART;
        if !self.is_spinning {
            if self.mean_wait < TRY_BELOW && self.rests_until.is_none_or(|until| now >= until) {
                self.is_spinning = true;
                self.trial_waits = TRIAL_WAITS;
            }
            return;
        }
        self.trial_waits = self.trial_waits.saturating_sub(1);
        if self.trial_waits > 0 && self.mean_wait < TRY_BELOW {
            return; // Above, it was only somebody who caught up.
        }
        if self.mean_wait < KEEP_BELOW {
            self.rest = REST_MIN;
        } else {
            self.is_spinning = false;
            self.rests_until = now.checked_add(self.rest);
            self.rest = (self.rest * 2).min(REST_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    /// Plays `waits` as those before small requests, from the sockets in turn; whether it spins in the end, and how many
    /// waits were spun through.
    fn play(
        asking: &mut Asking,
        now: &mut Instant,
        sockets: &[RawFd],
        wait: impl Fn(bool) -> Duration,
    ) -> (bool, u32) {
        let mut spun = 0;
        for at in 0..1_000 {
            let waited = wait(asking.is_spinning);
            spun += u32::from(asking.is_spinning);
            *now += waited;
            asking.note(Reads::Small(sockets[at % sockets.len()]), waited, *now);
        }
        (asking.is_spinning, spun)
    }

    #[test]
    fn one_socket_that_asks_soon_is_spun_for_and_a_pause_does_not_end_that() {
        let (mut asking, mut now) = (Asking::default(), clock::monotonic());
        let (spins, spun) = play(&mut asking, &mut now, &[5], |spins| if spins { us(25) } else { us(90) });
        assert!(spins && spun > 900, "{spun}");
        for _ in 0..3 {
            asking.note(Reads::Small(5), Duration::from_secs(1), now);
            asking.note(Reads::None, us(1), now);
        }
        assert!(asking.is_spinning);
    }

    #[test]
    fn waits_that_spinning_does_not_shorten_are_slept_through_but_for_a_trial() {
        let (mut asking, mut now) = (Asking::default(), clock::monotonic());
        let (spins, spun) = play(&mut asking, &mut now, &[5], |_| us(100));
        assert!(!spins && spun <= 5 * TRIAL_WAITS, "{spun}");
        // The rests grow: in a hundred seconds of such waits a dozen trials.
        let spun: u32 = (0..1_000).map(|_| play(&mut asking, &mut now, &[5], |_| us(100)).1).sum();
        assert!(spun < 25 * TRIAL_WAITS, "{spun}");
    }

    #[test]
    fn one_whose_answers_wait_for_the_disk_is_not_spun_for_but_for_a_trial() {
        let (mut asking, mut now) = (Asking::default(), clock::monotonic());
        let mut spun = 0;
        for at in 0..2_000 {
            let (reads, waited) =
                if at % 2 == 0 { (Reads::Small(5), us(40)) } else { (Reads::None, us(250)) };
            spun += u32::from(asking.is_spinning);
            now += waited;
            asking.note(reads, waited, now);
        }
        assert!(!asking.is_spinning && spun <= 6 * TRIAL_WAITS, "{spun}");
    }

    #[test]
    fn several_sockets_bulk_and_paced_requests_are_not_spun_for() {
        let (mut asking, mut now) = (Asking::default(), clock::monotonic());
        assert_eq!(play(&mut asking, &mut now, &[5, 6], |_| us(5)), (false, 0));
        assert_eq!(play(&mut asking, &mut now, &[5], |_| us(190)), (false, 0));
        for _ in 0..1_000 {
            asking.note(Reads::Other, us(5), now);
        }
        assert!(!asking.is_spinning);
    }

    #[test]
    fn one_that_stopped_asking_alone_is_no_longer_spun_for() {
        let (mut asking, mut now) = (Asking::default(), clock::monotonic());
        assert!(play(&mut asking, &mut now, &[5], |_| us(20)).0);
        let (spins, spun) = play(&mut asking, &mut now, &[5, 6, 7], |_| us(20));
        assert!(!spins && spun < 20, "{spun}");
    }

    #[test]
    fn one_that_catches_up_and_is_paced_again_is_spun_for_once_or_twice() {
        let (mut asking, mut now) = (Asking::default(), clock::monotonic());
        let mut spun = 0;
        for at in 0..1_000 {
            let waited = if at < 10 { us(10) } else { us(900) };
            spun += u32::from(asking.is_spinning);
            now += waited;
            asking.note(Reads::Small(5), waited, now);
        }
        // While it caught up, and until the mean is back: far less than a whole trial.
        assert!(spun < 20, "{spun}");
    }
}
