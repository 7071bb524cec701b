//! The reference data: known vectors of every formula, and one file for each message.

mod examples;
mod properties;
mod table13;

use roamgate::backend::keywrap::{Kek, KekError};
use roamgate::lorawan::crypto::{self, Circumstances, Direction};
use roamgate::lorawan::frame::{Answered, JoinAccept, Uplink};
use roamgate::lorawan::{DevAddr, Key, NetId};
use serde_json::Value;

fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(&path).expect(&path)).expect(&path)
}

fn vectors(name: &str) -> Vec<Value> {
    fixture(&format!("vectors/{name}.json"))["vectors"].as_array().unwrap().clone()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}"))
}

fn bytes(value: &Value, name: &str) -> Vec<u8> {
    hex::decode(text(value, name)).unwrap()
}

fn key(value: &Value, name: &str) -> Key {
    text(value, name).parse().unwrap()
}

fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(value: &Value, name: &str) -> T {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} in {value}")).try_into().unwrap()
}

fn byte(value: &Value, name: &str) -> u8 {
    bytes(value, name)[0]
}

fn cf_list(value: &Value) -> Option<[u8; 16]> {
    hex::decode(value["cf_list"].as_str()?).ok()?.try_into().ok()
}

/// The four MIC bytes of a 1.1 uplink: two of SNwkSIntKey over B1, two of FNwkSIntKey over B0.
fn up_mic_11(phy: &[u8], s_key: &Key, f_key: &Key, fcnt: u32, conf: u16, dr: u8, ch: u8) -> [u8; 4] {
    let message = &phy[..phy.len() - 4];
    let block = |conf: u16, dr: u8, ch: u8| {
        let mut block = vec![0x49, conf as u8, (conf >> 8) as u8, dr, ch, 0];
        block.extend(&phy[1..5]);
        block.extend(fcnt.to_le_bytes());
        block.extend([0, message.len() as u8]);
        block
    };
    let s = crypto::cmac(s_key, &[&block(conf, dr, ch), message]);
    let f = crypto::cmac(f_key, &[&block(0, 0, 0), message]);
    [s[0], s[1], f[0], f[1]]
}

/// The MIC of a 1.1 Join-accept in clear, without its own four bytes.
fn accept_mic_11(js_int_key: &Key, kind: u8, join_eui: [u8; 8], nonce: u16, clear: &[u8]) -> [u8; 4] {
    let mac = crypto::cmac(js_int_key, &[&[kind], &join_eui, &nonce.to_le_bytes(), clear]);
    [mac[0], mac[1], mac[2], mac[3]]
}

fn data_parts(phy: &[u8]) -> DevAddr {
    DevAddr::from_air(phy[1..5].try_into().unwrap())
}

#[test]
fn cmac_gives_the_published_vectors() {
    let file = fixture("vectors/aes-cmac-rfc4493.json");
    for vector in file["vectors"].as_array().unwrap() {
        let mac = crypto::cmac(&key(&file, "key"), &[&bytes(vector, "msg")]);
        assert_eq!(mac.to_vec(), bytes(vector, "mac"), "{vector}");
    }
}

#[test]
fn data_mics_of_both_versions() {
    for vector in vectors("data-mics") {
        let (phy, fcnt) = (bytes(&vector, "phy"), number(&vector, "fcnt"));
        let addr = data_parts(&phy);
        match text(&vector, "kind") {
            "up10" => {
                let Ok(Uplink::Data(frame)) = Uplink::parse(&phy) else { panic!("{vector}") };
                assert!(frame.up_mic_matches(&key(&vector, "key"), fcnt), "{vector}");
                assert!(!frame.up_mic_matches(&key(&vector, "key"), fcnt ^ 0x10000), "{vector}");
                let mic =
                    crypto::data_mic(&key(&vector, "key"), Direction::Up, addr, fcnt, &phy[..phy.len() - 4]);
                assert_eq!(mic, phy[phy.len() - 4..], "{vector}");
            }
            "up11" => {
                let (s, f) = (key(&vector, "s_key"), key(&vector, "f_key"));
                let (dr, ch) = (number(&vector, "tx_dr"), number(&vector, "tx_ch"));
                let conf_fcnt = number(&vector, "conf_fcnt");
                let mic = up_mic_11(&phy, &s, &f, fcnt, conf_fcnt, dr, ch);
                assert_eq!(mic, phy[phy.len() - 4..], "{vector}");
                let Ok(Uplink::Data(frame)) = Uplink::parse(&phy) else { panic!("{vector}") };
                let sent = Circumstances { data_rate: dr, channel: ch, conf_fcnt };
                assert!(frame.up_mic_matches_11(&s, &f, fcnt, sent), "{vector}");
                for other in [
                    Circumstances { data_rate: dr ^ 1, ..sent },
                    Circumstances { channel: ch ^ 1, ..sent },
                    Circumstances { conf_fcnt: conf_fcnt ^ 1, ..sent },
                ] {
                    assert!(!frame.up_mic_matches_11(&s, &f, fcnt, other), "{other:?}: {vector}");
                }
                assert!(!frame.up_mic_matches_11(&s, &f, fcnt ^ 0x10000, sent), "{vector}");
            }
            "down" => {
                let right = crypto::data_mic_matches(&key(&vector, "key"), Direction::Down, addr, fcnt, &phy);
                assert!(right, "{vector}");
                let (key, before) = (key(&vector, "key"), &phy[..phy.len() - 4]);
                let mic = crypto::down_mic_11(&key, addr, fcnt, number(&vector, "conf_fcnt"), before);
                assert_eq!(mic, phy[phy.len() - 4..], "{vector}");
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn payloads_encrypt_and_decrypt() {
    for vector in vectors("frm-payload") {
        let dir = if vector["direction"] == 0 { Direction::Up } else { Direction::Down };
        let addr: DevAddr = text(&vector, "dev_addr").parse().unwrap();
        let mut payload = bytes(&vector, "clear");
        let mut crypt =
            || crypto::crypt_payload(&key(&vector, "key"), dir, addr, number(&vector, "fcnt"), &mut payload);
        crypt();
        assert_eq!(payload, bytes(&vector, "cipher"), "{vector}");
        let mut crypt =
            || crypto::crypt_payload(&key(&vector, "key"), dir, addr, number(&vector, "fcnt"), &mut payload);
        crypt();
        assert_eq!(payload, bytes(&vector, "clear"), "{vector}");
    }
}

#[test]
fn join_accepts_of_both_versions() {
    for vector in vectors("join-accepts") {
        let (clear, phy) = (bytes(&vector, "clear"), bytes(&vector, "phy"));
        let enc_key = key(&vector, "enc_key");
        let mut opened = phy.clone();
        crypto::decrypt_join_accept(&enc_key, &mut opened[1..]);
        assert_eq!(opened, clear, "{vector}");
        let mut sealed = clear.clone();
        crypto::encrypt_join_accept(&enc_key, &mut sealed[1..]);
        assert_eq!(sealed, phy, "{vector}");

        let accept = JoinAccept {
            join_nonce: number(&vector, "join_nonce"),
            net_id: text(&vector, "net_id").parse().unwrap(),
            dev_addr: text(&vector, "dev_addr").parse().unwrap(),
            dl_settings: byte(&vector, "dl_settings"),
            rx_delay: number(&vector, "rx_delay"),
            cf_list: cf_list(&vector),
        };
        let (body, mic) = clear.split_at(clear.len() - 4);
        if text(&vector, "mode") == "1.0" {
            assert_eq!(accept.build(&enc_key), phy, "{vector}");
            assert_eq!(crypto::join_mic(&enc_key, body), mic, "{vector}");
        } else {
            let join_eui: roamgate::lorawan::JoinEui = text(&vector, "join_eui").parse().unwrap();
            let (kind, nonce) = (number(&vector, "req_type"), number(&vector, "nonce"));
            let got = accept_mic_11(&key(&vector, "mic_key"), kind, join_eui.to_air(), nonce, body);
            assert_eq!(got, mic, "{vector}");
            let answered = Answered { kind, join_eui, nonce };
            assert_eq!(accept.build_11(&enc_key, &key(&vector, "mic_key"), answered), phy, "{vector}");
        }
    }
}

#[test]
fn join_and_rejoin_mics() {
    for vector in vectors("join-mics") {
        let phy = bytes(&vector, "phy");
        let right = crypto::join_mic_matches(&key(&vector, "key"), &phy);
        assert_eq!(Some(right), vector["valid"].as_bool(), "{vector}");
        match Uplink::parse(&phy) {
            Ok(Uplink::Join(join)) => {
                assert_eq!(join.verify(&key(&vector, "key")).is_some(), right, "{vector}")
            }
            Ok(Uplink::Rejoin(rejoin)) => assert_eq!(rejoin.as_bytes(), phy),
            other => panic!("{other:?}: {vector}"),
        }
    }
}

#[test]
fn keys_wrap_and_unwrap() {
    for vector in vectors("keywrap-rfc3394") {
        let kek = Kek::new("kek", bytes(&vector, "kek")).unwrap();
        assert_eq!(kek.wrap_bytes(&bytes(&vector, "key")).unwrap(), bytes(&vector, "wrapped"), "{vector}");
        assert_eq!(*kek.unwrap_bytes(&bytes(&vector, "wrapped")).unwrap(), bytes(&vector, "key"), "{vector}");
    }
    for vector in fixture("vectors/keywrap-rfc3394.json")["must_fail_unwrap"].as_array().unwrap() {
        let kek = Kek::new("kek", bytes(vector, "kek")).unwrap();
        let error = kek.unwrap_bytes(&bytes(vector, "wrapped")).unwrap_err();
        assert!(matches!(error, KekError::Integrity | KekError::Length(_)), "{vector}");
    }
}

#[test]
fn addresses_of_every_kind_of_network() {
    for vector in vectors("netid-devaddr") {
        let net_id: NetId = text(&vector, "net_id").parse().unwrap();
        let addr: DevAddr = text(&vector, "dev_addr").parse().unwrap();
        let (first, last): (DevAddr, DevAddr) = (
            text(&vector, "dev_addr_first").parse().unwrap(),
            text(&vector, "dev_addr_last").parse().unwrap(),
        );
        assert_eq!(u64::from(net_id.kind()), vector["type"], "{vector}");
        assert_eq!(net_id.nwk_id(), number::<u32>(&vector, "nwk_id"), "{vector}");
        assert_eq!(net_id.nwk_addr_bits(), number::<u32>(&vector, "nwk_addr_bits"), "{vector}");
        assert_eq!(net_id.dev_addr(number(&vector, "nwk_addr")), addr, "{vector}");
        assert_eq!(net_id.dev_addr(0), first, "{vector}");
        assert_eq!(net_id.dev_addr(u32::MAX), last, "{vector}");
        assert_eq!(addr.kind(), Some(net_id.kind()), "{vector}");
        assert!(net_id.covers(addr) && net_id.covers(first) && net_id.covers(last), "{vector}");
        for outside in [first.number().wrapping_sub(1), last.number().wrapping_add(1)] {
            assert!(!net_id.covers(DevAddr::new(outside)), "{vector}");
        }
        // only types 0 to 2 lead back to one network
        assert_eq!(addr.net_id(), (net_id.kind() <= 2).then_some(net_id), "{vector}");
    }
    let file = fixture("vectors/netid-devaddr.json");
    for same in file["same_nwk_id"].as_array().unwrap() {
        let ids: Vec<NetId> = same["net_ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap().parse().unwrap())
            .collect();
        for id in &ids {
            assert_eq!(id.nwk_id(), number::<u32>(same, "nwk_id"));
            assert!(ids.iter().all(|other| other.covers(id.dev_addr(1))), "{same}");
        }
    }
    for addr in file["no_type"].as_array().unwrap() {
        let addr: DevAddr = addr.as_str().unwrap().parse().unwrap();
        assert_eq!((addr.kind(), addr.net_id()), (None, None));
    }
}

#[test]
fn session_keys_of_both_derivations() {
    for vector in vectors("session-keys") {
        let (join_nonce, nonce) = (number(&vector, "join_nonce"), number(&vector, "nonce"));
        let expected = &vector["expected"];
        if text(&vector, "mode") == "1.0" {
            let net_id = text(&vector, "net_id").parse().unwrap();
            let keys = crypto::session_keys(&key(&vector, "root_key"), join_nonce, net_id, nonce);
            assert_eq!(keys.nwk_s_key, key(expected, "NwkSKey"), "{vector}");
            assert_eq!(keys.app_s_key, key(expected, "AppSKey"), "{vector}");
        } else {
            let (nwk_key, app_key) = (key(&vector, "nwk_key"), key(&vector, "app_key"));
            let join_eui = text(&vector, "join_eui").parse().unwrap();
            let keys = crypto::session_keys_11(&nwk_key, &app_key, join_nonce, join_eui, nonce);
            assert_eq!(keys.f_nwk_s_int_key, key(expected, "FNwkSIntKey"), "{vector}");
            assert_eq!(keys.s_nwk_s_int_key, key(expected, "SNwkSIntKey"), "{vector}");
            assert_eq!(keys.nwk_s_enc_key, key(expected, "NwkSEncKey"), "{vector}");
            assert_eq!(keys.app_s_key, key(expected, "AppSKey"), "{vector}");
            let (enc, int) = crypto::join_server_keys(&nwk_key, text(&vector, "dev_eui").parse().unwrap());
            assert_eq!((enc, int), (key(expected, "JSEncKey"), key(expected, "JSIntKey")), "{vector}");
        }
    }
}
