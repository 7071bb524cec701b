//! Boards by name.
