//! Prefill, decode, and decode at depth of whole layers: sessions on layers of the shape of Qwen3-0.6B, without its vocabulary.
//!
//! `cargo bench -p downshift-bench --bench session -- [--threads N] [--layers N] [-r N]`
//!
//! Speed on a real file is `downshift bench`; this one needs none, and shows layers without the head.

#![allow(clippy::print_stdout, reason = "its output is what a benchmark is for")]

use downshift_bench::{Format, Host, Plan, Report, measure};
use downshift_engine::testing::{Stored, TinyModel};
use downshift_engine::{LoadOptions, Model};
use downshift_worker::KvType;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let option = |name: &str, default: usize| {
        let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
        args.next().and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let plan = Plan { n_prompt: vec![512], n_gen: vec![64], n_depth: vec![0, 4096], n_parallel: vec![1, 4], repetitions: option("-r", 5) };
    let threads = option("--threads", LoadOptions::default().threads);
    let folder = tempfile::tempdir()?;
    for (idx, stored) in [Stored::Q4K, Stored::Q6K, Stored::Q8_0, Stored::F16].into_iter().enumerate() {
        let path = folder.path().join("layers.gguf");
        std::fs::write(&path, layers(stored, option("--layers", 4)).writer().finish())?;
        let model = Model::open(&path)?;
        let options = LoadOptions { context: plan.context() as u32, threads, ..LoadOptions::default() };
        let mut session = model.load(&options, &|_, _| {})?;
        let info = model.info(KvType::F16)?;
        let report = Report {
            engine: "downshift",
            model_filename: path.display().to_string(),
            model_type: format!("{} {}", info.architecture, info.dtype),
            model_size: info.footprint.weights_bytes,
            model_n_params: info.parameters,
            device: options.device.to_string(),
            host: Host::detect(threads),
        };
        if idx == 0 {
            print!("{}", report.head(Format::Markdown));
        }
        for test in plan.tests() {
            print!("{}", report.row(Format::Markdown, idx, &measure(&mut session, test, plan.repetitions, &mut |_| {})?, None));
        }
    }
    Ok(())
}

/// `n_layers` layers of Qwen3-0.6B.
fn layers(stored: Stored, n_layers: usize) -> TinyModel {
    TinyModel {
        added_tokens: Vec::new(),
        architecture: "qwen3",
        seed: 1,
        stored,
        hidden_size: 1024,
        n_layers: n_layers as u32,
        num_heads: 16,
        num_kv_heads: 8,
        head_dim: 128,
        ffn_size: 3072,
        context_len: 40960,
    }
}
