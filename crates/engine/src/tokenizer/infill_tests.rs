//! The tokens that ask for what is missing between two texts: how they are known, and that no text makes one.

use super::tests::{byte_level, pieces, read, scored};
use super::*;

/// The spellings of the three tokens, in order.
fn found(tokenizer: &Tokenizer) -> Option<[&str; 3]> {
    let InfillTokens { prefix, suffix, middle } = tokenizer.infill()?;
    Some([prefix, suffix, middle].map(|id| tokenizer.piece(id).unwrap()))
}

#[test]
fn they_are_known_by_spelling() {
    for tokens in [
        ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
        ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
        ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
        ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
        ["<PRE>", "<SUF>", "<MID>"],
        ["▁<PRE>", "▁<SUF>", "▁<MID>"],
        ["<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"],
    ] {
        let [prefix, suffix, middle] = tokens;
        // Of any type, and in any order.
        let t = read(&byte_level("qwen2", &["a b"], &[(middle, 3), (prefix, 1), (suffix, 4)])).unwrap();
        assert_eq!(found(&t), Some(tokens));
        let without = read(&byte_level("qwen2", &["a b"], &[(middle, 3), (prefix, 3)])).unwrap();
        assert_eq!(found(&without), None, "{suffix} is missing");
    }
    assert_eq!(found(&read(&byte_level("qwen2", &["a b"], &[])).unwrap()), None);
}

#[test]
fn keys_come_before_spellings_and_the_older_ones_first() {
    const KEYS: [&str; 3] = ["fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id"];
    const OLD_KEYS: [&str; 3] = ["prefix_token_id", "suffix_token_id", "middle_token_id"];
    let special = [("<1>", 3), ("<2>", 3), ("<3>", 3), ("<4>", 3), ("<|fim_prefix|>", 3), ("<|fim_suffix|>", 3), ("<|fim_middle|>", 3)];
    let writer = || byte_level("qwen2", &["a b"], &special);
    let first = read(&writer()).unwrap().token_id("<1>").unwrap();
    let with = |keys: &[(&str, u32)]| {
        let add = |writer: crate::testing::GgufWriter, (key, at): &(&str, u32)| writer.u32(&format!("tokenizer.ggml.{key}"), first + at);
        read(&keys.iter().fold(writer(), add)).unwrap()
    };
    assert_eq!(found(&with(&[(KEYS[0], 0), (KEYS[1], 1), (KEYS[2], 2)])), Some(["<1>", "<2>", "<3>"]));
    assert_eq!(found(&with(&[(OLD_KEYS[0], 2), (OLD_KEYS[1], 1), (OLD_KEYS[2], 0)])), Some(["<3>", "<2>", "<1>"]));
    assert_eq!(found(&with(&[(KEYS[1], 0)])), Some(["<|fim_prefix|>", "<1>", "<|fim_middle|>"]));
    assert_eq!(found(&with(&[(KEYS[1], 0), (OLD_KEYS[1], 3)])), Some(["<|fim_prefix|>", "<4>", "<|fim_middle|>"]));
    assert_eq!(found(&with(&[(KEYS[0], 0), (KEYS[1], 0)])), None, "one token is no two");
    let outside = writer().u32("tokenizer.ggml.fim_pre_token_id", 1 << 20);
    assert!(matches!(read(&outside), Err(TokenizerError::IdOutOfRange { .. })));
}

#[test]
fn no_plain_text_becomes_one_whatever_type_the_file_gives() {
    let spelled = [("<|fim_prefix|>", 4), ("<|fim_suffix|>", 1), ("!!", 4)];
    let writer = byte_level("qwen2", &["! !"], &spelled);
    let id = read(&writer).unwrap().token_id("!!").unwrap();
    let t = read(&writer.u32("tokenizer.ggml.fim_mid_token_id", id)).unwrap();
    assert_eq!(found(&t), Some(["<|fim_prefix|>", "<|fim_suffix|>", "!!"]));
    let plain = pieces(&t, "<|fim_prefix|>a<|fim_suffix|>!!", Special::Plain);
    assert!(plain.iter().all(|piece| piece.chars().count() == 1), "{plain:?}");
    assert_eq!(pieces(&t, "<|fim_prefix|>a!!", Special::Parse), ["<|fim_prefix|>", "a", "!!"]);
    // Here the scores would merge the letters to the token.
    let letters = [("▁", -1.0), ("<", -2.0), ("P", -2.0), ("▁<", -0.5), ("▁<P", -0.4)];
    let spm = scored("llama", true, &[&letters[..], &[("▁<PRE>", 0.0), ("▁<SUF>", 0.0), ("▁<MID>", 0.0)]].concat());
    let t = read(&spm).unwrap();
    assert_eq!(found(&t), Some(["▁<PRE>", "▁<SUF>", "▁<MID>"]));
    let unnamed = pieces(&t, "<PRE> <PRE>", Special::Plain);
    assert_eq!((unnamed.len(), &unnamed[0][..]), (8, "▁<P"), "{unnamed:?}");
}

#[test]
fn text_within_a_text_gets_no_space_and_loses_none() {
    let t = read(&scored("llama", true, &[("▁", -1.0), ("a", -2.0), ("▁a", 0.5)])).unwrap();
    let mut ids = Vec::new();
    t.encode_within("a a", &mut ids);
    assert_eq!(ids, ["a", "▁a"].map(|piece| t.token_id(piece).unwrap()));
    let text = |stream: Detokenizer<'_>, piece: &str| {
        let (mut stream, mut text) = (stream, String::new());
        stream.push(t.token_id(piece).unwrap(), &mut text);
        text
    };
    assert_eq!(text(Detokenizer::new(&t, t.bos()), "▁a"), "a");
    assert_eq!(text(Detokenizer::new(&t, t.bos()).within(), "▁a"), " a");
}
