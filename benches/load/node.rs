//! A hotspot in a process of its own, and what the system says of it.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use roamgate::clock::Clock;
use roamgate::demo::federation::{Hotspot, Site, VISITED};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::air::Heads;

/// The nodes' processor and the driver's.
const NODES: &str = "0";
const DRIVER: &str = "1";

/// The program under test: ours, or the one that ROAMGATE_PROGRAM names, to compare two.
pub fn program() -> PathBuf {
    std::env::var_os("ROAMGATE_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_roamgate").into(), PathBuf::from)
}

/// Keep this process to its processor: threads that begin later stay there too. Whether that was possible.
pub fn pin_driver() -> bool {
    let me = std::process::id().to_string();
    let done =
        std::process::Command::new("taskset").args(["-cp", DRIVER, &me]).stdout(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

/// A configuration, and where its packet forwarders send to.
#[derive(Clone)]
pub struct Place {
    pub site: Site,
    pub config: PathBuf,
    listen: SocketAddr,
    pinned: bool,
}

impl Place {
    /// The hotspot's configuration with packet forwarders, a broker, and no limit to what partners may ask; `entry`
    /// is its entry for the visited network.
    pub fn new(hotspot: &Hotspot, broker: SocketAddr, pinned: bool, entry: &str) -> anyhow::Result<Place> {
        let site = hotspot.site;
        let listen = UdpSocket::bind((site.address, 0))?.local_addr()?;
        let text = std::fs::read_to_string(hotspot.config())?;
        let radio = format!("radio = [{{ kind = \"semtech-udp\", listen = \"{listen}\" }}]");
        let text = text.replacen("radio = []", &radio, 1);
        let limits = "limits = { partner = 1000000, stranger = 1000000 }\nroots = [";
        let text = text.replacen("roots = [", limits, 1);
        let mut text = format!("{text}\n[application.mqtt]\nserver = \"mqtt://{broker}\"\n");
        if !entry.is_empty() {
            text += &format!("[[roaming.partner]]\nnet_id = \"{}\"\n{entry}", VISITED.net_id);
        }
        let config = hotspot.config().with_file_name(format!("{}-load.toml", site.name));
        std::fs::write(&config, text)?;
        Ok(Place { site, config, listen, pinned })
    }

    /// Run one of the program's commands on this configuration.
    pub async fn types(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let done = Command::new(program()).args(arguments).arg("-c").arg(&self.config).output().await?;
        if !done.status.success() {
            bail!("{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// `roamgate run`, until it says that it is up.
    pub async fn start(&self, clock: &Clock) -> anyhow::Result<Node> {
        let mut command = if self.pinned {
            let mut command = Command::new("taskset");
            command.args(["-c", NODES]).arg(program());
            command
        } else {
            Command::new(program())
        };
        let level = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".into());
        command.args(["run", "-c"]).arg(&self.config).env("RUST_LOG", level);
        let mut child =
            command.stdout(Stdio::piped()).kill_on_drop(true).spawn().context("start the program")?;
        let mut said = BufReader::new(child.stdout.take().context("its output")?).lines();
        let up = said.next_line().await?.unwrap_or_default();
        if !up.contains("is up") {
            bail!("the {} hotspot did not start: {up}", self.site.name);
        }
        let heads = Heads::connect(self.listen, self.site.gateway.to_msb(), clock).await?;
        Ok(Node { place: self.clone(), child, _said: said, heads })
    }
}

/// It runs. Killed when dropped.
pub struct Node {
    pub place: Place,
    child: Child,
    /// Open, so that it may go on writing.
    _said: Lines<BufReader<ChildStdout>>,
    pub heads: Heads,
}

/// What a node has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// Processor time, user and system.
    pub cpu: Duration,
    /// Bytes given to the file system.
    pub written: u64,
    /// Commits that waited for the disk.
    pub commits: u64,
    /// Copies of the log into the database.
    pub checkpoints: u64,
}

impl std::ops::Sub for Used {
    type Output = Used;
    fn sub(self, before: Used) -> Used {
        Used {
            cpu: self.cpu.saturating_sub(before.cpu),
            written: self.written.saturating_sub(before.written),
            commits: self.commits.saturating_sub(before.commits),
            checkpoints: self.checkpoints.saturating_sub(before.checkpoints),
        }
    }
}

impl std::ops::Add for Used {
    type Output = Used;
    fn add(self, other: Used) -> Used {
        Used {
            cpu: self.cpu + other.cpu,
            written: self.written + other.written,
            commits: self.commits + other.commits,
            checkpoints: self.checkpoints + other.checkpoints,
        }
    }
}

impl Node {
    pub fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("it runs")
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.id()?);
        std::fs::read_to_string(&path).with_context(|| format!("read {path}"))
    }

    /// VmRSS, kB.
    pub fn memory(&self) -> anyhow::Result<u64> {
        number_after(&self.proc("status")?, "VmRSS:")
    }

    pub async fn used(&self) -> anyhow::Result<Used> {
        // utime and stime, in hundredths of a second; the name in front of them may hold spaces
        let stat = self.proc("stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 =
            fields.get(11..13).context("times")?.iter().flat_map(|field| field.parse::<u64>()).sum();
        let written = number_after(&self.proc("io")?, "write_bytes:")?;
        let status: serde_json::Value =
            serde_json::from_str(&self.place.types(&["status", "--json"]).await?)?;
        let count =
            |name: &str| status["counters"]["store"][name].as_u64().with_context(|| format!("store {name}"));
        Ok(Used {
            cpu: Duration::from_millis(10 * ticks),
            written,
            commits: count("commits")?,
            checkpoints: count("checkpoints")?,
        })
    }

    /// SIGTERM, and wait.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.id()?.to_string();
        Command::new("kill").args(["-TERM", &id]).status().await?;
        self.child.wait().await?;
        Ok(())
    }
}

fn number_after(text: &str, name: &str) -> anyhow::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_string())?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
