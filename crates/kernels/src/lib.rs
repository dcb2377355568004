//! CPU kernels on plain slices, picked at run time.
