//! Many batches in a row, as a segment or a fetch holds them.

use super::error::BatchError;
use super::header::{BatchHeader, check_crc};

/// One whole batch in a slice of batches.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Its decoded header.
    pub header: BatchHeader,
    /// Its bytes, header included; `bytes.len() == header.size_bytes()`.
    pub bytes: &'a [u8],
    /// Where it begins in the slice that `Batches` was made of.
    pub position: usize,
}

impl Batch<'_> {
    /// Checks the CRC of the batch.
    ///
    /// # Errors
    /// `Crc`.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        check_crc(self.bytes, &self.header)
    }
}

/// Walks over concatenated batches by their length fields. Checks headers, not CRCs.
///
/// Ends at the end of the slice or after the first error; a cut last batch is `BatchError::Truncated`. `position`
/// then tells where the first byte lies that is not part of a whole batch.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
    failed: bool,
}

impl<'a> Batches<'a> {
    /// Starts at the beginning of `bytes`, which must be the beginning of a batch.
    pub fn new(bytes: &'a [u8]) -> Self {
        Batches { bytes, position: 0, failed: false }
    }

    /// Bytes of the whole batches that were handed out so far.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.position..)?;
        if self.failed || rest.is_empty() {
            return None;
        }
        let batch = BatchHeader::parse(rest).and_then(|header| {
            let needed_bytes = header.size_bytes();
            let bytes = rest
                .get(..needed_bytes)
                .ok_or(BatchError::Truncated { needed_bytes, available_bytes: rest.len() })?;
            Ok(Batch { header, bytes, position: self.position })
        });
        match &batch {
            Ok(batch) => self.position += batch.bytes.len(),
            Err(_) => self.failed = true,
        }
        Some(batch)
    }
}
