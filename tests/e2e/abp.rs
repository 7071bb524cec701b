//! Devices that were given their session instead of joining.

use std::time::Duration;

use roamgate::backend::message::{ClassMode, MacVersion, NwkKeys};
use roamgate::control::{Counters, Import, New, NewPersonalised, Operator};
use roamgate::demo::device::Device;
use roamgate::demo::federation::{HOME, Site, VISITED};
use roamgate::lorawan::{DevAddr, DevEui, JoinEui, Key};

use crate::federation::{Street, Walker};
use crate::lorawan11;

impl Street {
    /// A personalised device that is known at home.
    async fn given(&self, at: Site) -> Walker {
        let (dev_eui, dev_addr) = (DevEui::from_msb(self.clock.random()), self.address());
        let (nwk_s_key, app_s_key) = (Key::new(self.clock.random()), Key::new(self.clock.random()));
        let keys = NwkKeys::V10 { nwk_s_key: nwk_s_key.clone() };
        self.make_known(dev_eui, dev_addr, MacVersion::V1_0_3, keys, app_s_key.clone(), ClassMode::A).await;
        let (air, clock) = (&self.federation.air, self.clock.clone());
        let device = Device::personalised(air, clock, dev_eui, dev_addr, &nwk_s_key, &app_s_key, 7).await;
        let mut walker = Walker { device, dev_eui };
        walker.carry(at);
        walker
    }

    fn address(&self) -> DevAddr {
        HOME.net_id.dev_addr(u32::from_be_bytes(self.clock.random()))
    }

    async fn make_known(
        &self,
        dev_eui: DevEui,
        dev_addr: DevAddr,
        mac_version: MacVersion,
        keys: NwkKeys,
        app_s_key: Key,
        class: ClassMode,
    ) {
        let device = NewPersonalised {
            dev_eui,
            join_eui: JoinEui::from_msb([0; 8]),
            name: "given".into(),
            mac_version,
            roaming: true,
            dev_addr,
            keys,
            app_s_key,
            counters: Counters::default(),
        };
        let new = Import { device: New::Personalised(Box::new(device)), enabled: true, class };
        let wrong = self.home().node().unwrap().operator().add_devices(vec![new], false).await;
        assert_eq!(wrong.unwrap(), []);
    }
}

pub async fn a_personalised_device_talks_at_home_and_away_and_after_a_restart() {
    let mut street = Street::open().await;
    let mut walker = street.given(HOME).await;
    let mut said = Vec::new();
    let places = [(HOME, false), (VISITED, false), (HOME, true)];
    for (round, (place, restarted)) in (0_u8..).zip(places) {
        if restarted {
            street.restart(HOME, |_| ()).await;
        }
        walker.carry(place);
        street.queue(&walker, &[round], false).await;
        let exchange = walker.send(&[round], true).await;
        assert!(exchange.acked, "at {}", place.name);
        assert_eq!(exchange.downlinks, [(7, vec![round])]);
        said.push((exchange.fcnt_up, vec![round]));
        street.settle().await;
        let view = street.view(&walker).await;
        let via = (place == VISITED).then_some(VISITED.net_id);
        assert!(view.personalised && view.last_via == via);
    }
    assert_eq!(street.delivered(&walker), said);
    let session = street.session(&walker).await;
    assert!(session.personalised && session.fcnt_down == 3 && session.fcnt_up == Some(said[2].0));
    street.close().await;
}

pub async fn a_personalised_device_that_forgot_its_counter_waits_for_the_operator() {
    let mut street = Street::open().await;
    let mut walker = street.given(HOME).await;
    for _ in 0..3 {
        assert!(walker.send(b"on", true).await.acked);
    }
    let before = street.session(&walker).await;
    walker.device.switch_on().await;
    let first = walker.send(b"again", true).await;
    assert!(!first.acked && first.fcnt_up < before.fcnt_up.unwrap(), "{first:?}");
    street.settle().await;
    assert_eq!(street.session(&walker).await, before, "nothing changed");
    let whys = street.whys(HOME);
    let remedy = format!("`roamgate device reset-counter {}`", walker.dev_eui);
    assert!(whys.iter().any(|why| why.contains(&remedy)), "{whys:?}");
    assert_eq!(street.asked(HOME, "PRStartReq"), 0, "its frame is nobody else's");

    let operator = street.home().node().unwrap().operator();
    operator.reset_counter(walker.dev_eui).await.unwrap();
    let then = walker.send(b"again", true).await;
    assert!(then.acked);
    street.settle().await;
    assert_eq!(street.delivered(&walker).last(), Some(&(then.fcnt_up, b"again".to_vec())));
    let after = street.session(&walker).await;
    assert!(after.fcnt_down > before.fcnt_down, "no downlink counter is used twice");
    street.close().await;
}

pub async fn a_personalised_device_of_1_1_says_that_it_began_anew_and_becomes_class_c() {
    let street = Street::open().await;
    let (dev_eui, addr) = (DevEui::from_msb(street.clock.random()), street.address());
    let key = |n| [n; 16];
    let keys = NwkKeys::V11 {
        f_nwk_s_int_key: Key::new(key(1)),
        s_nwk_s_int_key: Key::new(key(2)),
        nwk_s_enc_key: Key::new(key(3)),
    };
    street.make_known(dev_eui, addr, MacVersion::V1_1, keys, Key::new(key(4)), ClassMode::C).await;
    let its = lorawan11::Keys {
        f_nwk_s_int_key: key(1),
        s_nwk_s_int_key: key(2),
        nwk_s_enc_key: key(3),
        app_s_key: key(4),
    };
    let mut device = lorawan11::Device::abp(dev_eui.to_msb(), addr.number(), its);
    device.become_class_c();
    let mut newcomer = street.newcomer_with(device, HOME);
    let first = newcomer.say(b"here", false).await;
    assert!(first.answer.is_some(), "ResetInd and DeviceModeInd are answered");
    street.settle().await;
    let session = street.session(&newcomer).await;
    assert_eq!((session.class, session.personalised), (ClassMode::C, true));
    // without an uplink
    for payload in [b"one", b"two"] {
        street.queue(&newcomer, payload, false).await;
        let answer = newcomer.listen(Duration::from_secs(6)).await.expect("a downlink");
        assert_eq!((answer.port, answer.payload), (Some(7), payload.to_vec()));
    }
    assert_eq!(street.waiting(&newcomer).await, 0);
    street.close().await;
}
