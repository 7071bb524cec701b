//! A federation on one machine: `roamgate demo`.
//!
//! Two complete hotspots, an authoritative signed DNS zone, a small CA and an end device that nobody
//! here wrote, all in this process and on loopback. The three scenarios of the IoTRoam demonstration
//! are played over real frames and real sockets and told as a timeline.

pub mod device;
pub mod federation;
mod scenario;
mod timeline;
pub mod zone;

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::clock::Clock;
use crate::telemetry::{self, Tap};

use federation::{DEVICE, Federation, HOME, Unplug, VISITED, ZONE};
use scenario::{Recorder, Scenario, Story};
use timeline::{Paper, WIDTH};

/// Arguments of `roamgate demo`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DemoArgs {
    /// One document for machines instead of pages for a person
    #[arg(long)]
    pub json: bool,
    /// Leave the federation running at the end, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Play only this scenario: 1 home, 2 away with roaming off, 3 away with roaming on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=3))]
    pub scenario: Option<u8>,
    /// Join once more where the device joined, with connections and DNS answers still warm
    #[arg(long)]
    pub warm: bool,
    /// Take something away and see what happens
    #[arg(long, value_name = "WHAT", hide = true)]
    pub unplug: Option<Unplug>,
}

/// What a machine is told.
#[derive(Serialize)]
struct Document<'a> {
    /// All that were played went as in the demonstration.
    right: bool,
    version: &'static str,
    device: String,
    zone: &'static str,
    port: u16,
    scenarios: &'a [Story],
}

/// Play the demo. True if all that was asked for went as in the demonstration.
pub async fn run(args: DemoArgs, clock: Clock) -> anyhow::Result<bool> {
    let tap = Tap::new(clock.clone());
    // logs would only disturb the page; whoever wants them says so
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "off".into());
    telemetry::init(&filter, &clock, Some(&tap)).context("start the records")?;
    let out = std::io::stdout();
    let terminal = out.is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let page = Page { paper: Paper { colour }, live: terminal && !args.json, quiet: args.json };

    page.say(&format!("{}\n\n", page.paper.bold("Roamgate demo: a federation on this machine")))?;
    let asked = args.scenario;
    let scenarios: Vec<Scenario> =
        Scenario::ALL.into_iter().filter(|s| asked.is_none_or(|n| n == s.number())).collect();
    let roams = scenarios.first().is_some_and(|scenario| scenario.roams());
    let starting = Federation::start(&clock, roams, args.unplug);
    let mut federation = page.while_waiting(&clock, "making keys, signing the zone", starting).await?;
    page.say(&setting(&federation))?;

    let recorder = Recorder::start(&tap);
    let mut stories = Vec::new();
    for scenario in scenarios {
        let rule = page.paper.dim(&"─".repeat(WIDTH));
        page.say(&format!("\n{rule}\n{}\n", scenario::heading(scenario, page.paper)))?;
        let playing = scenario::play(scenario, &mut federation, &recorder, &clock, args.warm);
        let story = page.while_waiting(&clock, "the device is on the air", playing).await?;
        page.say(&story.page(page.paper))?;
        stories.push(story);
    }
    let right = stories.iter().all(|story| story.right);
    if args.json {
        let document = Document {
            right,
            version: env!("CARGO_PKG_VERSION"),
            device: DEVICE.to_string(),
            zone: ZONE,
            port: federation.port,
            scenarios: &stories,
        };
        println(&serde_json::to_string_pretty(&document)?)?;
    } else {
        let rule = page.paper.dim(&"─".repeat(WIDTH));
        let mut verdicts = format!("\n{rule}\n{}\n", page.paper.bold("Verdict"));
        for story in &stories {
            verdicts.push_str(&format!("  {}\n", story.verdict(page.paper)));
        }
        page.say(&verdicts)?;
    }
    if args.keep {
        keep(&mut federation, &clock, &tap, &page).await?;
    }
    federation.stop().await?;
    Ok(right)
}

/// Leave it running, with something to look at: a device at the visited hotspot that goes on talking.
async fn keep(federation: &mut Federation, clock: &Clock, tap: &Tap, page: &Page) -> anyhow::Result<()> {
    federation.set_roaming(true).await?;
    let _sockets = federation.serve_control(tap).await?;
    page.say(&how_to_look(federation))?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended.context("wait for Ctrl-C"),
        ended = walk_on(federation, clock, page) => ended,
    }
}

/// A device that joins away and then sends a number now and then, and says what it receives.
async fn walk_on(federation: &Federation, clock: &Clock, page: &Page) -> anyhow::Result<()> {
    let mut device = federation.device();
    device.move_to(&federation.visited.reach());
    while !device.join().await.ok {
        page.say("  the device could not join, and tries again in 30 s\n")?;
        clock.sleep(Duration::from_secs(30)).await;
    }
    loop {
        let sent = device.send(b"still here", 2, true).await?;
        let answer = if sent.acked { "acknowledged" } else { "not acknowledged" };
        let texts: Vec<String> = sent
            .downlinks
            .iter()
            .map(|(port, payload)| format!(", received {} on FPort {port}", hex::encode(payload)))
            .collect();
        page.say(&format!("  uplink {} {answer}{}\n", sent.fcnt_up, texts.concat()))?;
        clock.sleep(Duration::from_secs(15)).await;
    }
}

/// Who is where.
fn setting(federation: &Federation) -> String {
    let port = federation.port;
    let mut text = String::new();
    for site in [HOME, VISITED] {
        let at = format!("{}:{port}", site.address);
        text.push_str(&format!(
            "  {:<9}NetID {}, join server for JoinEUI {}  {at:>20}\n",
            site.name, site.net_id, site.join_eui
        ));
    }
    text.push_str(&format!(
        "  {:<9}{:<56}{:>18}\n",
        "DNS",
        format!("{ZONE}, signed with ECDSA P-256"),
        federation.zone.addr
    ));
    text.push_str(&format!(
        "  {:<9}one root; for each hotspot an intermediate with name constraints, and a leaf\n",
        "CA"
    ));
    text.push_str(&format!("  {:<9}{DEVICE}, crate lorawan-device, EU868, DR5\n", "device"));
    if federation.unplugged == Some(Unplug::HomeJs) {
        text.push_str(&format!(
            "  {:<9}the home's join server: nobody listens where it should be\n",
            "missing"
        ));
    }
    text.push_str(&format!("  {:<9}{}\n", "files", federation.folder.path.display()));
    text
}

fn how_to_look(federation: &Federation) -> String {
    let file = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let home = file(&federation.home.config()).unwrap_or_default();
    let visited = file(&federation.visited.config()).unwrap_or_default();
    let (dns, port) = (federation.zone.addr.ip(), federation.port);
    format!(
        "\nIt goes on running, with a device at the visited hotspot. End it here with Ctrl-C, and look at\n\
         it from another terminal:\n\
         \n  cd {}\
         \n  roamgate tail -c {visited}\
         \n  roamgate device show {DEVICE} -c {home}\
         \n  roamgate device send {DEVICE} -c {home} --port 3 --text hello\
         \n  roamgate dns resolve --join-eui {} -c {visited}\
         \n  delv @{dns} -p {port} -a trust-anchor.key 000001.netids.{ZONE}\n\n",
        federation.folder.path.display(),
        HOME.join_eui,
    )
}

/// Standard output: a page for a person, or silence where a machine reads.
struct Page {
    paper: Paper,
    /// A line may be rewritten.
    live: bool,
    quiet: bool,
}

impl Page {
    fn say(&self, text: &str) -> anyhow::Result<()> {
        if self.quiet {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write to standard output")
    }

    /// Wait for something, and on a terminal show for how long.
    async fn while_waiting<T>(
        &self,
        clock: &Clock,
        what: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let began = clock.now();
        let mut work = std::pin::pin!(work);
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            tokio::select! {
                biased;
                done = &mut work => {
                    if self.live {
                        self.say("\r\x1b[K")?;
                    }
                    return done;
                }
                // ended here and not by the signal itself, so that the folder goes
                _ = &mut interrupt => anyhow::bail!("interrupted"),
                () = clock.sleep(Duration::from_millis(100)) => {
                    if self.live {
                        let gone = clock.now().saturating_duration_since(began).as_secs_f64();
                        self.say(&format!("\r\x1b[K  {}", self.paper.dim(&format!("{what} … {gone:.1} s"))))?;
                    }
                }
            }
        }
    }
}

fn println(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").context("write to standard output")
}
