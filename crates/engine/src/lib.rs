//! Loads one local model on one device and generates from it.

#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod verify;
pub mod weights;
