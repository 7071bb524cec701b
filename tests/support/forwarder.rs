//! A packet forwarder for tests: the gateway's side of Semtech's UDP protocol, version 2, over real
//! sockets. It knows nothing of the program under test.
//!
//! As on a real gateway PUSH_DATA and PULL_DATA leave from different ports, and the counter is one
//! of microseconds that runs on.

#![allow(dead_code)] // each test binary uses a part of it
#![allow(clippy::disallowed_methods)] // a gateway has a clock of its own

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PUSH_DATA: u8 = 0;
const PUSH_ACK: u8 = 1;
const PULL_DATA: u8 = 2;
const PULL_RESP: u8 = 3;
const PULL_ACK: u8 = 4;
const TX_ACK: u8 = 5;

/// How long a server may take to acknowledge; the reference forwarder waits 100 ms.
const ACK_WAIT: Duration = Duration::from_millis(500);

/// A gateway.
pub struct Forwarder {
    eui: [u8; 8],
    server: SocketAddr,
    up: UdpSocket,
    down: Arc<UdpSocket>,
    token: AtomicU16,
    /// When the counter was `from`.
    started: Instant,
    from: u32,
    /// PULL_RESPs that came while something else was awaited.
    waiting: VecDeque<Downlink>,
    keep_alive: Option<JoinHandle<()>>,
}

/// A PULL_RESP.
#[derive(Debug, Clone, PartialEq)]
pub struct Downlink {
    pub token: [u8; 2],
    /// The object `txpk`.
    pub txpk: Value,
    /// `data`, decoded.
    pub phy: Vec<u8>,
}

impl Downlink {
    /// When it starts, on the gateway's counter.
    pub fn tmst(&self) -> u32 {
        self.txpk["tmst"].as_u64().and_then(|tmst| u32::try_from(tmst).ok()).expect("tmst in txpk")
    }
    /// Hertz.
    pub fn frequency(&self) -> u32 {
        (self.txpk["freq"].as_f64().expect("freq in txpk") * 1e6).round() as u32
    }
    /// `SF9BW125`.
    pub fn data_rate(&self) -> &str {
        self.txpk["datr"].as_str().unwrap_or_default()
    }
}

impl Forwarder {
    /// A gateway with this EUI (16 hexadecimal digits) that has not sent anything.
    pub async fn new(server: SocketAddr, eui: &str) -> io::Result<Forwarder> {
        let eui = u64::from_str_radix(eui, 16).map_err(io::Error::other)?.to_be_bytes();
        let local = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        Ok(Forwarder {
            eui,
            server,
            up: UdpSocket::bind(local).await?,
            down: Arc::new(UdpSocket::bind(local).await?),
            token: AtomicU16::new(1),
            started: Instant::now(),
            // so that the counter wraps within a test of some seconds
            from: u32::MAX - 3_000_000,
            waiting: VecDeque::new(),
            keep_alive: None,
        })
    }

    /// A gateway that is online: its PULL_DATA was acknowledged. Tries for 10 s.
    pub async fn connect(server: SocketAddr, eui: &str) -> io::Result<Forwarder> {
        let mut forwarder = Forwarder::new(server, eui).await?;
        for _ in 0..20 {
            if forwarder.pull().await {
                return Ok(forwarder);
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "no PULL_ACK"))
    }

    /// Send PULL_DATA in the background from now on. Its PULL_ACKs are ignored.
    pub fn keep_alive(&mut self, every: Duration) {
        let (down, server, eui) = (self.down.clone(), self.server, self.eui);
        let task = tokio::spawn(async move {
            loop {
                let _ = down.send_to(&header(PULL_DATA, [0xCA, 0xFE], eui), server).await;
                tokio::time::sleep(every).await;
            }
        });
        if let Some(before) = self.keep_alive.replace(task) {
            before.abort();
        }
    }

    /// Send PULL_DATA; whether it was acknowledged.
    pub async fn pull(&mut self) -> bool {
        let token = self.next_token();
        if self.down.send_to(&header(PULL_DATA, token, self.eui), self.server).await.is_err() {
            return false;
        }
        let ack = [2, token[0], token[1], PULL_ACK];
        let (down, waiting) = (self.down.clone(), &mut self.waiting);
        let acked = timeout(ACK_WAIT, async {
            loop {
                match receive(&down).await {
                    bytes if bytes == ack => return,
                    bytes => waiting.extend(downlink(&bytes)),
                }
            }
        });
        acked.await.is_ok()
    }

    /// Send PUSH_DATA with this body and wait for nothing; its token.
    pub async fn send(&self, body: &Value) -> io::Result<[u8; 2]> {
        let token = self.next_token();
        let mut bytes = header(PUSH_DATA, token, self.eui);
        bytes.extend(body.to_string().into_bytes());
        self.up.send_to(&bytes, self.server).await?;
        Ok(token)
    }

    /// Send PUSH_DATA with this body; whether it was acknowledged.
    pub async fn push(&self, body: &Value) -> bool {
        let Ok(token) = self.send(body).await else { return false };
        let ack = [2, token[0], token[1], PUSH_ACK];
        timeout(ACK_WAIT, async { while receive(&self.up).await != ack {} }).await.is_ok()
    }

    /// Send any bytes from the PUSH port.
    pub async fn send_raw(&self, bytes: &[u8]) -> io::Result<()> {
        self.up.send_to(bytes, self.server).await.map(drop)
    }

    /// A frame ends now: send it. Gives its `tmst` if the server acknowledged it.
    pub async fn uplink(&self, phy: &[u8], frequency: u32, data_rate: &str) -> Option<u32> {
        let tmst = self.tmst();
        let acked = self.push(&json!({ "rxpk": [rxpk(tmst, phy, frequency, data_rate)] })).await;
        acked.then_some(tmst)
    }

    /// The next PULL_RESP, not yet acknowledged.
    pub async fn downlink(&mut self, wait: Duration) -> Option<Downlink> {
        if let Some(downlink) = self.waiting.pop_front() {
            return Some(downlink);
        }
        let next = async {
            loop {
                if let Some(downlink) = downlink(&receive(&self.down).await) {
                    return downlink;
                }
            }
        };
        timeout(wait, next).await.ok()
    }

    /// The next PULL_RESP, taken (TX_ACK with `NONE`).
    pub async fn take_downlink(&mut self, wait: Duration) -> Option<Downlink> {
        let downlink = self.downlink(wait).await?;
        self.tx_ack(&downlink, Some(json!({"txpk_ack": {"error": "NONE"}}))).await.ok()?;
        Some(downlink)
    }

    /// Answer a PULL_RESP with an error name of TX_ACK (`TOO_LATE`, `COLLISION_PACKET`, ...).
    pub async fn refuse(&self, downlink: &Downlink, error: &str) -> io::Result<()> {
        self.tx_ack(downlink, Some(json!({"txpk_ack": {"error": error}}))).await
    }

    /// Answer a PULL_RESP with any body, or none, from the PULL port.
    pub async fn tx_ack(&self, downlink: &Downlink, body: Option<Value>) -> io::Result<()> {
        let bytes = self.tx_ack_bytes(downlink, body);
        self.down.send_to(&bytes, self.server).await.map(drop)
    }

    /// The same from the PUSH port, as some makes do.
    pub async fn tx_ack_from_push_port(&self, downlink: &Downlink, body: Option<Value>) -> io::Result<()> {
        let bytes = self.tx_ack_bytes(downlink, body);
        self.up.send_to(&bytes, self.server).await.map(drop)
    }

    fn tx_ack_bytes(&self, downlink: &Downlink, body: Option<Value>) -> Vec<u8> {
        let mut bytes = header(TX_ACK, downlink.token, self.eui);
        bytes.extend(body.map(|body| body.to_string().into_bytes()).unwrap_or_default());
        bytes
    }

    /// The counter now.
    pub fn tmst(&self) -> u32 {
        self.from.wrapping_add(self.started.elapsed().as_micros() as u32)
    }

    /// How far ahead of now a count is; negative when it has passed.
    pub fn ahead(&self, tmst: u32) -> i64 {
        i64::from(tmst.wrapping_sub(self.tmst()).cast_signed())
    }

    /// The concentrator was restarted: its counter begins again.
    pub fn restart(&mut self) {
        (self.started, self.from) = (Instant::now(), 0);
    }

    /// The router gave PULL_DATA another port; the old one is dead.
    pub async fn change_port(&mut self) -> io::Result<()> {
        let local = SocketAddr::new(self.down.local_addr()?.ip(), 0);
        self.down = Arc::new(UdpSocket::bind(local).await?);
        Ok(())
    }

    fn next_token(&self) -> [u8; 2] {
        self.token.fetch_add(1, Ordering::Relaxed).to_be_bytes()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if let Some(task) = self.keep_alive.take() {
            task.abort();
        }
    }
}

/// One object of `rxpk`, LoRa, good CRC.
pub fn rxpk(tmst: u32, phy: &[u8], frequency: u32, data_rate: &str) -> Value {
    json!({
        "tmst": tmst, "chan": 0, "rfch": 1, "freq": f64::from(frequency) / 1e6, "mid": 0, "stat": 1,
        "modu": "LORA", "datr": data_rate, "codr": "4/5", "rssi": -57, "rssis": -58, "lsnr": 7.25,
        "foff": 0, "size": phy.len(), "data": STANDARD.encode(phy),
    })
}

fn header(kind: u8, token: [u8; 2], eui: [u8; 8]) -> Vec<u8> {
    let mut bytes = vec![2, token[0], token[1], kind];
    bytes.extend(eui);
    bytes
}

async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let length = socket.recv(&mut buffer).await.unwrap_or_default();
    buffer.truncate(length);
    buffer
}

fn downlink(bytes: &[u8]) -> Option<Downlink> {
    let [2, t0, t1, PULL_RESP, json @ ..] = bytes else { return None };
    let mut body: Value = serde_json::from_slice(json).ok()?;
    let txpk = body["txpk"].take();
    let phy = STANDARD.decode(txpk["data"].as_str()?).ok()?;
    Some(Downlink { token: [*t0, *t1], txpk, phy })
}
