//! Executes a case against the model.

use serde_json::{Value, json};
use sx1302::bus::Recorder;
use sx1302::bus::event::{Hex, unhex};
use sx1302::config::{Bandwidth, Chain};
use sx1302::firmware::Firmware;
use sx1302::model::Model;
use sx1302::packet::{CrcStatus, Modulation, Packet};
use sx1302::sx1261::Scan;
use sx1302::tx::{Status, Transmission};
use sx1302::{Cause, Concentrator, Error};

use super::case::{config, flag, number, transmission};

/// What happened.
pub struct Played {
    /// The trace, a line each.
    pub trace: Vec<String>,
    /// For each step its `op` and, for a call of the driver, its `result`.
    pub results: Vec<Value>,
    /// Parts of the configuration that were refused.
    pub refused: Vec<String>,
}

type Radio<'a> = Concentrator<&'a mut Recorder<Model>>;

/// Executes all steps.
pub fn play(case: &Value) -> Result<Played, String> {
    let (config, refused) = config(case);
    let mut bus = Recorder::new(model(&case["model"])?);
    bus.step("config");
    let steps = case["steps"].as_array().ok_or("a case has steps")?;
    let mut results = Vec::with_capacity(steps.len());
    let mut radio = match Concentrator::new(&mut bus, config, Firmware::synthetic()) {
        Ok(radio) => radio,
        // Nothing can be started: every call says so, and the bus stays quiet.
        Err(error) => return Ok(refused_altogether(steps, refused, &error.to_string())),
    };
    for (index, step) in steps.iter().enumerate() {
        let op = step["op"].as_str().ok_or("a step has an op")?;
        if op == "model" {
            change(radio.bus_mut().inner_mut(), step)?;
            results.push(json!({"op": op}));
            continue;
        }
        radio.bus_mut().step(format!("{index}:{op}"));
        let mut result = call(&mut radio, op, step).unwrap_or_else(|error| match (error.cause, op) {
            // nothing was heard where nobody listens
            (Cause::State(_), "receive") => json!({"rc": 0, "packets": []}),
            (Cause::Busy, _) => json!({"rc": 1, "error": Cause::Busy.to_string()}),
            (cause, _) => json!({"rc": -1, "error": cause.to_string()}),
        });
        if let (Some(tx), Value::Object(result)) = (airtime_of(op, step), &mut result) {
            result.insert("time_on_air_ms".into(), json!(radio.time_on_air_ms(&tx)));
            let used = match tx.modulation.preamble() {
                0 => step["preamble"].clone(),
                preamble => json!(preamble),
            };
            result.insert("preamble_used".into(), used);
        }
        results.push(json!({"step": format!("{index}:{op}"), "op": op, "result": result}));
    }
    drop(radio);
    Ok(Played { trace: bus.lines().collect(), results, refused })
}

/// The transmission of a step: its time on air and preamble are told whether it was sent or not.
fn airtime_of(op: &str, step: &Value) -> Option<Transmission> {
    transmission(step).ok().filter(|_| op == "send")
}

fn refused_altogether(steps: &[Value], refused: Vec<String>, error: &str) -> Played {
    let mut bus = Recorder::new(Model::new());
    bus.step("config");
    let mut results = Vec::with_capacity(steps.len());
    for (index, step) in steps.iter().enumerate() {
        let op = step["op"].as_str().unwrap_or_default();
        if op == "model" {
            results.push(json!({"op": op}));
            continue;
        }
        bus.step(format!("{index}:{op}"));
        // What was never started can be stopped, and does nothing.
        let result = match op {
            "stop" => json!({"rc": 0}),
            "status" | "tx_status" => json!({"rc": 0, "tx": "off"}),
            _ => json!({"rc": -1, "error": error}),
        };
        results.push(json!({"step": format!("{index}:{op}"), "op": op, "result": result}));
    }
    Played { trace: bus.lines().collect(), results, refused }
}

fn model(value: &Value) -> Result<Model, String> {
    let mut model = if value["chip"].as_str() == Some("sx1303") { Model::sx1303() } else { Model::new() };
    if let Some(eui) = value["eui"].as_str() {
        let eui = unhex(eui).and_then(|eui| eui.try_into().ok()).ok_or("an EUI has eight bytes")?;
        model.set_eui(eui);
    }
    model.faults.no_sensor = flag(value, "no_sensor").unwrap_or(false);
    change(&mut model, value)?;
    Ok(model)
}

fn change(model: &mut Model, step: &Value) -> Result<(), String> {
    if let Some(inst) = number(step, &["inst"]) {
        model.set_inst(inst as u32);
    }
    if let Some(pps) = number(step, &["pps"]) {
        model.set_pps(pps as u32);
    }
    if let Some(fifo) = step["fifo"].as_str() {
        model.push_fifo(&unhex(fifo).ok_or("the fifo is no hexadecimal text")?);
    }
    if let Some(chain) = number(step, &["tx_done"]) {
        model.tx_done(Chain::from_index(chain as u8).map_err(|error| error.to_string())?);
    }
    if let Some(word) = step["temperature_word"].as_str() {
        let word =
            u16::from_str_radix(word.trim_start_matches("0x"), 16).map_err(|error| error.to_string())?;
        model.set_temperature_word(word);
    }
    if let Some(busy) = flag(step, "lbt_busy").or(flag(step, "channel_busy")) {
        model.channel_busy = busy;
    }
    Ok(())
}

fn call(radio: &mut Radio<'_>, op: &str, step: &Value) -> Result<Value, Error> {
    let wrong = |text: String| json!({"rc": -1, "error": text});
    let chain = match Chain::from_index(number(step, &["rf_chain", "chain"]).unwrap_or(0) as u8) {
        Ok(chain) => chain,
        Err(error) => return Ok(wrong(error.to_string())),
    };
    // a call may be named as the reference names its function
    let op = op.trim_start_matches("lgw_").replace("get_", "");
    Ok(match op.as_str() {
        "start" => {
            radio.start()?;
            json!({"rc": 0})
        }
        "stop" => {
            radio.stop()?;
            json!({"rc": 0})
        }
        "receive" => {
            let max = number(step, &["max"]).unwrap_or(255) as usize;
            let received = radio.receive(max)?;
            let packets: Vec<Value> =
                received.packets.iter().map(|packet| packet_json(packet, radio)).collect();
            json!({"rc": packets.len(), "packets": packets})
        }
        "send" => {
            let tx = match transmission(step) {
                Ok(tx) => tx,
                Err(text) => return Ok(wrong(text)),
            };
            radio.send(&tx)?;
            json!({"rc": 0})
        }
        "status" | "tx_status" => {
            let status = match radio.tx_status(chain)? {
                Status::Off => "off",
                Status::Free => "free",
                Status::Scheduled => "scheduled",
                Status::Emitting => "emitting",
                Status::Unknown(_) => "unknown",
            };
            json!({"rc": 0, "tx": status})
        }
        "abort" | "abort_tx" => {
            radio.abort(chain)?;
            json!({"rc": 0})
        }
        "eui" => json!({"rc": 0, "eui": Hex(&radio.eui()?).to_string()}),
        "model_id" => json!({"rc": 0, "model_id": radio.model()?}),
        "temperature" => json!({"rc": 0, "temperature": radio.celsius()?}),
        "instcnt" | "inst" | "inst_count" | "counter" | "count" => {
            json!({"rc": 0, "count_us": radio.counters()?.0.0})
        }
        "trigcnt" | "trig" | "trig_count" | "pps" | "pps_count" => {
            json!({"rc": 0, "count_us": radio.counters()?.1.0})
        }
        "scan_start" | "spectral_scan_start" => {
            let freq_hz = number(step, &["freq_hz"]).unwrap_or(0) as u32;
            let rounds = number(step, &["nb_scan", "scans", "rounds", "n"]).unwrap_or(2000) as u16;
            radio.start_scan(freq_hz, rounds)?;
            json!({"rc": 0})
        }
        "scan_status" | "spectral_scan_status" => {
            let status = match radio.scan_status()? {
                Scan::None => "none",
                Scan::Running => "running",
                Scan::Aborted => "aborted",
                Scan::Done => "done",
                Scan::Unknown(_) => "unknown",
            };
            json!({"rc": 0, "status": status})
        }
        "scan_results" | "scan_result" | "spectral_scan_results" => {
            let levels = radio.scan_results()?;
            let (dbm, counts): (Vec<i16>, Vec<u16>) = levels.into_iter().unzip();
            json!({"rc": 0, "levels": dbm, "results": counts})
        }
        "scan_abort" | "spectral_scan_abort" => {
            radio.abort_scan()?;
            json!({"rc": 0})
        }
        other => wrong(format!("no such call: {other}")),
    })
}

/// A packet as recordings write it. They give numbers also for what FSK has not: −128, and the offsets on top for the
/// signal's level.
fn packet_json(packet: &Packet, radio: &Radio<'_>) -> Value {
    let status = match packet.crc {
        CrcStatus::Good => "crc_ok",
        CrcStatus::Bad => "crc_bad",
        CrcStatus::Absent => "no_crc",
    };
    let mut value = json!({
        "freq_hz": packet.freq_hz,
        "freq_offset_hz": packet.freq_offset_hz,
        "if_chain": packet.channel,
        "rf_chain": packet.chain.index(),
        "modem_id": packet.modem,
        "status": status,
        "count_us": packet.count.0,
        "rssi_channel": packet.rssi_channel,
        "rssi_signal": packet.rssi_signal.unwrap_or(-128.0 + packet.rssi_correction),
        "snr": packet.snr.unwrap_or(-128.0),
        "crc": packet.crc16,
        "ftime": packet.fine_ns,
        "payload": Hex(&packet.payload).to_string(),
    });
    match packet.modulation {
        Modulation::Lora { bandwidth, sf, coding_rate } => {
            value["modulation"] = json!("lora");
            value["bandwidth_hz"] = json!(bandwidth.hz());
            value["sf"] = json!(sf.get());
            value["coderate"] = json!(coding_rate.map(|rate| rate.to_string()));
        }
        Modulation::Fsk { bitrate } => {
            value["modulation"] = json!("fsk");
            value["bandwidth_hz"] = json!(radio.config().fsk().map_or(0, |fsk| Bandwidth::hz(fsk.bandwidth)));
            value["datarate"] = json!(bitrate);
            value["coderate"] = Value::Null;
        }
    }
    value
}
