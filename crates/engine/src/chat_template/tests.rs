//! The module's promises.
