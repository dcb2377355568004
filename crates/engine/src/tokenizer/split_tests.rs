//! The split rules against the regular expressions that they stand for.

use fancy_regex::Regex;

use super::pretokenize::PreTokenizer;
use crate::testing::Rng;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const ENGLISH: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
const MARKED: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const CASED: &str =
    r"[^\r\n\p{L}\p{N}]?((?=[M])([^a-z]))*((?=[M])([^A-Z]))+SUFFIX|[^\r\n\p{L}\p{N}]?((?=[M])([^a-z]))+((?=[M])([^A-Z]))*SUFFIX";

/// The last alternatives of most expressions after GPT-4's.
const REST: &str = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const REST_SLASHES: &str = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn cased(mask: &str, suffix: &str, digits: &str) -> String {
    let words = CASED.replace('M', mask).replace("SUFFIX", suffix);
    format!("{words}|{digits}|{REST_SLASHES}")
}

fn expressions() -> Vec<(&'static str, Vec<String>)> {
    let english = |rest: &str| format!("(?:{ENGLISH})|{rest}");
    let suffix = format!("(?:{ENGLISH})?");
    let digits = r"\p{N}{1,3}".to_owned();
    let word = r"[^\r\n\p{L}\p{N}]?\p{L}+";
    let han_kana = "[一-龥\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+".to_owned();
    let qwen2 = english(&format!(r"{word}|\p{{N}}|{REST}"));
    let marks = format!(r"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+{suffix}");
    let poro = r" ?[^(\s|.,!?…。，、।۔،)]+".to_owned();
    let each = r"\p{N}".to_owned();
    vec![
        ("gpt-2", vec![GPT2.to_owned()]),
        ("starcoder", vec![each.clone(), GPT2.to_owned()]),
        ("llama-bpe", vec![english(&format!("{word}|{digits}|{REST}"))]),
        ("qwen2", vec![qwen2.clone()]),
        ("laguna", vec![r"[^\n]+|[\n]+".to_owned(), qwen2]),
        ("gemma4", vec![r"[^\n]+|[\n]+".to_owned()]),
        ("qwen35", vec![english(r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")]),
        ("minicpm5", vec![digits.clone(), english(&format!(r"{word}|\p{{N}}+|{REST}"))]),
        ("ufakzeka", vec![format!(r"{word}|\p{{N}}|{REST}")]),
        ("seed-coder", vec![english(&format!(r"{word}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"))]),
        (
            "jais-2",
            vec![english(&format!(
                r"{word}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s{{512}}(?!\S)|\s{{256}}(?!\S)|\s{{128}}(?!\S)|\s{{64}}(?!\S)|\s{{32}}(?!\S)|\s{{16}}(?!\S)|\s{{8}}(?!\S)|\s{{4}}(?!\S)|\s{{1,2}}(?!\S)|\s{{1}}"
            ))],
        ),
        (
            "bailingmoe",
            vec![format!(
                r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|{word}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
            )],
        ),
        (
            "exaone-moe",
            vec![english(r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+")],
        ),
        ("tekken", vec![cased(r"\p{L}", "", r"\p{N}")]),
        ("gpt-4o", vec![cased(r"\p{L}", &suffix, &digits)]),
        ("granite-embed-multi-97m", vec![cased(r"\p{L}\p{M}", &suffix, &digits)]),
        (
            "youtu",
            vec![
                "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u{3040}-ゟ゠-ヿ]+".to_owned(),
                format!(r"{marks}|\p{{N}}|{REST_SLASHES}"),
            ],
        ),
        ("deepseek-v3", vec![digits.clone(), han_kana.clone(), MARKED.to_owned()]),
        ("spark2_5", vec![digits, han_kana, MARKED.replace(r"[\r\n]*|\s*[\r\n]+", r"|[\r\n]"), each.clone()]),
        (
            "deepseek-coder",
            vec![
                r"[\r\n]".to_owned(),
                r"\s?\p{L}+".to_owned(),
                r"\s?\p{P}+".to_owned(),
                "[一-龥ࠀ-一가-\u{d7ff}--\\s]+".to_owned(),
                each.clone(),
            ],
        ),
        ("poro-chat", vec![poro.clone()]),
        ("viking", vec![poro, each]),
        ("falcon", vec![r"[\p{P}\$\+<=>\^~\|`]+".to_owned(), GPT2.to_owned(), "[0-9][0-9][0-9]".to_owned()]),
        ("default", vec![r"[\p{P}\$\+<=>\^~\|]+".to_owned(), GPT2.to_owned(), r"\p{N}+".to_owned(), "[0-9][0-9][0-9]".to_owned()]),
        (
            "chameleon",
            vec![
                "<sentinel:[0-9]+>".to_owned(),
                "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z".to_owned(),
                "([\\t\\n]|    |  )".to_owned(),
                r"\p{N}".to_owned(),
                r"[\p{P}!-/:-@\[-`{-~]".to_owned(),
                GPT2.to_owned(),
            ],
        ),
        ("superbpe", vec![r"\p{N}+".to_owned(), r"(?=([0-9]{3})+(?![0-9]))".to_owned()]),
    ]
}

fn split_by_regex(expressions: &[Regex], text: &str) -> Vec<String> {
    let mut pieces = vec![text.to_owned()];
    for expression in expressions {
        let mut next = Vec::new();
        for piece in pieces {
            let mut start = 0;
            for found in expression.find_iter(&piece).map(Result::unwrap) {
                next.extend([&piece[start..found.start()], found.as_str()].map(str::to_owned));
                start = found.end();
            }
            next.push(piece[start..].to_owned());
        }
        next.retain(|piece| !piece.is_empty());
        pieces = next;
    }
    pieces
}

fn split_by_rules(name: &str, text: &str) -> Vec<String> {
    let mut words = Vec::new();
    PreTokenizer::named(name).unwrap().split(text, &mut |word| words.push(word.to_owned()));
    words
}

/// Texts made of what rules tell apart, in all orders.
fn text(rng: &mut Rng) -> String {
    const PARTS: &[&str] = &[
        "a",
        "B",
        "the",
        "Hello",
        "HTTPServer",
        "é",
        "É",
        "ÀB",
        "中文",
        "カナ",
        "한국",
        "ㄅ",
        "е",
        "ДВ",
        "\u{301}",
        "\u{93f}",
        "'s",
        "'T",
        "'ll",
        "'RE",
        "'",
        "'x",
        "1",
        "22",
        "333",
        "1234567",
        "½",
        "٣",
        " ",
        " ",
        "  ",
        "   ",
        "    ",
        "\n",
        "\r\n",
        "\n\n",
        "\t",
        "\u{a0}",
        "\u{3000}",
        ".",
        ",",
        "!",
        "?",
        "...",
        "/",
        "//",
        "-",
        "_",
        "$",
        "+",
        "<",
        "|",
        "`",
        "(",
        ")",
        "“",
        "。",
        "、",
        "…",
        "।",
        "🦙",
        "\0",
        "\u{200b}",
        "\u{e000}",
        "<sentinel:12>",
        "IMGIMGABZ",
        "IMGIMGABCDEZ",
    ];
    let n_parts = 1 + rng.below(10);
    (0..n_parts).map(|_| PARTS[rng.below(PARTS.len())]).collect()
}

#[test]
fn rules_split_as_their_expressions_do() {
    let mut rng = Rng::new(7);
    for (name, expressions) in expressions() {
        let expressions: Vec<Regex> = expressions.iter().map(|expression| Regex::new(expression).unwrap()).collect();
        for _ in 0..400 {
            let text = text(&mut rng);
            assert_eq!(split_by_rules(name, &text), split_by_regex(&expressions, &text), "{name}: {text:?}");
        }
    }
}

#[test]
fn digits_are_grouped_from_the_right() {
    assert_eq!(split_by_rules("superbpe", "a1234567"), ["a", "1", "234", "567"]);
    assert_eq!(split_by_rules("tiny_aya", "x 1234567"), ["x", " ", "1", "234", "567"]);
    assert_eq!(split_by_rules("afmoe", "12345"), ["12", "345"]);
}

#[test]
fn han_characters_are_words_of_their_own_for_kimi() {
    assert_eq!(split_by_rules("kimi-k2", "Hi中文abc's x"), ["Hi", "中文", "abc's", " x"]);
}

#[test]
fn only_cased_scripts_make_words_for_deepseek_llm() {
    assert_eq!(split_by_rules("deepseek-llm", "Да 中文, 12 \n "), ["Да", " ", "中文", ",", " ", "12", " ", "\n", " "]);
}

#[test]
fn long_runs_of_one_character_are_split_in_one_pass() {
    for name in ["gpt-2", "llama-bpe", "jais-2", "tekken", "deepseek-llm", "deepseek-v3", "spark2_5", "chameleon"] {
        for c in ["a", "A", "é", " ", "\n", "1", "!", "\u{301}", "'"] {
            let text = c.repeat(200_000);
            assert_eq!(split_by_rules(name, &text).concat(), text, "{name}: {c:?}");
        }
    }
}

#[test]
fn unknown_names_have_no_rules() {
    assert!(PreTokenizer::named("no-such-pre").is_none());
}
