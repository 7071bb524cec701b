//! A packet forwarder between the simulated air and a daemon in another process: what a simulated head
//! hears goes out as PUSH_DATA, what comes as PULL_RESP goes on the air, and TX_ACK says what the
//! head said to it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use roamgate::backend::door::Deadline;
use roamgate::clock::{Clock, Instant};
use roamgate::fns::{AirError, Count, Heard, Tx};
use roamgate::lorawan::{GatewayEui, Modulation};
use roamgate::radio::simulated::Air;
use roamgate::radio::{Heads, Radio};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::forwarder::{Downlink, Forwarder, rxpk};

/// A forwarder sends PULL_DATA this often, so that a daemon which was restarted finds it soon.
const KEEP_ALIVE: Duration = Duration::from_millis(100);

/// A head says so soon what becomes of a frame that it sends at once.
const SOON: Duration = Duration::from_secs(1);

/// A running forwarder on one simulated head; it ends when dropped.
pub struct Bridge {
    log: Log,
    tasks: [JoinHandle<()>; 2],
}

/// A downlink of the daemon, and the uplink it answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What the head had heard.
    pub uplink: Vec<u8>,
    /// The downlink.
    pub phy: Vec<u8>,
    /// When the daemon handed it over.
    pub at: Instant,
    /// From the end of the uplink to the start of the downlink, seconds.
    pub delay: u64,
    /// What the head said to it.
    pub outcome: Result<(), AirError>,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<(Vec<Heard>, Vec<Answer>)>>);

impl Log {
    fn with<T>(&self, look: impl FnOnce(&mut (Vec<Heard>, Vec<Answer>)) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Bridge {
    /// Put a head on the air, and a forwarder for it that speaks to `server`.
    pub async fn start(
        air: &Air,
        clock: &Clock,
        gateway: GatewayEui,
        server: SocketAddr,
    ) -> io::Result<Bridge> {
        Bridge::far_away(air, clock, gateway, server, Duration::ZERO).await
    }

    /// The same where datagrams with frames take so long to the daemon.
    pub async fn far_away(
        air: &Air,
        clock: &Clock,
        gateway: GatewayEui,
        server: SocketAddr,
        delay: Duration,
    ) -> io::Result<Bridge> {
        let Radio { heard, heads, .. } = air.head(gateway, &gateway.to_string());
        let up = Forwarder::new(server, &gateway.to_string()).await?;
        let mut down = Forwarder::new(server, &gateway.to_string()).await?;
        down.keep_alive(KEEP_ALIVE);
        let log = Log::default();
        let tasks = [
            tokio::spawn(uplinks(heard, up, log.clone(), clock.clone(), delay)),
            tokio::spawn(downlinks(down, heads, gateway, clock.clone(), log.clone())),
        ];
        Ok(Bridge { log, tasks })
    }

    /// Everything that the head heard.
    pub fn heard(&self) -> Vec<Heard> {
        self.log.with(|(heard, _)| heard.clone())
    }

    /// Everything that the daemon wanted transmitted.
    pub fn answers(&self) -> Vec<Answer> {
        self.log.with(|(_, answers)| answers.clone())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn uplinks(
    mut heard: tokio::sync::mpsc::Receiver<Heard>,
    up: Forwarder,
    log: Log,
    clock: Clock,
    delay: Duration,
) {
    while let Some(frame) = heard.recv().await {
        let mut packet = rxpk(frame.tmst.0, &frame.phy, frame.frequency, &data_rate(frame.modulation));
        (packet["rssi"], packet["lsnr"]) = (json!(frame.rssi), json!(frame.snr));
        let arrives = frame.at + delay;
        log.with(|(heard, _)| heard.push(frame));
        clock.sleep_until(arrives).await;
        // a daemon that is down hears nothing, and a forwarder goes on
        let _ = up.send(&json!({ "rxpk": [packet] })).await;
    }
}

async fn downlinks(mut down: Forwarder, heads: Arc<dyn Heads>, gateway: GatewayEui, clock: Clock, log: Log) {
    loop {
        let Some(downlink) = down.downlink(Duration::from_secs(3600)).await else { continue };
        let at = clock.now();
        if downlink.txpk["imme"] == true {
            let outcome = heads.transmit(tx(&downlink, gateway, None, at), Deadline(at + SOON)).await;
            let error = outcome.map_or_else(|error| error.to_string(), |_| "NONE".into());
            let _ = down.tx_ack(&downlink, Some(json!({ "txpk_ack": { "error": error } }))).await;
            continue;
        }
        let start = Count(downlink.tmst());
        // the head's counter is exact, so the uplink is the one so many seconds before to the microsecond
        let found = log.with(|(heard, _)| {
            let fits =
                |frame: &&Heard, delay: &u64| frame.tmst.plus(Duration::from_secs(*delay)).0 == start.0;
            let mut all = heard.iter().rev();
            all.find_map(|frame| {
                (1..=16).find(|delay| fits(&frame, delay)).map(|delay| (frame.clone(), delay))
            })
        });
        let (uplink, delay) =
            found.unwrap_or_else(|| panic!("a downlink that answers nothing: {downlink:?}"));
        let begins = uplink.at + Duration::from_secs(delay);
        let tx = Tx { session: uplink.session, ..tx(&downlink, gateway, Some(start), begins) };
        let before = Deadline(tx.start);
        let outcome = heads.transmit(tx, before).await.map(|_| ());
        let error = outcome.as_ref().map_or_else(ToString::to_string, |()| "NONE".into());
        let phy = downlink.phy.clone();
        log.with(|(_, answers)| answers.push(Answer { uplink: uplink.phy, phy, at, delay, outcome }));
        let _ = down.tx_ack(&downlink, Some(json!({ "txpk_ack": { "error": error } }))).await;
    }
}

/// What a head is to send; at once where no count is named.
fn tx(downlink: &Downlink, gateway: GatewayEui, at: Option<Count>, start: Instant) -> Tx {
    Tx {
        gateway,
        session: 0,
        phy: downlink.phy.clone(),
        frequency: downlink.frequency(),
        modulation: modulation(downlink).unwrap_or_else(|| panic!("{downlink:?}")),
        power: downlink.txpk["powe"].as_i64().and_then(|dbm| i8::try_from(dbm).ok()).unwrap_or(14),
        at,
        start,
    }
}

fn data_rate(modulation: Modulation) -> String {
    match modulation {
        Modulation::Lora { sf, bandwidth } => format!("SF{sf}BW{}", bandwidth / 1000),
        Modulation::Fsk { bitrate } => bitrate.to_string(),
    }
}

fn modulation(downlink: &Downlink) -> Option<Modulation> {
    let (sf, bandwidth) = downlink.data_rate().strip_prefix("SF")?.split_once("BW")?;
    Some(Modulation::Lora { sf: sf.parse().ok()?, bandwidth: bandwidth.parse::<u32>().ok()? * 1000 })
}
