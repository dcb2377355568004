//! What vectors are.

use downshift_engine::InProcess;
use downshift_engine::testing::{HIDDEN_SIZE, MAX_SEQ_LENGTH, TinyEmbedder};
use downshift_worker::{FailureKind, Input, Launcher, Message, ModelKind, ModelSpec, Prompt, Request, RequestId};
use serde_json::json;

use crate::reference::{mean_normalized, tokens};
use crate::{PLACEMENT, difference, folder, inspect, text, worker};

/// `[CLS]` and `[SEP]`.
const FRAME: (u32, u32) = (2, 3);
/// Between f32 and the reference's f64.
const TOLERANCE: f32 = 2e-6;

fn framed(ids: &[u32]) -> Vec<u32> {
    [&[FRAME.0], ids, &[FRAME.1]].concat()
}

#[test]
fn vectors_are_those_of_the_paper_alone_and_in_a_batch_with_longer_texts() {
    let model = TinyEmbedder::new(7);
    let worker = worker(&model);
    let texts = ["", "a", "hello world", "Zebra", "q z q z q z q z", "?", "a b c"];
    let inputs = texts.map(text);
    let together = worker.embed(&inputs).unwrap();
    let mut n_tokens = 0;
    for (input, vector) in inputs.iter().zip(&together.vectors) {
        let Prompt::Text(text) = input else { unreachable!() };
        let ids = framed(&worker.tokenize(text, false).unwrap());
        n_tokens += ids.len() as u32;
        let expected = mean_normalized(&tokens(&model, &ids, 0));
        let alone = worker.embed(std::slice::from_ref(input)).unwrap();
        assert!(difference(vector, &expected) < TOLERANCE, "{text:?}: {vector:?} is not {expected:?}");
        assert!(difference(&alone.vectors[0], &expected) < TOLERANCE, "{text:?} alone");
    }
    assert_eq!(together.prompt_tokens, n_tokens);
}

#[test]
fn the_header_tells_kind_dimension_limit_and_memory() {
    let info = inspect(&folder(&TinyEmbedder::new(1))).unwrap();
    assert_eq!((info.kind, info.architecture.as_str(), info.dtype.as_str()), (ModelKind::Embedding, "bert", "f32"));
    assert_eq!((info.dimension, info.context_train, info.vocab_size), (Some(16), 12, 57));
    assert!(info.footprint.fixed_bytes > 4 * info.parameters && info.footprint.scratch_bytes > 0);
}

#[test]
fn a_text_beyond_the_limit_is_its_first_tokens_and_the_end_token() {
    let model = TinyEmbedder::new(2);
    let worker = worker(&model);
    let long = worker.embed(&[text(&"ab ".repeat(500))]).unwrap();
    assert_eq!(long.prompt_tokens as usize, MAX_SEQ_LENGTH);
    let ids = worker.tokenize(&"ab ".repeat(5), false).unwrap();
    assert_eq!(ids.len(), MAX_SEQ_LENGTH - 2);
    assert!(difference(&long.vectors[0], &mean_normalized(&tokens(&model, &framed(&ids), 0))) < TOLERANCE);
    let spec = ModelSpec { context: Some(4), ..ModelSpec::from_path(folder(&model).keep()) };
    let shorter = InProcess.launch(&spec, &PLACEMENT, &|_, _| {}).unwrap();
    assert_eq!(shorter.embed(&[text("a b c d e f")]).unwrap().prompt_tokens, 4, "`context` of models.toml is such a limit too");
}

#[test]
fn without_a_limit_a_text_longer_than_the_position_table_is_an_error() {
    let mut model = TinyEmbedder::new(2);
    model.limits = json!({});
    let worker = worker(&model);
    assert_eq!(worker.embed(&[text(&"a ".repeat(18))]).unwrap().prompt_tokens, 20);
    let failure = worker.embed(&[text(&"a ".repeat(19))]).unwrap_err();
    assert_eq!(failure.kind, FailureKind::PromptTooLong { needed: 21, limit: 20 });
}

#[test]
fn token_ids_give_the_vector_of_their_text_framed_or_not() {
    let worker = worker(&TinyEmbedder::new(3));
    let ids = worker.tokenize("some text", true).unwrap();
    let [of_text, of_ids, of_framed] =
        [text("some text"), Prompt::Tokens(ids.clone()), Prompt::Tokens(framed(&ids))].map(|input| worker.embed(&[input]).unwrap());
    assert_eq!((&of_ids, &of_framed), (&of_text, &of_text));
    let fails = |ids: &[u32]| worker.embed(&[Prompt::Tokens(ids.to_vec())]).unwrap_err().kind;
    assert_eq!(fails(&[]), FailureKind::InvalidRequest);
    assert_eq!(fails(&[57]), FailureKind::InvalidRequest);
    assert_eq!(fails(&[5; 11]), FailureKind::PromptTooLong { needed: 13, limit: 12 });
}

#[test]
fn special_tokens_in_a_text_are_told_apart_and_ids_become_text_again() {
    let worker = worker(&TinyEmbedder::new(3));
    assert_eq!(worker.tokenize("[SEP]", true).unwrap(), [3]);
    assert!(!worker.tokenize("[SEP]", false).unwrap().contains(&3));
    let ids = worker.tokenize("hello you", false).unwrap();
    assert_eq!(worker.detokenize(&ids).unwrap(), "hello you");
    assert_eq!(worker.detokenize(&[57]).unwrap_err().kind, FailureKind::InvalidRequest);
}

#[test]
fn positions_of_roberta_begin_behind_its_padding() {
    let mut model = TinyEmbedder::new(4);
    model.config["model_type"] = json!("xlm-roberta");
    model.config["pad_token_id"] = json!(1);
    let renamed = std::mem::take(&mut model.tensors).into_iter().map(|(name, tensor)| (format!("roberta.{name}"), tensor)).collect();
    let plain = TinyEmbedder::new(4);
    model.tensors = renamed;
    let worker = worker(&model);
    let ids = framed(&worker.tokenize("abc", false).unwrap());
    let expected = mean_normalized(&tokens(&plain, &ids, 2));
    assert!(difference(&worker.embed(&[text("abc")]).unwrap().vectors[0], &expected) < TOLERANCE);
}

#[test]
fn pooling_and_normalization_are_what_the_folder_says() {
    let mut model = TinyEmbedder::new(5);
    model.modules.as_array_mut().unwrap().truncate(2);
    model.pooling = json!({"embedding_dimension": HIDDEN_SIZE, "pooling_mode": ["cls", "lasttoken"]});
    let folder = folder(&model);
    assert_eq!(inspect(&folder).unwrap().dimension, Some(32));
    let worker = crate::launch(&folder).unwrap();
    let ids = framed(&worker.tokenize("word", false).unwrap());
    let rows = tokens(&model, &ids, 0);
    let expected: Vec<f32> = rows[0].iter().chain(rows.last().unwrap()).map(|&x| x as f32).collect();
    assert!(difference(&worker.embed(&[text("word"), text("a longer one")]).unwrap().vectors[0], &expected) < 1e-5);
}

#[test]
fn half_precision_weights_are_read_as_what_they_are() {
    for (dtype, tolerance) in [("F16", 0.01), ("BF16", 0.08)] {
        let full = worker(&TinyEmbedder::new(6)).embed(&[text("hello")]).unwrap().vectors;
        let model = TinyEmbedder { dtype, ..TinyEmbedder::new(6) };
        assert_eq!(inspect(&folder(&model)).unwrap().dtype, dtype.to_lowercase());
        let half = worker(&model).embed(&[text("hello")]).unwrap().vectors;
        let found = difference(&full[0], &half[0]);
        assert!(found > 0.0 && found < tolerance, "{dtype}: {found}");
    }
}

#[test]
fn an_embedder_makes_no_text() {
    let worker = worker(&TinyEmbedder::new(1));
    let chat = Input::chat(vec![Message::user("hi")]);
    let failure = worker.generate(&Request::new(RequestId(1), chat.clone()), &mut |_| std::ops::ControlFlow::Continue(())).unwrap_err();
    assert_eq!(failure.kind, FailureKind::CannotDo);
    assert_eq!(worker.apply_template(&chat).unwrap_err().kind, FailureKind::CannotDo);
}

#[test]
fn threads_can_change_while_texts_are_embedded() {
    let worker = worker(&TinyEmbedder::new(1));
    let inputs: Vec<_> = (0..200).map(|n| text(&"x ".repeat(n % 9))).collect();
    let first = worker.embed(&inputs).unwrap();
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..3).map(|_| scope.spawn(|| worker.embed(&inputs).unwrap())).collect();
        worker.set_threads(1);
        for other in others {
            assert_eq!(other.join().unwrap(), first);
        }
    });
    assert!(worker.stats().steps > 0);
    worker.kill();
    assert_eq!(worker.embed(&inputs).unwrap_err().kind, FailureKind::Cancelled);
}
