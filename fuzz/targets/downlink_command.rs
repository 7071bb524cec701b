//! Whatever an application publishes as a command: a queue item that keeps the rules, or a reason, never a panic. The
//! topic is the text before the first line break, the body what follows.

use jiff::Timestamp;
use roamgate::application::event::{self, Events};
use roamgate::lorawan::{DevEui, Region};

const EUI: DevEui = DevEui::from_msb([1, 2, 3, 4, 5, 6, 7, 0xAB]);

pub fn fuzz(bytes: &[u8]) {
    let events = Events {
        application_id: "52f14cd4-c6f1-4fbd-8f87-4025e1d49242".into(),
        application_name: "fuzz".into(),
        region: Region::eu868(),
    };
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (topic, body) = bytes.split_at(end);
    let dev_eui = std::str::from_utf8(topic).ok().and_then(|topic| events.device_of(topic)).unwrap_or(EUI);
    let now = Timestamp::from_second(1_795_000_000).unwrap();
    match event::command(dev_eui, body, now, [7; 16]) {
        Ok(item) => {
            assert!((1..=223).contains(&item.f_port) && item.payload.len() <= 242);
            assert!(event::is_uuid(&item.id), "{}", item.id);
            assert!(item.expires.is_none_or(|expires| expires >= 1_795_000_000));
            assert!(item.sent_as.is_none() && item.attempts == 0);
        }
        Err(error) => assert!(!error.to_string().is_empty() && !error.code().is_empty()),
    }
}
