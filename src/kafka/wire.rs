//! Reading and writing the primitive types of the protocol, for the messages that are framed by hand.
//!
//! Reading takes a [`BytesMut`] apart from the front, so that what is split off stays mutable and uncopied. Every
//! length is checked against the bytes that are there before anything is taken or allocated.
//! Source: the protocol guide's primitive types; KIP-482 for the compact ones and tagged fields.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use crate::base::varint;
use crate::model::Uuid;

/// Bytes that do not make the message they claim to be; the connection that sent them is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

impl Malformed {
    /// The bytes ended inside `what`.
    fn cut(what: &str) -> Self {
        Malformed(format!("the request ends inside {what}"))
    }
}

/// Takes a message apart from the front.
pub(super) struct Reader {
    bytes: BytesMut,
    flexible: bool,
}

impl Reader {
    /// Reads `bytes`; with `flexible`, lengths are varints and structures end in tagged fields.
    pub(super) fn new(bytes: BytesMut, flexible: bool) -> Self {
        Reader { bytes, flexible }
    }

    /// Goes on with the other form of lengths.
    pub(super) fn into_flexible(self, flexible: bool) -> Self {
        Reader { flexible, ..self }
    }

    /// What has not been read.
    pub(super) fn into_rest(self) -> BytesMut {
        self.bytes
    }

    /// Bytes not yet read.
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn read_i8(&mut self) -> Result<i8, Malformed> {
        self.bytes.try_get_i8().map_err(|_| Malformed::cut("an int8"))
    }

    pub(super) fn read_i16(&mut self) -> Result<i16, Malformed> {
        self.bytes.try_get_i16().map_err(|_| Malformed::cut("an int16"))
    }

    pub(super) fn read_i32(&mut self) -> Result<i32, Malformed> {
        self.bytes.try_get_i32().map_err(|_| Malformed::cut("an int32"))
    }

    pub(super) fn read_i64(&mut self) -> Result<i64, Malformed> {
        self.bytes.try_get_i64().map_err(|_| Malformed::cut("an int64"))
    }

    pub(super) fn read_bool(&mut self) -> Result<bool, Malformed> {
        self.bytes.try_get_u8().map(|byte| byte != 0).map_err(|_| Malformed::cut("a boolean"))
    }

    pub(super) fn read_uuid(&mut self) -> Result<Uuid, Malformed> {
        let mut id = [0; 16];
        self.bytes.try_copy_to_slice(&mut id).map_err(|_| Malformed::cut("a uuid"))?;
        Ok(Uuid::from_bytes(id))
    }

    /// A count of array elements; `None` for a null array. Never more than the bytes that are left.
    pub(super) fn read_count(&mut self) -> Result<Option<usize>, Malformed> {
        let count = if self.flexible {
            self.read_compact_length()?
        } else {
            match self.read_i32()? {
                -1 => None,
                count => {
                    Some(usize::try_from(count).map_err(|_| Malformed(format!("array length is {count}")))?)
                }
            }
        };
        match count {
            Some(count) if count > self.remaining() => {
                Err(Malformed(format!("array of {count} elements in {} bytes", self.remaining())))
            }
            count => Ok(count),
        }
    }

    /// A count of array elements that may not be null.
    pub(super) fn read_required_count(&mut self) -> Result<usize, Malformed> {
        self.read_count()?.ok_or_else(|| Malformed("an array is null that must not be".to_owned()))
    }

    /// A nullable string.
    pub(super) fn read_nullable_string(&mut self) -> Result<Option<StrBytes>, Malformed> {
        let length = if self.flexible {
            self.read_compact_length()?
        } else {
            match self.read_i16()? {
                -1 => None,
                length => Some(
                    usize::try_from(length).map_err(|_| Malformed(format!("string length is {length}")))?,
                ),
            }
        };
        let Some(length) = length else { return Ok(None) };
        let text = self.split_to(length, "a string")?.freeze();
        StrBytes::from_utf8(text).map(Some).map_err(|_| Malformed("a string is not UTF-8".to_owned()))
    }

    /// A string that may not be null.
    pub(super) fn read_string(&mut self) -> Result<StrBytes, Malformed> {
        self.read_nullable_string()?.ok_or_else(|| Malformed("a string is null that must not be".to_owned()))
    }

    /// Nullable bytes, split off without a copy and still ours to change.
    pub(super) fn read_nullable_bytes(&mut self) -> Result<Option<BytesMut>, Malformed> {
        let length = if self.flexible {
            self.read_compact_length()?
        } else {
            match self.read_i32()? {
                -1 => None,
                length => Some(
                    usize::try_from(length).map_err(|_| Malformed(format!("bytes length is {length}")))?,
                ),
            }
        };
        length.map(|length| self.split_to(length, "bytes")).transpose()
    }

    /// Skips the tagged fields at the end of a structure, if this message has any.
    pub(super) fn skip_tagged_fields(&mut self) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.read_unsigned_varint()? {
            self.read_unsigned_varint()?; // the tag
            let size = self.read_unsigned_varint()? as usize;
            if size > self.remaining() {
                return Err(Malformed::cut("a tagged field"));
            }
            self.bytes.advance(size);
        }
        Ok(())
    }

    fn split_to(&mut self, length: usize, what: &str) -> Result<BytesMut, Malformed> {
        if length > self.remaining() {
            return Err(Malformed::cut(what));
        }
        Ok(self.bytes.split_to(length))
    }

    /// A compact length: 0 for null, else one more than the length.
    fn read_compact_length(&mut self) -> Result<Option<usize>, Malformed> {
        Ok(self.read_unsigned_varint()?.checked_sub(1).map(|length| length as usize))
    }

    fn read_unsigned_varint(&mut self) -> Result<u32, Malformed> {
        let mut rest: &[u8] = &self.bytes;
        let before = rest.len();
        let value = varint::read_u32(&mut rest).ok_or_else(|| Malformed::cut("a varint"))?;
        let taken = before - rest.len();
        self.bytes.advance(taken);
        Ok(value)
    }
}

/// Puts a message together; bytes that are shared already are handed on, not copied.
pub(super) struct Writer {
    chunks: Vec<Bytes>,
    current: BytesMut,
    size_bytes: usize,
    flexible: bool,
}

impl Writer {
    /// An empty message; with `flexible`, lengths are varints and structures end in tagged fields.
    pub(super) fn new(flexible: bool) -> Self {
        Writer { chunks: Vec::new(), current: BytesMut::with_capacity(256), size_bytes: 0, flexible }
    }

    pub(super) fn put_i16(&mut self, value: i16) {
        self.current.put_i16(value);
    }

    pub(super) fn put_i32(&mut self, value: i32) {
        self.current.put_i32(value);
    }

    pub(super) fn put_i64(&mut self, value: i64) {
        self.current.put_i64(value);
    }

    pub(super) fn put_uuid(&mut self, value: Uuid) {
        self.current.put_slice(value.as_bytes());
    }

    pub(super) fn put_unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.current.put_u8(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.current.put_u8(value.to_le_bytes()[0]);
    }

    /// The count of an array's elements.
    pub(super) fn put_count(&mut self, count: usize) {
        self.put_length(count);
    }

    /// A null array.
    pub(super) fn put_null_array(&mut self) {
        if self.flexible { self.put_unsigned_varint(0) } else { self.put_i32(-1) }
    }

    /// A string or null.
    pub(super) fn put_nullable_string(&mut self, text: Option<&str>) {
        match text {
            Some(text) if self.flexible => {
                self.put_length(text.len());
                self.current.put_slice(text.as_bytes());
            }
            Some(text) => {
                let text = cut_to_i16(text);
                // `cut_to_i16` promises that the length fits.
                self.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
                self.current.put_slice(text.as_bytes());
            }
            None if self.flexible => self.put_unsigned_varint(0),
            None => self.put_i16(-1),
        }
    }

    /// Bytes that lie in pieces, handed on as they are.
    pub(super) fn put_chunks(&mut self, chunks: Vec<Bytes>, size_bytes: usize) {
        self.put_length(size_bytes);
        self.cut();
        for chunk in chunks {
            self.size_bytes += chunk.len();
            self.chunks.push(chunk);
        }
    }

    /// The end of a structure without tagged fields, if this message has any.
    pub(super) fn end_struct(&mut self) {
        if self.flexible {
            self.current.put_u8(0);
        }
    }

    /// The message in pieces, with its whole size.
    pub(super) fn finish(mut self) -> (Vec<Bytes>, usize) {
        self.cut();
        (self.chunks, self.size_bytes)
    }

    fn put_length(&mut self, length: usize) {
        // Frames are bounded far below 2 GiB, and with them all that is in them.
        let length = u32::try_from(length).unwrap_or(u32::MAX >> 1);
        if self.flexible { self.put_unsigned_varint(length + 1) } else { self.current.put_u32(length) }
    }

    fn cut(&mut self) {
        if !self.current.is_empty() {
            self.size_bytes += self.current.len();
            self.chunks.push(self.current.split().freeze());
        }
    }
}

/// The longest prefix of `text` that a string with a 16-bit length can hold.
fn cut_to_i16(text: &str) -> &str {
    const MAX: usize = i16::MAX as usize;
    if text.len() <= MAX {
        return text;
    }
    let end = (0..=MAX).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::{Reader, Writer};

    #[test]
    fn what_was_written_is_read_back_in_both_forms() {
        for flexible in [false, true] {
            let mut writer = Writer::new(flexible);
            writer.put_nullable_string(Some("orders"));
            writer.put_nullable_string(None);
            writer.put_count(2);
            writer.put_chunks(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")], 3);
            writer.end_struct();
            let (chunks, size_bytes) = writer.finish();
            let bytes: BytesMut = chunks.iter().flatten().copied().collect();
            assert_eq!(bytes.len(), size_bytes);
            let mut reader = Reader::new(bytes, flexible);
            assert_eq!(&*reader.read_string().unwrap(), "orders");
            assert_eq!(reader.read_nullable_string().unwrap(), None);
            assert_eq!(reader.read_count().unwrap(), Some(2));
            assert_eq!(reader.read_nullable_bytes().unwrap().unwrap(), "abc");
            reader.skip_tagged_fields().unwrap();
            assert_eq!(reader.remaining(), 0);
        }
    }

    #[test]
    fn lengths_beyond_the_bytes_and_below_null_are_refused() {
        for bytes in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xfe], &[0, 0, 0, 5, 1]] {
            let mut reader = Reader::new(BytesMut::from(bytes), false);
            assert!(reader.read_count().is_err());
            let mut reader = Reader::new(BytesMut::from(bytes), false);
            assert!(reader.read_nullable_bytes().is_err());
        }
        let mut reader = Reader::new(BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 0x0f][..]), true);
        assert!(reader.read_count().is_err());
    }
}
