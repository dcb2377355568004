//! Products of every format and instruction set, for 1 to 512 activation rows: GB/s of weights and GOPS, and their share of
//! what the machine can read and multiply, measured in the same run.
//!
//! `cargo bench --bench kernels -- [--threads N] [--isa NAME] [--dtype NAME,..] [--rows N,..] [--cols N] [--window-kib N] [--mib N]`
//!
//! A run of few rows multiplies a window of the weights, another one each time, so that `--mib` well above the caches measures
//! memory, and two small windows (`--window-kib 256 --mib 1`) the kernel alone.

#![allow(clippy::print_stdout, reason = "its output is what a benchmark is for")]

use downshift_kernels::{Activations, Cpu, DType, Isa, LinearJob, Matrix};
use std::time::{Duration, Instant};

struct Options {
    threads: usize,
    isas: Vec<Isa>,
    dtypes: Vec<DType>,
    rows: Vec<usize>,
    cols: usize,
    window: usize,
    bytes: usize,
}

fn main() {
    let options = options();
    // Whatever two bytes a kernel takes for an f16 scale, it is a sane number: 0.008 to 1.8.
    let weights: Vec<u8> = (0..options.bytes).map(|i| 0x20 + (i * 7 + i / 251) as u8 % 0x20).collect();
    println!("threads {}, weights of {} MiB, k {}; the best of many short runs", options.threads, options.bytes >> 20, options.cols);
    println!("| isa | format | rows | GB/s | of reading | GOPS | of int8 |");
    println!("|---|---|---|---|---|---|---|");
    for isa in &options.isas {
        let cpu = Cpu::new(*isa, options.threads);
        for dtype in &options.dtypes {
            for m in &options.rows {
                measure(&cpu, *dtype, *m, &weights, &options);
            }
        }
    }
}

fn measure(cpu: &Cpu, dtype: DType, m: usize, weights: &[u8], options: &Options) {
    let k = options.cols;
    let Some(row_bytes) = dtype.row_bytes(k) else { return };
    // Runs of a few milliseconds, so that some of them are not interrupted; few rows walk through all of the weights, since
    // then memory decides.
    let n = if m > 16 { 1024 } else { options.window / row_bytes };
    let mut acts = Activations::new(m, k);
    for (i, x) in acts.f32_mut(m, k).iter_mut().enumerate() {
        *x = (i % 17) as f32 - 8.0;
    }
    let mut out = vec![0f32; m * n];
    let (mut products, mut reads, mut multiplies) = (f64::MAX, 0f64, 0f64);
    let start = Instant::now();
    let mut windows = weights.chunks_exact(n * row_bytes).cycle();
    for run in 0.. {
        if run >= 8 && start.elapsed() > Duration::from_millis(600) {
            break;
        }
        let (Some(window), Some(other)) = (windows.next(), windows.next()) else { return };
        let Ok(weight) = Matrix::new(dtype, n, k, window) else { return };
        let begin = Instant::now();
        acts.f32_mut(m, k);
        cpu.quantize(&mut acts, m, k, [dtype].into_iter());
        let job = LinearJob { weight, bias: None, out: &mut out, out_stride: n, accumulate: false };
        cpu.linear(&acts, m, &mut [job]);
        products = products.min(begin.elapsed().as_secs_f64());
        reads = reads.max(cpu.read_ceiling(other));
        multiplies = multiplies.max(cpu.int8_ceiling());
    }
    let (read, ops) = ((n * row_bytes) as f64 / products, (2 * m * n * k) as f64 / products);
    println!(
        "| {} | {} | {m} | {:.1} | {:.0}% | {:.0} | {:.0}% |",
        cpu.isa().name(),
        dtype.name(),
        read / 1e9,
        100.0 * read / reads,
        ops / 1e9,
        100.0 * ops / multiplies
    );
}

fn options() -> Options {
    let mut options = Options {
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        isas: Isa::available().to_vec(),
        dtypes: DType::ALL.to_vec(),
        rows: vec![1, 4, 8, 32, 512],
        // Of Llama-3.2-1B's projections.
        cols: 2048,
        window: 16 << 20,
        bytes: 256 << 20,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = match arg.as_str() {
            "--bench" => continue,
            _ => args.next().unwrap_or_default(),
        };
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{arg}: not a number: {text:?}"));
        match arg.as_str() {
            "--threads" => options.threads = number(&value),
            "--cols" => options.cols = number(&value),
            "--window-kib" => options.window = number(&value) << 10,
            "--mib" => options.bytes = number(&value) << 20,
            "--rows" => options.rows = value.split(',').map(number).collect(),
            "--isa" => options.isas.retain(|isa| isa.name() == value),
            "--dtype" => options.dtypes.retain(|dtype| value.split(',').any(|name| name == dtype.name())),
            _ => panic!("unknown option {arg}"),
        }
    }
    options
}
