//! The whole program from outside: `roamgate run` in processes of its own, reached through its
//! configuration, its command line, its control socket and the packet forwarders' UDP port alone.
//! Devices are crate `lorawan-device` on a simulated air; real time, real sockets.

#[path = "../support/bridge.rs"]
mod bridge;
#[path = "../support/federation.rs"]
mod federation;
#[path = "../support/forwarder.rs"]
mod forwarder;
#[path = "../support/program.rs"]
mod program;

mod away;
mod heads;
mod home;
mod kills;
mod refusals;

use roamgate::clock::Clock;
use roamgate::demo::device::{Device, JoinReport, SendReport, Stands};
use roamgate::lorawan::{DevEui, GatewayEui, JoinEui, Key};
use roamgate::radio::simulated::{Air, Link};

/// A device as its maker delivers it.
#[derive(Clone)]
struct Delivered {
    dev_eui: DevEui,
    join_eui: JoinEui,
    app_key: Key,
}

impl Delivered {
    /// The `n`th of a JoinEUI.
    fn new(n: u16, join_eui: &str) -> Delivered {
        let [high, low] = n.to_be_bytes();
        let app_key = Key::new([0xA5, high, low, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        let dev_eui = DevEui::from_msb([0x58, 0x17, 0xB1, 0xC3, 0xEB, 0x89, high, low]);
        Delivered { dev_eui, join_eui: join_eui.parse().unwrap(), app_key }
    }

    fn dev_eui(&self) -> String {
        self.dev_eui.to_string()
    }

    fn key(&self) -> String {
        hex::encode(self.app_key.expose())
    }

    /// Switched on, in reach of these heads.
    fn switched_on(&self, air: &Air, clock: &Clock, heads: &[GatewayEui]) -> Device {
        self.switched_on_for(Stands::Eu868, air, clock, heads)
    }

    /// The same, made for a region.
    fn switched_on_for(&self, stands: Stands, air: &Air, clock: &Clock, heads: &[GatewayEui]) -> Device {
        let seed = u64::from_be_bytes(clock.random());
        let (dev_eui, join_eui, app_key) = (self.dev_eui, self.join_eui, &self.app_key);
        let mut device = Device::in_region(air, clock.clone(), dev_eui, join_eui, app_key, seed, stands);
        let reach: Vec<_> = heads.iter().map(|head| (*head, Link::NEAR)).collect();
        device.move_to(&reach);
        device
    }
}

/// Join. What is lost on a loaded machine is tried again, as a device would.
async fn joins(device: &mut Device) -> JoinReport {
    for _ in 0..4 {
        let report = device.join().await;
        if report.ok {
            return report;
        }
    }
    panic!("{} does not join", device.dev_eui());
}

/// A confirmed uplink until it is acknowledged, with what came along.
async fn talks(device: &mut Device, payload: &[u8]) -> SendReport {
    for _ in 0..4 {
        let report = device.send(payload, 10, true).await.expect("a session");
        if report.acked {
            return report;
        }
    }
    panic!("{} is not acknowledged", device.dev_eui());
}
