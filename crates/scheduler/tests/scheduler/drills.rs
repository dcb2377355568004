//! Faults on demand through the whole path: every fault at every stage ends in a whole answer or one honest error.

use std::sync::Arc;

use downshift_scheduler::{Options, Scheduler};
use downshift_worker::Faulty;

use crate::support::*;

fn scheduler(fake: &Arc<Fake>, rules: &str, settings: &str) -> Scheduler {
    let launcher = Faulty::new(FakeLauncher(fake.clone()), rules.parse().unwrap());
    fake.scheduler_with(&format!("[settings]\n{settings}\n{ABC}"), Arc::new(launcher))
}

#[test]
fn every_fault_at_every_stage_streamed_or_not_is_survived() {
    for fault in ["corrupt", "unsupported", "oom", "oom_kill", "nan", "segv", "abort", "bus", "panic", "device"] {
        for stage in ["load", "prefill", "token=2"] {
            for stream in [true, false] {
                for on_failure in ["continue", "error"] {
                    let never_there = matches!((fault, stage), ("corrupt" | "unsupported", "prefill" | "token=2") | ("nan", "load"));
                    if never_there {
                        continue;
                    }
                    let fake = Fake::new();
                    let setting = format!("on_stream_failure = \"{on_failure}\"");
                    let scheduler = scheduler(&fake, &format!("a@{stage}:{fault}!"), &setting);
                    let outcome = ask(&scheduler, &[], Options { stream, ..Options::default() });
                    let cell = format!("{fault} at {stage}, streamed: {stream}, {on_failure}: {outcome:?}");
                    let shown = stream && stage == "token=2";
                    if shown && on_failure == "error" {
                        assert!(outcome.result.is_err() && outcome.text == "a| a0 a1 ", "{cell}");
                        continue;
                    }
                    let words: Vec<&str> = outcome.text.split(' ').filter(|word| word.len() == 2 && !word.ends_with('|')).collect();
                    let tokens: String = words.iter().map(|word| &word[1..]).collect();
                    assert_eq!(tokens, "012", "{cell}");
                    assert!(outcome.result.is_ok(), "{cell}");
                    assert!(!outcome.failed.is_empty(), "{cell}");
                    let next = ask(&scheduler, &["b"], Options::default());
                    assert_eq!(next.model(), "b", "the supervisor lives: {cell}");
                }
            }
        }
    }
}

#[test]
fn a_fault_that_strikes_once_is_repaired_by_the_same_model() {
    let fake = Fake::new();
    let outcome = ask(&scheduler(&fake, "a@token=2:segv", ""), &[], streamed());
    assert_eq!(outcome.text, "a| a0 a1 a>a(crashed) a2 ");
    let fake = Fake::new();
    let outcome = ask(&scheduler(&fake, "a@load:oom", ""), &[], streamed());
    assert_eq!((outcome.text.as_str(), outcome.attempts().as_str()), ("a| a0 a1 a2 ", "a:out_of_memory"));
}

#[test]
fn a_worker_that_hangs_on_demand_is_given_up() {
    for stage in ["load", "prefill", "token=1"] {
        let fake = Fake::new();
        let scheduler = Arc::new(scheduler(&fake, &format!("a@{stage}:hang!"), ""));
        let asking = {
            let scheduler = scheduler.clone();
            std::thread::spawn(move || ask(&scheduler, &[], Options::default()))
        };
        while fake.count_of("kill a") + fake.count_of("abort a") == 0 {
            fake.clock.advance(std::time::Duration::from_secs(1));
            std::thread::yield_now();
        }
        let outcome = asking.join().unwrap();
        assert_eq!((outcome.attempts().as_str(), outcome.model()), ("a:stalled", "b"), "{stage}");
    }
}

#[test]
fn five_hundred_faults_leave_nothing_behind() {
    let fake = Fake::new();
    let scheduler = scheduler(&fake, "a@prefill:segv!;b@prefill:nan!", "allowed_fails = 4000000000");
    for _ in 0..250 {
        assert_eq!(ask(&scheduler, &[], streamed()).model(), "c");
    }
    let loads = fake.log().iter().filter(|line| line.starts_with("load a")).count();
    assert_eq!((loads, fake.count_of("drop a")), (500, 500), "every worker that was loaded is gone");
}
