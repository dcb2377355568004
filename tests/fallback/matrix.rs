//! Cause x stage x streamed or not x isolated or in process, over the program and the demo models: whatever happens, the caller
//! gets a whole answer or exactly one honest error, the program ends by itself, and no process is left.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Stdio;
use std::sync::Mutex;

use serde_json::Value;

use crate::drill::{COUNT, Mark, demo};
use crate::support::{Folder, Ran};

/// What is caused, and the cause that must be named: at load and prefill, and at a token.
const CAUSES: [(&str, Kind, Kind); 12] = [
    ("corrupt", "corrupt", ABSENT),
    ("unsupported", "unsupported_architecture", ABSENT),
    ("oom", "out_of_memory", "out_of_memory"),
    ("oom_kill", "out_of_memory", "out_of_memory"),
    ("nan", "non_finite", "non_finite"),
    ("segv", "crashed", "crashed"),
    ("abort", "crashed", "crashed"),
    ("panic", "panicked", "panicked"),
    ("bus", "crashed", "crashed"),
    ("hang", "stalled", "stalled"),
    ("slow", "stalled", "too_slow"),
    ("device", "device", "device"),
];
type Kind = &'static str;
const ABSENT: Kind = "";

/// The stage of the rule, and the word for it in reports.
const STAGES: [(&str, &str); 3] = [("load", "load"), ("prefill", "prefill"), ("token=16", "decode")];
const TOKENS: usize = 16;

/// What would end the program that it runs in: these are drilled in a process of the model's own only. In process there is
/// nothing to survive, which the README says of a library's models; a rule that names one there fails with what it would have
/// caused, as the worker crate tests.
const END_THE_PROCESS: [&str; 4] = ["segv", "abort", "bus", "oom_kill"];

/// How often the same model is tried before the next one: once more where a fresh worker can help.
const TRIED_AGAIN: [Kind; 3] = ["out_of_memory", "crashed", "panicked"];

/// Stalls show within a second.
const SETTINGS: &str = "stall_timeout = \"1s\"";
/// As do 16 tokens that come at once and then one every half second.
const HURRIED: &str = "stall_timeout = \"10s\"\nmin_tokens_per_second = 16.0";

#[derive(Clone, Copy)]
struct Cell {
    cause: &'static str,
    kind: Kind,
    /// As in rules.
    at: &'static str,
    /// As in reports.
    stage: &'static str,
    streamed: bool,
    isolated: bool,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, at, streamed, isolated, .. } = self;
        write!(f, "{cause} at {at}, streamed: {streamed}, isolated: {isolated}")
    }
}

/// All cells there are: files are read at load only and numbers come later; and the rule of [`END_THE_PROCESS`].
fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (cause, before, later) in CAUSES {
        for (at, stage) in STAGES {
            let kind = if stage == "decode" { later } else { before };
            let is_file = matches!(cause, "corrupt" | "unsupported");
            if (is_file && stage != "load") || (cause == "nan" && stage == "load") {
                continue;
            }
            for isolated in [true, false] {
                if !isolated && END_THE_PROCESS.contains(&cause) {
                    continue;
                }
                cells.extend([true, false].map(|streamed| Cell { cause, kind, at, stage, streamed, isolated }));
            }
        }
    }
    cells
}

#[test]
fn cells_are_left_out_by_rule_and_not_by_accident() {
    let cells = cells();
    let count = |isolated: bool| cells.iter().filter(|cell| cell.isolated == isolated && cell.streamed).count();
    assert_eq!((count(true), count(false), cells.len()), (31, 31 - 4 * 3, 100));
}

/// Runs `check` for all items on a few threads: most of the time of a run is waiting.
fn in_parallel<T: Send>(items: Vec<T>, check: impl Fn(T) + Sync) {
    let left = Mutex::new(items);
    let take = || left.lock().expect("no thread holds it while it panics").pop();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some(item) = take() {
                    check(item);
                }
            });
        }
    });
}

/// What the models say when nothing happens.
struct Undisturbed {
    chained: Folders,
    said: BTreeMap<&'static str, String>,
}

/// The same models under the settings of each cell.
struct Folders {
    usual: Folder,
    hurried: Folder,
}

impl Folders {
    fn of(models: &[&str]) -> Self {
        Self { usual: demo(SETTINGS, models), hurried: demo(HURRIED, models) }
    }

    fn for_cell(&self, cell: Cell) -> &Folder {
        if cell.kind == "too_slow" { &self.hurried } else { &self.usual }
    }
}

fn undisturbed() -> Undisturbed {
    let chained = Folders::of(&["large", "middle"]);
    let say = |model| {
        let ran = chained.usual.run(&["chat", "-m", model, "--temperature", "0", COUNT]);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        (model, ran.stdout)
    };
    let said = BTreeMap::from(["large", "middle"].map(say));
    assert!(said["large"].starts_with("5, 6, 7, 8, 9, 10") && said["large"] != said["middle"], "{said:?}");
    Undisturbed { chained, said }
}

/// Asks `large` under the rule, in the folder; no process is left.
fn ask(folders: &Folders, cell: Cell, bang: &str) -> Ran {
    let mut args = vec!["chat", "--temperature", "0", COUNT];
    args.extend((!cell.streamed).then_some("--json"));
    args.extend((!cell.isolated).then_some("--in-process"));
    let mark = Mark::new();
    let mut command = folders.for_cell(cell).command(&args);
    mark.put_on(&mut command);
    command.env("DOWNSHIFT_FAULT", format!("large@{}:{}{bang}", cell.at, cell.cause)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = Ran::of(command.output().expect("the program starts"));
    mark.is_gone(&cell.to_string());
    ran
}

fn attempts(reply: &Value, cell: Cell) -> &[Value] {
    let attempts = reply["attempts"].as_array().unwrap_or_else(|| panic!("{cell}: {reply}"));
    for attempt in attempts {
        let said = [&attempt["model"], &attempt["kind"], &attempt["stage"]].map(|value| value.as_str().unwrap_or_default());
        assert_eq!(said, ["large", cell.kind, cell.stage], "{cell}: {reply}");
        assert!(reason_is_right(cell, attempt["message"].as_str().unwrap_or_default()), "{cell}: {attempt}");
    }
    attempts
}

/// A signal is named, and the kernel's kill for memory is told from a crash.
fn reason_is_right(cell: Cell, message: &str) -> bool {
    let says = match cell.cause {
        "segv" => "died by SIGSEGV",
        "bus" => "died by SIGBUS",
        "abort" => "died by SIGABRT",
        "oom_kill" => "killed by the kernel because memory ran out",
        "panic" => "panicked",
        "hang" => "no progress for 1 s",
        "slow" if cell.stage == "decode" => "fewer than 16 tokens per second",
        "slow" => "no progress for 1 s",
        _ => "fault on demand",
    };
    message.contains(says)
}

/// What is said of fallbacks; in process a panic speaks on stderr too.
fn notes(ran: &Ran) -> Vec<&str> {
    let is_note = |line: &&str| line.starts_with("large ") || line.starts_with("middle ");
    let notes: Vec<&str> = ran.stderr.lines().filter(is_note).collect();
    assert!(notes.len() == ran.stderr.lines().count() || ran.stderr.contains("fault on demand\n"), "{ran:?}");
    notes
}

fn tries(cell: Cell) -> usize {
    if TRIED_AGAIN.contains(&cell.kind) { 2 } else { 1 }
}

/// The fault strikes every time; `middle` answers.
fn the_next_model_answers(undisturbed: &Undisturbed, cell: Cell) {
    let ran = ask(&undisturbed.chained, cell, "!");
    let (large, middle) = (&undisturbed.said["large"], &undisturbed.said["middle"]);
    assert_eq!(ran.code, Some(0), "{cell}: {ran:?}");
    if !cell.streamed {
        let reply = ran.json();
        assert_eq!((reply["model"].as_str(), reply["content"].as_str()), (Some("middle"), Some(middle.trim_end())), "{cell}: {ran:?}");
        assert_eq!(reply["fallback"]["requested"], "large", "{cell}: {ran:?}");
        assert_eq!(attempts(&reply["fallback"], cell).len(), tries(cell), "{cell}: {ran:?}");
        assert_eq!((ran.stdout.lines().count(), notes(&ran).len()), (1, 1), "{cell}: {ran:?}");
        return;
    }
    let notes = notes(&ran);
    let last = notes.last().unwrap_or_else(|| panic!("{cell}: nothing is said of the fallback: {ran:?}"));
    assert!(notes.iter().all(|note| note.contains(&format!("({} at {}", cell.kind, cell.stage))), "{cell}: {ran:?}");
    assert!(notes.iter().all(|note| reason_is_right(cell, note)), "{cell}: {ran:?}");
    if cell.stage == "decode" {
        // Shown text stays; whoever goes on says so.
        assert_eq!(notes.len(), tries(cell), "{cell}: {ran:?}");
        assert!(last.starts_with("middle goes on where large broke off: "), "{cell}: {ran:?}");
        let same = ran.stdout.bytes().zip(large.bytes()).take_while(|(one, other)| one == other).count();
        assert!(same >= TOKENS && ran.stdout.len() > same, "{cell}: {ran:?}");
    } else {
        assert_eq!(notes.len(), 1, "{cell}: {ran:?}");
        assert!(last.starts_with("middle answers instead: large: "), "{cell}: {ran:?}");
        assert_eq!(&ran.stdout, middle, "{cell}: {ran:?}");
    }
}

/// The fault strikes every time, and there is no other model.
fn one_honest_error_is_told(undisturbed: &Undisturbed, alone: &Folders, cell: Cell) {
    let ran = ask(alone, cell, "!");
    assert_eq!(ran.code, Some(1), "{cell}: {ran:?}");
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("error:")).collect();
    let shown = cell.streamed && cell.stage == "decode";
    assert_eq!(errors, [if shown { "error: the answer broke off" } else { "error: no model could answer" }], "{cell}: {ran:?}");
    let listed: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("  large: ")).collect();
    assert_eq!(listed.len(), tries(cell), "{cell}: {ran:?}");
    assert!(listed.iter().all(|line| line.contains(&format!("({} at {}", cell.kind, cell.stage))), "{cell}: {ran:?}");
    assert!(listed.iter().all(|line| reason_is_right(cell, line)), "{cell}: {ran:?}");
    if !cell.streamed {
        let error = &ran.json()["error"];
        assert_eq!((ran.stdout.lines().count(), error["kind"].as_str()), (1, Some(cell.kind)), "{cell}: {ran:?}");
        assert_eq!(attempts(error, cell).len(), tries(cell), "{cell}: {ran:?}");
    } else if shown {
        // What was shown is the beginning of the answer, from whichever life of the model.
        let shown = ran.stdout.trim_end_matches('\n');
        assert!(undisturbed.said["large"].starts_with(shown) && shown.len() >= TOKENS, "{cell}: {ran:?}");
    } else {
        assert_eq!(ran.stdout, "", "{cell}: {ran:?}");
    }
}

/// The fault strikes once; the same model, in a fresh worker, says what it would have said.
fn the_same_model_recovers(undisturbed: &Undisturbed, cell: Cell) {
    let ran = ask(&undisturbed.chained, cell, "");
    assert_eq!((ran.code, &ran.stdout), (Some(0), &undisturbed.said["large"]), "{cell}: {ran:?}");
    let note = if cell.stage == "decode" { "large goes on where large broke off: large: " } else { "large answers instead: large: " };
    let notes = notes(&ran);
    assert_eq!(notes.len(), 1, "{cell}: {ran:?}");
    assert!(notes[0].starts_with(note) && reason_is_right(cell, notes[0]), "{cell}: {ran:?}");
}

#[test]
fn whatever_fails_wherever_the_next_model_answers() {
    let undisturbed = undisturbed();
    in_parallel(cells(), |cell| the_next_model_answers(&undisturbed, cell));
}

#[test]
fn whatever_fails_wherever_a_model_alone_gives_one_honest_error() {
    let undisturbed = undisturbed();
    let alone = Folders::of(&["large"]);
    in_parallel(cells(), |cell| one_honest_error_is_told(&undisturbed, &alone, cell));
}

#[test]
fn what_a_fresh_worker_can_repair_is_repaired_unnoticed() {
    let undisturbed = undisturbed();
    let repaired = cells().into_iter().filter(|cell| cell.streamed && tries(*cell) == 2).collect();
    in_parallel(repaired, |cell| the_same_model_recovers(&undisturbed, cell));
}
