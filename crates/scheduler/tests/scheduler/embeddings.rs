//! Promises about vectors: they come from one space, are whole and finite, or there is an error.

use downshift_scheduler::{Answer, Options, Refused, RefusedClass, Scheduler};
use downshift_worker::{Embedded, FailureKind as K, ModelKind, Prompt};

use crate::support::*;

/// Embedders `a` and `b` of one space, `c` of another, and `d`, which makes text.
fn scheduler(fake: &std::sync::Arc<Fake>) -> Scheduler {
    fake.kinds.lock().unwrap().extend(["a", "b", "c"].map(|model| (model.to_owned(), ModelKind::Embedding)));
    fake.scheduler(
        "[models.a]\npath = \"a\"\nembedding_space = \"e\"\n[models.b]\npath = \"b\"\nembedding_space = \"e\"\n\
         [models.c]\npath = \"c\"\n[models.d]\npath = \"d\"\n",
    )
}

fn embed(scheduler: &Scheduler, models: &[&str]) -> Result<Answer<Embedded>, Refused> {
    embed_inputs(scheduler, ["one", "three"].map(|text| Prompt::Text(text.to_owned())).to_vec(), models)
}

fn embed_inputs(scheduler: &Scheduler, inputs: Vec<Prompt>, models: &[&str]) -> Result<Answer<Embedded>, Refused> {
    let models = models.iter().map(|name| (*name).to_owned()).collect();
    scheduler.embed(scheduler.next_request_id(), inputs, models, Options::default())
}

#[test]
fn vectors_come_in_the_order_of_the_texts() {
    let fake = Fake::new();
    let answer = embed(&scheduler(&fake), &[]).unwrap();
    let vectors = vec![vec![3.0, 1.0], vec![5.0, 1.0]];
    assert_eq!((answer.model.as_str(), answer.output), ("a", Embedded { vectors, prompt_tokens: 8 }));
}

#[test]
fn token_ids_stay_with_the_model_whose_vocabulary_they_are_of() {
    let fake = Fake::new();
    let scheduler = scheduler(&fake);
    let inputs = vec![Prompt::Tokens(vec![1, 2])];
    assert_eq!(embed_inputs(&scheduler, inputs.clone(), &["a"]).unwrap().output.vectors, [[2.0, 1.0]]);
    fake.act("a", [after(0, Then::Fail(K::NonFinite))]);
    let refused = embed_inputs(&scheduler, inputs, &["a", "b"]).unwrap_err();
    assert_eq!(refused.attempts[1].kind, K::CannotDo);
}

#[test]
fn only_a_model_of_the_same_space_takes_over() {
    let fake = Fake::new();
    let scheduler = scheduler(&fake);
    fake.act("a", [after(0, Then::Fail(K::NonFinite))]);
    let answer = embed(&scheduler, &[]).unwrap();
    assert_eq!(answer.model, "b");
    assert_eq!(answer.fallback.unwrap().attempts[0].kind, K::NonFinite);
    fake.act("a", [after(0, Then::Fail(K::NonFinite))]);
    fake.act("b", [after(0, Then::Fail(K::NonFinite))]);
    let refused = embed(&scheduler, &[]).unwrap_err();
    assert_eq!(refused.attempts.len(), 2, "the models that follow are passed over: {:?}", refused.attempts);
    fake.act("a", [after(0, Then::Fail(K::Protocol))]);
    let listed = embed(&scheduler, &["a", "c", "d"]).unwrap_err();
    let kinds: Vec<_> = listed.attempts.iter().map(|attempt| (attempt.model.as_str(), attempt.kind)).collect();
    assert_eq!(kinds, [("a", K::Protocol), ("c", K::CannotDo), ("d", K::CannotDo)]);
}

#[test]
fn a_vector_that_is_not_finite_is_a_failure() {
    let fake = Fake::new();
    let scheduler = scheduler(&fake);
    fake.act("a", [after(0, Then::Gate)]);
    assert_eq!(embed(&scheduler, &[]).unwrap().model, "b");
}

#[test]
fn a_model_of_text_refuses_to_embed_and_an_embedder_to_talk() {
    let fake = Fake::new();
    let scheduler = scheduler(&fake);
    assert_eq!(embed(&scheduler, &["d"]).unwrap_err().class(), RefusedClass::Invalid);
    let talk = ask(&scheduler, &["a"], Options { disable_fallbacks: true, ..streamed() });
    assert_eq!(talk.result.unwrap_err().class(), RefusedClass::Invalid);
}
