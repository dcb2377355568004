//! The one thread pool of the kernels: fork-join in well under a microsecond while hot, parked when idle.
//! Owns threads, waiting and giving way to other processes. Does not own how work is split: a job gets
//! (worker, number of workers) and divides by that, or draws from [`Chunks`] or [`Shares`].
//!
//! A job is `n` shares. Each share has an owner thread, but a share nobody has started when the caller is done
//! with its own is run by the caller, so a parked or descheduled worker delays nothing it has not begun.

#![allow(unsafe_code)]

mod share;

pub use share::{Chunks, Shares, share};

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// A value on cache lines of its own; 128 bytes because adjacent lines are fetched in pairs.
#[repr(align(128))]
struct Line<T>(T);

/// Low bits of a ticket: the number of shares; the rest counts jobs. 0 shares tells the workers to leave.
const WIDTH_BITS: u32 = 16;
const WIDTH_MASK: u64 = (1 << WIDTH_BITS) - 1;

/// How long an idle worker spins for the next job: longer than the serial work between two layers,
/// far shorter than a person notices on a laptop's battery.
const IDLE_SPIN: Duration = Duration::from_micros(60);
/// Spins between two looks at the clock.
const SPINS_PER_LOOK: u32 = 32;
/// Rounds the caller spins at the join before it offers its core to whoever holds the late worker's.
const JOIN_SPINS: u32 = 2000;
/// A join that waits longer than this waits for a thread that is not running, or for a very uneven job.
const LATE: Duration = Duration::from_micros(200);
/// Work between two decisions about the number of workers.
const PACE_WINDOW: Duration = Duration::from_millis(20);
/// Time with fewer workers before one more is tried again.
const PACE_HOLD: Duration = Duration::from_millis(200);

type Job = *const (dyn Fn(usize, usize) + Sync);

/// What one worker and the caller tell each other.
struct Slot {
    /// Ticket of the last job whose share was taken, by the worker or by the caller.
    claimed: AtomicU64,
    /// Ticket of the last job whose share is finished.
    done: AtomicU64,
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

struct Shared {
    ticket: Line<AtomicU64>,
    /// Written by the caller between jobs only; read by whoever claimed a share of the current job.
    job: Line<UnsafeCell<Option<Job>>>,
    /// `slots[i]` is worker `i + 1`; the caller is worker 0.
    slots: Box<[Line<Slot>]>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is the only field that is not Sync by itself. It is written only by the holder of `Pool::caller`
// while no share is claimed and unfinished, before the Release store of `ticket`; it is read only between a
// successful claim and the `done` store of that share, which the writer awaits before it returns. The pointee is
// `Sync`, so calling it from several threads is allowed.
unsafe impl Sync for Shared {}
// SAFETY: as above; the raw pointer in `job` is followed only while the caller's frame that owns the closure waits.
unsafe impl Send for Shared {}

thread_local! {
    /// Set on workers, and on a caller while its job runs: a job started from inside a job runs inline.
    static IN_JOB: Cell<bool> = const { Cell::new(false) };
}

/// A caller's job, alone or shared, until this is dropped.
struct InJob;

impl InJob {
    fn begin() -> Self {
        IN_JOB.set(true);
        Self
    }
}

impl Drop for InJob {
    fn drop(&mut self) {
        IN_JOB.set(false);
    }
}

/// A fixed set of threads that run one job at a time.
pub struct Pool {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    active: AtomicUsize,
    caller: Mutex<Pace>,
}

impl Pool {
    /// A pool of `threads` workers, the calling thread being one of them; 0 means 1. If the system refuses
    /// threads, the pool is smaller.
    pub fn new(threads: usize) -> Self {
        let n_slots = threads.clamp(1, WIDTH_MASK as usize) - 1;
        let slots = (0..n_slots).map(|_| {
            Line(Slot { claimed: AtomicU64::new(0), done: AtomicU64::new(0), asleep: AtomicBool::new(false), thread: OnceLock::new() })
        });
        let shared = Arc::new(Shared {
            ticket: Line(AtomicU64::new(1)),
            job: Line(UnsafeCell::new(None)),
            slots: slots.collect(),
            panic: Mutex::new(None),
        });
        let mut handles = Vec::with_capacity(n_slots);
        for worker in 1..=n_slots {
            let theirs = Arc::clone(&shared);
            let spawned = thread::Builder::new().name(format!("kernels-{worker}")).spawn(move || theirs.work(worker));
            let Ok(handle) = spawned else { break };
            // The slot is empty: this is the only place that fills it.
            let _ = shared.slots[worker - 1].0.thread.set(handle.thread().clone());
            handles.push(handle);
        }
        let active = AtomicUsize::new(handles.len() + 1);
        Self { shared, handles, active, caller: Mutex::new(Pace::default()) }
    }

    /// Workers a job may get, the caller included.
    pub fn threads(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Uses `threads` workers from the next job on, at least 1 and at most as many as the pool was made with.
    /// The others stay parked.
    pub fn set_threads(&self, threads: usize) {
        self.active.store(threads.clamp(1, self.handles.len() + 1), Ordering::Relaxed);
    }

    /// Calls `f(worker, n_workers)` once for each `worker` in `0..n_workers` and returns when all calls are done.
    /// `n_workers` is at most [`threads`](Self::threads), less while other processes hold the cores; it is 1 inside
    /// another job and when another thread is using the pool.
    ///
    /// Pass a `move` closure of small values and references to heap data: it is placed on cache lines of its own, so
    /// that workers do not read lines the caller's stack is writing. A panic in any share reaches the caller after
    /// all shares are over.
    pub fn run<F: Fn(usize, usize) + Sync>(&self, f: F) {
        if IN_JOB.get() {
            return f(0, 1);
        }
        let _in_job = InJob::begin();
        if self.threads() == 1 {
            return f(0, 1);
        }
        let mut pace = match self.caller.try_lock() {
            Ok(pace) => pace,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return f(0, 1),
        };
        let start = Instant::now();
        let n = pace.width(self.threads(), start);
        if n == 1 {
            return f(0, 1);
        }
        let f = Line(f);
        let job: *const (dyn Fn(usize, usize) + Sync + '_) = &raw const f.0;
        // SAFETY: only the lifetime changes. `fork_join` returns after the last use of the pointer, and `f` outlives it.
        let job = unsafe { std::mem::transmute::<*const (dyn Fn(usize, usize) + Sync + '_), Job>(job) };
        let waited = self.shared.fork_join(job, n);
        pace.record(self.threads(), n, start, waited);
        drop(pace);
        let payload = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }
}

impl Pool {
    /// Calls `f(idx, chunk)` once for each chunk of `chunk_len` elements of `data`, the last one shorter; each worker takes a
    /// contiguous share of them. Panics if `chunk_len` is 0.
    pub fn run_chunks<T: Send>(&self, data: &mut [T], chunk_len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        assert!(chunk_len > 0, "chunks of no length");
        let n_chunks = data.len().div_ceil(chunk_len);
        let whole = Whole { start: data.as_mut_ptr(), len: data.len() };
        let (whole, f) = (&whole, &f);
        self.run(move |worker, n_workers| {
            for idx in share(n_chunks, 1, worker, n_workers) {
                let at = idx * chunk_len;
                // SAFETY: the chunk lies within `data`, which is borrowed until `run` returns; shares of different workers
                // do not overlap and neither do chunks, so nobody else has this one. `T: Send` lets it visit this thread.
                let chunk = unsafe { std::slice::from_raw_parts_mut(whole.start.add(at), chunk_len.min(whole.len - at)) };
                f(idx, chunk);
            }
        });
    }
}

/// A slice that several workers cut chunks of.
struct Whole<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: shared only within `run_chunks`, which hands out disjoint chunks of elements that may be sent to other threads.
unsafe impl<T: Send> Sync for Whole<T> {}

impl Drop for Pool {
    fn drop(&mut self) {
        let ticket = &self.shared.ticket.0;
        let last = ticket.load(Ordering::Relaxed);
        ticket.store(((last >> WIDTH_BITS) + 1) << WIDTH_BITS, Ordering::SeqCst);
        for handle in self.handles.drain(..) {
            handle.thread().unpark();
            // A worker catches the panics of its shares, so there is no payload to look at.
            let _ = handle.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Publishes `job` as `n` shares, works on it and waits for the rest. Returns the time spent waiting, zero if short.
    fn fork_join(&self, job: Job, n: usize) -> Duration {
        // SAFETY: the caller holds `Pool::caller` and every share of the previous job is done, so nobody reads this.
        unsafe { *self.job.0.get() = Some(job) };
        let last = self.ticket.0.load(Ordering::Relaxed);
        let ticket = ((last >> WIDTH_BITS) + 1) << WIDTH_BITS | n as u64;
        // SeqCst pairs with `next_ticket`: either the worker sees the ticket before it parks or we see it asleep.
        self.ticket.0.store(ticket, Ordering::SeqCst);
        let slots = &self.slots[..n - 1];
        for slot in slots {
            if slot.0.asleep.load(Ordering::SeqCst)
                && let Some(thread) = slot.0.thread.get()
            {
                slot.0.asleep.store(false, Ordering::Relaxed);
                thread.unpark();
            }
        }
        self.run_share(job, 0, n);
        for (i, slot) in slots.iter().enumerate() {
            if slot.0.claim(ticket) {
                self.run_share(job, i + 1, n);
                slot.0.done.store(ticket, Ordering::Release);
            }
        }
        let mut spins = 0;
        let mut late = None;
        for slot in slots {
            while slot.0.done.load(Ordering::Acquire) != ticket {
                if spins < JOIN_SPINS {
                    spins += 1;
                    std::hint::spin_loop();
                } else {
                    late.get_or_insert_with(Instant::now);
                    thread::yield_now();
                }
            }
        }
        late.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn run_share(&self, job: Job, worker: usize, n: usize) {
        // SAFETY: the share was claimed (or is the caller's own), so `fork_join` has not returned and the closure lives.
        let f = unsafe { &*job };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| f(worker, n))) {
            let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(payload);
        }
    }

    fn work(&self, worker: usize) {
        IN_JOB.set(true);
        let slot = &self.slots[worker - 1].0;
        let mut seen = 0;
        loop {
            seen = self.next_ticket(slot, worker, seen);
            let n = (seen & WIDTH_MASK) as usize;
            if n == 0 {
                return;
            }
            if slot.claim(seen) {
                // SAFETY: the claim succeeded, so this job is not over and the caller does not write `job`; its
                // write happened before the ticket that `next_ticket` loaded with Acquire or stronger.
                if let Some(job) = unsafe { *self.job.0.get() } {
                    self.run_share(job, worker, n);
                }
                slot.done.store(seen, Ordering::Release);
            }
        }
    }

    /// Waits for a ticket that concerns this worker: a new job of more than `worker` shares, or the end.
    /// Tickets of narrower jobs do not keep it awake.
    fn next_ticket(&self, slot: &Slot, worker: usize, seen: u64) -> u64 {
        let concerns = |ticket: u64| {
            let n = ticket & WIDTH_MASK;
            ticket != seen && (n == 0 || worker < n as usize)
        };
        let start = Instant::now();
        while start.elapsed() < IDLE_SPIN {
            for _ in 0..SPINS_PER_LOOK {
                let ticket = self.ticket.0.load(Ordering::Acquire);
                if concerns(ticket) {
                    return ticket;
                }
                std::hint::spin_loop();
            }
        }
        loop {
            slot.asleep.store(true, Ordering::SeqCst);
            let ticket = self.ticket.0.load(Ordering::SeqCst);
            if concerns(ticket) {
                slot.asleep.store(false, Ordering::Relaxed);
                return ticket;
            }
            thread::park();
        }
    }
}

impl Slot {
    /// Takes the share of job `ticket`; at most one thread succeeds. Tickets only grow, so a worker that was held up
    /// with an old ticket fails: a job is not over before its shares are claimed with its ticket or a later one.
    fn claim(&self, ticket: u64) -> bool {
        let last = self.claimed.load(Ordering::Relaxed);
        last < ticket && self.claimed.compare_exchange(last, ticket, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// Decides how many workers a job gets. A barrier among threads that do not all have a core runs slower than one
/// thread, so a pool that mostly waits sheds one worker, and tries one more again after a while.
#[derive(Default)]
struct Pace {
    /// Workers left out at present.
    shed: usize,
    busy: Duration,
    waited: Duration,
    /// When one more worker may be tried.
    retry_at: Option<Instant>,
}

impl Pace {
    fn width(&mut self, threads: usize, now: Instant) -> usize {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.shed = self.shed.saturating_sub(1);
            self.retry_at = (self.shed > 0).then(|| now + PACE_HOLD);
            (self.busy, self.waited) = (Duration::ZERO, Duration::ZERO);
        }
        threads.saturating_sub(self.shed).max(1)
    }

    fn record(&mut self, threads: usize, n: usize, start: Instant, waited: Duration) {
        let now = Instant::now();
        self.busy += now - start;
        if waited > LATE {
            self.waited += waited;
        }
        if self.busy < PACE_WINDOW {
            return;
        }
        if self.waited * 2 > self.busy {
            self.shed = (threads - n + 1).min(threads - 1);
            self.retry_at = Some(now + PACE_HOLD);
        }
        (self.busy, self.waited) = (Duration::ZERO, Duration::ZERO);
    }
}

/// Threads to use by default: what affinity and the cgroup's quota allow.
pub fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_visited_once_by_whoever_has_it() {
        for (len, chunk_len) in [(0, 3), (1, 3), (9, 3), (10, 3), (1000, 7)] {
            let mut data: Vec<usize> = vec![0; len];
            Pool::new(3).run_chunks(&mut data, chunk_len, |idx, chunk| chunk.iter_mut().for_each(|x| *x += idx + 1));
            assert!(data.iter().enumerate().all(|(at, &x)| x == at / chunk_len + 1), "{len} in chunks of {chunk_len}: {data:?}");
        }
    }

    #[test]
    fn every_share_runs_exactly_once_per_job() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads);
            let counts: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            let widths = AtomicUsize::new(0);
            for _ in 0..2000 {
                pool.run(|worker, n| {
                    assert!(worker < n && n <= threads);
                    counts[worker].fetch_add(1, Ordering::Relaxed);
                    if worker == 0 {
                        widths.fetch_add(n, Ordering::Relaxed);
                    }
                });
            }
            let total: usize = counts.iter().map(|c| c.load(Ordering::Relaxed)).sum();
            assert_eq!(counts[0].load(Ordering::Relaxed), 2000);
            assert_eq!(total, widths.load(Ordering::Relaxed));
        }
    }

    #[test]
    fn a_job_sees_what_the_caller_wrote_and_the_caller_sees_what_the_job_wrote() {
        let pool = Pool::new(3);
        let cells: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
        for round in 1..500 {
            let input = vec![round; 3];
            let (input, cells) = (&input, &cells);
            pool.run(move |worker, n| {
                for i in share(3, 1, worker, n) {
                    cells[i].store(input[i] * 7, Ordering::Relaxed);
                }
            });
            assert!(cells.iter().all(|c| c.load(Ordering::Relaxed) == round * 7));
        }
    }

    #[test]
    fn a_panic_in_any_share_reaches_the_caller_and_the_pool_works_on() {
        let pool = Pool::new(3);
        for bad in 0..3 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(|worker, n| assert!(worker != bad % n, "share {bad} failed"));
            }));
            let payload = caught.expect_err("the panic is passed on");
            assert_eq!(payload.downcast_ref::<String>(), Some(&format!("share {bad} failed")));
            let sum = AtomicUsize::new(0);
            pool.run(|_, n| {
                sum.fetch_add(60 / n, Ordering::Relaxed);
            });
            assert_eq!(sum.load(Ordering::Relaxed), 60);
        }
    }

    #[test]
    fn nested_and_concurrent_jobs_finish() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(|_, n| {
                            pool.run(|_, inner| {
                                assert_eq!(inner, 1);
                                sum.fetch_add(2 / n, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(sum.load(Ordering::Relaxed), 3 * 200 * 2);
    }

    #[test]
    fn set_threads_limits_the_width_of_jobs() {
        let pool = Pool::new(4);
        let widest = AtomicUsize::new(0);
        for (set, limit) in [(2, 2), (0, 1), (9, 4), (3, 3)] {
            pool.set_threads(set);
            assert_eq!(pool.threads(), limit);
            widest.store(0, Ordering::Relaxed);
            for _ in 0..100 {
                pool.run(|_, n| {
                    widest.fetch_max(n, Ordering::Relaxed);
                });
            }
            assert!((1..=limit).contains(&widest.load(Ordering::Relaxed)));
        }
    }

    #[test]
    fn a_pool_that_waits_most_of_the_time_sheds_a_worker_and_takes_it_back() {
        let mut pace = Pace::default();
        let start = Instant::now();
        assert_eq!(pace.width(4, start), 4);
        let past = start.checked_sub(PACE_WINDOW * 2).expect("the clock has run for a while");
        pace.record(4, 4, past, PACE_WINDOW * 2);
        assert_eq!(pace.width(4, start), 3);
        pace.record(4, 3, past, Duration::ZERO);
        assert_eq!(pace.width(4, start), 3);
        assert_eq!(pace.width(4, Instant::now() + PACE_HOLD), 4);
    }
}
