//! `verify` tells what is in a file, and what is wrong with it.

use downshift_engine::testing::{GgufWriter, Stored, poison, value_at};

use crate::support::{Folder, model};

#[test]
fn a_sound_file_is_described_and_passes() {
    let ran = Folder::new().with_model("m.gguf", 1).run(&["verify", "m.gguf"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for part in ["GGUF v3", "Q8_0", "283 tokens", "renders", "llama, 2 layers, context 512", "nothing wrong"] {
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
    let hash = ran.stdout.lines().find_map(|line| line.strip_prefix("sha256")).expect("a hash").trim().to_owned();
    assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
}

#[test]
fn what_is_wrong_is_named_and_fails() {
    let check = |file: Vec<u8>, expected: &str| {
        let ran = Folder::new().with("m.gguf", file).run(&["verify", "m.gguf"]);
        assert_eq!(ran.code, Some(1), "{expected}: {ran:?}");
        assert!(ran.stdout.contains(expected) || ran.stderr.contains(expected), "{expected}: {ran:?}");
    };
    let mut file = model(1);
    poison(&mut file, "blk.0.attn_q.weight", 3);
    check(file, "`blk.0.attn_q.weight`: `d` is NaN in block 3");
    let mut file = model(1);
    let text = value_at(&file, "tokenizer.chat_template") + 8;
    file[text..text + 6].copy_from_slice(b"{% fro");
    check(file, "chat template, line 1");
    let mut file = model(1);
    file.truncate(file.len() - 100);
    check(file, "is truncated");
    check(b"not a model".to_vec(), "is not a GGUF file");
    let mut file = model(1);
    let text = value_at(&file, "general.architecture") + 8;
    file[text..text + 5].copy_from_slice(b"alpha");
    check(file, "architecture `alpha` is not supported");
    let mut file = model(1);
    let number = value_at(&file, "llama.rope.freq_base");
    file[number..number + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    check(file, "key `llama.rope.freq_base`: number 0 is not finite");
}

#[test]
fn parts_of_two_quantizations_are_pointed_out() {
    let folder = [(0_u16, Stored::Q8_0), (1, Stored::F16)].into_iter().fold(Folder::new(), |folder, (number, stored)| {
        let part = GgufWriter::new("llama")
            .raw("split.no", 2, &number.to_le_bytes())
            .raw("split.count", 2, &2_u16.to_le_bytes())
            .raw("split.tensors.count", 5, &2_i32.to_le_bytes())
            .tensor(&format!("blk.{number}.attn_q.weight"), &[32, 2], stored, &[0.5; 64]);
        folder.with(&format!("m-{:05}-of-00002.gguf", number + 1), part.finish())
    });
    let ran = folder.run(&["verify", "m-00001-of-00002.gguf"]);
    assert!(ran.stdout.contains("part 1 has Q8_0 and part 2 F16: are they of one quantization?"), "{ran:?}");
}
