//! What a daemon refuses, and that it stays up.

use rand::RngExt;
use roamgate::clock::Clock;
use serde_json::json;

use crate::forwarder::{Forwarder, rxpk};
use crate::program::{Place, free_port};

const LISTED: &str = "AA555A0000000101";

fn config(listen: std::net::SocketAddr, more: &str) -> String {
    format!(
        "[store]\nurl = \"sqlite:@/data/roamgate.db\"\n\
         [[radio]]\nkind = \"semtech-udp\"\nlisten = \"{listen}\"\n{more}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_not_listed_gets_no_answer_and_is_counted() {
    let listen = free_port();
    let place = Place::with_config(&config(listen, &format!("gateways = [\"{LISTED}\"]\n")));
    let daemon = place.runs().await;
    let mut stranger = Forwarder::new(listen, "AA555A0000000202").await.unwrap();
    let frame = json!({ "rxpk": [rxpk(stranger.tmst(), &[0; 23], 868_100_000, "SF7BW125")] });
    assert!(!stranger.pull().await, "PULL_ACK for a stranger");
    assert!(!stranger.push(&frame).await, "PUSH_ACK for a stranger");
    let listed = Forwarder::connect(listen, LISTED).await.unwrap();
    assert!(listed.push(&frame).await);
    let told = daemon.log.wait(0, &["gateway refused", "AA555A0000000202", "not in `gateways`"]).await;
    assert!(told.contains("strangers=1"), "{told}");
    daemon.log.wait(0, &["frames collected"]).await;
    let log = daemon.log.text();
    assert_eq!(log.matches("frames collected").count(), 1, "{log}");
    assert!(daemon.stops().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_datagrams_do_not_stop_it() {
    let listen = free_port();
    let place = Place::with_config(&config(listen, ""));
    let mut daemon = place.runs().await;
    let gateway = Forwarder::connect(listen, LISTED).await.unwrap();
    let seed = u64::from_be_bytes(Clock::system().random());
    println!("seed {seed}");
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let eui = hex::decode(LISTED).unwrap();
    let with = |kind: u8, body: &[u8]| [&[2, 0, 1, kind][..], &eui, body].concat();
    let mut bad = vec![
        Vec::new(),
        vec![2],
        with(0, b"")[..11].to_vec(),
        with(0, b""),
        with(0, b"{"),
        with(0, b"[]"),
        with(0, b"{\"rxpk\":7}"),
        with(0, &[b'['; 30_000]),
        with(0, b"{\"rxpk\":[{\"tmst\":-1,\"freq\":1e400,\"data\":\"?\"}]}"),
        with(0, json!({ "rxpk": [rxpk(1, &[], 868_100_000, "SF7BW125")] }).to_string().as_bytes()),
        with(0, json!({ "rxpk": [rxpk(1, &[0; 300], 0, "SF99BW1")] }).to_string().as_bytes()),
        with(0, json!({ "rxpk": [rxpk(1, &[0xFF; 255], 868_100_000, "")] }).to_string().as_bytes()),
        with(5, b"{\"txpk_ack\":{\"error\":\"NONE\"}}"),
        with(5, &[0xFF; 64]),
        with(3, b"{}"),
        with(99, b"{}"),
    ];
    for _ in 0..500 {
        let mut bytes: Vec<u8> = (0..rng.random_range(0..200)).map(|_| rng.random()).collect();
        // every other one gets past the header
        if rng.random() && bytes.len() > 12 {
            bytes[0] = 2;
            bytes[3] = rng.random_range(0..6);
        }
        bad.push(bytes);
    }
    for (place, bytes) in bad.iter().enumerate() {
        gateway.send_raw(bytes).await.unwrap();
        if place % 50 == 0 {
            // so that the socket's buffer does not overflow and it reads them all
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    let good = json!({ "rxpk": [rxpk(gateway.tmst(), &[0; 23], 868_100_000, "SF7BW125")] });
    // acknowledgements of the bad ones may be on the way
    let fresh = Forwarder::connect(listen, LISTED).await.unwrap();
    assert!(fresh.push(&good).await);
    daemon.log.wait(0, &["frames collected", "JoinRequest"]).await;
    assert!(daemon.is_running());
    let log = daemon.log.text();
    assert!(!log.contains("panicked"), "{log}");
    // each cause once, not five hundred lines
    let told: Vec<&str> = log.lines().filter(|line| line.contains("datagram dropped")).collect();
    assert!((1..=34).contains(&told.len()) && told.iter().all(|line| line.contains("remedy=")), "{told:#?}");
    assert!(daemon.stops().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_store_is_refused() {
    let place = Place::with_config(&config(free_port(), ""));
    let mut daemon = place.runs().await;
    // the same again, and one that differs in everything but the store
    let mut other = Place::empty();
    let elsewhere = config(free_port(), "[control]\nsocket = \"SOCKET\"\n")
        .replace("SOCKET", &other.at("control.sock").display().to_string())
        .replace('@', &place.folder.path().display().to_string());
    other.configure(&elsewhere);
    for second in [&place, &other] {
        let done = second.types(&["run"]).await;
        assert_eq!(done.code, Some(1), "{done:#?}");
        let says = format!("is in use by process {}", daemon.id());
        let error = done.err.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.contains(&says) || error.contains("another roamgate runs on this data"), "{done:#?}");
    }
    // and a command that does not find the daemon does not touch its store
    let done = other.types(&["device", "list"]).await;
    assert!(done.code == Some(1) && done.err.contains("is in use by process"), "{done:#?}");
    assert!(daemon.is_running());
    assert_eq!(place.does(&["device", "list"]).await.lines().count(), 2);
    assert!(daemon.stops().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_ends_with_78_and_names_the_line() {
    let good = config(free_port(), "");
    for (text, line, words) in [
        (format!("{good}gateway = []\n"), 6, "unknown field"),
        (good.replace("127.0.0.1:", "127.0.0.1 "), 5, "radio[0].listen"),
        ("[store]\ndurability = \"some\"\n".into(), 2, "unknown variant"),
        ("[network]\nregion = \"EU868\"\nnet_ids = [\"XYZ\"]\n".into(), 3, "NetID"),
        ("[network]\n\nnet_ids = [\n".into(), 3, ""),
        (format!("{good}[[radio]]\nkind = \"basics-station\"\n"), 6, "not in this version"),
        (format!("{good}[roaming.default]\npassive = {{ start = true }}\n"), 6, "[discovery]"),
        (format!("{good}[backend]\nidentity = {{ chain = \"x\" }}\n"), 7, "key"),
    ] {
        let place = Place::with_config(&text);
        let done = place.types(&["run"]).await;
        assert_eq!(done.code, Some(78), "{text}\n{done:#?}");
        let at = format!("error: {}:{line}:", place.at("roamgate.toml").display());
        let found = done.err.lines().any(|error| error.starts_with(&at) && error.contains(words));
        assert!(found, "{at} {words}\n{text}\n{done:#?}");
        assert!(done.err.contains("remedy: "), "{done:#?}");
        assert!(!place.at("data").exists(), "something was opened");
    }
    let missing = Place::empty();
    let done = missing.types(&["run", "-c", "nowhere.toml"]).await;
    assert!(done.code == Some(78) && done.err.contains("nowhere.toml"), "{done:#?}");
}
