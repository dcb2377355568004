//! The forward pass of BERT through candle-transformers, for batches of texts of similar length.
//!
//! Owns the names and shapes of the tensors, and how texts are put into batches. RoBERTa and its relatives are BERT whose
//! positions begin behind the padding's id, so their position table is read without the rows before.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};

use super::folder::Folder;
use super::pooling::{Pooling, normalize};
use crate::error::Error;
use crate::weights::Safetensors;

/// Tokens of one batch, padding included; a longer text is a batch by itself. More cost memory, and each batch is a sign of
/// progress for whoever watches.
const BATCH_TOKENS: usize = 512;
/// Where the same model has been saved as part of a larger one.
const PREFIXES: [&str; 4] = ["", "bert.", "roberta.", "model."];
/// Older files have other names for the parameters of a norm.
const OLD_NAMES: [(&str, &str); 2] = [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")];
const POSITIONS: &str = "embeddings.position_embeddings.weight";

/// The tensors that a model needs, found in its files.
pub(crate) struct Tensors {
    found: Vec<Found>,
    dtype: String,
}

struct Found {
    /// Its name in the model.
    name: String,
    /// Its name in the file.
    stored: String,
    shape: Vec<usize>,
    /// Rows that are left out.
    skipped_rows: usize,
}

impl Tensors {
    /// Finds every tensor of the model, in the shape that its configuration calls for.
    ///
    /// # Errors
    /// One is missing, or has another shape or type.
    pub fn find(weights: &Safetensors, folder: &Folder) -> Result<Self, Error> {
        let first = "embeddings.word_embeddings.weight";
        let prefix = PREFIXES.into_iter().find(|prefix| weights.contains(&format!("{prefix}{first}"))).unwrap_or("");
        let mut found = Vec::new();
        let mut dtypes: HashMap<String, u64> = HashMap::new();
        for (name, shape) in shapes(&folder.config) {
            let mut stored = format!("{prefix}{name}");
            for (new, old) in OLD_NAMES {
                let older = stored.replace(new, old);
                if !weights.contains(&stored) && weights.contains(&older) {
                    stored = older;
                }
            }
            let skipped_rows = if name == POSITIONS { folder.first_position } else { 0 };
            let mut expected = shape.clone();
            expected[0] += skipped_rows;
            let (in_file, dtype) = weights.describe(&stored)?;
            if in_file != expected {
                return Err(Error::Tensor { name: stored, found: format!("shape {in_file:?}"), expected: format!("shape {expected:?}") });
            }
            *dtypes.entry(dtype).or_default() += in_file.iter().product::<usize>() as u64;
            found.push(Found { name, stored, shape, skipped_rows });
        }
        let dtype = dtypes.into_iter().max_by_key(|(_, n_elements)| *n_elements).map(|(dtype, _)| dtype).unwrap_or_default();
        Ok(Self { found, dtype })
    }

    /// Weights, counted in elements.
    pub fn n_elements(&self) -> u64 {
        self.found.iter().map(|tensor| tensor.shape.iter().product::<usize>() as u64).sum()
    }

    /// The element type of most of them.
    pub fn dtype(&self) -> &str {
        &self.dtype
    }

    /// Reads them all, as f32 by their names in the model.
    ///
    /// # Errors
    /// As [`Safetensors::read`]; a device error.
    pub fn read(
        &self,
        weights: &Safetensors,
        device: &Device,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<HashMap<String, Tensor>, Error> {
        let total = 4 * self.n_elements();
        let mut done = 0;
        let mut tensors = HashMap::new();
        for Found { name, stored, shape, skipped_rows } in &self.found {
            let mut values = weights.read(stored)?;
            if *skipped_rows > 0 {
                let width: usize = shape[1..].iter().product();
                values.drain(..skipped_rows * width);
            }
            done += 4 * values.len() as u64;
            tensors.insert(name.clone(), Tensor::from_vec(values, shape.as_slice(), device)?);
            progress(done, total);
        }
        Ok(tensors)
    }
}

/// Names and shapes of BERT's tensors, as Hugging Face stores them: a matrix is (out, in).
fn shapes(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let norm = |name: &str| ["weight", "bias"].map(|part| (format!("{name}.LayerNorm.{part}"), vec![hidden])).to_vec();
    let dense = |name: String, out: usize, of: usize| vec![(format!("{name}.weight"), vec![out, of]), (format!("{name}.bias"), vec![out])];
    let mut all = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![config.vocab_size, hidden]),
        (POSITIONS.to_owned(), vec![config.max_position_embeddings, hidden]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![config.type_vocab_size, hidden]),
    ];
    all.extend(norm("embeddings"));
    for layer in 0..config.num_hidden_layers {
        let layer = format!("encoder.layer.{layer}");
        for part in ["query", "key", "value"] {
            all.extend(dense(format!("{layer}.attention.self.{part}"), hidden, hidden));
        }
        all.extend(dense(format!("{layer}.attention.output.dense"), hidden, hidden));
        all.extend(norm(&format!("{layer}.attention.output")));
        all.extend(dense(format!("{layer}.intermediate.dense"), inner, hidden));
        all.extend(dense(format!("{layer}.output.dense"), hidden, inner));
        all.extend(norm(&format!("{layer}.output")));
    }
    all
}

/// A loaded model.
pub(crate) struct Encoder {
    model: BertModel,
    hidden_size: usize,
    pad_token_id: u32,
    pooling: Vec<Pooling>,
    normalizes: bool,
}

impl Encoder {
    /// A model of these weights.
    ///
    /// # Errors
    /// A device error.
    pub fn new(weights: VarBuilder<'_>, folder: &Folder) -> Result<Self, Error> {
        Ok(Self {
            model: BertModel::load(weights, &folder.config)?,
            hidden_size: folder.config.hidden_size,
            pad_token_id: folder.config.pad_token_id as u32,
            pooling: folder.pooling.clone(),
            normalizes: folder.normalizes,
        })
    }

    /// Bytes of the activations of the largest batch: scores, their softmax and its operands, and what a layer holds of a token.
    pub fn scratch_bytes(config: &Config, limit: usize) -> u64 {
        let n_texts = (BATCH_TOKENS / limit).max(1) as u64;
        let (limit, heads) = (limit as u64, config.num_attention_heads as u64);
        let scores = n_texts.saturating_mul(heads).saturating_mul(limit.saturating_mul(limit));
        let token = 10 * config.hidden_size as u64 + 6 * config.intermediate_size as u64;
        let tokens = n_texts.saturating_mul(limit).max(BATCH_TOKENS as u64);
        scores.saturating_mul(6).saturating_add(tokens.saturating_mul(token)).saturating_mul(4)
    }

    /// Texts that are computed together, by their places in `lengths`: of similar length, so that little is padded.
    pub fn batches(lengths: &[usize]) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&at| lengths[at]);
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for at in order {
            match batches.last_mut() {
                Some(batch) if (batch.len() + 1) * lengths[at] <= BATCH_TOKENS => batch.push(at),
                _ => batches.push(vec![at]),
            }
        }
        batches
    }

    /// One vector per text; none of them is empty, and all ids are of the vocabulary.
    ///
    /// # Errors
    /// [`Error::NonFiniteVector`], or a device error.
    pub fn encode(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, Error> {
        let (n_texts, longest) = (texts.len(), texts.iter().map(|ids| ids.len()).max().unwrap_or(0));
        let mut ids = Vec::with_capacity(n_texts * longest);
        let mut mask = Vec::with_capacity(n_texts * longest);
        for text in texts {
            let padding = longest - text.len();
            ids.extend(text.iter().copied().chain(std::iter::repeat_n(self.pad_token_id, padding)));
            mask.extend(std::iter::repeat_n(1f32, text.len()).chain(std::iter::repeat_n(0f32, padding)));
        }
        let ids = Tensor::from_vec(ids, (n_texts, longest), &self.model.device)?;
        let mask = Tensor::from_vec(mask, (n_texts, longest), &self.model.device)?;
        let hidden = self.model.forward(&ids, &ids.zeros_like()?, Some(&mask))?; // (texts, longest, hidden_size)
        let hidden = hidden.flatten_all()?.to_vec1::<f32>()?;
        let rows = hidden.chunks_exact(longest * self.hidden_size).zip(texts);
        rows.map(|(row, text)| self.pool(&row[..text.len() * self.hidden_size])).collect()
    }

    /// The vector of a text from those of its tokens `(t, hidden_size)`.
    fn pool(&self, tokens: &[f32]) -> Result<Vec<f32>, Error> {
        let mut vector = Vec::with_capacity(self.pooling.len() * self.hidden_size);
        for pooling in &self.pooling {
            pooling.pool(tokens, self.hidden_size, &mut vector);
        }
        if self.normalizes {
            normalize(&mut vector);
        }
        if vector.iter().all(|x| x.is_finite()) { Ok(vector) } else { Err(Error::NonFiniteVector) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_text_once_and_no_more_tokens_than_they_may() {
        let lengths = [3, 900, 3, 2000, 512, 512, 1, 600, 1024];
        let batches = Encoder::batches(&lengths);
        let mut all: Vec<usize> = batches.iter().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
        for batch in &batches {
            let longest = batch.iter().map(|&at| lengths[at]).max().unwrap();
            assert!(batch.len() == 1 || batch.len() * longest <= BATCH_TOKENS, "{batch:?}");
        }
        assert_eq!(batches[0], [6, 0, 2], "short texts share a batch");
    }
}
