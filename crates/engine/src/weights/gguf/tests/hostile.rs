//! Files that nobody's converter writes.

use super::GgufErrorClass::{Corrupt, Invalid, NotGguf, Truncated, UnsupportedType};
use super::{parse, refused, says, small};
use crate::testing::{GgufWriter, Stored, set_value};
use crate::weights::gguf::{GgufErrorClass, limits};

const U8: u32 = 0;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

fn at<const N: usize>(mut file: Vec<u8>, offset: usize, value: [u8; N]) -> Vec<u8> {
    file[offset..offset + N].copy_from_slice(&value);
    file
}

fn array(element: u32, len: u64, elements: &[u8]) -> Vec<u8> {
    let mut bytes = element.to_le_bytes().to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend(elements);
    bytes
}

/// One F32 tensor with these dimensions, at this offset, in a file with 64 bytes of data.
fn tensor(dims: &[u64], ggml_type: u32, offset: Option<u64>) -> Vec<u8> {
    GgufWriter::new("llama").raw_tensor("t", dims, ggml_type, offset, vec![0; 64]).finish()
}

#[test]
fn a_file_cut_at_any_byte_is_truncated() {
    let file = small().finish();
    for len in 0..file.len() {
        refused(file[..len].to_vec(), Truncated, "test.gguf: is truncated");
    }
    assert!(parse(file).is_ok());
}

#[test]
fn other_files_are_named_for_what_they_are() {
    refused(Vec::new(), Truncated, "found 0");
    refused(b"GGUF".to_vec(), Truncated, "the version needs 8 bytes");
    refused(at(small().finish(), 0, *b"GGUE"), NotGguf, "found `GGUE`");
    refused(at(small().finish(), 0, *b"\0\xff\n\""), NotGguf, r#"found `\x00\xff\n\"`"#);
    refused(b"PK\x03\x04....".to_vec(), NotGguf, "a zip archive");
    refused(b"<!DOCTYPE html>".to_vec(), NotGguf, "a web page");
    refused(b"version https://git-lfs.github.com/spec/v1".to_vec(), NotGguf, "a Git LFS pointer");
    refused(b"\x10\0\0\0\0\0\0\0{\"a\":1}".to_vec(), NotGguf, "a safetensors file");
}

#[test]
fn other_versions_and_byte_orders_are_named() {
    let class = GgufErrorClass::UnsupportedVersion;
    for version in [0, 1, 4, u32::MAX] {
        refused(small().version(version).finish(), class, &format!("is GGUF version {version},"));
    }
    refused(small().version(3u32.swap_bytes()).finish(), class, "version 3, big endian");
}

#[test]
fn counts_beyond_the_limits_or_the_file_are_refused_before_they_are_used() {
    for n in [limits::TENSORS + 1, 1 << 63, u64::MAX] {
        let part = format!("the tensor count: found {n}");
        refused(at(small().finish(), 8, n.to_le_bytes()), Corrupt, &part);
    }
    for n in [limits::KEYS + 1, 1 << 63, u64::MAX] {
        let part = format!("the key count: found {n}");
        refused(at(small().finish(), 16, n.to_le_bytes()), Corrupt, &part);
    }
    refused(at(small().finish(), 8, limits::TENSORS.to_le_bytes()), Truncated, "the tensor count");
    refused(at(small().finish(), 16, limits::KEYS.to_le_bytes()), Truncated, "the key count");
}

#[test]
fn lengths_beyond_the_limits_or_the_file_are_refused() {
    for len in [limits::KEY_BYTES + 1, 1 << 63, u64::MAX] {
        let file = at(small().finish(), 24, len.to_le_bytes());
        refused(file, Corrupt, &format!("key number 0: found a length of {len} bytes"));
    }
    refused(at(small().finish(), 24, limits::KEY_BYTES.to_le_bytes()), Truncated, "key number 0");
    for len in [limits::STRING_BYTES + 1, 1 << 63, u64::MAX] {
        let mut file = small().finish();
        set_value(&mut file, "string", &len.to_le_bytes());
        refused(file, Corrupt, &format!("key `string`: found a length of {len} bytes"));
    }
    let mut file = small().finish();
    set_value(&mut file, "string", &limits::STRING_BYTES.to_le_bytes());
    refused(file, Truncated, "key `string`");
    for len in [limits::ARRAY_LEN + 1, 1 << 63, u64::MAX] {
        for element in [U8, 6, STRING, ARRAY] {
            let file = GgufWriter::new("llama").raw("a", ARRAY, &array(element, len, &[]));
            refused(file.finish(), Corrupt, &format!("key `a`: found {len}, expected at most"));
        }
    }
    let file = GgufWriter::new("llama").raw("a", ARRAY, &array(STRING, limits::ARRAY_LEN, &[]));
    refused(file.finish(), Truncated, "key `a`");
    let file = GgufWriter::new("llama").raw("a", ARRAY, &array(STRING, 1, &[0xff; 8]));
    refused(file.finish(), Corrupt, "key `a`: found a length of");
}

#[test]
fn names_that_are_no_text_are_refused() {
    let writer = || GgufWriter::new("llama");
    refused(writer().raw([b'a', 0xff], U8, &[0]).finish(), Corrupt, "key number 1");
    refused(writer().raw("", U8, &[0]).finish(), Corrupt, "key number 1: found an empty name");
    let file = writer().tensor("", &[1], Stored::F32, &[0.0]).finish();
    refused(file, Corrupt, "tensor number 0: found an empty name");
}

#[test]
fn a_name_in_an_error_is_short_and_printable() {
    let key = format!("a\n\u{1b}[31m{}", "b".repeat(60_000));
    let error = parse(GgufWriter::new("x").raw(&key, 13, &[]).finish()).unwrap_err().to_string();
    assert!(error.len() < 300 && !error.contains(['\n', '\u{1b}']), "{error}");
}

#[test]
fn keys_and_tensors_that_occur_twice_are_refused() {
    refused(small().u32("u32", 70_000).finish(), Corrupt, "key `u32`: found the key twice");
    let file = small().tensor("norm", &[1], Stored::F32, &[0.0]).finish();
    refused(file, Corrupt, "tensor `norm`: found the name twice");
}

#[test]
fn unknown_value_types_and_bools_that_are_neither_are_refused() {
    for id in [13, 255, u32::MAX] {
        let found = format!("found value type {id}");
        refused(GgufWriter::new("x").raw("k", id, &[0; 64]).finish(), Corrupt, &found);
        let file = GgufWriter::new("x").raw("k", ARRAY, &array(id, 1, &[0; 64]));
        refused(file.finish(), Corrupt, &found);
    }
    refused(GgufWriter::new("x").raw("k", 7, &[2]).finish(), Corrupt, "key `k`: found 2");
    let gguf = parse(GgufWriter::new("x").raw("k", ARRAY, &array(7, 2, &[1, 3])).finish()).unwrap();
    let error = gguf.metadata().booleans("k").unwrap_err();
    says(&error, Invalid, "found bool at index 1");
}

#[test]
fn nested_arrays_are_skipped_to_a_bounded_depth() {
    let nest = |depth| (1..depth).fold(array(U8, 1, &[9]), |inner, _| array(ARRAY, 1, &inner));
    let file = |depth| GgufWriter::new("x").raw("k", ARRAY, &nest(depth)).u32("after", 5).finish();
    let gguf = parse(file(limits::ARRAY_DEPTH)).unwrap();
    assert_eq!(gguf.metadata().uint("after").unwrap(), Some(5));
    let error = gguf.metadata().ints("k").unwrap_err();
    says(&error, Invalid, "found array of 1 array");
    refused(file(limits::ARRAY_DEPTH + 1), Corrupt, "arrays nested more than 4 deep");
    refused(file(3000), Corrupt, "arrays nested more than 4 deep");
}

#[test]
fn alignments_that_align_nothing_are_refused() {
    for alignment in [0, 1, 3, 4, 12, 1 << 21, 1 << 31, u32::MAX] {
        let part = format!("key `general.alignment`: found {alignment}, expected a power of two");
        refused(small().alignment(alignment).finish(), Corrupt, &part);
    }
    refused(small().string("general.alignment", "32").finish(), Invalid, "found string");
    let file = small().raw("general.alignment", 5, &(-32i32).to_le_bytes()).finish();
    refused(file, Invalid, "found i32 -32");
}

#[test]
fn dimensions_without_a_size_are_refused() {
    refused(tensor(&[], 0, None), Corrupt, "tensor `t`: found 0 dimensions");
    refused(tensor(&[1; 5], 0, None), Corrupt, "tensor `t`: found 5 dimensions");
    for dims in [&[0][..], &[4, 0], &[1 << 32, 1 << 31], &[u64::MAX; 4], &[1 << 63]] {
        refused(tensor(dims, 0, None), Corrupt, &format!("found dimensions {dims:?}"));
    }
    // The product fits, the bytes do not.
    refused(tensor(&[1 << 62], 28, None), Corrupt, "found 4611686018427387904 blocks");
    refused(tensor(&[1 << 40], 0, None), Truncated, "tensor `t` needs");
    let found = "tensor `t`: found rows of 48 elements, expected a multiple of 32 for Q8_0";
    refused(tensor(&[48], 8, None), Corrupt, found);
    refused(tensor(&[32, 8], 12, None), Corrupt, "expected a multiple of 256 for Q4_K");
}

#[test]
fn offsets_outside_the_file_are_refused() {
    assert!(parse(tensor(&[8], 0, Some(32))).is_ok());
    refused(tensor(&[9], 0, Some(32)), Truncated, "tensor `t` needs");
    refused(tensor(&[8], 0, Some(64)), Truncated, "tensor `t` needs");
    refused(tensor(&[8], 0, Some(1 << 63)), Truncated, "tensor `t` needs 92233720368547");
    refused(tensor(&[8], 0, Some(u64::MAX - 31)), Corrupt, "found offset 18446744073709551584");
    refused(tensor(&[2], 0, Some(8)), Corrupt, "found offset 8, expected a multiple of the");
}

#[test]
fn tensors_that_share_bytes_are_refused() {
    let two = |first_type, first_len, second| {
        GgufWriter::new("llama")
            .raw_tensor("a", &[first_len], first_type, Some(0), vec![0; 128])
            .raw_tensor("b", &[8], 0, Some(second), Vec::new())
            .finish()
    };
    assert!(parse(two(0, 8, 32)).is_ok());
    refused(two(0, 8, 0), Corrupt, "inside");
    refused(two(0, 9, 32), Corrupt, "tensor `b`: found byte");
    refused(two(0, 32, 96), Corrupt, "inside `a`");
    // A type of unknown size takes at least its first byte.
    refused(two(99, 8, 0), Corrupt, "inside");
    assert!(parse(two(99, 8, 32)).is_ok());
}

#[test]
fn an_unknown_tensor_type_is_an_error_of_that_tensor_when_it_is_needed() {
    let writer = small().raw_tensor("new", &[7], 99, None, vec![0; 64]);
    let gguf = parse(writer.raw_tensor("old", &[32], 31, None, vec![0; 64]).finish()).unwrap();
    assert_eq!(gguf.metadata().uint("u8").unwrap(), Some(200));
    assert!(gguf.data(gguf.tensor("norm").unwrap()).is_ok());
    let new = gguf.tensor("new").unwrap();
    assert_eq!((new.size_bytes(), new.layout()), (None, None));
    says(&gguf.data(new).unwrap_err(), UnsupportedType, "tensor `new`: found type 99");
    let error = gguf.tensor_bytes(gguf.tensor("old").unwrap()).unwrap_err();
    says(&error, UnsupportedType, "found type 31 (Q4_0_4_4, which ggml has removed)");
}
