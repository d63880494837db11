//! Kafka's four codecs over the records of one batch.
//!
//! Formats: gzip (RFC 1952); snappy in the xerial framing of the Java client (raw blocks are read, too); LZ4 frames with
//! independent blocks of 64 KiB; zstd frames. Levels are the Java client's defaults.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;

/// The codec of a batch; the discriminant is the low three bits of its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

/// What a decompressed batch may grow to; a broker's bytes are not trusted.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_BLOCK_BYTES: usize = 32 << 10;
const ZSTD_LEVEL: i32 = 3;

impl Compression {
    /// The codec in a batch's attributes.
    ///
    /// # Errors
    /// If the three bits name no codec.
    pub fn from_attributes(attributes: i16) -> Result<Self> {
        Ok(match attributes & 7 {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            other => bail!("unknown compression type {other}"),
        })
    }

    /// Appends the compressed form of `plain` to `out`.
    ///
    /// # Errors
    /// If the codec fails.
    pub fn compress(self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::None => out.extend_from_slice(plain),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
                encoder.write_all(plain)?;
                encoder.finish()?;
            }
            Self::Snappy => {
                out.extend_from_slice(&XERIAL_HEADER);
                let mut encoder = snap::raw::Encoder::new();
                for block in plain.chunks(XERIAL_BLOCK_BYTES) {
                    let compressed = encoder.compress_vec(block)?;
                    out.extend_from_slice(&u32::try_from(compressed.len())?.to_be_bytes());
                    out.extend_from_slice(&compressed);
                }
            }
            Self::Lz4 => {
                let info = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max64KB);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
                encoder.write_all(plain)?;
                encoder.finish()?;
            }
            Self::Zstd => zstd::stream::copy_encode(plain, out, ZSTD_LEVEL)?,
        }
        Ok(())
    }

    /// The plain form of `compressed`.
    ///
    /// # Errors
    /// If the bytes are not sound or grow beyond a limit.
    pub fn decompress(self, compressed: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::None => Ok(compressed.to_vec()),
            Self::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(compressed)),
            Self::Snappy => decompress_snappy(compressed),
            Self::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(compressed)),
            Self::Zstd => read_bounded(zstd::stream::read::Decoder::new(compressed)?),
        }
    }
}

fn read_bounded(reader: impl Read) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    reader.take(DECOMPRESSED_BYTES_MAX as u64 + 1).read_to_end(&mut plain)?;
    ensure!(plain.len() <= DECOMPRESSED_BYTES_MAX, "a batch grows beyond {DECOMPRESSED_BYTES_MAX} bytes");
    Ok(plain)
}

fn decompress_snappy(compressed: &[u8]) -> Result<Vec<u8>> {
    if !compressed.starts_with(&XERIAL_HEADER[..8]) {
        return snappy_block(compressed);
    }
    let mut rest = compressed.get(XERIAL_HEADER.len()..).context("a cut snappy header")?;
    let mut plain = Vec::new();
    while !rest.is_empty() {
        let (size, tail) = rest.split_first_chunk::<4>().context("a cut snappy block size")?;
        let size = usize::try_from(u32::from_be_bytes(*size))?;
        ensure!(size <= tail.len(), "a snappy block of {size} bytes where {} are left", tail.len());
        plain.extend_from_slice(&snappy_block(&tail[..size])?);
        ensure!(plain.len() <= DECOMPRESSED_BYTES_MAX, "a batch grows beyond {DECOMPRESSED_BYTES_MAX} bytes");
        rest = &tail[size..];
    }
    Ok(plain)
}

fn snappy_block(block: &[u8]) -> Result<Vec<u8>> {
    let size = snap::raw::decompress_len(block)?;
    ensure!(size <= DECOMPRESSED_BYTES_MAX, "a batch grows beyond {DECOMPRESSED_BYTES_MAX} bytes");
    Ok(snap::raw::Decoder::new().decompress_vec(block)?)
}

#[cfg(test)]
mod tests {
    use super::Compression;

    #[test]
    fn every_codec_gives_back_what_it_took() {
        let plain: Vec<u8> = (0..200_000u32).map(|index| (index / 7 % 251) as u8).collect();
        for codec in
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
        {
            let mut compressed = Vec::new();
            codec.compress(&plain, &mut compressed).expect("compresses");
            assert_eq!(codec.decompress(&compressed).expect("sound"), plain, "{codec:?}");
            assert_eq!(Compression::from_attributes(codec as i16).expect("known"), codec);
            if codec != Compression::None {
                assert!(
                    codec.decompress(&compressed[..compressed.len() / 2]).is_err(),
                    "{codec:?} cut in half"
                );
            }
        }
    }
}
