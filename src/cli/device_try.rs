//! `roamgate device try`: a device in the air of the model that a running hotspot has for a radio.
//!
//! The device is a stack that others wrote. It radiates into an air of this process; what it sends is taken over into the air of the
//! daemon's model, and what that sends comes back, through the control socket.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::device::{eui, read_key};
use super::{ConfigArg, Fail, client, show, show_json};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{Client, ClientError, Method, ModelHeard, ModelSent};
use crate::demo::device::{Device, JoinReport, Stands};
use crate::lorawan::{DevEui, GatewayEui, JoinEui, Key};
use crate::radio::Radio;
use crate::radio::simulated::{Air, Link};

/// Of the head in the air of this process.
const HERE: GatewayEui = GatewayEui::from_msb([0x02, 0, 0, 0xff, 0xfe, 0, 0, 1]);
/// It does not try for ever.
const JOINS: u16 = 3;
/// Between two frames: a device keeps its duty cycle, and ours has 1 %.
const PAUSE: Duration = Duration::from_secs(1);

/// `roamgate device try`
#[derive(Debug, Args)]
pub(super) struct TryArgs {
    /// Of a device that was added
    #[arg(long, value_name = "EUI", value_parser = eui::<DevEui>)]
    dev_eui: DevEui,
    /// Its join server
    #[arg(long, value_name = "EUI", value_parser = eui::<JoinEui>)]
    join_eui: JoinEui,
    /// Its root key, 32 hexadecimal digits; - reads it from standard input
    #[arg(long, value_name = "KEY|-")]
    app_key: String,
    /// Uplinks after the join, each with a payload of its own number
    #[arg(long, value_name = "N", default_value_t = 1)]
    uplinks: u8,
    /// Pause before each uplink
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    every: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// Exit code 1 where it did not join.
pub(super) async fn run(args: TryArgs, clock: Clock) -> Result<ExitCode, Fail> {
    let text = match args.app_key.as_str() {
        "-" => read_key("AppKey").await?,
        key => key.to_owned(),
    };
    let key: Key = text.parse().map_err(|error| {
        Fail::new(format!("the AppKey: {error}"), "32 hexadecimal digits, as the device was added with")
    })?;
    let config = args.config.load()?.config;
    let stands = place(&config)?;
    let (client, store) = client(&args.config, false, &clock).await?;
    if let Some(store) = store {
        store.close().await.map_err(anyhow::Error::new)?;
        return Err(Fail::new("no daemon runs that could hear a device", "start it: `roamgate run`"));
    }
    let air = Air::new(clock.clone(), u64::from_be_bytes(clock.random()));
    let head = air.head(HERE, "model");
    air.tune(HERE, &config.network.plan());
    // whether there is a model is known before anything is tried
    let first = heard_since(&client, usize::MAX).await?;
    let mut device = Device::in_region(
        &air,
        clock.clone(),
        args.dev_eui,
        args.join_eui,
        &key,
        u64::from_be_bytes(clock.random()),
        stands,
    );
    device.move_to(&[(HERE, Link::NEAR)]);
    // DevNonces count up (TS001 1.0.4): from one try to the next with the time, as nothing is kept here
    let nonces = (clock.unix() / 8) as u16;
    let walk = async {
        device.set_dev_nonce(nonces);
        let mut join = device.join().await;
        for further in 1..JOINS {
            if join.ok {
                break;
            }
            clock.sleep(PAUSE).await;
            device.set_dev_nonce(nonces.wrapping_add(further));
            join = device.join().await;
        }
        told(&join, args.json);
        let mut sent = 0;
        while join.ok && sent < args.uplinks {
            clock.sleep(Duration::from_secs(args.every.into())).await;
            sent += 1;
            let report = device.send(&[sent], 1, false).await.map_err(anyhow::Error::new)?;
            let back: Vec<String> = report
                .downlinks
                .iter()
                .map(|(port, data)| format!("FPort {port} {}", hex::encode(data)))
                .collect();
            match args.json {
                true => show_json(
                    &json!({ "FCntUp": report.fcnt_up, "payload": hex::encode([sent]), "downlinks": back }),
                ),
                false => {
                    let heard =
                        if back.is_empty() { "".into() } else { format!(", heard {}", back.join(", ")) };
                    show(&format!(
                        "sent FCntUp {} with payload {}{heard}\n",
                        report.fcnt_up,
                        hex::encode([sent])
                    ));
                }
            }
        }
        Ok(join.ok)
    };
    let joined: Result<bool, Fail> = tokio::select! {
        joined = walk => joined,
        failed = carry(head, &air, &client, first.next, &clock) => Err(failed.into()),
    };
    Ok(if joined? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For what region the device was made.
fn place(config: &Config) -> Result<Stands, Fail> {
    let sub_band = config.network.sub_bands.first().copied().unwrap_or(1);
    match config.network.region.to_string().as_str() {
        "EU868" => Ok(Stands::Eu868),
        "US915" => Ok(Stands::Us915 { sub_band }),
        "AU915" => Ok(Stands::Au915 { sub_band }),
        "IN865" => Ok(Stands::In865),
        other => Err(Fail::new(
            format!("the device that is tried knows no region {other}"),
            "try it in EU868, US915, AU915 or IN865",
        )),
    }
}

fn told(join: &JoinReport, as_json: bool) {
    let addr = join.dev_addr.map(|addr| addr.to_string());
    if as_json {
        return show_json(&json!({ "joined": join.ok, "DevNonce": join.dev_nonce, "DevAddr": addr }));
    }
    match addr {
        Some(addr) => show(&format!("joined as {addr} in {:.1} s\n", join.took.as_secs_f64())),
        None => show("nobody answered the Join-request: `roamgate tail` shows what the hotspot made of it\n"),
    }
}

/// Between the two airs, both ways, until the daemon does not answer.
async fn carry(mut head: Radio, air: &Air, client: &Client, mut next: usize, clock: &Clock) -> ClientError {
    let up = async {
        while let Some(heard) = head.heard.recv().await {
            let ago = clock.now().saturating_duration_since(heard.at).as_micros() as i64;
            let frame = ModelHeard {
                phy: hex::encode(&heard.phy),
                frequency: heard.frequency,
                data_rate: heard.modulation.to_string(),
                ended_unix_us: clock.wall().as_microsecond() - ago,
            };
            if let Err(error) = client.call(Method::POST, "/v1/air", Some(&frame)).await {
                return error;
            }
        }
        std::future::pending().await
    };
    let down = async {
        loop {
            let sent = match heard_since(client, next).await {
                Ok(sent) => sent,
                Err(error) => return error,
            };
            let (now, wall) = (clock.now(), clock.wall().as_microsecond());
            for frame in &sent.frames {
                let (Ok(phy), Ok(modulation)) = (hex::decode(&frame.phy), frame.data_rate.parse()) else {
                    continue;
                };
                let to_come = frame.starts_unix_us.saturating_sub(wall);
                let by = Duration::from_micros(to_come.unsigned_abs().min(60_000_000));
                let start = if to_come < 0 { now.checked_sub(by).unwrap_or(now) } else { now + by };
                air.radiate(HERE, &phy, frame.frequency, modulation, start);
            }
            next = sent.next;
        }
    };
    tokio::select! {
        error = up => error,
        error = down => error,
    }
}

async fn heard_since(client: &Client, next: usize) -> Result<ModelSent, ClientError> {
    let answer = client.call::<()>(Method::GET, &format!("/v1/air/{next}"), None).await?;
    serde_json::from_value(answer).map_err(|error| ClientError::Answer(error.to_string()))
}
