//! Packet forwarders that keep to a schedule. Every frame is built and addressed before the first one goes; a thread of
//! its own sends each at its time, whatever became of those before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roamgate::clock::{Clock, Instant};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Heads at each hotspot, in turns: a head has one transmitter, and a duty cycle.
pub const HEADS: usize = 40;
const PUSH_DATA: u8 = 0;
const PULL_DATA: u8 = 2;
const PULL_RESP: u8 = 3;
const PULL_ACK: u8 = 4;
const TX_ACK: u8 = 5;
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The last part of a wait is spent awake: a sleeping thread is woken some 50 µs late.
const AWAKE: Duration = Duration::from_micros(80);
const FREQUENCIES: [&str; 3] = ["868.1", "868.3", "868.5"];

/// A frame handed to the radio.
pub struct Downlink {
    pub head: usize,
    pub at: Instant,
    pub phy: Vec<u8>,
}

/// The heads of one hotspot. They go when dropped.
pub struct Heads {
    server: SocketAddr,
    heads: Vec<Arc<Head>>,
    counting_since: Instant,
    pub downlinks: mpsc::UnboundedReceiver<Downlink>,
    _listening: JoinSet<()>,
}

struct Head {
    eui: [u8; 8],
    socket: UdpSocket,
}

impl Heads {
    /// All online: their PULL_DATA are acknowledged.
    pub async fn connect(server: SocketAddr, first_eui: [u8; 8], clock: &Clock) -> anyhow::Result<Heads> {
        let (tells, downlinks) = mpsc::unbounded_channel();
        let (mut heads, mut listening) = (Vec::new(), JoinSet::new());
        for number in 0..HEADS {
            let eui = (u64::from_be_bytes(first_eui) + 0x100 * number as u64).to_be_bytes();
            let head = Arc::new(Head { eui, socket: UdpSocket::bind("127.0.0.1:0").await? });
            head.socket.connect(server).await?;
            head.pulled(clock).await.with_context(|| format!("head {number} at {server}"))?;
            listening.spawn(head.clone().listen(number, tells.clone(), clock.clone()));
            heads.push(head);
        }
        Ok(Heads { server, heads, counting_since: clock.now(), downlinks, _listening: listening })
    }

    /// Send frames, one each `every`, at one head after the other. The due times come at once; the frames go from a
    /// thread, which ends with how late it was, in the worst case.
    pub fn fire(
        &self,
        frames: &[Vec<u8>],
        every: Duration,
        clock: &Clock,
    ) -> anyhow::Result<(Vec<Instant>, std::thread::JoinHandle<anyhow::Result<Duration>>)> {
        let sockets: Vec<_> =
            (0..HEADS).map(|_| std::net::UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        // building them takes a few microseconds each
        let begin = clock.now() + Duration::from_millis(20) + Duration::from_micros(10) * frames.len() as u32;
        let due: Vec<Instant> = (0..frames.len() as u32).map(|number| begin + every * number).collect();
        let shots: Vec<Vec<u8>> = frames
            .iter()
            .zip(&due)
            .enumerate()
            .map(|(number, (phy, due))| self.push_data(number, phy, *due))
            .collect();
        let (server, clock, when) = (self.server, clock.clone(), due.clone());
        let thread = std::thread::spawn(move || {
            let mut latest = Duration::ZERO;
            for (number, (shot, due)) in shots.iter().zip(when).enumerate() {
                let left = due.saturating_duration_since(clock.now());
                if left > AWAKE {
                    std::thread::sleep(left - AWAKE);
                }
                while clock.now() < due {
                    std::hint::spin_loop();
                }
                let socket = sockets.get(number % HEADS).context("a socket")?;
                socket.send_to(shot, server)?;
                latest = latest.max(clock.now() - due);
            }
            Ok(latest)
        });
        Ok((due, thread))
    }

    /// As a real head does, from another port than PULL_DATA. The counter is that of the due time.
    fn push_data(&self, number: usize, phy: &[u8], due: Instant) -> Vec<u8> {
        let tmst = due.saturating_duration_since(self.counting_since).as_micros() as u32;
        let frequency = FREQUENCIES[number / HEADS % FREQUENCIES.len()];
        let mut bytes = vec![2, (number >> 8) as u8, number as u8, PUSH_DATA];
        bytes.extend(self.heads[number % HEADS].eui);
        let json = format!(
            r#"{{"rxpk":[{{"tmst":{tmst},"chan":0,"rfch":1,"freq":{frequency},"mid":0,"stat":1,"modu":"LORA","datr":"SF7BW125","codr":"4/5","rssi":-57,"rssis":-58,"lsnr":7.25,"foff":0,"size":{},"data":"{}"}}]}}"#,
            phy.len(),
            STANDARD.encode(phy)
        );
        bytes.extend(json.as_bytes());
        bytes
    }
}

impl Head {
    fn header(&self, kind: u8, token: [u8; 2]) -> Vec<u8> {
        [&[2, token[0], token[1], kind][..], &self.eui].concat()
    }

    async fn pulled(&self, clock: &Clock) -> anyhow::Result<()> {
        let mut buffer = [0; 64];
        for _ in 0..50 {
            self.socket.send(&self.header(PULL_DATA, [1, 2])).await?;
            let answer =
                tokio::time::timeout(Duration::from_millis(200), self.socket.recv(&mut buffer)).await;
            match answer {
                Ok(Ok(length)) if buffer.get(..length) == Some(&[2, 1, 2, PULL_ACK]) => return Ok(()),
                _ => clock.sleep(Duration::from_millis(20)).await,
            }
        }
        bail!("no PULL_ACK")
    }

    async fn listen(self: Arc<Head>, head: usize, tells: mpsc::UnboundedSender<Downlink>, clock: Clock) {
        let mut buffer = vec![0; 4096];
        let mut keep_alive = tokio::time::interval(KEEP_ALIVE);
        loop {
            let length = tokio::select! {
                got = self.socket.recv(&mut buffer) => got.unwrap_or_default(),
                _ = keep_alive.tick() => {
                    let _ = self.socket.send(&self.header(PULL_DATA, [3, 4])).await;
                    continue;
                }
            };
            let at = clock.now();
            let [2, t0, t1, PULL_RESP, json @ ..] = &buffer[..length] else { continue };
            let _ = self.socket.send(&self.header(TX_ACK, [*t0, *t1])).await;
            let body: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
            let data = body["txpk"]["data"].as_str().and_then(|data| STANDARD.decode(data).ok());
            if let Some(phy) = data {
                let _ = tells.send(Downlink { head, at, phy });
            }
        }
    }
}
