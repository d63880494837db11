//! Snappy in the two forms that producers send.
//!
//! ```text
//! xerial (snappy-java, Kafka, sarama, franz-go):
//!   "\x82SNAPPY\0" | version i32 | least compatible version i32 | blocks: size i32, raw block
//!   where a block's size could stand, a new header may stand instead (streams in a row)
//! raw (librdkafka):  one block and nothing else
//! ```
//!
//! A raw block begins with its plain size and is decompressed at once. Three compressed bytes make 64 plain ones at
//! most, so a size beyond 22 times the block is a lie and is refused before memory is taken.
//! Source: snappy-java `SnappyInputStream`, `SnappyCodec`; snappy's format_description.txt.

use std::io::{self, ErrorKind, Read, Write};

use crate::base::units::KIB;

const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = XERIAL_MAGIC.len() + 2 * size_of::<i32>();
const XERIAL_VERSION: i32 = 1;
/// Plain bytes per block, as snappy-java's default.
const XERIAL_BLOCK_BYTES: usize = 32 * KIB;
/// Most plain bytes per compressed byte: a copy of 64 bytes takes 3.
const EXPANSION_MAX: usize = 22;

/// Reads either form.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    is_xerial: bool,
    decoder: snap::raw::Decoder,
    block: Vec<u8>,
    start: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(compressed: &'a [u8]) -> io::Result<Self> {
        let mut rest = compressed;
        let is_xerial = compressed.starts_with(&XERIAL_MAGIC);
        if is_xerial {
            skip_header(&mut rest)?;
        }
        Ok(Reader {
            rest,
            is_xerial,
            decoder: snap::raw::Decoder::new(),
            block: Vec::new(),
            start: 0,
            end: 0,
        })
    }

    /// The next compressed block, or nothing at the end of the stream.
    fn next_block(&mut self) -> io::Result<Option<&'a [u8]>> {
        if !self.is_xerial {
            let block = std::mem::take(&mut self.rest);
            return Ok(if block.is_empty() { None } else { Some(block) });
        }
        while self.rest.starts_with(&XERIAL_MAGIC) {
            skip_header(&mut self.rest)?;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (size, behind) = self.rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let size = usize::try_from(i32::from_be_bytes(*size)).map_err(|_| refuse("a negative block size"))?;
        let (block, behind) = behind.split_at_checked(size).ok_or_else(cut)?;
        self.rest = behind;
        Ok(Some(block))
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.start == self.end {
            let Some(compressed) = self.next_block()? else { return Ok(0) };
            let plain_bytes = snap::raw::decompress_len(compressed).map_err(io::Error::other)?;
            if plain_bytes / EXPANSION_MAX > compressed.len() {
                return Err(refuse("a block claims to be larger than it can be"));
            }
            if self.block.len() < plain_bytes {
                self.block.resize(plain_bytes, 0);
            }
            self.start = 0;
            self.end = self.decoder.decompress(compressed, &mut self.block).map_err(io::Error::other)?;
        }
        let count = out.len().min(self.end - self.start);
        out[..count].copy_from_slice(&self.block[self.start..self.start + count]);
        self.start += count;
        Ok(count)
    }
}

/// Writes a xerial stream, block by block.
pub(super) struct Writer<W> {
    out: W,
    encoder: snap::raw::Encoder,
    plain: Vec<u8>,
    compressed: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&XERIAL_MAGIC)?;
        out.write_all(&XERIAL_VERSION.to_be_bytes())?;
        out.write_all(&XERIAL_VERSION.to_be_bytes())?;
        Ok(Writer { out, encoder: snap::raw::Encoder::new(), plain: Vec::new(), compressed: Vec::new() })
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.plain.is_empty() { Ok(()) } else { self.write_block() }
    }

    fn write_block(&mut self) -> io::Result<()> {
        let room = snap::raw::max_compress_len(self.plain.len());
        if self.compressed.len() < room {
            self.compressed.resize(room, 0);
        }
        let size = self.encoder.compress(&self.plain, &mut self.compressed).map_err(io::Error::other)?;
        self.plain.clear();
        let block = self.compressed.get(..size).unwrap_or_default();
        self.out.write_all(&i32::try_from(size).map_err(io::Error::other)?.to_be_bytes())?;
        self.out.write_all(block)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        if self.plain.len() == XERIAL_BLOCK_BYTES {
            self.write_block()?;
        }
        let count = plain.len().min(XERIAL_BLOCK_BYTES - self.plain.len());
        self.plain.extend_from_slice(&plain[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn skip_header(rest: &mut &[u8]) -> io::Result<()> {
    let (header, behind) = rest.split_first_chunk::<XERIAL_HEADER_BYTES>().ok_or_else(cut)?;
    let [.., a, b, c, d, _, _, _, _] = *header;
    if i32::from_be_bytes([a, b, c, d]) < XERIAL_VERSION {
        return Err(refuse("an incompatible version of the snappy framing"));
    }
    *rest = behind;
    Ok(())
}

fn cut() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "the snappy stream is cut")
}

fn refuse(reason: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}
