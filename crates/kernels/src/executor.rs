//! Runs one closure on every worker. Stands in for the thread pool, with its shape.

/// A fixed number of workers, started for each call.
pub(crate) struct Executor {
    threads: usize,
}

impl Executor {
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            threads: threads.max(1),
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `f(worker, n_workers)` once for every worker and returns when all calls have.
    pub(crate) fn run(&self, f: &(dyn Fn(usize, usize) + Sync)) {
        std::thread::scope(|scope| {
            for worker in 1..self.threads {
                scope.spawn(move || f(worker, self.threads));
            }
            f(0, self.threads);
        });
    }
}
