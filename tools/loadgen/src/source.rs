//! Which messages a producer sends next: the pace (open or closed loop) and, with keys, the gathering of batches.
//!
//! Without keys a batch is a run of messages that are due, and goes to whichever partition is next (the sticky
//! partitioner of Kafka's clients). Due messages wait in no queue, only in the arithmetic of the schedule, so a stalled
//! broker costs no memory.
//! With keys each message has its partition. Messages are drawn when they are due (open loop) or as long as no batch is
//! full (closed loop) and gathered by partition, at most `GATHERED_MAX` of them.
//! Does not: know connections or requests (see `produce`, which is the `Room` here).

use std::collections::VecDeque;

use crate::keys::{Sampler, partition_of};
use crate::schedule::Schedule;
use crate::timeline::Timeline;

/// Keyed messages that may wait in one producer; what is due beyond it waits in the schedule.
const GATHERED_MAX: usize = 1 << 16;

/// A keyed message: its key's number and its number in the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    pub key: u64,
    pub index: u64,
}

/// The messages of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Messages {
    /// Without keys: as many as follow one another in the schedule.
    Run { first_index: u64, count: u32 },
    /// With keys: those of one partition.
    Picks(Box<[Pick]>),
}

impl Messages {
    pub fn count(&self) -> u32 {
        match self {
            Self::Run { count, .. } => *count,
            Self::Picks(picks) => u32::try_from(picks.len()).expect("batches are small"),
        }
    }

    /// Each message's number in the schedule.
    pub fn indexes(&self) -> impl Iterator<Item = u64> + '_ {
        let (run, picks) = match self {
            Self::Run { first_index, count } => (*first_index..first_index + u64::from(*count), &[][..]),
            Self::Picks(picks) => (0..0, &picks[..]),
        };
        run.chain(picks.iter().map(|pick| pick.index))
    }

    /// The number in the schedule and the key of the message at `position` of the batch.
    pub fn at(&self, position: u32) -> (u64, Option<u64>) {
        match self {
            Self::Run { first_index, .. } => (first_index + u64::from(position), None),
            Self::Picks(picks) => {
                let pick = picks[position as usize];
                (pick.index, Some(pick.key))
            }
        }
    }
}

/// A batch to be sent now.
#[derive(Debug, PartialEq, Eq)]
pub struct Draft {
    pub partition: usize,
    pub messages: Messages,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Send(Draft),
    /// Nothing to send before this instant, or before something is answered.
    Wait(Option<u64>),
}

/// Where batches may go now.
pub trait Room {
    /// The next partition in turn that takes a batch.
    fn next_partition(&mut self) -> Option<usize>;
    /// Whether this partition takes a batch.
    fn takes(&self, partition: usize) -> bool;
    /// Whether any connection takes a request.
    fn is_open(&self) -> bool;
}

/// How many messages a batch may hold and how long the first may wait for the others.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    pub count_max: u32,
    pub linger_ns: u64,
}

enum Pace {
    /// Open loop: the messages of the schedule before `end`.
    Scheduled { schedule: Schedule, next: u64, end: u64 },
    /// Closed loop: so many more messages within the window.
    Saturating { remaining: u64 },
}

/// The messages of one producer.
pub struct Source {
    pace: Pace,
    limits: BatchLimits,
    gatherer: Option<Gatherer>,
}

impl Source {
    /// An open loop over messages 0..end of the schedule.
    pub fn scheduled(schedule: Schedule, end: u64, limits: BatchLimits, gatherer: Option<Gatherer>) -> Self {
        Self { pace: Pace::Scheduled { schedule, next: 0, end }, limits, gatherer }
    }

    /// A closed loop of `remaining` messages within the window.
    pub fn saturating(remaining: u64, limits: BatchLimits, gatherer: Option<Gatherer>) -> Self {
        Self { pace: Pace::Saturating { remaining }, limits, gatherer }
    }

    /// The schedule of an open loop.
    pub fn schedule(&self) -> Option<Schedule> {
        match self.pace {
            Pace::Scheduled { schedule, .. } => Some(schedule),
            Pace::Saturating { .. } => None,
        }
    }

    /// Nothing more will be sent.
    pub fn is_exhausted(&self, now_ns: u64, timeline: &Timeline) -> bool {
        match self.pace {
            Pace::Scheduled { next, end, .. } => {
                next >= end && self.gatherer.as_ref().is_none_or(Gatherer::is_empty)
            }
            Pace::Saturating { remaining } => remaining == 0 || now_ns >= timeline.window.end_ns,
        }
    }

    /// The numbers of scheduled messages that were never sent.
    pub fn unsent(&self) -> impl Iterator<Item = u64> + '_ {
        let rest = match self.pace {
            Pace::Scheduled { next, end, .. } => next..end,
            Pace::Saturating { .. } => 0..0,
        };
        let gathered = self.gatherer.iter().flat_map(|gatherer| gatherer.by_partition.iter().flatten());
        rest.chain(gathered.map(|pick| pick.index))
    }

    /// The next batch, if one is ready and has a place to go.
    pub fn next(&mut self, now_ns: u64, timeline: &Timeline, room: &mut impl Room) -> Step {
        if let Pace::Saturating { remaining } = self.pace {
            if remaining == 0 || now_ns >= timeline.window.end_ns {
                return Step::Wait(None);
            }
            if now_ns < timeline.start_ns {
                return Step::Wait(Some(timeline.start_ns));
            }
        }
        let step = match self.gatherer.is_some() {
            false => self.next_run(now_ns, room),
            true => self.next_gathered(now_ns, room),
        };
        if let (Step::Send(draft), Pace::Saturating { remaining }) = (&step, &mut self.pace) {
            // Messages before the window are not part of the quota.
            if now_ns >= timeline.window.start_ns {
                *remaining -= u64::from(draft.messages.count());
            }
        }
        step
    }

    fn next_run(&mut self, now_ns: u64, room: &mut impl Room) -> Step {
        let BatchLimits { count_max, linger_ns } = self.limits;
        let count_max = u64::from(count_max);
        let (first_index, count) = match &self.pace {
            Pace::Saturating { remaining } => (0, count_max.min(*remaining)),
            Pace::Scheduled { next, end, .. } if next >= end => return Step::Wait(None),
            Pace::Scheduled { schedule, next, end } => {
                let due = schedule.due_count(now_ns).min(*end).saturating_sub(*next);
                let lingers_until = schedule.intended_ns(*next) + linger_ns;
                let is_last = next + due == *end;
                if due == 0 || due < count_max && now_ns < lingers_until && !is_last {
                    let full_at = schedule.intended_ns((next + count_max).min(*end) - 1);
                    return Step::Wait(Some(lingers_until.min(full_at)));
                }
                (*next, due.min(count_max))
            }
        };
        let Some(partition) = room.next_partition() else { return Step::Wait(None) };
        if let Pace::Scheduled { next, .. } = &mut self.pace {
            *next += count;
        }
        let count = u32::try_from(count).expect("at most the largest count");
        Step::Send(Draft { partition, messages: Messages::Run { first_index, count } })
    }

    fn next_gathered(&mut self, now_ns: u64, room: &mut impl Room) -> Step {
        let limits = self.limits;
        let gatherer = self.gatherer.as_mut().expect("asked by next");
        if !room.is_open() {
            return Step::Wait(None);
        }
        match &mut self.pace {
            Pace::Saturating { remaining } => {
                let most = usize::try_from(*remaining).unwrap_or(usize::MAX).min(GATHERED_MAX);
                loop {
                    if let Some(draft) = gatherer.take_full(limits.count_max, room) {
                        return Step::Send(draft);
                    }
                    if gatherer.count >= most {
                        // All that is left is here, or too many partitions are half full.
                        let limit = u32::try_from(*remaining)
                            .map_or(limits.count_max, |remaining| limits.count_max.min(remaining));
                        return match gatherer.take_oldest(limit, room, |_| true) {
                            Some(draft) => Step::Send(draft),
                            None => Step::Wait(None),
                        };
                    }
                    // As many as can fill a batch at the earliest, then look again.
                    for _ in 0..(most - gatherer.count).min(limits.count_max as usize) {
                        let index = gatherer.drawn;
                        gatherer.draw(index, limits.count_max);
                    }
                }
            }
            Pace::Scheduled { schedule, next, end } => {
                let due = schedule.due_count(now_ns).min(*end);
                while *next < due && gatherer.count < GATHERED_MAX {
                    gatherer.draw(*next, limits.count_max);
                    *next += 1;
                }
                if let Some(draft) = gatherer.take_full(limits.count_max, room) {
                    return Step::Send(draft);
                }
                let must_go = next == end || gatherer.count >= GATHERED_MAX;
                let is_due = |index| must_go || schedule.intended_ns(index) + limits.linger_ns <= now_ns;
                if let Some(draft) = gatherer.take_oldest(limits.count_max, room, is_due) {
                    return Step::Send(draft);
                }
                if next >= end {
                    return Step::Wait(None);
                }
                let first = gatherer.oldest_index().unwrap_or(*next);
                let lingers_until = schedule.intended_ns(first) + limits.linger_ns;
                if lingers_until <= now_ns {
                    return Step::Wait(None); // It is due and waits for a place.
                }
                let full_at = schedule.intended_ns((*next + u64::from(limits.count_max)).min(*end) - 1);
                Step::Wait(Some(lingers_until.min(full_at)))
            }
        }
    }
}

/// Keyed messages by partition until a batch of them leaves.
pub struct Gatherer {
    sampler: Sampler,
    /// First partition and number of partitions of each topic; messages take the topics in turn.
    topics: Vec<(usize, usize)>,
    by_partition: Vec<Vec<Pick>>,
    count: usize,
    drawn: u64,
    /// Partitions with a full batch, in the order in which they became full; stale entries are skipped.
    full: VecDeque<usize>,
    /// First message and partition, oldest first; an entry is stale when its message is no longer the partition's first.
    oldest: VecDeque<(u64, usize)>,
}

impl Gatherer {
    /// Gathers for partitions that lie one topic after the other.
    pub fn new(sampler: Sampler, topics: Vec<(usize, usize)>) -> Self {
        let partition_count = topics.iter().map(|(_, count)| count).sum();
        Self {
            sampler,
            topics,
            by_partition: vec![Vec::new(); partition_count],
            count: 0,
            drawn: 0,
            full: VecDeque::new(),
            oldest: VecDeque::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn draw(&mut self, index: u64, count_max: u32) {
        let key = self.sampler.draw();
        let topic = usize::try_from(self.drawn % self.topics.len() as u64).expect("an index");
        let (first, partition_count) = self.topics[topic];
        let partition = first + partition_of(key, partition_count);
        self.drawn += 1;
        self.count += 1;
        let picks = &mut self.by_partition[partition];
        picks.push(Pick { key, index });
        if picks.len() == 1 {
            self.oldest.push_back((index, partition));
        }
        if picks.len() == count_max as usize {
            self.full.push_back(partition);
        }
    }

    fn take_full(&mut self, count_max: u32, room: &impl Room) -> Option<Draft> {
        let mut position = 0;
        while let Some(&partition) = self.full.get(position) {
            if self.by_partition[partition].len() < count_max as usize {
                self.full.remove(position);
            } else if room.takes(partition) {
                self.full.remove(position);
                return Some(self.take(partition, count_max));
            } else {
                position += 1;
            }
        }
        None
    }

    /// A batch of the partition that has waited longest, of those that take one and whose first message `is_due`.
    fn take_oldest(
        &mut self,
        count_max: u32,
        room: &impl Room,
        is_due: impl Fn(u64) -> bool,
    ) -> Option<Draft> {
        let mut position = 0;
        while let Some(&(index, partition)) = self.oldest.get(position) {
            if self.is_stale(index, partition) {
                self.oldest.remove(position);
            } else if !is_due(index) {
                return None;
            } else if room.takes(partition) {
                self.oldest.remove(position);
                return Some(self.take(partition, count_max));
            } else {
                position += 1;
            }
        }
        None
    }

    fn oldest_index(&self) -> Option<u64> {
        self.oldest.iter().find(|&&(index, partition)| !self.is_stale(index, partition)).map(|entry| entry.0)
    }

    fn is_stale(&self, index: u64, partition: usize) -> bool {
        self.by_partition[partition].first().is_none_or(|pick| pick.index != index)
    }

    fn take(&mut self, partition: usize, count_max: u32) -> Draft {
        let picks = &mut self.by_partition[partition];
        let taken: Box<[Pick]> = picks.drain(..picks.len().min(count_max as usize)).collect();
        self.count -= taken.len();
        if let Some(first) = picks.first() {
            // What stays behind is older than nearly all else.
            self.oldest.push_front((first.index, partition));
            if picks.len() >= count_max as usize {
                self.full.push_back(partition);
            }
        }
        Draft { partition, messages: Messages::Picks(taken) }
    }
}

#[cfg(test)]
mod tests {
    use super::{BatchLimits, Gatherer, Messages, Room, Source, Step};
    use crate::clock::{MILLISECOND_NS, SECOND_NS};
    use crate::keys::{Keys, Sampler, partition_of};
    use crate::schedule::Schedule;
    use crate::stats::Window;
    use crate::timeline::Timeline;

    const TIMELINE: Timeline =
        Timeline { start_ns: 0, window: Window { start_ns: 0, end_ns: u64::MAX }, drain_ns: 0 };
    const LIMITS: BatchLimits = BatchLimits { count_max: 10, linger_ns: 0 };

    /// Takes everything but for closed partitions; turns through four.
    #[derive(Default)]
    struct Everywhere {
        next: usize,
        closed: Vec<usize>,
    }

    impl Room for Everywhere {
        fn next_partition(&mut self) -> Option<usize> {
            self.next = (self.next + 1) % 4;
            Some(self.next)
        }

        fn takes(&self, partition: usize) -> bool {
            !self.closed.contains(&partition)
        }

        fn is_open(&self) -> bool {
            true
        }
    }

    fn gatherer(keys: u64) -> Gatherer {
        let sampler = Sampler::new(Keys::Uniform { count: keys }, 3).expect("keys");
        Gatherer::new(sampler, vec![(0, 4), (4, 4)])
    }

    /// All batches that are ready now.
    fn drain(source: &mut Source, now_ns: u64, room: &mut Everywhere) -> Vec<(usize, Messages)> {
        let mut batches = Vec::new();
        while let Step::Send(draft) = source.next(now_ns, &TIMELINE, room) {
            batches.push((draft.partition, draft.messages));
        }
        batches
    }

    #[test]
    fn a_keyed_closed_loop_sends_exactly_its_quota_to_the_right_partitions() {
        let mut source = Source::saturating(1_003, LIMITS, Some(gatherer(1_000)));
        let batches = drain(&mut source, 1, &mut Everywhere::default());
        let sum: u32 = batches.iter().map(|(_, messages)| messages.count()).sum();
        assert_eq!(sum, 1_003);
        assert!(source.is_exhausted(1, &TIMELINE));
        assert!(batches.len() < 1_003 / 10 + 10, "{} batches", batches.len());
        for (partition, messages) in &batches {
            for position in 0..messages.count() {
                let key = messages.at(position).1.expect("keyed");
                assert_eq!(partition % 4, partition_of(key, 4));
            }
        }
        assert!((0..8).all(|wanted| batches.iter().any(|(partition, _)| *partition == wanted)));
    }

    #[test]
    fn a_keyed_open_loop_sends_every_message_once_and_when_it_is_due() {
        let schedule = Schedule::new(0, 1_000.0, 0, 1);
        let limits = BatchLimits { linger_ns: 20 * MILLISECOND_NS, ..LIMITS };
        let mut source = Source::scheduled(schedule, 500, limits, Some(gatherer(50)));
        let (mut now_ns, mut indexes, mut turns) = (0, Vec::new(), 0);
        while !source.is_exhausted(now_ns, &TIMELINE) {
            match source.next(now_ns, &TIMELINE, &mut Everywhere::default()) {
                Step::Send(draft) => {
                    for index in draft.messages.indexes() {
                        let intended_ns = schedule.intended_ns(index);
                        assert!(intended_ns <= now_ns && now_ns <= intended_ns + 21 * MILLISECOND_NS);
                        indexes.push(index);
                    }
                }
                Step::Wait(wake) => now_ns = wake.expect("there is more").max(now_ns),
            }
            turns += 1;
            assert!(turns < 5_000, "stuck at {now_ns}");
        }
        indexes.sort_unstable();
        assert_eq!(indexes, (0..500).collect::<Vec<u64>>());
    }

    #[test]
    fn a_partition_that_takes_nothing_holds_up_no_other() {
        let schedule = Schedule::new(0, 1_000.0, 0, 1);
        let mut source = Source::scheduled(schedule, 1_000, LIMITS, Some(gatherer(1_000)));
        let mut room = Everywhere { closed: vec![1], ..Everywhere::default() };
        let batches = drain(&mut source, SECOND_NS, &mut room);
        assert!(batches.iter().all(|(partition, _)| *partition != 1));
        let unsent = source.unsent().count();
        let sent: u32 = batches.iter().map(|(_, messages)| messages.count()).sum();
        assert_eq!(sent as usize + unsent, 1_000);
        assert!((80..200).contains(&unsent), "{unsent}");
        room.closed.clear();
        drain(&mut source, SECOND_NS, &mut room);
        assert_eq!(source.unsent().count(), 0);
    }

    #[test]
    fn without_keys_batches_are_runs_of_what_is_due() {
        let schedule = Schedule::new(0, 1_000.0, 0, 1);
        let mut source = Source::scheduled(schedule, 25, LIMITS, None);
        let batches = drain(&mut source, 17 * MILLISECOND_NS, &mut Everywhere::default());
        assert_eq!(
            batches,
            [
                (1, Messages::Run { first_index: 0, count: 10 }),
                (2, Messages::Run { first_index: 10, count: 8 })
            ]
        );
        assert_eq!(source.unsent().collect::<Vec<u64>>(), (18..25).collect::<Vec<u64>>());
    }
}
