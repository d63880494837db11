//! The state comes back from its records, whatever was written in whatever order.

use proptest::prelude::*;

use super::ShareStates;
use crate::coordinator::share_partition::{DeliveryState, StateBatch};
use crate::model::Uuid;
use crate::model::share::ShareKey;

fn key(partition: i32) -> ShareKey {
    ShareKey { group_id: "g".to_owned(), topic_id: Uuid::from_u128(7), partition }
}

#[test]
fn a_key_goes_where_kafka_puts_it() {
    // Kafka: Utils.abs("g:AAAAAAAAAAAAAAAAAAAABw:0".hashCode()) % 50.
    let text = "g:AAAAAAAAAAAAAAAAAAAABw:0";
    let hash = text.bytes().fold(0i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
    assert_eq!(key(0).state_partition(50), (hash & i32::MAX) % 50);
}

#[test]
fn who_knew_the_state_before_it_was_made_anew_cannot_write_it() {
    let mut states = ShareStates::default();
    states.initialize(&key(0), 5, 0);
    let epoch = states.get(&key(0)).unwrap().state_epoch;
    assert!(states.write(&key(0), epoch, 6, &[], 0).is_some());
    states.initialize(&key(0), 0, 0);
    assert!(states.write(&key(0), epoch, 7, &[], 0).is_none());
    assert_eq!(states.get(&key(0)).unwrap().start_offset, 0);
}

proptest! {
    #[test]
    fn states_come_back_from_their_records(
        steps in proptest::collection::vec((0u8..10, 0i32..3, 0i64..40, 1i64..10, 0i8..3, 0i16..5), 0..700),
    ) {
        let mut states = ShareStates::default();
        let mut log = Vec::new();
        for (action, partition, first, length, state, delivery_count) in steps {
            let key = key(partition);
            match action {
                0 => log.push(states.initialize(&key, first, 1)),
                1 if first == 0 => log.extend(states.forget(|it| *it == key)),
                _ => {
                    let batch = StateBatch {
                        first_offset: first,
                        last_offset: first + length,
                        state: DeliveryState::of(state * 2),
                        delivery_count,
                    };
                    let known = states.get(&key).map(|state| (state.state_epoch, state.start_offset));
                    if let Some((epoch, start)) = known {
                        log.extend(states.write(&key, epoch, start, &[batch], 1));
                    }
                }
            }
        }
        let mut replayed = ShareStates::default();
        for record in &log {
            replayed.replay(&record.key, record.value.as_deref()).unwrap();
        }
        let mut rewritten = ShareStates::default();
        for record in states.snapshot(2) {
            rewritten.replay(&record.key, record.value.as_deref()).unwrap();
        }
        for partition in 0..3 {
            prop_assert_eq!(replayed.get(&key(partition)), states.get(&key(partition)));
            prop_assert_eq!(rewritten.get(&key(partition)), states.get(&key(partition)));
        }
        if let Some(state) = states.get(&key(0)) {
            let ends: Vec<_> = state.batches.iter().map(|batch| (batch.first_offset, batch.last_offset)).collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0), "{ends:?}");
        }
    }
}
