//! What the files of a sentence-embedding folder say: shape, modules, limits. Weights and tokenizer are not read here.
//!
//! The layout is that of sentence-transformers: `modules.json` lists a Transformer (`config.json`, `sentence_bert_config.json`), a
//! Pooling (`1_Pooling/config.json`) and perhaps a Normalize.

use std::path::{Component, Path, PathBuf};

use candle_transformers::models::bert::{Config, HiddenAct, PositionEmbeddingType};
use serde_json::Value;

use super::json::{FolderError, Json};
use super::pooling::Pooling;
use crate::error::Error;

/// Model types of `config.json` that are computed, and whether their positions begin behind the padding's id, as RoBERTa's do.
const MODEL_TYPES: [(&str, bool); 4] = [("bert", false), ("roberta", true), ("xlm-roberta", true), ("camembert", true)];

/// Activations by the names of Hugging Face's configurations.
const ACTIVATIONS: [(&str, HiddenAct); 5] = [
    ("gelu", HiddenAct::Gelu),
    ("gelu_new", HiddenAct::GeluApproximate),
    ("gelu_fast", HiddenAct::GeluApproximate),
    ("gelu_pytorch_tanh", HiddenAct::GeluApproximate),
    ("relu", HiddenAct::Relu),
];

/// A folder whose configuration was checked.
pub(crate) struct Folder {
    /// Where the Transformer's own files are: the folder itself, or one in it.
    pub transformer: PathBuf,
    /// `model_type`.
    pub model_type: &'static str,
    /// Shape and constants. `max_position_embeddings` counts the positions that texts can have.
    pub config: Config,
    /// Rows of the position table before the first position of a text.
    pub first_position: usize,
    /// How tokens become one vector; several results follow each other.
    pub pooling: Vec<Pooling>,
    /// Whether vectors are scaled to length 1.
    pub normalizes: bool,
    /// Tokens at which texts are cut; without it, a text that is longer than the position table is an error.
    pub max_seq_length: Option<usize>,
    /// Whether texts are lower-cased before they are tokenized.
    pub lower_cases: bool,
    /// What is put before every text.
    pub prompt: String,
}

impl Folder {
    /// Reads and checks the configuration of `folder`.
    ///
    /// # Errors
    /// A file is missing or no JSON, a value is out of range, or asks for something that is not computed here.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let Modules { transformer, pooling, normalizes } = Modules::read(folder)?;
        let json = Json::read(&transformer.join("config.json"))?;
        let (model_type, has_offset) = named(&json, "model type", json.optional_text("model_type")?.unwrap_or("none"), &MODEL_TYPES)?;
        let mut config = read_config(&json)?;
        let first_position = if has_offset { config.pad_token_id + 1 } else { 0 };
        config.max_position_embeddings = config
            .max_position_embeddings
            .checked_sub(first_position)
            .filter(|&positions| positions > 0)
            .ok_or_else(|| json.wrong("max_position_embeddings", config.max_position_embeddings, "more than `pad_token_id` + 1"))?;
        let limits = Json::read_optional(&transformer.join("sentence_bert_config.json"))?;
        let pooling = read_pooling(&Json::read(&pooling.join("config.json"))?, config.hidden_size)?;
        Ok(Self {
            max_seq_length: limits.optional_count("max_seq_length", 1..=1 << 24)?,
            lower_cases: limits.optional_switch("do_lower_case")?.unwrap_or(false),
            prompt: read_prompt(&Json::read_optional(&folder.join("config_sentence_transformers.json"))?)?,
            transformer,
            model_type,
            config,
            first_position,
            pooling,
            normalizes,
        })
    }

    /// Numbers of one vector.
    pub fn dimension(&self) -> usize {
        self.config.hidden_size * self.pooling.len()
    }
}

/// What `modules.json` lists.
struct Modules {
    transformer: PathBuf,
    pooling: PathBuf,
    normalizes: bool,
}

impl Modules {
    fn read(folder: &Path) -> Result<Self, Error> {
        let json = Json::read(&folder.join("modules.json"))?;
        let wrong = |found: String| FolderError::corrupt(json.file(), "the list", found, "modules with `type` and `path`");
        let list = json.value().as_array().ok_or_else(|| wrong("no list".into()))?;
        let mut modules = Vec::new();
        for module in list.iter().take(16) {
            let text = |key: &str| module.get(key).and_then(Value::as_str);
            let (Some(ty), Some(path)) = (text("type"), text("path")) else { return Err(wrong(module.to_string()).into()) };
            if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(wrong(format!("the path `{path}`")).into());
            }
            modules.push((ty.rsplit('.').next().unwrap_or(ty), folder.join(path)));
        }
        let names: Vec<&str> = modules.iter().map(|(name, _)| *name).collect();
        let normalizes = match names.as_slice() {
            ["Transformer", "Pooling"] => false,
            ["Transformer", "Pooling", "Normalize"] => true,
            _ => {
                return Err(FolderError::Unsupported {
                    file: json.file().to_owned(),
                    what: "the list of modules",
                    found: names.join(", "),
                    known: "Transformer, Pooling and then perhaps Normalize".into(),
                }
                .into());
            }
        };
        let mut paths = modules.into_iter().map(|(_, path)| path);
        let (Some(transformer), Some(pooling)) = (paths.next(), paths.next()) else { return Err(wrong("no modules".into()).into()) };
        Ok(Self { transformer, pooling, normalizes })
    }
}

/// The entry of `known` that the file names.
fn named<T: Copy>(json: &Json, what: &'static str, found: &str, known: &[(&'static str, T)]) -> Result<(&'static str, T), Error> {
    known.iter().find(|(name, _)| *name == found).copied().ok_or_else(|| {
        let known: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        FolderError::Unsupported { file: json.file().to_owned(), what, found: format!("`{found}`"), known: known.join(", ") }.into()
    })
}

fn read_config(json: &Json) -> Result<Config, Error> {
    let hidden_size = json.count("hidden_size", 1..=1 << 16)?;
    let num_attention_heads = json.count("num_attention_heads", 1..=hidden_size)?;
    if hidden_size % num_attention_heads != 0 {
        return Err(json.wrong("num_attention_heads", num_attention_heads, &format!("a divisor of the hidden size {hidden_size}")));
    }
    let layer_norm_eps = json.optional_number("layer_norm_eps")?.unwrap_or(1e-12);
    if !(layer_norm_eps > 0.0 && layer_norm_eps < 1.0) {
        return Err(json.wrong("layer_norm_eps", layer_norm_eps, "a number between 0 and 1"));
    }
    let vocab_size = json.count("vocab_size", 1..=1 << 24)?;
    let positions = json.optional_text("position_embedding_type")?.unwrap_or("absolute");
    named(json, "position embedding", positions, &[("absolute", ())])?;
    let (_, hidden_act) = named(json, "activation", json.optional_text("hidden_act")?.unwrap_or("gelu"), &ACTIVATIONS)?;
    Ok(Config {
        vocab_size,
        hidden_size,
        num_hidden_layers: json.count("num_hidden_layers", 1..=1024)?,
        num_attention_heads,
        intermediate_size: json.count("intermediate_size", 1..=1 << 20)?,
        hidden_act,
        max_position_embeddings: json.count("max_position_embeddings", 1..=1 << 20)?,
        type_vocab_size: json.count("type_vocab_size", 1..=1 << 16)?,
        layer_norm_eps,
        pad_token_id: json.optional_count("pad_token_id", 0..=vocab_size - 1)?.unwrap_or(0),
        position_embedding_type: PositionEmbeddingType::Absolute,
        // What follows serves training alone, or other models of that crate.
        hidden_dropout_prob: 0.0,
        initializer_range: 0.0,
        use_cache: false,
        classifier_dropout: None,
        model_type: None,
    })
}

fn read_pooling(json: &Json, hidden_size: usize) -> Result<Vec<Pooling>, Error> {
    for key in ["word_embedding_dimension", "embedding_dimension"] {
        if let Some(found) = json.optional_count(key, 1..=usize::MAX)?.filter(|&found| found != hidden_size) {
            return Err(json.wrong(key, found, &format!("the hidden size {hidden_size}")));
        }
    }
    if json.optional_switch("include_prompt")? == Some(false) {
        return Err(FolderError::Unsupported {
            file: json.file().to_owned(),
            what: "pooling",
            found: "without the prompt".into(),
            known: "pooling over all tokens".into(),
        }
        .into());
    }
    let words: Vec<&str> = match json.get("pooling_mode") {
        Some(Value::String(word)) => vec![word],
        Some(Value::Array(words)) => words.iter().map(|word| word.as_str().unwrap_or("something else")).collect(),
        Some(other) => return Err(json.wrong("pooling_mode", other, "a name or a list of names")),
        None => {
            let mut words = Vec::new();
            for (_, switch, word) in Pooling::ALL {
                if json.optional_switch(switch)? == Some(true) {
                    words.push(word);
                }
            }
            if words.is_empty() { vec!["mean"] } else { words }
        }
    };
    let known = Pooling::ALL.map(|(pooling, _, word)| (word, pooling));
    if words.is_empty() || words.len() > known.len() {
        return Err(json.wrong("pooling_mode", format!("{} names", words.len()), "one or more names"));
    }
    words.into_iter().map(|word| named(json, "pooling", word, &known).map(|(_, pooling)| pooling)).collect()
}

/// The prompt that is used where none is asked for.
fn read_prompt(json: &Json) -> Result<String, Error> {
    let Some(name) = json.optional_text("default_prompt_name")? else { return Ok(String::new()) };
    let prompt = json.get("prompts").and_then(|prompts| prompts.get(name)).and_then(Value::as_str);
    prompt.map(str::to_owned).ok_or_else(|| json.wrong("default_prompt_name", name, "the name of one of `prompts`"))
}
