//! A case file: configuration, how the model is set, and steps. Names are taken as recordings write them; where two
//! spellings are about, both are understood.

use serde_json::Value;
use sx1302::bus::event::unhex;
use sx1302::config::*;
use sx1302::counter::Count;
use sx1302::tx::{Modulation, Transmission, When};

/// The configuration, and the parts that were refused (they stay off).
pub fn config(case: &Value) -> (Config, Vec<String>) {
    let mut config = Config::new();
    let mut failed = Vec::new();
    let board = &case["board"];
    config.public = flag(board, "lorawan_public").unwrap_or(true);
    config.full_duplex = flag(board, "full_duplex").unwrap_or(false);
    let mut take = |what: String, done: Result<(), String>| {
        if let Err(error) = done {
            failed.push(format!("{what}: {error}"));
        }
    };
    let clock = Chain::from_index(number(board, &["clksrc"]).unwrap_or(0) as u8);
    match clock {
        Ok(chain) => config.clock = chain,
        Err(error) => take("board".into(), Err(error.to_string())),
    }
    for (index, radio) in list(&case["radios"]) {
        let index = number(radio, &["chain"]).unwrap_or(index as i64) as u8;
        take(format!("radio {index}"), set_radio(&mut config, index, radio));
    }
    for (index, chain) in list(&case["if_chains"]) {
        let index = number(chain, &["chain"]).unwrap_or(index as i64) as u8;
        take(format!("if_chain {index}"), set_if_chain(&mut config, index, chain));
    }
    config.multi_sf_mask = number(&case["demod"], &["multisf_mask"]).unwrap_or(0xff) as u8;
    let fine = &case["fine_timestamp"];
    if flag(fine, "enable").unwrap_or(false) {
        let all = fine["mode"].as_str() != Some("high_capacity");
        config.fine_stamps = Some(if all { FineStamps::AllSf } else { FineStamps::HighCapacity });
    }
    let sx1261 = &case["sx1261"];
    if sx1261.is_object() && flag(sx1261, "enable").unwrap_or(true) {
        take("sx1261".into(), set_sx1261(&mut config, sx1261));
    }
    (config, failed)
}

fn set_radio(config: &mut Config, index: u8, radio: &Value) -> Result<(), String> {
    let chain = Chain::from_index(index).map_err(text)?;
    let kind = match radio["type"].as_str() {
        Some("sx1255") => RadioKind::Sx1255,
        Some("sx1257") => RadioKind::Sx1257,
        Some("sx1250") | None => RadioKind::Sx1250,
        Some(other) => return Err(format!("no radio type {other}")),
    };
    let curve = &radio["rssi_tcomp"];
    let part = |name: &str| curve[name].as_f64().unwrap_or(0.0) as f32;
    let gains: Vec<Gain> = list(&radio["tx_gain_lut"])
        .map(|(_, gain)| Gain {
            rf_power: number(gain, &["rf_power"]).unwrap_or(0) as i8,
            pa: number(gain, &["pa_gain"]).unwrap_or(0) as u8,
            power_index: number(gain, &["pwr_idx"]).unwrap_or(0) as u8,
            digital: number(gain, &["dig_gain"]).unwrap_or(0) as u8,
            dac: number(gain, &["dac_gain"]).unwrap_or(3) as u8,
            mixer: number(gain, &["mix_gain"]).unwrap_or(5) as u8,
        })
        .collect();
    let set = Radio {
        enable: flag(radio, "enable").unwrap_or(false),
        kind,
        freq_hz: number(radio, &["freq_hz"]).unwrap_or(0) as u32,
        rssi_offset: radio["rssi_offset"].as_f64().unwrap_or(0.0) as f32,
        rssi_tcomp: TemperatureCurve { a: part("a"), b: part("b"), c: part("c"), d: part("d"), e: part("e") },
        tx_enable: flag(radio, "tx_enable").unwrap_or(false),
        single_input: flag(radio, "single_input_mode").unwrap_or(false),
        gains: vec![FIRST_GAIN],
    };
    config.set_radio(chain, set.clone()).map_err(text)?;
    if gains.is_empty() {
        return Ok(());
    }
    config.set_radio(chain, Radio { gains, ..set }).map_err(text)
}

/// What a recorded radio sends with when it was given no table, or one that was refused.
const FIRST_GAIN: Gain = Gain { rf_power: 14, pa: 2, power_index: 0, digital: 0, dac: 3, mixer: 10 };

fn set_if_chain(config: &mut Config, index: u8, chain: &Value) -> Result<(), String> {
    if !flag(chain, "enable").unwrap_or(false) {
        return Ok(());
    }
    let radio = Chain::from_index(number(chain, &["rf_chain"]).unwrap_or(0) as u8).map_err(text)?;
    let if_hz = number(chain, &["freq_hz", "if_hz"]).unwrap_or(0) as i32;
    let width = bandwidth(chain).transpose().map_err(text)?;
    let rate = number(chain, &["datarate", "sf"]).unwrap_or(0);
    match index {
        0..=7 => {
            if width.is_some_and(|width| width != Bandwidth::Khz125) {
                return Err("a multi-SF channel has 125 kHz".into());
            }
            config.set_multi_sf(index, Some(Channel { chain: radio, if_hz })).map_err(text)
        }
        8 => {
            let sf = if rate == 0 { 7 } else { rate };
            let service = Service {
                chain: radio,
                if_hz,
                bandwidth: width.unwrap_or(Bandwidth::Khz250),
                sf: SpreadingFactor::new(u8::try_from(sf).unwrap_or(0)).map_err(text)?,
                implicit_header: flag(chain, "implicit_hdr").unwrap_or(false),
                payload_length: number(chain, &["implicit_payload_length"]).unwrap_or(0) as u8,
                crc: flag(chain, "implicit_crc_en").unwrap_or(false),
                coding_rate: code_rate(&chain["implicit_coderate"]).unwrap_or(0),
            };
            config.set_service(Some(service)).map_err(text)
        }
        _ => {
            let size = number(chain, &["sync_word_size"]).filter(|size| *size > 0);
            let word = match &chain["sync_word"] {
                Value::String(text) => u64::from_str_radix(text.trim_start_matches("0x"), 16).ok(),
                value => value.as_u64(),
            };
            let sync = match word.filter(|word| *word > 0) {
                Some(word) => SyncWord { word, size: size.unwrap_or(3) as u8 },
                None => SyncWord::default(),
            };
            let fsk = Fsk {
                chain: radio,
                if_hz,
                bandwidth: width.unwrap_or(Bandwidth::Khz250),
                bitrate: if rate == 0 { 64_000 } else { rate as u32 },
                sync,
            };
            if index == 9 {
                config.set_fsk(Some(fsk)).map_err(text)
            } else {
                Err(format!("no IF chain {index}"))
            }
        }
    }
}

fn set_sx1261(config: &mut Config, value: &Value) -> Result<(), String> {
    let rssi_offset = number(value, &["rssi_offset"]).unwrap_or(0) as i8;
    let lbt = [&value["lbt"], &value["lbt_conf"]].into_iter().find(|lbt| lbt.is_object());
    let lbt = match lbt.filter(|lbt| flag(lbt, "enable").unwrap_or(true)) {
        None => None,
        Some(lbt) => {
            let mut channels = Vec::new();
            for (_, channel) in list(&lbt["channels"]) {
                channels.push(LbtChannel {
                    freq_hz: number(channel, &["freq_hz"]).unwrap_or(0) as u32,
                    bandwidth: bandwidth(channel).unwrap_or(Ok(Bandwidth::Khz125)).map_err(text)?,
                    scan_us: number(channel, &["scan_time_us", "scan_us"]).unwrap_or(5000) as u32,
                    transmit_ms: number(channel, &["transmit_time_ms", "transmit_ms"]).unwrap_or(4000) as u32,
                });
            }
            let target = number(lbt, &["rssi_target", "rssi_target_dbm"]).unwrap_or(-80) as i8;
            Some(Lbt { rssi_target: target, channels })
        }
    };
    config.set_sx1261(Some(Sx1261 { rssi_offset, lbt })).map_err(text)
}

/// What a `send` step asks for.
pub fn transmission(step: &Value) -> Result<Transmission, String> {
    let chain = Chain::from_index(number(step, &["rf_chain"]).unwrap_or(0) as u8).map_err(text)?;
    let preamble = number(step, &["preamble"]).unwrap_or(0) as u16;
    let crc = !flag(step, "no_crc").unwrap_or(false);
    let rate = number(step, &["datarate", "sf"]).unwrap_or(0);
    let width = bandwidth(step).transpose().map_err(text)?;
    let modulation = match step["modulation"].as_str().unwrap_or("lora") {
        "lora" => Modulation::Lora {
            sf: SpreadingFactor::new(u8::try_from(rate).unwrap_or(0)).map_err(text)?,
            bandwidth: width.ok_or("a bandwidth is needed")?,
            coding_rate: CodingRate::new(code_rate(&step["coderate"]).unwrap_or(0)).map_err(text)?,
            preamble,
            inverted: flag(step, "invert_pol").unwrap_or(false),
            crc,
            header: !flag(step, "no_header").unwrap_or(false),
        },
        "fsk" => Modulation::Fsk {
            bitrate: rate as u32,
            deviation_hz: number(step, &["f_dev_hz", "fdev_hz", "freq_dev_hz", "deviation_hz"])
                .or(number(step, &["f_dev_khz", "fdev_khz", "freq_dev_khz", "deviation_khz"])
                    .map(|khz| khz * 1000))
                // without a unit it is kHz, unless it cannot be
                .or(number(step, &["f_dev", "fdev", "freq_dev", "deviation"])
                    .map(|dev| if dev <= 200 { dev * 1000 } else { dev }))
                .unwrap_or(0) as u32,
            preamble,
            crc,
            bandwidth: width,
        },
        "cw" | "carrier" => Modulation::Carrier {
            offset_khz: number(step, &["freq_offset_khz", "freq_offset", "offset_khz"])
                .or(number(step, &["freq_offset_hz", "offset_hz"]).map(|hz| hz / 1000))
                .unwrap_or(0) as i16,
            bandwidth: width,
        },
        other => return Err(format!("no modulation {other}")),
    };
    let when = match step["mode"].as_str().or(step["tx_mode"].as_str()).unwrap_or("immediate") {
        "immediate" => When::Now,
        "timestamped" => When::At(Count(number(step, &["count_us"]).unwrap_or(0) as u32)),
        "on_gps" | "gps" | "pps" | "on_pps" => When::OnPps,
        other => return Err(format!("no mode {other}")),
    };
    Ok(Transmission {
        chain,
        freq_hz: number(step, &["freq_hz"]).unwrap_or(0) as u32,
        power_dbm: number(step, &["rf_power"]).unwrap_or(0) as i8,
        when,
        modulation,
        payload: unhex(step["payload"].as_str().unwrap_or("")).ok_or("the payload is no hexadecimal text")?,
    })
}

pub fn flag(value: &Value, name: &str) -> Option<bool> {
    value[name].as_bool().or(value[name].as_i64().map(|number| number != 0))
}

pub fn number(value: &Value, names: &[&str]) -> Option<i64> {
    names.iter().find_map(|name| value[*name].as_i64().or(value[*name].as_f64().map(|number| number as i64)))
}

/// A list, or nothing.
fn list(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

/// `1` or `"4/5"`.
fn code_rate(value: &Value) -> Option<u8> {
    match value {
        Value::String(text) => text.strip_prefix("4/")?.parse::<u8>().ok()?.checked_sub(4),
        value => value.as_u64().and_then(|number| u8::try_from(number).ok()),
    }
}

fn bandwidth(value: &Value) -> Option<Result<Bandwidth, ConfigError>> {
    let hz = number(value, &["bandwidth_hz", "bandwidth"])?;
    (hz != 0).then(|| Bandwidth::from_hz(hz as u32))
}

fn text(error: ConfigError) -> String {
    error.to_string()
}
