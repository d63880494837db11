//! Zstandard streams, read with a context that the thread keeps.
//!
//! Making a context costs more than decompressing a small batch, so one per thread is kept, unless a frame with a large
//! window has made it large. Source: RFC 8878; Kafka `ZstdCompression` (zstd-jni's input stream reads several frames).

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};

use ::zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use crate::base::units::MIB;

/// As in Kafka.
const LEVEL: i32 = 3;
/// Largest window of a frame, as a power of two: what zstd's own streaming decoder allows by default, and the most
/// that its highest level writes.
const WINDOW_LOG_MAX: u32 = 27;
/// Largest context that a thread keeps: enough for the 2 MiB windows that Java producers write at level 3.
const KEPT_CONTEXT_BYTES_MAX: usize = 4 * MIB;

thread_local! {
    static CONTEXT: Cell<Option<DCtx<'static>>> = const { Cell::new(None) };
}

/// Reads frame after frame.
pub(super) struct Reader<'a> {
    input: InBuffer<'a>,
    compressed_bytes: usize,
    /// `None` only while it is dropped.
    context: Option<DCtx<'static>>,
    is_inside_frame: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(compressed: &'a [u8]) -> io::Result<Self> {
        let kept = CONTEXT.try_with(Cell::take).ok().flatten();
        let mut context = match kept.or_else(DCtx::try_create) {
            Some(context) => context,
            None => return Err(ErrorKind::OutOfMemory.into()),
        };
        context.init().map_err(named)?;
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(named)?;
        Ok(Reader {
            input: InBuffer::around(compressed),
            compressed_bytes: compressed.len(),
            context: Some(context),
            is_inside_frame: false,
        })
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(context) = &mut self.context else { return Ok(0) };
        if out.is_empty() {
            return Ok(0);
        }
        let mut output = OutBuffer::around(out);
        loop {
            let input_ends = self.input.pos() == self.compressed_bytes;
            if input_ends && !self.is_inside_frame {
                return Ok(0);
            }
            // 0 says that the frame is complete and all of it was handed out.
            let hint = context.decompress_stream(&mut output, &mut self.input).map_err(named)?;
            self.is_inside_frame = hint != 0;
            if output.pos() > 0 {
                return Ok(output.pos());
            }
            if input_ends {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "the zstd frame is cut"));
            }
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let fitting = self.context.take().filter(|context| context.sizeof() <= KEPT_CONTEXT_BYTES_MAX);
        if fitting.is_some() {
            // A thread that is ending keeps nothing.
            let _ = CONTEXT.try_with(|kept| kept.set(fitting));
        }
    }
}

/// Writes one frame. With its plain size in front, where that is known, readers need no more window than that.
pub(super) type Writer<W> = ::zstd::stream::write::Encoder<'static, W>;

pub(super) fn writer<W: Write>(out: W, plain_bytes: Option<usize>) -> io::Result<Writer<W>> {
    let mut encoder = Writer::new(out, LEVEL)?;
    encoder.set_pledged_src_size(plain_bytes.and_then(|bytes| u64::try_from(bytes).ok()))?;
    Ok(encoder)
}

fn named(code: usize) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, get_error_name(code))
}
