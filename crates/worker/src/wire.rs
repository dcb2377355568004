//! What parent and child say to each other: frames of a length, the number of a call, and JSON.
//!
//! Owns the messages and their encoding. Does not own what is done about them ([`crate::serve`] in the child,
//! [`crate::Subprocess`] in the parent). Nothing that is read here is trusted: a frame is bounded before it is stored, and what
//! does not parse is a [`WireError`].
//!
//! ```text
//! length: u32 LE (of what follows) | call: u64 LE | JSON of the message
//! ```
//! Both sides send their [`PROTOCOL`] and [`BUILD`] first. A call is opened by the parent and ended by one closing frame of the
//! child; call 0 belongs to the connection itself.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Completion, Delta, DeviceMemory, Failure, FailureKind, Input, ModelInfo, ModelSpec, Placement, Prompt, Request, RequestId,
    ResponseFormat, SamplingParams, Stage, Stats,
};

/// Raised with every change of the messages.
pub(crate) const PROTOCOL: u32 = 2;
/// The build that speaks: parent and child must be of the same one.
pub(crate) const BUILD: &str = match option_env!("DOWNSHIFT_BUILD_ID") {
    Some(id) => id,
    None => env!("CARGO_PKG_VERSION"),
};
/// Most bytes of one frame; longer ones are refused on both sides.
pub(crate) const MAX_FRAME_BYTES: usize = 64 << 20;
/// Deltas of one call that may be under way before the child waits for [`ToWorker::Taken`].
pub(crate) const WINDOW: usize = 256;
/// Levels of arrays and objects in what a caller passes through: the decoder's own limit is 128, of which the frame needs some.
const MAX_DEPTH: usize = 96;

/// What the parent says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToWorker<'a> {
    /// First: who speaks, and what the child is for.
    Open { protocol: u32, build: Cow<'a, str>, role: ChildRole },
    /// Answered by [`FromWorker::Info`].
    Inspect { spec: Cow<'a, ModelSpec> },
    /// Answered by [`FromWorker::Counted`].
    Count { spec: Cow<'a, ModelSpec>, request: Box<Cow<'a, Request>> },
    /// Answered by [`FromWorker::Devices`].
    Devices,
    /// Answered by any number of [`FromWorker::Progress`], then [`FromWorker::Loaded`]; once per child.
    Launch { spec: Cow<'a, ModelSpec>, placement: Placement },
    /// Answered by any number of [`FromWorker::Delta`], then [`FromWorker::Completion`].
    Generate { request: Cow<'a, Request> },
    /// This many deltas of the call were taken: the child may send as many again. No answer.
    Taken { deltas: usize },
    /// Answered by [`FromWorker::Vectors`].
    Embed { inputs: Cow<'a, [Prompt]> },
    /// Answered by [`FromWorker::Tokens`].
    Tokenize { text: Cow<'a, str>, special: bool },
    /// Answered by [`FromWorker::Text`].
    Detokenize { ids: Cow<'a, [u32]> },
    /// Answered by [`FromWorker::Text`].
    ApplyTemplate { input: Cow<'a, Input> },
    /// No answer but the end of that request.
    Cancel { id: RequestId },
    /// No answer.
    SetThreads { threads: usize },
}

/// What the child says. Any call may be answered by [`FromWorker::Failure`] instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromWorker {
    /// First: who speaks.
    Ready {
        protocol: u32,
        build: String,
    },
    /// Unasked, on call 0: the worker's gauges have changed.
    Heartbeat(Stats),
    Info(Box<ModelInfo>),
    Counted(usize),
    Devices(Vec<DeviceMemory>),
    Progress {
        done_bytes: u64,
        total_bytes: u64,
    },
    Loaded(Stats),
    Delta(Delta),
    Completion(Completion),
    /// The bits of each `f32`, so that every value arrives as it was.
    Vectors {
        bits: Vec<Vec<u32>>,
        prompt_tokens: u32,
    },
    Tokens(Vec<u32>),
    Text(String),
    /// On call 0: the connection itself has failed.
    Failure(Failure),
}

impl FromWorker {
    /// Whether this ends its call.
    pub fn closes(&self) -> bool {
        !matches!(self, Self::Progress { .. } | Self::Delta(_))
    }
}

/// What a child is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChildRole {
    /// Runs one model.
    Model,
    /// Reads headers and vocabularies with bounded memory, and ends by itself when it has nothing to do.
    Reader { memory_bytes: u64, idle_ms: u64 },
}

/// Why a frame could not be read or written.
#[derive(Debug)]
pub(crate) enum WireError {
    /// The pipe is broken, or ended inside a frame: the other side is gone.
    Gone(io::Error),
    /// The frame is longer than [`MAX_FRAME_BYTES`].
    TooLong(usize),
    /// The frame is too short for the number of its call.
    TooShort(usize),
    /// The message is none that the protocol knows.
    Malformed(serde_json::Error),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(error) => write!(f, "the pipe is broken: {error}"),
            Self::TooLong(bytes) => write!(f, "a frame of {bytes} bytes exceeds the limit of {MAX_FRAME_BYTES}"),
            Self::TooShort(bytes) => write!(f, "a frame of {bytes} bytes is too short"),
            Self::Malformed(error) => write!(f, "a frame is malformed: {error}"),
        }
    }
}

/// One frame of `message` for `call`.
///
/// # Errors
/// [`WireError::TooLong`], and [`WireError::Malformed`] for a message that JSON cannot hold.
pub(crate) fn encode<T: Serialize>(call: u64, message: &T) -> Result<Vec<u8>, WireError> {
    let mut frame = Bounded(Vec::with_capacity(256));
    frame.0.extend_from_slice(&[0; 4]);
    frame.0.extend_from_slice(&call.to_le_bytes());
    if let Err(error) = serde_json::to_writer(&mut frame, message) {
        return Err(if error.is_io() { WireError::TooLong(frame.0.len()) } else { WireError::Malformed(error) });
    }
    let mut frame = frame.0;
    let length = u32::try_from(frame.len() - 4).map_err(|_| WireError::TooLong(frame.len()))?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// Refuses to grow past the limit, so that a message that is too long costs no more than one that is not.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_FRAME_BYTES + 4 {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The next frame: its call and message; `None` at the end between two frames.
///
/// # Errors
/// What [`WireError`] lists. Memory grows with the bytes that arrive, never with the length that is announced.
pub(crate) fn read<T: DeserializeOwned>(input: &mut impl Read) -> Result<Option<(u64, T)>, WireError> {
    let mut length = Vec::with_capacity(4);
    input.by_ref().take(4).read_to_end(&mut length).map_err(WireError::Gone)?;
    let length = match length.as_slice() {
        [] => return Ok(None),
        [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]) as usize,
        _ => return Err(WireError::Gone(io::ErrorKind::UnexpectedEof.into())),
    };
    if length > MAX_FRAME_BYTES {
        return Err(WireError::TooLong(length));
    }
    let mut frame = Vec::with_capacity(length.min(64 << 10));
    input.by_ref().take(length as u64).read_to_end(&mut frame).map_err(WireError::Gone)?;
    if frame.len() < length {
        return Err(WireError::Gone(io::ErrorKind::UnexpectedEof.into()));
    }
    let Some((call, message)) = frame.split_first_chunk::<8>() else { return Err(WireError::TooShort(length)) };
    let message = serde_json::from_slice(message).map_err(WireError::Malformed)?;
    Ok(Some((u64::from_le_bytes(*call), message)))
}

/// `request` as the wire can carry it: values that JSON has no number for are replaced or refused.
///
/// # Errors
/// [`FailureKind::InvalidRequest`] for a sampling parameter that is no finite number, and for values nested too deeply.
pub(crate) fn portable_request(request: &Request) -> Result<Cow<'_, Request>, Failure> {
    shallow(&request.input)?;
    if let ResponseFormat::JsonSchema(schema) = &request.format {
        shallow_values([schema])?;
    }
    Ok(match portable_sampling(&request.sampling)? {
        None => Cow::Borrowed(request),
        Some(sampling) => Cow::Owned(Request { sampling, ..request.clone() }),
    })
}

/// `spec` as the wire can carry it.
///
/// # Errors
/// [`FailureKind::InvalidRequest`] for a sampling default that is no finite number, [`FailureKind::Unreadable`] for a path that
/// is not Unicode.
pub(crate) fn portable_spec(spec: &ModelSpec) -> Result<Cow<'_, ModelSpec>, Failure> {
    for path in std::iter::once(&spec.path).chain(&spec.chat_template) {
        if path.to_str().is_none() {
            let message = format!("{} is no Unicode path, which a worker process needs", path.display());
            return Err(Failure::new(FailureKind::Unreadable, Stage::Load, message));
        }
    }
    Ok(match portable_sampling(&spec.sampling)? {
        None => Cow::Borrowed(spec),
        Some(sampling) => Cow::Owned(ModelSpec { sampling, ..spec.clone() }),
    })
}

/// `sampling` with what had to be replaced; `None` if nothing had to.
fn portable_sampling(sampling: &SamplingParams) -> Result<Option<SamplingParams>, Failure> {
    let named = [
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("min_p", sampling.min_p),
        ("repeat_penalty", sampling.repeat_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
        ("presence_penalty", sampling.presence_penalty),
    ];
    for (name, value) in named {
        if let Some(value) = value.filter(|value| !value.is_finite()) {
            return Err(invalid(format!("`{name}` is {value}, which is no finite number")));
        }
    }
    let bias = &sampling.logit_bias;
    if let Some((id, _)) = bias.iter().find(|(_, bias)| bias.is_nan()) {
        return Err(invalid(format!("`logit_bias` of token {id} is not a number")));
    }
    if bias.iter().all(|(_, bias)| bias.is_finite()) {
        return Ok(None);
    }
    // The largest finite bias forbids and forces as surely as an infinite one.
    let logit_bias = bias.iter().map(|(id, bias)| (*id, bias.clamp(f32::MIN, f32::MAX))).collect();
    Ok(Some(SamplingParams { logit_bias, ..sampling.clone() }))
}

/// Refuses values nested too deeply for the other side to read.
pub(crate) fn shallow(input: &Input) -> Result<(), Failure> {
    let Input::Chat { messages, tools, variables, .. } = input else { return Ok(()) };
    let roots = messages.iter().flat_map(|message| std::iter::once(&message.content).chain(message.extra.values()));
    shallow_values(roots.chain(tools).chain(variables.values()))
}

fn shallow_values<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<(), Failure> {
    // A stack of our own: recursion is what deep values break.
    let mut open: Vec<(&Value, usize)> = values.into_iter().map(|value| (value, 1)).collect();
    while let Some((value, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(invalid(format!("the request's values are nested more than {MAX_DEPTH} levels deep")));
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => open.extend(fields.values().map(|field| (field, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn invalid(message: String) -> Failure {
    Failure::new(FailureKind::InvalidRequest, Stage::Admission, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PromptToken, TokenLogprob};

    fn delta() -> FromWorker {
        let logprobs = vec![TokenLogprob { token_id: 7, logprob: -0.1, top: vec![(7, -0.1), (8, f32::NEG_INFINITY)] }];
        let prompt = vec![PromptToken::First(3), PromptToken::Scored(logprobs[0].clone())];
        FromWorker::Delta(Delta { text: "\u{1f600}\0".to_owned(), token_ids: vec![7], logprobs, prompt, ..Delta::default() })
    }

    #[test]
    fn frames_follow_each_other_and_end_between_two() {
        let frames = [encode(3, &delta()).unwrap(), encode(u64::MAX, &FromWorker::Counted(1)).unwrap()].concat();
        let mut input = frames.as_slice();
        assert_eq!(read(&mut input).unwrap(), Some((3, delta())));
        assert_eq!(read(&mut input).unwrap(), Some((u64::MAX, FromWorker::Counted(1))));
        assert_eq!(read::<FromWorker>(&mut input).unwrap(), None);
    }

    #[test]
    fn a_frame_cut_anywhere_means_that_the_other_side_is_gone() {
        let frame = encode(1, &delta()).unwrap();
        for length in 1..frame.len() {
            assert!(matches!(read::<FromWorker>(&mut &frame[..length]), Err(WireError::Gone(_))), "{length}");
        }
    }

    #[test]
    fn a_length_that_is_only_announced_costs_nothing() {
        let announced = |length: u32| read::<FromWorker>(&mut length.to_le_bytes().as_slice());
        assert!(matches!(announced(MAX_FRAME_BYTES as u32), Err(WireError::Gone(_))));
        assert!(matches!(announced(MAX_FRAME_BYTES as u32 + 1), Err(WireError::TooLong(_))));
        assert!(matches!(read::<FromWorker>(&mut [7, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7].as_slice()), Err(WireError::TooShort(7))));
    }

    #[test]
    fn a_frame_stops_growing_at_the_limit() {
        use std::io::Write;
        let mut frame = Bounded(Vec::new());
        assert!(frame.write_all(&vec![0; MAX_FRAME_BYTES + 4]).is_ok());
        assert!(frame.write_all(&[0]).is_err());
        assert_eq!(frame.0.len(), MAX_FRAME_BYTES + 4);
    }

    #[test]
    fn random_changes_give_a_message_or_an_error() {
        let mut state = 1_u64;
        // xorshift64: the same numbers in every run.
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        let whole = encode(1, &delta()).unwrap();
        let mut understood = 0;
        for _ in 0..20_000 {
            let mut frame = whole.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() % frame.len();
                frame[at] = random() as u8;
            }
            let child = read::<FromWorker>(&mut frame.as_slice());
            let parent = read::<ToWorker<'_>>(&mut frame.as_slice());
            assert!(!matches!(parent, Ok(Some(_))), "no change makes a delta a question");
            understood += usize::from(child.is_ok());
        }
        assert!((1..10_000).contains(&understood), "{understood}");
    }
}
