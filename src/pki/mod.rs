//! Certificates of the federation: what they say ([`check`]), and how they are made ([`make`]).
//!
//! Three levels: one federation root, one intermediate per institution with critical name
//! constraints, and leaves under it. Everybody stores roots only; leaf and intermediate are sent.

pub mod check;
pub mod dane;
pub mod enrol;
pub mod folder;
pub mod make;
pub mod name;
pub mod request;
pub mod revoke;
