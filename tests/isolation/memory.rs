//! Memory that is short, for real: what cannot fit is skipped before it is loaded and comes back when there is room, and what the
//! kernel kills for memory is told from a crash.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use downshift::{Chat, Downshift, FailureKind, ModelEntry, ModelSpec, Settings, Stage};
use downshift_scheduler::config::MemoryLimit;

use super::{PROGRAM, Running, alone, lives};
use crate::drill::{COUNT, demo, demo_models, eventually};

/// A control group with a limit on memory, where this process may make one; removed once it is empty.
struct PoorGroup {
    folder: PathBuf,
    limit: &'static str,
}

impl PoorGroup {
    fn make(name: &str, bytes: u64) -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let group = |start: &str| own.lines().find_map(|line| line.split_once(start).map(|(_, group)| group.to_owned()));
        let parent = match group(":memory:") {
            Some(group) => format!("/sys/fs/cgroup/memory{group}"),
            None => format!("/sys/fs/cgroup{}", group("0::")?),
        };
        let folder = PathBuf::from(format!("{parent}/downshift-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).ok()?;
        let made = Self { folder, limit: limit_file() };
        made.set(bytes).ok()?;
        // Without a limit on swap the worker would only become slow; systems without swap have no such file.
        let _ = std::fs::write(made.folder.join("memory.swap.max"), "0");
        Some(made)
    }

    fn set(&self, bytes: u64) -> std::io::Result<()> {
        std::fs::write(self.folder.join(self.limit), bytes.to_string())
    }

    /// Where a process enters by writing its number.
    fn door(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// What runs `program` in it.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.door()).arg(program);
        command
    }
}

impl Drop for PoorGroup {
    fn drop(&mut self) {
        let path = &self.folder;
        eventually("the group is empty", || std::fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|members| members.is_empty()));
        let _ = std::fs::remove_dir(path);
    }
}

/// The file of a group that holds its limit, in the version of control groups there is.
fn limit_file() -> &'static str {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if own.contains(":memory:") { "memory.limit_in_bytes" } else { "memory.max" }
}

fn skipped() {
    eprintln!("skipped: this process may not make a control group with a memory limit");
}

/// Bytes that a demo model takes when it is loaded.
fn need(model: &str) -> u64 {
    let engine = Downshift::builder().model(model, demo_models().join(format!("demo-{model}.gguf"))).build().expect("an engine");
    let forecast = engine.scheduler().plan(model, None).expect("a sound header");
    forecast.need.hard_bytes(forecast.need.context) + forecast.need.footprint.soft_bytes()
}

#[test]
fn a_model_above_the_limit_of_models_toml_is_skipped_with_the_numbers_and_the_next_one_answers() {
    let (large, middle) = (need("large"), need("middle"));
    assert!(middle + (1 << 20) < large, "the limit lies between them");
    let limit = middle + (large - middle) / 2;
    let folder = demo(&format!("memory_limit = \"{limit}\"\nmemory_margin = \"0\""), &["large", "middle"]);
    for place in [&[][..], &["--in-process"]] {
        let ran = folder.run(&[&["chat", "--temperature", "0", "--json", COUNT], place].concat());
        let reply = ran.json();
        let attempts = reply["fallback"]["attempts"].as_array().unwrap_or_else(|| panic!("{ran:?}"));
        assert_eq!((reply["model"].as_str(), attempts.len()), (Some("middle"), 1), "{ran:?}");
        let named = [&attempts[0]["model"], &attempts[0]["kind"], &attempts[0]["stage"]].map(|value| value.as_str().unwrap_or_default());
        assert_eq!(named, ["large", "does_not_fit", "admission"], "{ran:?}");
        let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
        let says = format!("needs {} on cpu", mib(large));
        let message = attempts[0]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with(&says) && message.ends_with(&format!("{} are free by memory_limit", mib(limit))), "{message}");
    }
}

/// Positions with which `large` takes some 100 MiB, and with less it is not to load.
const MANY: u32 = 65536;

#[test]
fn a_model_is_skipped_while_its_group_is_poor_and_comes_back_when_the_limit_is_raised() {
    const GROUP: &str = "DOWNSHIFT_TEST_GROUP";
    let test = "memory::a_model_is_skipped_while_its_group_is_poor_and_comes_back_when_the_limit_is_raised";
    let group = match std::env::var_os(GROUP) {
        Some(folder) => PoorGroup { limit: limit_file(), folder: folder.into() },
        None => {
            let Some(group) = PoorGroup::make("room", 90 << 20) else { return skipped() };
            assert!(!alone(test, &[(GROUP, &group.folder.display().to_string())]));
            return;
        }
    };
    std::fs::write(group.door(), std::process::id().to_string()).expect("the group lets it in");
    let spec = |name: &str| ModelSpec { name: name.to_owned(), ..ModelSpec::from_path(demo_models().join(format!("demo-{name}.gguf"))) };
    let large = ModelSpec { context: Some(MANY), min_context: MANY, ..spec("large") };
    let settings = Settings { memory_limit: MemoryLimit::Auto, memory_margin: 0, ..Settings::default() };
    let engine = Downshift::builder().settings(settings).worker_program(PROGRAM);
    let engine = engine.entry(ModelEntry::new(large)).entry(ModelEntry::new(spec("middle"))).build().expect("an engine");
    let ask = || engine.chat(Chat::from("Hello").temperature(0.0)).expect("somebody answers");

    let poor = ask();
    let attempts = poor.fallback.expect("large does not fit").attempts;
    assert_eq!((poor.model.as_str(), attempts.len()), ("middle", 1), "{attempts:?}");
    assert_eq!((attempts[0].kind, attempts[0].stage), (FailureKind::DoesNotFit, Stage::Admission), "{attempts:?}");
    assert!(attempts[0].message.contains("MiB are free by /sys/fs/cgroup/"), "{}", attempts[0].message);
    assert!(!engine.scheduler().counters().load_total.keys().any(|(model, _)| model == "large"), "it was never loaded");

    group.set(400 << 20).expect("a higher limit");
    let rich = ask();
    assert_eq!((rich.model.as_str(), rich.fallback), ("large", None));
    drop(engine);
    // What made the group removes it.
    std::mem::forget(group);
}

#[test]
fn a_worker_that_the_kernel_kills_for_memory_under_chat_is_told_from_a_crash() {
    const VICTIM: &str = "DOWNSHIFT_TEST_VICTIM";
    let test = "memory::a_worker_that_the_kernel_kills_for_memory_under_chat_is_told_from_a_crash";
    if let Some(victim) = std::env::var(VICTIM).ok().and_then(|pid| pid.parse().ok()) {
        return take_memory_until_it_dies(victim);
    }
    let Some(group) = PoorGroup::make("kill", 256 << 20) else { return skipped() };
    let folder = demo("memory_margin = \"0\"", &["large", "middle"]);
    let plain = folder.command(&["chat", "--temperature", "0", COUNT]);
    let mut command = group.command(PROGRAM);
    command.args(plain.get_args()).current_dir(folder.path("")).env_remove("DOWNSHIFT_CONFIG");
    let mut chat = Running::of(command, "large@token=8:slow");
    chat.hear(8);
    let worker = chat.worker();
    let mut hog = group.command(std::env::current_exe().expect("this program"));
    hog.args(["--exact", &format!("isolation::{test}"), "--test-threads=1"]).env(VICTIM, worker.to_string());
    let hog = hog.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it starts");
    assert!(hog.success(), "the worker is dead, and not who took the memory");
    // Whoever goes on, or nobody where the memory is not back yet: the reason is the kernel's.
    let (code, said, noted) = chat.wait();
    assert!(matches!(code, Some(0 | 1)), "the program lives: {code:?} {noted}");
    assert!(said.starts_with("5, 6, 7"), "{said}");
    assert!(
        noted.contains("large: the worker process was killed by the kernel because memory ran out (out_of_memory at decode"),
        "{noted}"
    );
}

/// Fills memory a MiB at a time until the process is dead.
fn take_memory_until_it_dies(victim: u32) {
    let mut taken = Vec::new();
    while lives(victim) {
        assert!(taken.len() < 512, "the limit of the group does not hold");
        taken.push(vec![1u8; 1 << 20]);
    }
}
