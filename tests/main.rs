//! Promises of the built program, one file each. Models are tiny and made from a seed; nothing is downloaded.

mod check;
mod demo;
mod embed;
mod fallback;
mod help;
mod layering;
mod models_toml;
mod output;
mod readme;
mod real_data;
mod support;
mod tools;
mod verify;
