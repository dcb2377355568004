//! Log-probabilities as `/v1/completions` has them: lists side by side, with the place of each token in the text.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::openai::LEAST_LOGPROB;
use crate::token_names::{NamedLogprob, NamedPromptToken};

/// How far behind its place a token is looked for, after tokens that are parts of characters or no text.
const LONGEST_GAP_BYTES: usize = 64;

#[derive(Debug, Default, Serialize)]
pub(crate) struct LegacyLogprobs {
    tokens: Vec<String>,
    /// `None` for the first token of a prompt.
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Characters before each token.
    text_offset: Vec<usize>,
}

impl LegacyLogprobs {
    /// `offset`: characters before the first of these tokens.
    pub fn new(logprobs: &[NamedLogprob], offset: usize) -> Self {
        let mut legacy = Self::default();
        legacy.extend(logprobs, offset);
        legacy
    }

    /// Of the tokens of a prompt with this text.
    pub fn of_prompt(text: &str, tokens: &[NamedPromptToken]) -> Self {
        let (mut legacy, mut place) = (Self::default(), Place::default());
        for token in tokens {
            let (name, logprob) = match token {
                NamedPromptToken::First(name) => (name, None),
                NamedPromptToken::Scored(logprob) => (&logprob.token, Some(logprob)),
            };
            legacy.push(name, logprob, place.of(text, name));
        }
        legacy
    }

    /// Adds the tokens of the answer.
    pub fn extend(&mut self, logprobs: &[NamedLogprob], mut offset: usize) {
        for logprob in logprobs {
            self.push(&logprob.token, Some(logprob), offset);
            offset += logprob.token.chars().count();
        }
    }

    fn push(&mut self, name: &str, logprob: Option<&NamedLogprob>, offset: usize) {
        self.tokens.push(name.to_owned());
        self.token_logprobs.push(logprob.map(|found| found.logprob.max(LEAST_LOGPROB)));
        self.top_logprobs.push(logprob.map(|found| {
            let mut top = BTreeMap::new();
            // Of several tokens with one text the likeliest counts, which comes first.
            for (token, logprob) in &found.top {
                top.entry(token.clone()).or_insert(logprob.max(LEAST_LOGPROB));
            }
            top
        }));
        self.text_offset.push(offset);
    }
}

/// How far the tokens of a text have come in it.
#[derive(Default)]
struct Place {
    bytes: usize,
    chars: usize,
    /// The last token was a part of a character, or is not in the text, as one that begins every prompt.
    is_unsure: bool,
}

impl Place {
    /// Characters before the next token, which has this text.
    fn of(&mut self, text: &str, name: &str) -> usize {
        let rest = &text[self.bytes..];
        let near = &rest[..rest.floor_char_boundary((LONGEST_GAP_BYTES + name.len()).min(rest.len()))];
        let found = match name {
            _ if name.contains(char::REPLACEMENT_CHARACTER) => None,
            _ if self.is_unsure => near.find(name),
            _ => near.starts_with(name).then_some(0),
        };
        self.is_unsure = found.is_none();
        let Some(gap) = found else { return self.chars };
        let offset = self.chars + rest[..gap].chars().count();
        self.bytes += gap + name.len();
        self.chars = offset + name.chars().count();
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, tokens: &[(&str, usize)]) {
        let mut place = Place::default();
        let found: Vec<_> = tokens.iter().map(|(name, _)| (*name, place.of(text, name))).collect();
        assert_eq!(found, tokens);
    }

    #[test]
    fn tokens_stand_where_the_text_has_them() {
        check("the the", &[("the", 0), (" the", 3)]);
        check("h\u{e9} the", &[("h", 0), ("\u{e9}", 1), (" the", 2)]);
        // One that is no text begins the prompt, or a space does that is none of the text's.
        check("Hi you", &[("<s>", 0), ("Hi", 0), (" you", 2)]);
        check("Hi you", &[("<s>", 0), (" Hi", 0), (" you", 2)]);
        // Parts of characters stand where those begin.
        check("a\u{1f600}b\u{1f600}\u{1f600}", &[("a", 0), ("\u{fffd}", 1), ("\u{fffd}", 1), ("b", 2), ("\u{fffd}", 3), ("\u{fffd}", 3)]);
        check("a", &[("a", 0), ("<|fim|>", 1), ("x", 1), ("", 1)]);
        check(&format!("{}x", "a".repeat(100)), &[("<s>", 0), ("x", 0), ("aa", 0), ("a", 2)]);
    }
}
