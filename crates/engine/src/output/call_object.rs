//! One call as a JSON object, `{"name": .., "arguments": {..}}`, read character by character.
//! Only as strict as it must be to find the name and the end; what is inside the arguments is passed on as it is.

use serde_json::Value;

/// What a character led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    /// The call is complete.
    Done,
    /// This is no call.
    Invalid,
}

/// Finds the end of one JSON value.
#[derive(Debug, Default)]
pub(super) struct ValueScan {
    depth: u32,
    in_string: bool,
    escaped: bool,
    begun: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    More,
    /// The value ends with this character.
    End,
    /// The value, a number or word, has ended before this character.
    Ended,
    Invalid,
}

impl ValueScan {
    pub fn push(&mut self, c: char) -> Scanned {
        if self.in_string {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => {
                    self.in_string = false;
                    if self.depth == 0 {
                        return Scanned::End;
                    }
                }
                _ => {}
            }
            return Scanned::More;
        }
        let is_bare = self.begun && self.depth == 0;
        self.begun = true;
        match c {
            _ if is_bare && matches!(c, ',' | '}' | ']' | ' ' | '\t' | '\r' | '\n') => return Scanned::Ended,
            '"' if is_bare => return Scanned::Invalid,
            '"' => self.in_string = true,
            '{' | '[' if is_bare => return Scanned::Invalid,
            '{' | '[' => self.depth += 1,
            '}' | ']' => match self.depth {
                0 => return Scanned::Invalid,
                1 => return Scanned::End,
                _ => self.depth -= 1,
            },
            _ => {}
        }
        Scanned::More
    }
}

enum At {
    /// Before `{`.
    Open,
    /// Before a key, or `}` of an empty object.
    Key {
        may_end: bool,
    },
    InKey(String, ValueScan),
    Colon(String),
    Value(Field),
    In(Field, String, ValueScan),
    /// Before `,` or `}`.
    Next,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Arguments,
    Other,
}

/// The state of one call.
pub(super) struct CallObject {
    at: At,
    name: Option<String>,
    /// The arguments as far as they may be passed on.
    arguments: String,
    /// They are an object, and go on as they come; other values are known at their end.
    flows: bool,
    has_arguments: bool,
}

impl CallObject {
    pub fn new() -> Self {
        Self { at: At::Open, name: None, arguments: String::new(), flows: false, has_arguments: false }
    }

    /// The name, once the arguments have begun or the call is complete.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| self.flows || self.has_arguments)
    }

    /// Arguments that were not taken yet.
    pub fn take_arguments(&mut self) -> String {
        std::mem::take(&mut self.arguments)
    }

    pub fn push(&mut self, c: char) -> Step {
        let is_space = matches!(c, ' ' | '\t' | '\r' | '\n');
        match &mut self.at {
            At::Open => match c {
                '{' => self.at = At::Key { may_end: true },
                _ if is_space => {}
                _ => return Step::Invalid,
            },
            At::Key { may_end } => match c {
                '"' => {
                    let mut scan = ValueScan::default();
                    scan.push(c);
                    self.at = At::InKey(c.to_string(), scan);
                }
                '}' if *may_end => return self.close(),
                _ if is_space => {}
                _ => return Step::Invalid,
            },
            At::InKey(text, scan) => {
                text.push(c);
                if scan.push(c) == Scanned::End {
                    let Some(key) = unquoted(text) else { return Step::Invalid };
                    self.at = At::Colon(key);
                }
            }
            At::Colon(key) => match c {
                ':' => {
                    self.at = At::Value(match key.as_str() {
                        "name" if self.name.is_none() => Field::Name,
                        "arguments" | "parameters" if !self.has_arguments => Field::Arguments,
                        "id" | "type" | "index" => Field::Other,
                        _ => return Step::Invalid,
                    });
                }
                _ if is_space => {}
                _ => return Step::Invalid,
            },
            At::Value(field) => {
                let field = *field;
                if is_space {
                    return Step::More;
                }
                if matches!(c, ',' | ':' | '}' | ']') || (field == Field::Name && c != '"') {
                    return Step::Invalid;
                }
                if field == Field::Arguments && !matches!(c, '{' | '"' | 'n') {
                    return Step::Invalid;
                }
                let mut scan = ValueScan::default();
                scan.push(c);
                self.flows = field == Field::Arguments && c == '{';
                if self.flows {
                    self.arguments.push(c);
                    self.at = At::In(field, String::new(), scan);
                } else {
                    self.at = At::In(field, c.to_string(), scan);
                }
            }
            At::In(field, text, scan) => {
                let field = *field;
                let scanned = scan.push(c);
                match scanned {
                    Scanned::Invalid => return Step::Invalid,
                    Scanned::More | Scanned::End if self.flows => self.arguments.push(c),
                    Scanned::More | Scanned::End => text.push(c),
                    Scanned::Ended => {}
                }
                if scanned == Scanned::More {
                    return Step::More;
                }
                let text = std::mem::take(text);
                if !self.end_value(field, &text) {
                    return Step::Invalid;
                }
                self.at = At::Next;
                if scanned == Scanned::Ended {
                    return self.push(c);
                }
            }
            At::Next => match c {
                ',' => self.at = At::Key { may_end: false },
                '}' => return self.close(),
                _ if is_space => {}
                _ => return Step::Invalid,
            },
        }
        Step::More
    }

    fn end_value(&mut self, field: Field, text: &str) -> bool {
        match field {
            Field::Other => {}
            Field::Name => match unquoted(text) {
                Some(name) => self.name = Some(name),
                None => return false,
            },
            Field::Arguments => {
                self.has_arguments = true;
                if self.flows {
                    self.flows = false;
                    return true;
                }
                // Some models write the arguments as a string of JSON.
                self.arguments = match (text, unquoted(text)) {
                    ("null", _) => "{}".to_owned(),
                    (_, Some(inner)) if matches!(serde_json::from_str(&inner), Ok(Value::Object(_))) => inner,
                    _ => return false,
                };
            }
        }
        true
    }

    fn close(&mut self) -> Step {
        if !self.has_arguments {
            self.has_arguments = true;
            self.arguments = "{}".to_owned();
        }
        if self.name.is_some() { Step::Done } else { Step::Invalid }
    }
}

fn unquoted(text: &str) -> Option<String> {
    serde_json::from_str(text).ok()
}
