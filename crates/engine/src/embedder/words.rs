//! Texts to token ids and back, through the folder's `tokenizer.json`.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokenizers::{Encoding, Token, Tokenizer, TruncationParams};

use super::json::{FolderError, read_bytes};
use crate::error::Error;

/// The largest known tokenizers have less than half of this.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// Texts beyond this many bytes a token of the limit are first tried cut.
const PLENTY_BYTES_PER_TOKEN: usize = 64;

/// The tokenizer of an embedder.
pub(crate) struct Words {
    /// Encoding special tokens as text is a switch of the tokenizer, so only one text is read at a time.
    tokenizer: Mutex<Tokenizer>,
    /// Tokens a text may have, those around it included.
    limit: usize,
    /// Whether longer texts are cut.
    truncates: bool,
    lower_cases: bool,
    prompt: String,
    n_vocab: usize,
}

/// How texts are read.
pub(crate) struct Reading<'a> {
    pub limit: usize,
    pub truncates: bool,
    pub lower_cases: bool,
    pub prompt: &'a str,
    /// Rows of the embedding.
    pub n_vocab: usize,
}

impl Words {
    /// Builds the tokenizer of `folder`.
    ///
    /// # Errors
    /// `tokenizer.json` is missing, no tokenizer, or has ids that the model lacks.
    pub fn open(folder: &Path, reading: &Reading<'_>) -> Result<Self, Error> {
        let path = folder.join("tokenizer.json");
        let broken = |problem: String| Error::from(FolderError::Tokenizer { file: path.display().to_string(), problem });
        let bytes = read_bytes(&path, MAX_TOKENIZER_BYTES)?;
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|error| broken(format!("is no tokenizer: {error}")))?;
        tokenizer.with_padding(None);
        let highest = tokenizer.get_vocab(true).into_values().max();
        if let Some(id) = highest.filter(|&id| id as usize >= reading.n_vocab) {
            return Err(broken(format!("has a token with id {id}, where the model has {} tokens", reading.n_vocab)));
        }
        // A trial, and what a text of nothing gives: the limit must leave room for more.
        let _ = tokenizer.with_truncation(None);
        let read = |text| encode(&tokenizer, text, true).map_err(|error| broken(error.to_string()));
        read("trial")?;
        let framed = read("")?;
        if framed.len() >= reading.limit {
            return Err(broken(format!("adds {} tokens to each text, where the limit is {}", framed.len(), reading.limit)));
        }
        let truncation = TruncationParams { max_length: reading.limit, ..TruncationParams::default() };
        tokenizer
            .with_truncation(reading.truncates.then_some(truncation))
            .map_err(|error| broken(format!("cannot cut texts at {} tokens: {error}", reading.limit)))?;
        Ok(Self {
            tokenizer: Mutex::new(tokenizer),
            limit: reading.limit,
            truncates: reading.truncates,
            lower_cases: reading.lower_cases,
            prompt: reading.prompt.to_owned(),
            n_vocab: reading.n_vocab,
        })
    }

    /// The ids that the model reads of `text`: lower-cased, with the prompt before it, framed and cut as the folder says.
    /// Spellings of special tokens become those tokens, as sentence-transformers has it.
    ///
    /// # Errors
    /// [`Error::InputTooLong`] where texts are not cut; [`Error::Unreadable`] where the tokenizer refuses the text.
    pub fn text(&self, text: &str) -> Result<Vec<u32>, Error> {
        let text = format!("{}{text}", self.prompt);
        let text = if self.lower_cases { text.to_lowercase() } else { text };
        let tokenizer = self.lock();
        if let Some(start) = self.enough_of(&text) {
            let encoding = encode(&tokenizer, start, true)?;
            if encoding.len() == self.limit {
                return Ok(encoding.get_ids().to_vec());
            }
        }
        let encoding = encode(&tokenizer, &text, true)?;
        self.fits(encoding.len())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The start of a text of which so much will be cut that all of it need not be read. It ends before white space, where no
    /// token goes on.
    fn enough_of<'a>(&self, text: &'a str) -> Option<&'a str> {
        let plenty = self.limit.checked_mul(PLENTY_BYTES_PER_TOKEN).filter(|&plenty| self.truncates && text.len() > plenty)?;
        let start = &text[..text.floor_char_boundary(plenty)];
        start.rfind(char::is_whitespace).map(|end| &start[..end])
    }

    /// `ids` of text as [`Words::tokens`] gives them, framed as a text is; ids that are framed already stay as they are.
    ///
    /// # Errors
    /// [`Error::TokenId`], [`Error::EmptyInput`] or [`Error::InputTooLong`]: ids are never cut.
    pub fn framed(&self, ids: &[u32]) -> Result<Vec<u32>, Error> {
        if ids.is_empty() {
            return Err(Error::EmptyInput);
        }
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.n_vocab) {
            return Err(Error::TokenId { id, n_vocab: self.n_vocab });
        }
        let tokenizer = self.lock();
        let frame = encode(&tokenizer, "", true)?;
        let is_framed = match frame.get_ids() {
            [] => true,
            [first, rest @ ..] => {
                ids.first() == Some(first) && ids.len() > rest.len() && rest.last().is_none_or(|last| ids.last() == Some(last))
            }
        };
        let n_added = if is_framed { 0 } else { frame.len() };
        self.fits(ids.len() + n_added)?;
        if is_framed {
            return Ok(ids.to_vec());
        }
        let tokens = ids.iter().map(|&id| Token::new(id, String::new(), (0, 0))).collect();
        let encoding =
            tokenizer.post_process(Encoding::from_tokens(tokens, 0), None, true).map_err(|error| Error::Unreadable(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ids of text alone; with `special`, spellings of special tokens become those tokens.
    ///
    /// # Errors
    /// [`Error::Unreadable`] where the tokenizer refuses the text.
    pub fn tokens(&self, text: &str, special: bool) -> Result<Vec<u32>, Error> {
        let mut tokenizer = self.lock();
        let truncation = tokenizer.get_truncation().cloned();
        let _ = tokenizer.with_truncation(None);
        tokenizer.set_encode_special_tokens(!special);
        let encoding = encode(&tokenizer, text, false);
        tokenizer.set_encode_special_tokens(false);
        let _ = tokenizer.with_truncation(truncation);
        Ok(encoding?.get_ids().to_vec())
    }

    /// Text of ids.
    ///
    /// # Errors
    /// [`Error::TokenId`] for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.n_vocab) {
            return Err(Error::TokenId { id, n_vocab: self.n_vocab });
        }
        self.lock().decode(ids, false).map_err(|error| Error::Unreadable(error.to_string()))
    }

    fn fits(&self, needed: usize) -> Result<(), Error> {
        if needed <= self.limit { Ok(()) } else { Err(Error::InputTooLong { needed, limit: self.limit }) }
    }

    /// The tokenizer is whole after a panic in it: its switches are set back by whoever reads next.
    fn lock(&self) -> MutexGuard<'_, Tokenizer> {
        self.tokenizer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode(tokenizer: &Tokenizer, text: &str, framed: bool) -> Result<Encoding, Error> {
    tokenizer.encode_fast(text, framed).map_err(|error| Error::Unreadable(error.to_string()))
}
