//! The load program: `cargo bench --bench load`. Prints the tables of docs/performance.md.
//!
//! Two hotspots of the demo's federation run as processes of their own, pinned to one processor: the program as it is
//! shipped, with real certificates, a signed zone, mutual TLS and synced files. This program is the other side on the
//! other processor: packet forwarders, the zone's server, the MQTT broker. It keeps to a schedule that is fixed before
//! the first frame goes (an open loop): a frame is sent when its time has come, whatever became of those before, and its
//! latency counts from that time. So a node that falls behind makes long latencies, not few frames.
//!
//! `cargo bench --bench load -- latency rates memory` runs parts of it; `quick` makes every part shorter; `home=1500`
//! and `roaming=1000` keep to one rate for 10 s, to look at a node from outside. With `stateful` the home grants contexts,
//! so that uplinks abroad come by XmitDataReq and not by PRStartReq; with `async` it answers by requests of its own.
//! ROAMGATE_PROGRAM names another program to load than the one that was built with this: the shipped one, or one to
//! compare with.

mod air;
mod broker;
mod device;
mod node;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use air::HEADS;
use anyhow::{Context, bail};
use broker::Broker;
use device::Device;
use node::{Node, Place, Used};
use roamgate::clock::{Clock, Instant};
use roamgate::demo::federation::Federation;

/// Devices at home at the home hotspot.
const DEVICES: u64 = 10_000;
/// What was not answered by then is lost.
const WAIT: Duration = Duration::from_secs(6);
/// Everything handed to the heads has been sent by then.
const SENT: Duration = Duration::from_secs(6);
/// Between two joins of devices that the visited hotspot has never heard of: it lets no more of them in.
const STRANGERS: Duration = Duration::from_millis(260);
/// Between two frames where latency is looked at: 50 a second.
const PACE: Duration = Duration::from_millis(20);
/// Rates that are tried, uplinks a second.
const RATES: [u32; 14] = [250, 500, 750, 1000, 1250, 1500, 2000, 2500, 3000, 3500, 4000, 5000, 6000, 8000];

/// How much of everything.
struct Plan {
    /// Restarts of both hotspots, each followed by one join.
    cold: usize,
    /// Runs of each latency.
    runs: usize,
    /// Devices with sessions, which send in turns.
    senders: usize,
    /// How long each rate is tried.
    rate_time: Duration,
}

const WHOLE: Plan = Plan { cold: 20, runs: 400, senders: 3000, rate_time: Duration::from_secs(6) };
const QUICK: Plan = Plan { cold: 3, runs: 100, senders: 1200, rate_time: Duration::from_secs(3) };
/// Joins of unknown devices take long.
const MOST_STRANGERS: usize = 120;

const PARTS: [&str; 5] = ["latency", "rates", "memory", "syncs", "size"];
/// How it is done, and not what: lines of the home's entry for the visited network.
const MANNERS: [(&str, &str); 2] = [
    ("stateful", "passive = { start = true, activation = true, lifetime = \"1h\" }"),
    ("async", "mode = \"async\""),
];

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let is_manner = |word: &str| word == "quick" || MANNERS.iter().any(|(manner, _)| *manner == word);
    let is_known = |word: &str| is_manner(word) || word.contains('=') || PARTS.contains(&word);
    if let Some(unknown) = words.iter().find(|word| !is_known(word)) {
        bail!("{unknown:?} is no part of this: {PARTS:?}, quick, stateful, async, home=RATE or roaming=RATE");
    }
    let has = |word: &str| words.iter().any(|other| other == word);
    let mut entry: String =
        MANNERS.iter().filter(|(name, _)| has(name)).map(|(_, line)| format!("{line}\n")).collect();
    if has("async") && !has("stateful") {
        entry += "passive = { start = true, activation = true }\n";
    }
    let fixed = words.iter().filter_map(|word| word.split_once('='));
    let fixed = fixed.map(|(place, rate)| Ok((place == "home", rate.parse()?)));
    let fixed: Vec<(bool, u32)> = fixed.collect::<anyhow::Result<_>>()?;
    let chosen = |part: &str| words.iter().all(|word| is_manner(word)) || has(part);
    let plan = if has("quick") { QUICK } else { WHOLE };
    // before any other thread begins
    let pinned = node::pin_driver();
    if !pinned {
        println!("taskset is not there: nothing is pinned, and the targets do not apply\n");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        if chosen("size") {
            let bytes = std::fs::metadata(node::program())?.len();
            println!("program: {bytes} bytes, {:.1} MB (target: under 20 MB)\n", bytes as f64 / 1e6);
        }
        if !fixed.is_empty() || PARTS.iter().any(|part| *part != "size" && chosen(part)) {
            let mut field = Field::new(plan, pinned, &entry).await?;
            field.all(&chosen, &fixed).await?;
        }
        Ok(())
    })
}

/// Where it all happens.
struct Field {
    plan: Plan,
    clock: Clock,
    federation: Federation,
    broker: Broker,
    visited: Place,
    home: Place,
    devices: Vec<Device>,
}

/// What became of frames.
struct Outcome {
    /// From the due time to the end; sorted.
    times: Vec<Duration>,
    lost: usize,
    /// Of each frame, where it ended with the radio.
    answers: Vec<Option<Vec<u8>>>,
    /// How late the driver itself was, at most.
    driver: Duration,
}

/// Where a frame's way ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Radio,
    Application,
}

impl Field {
    /// `entry`: of the home for the visited network, where there is to be one.
    async fn new(plan: Plan, pinned: bool, entry: &str) -> anyhow::Result<Field> {
        let clock = Clock::system();
        let mut federation = Federation::start(&clock, true, None).await?;
        federation.home.stop().await?;
        federation.visited.stop().await?;
        let broker = Broker::start(&clock).await?;
        let visited = Place::new(&federation.visited, broker.address, pinned, "")?;
        let home = Place::new(&federation.home, broker.address, pinned, entry)?;
        let devices = (0..DEVICES).map(Device::new).collect();
        Ok(Field { plan, clock, federation, broker, visited, home, devices })
    }

    async fn all(&mut self, chosen: &dyn Fn(&str) -> bool, fixed: &[(bool, u32)]) -> anyhow::Result<()> {
        let mut memory = Vec::new();
        self.import(0..10).await?;
        if chosen("memory") {
            memory.push(("10 devices, nothing heard", self.idle_memory().await?));
        }
        self.import(10..DEVICES as usize).await?;
        if chosen("memory") {
            memory.push(("10,000 devices, nothing heard", self.idle_memory().await?));
        }
        if chosen("latency") {
            println!("{LATENCY_HEAD}");
            self.disk()?;
            self.cold().await?;
        }
        let mut home = self.home.start(&self.clock).await?;
        let mut visited = self.visited.start(&self.clock).await?;
        self.clock.sleep(Duration::from_secs(2)).await;
        if chosen("latency") {
            self.joins_away(&mut visited, &home).await?;
        }
        if chosen("latency") || chosen("rates") || chosen("syncs") || !fixed.is_empty() {
            self.everybody_joins(&mut visited, &mut home).await?;
        }
        if chosen("latency") {
            self.uplinks(&mut visited, &mut home).await?;
        }
        if chosen("syncs") {
            self.syncs(&mut home).await?;
        }
        for (at_home, rate) in fixed {
            println!("{RATE_HEAD}");
            self.plan.rate_time = Duration::from_secs(10);
            match at_home {
                true => self.rate("home", *rate, &mut home, None).await?,
                false => self.rate("roaming", *rate, &mut visited, Some(&home)).await?,
            };
        }
        if chosen("rates") {
            println!("\n{RATE_HEAD}");
            let most = self.rates("home", &mut home, None).await?;
            let most_roaming = self.rates("roaming", &mut visited, Some(&home)).await?;
            println!(
                "\nsustained: {most} home uplinks/s (target: 3,000), {most_roaming} roaming uplinks/s (target: 1,500)"
            );
        }
        if chosen("memory") {
            memory.push(("10,000 devices, after all of this", [visited.memory()?, home.memory()?]));
            println!("\n| resident memory (target: under 30 MB) | visited | home |\n| --- | --- | --- |");
            for (what, [visited, home]) in memory {
                println!("| {what} | {visited} kB | {home} kB |");
            }
        }
        visited.stop().await?;
        home.stop().await
    }

    async fn import(&self, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
        let lines: String = self.devices[numbers].iter().map(Device::csv).collect();
        let file = self.federation.folder.path.join("devices.csv");
        std::fs::write(&file, format!("dev_eui,join_eui,app_key,name,mac_version,roaming\n{lines}"))?;
        self.home.types(&["device", "import", &file.display().to_string()]).await.map(drop)
    }

    async fn idle_memory(&self) -> anyhow::Result<[u64; 2]> {
        let home = self.home.start(&self.clock).await?;
        let visited = self.visited.start(&self.clock).await?;
        self.clock.sleep(Duration::from_secs(3)).await;
        let memory = [visited.memory()?, home.memory()?];
        visited.stop().await?;
        home.stop().await?;
        Ok(memory)
    }

    /// What the disk alone costs: append a page, wait until it is there.
    fn disk(&self) -> anyhow::Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.federation.folder.path.join("sync"))?;
        let mut times = Vec::new();
        for _ in 0..200 {
            let begun = self.clock.now();
            file.write_all(&[7; 4096])?;
            file.sync_data()?;
            times.push(self.clock.now() - begun);
        }
        times.sort();
        println!("{}", latency_row("one sync of the disk", &times, 0, None, ""));
        Ok(())
    }

    async fn cold(&mut self) -> anyhow::Result<()> {
        let (mut times, mut lost) = (Vec::new(), 0);
        for number in 0..self.plan.cold {
            let home = self.home.start(&self.clock).await?;
            let mut visited = self.visited.start(&self.clock).await?;
            self.clock.sleep(Duration::from_millis(300)).await;
            let frames = vec![self.devices[number].join_request()];
            let outcome = self.send(&mut visited, frames, PACE, End::Radio).await?;
            times.extend(outcome.times);
            lost += outcome.lost;
            visited.stop().await?;
            home.stop().await?;
        }
        times.sort();
        println!("{}", latency_row("roaming join, cold", &times, lost, None, ""));
        Ok(())
    }

    /// Joins at the visited hotspot: of devices it has never heard of, and the same again.
    async fn joins_away(&mut self, visited: &mut Node, home: &Node) -> anyhow::Result<()> {
        let first = self.plan.cold;
        let strangers = first..first + self.plan.runs.min(MOST_STRANGERS);
        // opens the connections, and is not counted
        let frames = vec![self.devices[9999].join_request()];
        self.send(visited, frames, PACE, End::Radio).await?;
        self.joins("roaming join, warm", visited, Some(home), strangers.clone(), STRANGERS, "3 ms").await?;
        self.clock.sleep(SENT).await;
        let pace = PACE * 2;
        self.joins("the same, joined before", visited, Some(home), strangers, pace, "").await
    }

    async fn joins(
        &mut self,
        what: &str,
        at: &mut Node,
        other: Option<&Node>,
        numbers: std::ops::Range<usize>,
        pace: Duration,
        target: &str,
    ) -> anyhow::Result<()> {
        let frames: Vec<_> = self.devices[numbers.clone()].iter_mut().map(Device::join_request).collect();
        let before = used(at, other).await?;
        let outcome = self.send(at, frames, pace, End::Radio).await?;
        let cost = used(at, other).await? - before;
        for (device, answer) in self.devices[numbers].iter_mut().zip(&outcome.answers) {
            answer.as_ref().map(|phy| device.accept(phy)).transpose()?;
        }
        outcome.print(what, Some(cost), target);
        Ok(())
    }

    /// All senders get a session at home, and are heard once at each place: the first uplink of a session costs more.
    async fn everybody_joins(&mut self, visited: &mut Node, home: &mut Node) -> anyhow::Result<()> {
        let numbers = 5000..5000 + self.plan.senders;
        let frames: Vec<_> = self.devices[numbers.clone()].iter_mut().map(Device::join_request).collect();
        let before = used(home, None).await?;
        let outcome = self.send(home, frames, Duration::from_millis(8), End::Radio).await?;
        let cost = used(home, None).await? - before;
        for (device, answer) in self.devices[numbers].iter_mut().zip(&outcome.answers) {
            answer.as_ref().map(|phy| device.accept(phy)).transpose()?;
        }
        outcome.print("home join, 125 a second", Some(cost), "");
        let frames = self.frames(self.plan.senders, false)?;
        let before = used(home, None).await?;
        let outcome = self.send(home, frames, Duration::from_millis(4), End::Application).await?;
        let cost = used(home, None).await? - before;
        outcome.print("the first uplink of a session, 250 a second", Some(cost), "");
        let frames = self.frames(self.plan.senders, false)?;
        // once at least, so that the visited hotspot knows where they are at home
        if self.devices[9999].has_joined() {
            return Ok(());
        }
        let join = vec![self.devices[9998].join_request()];
        self.send(visited, join, PACE, End::Radio).await?;
        let outcome = self.send(visited, frames, Duration::from_millis(4), End::Application).await?;
        outcome.print("the first uplink abroad, 250 a second", None, "");
        Ok(())
    }

    /// The next frame of so many senders, in turns.
    fn frames(&mut self, count: usize, confirmed: bool) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut frames = Vec::with_capacity(count);
        let first = 5000;
        let mut number = 0;
        let mut idle = 0;
        while frames.len() < count {
            let device = &mut self.devices[first + number % self.plan.senders];
            number += 1;
            // one whose Join-accept was lost
            if !device.has_joined() {
                idle += 1;
                if idle > self.plan.senders {
                    bail!("nobody has joined");
                }
                continue;
            }
            frames.push(device.uplink(confirmed)?);
        }
        // the next turn begins where this one ended
        self.devices[first..first + self.plan.senders].rotate_left(number % self.plan.senders);
        Ok(frames)
    }

    async fn uplinks(&mut self, visited: &mut Node, home: &mut Node) -> anyhow::Result<()> {
        self.clock.sleep(SENT).await;
        let runs = self.plan.runs;
        for (what, confirmed, end, target) in [
            ("roaming uplink, to the application", false, End::Application, "1.5 ms"),
            ("roaming uplink, confirmed, to its acknowledgement", true, End::Radio, ""),
        ] {
            let frames = self.frames(runs, confirmed)?;
            let before = used(visited, Some(home)).await?;
            let outcome = self.send(visited, frames, PACE, end).await?;
            let cost = used(visited, Some(home)).await? - before;
            outcome.print(what, Some(cost), target);
        }
        for (what, confirmed, end) in [
            ("home uplink, to the application", false, End::Application),
            ("home uplink, confirmed, to its acknowledgement", true, End::Radio),
        ] {
            let frames = self.frames(runs, confirmed)?;
            let before = used(home, None).await?;
            let outcome = self.send(home, frames, PACE, end).await?;
            let cost = used(home, None).await? - before;
            outcome.print(what, Some(cost), "");
        }
        Ok(())
    }

    /// The highest rate at which nothing is lost and 99 of 100 uplinks are with the application within a second. A rate
    /// that does not hold is tried once more: what else the machine does is no fault of the node.
    async fn rates(&mut self, what: &str, at: &mut Node, other: Option<&Node>) -> anyhow::Result<u32> {
        let mut most = 0;
        for rate in RATES {
            if !self.rate(what, rate, at, other).await? && !self.rate(what, rate, at, other).await? {
                break;
            }
            most = rate;
        }
        Ok(most)
    }

    async fn rate(
        &mut self,
        what: &str,
        rate: u32,
        at: &mut Node,
        other: Option<&Node>,
    ) -> anyhow::Result<bool> {
        let count = (self.plan.rate_time.as_secs_f64() * f64::from(rate)) as usize;
        let frames = self.frames(count, false)?;
        let every = Duration::from_secs(1) / rate;
        let before = used(at, other).await?;
        let begun = self.clock.now();
        let outcome = self.send(at, frames, every, End::Application).await?;
        let took = self.clock.now() - begun;
        let cost = used(at, other).await? - before;
        let each = |value: f64| value / count as f64;
        println!(
            "| {what} | {rate} | {count} | {} | {} | {} | {} | {:.0} µs | {:.0} % | {:.1} kB | {:.3} | {} |",
            outcome.lost,
            ms(outcome.at(0.5)),
            ms(outcome.at(0.99)),
            ms(outcome.at(1.0)),
            each(cost.cpu.as_secs_f64() * 1e6),
            // of the time in which frames came
            cost.cpu.as_secs_f64() * 100.0 / took.as_secs_f64().min(count as f64 / f64::from(rate)),
            each(cost.written as f64 / 1e3),
            each(cost.commits as f64 + 3.0 * cost.checkpoints as f64),
            ms(outcome.driver),
        );
        let held = outcome.lost == 0 && outcome.at(0.99) < Duration::from_secs(1);
        if !held {
            // what still waits is dealt with before the next
            while tokio::time::timeout(Duration::from_secs(2), self.broker.arrivals.recv()).await.is_ok() {}
        }
        Ok(held)
    }

    /// Calls of the system that wait for the disk, counted from outside.
    async fn syncs(&mut self, home: &mut Node) -> anyhow::Result<()> {
        println!(
            "\n| calls that wait for the disk, of the home hotspot | runs | calls | each |\n| --- | --- | --- | --- |"
        );
        self.clock.sleep(SENT).await;
        let runs = self.plan.runs.min(200);
        for (what, end) in
            [("home join", End::Radio), ("uplink", End::Application), ("confirmed uplink", End::Radio)]
        {
            let id = home.id()?.to_string();
            let report = self.federation.folder.path.join("strace");
            let mut trace = tokio::process::Command::new("strace");
            trace
                .args(["-f", "-c", "-e", "trace=fsync,fdatasync,sync_file_range", "-p", &id, "-o"])
                .arg(&report);
            let Ok(mut trace) = trace.stderr(Stdio::null()).kill_on_drop(true).spawn() else {
                println!("| strace is not there | | | |");
                return Ok(());
            };
            self.clock.sleep(Duration::from_millis(500)).await;
            let frames = match what {
                "home join" => {
                    let joining = &mut self.devices[4000..4000 + runs];
                    joining.iter_mut().map(Device::join_request).collect()
                }
                _ => self.frames(runs, what == "confirmed uplink")?,
            };
            let outcome = self.send(home, frames, PACE, end).await?;
            if outcome.lost > 0 {
                println!("| {what}: {} were lost | | | |", outcome.lost);
            }
            if let Some(tracer) = trace.id() {
                let stop = ["-INT", &tracer.to_string()];
                tokio::process::Command::new("kill").args(stop).status().await?;
            }
            trace.wait().await?;
            // % time, seconds, usecs/call, calls, (errors,) syscall
            let text = std::fs::read_to_string(&report)?;
            let calls: u64 = text
                .lines()
                .filter(|line| {
                    ["fsync", "fdatasync", "sync_file_range"].iter().any(|call| line.ends_with(call))
                })
                .filter_map(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok())
                .sum();
            println!("| {what} | {runs} | {calls} | {:.2} |", calls as f64 / runs as f64);
        }
        Ok(())
    }

    /// Send frames at their times, and see what becomes of them.
    async fn send(
        &mut self,
        at: &mut Node,
        frames: Vec<Vec<u8>>,
        every: Duration,
        end: End,
    ) -> anyhow::Result<Outcome> {
        let by_uplink: BTreeMap<(roamgate::lorawan::DevEui, u32), usize> = match end {
            End::Radio => BTreeMap::new(),
            End::Application => self.keys(&frames)?,
        };
        while self.broker.arrivals.try_recv().is_ok() {}
        while at.heads.downlinks.try_recv().is_ok() {}
        let (due, thread) = at.heads.fire(&frames, every, &self.clock)?;
        let last = due.last().copied().context("no frames")?;
        let mut ended: Vec<Option<Instant>> = vec![None; frames.len()];
        let mut answers: Vec<Option<Vec<u8>>> = vec![None; frames.len()];
        let mut left = frames.len();
        while left > 0 {
            let (number, when) = tokio::select! {
                arrival = self.broker.arrivals.recv(), if end == End::Application => {
                    let arrival = arrival.context("the broker")?;
                    (by_uplink.get(&(arrival.dev_eui, arrival.fcnt)).copied(), arrival.at)
                }
                downlink = at.heads.downlinks.recv(), if end == End::Radio => {
                    let downlink = downlink.context("the heads")?;
                    // the latest frame of this head that was due by then
                    let sent = due.partition_point(|due| *due <= downlink.at);
                    let number = (0..sent).rev().find(|number| number % HEADS == downlink.head);
                    if let Some(answer) = number.and_then(|number| answers.get_mut(number)) {
                        *answer = Some(downlink.phy);
                    }
                    (number, downlink.at)
                }
                () = self.clock.sleep_until(last + WAIT) => break,
            };
            if let Some(slot @ None) = number.and_then(|number| ended.get_mut(number)) {
                *slot = Some(when);
                left -= 1;
            }
        }
        let driver = thread.join().map_err(|_| anyhow::anyhow!("the driver failed"))??;
        let times =
            ended.iter().zip(&due).filter_map(|(ended, due)| Some(ended.as_ref()?.duration_since(*due)));
        let mut times: Vec<Duration> = times.collect();
        times.sort();
        Ok(Outcome { times, lost: left, answers, driver })
    }

    /// Which frame is which uplink: DevAddr and FCnt are in it, and the DevEUI is the application's word for the device.
    fn keys(&self, frames: &[Vec<u8>]) -> anyhow::Result<BTreeMap<(roamgate::lorawan::DevEui, u32), usize>> {
        // of some thousand random addresses two may be equal, which the network tells apart by the MIC, as we do
        let mut by_addr: BTreeMap<[u8; 4], Vec<&Device>> = BTreeMap::new();
        for device in &self.devices {
            if let Some(addr) = device.address() {
                by_addr.entry(addr).or_default().push(device);
            }
        }
        let key = |(number, phy): (usize, &Vec<u8>)| {
            let addr = phy.get(1..5).and_then(|addr| <[u8; 4]>::try_from(addr).ok()).context("a DevAddr")?;
            let fcnt = phy.get(6..8).context("FCnt")?;
            let fcnt = u32::from(fcnt[0]) + 256 * u32::from(fcnt[1]);
            let mut devices = by_addr.get(&addr).into_iter().flatten();
            let device = devices.find(|device| device.made(phy, fcnt)).context("a device")?;
            Ok(((device.dev_eui, fcnt), number))
        };
        frames.iter().enumerate().map(key).collect()
    }
}

async fn used(at: &Node, other: Option<&Node>) -> anyhow::Result<Used> {
    Ok(match other {
        Some(other) => at.used().await? + other.used().await?,
        None => at.used().await?,
    })
}

const LATENCY_HEAD: &str = "| what | runs | lost | min | median | 99 % | max | target | processor | written | waited for the disk |\n\
     | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";
const RATE_HEAD: &str = "| uplinks | a second | sent | lost | median | 99 % | max | processor, each | processor | written, each | syncs, each | driver late |\n\
     | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

impl Outcome {
    fn at(&self, part: f64) -> Duration {
        at(&self.times, part)
    }

    fn print(&self, what: &str, cost: Option<Used>, target: &str) {
        println!("{}", latency_row(what, &self.times, self.lost, cost, target));
    }
}

/// The time that such a part of them keeps to.
fn at(times: &[Duration], part: f64) -> Duration {
    let last = times.len().saturating_sub(1);
    times.get((last as f64 * part) as usize).copied().unwrap_or(Duration::MAX)
}

fn ms(time: Duration) -> String {
    if time == Duration::MAX { "never".into() } else { format!("{:.2} ms", time.as_secs_f64() * 1e3) }
}

/// One line of the first table. Costs are those of both hotspots together, for each run.
fn latency_row(what: &str, times: &[Duration], lost: usize, cost: Option<Used>, target: &str) -> String {
    let runs = times.len() + lost;
    let [min, median, most, max] = [0.0, 0.5, 0.99, 1.0].map(|part| ms(at(times, part)));
    let each = |value: f64| value / runs as f64;
    let cost = cost.map_or_else(
        || " | | ".to_string(),
        |cost| {
            format!(
                "{:.2} ms | {:.1} kB | {:.2}",
                each(cost.cpu.as_secs_f64() * 1e3),
                each(cost.written as f64 / 1e3),
                each(cost.commits as f64)
            )
        },
    );
    format!("| {what} | {runs} | {lost} | {min} | {median} | {most} | {max} | {target} | {cost} |")
}
