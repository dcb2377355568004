//! Products of every instruction set and format against the f64 product of the dequantized weights.

mod support;

use downshift_kernels::{Activation, Activations, Cpu, DType, Isa, LinearJob, Matrix, Work};
use support::Random;

struct Case {
    weights: Vec<u8>,
    x: Vec<f32>,
    dtype: DType,
    m: usize,
    n: usize,
    k: usize,
}

impl Case {
    fn new(random: &mut Random, dtype: DType, m: usize, n: usize, k: usize) -> Self {
        let weights = random.weights(dtype, n, k);
        Self { weights, x: random.activations(m * k), dtype, m, n, k }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.dtype, self.n, self.k, &self.weights).unwrap()
    }

    fn activations(&self, cpu: &Cpu) -> Activations {
        let mut acts = Activations::new(self.m, self.k);
        acts.f32_mut(self.m, self.k).copy_from_slice(&self.x);
        cpu.quantize(&mut acts, self.m, self.k, [self.dtype].into_iter());
        acts
    }

    fn linear(&self, cpu: &Cpu) -> Vec<f32> {
        let acts = self.activations(cpu);
        let mut out = vec![f32::NAN; self.m * self.n];
        let job = LinearJob { weight: self.matrix(), bias: None, out: &mut out, out_stride: self.n, accumulate: false };
        cpu.linear(&acts, self.m, &mut [job]);
        out
    }

    /// The exact product, and how far a result may be from it: every activation may be wrong by half a step of an
    /// eight-bit quantization of its 256 neighbours (of its 32 for the formats with blocks of 32), and by rounding.
    fn expected(&self) -> Vec<(f64, f64)> {
        let scalar = Cpu::new(Isa::SCALAR, 1);
        let group = if self.dtype.block_len() == 256 { 256 } else { 32 };
        let exact = self.dtype.block_len() == 1;
        let mut row = vec![0f32; self.k];
        let mut expected = vec![(0.0, 0.0); self.m * self.n];
        for r in 0..self.n {
            scalar.dequantize_row(&self.matrix(), r, &mut row);
            for i in 0..self.m {
                let x = &self.x[i * self.k..][..self.k];
                let dot: f64 = x.iter().zip(&row).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                let size: f64 = x.iter().zip(&row).map(|(x, w)| f64::from((x * w).abs())).sum();
                let steps: f64 = x
                    .chunks(group)
                    .zip(row.chunks(group))
                    .map(|(x, w)| {
                        let max = x.iter().fold(0f32, |max, x| max.max(x.abs()));
                        let sum: f32 = w.iter().map(|w| w.abs()).sum();
                        f64::from(max) / 127.0 * 0.5 * f64::from(sum)
                    })
                    .sum();
                let bound = if exact { 1e-5 * size } else { 1.001 * steps + 1e-5 * size };
                expected[i * self.n + r] = (dot, bound + 1e-6);
            }
        }
        expected
    }
}

fn check(cpu: &Cpu, case: &Case) {
    let (actual, expected) = (case.linear(cpu), case.expected());
    let (mut errors, mut norms) = (0.0, 0.0);
    for (at, (actual, (dot, bound))) in actual.iter().zip(&expected).enumerate() {
        let error = (f64::from(*actual) - dot).abs();
        assert!(
            error <= *bound,
            "{} {} m {} n {} k {} at {at}: {actual}, expected {dot} within {bound}",
            cpu.isa().name(),
            case.dtype.name(),
            case.m,
            case.n,
            case.k
        );
        errors += error * error;
        norms += dot * dot;
    }
    // Far below the bound above, where all errors add up: what is seen when they are independent.
    let limit = if case.dtype.block_len() == 1 { 8e-6 } else { 1.2e-2 };
    let relative = (errors / norms).sqrt();
    assert!(relative < limit || case.n * case.m < 100, "{} {}: {relative}", cpu.isa().name(), case.dtype.name());
}

#[test]
fn products_are_within_their_bound_of_the_exact_product() {
    for isa in Isa::available() {
        let cpu = Cpu::new(*isa, 2);
        let mut random = Random::new(1);
        for dtype in DType::ALL {
            for (m, n, blocks) in [(1, 70, 8), (2, 17, 1), (3, 33, 5), (7, 5, 2), (8, 64, 3), (9, 31, 4), (37, 130, 2), (131, 45, 3)] {
                let k = if dtype.block_len() == 256 { 256 * blocks } else { 96 * blocks };
                check(&cpu, &Case::new(&mut random, dtype, m, n, k));
            }
        }
    }
}

#[test]
fn random_shapes_are_within_their_bound() {
    for isa in Isa::available() {
        let mut random = Random::new(2);
        for _ in 0..60 {
            let dtype = DType::ALL[random.below(DType::ALL.len())];
            let step = dtype.block_len().max(1);
            let k = step * (1 + random.below((1200 / step).min(200)));
            let most = [20, 60, 150][random.below(3)];
            let (m, n) = (1 + random.below(most), 1 + random.below(150));
            let cpu = Cpu::new(*isa, 1 + random.below(3));
            check(&cpu, &Case::new(&mut random, dtype, m, n, k));
        }
    }
}

#[test]
fn rows_of_decode_are_rounded_as_each_of_them_alone() {
    for isa in Isa::available() {
        let cpu = Cpu::new(*isa, 2);
        let mut random = Random::new(6);
        for dtype in [DType::Q4_K, DType::Q5_K, DType::Q6_K, DType::Q3_K, DType::Q2_K, DType::Q8_0, DType::Q4_0] {
            for m in 2..=11 {
                let (n, k) = (37, 256 * (1 + m % 5));
                let case = Case::new(&mut random, dtype, m, n, k);
                let product = |x: &[f32]| {
                    let m = x.len() / k;
                    let mut acts = Activations::new(m, k);
                    acts.set_work(Work::Decode);
                    acts.f32_mut(m, k).copy_from_slice(x);
                    cpu.quantize(&mut acts, m, k, [dtype].into_iter());
                    let mut out = vec![f32::NAN; m * n];
                    let job = LinearJob { weight: case.matrix(), bias: None, out: &mut out, out_stride: n, accumulate: false };
                    cpu.linear(&acts, m, &mut [job]);
                    out
                };
                let alone = case.x.chunks(k).flat_map(product).collect::<Vec<_>>();
                let size = alone.iter().fold(0f32, |size, y| size.max(y.abs()));
                for (together, alone) in product(&case.x).iter().zip(&alone) {
                    assert!((together - alone).abs() < 2e-6 * size, "{} {} m {m}: {together} {alone}", isa.name(), dtype.name());
                }
            }
        }
    }
}

#[test]
fn jobs_share_an_input_and_bias_stride_and_accumulation_are_honoured() {
    for isa in Isa::available() {
        for m in [1, 4, 20, 130] {
            let cpu = Cpu::new(*isa, 2);
            let mut random = Random::new(3);
            let x = random.activations(m * 256);
            let dtypes = [DType::Q4_K, DType::Q6_K, DType::Q8_0];
            let cases: Vec<Case> = [40, 16, 130]
                .iter()
                .zip(dtypes)
                .map(|(n, dtype)| Case { x: x.clone(), ..Case::new(&mut random, dtype, m, *n, 256) })
                .collect();
            let bias: Vec<f32> = (0..130).map(|_| random.normal()).collect();
            let mut acts = Activations::new(m, 256);
            acts.f32_mut(m, 256).copy_from_slice(&x);
            cpu.quantize(&mut acts, m, 256, dtypes.into_iter());
            let mut outs: Vec<Vec<f32>> = (0..3).map(|_| vec![100.0; m * 150]).collect();
            let mut jobs: Vec<LinearJob<'_>> = cases
                .iter()
                .zip(&mut outs)
                .map(|(case, out)| LinearJob { weight: case.matrix(), bias: Some(&bias[..case.n]), out, out_stride: 150, accumulate: true })
                .collect();
            cpu.linear(&acts, m, &mut jobs);
            for (case, out) in cases.iter().zip(&outs) {
                let plain = case.linear(&cpu);
                for i in 0..m {
                    for (c, out) in out[i * 150..(i + 1) * 150].iter().enumerate() {
                        let expected = if c < case.n { 100.0 + (plain[i * case.n + c] + bias[c]) } else { 100.0 };
                        assert!((out - expected).abs() < 1e-4 * expected.abs().max(1.0), "{out} {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn gate_up_is_the_activation_of_one_product_times_the_other() {
    for isa in Isa::available() {
        for (m, act) in [(1, Activation::Silu), (5, Activation::GeluTanh), (40, Activation::Silu), (130, Activation::Silu)] {
            let cpu = Cpu::new(*isa, 2);
            let mut random = Random::new(4);
            let gate = Case::new(&mut random, DType::Q4_K, m, 75, 512);
            let up = Case { x: gate.x.clone(), ..Case::new(&mut random, DType::Q4_K, m, 75, 512) };
            let mut out = vec![f32::NAN; m * 75];
            cpu.gate_up(&gate.activations(&cpu), m, gate.matrix(), up.matrix(), act, &mut out);
            for ((out, gate), up) in out.iter().zip(gate.linear(&cpu)).zip(up.linear(&cpu)) {
                let (gate, up) = (f64::from(gate), f64::from(up));
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044715 * gate.powi(3));
                let expected = match act {
                    Activation::Silu => gate / (1.0 + (-gate).exp()) * up,
                    Activation::GeluTanh => 0.5 * gate * (1.0 + inner.tanh()) * up,
                    Activation::GeluErf | Activation::Relu2 => unreachable!("not among the activations tried here"),
                };
                assert!((f64::from(*out) - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{out} {expected}");
            }
        }
    }
}

#[test]
fn any_bytes_are_weights() {
    for isa in Isa::available() {
        let cpu = Cpu::new(*isa, 1);
        let mut random = Random::new(5);
        for dtype in DType::ALL {
            for m in [1, 5, 130] {
                let mut case = Case::new(&mut random, dtype, m, 19, 512);
                case.linear(&cpu);
                case.weights.fill(0xff);
                case.x.fill(-1e30);
                case.linear(&cpu);
                case.weights.iter_mut().for_each(|byte| *byte = random.bits() as u8);
                case.x[3] = f32::NAN;
                case.x[300] = f32::INFINITY;
                case.linear(&cpu);
            }
        }
    }
}

#[test]
fn a_matrix_is_exactly_its_bytes() {
    assert!(Matrix::new(DType::Q4_K, 2, 256, &[0; 288]).is_ok());
    assert!(Matrix::new(DType::Q4_K, 2, 256, &[0; 289]).is_err());
    assert!(Matrix::new(DType::Q4_K, 2, 128, &[0; 144]).is_err());
    assert!(Matrix::new(DType::Q8_0, 3, 0, &[]).is_err());
    assert!(Matrix::new(DType::F32, usize::MAX, usize::MAX / 4, &[]).is_err());
}
