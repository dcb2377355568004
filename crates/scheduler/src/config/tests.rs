use super::*;
use downshift_worker::{Device, DeviceChoice, KvType};

const EXAMPLE: &str = r#"
[settings]
models_dir    = "weights"
default_model = "gpt-4o"
timeout       = "0s"
stall_timeout = "1.5m"
memory_limit  = "75%"
fallback_on   = ["empty", "invalid_json"]
on_stream_failure = "error"

[models.zeta]
path        = "z.gguf"
aliases     = ["gpt-4o"]
fallbacks   = ["mid", "alpha"]
context_window_fallbacks = ["mid"]
context     = 32768
min_context = 8192
parallel    = 4
temperature = 0.7
top_k       = 20

[models.mid]
repo    = "Qwen/Qwen3-1.7B-GGUF"
file    = "q8.gguf"
kv_type = "q8_0"
device  = "cuda:1"

[models.alpha]
path       = "/abs/a.gguf"
device     = "cpu"
context    = 512
keep_alive = "forever"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::from_text(text, Path::new("home"), &HfCache { hub: PathBuf::from("hub") })
}

/// `[models.a]` and `[models.b]` with `settings` before and `more` at the end of `[models.b]`.
fn two(more: &str) -> String {
    format!("[models.a]\npath = \"a.gguf\"\n\n[models.b]\npath = \"b.gguf\"\n{more}")
}

fn refuse(text: &str, line: usize, words: &[&str]) {
    let error = parse(text).expect_err(text);
    assert_eq!(error.line, Some(line), "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn every_key_reaches_its_field() {
    let config = parse(EXAMPLE).unwrap();
    let settings = &config.settings;
    assert_eq!(settings.timeout, None);
    assert_eq!(settings.stall_timeout, Some(Duration::from_secs(90)));
    assert_eq!(settings.memory_limit, MemoryLimit::Share(0.75));
    assert_eq!(settings.fallback_on, [ContentCheck::Empty, ContentCheck::InvalidJson]);
    assert_eq!(settings.on_stream_failure, OnStreamFailure::Error);
    assert_eq!(settings.num_retries, 1);
    let [zeta, mid, alpha] = config.models() else { panic!("three models") };
    assert_eq!(zeta.spec.path, Path::new("home/weights/z.gguf"));
    assert_eq!((zeta.spec.context, zeta.spec.min_context, zeta.spec.parallel), (Some(32768), 8192, 4));
    assert_eq!((zeta.spec.sampling.temperature, zeta.spec.sampling.top_k), (Some(0.7), Some(20)));
    assert_eq!(zeta.fallbacks.as_deref(), Some(&["mid".to_owned(), "alpha".to_owned()][..]));
    assert_eq!(mid.spec.path, Path::new("hub/models--Qwen--Qwen3-1.7B-GGUF/snapshots/main/q8.gguf"));
    assert_eq!((mid.spec.kv_type, mid.spec.device), (KvType::Q8_0, DeviceChoice::Only(Device::Cuda(1))));
    assert_eq!(mid.fallbacks, None);
    assert_eq!(alpha.spec.path, Path::new("/abs/a.gguf"));
    assert_eq!(alpha.spec.min_context, 512);
    assert_eq!(config.keep_alive(2), KeepAlive::Forever);
    assert_eq!(config.keep_alive(0), KeepAlive::For(Duration::from_secs(300)));
    assert_eq!((config.index_of("gpt-4o"), config.default_index()), (Some(0), 0));
}

#[test]
fn models_keep_the_order_of_the_file() {
    let names: Vec<String> = (b'a'..=b'z').rev().map(|letter| char::from(letter).to_string()).collect();
    let text: String = names.iter().map(|name| format!("[models.{name}]\npath = \"{name}.gguf\"\n")).collect();
    let config = parse(&text).unwrap();
    assert_eq!(config.models().iter().map(ModelEntry::name).collect::<Vec<_>>(), names);
}

#[test]
fn the_shortest_useful_file_is_two_tables_with_a_path() {
    let config = parse(&two("")).unwrap();
    assert_eq!(config.settings, Settings::default());
    assert_eq!(config.default_index(), 0);
    assert_eq!(config.models()[1].spec.path, Path::new("home/b.gguf"));
}

#[test]
fn unknown_keys_name_line_and_remedy() {
    refuse(&two("fallback = [\"a\"]\n"), 6, &["models.b.fallback", "unknown key", "did you mean `fallbacks`?"]);
    refuse(&two("zzz = 1\n"), 6, &["models.b.zzz", "the keys are path, repo, file"]);
    refuse("[setings]\nqueue = 1\n", 1, &["setings", "did you mean `settings`?"]);
    refuse("[settings]\nnum_retires = 1\n[models.a]\npath=\"a\"", 2, &["did you mean `num_retries`?"]);
}

#[test]
fn unknown_names_name_line_and_remedy() {
    refuse(&two("fallbacks = [\n  \"a\",\n  \"aa\",\n]\n"), 8, &["models.b.fallbacks", "no model `aa`", "did you mean `a`?"]);
    refuse(&format!("[settings]\ndefault_model = \"chat\"\n{}", two("")), 2, &["no model `chat`", "the models are a, b"]);
    refuse(&format!("[settings]\ndefault_fallbacks = [\"chat\"]\n{}", two("")), 2, &["no model `chat`"]);
    refuse(&two("context_window_fallbacks = [\"x\"]"), 6, &["no model `x`"]);
}

#[test]
fn clashing_aliases_and_fallbacks_to_itself_are_refused() {
    refuse(&two("aliases = [\"a\"]"), 6, &["`a` is a name of `a` already"]);
    refuse(&two("aliases = [\"x\", \"x\"]"), 6, &["`x` is a name of `b` already"]);
    refuse(&two("fallbacks = [\"b\"]"), 6, &["cannot be its own fallback", "remove `b`"]);
    refuse(&two("aliases = [\"x\"]\nfallbacks = [\"x\"]"), 7, &["cannot be its own fallback"]);
    refuse(&two("fallbacks = [\"a\", \"a\"]"), 6, &["listed twice"]);
}

#[test]
fn embedders_fall_back_only_within_one_space() {
    refuse(&two("embedding_space = \"e\"\nfallbacks = [\"a\"]"), 7, &["`b` has embedding_space `e`", "`a` has none"]);
    let same = "[models.a]\npath=\"a\"\nembedding_space=\"e\"\nfallbacks=[\"b\"]\n[models.b]\npath=\"b\"\nembedding_space=\"e\"";
    assert!(parse(same).is_ok());
}

#[test]
fn wrong_values_name_what_to_write() {
    refuse(&two("context = 0"), 6, &["models.b.context", "outside 1 to", "at least 1"]);
    refuse(&two("context = \"8k\""), 6, &["an integer was expected, not a string"]);
    refuse(&two("context = 4096\nmin_context = 8192"), 7, &["8192 is more than the context of 4096"]);
    refuse(&two("device = \"gpu\""), 6, &["unknown device `gpu`"]);
    refuse(&two("keep_alive = 5"), 6, &["a string was expected, not an integer", "\"5m\""]);
    refuse(&two("temperature = -0.1"), 6, &["out of range"]);
    refuse(&two("top_p = nan"), 6, &["no finite number"]);
    refuse(&two("kv_type = \"f32\""), 6, &["\"f16\" or \"q8_0\""]);
    refuse(&two("path2 = 1"), 6, &["did you mean `path`?"]);
    refuse(&two("repo = \"x/y\""), 5, &["both a path and a repo"]);
    refuse("[models.a]\nrepo = \"x/y\"", 2, &["need each other"]);
    refuse("[models.a]\nrepo = \"../y\"\nfile = \"f\"", 2, &["no repository"]);
    refuse("[models.a]\nrepo = \"x/y\"\nfile = \"../f\"", 3, &["no file of a repository"]);
    refuse("[models.a]\ncontext = 1", 1, &["nothing says where the model is", "add path"]);
    refuse("[models.a]\npaht = \"a\"", 1, &["nothing says where the model is", "did you mean `path` where it says `paht`?"]);
    refuse("[models]\na = 1", 2, &["a table was expected"]);
    refuse("[settings]\nmemory_margin = \"lots\"\n[models.a]\npath = \"a\"", 2, &["settings.memory_margin", "512MiB"]);
}

#[test]
fn text_that_is_no_toml_names_its_line() {
    refuse("[models.a]\npath = a.gguf\n", 2, &[]);
    refuse("[models.a]\npath = \"a\"\n[models.a]\npath = \"b\"\n", 3, &["duplicate"]);
    assert!(parse("").unwrap_err().to_string().contains("no model is named; add a table such as [models.chat]"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::from_file(Path::new("no/such/models.toml")).unwrap_err();
    assert!(error.to_string().starts_with("no/such/models.toml: cannot be read"), "{error}");
}
