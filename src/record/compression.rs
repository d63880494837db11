//! The codecs of record batches: which they are, how their streams are read, how they are written.
//!
//! A compressed batch carries its records as one stream behind the plain header. What is accepted is what Kafka's
//! Java client accepts, since a stream that passed here will be read there:
//!
//! | codec | read | written |
//! | --- | --- | --- |
//! | gzip | RFC 1952, several members | one member |
//! | snappy | xerial framing (snappy-java), several streams; else one raw block | xerial, 32 KiB blocks |
//! | lz4 | one frame of independent blocks, end mark required | the same, 64 KiB blocks |
//! | zstd | RFC 8878, several frames, window up to 128 MiB | one frame |
//!
//! Memory to read: gzip 32 KiB, lz4 two blocks (64 KiB usual, 4 MiB at most), snappy one block (32 KiB usual; a raw one
//! at most 22 times its compressed size), zstd the window that the frame asks for, touched only as bytes arrive.
//! Source: Kafka `org.apache.kafka.common.compress`; KIP-390 (levels).

mod lz4;
mod snappy;
mod zstd;

use std::fmt;
use std::io::{self, Read, Write};

use super::error::BatchError;
use super::header::CODEC_MASK;

/// Level for gzip, as in Kafka (`compression.gzip.level` -1, which zlib takes for 6).
const GZIP_LEVEL: u32 = 6;
/// The codec of a batch's records, by the number in its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Records as they are.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy, usually in snappy-java's framing.
    Snappy = 2,
    /// The LZ4 frame format.
    Lz4 = 3,
    /// Zstandard, RFC 8878.
    Zstd = 4,
}

impl Compression {
    /// All codecs, by number.
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    /// The codec in a batch's attributes.
    ///
    /// # Errors
    /// `UnknownCodec` for 5 to 7.
    pub fn from_attributes(attributes: i16) -> Result<Compression, BatchError> {
        match attributes & CODEC_MASK {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            other => Err(BatchError::UnknownCodec { id: u8::try_from(other).unwrap_or(u8::MAX) }),
        }
    }

    /// The codec bits of the attributes.
    pub fn attribute_bits(self) -> i16 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    /// The codec of this name, as in config `compression.type` (whose `producer` and `uncompressed` are not codecs).
    pub fn from_name(name: &str) -> Option<Compression> {
        Compression::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Kafka's name of the codec.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads what a codec wrote, from bytes in memory.
pub struct Decompressor<'a>(Inner<'a>);

enum Inner<'a> {
    Plain(&'a [u8]),
    Gzip(Box<flate2::bufread::MultiGzDecoder<&'a [u8]>>),
    Snappy(snappy::Reader<'a>),
    Lz4(Box<lz4_flex::frame::FrameDecoder<&'a [u8]>>),
    Zstd(zstd::Reader<'a>),
}

impl<'a> Decompressor<'a> {
    /// Prepares to read `compressed`. What is wrong with its body shows when it is read.
    ///
    /// # Errors
    /// `Decompression` when the head of the stream is not the codec's.
    pub fn new(codec: Compression, compressed: &'a [u8]) -> Result<Self, BatchError> {
        let inner = match codec {
            Compression::None => Ok(Inner::Plain(compressed)),
            Compression::Gzip => Ok(Inner::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(compressed)))),
            Compression::Snappy => snappy::Reader::new(compressed).map(Inner::Snappy),
            Compression::Lz4 => lz4::first_frame(compressed)
                .map(|frame| Inner::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(frame)))),
            Compression::Zstd => zstd::Reader::new(compressed).map(Inner::Zstd),
        };
        inner
            .map(Decompressor)
            .map_err(|error| BatchError::Decompression { codec, reason: error.to_string() })
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(reader) => reader.read(out),
            Inner::Gzip(reader) => reader.read(out),
            Inner::Snappy(reader) => reader.read(out),
            Inner::Lz4(reader) => reader.read(out),
            Inner::Zstd(reader) => reader.read(out),
        }
    }
}

/// Writes what a codec reads, with the levels and frames that Kafka writes, as it comes.
pub(super) struct Compressor<W: Write>(Outer<W>);

enum Outer<W: Write> {
    Plain(W),
    Gzip(flate2::write::GzEncoder<W>),
    Snappy(Box<snappy::Writer<W>>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<W>>),
    Zstd(zstd::Writer<W>),
}

impl<W: Write> Compressor<W> {
    /// Begins a stream into `out`. Who knows how many plain bytes will come spares the readers memory (zstd).
    pub(super) fn new(codec: Compression, out: W, plain_bytes: Option<usize>) -> io::Result<Self> {
        Ok(Compressor(match codec {
            Compression::None => Outer::Plain(out),
            Compression::Gzip => {
                Outer::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL)))
            }
            Compression::Snappy => Outer::Snappy(Box::new(snappy::Writer::new(out)?)),
            Compression::Lz4 => Outer::Lz4(Box::new(lz4::writer(out))),
            Compression::Zstd => Outer::Zstd(zstd::writer(out, plain_bytes)?),
        }))
    }

    /// Ends the stream; without this call it is cut.
    pub(super) fn finish(self) -> io::Result<()> {
        match self.0 {
            Outer::Plain(_) => Ok(()),
            Outer::Gzip(writer) => writer.finish().map(drop),
            Outer::Snappy(writer) => writer.finish(),
            Outer::Lz4(writer) => writer.finish().map(drop).map_err(io::Error::other),
            Outer::Zstd(writer) => writer.finish().map(drop),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Outer::Plain(writer) => writer.write(plain),
            Outer::Gzip(writer) => writer.write(plain),
            Outer::Snappy(writer) => writer.write(plain),
            Outer::Lz4(writer) => writer.write(plain),
            Outer::Zstd(writer) => writer.write(plain),
        }
    }

    /// Does nothing: streams are made for `finish`, and a flush in between only makes them longer.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends the compressed form of `bytes` to `out`.
///
/// # Errors
/// Only what the codec's library says of itself (out of memory); `out` is then of no use.
pub fn compress(codec: Compression, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut compressor = Compressor::new(codec, out, Some(bytes.len()))?;
    compressor.write_all(bytes)?;
    compressor.finish()
}
