//! Writes the fields of a state record whose value is flexible.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::base::varint;
use crate::model::Uuid;

/// The version of every flexible value that is written.
const VALUE_VERSION: i16 = 0;

/// Writes a flexible value.
pub(in crate::coordinator) struct Writer(Vec<u8>);

impl Writer {
    pub(in crate::coordinator) fn new() -> Self {
        Writer(VALUE_VERSION.to_be_bytes().to_vec())
    }

    pub(in crate::coordinator) fn i8(&mut self, value: i8) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(in crate::coordinator) fn i16(&mut self, value: i16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(in crate::coordinator) fn uuid(&mut self, value: Uuid) {
        self.0.extend_from_slice(value.as_bytes());
    }

    pub(in crate::coordinator) fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(in crate::coordinator) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Lengths are far below 4 GiB, as all of it came in frames.
    pub(in crate::coordinator) fn length(&mut self, length: usize) {
        varint::write_u32(&mut self.0, u32::try_from(length).unwrap_or(u32::MAX - 1) + 1);
    }

    pub(in crate::coordinator) fn string(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(in crate::coordinator) fn nullable_string(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None => varint::write_u32(&mut self.0, 0),
        }
    }

    pub(in crate::coordinator) fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub(in crate::coordinator) fn strings(&mut self, strings: &BTreeSet<String>) {
        self.length(strings.len());
        strings.iter().for_each(|text| self.string(text));
    }

    pub(in crate::coordinator) fn no_tags(&mut self) {
        varint::write_u32(&mut self.0, 0);
    }

    /// One tagged field, number 0, and no other.
    pub(in crate::coordinator) fn only_tag(&mut self, write: impl FnOnce(&mut Writer)) {
        let mut field = Writer(Vec::new());
        write(&mut field);
        varint::write_u32(&mut self.0, 1);
        varint::write_u32(&mut self.0, 0);
        varint::write_u32(&mut self.0, u32::try_from(field.0.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(&field.0);
    }

    pub(in crate::coordinator) fn finish(self) -> Bytes {
        self.0.into()
    }
}
