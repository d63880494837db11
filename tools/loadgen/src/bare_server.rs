//! The least that a log server does with a batch: take it from a socket, check its CRC-32C, write it to a file, answer.
//!
//! No protocol, no offsets, no index, one connection, one thread. What a broker's CPU per byte is above this, it pays for
//! being a broker; no broker that checks what it stores can be below it.
//! A frame is a size (4 bytes, big-endian) and a batch; the answer to each is 4 bytes. The file holds the batches one
//! after the other and is written through the page cache.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::io::pwritev;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::batch::{ATTRIBUTES_POSITION, CRC_POSITION, HEADER_BYTES};
use crate::crc32c;
use crate::wire::SIZE_BYTES;

/// Bytes of the answer to a batch.
pub const ANSWER_BYTES: usize = 4;
/// Batches in one pwritev; the kernel takes 1,024.
const SLICES_MAX: usize = 1_024;

/// How the server receives and writes.
#[derive(Args, Clone, Debug)]
pub struct BareServerArgs {
    /// The file to write.
    #[arg(long)]
    pub file: PathBuf,
    /// Bytes of the receive buffer.
    #[arg(long)]
    pub receive_bytes: usize,
    /// One pwritev and one answer for all batches of a read.
    #[arg(long)]
    pub coalesce: bool,
}

/// Prints the port, then serves one connection until it closes.
///
/// # Errors
/// If the connection or the file fails, or a batch is damaged.
pub fn serve(args: &BareServerArgs) -> Result<()> {
    // Whatever becomes of the client, nobody stays behind.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let file = File::create(&args.file).with_context(|| format!("creating {}", args.file.display()))?;
    let mut buffer = vec![0; args.receive_bytes];
    // Received and not yet handled: the beginning of a frame, between reads.
    let mut pending = 0..0;
    let mut file_position = 0;
    let mut batches = Vec::new();
    loop {
        if pending.is_empty() {
            pending = 0..0;
        } else if pending.end == buffer.len() {
            ensure!(pending.start > 0, "a frame larger than the receive buffer");
            buffer.copy_within(pending.clone(), 0);
            pending = 0..pending.len();
        }
        match stream.read(&mut buffer[pending.end..]) {
            Ok(0) => return Ok(()),
            Ok(count) => pending.end += count,
            // The client has what it wants and left answers unread.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        batches.clear();
        while let Some(batch) = next_batch(&buffer, &mut pending)? {
            if args.coalesce {
                batches.push(batch);
            } else {
                file.write_all_at(&buffer[batch.clone()], file_position)?;
                file_position += batch.len() as u64;
                stream.write_all(&[0; ANSWER_BYTES])?;
            }
        }
        for batches in batches.chunks(SLICES_MAX) {
            let slices: Vec<IoSlice<'_>> =
                batches.iter().map(|batch| IoSlice::new(&buffer[batch.clone()])).collect();
            let total: usize = batches.iter().map(Range::len).sum();
            let written = pwritev(&file, &slices, file_position)?;
            ensure!(written == total, "the file took {written} of {total} bytes");
            file_position += total as u64;
            stream.write_all(&vec![0; ANSWER_BYTES * batches.len()])?;
        }
    }
}

/// Cuts the next whole frame off `pending` and returns where its batch lies, its CRC checked.
fn next_batch(buffer: &[u8], pending: &mut Range<usize>) -> Result<Option<Range<usize>>> {
    if pending.len() < SIZE_BYTES {
        return Ok(None);
    }
    let start = pending.start + SIZE_BYTES;
    let size = u32::from_be_bytes(buffer[pending.start..start].try_into().expect("4 bytes"));
    let end = start + usize::try_from(size)?;
    ensure!(end - start >= HEADER_BYTES, "a frame of {size} bytes holds no batch");
    if end > pending.end {
        return Ok(None);
    }
    let batch = &buffer[start..end];
    let stored = &batch[CRC_POSITION..ATTRIBUTES_POSITION];
    ensure!(stored == crc32c::of(&batch[ATTRIBUTES_POSITION..]).to_be_bytes(), "a batch is damaged");
    pending.start = end;
    Ok(Some(start..end))
}

#[cfg(test)]
mod tests {
    use super::next_batch;
    use crate::batch::{BatchBuffer, BatchHeader, BatchTemplate};
    use crate::compression::Compression;

    #[test]
    fn whole_sound_frames_are_cut_and_others_are_not() {
        let template = BatchTemplate::new(100, 1_000, 3, Compression::None, None).expect("fits");
        let mut batch = BatchBuffer::default();
        let header = BatchHeader {
            count: 3,
            timestamp_ms: 1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            is_transactional: false,
        };
        template.write(&mut batch, &header).expect("writes");
        let mut frame = u32::try_from(batch.as_slice().len()).expect("small").to_be_bytes().to_vec();
        frame.extend_from_slice(batch.as_slice());
        let whole = frame.len();
        frame.extend_from_slice(&[0, 0]);
        let mut pending = 0..frame.len();
        assert_eq!(next_batch(&frame, &mut pending).expect("sound"), Some(4..whole));
        assert_eq!(pending, whole..whole + 2);
        assert_eq!(next_batch(&frame, &mut pending).expect("not whole"), None);
        let mut torn = 0..whole - 1;
        assert_eq!(next_batch(&frame, &mut torn).expect("not whole"), None);
        frame[whole - 1] ^= 1;
        assert!(next_batch(&frame, &mut (0..whole)).is_err());
    }
}
