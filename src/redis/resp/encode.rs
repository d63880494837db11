//! Replies and pushes, in the form that the client has asked for with HELLO.

use bytes::Bytes;

use crate::base::units::KIB;

/// What was encoded elsewhere is copied behind the replies before it up to here; more becomes a chunk of its own.
const COPIED_BYTES_MAX: usize = 4 * KIB;

/// Which protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(in crate::redis) enum Protocol {
    /// What every client speaks at first.
    #[default]
    Resp2,
    /// With maps, nulls and pushes of their own.
    Resp3,
}

/// Replies in the making, one behind the other.
#[derive(Debug, Default)]
pub(in crate::redis) struct Encoder {
    /// What stands before `out`.
    chunks: Vec<Bytes>,
    chunks_bytes: usize,
    out: Vec<u8>,
    protocol: Protocol,
}

impl Encoder {
    pub(in crate::redis) fn new(protocol: Protocol) -> Self {
        Encoder { protocol, ..Encoder::default() }
    }

    pub(in crate::redis) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(in crate::redis) fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Bytes of all replies so far.
    pub(in crate::redis) fn len(&self) -> usize {
        self.chunks_bytes + self.out.len()
    }

    /// Forgets what was put behind the first `length` bytes.
    pub(in crate::redis) fn truncate(&mut self, length: usize) {
        self.out.truncate(length.saturating_sub(self.chunks_bytes));
        while self.chunks_bytes > length {
            let Some(mut last) = self.chunks.pop() else { break };
            self.chunks_bytes -= last.len();
            if self.chunks_bytes < length {
                last.truncate(length - self.chunks_bytes);
                self.put_chunk(last);
            }
        }
    }

    /// Takes all replies out, in chunks, which may be empty.
    pub(in crate::redis) fn take(&mut self) -> impl Iterator<Item = Bytes> {
        self.chunks_bytes = 0;
        let last = Bytes::from(std::mem::take(&mut self.out));
        std::mem::take(&mut self.chunks).into_iter().chain([last])
    }

    /// Where replies are put that are encoded elsewhere.
    pub(in crate::redis) fn as_mut_vec(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Puts replies that were encoded elsewhere; many bytes without copying them.
    pub(in crate::redis) fn raw_owned(&mut self, bytes: Vec<u8>) {
        if bytes.len() <= COPIED_BYTES_MAX {
            return self.raw(&bytes);
        }
        if !self.out.is_empty() {
            let before = Bytes::from(std::mem::take(&mut self.out));
            self.put_chunk(before);
        }
        self.put_chunk(bytes.into());
    }

    fn put_chunk(&mut self, chunk: Bytes) {
        self.chunks_bytes += chunk.len();
        self.chunks.push(chunk);
    }

    /// Puts replies that were encoded elsewhere.
    pub(in crate::redis) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A status; must be one line.
    pub(in crate::redis) fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    pub(in crate::redis) fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// An error with its code in front; line ends in it become blanks.
    pub(in crate::redis) fn error(&mut self, text: &str) {
        let one_line: String = text.chars().map(|c| if c == '\r' || c == '\n' { ' ' } else { c }).collect();
        self.line(b'-', one_line.as_bytes());
    }

    pub(in crate::redis) fn integer(&mut self, number: i64) {
        self.header(b':', number);
    }

    /// A count of things.
    pub(in crate::redis) fn count(&mut self, count: usize) {
        self.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(in crate::redis) fn bulk(&mut self, bytes: &[u8]) {
        self.header(b'$', length(bytes.len()));
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Text for people, which RESP3 marks as such.
    pub(in crate::redis) fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.header(b'=', length(text.len() + 4));
                self.raw(b"txt:");
                self.raw(text.as_bytes());
                self.raw(b"\r\n");
            }
        }
    }

    pub(in crate::redis) fn null(&mut self) {
        self.raw(if self.protocol == Protocol::Resp2 { b"$-1\r\n" } else { b"_\r\n" });
    }

    /// "No array", which RESP2 has a form of its own for.
    pub(in crate::redis) fn null_array(&mut self) {
        self.raw(if self.protocol == Protocol::Resp2 { b"*-1\r\n" } else { b"_\r\n" });
    }

    /// Begins an array of `count` values.
    pub(in crate::redis) fn array(&mut self, count: usize) {
        self.header(b'*', length(count));
    }

    /// Begins a map of `count` keys, each followed by its value; an array in RESP2.
    pub(in crate::redis) fn map(&mut self, count: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(2 * count),
            Protocol::Resp3 => self.header(b'%', length(count)),
        }
    }

    /// Begins a set; an array in RESP2.
    pub(in crate::redis) fn set(&mut self, count: usize) {
        self.header(if self.protocol == Protocol::Resp2 { b'*' } else { b'~' }, length(count));
    }

    /// Begins a push of `count` values; an array in RESP2.
    pub(in crate::redis) fn push(&mut self, count: usize) {
        self.header(if self.protocol == Protocol::Resp2 { b'*' } else { b'>' }, length(count));
    }

    fn header(&mut self, kind: u8, number: i64) {
        self.out.push(kind);
        digits(&mut self.out, number);
        self.out.extend_from_slice(b"\r\n");
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.push(kind);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Appends a number in decimal.
pub(in crate::redis) fn digits(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::{COPIED_BYTES_MAX, Encoder, Protocol, digits};

    fn written(encoder: &mut Encoder) -> String {
        encoder.take().map(|chunk| String::from_utf8(chunk.to_vec()).unwrap()).collect()
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        for number in [0, 7, -1, 10, 99, 100, i64::MAX, i64::MIN, 1_690_000_000_000] {
            let mut out = Vec::new();
            digits(&mut out, number);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }

    #[test]
    fn many_bytes_are_not_copied_and_can_be_taken_back() {
        let many = "m".repeat(COPIED_BYTES_MAX + 1);
        for length in [0, 3, 7, COPIED_BYTES_MAX, many.len() + 6, many.len() + 7, many.len() + 99] {
            let mut encoder = Encoder::new(Protocol::Resp2);
            encoder.integer(1234);
            let bytes = many.clone().into_bytes();
            let at = bytes.as_ptr();
            encoder.raw_owned(bytes);
            assert_eq!(encoder.chunks[1].as_ptr(), at);
            encoder.ok();
            let whole = format!(":1234\r\n{many}+OK\r\n");
            assert_eq!(encoder.len(), whole.len());
            encoder.truncate(length);
            encoder.ok();
            assert_eq!(encoder.len(), length.min(whole.len()) + 5);
            assert_eq!(written(&mut encoder), format!("{}+OK\r\n", &whole[..length.min(whole.len())]));
            assert_eq!(encoder.len(), 0);
        }
    }

    #[test]
    fn each_protocol_has_its_forms() {
        let forms = |protocol| {
            let mut encoder = Encoder::new(protocol);
            encoder.map(1);
            encoder.bulk(b"a\r\nb");
            encoder.null();
            encoder.push(2);
            encoder.error("ERR two\r\nlines");
            encoder.verbatim("text");
            written(&mut encoder)
        };
        let resp2 = "*2\r\n$4\r\na\r\nb\r\n$-1\r\n*2\r\n-ERR two  lines\r\n$4\r\ntext\r\n";
        let resp3 = "%1\r\n$4\r\na\r\nb\r\n_\r\n>2\r\n-ERR two  lines\r\n=8\r\ntxt:text\r\n";
        assert_eq!((forms(Protocol::Resp2).as_str(), forms(Protocol::Resp3).as_str()), (resp2, resp3));
    }
}
