//! Promises of the built program.
