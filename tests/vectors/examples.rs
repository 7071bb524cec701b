//! One message per file: each decodes to what it says, its frame verifies, its answer fits.

use roamgate::backend::keywrap::{Kek, Keks};
use roamgate::backend::message::wire::{
    Confused, Envelope, Header, Incoming, MessageType, NotAttributable, Version, decode_answer, encode_notif,
    encode_request, open,
};
use roamgate::backend::message::*;
use roamgate::lorawan::crypto::{self, Direction};
use roamgate::lorawan::frame::{JoinAccept, JoinRequest, Uplink};
use roamgate::lorawan::{DevAddr, Key};
use serde_json::{Value, json};

use super::*;

pub fn example(file: &str) -> Value {
    fixture(&format!("examples/{file}"))
}

pub fn index() -> Vec<Value> {
    example("index.json")["messages"].as_array().unwrap().clone()
}

fn keys() -> Value {
    example("keys.json")
}

/// `sessions.dev103-s1.NwkSKey`
fn key_at(keys: &Value, path: &str) -> Key {
    key(
        &keys[path.rsplit_once('.').unwrap().0.split('.').next().unwrap()][path.split('.').nth(1).unwrap()],
        path.rsplit('.').next().unwrap(),
    )
}

/// Every agreement of the stories at once; keys are sent under the first.
pub fn keks() -> Keks {
    let keys = keys();
    let kek = |label: &str| Kek::new(label, bytes(&keys["keks"], label)).unwrap();
    let open: Vec<Kek> = ["ns1-js", "ns1-ns2", "as-js"].map(kek).into();
    Keks { send: Some(kek("ns1-js")), open, allow_clear: false }
}

pub fn envelope(message: &Value) -> Envelope {
    match open(message.to_string().as_bytes()) {
        Ok(Incoming::Request(envelope)) => envelope,
        other => panic!("{other:?}: {message}"),
    }
}

pub fn request(file: &str) -> (Envelope, Header, Request) {
    let envelope = envelope(&example(file));
    let (header, body) = (envelope.header().unwrap(), envelope.body());
    let request = body.unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
    (envelope, header, request)
}

/// The header that the file's answer belongs to.
fn asked(answer: &Value, from: &str) -> Header {
    let (_, mut header, _) = request(from);
    header.transaction = number(answer, "TransactionID");
    let net_id = |name| Party::Ns(text(answer, name).parse().unwrap());
    if text(answer, "ReceiverID").len() == 6 {
        header.sender = net_id("ReceiverID");
    }
    header.receiver = match text(answer, "SenderID") {
        id if id.len() == 6 => net_id("SenderID"),
        id => Party::Js(id.parse().unwrap()),
    };
    header
}

fn decode(answer: &Value, from: &str) -> Result<Result<Answer, Refusal>, Confused> {
    let (_, _, request) = request(from);
    decode_answer(answer.to_string().as_bytes(), &asked(answer, from), &request, &keks())
}

fn refused(file: &str, from: &str) -> Refusal {
    decode(&example(file), from).unwrap().unwrap_err()
}

#[test]
fn every_request_decodes_and_encodes_to_itself() {
    let mut handled = 0;
    for entry in index() {
        let file = text(&entry, "file");
        if !text(&entry, "message_type").ends_with("Req") {
            continue;
        }
        let envelope = envelope(&example(file));
        assert_eq!(envelope.message_type().request(), text(&entry, "message_type"));
        let header = envelope.header().unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
        assert_eq!(header.transaction, number::<u32>(&example(file), "TransactionID"));
        assert_eq!(header.version == Version::V1_1, file.starts_with("bi11-"), "{file}");
        let request = envelope.body().unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
        handled += 1;
        assert_eq!(request.message_type(), text(&entry, "message_type"), "{file}");
        assert_eq!(MessageType::of(&request), envelope.message_type());
        let again: Value = serde_json::from_slice(&encode_request(&header, &request)).unwrap();
        if !file.starts_with("peer-form") {
            assert_eq!(again, as_we_write_it(example(file)), "{file}");
        }
        let again = self::envelope(&again);
        assert_eq!(again.header(), Ok(header), "{file}");
        let mut expected = request;
        if file == "peer-form-b-prstart-req.json" {
            // eight bytes of EUI come back as the four that the specification gives an ID
            let Request::PrStart(req) = &mut expected else { panic!("{file}") };
            req.ul.gw_info[0].id = Some(vec![0, 0, 0xA1, 0xF0]);
            // read in any version, written in 1.1
            assert_eq!(req.dedup_window.take(), Some(250));
        }
        if let Request::PrStart(PrStartReq { ul, .. }) | Request::XmitUp(XmitUp { ul, .. }) = &mut expected {
            ul.recv_time = jiff::Timestamp::from_second(ul.recv_time.as_second()).unwrap();
        }
        assert_eq!(again.body(), Ok(expected), "{file}");
    }
    assert_eq!(handled, 33);
}

/// Without what differs by right: which key wraps a key (here all are wrapped under one), and the elements of a Service Profile that
/// say nothing to us, with keys that nobody has asked for.
fn comparable(mut message: Value) -> Value {
    let object = message.as_object_mut().unwrap();
    for name in ["NwkSKey", "SNwkSIntKey", "FNwkSIntKey", "NwkSEncKey", "AppSKey", "FCntUp", "SenderToken"] {
        object.remove(name);
    }
    if let Some(profile) = object.get_mut("ServiceProfile").and_then(Value::as_object_mut) {
        let known = [
            "ServiceProfileID",
            "ServiceProfile",
            "ULRate",
            "ULBucketSize",
            "ULRatePolicy",
            "DLRate",
            "DLBucketSize",
            "DLRatePolicy",
            "DRMax",
            "PRAllowed",
            "HRAllowed",
            "RAAllowed",
        ];
        profile.retain(|name, _| known.contains(&name.as_str()));
    }
    message
}

/// A message with what is false by default left out.
fn as_we_write_it(mut message: Value) -> Value {
    for (meta, names) in
        [("ULMetaData", &["Confirmed"][..]), ("DLMetaData", &["Confirmed", "HiPriorityFlag"])]
    {
        let Some(object) = message[meta].as_object_mut() else { continue };
        for name in names {
            if object.get(*name) == Some(&json!(false)) {
                object.remove(*name);
            }
        }
    }
    message.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    message
}

#[test]
fn every_answer_fits_its_request_and_encodes_to_itself() {
    let mut handled = 0;
    for entry in index() {
        let (file, Some(from)) = (text(&entry, "file"), entry["answers"].as_str()) else { continue };
        let Ok(Incoming::Request(envelope)) = open(example(from).to_string().as_bytes()) else { panic!() };
        let Ok(asked) = envelope.body() else { continue };
        handled += 1;
        let header = envelope.header().unwrap();
        let body = example(file).to_string();
        let answer = decode_answer(body.as_bytes(), &header, &asked, &keks());
        let answer = answer.unwrap_or_else(|error| panic!("{file}: {error}"));
        let code = text(&example(file)["Result"], "ResultCode").to_owned();
        assert_eq!(answer.is_ok(), code == "Success", "{file}");
        let again = envelope.answer(&answer, &keks());
        assert_eq!(decode_answer(&again, &header, &asked, &keks()).unwrap(), answer, "{file}");
        let again: Value = serde_json::from_slice(&again).unwrap();
        for name in ["SenderID", "ReceiverID", "TransactionID", "MessageType", "Result", "ReceiverNSID"] {
            assert_eq!(again.get(name), example(file).get(name), "{name} of {file}");
        }
        if !file.starts_with("peer-form") && header.version == Version::V1_0 {
            let mut expected = comparable(as_we_write_it(example(file)));
            if file == "hrstart-ans-join.json" {
                // what is the application's does not go to who serves the device (A14)
                expected.as_object_mut().unwrap().remove("SessionKeyID");
            }
            assert_eq!(comparable(again), expected, "{file}");
        }
    }
    assert_eq!(handled, 41);
}

#[test]
fn every_frame_and_key_of_the_examples_verifies() {
    let keys = keys();
    for entry in index() {
        let (file, phy) = (text(&entry, "file"), &entry["phy"]);
        let message = example(file);
        let session = |spec: &Value| keys["sessions"][text(spec, "session")].clone();
        if let Some(kind) = phy["kind"].as_str() {
            let frame = hex::decode(text(&message, "PHYPayload").trim_start_matches("0x")).unwrap();
            match kind {
                "join-request" => {
                    let join = JoinRequest::parse(&frame).unwrap();
                    let verified = join.verify(&key_at(&keys, text(phy, "key"))).expect(file);
                    assert_eq!(verified.dev_nonce(), number::<u16>(phy, "dev_nonce"), "{file}");
                }
                "rejoin-request" => {
                    assert!(crypto::join_mic_matches(&key_at(&keys, text(phy, "key")), &frame), "{file}");
                }
                "join-accept" => check_accept(file, &frame, phy, &session(phy), &keys),
                "data-up" | "data-down" => check_data(file, &frame, phy, &session(phy)),
                other => panic!("{other}"),
            }
        }
        if let Some(envelopes) = entry["key_envelopes"].as_object() {
            for (name, path) in envelopes {
                let label = message[name]["KEKLabel"].as_str().filter(|label| !label.is_empty());
                let envelope =
                    KeyEnvelope { label: label.map(str::to_owned), key: bytes(&message[name], "AESKey") };
                let keks = Keks { allow_clear: label.is_none(), ..keks() };
                assert_eq!(keks.open(&envelope), Ok(key_at(&keys, path.as_str().unwrap())), "{file} {name}");
            }
        }
        if entry["frm"].is_object() {
            let (frm, session) = (&entry["frm"], session(&entry["frm"]));
            let mut payload = bytes(&message, "FRMPayload");
            let direction = if frm["direction"] == 0 { Direction::Up } else { Direction::Down };
            let addr: DevAddr = text(&session, "dev_addr").parse().unwrap();
            let app_s_key = key(&session, "AppSKey");
            crypto::crypt_payload(&app_s_key, direction, addr, number(frm, "fcnt"), &mut payload);
            assert_eq!(payload, bytes(frm, "clear"), "{file}");
        }
    }
}

fn check_accept(file: &str, frame: &[u8], phy: &Value, session: &Value, keys: &Value) {
    let enc_key = key_at(keys, text(phy, "enc_key"));
    let accept = JoinAccept {
        join_nonce: number(session, "join_nonce"),
        net_id: text(session, "net_id").parse().unwrap(),
        dev_addr: text(session, "dev_addr").parse().unwrap(),
        dl_settings: byte(phy, "dl_settings"),
        rx_delay: number(phy, "rx_delay"),
        cf_list: cf_list(phy),
    };
    let nonce = number(session, "nonce");
    if text(phy, "mode") == "1.0" {
        assert_eq!(accept.build(&enc_key), frame, "{file}");
        let derived = crypto::session_keys(&enc_key, accept.join_nonce, accept.net_id, nonce);
        assert_eq!(derived.nwk_s_key, key(session, "NwkSKey"), "{file}");
        assert_eq!(derived.app_s_key, key(session, "AppSKey"), "{file}");
        return;
    }
    let mut clear = frame.to_vec();
    crypto::decrypt_join_accept(&enc_key, &mut clear[1..]);
    let (body, mic) = clear.split_at(clear.len() - 4);
    let device = &keys["devices"][text(session, "device")];
    let join_eui: roamgate::lorawan::JoinEui = text(device, "join_eui").parse().unwrap();
    let mic_key = key_at(keys, text(phy, "mic_key"));
    let expected = accept_mic_11(&mic_key, number(phy, "req_type"), join_eui.to_air(), nonce, body);
    assert_eq!(expected, mic, "{file}");
    assert_eq!(body[7..11], accept.dev_addr.to_air(), "{file}");
}

fn check_data(file: &str, frame: &[u8], phy: &Value, session: &Value) {
    let fcnt = number(phy, "fcnt");
    let addr = data_parts(frame);
    let up = text(phy, "kind") == "data-up";
    let direction = if up { Direction::Up } else { Direction::Down };
    if text(session, "mode") == "1.0" {
        let nwk_s_key = key(session, "NwkSKey");
        assert!(crypto::data_mic_matches(&nwk_s_key, direction, addr, fcnt, frame), "{file}");
    } else {
        let (s, f) = (key(session, "SNwkSIntKey"), key(session, "FNwkSIntKey"));
        let mic = up_mic_11(frame, &s, &f, fcnt, 0, number(phy, "tx_dr"), number(phy, "tx_ch"));
        assert_eq!(mic, frame[frame.len() - 4..], "{file}");
    }
    let mut payload = frame[9..frame.len() - 4].to_vec();
    assert_eq!(frame[8], number::<u8>(phy, "f_port"), "{file}");
    crypto::crypt_payload(&key(session, "AppSKey"), direction, addr, fcnt, &mut payload);
    assert_eq!(payload, bytes(phy, "clear"), "{file}");
    if up {
        assert!(matches!(Uplink::parse(frame), Ok(Uplink::Data(data)) if data.dev_addr() == addr), "{file}");
    }
}

#[test]
fn a_join_is_read_object_by_object() {
    let (_, header, request) = request("join-req.json");
    assert_eq!(
        header,
        Header::new(
            Party::Ns("60050A".parse().unwrap()),
            Party::Js("00005E100000002F".parse().unwrap()),
            721420787
        )
    );
    let Request::Join(join) = request else { panic!() };
    assert_eq!(join.mac_version, MacVersion::V1_0_3);
    assert_eq!(join.dev_eui.to_string(), "ACDE480001020234");
    assert_eq!(join.dev_addr.to_string(), "EA14ABCD");
    assert_eq!((join.dl_settings, join.rx_delay), (0, 1));
    assert_eq!(join.cf_list.map(hex::encode_upper).as_deref(), Some("184F84E85684B85E84886684586E8400"));

    let Answer::Join(ans) = decode(&example("join-ans.json"), "join-req.json").unwrap().unwrap() else {
        panic!()
    };
    let session = &keys()["sessions"]["dev103-s1"];
    assert_eq!(ans.keys, NwkKeys::V10 { nwk_s_key: key(session, "NwkSKey") });
    assert_eq!(ans.lifetime, 2592000);
    assert_eq!(ans.app_s_key.unwrap().label.as_deref(), Some("as-js"));
    assert_eq!(ans.session_key_id, Some(hex::decode("0190A7C3E1D04F2B8001").unwrap()));
}

#[test]
fn a_roaming_uplink_and_its_downlink_are_read_object_by_object() {
    let (_, _, request) = request("prstart-req.json");
    let Request::PrStart(start) = request else { panic!() };
    assert!(!start.downlink_in_answer);
    let ul = start.ul;
    assert_eq!((ul.data_rate, ul.ul_freq, ul.gw_cnt), (Some(5), Some(868_300_000), Some(2)));
    assert_eq!(ul.fns_ul_token, Some(vec![0xA1, 0xB2, 0xC3, 0xD4]));
    assert_eq!(ul.recv_time.to_string(), "2026-11-20T10:15:42Z");
    let gateway = &ul.gw_info[1];
    assert_eq!((gateway.rssi, gateway.snr, gateway.dl_allowed), (Some(-112), Some(-2.25), Some(false)));

    let (_, _, request) = self::request("xmitdata-req-dl-passive.json");
    let Request::XmitDown(down) = request else { panic!() };
    assert_eq!((down.dl.dl_freq1, down.dl.dl_freq2), (Some(868_300_000), Some(869_525_000)));
    assert_eq!((down.dl.rx_delay1, down.dl.class_mode), (Some(1), Some(ClassMode::A)));
    assert_eq!(down.dl.ul_tokens.len(), 2);

    let (_, _, request) = self::request("xmitdata-req-dl-passive-class-c.json");
    let Request::XmitDown(down) = request else { panic!() };
    assert_eq!((down.dl.class_mode, down.dl.hi_priority), (Some(ClassMode::C), true));

    let (_, _, request) = self::request("xmitdata-req-ul-handover.json");
    assert!(matches!(request, Request::XmitAppUp(XmitAppUp { ul: UlMeta { fcnt_up: Some(0), .. }, .. })));
    let (_, _, request) = self::request("xmitdata-req-dl-handover.json");
    assert!(matches!(request, Request::XmitAppDown(XmitAppDown { dl: DlMeta { f_port: Some(10), .. }, .. })));
}

#[test]
fn what_deployed_peers_write_is_understood() {
    let (_, header, request) = request("peer-form-a-prstart-req.json");
    assert_eq!(header.sender.to_string(), "C0002F");
    let Request::PrStart(a) = request else { panic!() };
    assert_eq!(a.ul.recv_time.subsec_nanosecond(), 230_249_480);
    assert_eq!(a.ul.gw_info[0].ul_token, Some(vec![0x0A, 0x0B, 0x0C, 0x01]));
    assert_eq!(a.ul.dev_addr, None);

    let (_, header, request) = self::request("peer-form-b-prstart-req.json");
    assert_eq!(header.receiver.to_string(), "60050A");
    let Request::PrStart(b) = request else { panic!() };
    assert_eq!(b.phy_payload, a.phy_payload);
    assert_eq!(b.ul.fns_ul_token, Some(b"EU868::1".to_vec()));

    let answer = decode(&example("peer-form-c-prstart-ans.json"), "prstart-req.json").unwrap().unwrap();
    let Answer::PrStart(c) = answer else { panic!() };
    assert_eq!((c.lifetime, c.dl), (Some(3600), None));

    let failed = example("peer-form-c-profile-ans-failed.json");
    let refusal = decode(&failed, "profile-req.json").unwrap().unwrap_err();
    let expected = Refusal::new(ResultCode::RoamingActDisallowed, "device may not roam");
    assert_eq!(refusal, expected);
}

#[test]
fn errors_are_read_by_their_code() {
    let code = |file| refused(file, "join-req.json").code;
    assert_eq!(code("error-unknown-sender.json"), ResultCode::UnknownSender);
    assert_eq!(code("error-unkown-receiver.json"), ResultCode::UnknownReceiver);
    assert_eq!(code("error-invalid-protocol-version.json"), ResultCode::InvalidProtocolVersion);
    let malformed = refused("error-malformed-request.json", "join-req.json");
    assert_eq!(malformed, Refusal::new(ResultCode::MalformedRequest, "PHYPayload is missing"));
    assert_eq!(code("bi11-join-ans-frame-replayed.json"), ResultCode::FrameReplayed);
    assert_eq!(refused("prstart-ans-deferred.json", "prstart-req.json").lifetime, Some(900));
    assert_eq!(refused("hrstart-ans-refused.json", "hrstart-req-join.json").lifetime, Some(3600));
    assert_eq!(
        refused("hrstart-ans-stale.json", "hrstart-req-join.json").code,
        ResultCode::StaleDeviceProfile
    );
    let vendor = decode(&example("homens-ans-vsextension.json"), "homens-req.json").unwrap().unwrap();
    assert_eq!(vendor, Answer::HomeNs(HomeNsAns { h_net_id: "60050A".parse().unwrap(), h_nsid: None }));
}

#[test]
fn we_write_the_errors_as_the_examples_do() {
    let envelope = envelope(&example("join-req.json"));
    let write = |code, description: &str| -> Value {
        let answer = envelope.answer(&Err(Refusal::new(code, description)), &Keks::default());
        serde_json::from_slice(&answer).unwrap()
    };
    for (file, code) in [
        ("error-unknown-sender.json", ResultCode::UnknownSender),
        ("error-unkown-receiver.json", ResultCode::UnknownReceiver),
        ("error-malformed-request.json", ResultCode::MalformedRequest),
        ("error-invalid-protocol-version.json", ResultCode::InvalidProtocolVersion),
        ("join-ans-activation-disallowed.json", ResultCode::ActivationDisallowed),
        ("join-ans-unknown-deveui.json", ResultCode::UnknownDevEui),
        ("join-ans-mic-failed.json", ResultCode::MicFailed),
    ] {
        let expected = &example(file)["Result"];
        assert_eq!(write(code, expected["Description"].as_str().unwrap_or_default())["Result"], *expected);
    }
    // a replay has its own word in 1.1 only
    assert_eq!(write(ResultCode::FrameReplayed, "")["Result"]["ResultCode"], "JoinReqFailed");
    let mut v1_1 = example("join-req.json");
    v1_1["ProtocolVersion"] = "1.1.0".into();
    let replayed = self::envelope(&v1_1).answer(&Err(Refusal::new(ResultCode::FrameReplayed, "")), &keks());
    let replayed: Value = serde_json::from_slice(&replayed).unwrap();
    assert_eq!(replayed["Result"], example("bi11-join-ans-frame-replayed.json")["Result"]);
    assert_eq!(replayed["ProtocolVersion"], "1.1");
}

#[test]
fn notifications_and_answers_want_nothing_back() {
    for (file, code) in
        [("bi11-prstart-notif.json", None), ("bi11-errornotif.json", Some(ResultCode::MalformedRequest))]
    {
        let message = example(file);
        let Ok(Incoming::Notice(notice)) = open(message.to_string().as_bytes()) else { panic!("{file}") };
        assert_eq!(
            (notice.name, notice.transaction),
            (text(&message, "MessageType"), number(&message, "TransactionID"))
        );
        assert_eq!(notice.sender, Party::Ns(text(&message, "SenderID").parse().unwrap()));
        assert_eq!(notice.result.as_ref().map_err(|refusal| refusal.code).err(), code);
        let mut nameless = message.clone();
        nameless.as_object_mut().unwrap().remove("TransactionID");
        assert_eq!(open(nameless.to_string().as_bytes()), Ok(Incoming::Unasked(notice.name.into())));
        if code.is_none() {
            // and what we write is the same
            let party = |name| Party::Ns(text(&message, name).parse().unwrap());
            let nsid = |name| Some(text(&message, name).parse().unwrap());
            let header = Header {
                version: Version::V1_1,
                sender_nsid: nsid("SenderNSID"),
                receiver_nsid: nsid("ReceiverNSID"),
                ..Header::new(party("SenderID"), party("ReceiverID"), notice.transaction)
            };
            let written: Value = serde_json::from_slice(&encode_notif(&header, &Ok(()))).unwrap();
            assert_eq!(written, message);
        }
    }
    let answer = open(example("join-ans.json").to_string().as_bytes());
    let Ok(Incoming::Answer(reply)) = answer else { panic!("{answer:?}") };
    assert_eq!(
        (reply.name, reply.transaction),
        ("JoinAns", number(&example("join-ans.json"), "TransactionID"))
    );
    assert_eq!(reply.sender, Party::Js("00005E100000002F".parse().unwrap()));
    let mut nobodys = example("join-ans.json");
    nobodys["SenderID"] = json!("60050A");
    assert_eq!(open(nobodys.to_string().as_bytes()), Ok(Incoming::Unasked("JoinAns".into())));
}

#[test]
fn what_cannot_be_attributed_is_said_to_be_so() {
    for body in ["", "[]", "{", "null", "\u{0}", "{\"MessageType\":7}", "{}", "{\"MessageType\":\"\"}"] {
        let error = open(body.as_bytes()).unwrap_err();
        let bare: Value = serde_json::from_slice(&error.body()).unwrap();
        assert_eq!(bare["Result"]["ResultCode"], "MalformedRequest", "{body}");
    }
    let unknown = open(br#"{"MessageType":"joinreq"}"#);
    assert_eq!(unknown, Err(NotAttributable::UnknownType("joinreq".into())));
}

/// `join-req.json`, or another, with one member replaced (`null` takes it away).
pub fn with(file: &str, path: &str, value: Value) -> Envelope {
    let mut message = example(file);
    *message.pointer_mut(path).unwrap_or_else(|| panic!("{path} in {file}")) = value;
    envelope(&message)
}

#[test]
fn headers_are_refused_in_the_order_of_the_steps() {
    let header = |path, value| with("join-req.json", path, value).header().unwrap_err();
    let refusal = |code, text: &str| Refusal::new(code, text);
    use ResultCode::{InvalidProtocolVersion, MalformedRequest};
    assert_eq!(
        header("/ProtocolVersion", Value::Null),
        refusal(MalformedRequest, "ProtocolVersion is missing")
    );
    assert_eq!(
        header("/ProtocolVersion", json!(1.0)),
        refusal(MalformedRequest, "ProtocolVersion is not a string")
    );
    for version in ["2.0", "1.2", "1", "1.0.0.0", "1.0.x"] {
        assert_eq!(header("/ProtocolVersion", json!(version)).code, InvalidProtocolVersion, "{version}");
    }
    for id in [json!("12"), json!(1.5), json!(-1), json!(4_294_967_296_u64), json!(1e300)] {
        assert_eq!(header("/TransactionID", id.clone()).code, MalformedRequest, "{id}");
    }
    assert_eq!(header("/SenderID", json!("6005A")), refusal(MalformedRequest, "SenderID is not hexadecimal"));
    let kind = refusal(MalformedRequest, "SenderID is not 6 hexadecimal digits");
    assert_eq!(header("/SenderID", json!("00005E100000002F")), kind);
    let kind = refusal(MalformedRequest, "ReceiverID is not 16 hexadecimal digits");
    assert_eq!(header("/ReceiverID", json!("60050A")), kind);
    // an earlier step hides a later one
    let mut message = example("join-req.json");
    (message["ProtocolVersion"], message["TransactionID"]) = (json!("3.0"), json!("x"));
    assert_eq!(envelope(&message).header().unwrap_err().code, InvalidProtocolVersion);
    // in 1.1 a network server says which one it is
    let mut message = example("bi11-homens-req.json");
    message["SenderNSID"] = Value::Null;
    assert_eq!(envelope(&message).header(), Err(refusal(MalformedRequest, "SenderNSID is missing")));
}

#[test]
fn bodies_are_refused_with_the_object_that_is_wrong() {
    let said = |file, path, value| {
        let refusal = with(file, path, value).body().unwrap_err();
        format!("{:?}: {}", refusal.code, refusal.description)
    };
    let join = |path, value| said("join-req.json", path, value);
    assert_eq!(join("/PHYPayload", json!("")), "MalformedRequest: PHYPayload is missing");
    assert_eq!(join("/PHYPayload", json!(5)), "MalformedRequest: PHYPayload is not a string");
    assert_eq!(
        join("/PHYPayload", json!("0001")),
        "FrameSizeError: PHYPayload: 2 bytes are an impossible length for this frame type"
    );
    assert_eq!(
        join("/DevEUI", json!("ACDE480001020235")),
        "MalformedRequest: DevEUI ACDE480001020235, but the frame says ACDE480001020234"
    );
    assert_eq!(join("/RxDelay", json!(16)), "MalformedRequest: RxDelay is not an integer from 0 to 15");
    assert_eq!(join("/CFList", json!("00")), "MalformedRequest: CFList is not 32 hexadecimal digits");
    assert_eq!(
        join("/DLSettings", json!("80")),
        "MalformedRequest: OptNeg of DLSettings does not fit MACVersion 1.0.3"
    );
    assert!(join("/MACVersion", json!("1.2")).starts_with("MalformedRequest: MACVersion is wrong"));

    let start = |path, value| said("prstart-req.json", path, value);
    assert_eq!(start("/ULMetaData", json!({})), "MalformedRequest: ULMetaData is missing");
    assert_eq!(
        start("/ULMetaData/RecvTime", Value::Null),
        "MalformedRequest: ULMetaData.RecvTime is missing"
    );
    assert_eq!(
        start("/ULMetaData/RecvTime", json!("yesterday")),
        "MalformedRequest: ULMetaData.RecvTime is not an ISO 8601 time with its offset"
    );
    assert_eq!(
        start("/ULMetaData/GWInfo/0/DLAllowed", json!("yes")),
        "MalformedRequest: ULMetaData.GWInfo[].DLAllowed is not a boolean"
    );
    assert_eq!(
        start("/ULMetaData/ULFreq", json!(-868.1)),
        "MalformedRequest: ULMetaData.ULFreq is not a frequency in MHz"
    );
    assert!(start("/ULMetaData/DevAddr", json!("EA14ABCE")).contains("the frame says EA14ABCD"));
    // a downlink is nobody's uplink
    let down = text(&example("xmitdata-req-dl-passive.json"), "PHYPayload").to_owned();
    assert!(start("/PHYPayload", json!(down)).starts_with("MalformedRequest: PHYPayload: MHDR 60"));

    let down = |path, value| said("xmitdata-req-dl-passive.json", path, value);
    assert_eq!(
        down("/DLMetaData/ClassMode", json!("B")),
        "MalformedRequest: DLMetaData.ClassMode is neither A nor C"
    );
    assert_eq!(
        down("/DLMetaData/DataRate1", Value::Null),
        "MalformedRequest: DLMetaData.DataRate1 is missing"
    );
    assert_eq!(down("/DLMetaData/RXDelay1", Value::Null), "MalformedRequest: DLMetaData.RXDelay1 is missing");
    assert_eq!(down("/DLMetaData", Value::Null), "MalformedRequest: ULMetaData or DLMetaData is missing");
    let join = text(&example("join-req.json"), "PHYPayload").to_owned();
    assert!(down("/PHYPayload", json!(join)).starts_with("MalformedRequest: PHYPayload: MHDR 00"));
    assert!(down("/PHYPayload", json!("60CDAB14EA8F")).starts_with("FrameSizeError"));
    let up = said("xmitdata-req-ul-passive.json", "/PHYPayload", json!(join));
    assert_eq!(up, "MalformedRequest: Join and Rejoin frames never travel in an XmitDataReq");
    for port in [0, 256] {
        let port = said("xmitdata-req-dl-handover.json", "/DLMetaData/FPort", json!(port));
        assert!(port.starts_with("InvalidFPort"), "{port}");
    }
    let long = json!("00".repeat(243));
    let long = said("xmitdata-req-dl-handover.json", "/FRMPayload", long);
    assert!(long.starts_with("FrameSizeError"), "{long}");
}

#[test]
fn an_empty_frm_payload_is_a_payload_of_length_zero() {
    let envelope = with("xmitdata-req-ul-handover.json", "/FRMPayload", json!(""));
    assert!(matches!(envelope.body(), Ok(Request::XmitAppUp(up)) if up.frm_payload.is_empty()));
}

#[test]
fn aliases_and_odd_spellings_are_accepted() {
    let (_, _, plain) = request("prstart-req.json");
    let mut message = example("prstart-req.json");
    let meta = message.as_object_mut().unwrap().remove("ULMetaData").unwrap();
    message["ULMetadata"] = meta;
    message["VSExtension"] = json!("not even an object");
    message["ULMetadata"]["RecvTime"] = json!("2026-11-20T11:15:42.000+01:00");
    message["ULMetadata"]["ULFreq"] = json!(868.300000000001);
    message["ULMetadata"]["DataRate"] = json!(5.0);
    message["ULMetadata"]["FPort"] = Value::Null;
    message["Unknown"] = json!({ "a": [1, { "b": null }] });
    assert_eq!(envelope(&message).body(), Ok(plain));

    let mut message = example("prstart-req.json");
    message["ULMetaData"]["GWInfo"] = Value::Null;
    assert!(matches!(envelope(&message).body(), Ok(Request::PrStart(req)) if req.ul.gw_info.is_empty()));

    for (code, expected) in [
        ("UnknownReceiverID", ResultCode::UnknownReceiver),
        ("UnknownReceiver", ResultCode::UnknownReceiver),
        ("MalformedMessage", ResultCode::MalformedRequest),
    ] {
        let mut answer = example("prstart-ans-mic-failed.json");
        answer["Result"] = json!(code);
        assert_eq!(decode(&answer, "prstart-req.json").unwrap().unwrap_err().code, expected);
    }
    let mut answer = example("prstart-ans-mic-failed.json");
    answer["Result"] = json!({ "ResultCode": "TooBusy", "Description": "later" });
    let refusal = decode(&answer, "prstart-req.json").unwrap().unwrap_err();
    assert_eq!(refusal, Refusal::new(ResultCode::Other, "TooBusy later"));
}

#[test]
fn a_member_that_occurs_twice_is_malformed_wherever_it_is() {
    for (from, to) in [
        ("\"RxDelay\": 1", "\"RxDelay\": 1, \"RxDelay\": 1"),
        ("\"RxDelay\": 1", "\"RxDelay\": 1, \"Any\": [{\"RxDelay\": 1, \"RxDelay\": 2}]"),
    ] {
        let text = serde_json::to_string_pretty(&example("join-req.json")).unwrap();
        let text = text.replace(from, to);
        let Ok(Incoming::Request(envelope)) = open(text.as_bytes()) else { panic!("{text}") };
        let expected = Refusal::new(ResultCode::MalformedRequest, "RxDelay occurs twice");
        assert_eq!(envelope.header(), Err(expected));
    }
}

#[test]
fn an_answer_to_something_else_is_not_taken() {
    let (_, header, request) = request("join-req.json");
    let decode = |path: &str, value: Value| {
        let mut answer = example("join-ans.json");
        *answer.pointer_mut(path).unwrap() = value;
        decode_answer(answer.to_string().as_bytes(), &header, &request, &keks())
    };
    let other = |name| move |error| matches!(error, Confused::Other { name: got, .. } if got == name);
    assert!(decode("/TransactionID", json!(1)).is_err_and(other("TransactionID")));
    assert!(decode("/SenderID", json!("00005E1000000030")).is_err_and(other("SenderID")));
    assert!(decode("/ReceiverID", json!("60050B")).is_err_and(other("ReceiverID")));
    assert!(decode("/MessageType", json!("PRStartAns")).is_err_and(other("MessageType")));
    for path in ["/TransactionID", "/SenderID", "/Result", "/PHYPayload", "/NwkSKey"] {
        assert!(decode(path, Value::Null).is_err(), "{path}");
    }
    // a key that cannot be opened makes the whole answer unusable
    let shut =
        decode_answer(example("join-ans.json").to_string().as_bytes(), &header, &request, &Keks::default());
    assert!(matches!(shut, Err(Confused::Malformed(why)) if why.starts_with("NwkSKey cannot be opened")));
    // what a server says that could not attribute our request
    let bare = br#"{"Result":{"ResultCode":"MalformedRequest","Description":"?"}}"#;
    let refusal = decode_answer(bare, &header, &request, &keks()).unwrap().unwrap_err();
    assert_eq!(refusal, Refusal::new(ResultCode::MalformedRequest, "?"));
    let success = br#"{"Result":{"ResultCode":"Success"}}"#;
    assert!(decode_answer(success, &header, &request, &keks()).is_err());
}

#[test]
fn a_malformed_header_is_answered_as_far_as_it_can_be_read() {
    let mut message = example("prstart-req.json");
    message["SenderID"] = json!("nobody");
    message["TransactionID"] = json!("7");
    message["SenderToken"] = json!("0xc0ffee");
    let envelope = envelope(&message);
    let refusal = envelope.header().unwrap_err();
    let answer: Value = serde_json::from_slice(&envelope.answer(&Err(refusal), &keks())).unwrap();
    let expected = json!({
        "ProtocolVersion": "1.0", "SenderID": "60050A", "ReceiverID": "nobody", "TransactionID": 0,
        "MessageType": "PRStartAns", "ReceiverToken": "C0FFEE",
        "Result": { "ResultCode": "MalformedRequest",
                    "Description": "TransactionID is not a number" },
    });
    assert_eq!(answer, expected);
}

#[test]
fn keys_never_leave_unwrapped_unless_allowed() {
    let envelope = envelope(&example("join-req.json"));
    let (_, header, request) = request("join-req.json");
    let ans = JoinAns {
        phy_payload: vec![0x20; 17],
        lifetime: 0,
        keys: NwkKeys::V10 { nwk_s_key: Key::new([0xAB; 16]) },
        app_s_key: Some(KeyEnvelope { label: None, key: vec![0xCD; 16] }),
        session_key_id: Some(vec![1]),
    };
    let shut = envelope.answer(&Ok(Answer::Join(ans.clone())), &Keks::default());
    assert!(!String::from_utf8(shut.clone()).unwrap().contains("ABAB"));
    let refusal = decode_answer(&shut, &header, &request, &keks()).unwrap().unwrap_err();
    assert_eq!(refusal.code, ResultCode::Other);
    // with a wrapped network key the clear AppSKey stays here and SessionKeyID stands for it
    let wrapped = envelope.answer(&Ok(Answer::Join(ans.clone())), &keks());
    assert!(!String::from_utf8(wrapped.clone()).unwrap().contains("CDCD"));
    let Answer::Join(got) = decode_answer(&wrapped, &header, &request, &keks()).unwrap().unwrap() else {
        panic!()
    };
    assert_eq!((got.keys, got.app_s_key), (ans.keys, None));
}

#[test]
fn a_stateful_answer_and_its_end_are_read_object_by_object() {
    let start = |file, from, mic_check| {
        let (_, header, request) = request(from);
        let Request::PrStart(req) = request else { panic!() };
        let asked = PrStartReq { mic_check, ..req }.into();
        decode_answer(example(file).to_string().as_bytes(), &header, &asked, &keks()).map(|answer| {
            match answer {
                Ok(Answer::PrStart(ans)) => ans,
                other => panic!("{other:?}"),
            }
        })
    };
    let sessions = &keys()["sessions"];
    let data = start("prstart-ans.json", "prstart-req.json", true).unwrap();
    assert_eq!(data.dev_eui.unwrap().to_string(), "ACDE480001020234");
    assert_eq!((data.lifetime, data.fcnt_up, data.taken), (Some(3600), Some(1), false));
    assert_eq!(data.mic_key, Some(MicKey::NwkSKey(key(&sessions["dev103-s1"], "NwkSKey"))));
    let join = start("prstart-ans-join.json", "prstart-req-join.json", true).unwrap();
    assert_eq!((join.lifetime, join.fcnt_up), (Some(86400), Some(0)));
    assert_eq!(join.dev_addr.unwrap().to_string(), "EA14ABCE");
    let r11 = start("prstart-ans-r11.json", "prstart-req-r11.json", true).unwrap();
    assert!(matches!(r11.mic_key, Some(MicKey::FNwkSIntKey(_))));
    // a key that nobody has asked for is not even opened
    let unasked = start("prstart-ans.json", "prstart-req.json", false).unwrap();
    assert_eq!((unasked.mic_key, unasked.lifetime), (None, Some(3600)));
    // and one that was asked for and does not open makes the answer unusable
    let (_, header, asked) = request("prstart-req.json");
    let Request::PrStart(req) = asked else { panic!() };
    let asked = PrStartReq { mic_check: true, ..req }.into();
    let wrong = Keks { open: vec![Kek::new("ns1-ns2", [9; 16]).unwrap()], ..Keks::default() };
    let text = example("prstart-ans.json").to_string();
    let shut = decode_answer(text.as_bytes(), &header, &asked, &wrong);
    assert!(matches!(shut, Err(Confused::Malformed(why)) if why.starts_with("NwkSKey cannot be opened")));

    let stop = |file| match request(file).2 {
        Request::PrStop(stop) => (stop.dev_addr.map(|addr| addr.to_string()), stop.lifetime),
        other => panic!("{other:?}"),
    };
    assert_eq!(stop("prstop-req.json"), (Some("EA14ABCD".into()), Some(600)));
    assert_eq!(stop("prstop-req-lift-holdoff.json"), (Some("EA14ABCD".into()), Some(0)));
    assert_eq!(stop("prstop-req-by-fns.json"), (None, None));
}

#[test]
fn a_context_travels_with_its_key_wrapped_or_without_one() {
    let (envelope, header, request) = request("prstart-req.json");
    let Request::PrStart(req) = request else { panic!() };
    let asked = PrStartReq { mic_check: true, ..req }.into();
    let ans = PrStartAns {
        dev_eui: Some("ACDE480001020234".parse().unwrap()),
        lifetime: Some(3600),
        mic_key: Some(MicKey::FNwkSIntKey(Key::new([0xAB; 16]))),
        fcnt_up: Some(7),
        taken: true,
        ..PrStartAns::default()
    };
    let write = |keks: &Keks| envelope.answer(&Ok(Answer::PrStart(ans.clone())), keks);
    assert_eq!(
        decode_answer(&write(&keks()), &header, &asked, &keks()),
        Ok(Ok(Answer::PrStart(ans.clone())))
    );
    // no key-encryption key, no key, and no counter that would belong to it
    let bare = write(&Keks::default());
    assert!(!String::from_utf8(bare.clone()).unwrap().contains("ABAB"));
    let without = PrStartAns { mic_key: None, fcnt_up: None, ..ans.clone() };
    assert_eq!(decode_answer(&bare, &header, &asked, &keks()), Ok(Ok(Answer::PrStart(without))));
}

#[test]
fn a_downlink_rides_in_the_answer_of_those_who_asked_for_it() {
    let (_, header, request) = request("xmitdata-req-ul-passive.json");
    let Request::XmitUp(up) = request else { panic!() };
    let wanting: Request = XmitUp { downlink_in_answer: true, ..up }.into();
    let bytes = encode_request(&header, &wanting);
    let Ok(Incoming::Request(envelope)) = open(&bytes) else { panic!() };
    assert_eq!(envelope.body().as_ref(), Ok(&wanting));

    let (_, _, down) = self::request("xmitdata-req-dl-passive.json");
    let Request::XmitDown(down) = down else { panic!() };
    let riding = XmitAns { riding: Some((down.phy_payload, down.dl)), ..XmitAns::default() };
    let answer = Ok(Answer::Xmit(riding));
    let bytes = envelope.answer(&answer, &Keks::default());
    assert_eq!(decode_answer(&bytes, &header, &wanting, &Keks::default()), Ok(answer));
}
