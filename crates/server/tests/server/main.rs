//! The server over models that say what they are told to, on a real socket: one file per family of promises.

mod answers;
mod errors;
mod inputs;
mod messages;
mod openapi;
mod responses;
mod safety;
mod streams;
mod support;
