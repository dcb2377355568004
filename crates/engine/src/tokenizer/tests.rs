//! Tokenizers of small vocabularies, right and wrong ones.

use super::*;
use crate::testing::{GgufWriter, Rng};
use crate::weights::Bytes;
use crate::weights::gguf::{Gguf, GgufError};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";

pub(super) fn read(writer: &GgufWriter) -> Result<Tokenizer, TokenizerError> {
    let file = Gguf::parse(Bytes::from(writer.finish()), "test.gguf")?;
    Tokenizer::from_metadata(file.metadata())
}

fn byte_letters() -> Vec<String> {
    (0..=0x143u32).filter_map(char::from_u32).filter(|&c| letter_byte(c).is_some()).map(String::from).collect()
}

/// A byte-level vocabulary: the bytes, what `merges` make, then special tokens of these types.
pub(super) fn byte_level(pre: &str, merges: &[&str], special: &[(&str, i32)]) -> GgufWriter {
    let mut tokens = byte_letters();
    tokens.extend(merges.iter().map(|merge| merge.replacen(' ', "", 1)));
    tokens.dedup();
    let mut types = vec![1; tokens.len()];
    for (spelling, kind) in special {
        tokens.push((*spelling).to_owned());
        types.push(*kind);
    }
    GgufWriter::new("llama")
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", pre)
        .strings(TOKENS, &tokens)
        .i32s(TYPES, &types)
        .strings(MERGES, merges)
}

/// A vocabulary with scores: unknown, beginning, end, the bytes if wanted, then `pieces`.
pub(super) fn scored(model: &str, bytes: bool, pieces: &[(&str, f32)]) -> GgufWriter {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    let mut types = vec![2, 3, 3];
    let mut scores = vec![0.0; 3];
    if bytes {
        tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
        types.extend([6; 256]);
        scores.extend([0.0; 256]);
    }
    for (piece, score) in pieces {
        tokens.push((*piece).to_owned());
        types.push(1);
        scores.push(*score);
    }
    GgufWriter::new("llama")
        .string("tokenizer.ggml.model", model)
        .strings(TOKENS, &tokens)
        .i32s(TYPES, &types)
        .f32s(SCORES, &scores)
        .u32("tokenizer.ggml.unknown_token_id", 0)
}

pub(super) fn pieces(tokenizer: &Tokenizer, text: &str, special: Special) -> Vec<String> {
    let mut ids = Vec::new();
    tokenizer.encode(text, special, &mut ids);
    ids.iter().map(|&id| tokenizer.piece(id).unwrap().to_owned()).collect()
}

#[track_caller]
fn check(tokenizer: &Tokenizer, text: &str, expected: &[&str]) {
    assert_eq!(pieces(tokenizer, text, Special::Plain), expected, "{text:?}");
}

#[test]
fn the_lowest_rank_merges_first_and_the_leftmost_of_equals() {
    let t = read(&byte_level("gpt-2", &["b c", "a b", "a a", "bc d"], &[])).unwrap();
    check(&t, "abc", &["a", "bc"]);
    check(&t, "abab", &["ab", "ab"]);
    check(&t, "aaa", &["aa", "a"]);
    check(&t, "abcd", &["a", "bcd"]);
    check(&t, "é \n", &["Ã", "©", "Ġ", "Ċ"]);
}

#[test]
fn long_words_merge_as_short_ones_do() {
    let t = read(&byte_level("gpt-2", &["a b", "ab ab", "abab abab"], &[])).unwrap();
    let mut long = Vec::new();
    t.encode(&"ab".repeat(4001), Special::Plain, &mut long);
    let eight = t.token_id("abababab").unwrap();
    let two = t.token_id("ab").unwrap();
    assert_eq!(long.len(), 1001);
    assert!(long[..1000].iter().all(|&id| id == eight));
    assert_eq!(long[1000], two);
}

#[test]
fn a_word_that_is_a_token_is_not_merged_where_merges_are_ignored() {
    let mut writer = byte_level("llama-bpe", &["a b"], &[("abc", 1)]);
    check(&read(&writer).unwrap(), "abc", &["abc"]);
    writer = byte_level("gpt-2", &["a b"], &[("abc", 1)]);
    let t = read(&writer).unwrap();
    check(&t, "abc", &["ab", "c"]);
    check(&t, "abc", &["ab", "c"]);
}

#[test]
fn merges_may_go_through_spellings_that_are_no_tokens() {
    let writer = GgufWriter::new("llama")
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "gpt-2")
        .strings(TOKENS, &["a", "b", "c", "abc"])
        .strings(MERGES, &["a b", "ab c"]);
    let t = read(&writer).unwrap();
    check(&t, "abc", &["abc"]);
    check(&t, "ab", &["a", "b"]);
    // Bytes without a token are dropped.
    check(&t, "axb", &["a", "b"]);
}

#[test]
fn control_tokens_are_never_made_from_plain_text() {
    let special = [("<|im_end|>", 3), ("<think>", 4), ("!!", 3)];
    let t = read(&byte_level("llama-bpe", &["! !"], &special)).unwrap();
    let plain = pieces(&t, "a<|im_end|><think>!!", Special::Plain);
    assert!(!plain.contains(&"<|im_end|>".to_owned()) && plain.contains(&"<think>".to_owned()));
    assert_eq!(plain[plain.len() - 2..], ["!", "!"]);
    assert_eq!(pieces(&t, "a<|im_end|><think>!!", Special::Parse), ["a", "<|im_end|>", "<think>", "!!"]);
    assert_eq!(t.control_spellings().collect::<Vec<_>>(), ["<|im_end|>", "!!"]);
}

#[test]
fn the_longest_special_token_wins() {
    let t = read(&byte_level("gpt-2", &["a b"], &[("ab", 4), ("bcd", 4), ("abcde", 4)])).unwrap();
    check(&t, "abcdeabcd", &["abcde", "a", "bcd"]);
}

#[test]
fn ends_of_generation_are_known_by_key_and_by_spelling() {
    let special = [("<|im_end|>", 3), ("<|endoftext|>", 1), ("<stop>", 3)];
    let writer = byte_level("qwen2", &["a b"], &special);
    let id = read(&writer).unwrap().token_id("<stop>").unwrap();
    let t = read(&writer.u32("tokenizer.ggml.eos_token_id", id)).unwrap();
    let ends: Vec<_> = t.end_of_generation().iter().map(|&id| t.piece(id).unwrap()).collect();
    assert_eq!(ends, ["<|im_end|>", "<|endoftext|>", "<stop>"]);
    assert_eq!((t.eos(), t.eot()), (Some(id), t.token_id("<|im_end|>")));
    assert_eq!(t.kind(t.token_id("<|endoftext|>").unwrap()), Some(TokenKind::Control));
}

#[test]
fn a_message_end_of_gpt_oss_does_not_end_generation() {
    let special = [("<|end|>", 3), ("<|return|>", 3), ("<|call|>", 3), ("<|channel|>", 3)];
    let t = read(&byte_level("gpt-4o", &["a b"], &special)).unwrap();
    let id = |spelling| t.token_id(spelling).unwrap();
    assert!(t.is_end_of_generation(id("<|return|>")) && !t.is_end_of_generation(id("<|end|>")));
    assert_eq!(t.kind(id("<|channel|>")), Some(TokenKind::UserDefined));
    assert!(!pieces(&t, "<|channel|>", Special::Plain).contains(&"<|channel|>".to_owned()));
    assert_eq!(pieces(&t, "<|channel|>", Special::Parse), ["<|channel|>"]);
}

#[test]
fn phi_3_takes_white_space_after_special_tokens() {
    let t = scored("llama", true, &[("▁", -1.0), ("▁a", -0.5), ("a", -2.0)]).string("general.name", "Phi-3 mini");
    assert_eq!(pieces(&read(&t).unwrap(), "</s> \n a<s> a", Special::Parse), ["</s>", "▁a", "<s>", "▁", "▁a"]);
}

#[test]
fn sentencepiece_merges_by_score_with_bytes_for_the_rest() {
    let vocabulary = [("▁", -3.0), ("a", -4.0), ("b", -5.0), ("ab", -2.0), ("▁a", -1.0), ("bb", -2.0), ("▁▁", -1.5)];
    let t = read(&scored("llama", true, &vocabulary)).unwrap();
    check(&t, "ab", &["▁a", "b"]);
    check(&t, "bab", &["▁", "b", "ab"]);
    check(&t, "bbb", &["▁", "bb", "b"]);
    check(&t, "  a", &["▁▁", "▁a"]);
    check(&t, "é", &["▁", "<0xC3>", "<0xA9>"]);
    assert_eq!(pieces(&t, "a</s>a", Special::Parse), ["▁a", "</s>", "▁a"]);
    let t = read(&scored("llama", false, &vocabulary).boolean("tokenizer.ggml.add_space_prefix", false)).unwrap();
    check(&t, "aé", &["a", "<unk>"]);
}

#[test]
fn wordpiece_cleans_words_and_takes_the_longest_pieces() {
    let tokens = ["[PAD]", "[UNK]", "▁the", "▁cat", "s", "▁un", "▁ca", "fe", "▁!", "▁中", "▁文"];
    let writer = GgufWriter::new("bert")
        .string("tokenizer.ggml.model", "bert")
        .strings(TOKENS, &tokens)
        .i32s(TYPES, &[3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1])
        .u32("tokenizer.ggml.unknown_token_id", 1);
    let t = read(&writer).unwrap();
    check(&t, "The CATS café!  中文 unx \u{200b}", &["▁the", "▁cat", "s", "▁ca", "fe", "▁!", "▁中", "▁文", "[UNK]"]);
    assert_eq!(t.decode(&[2, 3, 4], true), b"the cats");
}

#[test]
fn unigram_takes_the_best_sum_of_scores() {
    let vocabulary = [("▁", -2.0), ("a", -3.0), ("b", -3.0), ("ab", -7.0), ("▁a", -4.0), ("bb", -3.5)];
    let writer = scored("t5", false, &vocabulary).boolean("tokenizer.ggml.add_space_prefix", true);
    let t = read(&writer.clone().boolean("tokenizer.ggml.remove_extra_whitespaces", true)).unwrap();
    check(&t, "abb", &["▁a", "bb"]);
    check(&t, "  ab   b ", &["▁a", "b", "▁", "b"]);
    check(&t, "xyz", &["▁", "<unk>"]);
    check(&read(&writer).unwrap(), "b  b", &["▁", "b", "▁", "▁", "b"]);
}

#[test]
fn gemma_4_merges_text_itself_with_bytes_for_the_rest() {
    let mut tokens: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
    tokens.extend(["▁", "a", "é", "▁a", "aé", "\n", "\n\n"].map(String::from));
    let types: Vec<i32> = (0..tokens.len()).map(|id| if id < 256 { 6 } else { 1 }).collect();
    let writer = GgufWriter::new("gemma4")
        .string("tokenizer.ggml.model", "gemma4")
        .strings(TOKENS, &tokens)
        .i32s(TYPES, &types)
        .strings(MERGES, &["▁ a", "a é"]);
    let t = read(&writer).unwrap();
    check(&t, "a aé\n\nx", &["a", "▁a", "é", "\n\n", "<0x78>"]);
    assert_eq!(t.decode(&[259, 0x78, 262], false), b" ax\n\n");
}

#[test]
fn a_missing_pre_is_a_warning_and_an_unknown_one_an_error() {
    let writer = GgufWriter::new("llama").string("tokenizer.ggml.model", "gpt2").strings(TOKENS, &["a"]).strings(MERGES, &["a a"]);
    let t = read(&writer).unwrap();
    assert!(t.warnings()[0].contains("tokenizer.ggml.pre"));
    let error = read(&writer.string("tokenizer.ggml.pre", "martian")).err().unwrap();
    assert!(error.to_string().contains("martian"), "{error}");
}

#[test]
fn broken_vocabularies_have_errors_that_say_what_is_wrong() {
    use TokenizerError::*;
    let gpt2 = || GgufWriter::new("llama").string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", "gpt-2");
    let full = || gpt2().strings(TOKENS, &["a", "b"]).strings(MERGES, &["a b"]);
    type Expected = fn(&TokenizerError) -> bool;
    let cases: Vec<(GgufWriter, Expected)> = vec![
        (GgufWriter::new("llama"), |e| matches!(e, Metadata(GgufError::MissingKey { key, .. }) if key.contains("tokenizer.ggml.model"))),
        (GgufWriter::new("llama").string("tokenizer.ggml.model", "rwkv"), |e| matches!(e, UnknownModel { found } if found == "rwkv")),
        (gpt2(), |e| matches!(e, Metadata(GgufError::MissingKey { key, .. }) if key.contains(TOKENS))),
        (gpt2().strings::<&str>(TOKENS, &[]), |e| matches!(e, Size { n_tokens: 0, .. })),
        (gpt2().strings(TOKENS, &["a"]), |e| matches!(e, Metadata(GgufError::MissingKey { key, .. }) if key.contains(MERGES))),
        (full().i32s(TYPES, &[1]), |e| matches!(e, LengthsDiffer { key: TYPES, found: 1, expected: 2 })),
        (full().u32("tokenizer.ggml.bos_token_id", 2), |e| matches!(e, IdOutOfRange { found: 2, n_tokens: 2, .. })),
        (full().u32(TOKENS, 1), |e| matches!(e, Metadata(_))),
        (gpt2().strings(TOKENS, &["a"]).strings(MERGES, &["a a", "ab"]), |e| matches!(e, BrokenMerge { index: 1, .. })),
        (gpt2().strings(TOKENS, &["a"]).strings(MERGES, &["a "]), |e| matches!(e, BrokenMerge { index: 0, .. })),
        (gpt2().strings(TOKENS, &["<0x-1>"]).i32s(TYPES, &[6]).strings(MERGES, &["a a"]), |e| matches!(e, BrokenByteToken { id: 0, .. })),
        (scored("t5", false, &[]).raw("tokenizer.ggml.precompiled_charsmap", 9, &[0; 12]), |e| matches!(e, BrokenCharsmap { .. })),
        (
            GgufWriter::new("llama").string("tokenizer.ggml.model", "llama").strings(TOKENS, &["a"]),
            |e| matches!(e, Metadata(GgufError::MissingKey { key, .. }) if key.contains(SCORES)),
        ),
    ];
    for (i, (writer, expected)) in cases.iter().enumerate() {
        match read(writer) {
            Ok(_) => panic!("case {i} was read"),
            Err(e) => assert!(expected(&e), "case {i}: {e}"),
        }
    }
}

#[test]
fn odd_vocabularies_are_read() {
    let none = 0xffff_ffff;
    let writer = byte_level("gpt-2", &["a b"], &[("", 1), ("ab", 1)]).u32("tokenizer.ggml.bos_token_id", none);
    let t = read(&writer).unwrap();
    assert_eq!(t.bos(), None);
    assert!(!t.add_bos());
    assert!(t.warnings()[0].contains("spelling"));
    check(&t, "ab", &["ab"]);
}

#[test]
fn damaged_vocabularies_never_panic() {
    let text = "Hello <s></s> a\u{301}b  \n\n 123 中文 🦙 ab";
    let files = [
        byte_level("gpt-4o", &["a b", "Ġ a", "ab c"], &[("<s>", 3), ("</s>", 4)]).finish(),
        scored("llama", true, &[("▁", -1.0), ("a", -2.0), ("▁a", 0.5)]).finish(),
        scored("t5", false, &[("▁", -1.0), ("a", -2.0), ("▁a", 0.5)]).finish(),
        scored("bert", false, &[("▁a", 0.0), ("b", 0.0)]).finish(),
    ];
    let mut rng = Rng::new(3);
    let mut n_read = 0;
    for file in &files {
        for _ in 0..300 {
            let mut damaged = file.clone();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(damaged.len());
                damaged[at] = rng.bits() as u8;
            }
            let Ok(file) = Gguf::parse(Bytes::from(damaged), "test.gguf") else { continue };
            let Ok(t) = Tokenizer::from_metadata(file.metadata()) else { continue };
            n_read += 1;
            for special in [Special::Plain, Special::Parse] {
                let mut ids = Vec::new();
                t.encode(text, special, &mut ids);
                assert!(ids.iter().all(|&id| (id as usize) < t.n_vocab()));
                t.decode(&ids, true);
            }
        }
    }
    assert!(n_read > 100, "{n_read}");
}

#[test]
fn bytes_come_back_as_they_went_in() {
    let byte_level = read(&byte_level("llama-bpe", &["Ġ a", "a b"], &[("<s>", 3)])).unwrap();
    let spm = read(&scored("llama", true, &[("▁", -1.0), ("a", -2.0), ("▁a", 0.5)])).unwrap();
    for text in ["", " ", "  a ab", "a", "é 🦙\0\n", "▁", "<s> a"] {
        for t in [&byte_level, &spm] {
            let mut ids = Vec::new();
            t.encode(text, Special::Plain, &mut ids);
            let expected = if std::ptr::eq(t, &spm) { text.replace('▁', " ") } else { text.to_owned() };
            assert_eq!(String::from_utf8(t.decode(&ids, false)).unwrap(), expected);
        }
    }
}

#[test]
fn a_stream_gives_whole_characters_only() {
    let t = read(&byte_level("gpt-2", &["a b"], &[("<s>", 3)])).unwrap();
    let mut ids = Vec::new();
    t.encode("a🦙é", Special::Plain, &mut ids);
    let mut stream = Detokenizer::new(&t, None);
    let mut steps = Vec::new();
    for &id in &ids {
        let mut text = String::new();
        stream.push(id, &mut text);
        steps.push(text);
    }
    assert_eq!(steps, ["a", "", "", "", "🦙", "", "é"]);
}

#[test]
fn a_stream_replaces_only_what_can_be_no_character() {
    let t = read(&byte_level("gpt-2", &["a b"], &[("<s>", 3)])).unwrap();
    let byte = |byte: u8| byte_letters().iter().position(|c| letter_byte(c.chars().next().unwrap()) == Some(byte)).unwrap() as u32;
    let text = |bytes: &[u8]| {
        let mut stream = Detokenizer::new(&t, None);
        let mut text = String::new();
        bytes.iter().for_each(|&b| stream.push(byte(b), &mut text));
        let before_end = text.clone();
        stream.finish(&mut text);
        (before_end, text)
    };
    let both = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(text(b"\xf0\x9f\xa6a"), both("\u{fffd}a", "\u{fffd}a"));
    assert_eq!(text(b"\xf0\x9f\xa6"), both("", "\u{fffd}"));
    assert_eq!(text(b"\xffa\x80"), both("\u{fffd}a\u{fffd}", "\u{fffd}a\u{fffd}"));
    assert_eq!(text(b"\xe2\xe2\x96\x81"), both("\u{fffd}▁", "\u{fffd}▁"));
    assert_eq!(text(b"\xed\xa0\x80"), both("\u{fffd}\u{fffd}\u{fffd}", "\u{fffd}\u{fffd}\u{fffd}"));
}

#[test]
fn a_stream_takes_away_the_space_that_encoding_added() {
    let t = read(&scored("llama", true, &[("▁", -1.0), ("a", -2.0), ("▁a", 0.5)])).unwrap();
    let a = t.token_id("▁a").unwrap();
    let text = |previous, ids: &[u32]| {
        let mut stream = Detokenizer::new(&t, previous);
        let mut text = String::new();
        ids.iter().for_each(|&id| stream.push(id, &mut text));
        text
    };
    assert_eq!(text(None, &[a, a]), "a a");
    assert_eq!(text(t.bos(), &[a, a]), "a a");
    assert_eq!(text(Some(a), &[a, 1, 9999]), " a");
}
