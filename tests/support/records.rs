//! The records that travel: made here, sent by one client, read by the same or another, and compared here.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// A header that carries the record's number in the test, so that even a null value is told from another.
const SEQUENCE_HEADER: &str = "sequence";

/// One record as the test wants it to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// One record as a client read it.
#[derive(Clone, Debug)]
pub struct Consumed {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub record: Record,
}

/// The answers to one `produce`.
#[derive(Debug, Default)]
pub struct Acks {
    /// By (topic, line): the partition and offset, or -1 from a client that does not tell.
    pub acked: HashMap<(String, usize), (i32, i64)>,
    pub failed: Vec<String>,
}

/// Deterministic small numbers; the quality of chance is of no concern here.
pub fn mixed(mut seed: u64) -> u64 {
    seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ (seed >> 31)
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_millis()).expect("the clock is before the year 292 million")
}

/// `count` keyed records numbered from `first`: words that compress, lengths from 0 to 10 KiB, binary headers, and
/// among them null keys, null values and empty values. Timestamps rise by one and end now.
pub fn records(first: usize, count: usize) -> Vec<Record> {
    let start = now_ms() - i64::try_from(count).expect("few records");
    (first..first + count)
        .zip(start..)
        .map(|(number, timestamp)| {
            let noise = mixed(number as u64);
            let length = if number % 199 == 7 { 10 * 1024 } else { noise as usize % 300 };
            let mut text = format!("{number:08} ");
            while text.len() < length {
                text.push_str(["offset ", "segment ", "batch ", "über ", "\t\n"][text.len() % 5]);
            }
            Record {
                timestamp,
                key: (number % 1000 != 502).then(|| format!("key-{}", noise % 97).into_bytes()),
                value: match number % 1000 {
                    500 => None,
                    501 => Some(Vec::new()),
                    _ => Some(text.into_bytes()),
                },
                headers: vec![
                    (SEQUENCE_HEADER.to_owned(), Some(number.to_string().into_bytes())),
                    ("binary".to_owned(), Some(noise.to_be_bytes().to_vec())),
                    ("empty".to_owned(), Some(Vec::new())),
                ],
            }
        })
        .collect()
}

fn hex(data: Option<&[u8]>) -> String {
    let Some(data) = data else { return "-".to_owned() };
    data.iter().fold(String::with_capacity(2 * data.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text == "-" {
        return None;
    }
    assert!(text.len().is_multiple_of(2), "not hexadecimal: {text:?}");
    let digit =
        |byte: u8| char::from(byte).to_digit(16).unwrap_or_else(|| panic!("not hexadecimal: {text:?}"));
    let byte = |pair: &[u8]| u8::try_from(digit(pair[0]) << 4 | digit(pair[1])).expect("two digits");
    Some(text.as_bytes().chunks(2).map(byte).collect())
}

impl Record {
    /// The line that `produce` reads.
    pub fn to_line(&self) -> String {
        let headers: Vec<String> =
            self.headers.iter().map(|(name, value)| format!("{name}:{}", hex(value.as_deref()))).collect();
        let (key, value) = (hex(self.key.as_deref()), hex(self.value.as_deref()));
        format!("{}\t{key}\t{value}\t{}\n", self.timestamp, headers.join(","))
    }

    /// The number that [`records`] gave to it.
    pub fn sequence(&self) -> usize {
        let header = self.headers.iter().find(|(name, _)| name == SEQUENCE_HEADER);
        header
            .and_then(|(_, value)| String::from_utf8(value.clone()?).ok()?.parse().ok())
            .unwrap_or_else(|| panic!("a record without its sequence header: {self:?}"))
    }
}

impl Consumed {
    /// Reads the fields after the word `record`.
    pub fn from_fields(fields: &[&str]) -> Consumed {
        let &[topic, partition, offset, timestamp, key, value, headers] = fields else {
            panic!("not a record line: {fields:?}");
        };
        let headers = headers
            .split_terminator(',')
            .map(|pair| pair.split_once(':').expect("NAME:HEX"))
            .map(|(name, value)| (name.to_owned(), unhex(value)))
            .collect();
        let record = Record {
            timestamp: timestamp.parse().expect("a timestamp"),
            key: unhex(key),
            value: unhex(value),
            headers,
        };
        let partition = partition.parse().expect("a partition");
        Consumed { topic: topic.to_owned(), partition, offset: offset.parse().expect("an offset"), record }
    }
}

/// Asserts that `consumed`, all that one topic holds, is exactly `sent`: every record once, with the same timestamp,
/// key, value and headers, in sending order within each partition, at offsets without a gap, and where the
/// acknowledgements said.
pub fn assert_exactly(topic: &str, sent: &[Record], acks: &Acks, consumed: &[Consumed]) {
    assert!(acks.failed.is_empty(), "{topic}: {} sends failed: {:?}", acks.failed.len(), acks.failed.first());
    let first = sent.first().map_or(0, Record::sequence);
    let mut seen = vec![false; sent.len()];
    let mut last: BTreeMap<i32, (i64, usize)> = BTreeMap::new();
    for found in consumed.iter().filter(|found| found.topic == topic) {
        let sequence = found.record.sequence();
        let index = sequence.checked_sub(first).filter(|&index| index < sent.len());
        let index = index.unwrap_or_else(|| panic!("{topic}: record {sequence} was never sent"));
        let place = format!("{topic}-{} offset {}", found.partition, found.offset);
        assert_eq!(found.record, sent[index], "{place}: record {sequence} changed on the way");
        assert!(!std::mem::replace(&mut seen[index], true), "{place}: record {sequence} came twice");
        if let Some((offset, before)) = last.insert(found.partition, (found.offset, sequence)) {
            assert_eq!(found.offset, offset + 1, "{place}: not the offset after {offset}");
            assert!(before < sequence, "{place}: record {sequence} after record {before}");
        } else {
            assert_eq!(found.offset, 0, "{place}: the partition does not begin at 0");
        }
        let &(partition, offset) = acks
            .acked
            .get(&(topic.to_owned(), index))
            .unwrap_or_else(|| panic!("{place}: record {sequence} was never acknowledged"));
        if offset >= 0 {
            assert_eq!(
                (partition, offset),
                (found.partition, found.offset),
                "{place}: acknowledged elsewhere"
            );
        }
    }
    let missing = seen.iter().filter(|seen| !**seen).count();
    assert_eq!(missing, 0, "{topic}: {missing} of {} records are missing", sent.len());
}
