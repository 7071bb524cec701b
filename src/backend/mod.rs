//! Words of TS002 (LoRaWAN Backend Interfaces) and its two ends.

pub mod door;
pub mod keywrap;
pub mod message;
