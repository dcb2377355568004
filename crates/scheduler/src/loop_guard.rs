//! Notices an answer that repeats itself without end: an exact period of at most 64 tokens over at least 256.

const LONGEST_PERIOD: usize = 64;
const LEAST_SPAN: usize = 256;

/// Watches the tokens of one answer; 64 comparisons per token.
pub(crate) struct LoopGuard {
    /// The last tokens; token `n` is at `n % LONGEST_PERIOD`.
    recent: [u32; LONGEST_PERIOD],
    seen: usize,
    /// For each period, how many tokens in a row equalled the one that far before.
    runs: [usize; LONGEST_PERIOD],
}

impl LoopGuard {
    pub fn new() -> Self {
        Self { recent: [0; LONGEST_PERIOD], seen: 0, runs: [0; LONGEST_PERIOD] }
    }

    /// Takes the next token; true once the answer is a loop.
    pub fn is_loop(&mut self, token_id: u32) -> bool {
        let mut found = false;
        for period in 1..=LONGEST_PERIOD.min(self.seen) {
            let run = &mut self.runs[period - 1];
            *run = if self.recent[(self.seen - period) % LONGEST_PERIOD] == token_id { *run + 1 } else { 0 };
            found |= *run + period >= LEAST_SPAN;
        }
        self.recent[self.seen % LONGEST_PERIOD] = token_id;
        self.seen += 1;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of tokens after which a loop is noticed, if ever.
    fn noticed(tokens: impl IntoIterator<Item = u32>) -> Option<usize> {
        let mut guard = LoopGuard::new();
        tokens.into_iter().position(|token| guard.is_loop(token)).map(|at| at + 1)
    }

    #[test]
    fn periods_up_to_64_are_noticed_after_256_tokens() {
        for period in [1, 2, 3, 50, 63, 64] {
            assert_eq!(noticed((0..1000).map(|n| n % period)), Some(256), "{period}");
            let late = (1000..1100).chain((0..1000).map(|n| n % period));
            assert_eq!(noticed(late), Some(356), "{period}");
        }
        assert_eq!(noticed((0..10_000).map(|n| n % 65)), None);
    }

    #[test]
    fn one_other_token_starts_the_count_again() {
        assert_eq!(noticed((0..2000).map(|n| if n % 255 == 254 { n } else { 7 })), None);
        assert_eq!(noticed(0..5000), None);
    }
}
