//! What a hop to another shard and back costs, over `runtime::mesh`.
//!
//! Two executors on threads of their own; one sends numbers, the other sends each one back. With one under way: the time
//! of a round trip, which is mostly that of waking a thread. With 64: round trips per second. Once with executors that
//! sleep as soon as they have nothing to do, once with ones that look for work for 50 us before.

#[path = "support/mod.rs"]
mod support;

use std::sync::mpsc;
use std::time::Duration;

use logstreams::base::clock;
use logstreams::runtime::executor::{Executor, ExecutorOptions, start};
use logstreams::runtime::mesh::{MeshEnds, mesh};
use logstreams::runtime::process;
use logstreams::runtime::spin::Spin;
use support::{Latencies, Series, Table, scaled};

const SPINS: [Duration; 2] = [Duration::ZERO, Duration::from_micros(50)];
const UNDER_WAY: [usize; 2] = [1, 64];
/// Round trips of a round, by how many are under way.
const ROUND_TRIPS: [usize; 2] = [5_000, 200_000];

struct Case {
    spin: Duration,
    under_way: usize,
    round_trips: usize,
    round_trips_per_second: Series,
    latencies: Latencies,
}

fn executor<F>(shard: usize, spin: Duration, main: impl FnOnce() -> F + Send + 'static) -> Executor
where
    F: Future<Output = ()> + 'static,
{
    let cpus = process::allowed_cpus();
    let cpu = (cpus.len() > 1).then(|| cpus[shard % cpus.len()]); // each its own, if there are two
    let spin = Spin::fixed(spin);
    start(ExecutorOptions { name: format!("hop-{shard}"), cpu, spin, blocking_threads: 2 }, main)
        .expect("an executor starts")
}

async fn ask(ends: MeshEnds<u64>, under_way: usize, round_trips: usize) -> (f64, Vec<Duration>) {
    let (mesh, mut receivers) = ends.join();
    let answers = &mut receivers[0];
    let mut latencies = Vec::with_capacity(round_trips);
    let start = clock::monotonic();
    let mut asked = start;
    for number in 0..under_way {
        mesh.send(1, number as u64).await.expect("the other shard is there");
    }
    for answered in 0..round_trips {
        assert_eq!(answers.recv().await, Some(answered as u64));
        let now = clock::monotonic();
        latencies.push(now - asked); // of interest with one under way
        asked = now;
        if answered + under_way < round_trips {
            mesh.send(1, (answered + under_way) as u64).await.expect("the other shard is there");
        }
    }
    (start.elapsed().as_secs_f64(), latencies)
}

async fn answer(ends: MeshEnds<u64>) {
    let (mesh, mut receivers) = ends.join();
    while let Some(number) = receivers[0].recv().await {
        mesh.send(0, number).await.expect("the asking shard is there");
    }
}

impl Case {
    fn round(&mut self) {
        let (under_way, round_trips) = (self.under_way, self.round_trips);
        let mut ends = mesh::<u64>(2).into_iter();
        let (asking, answering) = (ends.next().expect("two ends"), ends.next().expect("two ends"));
        let (done, result) = mpsc::channel();
        let answerer = executor(1, self.spin, move || answer(answering));
        let asker = executor(0, self.spin, move || async move {
            let _ = done.send(ask(asking, under_way, round_trips).await);
        });
        asker.join().expect("the asker ends well");
        answerer.join().expect("the answerer ends well");
        let (seconds, latencies) = result.recv().expect("a result");
        self.round_trips_per_second.push(round_trips as f64 / seconds);
        if under_way == 1 {
            latencies.into_iter().for_each(|latency| self.latencies.push(latency));
        }
    }
}

fn main() {
    let mut cases = Vec::new();
    for spin in SPINS {
        for (under_way, round_trips) in UNDER_WAY.into_iter().zip(ROUND_TRIPS) {
            cases.push(Case {
                spin,
                under_way,
                round_trips: scaled(round_trips, 2 * under_way),
                round_trips_per_second: Series::default(),
                latencies: Latencies::default(),
            });
        }
    }
    support::interleave(&mut cases, Case::round);
    let mut table = Table::new(&["spin", "under way", "round trips/s", "p50 us", "p99 us", "p99.9 us"]);
    for case in &cases {
        table.row(&[
            &format!("{:?}", case.spin),
            &case.under_way,
            &case.round_trips_per_second,
            &case.latencies.percentile_us(50.0),
            &case.latencies.percentile_us(99.0),
            &case.latencies.percentile_us(99.9),
        ]);
    }
    let pinned = if process::allowed_cpus().len() > 1 { "each pinned to a CPU" } else { "on one CPU" };
    table.print(&format!("A round trip between two executors, {pinned}"));
}
