//! Requests: arrays of bulk strings, or inline lines.
//!
//! A [`Decoder`] goes on where it stopped, so that a command which arrives in many pieces is walked once.

use std::ops::Range;

use bytes::BytesMut;

/// Longest inline command, and longest line of a length (Redis: PROTO_INLINE_MAX_SIZE).
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the line end.
const CRLF_BYTES: usize = 2;

/// What a client may announce.
#[derive(Debug, Clone, Copy)]
pub(in crate::redis) struct Limits {
    /// The largest bulk string.
    pub bulk_bytes: usize,
    /// The most elements of one command.
    pub elements: usize,
    /// The largest command as a whole.
    pub command_bytes: usize,
}

/// Why a connection is closed, in Redis's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Protocol error: {0}")]
pub(in crate::redis) struct ProtocolError(pub String);

/// What lies at the front of a receive buffer.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::redis) enum Decoded {
    /// Not a whole command; so many bytes make it whole, if that is known.
    Partial(Option<usize>),
    /// A command of so many bytes; its arguments are in [`Decoder::args`]. May have none: an empty line.
    Command(usize),
}

/// Cuts commands off the front of a buffer.
///
/// Until a command is whole the buffer must only grow; after it, `decode` begins anew with whatever it is given.
#[derive(Debug)]
pub(in crate::redis) struct Decoder {
    limits: Limits,
    /// Where the next line or bulk string begins.
    position: usize,
    /// Bytes behind `position` that were searched for a line end in vain.
    searched_bytes: usize,
    /// Elements of the array that are still to come; none before its header was read.
    elements_left: Option<usize>,
    /// The length of the bulk string whose header was read.
    bulk_bytes: Option<usize>,
    args: Vec<Range<u32>>,
    /// The unquoted words of an inline command, to which `args` point instead of to the buffer.
    inline: Option<Vec<u8>>,
    is_done: bool,
}

impl Decoder {
    pub(in crate::redis) fn new(limits: Limits) -> Self {
        Decoder {
            // Ranges are 32 bits wide.
            limits: Limits { command_bytes: limits.command_bytes.min(u32::MAX as usize), ..limits },
            position: 0,
            searched_bytes: 0,
            elements_left: None,
            bulk_bytes: None,
            args: Vec::new(),
            inline: None,
            is_done: false,
        }
    }

    fn restart(&mut self) {
        self.position = 0;
        self.searched_bytes = 0;
        self.elements_left = None;
        self.bulk_bytes = None;
        self.args.clear();
        self.inline = None;
        self.is_done = false;
    }

    /// Looks at the front of `buffer`.
    ///
    /// # Errors
    /// What no Redis client sends, or what is beyond the limits. The connection is to be closed.
    pub(in crate::redis) fn decode(&mut self, buffer: &[u8]) -> Result<Decoded, ProtocolError> {
        if self.is_done {
            self.restart();
        }
        if self.elements_left.is_none() {
            let Some(first) = buffer.first() else { return Ok(Decoded::Partial(None)) };
            let is_array = *first == b'*';
            let too_long = if is_array { "too big mbulk count string" } else { "too big inline request" };
            let Some(line) = self.line(buffer, too_long)? else { return Ok(Decoded::Partial(None)) };
            if !is_array {
                self.read_inline(&buffer[line])?;
                self.is_done = true;
                return Ok(Decoded::Command(self.position));
            }
            let count = number(&buffer[line.start + 1..line.end])
                .filter(|count| *count <= self.limits.elements as i64)
                .ok_or_else(|| ProtocolError("invalid multibulk length".to_owned()))?;
            self.elements_left = Some(usize::try_from(count).unwrap_or(0));
        }
        while let Some(left) = self.elements_left.filter(|left| *left > 0) {
            let length = match self.bulk_bytes {
                Some(length) => length,
                None => match self.bulk_header(buffer)? {
                    Some(length) => length,
                    None => return Ok(Decoded::Partial(None)),
                },
            };
            let end = self.position + length;
            if buffer.len() < end + CRLF_BYTES {
                return Ok(Decoded::Partial(Some(end + CRLF_BYTES)));
            }
            self.args.push(self.position as u32..end as u32);
            self.bulk_bytes = None;
            self.position = end + CRLF_BYTES;
            self.elements_left = Some(left - 1);
        }
        self.is_done = true;
        Ok(Decoded::Command(self.position))
    }

    /// The arguments of the command that `decode` has found, the command's name first. `command` is its bytes.
    pub(in crate::redis) fn args<'a>(&'a self, command: &'a [u8]) -> Args<'a> {
        Args { bytes: self.inline.as_deref().unwrap_or(command), ranges: &self.args }
    }

    /// Takes the arguments along with the bytes of the command.
    pub(in crate::redis) fn owned(&mut self, command: BytesMut) -> OwnedArgs {
        let bytes = self.inline.take().map_or(command, |inline| BytesMut::from(inline.as_slice()));
        OwnedArgs { bytes, ranges: self.args.clone() }
    }

    /// The line at `position` without its end, which is stepped over; none when it is not whole.
    fn line(&mut self, buffer: &[u8], too_long: &str) -> Result<Option<Range<usize>>, ProtocolError> {
        let rest = &buffer[self.position..];
        let unsearched = &rest[self.searched_bytes.min(rest.len())..];
        let Some(newline) = unsearched.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
            if rest.len() >= LINE_BYTES_MAX {
                return Err(ProtocolError(too_long.to_owned()));
            }
            self.searched_bytes = rest.len();
            return Ok(None);
        };
        let end = self.position + self.searched_bytes + newline;
        let start = self.position;
        self.position = end + 1;
        self.searched_bytes = 0;
        let has_return = end > start && buffer[end - 1] == b'\r';
        Ok(Some(start..if has_return { end - 1 } else { end }))
    }

    fn bulk_header(&mut self, buffer: &[u8]) -> Result<Option<usize>, ProtocolError> {
        if let Some(other) = buffer.get(self.position).filter(|byte| **byte != b'$') {
            let shown = char::from(*other).escape_default();
            return Err(ProtocolError(format!("expected '$', got '{shown}'")));
        }
        let Some(line) = self.line(buffer, "too big bulk count string")? else { return Ok(None) };
        let length = number(&buffer[line.start + 1..line.end])
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length <= self.limits.bulk_bytes)
            .ok_or_else(|| ProtocolError("invalid bulk length".to_owned()))?;
        if self.position + length + CRLF_BYTES > self.limits.command_bytes {
            return Err(ProtocolError("too big command, see redis.query.buffer.max.bytes".to_owned()));
        }
        self.bulk_bytes = Some(length);
        Ok(Some(length))
    }

    fn read_inline(&mut self, line: &[u8]) -> Result<(), ProtocolError> {
        let words =
            split_words(line).ok_or_else(|| ProtocolError("unbalanced quotes in request".to_owned()))?;
        let mut inline = Vec::with_capacity(line.len());
        for word in words {
            let start = inline.len() as u32;
            inline.extend_from_slice(&word);
            self.args.push(start..inline.len() as u32);
        }
        self.inline = Some(inline);
        Ok(())
    }
}

/// A decimal number as Redis takes it in lengths.
fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Splits an inline command as a shell would: blanks, double quotes with escapes, single quotes.
fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    // As in Redis, whose lines are C's strings.
    let mut rest = line.split(|byte| *byte == 0).next().unwrap_or_default();
    loop {
        rest = rest.trim_ascii_start();
        let Some(first) = rest.first() else { return Some(words) };
        let word;
        (word, rest) = match first {
            b'"' => quoted(&rest[1..])?,
            b'\'' => single_quoted(&rest[1..])?,
            _ => {
                let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                (rest[..end].to_vec(), &rest[end..])
            }
        };
        if rest.first().is_some_and(|next| !next.is_ascii_whitespace()) {
            return None; // a closing quote must end the word
        }
        words.push(word);
    }
}

fn quoted(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        let (byte, tail) = rest.split_first()?;
        rest = tail;
        match byte {
            b'"' => return Some((word, rest)),
            b'\\' => {
                if let [b'x', high, low, tail @ ..] = rest
                    && let (Some(high), Some(low)) = (hex(*high), hex(*low))
                {
                    word.push(high << 4 | low);
                    rest = tail;
                    continue;
                }
                let (escaped, tail) = rest.split_first()?;
                rest = tail;
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
            }
            other => word.push(*other),
        }
    }
}

fn single_quoted(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        match rest {
            [b'\\', b'\'', tail @ ..] => {
                word.push(b'\'');
                rest = tail;
            }
            [b'\'', tail @ ..] => return Some((word, tail)),
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
            [] => return None,
        }
    }
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The arguments of a command, its name first, where they lie in the receive buffer.
#[derive(Debug, Clone, Copy)]
pub(in crate::redis) struct Args<'a> {
    bytes: &'a [u8],
    ranges: &'a [Range<u32>],
}

impl<'a> Args<'a> {
    pub(in crate::redis) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The argument at `index`; 0 is the command's name.
    pub(in crate::redis) fn get(&self, index: usize) -> Option<&'a [u8]> {
        let range = self.ranges.get(index)?;
        self.bytes.get(range.start as usize..range.end as usize)
    }

    /// The arguments from `index` on.
    pub(in crate::redis) fn from(&self, index: usize) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let Args { bytes, ranges } = *self;
        let rest = ranges.get(index..).unwrap_or_default();
        rest.iter().map(move |range| bytes.get(range.start as usize..range.end as usize).unwrap_or_default())
    }
}

/// Arguments that live on their own.
#[derive(Debug, Clone)]
pub(in crate::redis) struct OwnedArgs {
    bytes: BytesMut,
    ranges: Vec<Range<u32>>,
}

impl OwnedArgs {
    pub(in crate::redis) fn args(&self) -> Args<'_> {
        Args { bytes: &self.bytes, ranges: &self.ranges }
    }

    /// The memory that they take.
    pub(in crate::redis) fn size_bytes(&self) -> usize {
        self.bytes.len() + self.ranges.len() * size_of::<Range<u32>>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { bulk_bytes: 1000, elements: 100, command_bytes: 20_000 };

    fn encoded(args: &[Vec<u8>]) -> Vec<u8> {
        let mut out = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            out.extend(format!("${}\r\n", arg.len()).into_bytes());
            out.extend(arg);
            out.extend(b"\r\n");
        }
        out
    }

    fn decoded(bytes: &[u8]) -> Result<Option<Vec<Vec<u8>>>, ProtocolError> {
        let mut decoder = Decoder::new(LIMITS);
        Ok(match decoder.decode(bytes)? {
            Decoded::Command(size) => {
                Some(decoder.args(&bytes[..size]).from(0).map(<[u8]>::to_vec).collect())
            }
            Decoded::Partial(_) => None,
        })
    }

    proptest! {
        #[test]
        fn commands_come_out_whole_however_they_are_split(
            commands in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6), 1..4),
            cuts in proptest::collection::vec(1usize..50, 1..200),
        ) {
            let bytes: Vec<u8> = commands.iter().flat_map(|args| encoded(args)).collect();
            let mut decoder = Decoder::new(LIMITS);
            let (mut buffer, mut left, mut cuts) = (Vec::new(), bytes.as_slice(), cuts.iter().cycle());
            let mut found: Vec<Vec<Vec<u8>>> = Vec::new();
            while found.len() < commands.len() {
                match decoder.decode(&buffer).unwrap() {
                    Decoded::Command(size) => {
                        let args = decoder.args(&buffer[..size]);
                        found.push(args.from(0).map(<[u8]>::to_vec).collect());
                        buffer.drain(..size);
                    }
                    Decoded::Partial(wanted) => {
                        prop_assert!(wanted.is_none_or(|wanted| wanted > buffer.len()));
                        let cut = (*cuts.next().unwrap()).min(left.len());
                        prop_assert!(cut > 0, "everything has arrived and a command is still missing");
                        buffer.extend_from_slice(&left[..cut]);
                        left = &left[cut..];
                    }
                }
            }
            prop_assert_eq!(found, commands);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn rubbish_is_refused_or_waited_for(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decoded(&bytes);
            let _ = decoded(&[b"*3\r\n$", bytes.as_slice()].concat());
        }
    }

    #[test]
    fn lengths_beyond_the_limits_are_refused_before_their_bytes_come() {
        let refused = |bytes: &[u8]| decoded(bytes).unwrap_err().to_string();
        assert_eq!(refused(b"*1\r\n$536870912\r\n"), "Protocol error: invalid bulk length");
        assert_eq!(refused(b"*1\r\n$-1\r\n"), "Protocol error: invalid bulk length");
        assert_eq!(refused(b"*1\r\n$x\r\n"), "Protocol error: invalid bulk length");
        assert_eq!(refused(b"*1048577\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(refused(b"*99999999999999999999\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(refused(b"*1\r\n:5\r\n"), "Protocol error: expected '$', got ':'");
        assert_eq!(refused(b"*1\r\n*1\r\n"), "Protocol error: expected '$', got '*'");
        assert_eq!(refused(&[b'x'; LINE_BYTES_MAX]), "Protocol error: too big inline request");
        let many = encoded(&vec![vec![0; 1000]; 30]);
        assert!(refused(&many).contains("too big command"));
    }

    #[test]
    fn inline_commands_are_split_as_redis_splits_them() {
        let words = |line: &str| decoded(line.as_bytes()).unwrap().unwrap();
        assert_eq!(words("PING\r\n"), [b"PING"]);
        assert_eq!(words("  set a  b\n"), [b"set".to_vec(), b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(words("\r\n"), Vec::<Vec<u8>>::new());
        assert_eq!(words("a \"b c\\x41\\n\" 'd\\'e'\r\n"), [&b"a"[..], b"b cA\n", b"d'e"]);
        assert_eq!(decoded(b"*0\r\n").unwrap(), Some(Vec::new()));
        assert_eq!(
            decoded(b"a \"b\r\n").unwrap_err().to_string(),
            "Protocol error: unbalanced quotes in request"
        );
        assert!(decoded(b"a \"b\"c\r\n").is_err());
    }
}
