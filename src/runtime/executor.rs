//! Executors: one per shard, tasks on them, and the blocking pool beside them.
//!
//! An executor is a tokio current-thread runtime that owns its thread, so a task never moves and need not be `Send`. A
//! panic ends its task only: whoever awaits the task panics too, nobody else. Whoever spawns work for a client wraps it
//! in [`catch_panic`], so that somebody hears of it.
//! A thread sleeps in `epoll_wait` until a socket, a timer, another thread or its blocking pool has something for it:
//! there is no tick.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker, ready};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::base::clock;
use crate::runtime::spin::{self, Spin};

/// How long a task may run before [`yield_if_needed`] gives way.
const SLICE: Duration = Duration::from_micros(500);
/// Tasks polled between two looks at sockets and timers, which cost about a tenth of what one task's poll costs.
const TASKS_PER_LOOK: u32 = 16;
/// Tasks polled between two looks at what other threads have woken; a look is one atomic load.
const TASKS_PER_REMOTE_LOOK: u32 = 4;
/// How long a thread of the blocking pool waits for more to do before it ends.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Shares that tasks outside of any [`TaskQueue`] have.
const SHARES_OF_REQUESTS: u64 = 1_000;
/// How far a [`TaskQueue`] may be ahead of its share before it has to rest, so that short work never waits.
const SHARE_AHEAD: Duration = Duration::from_millis(5);
/// The longest rest of a task that is ahead of its share: it may hold what a request waits for.
const SHARE_REST_MAX: Duration = Duration::from_millis(20);

thread_local! {
    /// When the task that is being polled first asked whether it should give way.
    static SLICE_START: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Wakes the task that keeps the thread from sleeping.
    static SPINNER: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// How an executor is placed and how hard it waits.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// The thread's name, as `top -H` shows it.
    pub name: String,
    /// The CPU to pin to, if any.
    pub cpu: Option<usize>,
    /// Whether to spin before sleeping in the kernel.
    pub spin: Spin,
    /// Most threads of the blocking pool; at least two, so that a sync never queues behind a slow read.
    pub blocking_threads: usize,
}

/// A running executor's thread.
pub struct Executor(JoinHandle<()>);

impl Executor {
    /// Waits for the executor's main future to finish.
    ///
    /// # Errors
    /// A sentence if the executor's thread panicked.
    pub fn join(self) -> Result<(), String> {
        self.0.join().map_err(|panic| format!("a shard ended abnormally: {}", panic_message(&*panic)))
    }
}

/// Starts an executor on a thread of its own and runs `main` on it. When `main` is done, tasks that are left are
/// dropped and blocking calls under way are waited for.
///
/// # Errors
/// A sentence with what the kernel refused.
pub fn start<G, F>(options: ExecutorOptions, main: G) -> Result<Executor, String>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let name = options.name.clone();
    let refused = |error: io::Error| format!("cannot start executor {name}: {error}");
    let (started, has_started) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
        let runtime = pin_to(options.cpu).and_then(|unpinned| build(&options, unpinned));
        match runtime {
            Ok(runtime) => {
                let _ = started.send(Ok(()));
                run(&runtime, options.spin, main());
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    });
    let thread = thread.map_err(refused)?;
    match has_started.recv() {
        Ok(Ok(())) => Ok(Executor(thread)),
        Ok(Err(error)) => Err(refused(error)),
        Err(_) => Err(refused(io::Error::other("its thread has panicked"))),
    }
}

/// Runs `future` to its end on an executor of the calling thread. For tests, tools and start-up work.
///
/// # Panics
/// When the kernel refuses what an executor needs (descriptors).
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let options =
        ExecutorOptions { name: "block-on".to_owned(), cpu: None, spin: Spin::Never, blocking_threads: 2 };
    let runtime = build(&options, None).expect("an executor needs an epoll and an eventfd descriptor");
    run(&runtime, options.spin, future)
}

fn run<T>(runtime: &LocalRuntime, spin: Spin, main: impl Future<Output = T>) -> T {
    let main = async move {
        if spin != Spin::Never {
            tokio::task::spawn_local(keep_waker_for_spinning());
        }
        main.await
    };
    runtime.block_on(Sliced { future: main })
}

/// Pins the calling thread; the answer is where it could run before.
fn pin_to(cpu: Option<usize>) -> io::Result<Option<CpuSet>> {
    let Some(cpu) = cpu else { return Ok(None) };
    let before = sched_getaffinity(None)?;
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only)?;
    Ok(Some(before))
}

/// Makes a runtime for the calling thread, whose blocking pool runs on `unpinned`, if that is given.
fn build(options: &ExecutorOptions, unpinned: Option<CpuSet>) -> io::Result<LocalRuntime> {
    let mut builder = Builder::new_current_thread();
    builder
        .enable_io()
        .enable_time()
        .event_interval(TASKS_PER_LOOK)
        .global_queue_interval(TASKS_PER_REMOTE_LOOK)
        .thread_name(format!("{}-io", options.name))
        .max_blocking_threads(options.blocking_threads.max(2))
        .thread_keep_alive(BLOCKING_KEEP_ALIVE);
    if let Some(unpinned) = unpinned {
        // Threads of the pool start from the pinned thread, but must not queue up behind it.
        builder.on_thread_start(move || {
            let _ = sched_setaffinity(None, &unpinned);
        });
    }
    if options.spin != Spin::Never {
        let spin = options.spin;
        builder.on_thread_park(move || spin_instead_of_sleep(spin));
    }
    builder.build_local(LocalOptions::default())
}

/// Called when nothing is ready. Waking a task makes the runtime look at the sockets without sleeping, and call this
/// again if they have nothing.
fn spin_instead_of_sleep(spin: Spin) {
    if spin::looks_again(spin) {
        SPINNER.with_borrow(|spinner| spinner.as_ref().map(Waker::wake_by_ref));
    }
}

/// The task that [`spin_instead_of_sleep`] wakes; it is not [`Sliced`], so it does not count as work.
fn keep_waker_for_spinning() -> impl Future<Output = ()> {
    poll_fn(|cx| {
        SPINNER.set(Some(cx.waker().clone()));
        Poll::Pending
    })
}

pin_project! {
    /// A future whose slice of the core begins anew with each poll.
    struct Sliced<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Sliced<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        SLICE_START.set(None);
        spin::note_poll();
        self.project().future.poll(cx)
    }
}

/// A task that is cancelled when dropped and can be awaited for its result.
pub struct Task<T>(TaskState<T>);

enum TaskState<T> {
    /// It never had to wait.
    Done(Option<std::thread::Result<T>>),
    Running(tokio::task::JoinHandle<T>),
}

// Nothing in a task is ever pinned in place.
impl<T> Unpin for Task<T> {}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            TaskState::Done(result) => match result.take().expect("a task is awaited once") {
                Ok(value) => Poll::Ready(value),
                Err(panic) => resume_unwind(panic),
            },
            TaskState::Running(running) => done(ready!(Pin::new(running).poll(cx))),
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let TaskState::Running(running) = &self.0 {
            running.abort();
        }
    }
}

/// What a task or a blocking call came to. A panic goes on in the one who waits.
fn done<T>(joined: Result<T, tokio::task::JoinError>) -> Poll<T> {
    match joined.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(value) => Poll::Ready(value),
        Err(Ok(panic)) => resume_unwind(panic),
        // Cancelled without its handle being dropped: the executor ends, and the one who waits is dropped next.
        Err(Err(_)) => Poll::Pending,
    }
}

/// Starts a task on this shard; it runs at once until it has to wait. Dropping the handle cancels it.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    let mut future = Box::pin(future);
    // A wake that comes before the task has one of its own is not lost: the task begins by looking again.
    let mut cx = Context::from_waker(Waker::noop());
    Task(match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx))) {
        Ok(Poll::Pending) => TaskState::Running(tokio::task::spawn_local(Sliced { future })),
        Ok(Poll::Ready(value)) => TaskState::Done(Some(Ok(value))),
        Err(panic) => TaskState::Done(Some(Err(panic))),
    })
}

/// Starts a task on this shard that lives until it is done; it runs at once until it has to wait.
pub fn spawn_detached(future: impl Future<Output = ()> + 'static) {
    let mut task = spawn(future);
    task.0 = TaskState::Done(None);
}

/// A queue of tasks that get a limited share of the shard's core (maintenance must not crowd out requests).
///
/// The limit holds whether or not requests want the rest: each poll is timed, and for every microsecond of it the
/// queue's tasks may not run for as many as requests would have had beside them. Up to `SHARE_AHEAD` of that is let
/// pass, then a task rests before its next poll, for at most `SHARE_REST_MAX` at a time. So short work runs at once,
/// and long work that gives way now and then takes no more than its share for long.
#[derive(Clone)]
pub struct TaskQueue(Rc<Share>);

struct Share {
    /// What the queue pays for the time it uses.
    price: f64,
    /// Until when its use is paid by time that has passed or has to pass.
    paid_until: Cell<Instant>,
}

impl TaskQueue {
    /// Makes a queue with `shares` (requests run with 1,000).
    pub fn new(shares: u32) -> Self {
        let shares = f64::from(shares.max(1));
        let price = (SHARES_OF_REQUESTS as f64 + shares) / shares;
        TaskQueue(Rc::new(Share { price, paid_until: Cell::new(clock::monotonic()) }))
    }

    /// Starts a task in this queue, after those that are ready now, that lives until it is done.
    pub fn spawn_detached(&self, future: impl Future<Output = ()> + 'static) {
        let mut future = Box::pin(future);
        let share = self.0.clone();
        let mut rest = None;
        let future = poll_fn(move |cx| {
            if rest.is_none() {
                rest = share.rest(clock::monotonic()).map(|rest| Box::pin(tokio::time::sleep(rest)));
            }
            if let Some(resting) = &mut rest {
                ready!(resting.as_mut().poll(cx));
                rest = None;
            }
            let start = clock::monotonic();
            let polled = future.as_mut().poll(cx);
            share.pay(start, clock::monotonic().saturating_duration_since(start));
            polled
        });
        tokio::task::spawn_local(Sliced { future });
    }
}

impl Share {
    /// How long a task has to rest before it may use more.
    fn rest(&self, now: Instant) -> Option<Duration> {
        let ahead = self.paid_until.get().saturating_duration_since(now);
        (ahead > SHARE_AHEAD).then(|| ahead.min(SHARE_REST_MAX))
    }

    fn pay(&self, start: Instant, used: Duration) {
        self.paid_until.set(self.paid_until.get().max(start) + used.mul_f64(self.price));
    }
}

/// Runs `call` on the blocking pool: file system calls and long computations belong there, not on the shard. A call that
/// has begun runs to its end even if nobody waits for it any more.
///
/// # Panics
/// When `call` does.
pub async fn blocking<R: Send + 'static>(call: impl FnOnce() -> R + Send + 'static) -> R {
    let mut running = tokio::task::spawn_blocking(call);
    poll_fn(|cx| done(ready!(Pin::new(&mut running).poll(cx)))).await
}

/// Gives way if this task has had its share of the core. Cheap: mostly one look at the clock.
pub async fn yield_if_needed() {
    let now = clock::monotonic();
    match SLICE_START.get() {
        Some(start) if now.saturating_duration_since(start) >= SLICE => yield_now().await,
        Some(_) => {}
        None => SLICE_START.set(Some(now)),
    }
}

/// Gives way to the other tasks that are ready and to what sockets and timers have brought.
pub async fn yield_now() {
    tokio::task::yield_now().await;
}

/// Lets the tasks that are ready now go first, without a look at sockets and timers.
pub async fn yield_to_ready() {
    futures_lite::future::yield_now().await;
}

/// Runs `future`; a panic inside it becomes an error with the panic's message.
///
/// # Errors
/// The panic's message.
pub fn catch_panic<T>(future: impl Future<Output = T>) -> impl Future<Output = Result<T, String>> {
    CatchPanic { future }
}

pin_project! {
    /// What [`catch_panic`] returns. No `async fn`: that would keep room for its argument beside the future that it awaits,
    /// and a connection's is kilobytes large.
    struct CatchPanic<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, String>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.project().future.poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic_message(&*panic))),
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    use super::{ExecutorOptions, TaskQueue, block_on, blocking, catch_panic, spawn, spawn_detached, start};
    use crate::base::clock;
    use crate::runtime::spin::Spin;
    use crate::runtime::{sleep, yield_if_needed};

    fn burn(duration: Duration) {
        let start = clock::monotonic();
        while clock::monotonic() - start < duration {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_panic_reaches_whoever_waits_and_nobody_else() {
        block_on(async {
            let awaited = spawn(async { panic!("of a task") });
            spawn_detached(async { panic!("of a detached task") });
            assert_eq!(catch_panic(awaited).await.unwrap_err(), "of a task");
            let called = blocking(|| panic!("of a call"));
            assert_eq!(catch_panic(called).await.unwrap_err(), "of a call");
            assert_eq!(blocking(|| 7).await, 7);
        });
    }

    #[test]
    fn a_panic_of_the_main_future_is_told_at_join() {
        let options = |spin| ExecutorOptions { name: "x".to_owned(), cpu: None, spin, blocking_threads: 2 };
        let ended = start(options(Spin::Never), || async { panic!("of main") }).unwrap().join();
        assert_eq!(ended.unwrap_err(), "a shard ended abnormally: of main");
        let spinning = start(options(Spin::For(Duration::from_millis(2))), || async {
            sleep(Duration::from_millis(10)).await;
        });
        spinning.unwrap().join().unwrap();
    }

    #[test]
    fn a_task_runs_at_once_until_it_has_to_wait() {
        block_on(async {
            let step = Rc::new(Cell::new(0));
            let seen = step.clone();
            let task = spawn(async move {
                seen.set(1);
                sleep(Duration::from_millis(1)).await;
                seen.set(2);
                3
            });
            assert_eq!(step.get(), 1);
            assert_eq!(task.await, 3);
            assert_eq!(step.get(), 2);
            assert_eq!(spawn(async { 4 }).await, 4);
        });
    }

    #[test]
    fn a_dropped_task_is_cancelled() {
        block_on(async {
            let alive = Rc::new(());
            let held = alive.clone();
            let task = spawn(async move {
                sleep(Duration::from_secs(100)).await;
                drop(held);
            });
            sleep(Duration::from_millis(1)).await;
            drop(task);
            sleep(Duration::from_millis(1)).await;
            assert_eq!(Rc::strong_count(&alive), 1);
        });
    }

    #[test]
    fn a_long_task_gives_way_to_timers() {
        block_on(async {
            let is_over = Rc::new(Cell::new(false));
            let seen = is_over.clone();
            let busy = spawn(async move {
                while !seen.get() {
                    burn(Duration::from_micros(50));
                    yield_if_needed().await;
                }
            });
            sleep(Duration::from_millis(5)).await;
            is_over.set(true);
            busy.await;
        });
    }

    #[test]
    fn a_task_queue_takes_no_more_than_its_share() {
        block_on(async {
            let polls = Rc::new(Cell::new(0));
            let counted = polls.clone();
            TaskQueue::new(100).spawn_detached(async move {
                loop {
                    burn(Duration::from_micros(500));
                    counted.set(counted.get() + 1);
                    yield_if_needed().await;
                }
            });
            sleep(Duration::from_millis(200)).await;
            // An eleventh of 200 ms; without a limit it would be nearly all of it. Lower bound: it must not starve.
            assert!((10..100).contains(&polls.get()), "{} polls", polls.get());
        });
    }
}
