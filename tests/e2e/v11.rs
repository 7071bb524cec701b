//! LoRaWAN 1.1: a device whose code is the tests' own, at home and away.

use roamgate::demo::device::RxWindow;
use roamgate::demo::federation::{HOME, VISITED};

use crate::federation::Street;
use crate::newer::{Newcomer, Plan};

pub async fn a_device_joins_twice_and_talks() {
    let mut street = Street::open().await;
    let mut newcomer = street.newcomer(HOME).await;
    let mut addresses = Vec::new();
    for round in 0..2_usize {
        street.newcomer_joins(&mut newcomer).await;
        assert!(newcomer.device.is_v11(), "OptNeg is set");
        assert_eq!(newcomer.device.channels.len(), 8, "three of the region, five of the CFList");
        addresses.push(newcomer.device.addr().unwrap());
        // RekeyConf, in a frame of the network's own
        let first = newcomer.say(b"21.5", false).await;
        assert_eq!((first.answer().port, first.answer().application), (Some(0), false));
        // the channel is in the MIC, those of the CFList too
        newcomer.device.channel = 6;
        let quiet = newcomer.say(b"22", false).await;
        assert_eq!(quiet.answer, None, "nobody asked for an answer");
        newcomer.device.channel = 1;
        let confirmed = newcomer.say(b"23", true).await;
        assert!(confirmed.acked());
        assert_eq!(confirmed.answer.as_ref().unwrap().1, RxWindow::Rx1);
        // each counter goes its own way
        assert_eq!((confirmed.answer().application, confirmed.answer().fcnt), (false, 1));
        street.queue(&newcomer, b"on", false).await;
        street.queue(&newcomer, b"off", true).await;
        let with = newcomer.say(b"24", true).await;
        assert!(with.acked());
        let answer = with.answer();
        assert_eq!((answer.application, answer.fcnt, answer.payload.as_slice()), (true, 0, &b"on"[..]));
        let with = newcomer.say(b"25", false).await;
        let answer = with.answer();
        assert_eq!((answer.ack, answer.confirmed, answer.fcnt), (false, true, 1));
        assert_eq!((answer.port, answer.payload.as_slice()), (Some(7), &b"off"[..]));
        street.settle().await;
        assert_eq!(street.waiting(&newcomer).await, 1, "not acknowledged yet");
        // its counter is in the MIC of the acknowledgement
        newcomer.say(b"26", false).await;
        street.settle().await;
        assert_eq!(street.waiting(&newcomer).await, 0);
        let told = street.delivered(&newcomer).split_off(6 * round);
        let expected = [&b"21.5"[..], b"22", b"23", b"24", b"25", b"26"];
        assert_eq!(told.iter().map(|(_, payload)| payload.as_slice()).collect::<Vec<_>>(), expected);
        assert_eq!(told.iter().map(|(fcnt, _)| *fcnt).collect::<Vec<_>>(), (0..6).collect::<Vec<_>>());
    }
    assert_ne!(addresses[0], addresses[1]);
    street.close().await;
}

pub async fn it_says_that_it_rekeyed_until_it_is_confirmed() {
    let street = Street::open().await;
    let mut newcomer = street.newcomer(HOME).await;
    street.newcomer_joins(&mut newcomer).await;
    // two uplinks whose answers it misses: it goes on saying so
    for _ in 0..2 {
        let frame = newcomer.device.uplink(2, b"lost", false);
        assert!(newcomer.exchange(&frame, 1).await.is_some());
        assert!(newcomer.device.rekey);
    }
    // LinkCheckReq goes along in the encrypted FOpts, and both answers come in FOpts beside a payload
    street.queue(&newcomer, b"payload", false).await;
    newcomer.device.commands = vec![0x02];
    let sent = newcomer.say(b"and now", true).await;
    let answer = sent.answer();
    assert_eq!(answer.payload, b"payload");
    assert_eq!((answer.ack, answer.application), (true, true));
    assert_eq!((&answer.commands[..3], answer.commands.len()), (&[0x0B, 1, 0x02][..], 5));
    assert!(!newcomer.device.rekey);
    let sent = newcomer.say(b"quiet", false).await;
    assert_eq!(sent.answer, None);
    // on FPort 0 too
    newcomer.device.commands = vec![0x0D];
    let frame = newcomer.device.uplink_on_port_0(false);
    let sent = newcomer.send(frame).await;
    assert_eq!((sent.answer().port, sent.answer().commands[0]), (Some(0), 0x0D));
    street.close().await;
}

pub async fn it_joins_away_and_downlinks_ride_in_the_answers() {
    let mut street = Street::open().await;
    joins_away_and_talks(&mut street).await;
    assert_eq!(street.asked(HOME, "XmitDataReq"), 0, "every downlink rode in an answer");
    assert_eq!(street.asked(VISITED, "HomeNSReq"), 1);
    street.close().await;
}

pub async fn it_joins_away_and_downlinks_come_by_xmitdatareq() {
    let mut street = Street::open().await;
    let answers = |config: &mut toml::Table| {
        config["backend"].as_table_mut().unwrap().insert("downlink_in_answer".into(), false.into());
    };
    street.restart(VISITED, answers).await;
    joins_away_and_talks(&mut street).await;
    assert_eq!(street.asked(HOME, "XmitDataReq"), 4, "each downlink by a request of its own");
    street.close().await;
}

/// The home checks both halves of every MIC by data rate and channel as the visited network tells them.
async fn joins_away_and_talks(street: &mut Street) {
    let mut newcomer = street.newcomer(VISITED).await;
    street.newcomer_joins(&mut newcomer).await;
    assert!(newcomer.device.is_v11());
    (newcomer.device.channel, newcomer.device.data_rate) = (7, 3);
    let first = newcomer.say(b"hello", true).await;
    assert!(first.acked() && !newcomer.device.rekey);
    newcomer.device.channel = 4;
    assert_eq!(newcomer.say(b"quiet", false).await.answer, None);
    street.queue(&newcomer, b"confirm this", true).await;
    newcomer.device.commands = vec![0x02];
    let with = newcomer.say(b"3", true).await;
    let answer = with.answer();
    assert_eq!((answer.ack, answer.payload.as_slice(), answer.fcnt), (true, &b"confirm this"[..], 0));
    assert_eq!((answer.application, answer.commands[0]), (true, 0x02));
    let acknowledging = newcomer.say(b"4", true).await;
    assert!(acknowledging.acked());
    street.settle().await;
    assert_eq!(street.waiting(&newcomer).await, 0);
    newcomer.device.commands = vec![0x0D];
    let frame = newcomer.device.uplink_on_port_0(false);
    assert_eq!(newcomer.send(frame).await.answer().commands[0], 0x0D);
    // and home again, where its session is
    newcomer.carry(HOME);
    assert!(newcomer.say(b"home", true).await.acked());
    street.settle().await;
    let told: Vec<Vec<u8>> = street.delivered(&newcomer).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(told, [&b"hello"[..], b"quiet", b"3", b"4", b"home"]);
    assert_eq!(street.handed(HOME).len(), 1, "the home's own radio spoke at home only");
}

pub async fn what_it_repeats_on_another_channel_is_acknowledged_again() {
    let mut street = Street::open().await;
    let mut newcomer = joined(&street).await;
    let frame = newcomer.device.uplink(2, b"once", true);
    newcomer.exchange(&frame, 1).await.expect("an acknowledgement, which it misses");
    newcomer.device.channel = 2;
    let again = newcomer.device.repeat();
    assert_ne!(again.phy, frame.phy, "another channel, another MIC");
    assert!(newcomer.send(again).await.acked());
    // what it acknowledges, it acknowledges again: also where the first answer brought the next one
    street.queue(&newcomer, b"one", true).await;
    street.queue(&newcomer, b"two", true).await;
    assert_eq!(newcomer.say(b"1", false).await.answer().payload, b"one");
    let frame = newcomer.device.uplink(2, b"2", true);
    newcomer.exchange(&frame, 1).await.expect("the second, which it misses");
    street.settle().await;
    assert_eq!(street.waiting(&newcomer).await, 1, "the first is acknowledged");
    newcomer.device.channel = 0;
    let again = newcomer.send(newcomer.device.repeat()).await;
    assert_eq!((again.acked(), again.answer().payload.as_slice()), (true, &b"two"[..]));
    street.settle().await;
    assert_eq!(street.waiting(&newcomer).await, 1, "the second is not: the repetition meant the first");
    newcomer.say(b"3", false).await;
    street.settle().await;
    assert_eq!(street.waiting(&newcomer).await, 0);
    let told: Vec<Vec<u8>> = street.delivered(&newcomer).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(told.iter().map(Vec::as_slice).filter(|told| *told == b"once").count(), 1, "delivered once");
    street.close().await;
}

pub async fn a_join_accept_that_it_did_not_hear_leaves_its_session() {
    let street = Street::open().await;
    let mut newcomer = joined(&street).await;
    let address = newcomer.device.addr();
    let request = newcomer.device.join_request();
    assert!(newcomer.exchange(&request, 5).await.is_some());
    assert!(newcomer.say(b"still here", true).await.acked());
    // the next one it hears; the one it did not hear is gone
    street.newcomer_joins(&mut newcomer).await;
    assert_ne!(newcomer.device.addr(), address);
    assert!(newcomer.say(b"new keys", true).await.acked());
    assert!(!newcomer.device.rekey);
    street.close().await;
}

pub async fn the_home_restarts_and_both_counters_go_on() {
    let mut street = Street::open().await;
    let mut newcomer = street.newcomer(HOME).await;
    street.newcomer_joins(&mut newcomer).await;
    street.restart(HOME, |_| ()).await;
    // the class is on disk before it is confirmed
    newcomer.device.become_class_c();
    let first = newcomer.say(b"first", false).await;
    assert_eq!((first.answer().fcnt, &first.answer().commands[..]), (0, &[0x0B, 1, 0x20, 2][..]));
    newcomer.device.become_class_a();
    assert_eq!(newcomer.say(b"back", false).await.answer().commands, [0x20, 0]);
    street.queue(&newcomer, b"before", true).await;
    let sent = newcomer.say(b"1", true).await;
    assert_eq!((sent.acked(), sent.answer().fcnt, sent.answer().application), (true, 0, true));
    street.settle().await;
    street.restart(HOME, |_| ()).await;
    // its MIC covers the counter of the downlink from before
    street.queue(&newcomer, b"after", false).await;
    let sent = newcomer.say(b"2", true).await;
    assert_eq!(
        (sent.acked(), sent.answer().fcnt, sent.answer().payload.as_slice()),
        (true, 1, &b"after"[..])
    );
    street.settle().await;
    assert_eq!(street.waiting(&newcomer).await, 0, "acknowledged");
    let sent = newcomer.say(b"3", true).await;
    assert_eq!((sent.acked(), sent.answer().fcnt, sent.answer().application), (true, 2, false));
    street.close().await;
}

pub async fn on_a_network_of_1_0_4_it_falls_back_until_the_network_speaks_1_1() {
    let mut street = Street::open().await;
    let speak = |version: &'static str| {
        move |config: &mut toml::Table| {
            config["network"].as_table_mut().unwrap().insert("lorawan".into(), version.into());
        }
    };
    street.restart(HOME, speak("1.0.4")).await;
    let mut newcomer = street.newcomer(HOME).await;
    street.newcomer_joins(&mut newcomer).await;
    assert!(!newcomer.device.is_v11(), "OptNeg is clear");
    assert_eq!(newcomer.say(b"1", false).await.answer, None, "there is nothing to confirm");
    street.queue(&newcomer, b"with", true).await;
    let with = newcomer.say(b"2", true).await;
    assert_eq!((with.acked(), with.answer().payload.as_slice(), with.answer().fcnt), (true, &b"with"[..], 0));
    // one counter for all downlinks
    let without = newcomer.say(b"3", true).await;
    assert_eq!((without.acked(), without.answer().fcnt), (true, 1));
    street.settle().await;
    assert_eq!(street.waiting(&newcomer).await, 0);
    // a session goes on as it began; the next one is of the network's new version
    street.restart(HOME, speak("1.1")).await;
    let on = newcomer.say(b"4", true).await;
    assert_eq!((on.acked(), on.answer().fcnt), (true, 2));
    street.newcomer_joins(&mut newcomer).await;
    assert!(newcomer.device.is_v11());
    assert!(newcomer.say(b"5", true).await.acked() && !newcomer.device.rekey);
    street.settle().await;
    assert_eq!(street.delivered(&newcomer).len(), 5);
    street.close().await;
}

/// A device at home whose new keys are confirmed.
async fn joined(street: &Street) -> Newcomer {
    let mut newcomer = street.newcomer(HOME).await;
    street.newcomer_joins(&mut newcomer).await;
    assert!(newcomer.say(b"first", true).await.acked() && !newcomer.device.rekey);
    newcomer
}

/// Its MIC covers data rate and channel, of which there are 72.
pub async fn it_talks_in_us915_at_home_and_away() {
    let mut street = Street::open().await;
    street.resettle(HOME, "US915", &[2]).await;
    street.resettle(VISITED, "US915", &[]).await;
    let mut newcomer = street.newcomer(HOME).await;
    newcomer.plan = Plan::Us915;
    let narrow = (0..64).map(|n| 902_300_000 + n * 200_000);
    newcomer.device.channels = narrow.chain((0..8).map(|n| 903_000_000 + n * 1_600_000)).collect();
    (newcomer.device.channel, newcomer.device.data_rate) = (9, 0);
    street.newcomer_joins(&mut newcomer).await;
    assert!(newcomer.device.is_v11() && newcomer.device.dl_settings & 0x0F == 8);
    let masks = newcomer.device.masks.expect("a CFList of type 1");
    assert_eq!(masks[..8], [0, 0xFF, 0, 0, 0, 0, 0, 0], "of the 64 channels those of the sub-band");
    for (site, channel, data_rate) in
        [(HOME, 15, 3), (HOME, 65, 4), (VISITED, 8, 1), (VISITED, 14, 2), (HOME, 65, 4)]
    {
        newcomer.carry(site);
        (newcomer.device.channel, newcomer.device.data_rate) = (channel, data_rate);
        street.queue(&newcomer, &[channel as u8], false).await;
        let sent = newcomer.say(b"up", true).await;
        assert!(sent.acked(), "channel {channel}: {:?}", street.whys(site));
        assert_eq!(sent.answer().payload, [channel as u8]);
    }
    street.close().await;
}
