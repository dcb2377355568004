//! What a right file is read as.

use super::{parse, says, small};
use crate::testing::{GgufWriter, Stored, TinyModel, tiny_model};
use crate::weights::gguf::{GgmlType, Gguf, GgufErrorClass, PerLayer, ValueKind, ValueType, limits};

#[test]
fn every_type_reads_as_it_was_written() {
    let gguf = parse(small().finish()).unwrap();
    let m = gguf.metadata();
    assert_eq!(m.string("general.architecture").unwrap(), Some("llama"));
    assert_eq!(m.string("string").unwrap(), Some("text"));
    assert_eq!(m.uint("u8").unwrap(), Some(200));
    assert_eq!(m.uint("u16").unwrap(), Some(0x201));
    assert_eq!(m.uint("u32").unwrap(), Some(70_000));
    assert_eq!(m.uint("u64").unwrap(), Some(u64::MAX));
    assert_eq!(m.float("f32").unwrap(), Some(1.5));
    assert_eq!(m.float("f64").unwrap(), Some(0.25));
    assert_eq!(m.boolean("bool").unwrap(), Some(true));
    let strings = m.strings("strings").unwrap().unwrap();
    let expected: [&[u8]; 3] = [b"a", b"", b"longer than eight bytes"];
    assert_eq!(strings.iter().collect::<Vec<_>>(), expected);
    assert_eq!(strings.len(), 3);
    let ints = m.ints("i32s").unwrap().unwrap();
    assert_eq!(ints.iter().collect::<Vec<_>>(), [1, -2, 3]);
    assert_eq!((ints.get(2), ints.get(3), ints.get(usize::MAX)), (Some(3), None, None));
    let floats = m.floats("f32s").unwrap().unwrap();
    assert_eq!(floats.iter().collect::<Vec<_>>(), [0.5, -0.5]);
    let bools = m.booleans("bools").unwrap().unwrap();
    assert_eq!(bools.iter().collect::<Vec<_>>(), [true, false]);
}

#[test]
fn an_absent_key_is_none_and_another_type_is_an_error_that_names_all() {
    let gguf = parse(small().finish()).unwrap();
    let m = gguf.metadata();
    assert_eq!(m.string("absent").unwrap(), None);
    assert!(m.strings("absent").unwrap().is_none());
    let wrong = |error, part| says(&error, GgufErrorClass::Invalid, part);
    wrong(m.missing("k"), "test.gguf: key `k` is missing");
    wrong(m.string("u32").unwrap_err(), "key `u32`: found u32, expected string");
    wrong(m.uint("string").unwrap_err(), "key `string`: found string, expected an integer");
    wrong(m.uint("i8").unwrap_err(), "key `i8`: found i8 -1");
    wrong(m.uint("i64").unwrap_err(), "found i64 -9223372036854775808");
    wrong(m.uint("f32").unwrap_err(), "found f32");
    wrong(m.float("u32").unwrap_err(), "found u32 70000, expected f32");
    wrong(m.boolean("u8").unwrap_err(), "found u8 200, expected bool");
    wrong(m.strings("i32s").unwrap_err(), "found array of 3 i32, expected array of string");
    wrong(m.ints("strings").unwrap_err(), "found array of 3 string, expected array of i32");
    wrong(m.floats("f32").unwrap_err(), "found f32, expected array of f32");
    wrong(m.uints("i32s").unwrap_err(), "found i32 -2 at index 1");
}

#[test]
fn a_number_for_every_layer_may_be_one_number() {
    let file = GgufWriter::new("llama").u32("one", 8).i32s("each", &[4, 0]).finish();
    let gguf = parse(file).unwrap();
    let one = gguf.metadata().uints_or_uint("one").unwrap().unwrap();
    let each = gguf.metadata().uints_or_uint("each").unwrap().unwrap();
    assert!(matches!(one, PerLayer::All(8)));
    assert_eq!((one.get(0), one.get(99)), (Some(8), Some(8)));
    assert_eq!((each.get(0), each.get(1), each.get(2)), (Some(4), Some(0), None));
}

#[test]
fn text_that_is_not_utf8_is_an_error_of_its_key_alone() {
    let file = GgufWriter::new("llama").string("bad", [0xff, b'a']).strings("tokens", &[&[0xff_u8][..], b"b"]).finish();
    let gguf = parse(file).unwrap();
    let error = gguf.metadata().string("bad").unwrap_err();
    says(&error, GgufErrorClass::Invalid, "key `bad`: found a string that is not UTF-8");
    let tokens = gguf.metadata().strings("tokens").unwrap().unwrap();
    assert_eq!(tokens.iter().collect::<Vec<_>>(), [&[0xff_u8][..], b"b"]);
}

#[test]
fn tensors_have_the_bytes_that_were_written() {
    let gguf = parse(small().finish()).unwrap();
    let names: Vec<_> = gguf.tensors().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["norm", "matrix", "half"]);
    let norm = gguf.tensor("norm").unwrap();
    assert_eq!(gguf.data(norm).unwrap(), Stored::F32.encode(&[-31.5, -30.5, -29.5, -28.5]));
    let matrix = gguf.require("matrix").unwrap();
    assert_eq!((&*matrix.dims, matrix.n_elements()), (&[32, 2][..], 64));
    assert_eq!((matrix.layout().unwrap().name, matrix.size_bytes()), ("Q8_0", Some(68)));
    let view = gguf.tensor_bytes(matrix).unwrap();
    assert_eq!(&*view, gguf.data(matrix).unwrap());
    assert!(gguf.tensor("absent").is_none());
    let error = gguf.require("absent").unwrap_err();
    says(&error, GgufErrorClass::Invalid, "test.gguf: tensor `absent` is missing");
}

#[test]
fn a_view_of_a_tensor_outlives_the_file_object() {
    let gguf = parse(small().finish()).unwrap();
    let view = gguf.tensor_bytes(gguf.tensor("half").unwrap()).unwrap();
    let strings = gguf.metadata().strings("strings").unwrap().unwrap();
    drop(gguf);
    assert_eq!(view[..2], half::f16::from_f32(-31.5).to_le_bytes());
    assert_eq!(strings.iter().next(), Some(&b"a"[..]));
}

#[test]
fn a_tensor_of_another_file_is_an_error_and_not_a_panic() {
    let large = parse(tiny_model("llama", 0, Stored::F32)).unwrap();
    let small = parse(small().finish()).unwrap();
    let foreign = large.tensors().last().unwrap();
    says(&small.data(foreign).unwrap_err(), GgufErrorClass::Invalid, "is missing");
}

#[test]
fn version_two_and_other_alignments_read_alike() {
    for alignment in [8, 64, 4096] {
        let file = small().version(2).alignment(alignment).finish();
        let gguf = parse(file).unwrap();
        let shard = &gguf.header().shards()[0];
        assert_eq!((shard.version, shard.alignment), (2, u64::from(alignment)));
        assert_eq!(shard.data_start % u64::from(alignment), 0);
        let half = gguf.data(gguf.tensor("half").unwrap()).unwrap();
        assert_eq!(half[..2], half::f16::from_f32(-31.5).to_le_bytes());
    }
}

#[test]
fn a_vocabulary_without_tensors_needs_no_padding_at_its_end() {
    let gguf = parse(GgufWriter::new("llama").string("a", "b").finish()).unwrap();
    assert_eq!(gguf.tensors().len(), 0);
}

#[test]
fn bytes_in_memory_are_aligned_as_in_a_file() {
    let gguf = parse(small().finish()).unwrap();
    for tensor in gguf.tensors() {
        assert_eq!(gguf.data(tensor).unwrap().as_ptr() as usize % 32, 0, "{}", tensor.name);
    }
}

#[test]
fn keys_keep_the_order_of_the_file() {
    let gguf = parse(GgufWriter::new("x").u32("b", 1).u32("a", 2).finish()).unwrap();
    let keys: Vec<_> = gguf.metadata().keys().collect();
    assert_eq!(keys, ["general.architecture", "b", "a"]);
    let kind = gguf.metadata().kind("b").unwrap();
    assert_eq!(kind, ValueKind::One(ValueType::U32));
}

#[test]
fn tiny_models_have_whole_vocabularies_and_every_tensor() {
    for (architecture, n_tensors) in [("llama", 21), ("qwen2", 26), ("qwen3", 24)] {
        for stored in Stored::ALL {
            let gguf = parse(tiny_model(architecture, 1, stored)).unwrap();
            assert_eq!(gguf.tensors().len(), n_tensors, "{architecture}");
            let embedding = gguf.tensor("token_embd.weight").unwrap();
            let tokens = gguf.metadata().strings("tokenizer.ggml.tokens").unwrap().unwrap();
            assert_eq!(tokens.len() as u64, embedding.dims[1]);
            assert_eq!(embedding.ggml_type, stored.id());
            let distinct: std::collections::HashSet<_> = tokens.iter().collect();
            assert_eq!(distinct.len(), tokens.len());
        }
    }
}

#[test]
fn every_merge_of_a_tiny_model_joins_two_tokens_into_a_third() {
    let gguf = parse(TinyModel::default().writer().finish()).unwrap();
    let array = |key| gguf.metadata().strings(key).unwrap().unwrap();
    let tokens = array("tokenizer.ggml.tokens");
    let known: std::collections::HashSet<_> = tokens.iter().collect();
    for merge in array("tokenizer.ggml.merges").iter() {
        let space = merge.iter().position(|&b| b == b' ').unwrap();
        let (left, right) = (&merge[..space], &merge[space + 1..]);
        for part in [left, right, &[left, right].concat()] {
            assert!(known.contains(part), "{}", String::from_utf8_lossy(merge));
        }
    }
}

#[test]
fn block_sizes_agree_with_bits_per_weight() {
    // Bits per weight as ggml states them.
    for (id, bits) in [
        (0, 32.0),
        (2, 4.5),
        (3, 5.0),
        (6, 5.5),
        (7, 6.0),
        (8, 8.5),
        (10, 2.625),
        (11, 3.4375),
        (12, 4.5),
        (13, 5.5),
        (14, 6.5625),
        (16, 2.0625),
        (17, 2.3125),
        (18, 3.0625),
        (19, 1.5625),
        (20, 4.5),
        (21, 3.4375),
        (22, 2.5625),
        (23, 4.25),
        (29, 1.75),
        (30, 16.0),
        (34, 1.6875),
        (35, 2.0625),
        (39, 4.25),
        (40, 4.5),
    ] {
        let ty = GgmlType::from_id(id).unwrap();
        let found = ty.block_bytes as f64 * 8.0 / ty.block_len as f64;
        assert_eq!(found, bits, "{}", ty.name);
    }
}

#[test]
fn a_header_longer_than_the_first_read_is_read_in_steps() {
    let tokens: Vec<String> = (0..200_000).map(|i| format!("token {i}")).collect();
    let file = GgufWriter::new("llama").strings("tokens", &tokens).tensor("t", &[2], Stored::F32, &[1.0, 2.0]).finish();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.gguf");
    std::fs::write(&path, &file).unwrap();

    let header = Gguf::read_header(&path, limits::HEADER_BYTES).unwrap();
    let read = header.metadata().strings("tokens").unwrap().unwrap();
    assert!(read.iter().eq(tokens.iter().map(|t| t.as_bytes())));
    assert_eq!(header.tensors().len(), 1);

    let error = Gguf::read_header(&path, 1 << 20).unwrap_err();
    says(&error, GgufErrorClass::Corrupt, "expected at most 1048576");
}
