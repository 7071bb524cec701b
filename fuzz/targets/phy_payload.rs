//! Whatever a radio hears: parsing it, and asking everything that can be asked of it, never panics. A frame that is
//! understood is the frame that was heard.

use roamgate::lorawan::Key;
use roamgate::lorawan::crypto::{self, Circumstances, Counter};
use roamgate::lorawan::frame::Uplink;
use roamgate::lorawan::mac;

pub fn fuzz(phy: &[u8]) {
    let key = Key::new([7; 16]);
    match Uplink::parse(phy) {
        Ok(Uplink::Join(join)) => {
            assert_eq!(join.as_bytes(), phy);
            let _ = (join.dev_eui(), join.join_eui(), join.dev_nonce(), join.verify(&key).is_some());
        }
        Ok(Uplink::Data(data)) => {
            assert_eq!(data.as_bytes(), phy);
            let port = data.payload().map_or(0, |(_, payload)| 1 + payload.len());
            assert_eq!(12 + data.fopts().len() + port, phy.len());
            assert!(mac::uplink_commands(data.fopts()).len() <= 15);
            let _ = data.payload().map(|(_, payload)| mac::uplink_commands(payload));
            let _ = data.up_mic_matches(&key, data.fcnt().into());
            let sent = Circumstances { data_rate: phy[0], channel: phy[1], conf_fcnt: data.fcnt() };
            let _ = data.up_mic_matches_11(&key, &key, data.fcnt().into(), sent);
            let mut fopts = data.fopts().to_vec();
            crypto::crypt_fopts(&key, Counter::Up, data.dev_addr(), data.fcnt().into(), &mut fopts);
            assert!(mac::uplink_commands(&fopts).len() <= 15);
        }
        Ok(Uplink::Rejoin(rejoin)) => {
            assert_eq!(rejoin.as_bytes(), phy);
            assert!(rejoin.kind().number() <= 2);
            let _ = (rejoin.dev_eui(), rejoin.rj_count());
        }
        Err(_) => {}
    }
}
