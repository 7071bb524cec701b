//! What is fuzzed: every parser of bytes that others write. `fuzz/main.rs` looks for such bytes, and `tests/corpus.rs` sends through what was kept.

mod backend_json;
mod backup;
mod certificate;
mod client_hello;
mod config;
mod device_file;
mod downlink_command;
mod gps;
mod gwmp;
mod key_envelope;
mod name;
mod naptr;
mod newest;
mod oui;
mod phy_payload;
mod radio_buffer;
mod registry;
mod statement;
mod token;
mod transcript;

/// Takes anything, and panics where a promise is broken.
pub type Target = fn(&[u8]);

/// All targets by name. What was kept of one lies in `fuzz/corpus`, in a folder of that name.
pub const TARGETS: &[(&str, Target)] = &[
    ("backend_json", backend_json::fuzz),
    ("backup", backup::fuzz),
    ("certificate", certificate::fuzz),
    ("client_hello", client_hello::fuzz),
    ("config", config::fuzz),
    ("device_file", device_file::fuzz),
    ("downlink_command", downlink_command::fuzz),
    ("gps", gps::fuzz),
    ("gwmp", gwmp::fuzz),
    ("key_envelope", key_envelope::fuzz),
    ("name", name::fuzz),
    ("naptr", naptr::fuzz),
    ("newest", newest::fuzz),
    ("oui", oui::fuzz),
    ("phy_payload", phy_payload::fuzz),
    ("radio_buffer", radio_buffer::fuzz),
    ("registry", registry::fuzz),
    ("statement", statement::fuzz),
    ("token", token::fuzz),
    ("transcript", transcript::fuzz),
];

/// What a parser of text gets: as far as the bytes are UTF-8.
fn text(bytes: &[u8]) -> &str {
    bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}
