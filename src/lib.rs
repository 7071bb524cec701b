//! Roamgate: a LoRaWAN hotspot that roams.
//!
//! Roles are rooms, and every door can lead outside. An uplink walks `radio` → `fns` → `sns` → `hns`
//! → `application`; a join asks `js` on the way. Between roles the typed messages of TS002 are the
//! only language ([`backend::message`]); a room asks through [`backend::door::Peers`] and is asked
//! through [`backend::door::Rooms`]. Only `app` knows which room is in this house and which is on
//! another continent.

// Tests may ask the clock; the program is linted without them as well.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod app;
pub mod application;
pub mod backend;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod discovery;
pub mod fns;
pub mod front;
pub mod hns;
pub mod jit;
pub mod js;
pub mod limits;
pub mod lorawan;
pub mod partners;
pub mod pki;
pub mod radio;
pub mod registry;
pub mod sns;
pub mod store;
pub mod systemd;
pub mod telemetry;
pub mod tls;
pub mod update;
pub mod usage;
pub mod web;
