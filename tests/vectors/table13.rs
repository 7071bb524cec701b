//! Every row of TS002 table 13, and of tables 4 and 5 below it: what an object costs that is missing, of another type, or of another
//! length. Each cell by cell, in both versions, with the Result code as it goes over the wire.

use roamgate::backend::message::Refusal;
use roamgate::backend::message::wire::{Confused, Incoming, decode_answer, open};
use serde_json::{Value, json};

use super::examples::{example, keks, request};
use super::*;

/// What a table says of an object.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cell {
    /// Mandatory.
    M,
    /// Optional.
    O,
}
use Cell::{M, O};

/// Requests: the message, an example of it, and its objects. XmitDataReq has four forms, HRStartReq two.
#[rustfmt::skip]
const REQUESTS: &[(&str, &[(&str, Cell)])] = &[
    ("join-req.json", &[("MACVersion", M), ("PHYPayload", M), ("DevEUI", M), ("DevAddr", M), ("DLSettings", M),
        ("RxDelay", M), ("CFList", O)]),
    ("rejoin-req.json", &[("MACVersion", M), ("PHYPayload", M), ("DevEUI", M), ("DevAddr", M), ("DLSettings", M),
        ("RxDelay", M), ("CFList", O)]),
    ("appskey-req.json", &[("DevEUI", M), ("SessionKeyID", M)]),
    ("homens-req.json", &[("DevEUI", M)]),
    ("prstart-req.json", &[("PHYPayload", M), ("ULMetaData", M), ("ULMetaData/RecvTime", M), ("ULMetaData/DataRate", M),
        ("ULMetaData/ULFreq", M), ("ULMetaData/RFRegion", M), ("ULMetaData/DevAddr", O), ("ULMetaData/FNSULToken", O),
        ("ULMetaData/GWCnt", O), ("ULMetaData/GWInfo", O), ("ULMetaData/GWInfo/0/ID", O),
        ("ULMetaData/GWInfo/0/RSSI", O), ("ULMetaData/GWInfo/0/SNR", O), ("ULMetaData/GWInfo/0/Lat", O),
        ("ULMetaData/GWInfo/0/Lon", O), ("ULMetaData/GWInfo/0/ULToken", O), ("ULMetaData/GWInfo/0/DLAllowed", O)]),
    ("prstart-req-join.json", &[("PHYPayload", M), ("ULMetaData", M), ("ULMetaData/DevEUI", O)]),
    ("prstop-req.json", &[("DevEUI", M), ("DevAddr", O), ("Lifetime", O)]),
    ("xmitdata-req-ul-passive.json", &[("PHYPayload", M), ("ULMetaData", M), ("ULMetaData/RecvTime", M),
        ("ULMetaData/DataRate", M), ("ULMetaData/ULFreq", M), ("ULMetaData/RFRegion", M)]),
    ("xmitdata-req-dl-passive.json", &[("PHYPayload", M), ("DLMetaData", M), ("DLMetaData/ClassMode", M),
        ("DLMetaData/RXDelay1", M), ("DLMetaData/DataRate1", M), ("DLMetaData/DataRate2", M),
        ("DLMetaData/DevEUI", O), ("DLMetaData/FNSULToken", O), ("DLMetaData/GWInfo", O)]),
    ("xmitdata-req-ul-handover.json", &[("FRMPayload", M), ("ULMetaData", M), ("ULMetaData/DevEUI", M),
        ("ULMetaData/FCntUp", M), ("ULMetaData/RecvTime", M), ("ULMetaData/FPort", O), ("ULMetaData/Confirmed", O)]),
    ("xmitdata-req-dl-handover.json", &[("FRMPayload", M), ("DLMetaData", M), ("DLMetaData/DevEUI", M),
        ("DLMetaData/FCntDown", M), ("DLMetaData/Confirmed", O), ("DLMetaData/HiPriorityFlag", O)]),
    ("hrstart-req-join.json", &[("MACVersion", M), ("PHYPayload", M), ("DevAddr", M), ("DLSettings", M), ("RxDelay", M),
        ("CFList", O), ("ULMetaData", M), ("DeviceProfileTimestamp", M)]),
    ("hrstart-req.json", &[("MACVersion", M), ("PHYPayload", M), ("DevAddr", M), ("DLSettings", M), ("RxDelay", M),
        ("CFList", O), ("ULMetaData", M), ("DeviceProfileTimestamp", M)]),
    ("hrstart-req-regain.json", &[("DevEUI", M)]),
    ("hrstop-req.json", &[("DevEUI", M), ("Lifetime", O)]),
    ("profile-req.json", &[("DevEUI", M)]),
];

/// Objects that every message has.
const HEADER: &[&str] = &["ProtocolVersion", "SenderID", "ReceiverID", "TransactionID"];

/// Successful answers: the example, its question, objects without which it is none, and those that may be missing although the
/// table says otherwise, because deployed peers leave them out (section 18).
#[rustfmt::skip]
const ANSWERS: &[(&str, &str, &[&str], &[&str])] = &[
    ("join-ans.json", "join-req.json", &["Result", "PHYPayload", "NwkSKey", "AppSKey+SessionKeyID"], &["Lifetime", "AppSKey", "SessionKeyID"]),
    ("join-ans-r11.json", "join-req-r11.json", &["PHYPayload", "SNwkSIntKey", "FNwkSIntKey", "NwkSEncKey"], &["Lifetime"]),
    ("rejoin-ans.json", "rejoin-req.json", &["Result", "PHYPayload", "SNwkSIntKey", "FNwkSIntKey", "NwkSEncKey", "AppSKey+SessionKeyID"], &["Lifetime"]),
    ("appskey-ans.json", "appskey-req.json", &["Result", "AppSKey"], &[]),
    ("homens-ans.json", "homens-req.json", &["Result", "HNetID"], &[]),
    ("prstart-ans.json", "prstart-req.json", &["Result"], &["Lifetime", "ServiceProfile", "DevEUI"]),
    ("prstop-ans.json", "prstop-req.json", &["Result"], &[]),
    ("xmitdata-ans-dl-passive.json", "xmitdata-req-dl-passive.json", &["Result"], &["DLFreq1"]),
    ("hrstart-ans.json", "hrstart-req.json", &["Result", "PHYPayload", "SNwkSIntKey", "FNwkSIntKey", "NwkSEncKey"], &["Lifetime", "ServiceProfile", "DLMetaData"]),
    ("hrstop-ans.json", "hrstop-req.json", &["Result"], &[]),
    ("profile-ans-handover.json", "profile-req-handover.json", &["Result", "RoamingActivationType", "DeviceProfile", "DeviceProfileTimestamp"], &[]),
    ("profile-ans-passive.json", "profile-req.json", &["Result", "RoamingActivationType"], &[]),
];

/// What an object must not be, beside absent: values of another type, length or range, with the code that each costs.
fn wrong(path: &str, value: &Value) -> Vec<(Value, &'static str)> {
    let malformed =
        |values: Vec<Value>| values.into_iter().map(|value| (value, "MalformedRequest")).collect();
    let name = path.rsplit('/').next().unwrap();
    let digits = value.as_str().unwrap_or_default();
    match name {
        // a frame that is too short or too long for its type has a code of its own
        "PHYPayload" => {
            // a data frame may be of any length from 12 bytes on, the others of one
            let is_data = matches!(digits.get(..2), Some("40" | "80" | "60" | "A0"));
            let cut = json!(&digits[..if is_data { 22 } else { digits.len() - 2 }]);
            let mut all: Vec<_> =
                malformed(vec![json!(7), json!(true), json!([]), json!("zz"), json!("0"), json!("E000")]);
            all.push((cut, "FrameSizeError"));
            all
        }
        "FRMPayload" => {
            let mut all: Vec<_> = malformed(vec![json!(7), json!([]), json!("zz"), json!("0")]);
            all.push((json!("00".repeat(243)), "FrameSizeError"));
            all
        }
        "DevEUI" | "DevAddr" | "DLSettings" | "CFList" => malformed(vec![
            json!(7),
            json!({ "a": 1 }),
            json!(&digits[2..]),
            json!(format!("{digits}00")),
            json!(&digits[1..]),
            json!("zz".repeat(digits.len() / 2)),
        ]),
        "SessionKeyID" => malformed(vec![json!(7), json!("0"), json!("00".repeat(33))]),
        "FNSULToken" | "ULToken" | "ID" => malformed(vec![json!(7), json!("0"), json!("zz")]),
        "MACVersion" => malformed(vec![json!(1.1), json!("1.2"), json!("2.0"), json!("one")]),
        "RxDelay" | "RXDelay1" | "DataRate" | "DataRate1" | "DataRate2" => {
            malformed(vec![json!("1"), json!(16), json!(-1), json!(1.5)])
        }
        "Lifetime" | "FCntUp" | "FCntDown" | "GWCnt" => {
            malformed(vec![json!("1"), json!(4_294_967_296_u64), json!(-1), json!(1.5)])
        }
        "FPort" => malformed(vec![json!("1"), json!(256), json!(-1)]),
        "ULFreq" => malformed(vec![json!("868.1"), json!(0), json!(-868.1)]),
        "RSSI" | "SNR" | "Lat" | "Lon" => malformed(vec![json!("1"), json!(true)]),
        "Confirmed" | "HiPriorityFlag" | "DLAllowed" => malformed(vec![json!("true"), json!(1)]),
        "ClassMode" => malformed(vec![json!("B"), json!("a"), json!(1)]),
        "RFRegion" => malformed(vec![json!(868), json!([])]),
        "RecvTime" | "DeviceProfileTimestamp" => {
            malformed(vec![json!(1_700_000_000), json!("yesterday"), json!("2026-11-20T10:15:42")])
        }
        "ULMetaData" | "DLMetaData" => malformed(vec![json!("x"), json!([]), json!(1)]),
        "GWInfo" => malformed(vec![json!({ "ID": "01" }), json!("x"), json!([1])]),
        other => panic!("no wrong values for {other}"),
    }
}

/// The Result code of the answer that we owe for a message.
fn code(message: &Value) -> String {
    let bytes = message.to_string();
    let Ok(Incoming::Request(envelope)) = open(bytes.as_bytes()) else { panic!("{message}") };
    let done: Result<(), Refusal> = envelope.header().and_then(|_| envelope.body()).map(drop);
    let Err(refusal) = done else { return "Success".into() };
    let answer: Value = serde_json::from_slice(&envelope.answer(&Err(refusal), &keks())).unwrap();
    // one that cannot be read is answered as 0
    let id = message["TransactionID"].as_u64().filter(|id| u32::try_from(*id).is_ok()).unwrap_or(0);
    assert_eq!(answer["TransactionID"], id);
    text(&answer["Result"], "ResultCode").to_owned()
}

/// The same message in the other version of the protocol.
fn in_1_1(mut message: Value) -> Value {
    message["ProtocolVersion"] = json!("1.1");
    message["SenderNSID"] = json!("70B3D57ED0000A02");
    message
}

fn check(file: &str, path: &str, value: Value, expected: &str) {
    let mut message = example(file);
    *message.pointer_mut(&format!("/{path}")).unwrap_or_else(|| panic!("{path} in {file}")) = value.clone();
    assert_eq!(code(&message), expected, "{path} = {value} in {file}");
    let newer = if expected == "MalformedRequest" { "MalformedMessage" } else { expected };
    assert_eq!(code(&in_1_1(message)), newer, "{path} = {value} in {file}, in 1.1");
}

#[test]
fn every_object_of_every_request_has_its_price() {
    let mut cells = 0;
    for (file, objects) in REQUESTS {
        assert_eq!(code(&example(file)), "Success", "{file}");
        for (path, cell) in *objects {
            let value = example(file)
                .pointer(&format!("/{path}"))
                .unwrap_or_else(|| panic!("{path} in {file}"))
                .clone();
            let absent = if *cell == M { "MalformedRequest" } else { "Success" };
            check(file, path, Value::Null, absent);
            // nothing in it is nothing; but a payload may be of length zero
            let empty = if value.is_object() { json!({}) } else { json!("") };
            if value.is_object() || value.is_string() {
                check(file, path, empty, if *path == "FRMPayload" { "Success" } else { absent });
            }
            for (value, expected) in wrong(path, &value) {
                check(file, path, value, expected);
                cells += 1;
            }
        }
    }
    assert!(cells > 300, "{cells}");
}

#[test]
fn every_object_of_the_header_has_its_price() {
    for (file, _) in REQUESTS {
        for name in HEADER {
            let mut message = example(file);
            message[*name] = Value::Null;
            assert_eq!(code(&message), "MalformedRequest", "{name} of {file}");
        }
        for (name, value) in [
            ("TransactionID", json!("1")),
            ("TransactionID", json!(1.5)),
            ("TransactionID", json!(4_294_967_296_u64)),
            ("SenderToken", json!(7)),
            ("ReceiverToken", json!("0")),
        ] {
            let mut message = example(file);
            message[name] = value;
            assert_eq!(code(&message), "MalformedRequest", "{name} of {file}");
        }
        // an application server's name is any text
        if *file != "appskey-req.json" {
            check(file, "SenderID", json!("60050"), "MalformedRequest");
            check(file, "SenderID", json!("00005E100000002F"), "MalformedRequest");
        }
        check(file, "ReceiverID", json!("60050"), "MalformedRequest");
        let mut newer = example(file);
        newer["ProtocolVersion"] = json!("1.2");
        assert_eq!(code(&newer), "InvalidProtocolVersion", "{file}");
    }
}

#[test]
fn what_excludes_each_other_does() {
    for (file, more) in [
        ("xmitdata-req-ul-passive.json", json!({ "FRMPayload": "01" })),
        ("xmitdata-req-dl-handover.json", json!({ "PHYPayload": "40" })),
        ("xmitdata-req-ul-passive.json", example("xmitdata-req-dl-passive.json")),
        ("join-req.json", json!({ "DLSettings": "80" })),
        ("join-req-r11.json", json!({ "DLSettings": "00" })),
        ("rejoin-req.json", json!({ "MACVersion": "1.0.4", "DLSettings": "00" })),
        // the frame is of another device, or of another kind
        ("join-req.json", json!({ "DevEUI": "ACDE480001020235" })),
        ("rejoin-req.json", json!({ "DevEUI": "ACDE480001020235" })),
        ("join-req.json", json!({ "PHYPayload": example("rejoin-req.json")["PHYPayload"] })),
        ("rejoin-req.json", json!({ "PHYPayload": example("join-req-r11.json")["PHYPayload"] })),
        ("prstart-req.json", json!({ "PHYPayload": example("xmitdata-req-dl-passive.json")["PHYPayload"] })),
        ("xmitdata-req-ul-passive.json", json!({ "PHYPayload": example("join-req.json")["PHYPayload"] })),
    ] {
        let mut message = example(file);
        let all = message.as_object_mut().unwrap();
        for (name, value) in more.as_object().unwrap() {
            if !HEADER.contains(&name.as_str()) && name != "MessageType" {
                all.insert(name.clone(), value.clone());
            }
        }
        assert_eq!(code(&message), "MalformedRequest", "{file} with {more}");
    }
    // FPort of a downlink of the application has a code of its own
    for port in [json!(0), json!(256)] {
        check("xmitdata-req-dl-handover.json", "DLMetaData/FPort", port, "InvalidFPort");
    }
    // a type 2 changes no channels: what it has of them is dropped
    let (_, _, rejoin) = request("hrstart-req-type2.json");
    let roamgate::backend::message::Request::HrStart(start) = rejoin else { panic!() };
    assert_eq!(start.cf_list, None);
}

#[test]
fn an_answer_without_what_makes_it_one_is_none() {
    for (file, from, mandatory, lenient) in ANSWERS {
        let (_, header, asked) = request(from);
        let mut header = header;
        header.transaction = number(&example(file), "TransactionID");
        let decode = |answer: &Value| decode_answer(answer.to_string().as_bytes(), &header, &asked, &keks());
        assert!(matches!(decode(&example(file)), Ok(Ok(_))), "{file}");
        for names in *mandatory {
            let mut answer = example(file);
            let members = answer.as_object_mut().unwrap();
            let removed = names.split('+').filter(|name| members.remove(*name).is_some()).count();
            assert!(removed > 0, "{names} of {file}");
            let decoded = decode(&answer);
            let expected = matches!(decoded, Err(Confused::Malformed(_) | Confused::NoAnswer(_)));
            assert!(expected, "{file} without {names}: {decoded:?}");
        }
        for name in *lenient {
            let mut answer = example(file);
            answer.as_object_mut().unwrap().remove(*name);
            assert!(matches!(decode(&answer), Ok(Ok(_))), "{file} without {name}");
        }
    }
}
