//! Bad manners at the Redis door: commands that never end or should not, and subscribers that never read. Who behaves
//! is served as ever, and memory stays bounded.

#![allow(clippy::disallowed_methods, reason = "the tests wait for other processes, in real time")]

mod support;

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};
use support::process::PATIENCE;
use support::redis::{Redis, Subject, logstreams, logstreams_with};
use support::resp::{Connection, Reply, encode};
use support::server::{Options, Server};

const MIB: u64 = 1 << 20;

/// Resident memory that belongs to the process alone, in bytes.
fn anonymous_bytes(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line of memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// What a server does with bytes: the code of its error, or how its reply begins, and whether it hangs up.
fn reaction(address: &str, bytes: &[u8]) -> (String, bool) {
    let mut connection = Connection::open(address);
    // The server may hang up before it has read all.
    let _ = connection.send_raw(bytes);
    let code = match connection.receive() {
        Ok(Reply::Error(text)) => {
            let is_protocol = text.starts_with("ERR Protocol error");
            if is_protocol {
                "ERR Protocol error".to_owned()
            } else {
                text.split(' ').next().unwrap_or("").to_owned()
            }
        }
        Ok(reply) => reply.to_string(),
        Err(_) => return ("nothing".to_owned(), true),
    };
    let _ = connection.send_raw(b"*1\r\n$4\r\nPING\r\n");
    let hangs_up = !matches!(connection.receive(), Ok(Reply::Simple(pong)) if pong == "PONG");
    (code, hangs_up)
}

#[test]
fn garbage_is_answered_as_by_redis() {
    let redis = Redis::start();
    let subject = Subject::start(2);
    let mut bystander = Connection::open(subject.address());
    let long_line = [b"PING ".as_slice(), &vec![b'x'; 70_000]].concat();
    let cases: [&[u8]; 19] = [
        b"*1\r\n:5\r\n",
        b"*1\r\n*1\r\n$4\r\nPING\r\n",
        b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
        b"*1\r\n+PING\r\n",
        b"*x\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$-5\r\nPING\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$99999999999999999999\r\n",
        b"*2147483648\r\n",
        b"*99999999999999999999\r\n",
        b"*0\r\n*1\r\n$4\r\nPING\r\n",
        b"*-1\r\n*1\r\n$4\r\nPING\r\n",
        b"PING\r\n",
        b"PING \"hello\r\n",
        b"\x01\x02garbage \xff\xfe\r\n",
        b"\r\n\r\nPING\n",
        &long_line,
    ];
    for case in cases {
        let shown = case[..case.len().min(40)].escape_ascii().to_string();
        assert_eq!(reaction(subject.address(), case), reaction(redis.address(), case), "after {shown}");
        assert_eq!(bystander.call(&["PING"]), Reply::Simple("PONG".to_owned()), "after {shown}");
    }
}

/// A browser or a scanner that takes the port for another.
#[test]
fn other_protocols_are_sent_away() {
    let server = logstreams(2);
    let tls_hello = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), &[7; 500]].concat();
    let cases: [&[u8]; 3] = [
        b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nFLUSHALL\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &tls_hello,
    ];
    for case in cases {
        let mut connection = Connection::open(server.redis());
        let _ = connection.send_raw(case);
        let _ = connection.socket().shutdown(std::net::Shutdown::Write);
        // Errors at most, and then the end.
        while let Ok(reply) = connection.receive() {
            assert!(matches!(reply, Reply::Error(_)), "{} is answered by {reply}", case.escape_ascii());
        }
    }
    assert_eq!(Connection::open(server.redis()).call(&["PING"]), Reply::Simple("PONG".to_owned()));
}

#[test]
fn what_is_announced_takes_no_memory_before_it_comes() {
    let server = logstreams(2);
    let before = anonymous_bytes(&server);
    let mut refused = Vec::new();
    for _ in 0..50 {
        let mut connection = Connection::open(server.redis());
        connection
            .send_raw(b"*5\r\n$4\r\nXADD\r\n$1\r\nt\r\n$1\r\n*\r\n$5\r\nvalue\r\n$536870912\r\n")
            .expect("the server reads");
        refused.push(connection);
    }
    for connection in &mut refused {
        let reply = connection.receive().expect("an answer");
        assert!(matches!(&reply, Reply::Error(text) if text.starts_with("ERR Protocol error")), "{reply}");
        assert!(connection.is_at_its_end(), "whoever announces so much is disconnected");
    }
    // As large as is allowed, announced and never sent; many arguments, announced and never sent.
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let mut connection = Connection::open(server.redis());
        connection.send_raw(b"*1000000\r\n$4\r\nXADD\r\n$33000000\r\nabc").expect("the server reads");
        waiting.push(connection);
    }
    let mut bystander = Connection::open(server.redis());
    for _ in 0..20 {
        assert_eq!(bystander.call(&["PING"]), Reply::Simple("PONG".to_owned()));
        thread::sleep(Duration::from_millis(10));
    }
    let grown = anonymous_bytes(&server).saturating_sub(before);
    assert!(grown < 64 * MIB, "announcements took {} MiB", grown / MIB);
}

#[test]
fn half_a_command_keeps_nobody_waiting() {
    let server = logstreams(1);
    let mut half = Connection::open(server.redis());
    let whole = encode(&["XADD", "t", "*", "value", "the whole value"]);
    half.send_raw(&whole[..whole.len() - 7]).expect("the server reads");
    let mut other = Connection::open(server.redis());
    other.call(&["XADD", "t", "*", "value", "other"]);
    assert_eq!(other.call(&["XLEN", "t"]), Reply::Integer(1));
    // One byte at a time, it is a command all the same.
    for byte in &whole[whole.len() - 7..] {
        half.send_raw(&[*byte]).expect("the server reads");
        thread::sleep(Duration::from_millis(2));
    }
    assert!(matches!(half.receive(), Ok(Reply::Bulk(_))));
    half.send_raw(&whole[..20]).expect("the server reads");
    drop(half);
    assert_eq!(other.call(&["XLEN", "t"]), Reply::Integer(2), "half a command does nothing");
}

/// Commands that a log cannot carry out are refused with a reason, and do nothing.
#[test]
fn what_a_log_cannot_do_is_a_clear_error() {
    let server = logstreams(2);
    let mut connection = Connection::open(server.redis());
    let id = connection.call(&["XADD", "t", "*", "value", "one"]).text();
    for command in [
        vec!["XDEL", "t", &id],
        vec!["XADD", "t", "1-1", "value", "old"],
        vec!["SET", "t", "value"],
        vec!["GET", "t"],
        vec!["LPUSH", "t", "value"],
        vec!["XADD", "no such:name", "*", "value", "x"],
        vec!["PUBLISH", "no such:name", "x"],
        vec!["SELECT", "1"],
    ] {
        let reply = connection.call(&command);
        let Reply::Error(text) = &reply else { panic!("{} is answered by {reply}", command.join(" ")) };
        assert!(text.len() > 15, "{}: no reason in {text:?}", command.join(" "));
    }
    assert_eq!(connection.call(&["XLEN", "t"]), Reply::Integer(1));
}

/// More wait than an append wakes (`shard.fetch.waiters.max`).
#[test]
fn readers_beyond_those_that_may_wait_get_what_comes_and_keep_nobody_waiting() {
    let options = Options { shards: 1, ..Options::default() };
    let server = logstreams_with(options.set("num.partitions", "1").set("shard.fetch.waiters.max", "1"));
    let mut writer = Connection::open(server.redis());
    writer.call(&["XADD", "s", "*", "n", "0"]);
    let mut readers: Vec<_> = (0..3).map(|_| Connection::open(server.redis())).collect();
    for reader in &mut readers {
        reader.send_raw(&encode(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"])).expect("open");
    }
    let deadline = Instant::now() + PATIENCE;
    while !writer.call(&["INFO", "clients"]).text().contains("blocked_clients:3\r\n") {
        assert!(Instant::now() < deadline, "the readers do not wait");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(writer.call(&["PING"]), Reply::Simple("PONG".to_owned()));
    let id = writer.call(&["XADD", "s", "*", "n", "1"]).text();
    for reader in &mut readers {
        let read = reader.receive().expect("answered").to_string();
        assert!(read.contains(&id), "{read} is not {id}");
    }
}

/// A client that sends commands and never reads their answers.
#[test]
fn a_client_that_does_not_read_its_replies_is_read_from_no_further() {
    let server = logstreams(2);
    let mut bystander = Connection::open(server.redis());
    let value = "x".repeat(100_000);
    for _ in 0..20 {
        bystander.call(&["XADD", "t", "*", "value", &value]);
    }
    let before = anonymous_bytes(&server);
    let asking = encode(&["XRANGE", "t", "-", "+"]).repeat(500);
    let mut greedy: Vec<Connection> = (0..10).map(|_| Connection::open(server.redis())).collect();
    for connection in &mut greedy {
        connection.socket().set_write_timeout(Some(Duration::from_millis(200))).expect("a socket option");
        // 1 GB of answers are asked for; the server may stop reading.
        let _ = connection.send_raw(&asking);
    }
    thread::sleep(Duration::from_millis(500));
    assert_eq!(bystander.call(&["PING"]), Reply::Simple("PONG".to_owned()));
    let grown = anonymous_bytes(&server).saturating_sub(before);
    assert!(grown < 400 * MIB, "unread replies took {} MiB", grown / MIB);
}

const SUBSCRIBERS: usize = 1_000;
const DEAF: usize = 100;
const MESSAGES: usize = 6_000;
const PAYLOAD_BYTES: usize = 1_024;
const PUSH_BUFFER_BYTES: u64 = 64 << 10;

/// A subscriber that checks every byte that it gets, message by message, without keeping them.
struct Listener {
    stream: TcpStream,
    seen: usize,
    pending: Vec<u8>,
}

fn frame(number: usize) -> Vec<u8> {
    encode(&["message", "flood", &format!("{number:0width$}", width = PAYLOAD_BYTES)])
}

impl Listener {
    fn subscribe(address: &str) -> TcpStream {
        let mut connection = Connection::open(address);
        let reply = connection.call(&["SUBSCRIBE", "flood"]);
        assert_eq!(reply.items()[2], Reply::Integer(1), "{reply}");
        connection.socket().try_clone().expect("a second handle")
    }

    /// Takes in what is there; whether there was anything.
    fn listen(&mut self, chunk: &mut [u8]) -> bool {
        let size = match self.stream.read(chunk) {
            Ok(0) => panic!("the server hung up after {} messages", self.seen),
            Ok(size) => size,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("after {} messages: {error}", self.seen),
        };
        self.pending.extend_from_slice(&chunk[..size]);
        let mut at = 0;
        loop {
            let expected = frame(self.seen);
            let Some(found) = self.pending.get(at..at + expected.len()) else { break };
            assert!(found == expected, "message {}: {}", self.seen, found[..60].escape_ascii());
            at += expected.len();
            self.seen += 1;
        }
        self.pending.drain(..at);
        true
    }
}

#[test]
fn subscribers_that_never_read_cost_a_bounded_amount_of_memory_and_nobody_else_a_message() {
    let options = Options::default().set("num.partitions", "1");
    let server = logstreams_with(options.set("redis.push.buffer.bytes", &PUSH_BUFFER_BYTES.to_string()));
    let address = server.redis().to_owned();
    let deaf: Vec<TcpStream> = (0..DEAF).map(|_| Listener::subscribe(&address)).collect();
    let mut listeners: Vec<Listener> = (0..SUBSCRIBERS - DEAF)
        .map(|_| Listener { stream: Listener::subscribe(&address), seen: 0, pending: Vec::new() })
        .collect();
    for listener in &listeners {
        listener.stream.set_nonblocking(true).expect("a socket option");
    }
    let before = anonymous_bytes(&server);
    let deadline = Instant::now() + PATIENCE;
    let peak = thread::scope(|scope| {
        let readers: Vec<_> = listeners
            .chunks_mut(225)
            .map(|listeners| {
                scope.spawn(move || {
                    let mut chunk = vec![0; 256 << 10];
                    while listeners.iter().any(|listener| listener.seen < MESSAGES) {
                        let busy = listeners
                            .iter_mut()
                            .filter_map(|listener| listener.listen(&mut chunk).then_some(()))
                            .count();
                        assert!(Instant::now() < deadline, "{} of {MESSAGES}", listeners[0].seen);
                        if busy == 0 {
                            thread::sleep(Duration::from_millis(1));
                        }
                    }
                })
            })
            .collect();
        let mut publisher = Connection::open(&address);
        for batch in (0..MESSAGES).collect::<Vec<_>>().chunks(100) {
            let payload = |number: &usize| format!("{number:0width$}", width = PAYLOAD_BYTES);
            let commands: Vec<u8> =
                batch.iter().flat_map(|number| encode(&["PUBLISH", "flood", &payload(number)])).collect();
            publisher.send_raw(&commands).expect("the server reads");
            for _ in batch {
                let reply = publisher.receive().expect("an answer");
                assert_eq!(reply, Reply::Integer(i64::try_from(SUBSCRIBERS).expect("few")));
            }
        }
        let mut peak = 0;
        while !readers.iter().all(|reader| reader.is_finished()) {
            peak = peak.max(anonymous_bytes(&server));
            thread::sleep(Duration::from_millis(20));
        }
        for reader in readers {
            reader.join().expect("every listener got everything");
        }
        peak
    });
    // What every subscriber may have waiting, and as much again for what the server needs to serve them.
    let bound = 2 * SUBSCRIBERS as u64 * PUSH_BUFFER_BYTES + 64 * MIB;
    let grown = peak.saturating_sub(before);
    println!("memory grew by {} MiB of {} MiB", grown / MIB, bound / MIB);
    assert!(grown < bound, "memory grew by {} MiB, more than {} MiB", grown / MIB, bound / MIB);

    // Nothing is dropped: who reads at last gets all, from the log.
    let mut late =
        Listener { stream: deaf[0].try_clone().expect("a second handle"), seen: 0, pending: Vec::new() };
    late.stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let mut chunk = vec![0; 256 << 10];
    while late.seen < MESSAGES {
        assert!(late.listen(&mut chunk), "silence after {} messages", late.seen);
    }
}
