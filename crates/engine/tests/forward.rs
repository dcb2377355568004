//! The forward pass: equal to llama.cpp, however the tokens are fed, and on either arm.

use std::path::PathBuf;

use downshift_engine::testing::{Stored, TinyModel};
use downshift_engine::{Feed, LoadOptions, Model, Sequence, Session};
use downshift_worker::{Device, KvType};

const ARCHITECTURES: [&str; 3] = ["llama", "qwen2", "qwen3"];

struct Tiny {
    // Keeps the file as long as the model.
    _folder: tempfile::TempDir,
    path: PathBuf,
    model: Model,
}

fn tiny(architecture: &'static str, stored: Stored) -> Tiny {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, TinyModel::of(architecture, 7, stored).writer().finish()).expect("a file in it");
    let model = Model::open(&path).expect("a tiny model is valid");
    Tiny { _folder: folder, path, model }
}

fn session(model: &Model, options: LoadOptions) -> Session {
    model.load(&options, &|_, _| {}).expect("a tiny model loads")
}

fn cpu(model: &Model) -> Session {
    session(model, LoadOptions { context: 512, threads: 2, ..LoadOptions::default() })
}

/// Tokens that look random, all within the vocabulary of tiny models.
fn tokens(n: usize) -> Vec<u32> {
    (0..n as u64).map(|i| ((i * 2_654_435_761 + 12_345) >> 7) as u32 % 250).collect()
}

/// Logits of every position, fed `chunk` tokens at a time.
fn logits(session: &mut Session, token_ids: &[u32], chunk: usize) -> Vec<Vec<f32>> {
    let mut sequence = Sequence::default();
    let mut all = Vec::new();
    for part in token_ids.chunks(chunk) {
        let mut feeds = [Feed { sequence: &mut sequence, token_ids: part, logits_from: 0 }];
        session.step(&mut feeds, &mut |_, row| all.push(row.to_vec())).expect("a step");
    }
    session.release(&mut sequence);
    all
}

/// Bounds allow for keys and values that round to the neighbouring f16, and for activations that round to another 8-bit step.
/// Largest difference, relative to the spread of the expected logits.
fn distance(got: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let spread = expected.iter().flatten().fold(0f32, |max, x| max.max(x.abs()));
    got.iter().flatten().zip(expected.iter().flatten()).map(|(a, b)| (a - b).abs() / spread).fold(0.0, f32::max)
}

/// From llama.cpp (October 2026), F32 weights and F32 cache: logits 0..6 of the last of 40 positions, and logits
/// 100..104 of position 7.
const EXPECTED: [(&str, [f32; 6], [f32; 4]); 3] = [
    ("llama", [0.85959, 0.07294, -0.82944, 0.59117, -1.32211, -1.83094], [-1.47721, -0.63584, -0.89484, -2.0264]),
    ("qwen2", [-0.48075, -0.20006, 0.42211, 1.25623, 0.80665, 0.30905], [0.4006, 0.92806, 0.96254, 1.52439]),
    ("qwen3", [-0.69151, -0.18668, -0.50716, 0.0484, 0.17238, 0.25146], [-0.00913, 0.49992, -0.50866, 0.50646]),
];

#[test]
fn logits_are_those_of_llama_cpp() {
    for (architecture, last, seventh) in EXPECTED {
        let tiny = tiny(architecture, Stored::F32);
        let all = logits(&mut cpu(&tiny.model), &tokens(40), 512);
        for (got, expected) in [(&all[39][..6], &last[..]), (&all[7][100..104], &seventh[..])] {
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() <= 6e-3, "{architecture}: {got} instead of {expected}");
            }
        }
    }
}

#[test]
fn uneven_chunks_and_single_tokens_give_the_logits_of_one_prefill() {
    for architecture in ARCHITECTURES {
        for (stored, bound) in [(Stored::F32, 1e-3), (Stored::Q8_0, 6e-2)] {
            let tiny = tiny(architecture, stored);
            let mut session = cpu(&tiny.model);
            let ids = tokens(150);
            let whole = logits(&mut session, &ids, 512);
            for chunk in [1, 7, 63, 64, 65] {
                let distance = distance(&logits(&mut session, &ids, chunk), &whole);
                assert!(distance <= bound, "{architecture} {stored:?} in chunks of {chunk}: {distance}");
            }
        }
    }
}

#[test]
fn sequences_interleaved_in_one_batch_do_not_see_each_other() {
    let tiny = tiny("qwen3", Stored::F32);
    let mut session = cpu(&tiny.model);
    let (a, b) = (tokens(130), tokens(170)[40..].to_vec());
    let alone = [logits(&mut session, &a, 512), logits(&mut session, &b, 512)];
    let (mut first, mut second) = (Sequence::default(), Sequence::default());
    let mut together = [Vec::new(), Vec::new()];
    for (start, end) in [(0, 5), (5, 6), (6, 90), (90, 91), (91, 130)] {
        let n = end - start;
        let mut feeds = [
            Feed { sequence: &mut first, token_ids: &a[start..end], logits_from: 0 },
            Feed { sequence: &mut second, token_ids: &b[start..end], logits_from: 0 },
        ];
        session.step(&mut feeds, &mut |idx, row| together[idx / n].push(row.to_vec())).expect("a step");
    }
    for (together, alone) in together.iter().zip(&alone) {
        let distance = distance(together, alone);
        assert!(distance <= 1e-3, "{distance}");
    }
}

/// How many of the tokens the session still held, and the logits of the others.
fn logits_after_reuse(session: &mut Session, token_ids: &[u32]) -> (usize, Vec<Vec<f32>>) {
    let mut sequence = Sequence::default();
    let n_reused = session.reuse(&mut sequence, token_ids).expect("no device error");
    let mut all = Vec::new();
    let mut feeds = [Feed { sequence: &mut sequence, token_ids: &token_ids[n_reused..], logits_from: 0 }];
    session.step(&mut feeds, &mut |_, row| all.push(row.to_vec())).expect("a step");
    session.retire(&mut sequence, token_ids);
    (n_reused, all)
}

#[test]
fn logits_over_a_reused_prefix_are_those_of_a_whole_prefill() {
    for architecture in ARCHITECTURES {
        for (stored, bound) in [(Stored::F32, 1e-3), (Stored::Q8_0, 6e-2)] {
            for (device, kv_type) in [(Device::Cpu, KvType::F16), (Device::Cpu, KvType::Q8_0), (Device::CandleCpu, KvType::F16)] {
                let tiny = tiny(architecture, stored);
                let options = LoadOptions { device, context: 512, threads: 2, kv_type };
                let ids = tokens(200);
                let other = [&ids[..150], &tokens(260)[210..]].concat();
                // candle configures its matrix tiles once a thread and expects them to stay; our kernels release theirs.
                std::thread::scope(|scope| {
                    let compare = || {
                        let mut session = session(&tiny.model, options);
                        let whole = [&ids, &other].map(|ids| logits(&mut session, ids, 200));
                        let mut first = Vec::new();
                        // Nothing is known; all is; the first 150 of 200 tokens are; the longer of two beginnings is taken.
                        for (idx, n_expected) in [(0, 0), (0, 176), (1, 144), (1, 176), (0, 176)] {
                            let (n_reused, rest) = logits_after_reuse(&mut session, [&ids, &other][idx]);
                            let distance = distance(&rest, &whole[idx][n_reused..]);
                            assert!(distance <= bound, "{architecture} {stored:?} {device:?} {kv_type:?} after {n_reused}: {distance}");
                            first.push((n_reused, n_expected));
                        }
                        assert!(first.iter().all(|(reused, expected)| reused == expected), "{first:?}");
                        assert_eq!(session.used_positions(), 0);
                    };
                    scope.spawn(compare).join().expect("no panic");
                });
            }
        }
    }
}

#[test]
fn the_candle_arm_agrees_with_the_kernels() {
    for architecture in ARCHITECTURES {
        for (stored, bound) in [(Stored::F32, 2e-3), (Stored::Q8_0, 3e-2), (Stored::Q4K, 5e-2)] {
            let tiny = tiny(architecture, stored);
            let ids = tokens(100);
            let ours = logits(&mut cpu(&tiny.model), &ids, 33);
            // candle configures its matrix tiles once a thread and expects them to stay; our kernels release theirs.
            let candle = std::thread::scope(|scope| {
                let options = LoadOptions { device: Device::CandleCpu, context: 512, ..LoadOptions::default() };
                scope.spawn(|| logits(&mut session(&tiny.model, options), &ids, 33)).join().expect("no panic")
            });
            let distance = distance(&candle, &ours);
            assert!(distance <= bound, "{architecture} {stored:?}: {distance}");
        }
    }
}

#[test]
fn an_8_bit_cache_stays_near_a_16_bit_one() {
    let tiny = tiny("llama", Stored::F32);
    let ids = tokens(150);
    let f16 = logits(&mut cpu(&tiny.model), &ids, 512);
    let options = LoadOptions { context: 512, kv_type: KvType::Q8_0, ..LoadOptions::default() };
    let distance = distance(&logits(&mut session(&tiny.model, options), &ids, 512), &f16);
    assert!(distance > 0.0 && distance < 2e-2, "{distance}");
}

#[test]
fn a_full_context_and_a_foreign_token_are_refused_before_anything_is_computed() {
    let tiny = tiny("llama", Stored::F32);
    let mut session = session(&tiny.model, LoadOptions { context: 64, ..LoadOptions::default() });
    let ids = tokens(64);
    let mut sequence = Sequence::default();
    let mut step = |session: &mut Session, ids: &[u32]| {
        session.step(&mut [Feed { sequence: &mut sequence, token_ids: ids, logits_from: 0 }], &mut |_, _| {})
    };
    step(&mut session, &ids[..60]).expect("60 of 64 positions");
    let full = step(&mut session, &ids[..5]).expect_err("5 more do not fit");
    assert_eq!(full.to_string(), "the context of 64 positions is full");
    let foreign = step(&mut session, &[99_999]).expect_err("no such token");
    assert!(foreign.to_string().contains("token id 99999"), "{foreign}");
    step(&mut session, &ids[60..]).expect("the last 4 still fit");
}

#[test]
fn a_model_opened_twice_is_the_same_model() {
    let tiny = tiny("qwen2", Stored::F16);
    let again = Model::open(&tiny.path).expect("the same file");
    let ids = tokens(20);
    assert_eq!(logits(&mut cpu(&tiny.model), &ids, 512), logits(&mut cpu(&again), &ids, 512));
}
