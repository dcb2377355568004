//! What happens to a child, and what its callers get.

use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

use downshift_worker::{Delta, Failure, FailureKind, Launcher, Stage, Worker};

use crate::fake::{collect, request, spec};
use crate::{PLACEMENT, eventually, isolated, start};

/// The failure of a request and what was said before it.
fn ask(worker: &dyn Worker, words: &str) -> (Failure, String) {
    let mut text = String::new();
    let outcome = worker.generate(&request(1, words), &mut collect(&mut text));
    (outcome.expect_err("it fails"), text)
}

fn pid_of(worker: &dyn Worker) -> u32 {
    let mut text = String::new();
    worker.generate(&request(1, "pid"), &mut collect(&mut text)).unwrap();
    text.parse().unwrap()
}

/// Whether a process runs: a zombie does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Children of this process that were never waited for, or still run.
fn children() -> Vec<String> {
    let own = std::process::id().to_string();
    let stats = std::fs::read_dir("/proc").unwrap().filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    stats.filter(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.split(' ').nth(1) == Some(&own))).collect()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn every_way_to_die_is_named_and_ends_later_calls_too() {
    let check = |words: &str, kind: FailureKind, says: &str| {
        let launcher = isolated();
        let worker = start(&launcher, "m");
        let (failure, text) = ask(worker.as_ref(), &format!("one two {words} three"));
        assert_eq!((failure.kind, failure.stage, text.as_str()), (kind, Stage::Decode, "one two "), "{failure}");
        assert!(failure.message.contains(says), "{failure}");
        let later = worker.tokenize("x", false).unwrap_err();
        assert_eq!((later.kind, later.stage), (kind, Stage::Admission));
    };
    check("segv", FailureKind::Crashed, "SIGSEGV");
    check("bus", FailureKind::Crashed, "SIGBUS (the model's file may have been changed");
    check("abort", FailureKind::Crashed, "SIGABRT");
    check("kill", FailureKind::Crashed, "SIGKILL (not by this program)");
    check("alloc", FailureKind::OutOfMemory, "memory allocation of");
}

#[test]
fn death_before_the_first_token_is_a_failure_of_the_prefill() {
    let launcher = isolated();
    let worker = start(&launcher, "m");
    let (failure, text) = ask(worker.as_ref(), "segv");
    assert_eq!((failure.stage, text.as_str()), (Stage::Prefill, ""));
}

#[test]
fn a_worker_killed_from_outside_mid_stream_fails_all_its_requests() {
    let launcher = isolated();
    let worker = start(&launcher, "m");
    let pid = pid_of(worker.as_ref());
    let (said, hears) = channel();
    let failures: Vec<Failure> = thread::scope(|scope| {
        let requests = [2, 3].map(|id| {
            let (said, worker) = (said.clone(), &worker);
            scope.spawn(move || {
                let mut sink = move |_: Delta| said.send(id).map_or(ControlFlow::Break(()), |()| ControlFlow::Continue(()));
                worker.generate(&request(id, "a hang"), &mut sink)
            })
        });
        assert_eq!(hears.recv().unwrap() + hears.recv().unwrap(), 5, "both have begun");
        kill(pid);
        requests.into_iter().map(|request| request.join().unwrap().unwrap_err()).collect()
    });
    for failure in failures {
        assert_eq!((failure.kind, failure.stage), (FailureKind::Crashed, Stage::Decode));
        assert_eq!(failure.message, "the worker process died by SIGKILL (not by this program)");
    }
    assert!(!runs(pid));
}

#[test]
fn a_panic_fails_its_own_request_only() {
    let launcher = isolated();
    let worker = start(&launcher, "m");
    let (failure, text) = ask(worker.as_ref(), "a panic");
    assert_eq!((failure.kind, failure.stage, text.as_str()), (FailureKind::Panicked, Stage::Decode, "a "));
    assert_eq!(failure.message, "the worker panicked: on purpose");
    let mut text = String::new();
    worker.generate(&request(2, "b"), &mut collect(&mut text)).unwrap();
    assert_eq!(text, "b ");
}

#[test]
fn a_hung_worker_can_be_killed() {
    let launcher = isolated();
    let worker = start(&launcher, "m");
    let pid = pid_of(worker.as_ref());
    thread::scope(|scope| {
        let (said, hears) = channel();
        let hangs = scope.spawn(|| {
            let mut sink = move |_: Delta| said.send(()).map_or(ControlFlow::Break(()), |()| ControlFlow::Continue(()));
            worker.generate(&request(2, "a hang"), &mut sink)
        });
        hears.recv().unwrap();
        worker.kill();
        let failure = hangs.join().unwrap().unwrap_err();
        assert_eq!((failure.kind, failure.stage), (FailureKind::Crashed, Stage::Decode));
        assert!(failure.message.contains("was killed: it was stopped"), "{failure}");
    });
    assert!(!runs(pid));
}

#[test]
fn loads_that_die_or_hang_fail_at_load() {
    let launcher = isolated();
    let load = |name: &str| launcher.launch(&spec(name), &PLACEMENT, &|_, _| {}).err().expect("it fails");
    let check = |failure: Failure, kind, says: &str| {
        assert_eq!((failure.kind, failure.stage), (kind, Stage::Load), "{failure}");
        assert!(failure.message.contains(says), "{failure}");
    };
    check(load("panic"), FailureKind::Panicked, "while loading");
    check(load("abort"), FailureKind::Crashed, "SIGABRT");
    check(load("exit"), FailureKind::Crashed, "exit code 7");
    thread::scope(|scope| {
        let (reported, hears) = channel();
        let launcher = &launcher;
        let hangs = scope.spawn(move || {
            let reported = std::sync::Mutex::new(reported);
            let progress = |done: u64, _: u64| {
                if done == 64 {
                    let _ = reported.lock().unwrap().send(());
                }
            };
            launcher.launch(&spec("hang"), &PLACEMENT, &progress).err().expect("it is given up")
        });
        hears.recv().unwrap();
        launcher.abort("another");
        launcher.abort("hang");
        check(hangs.join().unwrap(), FailureKind::Stalled, "given up");
    });
}

#[test]
fn readers_that_die_or_want_too_much_are_failures_and_no_more() {
    let launcher = isolated();
    let crash = launcher.inspect(&spec("crash")).unwrap_err();
    assert_eq!((crash.kind, crash.stage), (FailureKind::Crashed, Stage::Load));
    let greedy = launcher.inspect(&spec("greedy")).unwrap_err();
    assert_eq!((greedy.kind, greedy.stage), (FailureKind::Corrupt, Stage::Load), "{greedy}");
    assert!(launcher.inspect(&spec("m")).is_ok());
}

#[test]
fn a_counting_child_is_kept_for_its_file_and_replaced_when_the_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let launcher = isolated();
    let counter_of = |file: &str| {
        let mut spec = spec("pid");
        spec.path = folder.path().join(file);
        launcher.count(&spec, &request(1, "")).unwrap()
    };
    std::fs::write(folder.path().join("a"), "1").unwrap();
    let first = counter_of("a");
    let other = counter_of("b");
    assert_ne!(first, other);
    assert_eq!((counter_of("a"), counter_of("b")), (first, other));
    std::fs::write(folder.path().join("a"), "22").unwrap();
    assert_ne!(counter_of("a"), first);
    kill(other as u32);
    eventually("another child counts", || !matches!(launcher.count(&spec("pid"), &request(1, "")), Ok(pid) if pid == other));
}

#[test]
fn what_libraries_print_does_not_reach_the_wire() {
    let launcher = isolated();
    let worker = start(&launcher, "m");
    let mut text = String::new();
    worker.generate(&request(1, "a print b flood c"), &mut collect(&mut text)).unwrap();
    assert_eq!(text, "a print b flood c ");
}

#[test]
fn the_end_of_stdin_ends_the_child() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_downshift-fake-worker")).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reading_child_without_work_ends_by_itself() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_downshift-fake-worker")).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let role = r#"{"reader":{"memory_bytes":1073741824,"idle_ms":1}}"#;
    let json = format!(r#"{{"open":{{"protocol":2,"build":"{}","role":{role}}}}}"#, env!("CARGO_PKG_VERSION"));
    // Stdin stays open: the end of it is not why the child ends.
    child.stdin.as_mut().unwrap().write_all(&crate::hostile::frame(0, &json)).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn children_die_with_their_parent() {
    let mut parent = Command::new(env!("CARGO_BIN_EXE_downshift-fake-worker")).arg("parent").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child: u32 = line.trim().parse().unwrap();
    assert!(runs(child));
    parent.kill().unwrap();
    parent.wait().unwrap();
    eventually("the child has ended", || !runs(child));
}

#[test]
fn dropped_workers_leave_neither_process_nor_zombie() {
    // In a process of its own would be cleaner; here other tests have children too, so only known ones are looked at.
    let launcher = isolated();
    let mut pids = Vec::new();
    for round in 0..200 {
        let worker = start(&launcher, "m");
        if round % 20 == 0 {
            pids.push(pid_of(worker.as_ref()));
        }
        drop(worker);
    }
    let left = children();
    for pid in pids {
        assert!(!left.iter().any(|stat| stat.starts_with(&format!("{pid} "))), "{pid} is left");
    }
}

#[test]
fn a_worker_tells_its_own_memory() {
    let launcher = isolated();
    let worker = start(&launcher, "m");
    let memory = worker.resident().expect("a system that tells");
    assert!(memory.anon_bytes > 0 && memory.file_bytes > 0, "{memory:?}");
    worker.kill();
    eventually("the process is gone", || worker.resident().is_none());
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let launcher = downshift_worker::Subprocess::new("/nowhere/downshift");
    let failure = launcher.inspect(&spec("m")).unwrap_err();
    assert_eq!((failure.kind, failure.stage), (FailureKind::Crashed, Stage::Load));
    assert!(failure.message.starts_with("the worker process /nowhere/downshift could not be started:"), "{failure}");
}

/// A control group that may use 64 MiB, where this process may make one; removed with its processes gone.
struct PoorGroup(std::path::PathBuf);

impl PoorGroup {
    fn make() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let line = |start: &str| own.lines().find_map(|line| line.split_once(start).map(|(_, group)| group.to_owned()));
        let (parent, limit) = match line(":memory:") {
            Some(group) => (format!("/sys/fs/cgroup/memory{group}"), "memory.limit_in_bytes"),
            None => (format!("/sys/fs/cgroup{}", line("0::")?), "memory.max"),
        };
        let group = Self(format!("{parent}/downshift-test-{}", std::process::id()).into());
        std::fs::create_dir(&group.0).ok()?;
        std::fs::write(group.0.join(limit), "67108864").ok()?;
        // Without a limit on swap the worker would only become slow; systems without swap have no such file.
        let _ = std::fs::write(group.0.join("memory.swap.max"), "0");
        let _ = std::fs::write(group.0.join("memory.memsw.limit_in_bytes"), "67108864");
        Some(group)
    }
}

impl Drop for PoorGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_worker_really_killed_for_memory_is_told_from_a_crash_and_its_parent_lives() {
    let Some(group) = PoorGroup::make() else {
        eprintln!("skipped: this process may not make a control group with a memory limit");
        return;
    };
    let program = env!("CARGO_BIN_EXE_downshift-fake-worker");
    let mut parent = Command::new(program).arg("poor-parent").arg(&group.0).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert_eq!(line, "out_of_memory: the worker process was killed by the kernel because memory ran out\n");
}
