//! Which segments may go: a pure function of sizes, times and limits.
//!
//! Segments go from the front only. One may go when the log begins behind it (DeleteRecords), when its newest record is
//! older than `retention.ms`, or while the log without it is still at least `retention.bytes` large. Nothing at or
//! behind the high watermark goes. Source: Kafka `UnifiedLog.deleteOldSegments`.

use crate::model::Offset;

/// What retention knows about a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentFacts {
    /// The offset behind it: the base offset of the next segment, or the end of the log.
    pub(super) end_offset: Offset,
    /// Its size.
    pub(super) size_bytes: u64,
    /// Its largest timestamp, or when its file was last changed where records have none.
    pub(super) largest_timestamp: i64,
}

/// What the log may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Milliseconds; negative for no limit.
    pub(super) retention_ms: i64,
    /// Bytes; negative for no limit.
    pub(super) retention_bytes: i64,
    /// Where the log begins.
    pub(super) log_start_offset: Offset,
    /// Nothing that ends behind this goes.
    pub(super) high_watermark: Offset,
}

/// Why segments go, in segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Deletable {
    /// Because the log begins behind them.
    pub(super) before_start: usize,
    /// Because of their age.
    pub(super) by_time: usize,
    /// Because of the log's size.
    pub(super) by_size: usize,
}

impl Deletable {
    /// All of them.
    pub(super) fn count(&self) -> usize {
        self.before_start + self.by_time + self.by_size
    }
}

/// Counts the segments at the front that may go; the last entry is the active segment.
pub(super) fn deletable(segments: &[SegmentFacts], limits: &Limits, now_ms: i64) -> Deletable {
    let mut found = Deletable::default();
    let mut left_bytes: u64 = segments.iter().map(|segment| segment.size_bytes).sum();
    for segment in segments {
        if segment.end_offset > limits.high_watermark {
            break;
        }
        let left_without = left_bytes - segment.size_bytes;
        if segment.end_offset <= limits.log_start_offset {
            found.before_start += 1;
        } else if limits.retention_ms >= 0
            && now_ms.saturating_sub(segment.largest_timestamp) > limits.retention_ms
        {
            found.by_time += 1;
        } else if u64::try_from(limits.retention_bytes).is_ok_and(|bytes| left_without >= bytes) {
            found.by_size += 1;
        } else {
            break;
        }
        left_bytes = left_without;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMITS: Limits =
        Limits { retention_ms: -1, retention_bytes: -1, log_start_offset: 0, high_watermark: 400 };

    /// Four segments of 100 bytes and 100 offsets, with newest records at 1,000, 2,000, 3,000 and 4,000 ms.
    fn segments() -> Vec<SegmentFacts> {
        (1..=4)
            .map(|number| SegmentFacts {
                end_offset: number * 100,
                size_bytes: 100,
                largest_timestamp: number * 1_000,
            })
            .collect()
    }

    #[test]
    fn without_limits_nothing_goes() {
        assert_eq!(deletable(&segments(), &NO_LIMITS, i64::MAX).count(), 0);
    }

    #[test]
    fn what_is_too_old_goes_even_the_active_segment() {
        let limits = Limits { retention_ms: 1_000, ..NO_LIMITS };
        assert_eq!(deletable(&segments(), &limits, 3_000).by_time, 1);
        assert_eq!(deletable(&segments(), &limits, 3_001).by_time, 2);
        assert_eq!(deletable(&segments(), &limits, 9_000).by_time, 4);
    }

    #[test]
    fn the_oldest_go_while_the_rest_is_still_large_enough() {
        let limits = |retention_bytes| Limits { retention_bytes, ..NO_LIMITS };
        assert_eq!(deletable(&segments(), &limits(301), 0).by_size, 0);
        assert_eq!(deletable(&segments(), &limits(300), 0).by_size, 1);
        assert_eq!(deletable(&segments(), &limits(0), 0).by_size, 4);
    }

    #[test]
    fn what_lies_before_the_log_start_goes_and_nothing_behind_the_high_watermark() {
        let limits = Limits { log_start_offset: 250, ..NO_LIMITS };
        assert_eq!(deletable(&segments(), &limits, 0).before_start, 2);
        let limits = Limits { retention_ms: 0, high_watermark: 299, ..NO_LIMITS };
        assert_eq!(deletable(&segments(), &limits, i64::MAX).count(), 2);
    }
}
