//! A reading place in the bytes of a record.
//!
//! Varints are read as Kafka's `ByteUtils` does: a 32-bit one may take five bytes at most, so that what is accepted
//! here is readable by every client. (`base::varint` allows longer forms; these here also take the short way for the
//! one and two bytes that nearly all lengths have, which is what `validate` spends its time on.)

use crate::base::varint::{MAX_VARINT32_BYTES, MAX_VARINT64_BYTES};

/// The bytes of a record that are not yet read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// A zigzag 32-bit varint.
    #[inline]
    pub(super) fn varint(&mut self) -> Option<i32> {
        let raw = match *self.rest {
            [first, ref rest @ ..] if first < 0x80 => {
                self.rest = rest;
                u32::from(first)
            }
            [first, second, ref rest @ ..] if second < 0x80 => {
                self.rest = rest;
                u32::from(first & 0x7f) | u32::from(second) << 7
            }
            _ => u32::try_from(self.unsigned(MAX_VARINT32_BYTES)?).ok()?,
        };
        Some((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// A zigzag 64-bit varint.
    #[inline]
    pub(super) fn varlong(&mut self) -> Option<i64> {
        let raw = match *self.rest {
            [first, ref rest @ ..] if first < 0x80 => {
                self.rest = rest;
                u64::from(first)
            }
            _ => self.unsigned(MAX_VARINT64_BYTES)?,
        };
        Some((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// A varint length and so many bytes; -1 stands for null.
    #[inline]
    pub(super) fn nullable(&mut self) -> Option<Option<&'a [u8]>> {
        match self.varint()? {
            -1 => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }

    fn unsigned(&mut self, bytes_max: usize) -> Option<u64> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().enumerate().take(bytes_max) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = self.rest.get(index + 1..)?;
                return Some(value);
            }
        }
        None
    }
}
