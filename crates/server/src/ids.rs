//! Names for answers and calls: random enough to be unique, secret to nobody.

use std::hash::{BuildHasher, Hasher, RandomState};

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// `prefix` and `length` random letters and digits.
pub(crate) fn random_id(prefix: &str, length: usize) -> String {
    let mut id = prefix.to_owned();
    let mut bits = 0;
    for at in 0..length {
        // Each hasher has keys of its own, seeded by the system; ten characters use up 64 bits.
        if at % 10 == 0 {
            bits = RandomState::new().build_hasher().finish();
        }
        id.push(char::from(ALPHABET[(bits % 62) as usize]));
        bits /= 62;
    }
    id
}

/// The ids of one answer's tool calls, made as they are first asked for. Nine characters: some templates refuse any other length.
#[derive(Debug, Default)]
pub(crate) struct CallIds(Vec<String>);

impl CallIds {
    /// The id of the call at `index`.
    pub fn of(&mut self, index: u32) -> &str {
        let index = index as usize;
        while self.0.len() <= index {
            self.0.push(random_id("", 9));
        }
        &self.0[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_those_of_calls_stay() {
        let (one, two) = (random_id("chatcmpl-", 24), random_id("chatcmpl-", 24));
        assert!(one.len() == 33 && one.starts_with("chatcmpl-") && one != two);
        assert_ne!(one[9..19], one[19..29], "each part has bits of its own");
        let mut calls = CallIds::default();
        let second = calls.of(1).to_owned();
        let first = calls.of(0).to_owned();
        assert_eq!((calls.of(1), first.len()), (second.as_str(), 9));
        assert_ne!(first, second);
    }
}
