//! Uplink metadata at rest: in a form of its own, not as it goes over the wire, so that a new program reads what an old one
//! left.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::writer::Fault;
use crate::backend::message::{GwInfo, UlMeta};
use crate::lorawan::{DevAddr, DevEui};

/// Version 1 of [`UlMeta`].
#[derive(Serialize, Deserialize)]
pub(super) struct Ul {
    dev_eui: Option<DevEui>,
    dev_addr: Option<DevAddr>,
    f_port: Option<u8>,
    fcnt_down: Option<u32>,
    fcnt_up: Option<u32>,
    confirmed: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    adr: bool,
    data_rate: Option<u8>,
    ul_freq: Option<u32>,
    fns_ul_token: Option<Hex>,
    recv_time: String,
    rf_region: Option<String>,
    gw_cnt: Option<u32>,
    gw_info: Vec<Gw>,
}

#[derive(Serialize, Deserialize)]
struct Gw {
    id: Option<Hex>,
    rf_region: Option<String>,
    rssi: Option<i32>,
    snr: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fine_recv_time: Option<u32>,
    lat: Option<f64>,
    lon: Option<f64>,
    ul_token: Option<Hex>,
    dl_allowed: Option<bool>,
}

/// Bytes as hexadecimal text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Hex(pub Vec<u8>);

impl From<Hex> for String {
    fn from(Hex(bytes): Hex) -> String {
        hex::encode(bytes)
    }
}

impl TryFrom<String> for Hex {
    type Error = hex::FromHexError;
    fn try_from(text: String) -> Result<Hex, hex::FromHexError> {
        hex::decode(text).map(Hex)
    }
}

impl From<&UlMeta> for Ul {
    fn from(ul: &UlMeta) -> Ul {
        let hex = |bytes: &Option<Vec<u8>>| bytes.clone().map(Hex);
        let gw = |gw: &GwInfo| Gw {
            id: hex(&gw.id),
            rf_region: gw.rf_region.clone(),
            rssi: gw.rssi,
            snr: gw.snr,
            fine_recv_time: gw.fine_recv_time,
            lat: gw.lat,
            lon: gw.lon,
            ul_token: hex(&gw.ul_token),
            dl_allowed: gw.dl_allowed,
        };
        Ul {
            dev_eui: ul.dev_eui,
            dev_addr: ul.dev_addr,
            f_port: ul.f_port,
            fcnt_down: ul.fcnt_down,
            fcnt_up: ul.fcnt_up,
            confirmed: ul.confirmed,
            adr: ul.adr,
            data_rate: ul.data_rate,
            ul_freq: ul.ul_freq,
            fns_ul_token: hex(&ul.fns_ul_token),
            recv_time: ul.recv_time.to_string(),
            rf_region: ul.rf_region.clone(),
            gw_cnt: ul.gw_cnt,
            gw_info: ul.gw_info.iter().map(gw).collect(),
        }
    }
}

impl TryFrom<Ul> for UlMeta {
    type Error = Fault;
    fn try_from(ul: Ul) -> Result<UlMeta, Fault> {
        let recv_time: Timestamp =
            ul.recv_time.parse().map_err(|error: jiff::Error| Fault::Wrong(error.to_string()))?;
        let hex = |bytes: Option<Hex>| bytes.map(|Hex(bytes)| bytes);
        let gw = |gw: Gw| GwInfo {
            id: hex(gw.id),
            rf_region: gw.rf_region,
            rssi: gw.rssi,
            snr: gw.snr,
            fine_recv_time: gw.fine_recv_time,
            lat: gw.lat,
            lon: gw.lon,
            ul_token: hex(gw.ul_token),
            dl_allowed: gw.dl_allowed,
        };
        Ok(UlMeta {
            dev_eui: ul.dev_eui,
            dev_addr: ul.dev_addr,
            f_port: ul.f_port,
            fcnt_down: ul.fcnt_down,
            fcnt_up: ul.fcnt_up,
            confirmed: ul.confirmed,
            adr: ul.adr,
            data_rate: ul.data_rate,
            ul_freq: ul.ul_freq,
            fns_ul_token: hex(ul.fns_ul_token),
            recv_time,
            rf_region: ul.rf_region,
            gw_cnt: ul.gw_cnt,
            gw_info: ul.gw_info.into_iter().map(gw).collect(),
        })
    }
}
