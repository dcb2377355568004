//! Damage without a plan: whatever the bytes, a value or an error, and views inside the file.

use super::{parse, small};
use crate::testing::{GgufWriter, Rng, Stored, TinyModel};
use crate::weights::Bytes;
use crate::weights::gguf::Gguf;

/// Reads everything in every way; what it finds must lie inside the file and apart.
fn read_all(gguf: &Gguf, len: usize) {
    let m = gguf.metadata();
    for key in m.keys() {
        let _ = (m.string(key), m.uint(key), m.float(key), m.boolean(key));
        if let Ok(Some(strings)) = m.strings(key) {
            assert_eq!(strings.iter().count(), strings.len());
        }
        if let Ok(Some(ints)) = m.ints(key) {
            assert_eq!(ints.iter().count(), ints.len());
        }
        let _ = (m.floats(key), m.booleans(key), m.uints_or_uint(key));
    }
    let mut ranges = Vec::new();
    for tensor in gguf.tensors() {
        if let Ok(data) = gguf.data(tensor) {
            assert_eq!(data.len() as u64, tensor.size_bytes().unwrap());
            let end = tensor.start() + data.len() as u64;
            assert!(end <= len as u64 && tensor.n_elements() > 0);
            ranges.push((tensor.start(), end));
        }
    }
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
}

fn survives(file: Vec<u8>) -> bool {
    let len = file.len();
    // A buffer as it is: thousands of mappings would take most of the time.
    let parsed = Gguf::parse(Bytes::buffer(file), "test.gguf");
    match &parsed {
        Ok(gguf) => read_all(gguf, len),
        Err(error) => assert!(error.to_string().starts_with("test.gguf: ")),
    }
    parsed.is_ok()
}

#[test]
fn flipped_bits_never_panic() {
    let file = small().finish();
    let mut rng = Rng::new(1);
    let mut accepted = 0;
    for _ in 0..6000 {
        let mut damaged = file.clone();
        for _ in 0..=rng.below(4) {
            damaged[rng.below(file.len())] ^= 1 << rng.below(8);
        }
        accepted += u32::from(survives(damaged));
    }
    // Both outcomes occur, or this test says nothing.
    assert!((100..5900).contains(&accepted), "{accepted}");
}

#[test]
fn extreme_numbers_anywhere_never_panic() {
    const EXTREMES: [u64; 12] = [0, 1, 7, 0x7f, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX - 31, u64::MAX];
    let file = small().finish();
    for at in 0..file.len() {
        for value in EXTREMES {
            for width in [1, 4, 8] {
                let mut damaged = file.clone();
                let end = (at + width).min(file.len());
                damaged[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
                survives(damaged);
            }
        }
    }
}

#[test]
fn parts_moved_inside_a_file_never_panic() {
    let file = small().finish();
    let mut rng = Rng::new(2);
    for _ in 0..3000 {
        let mut damaged = file.clone();
        let (from, to) = (rng.below(file.len()), rng.below(file.len()));
        let len = rng.below(file.len() - from.max(to));
        damaged.copy_within(from..from + len, to);
        if rng.below(4) == 0 {
            damaged.truncate(rng.below(file.len()));
        }
        survives(damaged);
    }
}

#[test]
fn a_damaged_header_of_a_whole_model_never_panics() {
    let shape = TinyModel { hidden_size: 32, n_layers: 1, ffn_size: 32, ..TinyModel::default() };
    let file = TinyModel { stored: Stored::Q4_0, ..shape }.writer().finish();
    let header = parse(file.clone()).unwrap().header().shards()[0].data_start as usize;
    let mut rng = Rng::new(3);
    for _ in 0..1000 {
        let mut damaged = file.clone();
        damaged[rng.below(header)] = rng.bits() as u8;
        survives(damaged);
    }
}

#[cfg(unix)]
/// Files whose header claims as much as the limits allow, and some that claim more.
fn greedy_files() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for count in [1u64 << 14, 1 << 18, 1 << 32, 1 << 40, 1 << 63, u64::MAX] {
        for at in [8, 16] {
            let mut file = small().finish();
            file[at..at + 8].copy_from_slice(&count.to_le_bytes());
            files.push(file);
        }
        for element in [0u32, 5, 8, 9, 12] {
            let mut value = element.to_le_bytes().to_vec();
            value.extend(count.to_le_bytes());
            files.push(GgufWriter::new("x").raw("k", 9, &value).finish());
        }
        let key = [&count.to_le_bytes()[..], b"k"].concat();
        files.push(GgufWriter::new("x").raw("k", 8, &key).finish());
        let writer = GgufWriter::new("x");
        files.push(writer.raw_tensor("t", &[count.max(1)], 0, None, vec![0; 64]).finish());
    }
    // Four million empty arrays and strings, honestly there.
    for (element, bytes) in [(9u32, 12), (8, 8)] {
        let n = 4u64 << 20;
        let mut value = element.to_le_bytes().to_vec();
        value.extend(n.to_le_bytes());
        value.resize(value.len() + n as usize * bytes, 0);
        files.push(GgufWriter::new("x").raw("k", 9, &value).finish());
    }
    files
}

/// In a process of its own whose address space is small: an allocation by a claimed count would
/// end it. Runs this test binary again, for this test alone.
#[cfg(unix)]
#[test]
fn claimed_counts_allocate_nothing() {
    const CHILD: &str = "DOWNSHIFT_TEST_GREEDY";
    const ADDRESS_SPACE_KIB: u64 = 1 << 20;
    if std::env::var_os(CHILD).is_some() {
        for file in greedy_files() {
            survives(file);
        }
        return;
    }
    let path = concat!(module_path!(), "::claimed_counts_allocate_nothing");
    let (_crate, name) = path.split_once("::").unwrap();
    let output = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -v {ADDRESS_SPACE_KIB} && exec \"$0\" --exact \"$1\" --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}
