//! Whoever leans on the server: certificates that are none, requests too many, bodies too deep and too slow.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use reqwest::StatusCode;
use roamgate::backend::Limits;
use roamgate::pki::make::{self, IntermediateSpec, LeafSpec};
use roamgate::tls::{self, Identity};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::federation::*;
use crate::log::Log;

/// A leaf without its intermediate, as our own tools would never send it.
fn alone(made: &make::Identity) -> Identity {
    let mut chain = tls::certificates(made.chain_pem.as_bytes(), "chain".as_ref()).unwrap();
    chain.truncate(1);
    Identity::from_der(chain, PrivateKeyDer::from_pem_slice(made.key_pem.as_bytes()).unwrap()).unwrap()
}

#[tokio::test]
async fn certificates_that_must_not_be_believed_end_the_handshake_and_nobody_else_notices() {
    let log = Log::listen();
    let federation = Federation::new();
    let rooms = Arc::new(Known::default());
    let server = federation.home(OPEN, Limits::default(), rooms.clone()).await;
    let honest = federation.guest(Some(&federation.identity(AWAY_NAME)), server.address().unwrap());
    assert_eq!(honest.code(&home_ns()).await, "Success");

    let member = federation.member("000003.netids.example");
    let own = federation.member(AWAY_NAME);
    let day = |days: i64| federation.clock.wall() + SignedDuration::from_hours(24 * days);
    let leaf = |change: &dyn Fn(&mut LeafSpec)| federation.leaf(&own, AWAY_NAME, |spec| change(spec));
    let whole = leaf(&|_| ());
    // a public authority: it limits nobody, and every system trusts it; we do not
    let public = Federation::named("Internet Trust Services Root");
    let anybody = IntermediateSpec { unconstrained: true, ..IntermediateSpec::new("R3", [AWAY_NAME]) };
    let anybody = public.root.intermediate(&anybody, &public.clock).unwrap();
    let unlimited = IntermediateSpec { unconstrained: true, ..IntermediateSpec::new("Anybody", [AWAY_NAME]) };
    let unlimited = federation.root.intermediate(&unlimited, &federation.clock).unwrap();
    let cases: [(&str, Option<Identity>, &str); 8] = [
        ("nobody's", None, "no certificate"),
        (
            "a foreign NetID's, signed by a member's intermediate",
            Some(shown(&federation.leaf(&member, AWAY_NAME, |_| ()))),
            "a name that its intermediate may not give",
        ),
        (
            "an expired one",
            Some(shown(&leaf(&|leaf| (leaf.not_before, leaf.days) = (Some(day(-3)), 1)))),
            "expired",
        ),
        (
            "one not yet valid",
            Some(shown(&leaf(&|leaf| (leaf.not_before, leaf.days) = (Some(day(2)), 1)))),
            "not valid before",
        ),
        ("one without its intermediate", Some(alone(&whole)), "does not send its intermediate"),
        ("a public authority's", Some(shown(&public.leaf(&anybody, AWAY_NAME, |_| ()))), "none of our roots"),
        (
            "one of an intermediate without limits",
            Some(shown(&federation.leaf(&unlimited, AWAY_NAME, |_| ()))),
            "name constraints",
        ),
        ("a server's only", Some(shown(&leaf(&|leaf| leaf.client = false))), "not made for this direction"),
    ];
    for (whose, identity, words) in cases {
        let guest = federation.guest(identity.as_ref(), server.address().unwrap());
        let refused = guest.post(home_ns().to_string()).await;
        assert!(refused.is_err(), "{whose} certificate was let in: {refused:?}");
        log.says(&["WARN", "a TLS handshake failed", "from=127.0.0.1", words]);
        assert_eq!(honest.code(&home_ns()).await, "Success", "after {whose}");
    }
    assert_eq!(rooms.0.lock().unwrap().len(), 9, "nobody else reached a room");
    // again and again: the log has it once
    let stranger = shown(&public.leaf(&anybody, AWAY_NAME, |_| ()));
    for _ in 0..5 {
        assert!(federation.guest(Some(&stranger), server.address().unwrap()).post("{}").await.is_err());
    }
    let told = log.lines(&["a TLS handshake failed", "none of our roots"]);
    // the missing intermediate looks the same from here
    assert_eq!(told.len(), 1, "{told:#?}");
}

#[tokio::test]
async fn a_stranger_that_asks_too_often_waits_and_a_partner_does_not() {
    let log = Log::listen();
    let federation = Federation::new();
    let listed = format!("{OPEN}\n[[partner]]\nnet_id = \"000003\"");
    let rooms = Arc::new(Known::default());
    let server = federation.home(&listed, limits(50, 2), rooms.clone()).await;
    let stranger = federation.guest(Some(&federation.identity(AWAY_NAME)), server.address().unwrap());
    let partner =
        federation.guest(Some(&federation.identity("000003.netids.example")), server.address().unwrap());
    let mut refused = Vec::new();
    for n in 0..30 {
        let mut ask = home_ns();
        ask["TransactionID"] = json!(n);
        let response = stranger.post(ask.to_string()).await.unwrap();
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(response.headers()["retry-after"], "1");
            let answer: Value = response.json().await.unwrap();
            assert_eq!((&answer["TransactionID"], &answer["ReceiverID"]), (&json!(n), &json!("000002")));
            assert_eq!(answer["Result"]["ResultCode"], "Other");
            refused.push(answer["Result"]["Description"].as_str().unwrap().to_owned());
        }
    }
    assert!((20..=24).contains(&refused.len()), "{}", refused.len());
    let why = &refused[0];
    assert!(
        why.starts_with("more than 2 requests a second of a network that no [[roaming.partner]] lists"),
        "{why}"
    );
    assert!(why.contains("try again in 0.") && why.contains(", at 20"), "{why}");
    let told =
        log.lines(&["WARN", "refused", "more than 2 requests a second", "remedy=", "000002.netids.example"]);
    assert_eq!(told.len(), 1, "{told:#?}");
    let mut ask = home_ns();
    ask["SenderID"] = json!("000003");
    for _ in 0..30 {
        assert_eq!(partner.code(&ask).await, "Success");
    }
    // our own client hears the same as a refusal, and later gets its answer
    let client = federation.client(server.address().unwrap());
    let error = client.send(js(), home_ns_req(), federation.soon()).await.unwrap_err();
    assert!(error.to_string().contains("try again in"), "{error}");
    federation.clock.sleep(Duration::from_millis(700)).await;
    client.send(js(), home_ns_req(), federation.soon()).await.unwrap();
}

#[tokio::test]
async fn every_refusal_has_its_rule_and_remedy_in_the_log_once() {
    let log = Log::listen();
    let federation = Federation::new();
    let rooms = Arc::new(Known::default());
    let server = federation.home(OPEN, Limits::default(), rooms.clone()).await;
    let guest = federation.guest(Some(&federation.identity(AWAY_NAME)), server.address().unwrap());
    let with = |name: &str, value: Value| {
        let mut message = home_ns();
        message[name] = value;
        message.to_string()
    };
    let deep = |open: &str, close: &str| {
        let depth = 50_000;
        format!("{{\"MessageType\":\"HomeNSReq\",\"X\":{}1{}}}", open.repeat(depth), close.repeat(depth))
    };
    let bodies = [
        (deep("[", "]"), "no message of TS002"),
        (deep("{\"a\":", "}")[..200_000].to_owned(), "no message of TS002"),
        ("[".repeat(250_000), "no message of TS002"),
        ("no json".into(), "no message of TS002"),
        ("{\"MessageType\":\"WhoAreYou\"}".into(), "no message of TS002"),
        (" ".repeat(300 * 1024), "a body was not taken"),
        (with("ProtocolVersion", json!("9.9")), "InvalidProtocolVersion"),
        (with("ReceiverID", json!("00000000000000FF")), "UnknownReceiver"),
        (with("SenderID", json!("000003")), "UnknownSender"),
        (with("DevEUI", json!("xyz")), "MalformedRequest"),
    ];
    for (body, words) in bodies {
        for _ in 0..3 {
            let answer = guest.post(body.clone()).await.unwrap();
            assert!(answer.status() != StatusCode::INTERNAL_SERVER_ERROR);
        }
        log.says(&["WARN", words, "remedy=", AWAY_NAME]);
    }
    assert!(rooms.0.lock().unwrap().is_empty());
    assert_eq!(log.lines(&["WARN", "a body was not taken"]).len(), 1);
    assert_eq!(log.lines(&["WARN", "UnknownSender"]).len(), 1);
    assert!(log.lines(&["WARN"]).len() <= 10, "{:#?}", log.lines(&["WARN"]));
    assert_eq!(guest.code(&home_ns()).await, "Success");
}

#[tokio::test]
async fn who_is_slow_loses_the_line_and_holds_nobody_up() {
    let log = Log::listen();
    let federation = Federation::new();
    let rooms = Arc::new(Known::default());
    let server = federation.home(OPEN, Limits::default(), rooms.clone()).await;
    let guest = federation.guest(Some(&federation.identity(AWAY_NAME)), server.address().unwrap());
    let began = federation.clock.now();
    let slow_body = async {
        let stream = TcpStream::connect(server.address().unwrap()).await.unwrap();
        let name = HOME_NAME.try_into().unwrap();
        let mut stream = TlsConnector::from(guest.tls.clone()).connect(name, stream).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{").await.unwrap();
        // a byte now and then helps nobody
        let drip = async {
            let (mut read, mut write) = tokio::io::split(&mut stream);
            let mut answer = vec![0; 512];
            loop {
                tokio::select! {
                    read = read.read(&mut answer) => break String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned(),
                    () = federation.clock.sleep(Duration::from_millis(500)) => drop(write.write_all(b" ").await),
                }
            }
        };
        let answer = drip.await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        federation.clock.now() - began
    };
    let hung = async {
        let mut stream = TcpStream::connect(server.address().unwrap()).await.unwrap();
        stream.write_all(&[0x16, 3, 1]).await.unwrap();
        assert!(matches!(stream.read(&mut [0; 8]).await, Ok(0) | Err(_)));
        federation.clock.now() - began
    };
    let hung_up = async {
        // in the middle of a message, twenty times
        for _ in 0..20 {
            let stream = TcpStream::connect(server.address().unwrap()).await.unwrap();
            let name = HOME_NAME.try_into().unwrap();
            let mut stream = TlsConnector::from(guest.tls.clone()).connect(name, stream).await.unwrap();
            stream
                .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"Mess")
                .await
                .unwrap();
        }
    };
    let others = async {
        for _ in 0..20 {
            let asked = federation.clock.now();
            assert_eq!(guest.code(&home_ns()).await, "Success");
            assert!(federation.clock.now() - asked < Duration::from_secs(2));
            federation.clock.sleep(Duration::from_millis(200)).await;
        }
    };
    let (body, handshake, (), ()) = tokio::join!(slow_body, hung, hung_up, others);
    assert!((9..13).contains(&body.as_secs()), "{body:?}");
    assert!((4..7).contains(&handshake.as_secs()), "{handshake:?}");
    log.says(&["WARN", "a body came too slowly", "remedy=", AWAY_NAME]);
    log.says(&["WARN", "a TLS handshake hung", "remedy=", "from=127.0.0.1"]);
    assert_eq!(rooms.0.lock().unwrap().len(), 20);
    server.stop().await;
}

#[test]
fn only_configured_roots_count() {
    let federation = Federation::new();
    // no roots at all is no trust, and never the system's
    let empty = tls::Roots::from_pem("");
    assert!(empty.is_err(), "{empty:?}");
    assert!(
        Identity::from_pem("", &federation.leaf(&federation.member(HOME_NAME), HOME_NAME, |_| ()).key_pem)
            .is_err()
    );
}
