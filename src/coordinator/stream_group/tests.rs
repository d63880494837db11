//! The state machine against a plain model, with a reload after every step.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::stream_group::{Claim, PendingFilter, StreamEntryId, StreamGroupError, StreamGroupVerb};

const SETTINGS: StreamGroupSettings = StreamGroupSettings { pending_max: 40, consumers_max: 4 };

fn key() -> StreamGroupKey {
    let place = TopicPartition::new(TopicName::new("orders").unwrap(), 3);
    StreamGroupKey { group: "billing".to_owned(), place }
}

/// The machine with its log, and what it has committed.
struct Kept {
    groups: StreamGroups,
    log: Vec<StateRecord>,
    committed: Option<Committed>,
    now_ms: i64,
}

impl Kept {
    fn new() -> Self {
        Kept { groups: StreamGroups::new(SETTINGS), log: Vec::new(), committed: None, now_ms: 1_000 }
    }

    fn append(&mut self, records: Vec<StateRecord>) {
        for record in records {
            self.groups.replay(&record.key, record.value.as_deref()).unwrap();
            self.log.push(record);
        }
    }

    /// As the shard does it.
    fn ask(&mut self, verb: &StreamGroupVerb) -> StreamGroupReply {
        let moves = self.groups.sync(&key(), self.committed);
        self.append(moves);
        let Planned { records, reply } = self.groups.plan(&key(), verb, self.now_ms);
        self.append(records);
        self.committed = self.groups.committable(&key()).map(|offset| Committed { offset, is_own: true });
        self.check_reload();
        reply
    }

    /// What is loaded again is what was, from the log and from a snapshot alike.
    fn check_reload(&self) {
        for log in [self.log.clone(), self.groups.snapshot().collect()] {
            let mut again = StreamGroups::new(SETTINGS);
            for record in log {
                again.replay(&record.key, record.value.as_deref()).unwrap();
            }
            assert_eq!(again.groups, self.groups.groups);
        }
    }

    fn state(&self) -> &StreamGroup {
        &self.groups.groups[&key()]
    }
}

#[derive(Debug, Clone)]
enum Step {
    Deliver {
        consumer: u8,
        count: usize,
        lost_race: bool,
    },
    Acknowledge(Vec<Offset>),
    Claim {
        consumer: u8,
        offsets: Vec<Offset>,
        min_idle_ms: i64,
    },
    DeleteConsumer(u8),
    /// A Kafka client commits.
    OutsideCommit(Offset),
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let offsets = || proptest::collection::vec(0..60i64, 0..8);
    prop_oneof![
        4 => (0..3u8, 0..6usize, any::<bool>())
            .prop_map(|(consumer, count, lost_race)| Step::Deliver { consumer, count, lost_race }),
        3 => offsets().prop_map(Step::Acknowledge),
        2 => (0..3u8, offsets(), 0..50i64)
            .prop_map(|(consumer, offsets, min_idle_ms)| Step::Claim { consumer, offsets, min_idle_ms }),
        1 => (0..3u8).prop_map(Step::DeleteConsumer),
        1 => (0..60i64).prop_map(Step::OutsideCommit),
        1 => (1..30i64).prop_map(Step::Pass),
    ]
}

fn at(next_offset: Offset) -> GroupPosition {
    GroupPosition { next_offset, last_timestamp_ms: 7 * (next_offset - 1) }
}

fn id(offset: Offset) -> StreamEntryId {
    StreamEntryId { offset, timestamp_ms: 7 * offset }
}

fn name(consumer: u8) -> String {
    format!("consumer-{consumer}")
}

fn claim(consumer: u8, offsets: &[Offset], min_idle_ms: i64) -> StreamGroupVerb {
    StreamGroupVerb::Claim(Claim {
        consumer: name(consumer),
        entries: offsets.iter().copied().map(id).collect(),
        min_idle_ms,
        delivered_ms: None,
        delivery_count: None,
        keeps_count: false,
        forces: false,
    })
}

proptest! {
    /// Every entry is, at every moment, acknowledged, pending for one consumer, or still to be delivered; and the
    /// committed offset lies behind no entry that is not acknowledged.
    #[test]
    fn nothing_is_lost_and_a_reload_changes_nothing(steps in proptest::collection::vec(step(), 1..60)) {
        let mut kept = Kept::new();
        prop_assert_eq!(kept.ask(&StreamGroupVerb::Create(at(0))), StreamGroupReply::Done);
        let mut owners: BTreeMap<Offset, (u8, i64)> = BTreeMap::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Deliver { consumer, count, lost_race } => {
                    let offsets: Vec<Offset> = (next..).take(count).collect();
                    let verb = StreamGroupVerb::Deliver {
                        consumer: name(consumer),
                        from: next - i64::from(lost_race),
                        to: at(next + count as i64),
                        entries: offsets.iter().copied().map(id).collect(),
                        keeps_pending: false,
                    };
                    match kept.ask(&verb) {
                        StreamGroupReply::Delivered(delivered) => {
                            prop_assert_eq!(delivered.len(), count);
                            prop_assert!(!lost_race);
                            next += count as i64;
                            owners.extend(offsets.into_iter().map(|offset| (offset, (consumer, kept.now_ms))));
                        }
                        StreamGroupReply::Position(position) => prop_assert_eq!((position, lost_race), (next, true)),
                        StreamGroupReply::Refused(StreamGroupError::LimitReached(_)) => {
                            prop_assert!(owners.len() + count > SETTINGS.pending_max);
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                Step::Acknowledge(offsets) => {
                    let before = owners.len();
                    owners.retain(|offset, _| !offsets.contains(offset));
                    let count = StreamGroupReply::Count(before - owners.len());
                    prop_assert_eq!(kept.ask(&StreamGroupVerb::Acknowledge(offsets.into_iter().map(id).collect())), count);
                }
                Step::Claim { consumer, offsets, min_idle_ms } => {
                    let now_ms = kept.now_ms;
                    let StreamGroupReply::Claimed(claimed) = kept.ask(&claim(consumer, &offsets, min_idle_ms)) else {
                        return Err(TestCaseError::fail("not claimed"));
                    };
                    for (offset, (owner, at)) in owners.iter_mut().filter(|(offset, _)| offsets.contains(offset)) {
                        let is_idle = now_ms - *at >= min_idle_ms;
                        prop_assert_eq!(claimed.contains(&id(*offset)), is_idle);
                        if is_idle {
                            (*owner, *at) = (consumer, now_ms);
                        }
                    }
                    prop_assert!(claimed.iter().all(|id| owners.contains_key(&id.offset)));
                }
                Step::DeleteConsumer(consumer) => {
                    let before = owners.len();
                    owners.retain(|_, (owner, _)| *owner != consumer);
                    let count = StreamGroupReply::Count(before - owners.len());
                    prop_assert_eq!(kept.ask(&StreamGroupVerb::DeleteConsumer(name(consumer))), count);
                }
                Step::OutsideCommit(offset) => {
                    let own = kept.committed.unwrap().offset;
                    kept.committed = Some(Committed { offset, is_own: false });
                    if offset != own {
                        owners.clear();
                        next = offset;
                    }
                    kept.ask(&StreamGroupVerb::Acknowledge(Vec::new()));
                }
                Step::Pass(ms) => kept.now_ms += ms,
            }
            let state = kept.state();
            prop_assert_eq!(state.position.next_offset, next);
            let pending: Vec<_> = state.pending.iter().map(|(offset, pending)| (*offset, pending.consumer.clone())).collect();
            let expected: Vec<_> = owners.iter().map(|(offset, (owner, _))| (*offset, name(*owner))).collect();
            prop_assert_eq!(pending, expected);
            let first = owners.keys().next().map_or(next, |first| (*first).min(next));
            prop_assert_eq!(kept.committed.unwrap().offset, first);
            let by_consumer: usize = state.consumers.values().map(|consumer| consumer.pending.len()).sum();
            prop_assert_eq!(by_consumer, owners.len());
        }
    }

    #[test]
    fn rubbish_in_the_log_is_refused(key: Vec<u8>, value: Option<Vec<u8>>) {
        let _ = StreamGroups::new(SETTINGS).replay(&key, value.as_deref());
    }
}

fn delivered(kept: &mut Kept, consumer: u8, from: Offset, count: i64) {
    let verb = StreamGroupVerb::Deliver {
        consumer: name(consumer),
        from,
        to: at(from + count),
        entries: (from..from + count).map(id).collect(),
        keeps_pending: false,
    };
    assert_eq!(kept.ask(&verb), StreamGroupReply::Delivered((from..from + count).map(id).collect()));
}

#[test]
fn without_acknowledgement_what_was_pending_before_stays_with_its_consumer() {
    let mut kept = Kept::new();
    kept.ask(&StreamGroupVerb::Create(at(0)));
    delivered(&mut kept, 1, 0, 2);
    kept.ask(&StreamGroupVerb::SetPosition(at(0)));
    let verb = StreamGroupVerb::Deliver {
        consumer: name(2),
        from: 0,
        to: at(3),
        entries: (0..3).map(id).collect(),
        keeps_pending: true,
    };
    assert_eq!(kept.ask(&verb), StreamGroupReply::Delivered(vec![id(2)]));
    let owners: Vec<_> = kept.state().pending.values().map(|pending| pending.consumer.clone()).collect();
    assert_eq!(owners, [name(1), name(1), name(2)]);
}

#[test]
fn a_group_that_kafka_made_goes_on_where_it_has_committed() {
    let mut kept = Kept::new();
    kept.committed = Some(Committed { offset: 42, is_own: false });
    let create = StreamGroupVerb::Create(at(0));
    assert_eq!(kept.ask(&create), StreamGroupReply::Refused(StreamGroupError::GroupExists));
    let begin = StreamGroupVerb::Begin { consumer: name(1) };
    assert_eq!(kept.ask(&begin), StreamGroupReply::Position(42));
}

#[test]
fn looking_at_a_group_that_kafka_has_moved_changes_nothing() {
    let mut kept = Kept::new();
    kept.ask(&StreamGroupVerb::Create(at(0)));
    delivered(&mut kept, 1, 0, 3);
    let before = kept.log.clone();
    let outside = Some(Committed { offset: 9, is_own: false });
    let looked = kept.groups.look(&key(), &StreamGroupVerb::Summary, outside, 0);
    assert!(matches!(looked, StreamGroupReply::Summary(summary) if summary.count == 0));
    assert_eq!((kept.log, kept.groups.groups[&key()].pending.len()), (before, 3));
}

#[test]
fn a_destroyed_group_leaves_nothing_in_the_log() {
    let mut kept = Kept::new();
    kept.ask(&StreamGroupVerb::Create(at(0)));
    delivered(&mut kept, 1, 0, 3);
    assert_eq!(kept.ask(&StreamGroupVerb::Destroy), StreamGroupReply::Count(1));
    assert!(kept.groups.groups.is_empty() && kept.groups.snapshot().next().is_none());
    let summary = kept.ask(&StreamGroupVerb::Summary);
    assert_eq!(summary, StreamGroupReply::Refused(StreamGroupError::NoGroup));
}

#[test]
fn pending_entries_are_found_by_range_consumer_and_idle_time() {
    let mut kept = Kept::new();
    kept.ask(&StreamGroupVerb::Create(at(0)));
    delivered(&mut kept, 1, 0, 3);
    kept.now_ms += 100;
    delivered(&mut kept, 2, 3, 3);
    let mut found = |first, last, consumer: Option<u8>, min_idle_ms| {
        let consumer = consumer.map(name);
        let filter = PendingFilter { first, last, count: 10, consumer, min_idle_ms };
        match kept.ask(&StreamGroupVerb::Pending(filter)) {
            StreamGroupReply::Pending(pending) => {
                pending.iter().map(|entry| entry.id.offset).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(found(0, 9, None, 0), [0, 1, 2, 3, 4, 5]);
    assert_eq!(found(1, 4, None, 0), [1, 2, 3, 4]);
    assert_eq!(found(0, 9, Some(2), 0), [3, 4, 5]);
    assert_eq!(found(0, 9, None, 50), [0, 1, 2]);
    assert_eq!(found(5, 1, None, 0), Vec::<Offset>::new());
    assert_eq!(found(0, 9, Some(3), 0), Vec::<Offset>::new());
}
