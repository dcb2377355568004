//! Requests side by side through a worker, batcher, sampling and channels included: what several streams share, how long they
//! wait for somebody's long prompt, and what a prompt costs that begins like an earlier one.
//!
//! `cargo bench -p downshift-bench --bench streams -- --model FILE [--threads N] [--tokens N] [--prompt N] [--temperature T] [--only TEXT]`

#![allow(clippy::print_stdout, reason = "its output is what a benchmark is for")]

use std::ops::ControlFlow;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use downshift_engine::{InProcess, LoadOptions};
use downshift_worker::{
    Completion, Delta, Device, Failure, Input, Launcher, ModelSpec, Placement, Prompt, Request, RequestId, SamplingParams, Worker,
};

/// A running request: the time of each token, and how it ended.
struct Stream {
    id: RequestId,
    submitted: Instant,
    tokens: Receiver<Instant>,
    times: Vec<Instant>,
    end: thread::JoinHandle<Result<Completion, Failure>>,
}

struct Ended {
    submitted: Instant,
    times: Vec<Instant>,
    at: Instant,
    outcome: Result<Completion, Failure>,
}

struct Bench {
    worker: Arc<dyn Worker>,
    sampling: SamplingParams,
    next_id: AtomicU64,
}

impl Bench {
    fn start(&self, prompt: Vec<u32>, max_tokens: usize) -> Stream {
        let id = RequestId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let request = Request {
            max_tokens: Some(max_tokens as u32),
            sampling: self.sampling.clone(),
            ..Request::new(id, Input::Completion(Prompt::Tokens(prompt)))
        };
        let (sender, tokens): (Sender<Instant>, _) = channel();
        let worker = Arc::clone(&self.worker);
        let submitted = Instant::now();
        let end = thread::spawn(move || {
            worker.generate(&request, &mut |_: Delta| match sender.send(Instant::now()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        });
        Stream { id, submitted, tokens, times: Vec::new(), end }
    }

    fn run(&self, prompt: Vec<u32>, max_tokens: usize) -> Ended {
        self.start(prompt, max_tokens).finish()
    }
}

impl Stream {
    /// Waits for `n` tokens.
    fn wait_for(&mut self, n: usize) {
        while self.times.len() < n
            && let Ok(at) = self.tokens.recv()
        {
            self.times.push(at);
        }
    }

    fn finish(mut self) -> Ended {
        self.wait_for(usize::MAX);
        let outcome = self.end.join().expect("no panic");
        Ended { submitted: self.submitted, times: self.times, at: Instant::now(), outcome }
    }
}

impl Ended {
    fn ttft_ms(&self) -> f64 {
        self.times.first().map_or(f64::NAN, |first| ms(*first - self.submitted))
    }

    /// Times between tokens that came within `from..to`.
    fn gaps_ms(&self, from: Instant, to: Instant) -> Vec<f64> {
        self.times.windows(2).filter(|pair| pair[1] >= from && pair[1] <= to).map(|pair| ms(pair[1] - pair[0])).collect()
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Smallest entry that a share `q` of all do not exceed.
fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(((values.len() as f64 * q).ceil() as usize).saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Token ids that no other `seed` begins alike.
fn prompt(seed: u64, n: usize) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32 % 1000 + 100
    };
    (0..n).map(|_| next()).collect()
}

fn option<T: FromStr>(name: &str, default: T) -> T {
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    args.next().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file: String = option("--model", String::new());
    if file.is_empty() {
        println!("streams: no --model FILE, nothing to measure");
        return Ok(());
    }
    let threads = option("--threads", LoadOptions::default().threads);
    let (n_tokens, n_prompt) = (option("--tokens", 64), option("--prompt", 4096));
    let spec = ModelSpec { parallel: 16, ..ModelSpec::from_path(&file) };
    let context = (n_prompt + 2048 + 16 * (n_tokens + 128)) as u32;
    let worker = InProcess.launch(&spec, &Placement { device: Device::Cpu, context, threads }, &|_, _| {})?;
    let sampling = SamplingParams { temperature: Some(option("--temperature", 0.8)), seed: Some(1), ..SamplingParams::default() };
    let bench = Bench { worker, sampling, next_id: AtomicU64::new(1) };
    bench.run(prompt(1, 100), 4).outcome?;
    let only: String = option("--only", String::new());
    let parts: [(&str, Part<'_>); 4] = [
        ("together", &|bench| together(bench, n_tokens)),
        ("waiting", &|bench| waiting(bench, n_prompt)),
        ("cancelling", &|bench| cancelling(bench, n_prompt)),
        ("beginning alike", &|bench| beginning_alike(bench, n_prompt / 2)),
    ];
    for (_, part) in parts.iter().filter(|(name, _)| name.starts_with(&only)) {
        part(&bench);
    }
    Ok(())
}

/// A part of the bench, by the name it is asked for with.
type Part<'a> = &'a dyn Fn(&Bench);

/// Tokens a second of 1, 2, 4 and 8 streams, from the last one's first token to the first one's last.
fn together(bench: &Bench, n_tokens: usize) {
    println!("| streams | t/s | of one | ms between tokens, median |\n| ---: | ---: | ---: | ---: |");
    let mut one = None;
    for n in [1, 2, 4, 8] {
        let streams: Vec<_> = (0..n).map(|idx| bench.start(prompt(100 * n + idx, 32), n_tokens + n as usize)).collect();
        let ended: Vec<_> = streams.into_iter().map(Stream::finish).collect();
        let from = ended.iter().filter_map(|ended| ended.times.first()).max().copied().unwrap_or_else(Instant::now);
        let to = ended.iter().filter_map(|ended| ended.times.last()).min().copied().unwrap_or_else(Instant::now);
        let gaps: Vec<f64> = ended.iter().flat_map(|ended| ended.gaps_ms(from, to)).collect();
        let n_between: usize = ended.iter().map(|ended| ended.times.iter().filter(|at| **at > from && **at <= to).count()).sum();
        let rate = n_between as f64 / (to - from).as_secs_f64();
        println!("| {n} | {rate:.1} | {:.2} | {:.1} |", rate / *one.get_or_insert(rate), quantile(gaps, 0.5));
    }
}

/// What two streams and a short prompt feel of a long one.
fn waiting(bench: &Bench, n_prompt: usize) {
    let alone = bench.run(prompt(3, n_prompt), 2).ttft_ms();
    let mut streams: Vec<_> = (0..2).map(|idx| bench.start(prompt(10 + idx, 32), 1000)).collect();
    streams.iter_mut().for_each(|stream| stream.wait_for(8));
    let start = Instant::now();
    let long = bench.start(prompt(4, n_prompt), 2);
    streams[0].wait_for(12);
    let short = bench.run(prompt(5, 20), 2);
    let long = long.finish();
    let until = long.times.first().copied().unwrap_or(start);
    let ids: Vec<_> = streams.iter().map(|stream| stream.id).collect();
    ids.into_iter().for_each(|id| bench.worker.cancel(id));
    let ended: Vec<_> = streams.into_iter().map(Stream::finish).collect();
    let during: Vec<f64> = ended.iter().flat_map(|ended| ended.gaps_ms(start, until)).collect();
    println!(
        "\na prompt of {n_prompt} takes {alone:.0} ms alone, {:.0} ms beside two streams; they wait {:.0} ms between tokens \
         (median; longest {:.0}); a prompt of 20 that comes meanwhile takes {:.0} ms",
        long.ttft_ms(),
        quantile(during.clone(), 0.5),
        quantile(during, 1.0),
        short.ttft_ms(),
    );
}

/// How soon another one may go on when a long prompt is cancelled.
fn cancelling(bench: &Bench, n_prompt: usize) {
    let mut waits = Vec::new();
    for round in 0..5 {
        let long = bench.start(prompt(20 + round, n_prompt), 2);
        let mut steps = bench.worker.stats().steps;
        let first = steps;
        while steps == first {
            thread::yield_now();
            steps = bench.worker.stats().steps;
        }
        let start = Instant::now();
        bench.worker.cancel(long.id);
        waits.push(ms(long.finish().at - start));
    }
    println!(
        "\na cancelled prompt of {n_prompt} stops after {:.0} ms (median; longest {:.0})",
        quantile(waits.clone(), 0.5),
        quantile(waits, 1.0)
    );
}

/// The first token of prompts that share all but their ends.
fn beginning_alike(bench: &Bench, n_prompt: usize) {
    let with_end = |seed| [prompt(30, n_prompt), prompt(seed, 20)].concat();
    let first = bench.run(with_end(31), 2);
    let second = bench.run(with_end(32), 2);
    let cached = |ended: &Ended| ended.outcome.as_ref().map_or(0, |completion| completion.timings.cache_n);
    println!(
        "\na prompt of {} takes {:.0} ms; another end of 20 after the same beginning {:.0} ms ({} tokens from the cache)",
        n_prompt + 20,
        first.ttft_ms(),
        second.ttft_ms(),
        cached(&second),
    );
    let start = Instant::now();
    let four: Vec<_> = (40..44).map(|seed| bench.start([prompt(39, n_prompt), prompt(seed, 20)].concat(), 2)).collect();
    let four: Vec<_> = four.into_iter().map(Stream::finish).collect();
    let n_cached: u32 = four.iter().map(cached).sum();
    println!("four of them at once {:.0} ms ({n_cached} tokens from the cache)", ms(start.elapsed()));
}
