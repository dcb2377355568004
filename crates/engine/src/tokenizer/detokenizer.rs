//! Tokens back to text, one at a time as a model writes them: only whole characters come out.

use super::{TokenKind, Tokenizer};

/// Turns a stream of tokens into text. Bytes that are the beginning of a character are held back
/// until it is complete; bytes that cannot become one are replaced by U+FFFD.
pub struct Detokenizer<'t> {
    tokenizer: &'t Tokenizer,
    /// The beginning of a character, at most 3 bytes.
    held: Vec<u8>,
    /// A leading space of the next text is one that encoding added.
    strip_space: bool,
    show_control: bool,
    /// Control tokens that are shown in any case, ascending.
    shown: &'t [u32],
}

impl<'t> Detokenizer<'t> {
    /// `previous` is the token before the stream, `None` at the beginning of a text. Where
    /// encoding adds a space to the beginning of a text and after special tokens, that space is
    /// taken away again.
    pub fn new(tokenizer: &'t Tokenizer, previous: Option<u32>) -> Self {
        let ordinary = previous
            .and_then(|id| tokenizer.kind(id))
            .is_some_and(|kind| !matches!(kind, TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined));
        Self { tokenizer, held: Vec::new(), strip_space: tokenizer.strip_space && !ordinary, show_control: false, shown: &[] }
    }

    /// Of a stream within a text: a space at its beginning is the text's own.
    pub fn within(mut self) -> Self {
        self.strip_space = false;
        self
    }

    /// Emits the spellings of control tokens too.
    pub fn with_control(mut self) -> Self {
        self.show_control = true;
        self
    }

    /// Emits the spellings of these control tokens too; ascending.
    pub fn showing(mut self, ids: &'t [u32]) -> Self {
        self.shown = ids;
        self
    }

    /// Appends to `out` the text that `id` completes. Unknown ids and, unless asked for, control
    /// tokens give none.
    pub fn push(&mut self, id: u32, out: &mut String) {
        let is_shown = self.show_control || self.shown.binary_search(&id).is_ok();
        if !is_shown && self.tokenizer.kind(id) == Some(TokenKind::Control) {
            return;
        }
        let Some(bytes) = self.tokenizer.token_bytes(id) else { return };
        let mut bytes = &bytes[..];
        if self.strip_space && !bytes.is_empty() {
            self.strip_space = false;
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.held.extend_from_slice(bytes);
        let mut kept = 0;
        let mut chunks = self.held.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && may_continue(invalid) {
                kept = invalid.len();
            } else if !invalid.is_empty() {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.held.drain(..self.held.len() - kept);
    }

    /// Ends the stream: a character that was never completed becomes U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !self.held.is_empty() {
            self.held.clear();
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Whether `bytes` are the beginning of a character: then bytes that follow may complete it.
fn may_continue(bytes: &[u8]) -> bool {
    // `error_len` is `None` exactly where the input ends within a character.
    std::str::from_utf8(bytes).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
}
