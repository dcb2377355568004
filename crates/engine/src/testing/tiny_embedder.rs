//! A whole sentence-embedding folder of a few kilobytes: random weights and WordPiece over letters.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use serde_json::{Value, json};

use super::corrupt::Rng;

/// Width of the residual stream.
pub const HIDDEN_SIZE: usize = 16;
/// Number of heads.
pub const N_HEADS: usize = 2;
/// Number of layers.
pub const N_LAYERS: usize = 2;
/// Width of the feed-forward layer.
pub const INNER_SIZE: usize = 24;
/// Rows of the position table.
pub const N_POSITIONS: usize = 20;
/// Tokens at which texts are cut.
pub const MAX_SEQ_LENGTH: usize = 12;
/// The constant of the norms.
pub const NORM_EPS: f64 = 1e-12;

const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// A tensor of the folder: its shape, and its elements row by row.
#[derive(Debug, Clone)]
pub struct TinyTensor {
    /// Rows first.
    pub shape: Vec<usize>,
    /// As many as the shape says.
    pub values: Vec<f32>,
}

/// The parts of a tiny embedder, to be changed before they are written.
#[derive(Debug, Clone)]
pub struct TinyEmbedder {
    /// By the names of Hugging Face's BERT.
    pub tensors: BTreeMap<String, TinyTensor>,
    /// F32, F16 or BF16.
    pub dtype: &'static str,
    /// `config.json`.
    pub config: Value,
    /// `modules.json`.
    pub modules: Value,
    /// `1_Pooling/config.json`.
    pub pooling: Value,
    /// `sentence_bert_config.json`.
    pub limits: Value,
    /// `tokenizer.json`.
    pub tokenizer: Value,
}

impl TinyEmbedder {
    /// With weights that the seed decides; mean pooling, normalized.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let vocab = vocab();
        let mut tensors = BTreeMap::new();
        let mut add = |name: String, shape: &[usize], mean: f32| {
            let values = (0..shape.iter().product()).map(|_| mean + 0.3 * rng.normal()).collect();
            tensors.insert(name, TinyTensor { shape: shape.to_vec(), values });
        };
        add("embeddings.word_embeddings.weight".into(), &[vocab.len(), HIDDEN_SIZE], 0.0);
        add("embeddings.position_embeddings.weight".into(), &[N_POSITIONS, HIDDEN_SIZE], 0.0);
        add("embeddings.token_type_embeddings.weight".into(), &[2, HIDDEN_SIZE], 0.0);
        let mut norm = vec!["embeddings.LayerNorm".to_owned()];
        let mut dense = Vec::new();
        for layer in 0..N_LAYERS {
            let layer = format!("encoder.layer.{layer}");
            dense.extend(["query", "key", "value"].map(|part| (format!("{layer}.attention.self.{part}"), HIDDEN_SIZE, HIDDEN_SIZE)));
            dense.push((format!("{layer}.attention.output.dense"), HIDDEN_SIZE, HIDDEN_SIZE));
            dense.push((format!("{layer}.intermediate.dense"), INNER_SIZE, HIDDEN_SIZE));
            dense.push((format!("{layer}.output.dense"), HIDDEN_SIZE, INNER_SIZE));
            norm.extend([format!("{layer}.attention.output.LayerNorm"), format!("{layer}.output.LayerNorm")]);
        }
        for (name, out, of) in dense {
            add(format!("{name}.weight"), &[out, of], 0.0);
            add(format!("{name}.bias"), &[out], 0.0);
        }
        for name in norm {
            add(format!("{name}.weight"), &[HIDDEN_SIZE], 1.0);
            add(format!("{name}.bias"), &[HIDDEN_SIZE], 0.0);
        }
        let module = |at: usize, name: &str, path: &str| json!({"idx": at, "name": at.to_string(), "path": path, "type": format!("sentence_transformers.models.{name}")});
        Self {
            tensors,
            dtype: "F32",
            config: json!({
                "model_type": "bert", "vocab_size": vocab.len(), "hidden_size": HIDDEN_SIZE, "num_hidden_layers": N_LAYERS,
                "num_attention_heads": N_HEADS, "intermediate_size": INNER_SIZE, "hidden_act": "gelu",
                "max_position_embeddings": N_POSITIONS, "type_vocab_size": 2, "layer_norm_eps": NORM_EPS, "pad_token_id": 0,
            }),
            modules: json!([module(0, "Transformer", ""), module(1, "Pooling", "1_Pooling"), module(2, "Normalize", "2_Normalize")]),
            pooling: json!({"word_embedding_dimension": HIDDEN_SIZE, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}),
            limits: json!({"max_seq_length": MAX_SEQ_LENGTH, "do_lower_case": false}),
            tokenizer: tokenizer(&vocab),
        }
    }

    /// Writes the folder.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write(&self, folder: &Path) {
        let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("a file of the folder");
        fs::create_dir_all(folder.join("1_Pooling")).expect("a folder in the folder");
        write("config.json", self.config.to_string().as_bytes());
        write("modules.json", self.modules.to_string().as_bytes());
        write("1_Pooling/config.json", self.pooling.to_string().as_bytes());
        write("sentence_bert_config.json", self.limits.to_string().as_bytes());
        write("tokenizer.json", self.tokenizer.to_string().as_bytes());
        write("model.safetensors", &self.weights());
    }

    /// `model.safetensors`.
    pub fn weights(&self) -> Vec<u8> {
        let mut header = serde_json::Map::new();
        let mut data = Vec::new();
        for (name, tensor) in &self.tensors {
            let start = data.len();
            for &value in &tensor.values {
                match self.dtype {
                    "F16" => data.extend(f16::from_f32(value).to_le_bytes()),
                    "BF16" => data.extend(bf16::from_f32(value).to_le_bytes()),
                    _ => data.extend(value.to_le_bytes()),
                }
            }
            header.insert(name.clone(), json!({"dtype": self.dtype, "shape": tensor.shape, "data_offsets": [start, data.len()]}));
        }
        let header = Value::Object(header).to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
    }
}

/// Letters, as the start of a word and inside one, behind the special tokens.
fn vocab() -> Vec<String> {
    let letters = || 'a'..='z';
    let words = letters().map(String::from).chain(letters().map(|letter| format!("##{letter}")));
    SPECIAL.map(str::to_owned).into_iter().chain(words).collect()
}

fn tokenizer(vocab: &[String]) -> Value {
    let ids: serde_json::Map<String, Value> = vocab.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let added = SPECIAL.iter().enumerate().map(|(id, token)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
    });
    let special = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let frame = |token: &str| json!({"id": token, "ids": [ids[token]], "tokens": [token]});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, special("[SEP]")],
            "pair": [special("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, special("[SEP]"), {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": frame("[CLS]"), "[SEP]": frame("[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": ids},
    })
}
