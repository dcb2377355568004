//! A whole model of a few hundred kilobytes: random weights, byte-level BPE and a ChatML template.

use super::corrupt::Rng;
use super::{GgufWriter, Stored};

/// ChatML as most models spell it.
const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' \
    + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Left and right halves, in the order in which they were learned; `Ġ` is a space.
const MERGES: [(&str, &str); 24] = [
    ("h", "e"),
    ("i", "n"),
    ("Ġ", "t"),
    ("o", "r"),
    ("l", "l"),
    ("e", "r"),
    ("Ġt", "he"),
    ("he", "ll"),
    ("hell", "o"),
    ("Ġ", "w"),
    ("or", "l"),
    ("Ġw", "orl"),
    ("Ġworl", "d"),
    ("in", "g"),
    ("Ġ", "a"),
    ("a", "n"),
    ("n", "d"),
    ("Ġa", "nd"),
    ("u", "s"),
    ("us", "er"),
    ("Ġ", "Ġ"),
    ("ĠĠ", "ĠĠ"),
    ("1", "2"),
    ("12", "3"),
];

const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// The shape of a tiny model. Rows of quantized tensors must be whole blocks.
#[derive(Debug, Clone)]
pub struct TinyModel {
    /// `llama`, `qwen2` or `qwen3`.
    pub architecture: &'static str,
    /// Decides every weight.
    pub seed: u64,
    /// Type of the matrices; norms and biases are F32.
    pub stored: Stored,
    /// Width of the residual stream.
    pub hidden_size: u64,
    /// Number of layers.
    pub n_layers: u32,
    /// Number of query heads.
    pub num_heads: u64,
    /// Number of key and value heads.
    pub num_kv_heads: u64,
    /// Width of a head.
    pub head_dim: u64,
    /// Width of the feed-forward layer.
    pub ffn_size: u64,
    /// Positions it claims to be trained for.
    pub context_len: u32,
    /// Further tokens behind the usual ones, with their types as `tokenizer.ggml.token_type` numbers them.
    pub added_tokens: Vec<(&'static str, i32)>,
}

impl Default for TinyModel {
    fn default() -> Self {
        Self {
            architecture: "llama",
            seed: 0,
            stored: Stored::F32,
            hidden_size: 64,
            n_layers: 2,
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 16,
            ffn_size: 128,
            context_len: 512,
            added_tokens: Vec::new(),
        }
    }
}

/// A tiny model as a GGUF file: `llama`, `qwen2` or `qwen3`, with matrices of any type.
pub fn tiny_model(architecture: &'static str, seed: u64, stored: Stored) -> Vec<u8> {
    TinyModel::of(architecture, seed, stored).writer().finish()
}

impl TinyModel {
    /// The default shape, or the least one that rows of this type allow.
    pub fn of(architecture: &'static str, seed: u64, stored: Stored) -> Self {
        let small = Self { architecture, seed, stored, ..Self::default() };
        match stored.block_len() {
            256 => Self { hidden_size: 256, num_heads: 4, head_dim: 64, ffn_size: 256, ..small },
            _ => small,
        }
    }

    /// The file before it is finished, so that a test can add to it.
    pub fn writer(&self) -> GgufWriter {
        let key = |name: &str| format!("{}.{name}", self.architecture);
        let mut vocab = vocabulary();
        let n_usual = vocab.len();
        vocab.extend(self.added_tokens.iter().map(|(token, _)| (*token).to_owned()));
        let writer = GgufWriter::new(self.architecture)
            .string("general.name", format!("tiny {}", self.architecture))
            .u32(&key("context_length"), self.context_len)
            .u32(&key("embedding_length"), self.hidden_size as u32)
            .u32(&key("block_count"), self.n_layers)
            .u32(&key("feed_forward_length"), self.ffn_size as u32)
            .u32(&key("attention.head_count"), self.num_heads as u32)
            .u32(&key("attention.head_count_kv"), self.num_kv_heads as u32)
            .u32(&key("attention.key_length"), self.head_dim as u32)
            .u32(&key("attention.value_length"), self.head_dim as u32)
            .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
            .u32(&key("rope.dimension_count"), self.head_dim as u32)
            .f32(&key("rope.freq_base"), 10_000.0);
        let added: Vec<i32> = self.added_tokens.iter().map(|(_, kind)| *kind).collect();
        self.tensors(vocab_keys(writer, self.architecture, &vocab, n_usual, &added), vocab.len() as u64)
    }

    fn tensors(&self, writer: GgufWriter, n_vocab: u64) -> GgufWriter {
        let mut weights = Weights { writer, rng: Rng::new(self.seed), stored: self.stored };
        let (hidden, ffn) = (self.hidden_size, self.ffn_size);
        let q_size = self.num_heads * self.head_dim;
        let kv_size = self.num_kv_heads * self.head_dim;
        weights.matrix("token_embd.weight", hidden, n_vocab);
        weights.vector("output_norm.weight", hidden, 1.0);
        // The Qwen models of this size use the embedding as output.
        if self.architecture == "llama" {
            weights.matrix("output.weight", hidden, n_vocab);
        }
        for layer_idx in 0..self.n_layers {
            let name = |tensor: &str| format!("blk.{layer_idx}.{tensor}");
            weights.vector(&name("attn_norm.weight"), hidden, 1.0);
            weights.matrix(&name("attn_q.weight"), hidden, q_size);
            weights.matrix(&name("attn_k.weight"), hidden, kv_size);
            weights.matrix(&name("attn_v.weight"), hidden, kv_size);
            weights.matrix(&name("attn_output.weight"), q_size, hidden);
            if self.architecture == "qwen2" {
                weights.vector(&name("attn_q.bias"), q_size, 0.0);
                weights.vector(&name("attn_k.bias"), kv_size, 0.0);
                weights.vector(&name("attn_v.bias"), kv_size, 0.0);
            }
            if self.architecture == "qwen3" {
                weights.vector(&name("attn_q_norm.weight"), self.head_dim, 1.0);
                weights.vector(&name("attn_k_norm.weight"), self.head_dim, 1.0);
            }
            weights.vector(&name("ffn_norm.weight"), hidden, 1.0);
            weights.matrix(&name("ffn_gate.weight"), hidden, ffn);
            weights.matrix(&name("ffn_up.weight"), hidden, ffn);
            weights.matrix(&name("ffn_down.weight"), ffn, hidden);
        }
        weights.writer
    }
}

struct Weights {
    writer: GgufWriter,
    rng: Rng,
    stored: Stored,
}

impl Weights {
    /// `rows` rows of `row_len` numbers, scaled so that a product keeps the size of its input.
    fn matrix(&mut self, name: &str, row_len: u64, rows: u64) {
        let std = 1.0 / (row_len as f32).sqrt();
        let values: Vec<f32> = (0..row_len * rows).map(|_| std * self.rng.normal()).collect();
        self.add(name, &[row_len, rows], self.stored, &values);
    }

    fn vector(&mut self, name: &str, len: u64, mean: f32) {
        let values: Vec<f32> = (0..len).map(|_| mean + 0.05 * self.rng.normal()).collect();
        self.add(name, &[len], Stored::F32, &values);
    }

    fn add(&mut self, name: &str, dims: &[u64], stored: Stored, values: &[f32]) {
        let writer = std::mem::take(&mut self.writer);
        self.writer = writer.tensor(name, dims, stored, values);
    }
}

/// The 256 bytes, then the results of the merges, then the special tokens.
fn vocabulary() -> Vec<String> {
    let bytes = (0..=255u8).map(|byte| byte_char(byte).to_string());
    let merged = MERGES.iter().map(|(left, right)| format!("{left}{right}"));
    bytes.chain(merged).chain(SPECIAL.map(str::to_owned)).collect()
}

/// The printable character that stands for a byte in byte-level BPE, as GPT-2 chose them: itself
/// where it is printable in Latin-1, else the next free one from U+0100 on.
fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..);
    if printable(byte) {
        return char::from(byte);
    }
    let place = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(0x100 + place).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn vocab_keys(writer: GgufWriter, architecture: &str, vocab: &[String], n_usual: usize, added: &[i32]) -> GgufWriter {
    const NORMAL: i32 = 1;
    const CONTROL: i32 = 3;
    let first_special = n_usual - SPECIAL.len();
    let usual = (0..n_usual).map(|id| if id < first_special { NORMAL } else { CONTROL });
    let types: Vec<i32> = usual.chain(added.iter().copied()).collect();
    let merges = MERGES.map(|(left, right)| format!("{left} {right}"));
    let pre = if architecture == "llama" { "gpt-2" } else { "qwen2" };
    writer
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", pre)
        .strings("tokenizer.ggml.tokens", vocab)
        .i32s("tokenizer.ggml.token_type", &types)
        .strings("tokenizer.ggml.merges", &merges)
        .u32("tokenizer.ggml.bos_token_id", first_special as u32)
        .u32("tokenizer.ggml.eos_token_id", first_special as u32 + 2)
        .u32("tokenizer.ggml.padding_token_id", first_special as u32)
        .boolean("tokenizer.ggml.add_bos_token", false)
        .string("tokenizer.chat_template", TEMPLATE)
}
