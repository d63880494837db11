//! The server: start-up, listeners, placing connections on shards, and an orderly stop.
//!
//! `main`'s thread prepares everything that may fail with one clear sentence (directory, ports), starts one
//! executor for each shard, prints the ready line when all partitions are open, waits for a signal and drives the stop.
//! It talks to the shards through one small channel each; nothing here is on the path of a request.

mod connections;
mod data_dir;
mod error;
mod listeners;
mod shard_main;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

pub use error::ServerError;

use crate::broker::Identity;
use crate::config::Config;
use crate::redis;
use crate::runtime::executor::{self, Executor, ExecutorOptions};
use crate::runtime::process;
use crate::runtime::spin::Spin;
use crate::shard::{ShardOptions, shard_ends};
use connections::ConnectionCounts;
use data_dir::DataDir;
use listeners::Listeners;
use shard_main::{Order, Report, ShardMain};

/// How long clients have, after the signal, to take their answers.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// How long closing the partitions may take after that, so that the whole stop stays below five seconds.
const CLOSE_LIMIT: Duration = Duration::from_millis(2_700);

/// Runs the server until it is told to stop.
///
/// # Errors
/// What keeps it from starting, or from stopping cleanly, as one sentence with cause and cure.
pub fn run(config: Arc<Config>) -> Result<(), ServerError> {
    process::block_stop_signals();
    let shards = config.shards.resolve().max(1);
    process::raise_open_files_limit();
    process::avoid_huge_pages();
    let data_dir = DataDir::open(&config.data_dir)?;
    let listeners = Listeners::bind(&config, shards)?;
    let identity = Identity { cluster_id: data_dir.cluster_id().to_owned(), kafka_ports: listeners.ports() };
    let ready_line = listeners.ready_line();
    let redis_port = listeners.redis_address().map_or(0, |address| address.port());

    let running = Running::start(&config, shards, &data_dir, identity, redis_port)?;
    let served = running.load().map(|()| {
        running.serve(listeners);
        print_ready(&ready_line);
        wait_for_stop();
    });
    let stopped = running.stop(served.is_ok());
    served.and(stopped)
}

fn print_ready(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // Nobody may be listening any more, which is no reason to stop.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    tracing::info!("{line}");
}

fn wait_for_stop() {
    let signal = process::wait_for_stop_signal();
    tracing::info!(?signal, "stopping");
    // A second signal means "at once"; what is acknowledged is safe, the next start checks the logs.
    let _ = std::thread::Builder::new().name("second-signal".to_owned()).spawn(|| {
        process::wait_for_stop_signal();
        tracing::warn!("stopping at once");
        std::process::exit(1);
    });
}

/// The running shards.
struct Running {
    executors: Vec<Executor>,
    orders: Vec<flume::Sender<Order>>,
    reports: flume::Receiver<Report>,
}

impl Running {
    fn start(
        config: &Arc<Config>,
        shards: usize,
        data_dir: &DataDir,
        identity: Identity,
        redis_port: u16,
    ) -> Result<Self, ServerError> {
        let (report, reports) = flume::bounded(4 * shards);
        let counts = Arc::new(ConnectionCounts::new(shards));
        let redis_clients = Arc::new(redis::ClientTable::default());
        let (adoptions, adopted): (Vec<_>, Vec<_>) =
            (0..shards).map(|_| flume::bounded(connections::ADOPTIONS_UNDER_WAY_MAX)).unzip();
        let mut running = Running { executors: Vec::new(), orders: Vec::new(), reports };
        let cpus = process::allowed_cpus();
        for ((id, ends), adopted) in shard_ends(shards).into_iter().enumerate().zip(adopted) {
            let (order, orders) = flume::bounded(4);
            let main = ShardMain {
                options: ShardOptions {
                    id,
                    shards,
                    config: config.clone(),
                    data_dir: data_dir.path().to_owned(),
                },
                ends,
                identity: identity.clone(),
                orders,
                report: report.clone(),
                adopted,
                adoptions: adoptions.clone(),
                counts: counts.clone(),
                redis_clients: redis_clients.clone(),
                redis_port,
            };
            let spin = u64::try_from(config.shard_spin_us)
                .map_or(Spin::WhileOneAsks, |us| Spin::fixed(Duration::from_micros(us)));
            let options = ExecutorOptions {
                name: format!("shard-{id}"),
                // Pinned only when the shards are as many as the CPUs: otherwise the kernel knows better.
                cpu: (shards == cpus.len() && shards > 1).then(|| cpus[id]),
                spin,
                blocking_threads: config.blocking_threads,
            };
            let executor = executor::start(options, move || main.run()).map_err(ServerError::Executor)?;
            running.executors.push(executor);
            running.orders.push(order);
        }
        Ok(running)
    }

    /// Waits until every shard has opened its partitions.
    fn load(&self) -> Result<(), ServerError> {
        match self.reports.recv() {
            Ok(Report::Loaded(loaded)) => loaded.map_err(ServerError::Load),
            _ => Err(ServerError::Load("a shard has ended while starting".to_owned())),
        }
    }

    /// Lets clients in.
    fn serve(&self, listeners: Listeners) {
        for (order, listener) in self.orders.iter().zip(listeners.into_shards(self.orders.len())) {
            let _ = order.send(Order::Serve(listener)); // a shard that has ended is noticed when it is joined
        }
    }

    /// Drains the connections, closes the partitions, writes the marker of a clean stop.
    fn stop(self, was_serving: bool) -> Result<(), ServerError> {
        for order in &self.orders {
            let _ = order.send(Order::Drain(DRAIN_LIMIT));
        }
        for _ in &self.orders {
            let _ = self.reports.recv_timeout(DRAIN_LIMIT + Duration::from_millis(100));
        }
        let mut closed = Ok(());
        if was_serving {
            let _ = self.orders[0].send(Order::Close);
            closed = match self.reports.recv_timeout(CLOSE_LIMIT) {
                Ok(Report::Closed(closed)) => closed.map_err(ServerError::Checkpoint),
                _ => {
                    tracing::warn!("closing took too long; the next start will check the logs");
                    std::process::exit(1);
                }
            };
        }
        for order in &self.orders {
            let _ = order.send(Order::End);
        }
        for executor in self.executors {
            executor.join().map_err(ServerError::Executor)?;
        }
        closed
    }
}
