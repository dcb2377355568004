//! The module's promises. Expected values follow from llama.cpp's definitions, worked out by hand.

use super::{Constraint, ConstraintError, InvalidParameter, NonFinite, Sampler, SamplingParams, StopMatcher, logprobs, uniform};

const OFF: SamplingParams = SamplingParams {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repeat_penalty: 1.0,
    frequency_penalty: 0.0,
    presence_penalty: 0.0,
    penalty_last_n: 64,
    logit_bias: Vec::new(),
    seed: Some(7),
};

fn greedy() -> SamplingParams {
    SamplingParams { temperature: 0.0, ..OFF }
}

/// How often each token is drawn in `n` draws.
fn counts(params: SamplingParams, logits: &[f32], n: u64) -> Vec<u64> {
    let mut sampler = Sampler::new(params, logits.len()).unwrap();
    let mut counts = vec![0; logits.len()];
    for number in 0..n {
        counts[sampler.sample(logits, number).unwrap() as usize] += 1;
    }
    counts
}

/// Whether frequencies are those of `expected` probabilities, within five standard deviations.
fn assert_distribution(params: SamplingParams, logits: &[f32], expected: &[f64]) {
    let n = 20_000;
    for (token_id, (&count, &p)) in counts(params.clone(), logits, n).iter().zip(expected).enumerate() {
        let deviation = (n as f64 * p * (1.0 - p)).sqrt();
        let off = (count as f64 - n as f64 * p).abs();
        assert!(off <= 5.0 * deviation, "token {token_id}: {count} of {n} for p = {p}, {params:?}");
    }
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let total: f64 = logits.iter().map(|l| l.exp()).sum();
    logits.iter().map(|l| l.exp() / total).collect()
}

#[test]
fn draws_follow_the_softmax_at_the_temperature() {
    let logits = [0.0, 1.0, 2.0, -1.0, f32::NEG_INFINITY];
    assert_distribution(OFF, &logits, &softmax(&[0.0, 1.0, 2.0, -1.0, f64::NEG_INFINITY]));
    let hot = SamplingParams { temperature: 2.0, ..OFF };
    assert_distribution(hot, &logits, &softmax(&[0.0, 0.5, 1.0, -0.5, f64::NEG_INFINITY]));
    let cold = SamplingParams { temperature: 0.25, ..OFF };
    assert_distribution(cold, &logits, &softmax(&[0.0, 4.0, 8.0, -4.0, f64::NEG_INFINITY]));
}

#[test]
fn each_truncation_keeps_exactly_its_tokens() {
    // Probabilities 0.1, 0.4, 0.2, 0.3.
    let logits = [0.1f32.ln(), 0.4f32.ln(), 0.2f32.ln(), 0.3f32.ln()];
    let rows: [(SamplingParams, [f64; 4]); 9] = [
        (SamplingParams { top_k: 2, ..OFF }, [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
        (SamplingParams { top_k: 9, ..OFF }, [0.1, 0.4, 0.2, 0.3]),
        (SamplingParams { top_p: 0.69, ..OFF }, [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
        (SamplingParams { top_p: 0.71, ..OFF }, [0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]),
        (SamplingParams { top_p: 0.0, ..OFF }, [0.0, 1.0, 0.0, 0.0]),
        (SamplingParams { min_p: 0.6, ..OFF }, [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]),
        (SamplingParams { min_p: 0.4, ..OFF }, [0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]),
        // Top-p counts in what top-k left: 4/7 of two tokens suffices for 0.55, 0.4 of all would not.
        (SamplingParams { top_k: 2, top_p: 0.55, ..OFF }, [0.0, 1.0, 0.0, 0.0]),
        // Top-p comes before the temperature: at 0.5 tokens 1 and 3 would weigh 16/30 and 9/30.
        (SamplingParams { top_p: 0.65, temperature: 0.5, ..OFF }, [0.0, 16.0 / 25.0, 0.0, 9.0 / 25.0]),
    ];
    for (params, expected) in rows {
        assert_distribution(params, &logits, &expected);
    }
}

#[test]
fn truncation_of_a_large_vocabulary_keeps_the_same_tokens_as_sorting_it() {
    let n_vocab = 10_000;
    let logits: Vec<f32> = (0..n_vocab).map(|i| (uniform(3, i) * 12.0).round() as f32 / 2.0).collect();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    let kept = |params: SamplingParams, draws: u64| -> Vec<usize> {
        let drawn = counts(SamplingParams { temperature: 1e6, ..params }, &logits, draws);
        (0..logits.len()).filter(|i| drawn[*i] > 0).collect()
    };
    let mut top: Vec<usize> = order[..40].to_vec();
    top.sort_unstable();
    assert_eq!(kept(SamplingParams { top_k: 40, ..OFF }, 2000), top);
    let weight = |i: &usize| f64::from((logits[*i] - 6.0).exp());
    let total: f64 = order.iter().map(weight).sum();
    let mut sum = 0.0;
    let needed = 1 + order
        .iter()
        .take_while(|i| {
            sum += weight(i);
            sum < 0.08 * total
        })
        .count();
    assert!(needed > 128, "the case must need more than two rounds of sorting, not {needed}");
    let mut top: Vec<usize> = order[..needed].to_vec();
    top.sort_unstable();
    assert_eq!(kept(SamplingParams { top_p: 0.08, ..OFF }, 3000), top);
}

#[test]
fn temperature_zero_and_top_k_one_take_the_lowest_of_the_likeliest() {
    let logits = [1.0, 3.0, -2.0, 3.0, 3.0];
    for params in [greedy(), SamplingParams { top_k: 1, ..OFF }] {
        let mut sampler = Sampler::new(params, logits.len()).unwrap();
        assert_eq!((0..50).map(|n| sampler.sample(&logits, n).unwrap()).max(), Some(1));
    }
    let long: Vec<f32> = (0..1003).map(|i| if i == 1002 { 5.0 } else { i as f32 / 1000.0 }).collect();
    assert_eq!(Sampler::new(greedy(), 1003).unwrap().sample(&long, 0), Ok(1002));
}

#[test]
fn anything_but_finite_logits_is_refused_and_named() {
    for n_vocab in [1usize, 15, 16, 17, 64, 1000] {
        for at in [0, n_vocab / 2, n_vocab - 1] {
            for bad in [f32::NAN, f32::INFINITY] {
                for params in [greedy(), OFF, SamplingParams { presence_penalty: 1.0, ..OFF }] {
                    let mut logits = vec![0.5; n_vocab];
                    logits[at] = bad;
                    let result = Sampler::new(params, n_vocab).unwrap().sample(&logits, 0);
                    assert_eq!(result, Err(NonFinite { token_id: at as u32 }.into()), "{n_vocab} {at} {bad}");
                }
            }
        }
        let none = vec![f32::NEG_INFINITY; n_vocab];
        assert_eq!(Sampler::new(OFF, n_vocab).unwrap().sample(&none, 0), Err(NonFinite { token_id: 0 }.into()));
    }
}

#[test]
fn penalties_change_logits_as_llama_cpp_does() {
    // Token 0 is penalized from 2.0 to 2.0 / 2 = 1.0, below token 1; token 2 from -1.0 to -2.0.
    let choose = |params: SamplingParams, recent: &[u32], logits: &[f32]| {
        let mut sampler = Sampler::new(params, logits.len()).unwrap();
        recent.iter().for_each(|t| sampler.accept(*t));
        sampler.sample(logits, 0).unwrap()
    };
    let repeat = SamplingParams { repeat_penalty: 2.0, ..greedy() };
    assert_eq!(choose(repeat.clone(), &[], &[2.0, 1.1, -1.0]), 0);
    assert_eq!(choose(repeat.clone(), &[0, 0], &[2.0, 1.1, -1.0]), 1, "once, however often it occurred");
    assert_eq!(choose(repeat.clone(), &[0, 0], &[2.0, 0.9, -1.0]), 0);
    assert_eq!(choose(repeat.clone(), &[0], &[-1.0, -1.9]), 1, "negative logits are multiplied");
    let frequency = SamplingParams { frequency_penalty: 0.5, ..greedy() };
    assert_eq!(choose(frequency.clone(), &[0, 0], &[2.0, 1.1]), 1, "2.0 - 2 * 0.5 = 1.0");
    assert_eq!(choose(frequency, &[0], &[2.0, 1.1]), 0);
    let presence = SamplingParams { presence_penalty: 0.5, ..greedy() };
    assert_eq!(choose(presence.clone(), &[0, 0], &[2.0, 1.1]), 0, "2.0 - 0.5 = 1.5");
    assert_eq!(choose(presence, &[0], &[2.0, 1.6]), 1);
    let window = SamplingParams { penalty_last_n: 2, ..repeat.clone() };
    assert_eq!(choose(window.clone(), &[0, 1, 2], &[2.0, 1.1, 1.0]), 0, "token 0 left the window");
    assert_eq!(choose(window, &[1, 0, 2], &[2.0, 1.1, 1.0]), 1);
    assert_eq!(choose(SamplingParams { penalty_last_n: 0, ..repeat }, &[0], &[2.0, 1.1]), 0);
}

#[test]
fn bias_comes_before_everything_else_and_bans() {
    let biased = |bias: &[(u32, f32)]| SamplingParams { logit_bias: bias.to_vec(), ..greedy() };
    let mut sampler = Sampler::new(biased(&[(2, 3.0), (0, f32::NEG_INFINITY)]), 3).unwrap();
    assert_eq!(sampler.sample(&[9.0, 2.0, 0.0], 0), Ok(2));
    let halved = SamplingParams { repeat_penalty: 2.0, ..biased(&[(0, 1.0)]) };
    let mut sampler = Sampler::new(halved, 2).unwrap();
    sampler.accept(0);
    // (1 + 1) / 2 = 1.0; penalized first it would be 1.5.
    assert_eq!(sampler.sample(&[1.0, 1.2], 0), Ok(1));
    let error = Sampler::new(biased(&[(3, 1.0)]), 3).err().unwrap();
    assert_eq!(error.to_string(), "logit_bias names token 3 of a vocabulary of 3");
}

#[test]
fn a_sequence_can_be_resumed_from_its_seed_and_length() {
    let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32 / 3.0).collect();
    let draw = |seed, numbers: std::ops::Range<u64>| -> Vec<u32> {
        let mut sampler = Sampler::new(SamplingParams { seed: Some(seed), ..OFF }, 100).unwrap();
        numbers.map(|n| sampler.sample(&logits, n).unwrap()).collect()
    };
    let whole = draw(42, 0..40);
    assert_eq!(draw(42, 25..40), whole[25..]);
    assert_ne!(draw(43, 0..40), whole);
    assert_eq!(&whole[..8], &[34, 96, 48, 6, 68, 6, 20, 74], "seeds keep their meaning between versions");
    let random = Sampler::new(SamplingParams { seed: None, ..OFF }, 1).unwrap();
    assert_ne!(random.seed(), Sampler::new(SamplingParams { seed: None, ..OFF }, 1).unwrap().seed());
}

#[test]
fn invalid_parameters_are_named() {
    let rows: [(&str, SamplingParams); 12] = [
        ("temperature", SamplingParams { temperature: f32::NAN, ..OFF }),
        ("temperature", SamplingParams { temperature: -0.1, ..OFF }),
        ("temperature", SamplingParams { temperature: f32::INFINITY, ..OFF }),
        ("top_p", SamplingParams { top_p: 1.1, ..OFF }),
        ("top_p", SamplingParams { top_p: f32::NAN, ..OFF }),
        ("min_p", SamplingParams { min_p: -0.5, ..OFF }),
        ("repeat_penalty", SamplingParams { repeat_penalty: 0.0, ..OFF }),
        ("frequency_penalty", SamplingParams { frequency_penalty: f32::NEG_INFINITY, ..OFF }),
        ("presence_penalty", SamplingParams { presence_penalty: f32::NAN, ..OFF }),
        ("penalty_last_n", SamplingParams { penalty_last_n: usize::MAX, ..OFF }),
        ("logit_bias", SamplingParams { logit_bias: vec![(0, f32::NAN)], ..OFF }),
        ("logit_bias", SamplingParams { logit_bias: vec![(0, f32::INFINITY)], ..OFF }),
    ];
    for (parameter, params) in rows {
        let result = Sampler::new(params.clone(), 4).err().map(|InvalidParameter { parameter, .. }| parameter);
        assert_eq!(result, Some(parameter), "{params:?}");
    }
    assert_eq!(SamplingParams::default().validate(), Ok(()));
}

#[test]
fn logprobs_are_of_the_whole_distribution() {
    let logits = [0.1f32.ln(), 0.4f32.ln(), 0.2f32.ln(), 0.3f32.ln()].map(|l| l + 5.0);
    let found = logprobs(&logits, 2, 2).unwrap();
    assert!((found.chosen - 0.2f32.ln()).abs() < 1e-5);
    assert_eq!(found.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3]);
    assert!((found.top[0].1 - 0.4f32.ln()).abs() < 1e-5 && (found.top[1].1 - 0.3f32.ln()).abs() < 1e-5);
    assert_eq!(logprobs(&[0.0, f32::NAN], 0, 1), Err(NonFinite { token_id: 1 }));
    assert_eq!(logprobs(&[0.0], 0, 5).unwrap().top, [(0, 0.0)]);
}

#[test]
fn stop_strings_are_cut_wherever_the_text_is_split() {
    // (stops, text, what is shown, the stop found)
    let rows: [(&[&str], &str, &str, Option<usize>); 12] = [
        (&[], "hello", "hello", None),
        (&["END"], "hello", "hello", None),
        (&["END"], "helloENDmore", "hello", Some(0)),
        (&["END"], "helloEN", "helloEN", None),
        (&["aab"], "aaaab", "aa", Some(0)),
        (&["abcd", "bc"], "xabcd", "xa", Some(1)),
        (&["b", "ab"], "xab", "x", Some(1)),
        (&["she", "he", "hers"], "ushers", "u", Some(0)),
        (&["\n\n", "User:"], "Hi\nUser\n\nUser:", "Hi\nUser", Some(0)),
        (&["日本", "本語"], "今日は日日本語", "今日は日", Some(0)),
        (&["🦙"], "llama 🦙!", "llama ", Some(0)),
        (&["é"], "caf\u{e8}, caf\u{e9}", "caf\u{e8}, caf", Some(0)),
    ];
    for (stops, text, shown, stopped) in rows {
        for cut_every in 1..=text.chars().count().max(1) {
            let mut matcher = StopMatcher::new(stops.iter().map(|s| (*s).into()).collect()).unwrap();
            let mut seen = String::new();
            let mut found = None;
            let chars: Vec<char> = text.chars().collect();
            for piece in chars.chunks(cut_every) {
                let step = matcher.push(&piece.iter().collect::<String>());
                seen += &step.text;
                found = step.stopped;
            }
            seen += &matcher.finish();
            assert_eq!((seen.as_str(), found), (shown, stopped), "{stops:?} {text:?} in pieces of {cut_every}");
        }
    }
}

#[test]
fn only_text_that_can_begin_a_stop_string_is_held_back() {
    let mut matcher = StopMatcher::new(vec!["<|end|>".into(), "###".into()]).unwrap();
    let shown: Vec<String> = ["a<", "|en", "b", "#", "#", " ", "<|end", "|>z", "more"].iter().map(|t| matcher.push(t).text).collect();
    assert_eq!(shown, ["a", "", "<|enb", "", "", "## ", "", "", ""]);
    assert_eq!(matcher.push("x").stopped, Some(0));
    assert_eq!(matcher.finish(), "");
}

#[test]
fn many_stop_strings_cost_one_pass() {
    // Every stop string is nearly matched at every byte; tried one by one this would take 10^10 steps.
    let stops: Vec<String> = (0..60).map(|i| "a".repeat(1000 + i) + "b").collect();
    let mut matcher = StopMatcher::new(stops).unwrap();
    let text = "a".repeat(200_000);
    assert_eq!(matcher.push(&text).text.len(), 200_000 - 1059);
    assert_eq!(matcher.push("c").text.len(), 1060);
    assert_eq!(matcher.push(&text).text.len() + matcher.finish().len(), 200_000);
    assert!(StopMatcher::new(vec!["a".into(), String::new()]).is_err());
    assert!(StopMatcher::new(vec!["a".repeat(70_000)]).is_err());
}

/// Lets these tokens through, as many times as the number says.
struct Only(&'static [u32], u32);

impl Constraint for Only {
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        let banned = logits.iter_mut().zip(0u32..).filter(|(_, id)| !self.0.contains(id));
        banned.for_each(|(logit, _)| *logit = f32::NEG_INFINITY);
        Ok(())
    }

    fn accept(&mut self, _: u32) {
        self.1 -= 1;
    }

    fn is_complete(&self) -> bool {
        self.1 == 0
    }
}

#[test]
fn a_constraint_is_stronger_than_bias_penalty_and_chance() {
    let choose = |params: SamplingParams, logits: &[f32]| {
        let mut sampler = Sampler::new(params, logits.len()).unwrap();
        sampler.constrain(Box::new(Only(&[1, 2], 9)));
        sampler.accept(2);
        (0..40).map(|n| sampler.sample(logits, n)).collect::<Result<Vec<u32>, _>>()
    };
    let logits = [9.0, 1.0, 2.0, 8.0];
    let is = |params, expected: &[u32]| {
        let mut found = choose(params, &logits).unwrap();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, expected);
    };
    is(greedy(), &[2]);
    is(SamplingParams { temperature: 100.0, ..OFF }, &[1, 2]);
    is(SamplingParams { top_k: 2, ..OFF }, &[1, 2]);
    is(SamplingParams { logit_bias: vec![(0, 1000.0)], ..greedy() }, &[2]);
    is(SamplingParams { logit_bias: vec![(2, f32::NEG_INFINITY)], ..greedy() }, &[1]);
    is(SamplingParams { logit_bias: vec![(1, f32::NEG_INFINITY), (2, f32::NEG_INFINITY)], ..greedy() }, &[2]);
    is(SamplingParams { presence_penalty: 5.0, ..greedy() }, &[1]);
    let broken = [f32::NAN, 1.0, 2.0, 3.0];
    assert_eq!(choose(greedy(), &broken), Err(NonFinite { token_id: 0 }.into()), "what it would ban is looked at too");
}

#[test]
fn a_constraint_hears_of_what_was_chosen_and_says_when_it_is_complete() {
    let mut sampler = Sampler::new(greedy(), 3).unwrap();
    assert!(!sampler.is_complete());
    sampler.constrain(Box::new(Only(&[1], 2)));
    for expected in [false, true] {
        assert_eq!(sampler.next(&[9.0, 0.0, 1.0], 0), Ok(1));
        assert_eq!(sampler.is_complete(), expected);
    }
}
