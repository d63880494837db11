//! The subscribers of `pubsub`, all on one thread: what each receives, in which order and how late.
//!
//! Every message must arrive at every subscriber, once, whole and in the order in which it was published; anything else
//! ends the run with an error.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::clock::{MILLISECOND_NS, UnixOffset, monotonic_ns};
use crate::control;
use crate::payload::{self, Found, STAMP_BYTES};
use crate::stats::{Tally, Window};

const EVENTS_PER_WAIT: usize = 256;
/// The thread looks at least this often whether all has been published.
const TURN_NS_MAX: u64 = 100 * MILLISECOND_NS;
const READ_BYTES: usize = 256 << 10;
/// Behind a message's stamp: when it was sent, on this process's monotonic clock in nanoseconds, big-endian.
pub const SENT_AT: Range<usize> = STAMP_BYTES..STAMP_BYTES + 8;

/// A command or a push as it travels: an array of bulk strings.
pub fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Connects and subscribes to `channel`.
///
/// # Errors
/// If the server is not there, or answers otherwise than by the subscription.
pub fn subscribe(address: &str, channel: &str) -> Result<TcpStream> {
    let mut stream = control::connect(address)?;
    stream.write_all(&encode(&[b"SUBSCRIBE", channel.as_bytes()]))?;
    let expected = format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{channel}\r\n:1\r\n", channel.len());
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).context("the server does not answer SUBSCRIBE")?;
    ensure!(answer == expected.as_bytes(), "SUBSCRIBE is answered by {:?}", String::from_utf8_lossy(&answer));
    Ok(stream)
}

/// What the subscribers share with the publisher.
pub struct Published {
    /// How many messages there are in all; `u64::MAX` until that is known.
    count: AtomicU64,
    pub run_id: u32,
    pub unix: UnixOffset,
    pub window: Window,
    pub drain_ns: u64,
}

impl Published {
    pub fn new(run_id: u32, unix: UnixOffset, window: Window, drain_ns: u64) -> Self {
        Self { count: AtomicU64::new(u64::MAX), run_id, unix, window, drain_ns }
    }

    /// Says that no more is published; whoever fails says 0.
    pub fn end(&self, count: u64) {
        self.count.store(count, Ordering::Release);
    }

    /// How many there are in all, once the end is known.
    pub fn count(&self) -> Option<u64> {
        Some(self.count.load(Ordering::Acquire)).filter(|&count| count != u64::MAX)
    }
}

struct Subscriber {
    stream: TcpStream,
    /// The begin of a push whose rest has not arrived.
    partial: Vec<u8>,
    next_sequence: u64,
}

/// Everyone who reads.
pub struct Subscribers {
    poller: OwnedFd,
    all: Vec<Subscriber>,
    /// What stands before a payload, and behind it.
    head: Vec<u8>,
    payload_bytes: usize,
    buffer: Vec<u8>,
}

impl Subscribers {
    /// Subscribes `count` connections.
    ///
    /// # Errors
    /// If one cannot be.
    pub fn new(address: &str, channel: &str, count: usize, payload_bytes: usize) -> Result<Self> {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut all = Vec::with_capacity(count);
        for index in 0..count {
            let stream = subscribe(address, channel)?;
            stream.set_nonblocking(true)?;
            epoll::add(&poller, &stream, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
            all.push(Subscriber { stream, partial: Vec::new(), next_sequence: 0 });
        }
        let mut head = encode(&[b"message", channel.as_bytes(), &vec![0; payload_bytes]]);
        head.truncate(head.len() - payload_bytes - 2);
        Ok(Self { poller, all, head, payload_bytes, buffer: vec![0; READ_BYTES] })
    }

    /// Reads until every subscriber has every message.
    ///
    /// # Errors
    /// If a message is lost, doubled, damaged or out of order, or has not come `drain_ns` after the last was published.
    pub fn run(&mut self, published: &Published) -> Result<Tally> {
        let mut tally = Tally::new();
        let mut events = Vec::with_capacity(EVENTS_PER_WAIT);
        let mut deadline_ns = None;
        loop {
            if let Some(count) = published.count() {
                let (due, received) = (count * self.all.len() as u64, tally.all_messages);
                if received >= due {
                    return Ok(tally);
                }
                let now_ns = monotonic_ns();
                ensure!(
                    now_ns < *deadline_ns.get_or_insert(now_ns + published.drain_ns),
                    "{received} of {due} messages have arrived; is the server stuck?"
                );
            }
            events.clear();
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::try_from(TURN_NS_MAX)? };
            match epoll::wait(&self.poller, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for messages"),
            }
            for event in &events {
                let index = usize::try_from(event.data.u64())?;
                self.receive(index, published, &mut tally)?;
            }
        }
    }

    fn receive(&mut self, index: usize, published: &Published, tally: &mut Tally) -> Result<()> {
        let subscriber = &mut self.all[index];
        let count = match subscriber.stream.read(&mut self.buffer) {
            Ok(0) => bail!("the server hung up on subscriber {index}"),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("reading from the server"),
        };
        let now_ns = monotonic_ns();
        let joined;
        let received = if subscriber.partial.is_empty() {
            &self.buffer[..count]
        } else {
            subscriber.partial.extend_from_slice(&self.buffer[..count]);
            joined = std::mem::take(&mut subscriber.partial);
            &joined
        };
        let pushes = received.chunks_exact(self.head.len() + self.payload_bytes + 2);
        let rest = pushes.remainder();
        for push in pushes {
            let (head, payload) = push[..push.len() - 2].split_at(self.head.len());
            let due = subscriber.next_sequence;
            let intended_ns = match payload::read(payload, true) {
                Found::Stamp(stamp)
                    if head == self.head && stamp.run_id == published.run_id && stamp.sequence == due =>
                {
                    published.unix.monotonic_ns(stamp.intended_unix_ns)
                }
                found => bail!("subscriber {index} received {found:?} where message {due} was due"),
            };
            subscriber.next_sequence += 1;
            tally.count(&published.window, now_ns, 1, push.len() as u64);
            if published.window.contains(intended_ns) {
                let sent_ns = u64::from_be_bytes(payload[SENT_AT].try_into().expect("8 bytes"));
                tally.service.saturating_record(now_ns.saturating_sub(sent_ns));
                tally.end_to_end.saturating_record(now_ns.saturating_sub(intended_ns));
            }
        }
        subscriber.partial = rest.to_vec();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    use anyhow::Result;

    use super::{Published, SENT_AT, Subscribers, encode};
    use crate::clock::{SECOND_NS, UnixOffset};
    use crate::payload::{self, Stamp};
    use crate::stats::{Tally, Window};

    const CHANNEL: &str = "news";
    const RUN_ID: u32 = 7;

    fn push(sequence: u64) -> Vec<u8> {
        let mut message = [0; SENT_AT.end];
        payload::stamp(&mut message, &Stamp { run_id: RUN_ID, producer: 0, sequence, intended_unix_ns: 1 })
            .expect("long enough");
        encode(&[b"message", CHANNEL.as_bytes(), &message])
    }

    /// What a subscriber makes of a server that sends these pieces and hangs up.
    fn receive(pieces: Vec<Vec<u8>>, count: u64) -> Result<Tally> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        let server = thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("connected");
            peer.set_nodelay(true).expect("a socket");
            let mut asked = vec![0; encode(&[b"SUBSCRIBE", CHANNEL.as_bytes()]).len()];
            peer.read_exact(&mut asked).expect("asked");
            peer.write_all(b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n").expect("open");
            for piece in pieces {
                thread::sleep(Duration::from_millis(10));
                peer.write_all(&piece).expect("open");
            }
        });
        let mut subscribers = Subscribers::new(&address, CHANNEL, 1, SENT_AT.end).expect("subscribed");
        let window = Window { start_ns: 0, end_ns: u64::MAX };
        let published = Published::new(RUN_ID, UnixOffset::take(), window, SECOND_NS);
        published.end(count);
        let outcome = subscribers.run(&published);
        server.join().expect("served");
        outcome
    }

    #[test]
    fn messages_arrive_whole_however_the_bytes_are_cut() {
        let bytes: Vec<u8> = (0..4).flat_map(push).collect();
        let cuts = [0, 1, 70, 71, bytes.len() - 1, bytes.len()];
        let pieces = cuts.windows(2).map(|cut| bytes[cut[0]..cut[1]].to_vec()).collect();
        let tally = receive(pieces, 4).expect("all are there");
        assert_eq!((tally.messages, tally.end_to_end.len(), tally.service.len()), (4, 4, 4));
    }

    #[test]
    fn a_message_that_is_lost_doubled_or_damaged_ends_the_run() {
        let mut damaged = push(1);
        let last_of_message = damaged.len() - 3;
        damaged[last_of_message] ^= 1;
        for second in [push(2), push(0), damaged] {
            let error = receive(vec![[push(0), second].concat()], 2).err().expect("refused");
            assert!(error.to_string().contains("message 1 was due"), "{error}");
        }
    }
}
