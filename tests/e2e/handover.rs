//! Handover roaming: the visited hotspot serves the device, its home keeps the application; and Rejoin-requests, which move a
//! LoRaWAN 1.1 device from one to the other.

use roamgate::backend::message::MacVersion;
use roamgate::control::Operator;
use roamgate::demo::device::RxWindow;
use roamgate::demo::federation::{HOME, Site, VISITED};
use roamgate::lorawan::DevAddr;

use crate::federation::{Street, Walker};
use crate::newer::Newcomer;

impl Street {
    /// Both hotspots have agreed that each may serve the other's devices.
    async fn agreed() -> Street {
        let mut street = Street::open().await;
        for (at, with) in [(HOME, VISITED), (VISITED, HOME)] {
            street.restart(at, |config| agree(config, with)).await;
        }
        street
    }

    async fn sessions_at(&mut self, site: Site, of: &impl crate::federation::Known) -> usize {
        self.settle().await;
        let store = self.hotspot(site).node().unwrap().store().clone();
        store.sessions_of(of.dev_eui()).await.unwrap().len()
    }

    /// A confirmed uplink that must be answered, and delivered once.
    async fn hears_of(&mut self, walker: &mut Walker, text: &[u8]) {
        let sent = walker.send(text, true).await;
        assert_eq!((sent.acked, sent.window), (true, Some(RxWindow::Rx1)));
        self.settle().await;
        let told = self.delivered(walker);
        let so =
            told.iter().filter(|(fcnt_up, payload)| (*fcnt_up, &**payload) == (sent.fcnt_up, text)).count();
        assert_eq!(so, 1, "{told:?}");
    }

    /// A Rejoin-request that must be answered as a Join-request is.
    async fn rejoins(&mut self, newcomer: &mut Newcomer, kind: u8) {
        let request = newcomer.device.rejoin_request(kind);
        let received = newcomer.exchange(&request, 5).await;
        let (phy, _) = received
            .unwrap_or_else(|| panic!("no Join-accept: {:?} {:?}", self.whys(HOME), self.whys(VISITED)));
        newcomer.device.take_accept(&phy).expect("the Join-accept is right");
    }

    async fn rejoins_in_vain(&mut self, newcomer: &mut Newcomer, kind: u8) {
        let request = newcomer.device.rejoin_request(kind);
        assert_eq!(newcomer.exchange(&request, 5).await, None);
    }
}

fn agree(config: &mut toml::Table, with: Site) {
    let entry = format!(
        "net_id = \"{}\"\nhandover = {{ start = true, activation = true }}\n\
         kek = {{ label = \"ours\", key = \"{}\" }}",
        with.net_id,
        "5A".repeat(16)
    );
    let roaming = config.entry("roaming").or_insert_with(|| toml::Table::new().into());
    let roaming = roaming.as_table_mut().unwrap();
    roaming.insert("partner".into(), toml::Value::Array(vec![entry.parse::<toml::Table>().unwrap().into()]));
}

fn is_of(site: Site, addr: Option<u32>) -> bool {
    site.net_id.covers(DevAddr::new(addr.expect("a session")))
}

pub async fn the_visited_hotspot_serves_a_device_until_it_is_home() {
    let mut street = Street::agreed().await;
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    street.join(&mut walker, VISITED).await;
    let asked =
        ["HomeNSReq", "ProfileReq", "HRStartReq", "PRStartReq"].map(|message| street.asked(VISITED, message));
    assert_eq!(asked, [1, 1, 1, 0]);
    assert_eq!((street.sessions_at(HOME, &walker).await, street.sessions_at(VISITED, &walker).await), (0, 1));
    street.hears_of(&mut walker, b"21.5").await;
    assert_eq!(street.view(&walker).await.served_by, Some(VISITED.net_id));
    street.queue(&walker, b"on", true).await;
    let sent = walker.send(b"22", true).await;
    assert_eq!((sent.acked, sent.downlinks), (true, vec![(7, b"on".to_vec())]));
    street.hears_of(&mut walker, b"23").await;
    assert_eq!(street.waiting(&walker).await, 0, "acknowledged");
    // both sides keep it over a restart
    street.restart(VISITED, |_| ()).await;
    street.hears_of(&mut walker, b"24").await;
    street.restart(HOME, |_| ()).await;
    street.queue(&walker, b"off", false).await;
    assert_eq!(walker.send(b"25", true).await.downlinks, [(7, b"off".to_vec())]);
    // its home is away: the device does not notice, and nothing is lost
    street.stop(HOME).await;
    let sent = walker.send(b"26", true).await;
    assert!(sent.acked);
    street.restart(HOME, |_| ()).await;
    street.hears_of(&mut walker, b"27").await;
    // and at home its home serves it
    walker.carry(HOME);
    street.join(&mut walker, HOME).await;
    street.hears_of(&mut walker, b"home").await;
    for _ in 0..20 {
        if street.sessions_at(VISITED, &walker).await == 0 {
            break;
        }
    }
    assert_eq!((street.asked(HOME, "HRStopReq"), street.sessions_at(VISITED, &walker).await), (1, 0));
    assert_eq!(street.view(&walker).await.served_by, None);
    street.close().await;
}

pub async fn a_rejoin_moves_a_device_there_and_back() {
    let mut street = Street::agreed().await;
    let mut newcomer = street.newcomer(HOME).await;
    street.newcomer_joins(&mut newcomer).await;
    assert!(newcomer.say(b"home", true).await.acked());
    // nobody has asked: the network that serves it drops it
    street.rejoins_in_vain(&mut newcomer, 0).await;
    newcomer.carry(VISITED);
    street.rejoins(&mut newcomer, 0).await;
    assert!(newcomer.device.is_v11() && is_of(VISITED, newcomer.device.addr()));
    assert_eq!((street.asked(VISITED, "ProfileReq"), street.asked(VISITED, "HRStartReq")), (1, 1));
    assert_eq!(street.sessions_at(HOME, &newcomer).await, 1, "it may not have heard the Join-accept");
    assert!(newcomer.say(b"away", true).await.acked() && !newcomer.device.rekey);
    assert_eq!(
        (street.sessions_at(HOME, &newcomer).await, street.sessions_at(VISITED, &newcomer).await),
        (0, 1)
    );
    street.queue(&newcomer, b"by the home", false).await;
    let with = newcomer.say(b"again", true).await;
    assert_eq!((with.answer().application, with.answer().payload.as_slice()), (true, &b"by the home"[..]));
    // its home does not get it back without asking for it
    newcomer.carry(HOME);
    street.rejoins_in_vain(&mut newcomer, 0).await;
    newcomer.carry(VISITED);
    let operator = street.home().node().unwrap().operator();
    assert_eq!(operator.rejoin(newcomer.dev_eui, 0).await, Ok(Some(VISITED.net_id)));
    newcomer.say(b"what is it", true).await;
    assert_eq!(newcomer.device.forced, Some(0), "ForceRejoinReq");
    // a copy of it abroad leads to nobody else
    street.rejoins_in_vain(&mut newcomer, 0).await;
    newcomer.carry(HOME);
    street.rejoins(&mut newcomer, 0).await;
    assert!(is_of(HOME, newcomer.device.addr()));
    assert!(newcomer.say(b"back", true).await.acked());
    for _ in 0..20 {
        if street.sessions_at(VISITED, &newcomer).await == 0 {
            break;
        }
    }
    assert_eq!((street.asked(HOME, "HRStopReq"), street.sessions_at(VISITED, &newcomer).await), (1, 0));
    let told: Vec<Vec<u8>> = street.delivered(&newcomer).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(told, [&b"home"[..], b"away", b"again", b"what is it", b"back"]);
    street.close().await;
}

pub async fn a_rejoin_gives_new_keys_and_recovers_a_lost_session() {
    let mut street = Street::agreed().await;
    let mut newcomer = street.newcomer(HOME).await;
    street.newcomer_joins(&mut newcomer).await;
    assert!(newcomer.say(b"1", true).await.acked());
    // type 2 only where it was asked for, and once
    street.rejoins_in_vain(&mut newcomer, 2).await;
    let operator = street.home().node().unwrap().operator();
    assert_eq!(operator.rejoin(newcomer.dev_eui, 2).await, Ok(None));
    newcomer.say(b"2", true).await;
    assert_eq!(newcomer.device.forced, Some(2));
    let (address, channels) = (newcomer.device.addr(), newcomer.device.channels.clone());
    newcomer.device.channel = 6;
    street.rejoins(&mut newcomer, 2).await;
    assert!(newcomer.device.addr() != address && newcomer.device.channels == channels);
    assert!(newcomer.say(b"3", true).await.acked() && !newcomer.device.rekey);
    street.rejoins_in_vain(&mut newcomer, 2).await;
    // type 1 of a device whose session is healthy is not answered
    street.rejoins_in_vain(&mut newcomer, 1).await;
    let store = street.home().node().unwrap().store().clone();
    let lose = |sessions: &mut Vec<roamgate::sns::Session>| {
        sessions.clear();
        roamgate::sns::Write::sessions(roamgate::backend::door::Commit::Durable)
    };
    roamgate::sns::Sessions::with_device(&store, newcomer.dev_eui, Box::new(lose)).await.unwrap();
    assert_eq!(newcomer.say(b"lost", true).await.answer, None);
    let replayed = newcomer.device.rj_count1;
    street.rejoins(&mut newcomer, 1).await;
    assert!(newcomer.say(b"4", true).await.acked());
    // the same count once more, after another loss
    newcomer.device.rj_count1 = replayed;
    roamgate::sns::Sessions::with_device(&store, newcomer.dev_eui, Box::new(lose)).await.unwrap();
    street.rejoins_in_vain(&mut newcomer, 1).await;
    assert!(street.whys(HOME).last().unwrap().contains("RJcount1"), "{:?}", street.whys(HOME));
    // a visited network that may serve it takes a type 1 for a Join-request
    newcomer.carry(VISITED);
    newcomer.device.rj_count1 = replayed + 1;
    street.rejoins(&mut newcomer, 1).await;
    assert!(is_of(VISITED, newcomer.device.addr()) && newcomer.say(b"5", true).await.acked());
    street.settle().await;
    let told: Vec<Vec<u8>> = street.delivered(&newcomer).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(told, [&b"1"[..], b"2", b"3", b"4", b"5"]);
    street.close().await;
}

/// The visited network only forwards, and the home that serves the device wants other keys (TS002 12.6.1).
pub async fn a_rejoin_of_type_2_goes_home_through_who_forwards() {
    let mut street = Street::open().await;
    let mut newcomer = street.newcomer(VISITED).await;
    street.newcomer_joins(&mut newcomer).await;
    assert!(newcomer.say(b"1", true).await.acked());
    let operator = street.home().node().unwrap().operator();
    assert_eq!(operator.rejoin(newcomer.dev_eui, 2).await, Ok(None));
    newcomer.say(b"2", true).await;
    assert_eq!(newcomer.device.forced, Some(2));
    let address = newcomer.device.addr();
    street.rejoins(&mut newcomer, 2).await;
    assert!(newcomer.device.addr() != address && is_of(HOME, newcomer.device.addr()));
    assert!(newcomer.say(b"3", true).await.acked() && !newcomer.device.rekey);
    // types that nobody has agreed to lead nowhere
    street.rejoins_in_vain(&mut newcomer, 0).await;
    assert!(street.whys(VISITED).last().unwrap().contains("may not activate"), "{:?}", street.whys(VISITED));
    street.close().await;
}
