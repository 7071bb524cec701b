//! Packet forwarders as radio heads, over real sockets on loopback.

#[path = "support/forwarder.rs"]
mod forwarder;

use std::time::Duration;

use forwarder::{Forwarder, rxpk};
use roamgate::backend::door::Deadline;
use roamgate::clock::Clock;
use roamgate::fns::{Air, AirError, Heard, Sent, Tx};
use roamgate::lorawan::{GatewayEui, Modulation};
use roamgate::radio::{self, HeadStatus, Radio, Radios};
use serde_json::json;
use tokio::time::timeout;

const A: &str = "AA555A0000000101";
const B: &str = "AA555A0000000202";
const SF7: Modulation = Modulation::Lora { sf: 7, bandwidth: 125_000 };
const WAIT: Duration = Duration::from_secs(5);

fn eui(text: &str) -> GatewayEui {
    text.parse().unwrap()
}

async fn open(config: &radio::Config) -> Result<Radio, radio::RadioError> {
    radio::open(config, &roamgate::config::Config::default().surroundings(), &Clock::system()).await
}

/// A radio on a free port, with further lines of configuration.
async fn radio(lines: &str) -> Radio {
    let text = format!("kind = \"semtech-udp\"\nlisten = \"127.0.0.1:0\"\n{lines}");
    open(&toml::from_str(&text).unwrap()).await.unwrap()
}

async fn heard(radio: &mut Radio) -> Heard {
    timeout(WAIT, radio.heard.recv()).await.expect("a frame in time").expect("an open radio")
}

async fn nothing_heard(radio: &mut Radio) {
    assert!(timeout(Duration::from_millis(200), radio.heard.recv()).await.is_err());
}

/// RX1 of a frame.
fn answer(heard: &Heard) -> Tx {
    let delay = Duration::from_secs(1);
    Tx {
        gateway: heard.gateway,
        session: heard.session,
        phy: vec![0x60, 1, 2, 3, 4],
        frequency: heard.frequency,
        modulation: heard.modulation,
        power: 14,
        at: Some(heard.tmst.plus(delay)),
        start: heard.at + delay,
    }
}

fn before() -> Deadline {
    Deadline(Clock::system().now() + WAIT)
}

fn status(radio: &Radio, gateway: &str) -> HeadStatus {
    radio.heads.status().into_iter().find(|head| head.gateway == eui(gateway)).unwrap()
}

fn counter(radio: &Radio, name: &str) -> u64 {
    radio.heads.counters().into_iter().find(|(known, _)| *known == name).unwrap().1
}

#[tokio::test]
async fn an_uplink_is_acknowledged_and_heard() {
    let mut radio = radio("").await;
    let gateway = Forwarder::connect(radio.heads.listening().unwrap(), A).await.unwrap();
    let clock = Clock::system();
    let sent = clock.now();
    let tmst = gateway.uplink(&[0x40, 1, 2, 3], 868_300_000, "SF7BW125").await.expect("PUSH_ACK");
    let frame = heard(&mut radio).await;
    assert_eq!(frame.phy, [0x40, 1, 2, 3]);
    assert_eq!((frame.gateway, frame.frequency, frame.modulation), (eui(A), 868_300_000, SF7));
    assert_eq!((frame.rssi, frame.snr, frame.tmst.0), (-57, 7.25, tmst));
    assert!(frame.at >= sent && frame.at <= clock.now());
    assert!((clock.unix() - frame.time.as_second().unsigned_abs()) < 5);

    // several frames in one datagram, a bad CRC among them; then a position
    let now = gateway.tmst();
    let mut bad = rxpk(now, &[9; 12], 868_100_000, "SF12BW125");
    bad["stat"] = json!(-1);
    let [first, second] = [1, 2].map(|n| rxpk(now - 100_000, &[n; 12], 868_100_000, "SF12BW125"));
    let stat = json!({"time": "2026-11-20 10:13:30 GMT", "lati": 48.8, "long": 2.3, "alti": 35});
    assert!(gateway.push(&json!({"rxpk": [first, bad, second], "stat": stat})).await);
    let frames = [heard(&mut radio).await, heard(&mut radio).await];
    assert_eq!(frames.each_ref().map(|frame| frame.phy[0]), [1, 2]);
    assert_eq!(frames[0].session, frame.session);
    assert_eq!(frames[1].location, Some((48.8, 2.3)));
    assert!(clock.now() - frames[0].at >= Duration::from_millis(90), "placed where it was");
    let status = status(&radio, A);
    assert_eq!((status.rx_ok, status.rx_bad, status.online), (3, 1, true));
    assert_eq!(status.location, Some((48.8, 2.3)));
}

#[tokio::test]
async fn a_downlink_goes_to_its_head_and_the_answer_comes_back() {
    let mut radio = radio("ack_timeout = \"300ms\"").await;
    let mut gateway = Forwarder::connect(radio.heads.listening().unwrap(), A).await.unwrap();
    let radios = Radios(vec![radio.heads.clone()]);
    gateway.uplink(&[0x40], 868_300_000, "SF7BW125").await.unwrap();
    let frame = heard(&mut radio).await;

    // taken
    let (sent, downlink) =
        tokio::join!(radios.transmit(answer(&frame), before()), gateway.take_downlink(WAIT));
    assert_eq!(sent, Ok(Sent { power: None }));
    let downlink = downlink.unwrap();
    assert_eq!(downlink.phy, [0x60, 1, 2, 3, 4]);
    assert_eq!(downlink.tmst(), frame.tmst.0.wrapping_add(1_000_000));
    assert_eq!((downlink.frequency(), downlink.data_rate()), (868_300_000, "SF7BW125"));
    assert_eq!((&downlink.txpk["ipol"], &downlink.txpk["ncrc"]), (&json!(true), &json!(true)));
    assert!(gateway.ahead(downlink.tmst()) > 500_000);

    // taken with an empty TX_ACK, from the PUSH port, and with less power
    for (body, power) in
        [(None, None), (Some(json!({"txpk_ack": {"warn": "TX_POWER", "value": 12}})), Some(12))]
    {
        let head = async {
            let downlink = gateway.downlink(WAIT).await.unwrap();
            gateway.tx_ack_from_push_port(&downlink, body).await.unwrap();
        };
        let (sent, ()) = tokio::join!(radios.transmit(answer(&frame), before()), head);
        assert_eq!(sent, Ok(Sent { power }));
    }

    // refused
    for error in [AirError::TooLate, AirError::TooEarly, AirError::CollisionPacket, AirError::Frequency] {
        let head = async {
            let downlink = gateway.downlink(WAIT).await.unwrap();
            gateway.refuse(&downlink, &error.to_string()).await.unwrap();
        };
        let (sent, ()) = tokio::join!(radios.transmit(answer(&frame), before()), head);
        assert_eq!(sent, Err(error));
    }

    // not a word; the answer that comes later finds nobody
    let (sent, downlink) = tokio::join!(radios.transmit(answer(&frame), before()), gateway.downlink(WAIT));
    assert_eq!(sent, Err(AirError::Silent));
    gateway.tx_ack(&downlink.unwrap(), None).await.unwrap();
    assert!(gateway.pull().await);
    assert_eq!((counter(&radio, "silent"), counter(&radio, "stray_acks")), (1, 1));
    let status = status(&radio, A);
    assert_eq!((status.tx_ok, status.tx_failed), (3, 5));
    assert!(status.rtt.is_some());
}

#[tokio::test]
async fn gateways_that_are_not_listed_get_no_answer() {
    let mut radio = radio(&format!("gateways = [\"{A}\"]")).await;
    let server = radio.heads.listening().unwrap();
    assert_eq!((radio.heads.status().len(), radio.heads.heads()), (1, 0));
    let mut stranger = Forwarder::new(server, B).await.unwrap();
    assert!(!stranger.pull().await);
    assert_eq!(stranger.uplink(&[0x40], 868_100_000, "SF7BW125").await, None);
    nothing_heard(&mut radio).await;
    assert!(radio.heads.has(eui(A)) && !radio.heads.has(eui(B)));
    assert_eq!(counter(&radio, "strangers"), 2);

    let listed = Forwarder::connect(server, A).await.unwrap();
    listed.uplink(&[0x40], 868_100_000, "SF7BW125").await.unwrap();
    heard(&mut radio).await;
    assert_eq!(radio.heads.heads(), 1);
}

#[tokio::test]
async fn addresses_that_are_not_allowed_get_no_answer() {
    let radio = radio("allow_from = [\"192.0.2.0/24\"]").await;
    let mut gateway = Forwarder::new(radio.heads.listening().unwrap(), A).await.unwrap();
    assert!(!gateway.pull().await);
    assert_eq!(counter(&radio, "strangers"), 1);
}

#[tokio::test]
async fn garbage_is_counted_and_does_no_harm() {
    let mut radio = radio("").await;
    let gateway = Forwarder::connect(radio.heads.listening().unwrap(), A).await.unwrap();
    let push = [&[2, 7, 7, 0][..], &eui(A).to_msb()].concat();
    let garbage: [&[u8]; 8] = [
        b"",
        b"\x02",
        b"GET / HTTP/1.1\r\n\r\n",
        &[2, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8],
        &[7, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        &[&push[..], b"{\"rxpk\":[{"].concat(),
        &[&push[..], &[0xFF; 3000]].concat(),
        &[&push[..], "[".repeat(60_000).as_bytes()].concat(),
    ];
    for bytes in garbage {
        gateway.send_raw(bytes).await.unwrap();
    }
    gateway.uplink(&[0x40], 868_100_000, "SF7BW125").await.expect("still served");
    assert_eq!(heard(&mut radio).await.phy, [0x40]);
    assert_eq!(counter(&radio, "malformed"), 8);
}

#[tokio::test]
async fn two_gateways_are_two_heads() {
    let mut radio = radio("").await;
    let server = radio.heads.listening().unwrap();
    let mut a = Forwarder::connect(server, A).await.unwrap();
    let mut b = Forwarder::connect(server, B).await.unwrap();
    assert_eq!(radio.heads.heads(), 2);
    a.uplink(&[0x40, 1], 868_100_000, "SF7BW125").await.unwrap();
    let at_a = heard(&mut radio).await;
    b.uplink(&[0x40, 1], 868_100_000, "SF7BW125").await.unwrap();
    let at_b = heard(&mut radio).await;
    assert_eq!((at_a.gateway, at_b.gateway), (eui(A), eui(B)));
    assert_ne!(at_a.session, at_b.session);

    let (sent, downlink) = tokio::join!(radio.heads.transmit(answer(&at_b), before()), b.take_downlink(WAIT));
    assert!(sent.is_ok() && downlink.is_some());
    assert_eq!(a.downlink(Duration::from_millis(50)).await, None);
    // a head that nobody knows, and one asked with another's session
    let unknown = Tx { gateway: eui("0000000000000001"), ..answer(&at_a) };
    let radios = Radios(vec![radio.heads.clone()]);
    assert_eq!(radios.transmit(unknown.clone(), before()).await, Err(AirError::Gone(unknown.gateway)));
    let crossed = Tx { gateway: eui(B), ..answer(&at_a) };
    assert_eq!(radios.transmit(crossed, before()).await, Err(AirError::Gone(eui(B))));
    // someone else's TX_ACK does not count
    let head = async {
        let downlink = b.downlink(WAIT).await.unwrap();
        a.refuse(&downlink, "TOO_LATE").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        b.tx_ack(&downlink, None).await.unwrap();
    };
    let (sent, ()) = tokio::join!(radios.transmit(answer(&at_b), before()), head);
    assert_eq!(sent, Ok(Sent { power: None }));
}

#[tokio::test]
async fn a_downlink_follows_a_head_whose_port_changes() {
    let mut radio = radio("").await;
    let mut gateway = Forwarder::connect(radio.heads.listening().unwrap(), A).await.unwrap();
    gateway.uplink(&[0x40], 868_100_000, "SF7BW125").await.unwrap();
    let frame = heard(&mut radio).await;
    gateway.change_port().await.unwrap();
    assert!(gateway.pull().await);
    let (sent, downlink) =
        tokio::join!(radio.heads.transmit(answer(&frame), before()), gateway.take_downlink(WAIT));
    assert!(sent.is_ok() && downlink.is_some());
}

#[tokio::test]
async fn a_restarted_head_is_another_session() {
    let mut radio = radio("").await;
    let mut gateway = Forwarder::connect(radio.heads.listening().unwrap(), A).await.unwrap();
    gateway.uplink(&[0x40], 868_100_000, "SF7BW125").await.unwrap();
    let old = heard(&mut radio).await;
    // the counter wraps meanwhile, which is no restart
    tokio::time::sleep(Duration::from_millis(3100)).await;
    gateway.uplink(&[0x40], 868_100_000, "SF7BW125").await.unwrap();
    let wrapped = heard(&mut radio).await;
    assert!(wrapped.tmst.0 < old.tmst.0);
    assert_eq!(wrapped.session, old.session);

    tokio::time::sleep(Duration::from_millis(4500)).await;
    gateway.restart();
    gateway.uplink(&[0x40], 868_100_000, "SF7BW125").await.unwrap();
    let new = heard(&mut radio).await;
    assert_ne!(new.session, old.session);
    assert_eq!(radio.heads.transmit(answer(&old), before()).await, Err(AirError::Gone(eui(A))));
    let (sent, downlink) =
        tokio::join!(radio.heads.transmit(answer(&new), before()), gateway.take_downlink(WAIT));
    assert_eq!(sent, Ok(Sent { power: None }));
    assert_eq!(downlink.unwrap().tmst(), new.tmst.0 + 1_000_000);
}

#[tokio::test]
async fn a_head_that_keeps_silent_is_offline_after_three_periods() {
    let mut radio = radio("keep_alive = \"100ms\"").await;
    let mut gateway = Forwarder::connect(radio.heads.listening().unwrap(), A).await.unwrap();
    gateway.uplink(&[0x40], 868_100_000, "SF7BW125").await.unwrap();
    let frame = heard(&mut radio).await;
    gateway.keep_alive(Duration::from_millis(50));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(radio.heads.heads(), 1);
    drop(gateway);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(radio.heads.heads(), 0);
    assert!(!status(&radio, A).online);
    assert_eq!(radio.heads.transmit(answer(&frame), before()).await, Err(AirError::Gone(eui(A))));
}

#[tokio::test]
async fn a_port_in_use_is_told_with_its_address_and_a_closed_radio_frees_it() {
    let first = radio("").await;
    let listen = first.heads.listening().unwrap();
    let text = format!("kind = \"semtech-udp\"\nlisten = \"{listen}\"\nname = \"attic\"");
    let config: radio::Config = toml::from_str(&text).unwrap();
    let error = open(&config).await.err().unwrap();
    assert_eq!(error.to_string(), format!("radio attic: cannot listen on {listen}/udp"));
    drop(first);
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Ok(again) = open(&config).await {
            assert_eq!(again.name, "attic");
            return;
        }
    }
    panic!("the port stays in use");
}

#[test]
fn a_radio_is_configured_by_its_kind() {
    let read = |text: &str| toml::from_str::<radio::Config>(text).map_err(|error| error.to_string());
    let plain = read("kind = \"semtech-udp\"").unwrap();
    assert_eq!(plain, radio::Config::default());
    let radio::Config::SemtechUdp(config) = &plain else { panic!("{plain:?}") };
    assert_eq!(config.listen, "0.0.0.0:1700".parse().unwrap());
    assert_eq!(read(&toml::to_string(&plain).unwrap()), Ok(plain));

    for (text, reason) in [
        ("kind = \"basics-station\"", "\"basics-station\" is not in this version"),
        ("kind = \"semtech-udp\"\nlisten_on = \"x\"", "unknown field `listen_on`"),
        ("kind = \"semtech-udp\"\ngateways = [\"AA\"]", "GatewayEui is 16 hexadecimal digits"),
        ("kind = \"semtech-udp\"\nallow_from = [\"home\"]", "neither an IP address nor a network"),
        ("kind = \"semtech-udp\"\nkeep_alive = \"1 fortnight\"", "no time from"),
        ("kind = \"carrier-pigeon\"", "unknown variant `carrier-pigeon`"),
        ("listen = \"0.0.0.0:1700\"", "missing field `kind`"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}
