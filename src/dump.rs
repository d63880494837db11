//! `logstreams dump`: what lies in a partition's files, as text, one line for each thing.
//!
//! Reads files that may be torn or damaged: everything readable is printed, then what is wrong and where. Runs in a
//! process of its own, never beside a shard.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::record::{self, Batch, Batches, RecordView};
use crate::runtime::mapped_file;

/// Bytes of an entry in an offset index: relative offset and position, four each.
const OFFSET_ENTRY_BYTES: usize = 8;
/// Bytes of an entry in a time index: timestamp, eight, and relative offset, four.
const TIME_ENTRY_BYTES: usize = 12;

/// Why a file could not be dumped to its end.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Not one of a partition's files.
    #[error("{0} is not a segment (.log), an offset index (.index) or a time index (.timeindex)")]
    UnknownKind(PathBuf),
    /// The name of an index or segment begins with its base offset.
    #[error("the name of {0} does not begin with a base offset of 20 digits")]
    NoBaseOffset(PathBuf),
    /// Something in the file is damaged.
    #[error("{path} is damaged at position {position}: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage begins, in bytes.
        position: usize,
        /// What is wrong.
        problem: String,
    },
    /// The text could not be written.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// Prints `files` to standard output; with `records` also every record of every batch.
///
/// # Errors
/// The first thing that is wrong; what comes before it has been printed.
pub fn run(files: &[PathBuf], records: bool) -> Result<(), DumpError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let dumped = files.iter().try_for_each(|file| dump_file(file, records, &mut out));
    match out.flush() {
        // `dump | head` is no error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        flushed => dumped.and(flushed.map_err(DumpError::Write)),
    }
}

fn dump_file(path: &Path, records: bool, out: &mut impl Write) -> Result<(), DumpError> {
    let bytes =
        mapped_file::map_now(path).map_err(|source| DumpError::Read { path: path.to_owned(), source })?;
    writeln!(out, "file {} size={}", path.display(), bytes.len())?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("log") => dump_segment(path, &bytes, records, out),
        Some("index") => dump_offset_index(path, &bytes, out),
        Some("timeindex") => dump_time_index(path, &bytes, out),
        _ => Err(DumpError::UnknownKind(path.to_owned())),
    }
}

fn dump_segment(path: &Path, bytes: &[u8], records: bool, out: &mut impl Write) -> Result<(), DumpError> {
    let mut batches = Batches::new(bytes);
    loop {
        let position = batches.position();
        // Room that was reserved ahead of a segment that is being written holds zeros.
        if bytes[position.min(bytes.len())..].iter().all(|byte| *byte == 0) {
            if position < bytes.len() {
                writeln!(out, "reserved position={position} size={}", bytes.len() - position)?;
            }
            return Ok(());
        }
        let damaged = |problem: String| DumpError::Damaged { path: path.to_owned(), position, problem };
        match batches.next() {
            None => return Ok(()),
            Some(Err(error)) => return Err(damaged(error.to_string())),
            Some(Ok(batch)) => {
                dump_batch(&batch, out)?;
                if records {
                    dump_records(&batch, out).map_err(damaged)?;
                }
            }
        }
    }
}

fn dump_batch(batch: &Batch<'_>, out: &mut impl Write) -> io::Result<()> {
    let header = &batch.header;
    let codec = header.compression().map_or_else(|error| error.to_string(), |codec| format!("{codec:?}"));
    writeln!(
        out,
        "batch base_offset={} last_offset={} count={} position={} size={} codec={} crc={} valid={} epoch={} \
         timestamp_type={:?} base_timestamp={} max_timestamp={} producer_id={} producer_epoch={} base_sequence={} \
         transactional={} control={}",
        header.base_offset,
        header.last_offset(),
        header.record_count,
        batch.position,
        header.size_bytes(),
        codec.to_lowercase(),
        header.crc,
        batch.check_crc().is_ok(),
        header.leader_epoch,
        header.timestamp_type(),
        header.base_timestamp,
        header.max_timestamp,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        header.is_transactional(),
        header.is_control(),
    )
}

fn dump_records(batch: &Batch<'_>, out: &mut impl Write) -> Result<(), String> {
    let mut written = Ok(());
    let read = record::for_each_record(batch.bytes, |record| {
        written = writeln!(out, "{}", record_line(&record));
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    read.map_err(|error| error.to_string())?;
    written.map_err(|error| error.to_string())
}

fn record_line(record: &RecordView<'_>) -> String {
    let mut line = format!(
        "record offset={} timestamp={} key={} value={} headers=",
        record.offset,
        record.timestamp,
        shown(record.key),
        shown(record.value)
    );
    for (index, header) in record.headers.enumerate() {
        let separator = if index > 0 { "," } else { "" };
        let key = shown(Some(header.key));
        let _ = write!(line, "{separator}{key}:{}", shown(header.value)); // writing to a string does not fail
    }
    line
}

/// Bytes as text on one line; `null` where there are none.
fn shown(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "null".to_owned(), |bytes| bytes.escape_ascii().to_string())
}

fn dump_offset_index(path: &Path, bytes: &[u8], out: &mut impl Write) -> Result<(), DumpError> {
    let base_offset = base_offset_of(path)?;
    let mut last_relative = None;
    for (number, entry) in bytes.chunks_exact(OFFSET_ENTRY_BYTES).enumerate() {
        let (relative, position) = (number_at(&entry[..4]), number_at(&entry[4..]));
        if number > 0 && last_relative >= Some(relative) {
            break; // what follows was reserved and not yet used
        }
        last_relative = Some(relative);
        writeln!(out, "entry offset={} position={position}", base_offset + relative)?;
    }
    Ok(())
}

fn dump_time_index(path: &Path, bytes: &[u8], out: &mut impl Write) -> Result<(), DumpError> {
    let base_offset = base_offset_of(path)?;
    let mut last_timestamp = None;
    for (number, entry) in bytes.chunks_exact(TIME_ENTRY_BYTES).enumerate() {
        let (timestamp, relative) = (number_at(&entry[..8]), number_at(&entry[8..]));
        if number > 0 && last_timestamp >= Some(timestamp) {
            break; // what follows was reserved and not yet used
        }
        last_timestamp = Some(timestamp);
        writeln!(out, "entry timestamp={timestamp} offset={}", base_offset + relative)?;
    }
    Ok(())
}

/// A big-endian number of four or eight bytes.
fn number_at(bytes: &[u8]) -> i64 {
    bytes.iter().fold(0, |number, byte| (number << 8) | i64::from(*byte))
}

fn base_offset_of(path: &Path) -> Result<i64, DumpError> {
    path.file_stem()
        .and_then(|stem| stem.to_str())
        .filter(|stem| stem.len() == 20)
        .and_then(|stem| stem.parse().ok())
        .ok_or_else(|| DumpError::NoBaseOffset(path.to_owned()))
}
