//! The child process of the tests: serves a launcher without a model. With an argument it plays other parts.

mod fake;

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use downshift_worker::{FaultError, Faulty, Launcher, Placement, Subprocess};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => match Faulty::from_env(fake::Fake) {
            Ok(launcher) => downshift_worker::serve(launcher),
            Err(error) => fail(&error),
        },
        Some("parent") => parent(),
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

/// Starts a worker of its own, tells its process id, and waits to be killed.
fn parent() -> ExitCode {
    let launcher = Arc::new(Subprocess::this_program().expect("this program"));
    let placement = Placement { device: downshift_worker::Device::Cpu, context: 64, threads: 1 };
    let worker = launcher.launch(&fake::spec("m"), &placement, &|_, _| {}).expect("a worker");
    let request = fake::request(1, "pid");
    let mut text = String::new();
    worker.generate(&request, &mut fake::collect(&mut text)).expect("an answer");
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).expect("a reader");
    loop {
        std::thread::park();
    }
}
