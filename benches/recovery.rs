//! What opening a log costs after a crash and after a clean stop.
//!
//! The log has 64 KiB batches of 1 KiB records in segments of 256 MiB. After a crash without a checkpoint everything is
//! scanned and every CRC checked; once with the files in the page cache, once with their pages given up before. With a
//! checkpoint only what was not known to be durable is scanned, here the last tenth; after a clean stop nothing is.
//! GB/s counts all bytes of the log, whether or not they had to be looked at.

#[path = "support/mod.rs"]
mod support;

use std::fs::File;
use std::path::Path;

use logstreams::base::clock;
use logstreams::base::units::{KIB, MIB};
use logstreams::runtime::block_on;
use logstreams::storage::{Log, LogCheckpoint, LogOptions, ShardStorage, ShardStorageLimits, StartHint};
use rustix::fs::{Advice, fadvise};
use support::{Series, Table, scaled};

const LOG_BYTES: usize = 768 * MIB;
const SEGMENT_BYTES: usize = 256 * MIB;
const BATCH_BYTES: usize = 64 * KIB;
const RECORD_BYTES: usize = KIB;

/// What the start knows, and where the bytes are.
#[derive(Clone, Copy)]
enum Start {
    Crash { is_cached: bool },
    CrashWithCheckpoint,
    Clean,
}

struct Case {
    name: &'static str,
    start: Start,
    seconds: Series,
}

/// What a crash and a clean stop have left.
struct Left {
    /// With a recovery point a tenth before the end.
    at_crash: LogCheckpoint,
    at_close: LogCheckpoint,
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: SEGMENT_BYTES as u64, ..LogOptions::default() }
}

async fn open(dir: &Path, start: StartHint) -> Log {
    support::open(dir, &options(), &ShardStorage::new(ShardStorageLimits::default()), start).await
}

async fn write(dir: &Path, log_bytes: usize) -> Left {
    let log = open(dir, StartHint::default()).await;
    support::fill(&log, &support::batch(BATCH_BYTES, RECORD_BYTES), log_bytes / 10 * 9).await;
    log.flush().await.expect("synced");
    let recovery_point = log.checkpoint().recovery_point;
    support::fill(&log, &support::batch(BATCH_BYTES, RECORD_BYTES), log_bytes / 10).await;
    let at_crash = LogCheckpoint { recovery_point, ..log.checkpoint() };
    Left { at_crash, at_close: log.close().await.expect("closed") }
}

/// Has the kernel give up the pages of a log's files.
fn drop_pages(dir: &Path) {
    for entry in std::fs::read_dir(dir.join("orders-0")).expect("the log is there") {
        let file = File::open(entry.expect("an entry").path()).expect("it opens");
        file.sync_all().expect("synced"); // dirty pages stay
        fadvise(&file, 0, None, Advice::DontNeed).expect("the kernel takes advice");
    }
}

impl Case {
    fn round(&mut self, dir: &Path, left: &mut Left) {
        let hint = |clean_shutdown, checkpoint| StartHint { clean_shutdown, checkpoint, topic_id: None };
        let hint = match self.start {
            Start::Crash { .. } => hint(false, None),
            Start::CrashWithCheckpoint => hint(false, Some(left.at_crash)),
            Start::Clean => hint(true, Some(left.at_close)),
        };
        if let Start::Crash { is_cached: false } = self.start {
            drop_pages(dir);
        }
        block_on(async {
            let start = clock::monotonic();
            let log = open(dir, hint).await;
            self.seconds.push(start.elapsed().as_secs_f64());
            assert_eq!(log.log_end_offset(), left.at_close.end.expect("it is known").log_end_offset);
            left.at_close = log.close().await.expect("closed");
        });
    }
}

fn main() {
    let dir = support::temporary_directory();
    let log_bytes = scaled(LOG_BYTES, 4 * MIB);
    let mut left = block_on(write(dir.path(), log_bytes));
    let case = |name, start| Case { name, start, seconds: Series::default() };
    let mut cases = [
        case("crash, no checkpoint, in the page cache", Start::Crash { is_cached: true }),
        case("crash, no checkpoint, from the device", Start::Crash { is_cached: false }),
        case("crash, last tenth behind the checkpoint", Start::CrashWithCheckpoint),
        case("clean stop", Start::Clean),
    ];
    support::interleave(&mut cases, |case| case.round(dir.path(), &mut left));
    let mut table = Table::new(&["start", "ms", "GB/s"]);
    for case in &cases {
        let milliseconds = case.seconds.scaled(1e3);
        table.row(&[
            &case.name,
            &milliseconds,
            &format!("{:.2}", log_bytes as f64 / 1e9 / case.seconds.median()),
        ]);
    }
    table.print(&format!(
        "Log::open of {} in {} batches",
        support::size(log_bytes),
        support::size(BATCH_BYTES)
    ));
}
