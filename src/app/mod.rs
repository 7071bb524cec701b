//! Builds every room and its doors; the only one who knows everybody.

pub mod house;
#[cfg(test)]
mod walk;
