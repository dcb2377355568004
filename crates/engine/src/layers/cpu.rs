//! The arm of the CPU: downshift's kernels over scratch that is planned when the model loads.

use downshift_kernels::attention::{AttnParams, AttnScratch, AttnSeq};
use downshift_kernels::kv::{KV_BLOCK, KvLayer, KvLayerMut, KvLayout, KvType as KvStorage};
use downshift_kernels::rope::Rope;
use downshift_kernels::{Activation, Activations, Cpu, DType, Isa, LinearJob, Work, pool};
use downshift_worker::KvType;
use memmap2::MmapMut;

use crate::error::Error;
use crate::layers::{Arm, Loader};
use crate::model_config::ModelConfig;
use crate::models::{AttentionBlock, Batch, Linear, Mlp};
use crate::weights::{Gguf, HostMatrix};

/// Rows of one step. Twice as many would gain a twelfth in prefill, and cost as much scratch again, most of which the time that a
/// step may take would leave untouched.
const MAX_ROWS: usize = 256;

/// Rows of logits computed together; bounds the scratch of large vocabularies.
const LOGITS_ROWS: usize = 16;

/// Rows that a worker takes at a time in work that goes row by row.
const ROWS_SHARED: usize = 16;

/// Workers; more than any machine has, and few enough for their stacks.
const MAX_THREADS: usize = 512;

/// What a worker's products and attention keep for themselves, from the kernels' tiles: a chunk of weight rows times the rows of
/// a step, twice, and a tile of query rows.
const BYTES_PER_THREAD: usize = 1 << 20;

/// Sequences of one step that attention plans for without growing.
const MAX_SEQUENCES: usize = 16;

/// The step's state and the KV pool. All rows of a buffer are packed: `(rows, features)`.
pub struct CpuArm {
    cpu: Cpu,
    config: ModelConfig,
    rope: Rope,
    rows: usize,
    /// `(m, hidden)`.
    residual: Vec<f32>,
    /// The normed residual, input of q, k, v, gate, up and the head.
    normed: Activations,
    /// What attention or the gate made, input of the projection back.
    mixed: Activations,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    cos_sin: Vec<f32>,
    logits: Vec<f32>,
    attention: AttnScratch,
    layout: KvLayout,
    /// Keys and values of each layer.
    kv: Vec<(MmapMut, MmapMut)>,
}

impl CpuArm {
    /// An arm with `threads` workers and a KV pool of `n_blocks` blocks per layer. Memory is reserved now and touched in use.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the pool cannot be reserved.
    pub fn new(config: &ModelConfig, rope: Rope, n_blocks: usize, kv_type: KvType, threads: usize) -> Result<Self, Error> {
        let threads = threads.clamp(1, MAX_THREADS);
        let layout = kv_layout(config, kv_type);
        let reserve = |block_bytes: usize| {
            let bytes = n_blocks.checked_mul(block_bytes).filter(|&bytes| bytes > 0);
            let map = bytes.and_then(|bytes| MmapMut::map_anon(bytes).ok());
            map.ok_or(Error::OutOfMemory { what: "keys and values", bytes: (n_blocks as u64).saturating_mul(block_bytes as u64) })
        };
        let kv = (0..config.n_layers)
            .map(|_| Ok((reserve(layout.k_block_bytes())?, reserve(layout.v_block_bytes())?)))
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            cpu: Cpu::new(Isa::from_env(), threads),
            rows: 0,
            residual: vec![0.0; MAX_ROWS * config.hidden_size],
            normed: Activations::new(MAX_ROWS, config.hidden_size),
            mixed: Activations::new(MAX_ROWS, mixed_size(config)),
            q: vec![0.0; MAX_ROWS * config.q_size()],
            k: vec![0.0; MAX_ROWS * config.k_size()],
            v: vec![0.0; MAX_ROWS * config.v_size()],
            cos_sin: vec![0.0; MAX_ROWS * config.rope.dim],
            logits: vec![0.0; LOGITS_ROWS * config.n_vocab],
            attention: AttnScratch::new(layout, config.n_heads, threads, MAX_SEQUENCES),
            layout,
            kv,
            rope,
            config: config.clone(),
        })
    }

    /// Bytes of keys and values of one position in all layers.
    pub fn kv_bytes_per_position(config: &ModelConfig, kv_type: KvType) -> u64 {
        let layout = kv_layout(config, kv_type);
        ((layout.k_block_bytes() + layout.v_block_bytes()) / KV_BLOCK * config.n_layers) as u64
    }

    /// Bytes of what [`CpuArm::new`] plans that steps of the most rows make resident. Forms of the activations that no kernel of
    /// this machine reads for the weights' types stay untouched and are not counted.
    pub fn scratch_bytes(gguf: &Gguf, config: &ModelConfig) -> u64 {
        let (isa, threads) = (Isa::from_env(), pool::default_threads().min(MAX_THREADS));
        let floats = MAX_ROWS * (config.hidden_size + config.q_size() + config.k_size() + config.v_size() + config.rope.dim)
            + LOGITS_ROWS * config.n_vocab;
        let dtypes = |mixed: bool| {
            let used = gguf.tensors().filter(move |tensor| tensor.dims.len() > 1 && is_mixed_input(&tensor.name) == Some(mixed));
            used.filter_map(|tensor| DType::from_ggml(tensor.ggml_type))
        };
        let normed = Activations::bytes_used(isa, MAX_ROWS, config.hidden_size, dtypes(false));
        let mixed = Activations::bytes_used(isa, MAX_ROWS, mixed_size(config), dtypes(true));
        (floats * 4 + normed + mixed + threads * BYTES_PER_THREAD) as u64
    }

    /// Norms the residual's rows into the input of `weights`.
    fn norm<'w>(&mut self, norm: &[f32], weights: impl Iterator<Item = &'w HostMatrix>) {
        let (m, hidden, eps) = (self.rows, self.config.hidden_size, self.config.norm_eps);
        let (cpu, residual) = (&self.cpu, &self.residual);
        for_rows(cpu, self.normed.f32_mut(m, hidden), hidden, |first, rows| {
            cpu.ops().rms_norm(&residual[first * hidden..][..rows.len()], norm, eps, rows);
        });
        self.cpu.quantize(&mut self.normed, m, hidden, weights.map(HostMatrix::dtype));
    }
}

/// Calls `f(first row, rows)` for all of `data`, on all workers where there are rows enough to be worth a fork.
fn for_rows(cpu: &Cpu, data: &mut [f32], row_len: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if data.len() <= ROWS_SHARED * row_len {
        f(0, data);
    } else {
        cpu.pool().run_chunks(data, ROWS_SHARED * row_len, |idx, rows| f(idx * ROWS_SHARED, rows));
    }
}

fn kv_layout(config: &ModelConfig, kv_type: KvType) -> KvLayout {
    let kind = match kv_type {
        KvType::F16 => KvStorage::F16,
        KvType::Q8_0 => KvStorage::Q8_0,
    };
    KvLayout { kind, n_kv_heads: config.n_kv_heads, k_dim: config.head_dim, v_dim: config.v_head_dim }
}

/// Whether a layer's matrix takes its input from attention or the gate, or else from the normed residual; `None` for what is no
/// layer's: the head sees few rows at a time.
fn is_mixed_input(name: &str) -> Option<bool> {
    name.starts_with("blk.").then(|| name.ends_with(".attn_output.weight") || name.ends_with(".ffn_down.weight"))
}

fn mixed_size(config: &ModelConfig) -> usize {
    config.ffn_size.max(config.n_heads * config.v_head_dim)
}

fn job<'a>(linear: &'a Linear<CpuArm>, out: &'a mut [f32], accumulate: bool) -> LinearJob<'a> {
    let weight = linear.weight.view();
    LinearJob { weight, bias: linear.bias.as_deref(), out, out_stride: weight.rows(), accumulate }
}

impl Loader for CpuArm {
    type Matrix = HostMatrix;
    type Vector = Vec<f32>;

    fn matrix(&self, gguf: &Gguf, name: &str, rows: usize, cols: usize) -> Result<HostMatrix, Error> {
        HostMatrix::from_gguf(gguf, name, rows, cols)
    }

    fn vector(&self, gguf: &Gguf, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        Ok(HostMatrix::from_gguf(gguf, name, 1, len)?.row(&self.cpu, 0))
    }
}

impl Arm for CpuArm {
    fn embed(&mut self, embedding: &HostMatrix, batch: &Batch) -> Result<(), Error> {
        self.rows = batch.len();
        let work = if batch.is_decode() { Work::Decode } else { Work::Prompt };
        self.normed.set_work(work);
        self.mixed.set_work(work);
        let weight = embedding.view();
        for (row, &id) in self.residual.chunks_exact_mut(self.config.hidden_size).zip(batch.token_ids()) {
            self.cpu.dequantize_row(&weight, id as usize, row);
        }
        self.rope.fill(batch.positions(), &mut self.cos_sin[..self.rows * self.config.rope.dim]);
        Ok(())
    }

    fn project_qkv(&mut self, block: &AttentionBlock<Self>) -> Result<(), Error> {
        self.norm(&block.norm, [&block.q_proj, &block.k_proj, &block.v_proj].into_iter().map(|linear| &linear.weight));
        let Self { cpu, config, rope, normed, q, k, v, cos_sin, rows: m, .. } = self;
        let (q, k, v) = (&mut q[..*m * config.q_size()], &mut k[..*m * config.k_size()], &mut v[..*m * config.v_size()]);
        cpu.linear(normed, *m, &mut [job(&block.q_proj, q, false), job(&block.k_proj, k, false), job(&block.v_proj, v, false)]);
        for (heads, row_len, norm) in [(q, config.q_size(), &block.q_norm), (k, config.k_size(), &block.k_norm)] {
            for_rows(cpu, heads, row_len, |first, rows| {
                if let Some(norm) = norm {
                    cpu.ops().rms_norm_in_place(rows, norm, config.norm_eps);
                }
                let cos_sin = &cos_sin[first * config.rope.dim..][..rows.len() / row_len * config.rope.dim];
                cpu.ops().rope_apply(rope, config.head_dim, rows, cos_sin);
            });
        }
        Ok(())
    }

    fn append_kv(&mut self, layer_idx: usize, batch: &Batch) -> Result<(), Error> {
        let (keys, values) = &mut self.kv[layer_idx];
        let mut layer = KvLayerMut { layout: self.layout, k: keys, v: values };
        let (k_size, v_size) = (self.config.k_size(), self.config.v_size());
        for segment in batch.segments() {
            let blocks = batch.blocks(segment);
            for (pos, row) in (segment.first_pos..).zip(segment.rows.clone()) {
                let (k, v) = (&self.k[row * k_size..][..k_size], &self.v[row * v_size..][..v_size]);
                self.cpu.ops().kv_append(&mut layer, blocks[pos / KV_BLOCK], pos % KV_BLOCK, k, v);
            }
        }
        Ok(())
    }

    fn attend(&mut self, layer_idx: usize, batch: &Batch) -> Result<(), Error> {
        let Self { cpu, config, layout, kv, q, mixed, attention, rows: m, .. } = self;
        let (keys, values) = &kv[layer_idx];
        let layer = KvLayer { layout: *layout, k: keys, v: values };
        let params = AttnParams { n_heads: config.n_heads, scale: config.attention_scale, softcap: None, window: None, sinks: None };
        let sequences: Vec<AttnSeq<'_>> = batch
            .segments()
            .iter()
            .map(|segment| AttnSeq { blocks: batch.blocks(segment), q_rows: segment.rows.clone(), first_pos: segment.first_pos })
            .collect();
        let out = mixed.f32_mut(*m, config.n_heads * config.v_head_dim);
        cpu.ops().attention(cpu.pool(), &params, &layer, &sequences, &q[..*m * config.q_size()], out, attention);
        Ok(())
    }

    fn gate_up(&mut self, mlp: &Mlp<Self>) -> Result<(), Error> {
        self.norm(&mlp.norm, [&mlp.gate_proj, &mlp.up_proj].into_iter());
        let out = self.mixed.f32_mut(self.rows, self.config.ffn_size);
        self.cpu.gate_up(&self.normed, self.rows, mlp.gate_proj.view(), mlp.up_proj.view(), Activation::Silu, out);
        Ok(())
    }

    fn add_projection(&mut self, linear: &Linear<Self>) -> Result<(), Error> {
        let (m, weight) = (self.rows, linear.weight.view());
        self.cpu.quantize(&mut self.mixed, m, weight.cols(), [weight.dtype()].into_iter());
        let residual = &mut self.residual[..m * self.config.hidden_size];
        self.cpu.linear(&self.mixed, m, &mut [job(linear, residual, true)]);
        Ok(())
    }

    fn logits(
        &mut self,
        norm: &Vec<f32>,
        head: &HostMatrix,
        batch: &Batch,
        on_logits: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Result<(), Error> {
        let (hidden, n_vocab, weight) = (self.config.hidden_size, self.config.n_vocab, head.view());
        for (group_idx, group) in batch.outputs().chunks(LOGITS_ROWS).enumerate() {
            let m = group.len();
            let normed = self.normed.f32_mut(m, hidden);
            for (out, &row) in normed.chunks_exact_mut(hidden).zip(group) {
                self.cpu.ops().rms_norm(&self.residual[row as usize * hidden..][..hidden], norm, self.config.norm_eps, out);
            }
            self.cpu.quantize(&mut self.normed, m, hidden, [head.dtype()].into_iter());
            let out = &mut self.logits[..m * n_vocab];
            self.cpu.linear(&self.normed, m, &mut [LinearJob { weight, bias: None, out, out_stride: n_vocab, accumulate: false }]);
            for (idx, row) in self.logits[..m * n_vocab].chunks_exact_mut(n_vocab).enumerate() {
                on_logits(group_idx * LOGITS_ROWS + idx, row);
            }
        }
        Ok(())
    }

    fn copy_kv(&mut self, from: u32, to: u32, positions: usize) -> Result<(), Error> {
        let KvLayout { kind, n_kv_heads, k_dim, v_dim } = self.layout;
        for (keys, values) in &mut self.kv {
            for (pool, row_bytes) in [(keys, kind.row_bytes(k_dim)), (values, kind.row_bytes(v_dim))] {
                let head_bytes = KV_BLOCK * row_bytes;
                for head in 0..n_kv_heads {
                    let [from, to] = [from, to].map(|block| (block as usize * n_kv_heads + head) * head_bytes);
                    pool.copy_within(from..from + positions * row_bytes, to);
                }
            }
        }
        Ok(())
    }

    fn set_threads(&mut self, threads: usize) {
        self.cpu.pool().set_threads(threads);
    }

    fn max_rows(&self) -> usize {
        MAX_ROWS
    }
}
