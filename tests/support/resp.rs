//! A bare connection to a Redis door: commands out as bulk strings or as raw bytes, typed replies in.
//!
//! It knows the frames of RESP2 and RESP3 and nothing of any command, so that what a test sees is what was sent.

use std::fmt::{self, Display, Formatter};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long an answer may take. A bound, not an expectation.
const PATIENCE: Duration = Duration::from_secs(60);

/// One reply as it came, types and all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` and `_` are different on the wire and to some clients.
    NullBulk,
    NullArray,
    Null,
    Array(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    Set(Vec<Reply>),
    Push(Vec<Reply>),
    Boolean(bool),
    Double(String),
    Verbatim(Vec<u8>),
}

impl Reply {
    pub fn text(&self) -> String {
        match self {
            Reply::Simple(text) | Reply::Error(text) | Reply::Double(text) => text.clone(),
            Reply::Bulk(data) | Reply::Verbatim(data) => String::from_utf8_lossy(data).into_owned(),
            other => panic!("{other} is no text"),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        let Reply::Bulk(data) = self else { panic!("{self} is no bulk string") };
        data
    }

    pub fn integer(&self) -> i64 {
        let Reply::Integer(value) = self else { panic!("{self} is no integer") };
        *value
    }

    pub fn items(&self) -> &[Reply] {
        match self {
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => items,
            Reply::NullArray | Reply::Null | Reply::NullBulk => &[],
            other => panic!("{other} is no array"),
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Reply::Null | Reply::NullArray | Reply::NullBulk)
    }

    /// The value of a field in a map, or in an array of names and values.
    pub fn field(&self, name: &str) -> Option<&Reply> {
        match self {
            Reply::Map(pairs) => {
                pairs.iter().find(|(key, _)| key.bytes() == name.as_bytes()).map(|pair| &pair.1)
            }
            other => other
                .items()
                .chunks_exact(2)
                .find(|pair| pair[0].bytes() == name.as_bytes())
                .map(|pair| &pair[1]),
        }
    }
}

fn list(formatter: &mut Formatter<'_>, open: &str, items: &[Reply]) -> fmt::Result {
    formatter.write_str(open)?;
    for (index, item) in items.iter().enumerate() {
        write!(formatter, "{}{item}", if index == 0 { "" } else { ", " })?;
    }
    formatter.write_str("]")
}

/// Short, and different for replies of different types.
impl Display for Reply {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Simple(text) => write!(formatter, "+{text}"),
            Reply::Error(text) => write!(formatter, "-{text}"),
            Reply::Integer(value) => write!(formatter, ":{value}"),
            Reply::Bulk(data) => write!(formatter, "\"{}\"", data.escape_ascii()),
            Reply::Verbatim(data) => write!(formatter, "=\"{}\"", data.escape_ascii()),
            Reply::NullBulk => formatter.write_str("null-bulk"),
            Reply::NullArray => formatter.write_str("null-array"),
            Reply::Null => formatter.write_str("null"),
            Reply::Boolean(value) => write!(formatter, "{value}"),
            Reply::Double(text) => write!(formatter, ",{text}"),
            Reply::Array(items) => list(formatter, "[", items),
            Reply::Set(items) => list(formatter, "~[", items),
            Reply::Push(items) => list(formatter, ">[", items),
            Reply::Map(pairs) => {
                formatter.write_str("{")?;
                for (index, (key, value)) in pairs.iter().enumerate() {
                    write!(formatter, "{}{key}: {value}", if index == 0 { "" } else { ", " })?;
                }
                formatter.write_str("}")
            }
        }
    }
}

/// The bytes of a command as clients send it.
pub fn encode<A: AsRef<[u8]>>(command: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", command.len()).into_bytes();
    for argument in command {
        let argument = argument.as_ref();
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// One connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: &str) -> Connection {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket option");
        Connection { stream: BufReader::new(stream) }
    }

    /// A connection that speaks version 2 or 3.
    pub fn of_protocol(address: &str, protocol: u8) -> Connection {
        let mut connection = Connection::open(address);
        if protocol != 2 {
            let greeting = connection.call(&["HELLO", &protocol.to_string()]);
            assert!(matches!(greeting, Reply::Map(_)), "HELLO {protocol} is answered by {greeting}");
        }
        connection
    }

    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Sends a command and waits for its answer.
    pub fn call<A: AsRef<[u8]>>(&mut self, command: &[A]) -> Reply {
        self.send_raw(&encode(command)).expect("the server reads");
        self.receive().unwrap_or_else(|error| {
            let words: Vec<_> = command.iter().map(|word| String::from_utf8_lossy(word.as_ref())).collect();
            panic!("no answer to {}: {error}", words.join(" "))
        })
    }

    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The next frame; an error when the connection ends or nothing comes.
    pub fn receive(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at(1);
        Ok(match kind {
            "+" => Reply::Simple(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(number(rest)?),
            "," => Reply::Double(rest.to_owned()),
            "#" => Reply::Boolean(rest == "t"),
            "_" => Reply::Null,
            "$" if rest == "-1" => Reply::NullBulk,
            "*" if rest == "-1" => Reply::NullArray,
            "$" => Reply::Bulk(self.data(rest)?),
            "=" => Reply::Verbatim(self.data(rest)?),
            "*" => Reply::Array(self.frames(number(rest)?)?),
            "~" => Reply::Set(self.frames(number(rest)?)?),
            ">" => Reply::Push(self.frames(number(rest)?)?),
            "%" => {
                let mut pairs = Vec::new();
                for _ in 0..number(rest)? {
                    pairs.push((self.receive()?, self.receive()?));
                }
                Reply::Map(pairs)
            }
            _ => return Err(io::Error::other(format!("no frame begins with {line:?}"))),
        })
    }

    /// Waits for a frame no longer than `patience`.
    pub fn receive_within(&mut self, patience: Duration) -> Option<Reply> {
        self.socket().set_read_timeout(Some(patience)).expect("a socket option");
        let waiting =
            !self.stream.buffer().is_empty() || self.stream.fill_buf().is_ok_and(|data| !data.is_empty());
        self.socket().set_read_timeout(Some(PATIENCE)).expect("a socket option");
        waiting.then(|| self.receive().expect("a whole frame"))
    }

    /// Whether the server has closed the connection and sent nothing before.
    pub fn is_at_its_end(&mut self) -> bool {
        match self.stream.fill_buf() {
            Ok(data) => data.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\r\n") || line.len() < 3 {
            let seen = line.escape_ascii();
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the connection ended: {seen}"),
            ));
        }
        line.truncate(line.len() - 2);
        // An error may quote what was sent, whatever that was.
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn data(&mut self, length: &str) -> io::Result<Vec<u8>> {
        let mut data = vec![0; usize::try_from(number(length)?).map_err(io::Error::other)? + 2];
        self.stream.read_exact(&mut data)?;
        if !data.ends_with(b"\r\n") {
            return Err(io::Error::other("a bulk string of another length than it says"));
        }
        data.truncate(data.len() - 2);
        Ok(data)
    }

    fn frames(&mut self, count: i64) -> io::Result<Vec<Reply>> {
        (0..count).map(|_| self.receive()).collect()
    }
}

fn number(text: &str) -> io::Result<i64> {
    text.parse().map_err(|_| io::Error::other(format!("no number: {text:?}")))
}
