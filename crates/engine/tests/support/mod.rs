//! A tiny worker and what it says.

use std::ops::ControlFlow;
use std::sync::Arc;

use downshift_engine::InProcess;
use downshift_engine::testing::{Stored, TinyModel};
use downshift_worker::{Completion, Delta, Device, Failure, Launcher, ModelSpec, Placement, Request, ToolCallDelta, Worker};

/// A loaded model with random weights; with a template and further tokens if they are given.
pub fn worker(template: Option<&str>, added_tokens: &[(&'static str, i32)]) -> Arc<dyn Worker> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    let model = TinyModel { added_tokens: added_tokens.to_vec(), ..TinyModel::of("llama", 3, Stored::F32) };
    let path = write("tiny.gguf", &model.writer().finish());
    let chat_template = template.map(|template| write("template.jinja", template.as_bytes()));
    let spec = ModelSpec { parallel: 8, chat_template, ..ModelSpec::from_path(&path) };
    let placement = Placement { device: Device::Cpu, context: 4096, threads: 1 };
    // The mapping outlives the folder's entry.
    InProcess.launch(&spec, &placement, &|_, _| {}).expect("a tiny model launches")
}

/// All that an answer consists of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    pub text: String,
    pub reasoning: String,
    pub calls: Vec<ToolCallDelta>,
    pub ids: Vec<u32>,
    pub logprobs: Vec<f32>,
    /// Bytes of everything that was shown.
    pub shown_bytes: usize,
}

impl Output {
    pub fn take(&mut self, delta: Delta) {
        self.shown_bytes += delta.shown_bytes();
        self.text.push_str(&delta.text);
        self.reasoning.push_str(&delta.reasoning);
        for call in delta.tool_calls {
            match self.calls.iter_mut().find(|known| known.index == call.index) {
                Some(known) => known.arguments.push_str(&call.arguments),
                None => self.calls.push(call),
            }
        }
        self.ids.extend(delta.token_ids);
        self.logprobs.extend(delta.logprobs.iter().map(|logprob| logprob.logprob));
    }
}

pub fn run(worker: &dyn Worker, request: &Request) -> Result<(Output, Completion), Failure> {
    let mut output = Output::default();
    let completion = worker.generate(request, &mut |delta: Delta| {
        output.take(delta);
        ControlFlow::Continue(())
    })?;
    Ok((output, completion))
}
