//! Folders that are broken in every way we could think of.

use std::fs;
use std::path::Path;

use downshift_engine::testing::{Rng, TinyEmbedder};
use downshift_worker::FailureKind;
use serde_json::json;

use crate::{folder, inspect, launch, text};

/// A folder that `spoil` has spoiled is refused before loading, for this reason, in words that name `part`.
fn refuse(spoil: impl Fn(&Path), kind: FailureKind, part: &str) {
    let folder = folder(&TinyEmbedder::new(9));
    spoil(folder.path());
    let failure = inspect(&folder).expect_err(part);
    assert_eq!(failure.kind, kind, "{failure}");
    assert!(failure.message.contains(part), "{failure} lacks {part}");
    assert_eq!(launch(&folder).err(), Some(failure));
}

/// As [`refuse`], for a model that was changed before it was written.
fn refuse_model(change: impl Fn(&mut TinyEmbedder), kind: FailureKind, part: &str) {
    refuse(
        |folder| {
            let mut model = TinyEmbedder::new(9);
            change(&mut model);
            model.write(folder);
        },
        kind,
        part,
    );
}

#[test]
fn a_missing_file_is_named() {
    for file in ["config.json", "modules.json", "1_Pooling/config.json", "tokenizer.json", "model.safetensors"] {
        refuse(|folder| fs::remove_file(folder.join(file)).unwrap(), FailureKind::Missing, file);
    }
    let without_limits = folder(&TinyEmbedder::new(9));
    fs::remove_file(without_limits.path().join("sentence_bert_config.json")).unwrap();
    assert_eq!(inspect(&without_limits).unwrap().context_train, 20);
}

#[test]
fn broken_json_and_values_that_cannot_be_are_named() {
    for file in ["config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json"] {
        for content in ["", "{", "\u{0}", "[[[["] {
            refuse(|folder| fs::write(folder.join(file), content).unwrap(), FailureKind::Corrupt, file);
        }
        refuse(|folder| fs::write(folder.join(file), "[".repeat(100_000)).unwrap(), FailureKind::Corrupt, file);
    }
    let corrupt = [
        ("hidden_size", json!(0)),
        ("hidden_size", json!("16")),
        ("num_hidden_layers", json!(1e9)),
        ("num_hidden_layers", json!(1_000_000_000)),
        ("num_attention_heads", json!(3)),
        ("vocab_size", json!(-1)),
        ("max_position_embeddings", json!(null)),
        ("layer_norm_eps", json!(0)),
        ("pad_token_id", json!(57)),
    ];
    for (key, value) in corrupt {
        refuse_model(|model| model.config[key] = value.clone(), FailureKind::Corrupt, key);
    }
    let unsupported = [("model_type", "llama"), ("hidden_act", "silu"), ("position_embedding_type", "relative_key")];
    for (key, value) in unsupported {
        refuse_model(|model| model.config[key] = json!(value), FailureKind::UnsupportedArchitecture, value);
    }
    refuse_model(|model| model.pooling["pooling_mode"] = json!("median"), FailureKind::UnsupportedArchitecture, "median");
    refuse_model(|model| model.pooling["word_embedding_dimension"] = json!(17), FailureKind::Corrupt, "word_embedding_dimension");
    refuse_model(|model| model.modules[2]["type"] = json!("a.Dense"), FailureKind::UnsupportedArchitecture, "Dense");
    refuse_model(|model| model.modules[1]["path"] = json!("../elsewhere"), FailureKind::Corrupt, "../elsewhere");
    refuse_model(|model| model.modules[1]["path"] = json!("/etc"), FailureKind::Corrupt, "/etc");
    refuse_model(|model| model.modules = json!({}), FailureKind::Corrupt, "no list");
}

#[test]
fn a_tensor_that_is_missing_of_another_shape_or_type_is_named() {
    let name = "encoder.layer.1.output.dense.weight";
    let kind = FailureKind::Corrupt;
    refuse_model(|model| drop(model.tensors.remove(name)), kind, name);
    refuse_model(|model| model.tensors.get_mut(name).unwrap().shape.reverse(), kind, name);
    refuse_model(|model| model.config["num_hidden_layers"] = json!(3), kind, "encoder.layer.2");
    refuse_model(|model| model.config["vocab_size"] = json!(58), kind, "word_embeddings");
    refuse(
        |folder| {
            let file = folder.join("model.safetensors");
            let bytes = fs::read(&file).unwrap();
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let text = String::from_utf8(bytes[8..8 + header].to_vec()).unwrap().replace("F32", "I32");
            fs::write(file, [&bytes[..8], text.as_bytes(), &bytes[8 + header..]].concat()).unwrap();
        },
        FailureKind::UnsupportedType,
        "I32",
    );
}

#[test]
fn weights_cut_anywhere_are_truncated_and_nothing_else_is_taken_for_them() {
    let whole = TinyEmbedder::new(9).weights();
    let folder = folder(&TinyEmbedder::new(9));
    let file = folder.path().join("model.safetensors");
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for length in (0..32).chain([header - 1, header, header + 1, whole.len() / 2, whole.len() - 1]) {
        fs::write(&file, &whole[..length]).unwrap();
        let failure = inspect(&folder).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Truncated, "{length}: {failure}");
    }
    fs::write(&file, [&whole[..], &[0]].concat()).unwrap();
    assert_eq!(inspect(&folder).unwrap_err().kind, FailureKind::Corrupt);
    for length in [u64::MAX, 1 << 63, 1 << 40, 100 << 20] {
        fs::write(&file, [&length.to_le_bytes(), &whole[8..]].concat()).unwrap();
        assert_eq!(inspect(&folder).unwrap_err().kind, FailureKind::Corrupt, "{length}");
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(inspect(&folder).unwrap_err().kind, FailureKind::Unreadable);
}

#[test]
fn random_changes_of_the_weights_header_never_panic() {
    let whole = TinyEmbedder::new(9).weights();
    let folder = folder(&TinyEmbedder::new(9));
    let file = folder.path().join("model.safetensors");
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut rng = Rng::new(1);
    let mut refused = 0;
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..1 + rng.below(3) {
            bytes[rng.below(header)] = rng.below(256) as u8;
        }
        fs::write(&file, bytes).unwrap();
        refused += usize::from(inspect(&folder).is_err_and(|failure| {
            assert_ne!(failure.kind, FailureKind::Panicked, "{failure}");
            true
        }));
    }
    assert!(refused > 250, "{refused}");
}

#[test]
fn weights_in_parts_are_found_by_their_index_and_only_beside_it() {
    let model = TinyEmbedder::new(9);
    let whole = launch(&folder(&model)).unwrap().embed(&[text("hi")]).unwrap();
    let split = folder(&model);
    let at = |name: &str| split.path().join(name);
    let (mut one, mut two) = (model.clone(), model.clone());
    one.tensors.retain(|name, _| name.starts_with("emb"));
    two.tensors.retain(|name, _| !name.starts_with("emb"));
    fs::remove_file(at("model.safetensors")).unwrap();
    fs::write(at("one.safetensors"), one.weights()).unwrap();
    fs::write(at("two.safetensors"), two.weights()).unwrap();
    let index = |other: &str| {
        fs::write(at("model.safetensors.index.json"), json!({"weight_map": {"a": "one.safetensors", "b": other}}).to_string()).unwrap()
    };
    index("two.safetensors");
    assert_eq!(launch(&split).unwrap().embed(&[text("hi")]).unwrap(), whole);
    index("../two.safetensors");
    assert_eq!(inspect(&split).unwrap_err().kind, FailureKind::Corrupt);
    index("three.safetensors");
    assert_eq!(inspect(&split).unwrap_err().kind, FailureKind::Missing);
    fs::write(at("three.safetensors"), two.weights()).unwrap();
    fs::write(at("two.safetensors"), model.weights()).unwrap();
    index("two.safetensors");
    assert_eq!(inspect(&split).unwrap_err().kind, FailureKind::Corrupt, "tensors that are in two files");
}

#[test]
fn a_weight_that_is_not_finite_is_found_while_loading() {
    let mut model = TinyEmbedder::new(9);
    model.tensors.get_mut("encoder.layer.0.output.dense.bias").unwrap().values[3] = f32::NAN;
    let folder = folder(&model);
    assert!(inspect(&folder).is_ok(), "the header is whole");
    let failure = launch(&folder).err().unwrap();
    assert_eq!(failure.kind, FailureKind::Corrupt);
    assert!(failure.message.contains("encoder.layer.0.output.dense.bias"), "{failure}");
}

#[test]
fn numbers_that_overflow_on_their_way_are_a_failure_and_no_vector() {
    let mut model = TinyEmbedder::new(9);
    model.tensors.get_mut("encoder.layer.1.output.LayerNorm.weight").unwrap().values.fill(f32::MAX);
    let failure = launch(&folder(&model)).unwrap().embed(&[text("hi")]).unwrap_err();
    assert_eq!(failure.kind, FailureKind::NonFinite);
}

#[test]
fn a_tokenizer_that_is_broken_or_of_another_model_is_named() {
    let broken = FailureKind::BrokenTokenizer;
    for content in ["", "{}", "{\"model\": 3}", "\u{0}"] {
        refuse(|folder| fs::write(folder.join("tokenizer.json"), content).unwrap(), broken, "tokenizer.json");
    }
    refuse_model(|model| model.tokenizer["model"]["vocab"]["more"] = json!(57), broken, "id 57");
    refuse_model(|model| model.limits = json!({"max_seq_length": 2}), broken, "adds 2 tokens");
}
