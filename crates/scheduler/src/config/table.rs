//! Reads TOML tables key by key and remembers lines, so that every complaint names its place and a remedy.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use downshift_worker::{DeviceChoice, KvType, Quantize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::units::{self, KeepAlive, MemoryLimit};
use super::{ConfigError, ContentCheck, OnStreamFailure};

/// The text being read, for its line numbers.
#[derive(Clone, Copy)]
pub(super) struct Source<'a>(pub &'a str);

impl Source<'_> {
    /// The line of a byte offset, counted from 1.
    pub fn line(self, span: Range<usize>) -> usize {
        let end = span.start.min(self.0.len());
        self.0.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// A value and the line it stands on.
pub(super) struct Located<T> {
    pub value: T,
    pub line: usize,
}

/// One table whose keys are taken out one by one; what is left at the end is unknown.
pub(super) struct Table<'a> {
    source: Source<'a>,
    name: String,
    entries: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub fn new(source: Source<'a>, name: impl Into<String>, entries: &'a DeTable<'a>) -> Self {
        Self { source, name: name.into(), entries, known: Vec::new() }
    }

    /// The tables in this table under `key`, in the order of the file.
    pub fn subtables(&mut self, key: &'static str) -> Result<Vec<Located<Table<'a>>>, ConfigError> {
        let Some(list) = self.subtable(key)? else { return Ok(Vec::new()) };
        let mut tables = Vec::new();
        for (name, value) in list.value.entries {
            let line = self.source.line(name.span());
            let name = format!("{key}.{}", name.get_ref());
            let DeValue::Table(entries) = value.get_ref() else {
                let problem = format!("a table was expected, not {}", article(value.get_ref()));
                return Err(ConfigError::new(&name, problem, format!("write `[{name}]` and its keys below")).at(Some(line)));
            };
            tables.push(Located { value: Table::new(self.source, name, entries), line });
        }
        Ok(tables)
    }

    /// The table in this table under `key`.
    pub fn subtable(&mut self, key: &'static str) -> Result<Option<Located<Table<'a>>>, ConfigError> {
        self.known.push(key);
        let Some((name, value)) = self.entries.get_key_value(key) else { return Ok(None) };
        let line = self.source.line(name.span());
        let DeValue::Table(entries) = value.get_ref() else {
            let problem = format!("a table was expected, not {}", article(value.get_ref()));
            return Err(ConfigError::new(key, problem, format!("write `[{key}]` and its keys below")).at(Some(line)));
        };
        Ok(Some(Located { value: Table::new(self.source, key, entries), line }))
    }

    /// The value of `key`, if it is there.
    pub fn take<T: FromToml>(&mut self, key: &'static str) -> Result<Option<Located<T>>, ConfigError> {
        self.known.push(key);
        let Some((name, value)) = self.entries.get_key_value(key) else { return Ok(None) };
        let line = self.source.line(name.span());
        T::read(value.get_ref())
            .map(|value| Some(Located { value, line }))
            .map_err(|problem| ConfigError::new(self.path(key), problem, format!("write {}", T::EXAMPLE)).at(Some(line)))
    }

    /// The value of `key`, or what it is without one.
    pub fn value_or<T: FromToml>(&mut self, key: &'static str, default: T) -> Result<T, ConfigError> {
        Ok(self.take(key)?.map_or(default, |found| found.value))
    }

    /// The list of names under `key`, each with its own line.
    pub fn names(&mut self, key: &'static str) -> Result<Option<Vec<Located<String>>>, ConfigError> {
        self.known.push(key);
        let Some((name, value)) = self.entries.get_key_value(key) else { return Ok(None) };
        let error = |line, problem: String| {
            ConfigError::new(self.path(key), problem, "write a list of names such as [\"mid\", \"tiny\"]").at(Some(line))
        };
        let DeValue::Array(items) = value.get_ref() else {
            let problem = format!("a list was expected, not {}", article(value.get_ref()));
            return Err(error(self.source.line(name.span()), problem));
        };
        let read = |item: &Spanned<DeValue<'_>>| {
            let line = self.source.line(item.span());
            let value = String::read(item.get_ref()).map_err(|problem| error(line, problem))?;
            Ok(Located { value, line })
        };
        items.iter().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// Complains about the first key that nobody took.
    pub fn finish(self) -> Result<(), ConfigError> {
        let unknown = self.entries.keys().find(|key| !self.known.contains(&key.get_ref().as_ref()));
        let Some(key) = unknown else { return Ok(()) };
        let name: &str = key.get_ref();
        let line = self.source.line(key.span());
        Err(ConfigError::new(self.path(name), "unknown key", suggest(name, self.known.iter().copied(), "keys")).at(Some(line)))
    }

    /// A key of this table, taken or not, that looks like a slip of `wanted`.
    pub fn slip_of(&self, wanted: &str) -> Option<String> {
        let keys = self.entries.keys().map(|key| key.get_ref().to_string());
        keys.into_iter().find(|key| strsim::jaro_winkler(key, wanted) > ALIKE)
    }

    /// The full name of this table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The full name of a key of this table.
    pub fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

/// How alike two keys must be for one to be taken for a slip of the other.
const ALIKE: f64 = 0.8;

/// "did you mean `x`?", or all that would have been right.
pub(super) fn suggest<'n>(name: &str, known: impl Iterator<Item = &'n str>, what: &str) -> String {
    let known: Vec<&str> = known.collect();
    let best = known.iter().map(|candidate| (strsim::jaro_winkler(name, candidate), candidate)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((score, candidate)) if score > ALIKE => format!("did you mean `{candidate}`?"),
        _ => format!("the {what} are {}", known.join(", ")),
    }
}

/// A value that a key may have.
pub(super) trait FromToml: Sized {
    /// What to write, for the remedy.
    const EXAMPLE: &'static str;
    /// Reads it; the error is one sentence.
    fn read(value: &DeValue<'_>) -> Result<Self, String>;
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| format!("a string was expected, not {}", article(value)))
}

fn integer(value: &DeValue<'_>, least: u64, most: u64) -> Result<u64, String> {
    let digits = value.as_integer().ok_or_else(|| format!("an integer was expected, not {}", article(value)))?;
    u64::from_str_radix(digits.as_str(), digits.radix())
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("`{digits}` is outside {least} to {most}"))
}

impl FromToml for String {
    const EXAMPLE: &'static str = "a string that is not empty";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let value = text(value)?;
        if value.is_empty() { Err("the string is empty".to_owned()) } else { Ok(value.to_owned()) }
    }
}

impl FromToml for PathBuf {
    const EXAMPLE: &'static str = "a path in quotes";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        String::read(value).map(Self::from)
    }
}

impl FromToml for bool {
    const EXAMPLE: &'static str = "true or false";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| format!("a boolean was expected, not {}", article(value)))
    }
}

impl FromToml for u32 {
    const EXAMPLE: &'static str = "a whole number such as 4";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        integer(value, 0, 0xffff_ffff).map(|number| number as Self)
    }
}

impl FromToml for u64 {
    const EXAMPLE: &'static str = "a whole number such as 42";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        integer(value, 0, Self::MAX)
    }
}

/// A whole number that is at least 1.
pub(super) struct Count(pub u32);

impl FromToml for Count {
    const EXAMPLE: &'static str = "a whole number of at least 1, such as 4096";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        integer(value, 1, 1 << 30).map(|number| Self(number as u32))
    }
}

impl FromToml for f32 {
    const EXAMPLE: &'static str = "a number such as 0.7";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let digits = match value {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            other => return Err(format!("a number was expected, not {}", article(other))),
        };
        let number = digits.parse().ok().filter(|number: &Self| number.is_finite());
        number.ok_or_else(|| format!("`{digits}` is no finite number"))
    }
}

/// A time where 0 means none.
pub(super) struct Limit(pub Option<Duration>);

impl FromToml for Limit {
    const EXAMPLE: &'static str = "a time such as \"30s\" or \"15m\", or \"0s\" for none";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let time = units::parse_duration(text(value)?)?;
        Ok(Self(Some(time).filter(|time| !time.is_zero())))
    }
}

impl FromToml for Duration {
    const EXAMPLE: &'static str = "a time such as \"60s\" or \"15m\"";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        units::parse_duration(text(value)?)
    }
}

impl FromToml for KeepAlive {
    const EXAMPLE: &'static str = "a time such as \"5m\", or \"forever\"";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        units::parse_keep_alive(text(value)?)
    }
}

impl FromToml for MemoryLimit {
    const EXAMPLE: &'static str = "\"auto\", a size such as \"12GiB\", or a share such as \"75%\"";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        units::parse_memory_limit(text(value)?)
    }
}

/// A size in bytes.
pub(super) struct Bytes(pub u64);

impl FromToml for Bytes {
    const EXAMPLE: &'static str = "a size such as \"512MiB\" or \"2GiB\"";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        units::parse_bytes(text(value)?).map(Self)
    }
}

/// A number of cores; `None` for `"auto"`.
pub(super) struct Threads(pub Option<usize>);

impl FromToml for Threads {
    const EXAMPLE: &'static str = "\"auto\" or a number of cores such as 4";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        if value.as_str() == Some("auto") { Ok(Self(None)) } else { integer(value, 1, 4096).map(|number| Self(Some(number as usize))) }
    }
}

impl FromToml for DeviceChoice {
    const EXAMPLE: &'static str = "\"auto\", \"cpu\", \"cuda\", \"cuda:1\" or \"metal\"";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        text(value)?.parse().map_err(|error: downshift_worker::UnknownDevice| error.to_string())
    }
}

impl FromToml for KvType {
    const EXAMPLE: &'static str = "\"f16\" or \"q8_0\"";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        choose(text(value)?, &[("f16", Self::F16), ("q8_0", Self::Q8_0)])
    }
}

impl FromToml for Quantize {
    const EXAMPLE: &'static str = "\"q8_0\" or \"q4_k\"";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        choose(text(value)?, &[("q8_0", Self::Q8_0), ("q4_k", Self::Q4K)])
    }
}

impl FromToml for OnStreamFailure {
    const EXAMPLE: &'static str = "\"continue\" or \"error\"";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        choose(text(value)?, &[("continue", Self::Continue), ("error", Self::Error)])
    }
}

impl FromToml for Vec<ContentCheck> {
    const EXAMPLE: &'static str = "a list of \"empty\" and \"invalid_json\"";
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let DeValue::Array(items) = value else { return Err(format!("a list was expected, not {}", article(value))) };
        let read = |item: &Spanned<DeValue<'_>>| {
            choose(text(item.get_ref())?, &[("empty", ContentCheck::Empty), ("invalid_json", ContentCheck::InvalidJson)])
        };
        items.iter().map(read).collect()
    }
}

fn choose<T: Copy>(word: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices.iter().find(|(name, _)| *name == word).map(|(_, choice)| *choice).ok_or_else(|| format!("`{word}` is none of the choices"))
}
