//! A federation on one machine.

pub mod device;
pub mod zone;
