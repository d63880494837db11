//! Tests that cross the files of `record`; what concerns one file alone is tested there.

mod foreign;
mod properties;
mod refusals;

use std::ops::ControlFlow;

use super::{BatchBuilder, Compression, Header, TimestampType, ValidationLimits, for_each_record};

/// A record with bytes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OwnedRecord {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl OwnedRecord {
    fn of_value(timestamp: i64, value: &[u8]) -> Self {
        OwnedRecord { timestamp, key: None, value: Some(value.to_vec()), headers: Vec::new() }
    }

    fn append_to(&self, builder: &mut BatchBuilder) {
        let headers = self.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() });
        builder.append(self.timestamp, self.key.as_deref(), self.value.as_deref(), headers).expect("fits");
    }
}

fn build(compression: Compression, records: &[OwnedRecord]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression);
    records.iter().for_each(|record| record.append_to(&mut builder));
    builder.finish().to_vec()
}

fn read_all(batch: &[u8]) -> Result<Vec<(i64, OwnedRecord)>, super::BatchError> {
    let mut found = Vec::new();
    for_each_record(batch, |record| {
        let headers = record.headers.map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)));
        let owned = OwnedRecord {
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers.collect(),
        };
        found.push((record.offset, owned));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn lenient_limits() -> ValidationLimits {
    ValidationLimits {
        max_message_bytes: usize::MAX,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        now_ms: 1_700_000_000_000,
        requires_keys: false,
    }
}
