//! Executors: one per shard, tasks on them, and the blocking pool beside them.
//!
//! A task never moves to another thread. A panic in a task would end its executor, so whoever spawns work for a
//! client wraps it in [`catch_panic`].

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_lite::FutureExt;
use glommio::{
    ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, PoolPlacement, Shares, TaskQueueHandle,
};

/// How often a busy task is asked to give way. glommio's own 100 ms would let one loop starve every timer.
const PREEMPT_TIMER: Duration = Duration::from_millis(1);
/// Memory that each ring registers for direct I/O; kept small because it is locked.
const IO_MEMORY_BYTES: usize = 1 << 20;
/// Entries in each ring.
const RING_DEPTH: usize = 256;

/// How often an executor looks around even if nobody wakes it. glommio-ng 0.12.0 takes "preempted before the first task
/// ran" for "nothing to run" (`run_task_queues`) and then sleeps although tasks are ready, until anything at all wakes it;
/// without this 5 of 72 starts under load hung. This bounds such a sleep until the crate is mended. It costs 0.1 % of a
/// core.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// A task that is cancelled when dropped and can be awaited for its result.
pub type Task<T> = glommio::Task<T>;

/// How an executor is placed and how hard it waits.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// The thread's name, as `top -H` shows it.
    pub name: String,
    /// The CPU to pin to, if any.
    pub cpu: Option<usize>,
    /// How long to spin before sleeping in the kernel; zero unless the core is ours alone.
    pub spin: Duration,
    /// Threads of the blocking pool; at least two, so that a sync never queues behind a slow read.
    pub blocking_threads: usize,
}

/// A running executor's thread.
pub struct Executor(ExecutorJoinHandle<()>);

impl Executor {
    /// Waits for the executor's main future to finish.
    ///
    /// # Errors
    /// A sentence if the executor's thread panicked.
    pub fn join(self) -> Result<(), String> {
        self.0.join().map_err(|error| format!("a shard ended abnormally: {error}"))
    }
}

/// Starts an executor on a thread of its own and runs `main` on it.
///
/// # Errors
/// A sentence with what the kernel refused.
pub fn start<G, F>(options: ExecutorOptions, main: G) -> Result<Executor, String>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let placement = options.cpu.map_or(Placement::Unbound, Placement::Fixed);
    builder(placement, options.spin, options.blocking_threads)
        .name(&options.name)
        .spawn(move || with_heartbeat(main()))
        .map(Executor)
        .map_err(|error| format!("cannot start executor {}: {error}", options.name))
}

/// Runs `future` to its end on an executor of the calling thread. For tests, tools and start-up work.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    builder(Placement::Unbound, Duration::ZERO, 2)
        .make()
        .expect("the probe has shown that io_uring works") // callers probe first
        .run(with_heartbeat(future))
}

async fn with_heartbeat<T>(main: impl Future<Output = T>) -> T {
    let _beating = glommio::spawn_local(async {
        loop {
            glommio::timer::sleep(HEARTBEAT).await;
        }
    });
    main.await
}

fn builder(placement: Placement, spin: Duration, blocking_threads: usize) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(placement)
        .preempt_timer(PREEMPT_TIMER)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .spin_before_park(spin)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(blocking_threads.max(2)))
}

/// Starts a task on this shard; dropping the handle cancels it.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    glommio::spawn_local(future)
}

/// Starts a task on this shard that lives until it is done.
pub fn spawn_detached(future: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(future).detach();
}

/// A queue of tasks that gets its own share of the shard's core (maintenance must not crowd out requests).
#[derive(Clone, Copy)]
pub struct TaskQueue(TaskQueueHandle);

impl TaskQueue {
    /// Makes a queue with `shares` (requests run with 1,000).
    pub fn new(name: &str, shares: usize) -> Self {
        TaskQueue(glommio::executor().create_task_queue(Shares::Static(shares), Latency::NotImportant, name))
    }

    /// Starts a task in this queue that lives until it is done.
    pub fn spawn_detached(self, future: impl Future<Output = ()> + 'static) {
        if let Ok(task) = glommio::spawn_local_into(future, self.0) {
            task.detach();
        }
    }
}

/// Runs `call` on the blocking pool: file system calls and long computations belong there, not on the shard.
pub async fn blocking<R: Send + 'static>(call: impl FnOnce() -> R + Send + 'static) -> R {
    glommio::executor().spawn_blocking(call).await
}

/// Gives way if this task has had its share of the core.
pub async fn yield_if_needed() {
    glommio::yield_if_needed().await;
}

/// Gives way to the other tasks that are ready.
pub async fn yield_now() {
    glommio::executor().yield_now().await;
}

/// Runs `future`; a panic inside it becomes an error with the panic's message instead of ending the shard.
///
/// # Errors
/// The panic's message.
pub async fn catch_panic<T>(future: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| {
        panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panic without a message".to_owned())
    })
}
