//! Reads the fields of a state record off its bytes.
//!
//! Total: whatever the bytes, it answers with a field or a `SchemaError`, and takes no more memory than they have.

use bytes::Bytes;

use crate::base::varint;

use super::group::schema::{STRING_BYTES_MAX, SchemaError};

/// The bytes not read yet, and in which of the two codings lengths are.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes, flexible: false }
    }

    /// Reads the version of a value; from here on lengths are read as that version writes them.
    pub(super) fn value_version(&mut self, version_max: i16, flexible_from: i16) -> Result<i16, SchemaError> {
        let version = self.i16()?;
        if !(0..=version_max).contains(&version) {
            return Err(SchemaError::ValueVersion(version));
        }
        self.flexible = version >= flexible_from;
        Ok(version)
    }

    /// Reads the version of a value all of whose versions are flexible.
    pub(super) fn flexible_version(&mut self, version_max: i16) -> Result<i16, SchemaError> {
        self.value_version(version_max, 0)
    }

    pub(super) fn i8(&mut self) -> Result<i8, SchemaError> {
        self.array().map(i8::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Result<i16, SchemaError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, SchemaError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, SchemaError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn string(&mut self) -> Result<String, SchemaError> {
        self.nullable_string()?.ok_or(SchemaError::Length)
    }

    pub(super) fn nullable_string(&mut self) -> Result<Option<String>, SchemaError> {
        let length = if self.flexible { self.compact_length()? } else { i64::from(self.i16()?) };
        let Some(length) = nullable(length)? else { return Ok(None) };
        if length > STRING_BYTES_MAX {
            return Err(SchemaError::Length);
        }
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| SchemaError::NotUtf8)?;
        Ok(Some(text.to_owned()))
    }

    /// Copies, so that the state does not keep whole batches of the log alive.
    pub(super) fn bytes(&mut self) -> Result<Bytes, SchemaError> {
        let length = self.array_length()?;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    pub(super) fn array_length(&mut self) -> Result<usize, SchemaError> {
        self.nullable_array_length()?.ok_or(SchemaError::Length)
    }

    pub(super) fn nullable_array_length(&mut self) -> Result<Option<usize>, SchemaError> {
        let length = if self.flexible { self.compact_length()? } else { i64::from(self.i32()?) };
        nullable(length)
    }

    /// Steps over the tagged fields that end a struct of a flexible version.
    pub(super) fn tagged_fields(&mut self) -> Result<(), SchemaError> {
        self.read_tagged_fields(|_, _| Ok(()))
    }

    /// Reads the tagged fields that end a struct of a flexible version: `read` is given each tag and its bytes.
    pub(super) fn read_tagged_fields(
        &mut self,
        mut read: impl FnMut(u32, &mut Reader<'a>) -> Result<(), SchemaError>,
    ) -> Result<(), SchemaError> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.varint()?;
        for _ in 0..count {
            let tag = self.varint()?;
            let length = usize::try_from(self.varint()?).map_err(|_| SchemaError::Length)?;
            read(tag, &mut Reader { rest: self.take(length)?, flexible: true })?;
        }
        Ok(())
    }

    /// The length, or -1 for null.
    fn compact_length(&mut self) -> Result<i64, SchemaError> {
        Ok(i64::from(self.varint()?) - 1)
    }

    fn varint(&mut self) -> Result<u32, SchemaError> {
        varint::read_u32(&mut self.rest).ok_or(SchemaError::CutShort)
    }

    pub(super) fn array<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], SchemaError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(SchemaError::CutShort)?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], SchemaError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(SchemaError::CutShort)?;
        self.rest = rest;
        Ok(taken)
    }
}

fn nullable(length: i64) -> Result<Option<usize>, SchemaError> {
    match length {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| SchemaError::Length),
    }
}
