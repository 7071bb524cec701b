//! For the tests of this room: a device and its activation.

use crate::backend::message::MacVersion;
use crate::hns::{Activation, Device};
use crate::lorawan::{DevAddr, DevEui, JoinEui};

pub fn activation() -> Activation {
    Activation {
        dev_addr: DevAddr::new(0x0200_0001),
        session_key_id: Some(vec![1]),
        app_s_key: None,
        fcnt_up: None,
        sns: None,
        fcnt_down: None,
        created: 1_700_000_000,
    }
}

pub fn device(dev_eui: DevEui) -> Device {
    Device {
        dev_eui,
        join_eui: JoinEui::from_msb([0; 8]),
        name: "barometer".into(),
        mac_version: MacVersion::V1_0_4,
        enabled: true,
        roaming: true,
        personalised: false,
        class: crate::backend::message::ClassMode::A,
        activations: vec![activation()],
        queue: Vec::new(),
        last_seen: None,
        last_via: None,
        profile_since: 0,
        home: None,
    }
}
