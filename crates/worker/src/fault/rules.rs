//! The rules of faults on demand, as text and checked.

use std::fmt;
use std::str::FromStr;

/// The variable that holds the rules.
pub(crate) const FAULT_VARIABLE: &str = "DOWNSHIFT_FAULT";

/// Rules that were checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub(crate) Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub model: String,
    pub at: At,
    pub fault: Fault,
    pub always: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Load,
    Prefill,
    Token(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Corrupt,
    Unsupported,
    Oom,
    OomKill,
    Nan,
    Segv,
    Abort,
    Panic,
    Bus,
    Hang,
    Slow,
    Device,
}

const FAULTS: [(&str, Fault); 12] = [
    ("corrupt", Fault::Corrupt),
    ("unsupported", Fault::Unsupported),
    ("oom", Fault::Oom),
    ("oom_kill", Fault::OomKill),
    ("nan", Fault::Nan),
    ("segv", Fault::Segv),
    ("abort", Fault::Abort),
    ("panic", Fault::Panic),
    ("bus", Fault::Bus),
    ("hang", Fault::Hang),
    ("slow", Fault::Slow),
    ("device", Fault::Device),
];

/// A rule that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultError {
    rule: String,
    remedy: String,
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FAULT_VARIABLE}: `{}`: {}", self.rule, self.remedy)
    }
}

impl std::error::Error for FaultError {}

impl Faults {
    /// The rules of `DOWNSHIFT_FAULT`; none if it is not set.
    ///
    /// # Errors
    /// For a rule that does not parse.
    pub fn from_env() -> Result<Self, FaultError> {
        std::env::var_os(FAULT_VARIABLE).map_or_else(|| Ok(Self::default()), |rules| rules.to_string_lossy().parse())
    }

    /// Whether a SIGKILL of this model's worker is to be taken for the kernel's.
    pub(crate) fn play_oom_kill(&self, model: &str) -> bool {
        self.0.iter().any(|rule| rule.fault == Fault::OomKill && rule.model == model)
    }
}

impl FromStr for Faults {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let rules = text.split(';').map(str::trim).filter(|rule| !rule.is_empty());
        rules.map(|rule| parse(rule).map_err(|remedy| FaultError { rule: rule.to_owned(), remedy })).collect::<Result<_, _>>().map(Self)
    }
}

fn parse(rule: &str) -> Result<Rule, String> {
    let form = || "expected MODEL@STAGE:FAULT, such as `chat@token=20:segv`".to_owned();
    let (model, rest) = rule.rsplit_once('@').ok_or_else(form)?;
    let (stage, fault) = rest.split_once(':').ok_or_else(form)?;
    let (fault, always) = fault.strip_suffix('!').map_or((fault, false), |fault| (fault, true));
    if model.is_empty() {
        return Err(form());
    }
    let at = match stage.strip_prefix("token=") {
        Some(count) => match count.parse() {
            Ok(0) | Err(_) => return Err(format!("`{count}` is no number of tokens from 1 on")),
            Ok(count) => At::Token(count),
        },
        None if stage == "load" => At::Load,
        None if stage == "prefill" => At::Prefill,
        None => return Err(format!("unknown stage `{stage}`: expected load, prefill or token=N")),
    };
    let Some((_, fault)) = FAULTS.iter().find(|(name, _)| *name == fault) else {
        let names: Vec<_> = FAULTS.iter().map(|(name, _)| *name).collect();
        return Err(format!("unknown fault `{fault}`: expected one of {}", names.join(", ")));
    };
    match (at, fault) {
        (At::Prefill | At::Token(_), Fault::Corrupt | Fault::Unsupported) => Err("this fault is found at load".to_owned()),
        (At::Load, Fault::Nan) => Err("this fault is found at prefill or token=N".to_owned()),
        _ => Ok(Rule { model: model.to_owned(), at, fault: *fault, always }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_parse() {
        let faults: Faults = " chat@load:corrupt ; a@b@token=20:oom_kill!;".parse().unwrap();
        let rule = |model: &str, at, fault, always| Rule { model: model.to_owned(), at, fault, always };
        assert_eq!(faults.0, [rule("chat", At::Load, Fault::Corrupt, false), rule("a@b", At::Token(20), Fault::OomKill, true)]);
        assert_eq!("".parse::<Faults>(), Ok(Faults::default()));
        assert!(faults.play_oom_kill("a@b") && !faults.play_oom_kill("chat"));
    }

    #[test]
    fn rules_that_cannot_be_are_refused_with_a_remedy() {
        let check = |rule: &str, says: &str| {
            let error = format!("chat@load:slow;{rule}").parse::<Faults>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("DOWNSHIFT_FAULT: `{rule}`: ")) && error.contains(says), "{error}");
        };
        check("chat", "expected MODEL@STAGE:FAULT");
        check("@load:oom", "expected MODEL@STAGE:FAULT");
        check("chat@load", "expected MODEL@STAGE:FAULT");
        check("chat@later:oom", "unknown stage `later`");
        check("chat@token=0:oom", "no number of tokens");
        check("chat@token=-1:oom", "no number of tokens");
        check("chat@token=x:oom", "no number of tokens");
        check("chat@load:boom", "unknown fault `boom`: expected one of corrupt,");
        check("chat@load:oom!!", "unknown fault `oom!`");
        check("chat@prefill:corrupt", "found at load");
        check("chat@load:nan", "found at prefill or token=N");
    }
}
