//! The downshift command.

fn main() {}
