//! Promises of embedders: vectors are those of BERT, whatever they are batched with, and a broken folder is a typed failure.

mod broken;
mod reference;
mod vectors;

use std::sync::Arc;

use downshift_engine::InProcess;
use downshift_engine::testing::TinyEmbedder;
use downshift_worker::{Device, Failure, Launcher, ModelInfo, ModelSpec, Placement, Prompt, Worker};
use tempfile::TempDir;

const PLACEMENT: Placement = Placement { device: Device::Cpu, context: 12, threads: 2 };

/// A folder with an embedder in it.
fn folder(model: &TinyEmbedder) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    model.write(folder.path());
    folder
}

fn inspect(folder: &TempDir) -> Result<ModelInfo, Failure> {
    InProcess.inspect(&ModelSpec::from_path(folder.path()))
}

fn launch(folder: &TempDir) -> Result<Arc<dyn Worker>, Failure> {
    InProcess.launch(&ModelSpec::from_path(folder.path()), &PLACEMENT, &|_, _| {})
}

fn worker(model: &TinyEmbedder) -> Arc<dyn Worker> {
    launch(&folder(model)).expect("a tiny embedder launches")
}

fn text(text: &str) -> Prompt {
    Prompt::Text(text.to_owned())
}

/// The largest difference of two vectors.
fn difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}
