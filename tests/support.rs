//! A folder with models of one test, and the program run in it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use downshift_engine::testing::{Stored, tiny_model};
use serde_json::Value;
use tempfile::TempDir;

/// A folder that only one test uses.
pub struct Folder(TempDir);

/// What the program printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Where a file of it is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// With this file.
    pub fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.path(name), content).expect("a file in the temporary folder");
        self
    }

    /// With a model whose weights the seed decides.
    pub fn with_model(self, name: &str, seed: u64) -> Self {
        self.with(name, model(seed))
    }

    /// The program with these arguments, in this folder, knowing of no other models.toml.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_downshift"));
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        command.env_remove("DOWNSHIFT_CONFIG").env_remove("DOWNSHIFT_FAULT").env_remove("DOWNSHIFT_LOG");
        // To look up the names of a backtrace takes seconds, in which a worker makes no progress.
        command.env_remove("RUST_BACKTRACE");
        for folder in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "HOME", "APPDATA"] {
            command.env(folder, self.0.path());
        }
        command
    }

    /// Runs it without input.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().expect("the program starts"))
    }

    /// Runs it with `input` on stdin.
    pub fn run_with(&self, args: &[&str], input: impl AsRef<[u8]>) -> Ran {
        let file = self.path("stdin");
        std::fs::write(&file, input).expect("a file in the temporary folder");
        let input = std::fs::File::open(file).expect("the file just written");
        Ran::of(self.command(args).stdin(input).output().expect("the program starts"))
    }
}

impl Ran {
    /// Of a program that has ended.
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The JSON that it printed last.
    pub fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_else(|| panic!("nothing was printed: {self:?}"));
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// A model that says the same things for the same seed.
pub fn model(seed: u64) -> Vec<u8> {
    tiny_model("llama", seed, Stored::Q8_0)
}
