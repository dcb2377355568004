//! Which split rules belong to which name of `tokenizer.ggml.pre`, and what else follows from
//! the name. The rules themselves are in `rules`.

use super::classes::{Classes, LETTER, MARK, NUMBER, PUNCTUATION, Peek, SPACE, SYMBOL, Text};
use super::rules::{Lead, Rule};
use super::words::{Blanks, Contraction, Symbols, Tail, Word, Words};

/// How the text for a BPE vocabulary is prepared.
#[derive(Clone, Copy)]
pub(super) struct PreTokenizer {
    rules: &'static [Rule],
    /// A word that is a token is that token, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Whether a beginning-of-text token is added where the file does not say.
    pub(super) add_bos: bool,
    /// How the characters of pieces stand for text.
    pub(super) alphabet: Alphabet,
    /// Gemma 4's: line ends that are a token together are that token, with no merges for them.
    pub(super) is_gemma4: bool,
}

/// How the characters of a BPE vocabulary's pieces stand for text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Alphabet {
    /// One character for each byte, as in GPT-2.
    Bytes,
    /// The text itself, with byte pieces `<0xNN>`.
    Text,
    /// As `Text`, with U+2581 for spaces.
    TextEscaped,
}

impl PreTokenizer {
    /// The rules of `name`, or `None` where the name is not known.
    pub(super) fn named(name: &str) -> Option<Self> {
        let (rules, ignore_merges) = match name {
            "default" => (DEFAULT, false),
            "minicpm5" => (MINICPM5, true),
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2" | "jina-v5-nano" => {
                (LLAMA3, true)
            }
            "deepseek-llm" => (DEEPSEEK_LLM, false),
            "deepseek-coder" => (DEEPSEEK_CODER, false),
            "deepseek-v3" | "hunyuan-dense" | "hy_v4" | "joyai-llm" => (DEEPSEEK_V3, false),
            "spark2_5" => (SPARK, false),
            "youtu" => (YOUTU, true),
            "falcon" => (FALCON, false),
            "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" | "exaone" | "minerva-7b" | "mellum2" => (STARCODER, false),
            "gpt-2" | "phi-2" | "jina-es" | "jina-de" | "gigachat" | "jina-v2-es" | "jina-v2-de" | "a.x-4.0" | "mellum" | "modern-bert"
            | "jina-v1-en" | "jina-v2-code" | "roberta-bpe" | "mpt" | "olmo" | "jais" | "exaone4" | "trillion" | "granite-docling" => {
                (GPT2, false)
            }
            "jais-2" => (JAIS2, false),
            "gemma4" | "granite-embed-multi-311m" | "sarvam-moe" => (LINES, false),
            "whitespace" => (WHITE_SPACE, false),
            "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez" | "stablelm2" | "hunyuan" | "solar-open" | "grok-2" => {
                (QWEN2, false)
            }
            "qwen35" => (QWEN35, false),
            "dbrx" | "smaug-bpe" | "chatglm-bpe" => (LLAMA3, false),
            "glm4" | "glm5" => (LLAMA3, true),
            "poro-chat" | "bloom" | "gpt3-finnish" => (PORO, false),
            "viking" => (VIKING, false),
            "tekken" => (TEKKEN, true),
            "exaone-moe" => (EXAONE_MOE, false),
            "chameleon" => (CHAMELEON, false),
            "gpt-4o" | "llama4" | "kanana2" | "talkie" | "minimax-m2" => (GPT4O, false),
            "granite-embed-multi-97m" => (GRANITE_EMBEDDING, true),
            "tiny_aya" | "cohere2moe" => (TINY_AYA, false),
            "superbpe" => (SUPERBPE, false),
            "bailingmoe" | "bailingmoe2" | "llada-moe" => (QWEN2, false),
            "seed-coder" => (SEED_CODER, false),
            "kimi-k2" => (KIMI_K2, false),
            "ufakzeka" => (UFAKZEKA, false),
            "afmoe" => (AFMOE, false),
            "laguna" => (LAGUNA, false),
            _ => return None,
        };
        let add_bos = matches!(name, "tekken" | "chameleon") || (ignore_merges && std::ptr::eq(rules, LLAMA3) && !name.starts_with("glm"));
        let alphabet = match name {
            "gemma4" | "granite-embed-multi-311m" | "sarvam-moe" => Alphabet::TextEscaped,
            "whitespace" => Alphabet::Text,
            _ => Alphabet::Bytes,
        };
        let is_gemma4 = matches!(name, "gemma4" | "granite-embed-multi-311m");
        Some(Self { rules, ignore_merges, add_bos, alphabet, is_gemma4 })
    }

    /// Calls `emit` with the words of `text` in order: all of `text`, nothing empty.
    pub(super) fn split(&self, text: &str, emit: &mut dyn FnMut(&str)) {
        let text = Text::new(text, Classes::get());
        if !text.text.is_empty() {
            split(self.rules, text, emit);
        }
    }
}

fn split(rules: &[Rule], text: Text<'_>, emit: &mut dyn FnMut(&str)) {
    match rules {
        [] => emit(text.text),
        [rule] => rule.split(text, &mut |word| emit(word.text)),
        [rule, rest @ ..] => rule.split(text, &mut |piece| split(rest, piece, emit)),
    }
}

const NOT_WORD: Symbols = Symbols::Not(SPACE | LETTER | NUMBER);

/// `(?i:'s|..)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
const QWEN2_WORDS: Words = Words {
    contraction: Contraction::Alone,
    word: Word::Letters(LETTER),
    digits: 1,
    symbols: NOT_WORD,
    tail: Tail::Lines,
    blanks: Blanks::AllButOne,
};

/// As DeepSeek V3's last expression.
const MARKED_WORDS: Words =
    Words { contraction: Contraction::No, word: Word::Marked, digits: 0, symbols: Symbols::Only(PUNCTUATION | SYMBOL), ..QWEN2_WORDS };

/// As GPT-4o's expression, but with single digits and no contractions.
const TEKKEN_WORDS: Words = Words { contraction: Contraction::No, word: Word::Cased(LETTER), tail: Tail::LinesSlashes, ..QWEN2_WORDS };

const GPT4O_WORDS: Words = Words { contraction: Contraction::Suffix, digits: 3, ..TEKKEN_WORDS };

/// `class{least,most}`
const fn run(class: fn(Peek) -> bool, least: usize, most: usize) -> Rule {
    Rule::Run { lead: Lead::No, class, least, most }
}

/// `class+`
const fn runs(class: fn(Peek) -> bool) -> Rule {
    run(class, 1, usize::MAX)
}

/// `class+` after an optional character.
const fn led_runs(lead: Lead, class: fn(Peek) -> bool) -> Rule {
    Rule::Run { lead, class, least: 1, most: usize::MAX }
}

const EACH_NUMBER: Rule = run(is_number, 1, 1);
const THREE_NUMBERS: Rule = run(is_number, 1, 3);

const GPT2: &[Rule] = &[Rule::Gpt2];
const STARCODER: &[Rule] = &[EACH_NUMBER, Rule::Gpt2];
const LLAMA3: &[Rule] = &[Rule::Words(Words { digits: 3, ..QWEN2_WORDS })];
const QWEN2: &[Rule] = &[Rule::Words(QWEN2_WORDS)];
const QWEN35: &[Rule] =
    &[Rule::Words(Words { word: Word::Letters(LETTER | MARK), symbols: Symbols::Not(SPACE | LETTER | NUMBER | MARK), ..QWEN2_WORDS })];
const UFAKZEKA: &[Rule] = &[Rule::Words(Words { contraction: Contraction::No, ..QWEN2_WORDS })];
const SEED_CODER: &[Rule] = &[Rule::Words(Words { tail: Tail::No, ..QWEN2_WORDS })];
const JAIS2: &[Rule] = &[Rule::Words(Words { digits: 3, blanks: Blanks::PowersOfTwo, ..QWEN2_WORDS })];
const MINICPM5: &[Rule] = &[THREE_NUMBERS, Rule::Words(Words { digits: usize::MAX, ..QWEN2_WORDS })];
const EXAONE_MOE: &[Rule] = &[Rule::Words(Words { word: Word::Spaced, tail: Tail::OneLineSlash, ..QWEN2_WORDS })];
const KIMI_K2: &[Rule] = &[Rule::Words(Words { contraction: Contraction::Suffix, word: Word::NotHan, digits: 3, ..QWEN2_WORDS })];
const LAGUNA: &[Rule] = &[runs(is_newline), Rule::Words(QWEN2_WORDS)];
const LINES: &[Rule] = &[runs(is_newline)];
const WHITE_SPACE: &[Rule] = &[runs(is_not_space)];

const TEKKEN: &[Rule] = &[Rule::Words(TEKKEN_WORDS)];
const GPT4O: &[Rule] = &[Rule::Words(GPT4O_WORDS)];
const GRANITE_EMBEDDING: &[Rule] = &[Rule::Words(Words { word: Word::Cased(LETTER | MARK), ..GPT4O_WORDS })];
const TINY_AYA: &[Rule] = &[Rule::GroupedDigits, Rule::Words(Words { word: Word::Letters(LETTER | MARK), ..GPT4O_WORDS })];
const YOUTU: &[Rule] = &[
    runs(is_hangul),
    runs(is_cjk_punctuation),
    runs(is_bopomofo),
    runs(is_han_or_kana),
    Rule::Words(Words { word: Word::Letters(LETTER | MARK), digits: 1, ..GPT4O_WORDS }),
];

const DEEPSEEK_V3: &[Rule] = &[THREE_NUMBERS, runs(is_han_or_kana), Rule::Words(MARKED_WORDS)];
const SPARK: &[Rule] =
    &[THREE_NUMBERS, runs(is_han_or_kana), Rule::Words(Words { tail: Tail::No, blanks: Blanks::LineByLine, ..MARKED_WORDS }), EACH_NUMBER];
const AFMOE: &[Rule] = &[Rule::GroupedDigits, runs(is_asian), Rule::Words(MARKED_WORDS)];
const DEEPSEEK_CODER: &[Rule] = &[
    run(is_line_end, 1, 1),
    led_runs(Lead::Space, is_letter),
    led_runs(Lead::Space, |at| at.is(PUNCTUATION)),
    runs(is_east_asian),
    EACH_NUMBER,
];
const DEEPSEEK_LLM: &[Rule] = &[
    run(is_line_end, 1, 1),
    led_runs(Lead::Space, is_cased_letter),
    led_runs(Lead::Space, is_deepseek_punctuation),
    Rule::TrailingSpace,
    runs(is_east_asian),
    runs(is_number),
];

const FALCON: &[Rule] = &[runs(|at| at.is(PUNCTUATION) || "$+<=>^~|`".contains(at.c)), Rule::Gpt2, run(is_ascii_digit, 3, 3)];
const DEFAULT: &[Rule] =
    &[runs(|at| at.is(PUNCTUATION) || "$+<=>^~|".contains(at.c)), Rule::Gpt2, runs(is_number), run(is_ascii_digit, 3, 3)];
const PORO: &[Rule] = &[led_runs(Lead::Blank, is_poro_word)];
const VIKING: &[Rule] = &[led_runs(Lead::Blank, is_poro_word), EACH_NUMBER];
const SUPERBPE: &[Rule] = &[runs(is_number), Rule::CutDigits];
const CHAMELEON: &[Rule] = &[
    Rule::Sentinel,
    Rule::ImageToken,
    Rule::Indent,
    EACH_NUMBER,
    run(|at| at.is(PUNCTUATION) || at.c.is_ascii_punctuation(), 1, 1),
    Rule::Gpt2,
];

fn is_letter(at: Peek) -> bool {
    at.is(LETTER)
}

fn is_number(at: Peek) -> bool {
    at.is(NUMBER)
}

fn is_ascii_digit(at: Peek) -> bool {
    at.c.is_ascii_digit()
}

fn is_newline(at: Peek) -> bool {
    at.c == '\n'
}

fn is_line_end(at: Peek) -> bool {
    at.c == '\r' || at.c == '\n'
}

fn is_not_space(at: Peek) -> bool {
    !at.is(SPACE)
}

/// `[一-龥぀-ゟ゠-ヿ]`
fn is_han_or_kana(at: Peek) -> bool {
    matches!(at.c, '\u{4e00}'..='\u{9fa5}' | '\u{3040}'..='\u{30ff}')
}

/// `[가-힣ㄱ-ㆎ]`
fn is_hangul(at: Peek) -> bool {
    matches!(at.c, '\u{ac00}'..='\u{d7a3}' | '\u{3131}'..='\u{318e}')
}

/// `[！…“”‘’—：；，、-〿︰-﹏]`
fn is_cjk_punctuation(at: Peek) -> bool {
    matches!(at.c,
        '！' | '…' | '“' | '”' | '‘' | '’' | '—' | '：' | '；' | '，'
        | '\u{3001}'..='\u{303f}' | '\u{fe30}'..='\u{fe4f}')
}

/// `[ㄅ-ㄯ]`
fn is_bopomofo(at: Peek) -> bool {
    matches!(at.c, '\u{3105}'..='\u{312f}')
}

/// `[一-龥ࠀ-一가-퟿]`
fn is_east_asian(at: Peek) -> bool {
    !at.is(SPACE) && matches!(at.c, '\u{800}'..='\u{9fa5}' | '\u{ac00}'..='\u{d7ff}')
}

/// Han, kana, Thai, Lao, Khmer, Burmese and Hangul, as AFMoE lists them; in llama.cpp the range
/// of compatibility ideographs begins at U+8C48, so that all up to U+FAFF belongs to it.
fn is_asian(at: Peek) -> bool {
    matches!(at.c,
        '\u{4e00}'..='\u{faff}' | '\u{3400}'..='\u{4dbf}' | '\u{3040}'..='\u{30ff}'
        | '\u{ff65}'..='\u{ff9f}' | '\u{2f00}'..='\u{2fdf}' | '\u{e40}'..='\u{eff}'
        | '\u{1780}'..='\u{17ff}' | '\u{1000}'..='\u{109f}' | '\u{1100}'..='\u{11ff}')
}

/// `[!-/:-~！-／：-～‘-‟　-。]`, where white space was taken out before.
fn is_deepseek_punctuation(at: Peek) -> bool {
    matches!(at.c,
        '!'..='/' | ':'..='~' | '！'..='／' | '：'..='～' | '\u{2018}'..='\u{201f}'
        | '\u{3001}'..='\u{3002}')
}

/// `[^(\s|.,!?…。，、।۔،)]`
fn is_poro_word(at: Peek) -> bool {
    !at.is(SPACE) && !matches!(at.c, '(' | '|' | '.' | ',' | '!' | '?' | '…' | '。' | '，' | '、' | '।' | '۔' | '،' | ')')
}

/// The letters with case that DeepSeek LLM's expression lists, by code point ranges.
fn is_cased_letter(at: Peek) -> bool {
    if at.c.is_ascii() {
        return at.c.is_ascii_alphabetic();
    }
    let c = at.c as u32;
    let after = CASED_LETTERS.partition_point(|&(first, _)| first <= c);
    after > 0 && c <= CASED_LETTERS[after - 1].1
}

/// Ranges of cased letters outside ASCII, ascending.
#[rustfmt::skip]
const CASED_LETTERS: &[(u32, u32)] = &[
    (0xb5, 0xb5), (0xc0, 0xd6), (0xd8, 0xf6), (0xf8, 0x1ba), (0x1bc, 0x1bf), (0x1c4, 0x293),
    (0x295, 0x2af), (0x370, 0x373), (0x376, 0x376), (0x377, 0x377), (0x37b, 0x37d), (0x37f, 0x37f),
    (0x386, 0x386), (0x388, 0x38a), (0x38c, 0x38c), (0x38e, 0x3a1), (0x3a3, 0x3f5), (0x3f7, 0x481),
    (0x48a, 0x52f), (0x531, 0x556), (0x10a0, 0x10c5), (0x13a0, 0x13f5), (0x13f8, 0x13fd),
    (0x1c90, 0x1cba), (0x1cbd, 0x1cbf), (0x1d00, 0x1d2b), (0x1d6b, 0x1d77), (0x1d79, 0x1d9a),
    (0x1e00, 0x1f15), (0x1f18, 0x1f1d), (0x1f20, 0x1f45), (0x1f48, 0x1f4d), (0x1f50, 0x1f57),
    (0x1f59, 0x1f59), (0x1f5b, 0x1f5b), (0x1f5d, 0x1f5d), (0x1f5f, 0x1f7d), (0x1f80, 0x1fb4),
    (0x1fb6, 0x1fbc), (0x1fbe, 0x1fbe), (0x1fc2, 0x1fc4), (0x1fc6, 0x1fcc), (0x1fd0, 0x1fd3),
    (0x1fd6, 0x1fdb), (0x1fe0, 0x1fec), (0x1ff2, 0x1ff4), (0x1ff6, 0x1ffc), (0x2102, 0x2102),
    (0x2107, 0x2107), (0x210a, 0x2113), (0x2115, 0x2115), (0x2119, 0x211d), (0x2124, 0x2124),
    (0x2126, 0x2126), (0x2128, 0x2128), (0x212a, 0x212d), (0x212f, 0x2134), (0x2139, 0x2139),
    (0x213c, 0x213f), (0x2145, 0x2149), (0x214e, 0x214e), (0x2183, 0x2183), (0x2184, 0x2184),
    (0x2c00, 0x2c7b), (0x2c7e, 0x2ce4), (0x2ceb, 0x2cee), (0x2cf2, 0x2cf2), (0x2cf3, 0x2cf3),
    (0xa640, 0xa66d), (0xa680, 0xa69b), (0xa722, 0xa76f), (0xa771, 0xa787), (0xa78b, 0xa78e),
    (0xab70, 0xabbf), (0xfb00, 0xfb06), (0xfb13, 0xfb17), (0xff21, 0xff3a), (0xff41, 0xff5a),
    (0x10400, 0x1044f), (0x104b0, 0x104d3), (0x104d8, 0x104fb), (0x10c80, 0x10cb2),
    (0x10cc0, 0x10cf2), (0x118a0, 0x118df), (0x1e900, 0x1e943),
];
