//! The arm of the CPU: downshift's kernels over scratch that is planned when the model loads. No step allocates.

use std::ops::Range;

use downshift_kernels::{Activation, Activations, AttnParams, AttnScratch, AttnSeq, Cpu, KvLayout, LinearJob, RopeTable};
use memmap2::MmapMut;

use crate::error::Error;
use crate::layers::Arm;
use crate::model_config::ModelConfig;
use crate::models::{AttentionBlock, Batch, Linear, Mlp};
use crate::weights::{Gguf, HostMatrix};

/// Rows of one step. More win nothing: the kernels' tiles are full long before.
const MAX_ROWS: usize = 512;

/// Rows of logits computed together; bounds the scratch of large vocabularies.
const LOGITS_ROWS: usize = 16;
