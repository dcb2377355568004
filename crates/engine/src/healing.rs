//! Goes on where the text of another model was cut, which may be within what is one token here.
//!
//! The last tokens of the text are rolled back, as many as one longer token could reach into, and drawn again under a
//! constraint: they spell the bytes already shown, and the last of them may spell more. Only that surplus is new, and only it
//! counts under a grammar, which has taken the text already. Does not own what is emitted ([`crate::answer`] leaves out
//! what is spelled again), nor the grammar.

use std::borrow::Cow;
use std::collections::HashMap;

use downshift_worker::{Request, Resume};

use crate::grammar::Guide;
use crate::sampler::{Constraint, ConstraintError};
use crate::tokenizer::{Detokenizer, TokenKind, Tokenizer};

/// Most bytes that are spelled again; a longer token at the end of a text stays.
const MAX_PENDING_BYTES: usize = 128;

/// What the draws of a resumed answer are bound to.
pub(crate) struct Healed {
    /// The grammar, the bytes to be spelled again, or both.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Bytes of text that come again at first and were shown.
    pub respelled_bytes: usize,
}

/// Rolls back the end of `resumed`, which follows `prompt`, where it is the text of another model and a token of this one could
/// reach over its end. Where nothing can be gained, or no tokens could spell the end again, `resumed` stays as it is.
pub(crate) fn heal(request: &Request, tokenizer: &Tokenizer, prompt: &[u32], resumed: &mut Vec<u32>, guide: Option<Guide>) -> Healed {
    let shown = match &request.resume {
        Some(Resume::Text { text, reasoning, .. }) => if text.is_empty() { reasoning } else { text }.as_str(),
        _ => "",
    };
    let is_over = guide.as_ref().is_some_and(Constraint::is_complete);
    let found = if shown.is_empty() || is_over { None } else { rolled_back(request, tokenizer, prompt, resumed, shown) };
    if let Some(end) = found
        && let Some(steps) = steps(tokenizer, &end.spelled, guide.is_some())
    {
        resumed.truncate(end.kept);
        return Healed { constraint: Some(Box::new(Healing { steps, at: 0, guide })), respelled_bytes: end.shown_bytes };
    }
    Healed { constraint: guide.map(|guide| Box::new(guide) as Box<dyn Constraint>), respelled_bytes: 0 }
}

/// The end of a text that is drawn again.
struct End {
    /// How many tokens stay before it.
    kept: usize,
    /// Its bytes as tokens spell them.
    spelled: Vec<u8>,
    /// Of these, those that are text; a space that encoding added is none.
    shown_bytes: usize,
}

/// The fewest tokens at the end of `resumed` that hold all in which a token could begin that reaches over the end.
fn rolled_back(request: &Request, tokenizer: &Tokenizer, prompt: &[u32], resumed: &[u32], shown: &str) -> Option<End> {
    let wanted = reached_into(tokenizer, shown.as_bytes());
    let mut found: Option<End> = None;
    let mut spelled = Vec::new();
    for kept in (0..resumed.len()).rev() {
        let Some(bytes) = spelling(tokenizer, resumed[kept]) else { break };
        let is_enough = wanted == 0 || found.as_ref().is_some_and(|end| end.spelled.len() >= wanted);
        if is_enough || spelled.len() + bytes.len() > MAX_PENDING_BYTES {
            break;
        }
        spelled.splice(0..0, bytes.iter().copied());
        // A token may begin within a character; the text that comes again may not.
        if std::str::from_utf8(&spelled).is_err() {
            continue;
        }
        let previous = resumed[..kept].last().or(prompt.last()).copied();
        let mut text = String::new();
        let detokenizer = Detokenizer::new(tokenizer, previous);
        let mut detokenizer = if request.input.is_infill() { detokenizer.within() } else { detokenizer };
        resumed[kept..].iter().for_each(|&id| detokenizer.push(id, &mut text));
        if text.is_empty() || !shown.ends_with(&text) {
            break;
        }
        found = Some(End { kept, spelled: spelled.clone(), shown_bytes: text.len() });
    }
    found
}

/// The length of the longest end of `shown` with which a longer token begins.
fn reached_into(tokenizer: &Tokenizer, shown: &[u8]) -> usize {
    let mut longest = 0;
    for (_, bytes) in spellings(tokenizer) {
        let most = (bytes.len() - 1).min(shown.len()).min(MAX_PENDING_BYTES);
        longest = (longest + 1..=most).rev().find(|&n| shown.ends_with(&bytes[..n])).unwrap_or(longest);
    }
    longest
}

/// A token that may come somewhere within the pending bytes.
struct Step {
    token_id: u32,
    then: Then,
}

enum Then {
    /// So many of them are spelled.
    At(usize),
    /// All are, and more: the surplus, as a token of its own where there is one.
    Beyond(Option<u32>),
}

/// For each pending byte the tokens that may begin there, ascending, such that the rest can always be spelled. Under a grammar
/// the surplus is judged as a token, and must not be needed. `None` if there is no way.
fn steps(tokenizer: &Tokenizer, pending: &[u8], has_grammar: bool) -> Option<Vec<Vec<Step>>> {
    let all: Vec<(u32, Cow<'_, [u8]>)> = spellings(tokenizer).collect();
    let ids: HashMap<&[u8], u32> = all.iter().filter(|_| has_grammar).map(|(id, bytes)| (&bytes[..], *id)).collect();
    let mut steps: Vec<Vec<Step>> = pending.iter().map(|_| Vec::new()).collect();
    for (token_id, bytes) in &all {
        for (at, steps) in steps.iter_mut().enumerate() {
            let rest = &pending[at..];
            let then = match bytes.strip_prefix(rest) {
                Some(surplus) if !surplus.is_empty() => Then::Beyond(ids.get(surplus).copied()),
                _ if rest.starts_with(bytes) => Then::At(at + bytes.len()),
                _ => continue,
            };
            steps.push(Step { token_id: *token_id, then });
        }
    }
    let mut leads_on = vec![true; pending.len() + 1];
    for (at, steps) in steps.iter_mut().enumerate().rev() {
        steps.retain(|step| match step.then {
            Then::At(end) => leads_on[end],
            Then::Beyond(surplus) => !has_grammar || surplus.is_some(),
        });
        leads_on[at] = steps.iter().any(|step| !has_grammar || matches!(step.then, Then::At(_)));
    }
    leads_on[0].then_some(steps)
}

/// The tokens that are text.
fn spellings(tokenizer: &Tokenizer) -> impl Iterator<Item = (u32, Cow<'_, [u8]>)> {
    (0..tokenizer.n_vocab() as u32).filter_map(|id| Some((id, spelling(tokenizer, id)?)))
}

fn spelling(tokenizer: &Tokenizer, id: u32) -> Option<Cow<'_, [u8]>> {
    let is_text = matches!(tokenizer.kind(id)?, TokenKind::Normal | TokenKind::UserDefined | TokenKind::Byte);
    let bytes = tokenizer.token_bytes(id).filter(|bytes| !bytes.is_empty())?;
    (is_text && !tokenizer.is_end_of_generation(id)).then_some(bytes)
}

/// Binds draws to the pending bytes, then to the grammar.
struct Healing {
    steps: Vec<Vec<Step>>,
    /// How many of the pending bytes are spelled.
    at: usize,
    guide: Option<Guide>,
}

impl Constraint for Healing {
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        let Some(steps) = self.steps.get(self.at) else {
            return self.guide.as_mut().map_or(Ok(()), |guide| guide.mask(logits));
        };
        let surplus = match &mut self.guide {
            Some(guide) => {
                let mut surplus = vec![0.0; logits.len()];
                guide.mask(&mut surplus)?;
                Some(surplus)
            }
            None => None,
        };
        let may_follow = |step: &&Step| match (&step.then, &surplus) {
            (Then::Beyond(id), Some(surplus)) => id.is_some_and(|id| surplus[id as usize] > f32::NEG_INFINITY),
            _ => true,
        };
        let kept: Vec<(usize, f32)> =
            steps.iter().filter(may_follow).map(|step| step.token_id as usize).map(|id| (id, logits[id])).collect();
        logits.fill(f32::NEG_INFINITY);
        for (id, logit) in kept {
            logits[id] = logit;
        }
        Ok(())
    }

    fn accept(&mut self, token_id: u32) {
        let surplus = match self.steps.get(self.at) {
            None => Some(token_id),
            Some(steps) => match steps.iter().find(|step| step.token_id == token_id).map(|step| &step.then) {
                Some(&Then::At(end)) => {
                    self.at = end;
                    None
                }
                Some(&Then::Beyond(surplus)) => {
                    self.at = self.steps.len();
                    surplus
                }
                None => None,
            },
        };
        if let (Some(guide), Some(id)) = (&mut self.guide, surplus) {
            guide.accept(id);
        }
    }

    fn is_complete(&self) -> bool {
        self.guide.as_ref().is_some_and(Constraint::is_complete)
    }

    fn is_spent(&self) -> bool {
        self.guide.is_none() && self.at == self.steps.len()
    }
}
