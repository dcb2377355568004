//! CPU kernels on plain slices, picked at run time.

pub mod activation;
mod aligned;
pub mod attention;
pub mod kv;
pub mod norm;
pub mod ops;
pub mod pool;
pub mod rope;
pub mod softmax;
