//! LoRaWAN 1.1: a device whose code is the tests' own, at home and away.

use roamgate::demo::device::RxWindow;
use roamgate::demo::federation::HOME;

use crate::federation::Street;

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
