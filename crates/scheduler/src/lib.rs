//! Chooses which model answers; loads, keeps, falls back.
