//! Which tokens have a role: beginning and end of text, end of a turn, and so on. Files name only
//! some of them, so the others are known by their spelling, as llama.cpp knows them.

use super::TokenizerError;
use super::vocab::{TokenKind, Vocab};
use crate::weights::gguf::Metadata;

/// The ids of tokens with a role, and what is added to a text.
#[derive(Debug, Default)]
pub(super) struct Roles {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) eot: Option<u32>,
    pub(super) eom: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) separator: Option<u32>,
    pub(super) padding: Option<u32>,
    pub(super) mask: Option<u32>,
    /// Sorted.
    pub(super) end_of_generation: Vec<u32>,
    /// Markers that a model writes around its channels: shown, but never made from plain text.
    pub(super) markers: Vec<u32>,
    pub(super) infill: Option<InfillTokens>,
}

/// What a model that fills gaps reads: prefix token, text before the gap, suffix token, text after it, middle token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InfillTokens {
    /// Before the text before the gap.
    pub prefix: u32,
    /// Before the text after the gap.
    pub suffix: u32,
    /// Before what fills it.
    pub middle: u32,
}

/// The roles of a kind of vocabulary where the file does not say.
#[derive(Default)]
pub(super) struct Defaults {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) separator: Option<u32>,
    pub(super) padding: Option<u32>,
    pub(super) mask: Option<u32>,
}

const END_OF_TURN: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

const END_OF_GENERATION: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

const FIM_PREFIX: &[&str] =
    &["<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>", "<|prefix|>"];
const FIM_SUFFIX: &[&str] =
    &["<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>"];
const FIM_MIDDLE: &[&str] =
    &["<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>"];
const FIM_PADDING: &[&str] = &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"];
const FIM_REPOSITORY: &[&str] = &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"];
const FIM_FILE: &[&str] = &["<|file_sep|>"];

const CHANNEL_MARKERS: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

impl Roles {
    /// Reads the roles and sets the type of tokens that have one to CONTROL.
    pub(super) fn read(m: &Metadata, vocab: &mut Vocab, defaults: Defaults) -> Result<Self, TokenizerError> {
        let n_tokens = vocab.len();
        let id = |key: &'static str| special_id(m, key, n_tokens);
        let known = |id: Option<u32>| id.filter(|&id| (id as usize) < n_tokens);
        let first = id("tokenizer.ggml.bos_token_id")?.or(id("tokenizer.ggml.cls_token_id")?);
        let mut roles = Self {
            bos: first.or(known(defaults.bos)),
            eos: id("tokenizer.ggml.eos_token_id")?.or(known(defaults.eos)),
            eot: id("tokenizer.ggml.eot_token_id")?,
            eom: id("tokenizer.ggml.eom_token_id")?,
            unknown: id("tokenizer.ggml.unknown_token_id")?.or(known(defaults.unknown)),
            separator: id("tokenizer.ggml.seperator_token_id")?.or(known(defaults.separator)),
            padding: id("tokenizer.ggml.padding_token_id")?.or(known(defaults.padding)),
            mask: id("tokenizer.ggml.mask_token_id")?.or(known(defaults.mask)),
            ..Self::default()
        };
        let fim = [
            ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id", FIM_PREFIX),
            ("tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id", FIM_SUFFIX),
            ("tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id", FIM_MIDDLE),
        ];
        let mut found = [None; 3];
        for (found, (key, old_key, spellings)) in found.iter_mut().zip(fim) {
            *found = id(old_key)?.or(id(key)?).or_else(|| control(vocab, spellings));
        }
        roles.infill = InfillTokens::of(found);
        let fim_ends = [
            (id("tokenizer.ggml.fim_pad_token_id")?, FIM_PADDING),
            (id("tokenizer.ggml.fim_rep_token_id")?, FIM_REPOSITORY),
            (id("tokenizer.ggml.fim_sep_token_id")?, FIM_FILE),
        ];
        for id in roles.infill.iter().flat_map(|tokens| [tokens.prefix, tokens.suffix, tokens.middle]) {
            vocab.reserve(id);
        }
        for (named, spellings) in fim_ends {
            roles.end_of_generation.extend(named.or_else(|| control(vocab, spellings)));
        }
        roles.eot = roles.eot.or_else(|| control(vocab, END_OF_TURN));
        roles.eom = roles.eom.or_else(|| control(vocab, &["<|eom_id|>"]));
        for spelling in END_OF_GENERATION {
            roles.end_of_generation.extend(control(vocab, &[spelling]));
        }
        roles.end_of_generation.extend([roles.eos, roles.eot, roles.eom].into_iter().flatten());
        roles.end_of_generation.sort_unstable();
        roles.end_of_generation.dedup();
        roles.correct(vocab);
        Ok(roles)
    }

    /// What the spellings alone get wrong.
    fn correct(&mut self, vocab: &mut Vocab) {
        for spelling in CHANNEL_MARKERS {
            if let Some(id) = vocab.find(spelling.as_bytes()) {
                self.mark(vocab, id);
            }
        }
        let ends = |spelling: &str| {
            let id = vocab.find(spelling.as_bytes())?;
            self.end_of_generation.binary_search(&id).is_ok().then_some(id)
        };
        // In the format of gpt-oss and solar-open, <|end|> ends a message, not the turn.
        let calls = ends("<|call|>").or(ends("<|calls|>")).is_some();
        let harmony = calls && ends("<|return|>").or(ends("<|flush|>")).is_some();
        let message_end = ends("<|end|>").filter(|_| harmony);
        // Gemma 4 and PLaMo have an ordinary </s>.
        let other_end = ends("<|tool_response>").or(ends("<|plamo:eos|>")).is_some();
        let ordinary = ends("</s>").filter(|_| other_end);
        self.end_of_generation.retain(|&id| Some(id) != message_end && Some(id) != ordinary);
        if let Some(id) = message_end {
            self.mark(vocab, id);
        }
        if let Some(id) = ordinary {
            vocab.set_kind(id, TokenKind::Normal);
        }
    }

    fn mark(&mut self, vocab: &mut Vocab, id: u32) {
        vocab.set_kind(id, TokenKind::UserDefined);
        self.markers.push(id);
    }
}

impl InfillTokens {
    /// A model that lacks one of them, or has one for two purposes, does not fill gaps.
    fn of(found: [Option<u32>; 3]) -> Option<Self> {
        let [Some(prefix), Some(suffix), Some(middle)] = found else { return None };
        (prefix != suffix && suffix != middle && middle != prefix).then_some(Self { prefix, suffix, middle })
    }
}

/// The first of `spellings` that is a token, which is then of type CONTROL.
fn control(vocab: &mut Vocab, spellings: &[&str]) -> Option<u32> {
    let id = spellings.iter().find_map(|spelling| vocab.find(spelling.as_bytes()))?;
    vocab.set_kind(id, TokenKind::Control);
    Some(id)
}

/// The token of `key`. A key of -1, as 32 or 64 bits, stands for none.
fn special_id(m: &Metadata, key: &'static str, n_tokens: usize) -> Result<Option<u32>, TokenizerError> {
    match m.uint(key)? {
        None | Some(0xffff_ffff | u64::MAX) => Ok(None),
        Some(found) => match u32::try_from(found) {
            Ok(id) if (id as usize) < n_tokens => Ok(Some(id)),
            _ => Err(TokenizerError::IdOutOfRange { key, found, n_tokens }),
        },
    }
}
