//! One data-driven transformer decoder. Names only layers; how a layer runs is the arm's business.
//!
//! Pre-norm decoder of Llama (Touvron et al. 2023, arXiv:2302.13971) with grouped-query attention; the differences between
//! architectures are optional tensors and the fields of [`ModelConfig`].

use crate::error::Error;
use crate::layers::Arm;
use crate::model_config::ModelConfig;
use crate::models::Batch;
use crate::weights::Gguf;

/// `y = x · Wᵀ + b`.
pub struct Linear<A: Arm> {
    /// `(out, in)`.
    pub weight: A::Matrix,
    /// `(out)`.
    pub bias: Option<A::Vector>,
}

/// Everything between the residual stream and itself that mixes positions.
pub struct AttentionBlock<A: Arm> {
    /// Before the projections, `(hidden)`.
    pub norm: A::Vector,
    /// `(n_heads * head_dim, hidden)`.
    pub q_proj: Linear<A>,
    /// `(n_kv_heads * head_dim, hidden)`.
    pub k_proj: Linear<A>,
    /// `(n_kv_heads * v_head_dim, hidden)`.
    pub v_proj: Linear<A>,
    /// Over each query head, `(head_dim)`.
    pub q_norm: Option<A::Vector>,
    /// Over each key head, `(head_dim)`.
    pub k_norm: Option<A::Vector>,
    /// `(hidden, n_heads * v_head_dim)`.
    pub o_proj: Linear<A>,
}

/// The gated feed-forward layer, `down(silu(gate(x)) * up(x))`.
pub struct Mlp<A: Arm> {
    /// Before the projections, `(hidden)`.
    pub norm: A::Vector,
    /// `(ffn, hidden)`.
    pub gate_proj: A::Matrix,
    /// `(ffn, hidden)`.
    pub up_proj: A::Matrix,
    /// `(hidden, ffn)`.
    pub down_proj: Linear<A>,
}

/// The weights of one model on one arm.
pub struct Decoder<A: Arm> {
    arm: A,
    embedding: A::Matrix,
    layers: Vec<(AttentionBlock<A>, Mlp<A>)>,
    output_norm: A::Vector,
    lm_head: Option<A::Matrix>,
}

/// A loaded model, whatever its arm.
pub trait Forward: Send {
    /// Runs every row of `batch` through the model, writing keys and values into the batch's blocks. Logits of the rows that
    /// ask are handed to `on_logits` as (index among the asking rows, logits `(n_vocab)`), in order.
    ///
    /// # Errors
    /// A device error. The KV pool stays usable; the batch's own positions are undefined.
    fn forward(&mut self, batch: &Batch, on_logits: &mut dyn FnMut(usize, &mut [f32])) -> Result<(), Error>;

    /// How many cores the next step may use.
    fn set_threads(&mut self, threads: usize);

    /// Most rows of one batch.
    fn max_rows(&self) -> usize;
}

impl<A: Arm> Decoder<A> {
    /// Takes the weights that `config` calls for.
    ///
    /// # Errors
    /// [`Error::Tensor`] where one is missing or has another shape; [`Error::UnsupportedType`] for its element type.
    pub fn load(arm: A, gguf: &Gguf, config: &ModelConfig) -> Result<Self, Error> {
        let hidden = config.hidden_size;
        let linear = |name: String, rows, cols| {
            let weight = arm.matrix(gguf, &format!("{name}.weight"), rows, cols)?;
            let bias = arm.vector_if_present(gguf, &format!("{name}.bias"), rows)?;
            Ok::<_, Error>(Linear { weight, bias })
        };
        let head_norm = |name: String| match config.architecture.qk_norm {
            true => arm.vector(gguf, &name, config.head_dim).map(Some),
            false => Ok(None),
        };
        let mut layers = Vec::new();
        for idx in 0..config.n_layers {
            let attention = AttentionBlock {
                norm: arm.vector(gguf, &format!("blk.{idx}.attn_norm.weight"), hidden)?,
                q_proj: linear(format!("blk.{idx}.attn_q"), config.q_size(), hidden)?,
                k_proj: linear(format!("blk.{idx}.attn_k"), config.k_size(), hidden)?,
                v_proj: linear(format!("blk.{idx}.attn_v"), config.v_size(), hidden)?,
                q_norm: head_norm(format!("blk.{idx}.attn_q_norm.weight"))?,
                k_norm: head_norm(format!("blk.{idx}.attn_k_norm.weight"))?,
                o_proj: linear(format!("blk.{idx}.attn_output"), hidden, config.n_heads * config.v_head_dim)?,
            };
            let mlp = Mlp {
                norm: arm.vector(gguf, &format!("blk.{idx}.ffn_norm.weight"), hidden)?,
                gate_proj: arm.matrix(gguf, &format!("blk.{idx}.ffn_gate.weight"), config.ffn_size, hidden)?,
                up_proj: arm.matrix(gguf, &format!("blk.{idx}.ffn_up.weight"), config.ffn_size, hidden)?,
                down_proj: linear(format!("blk.{idx}.ffn_down"), hidden, config.ffn_size)?,
            };
            layers.push((attention, mlp));
        }
        let embedding = arm.matrix(gguf, "token_embd.weight", config.n_vocab, hidden)?;
        let output_norm = arm.vector(gguf, "output_norm.weight", hidden)?;
        let lm_head = match gguf.tensor("output.weight") {
            Some(_) => Some(arm.matrix(gguf, "output.weight", config.n_vocab, hidden)?),
            None => None,
        };
        Ok(Self { arm, embedding, layers, output_norm, lm_head })
    }
}

impl<A: Arm> Forward for Decoder<A> {
    fn forward(&mut self, batch: &Batch, on_logits: &mut dyn FnMut(usize, &mut [f32])) -> Result<(), Error> {
        let Self { arm, embedding, layers, output_norm, lm_head } = self;
        arm.embed(embedding, batch)?; // residual (m, hidden)
        for (idx, (attention, mlp)) in layers.iter().enumerate() {
            arm.project_qkv(attention)?; // q (m, n_heads, head_dim), k (m, n_kv_heads, head_dim), v (m, n_kv_heads, v_head_dim)
            arm.append_kv(idx, batch)?;
            arm.attend(idx, batch)?; // mixed (m, n_heads * v_head_dim)
            arm.add_projection(&attention.o_proj)?; // residual += mixed · Woᵀ
            arm.gate_up(mlp)?; // mixed (m, ffn)
            arm.add_projection(&mlp.down_proj)?; // residual += mixed · Wdownᵀ
        }
        arm.logits(output_norm, lm_head.as_ref().unwrap_or(embedding), batch, on_logits) // (n_outputs, n_vocab)
    }

    fn set_threads(&mut self, threads: usize) {
        self.arm.set_threads(threads);
    }

    fn max_rows(&self) -> usize {
        self.arm.max_rows()
    }
}
