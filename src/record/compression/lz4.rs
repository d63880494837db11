//! The part of the LZ4 frame format that Kafka reads: one frame of independent blocks, closed by an end mark.
//!
//! ```text
//! magic 0x184D2204 (LE) | FLG | BD | [content size 8] | header checksum 1
//! blocks: size u32 LE (top bit: stored plain), bytes, [checksum 4] | end mark 0u32 | [content checksum 4]
//! ```
//!
//! `lz4_flex` reads more (linked blocks, dictionaries, legacy frames, frames without an end), which Java consumers
//! would choke on later. So the frame is walked first, block by block, and refused unless it has Kafka's form; it is
//! a walk over sizes only. Source: Kafka `Lz4BlockInputStream`; lz4_Frame_format.md 1.5.1.

use std::io::{self, ErrorKind, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

const MAGIC: u32 = 0x184D_2204;
const DESCRIPTOR_POSITION: usize = size_of_val(&MAGIC);
const FLAG_CONTENT_CHECKSUM: u8 = 0b0000_0100;
const FLAG_CONTENT_SIZE: u8 = 0b0000_1000;
const FLAG_BLOCK_CHECKSUM: u8 = 0b0001_0000;
const FLAG_BLOCK_INDEPENDENCE: u8 = 0b0010_0000;
/// Reserved bit, dictionary id.
const FLAGS_UNUSED: u8 = 0b0000_0011;
const VERSION_SHIFT: u8 = 6;
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
const BLOCK_STORED_BIT: u32 = 1 << 31;

/// The first frame of `compressed`, whole. What lies behind it is ignored, as Kafka ignores it.
pub(super) fn first_frame(compressed: &[u8]) -> io::Result<&[u8]> {
    let mut rest = compressed;
    if take_u32(&mut rest)? != MAGIC {
        return Err(refuse("not an LZ4 frame"));
    }
    let flags = *compressed.get(DESCRIPTOR_POSITION).ok_or_else(cut)?;
    if flags >> VERSION_SHIFT != VERSION || flags & FLAGS_UNUSED != 0 {
        return Err(refuse("unknown version or flags of the LZ4 frame"));
    }
    if flags & FLAG_BLOCK_INDEPENDENCE == 0 {
        return Err(refuse("the blocks of the LZ4 frame depend on each other, which Kafka does not read"));
    }
    let content_size_bytes = if flags & FLAG_CONTENT_SIZE == 0 { 0 } else { size_of::<u64>() };
    skip(&mut rest, size_of_val(&[flags, /* BD */ 0]) + content_size_bytes + /* header checksum */ 1)?;

    let block_checksum_bytes = if flags & FLAG_BLOCK_CHECKSUM == 0 { 0 } else { CHECKSUM_BYTES };
    loop {
        let block_bytes = take_u32(&mut rest)? & !BLOCK_STORED_BIT;
        if block_bytes == 0 {
            break;
        }
        skip(&mut rest, usize::try_from(block_bytes).map_err(|_| cut())?)?;
        skip(&mut rest, block_checksum_bytes)?;
    }
    if flags & FLAG_CONTENT_CHECKSUM != 0 {
        skip(&mut rest, CHECKSUM_BYTES)?;
    }
    Ok(&compressed[..compressed.len() - rest.len()])
}

/// Writes one frame as Kafka does: 64 KiB independent blocks, no checksums (the batch has its own).
pub(super) fn writer<W: Write>(out: W) -> FrameEncoder<W> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    FrameEncoder::with_frame_info(info, out)
}

fn take_u32(rest: &mut &[u8]) -> io::Result<u32> {
    let (bytes, behind) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    *rest = behind;
    Ok(u32::from_le_bytes(*bytes))
}

fn skip(rest: &mut &[u8], count: usize) -> io::Result<()> {
    *rest = rest.get(count..).ok_or_else(cut)?;
    Ok(())
}

fn cut() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "the LZ4 frame is cut")
}

fn refuse(reason: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}
