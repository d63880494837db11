//! What is counted, and the histograms.
//!
//! Every worker owns one `Interval` behind a lock that it takes once per turn of its loop; once a second the main thread
//! swaps it for an empty one and adds it to the totals. So the workers never wait for a report, and each interval can be
//! logged on its own.

use std::sync::{Arc, Mutex, MutexGuard};

use hdrhistogram::Histogram;

/// Latencies are recorded in nanoseconds between these bounds with three significant digits.
const LATENCY_MIN_NS: u64 = 100;
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// An empty latency histogram.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_MIN_NS, LATENCY_MAX_NS, SIGNIFICANT_DIGITS).expect("sound bounds")
}

/// When samples count, on the monotonic clock: from `start_ns` until before `end_ns`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub start_ns: u64,
    /// `u64::MAX` when a number of messages or bytes ends the run.
    pub end_ns: u64,
}

impl Window {
    pub fn contains(&self, instant_ns: u64) -> bool {
        self.start_ns <= instant_ns && instant_ns < self.end_ns
    }
}

/// The counts and latencies of one direction, produce or consume.
pub struct Tally {
    pub messages: u64,
    /// Record batches as they travel: headers included, after compression.
    pub wire_bytes: u64,
    /// Produce or fetch requests answered.
    pub requests: u64,
    /// Requests, or partitions in them, that were answered with an error and tried again.
    pub retries: u64,
    /// Messages without an answer when the run gave up: of an open loop those scheduled within the window, of a closed
    /// loop those in flight. They count in `latency` with the time that they have waited.
    pub unfinished: u64,
    /// Produce: from the intended send time (open loop) or the send (closed loop) to the answer, per message.
    /// Consume: from the send of a fetch to its answer, per request.
    pub latency: Histogram<u64>,
    /// From the actual send to the answer, per request.
    pub service: Histogram<u64>,
    /// From the intended send time in a stamped payload to its reading, per message.
    pub end_to_end: Histogram<u64>,
    /// From the first request to commit a transaction to the answer.
    pub commit: Histogram<u64>,
    /// The latest instant at which something was counted.
    pub last_ns: u64,
    /// Messages outside the window too, for the progress line.
    pub all_messages: u64,
    pub all_wire_bytes: u64,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            messages: 0,
            wire_bytes: 0,
            requests: 0,
            retries: 0,
            unfinished: 0,
            latency: latency_histogram(),
            service: latency_histogram(),
            end_to_end: latency_histogram(),
            commit: latency_histogram(),
            last_ns: 0,
            all_messages: 0,
            all_wire_bytes: 0,
        }
    }

    /// Counts an answered request that carried `messages`, if it was answered within the window.
    pub fn count(&mut self, window: &Window, now_ns: u64, messages: u64, wire_bytes: u64) {
        self.all_messages += messages;
        self.all_wire_bytes += wire_bytes;
        if window.contains(now_ns) {
            self.messages += messages;
            self.wire_bytes += wire_bytes;
            self.requests += 1;
            self.last_ns = self.last_ns.max(now_ns);
        }
    }

    /// Records the latency of messages of an open loop by their numbers in the schedule, each from its own intended time.
    ///
    /// A message belongs to the window by its intended time, whenever its answer comes: leaving out late answers
    /// would leave out exactly the worst.
    pub fn record_scheduled(
        &mut self,
        window: &Window,
        intended_ns: impl Fn(u64) -> u64,
        indexes: impl Iterator<Item = u64>,
        now_ns: u64,
    ) {
        for index in indexes {
            let intended = intended_ns(index);
            if window.contains(intended) {
                self.latency.saturating_record(now_ns.saturating_sub(intended));
            }
        }
    }

    fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.wire_bytes += other.wire_bytes;
        self.requests += other.requests;
        self.retries += other.retries;
        self.unfinished += other.unfinished;
        self.all_messages += other.all_messages;
        self.all_wire_bytes += other.all_wire_bytes;
        self.last_ns = self.last_ns.max(other.last_ns);
        for (mine, theirs) in [
            (&mut self.latency, &other.latency),
            (&mut self.service, &other.service),
            (&mut self.end_to_end, &other.end_to_end),
            (&mut self.commit, &other.commit),
        ] {
            if !theirs.is_empty() {
                mine.add(theirs).expect("equal bounds");
            }
        }
    }

    fn reset(&mut self) {
        for histogram in [&mut self.latency, &mut self.service, &mut self.end_to_end, &mut self.commit] {
            if !histogram.is_empty() {
                histogram.reset();
            }
        }
        self.messages = 0;
        self.wire_bytes = 0;
        self.requests = 0;
        self.retries = 0;
        self.unfinished = 0;
        self.all_messages = 0;
        self.all_wire_bytes = 0;
        self.last_ns = 0;
    }
}

/// What happened since the last report.
pub struct Interval {
    pub produce: Tally,
    pub consume: Tally,
}

impl Interval {
    pub fn new() -> Self {
        Self { produce: Tally::new(), consume: Tally::new() }
    }

    /// Adds another interval to this one.
    pub fn add(&mut self, other: &Self) {
        self.produce.add(&other.produce);
        self.consume.add(&other.consume);
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.produce.reset();
        self.consume.reset();
    }
}

/// A worker's interval, shared with the main thread.
#[derive(Clone)]
pub struct SharedInterval(Arc<Mutex<Interval>>);

impl SharedInterval {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Interval::new())))
    }

    /// For the worker: held while it handles what epoll brought, never while it sleeps.
    pub fn lock(&self) -> MutexGuard<'_, Interval> {
        self.0.lock().expect("a worker panicked")
    }

    /// For the main thread: leaves `spare` (which must be empty) in place and takes what was gathered.
    pub fn swap(&self, spare: &mut Interval) {
        std::mem::swap(&mut *self.lock(), spare);
    }
}

#[cfg(test)]
mod tests {
    use super::{Tally, Window};
    use crate::clock::{MILLISECOND_NS, SECOND_NS};
    use crate::schedule::Schedule;

    /// One request in flight, 1 000 a second, answered in 1 ms; one answer takes a second. A closed loop would see one
    /// bad sample in 10 000; the users behind an open loop see a thousand.
    #[test]
    fn a_stall_counts_for_every_message_that_was_due_during_it() {
        let schedule = Schedule::new(0, 1_000.0, 0, 1);
        let window = Window { start_ns: 0, end_ns: 10 * SECOND_NS };
        let mut tally = Tally::new();
        let (mut now_ns, mut next) = (0, 0);
        while next < 10_000 {
            now_ns = now_ns.max(schedule.intended_ns(next));
            let sent = now_ns;
            let count = (schedule.due_count(now_ns) - next).min(10);
            now_ns += if next == 5_000 { SECOND_NS } else { MILLISECOND_NS / 2 };
            tally.record_scheduled(&window, |index| schedule.intended_ns(index), next..next + count, now_ns);
            tally.service.saturating_record(now_ns - sent);
            next += count;
        }
        assert_eq!(tally.latency.len(), 10_000);
        // The thousand messages due during the stall waited half of it on average.
        let late = tally.latency.count_between(100 * MILLISECOND_NS, 2 * SECOND_NS);
        assert!((880..=980).contains(&late), "{late} late messages");
        assert!(tally.latency.value_at_quantile(0.99) > 800 * MILLISECOND_NS);
        // The uncorrected view, for contrast, shows a single outlier.
        assert!(tally.service.value_at_quantile(0.99) < MILLISECOND_NS);
    }

    #[test]
    fn a_late_answer_counts_for_the_window_of_its_intended_time() {
        let window = Window { start_ns: SECOND_NS, end_ns: 2 * SECOND_NS };
        let mut tally = Tally::new();
        let intended = [SECOND_NS / 2, SECOND_NS + 1, 2 * SECOND_NS];
        tally.record_scheduled(&window, |index| intended[index as usize], 0..3, 60 * SECOND_NS);
        assert_eq!(tally.latency.len(), 1);
        assert!(tally.latency.max() >= 58 * SECOND_NS);
    }

    #[test]
    fn only_answers_within_the_window_make_throughput() {
        let window = Window { start_ns: 10, end_ns: 20 };
        let mut tally = Tally::new();
        for now in [9, 10, 19, 20] {
            tally.count(&window, now, 2, 100);
        }
        assert_eq!((tally.messages, tally.wire_bytes, tally.requests), (4, 200, 2));
        assert_eq!((tally.all_messages, tally.all_wire_bytes), (8, 400));
    }
}
