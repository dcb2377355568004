use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::non_finite::Scan;
use super::{Finding, Report, verify};
use crate::testing::{GgufWriter, Rng, Stored, TinyModel, poison, tiny_model};
use crate::weights::gguf::{GgmlType, GgufErrorClass};

fn written(dir: &Path, file: &[u8]) -> PathBuf {
    let path = dir.join("model.gguf");
    fs::write(&path, file).unwrap();
    path
}

fn report(file: &[u8]) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), file);
    verify(&path, |_, _| ControlFlow::Continue(())).unwrap().unwrap()
}

fn hex(hash: [u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_sound_model_has_no_findings_and_a_table_of_its_types() {
    let report = report(&tiny_model("qwen3", 5, Stored::Q8_0));
    assert_eq!(report.findings, []);
    let rows: Vec<_> = report.types.iter().map(|ty| (ty.name, ty.n_tensors)).collect();
    assert_eq!(rows, [(Some("F32"), 9), (Some("Q8_0"), 15)]);
    let elements: u64 = report.header.tensors().map(|t| t.n_elements()).sum();
    assert_eq!(report.types.iter().map(|ty| ty.n_elements).sum::<u64>(), elements);
}

#[test]
fn the_hash_is_the_sha256_of_the_file() {
    // `printf 'GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0' | sha256sum`
    let mut file = GgufWriter::default().finish();
    assert_eq!(file.len(), 24);
    assert_eq!(hex(report(&file).sha256[0]), EMPTY_MODEL_SHA256);
    // One more byte changes it, in the tensors and after them.
    file.push(0);
    assert_ne!(hex(report(&file).sha256[0]), EMPTY_MODEL_SHA256);
}

const EMPTY_MODEL_SHA256: &str = "a4e5e156ddec27e286f75328784d7106b60a4eb1d246e950a001a3f944fbda99";

#[test]
fn a_file_larger_than_a_chunk_is_hashed_in_order() {
    use sha2::{Digest, Sha256};
    let values: Vec<f32> = (0..5 << 20).map(|i| i as f32).collect();
    let file = GgufWriter::new("x").tensor("t", &[5 << 20], Stored::F16, &values[..]).finish();
    let expected: [u8; 32] = Sha256::digest(&file).into();
    let found = report(&file);
    assert_eq!(found.sha256, [expected]);
    // The largest f16 is 65504; counting further is infinite from there on.
    let Finding::NonFinite { first_block, n_blocks, what, .. } = &found.findings[0] else { panic!() };
    assert_eq!((*first_block, *n_blocks, what.as_str()), (65520, (5 << 20) - 65520, "`value` is infinite"));
}

#[test]
fn a_number_that_is_not_finite_is_found_in_its_block() {
    for stored in Stored::ALL {
        if stored == Stored::Q6K {
            // `poison` does not reach a scale at the end of a block.
            continue;
        }
        let mut file = tiny_model("llama", 0, stored);
        poison(&mut file, "blk.1.ffn_up.weight", 7);
        poison(&mut file, "blk.1.ffn_up.weight", 9);
        let name = GgmlType::from_id(stored.id()).unwrap().name;
        let number = if name.starts_with('Q') { "d" } else { "value" };
        let expected = Finding::NonFinite {
            tensor: "blk.1.ffn_up.weight".to_owned(),
            first_block: 7,
            n_blocks: 2,
            what: format!("`{number}` is NaN"),
        };
        assert_eq!(report(&file).findings, [expected], "{name}");
    }
}

/// What is found in three blocks of a type that are zero but for `bytes` at `at` in the second.
fn found_in_block(ty: GgmlType, at: usize, bytes: &[u8]) -> Option<String> {
    let mut data = vec![0; 3 * ty.block_bytes as usize];
    let start = ty.block_bytes as usize + at;
    data[start..start + bytes.len()].copy_from_slice(bytes);
    let mut scan = Scan::new(ty);
    scan.blocks(&data[..start - at]);
    scan.blocks(&data[start - at..]);
    let (block, what) = scan.first?;
    assert_eq!((block, scan.n_bad_blocks), (1, 1), "{}", ty.name);
    Some(what)
}

#[test]
fn scales_are_found_where_each_type_has_them() {
    const INFINITE_F16: [u8; 2] = [0x00, 0xfc];
    let f16_scales: [(u32, &[usize]); 22] = [
        (1, &[0]),
        (2, &[0]),
        (3, &[0, 2]),
        (6, &[0]),
        (7, &[0, 2]),
        (8, &[0]),
        (10, &[80, 82]),
        (11, &[108]),
        (12, &[0, 2]),
        (13, &[0, 2]),
        (14, &[208]),
        (16, &[0]),
        (17, &[0]),
        (18, &[0]),
        (19, &[0]),
        (20, &[0]),
        (21, &[0]),
        (22, &[0]),
        (23, &[0]),
        (34, &[52]),
        (35, &[64]),
        (41, &[0]),
    ];
    for (id, places) in f16_scales {
        let ty = GgmlType::from_id(id).unwrap();
        for at in 0..ty.block_bytes as usize - 1 {
            let found = found_in_block(ty, at, &INFINITE_F16);
            if places.contains(&at) {
                assert!(found.is_some_and(|what| what.ends_with("is infinite")), "{} at {at}", ty.name);
            } else if !places.contains(&(at + 1)) && !places.contains(&(at.wrapping_sub(1))) {
                assert_eq!(found, None, "{} at {at}", ty.name);
            }
        }
    }
    let others: [(u32, usize, &[u8]); 7] = [
        (0, 0, &[0, 0, 0x80, 0x7f]),
        (28, 0, &[0, 0, 0, 0, 0, 0, 0xf0, 0x7f]),
        (30, 0, &[0x80, 0x7f]),
        (15, 0, &[0, 0, 0x80, 0x7f]),
        (29, 48, &[0, 0, 0, 0, 0, 0xc0, 0, 0x70]),
        (39, 0, &[0xff]),
        (40, 3, &[0x7f]),
    ];
    for (id, at, bytes) in others {
        let ty = GgmlType::from_id(id).unwrap();
        assert!(found_in_block(ty, at, bytes).is_some(), "{}", ty.name);
        assert_eq!(found_in_block(ty, at, &vec![0x11; bytes.len()]), None, "{}", ty.name);
    }
}

#[test]
fn unknown_types_unused_bytes_and_text_that_is_none_are_findings() {
    let mut file = GgufWriter::new("x")
        .string("name", [0xff])
        .raw_tensor("a", &[8], 0, Some(0), vec![0; 96])
        .raw_tensor("b", &[7], 0, Some(96), vec![0; 28])
        .finish();
    file.extend([0; 100]);
    let found = report(&file).findings;
    assert_eq!(found[0], Finding::NotUtf8 { key: "name".to_owned() });
    // 64 bytes between the tensors; 4 of the last 100 pad the second one to its alignment.
    assert!(matches!(found[1], Finding::UnusedBytes { n_bytes: 160, .. }), "{found:?}");
    assert_eq!(found.len(), 2);

    let file = GgufWriter::new("x").raw_tensor("new", &[8], 99, None, vec![0; 960]).finish();
    let found = report(&file).findings;
    assert_eq!(found, [Finding::UnknownType { tensor: "new".to_owned(), ggml_type: 99 }]);
    assert_eq!(found[0].to_string(), "tensor `new`: type 99 is unknown, its data was not checked");
}

#[test]
fn numbers_of_keys_that_are_not_finite_are_findings() {
    let file = GgufWriter::new("x")
        .f32s("tokenizer.ggml.scores", &[0.0, -1.0, f32::NAN, f32::INFINITY])
        .f32("x.scale", f32::NEG_INFINITY)
        .f32("x.sound", 1.0)
        .raw_tensor("a", &[8], 0, Some(0), vec![0; 32])
        .finish();
    let key = |key: &str, index| Finding::NonFiniteKey { key: key.to_owned(), index };
    assert_eq!(report(&file).findings, [key("tokenizer.ggml.scores", 2), key("x.scale", 0)]);
}

#[test]
fn progress_reaches_the_end_and_can_stop_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = tiny_model("llama", 0, Stored::F32);
    let path = written(dir.path(), &file);
    let mut last = (0, 0);
    let done = verify(&path, |done, total| {
        assert!(done > last.0);
        last = (done, total);
        ControlFlow::Continue(())
    });
    assert!(done.unwrap().is_some());
    assert_eq!(last, (file.len() as u64, file.len() as u64));
    let mut calls = 0;
    let stopped = verify(&path, |_, _| {
        calls += 1;
        ControlFlow::Break(())
    });
    assert!(stopped.unwrap().is_none() && calls == 1);
}

#[test]
fn a_file_that_cannot_be_used_is_an_error_and_no_report() {
    let dir = tempfile::tempdir().unwrap();
    let file = tiny_model("llama", 0, Stored::Q4_0);
    let path = written(dir.path(), &file[..file.len() - 1]);
    let error = verify(&path, |_, _| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(error.class(), GgufErrorClass::Truncated);
}

#[test]
fn a_file_that_is_cut_meanwhile_is_truncated() {
    let dir = tempfile::tempdir().unwrap();
    let file = GgufWriter::new("x").raw_tensor("t", &[20 << 20], 24, None, vec![0; 20 << 20]).finish();
    let path = written(dir.path(), &file);
    let cut = verify(&path, |_, _| {
        fs::File::options().write(true).open(&path).unwrap().set_len(9 << 20).unwrap();
        ControlFlow::Continue(())
    });
    let error = cut.unwrap_err();
    assert_eq!(error.class(), GgufErrorClass::Truncated, "{error}");
}

#[test]
fn damaged_files_never_panic() {
    let shape = TinyModel { hidden_size: 32, n_layers: 1, ffn_size: 32, ..TinyModel::default() };
    let file = TinyModel { stored: Stored::Q4_0, ..shape }.writer().finish();
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(4);
    for _ in 0..200 {
        let mut damaged = file.clone();
        for _ in 0..8 {
            damaged[rng.below(file.len())] = rng.bits() as u8;
        }
        let path = written(dir.path(), &damaged);
        let _ = verify(&path, |_, _| ControlFlow::Continue(()));
    }
}
