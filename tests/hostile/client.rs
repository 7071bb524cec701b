//! Partners that answer what nobody asked, late, twice, without end or not at all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use roamgate::backend::door::{Deadline, PeerError};
use roamgate::backend::message::{Answer, HomeNsAns};
use roamgate::tls;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::federation::*;

type Script = fn(&Value) -> Vec<Piece>;

/// What the partner does next with its connection.
#[derive(Clone)]
enum Piece {
    Bytes(Vec<u8>),
    Pause(Duration),
}

fn http(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The right answer to a HomeNSReq.
fn right(asked: &Value) -> Value {
    json!({ "ProtocolVersion": "1.0", "SenderID": asked["ReceiverID"], "ReceiverID": asked["SenderID"],
            "TransactionID": asked["TransactionID"], "MessageType": "HomeNSAns", "HNetID": "000001",
            "Result": { "ResultCode": "Success" } })
}

fn with(asked: &Value, name: &str, value: Value) -> Vec<Piece> {
    let mut answer = right(asked);
    answer[name] = value;
    vec![Piece::Bytes(http(&answer.to_string()))]
}

/// NetID 000001 by a script: request after request on each connection, until the script says no more.
async fn partner(federation: &Federation, script: Script, keeps_open: bool) -> SocketAddr {
    let config = tls::server_config(&federation.identity(HOME_NAME), &federation.trust()).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                loop {
                    let mut request = Vec::new();
                    let asked = loop {
                        let mut bytes = [0; 4096];
                        match stream.read(&mut bytes).await {
                            Ok(0) | Err(_) => return,
                            Ok(length) => request.extend_from_slice(&bytes[..length]),
                        }
                        let body = request
                            .windows(4)
                            .position(|end| end == b"\r\n\r\n")
                            .map(|at| &request[at + 4..]);
                        if let Some(Ok(asked)) = body.map(serde_json::from_slice::<Value>) {
                            break asked;
                        }
                    };
                    for piece in script(&asked) {
                        match piece {
                            Piece::Bytes(bytes) => drop(stream.write_all(&bytes).await),
                            Piece::Pause(time) => tokio::time::sleep(time).await,
                        }
                        let _ = stream.flush().await;
                    }
                    if !keeps_open {
                        let _ = stream.shutdown().await;
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn an_answer_that_does_not_belong_to_the_question_is_none() {
    let federation = Federation::new();
    type Expected = fn(&PeerError) -> bool;
    let confused = |error: &PeerError| matches!(error, PeerError::Confused { .. });
    let transport = |error: &PeerError| matches!(error, PeerError::Transport { .. });
    let cases: [(&str, Script, Expected, &str); 9] = [
        (
            "another transaction's",
            |asked| with(asked, "TransactionID", json!(asked["TransactionID"].as_u64().unwrap() ^ 1)),
            confused,
            "TransactionID",
        ),
        (
            "another network's",
            |asked| with(asked, "SenderID", json!("00000000000000FF")),
            confused,
            "SenderID",
        ),
        ("somebody else's", |asked| with(asked, "ReceiverID", json!("000003")), confused, "ReceiverID"),
        ("another message's", |asked| with(asked, "MessageType", json!("JoinAns")), confused, "MessageType"),
        (
            "two results in one",
            |asked| {
                let answer = right(asked).to_string();
                let twice = answer.replacen('{', "{\"Result\":{\"ResultCode\":\"Success\"},", 1);
                vec![Piece::Bytes(http(&twice))]
            },
            confused,
            "occurs twice",
        ),
        ("too deep", |_| vec![Piece::Bytes(http(&"[".repeat(100_000)))], confused, ""),
        (
            "half of one, and gone",
            |asked| {
                let whole = http(&right(asked).to_string());
                vec![Piece::Bytes(whole[..whole.len() - 20].to_vec())]
            },
            transport,
            "",
        ),
        ("gone", |_| Vec::new(), transport, "no answer from"),
        (
            "too long",
            |_| vec![Piece::Bytes(http(&" ".repeat(300 * 1024)))],
            transport,
            "more than 262144 bytes",
        ),
    ];
    for (whose, script, expected, words) in cases {
        let client = federation.client(partner(&federation, script, false).await);
        let error = client.send(js(), home_ns_req(), federation.soon()).await.unwrap_err();
        println!("{whose}: {error}");
        assert!(expected(&error) && error.to_string().contains(words), "{whose}: {error}");
    }
}

#[tokio::test]
async fn who_answers_twice_is_heard_once() {
    let federation = Federation::new();
    let twice: Script = |asked| {
        let evil = with(asked, "HNetID", json!("00000A"));
        [vec![Piece::Bytes(http(&right(asked).to_string()))], evil].concat()
    };
    let twice_later: Script = |asked| {
        let pause = vec![Piece::Pause(Duration::from_millis(20))];
        let evil = with(asked, "HNetID", json!("00000A"));
        [vec![Piece::Bytes(http(&right(asked).to_string()))], pause, evil].concat()
    };
    for script in [twice, twice_later] {
        let client = federation.client(partner(&federation, script, true).await);
        let mut answered = 0;
        for _ in 0..10 {
            match client.send(js(), home_ns_req(), federation.soon()).await {
                Ok(answer) => {
                    assert_eq!(
                        answer,
                        Answer::HomeNs(HomeNsAns { h_net_id: HOME, h_nsid: None }),
                        "the second answer was taken"
                    );
                    answered += 1;
                }
                // what is left over belongs to nobody's question
                Err(error) => assert!(
                    matches!(error, PeerError::Confused { .. } | PeerError::Transport { .. }),
                    "{error}"
                ),
            }
            federation.clock.sleep(Duration::from_millis(40)).await;
        }
        assert!(answered >= 5, "{answered} of 10");
    }
}

#[tokio::test]
async fn a_slow_partner_costs_the_deadline_and_nobody_else_waits_for_it() {
    let federation = Federation::new();
    let silent: Script = |_| vec![Piece::Pause(Duration::from_secs(60))];
    let drips: Script = |asked| {
        let whole = http(&right(asked).to_string());
        whole
            .into_iter()
            .flat_map(|byte| [Piece::Bytes(vec![byte]), Piece::Pause(Duration::from_millis(100))])
            .collect()
    };
    for script in [silent, drips] {
        let slow = federation.client(partner(&federation, script, true).await);
        let prompt: Script = |asked| vec![Piece::Bytes(http(&right(asked).to_string()))];
        let other = federation.client(partner(&federation, prompt, true).await);
        let began = federation.clock.now();
        let by = Deadline(began + Duration::from_millis(800));
        let asked = (0..50).map(|_| slow.send(js(), home_ns_req(), by));
        let others = async {
            for _ in 0..5 {
                other.send(js(), home_ns_req(), federation.soon()).await.unwrap();
            }
        };
        let (late, ()) = tokio::join!(futures_util::future::join_all(asked), others);
        assert!(late.iter().all(|late| matches!(late, Err(PeerError::Late { .. }))), "{late:?}");
        let took = federation.clock.now() - began;
        assert!(took < Duration::from_millis(1600), "{took:?}");
    }
}

/// A server with the right name and a certificate of a public authority is not spoken to.
#[tokio::test]
async fn a_server_that_a_public_authority_vouches_for_is_not_spoken_to() {
    let (federation, public) = (Federation::new(), Federation::named("Internet Trust Services Root"));
    let prompt: Script = |asked| vec![Piece::Bytes(http(&right(asked).to_string()))];
    let address = partner(&public, prompt, true).await;
    let error = federation.client(address).send(js(), home_ns_req(), federation.soon()).await.unwrap_err();
    assert!(
        matches!(&error, PeerError::Transport { why, .. } if why.contains("none of our roots")),
        "{error}"
    );
    let member = federation.member("000003.netids.example");
    let liar = shown(&federation.leaf(&member, HOME_NAME, |_| ()));
    let config = tls::server_config(&liar, &federation.trust()).unwrap();
    let acceptor = Arc::new(tokio_rustls::TlsAcceptor::from(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    let error = federation.client(address).send(js(), home_ns_req(), federation.soon()).await.unwrap_err();
    assert!(matches!(&error, PeerError::Transport { why, .. } if why.contains("may not give")), "{error}");
}
