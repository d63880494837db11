//! When each message of an open loop is meant to be sent.
//!
//! Pure arithmetic: message `index` of client `phase` out of `stride` clients has a fixed intended time that does not
//! depend on what the broker does. That is what makes the latency free of coordinated omission: a broker that stalls for a
//! second delays the sending, never the intended times, so every message that was due in that second carries its wait.

use crate::clock::SECOND_NS;

/// Evenly spaced intended send times of one client.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start_ns: u64,
    /// Nanoseconds between two messages of this client.
    period_ns: f64,
    /// Nanoseconds from the start to this client's first message.
    phase_ns: f64,
}

impl Schedule {
    /// The share of client `client_index` in `rate_per_s` messages a second sent by `clients` clients in turn.
    ///
    /// # Panics
    /// If the rate is not positive or there is no such client.
    pub fn new(start_ns: u64, rate_per_s: f64, client_index: usize, clients: usize) -> Self {
        assert!(rate_per_s > 0.0 && client_index < clients);
        let gap_ns = SECOND_NS as f64 / rate_per_s;
        Self { start_ns, period_ns: gap_ns * clients as f64, phase_ns: gap_ns * client_index as f64 }
    }

    /// The instant at which message `index` is meant to leave.
    pub fn intended_ns(&self, index: u64) -> u64 {
        self.start_ns + (self.phase_ns + self.period_ns * index as f64) as u64
    }

    /// How many messages are due at `now_ns`: the first index whose intended time is later.
    pub fn due_count(&self, now_ns: u64) -> u64 {
        if now_ns < self.start_ns {
            return 0;
        }
        let elapsed_ns = (now_ns - self.start_ns) as f64 - self.phase_ns;
        let mut count = if elapsed_ns < 0.0 { 0 } else { (elapsed_ns / self.period_ns) as u64 };
        // The division rounds; the contract is with `intended_ns`.
        while count > 0 && self.intended_ns(count - 1) > now_ns {
            count -= 1;
        }
        while self.intended_ns(count) <= now_ns {
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;
    use crate::clock::SECOND_NS;

    #[test]
    fn clients_take_turns_at_even_distances() {
        let mut times: Vec<u64> = (0..4)
            .flat_map(|client| {
                let schedule = Schedule::new(100, 1_000.0, client, 4);
                (0..3).map(move |index| schedule.intended_ns(index))
            })
            .collect();
        times.sort_unstable();
        let expected: Vec<u64> = (0..12).map(|index| 100 + index * 1_000_000).collect();
        assert_eq!(times, expected);
    }

    #[test]
    fn due_count_is_the_first_index_in_the_future() {
        for rate in [0.3, 1.0, 7.0, 999.9, 1_000_000.0, 3_333_333.3] {
            let schedule = Schedule::new(5 * SECOND_NS, rate, 2, 3);
            for now in [0, 5 * SECOND_NS - 1, 5 * SECOND_NS, 6 * SECOND_NS + 12_345, 600 * SECOND_NS + 7] {
                let due = schedule.due_count(now);
                assert!(schedule.intended_ns(due) > now, "rate {rate} now {now}");
                assert!(due == 0 || schedule.intended_ns(due - 1) <= now, "rate {rate} now {now}");
            }
        }
    }

    #[test]
    fn rates_hold_over_an_hour() {
        let schedule = Schedule::new(0, 123_456.7, 0, 1);
        let due = schedule.due_count(3_600 * SECOND_NS);
        let expected = 123_456.7 * 3_600.0;
        assert!((due as f64 - expected).abs() <= 1.0, "{due} against {expected}");
    }
}
