//! Texts in place of token ids, for clients that are told of probabilities.

use std::collections::HashMap;

use downshift_worker::{PromptToken, TokenLogprob};

use crate::app::App;

/// A [`TokenLogprob`] with texts in place of ids.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NamedLogprob {
    pub token: String,
    pub logprob: f32,
    pub top: Vec<(String, f32)>,
}

/// A [`PromptToken`] with texts in place of ids.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NamedPromptToken {
    First(String),
    Scored(NamedLogprob),
}

/// Texts of tokens, each asked for once.
#[derive(Default)]
pub(crate) struct TokenNames {
    model: String,
    names: HashMap<u32, String>,
}

impl TokenNames {
    /// From now on ids are those of `model`.
    pub fn are_of(&mut self, model: &str) {
        if self.model != model {
            *self = Self { model: model.to_owned(), names: HashMap::new() };
        }
    }

    pub fn logprob(&mut self, app: &App, TokenLogprob { token_id, logprob, top }: &TokenLogprob) -> NamedLogprob {
        NamedLogprob {
            token: self.of(app, *token_id),
            logprob: *logprob,
            top: top.iter().map(|(id, logprob)| (self.of(app, *id), *logprob)).collect(),
        }
    }

    pub fn prompt_token(&mut self, app: &App, token: &PromptToken) -> NamedPromptToken {
        match token {
            PromptToken::First(id) => NamedPromptToken::First(self.of(app, *id)),
            PromptToken::Scored(logprob) => NamedPromptToken::Scored(self.logprob(app, logprob)),
        }
    }

    fn of(&mut self, app: &App, id: u32) -> String {
        if let Some(name) = self.names.get(&id) {
            return name.clone();
        }
        let text = |ids: &[u32]| app.scheduler.peek(&self.model, |worker| worker.detokenize(ids)).and_then(Result::ok).unwrap_or_default();
        let name = second(&text(&[id, id])).map_or_else(|| text(&[id]), str::to_owned);
        self.names.insert(id, name.clone());
        name
    }
}

/// The second half of what a token is when it comes twice. Where texts begin with a space that their words have and they do not,
/// the first one lacks it. `None` where bytes of both make another character.
fn second(twice: &str) -> Option<&str> {
    let (first, second) = twice.split_at_checked(twice.len() / 2)?;
    (second == first || second.strip_prefix(' ') == Some(first)).then_some(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_keeps_the_space_that_it_begins_with() {
        for (twice, name) in [("abab", "ab"), (" ab ab", " ab"), ("ab ab", " ab"), (" ", " "), ("\u{fffd}\u{fffd}", "\u{fffd}"), ("", "")] {
            assert_eq!(second(twice), Some(name), "{twice:?}");
        }
        assert_eq!(second("\u{fffd}\u{e9}\u{fffd}"), None);
    }
}
