//! Strangers and partners that lean on every door: what they get, what the log says, and that the others notice nothing.

#![allow(clippy::disallowed_methods)]

mod client;
mod federation;
mod log;
mod radio;
mod server;
