//! One thread: an epoll loop over many clients, each with a connection per broker that it needs.
//!
//! A client is a state machine that never waits. The worker brings it replies, lost connections and the time it asked to
//! be woken at, and lets it act (`pump`). Waking costs follow the events, not the number of clients, so thousands of
//! connections fit on a thread. Timers are exact to the microsecond: a timerfd, since epoll's own timeout is whole
//! milliseconds and its slack would be charged to the broker as latency.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use crate::clock::{self, MILLISECOND_NS, monotonic_ns};
use crate::control::Control;
use crate::link::{Link, OutFrame};
use crate::stats::{Interval, SharedInterval};

const EVENTS_PER_WAIT: usize = 256;
const TIMER_TOKEN: u64 = u64::MAX;
/// A worker looks at the stop flag and at finished clients at least this often.
const TURN_NS_MAX: u64 = 100 * MILLISECOND_NS;
/// Threads that a worker connects with.
const CONNECTS_AT_ONCE: usize = 8;
/// Connections that are opened before the worker takes them over.
const CONNECTIONS_PER_ROUND: usize = 1_000;
/// A token is a client's index and a link's index.
const LINK_BITS: u32 = 16;

/// What a client may use while it acts.
pub struct Turn<'a> {
    pub now_ns: u64,
    pub interval: &'a mut Interval,
    /// Requests that have left, for reuse by any client of the worker.
    pub pool: &'a mut Vec<OutFrame>,
    poller: &'a OwnedFd,
    client_index: usize,
}

/// A client's connections, one per broker, by the index at which they were first opened.
#[derive(Default)]
pub struct Links {
    links: Vec<Option<Link>>,
    nodes: Vec<i32>,
    /// Requests whose last byte is in the socket, for reuse.
    pub spent: Vec<OutFrame>,
}

impl Links {
    /// The index that stands for a node from now on.
    pub fn index_of(&mut self, node: i32) -> usize {
        self.nodes.iter().position(|&known| known == node).unwrap_or_else(|| {
            self.nodes.push(node);
            self.links.push(None);
            self.nodes.len() - 1
        })
    }

    /// The node that an index stands for.
    pub fn node(&self, index: usize) -> i32 {
        self.nodes[index]
    }

    /// How many nodes were ever needed.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Requests that are not wholly in the socket.
    pub fn unsent_count(&self, index: usize) -> usize {
        self.links[index].as_ref().map_or(0, Link::unsent_count)
    }

    pub fn is_open(&self, index: usize) -> bool {
        self.links[index].is_some()
    }

    /// Whether the socket took all that was sent; `false` while not connected.
    pub fn is_flushed(&self, index: usize) -> bool {
        self.links[index].as_ref().is_some_and(Link::is_flushed)
    }

    /// Puts a fresh connection to the node of `index` into service.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open(&mut self, index: usize, stream: TcpStream, turn: &Turn<'_>) -> Result<()> {
        let token = (turn.client_index as u64) << LINK_BITS | index as u64;
        self.links[index] = Some(Link::new(stream, turn.poller, token)?);
        Ok(())
    }

    /// Sends on an open connection.
    ///
    /// # Errors
    /// If it is broken; the client then treats it as lost.
    pub fn send(&mut self, index: usize, frame: OutFrame, turn: &Turn<'_>) -> Result<()> {
        let link = self.links[index].as_mut().context("not connected")?;
        link.send(frame, turn.poller, &mut self.spent)
    }

    /// Closes a connection.
    pub fn close(&mut self, index: usize) {
        self.links[index] = None; // Closing the descriptor takes it out of epoll.
    }
}

/// A state machine on top of its links.
pub trait Client: Send {
    fn links(&mut self) -> &mut Links;

    /// The links to be opened before the run, with their addresses.
    ///
    /// # Errors
    /// If an address is not known.
    fn unconnected(&self) -> Result<Vec<(usize, String)>>;

    /// Does all that can be done now; returns when to be called again if nothing arrives.
    ///
    /// # Errors
    /// What ends the run.
    fn pump(&mut self, turn: &mut Turn<'_>) -> Result<Option<u64>>;

    /// Takes one reply. `pump` follows.
    ///
    /// # Errors
    /// What ends the run.
    fn on_frame(&mut self, link: usize, frame: Bytes, turn: &mut Turn<'_>) -> Result<()>;

    /// A connection broke and is closed. `pump` follows.
    ///
    /// # Errors
    /// What ends the run.
    fn on_lost(&mut self, link: usize, error: anyhow::Error, turn: &mut Turn<'_>) -> Result<()>;

    /// Nothing is left to do. Becomes true in a `pump` and stays true.
    fn is_done(&self) -> bool;

    /// The run ends although not all is done: counts what is open.
    fn abandon(&mut self, turn: &mut Turn<'_>);
}

/// Opens connections, `CONNECTS_AT_ONCE` at a time, and asks each for its versions, as every client does.
///
/// The answers also pace thousands of connects: a broker that accepts more slowly than they come would let them overflow
/// its listen queue (Kafka's holds 50), and each that does waits a second for the kernel to try again.
fn open_all(wanted: &[(usize, usize, String)]) -> Result<Vec<(usize, TcpStream)>> {
    let hands = CONNECTS_AT_ONCE.min(wanted.len());
    thread::scope(|scope| {
        let open_share = |hand: usize| -> Result<Vec<(usize, TcpStream)>> {
            let share = wanted.iter().enumerate().skip(hand).step_by(hands);
            share
                .map(|(position, (_, _, address))| Ok((position, Control::connect(address)?.into_stream())))
                .collect()
        };
        let threads: Vec<_> = (0..hands).map(|hand| scope.spawn(move || open_share(hand))).collect();
        let mut opened = Vec::new();
        for thread in threads {
            opened.extend(thread.join().expect("no panic while connecting")?);
        }
        Ok(opened)
    })
}

/// Clients that share a thread.
pub struct Worker<C> {
    poller: OwnedFd,
    timer: OwnedFd,
    clients: Vec<C>,
    /// When each client wants to be pumped, and the same ordered by time. Entries of the heap that a client has since
    /// changed its mind about cost one needless pump.
    wakes: Vec<Option<u64>>,
    wake_order: BinaryHeap<Reverse<(u64, usize)>>,
    armed_ns: u64,
    done: Vec<bool>,
    unfinished_count: usize,
    pool: Vec<OutFrame>,
    interval: SharedInterval,
}

impl<C: Client> Worker<C> {
    /// Prepares a thread's loop.
    ///
    /// # Errors
    /// If the kernel grants no more descriptors.
    pub fn new(clients: Vec<C>, interval: SharedInterval) -> Result<Self> {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        // Edge-triggered, so an expiration need not be read: setting the timer anew clears it.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&poller, &timer, epoll::EventData::new_u64(TIMER_TOKEN), flags)?;
        let (wakes, done, unfinished_count) =
            (vec![None; clients.len()], vec![false; clients.len()], clients.len());
        Ok(Self {
            poller,
            timer,
            clients,
            wakes,
            wake_order: BinaryHeap::new(),
            armed_ns: 0,
            done,
            unfinished_count,
            pool: Vec::new(),
            interval,
        })
    }

    /// Opens all connections that the clients ask for, before the run, a few at a time.
    ///
    /// # Errors
    /// If a broker does not accept or answer.
    pub fn connect(&mut self) -> Result<()> {
        let mut wanted = Vec::new();
        for (client_index, client) in self.clients.iter().enumerate() {
            for (link, address) in client.unconnected()? {
                wanted.push((client_index, link, address));
            }
        }
        let mut interval = self.interval.lock();
        for wanted in wanted.chunks(CONNECTIONS_PER_ROUND) {
            for (position, stream) in open_all(wanted)? {
                let (client_index, link, _) = wanted[position];
                let turn = Turn {
                    now_ns: monotonic_ns(),
                    interval: &mut interval,
                    pool: &mut self.pool,
                    poller: &self.poller,
                    client_index,
                };
                self.clients[client_index].links().open(link, stream, &turn)?;
            }
        }
        Ok(())
    }

    /// Runs until every client is done, `stop` is set, or `deadline_ns` has come.
    ///
    /// # Errors
    /// The first error that a client does not handle itself.
    pub fn run(&mut self, stop: &AtomicBool, deadline_ns: impl Fn() -> u64) -> Result<()> {
        // Without this the kernel may add 50 us to every sleep.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let shared = self.interval.clone();
        let mut events = Vec::with_capacity(EVENTS_PER_WAIT);
        let mut frames = VecDeque::new();
        for client_index in 0..self.clients.len() {
            self.pump(client_index, &mut shared.lock())?;
        }
        loop {
            let now_ns = monotonic_ns();
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let mut interval = shared.lock();
            if now_ns >= deadline_ns() {
                self.abandon(now_ns, &mut interval);
                return Ok(());
            }
            while let Some(&Reverse((due_ns, client_index))) = self.wake_order.peek() {
                if due_ns > now_ns {
                    break;
                }
                self.wake_order.pop();
                if self.wakes[client_index] == Some(due_ns) {
                    self.wakes[client_index] = None;
                    self.pump(client_index, &mut interval)?;
                }
            }
            drop(interval);
            if self.unfinished_count == 0 {
                return Ok(());
            }
            self.wait(&mut events, now_ns)?;
            if events.is_empty() {
                continue;
            }
            let mut interval = shared.lock();
            for event in &events {
                let epoll::Event { flags, data } = *event;
                if data.u64() != TIMER_TOKEN {
                    self.on_event(data.u64(), flags, &mut frames, &mut interval)?;
                }
            }
        }
    }

    fn wait(&mut self, events: &mut Vec<epoll::Event>, now_ns: u64) -> Result<()> {
        let next = self.wake_order.peek().map_or(u64::MAX, |Reverse((due_ns, _))| *due_ns);
        let target_ns = next.min(now_ns + TURN_NS_MAX);
        // An armed timer that is early enough stays: one needless turn costs less than a system call on each.
        if self.armed_ns <= now_ns || target_ns < self.armed_ns {
            clock::arm(&self.timer, target_ns)?;
            self.armed_ns = target_ns;
        }
        events.clear();
        match epoll::wait(&self.poller, spare_capacity(events), None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("waiting for events"),
        }
    }

    fn on_event(
        &mut self,
        token: u64,
        flags: epoll::EventFlags,
        frames: &mut VecDeque<Bytes>,
        interval: &mut Interval,
    ) -> Result<()> {
        let client_index = usize::try_from(token >> LINK_BITS)?;
        let link_index = usize::try_from(token & ((1 << LINK_BITS) - 1))?;
        let client = &mut self.clients[client_index];
        let mut turn = Turn {
            now_ns: monotonic_ns(),
            interval,
            pool: &mut self.pool,
            poller: &self.poller,
            client_index,
        };
        let links = client.links();
        let Some(link) = links.links[link_index].as_mut() else { return Ok(()) };
        let mut outcome = Ok(None);
        if flags.contains(epoll::EventFlags::OUT) {
            outcome = link.flush(&self.poller, &mut links.spent).map(|()| None);
        }
        if outcome.is_ok() && flags != epoll::EventFlags::OUT {
            outcome = link.receive(frames);
            // The replies are here now; reading megabytes of them took its time.
            turn.now_ns = monotonic_ns();
        }
        while let Some(frame) = frames.pop_front() {
            client.on_frame(link_index, frame, &mut turn)?;
        }
        match outcome {
            Ok(None) => {}
            Ok(Some(shared)) => {
                if let Some(link) = client.links().links[link_index].as_mut() {
                    link.recycle(shared);
                }
            }
            Err(error) => {
                client.links().close(link_index);
                client.on_lost(link_index, error, &mut turn)?;
            }
        }
        self.pump(client_index, interval)
    }

    fn pump(&mut self, client_index: usize, interval: &mut Interval) -> Result<()> {
        let mut turn = Turn {
            now_ns: monotonic_ns(),
            interval,
            pool: &mut self.pool,
            poller: &self.poller,
            client_index,
        };
        let wake = self.clients[client_index].pump(&mut turn)?;
        if !self.done[client_index] && self.clients[client_index].is_done() {
            self.done[client_index] = true;
            self.unfinished_count -= 1;
        }
        if wake != self.wakes[client_index] {
            self.wakes[client_index] = wake;
            if let Some(due_ns) = wake {
                self.wake_order.push(Reverse((due_ns, client_index)));
            }
        }
        Ok(())
    }

    fn abandon(&mut self, now_ns: u64, interval: &mut Interval) {
        for (client_index, client) in self.clients.iter_mut().enumerate() {
            if !client.is_done() {
                let pool = &mut self.pool;
                client.abandon(&mut Turn { now_ns, interval, pool, poller: &self.poller, client_index });
            }
        }
    }

    /// The clients, when the run is over.
    pub fn into_clients(self) -> Vec<C> {
        self.clients
    }
}
