//! Promises of the built program, one file each. Models are tiny and made from a seed; nothing is downloaded.

mod api_page;
mod check;
mod demo;
mod drill;
mod embed;
mod fallback;
mod help;
#[cfg(target_os = "linux")]
mod isolation;
mod layering;
mod log;
mod memory;
mod models_toml;
mod output;
mod page;
mod readme;
mod real_data;
mod serve;
mod structured;
mod support;
mod tools;
mod verify;
