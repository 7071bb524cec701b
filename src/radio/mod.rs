//! Concentrators behind one trait: semtech-udp, simulated.
pub mod simulated;
use crate::{fns, lorawan::GatewayEui};
use std::sync::Arc;
pub struct Radio {
    pub name: String,
    pub heard: tokio::sync::mpsc::Receiver<fns::Heard>,
    pub heads: Arc<dyn Heads>,
}
pub trait Heads: fns::Air {
    fn has(&self, gateway: GatewayEui) -> bool;
}
