//! Children that break the protocol, and parents that do.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use downshift_worker::{Failure, FailureKind, Launcher, Stage, Subprocess};

use crate::fake::spec;

const PROGRAM: &str = env!("CARGO_BIN_EXE_downshift-fake-worker");

pub fn frame(call: u64, json: &str) -> Vec<u8> {
    let length = u32::try_from(8 + json.len()).unwrap();
    [&length.to_le_bytes()[..], &call.to_le_bytes(), json.as_bytes()].concat()
}

fn greeting() -> Vec<u8> {
    frame(0, &format!(r#"{{"ready":{{"protocol":2,"build":"{}"}}}}"#, env!("CARGO_PKG_VERSION")))
}

/// What inspecting gives when the child says `bytes`.
fn hear(folder: &Path, bytes: &[u8]) -> Result<downshift_worker::ModelInfo, Failure> {
    let file = folder.join("bytes");
    std::fs::write(&file, bytes).unwrap();
    Subprocess::new(PROGRAM).arg("say").arg(&file).inspect(&spec("m"))
}

#[test]
fn whatever_a_child_says_wrongly_is_a_protocol_failure() {
    let folder = tempfile::tempdir().unwrap();
    let check = |bytes: &[u8], says: &str| {
        let failure = hear(folder.path(), bytes).unwrap_err();
        assert_eq!((failure.kind, failure.stage), (FailureKind::Protocol, Stage::Load), "{failure}");
        assert!(failure.message.contains(says), "{failure}");
    };
    let after = |frame: Vec<u8>| [greeting(), frame].concat();
    check(b"Hello, I am a library", "exceeds the limit");
    check(&[4, 0, 0, 0, 1, 2, 3, 4], "too short");
    check(&frame(0, "{}"), "malformed");
    check(&frame(0, r#"{"ready":{"protocol":99,"build":"0.0.0"}}"#), "build 0.0.0 (protocol 99)");
    check(&frame(1, r#"{"counted":1}"#), "no greeting");
    check(&after(frame(7, r#"{"counted":1}"#)), "call 7, which is not open");
    check(&after(frame(1, r#"{"counted":1}"#)), "another question: Counted");
    check(&after(frame(1, r#"{"counted":-1}"#)), "malformed");
    check(&after(frame(1, &"[".repeat(100_000))), "malformed");
    check(&after(u32::MAX.to_le_bytes().to_vec()), "exceeds the limit");
    let flood = [greeting(), frame(1, r#"{"delta":{"text":"x","token_ids":[]}}"#).repeat(100_000)].concat();
    let failure = hear(folder.path(), &flood).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Protocol, "{failure}");
}

/// Numbers that look random and are the same in every run (splitmix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[test]
fn random_frames_end_a_child_and_never_crash_it() {
    let open = frame(0, &format!(r#"{{"open":{{"protocol":2,"build":"{}","role":"model"}}}}"#, env!("CARGO_PKG_VERSION")));
    let mut state = 7;
    for round in 0..24 {
        let mut bytes = if round % 2 == 0 { open.clone() } else { Vec::new() };
        let length = random(&mut state) as usize % 2000;
        let noise: Vec<u8> = (0..length).map(|_| random(&mut state) as u8).collect();
        match round % 3 {
            0 => bytes.extend_from_slice(&noise),
            1 => {
                bytes.extend_from_slice(&u32::try_from(noise.len()).unwrap().to_le_bytes());
                bytes.extend_from_slice(&noise);
            }
            // A good frame with some bytes changed.
            _ => {
                let mut good = frame(1, r#"{"detokenize":{"ids":[104,105]}}"#);
                for _ in 0..3 {
                    let at = random(&mut state) as usize % good.len();
                    good[at] ^= 1 << (random(&mut state) % 8);
                }
                bytes.extend_from_slice(&good);
            }
        }
        let mut child = Command::new(PROGRAM).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may have ended before it read everything.
        let _ = stdin.write_all(&bytes);
        drop(stdin);
        let mut said = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut said).unwrap();
        let status = child.wait().unwrap();
        assert!(status.code().is_some_and(|code| code <= 1), "round {round}: {status}");
        assert!(said.starts_with(&greeting()), "round {round}");
    }
}

#[test]
fn a_parent_of_another_build_is_refused_with_both_builds_named() {
    let mut child = Command::new(PROGRAM).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&frame(0, r#"{"open":{"protocol":2,"build":"other","role":"model"}}"#)).unwrap();
    let mut said = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains(r#""kind":"protocol""#) && said.contains("build other (protocol 2)"), "{said}");
}

#[test]
fn a_child_that_never_reads_blocks_nobody() {
    let launcher = Subprocess::new(PROGRAM).arg("deaf");
    std::thread::scope(|scope| {
        let launch = scope.spawn(|| launcher.launch(&spec("m"), &crate::PLACEMENT, &|_, _| {}).err().expect("it is given up"));
        crate::eventually("the launch can be given up", || {
            launcher.abort("m");
            launch.is_finished()
        });
        assert_eq!(launch.join().unwrap().kind, FailureKind::Stalled);
    });
}
