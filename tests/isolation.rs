//! Worker processes of the program and of the library: killed from outside, they are replaced and the text goes on as if nothing
//! had happened; and nothing is left behind, neither processes nor memory.

mod memory;

use std::io::{BufReader, Read};
use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};

use downshift::{Builder, Chat, Downshift, FailureKind, Settings, Update};
use rustix::process::{Pid, Signal, kill_process};

use crate::drill::{COUNT, Mark, demo, demo_models, eventually};
use crate::support::Folder;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_downshift");
/// Unlikely letters: at temperature 0.8 the answer depends on the seed.
const SPELL: &str = "Spell \"qwzxvkjhtrpm\"";

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).expect("a process"), Signal::KILL).expect("it lives");
}

/// Whether the process lives; a zombie does not.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// True in a process that runs only this test, with these variables; elsewhere it starts that process and waits for it.
fn alone(test: &str, variables: &[(&str, &str)]) -> bool {
    const ALONE: &str = "DOWNSHIFT_TEST_ALONE";
    if std::env::var_os(ALONE).is_some_and(|name| name == test) {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", &format!("isolation::{test}"), "--test-threads=1"]).env(ALONE, test);
    let ran = command.envs(variables.iter().copied()).output().expect("it starts again");
    let text = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(ran.status.success() && text[0].contains("1 passed"), "{} {}", text[0], text[1]);
    false
}

/// How the answers of `large` are drawn: greedily, or from a seed.
const DRAWS: [(f32, u64, &str); 3] = [(0.0, 0, COUNT), (0.8, 2, SPELL), (0.8, 3, SPELL)];

/// An answer that nothing disturbs.
struct Undisturbed {
    text: String,
    /// Bytes of it after every token.
    ends: Vec<usize>,
}

/// As the model says it under the name `demo-large`, for which no rule is made.
fn undisturbed(temperature: f32, seed: u64, question: &str) -> Undisturbed {
    let engine = Downshift::from_model(demo_models().join("demo-large.gguf")).expect("the demo model");
    let mut found = Undisturbed { text: String::new(), ends: vec![0] };
    let reply = engine.chat_with(Chat::from(question).temperature(temperature).seed(seed), |piece| {
        found.text.push_str(&piece.text);
        found.ends.resize(found.ends.len() + piece.token_ids.len(), found.text.len());
        ControlFlow::Continue(())
    });
    assert_eq!(reply.expect("an answer").content, found.text);
    assert!(found.ends.len() > 12, "enough to be disturbed in: {:?}", found.text);
    found
}

/// `downshift chat` under way, with what it was marked with.
struct Running {
    program: Child,
    stdout: BufReader<std::process::ChildStdout>,
    mark: Mark,
    said: Vec<u8>,
}

impl Running {
    /// Asks in `folder`, under a rule that makes `large` so slow after some tokens that it can be caught at it.
    fn start(folder: &Folder, (temperature, seed, question): (f32, u64, &str), rule: &str) -> Self {
        let (temperature, seed) = (temperature.to_string(), seed.to_string());
        let mut command = folder.command(&["chat", "--temperature", &temperature, question]);
        // Answers from a seed are not continued by another model.
        command.args((temperature != "0").then_some(["--seed", &seed]).into_iter().flatten());
        Self::of(command, rule)
    }

    fn of(mut command: Command, rule: &str) -> Self {
        let mark = Mark::new();
        mark.put_on(&mut command);
        command.env("DOWNSHIFT_FAULT", rule).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut program = command.spawn().expect("the program starts");
        let stdout = BufReader::new(program.stdout.take().expect("a pipe"));
        Self { program, stdout, mark, said: Vec::new() }
    }

    /// Waits until so many bytes of the answer were said.
    fn hear(&mut self, bytes: usize) {
        let from = self.said.len();
        self.said.resize(bytes, 0);
        if self.stdout.read_exact(&mut self.said[from..]).is_err() {
            let mut noted = String::new();
            let _ = self.program.stderr.take().expect("a pipe").read_to_string(&mut noted);
            panic!("the answer ends before {bytes} bytes: {noted}");
        }
    }

    /// The worker that answers: of the children that read headers and count, none has mapped the file for long.
    fn worker(&self) -> u32 {
        let maps_model =
            |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.contains("demo-large.gguf"));
        let children: Vec<u32> = self.mark.processes().into_iter().filter(|pid| *pid != self.program.id() && maps_model(pid)).collect();
        assert_eq!(children.len(), 1, "one worker holds the model");
        children[0]
    }

    /// Waits for the end: its code, what it said, and what it noted.
    fn wait(mut self) -> (Option<i32>, String, String) {
        self.stdout.read_to_end(&mut self.said).expect("the rest of the answer");
        let ran = self.program.wait_with_output().expect("the end of the program");
        self.mark.is_gone("chat");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (ran.status.code(), text(self.said), text(ran.stderr))
    }

    /// Waits for a whole answer: what it said, and noted.
    fn end(self) -> (String, String) {
        let (code, said, noted) = self.wait();
        assert_eq!(code, Some(0), "{noted}");
        (said, noted)
    }
}

#[test]
fn a_worker_killed_mid_stream_under_chat_is_replaced_and_the_text_is_the_same_byte_for_byte() {
    let folder = demo("", &["large"]);
    for draw in DRAWS {
        let whole = undisturbed(draw.0, draw.1, draw.2);
        for tokens in [1, 2, 7, 12] {
            let mut chat = Running::start(&folder, draw, &format!("large@token={tokens}:slow"));
            chat.hear(whole.ends[tokens]);
            kill(chat.worker());
            let (said, noted) = chat.end();
            assert_eq!(said.trim_end_matches('\n'), whole.text, "killed after {tokens} tokens: {noted}");
            let killed = "large goes on where large broke off: large: the worker process died by SIGKILL (not by this program)";
            assert!(noted.starts_with(killed) && noted.lines().count() == 1, "{noted}");
        }
    }
}

#[test]
fn workers_killed_twice_in_one_answer_are_replaced_twice_and_then_another_model_goes_on() {
    let draw = DRAWS[0];
    let whole = undisturbed(draw.0, draw.1, draw.2);
    let twice = |folder: &Folder| {
        let mut chat = Running::start(folder, draw, "large@token=5:slow!");
        chat.hear(whole.ends[5]);
        kill(chat.worker());
        chat.hear(whole.ends[10]);
        kill(chat.worker());
        chat
    };
    let patient = demo("num_retries = 2", &["large"]);
    let mut chat = twice(&patient);
    chat.hear(whole.ends[15]);
    assert_eq!(chat.said, whole.text.as_bytes()[..whole.ends[15]]);
    kill(chat.program.id());
    chat.mark.is_gone("a program that was killed");
    let _ = chat.program.wait();

    let chained = demo("num_retries = 1", &["large", "middle"]);
    let (said, noted) = twice(&chained).end();
    assert!(said.starts_with(&whole.text[..whole.ends[10]]) && said.len() > whole.ends[10], "{said}");
    let notes: Vec<&str> = noted.lines().collect();
    assert!(notes[0].starts_with("large goes on where large broke off: "), "{noted}");
    assert!(notes[1].starts_with("middle goes on where large broke off: ") && notes.len() == 2, "{noted}");
}

#[test]
fn the_program_killed_takes_its_workers_along() {
    let draw = DRAWS[0];
    let folder = demo("", &["large"]);
    let mut chat = Running::start(&folder, draw, "large@token=3:slow!");
    chat.hear(1);
    assert!(chat.mark.processes().len() >= 2);
    kill(chat.program.id());
    chat.mark.is_gone("a program that was killed");
    let _ = chat.program.wait();
}

/// Kills the worker of this process that answers.
fn kill_own_worker() {
    let own = std::process::id().to_string();
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.split(' ').nth(1) == Some(&own)) && maps.contains("demo-large.gguf")
    };
    let pids = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let workers: Vec<u32> = pids.filter(is_child).collect();
    assert_eq!(workers.len(), 1, "one worker holds the model");
    kill(workers[0]);
}

fn library(models: &[&str], settings: Settings) -> Builder {
    let builder = Downshift::builder().settings(settings).worker_program(PROGRAM);
    models.iter().fold(builder, |builder, name| builder.model(*name, demo_models().join(format!("demo-{name}.gguf"))))
}

#[test]
fn a_worker_program_killed_mid_stream_is_replaced_under_the_library() {
    if !alone("a_worker_program_killed_mid_stream_is_replaced_under_the_library", &[("DOWNSHIFT_FAULT", "large@token=3:slow")]) {
        return;
    }
    for (temperature, seed, question) in DRAWS {
        let whole = undisturbed(temperature, seed, question).text;
        for tokens in [3, 5] {
            let engine = library(&["large"], Settings::default()).build().expect("an engine");
            let ask = || Chat::from(question).temperature(temperature).seed(seed);
            let (mut heard, mut notices) = (0, Vec::new());
            let reply = engine.chat_with(ask(), |piece| {
                heard += piece.token_ids.len();
                if heard >= tokens && notices.is_empty() {
                    notices.push(None);
                    kill_own_worker();
                }
                notices.extend(piece.continued.map(Some));
                ControlFlow::Continue(())
            });
            let reply = reply.expect("a whole answer");
            assert_eq!(reply.content, whole, "killed after {tokens} tokens");
            let attempts = reply.fallback.expect("one attempt failed").attempts;
            assert_eq!((attempts.len(), attempts[0].kind), (1, FailureKind::Crashed), "{attempts:?}");
            let notice = notices[1].as_ref().expect("the caller is told");
            assert_eq!((notices.len(), notice.from.as_str(), notice.reason), (2, "large", "crashed"));
        }
    }
    // The same through the async stream.
    let whole = undisturbed(0.0, 0, COUNT).text;
    let engine = library(&["large"], Settings::default()).build().expect("an engine");
    let mut stream = engine.chat_stream(Chat::from(COUNT).temperature(0.0).seed(0));
    let mut text = String::new();
    let end = downshift::testing::block_on(async {
        loop {
            match stream.next().await.expect("an end before the stream ends").expect("no error") {
                Update::Piece(piece) => {
                    let first = text.is_empty();
                    text.push_str(&piece.text);
                    if first {
                        kill_own_worker();
                    }
                }
                Update::End(reply) => break reply,
            }
        }
    });
    assert_eq!((text.as_str(), end.content.as_str(), end.retries), (whole.as_str(), whole.as_str(), 1));
}

/// What this process holds: resident KiB, threads, open files.
fn held() -> (u64, usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let count = |folder: &str| std::fs::read_dir(folder).expect("/proc").count();
    (line.trim().trim_end_matches(" kB").parse().expect("a number"), count("/proc/self/task"), count("/proc/self/fd"))
}

#[test]
fn five_hundred_faults_leave_memory_threads_and_files_as_they_were() {
    let test = "five_hundred_faults_leave_memory_threads_and_files_as_they_were";
    if !alone(test, &[("DOWNSHIFT_FAULT", "large@prefill:segv!")]) {
        return;
    }
    let settings = Settings { num_retries: 0, allowed_fails: u32::MAX, ..Settings::default() };
    let engine = library(&["large", "small"], settings).build().expect("an engine");
    let faults = |n: usize| {
        for _ in 0..n {
            let reply = engine.chat(Chat::from("Hello").temperature(0.0).max_tokens(1)).expect("small answers");
            let attempts = reply.fallback.expect("large fails").attempts;
            assert_eq!((reply.model.as_str(), attempts.len(), attempts[0].kind), ("small", 1, FailureKind::Crashed), "{attempts:?}");
        }
    };
    faults(50);
    let (resident, threads, files) = held();
    faults(500);
    eventually("threads end", || held().1 <= threads);
    let after = held();
    assert!(after.0 <= resident + resident / 20, "resident KiB: {resident} after 50 faults, {} after 550", after.0);
    assert!(after.2 <= files, "files: {files} and then {}", after.2);
    eprintln!("resident KiB after 50 faults: {resident}, after 550: {}", after.0);
}
