//! The shape and the numeric constants of one decoder, read from GGUF metadata and checked before anything is allocated.

use downshift_kernels::rope::{InvalidRope, Rope, RopeKind, RopeParams, Yarn};

use crate::error::Error;
use crate::models::architectures::{self, Architecture};
use crate::weights::Metadata;

/// What the forward pass needs to know beside the weights. Every value was checked: no zero, no overflow, no contradiction.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// The row of the architecture table.
    pub architecture: &'static Architecture,
    /// Transformer layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one query or key head.
    pub head_dim: usize,
    /// Width of one value head.
    pub v_head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn_size: usize,
    /// Entries of the vocabulary, as the embedding has rows.
    pub n_vocab: usize,
    /// Positions the model was trained for.
    pub context_train: u32,
    /// Epsilon of the RMS norms.
    pub norm_eps: f32,
    /// Factor on query-key products.
    pub attention_scale: f32,
    /// Rotary position embedding.
    pub rope: RopeConfig,
}

/// How positions rotate queries and keys.
#[derive(Clone, Debug)]
pub struct RopeConfig {
    /// Which components form a pair.
    pub kind: RopeKind,
    /// Rotated components of a head; even, at most `head_dim`.
    pub dim: usize,
    /// Base of the frequencies.
    pub theta: f32,
    /// Factor on positions: 1 without scaling, 1/4 for a file that stretches its context fourfold.
    pub freq_scale: f32,
    /// Factor on cosines and sines.
    pub attn_factor: f32,
    /// Stretch low frequencies only, as YaRN does.
    pub yarn: Option<Yarn>,
}

impl RopeConfig {
    /// The frequencies, divided by the `freq_factors` of files that have them.
    ///
    /// # Errors
    /// Factors of another number than pairs, or values that define no rotation.
    pub fn frequencies(&self, freq_factors: Option<&[f32]>) -> Result<Rope, InvalidRope> {
        Rope::new(&RopeParams {
            kind: self.kind,
            rotary_dim: self.dim,
            base: self.theta,
            freq_scale: self.freq_scale,
            freq_factors,
            attn_factor: self.attn_factor,
            yarn: self.yarn,
        })
    }
}

const MAX_LAYERS: u64 = 4096;
const MAX_WIDTH: u64 = 1 << 20;
const MAX_HEAD_DIM: u64 = 1024;

impl ModelConfig {
    /// Reads the keys of the file's architecture; `n_vocab` is the number of rows of the embedding.
    ///
    /// # Errors
    /// [`Error::UnsupportedArchitecture`]; [`Error::Key`] for a key that is missing, of another type, or out of range.
    pub fn from_metadata(metadata: &Metadata, n_vocab: usize) -> Result<Self, Error> {
        let name = metadata.string("general.architecture")?.ok_or_else(|| missing("general.architecture"))?;
        let architecture = architectures::find(name)?;
        let keys = Keys { metadata, arch: name };

        let hidden_size = keys.required("embedding_length", 1..=MAX_WIDTH)?;
        let n_heads = keys.required("attention.head_count", 1..=MAX_WIDTH)?;
        let n_kv_heads = keys.optional("attention.head_count_kv", 1..=MAX_WIDTH)?.unwrap_or(n_heads);
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(keys.wrong("attention.head_count_kv", n_kv_heads, format!("a divisor of the {n_heads} heads")));
        }
        let head_dim = match keys.optional("attention.key_length", 1..=MAX_HEAD_DIM)? {
            Some(length) => length,
            None if hidden_size.is_multiple_of(n_heads) && hidden_size / n_heads <= MAX_HEAD_DIM as usize => hidden_size / n_heads,
            None => return Err(keys.wrong("attention.head_count", n_heads, format!("a divisor of embedding_length {hidden_size}"))),
        };
        if !head_dim.is_multiple_of(2) {
            return Err(keys.wrong("attention.key_length", head_dim, "an even number".into()));
        }
        let v_head_dim = keys.optional("attention.value_length", 1..=MAX_HEAD_DIM)?.unwrap_or(head_dim);
        let rope_dim = keys.optional("rope.dimension_count", 1..=MAX_HEAD_DIM)?.unwrap_or(head_dim);
        if rope_dim > head_dim || !rope_dim.is_multiple_of(2) {
            return Err(keys.wrong("rope.dimension_count", rope_dim, format!("an even number of at most {head_dim}")));
        }
        let context_train = keys.required("context_length", 1..=u64::from(u32::MAX / 2))? as u32;

        Ok(Self {
            architecture,
            n_layers: keys.required("block_count", 1..=MAX_LAYERS)?,
            hidden_size,
            n_heads,
            n_kv_heads,
            head_dim,
            v_head_dim,
            ffn_size: keys.required("feed_forward_length", 1..=MAX_WIDTH)?,
            n_vocab,
            context_train,
            norm_eps: keys.positive("attention.layer_norm_rms_epsilon")?.ok_or_else(|| keys.missing("attention.layer_norm_rms_epsilon"))?,
            attention_scale: keys.positive("attention.scale")?.unwrap_or(1.0 / (head_dim as f32).sqrt()),
            rope: rope_config(&keys, architecture.rope, rope_dim, context_train)?,
        })
    }

    /// Width of all query heads.
    pub fn q_size(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key heads.
    pub fn k_size(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Width of all value heads.
    pub fn v_size(&self) -> usize {
        self.n_kv_heads * self.v_head_dim
    }
}

fn rope_config(keys: &Keys<'_>, kind: RopeKind, dim: usize, context_train: u32) -> Result<RopeConfig, Error> {
    let factor = match keys.positive("rope.scaling.factor")? {
        Some(factor) => factor,
        None => keys.positive("rope.scale_linear")?.unwrap_or(1.0),
    };
    let mut rope = RopeConfig {
        kind,
        dim,
        theta: keys.positive("rope.freq_base")?.unwrap_or(10_000.0),
        freq_scale: 1.0 / factor,
        attn_factor: keys.positive("rope.scaling.attn_factor")?.unwrap_or(1.0),
        yarn: None,
    };
    match keys.metadata.string(&keys.name("rope.scaling.type"))? {
        Some("none") => rope.freq_scale = 1.0,
        None | Some("linear") => {}
        Some("yarn") => {
            let original_context = keys.optional("rope.scaling.original_context_length", 1..=u64::from(u32::MAX))?;
            rope.yarn = Some(Yarn {
                ext_factor: keys.positive("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0),
                beta_fast: keys.positive("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: keys.positive("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                original_context: original_context.unwrap_or(context_train as usize),
            });
        }
        Some(other) => return Err(keys.wrong("rope.scaling.type", other, "none, linear or yarn".into())),
    }
    Ok(rope)
}

/// Reads of one architecture's keys.
struct Keys<'a> {
    metadata: &'a Metadata,
    arch: &'a str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    fn optional(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<usize>, Error> {
        let Some(found) = self.metadata.uint(&self.name(key))? else { return Ok(None) };
        if !range.contains(&found) {
            return Err(self.wrong(key, found, format!("{} to {}", range.start(), range.end())));
        }
        Ok(Some(found as usize))
    }

    fn required(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<usize, Error> {
        self.optional(key, range)?.ok_or_else(|| self.missing(key))
    }

    fn positive(&self, key: &str) -> Result<Option<f32>, Error> {
        let Some(found) = self.metadata.float(&self.name(key))? else { return Ok(None) };
        if !(found.is_finite() && found > 0.0) {
            return Err(self.wrong(key, found, "a positive finite number".into()));
        }
        Ok(Some(found))
    }

    fn missing(&self, key: &str) -> Error {
        missing(&self.name(key))
    }

    fn wrong(&self, key: &str, found: impl ToString, expected: String) -> Error {
        Error::Key { key: self.name(key), found: found.to_string(), expected }
    }
}

fn missing(key: &str) -> Error {
    Error::Key { key: key.to_owned(), found: "nothing".into(), expected: "a value".into() }
}
