//! CPU kernels on plain slices, picked at run time.

pub mod pool;
