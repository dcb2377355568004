//! The one thread that starts children. The kernel's parent-death signal fires when the *thread* that started a child ends, so
//! that thread must live as long as the process.

use std::io;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use crate::lock;

struct Job {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

static SPAWNER: Mutex<Option<Sender<Job>>> = Mutex::new(None);

/// Starts `command`.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    let (reply, child) = channel();
    {
        let mut spawner = lock(&SPAWNER);
        let jobs = match spawner.take() {
            Some(jobs) => jobs,
            None => start()?,
        };
        let sent = jobs.send(Job { command, reply });
        *spawner = Some(jobs);
        sent.map_err(|_| io::Error::other("the thread that starts processes has ended"))?;
    }
    child.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that starts processes has ended")))
}

fn start() -> io::Result<Sender<Job>> {
    let (jobs, inbox) = channel::<Job>();
    std::thread::Builder::new().name("spawner".to_owned()).spawn(move || {
        for Job { mut command, reply } in inbox {
            if let Err(unclaimed) = reply.send(command.spawn())
                && let Ok(mut child) = unclaimed.0
            {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    })?;
    Ok(jobs)
}
