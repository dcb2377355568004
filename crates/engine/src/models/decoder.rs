//! One data-driven transformer decoder. Names only layers; how a layer runs is the arm's business.
//!
//! Pre-norm decoder of Llama (Touvron et al. 2023, arXiv:2302.13971) with grouped-query attention; the differences between
//! architectures are optional tensors and the fields of [`ModelConfig`].

use crate::error::Error;
use crate::layers::{Arm, Loader};
use crate::model_config::ModelConfig;
use crate::models::Batch;
use crate::models::times::{Laps, Part, Times};
use crate::weights::Gguf;

/// `y = x · Wᵀ + b`.
pub struct Linear<L: Loader> {
    /// `(out, in)`.
    pub weight: L::Matrix,
    /// `(out)`.
    pub bias: Option<L::Vector>,
}

/// Everything between the residual stream and itself that mixes positions.
pub struct AttentionBlock<L: Loader> {
    /// Before the projections, `(hidden)`.
    pub norm: L::Vector,
    /// `(n_heads * head_dim, hidden)`.
    pub q_proj: Linear<L>,
    /// `(n_kv_heads * head_dim, hidden)`.
    pub k_proj: Linear<L>,
    /// `(n_kv_heads * v_head_dim, hidden)`.
    pub v_proj: Linear<L>,
    /// Over each query head, `(head_dim)`.
    pub q_norm: Option<L::Vector>,
    /// Over each key head, `(head_dim)`.
    pub k_norm: Option<L::Vector>,
    /// `(hidden, n_heads * v_head_dim)`.
    pub o_proj: Linear<L>,
}

/// The gated feed-forward layer, `down(silu(gate(x)) * up(x))`.
pub struct Mlp<L: Loader> {
    /// Before the projections, `(hidden)`.
    pub norm: L::Vector,
    /// `(ffn, hidden)`.
    pub gate_proj: L::Matrix,
    /// `(ffn, hidden)`.
    pub up_proj: L::Matrix,
    /// `(hidden, ffn)`.
    pub down_proj: Linear<L>,
}

/// All weights of a model, in the form that `L` makes of them.
pub struct Weights<L: Loader> {
    embedding: L::Matrix,
    layers: Vec<(AttentionBlock<L>, Mlp<L>)>,
    output_norm: L::Vector,
    lm_head: Option<L::Matrix>,
}

/// The weights of one model on one arm.
pub struct Decoder<A: Arm> {
    arm: A,
    weights: Weights<A>,
    times: Times,
}

/// A loaded model, whatever its arm.
pub trait Forward: Send {
    /// Runs every row of `batch` through the model, writing keys and values into the batch's blocks. Logits of the rows that
    /// ask are handed to `on_logits` as (index among the asking rows, logits `(n_vocab)`), in order.
    ///
    /// # Errors
    /// A device error. The KV pool stays usable; the batch's own positions are undefined.
    fn forward(&mut self, batch: &Batch, on_logits: &mut dyn FnMut(usize, &mut [f32])) -> Result<(), Error>;

    /// Copies the keys and values of the first `positions` of a block to another one, in all layers.
    ///
    /// # Errors
    /// A device error.
    fn copy_kv(&mut self, from: u32, to: u32, positions: usize) -> Result<(), Error>;

    /// How many cores the next step may use.
    fn set_threads(&mut self, threads: usize);

    /// Most rows of one batch.
    fn max_rows(&self) -> usize;

    /// Where the time went since this was last asked.
    fn take_times(&mut self) -> Times;
}

impl<L: Loader> Weights<L> {
    /// Takes the weights that `config` calls for.
    ///
    /// # Errors
    /// [`Error::Tensor`] where one is missing or has another shape; [`Error::UnsupportedType`] for its element type.
    pub fn load(loader: &L, gguf: &Gguf, config: &ModelConfig) -> Result<Self, Error> {
        let hidden = config.hidden_size;
        let linear = |name: String, rows, cols| {
            let weight = loader.matrix(gguf, &format!("{name}.weight"), rows, cols)?;
            let bias = loader.vector_if_present(gguf, &format!("{name}.bias"), rows)?;
            Ok::<_, Error>(Linear { weight, bias })
        };
        let head_norm = |name: String| match config.architecture.qk_norm {
            true => loader.vector(gguf, &name, config.head_dim).map(Some),
            false => Ok(None),
        };
        let mut layers = Vec::new();
        for idx in 0..config.n_layers {
            let attention = AttentionBlock {
                norm: loader.vector(gguf, &format!("blk.{idx}.attn_norm.weight"), hidden)?,
                q_proj: linear(format!("blk.{idx}.attn_q"), config.q_size(), hidden)?,
                k_proj: linear(format!("blk.{idx}.attn_k"), config.k_size(), hidden)?,
                v_proj: linear(format!("blk.{idx}.attn_v"), config.v_size(), hidden)?,
                q_norm: head_norm(format!("blk.{idx}.attn_q_norm.weight"))?,
                k_norm: head_norm(format!("blk.{idx}.attn_k_norm.weight"))?,
                o_proj: linear(format!("blk.{idx}.attn_output"), hidden, config.n_heads * config.v_head_dim)?,
            };
            let mlp = Mlp {
                norm: loader.vector(gguf, &format!("blk.{idx}.ffn_norm.weight"), hidden)?,
                gate_proj: loader.matrix(gguf, &format!("blk.{idx}.ffn_gate.weight"), config.ffn_size, hidden)?,
                up_proj: loader.matrix(gguf, &format!("blk.{idx}.ffn_up.weight"), config.ffn_size, hidden)?,
                down_proj: linear(format!("blk.{idx}.ffn_down"), hidden, config.ffn_size)?,
            };
            layers.push((attention, mlp));
        }
        let embedding = loader.matrix(gguf, "token_embd.weight", config.n_vocab, hidden)?;
        let output_norm = loader.vector(gguf, "output_norm.weight", hidden)?;
        let lm_head = match gguf.tensor("output.weight") {
            Some(_) => Some(loader.matrix(gguf, "output.weight", config.n_vocab, hidden)?),
            None => None,
        };
        Ok(Self { embedding, layers, output_norm, lm_head })
    }
}

impl<A: Arm> Decoder<A> {
    /// A decoder that runs `weights` on `arm`.
    pub fn new(arm: A, weights: Weights<A>) -> Self {
        Self { arm, weights, times: Times::default() }
    }
}

impl<A: Arm> Forward for Decoder<A> {
    fn forward(&mut self, batch: &Batch, on_logits: &mut dyn FnMut(usize, &mut [f32])) -> Result<(), Error> {
        let Self { arm, weights: Weights { embedding, layers, output_norm, lm_head }, times } = self;
        let mut laps = Laps::start(times);
        arm.embed(embedding, batch)?; // residual (m, hidden)
        laps.end(Part::Embed);
        for (idx, (attention, mlp)) in layers.iter().enumerate() {
            arm.project_qkv(attention)?; // q (m, n_heads, head_dim), k (m, n_kv_heads, head_dim), v (m, n_kv_heads, v_head_dim)
            laps.end(Part::Qkv);
            arm.append_kv(idx, batch)?;
            laps.end(Part::AppendKv);
            arm.attend(idx, batch)?; // mixed (m, n_heads * v_head_dim)
            laps.end(Part::Attention);
            arm.add_projection(&attention.o_proj)?; // residual += mixed · Woᵀ
            laps.end(Part::OutProjection);
            arm.gate_up(mlp)?; // mixed (m, ffn)
            laps.end(Part::GateUp);
            arm.add_projection(&mlp.down_proj)?; // residual += mixed · Wdownᵀ
            laps.end(Part::Down);
        }
        arm.logits(output_norm, lm_head.as_ref().unwrap_or(embedding), batch, on_logits)?; // (n_outputs, n_vocab)
        laps.end(Part::Head);
        Ok(())
    }

    fn copy_kv(&mut self, from: u32, to: u32, positions: usize) -> Result<(), Error> {
        self.arm.copy_kv(from, to, positions)
    }

    fn set_threads(&mut self, threads: usize) {
        self.arm.set_threads(threads);
    }

    fn max_rows(&self) -> usize {
        self.arm.max_rows()
    }

    fn take_times(&mut self) -> Times {
        std::mem::take(&mut self.times)
    }
}
