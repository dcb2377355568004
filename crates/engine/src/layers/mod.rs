//! The layers that the decoder is written in, on two arms: downshift's own kernels over planned scratch, and candle tensors.
//!
//! An arm holds the step's state (residual stream, q, k, v, the input of the next projection) and the KV pool. Both arms
//! are checked against each other, so that the arm of the GPUs is tested without one.

mod candle;
mod cpu;

pub use candle::CandleArm;
pub use cpu::CpuArm;

use crate::error::Error;
use crate::models::{AttentionBlock, Batch, Linear, Mlp};
use crate::weights::{Gguf, HostMatrix};

/// Takes weights from a file.
pub trait Loader: Sized {
    /// A weight matrix, `(rows, cols)`, in whatever form it is multiplied.
    type Matrix: Send;
    /// A bias or a norm's weight, widened to f32.
    type Vector: Send;

    /// Takes a matrix.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a missing tensor or another shape, [`Error::UnsupportedType`] for its element type.
    fn matrix(&self, gguf: &Gguf, name: &str, rows: usize, cols: usize) -> Result<Self::Matrix, Error>;

    /// Takes a vector.
    ///
    /// # Errors
    /// As [`Loader::matrix`].
    fn vector(&self, gguf: &Gguf, name: &str, len: usize) -> Result<Self::Vector, Error>;

    /// Takes a vector that a model may lack.
    ///
    /// # Errors
    /// As [`Loader::matrix`], a missing tensor excepted.
    fn vector_if_present(&self, gguf: &Gguf, name: &str, len: usize) -> Result<Option<Self::Vector>, Error> {
        gguf.tensor(name).map(|_| self.vector(gguf, name, len)).transpose()
    }
}

/// Takes nothing: checks that every weight is there with its shape and a type that the kernels multiply.
pub struct ShapeCheck;

impl Loader for ShapeCheck {
    type Matrix = ();
    type Vector = ();

    fn matrix(&self, gguf: &Gguf, name: &str, rows: usize, cols: usize) -> Result<(), Error> {
        HostMatrix::from_gguf(gguf, name, rows, cols).map(|_| ())
    }

    fn vector(&self, gguf: &Gguf, name: &str, len: usize) -> Result<(), Error> {
        HostMatrix::from_gguf(gguf, name, 1, len).map(|_| ())
    }
}

/// One way to run the layers. Calls come in the order of the decoder's forward pass.
pub trait Arm: Loader + Send {
    /// Begins a step: residual `(m, hidden)` becomes the embedding of each token; rotations of its positions are prepared.
    fn embed(&mut self, embedding: &Self::Matrix, batch: &Batch) -> Result<(), Error>;

    /// q, k and v from the normed residual; heads normed where the block has the norms, q and k rotated to their positions.
    fn project_qkv(&mut self, block: &AttentionBlock<Self>) -> Result<(), Error>;

    /// Stores k and v of every row in the blocks of its sequence.
    fn append_kv(&mut self, layer_idx: usize, batch: &Batch) -> Result<(), Error>;

    /// Causal attention of every row over its own sequence; the result is the input of the next projection.
    fn attend(&mut self, layer_idx: usize, batch: &Batch) -> Result<(), Error>;

    /// `act(gate) * up` of the normed residual; the result is the input of the next projection.
    fn gate_up(&mut self, mlp: &Mlp<Self>) -> Result<(), Error>;

    /// Adds the projection of the last result to the residual.
    fn add_projection(&mut self, linear: &Linear<Self>) -> Result<(), Error>;

    /// Logits of the rows that ask, as [`crate::models::Forward::forward`] describes.
    fn logits(
        &mut self,
        norm: &Self::Vector,
        head: &Self::Matrix,
        batch: &Batch,
        on_logits: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Result<(), Error>;

    /// Copies the keys and values of the first `positions` of a block to another one, in all layers.
    fn copy_kv(&mut self, from: u32, to: u32, positions: usize) -> Result<(), Error>;

    /// How many cores the next step may use.
    fn set_threads(&mut self, threads: usize);

    /// Most rows of one batch.
    fn max_rows(&self) -> usize;
}
