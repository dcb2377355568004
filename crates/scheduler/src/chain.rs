//! The flat list of models for one request, fixed at admission: a loop cannot be written.
//! Pure. Does not know which of them can run; `run_loop` finds out when it comes to each.

use std::time::Duration;

use downshift_worker::{Failure, FailureKind, Stage};

use crate::config::{Config, OnStreamFailure};

/// What a request asks of the scheduler beyond its model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Replaces the fallbacks of the model.
    pub fallbacks: Option<Vec<String>>,
    /// Only the model asked for.
    pub disable_fallbacks: bool,
    /// Replaces the setting of the same name.
    pub num_retries: Option<u32>,
    /// Replaces the setting of the same name; zero means none.
    pub timeout: Option<Duration>,
    /// The first model fails without being tried, to see the fallback at work.
    pub mock_testing_fallbacks: bool,
    /// Replaces the setting of the same name: a caller that has shown a tool call, or several choices, cannot have them continued.
    pub on_stream_failure: Option<OnStreamFailure>,
    /// Deltas are passed on as they come; otherwise nothing is shown before the answer is whole.
    pub stream: bool,
}

/// The models for one request, in the order they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The name the caller used.
    pub requested: String,
    /// Indices into the configuration, each once; the first is the primary.
    pub models: Vec<usize>,
    /// Whether the models after the first were implied and not listed: those of another kind are passed over in silence.
    pub implied: bool,
    /// Tried first once a prompt was too long, those not tried yet.
    pub longer: Vec<usize>,
}

impl Chain {
    /// The chain for `names` (empty: the default model; several: the first is primary, the rest its fallbacks).
    pub fn admit(config: &Config, names: &[String], options: &Options) -> Result<Self, Failure> {
        let index = |name: &String| config.index_of(name).ok_or_else(|| unknown(config, name));
        let primary = names.first().map_or_else(|| Ok(config.default_index()), index)?;
        let entry = &config.models()[primary];
        let requested = names.first().cloned().unwrap_or_else(|| entry.name().to_owned());
        let listed = match names {
            [_, rest @ ..] if !rest.is_empty() => Some(rest),
            _ => options.fallbacks.as_deref().or(entry.fallbacks.as_deref()),
        };
        let defaults = config.settings.default_fallbacks.as_deref();
        let (rest, implied) = match (listed, defaults) {
            (Some(list), _) => (list.iter().map(index).collect::<Result<_, _>>()?, false),
            (None, Some(list)) => (list.iter().map(index).collect::<Result<_, _>>()?, true),
            (None, None) => ((primary + 1..config.models().len()).collect::<Vec<_>>(), true),
        };
        let longer = entry.context_window_fallbacks.iter().map(index).collect::<Result<Vec<_>, _>>()?;
        let mut models = vec![primary];
        if options.disable_fallbacks {
            return Ok(Self { requested, models, implied, longer: Vec::new() });
        }
        for index in rest {
            if !models.contains(&index) {
                models.push(index);
            }
        }
        Ok(Self { requested, models, implied, longer })
    }
}

impl Config {
    /// The models that answer requests for the one at `index`, in order, itself first. Of a chain that no list names, models of
    /// another kind are passed over when it comes to them.
    pub fn chain(&self, index: usize) -> Vec<usize> {
        let name = self.models()[index].name().to_owned();
        Chain::admit(self, &[name], &Options::default()).map_or_else(|_| vec![index], |chain| chain.models)
    }
}

fn unknown(config: &Config, name: &str) -> Failure {
    let names: Vec<&str> = config.models().iter().map(|model| model.name()).collect();
    let message = format!("there is no model `{name}`; the models are {}", names.join(", "));
    Failure::new(FailureKind::UnknownModel, Stage::Admission, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HfCache;
    use std::path::Path;

    const FILE: &str = r#"
        [models.a]
        path = "a"
        fallbacks = ["c", "b"]
        context_window_fallbacks = ["d"]
        aliases = ["first"]
        [models.b]
        path = "b"
        [models.c]
        path = "c"
        fallbacks = []
        [models.d]
        path = "d"
    "#;

    fn check(text: &str, names: &[&str], options: &Options, expected: &str) {
        let config = Config::from_text(text, Path::new(""), &HfCache { hub: "".into() }).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let chain = Chain::admit(&config, &names, options).unwrap();
        let found: Vec<&str> = chain.models.iter().map(|index| config.models()[*index].name()).collect();
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn own_list_then_defaults_then_the_models_that_follow() {
        let none = Options::default();
        check(FILE, &[], &none, "a c b");
        check(FILE, &["first"], &none, "a c b");
        check(FILE, &["b"], &none, "b c d");
        check(FILE, &["c"], &none, "c");
        check(FILE, &["d"], &none, "d");
        let with_defaults = format!("[settings]\ndefault_fallbacks = [\"d\", \"a\"]\n{FILE}");
        check(&with_defaults, &["a"], &none, "a c b");
        check(&with_defaults, &["b"], &none, "b d a");
        check(&with_defaults, &["d"], &none, "d a");
    }

    #[test]
    fn a_request_replaces_the_list() {
        let options = Options { fallbacks: Some(vec!["d".to_owned(), "a".to_owned(), "d".to_owned()]), ..Options::default() };
        check(FILE, &["a"], &options, "a d");
        check(FILE, &["b", "a"], &options, "b a");
        check(FILE, &["b", "first", "d"], &Options::default(), "b a d");
        check(FILE, &["a"], &Options { disable_fallbacks: true, ..Options::default() }, "a");
        check(FILE, &["a"], &Options { fallbacks: Some(Vec::new()), ..Options::default() }, "a");
    }

    #[test]
    fn unknown_names_are_refused_with_those_there_are() {
        let config = Config::from_text(FILE, Path::new(""), &HfCache { hub: "".into() }).unwrap();
        let failure = Chain::admit(&config, &["a".to_owned(), "x".to_owned()], &Options::default()).unwrap_err();
        assert_eq!(failure.kind, FailureKind::UnknownModel);
        assert_eq!(failure.message, "there is no model `x`; the models are a, b, c, d");
    }
}
