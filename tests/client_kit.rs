//! The checks of the client tests can fail: each fault that a server could commit is committed here, and noticed.

mod support;

use std::panic::catch_unwind;
use support::records::{Acks, Consumed, Record, assert_exactly, records};

const TOPIC: &str = "topic";

/// Records 0, 2, 4... in partition 0 and the others in partition 1, acknowledged and read as they should be.
fn flawless() -> (Vec<Record>, Acks, Vec<Consumed>) {
    let sent = records(0, 600);
    let mut acks = Acks::default();
    let mut consumed = Vec::new();
    for (line, record) in sent.iter().enumerate() {
        let (partition, offset) =
            (i32::from(line % 2 == 1), i64::try_from(line / 2).expect("a small number"));
        acks.acked.insert((TOPIC.to_owned(), line), (partition, offset));
        consumed.push(Consumed { topic: TOPIC.to_owned(), partition, offset, record: record.clone() });
    }
    (sent, acks, consumed)
}

/// The message with which the check fails once `fault` has been committed.
fn complaint(fault: impl FnOnce(&mut Acks, &mut Vec<Consumed>)) -> String {
    let (sent, mut acks, mut consumed) = flawless();
    fault(&mut acks, &mut consumed);
    let verdict = catch_unwind(|| assert_exactly(TOPIC, &sent, &acks, &consumed));
    let panic = verdict.expect_err("the fault went unnoticed");
    panic.downcast_ref::<String>().expect("a message").clone()
}

#[test]
fn a_flawless_run_passes() {
    let (sent, acks, consumed) = flawless();
    assert_exactly(TOPIC, &sent, &acks, &consumed);
}

#[test]
fn a_lost_record_is_noticed() {
    assert!(complaint(|_, consumed| drop(consumed.pop())).contains("1 of 600 records are missing"));
}

#[test]
fn a_gap_in_the_offsets_is_noticed() {
    assert!(complaint(|_, consumed| drop(consumed.remove(100))).contains("not the offset after"));
}

#[test]
fn a_doubled_record_is_noticed() {
    let message = complaint(|_, consumed| {
        let last = consumed.last().expect("records").clone();
        consumed.push(Consumed { offset: last.offset + 1, ..last });
    });
    assert!(message.contains("came twice"), "{message}");
}

#[test]
fn two_records_in_the_wrong_order_are_noticed() {
    let message = complaint(|_, consumed| {
        let (first, second) = (consumed[10].record.clone(), consumed[12].record.clone());
        (consumed[10].record, consumed[12].record) = (second, first);
    });
    assert!(message.contains("acknowledged elsewhere") || message.contains("after record"), "{message}");
}

#[test]
fn a_changed_value_key_header_or_timestamp_is_noticed() {
    let changes: [fn(&mut Record); 6] = [
        |record| record.value.as_mut().expect("a value")[0] ^= 1,
        |record| record.value = None,
        |record| record.key = Some(Vec::new()),
        |record| drop(record.headers.pop()),
        |record| record.headers[2].1 = None,
        |record| record.timestamp += 1,
    ];
    for change in changes {
        let message = complaint(|_, consumed| change(&mut consumed[42].record));
        assert!(message.contains("changed on the way"), "{message}");
    }
}

#[test]
fn an_empty_value_in_place_of_null_is_noticed() {
    let message = complaint(|_, consumed| {
        assert_eq!(consumed[500].record.value, None, "the records have a null value");
        consumed[500].record.value = Some(Vec::new());
    });
    assert!(message.contains("changed on the way"), "{message}");
}

#[test]
fn a_wrong_acknowledgement_is_noticed() {
    let message = complaint(|acks, _| _ = acks.acked.insert((TOPIC.to_owned(), 7), (1, 4)));
    assert!(message.contains("acknowledged elsewhere"), "{message}");
    let message = complaint(|acks, _| _ = acks.acked.remove(&(TOPIC.to_owned(), 7)));
    assert!(message.contains("never acknowledged"), "{message}");
    let message = complaint(|acks, _| acks.failed.push("failed\ttopic\t1\treason".to_owned()));
    assert!(message.contains("sends failed"), "{message}");
}
