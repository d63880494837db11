//! Kafka's rules for sequences, epochs and transactions of one partition's producers.

use super::*;

fn header(producer_epoch: i16, base_sequence: i32, count: i32, base_offset: i64) -> BatchHeader {
    BatchHeader {
        base_offset,
        batch_length: 100,
        leader_epoch: 0,
        magic: 2,
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: 1_000,
        max_timestamp: 1_000 + base_offset,
        producer_id: 7,
        producer_epoch,
        base_sequence,
        record_count: count,
    }
}

fn transactional(mut header: BatchHeader) -> BatchHeader {
    header.attributes |= 0b1_0000;
    header
}

fn marker(commits: bool, epoch: i16, base_offset: i64) -> (BatchHeader, Vec<u8>) {
    let mut batch = record::end_transaction_batch(7, epoch, commits, 3, 5_000);
    record::assign_offset(&mut batch, base_offset, 0);
    (BatchHeader::parse(&batch).unwrap(), batch.to_vec())
}

#[test]
fn batches_in_order_are_new_and_the_last_five_are_recognised() {
    let producers = ProducerStateManager::default();
    for number in 0..7 {
        let header = header(0, number * 10, 10, i64::from(number) * 10);
        assert_eq!(producers.check(&header, true), Ok(ProducerCheck::Append));
        producers.update(&header, &[]);
    }
    let duplicate = ProducerCheck::Duplicate { base_offset: 20, last_offset: 29, append_time_ms: 1_020 };
    assert_eq!(producers.check(&header(0, 20, 10, 99), true), Ok(duplicate));
    let forgotten = ProducerError::OutOfOrderSequence { producer_id: 7, sequence: 10, last_sequence: 69 };
    assert_eq!(producers.check(&header(0, 10, 10, 99), true), Err(forgotten));
    let gap = ProducerError::OutOfOrderSequence { producer_id: 7, sequence: 71, last_sequence: 69 };
    assert_eq!(producers.check(&header(0, 71, 10, 99), true), Err(gap));
    assert_eq!(
        producers.check(&header(0, 71, 10, 99), false),
        Ok(ProducerCheck::Append),
        "our own coordinator"
    );
}

#[test]
fn a_new_epoch_begins_at_zero_and_fences_the_old_one() {
    let producers = ProducerStateManager::default();
    producers.update(&header(1, 0, 10, 0), &[]);
    assert!(matches!(
        producers.check(&header(2, 5, 1, 10), true),
        Err(ProducerError::OutOfOrderSequence { .. })
    ));
    assert_eq!(producers.check(&header(2, 0, 1, 10), true), Ok(ProducerCheck::Append));
    producers.update(&header(2, 0, 1, 10), &[]);
    let fenced = ProducerError::InvalidEpoch { producer_id: 7, epoch: 1, current_epoch: 2 };
    assert_eq!(producers.check(&header(1, 10, 1, 11), true), Err(fenced));
}

#[test]
fn sequences_wrap_from_the_largest_number_to_zero() {
    let producers = ProducerStateManager::default();
    producers.update(&header(0, i32::MAX - 1, 2, 0), &[]);
    assert_eq!(producers.check(&header(0, 0, 1, 2), true), Ok(ProducerCheck::Append));
    producers.update(&header(0, i32::MAX, 3, 2), &[]); // spans the wrap
    assert_eq!(producers.check(&header(0, 2, 1, 5), true), Ok(ProducerCheck::Append));
    assert!(matches!(producers.check(&header(0, i32::MAX, 3, 9), true), Ok(ProducerCheck::Duplicate { .. })));
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    let producers = ProducerStateManager::default();
    assert_eq!(producers.check(&header(4, 1_234, 1, 0), true), Ok(ProducerCheck::Append));
}

#[test]
fn transactions_hold_the_stable_offset_until_their_marker_is_below_the_high_watermark() {
    let producers = ProducerStateManager::default();
    producers.update(&transactional(header(0, 0, 5, 10)), &[]);
    assert_eq!(producers.first_unstable_offset(), Some(10));
    assert!(matches!(
        producers.check(&header(0, 5, 1, 15), true),
        Err(ProducerError::TransactionOpen { .. })
    ));
    let (abort, bytes) = marker(false, 0, 15);
    let aborted = producers.update(&abort, &bytes);
    let expected =
        AbortedTransaction { producer_id: 7, first_offset: 10, last_offset: 15, last_stable_offset: 16 };
    assert_eq!(aborted, Some(expected));
    assert_eq!(producers.first_unstable_offset(), Some(10), "the marker is not below the high watermark yet");
    producers.on_high_watermark(16);
    assert_eq!(producers.first_unstable_offset(), None);
    producers.update(&transactional(header(0, 5, 1, 16)), &[]);
    let (commit, bytes) = marker(true, 0, 17);
    assert_eq!(producers.update(&commit, &bytes), None);
    assert!(!producers.has_open_transaction(7));
    assert!(matches!(producers.check_marker(7, 0, 2), Err(ProducerError::CoordinatorFenced { .. })));
}

#[test]
fn a_snapshot_is_read_back_and_a_damaged_one_is_refused() {
    let producers = ProducerStateManager::default();
    producers.update(&header(3, 0, 10, 0), &[]);
    producers.update(&transactional(header(3, 10, 10, 10)), &[]);
    let (offset, bytes) = producers.snapshot().unwrap();
    assert_eq!((offset, bytes.len()), (20, 2 + 4 + 4 + 46));
    let restored = ProducerStateManager::new(parse(&bytes).unwrap(), offset);
    assert_eq!(restored.list(), producers.list());
    assert_eq!(restored.first_unstable_offset(), Some(10));
    assert!(restored.snapshot().is_none(), "nothing new");
    assert!(matches!(restored.check(&header(3, 10, 10, 99), true), Ok(ProducerCheck::Duplicate { .. })));
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 1;
        assert!(parse(&damaged).is_none(), "{position}");
        assert!(parse(&bytes[..position]).is_none(), "{position}");
    }
}

#[test]
fn idle_producers_are_forgotten_unless_their_transaction_is_open() {
    let producers = ProducerStateManager::default();
    producers.update(&header(0, 0, 1, 0), &[]);
    assert_eq!(producers.expire(1_000 + 99, 100), 0);
    assert_eq!(producers.expire(1_000 + 100, 100), 1);
    producers.update(&transactional(header(0, 0, 1, 1)), &[]);
    assert_eq!(producers.expire(i64::MAX, 100), 0);
    assert_eq!(producers.count(), 1);
}

#[test]
fn the_coordinators_word_is_void_once_a_marker_came() {
    let producers = ProducerStateManager::default();
    let begins_at_zero = false;
    let first = transactional(header(0, 0, 1, 0));
    let missing = Err(ProducerError::NotInTransaction { producer_id: 7 });
    assert_eq!(producers.check_verified(&first, None), missing);
    assert_eq!(producers.check_verified(&header(0, 0, 1, 0), None), Ok(()), "no part of a transaction");
    let guard = producers.verification_guard(7, 0).unwrap();
    let word = Some(Verified { guard, begins_at_zero });
    assert_eq!(producers.check_verified(&first, word), Ok(()));
    producers.update(&first, &[]);
    assert_eq!(producers.verification_guard(7, 0), None, "it is open");
    let second = transactional(header(0, 1, 1, 1));
    assert_eq!(producers.check_verified(&second, None), Ok(()));
    let (end, batch) = marker(true, 0, 1);
    producers.update(&end, &batch);
    let late = transactional(header(0, 1, 1, 2));
    assert_eq!(producers.check_verified(&late, word), missing, "it was given before the marker");
    let word = Some(Verified { guard: producers.verification_guard(7, 0).unwrap(), begins_at_zero });
    assert_eq!(producers.check_verified(&late, word), Ok(()));
    let other_epoch = transactional(header(1, 0, 1, 3));
    producers.update(&late, &[]);
    assert!(producers.verification_guard(7, 1).is_some(), "open in another epoch");
    assert_eq!(producers.check_verified(&other_epoch, None), missing);
}

#[test]
fn a_producer_of_version_two_begins_its_first_transaction_at_sequence_zero() {
    let producers = ProducerStateManager::default();
    let verified =
        Some(Verified { guard: producers.verification_guard(7, 0).unwrap(), begins_at_zero: true });
    let gap = ProducerError::OutOfOrderSequence { producer_id: 7, sequence: 3, last_sequence: NO_SEQUENCE };
    assert_eq!(producers.check_verified(&transactional(header(0, 3, 1, 0)), verified), Err(gap));
    assert_eq!(producers.check_verified(&transactional(header(0, 0, 1, 0)), verified), Ok(()));
}

#[test]
fn a_marker_with_an_epoch_of_its_own_is_recognised() {
    let producers = ProducerStateManager::default();
    assert!(!producers.has_marker(7, 1));
    producers.update(&transactional(header(0, 0, 1, 0)), &[]);
    assert!(!producers.has_marker(7, 1));
    let (end, batch) = marker(false, 1, 1);
    assert!(producers.update(&end, &batch).is_some());
    assert!(producers.has_marker(7, 1));
    producers.update(&transactional(header(1, 0, 1, 2)), &[]);
    assert!(!producers.has_marker(7, 1), "the next transaction is open in this epoch");
}
