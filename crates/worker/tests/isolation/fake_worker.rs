//! The child process of the tests: serves a launcher without a model. With an argument it plays other parts.

mod fake;

use std::io::{Read, Write};
use std::process::ExitCode;

use downshift_worker::{FaultError, Faulty, Launcher, Placement, Subprocess};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => match Faulty::from_env(fake::Fake) {
            Ok(launcher) => downshift_worker::serve(launcher),
            Err(error) => fail(&error),
        },
        Some("parent") => parent("pid"),
        // A parent in the control group of the second argument, whose worker needs more than the group may have.
        Some("poor-parent") => {
            let group = std::env::args().nth(2).unwrap_or_default();
            std::fs::write(format!("{group}/cgroup.procs"), "0").expect("a group to join");
            parent("gorge")
        }
        // A child that says what it is told to, byte for byte, and then waits for its end.
        Some("say") => {
            let bytes = std::env::args().nth(2).and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
            let mut stdout = std::io::stdout();
            let said = stdout.write_all(&bytes).and_then(|()| stdout.flush());
            let heard = std::io::stdin().read_to_end(&mut Vec::new());
            ExitCode::from(u8::from(said.is_err() || heard.is_err()))
        }
        // A child that never reads.
        Some("deaf") => loop {
            std::thread::park();
        },
        Some(_) => ExitCode::FAILURE,
    }
}

fn fail(error: &FaultError) -> ExitCode {
    // Nobody listens if this cannot be written.
    let _ = writeln!(std::io::stderr(), "{error}");
    ExitCode::FAILURE
}

/// Starts a worker of its own, tells what it said or why it failed, and waits to be killed.
fn parent(words: &str) -> ExitCode {
    let launcher = Subprocess::this_program().expect("this program");
    let placement = Placement { device: downshift_worker::Device::Cpu, context: 64, threads: 1 };
    let worker = launcher.launch(&fake::spec("m"), &placement, &|_, _| {}).expect("a worker");
    let mut text = String::new();
    let outcome = worker.generate(&fake::request(1, words), &mut fake::collect(&mut text));
    if let Err(failure) = outcome {
        text = format!("{}: {failure}", failure.kind.as_str());
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).expect("a reader");
    loop {
        std::thread::park();
    }
}
