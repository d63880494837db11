//! The worker threads of a run: started, let loose together, stopped together.
//!
//! A thread connects its clients, reports, waits at the barrier, runs, and hands its clients back or says why it cannot go on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cli::CommonArgs;
use crate::consume::Consumer;
use crate::process;
use crate::produce::Producer;
use crate::setup::Setup;
use crate::stats::SharedInterval;
use crate::timeline::Timeline;
use crate::worker::{Client, Worker};

/// What a worker tells the main thread.
enum Event {
    Connected,
    Producers(Vec<Producer>),
    Consumers(Vec<Consumer>),
    Failed(anyhow::Error),
}

/// The workers of a run.
pub struct Crew {
    events: Receiver<Event>,
    pub intervals: Vec<SharedInterval>,
    producer_threads: usize,
    consumer_threads: usize,
    start: Arc<Barrier>,
    stop: Arc<AtomicBool>,
    /// When consumers that wait for producers give up.
    consumer_deadline_ns: Arc<AtomicU64>,
    pub producers: Vec<Producer>,
    pub consumers: Vec<Consumer>,
}

/// Where a thread begins.
struct Post<C> {
    clients: Vec<C>,
    cpu: Option<usize>,
    interval: SharedInterval,
    start: Arc<Barrier>,
    stop: Arc<AtomicBool>,
}

impl Crew {
    /// Starts the threads, which begin to connect.
    ///
    /// # Errors
    /// If the system gives no more threads.
    pub fn start(setup: &mut Setup, args: &CommonArgs) -> Result<Self> {
        let producers = deal(std::mem::take(&mut setup.producers), args.threads);
        let consumers = deal(std::mem::take(&mut setup.consumers), args.threads);
        let (sender, events) = channel();
        let mut crew = Self {
            events,
            intervals: Vec::new(),
            producer_threads: producers.len(),
            consumer_threads: consumers.len(),
            start: Arc::new(Barrier::new(producers.len() + consumers.len() + 1)),
            stop: Arc::default(),
            consumer_deadline_ns: Arc::new(AtomicU64::new(u64::MAX)),
            producers: Vec::new(),
            consumers: Vec::new(),
        };
        let waits_for_producers = !producers.is_empty();
        for clients in consumers {
            let post = crew.post(clients, args);
            let (timeline, deadline_ns) =
                (Arc::clone(&setup.timeline), Arc::clone(&crew.consumer_deadline_ns));
            post.man("consumers", sender.clone(), Event::Consumers, move || match waits_for_producers {
                true => deadline_ns.load(Ordering::Relaxed),
                false => timeline.get().map_or(u64::MAX, Timeline::deadline_ns),
            })?;
        }
        for clients in producers {
            let post = crew.post(clients, args);
            let timeline = Arc::clone(&setup.timeline);
            post.man("producers", sender.clone(), Event::Producers, move || {
                timeline.get().map_or(u64::MAX, Timeline::deadline_ns)
            })?;
        }
        Ok(crew)
    }

    fn post<C>(&mut self, clients: Vec<C>, args: &CommonArgs) -> Post<C> {
        let interval = SharedInterval::new();
        let cpu = args.pin.get(self.intervals.len() % args.pin.len().max(1)).copied();
        self.intervals.push(interval.clone());
        Post { clients, cpu, interval, start: Arc::clone(&self.start), stop: Arc::clone(&self.stop) }
    }

    /// Waits until every client is connected.
    ///
    /// # Errors
    /// If one cannot.
    pub fn await_connected(&self) -> Result<()> {
        for _ in 0..self.intervals.len() {
            match self.events.recv()? {
                Event::Connected => {}
                Event::Failed(error) => return Err(error),
                Event::Producers(_) | Event::Consumers(_) => bail!("a worker ended before it began"),
            }
        }
        Ok(())
    }

    /// Lets the workers loose. The timeline must be fixed.
    pub fn begin(&self) {
        self.start.wait();
    }

    /// Waits for a worker's end, at most `timeout`.
    ///
    /// # Errors
    /// What ended a worker before its time.
    pub fn wait(&mut self, timeout: Duration) -> Result<()> {
        match self.events.recv_timeout(timeout) {
            Ok(Event::Producers(producers)) => {
                self.producer_threads -= 1;
                self.producers.extend(producers);
            }
            Ok(Event::Consumers(consumers)) => {
                self.consumer_threads -= 1;
                self.consumers.extend(consumers);
            }
            Ok(Event::Failed(error)) => return Err(error),
            Ok(Event::Connected) => bail!("a worker connected twice"),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("a worker panicked"),
        }
        Ok(())
    }

    /// Whether any producer is at work.
    pub fn is_producing(&self) -> bool {
        self.producer_threads > 0
    }

    /// Whether everybody is back.
    pub fn is_home(&self) -> bool {
        self.producer_threads + self.consumer_threads == 0
    }

    /// From when on consumers of a `both` run no longer wait for what is missing.
    pub fn set_consumer_deadline(&self, deadline_ns: u64) {
        self.consumer_deadline_ns.store(deadline_ns, Ordering::Relaxed);
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl<C: Client + 'static> Post<C> {
    /// Starts the thread.
    fn man(
        self,
        name: &str,
        events: Sender<Event>,
        done: fn(Vec<C>) -> Event,
        deadline_ns: impl Fn() -> u64 + Send + 'static,
    ) -> Result<()> {
        thread::Builder::new().name(name.to_string()).spawn(move || {
            let outcome = self.work(&events, deadline_ns);
            // The main thread is gone if another worker failed.
            let _ = events.send(outcome.map_or_else(Event::Failed, done));
        })?;
        Ok(())
    }

    fn work(self, events: &Sender<Event>, deadline_ns: impl Fn() -> u64) -> Result<Vec<C>> {
        if let Some(cpu) = self.cpu {
            process::pin_to_cpu(cpu)?;
        }
        let mut worker = Worker::new(self.clients, self.interval)?;
        worker.connect()?;
        let _ = events.send(Event::Connected);
        self.start.wait();
        worker.run(&self.stop, deadline_ns)?;
        Ok(worker.into_clients())
    }
}

/// Deals clients to at most `hands` threads, none of them empty.
fn deal<C>(clients: Vec<C>, hands: usize) -> Vec<Vec<C>> {
    let count = hands.min(clients.len());
    let mut dealt: Vec<Vec<C>> = (0..count).map(|_| Vec::new()).collect();
    for (index, client) in clients.into_iter().enumerate() {
        dealt[index % count].push(client);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::deal;

    #[test]
    fn no_thread_is_started_without_clients() {
        assert_eq!(deal(vec![1, 2, 3, 4, 5], 2), [vec![1, 3, 5], vec![2, 4]]);
        assert_eq!(deal(vec![1], 8), [vec![1]]);
        assert!(deal(Vec::<u8>::new(), 3).is_empty());
    }
}
