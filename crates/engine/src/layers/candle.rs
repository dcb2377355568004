//! The arm of CUDA and Metal: candle tensors. It also runs on candle's CPU device, where it is checked against the kernels.
//!
//! Quantized weights are uploaded in the file's blocks and multiplied by candle's quantized kernels; activations are f32, keys
//! and values f16. The embedding stays on the host, where one row a token is widened.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{D, DType, Device, Module, Tensor};
use downshift_kernels::kv::KV_BLOCK;
use downshift_kernels::rope::{Rope, RopeKind};
use downshift_kernels::{Cpu, Isa};

use crate::error::Error;
use crate::layers::{Arm, Loader};
use crate::model_config::ModelConfig;
use crate::models::{AttentionBlock, Batch, Linear, Mlp};
use crate::weights::{Gguf, HostMatrix};

/// Rows of one step: candle allocates per operation, so that larger batches cost memory and win little.
const MAX_ROWS: usize = 256;

/// Rows of logits computed and handed over together.
const LOGITS_ROWS: usize = 16;

/// A matrix on the device, and the file's bytes for single rows.
pub struct CandleMatrix {
    host: HostMatrix,
    device: QMatMul,
}

/// The step's state as tensors of `(rows, features)`.
pub struct CandleArm {
    device: Device,
    config: ModelConfig,
    /// Widens rows of the embedding and norms on the host.
    host: Cpu,
    rope: Rope,
    residual: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mixed: Tensor,
    cos: Tensor,
    sin: Tensor,
    kv: Vec<(Tensor, Tensor)>,
}

impl CandleArm {
    /// An arm on `device` with a KV pool of `n_blocks` blocks per layer, allocated now.
    ///
    /// # Errors
    /// [`Error::Candle`] where the device has no room.
    pub fn new(device: Device, config: &ModelConfig, rope: Rope, n_blocks: usize) -> Result<Self, Error> {
        let pool = |width| Tensor::zeros((n_blocks * KV_BLOCK, width), DType::F16, &device);
        let kv = (0..config.n_layers).map(|_| Ok((pool(config.k_size())?, pool(config.v_size())?))).collect::<Result<_, Error>>()?;
        let empty = Tensor::zeros(0, DType::F32, &device)?;
        Ok(Self {
            config: config.clone(),
            host: Cpu::new(Isa::from_env(), 1),
            rope,
            residual: empty.clone(),
            q: empty.clone(),
            k: empty.clone(),
            v: empty.clone(),
            mixed: empty.clone(),
            cos: empty.clone(),
            sin: empty,
            kv,
            device,
        })
    }

    /// RMS norm over the last dimension (Zhang and Sennrich 2019, arXiv:1910.07467).
    fn rms_norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor, Error> {
        let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(self.config.norm_eps))?.sqrt()?.recip()?;
        Ok(x.broadcast_mul(&scale)?.broadcast_mul(weight)?)
    }

    fn linear(x: &Tensor, linear: &Linear<Self>) -> Result<Tensor, Error> {
        let y = linear.weight.device.forward(x)?;
        Ok(match &linear.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }

    /// Norms and rotates the heads of `x` `(m, heads * head_dim)`.
    fn heads(&self, x: &Tensor, n_heads: usize, norm: Option<&Tensor>) -> Result<Tensor, Error> {
        let (m, dim, rotated) = (x.dim(0)?, self.config.head_dim, self.config.rope.dim);
        let mut x = x.reshape((m, n_heads, dim))?;
        if let Some(norm) = norm {
            x = self.rms_norm(&x, norm)?;
        }
        let turned = self.rotate(&x.narrow(2, 0, rotated)?.contiguous()?)?;
        let x = if rotated < dim { Tensor::cat(&[&turned, &x.narrow(2, rotated, dim - rotated)?], 2)? } else { turned };
        Ok(x.reshape((m, n_heads * dim))?)
    }

    /// Rotary embedding (Su et al. 2021, arXiv:2104.09864) of `x` `(m, heads, dim)`, all of `dim` rotated.
    fn rotate(&self, x: &Tensor) -> Result<Tensor, Error> {
        let (m, n_heads, dim) = x.dims3()?;
        let half = dim / 2;
        // A pair is the two halves' components (Neox), or two neighbours (Norm).
        let (pairs, axis) = match self.config.rope.kind {
            RopeKind::Neox => (x.reshape((m, n_heads, 2, half))?, 2),
            RopeKind::Norm => (x.reshape((m, n_heads, half, 2))?, 3),
        };
        let a = pairs.narrow(axis, 0, 1)?.reshape((m, n_heads, half))?;
        let b = pairs.narrow(axis, 1, 1)?.reshape((m, n_heads, half))?;
        let turned_a = (a.broadcast_mul(&self.cos)? - b.broadcast_mul(&self.sin)?)?;
        let turned_b = (a.broadcast_mul(&self.sin)? + b.broadcast_mul(&self.cos)?)?;
        Ok(Tensor::stack(&[turned_a, turned_b], axis)?.reshape((m, n_heads, dim))?)
    }

    /// Rows of the pool that hold the first `len` positions of a sequence.
    fn pool_rows(&self, blocks: &[u32], len: usize) -> Result<Tensor, Error> {
        let rows: Vec<u32> = (0..len).map(|pos| blocks[pos / KV_BLOCK] * KV_BLOCK as u32 + (pos % KV_BLOCK) as u32).collect();
        Ok(Tensor::from_vec(rows, len, &self.device)?)
    }

    /// Keys or values of a sequence for every query head: `(n_heads, len, dim)`.
    fn gathered(&self, pool: &Tensor, rows: &Tensor, dim: usize) -> Result<Tensor, Error> {
        let (kv_heads, groups) = (self.config.n_kv_heads, self.config.n_heads / self.config.n_kv_heads);
        let len = rows.dim(0)?;
        let x = pool.index_select(rows, 0)?.to_dtype(DType::F32)?.reshape((len, kv_heads, 1, dim))?;
        let x = x.broadcast_as((len, kv_heads, groups, dim))?.reshape((len, kv_heads * groups, dim))?;
        Ok(x.transpose(0, 1)?.contiguous()?)
    }
}

impl Loader for CandleArm {
    type Matrix = CandleMatrix;
    type Vector = Tensor;

    fn matrix(&self, gguf: &Gguf, name: &str, rows: usize, cols: usize) -> Result<CandleMatrix, Error> {
        let host = HostMatrix::from_gguf(gguf, name, rows, cols)?;
        let dtype = candle_dtype(host.dtype())
            .ok_or_else(|| Error::UnsupportedType { name: name.to_owned(), found: host.dtype().name().to_owned() })?;
        // candle reinterprets the bytes as typed blocks, so they must be aligned for f32.
        let words: Cow<'_, [u8]> =
            if host.bytes().as_ptr().addr().is_multiple_of(4) { host.bytes().into() } else { host.bytes().to_vec().into() };
        let storage = QStorage::from_data(words, &self.device, dtype)?;
        let device = QMatMul::from_arc(Arc::new(QTensor::new(storage, (rows, cols))?))?;
        Ok(CandleMatrix { host, device })
    }

    fn vector(&self, gguf: &Gguf, name: &str, len: usize) -> Result<Tensor, Error> {
        let host = HostMatrix::from_gguf(gguf, name, 1, len)?;
        Ok(Tensor::from_vec(host.row(&self.host, 0), len, &self.device)?)
    }
}

impl Arm for CandleArm {
    fn embed(&mut self, embedding: &CandleMatrix, batch: &Batch) -> Result<(), Error> {
        let m = batch.len();
        let mut rows = Vec::with_capacity(m * self.config.hidden_size);
        for &id in batch.token_ids() {
            rows.extend(embedding.host.row(&self.host, id as usize));
        }
        self.residual = Tensor::from_vec(rows, (m, self.config.hidden_size), &self.device)?;
        let dim = self.config.rope.dim;
        let mut cos_sin = vec![0.0; m * dim];
        self.rope.fill(batch.positions(), &mut cos_sin);
        let cos_sin = Tensor::from_vec(cos_sin, (m, 1, dim), &self.device)?;
        self.cos = cos_sin.narrow(2, 0, dim / 2)?.contiguous()?;
        self.sin = cos_sin.narrow(2, dim / 2, dim / 2)?.contiguous()?;
        Ok(())
    }

    fn project_qkv(&mut self, block: &AttentionBlock<Self>) -> Result<(), Error> {
        let x = self.rms_norm(&self.residual, &block.norm)?;
        self.q = self.heads(&Self::linear(&x, &block.q_proj)?, self.config.n_heads, block.q_norm.as_ref())?;
        self.k = self.heads(&Self::linear(&x, &block.k_proj)?, self.config.n_kv_heads, block.k_norm.as_ref())?;
        self.v = Self::linear(&x, &block.v_proj)?;
        Ok(())
    }

    fn append_kv(&mut self, layer_idx: usize, batch: &Batch) -> Result<(), Error> {
        let (keys, values) = &self.kv[layer_idx];
        let (k, v) = (self.k.to_dtype(DType::F16)?, self.v.to_dtype(DType::F16)?);
        for segment in batch.segments() {
            let blocks = batch.blocks(segment);
            let mut row = segment.rows.start;
            while row < segment.rows.end {
                let pos = segment.first_pos + row - segment.rows.start;
                let slot = pos % KV_BLOCK;
                let run = (KV_BLOCK - slot).min(segment.rows.end - row);
                let at = blocks[pos / KV_BLOCK] as usize * KV_BLOCK + slot;
                keys.slice_set(&k.narrow(0, row, run)?.contiguous()?, 0, at)?;
                values.slice_set(&v.narrow(0, row, run)?.contiguous()?, 0, at)?;
                row += run;
            }
        }
        Ok(())
    }

    fn attend(&mut self, layer_idx: usize, batch: &Batch) -> Result<(), Error> {
        let config = &self.config;
        let (keys, values) = &self.kv[layer_idx];
        let mut outputs = Vec::with_capacity(batch.segments().len());
        for segment in batch.segments() {
            let m = segment.rows.len();
            let len = segment.first_pos + m;
            let rows = self.pool_rows(batch.blocks(segment), len)?;
            let k = self.gathered(keys, &rows, config.head_dim)?; // (n_heads, len, head_dim)
            let v = self.gathered(values, &rows, config.v_head_dim)?; // (n_heads, len, v_head_dim)
            let q = self.q.narrow(0, segment.rows.start, m)?.reshape((m, config.n_heads, config.head_dim))?;
            let q = q.transpose(0, 1)?.contiguous()?; // (n_heads, m, head_dim)
            let scores = (q.matmul(&k.t()?.contiguous()?)? * f64::from(config.attention_scale))?; // (n_heads, m, len)
            let masked =
                (0..m).flat_map(|row| (0..len).map(move |pos| if pos <= segment.first_pos + row { 0.0 } else { f32::NEG_INFINITY }));
            let mask = Tensor::from_vec(masked.collect::<Vec<f32>>(), (1, m, len), &self.device)?;
            let scores = scores.broadcast_add(&mask)?;
            let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
            let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
            let mixed = weights.matmul(&v)?.transpose(0, 1)?.contiguous()?; // (m, n_heads, v_head_dim)
            outputs.push(mixed.reshape((m, config.n_heads * config.v_head_dim))?);
        }
        self.mixed = Tensor::cat(&outputs, 0)?;
        Ok(())
    }

    fn gate_up(&mut self, mlp: &Mlp<Self>) -> Result<(), Error> {
        let x = self.rms_norm(&self.residual, &mlp.norm)?;
        self.mixed = (mlp.gate_proj.device.forward(&x)?.silu()? * mlp.up_proj.device.forward(&x)?)?;
        Ok(())
    }

    fn add_projection(&mut self, linear: &Linear<Self>) -> Result<(), Error> {
        self.residual = (&self.residual + Self::linear(&self.mixed, linear)?)?;
        Ok(())
    }

    fn logits(
        &mut self,
        norm: &Tensor,
        head: &CandleMatrix,
        batch: &Batch,
        on_logits: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Result<(), Error> {
        for (group_idx, group) in batch.outputs().chunks(LOGITS_ROWS).enumerate() {
            let rows = Tensor::from_slice(group, group.len(), &self.device)?;
            let x = self.rms_norm(&self.residual.index_select(&rows, 0)?, norm)?;
            let mut logits = head.device.forward(&x)?.flatten_all()?.to_vec1::<f32>()?;
            for (idx, row) in logits.chunks_exact_mut(self.config.n_vocab).enumerate() {
                on_logits(group_idx * LOGITS_ROWS + idx, row);
            }
        }
        Ok(())
    }

    /// candle sizes its own CPU pool, and a GPU needs none.
    fn copy_kv(&mut self, from: u32, to: u32, positions: usize) -> Result<(), Error> {
        for (keys, values) in &self.kv {
            for pool in [keys, values] {
                // A copy of its own: a tensor cannot be written from a view of itself.
                let rows = pool.narrow(0, from as usize * KV_BLOCK, positions)?.force_contiguous()?;
                pool.slice_set(&rows, 0, to as usize * KV_BLOCK)?;
            }
        }
        Ok(())
    }

    fn set_threads(&mut self, _threads: usize) {}

    fn max_rows(&self) -> usize {
        MAX_ROWS
    }
}

fn candle_dtype(dtype: downshift_kernels::DType) -> Option<GgmlDType> {
    use downshift_kernels::DType as Ours;
    Some(match dtype {
        Ours::F32 => GgmlDType::F32,
        Ours::F16 => GgmlDType::F16,
        Ours::BF16 => GgmlDType::BF16,
        Ours::Q4_0 => GgmlDType::Q4_0,
        Ours::Q4_1 => GgmlDType::Q4_1,
        Ours::Q5_0 => GgmlDType::Q5_0,
        Ours::Q5_1 => GgmlDType::Q5_1,
        Ours::Q8_0 => GgmlDType::Q8_0,
        Ours::Q2_K => GgmlDType::Q2K,
        Ours::Q3_K => GgmlDType::Q3K,
        Ours::Q4_K => GgmlDType::Q4K,
        Ours::Q5_K => GgmlDType::Q5K,
        Ours::Q6_K => GgmlDType::Q6K,
        Ours::IQ4_NL | Ours::IQ4_XS | Ours::MXFP4 => return None,
    })
}
