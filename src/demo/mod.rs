//! A federation on one machine.

pub mod zone;
