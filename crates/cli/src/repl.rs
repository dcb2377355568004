//! The conversation of `downshift chat` on a terminal: lines with history, /commands, and answers that Ctrl-C stops.

use std::env;
use std::io::{ErrorKind, Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use downshift::{Message, RefusedClass};
use downshift_worker::RequestId;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Config, Editor};
use serde_json::json;

use crate::chat::{Asker, refusal};
use crate::terminal;

/// Lines of history that are kept.
const MAX_HISTORY: usize = 1000;

const HELP: &str = "\
/help            these commands
/model [NAME]    the models there are; or talk to this one from now on
/system [TEXT]   what the model is told before the conversation; or tell it this
/retry           ask the last question again
/clear           forget the conversation
/save FILE       write the conversation as JSON
/exit            leave, as Ctrl-D does
A line that ends with \\ goes on in the next one. Ctrl-C stops an answer.";

/// Talks until the person leaves.
pub fn run(asker: Asker, system: Option<String>) -> Result<ExitCode> {
    let mut editor: Editor<(), DefaultHistory> =
        Editor::with_config(Config::builder().max_history_size(MAX_HISTORY).context("history")?.auto_add_history(true).build())
            .context("the terminal cannot be used; give the prompt as an argument")?;
    let history = data_folder().map(|folder| folder.join("history"));
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    let current = Arc::<Mutex<Option<RequestId>>>::default();
    stop_on_ctrl_c(&asker, Arc::clone(&current))?;
    let mut talk = Talk { asker, system, turns: Vec::new(), last_question: None, current };
    talk.greet();
    while let Some(line) = read_line(&mut editor)? {
        match talk.take(line.trim()) {
            Ok(After::GoOn) => {}
            Ok(After::Leave) => break,
            Err(error) => terminal::error(&error),
        }
    }
    if let Some(file) = &history {
        let saved =
            file.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(ReadlineError::from).and_then(|()| editor.save_history(file));
        if let Err(error) = saved {
            terminal::note(&format!("the history was not saved in {}: {error}", file.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One line, with those that a backslash joins to it; `None` where the person left.
fn read_line(editor: &mut Editor<(), DefaultHistory>) -> Result<Option<String>> {
    let mut text = String::new();
    loop {
        match editor.readline(if text.is_empty() { "> " } else { "… " }) {
            Ok(line) => match line.strip_suffix('\\') {
                Some(part) => text = text + part + "\n",
                None => return Ok(Some(text + &line)),
            },
            Err(ReadlineError::Interrupted) => text.clear(),
            Err(ReadlineError::Eof) => return Ok(None),
            Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                terminal::note("that was not UTF-8; the line was dropped");
                text.clear();
            }
            Err(error) => return Err(error).context("the terminal cannot be read"),
        }
    }
}

fn stop_on_ctrl_c(asker: &Asker, current: Arc<Mutex<Option<RequestId>>>) -> Result<()> {
    let engine = asker.engine.clone();
    ctrlc::set_handler(move || {
        let id = *current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = id {
            engine.scheduler().cancel(id);
        }
    })
    .context("Ctrl-C cannot be heard")
}

struct Talk {
    asker: Asker,
    system: Option<String>,
    /// Questions and answers, in turn.
    turns: Vec<Message>,
    /// The last one, whether it was answered or not.
    last_question: Option<String>,
    /// The question under way.
    current: Arc<Mutex<Option<RequestId>>>,
}

enum After {
    GoOn,
    Leave,
}

impl Talk {
    fn greet(&self) {
        terminal::note(&format!("{} listens. /help lists the commands, Ctrl-D leaves.", self.model()));
    }

    fn model(&self) -> &str {
        let config = self.asker.engine.config();
        self.asker.model.as_deref().unwrap_or_else(|| config.models()[config.default_index()].name())
    }

    fn take(&mut self, line: &str) -> Result<After> {
        let (word, rest) = line.split_once(char::is_whitespace).map_or((line, ""), |(word, rest)| (word, rest.trim()));
        match word {
            "" => {}
            "/help" | "/?" => terminal::note(HELP),
            "/exit" | "/quit" | "/bye" => return Ok(After::Leave),
            "/clear" => self.turns.clear(),
            "/model" => self.choose_model(rest)?,
            "/system" => self.choose_system(rest),
            "/retry" => self.retry()?,
            "/save" => self.save(rest)?,
            _ if word.starts_with('/') => return Err(anyhow!("there is no command {word}; /help lists them")),
            _ => self.ask(line)?,
        }
        Ok(After::GoOn)
    }

    fn ask(&mut self, question: &str) -> Result<()> {
        let id = self.asker.next_id();
        self.last_question = Some(question.to_owned());
        self.turns.push(Message::user(question));
        let messages = self.system.iter().map(Message::system).chain(self.turns.iter().cloned()).collect();
        self.set_current(Some(id));
        let shown = self.asker.ask(id, messages);
        self.set_current(None);
        let shown = shown?;
        let stopped = match shown.outcome {
            Ok(_) => false,
            Err(refused) if refused.class() == RefusedClass::Cancelled => {
                terminal::note("stopped");
                true
            }
            Err(refused) => {
                refusal(&refused);
                true
            }
        };
        if stopped && shown.content.is_empty() {
            self.turns.pop();
        } else {
            self.turns.push(Message::assistant(shown.content));
        }
        Ok(())
    }

    fn set_current(&self, id: Option<RequestId>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }

    fn retry(&mut self) -> Result<()> {
        let question = self.last_question.clone().context("nothing was asked yet")?;
        let asked = self.turns.len().saturating_sub(2);
        if self.turns.get(asked).is_some_and(|turn| turn.content == question.as_str()) {
            self.turns.truncate(asked);
        }
        self.ask(&question)
    }

    fn choose_model(&mut self, name: &str) -> Result<()> {
        let models = self.asker.engine.config().models();
        if name.is_empty() {
            for entry in models {
                let mark = if entry.name() == self.model() { "*" } else { " " };
                terminal::note(&format!("{mark} {}", entry.name()));
            }
            return Ok(());
        }
        if self.asker.engine.config().index_of(name).is_none() {
            return Err(anyhow!("there is no model `{name}`; /model lists them"));
        }
        self.asker.model = Some(name.to_owned());
        Ok(())
    }

    fn choose_system(&mut self, text: &str) {
        if text.is_empty() {
            terminal::note(self.system.as_deref().unwrap_or("nothing is said before the conversation"));
        } else {
            self.system = Some(text.to_owned());
        }
    }

    fn save(&self, file: &str) -> Result<()> {
        if file.is_empty() {
            return Err(anyhow!("name a file, as in /save talk.json"));
        }
        let messages: Vec<Message> = self.system.iter().map(Message::system).chain(self.turns.iter().cloned()).collect();
        let text = serde_json::to_string_pretty(&json!({"messages": messages}))?;
        std::fs::write(file, text + "\n").with_context(|| format!("cannot write {file}"))?;
        writeln!(stdout().lock(), "{} messages are in {file}", messages.len())?;
        Ok(())
    }
}

/// Where this user's data belong.
fn data_folder() -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        folder("XDG_DATA_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/share")))
    };
    base.map(|base| base.join("downshift"))
}
