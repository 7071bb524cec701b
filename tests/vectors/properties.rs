//! Whatever comes in gives an answer, and what goes out comes back.

use proptest::prelude::*;
use roamgate::backend::message::wire::{Header, Incoming, decode_answer, encode_request, open};
use roamgate::backend::message::*;
use serde_json::{Value, json};

use super::examples::{example, index, keks, request};
use super::*;

fn files() -> impl Strategy<Value = String> {
    let files: Vec<String> = index().iter().map(|entry| text(entry, "file").to_owned()).collect();
    prop::sample::select(files)
}

/// Read a body in every way there is.
fn read(body: &[u8]) {
    if let Ok(Incoming::Request(envelope)) = open(body) {
        let result = envelope.header().and_then(|_| envelope.body());
        let refusal = result.err().unwrap_or(Refusal::new(ResultCode::Other, ""));
        let answer = envelope.answer(&Err(refusal), &keks());
        assert!(serde_json::from_slice::<Value>(&answer).is_ok());
        envelope.as_sent();
    }
    for from in ["homens-req.json", "prstart-req.json", "xmitdata-req-dl-passive.json", "join-req.json"] {
        let (_, header, request) = request(from);
        let _ = decode_answer(body, &header, &request, &keks());
    }
}

fn gateway() -> impl Strategy<Value = GwInfo> {
    let place = || prop::option::of((-900_000..900_000).prop_map(|n| f64::from(n) / 1e4));
    let token = prop::option::of(prop::collection::vec(any::<u8>(), 1..80));
    let id = prop::option::of(prop::collection::vec(any::<u8>(), 4));
    let region = prop::option::of("[A-Z0-9-]{1,8}");
    let level = (prop::option::of(-150..30), prop::option::of((-100..100).prop_map(|n| f64::from(n) / 4.0)));
    (id, region, level, place(), place(), token, any::<Option<bool>>()).prop_map(
        |(id, rf_region, (rssi, snr), lat, lon, ul_token, dl_allowed)| GwInfo {
            fine_recv_time: None,
            id,
            rf_region,
            rssi,
            snr,
            lat,
            lon,
            ul_token,
            dl_allowed,
        },
    )
}

fn ul_meta() -> impl Strategy<Value = UlMeta> {
    let counters = (any::<Option<u8>>(), any::<Option<u32>>(), any::<u32>(), any::<bool>());
    let heard = (0..16u8, 1..1_000_000_000u32, 0..4_000_000_000i64, "[A-Za-z0-9_-]{1,10}");
    let gateways = (any::<Option<u32>>(), prop::collection::vec(gateway(), 0..4));
    (any::<[u8; 8]>(), counters, heard, gateways, prop::option::of(prop::collection::vec(any::<u8>(), 1..99)))
        .prop_map(
            |(eui, (f_port, fcnt_down, fcnt_up, confirmed), (dr, freq, time, region), gateways, token)| {
                UlMeta {
                    dev_eui: Some(roamgate::lorawan::DevEui::from_msb(eui)),
                    f_port,
                    fcnt_down,
                    fcnt_up: Some(fcnt_up),
                    confirmed,
                    data_rate: Some(dr),
                    ul_freq: Some(freq),
                    fns_ul_token: token,
                    rf_region: Some(region),
                    gw_cnt: gateways.0,
                    gw_info: gateways.1,
                    ..UlMeta::at(jiff::Timestamp::from_second(time).unwrap())
                }
            },
        )
}

fn dl_meta() -> impl Strategy<Value = DlMeta> {
    let windows = (1..1_000_000_000u32, any::<Option<u32>>(), 0..16u8, 0..16u8, 0..16u8, any::<bool>());
    let tokens = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..3);
    (any::<Option<[u8; 8]>>(), windows, 1..255u8, any::<u32>(), any::<[bool; 2]>(), tokens).prop_map(
        |(eui, (f1, f2, delay, dr1, dr2, class_a), port, fcnt, [confirmed, hi_priority], ul_tokens)| DlMeta {
            dev_eui: eui.map(roamgate::lorawan::DevEui::from_msb),
            f_port: Some(port),
            fcnt_down: Some(fcnt),
            confirmed,
            dl_freq1: Some(f1),
            dl_freq2: f2.filter(|hertz| *hertz > 0),
            rx_delay1: Some(delay),
            class_mode: Some(if class_a { ClassMode::A } else { ClassMode::C }),
            data_rate1: Some(dr1),
            data_rate2: Some(dr2),
            fns_ul_token: None,
            ul_tokens,
            hi_priority,
        },
    )
}

fn round_trip(request: Request) {
    let header = Header {
        sender_token: Some(vec![1, 2]),
        receiver_token: Some(vec![3]),
        ..Header::new(Party::Ns("C0002F".parse().unwrap()), Party::Ns("60050A".parse().unwrap()), 7)
    };
    let bytes = encode_request(&header, &request);
    let Ok(Incoming::Request(envelope)) = open(&bytes) else { panic!() };
    assert_eq!(envelope.header(), Ok(header));
    assert_eq!(envelope.body(), Ok(request));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        read(&body);
    }

    #[test]
    fn damaged_examples_never_panic(file in files(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut body = example(&file).to_string().into_bytes();
        let at = at.index(body.len());
        if cut { body.truncate(at) } else { body[at] = byte }
        read(&body);
    }

    #[test]
    fn examples_with_a_strange_member_never_panic(
        file in files(),
        at in any::<prop::sample::Index>(),
        strange in prop::sample::select(vec![
            json!(null), json!(""), json!({}), json!([]), json!([null, 1, {}]), json!(-1), json!(1e308),
            json!(u64::MAX), json!("0x"), json!("FF"), json!("é"), json!(true), json!({"KEKLabel": 1}),
        ]),
    ) {
        let mut message = example(&file);
        let names: Vec<String> = message.as_object().unwrap().keys().cloned().collect();
        message[&names[at.index(names.len())]] = strange.clone();
        read(message.to_string().as_bytes());
        for meta in ["ULMetaData", "DLMetaData"] {
            let mut message = example(&file);
            let Some(object) = message[meta].as_object_mut() else { continue };
            let names: Vec<String> = object.keys().cloned().collect();
            object.insert(names[at.index(names.len())].clone(), strange.clone());
            read(message.to_string().as_bytes());
        }
    }

    #[test]
    fn uplinks_survive_the_wire(ul in ul_meta(), payload in prop::collection::vec(any::<u8>(), 0..242), ride in any::<bool>()) {
        let (_, _, data) = request("xmitdata-req-ul-passive.json");
        let Request::XmitUp(XmitUp { phy_payload, .. }) = data else { panic!() };
        round_trip(PrStartReq { phy_payload: phy_payload.clone(), ul: ul.clone(), downlink_in_answer: ride, dedup_window: None, mic_check: false, home: None }.into());
        round_trip(XmitUp { phy_payload, ul: ul.clone(), downlink_in_answer: ride }.into());
        // between sNS and hNS: no token, and a counter that is known
        let ul = UlMeta { fns_ul_token: None, fcnt_down: Some(ul.fcnt_down.unwrap_or(0)), ..ul };
        round_trip(XmitAppUp { frm_payload: payload, ul, ack: ride, via: None, home: None }.into());
    }

    #[test]
    fn downlinks_survive_the_wire(mut dl in dl_meta(), payload in prop::collection::vec(any::<u8>(), 0..242)) {
        let (_, _, data) = request("xmitdata-req-dl-passive.json");
        let Request::XmitDown(XmitDown { phy_payload, .. }) = data else { panic!() };
        round_trip(XmitDown { phy_payload, dl: dl.clone(), account: None }.into());
        dl.dev_eui = Some(roamgate::lorawan::DevEui::from_msb([1; 8]));
        round_trip(XmitAppDown { frm_payload: payload, dl, dev_addr: None }.into());
    }
}
