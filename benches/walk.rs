//! The walk, timed from outside: `cargo bench --bench walk`. Prints the rows of docs/performance.md.
//!
//! Two hotspots of the demo's federation run as processes of their own: the program as it is shipped, with real
//! certificates, a signed zone, mutual TLS and synced files. Packet forwarders of the tests bring frames and take
//! transmissions over UDP. A time begins with the datagram that brings a frame and ends with the PULL_RESP that hands the
//! answer to the radio; so nothing that the air or a receive window costs is in it.

#[path = "../tests/support/forwarder.rs"]
mod forwarder;

use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use forwarder::{Downlink, Forwarder};
use roamgate::app::operator::Operator;
use roamgate::backend::message::MacVersion;
use roamgate::clock::Clock;
use roamgate::config;
use roamgate::control::{NewDevice, Operator as _};
use roamgate::demo::federation::{Federation, HOME, Hotspot, Site};
use roamgate::lorawan::crypto::{self, Direction};
use roamgate::lorawan::{DevAddr, DevEui, Key, NetId};
use roamgate::store::Store;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const PROGRAM: &str = env!("CARGO_BIN_EXE_roamgate");
/// Heads of each hotspot, taken in turns: a head has one transmitter and a duty cycle.
const HEADS: usize = 40;
/// Restarts of both hotspots, each followed by one join.
const COLD: usize = 20;
/// Between two frames: a head is free again before its turn comes.
const PACE: Duration = Duration::from_millis(10);
/// Until everything that was handed to the heads has been sent.
const SENT: Duration = Duration::from_secs(6);
/// Before memory is looked at.
const JOINS: usize = 1000;
/// Between two joins of devices that the visited hotspot has never heard of: it lets no more of them in.
const STRANGERS: Duration = Duration::from_millis(260);
/// Longer than any window is worth waiting for.
const WAIT: Duration = Duration::from_secs(6);
const FREQUENCY: u32 = 868_100_000;
const RATE: &str = "SF7BW125";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let number = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let runs: usize = number.unwrap_or(200);
    let clock = Clock::system();
    let mut federation = Federation::start(&clock, true, None).await?;
    federation.home.stop().await?;
    federation.visited.stop().await?;
    let mut devices = devices(&federation, COLD + 1 + runs + runs, &clock).await?;
    let (unseen, at_home) = devices.split_at_mut(COLD + 1 + runs);
    let (for_cold, roaming) = unseen.split_at_mut(COLD);
    let configs = [with_heads(&federation.visited)?, with_heads(&federation.home)?];

    println!("| what | runs | min | median | 99 % | max |\n| --- | --- | --- | --- | --- | --- |");
    row("a page appended to a file and synced", syncs(&federation.folder.path, 200, &clock)?);

    let mut cold = Vec::new();
    for device in for_cold {
        let (mut visited, _home) = start(&configs).await?;
        cold.push(visited.join(device, &clock).await?);
    }
    row("roaming join, cold", cold);

    let (mut visited, mut home) = start(&configs).await?;
    clock.sleep(Duration::from_secs(2)).await;
    let idle = [visited.memory()?, home.memory()?];
    let mut times = Vec::new();
    for device in roaming.iter_mut() {
        clock.sleep(STRANGERS).await;
        times.push(visited.join(device, &clock).await?);
    }
    // the first has opened the connections
    row("roaming join, warm", times.split_off(1));
    row("roaming join, warm, of a device that joined before", joins(&mut visited, roaming, &clock).await?);
    row("roaming uplink, the first of a session", uplinks(&mut visited, roaming, &clock).await?);
    row("roaming uplink", uplinks(&mut visited, roaming, &clock).await?);
    row("home join", joins(&mut home, at_home, &clock).await?);
    row("home uplink, the first of a session", uplinks(&mut home, at_home, &clock).await?);
    row("home uplink", uplinks(&mut home, at_home, &clock).await?);

    let mut joined = 1 + 2 * runs;
    while joined < JOINS {
        joined += joins(&mut visited, roaming, &clock).await?.len();
    }
    let now = [visited.memory()?, home.memory()?];
    println!("\n| resident memory | visited | home |\n| --- | --- | --- |");
    println!("| started, nothing heard | {} kB | {} kB |", idle[0], idle[1]);
    println!("| after all of this and {joined} roaming joins | {} kB | {} kB |", now[0], now[1]);
    println!("\nprogram: {} bytes", std::fs::metadata(PROGRAM)?.len());
    drop((visited, home));
    federation.stop().await
}

async fn joins(at: &mut Running, devices: &mut [Device], clock: &Clock) -> anyhow::Result<Vec<Duration>> {
    clock.sleep(SENT).await;
    let mut times = Vec::new();
    for device in devices {
        times.push(at.join(device, clock).await?);
    }
    Ok(times)
}

async fn uplinks(at: &mut Running, devices: &mut [Device], clock: &Clock) -> anyhow::Result<Vec<Duration>> {
    clock.sleep(SENT).await;
    let mut times = Vec::new();
    for device in devices {
        let frame = device.confirmed_frame()?;
        times.push(at.answer(&frame, clock).await?.1);
    }
    Ok(times)
}

/// One line of the first table.
fn row(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let ms = |at: usize| times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    let last = times.len().saturating_sub(1);
    let [min, median, most, max] = [0, last / 2, last * 99 / 100, last].map(ms);
    println!("| {what} | {} | {min:.2} ms | {median:.2} ms | {most:.2} ms | {max:.2} ms |", times.len());
}

/// What the disk alone costs: append a page, wait until it is there.
fn syncs(folder: &Path, count: usize, clock: &Clock) -> anyhow::Result<Vec<Duration>> {
    let mut file = File::create(folder.join("sync"))?;
    let mut one = || {
        let begun = clock.now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        Ok(clock.now() - begun)
    };
    (0..count).map(|_| one()).collect()
}

/// An end device, as far as the network sees it.
struct Device {
    dev_eui: DevEui,
    app_key: Key,
    dev_nonce: u16,
    session: Option<(DevAddr, Key)>,
    fcnt: u32,
}

/// So many devices, at home at the home hotspot.
async fn devices(federation: &Federation, count: usize, clock: &Clock) -> anyhow::Result<Vec<Device>> {
    let config = config::load(Some(&federation.home.config()), std::iter::empty())?.checked()?.config;
    let store = Store::open(&config.store, clock.clone())?;
    let operator = Operator::alone(&config, store.clone());
    let mut devices = Vec::new();
    for number in 0..count as u64 {
        let dev_eui = DevEui::from_msb((0x0200_0000_0000_0000 + number).to_be_bytes());
        let app_key = Key::new(clock.random());
        let device = NewDevice {
            dev_eui,
            join_eui: HOME.join_eui,
            app_key: app_key.clone(),
            nwk_key: None,
            name: format!("device {number}"),
            mac_version: MacVersion::V1_0_3,
            roaming: true,
        };
        operator.add_device(device).await?;
        devices.push(Device { dev_eui, app_key, dev_nonce: 0, session: None, fcnt: 0 });
    }
    store.close().await?;
    Ok(devices)
}

/// Where, its file, and where its heads send to.
type Config = (Site, PathBuf, SocketAddr);

/// The hotspot's configuration with a radio: heads over UDP.
fn with_heads(hotspot: &Hotspot) -> anyhow::Result<Config> {
    let site = hotspot.site;
    let listen = UdpSocket::bind((site.address, 0))?.local_addr()?;
    let text = std::fs::read_to_string(hotspot.config())?;
    let radio = format!("radio = [{{ kind = \"semtech-udp\", listen = \"{listen}\" }}]");
    let path = hotspot.config().with_file_name(format!("{}-heads.toml", site.name));
    std::fs::write(&path, text.replacen("radio = []", &radio, 1))?;
    Ok((site, path, listen))
}

/// Both hotspots, with nothing cached.
async fn start(configs: &[Config; 2]) -> anyhow::Result<(Running, Running)> {
    let home = Running::start(&configs[1]).await?;
    Ok((Running::start(&configs[0]).await?, home))
}

/// A hotspot in a process of its own. Killed when dropped.
struct Running {
    program: Child,
    /// Open, so that it may go on writing.
    _said: Lines<BufReader<ChildStdout>>,
    heads: Vec<Forwarder>,
    turn: usize,
}

impl Running {
    async fn start((site, config, listen): &Config) -> anyhow::Result<Running> {
        let mut program = Command::new(PROGRAM)
            .args(["run", "-c"])
            .arg(config)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "error".into()))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {PROGRAM}"))?;
        let mut said = BufReader::new(program.stdout.take().context("its output")?).lines();
        let up = said.next_line().await?.unwrap_or_default();
        if !up.contains("is up") {
            bail!("the {} hotspot did not start: {up}", site.name);
        }
        let mut heads = Vec::new();
        for number in 0..HEADS {
            let eui = u64::from_be_bytes(site.gateway.to_msb()) + 0x100 * number as u64;
            let mut head = Forwarder::connect(*listen, &format!("{eui:016X}")).await?;
            head.keep_alive(Duration::from_secs(10));
            heads.push(head);
        }
        Ok(Running { program, _said: said, heads, turn: 0 })
    }

    /// A frame ends now at one of the heads: the downlink, and how long it took.
    async fn answer(&mut self, phy: &[u8], clock: &Clock) -> anyhow::Result<(Downlink, Duration)> {
        clock.sleep(PACE).await;
        let count = self.heads.len();
        let head = self.heads.get_mut(self.turn % count).context("a head")?;
        self.turn += 1;
        let begun = clock.now();
        head.uplink(phy, FREQUENCY, RATE).await.context("no PUSH_ACK")?;
        let downlink = head
            .downlink(WAIT)
            .await
            .with_context(|| format!("no downlink at head {}", self.turn % count))?;
        let took = clock.now() - begun;
        head.tx_ack(&downlink, None).await?;
        Ok((downlink, took))
    }

    async fn join(&mut self, device: &mut Device, clock: &Clock) -> anyhow::Result<Duration> {
        let request = device.join_request();
        let (accept, took) = self.answer(&request, clock).await?;
        device.accept(&accept.phy)?;
        Ok(took)
    }

    /// VmRSS, kB.
    fn memory(&self) -> anyhow::Result<u64> {
        let id = self.program.id().context("it runs")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Device {
    fn join_request(&mut self) -> Vec<u8> {
        self.dev_nonce += 1;
        let mut phy = vec![0];
        phy.extend(HOME.join_eui.to_air());
        phy.extend(self.dev_eui.to_air());
        phy.extend(self.dev_nonce.to_le_bytes());
        let mic = crypto::join_mic(&self.app_key, &phy);
        phy.extend(mic);
        phy
    }

    fn accept(&mut self, phy: &[u8]) -> anyhow::Result<()> {
        let mut clear = phy.to_vec();
        crypto::decrypt_join_accept(&self.app_key, clear.get_mut(1..).context("a Join-accept")?);
        let [0x20, j0, j1, j2, n0, n1, n2, a0, a1, a2, a3, ..] = clear[..] else {
            bail!("no Join-accept: {phy:02X?}")
        };
        let join_nonce = u32::from_le_bytes([j0, j1, j2, 0]);
        let net_id = NetId::from_msb([n2, n1, n0]);
        let keys = crypto::session_keys(&self.app_key, join_nonce, net_id, self.dev_nonce);
        self.session = Some((DevAddr::from_air([a0, a1, a2, a3]), keys.nwk_s_key));
        self.fcnt = 0;
        Ok(())
    }

    /// 20 bytes on port 5.
    fn confirmed_frame(&mut self) -> anyhow::Result<Vec<u8>> {
        let (addr, key) = self.session.as_ref().context("a session")?;
        let mut phy = vec![0x80];
        phy.extend(addr.to_air());
        phy.push(0);
        phy.extend(&self.fcnt.to_le_bytes()[..2]);
        phy.push(5);
        phy.extend([0xA5; 20]);
        let mic = crypto::data_mic(key, Direction::Up, *addr, self.fcnt, &phy);
        phy.extend(mic);
        self.fcnt += 1;
        Ok(phy)
    }
}
