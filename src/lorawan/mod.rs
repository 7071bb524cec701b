//! Words of TS001 and RP002: identifiers, frames, keys, regions.
//!
//! Owns every byte order and every formula of the air interface. Knows no time, socket or database.
//! Crate `lrwn` is named in `region.rs` only.

pub mod beacon;
pub mod crypto;
pub mod frame;
pub mod ids;
pub mod key;
pub mod mac;
pub mod region;

pub use ids::{DevAddr, DevEui, GatewayEui, JoinEui, JoinEuiRange, NetId, NsId};
pub use key::Key;
pub use region::{Modulation, Region};
