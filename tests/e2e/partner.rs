//! A partner of another make, played from a script: it answers when the script says, and sends what it likes.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use roamgate::demo::device::{Device, RxWindow};
use roamgate::demo::federation::{HOME, VISITED};
use roamgate::demo::zone::Data;
use roamgate::lorawan::crypto::{self, SessionKeys};
use roamgate::lorawan::frame::{Downlink, JoinAccept, JoinRequest};
use roamgate::lorawan::{DevAddr, DevEui, JoinEui, Key, NetId};
use roamgate::pki::check::PeerRules;
use roamgate::radio::simulated::Link;
use roamgate::tls::{self, Identity, Roots, Trust};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::federation::{Street, identity, names};

/// Where the script listens.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
pub const DEVICE: DevEui = DevEui::from_msb([0x70, 0xb3, 0xd5, 0x7e, 0xd0, 0, 0, 0x2a]);

/// What somebody asked the partner, and the way to answer.
pub struct Asked {
    pub body: Value,
    answer: oneshot::Sender<Value>,
}

/// A network of the federation that is no Roamgate.
pub struct Partner {
    pub net_id: NetId,
    asked: mpsc::Receiver<Asked>,
    http: reqwest::Client,
    /// Where it asks the visited node.
    url: String,
    accepting: JoinHandle<()>,
}

impl Drop for Partner {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Partner {
    /// Enter the federation: a certificate, records in the zone, a server and a client.
    pub async fn enter(street: &Street, net_id: NetId, join_eui: JoinEui) -> Partner {
        let federation = &street.federation;
        let own = names(net_id, join_eui);
        let made = identity(&federation.root, &own, &street.clock, |_| ());
        let shown = Identity::from_pem(&made.chain_pem, &made.key_pem).unwrap();
        let roots = Roots::from_pem(&federation.root.cert_pem).unwrap();
        let trust = Trust::new(&roots, PeerRules::default(), street.clock.clone()).unwrap();

        let at = |names: [String; 2], address: Ipv4Addr| {
            names.map(|name| (name, Data::Address(IpAddr::V4(address))))
        };
        let mut records = at(own, ADDRESS).to_vec();
        for site in [HOME, VISITED] {
            records.extend(at(names(site.net_id, site.join_eui), site.address));
        }
        federation.zone.set_records(records).unwrap();

        let [host, _] = names(VISITED.net_id, VISITED.join_eui);
        let visited = SocketAddr::from((VISITED.address, federation.port));
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(&shown, &trust, tls::Expected::default()).unwrap())
            .no_proxy()
            .resolve(&host, visited)
            .build()
            .unwrap();
        let listener =
            TcpListener::bind((ADDRESS, if net_id.to_msb()[2] == 2 { federation.port } else { 0 }));
        let acceptor = TlsAcceptor::from(tls::server_config(&shown, &trust).unwrap());
        let (tell, asked) = mpsc::channel(16);
        let accepting = tokio::spawn(serve(listener.await.unwrap(), acceptor, tell));
        Partner { net_id, asked, http, url: format!("https://{host}:{}/", federation.port), accepting }
    }

    /// What is asked next, which must be this.
    pub async fn next(&mut self, message: &str) -> Asked {
        let asked = tokio::time::timeout(Duration::from_secs(10), self.asked.recv()).await;
        let asked = asked.expect("somebody asks").expect("the server runs");
        assert_eq!(asked.body["MessageType"], message, "{}", asked.body);
        asked
    }

    /// XmitDataReq(down) for the hearing of a token, in the windows of `uplink`; what became of it.
    pub async fn send_down(&self, uplink: &Value, phy: &[u8], token: &str) -> Value {
        let ul = &uplink["ULMetaData"];
        let body = json!({
            "MessageType": "XmitDataReq",
            "PHYPayload": hex::encode_upper(phy),
            "DLMetaData": {
                "DLFreq1": ul["ULFreq"], "DataRate1": ul["DataRate"], "DLFreq2": 869.525, "DataRate2": 0,
                "RXDelay1": 1, "ClassMode": "A", "FNSULToken": token, "HiPriorityFlag": false,
            },
        });
        self.ask(body).await
    }

    /// Ask the visited node: from our network to its own, where the body says nothing else.
    pub async fn ask(&self, body: Value) -> Value {
        let mut whole = json!({
            "ProtocolVersion": "1.0", "SenderID": self.net_id.to_string(), "ReceiverID": VISITED.net_id.to_string(),
            "TransactionID": 4711,
        });
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let body = whole;
        let expected = body["MessageType"].as_str().unwrap().replace("Req", "Ans");
        let sent =
            self.http.post(&self.url).header("content-type", "application/json").body(body.to_string());
        let answer = sent.send().await.expect("an answer").bytes().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(
            (&answer["MessageType"], &answer["TransactionID"]),
            (&json!(expected), &body["TransactionID"])
        );
        answer
    }
}

impl Asked {
    pub fn token(&self) -> String {
        self.body["ULMetaData"]["FNSULToken"].as_str().expect("a token").to_owned()
    }

    pub fn phy(&self) -> Vec<u8> {
        hex::decode(self.body["PHYPayload"].as_str().expect("a frame")).unwrap()
    }

    /// Success, with what else belongs into the answer.
    pub fn agree(self, answer: Value) {
        self.say("Success", answer);
    }

    pub fn refuse(self, code: &str) {
        self.say(code, json!({}));
    }

    /// An ErrorNotif in the place of the answer.
    pub fn fail(self, code: &str) {
        let mut notif = json!({ "MessageType": "ErrorNotif", "Result": { "ResultCode": code } });
        notif["ProtocolVersion"] = self.body["ProtocolVersion"].clone();
        notif["SenderID"] = self.body["ReceiverID"].clone();
        notif["ReceiverID"] = self.body["SenderID"].clone();
        notif["TransactionID"] = self.body["TransactionID"].clone();
        self.answer.send(notif).expect("somebody waits for the answer");
    }

    fn say(self, code: &str, mut answer: Value) {
        let asked = self.body["MessageType"].as_str().unwrap();
        answer["ProtocolVersion"] = self.body["ProtocolVersion"].clone();
        answer["SenderID"] = self.body["ReceiverID"].clone();
        answer["ReceiverID"] = self.body["SenderID"].clone();
        answer["TransactionID"] = self.body["TransactionID"].clone();
        answer["MessageType"] = asked.replace("Req", "Ans").into();
        answer["Result"] = json!({ "ResultCode": code });
        self.answer.send(answer).expect("somebody waits for the answer");
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, tell: mpsc::Sender<Asked>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, tell) = (acceptor.clone(), tell.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let serve = service_fn(move |request| answer(request, tell.clone()));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), serve)
                .await;
        });
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    tell: mpsc::Sender<Asked>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.expect("a whole body").to_bytes();
    let (answer, answered) = oneshot::channel();
    tell.send(Asked { body: serde_json::from_slice(&body).expect("JSON"), answer })
        .await
        .expect("a story listens");
    // a story that is over leaves questions open
    let body = answered.await.map(|answer| answer.to_string()).unwrap_or_default();
    Ok(hyper::Response::new(Full::new(body.into())))
}

/// The partner's side of a join, device and keys known to it.
async fn let_in(partner: &mut Partner, app_key: &Key, dev_addr: DevAddr) -> SessionKeys {
    let_in_with(partner, app_key, dev_addr, json!({ "Lifetime": 0 })).await
}

/// The same with objects of the partner's choice in the PRStartAns.
pub async fn let_in_with(
    partner: &mut Partner,
    app_key: &Key,
    dev_addr: DevAddr,
    objects: Value,
) -> SessionKeys {
    let home = json!({ "HNetID": partner.net_id.to_string() });
    partner.next("HomeNSReq").await.agree(home);
    accept(partner, app_key, dev_addr, objects).await
}

/// The same where the join server was asked before.
async fn let_in_again(partner: &mut Partner, app_key: &Key, dev_addr: DevAddr) -> SessionKeys {
    accept(partner, app_key, dev_addr, json!({ "Lifetime": 0 })).await
}

pub async fn accept(partner: &mut Partner, app_key: &Key, dev_addr: DevAddr, objects: Value) -> SessionKeys {
    let start = partner.next("PRStartReq").await;
    let phy = start.phy();
    let join = JoinRequest::parse(&phy).unwrap().verify(app_key).expect("the device's own MIC");
    assert_eq!(join.dev_eui(), DEVICE);
    let keys = crypto::session_keys(app_key, 1, partner.net_id, join.dev_nonce());
    let accept = JoinAccept {
        join_nonce: 1,
        net_id: partner.net_id,
        dev_addr,
        dl_settings: 0,
        rx_delay: 1,
        cf_list: None,
    };
    let ul = &start.body["ULMetaData"];
    let mut answer = json!({
        "PHYPayload": hex::encode_upper(accept.build(app_key)),
        "DLMetaData": {
            "DevEUI": DEVICE.to_string(), "DLFreq1": ul["ULFreq"], "DataRate1": ul["DataRate"],
            "DLFreq2": 869.525, "DataRate2": 0, "RXDelay1": 5, "ClassMode": "A", "FNSULToken": ul["FNSULToken"],
        },
    });
    answer.as_object_mut().unwrap().extend(objects.as_object().unwrap().clone());
    start.agree(answer);
    keys
}

pub fn code(answer: &Value) -> &str {
    answer["Result"]["ResultCode"].as_str().unwrap_or_default()
}

pub async fn a_downlink_that_overtakes_its_answer_is_sent_in_rx1() {
    let street = Street::open().await;
    let (net_id, join_eui) = (NetId::from_msb([0, 0, 2]), JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, 2]));
    let stranger =
        Partner::enter(&street, NetId::from_msb([0, 0, 3]), JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, 3]))
            .await;
    let mut partner = Partner::enter(&street, net_id, join_eui).await;
    let app_key = Key::new(street.clock.random());
    let mut device = Device::new(&street.federation.air, street.clock.clone(), DEVICE, join_eui, &app_key, 3);
    device.move_to(&[(VISITED.gateway, Link::NEAR)]);
    let dev_addr = net_id.dev_addr(0x17);
    let (join, keys) = tokio::join!(device.join(), let_in(&mut partner, &app_key, dev_addr));
    assert_eq!((join.ok, join.dev_addr), (true, Some(dev_addr)), "{join:?}");

    let down = |fcnt: u32, addr: DevAddr, text: &[u8]| {
        let mut payload = text.to_vec();
        crypto::crypt_payload(&keys.app_s_key, crypto::Direction::Down, addr, fcnt, &mut payload);
        Downlink { ack: true, payload: Some((9, &payload)), ..Downlink::default() }.build(
            &keys.nwk_s_key,
            addr,
            fcnt,
        )
    };

    // the answer to PRStartReq comes when RX1 is over, the downlink long before
    let before = street.handed(VISITED).len();
    let script = async {
        let start = partner.next("PRStartReq").await;
        let answer = partner.send_down(&start.body, &down(0, dev_addr, b"overtakes"), &start.token()).await;
        assert_eq!(code(&answer), "Success", "{answer}");
        assert_eq!(answer["DLFreq1"], start.body["ULMetaData"]["ULFreq"], "in RX1");
        // one hearing, one transmission
        let again = partner.send_down(&start.body, &down(1, dev_addr, b"again"), &start.token()).await;
        assert_eq!(code(&again), "XmitFailed", "{again}");
        street.clock.sleep(Duration::from_millis(1300)).await;
        start.agree(json!({ "Lifetime": 0 }));
    };
    let (sent, ()) = tokio::join!(device.send(b"1", 2, true), script);
    let sent = sent.unwrap();
    assert_eq!((sent.acked, sent.window), (true, Some(RxWindow::Rx1)));
    assert_eq!(sent.downlinks, [(9, b"overtakes".to_vec())]);
    assert_eq!(street.handed(VISITED).len(), before + 1);

    // whatever is no token of this partner for this device's hearing moves no radio, and costs the rightful one nothing
    let script = async {
        let start = partner.next("PRStartReq").await;
        let (phy, token) = (down(1, dev_addr, b"rightful"), start.token());
        let mut forged = token.clone().into_bytes();
        let last = forged.len() - 1;
        forged[last] = if forged[last] == b'0' { b'1' } else { b'0' };
        let forged = String::from_utf8(forged).unwrap();
        let other_device = down(1, net_id.dev_addr(0x18), b"not mine");
        let refused = [
            ("stranger's", stranger.send_down(&start.body, &phy, &token).await),
            ("forged", partner.send_down(&start.body, &phy, &forged).await),
            ("short", partner.send_down(&start.body, &phy, "01").await),
            ("another device's", partner.send_down(&start.body, &other_device, &token).await),
        ];
        for (which, answer) in refused {
            assert_eq!(code(&answer), "XmitFailed", "{which}: {answer}");
        }
        assert_eq!(street.handed(VISITED).len(), before + 1, "something went on the air");
        let answer = partner.send_down(&start.body, &phy, &token).await;
        assert_eq!(code(&answer), "Success", "{answer}");
        start.agree(json!({ "Lifetime": 0 }));
    };
    let (sent, ()) = tokio::join!(device.send(b"2", 2, true), script);
    assert_eq!(sent.unwrap().downlinks, [(9, b"rightful".to_vec())]);
    // a token is of no use once its windows have passed
    let script = async {
        let start = partner.next("PRStartReq").await;
        street.clock.sleep(Duration::from_millis(2200)).await;
        let late = partner.send_down(&start.body, &down(2, dev_addr, b"late"), &start.token()).await;
        assert_eq!(code(&late), "XmitFailed", "{late}");
    };
    let (sent, ()) = tokio::join!(device.send(b"3", 2, true), script);
    assert_eq!(sent.unwrap().window, None);
    assert_eq!(street.handed(VISITED).len(), before + 2);
    street.close().await;
}

/// A home that hangs up in mid-procedure, answers for another transaction, or answers what was not asked: the device
/// hears nothing, the log says why, and the next join is as if nothing had been.
pub async fn a_home_that_hangs_up_or_answers_something_else_ends_the_join_and_no_other() {
    let mut street = Street::open().await;
    let (net_id, join_eui) = (NetId::from_msb([0, 0, 2]), JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, 2]));
    let mut partner = Partner::enter(&street, net_id, join_eui).await;
    let app_key = Key::new(street.clock.random());
    let mut device = Device::new(&street.federation.air, street.clock.clone(), DEVICE, join_eui, &app_key, 3);
    device.move_to(&[(VISITED.gateway, Link::NEAR)]);
    let home = json!({ "HNetID": net_id.to_string() });
    let before = street.handed(VISITED).len();

    let script = async {
        partner.next("HomeNSReq").await.agree(home);
        drop(partner.next("PRStartReq").await);
    };
    let (join, ()) = tokio::join!(device.join(), script);
    assert!(!join.ok);
    let script = async {
        let start = partner.next("PRStartReq").await;
        let mut body = start.body.clone();
        body["TransactionID"] = json!(body["TransactionID"].as_u64().unwrap() ^ 1);
        Asked { body, answer: start.answer }.agree(json!({ "Lifetime": 0 }));
    };
    let (join, ()) = tokio::join!(device.join(), script);
    assert!(!join.ok);
    // a success that brings no Join-accept
    let script = async { partner.next("PRStartReq").await.agree(json!({ "Lifetime": 0 })) };
    let (join, ()) = tokio::join!(device.join(), script);
    assert!(!join.ok);
    street.settle().await;
    let whys = street.whys(VISITED);
    let words = ["an empty answer", "TransactionID", "PHYPayload"];
    assert_eq!(whys.len(), words.len(), "{whys:?}");
    for (why, words) in whys.iter().zip(words) {
        assert!(why.contains(words), "{words}: {why}");
    }
    assert_eq!(street.handed(VISITED).len(), before, "something was sent");

    let dev_addr = net_id.dev_addr(0x17);
    let (join, _keys) = tokio::join!(device.join(), let_in_again(&mut partner, &app_key, dev_addr));
    assert_eq!((join.ok, join.dev_addr), (true, Some(dev_addr)), "{:?}", street.whys(VISITED));
    street.close().await;
}
