//! Loads one local model on one device and generates from it.

pub mod weights;
