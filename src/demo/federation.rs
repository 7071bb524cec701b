//! A whole federation on loopback addresses: a CA, a signed zone, two hotspots and an air between them.
//!
//! Owns the temporary folder with keys, configurations and databases; it goes when the federation
//! goes. The two hotspots are what `roamgate run` starts, from files that
//! `roamgate run -c` would read; only their radios are simulated.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::task::JoinSet;

use super::zone::{Data, Plan, Zone};
use crate::app::Node;
use crate::backend::message::MacVersion;
use crate::clock::Clock;
use crate::config;
use crate::control::{NewDevice, Operator, Socket, router};
use crate::discovery::name::{Suffix, join_eui_name, net_id_name};
use crate::hns::QueueItem;
use crate::lorawan::{DevEui, GatewayEui, JoinEui, Key, NetId};
use crate::pki::make::{self, Authority, Identity, IntermediateSpec, LeafSpec, NewFile, RootSpec};
use crate::radio::simulated::{Air, Link};
use crate::telemetry::Tap;

use super::device::Device;

/// The zone of the federation.
pub const ZONE: &str = "iotroam.example";
/// The device that is carried around.
pub const DEVICE: DevEui = DevEui::from_msb([0x58, 0x17, 0xb1, 0xc3, 0xeb, 0x89, 0x0b, 0xc4]);

/// One of the two places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Site {
    /// For people and file names.
    pub name: &'static str,
    /// Its network.
    pub net_id: NetId,
    /// The one JoinEUI of its join server.
    pub join_eui: JoinEui,
    /// Where its backend interface listens.
    pub address: Ipv4Addr,
    /// Its radio head.
    pub gateway: GatewayEui,
    /// Degrees latitude and longitude: the two are 34 km apart.
    pub location: (f64, f64),
}

/// Where the device's home is.
pub const HOME: Site = Site {
    name: "home",
    net_id: NetId::from_msb([0, 0, 1]),
    join_eui: JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, 1]),
    address: Ipv4Addr::new(127, 0, 0, 3),
    gateway: GatewayEui::from_msb([0x02, 0, 0, 0xff, 0xfe, 0, 0, 0x01]),
    location: (48.8049, 2.1204),
};

/// Where the device is carried to.
pub const VISITED: Site = Site {
    name: "visited",
    net_id: NetId::from_msb([0, 0, 0]),
    join_eui: JoinEui::from_msb([0, 0, 0, 0, 0, 0, 0, 0]),
    address: Ipv4Addr::new(127, 0, 0, 2),
    gateway: GatewayEui::from_msb([0x02, 0, 0, 0xff, 0xfe, 0, 0, 0x00]),
    location: (48.7094, 2.1620 + 0.4435),
};

/// Where an unplugged join server would be: nobody listens there.
const NOBODY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

/// What may be missing, to see what happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Unplug {
    /// The home's join server.
    HomeJs,
}

/// A running federation.
pub struct Federation {
    /// Everything that is on disk.
    pub folder: Folder,
    /// The one port: backend interfaces and DNS.
    pub port: u16,
    /// What the radios share.
    pub air: Air,
    /// The signed zone.
    pub zone: Zone,
    /// The federation's authority: whoever shall belong to it is signed by it.
    pub root: Authority,
    /// The device's home.
    pub home: Hotspot,
    /// The place it is carried to.
    pub visited: Hotspot,
    /// Its AppKey, for devices that join.
    pub app_key: Key,
    /// What is missing.
    pub unplugged: Option<Unplug>,
    clock: Clock,
}

/// A hotspot: one `app::Node` with a radio head on the simulated air.
pub struct Hotspot {
    /// Which place.
    pub site: Site,
    /// Further radio heads, put up at its next start.
    pub further: Vec<GatewayEui>,
    folder: PathBuf,
    facet: Facet,
    node: Option<Node>,
}

/// Which of its configurations a hotspot runs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Facet {
    /// Everything.
    Whole,
    /// It does not roam.
    Alone,
    /// Without its join server.
    NoJs,
}

impl Facet {
    fn roaming(roaming: bool) -> Facet {
        if roaming { Facet::Whole } else { Facet::Alone }
    }

    fn file(self, site: &Site) -> String {
        let suffix = match self {
            Facet::Whole => "",
            Facet::Alone => "-alone",
            Facet::NoJs => "-without-js",
        };
        format!("{}{suffix}.toml", site.name)
    }
}

/// A temporary folder, private to the user. Removed when dropped.
#[derive(Debug)]
pub struct Folder {
    /// Where.
    pub path: PathBuf,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // nobody is left to tell it to
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Folder {
    fn make(clock: &Clock) -> anyhow::Result<Folder> {
        let path = std::env::temp_dir().join(format!("roamgate-demo-{}", hex::encode(clock.random::<6>())));
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).with_context(|| format!("make the folder {}", path.display()))?;
        Ok(Folder { path })
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        // among them are keys: nobody else reads any of it
        let file = NewFile { name, text, secret: true };
        let written = make::write_files(&self.path, &[file], true)?;
        written.into_iter().next().context("the file was written")
    }
}

impl Federation {
    /// Make keys and certificates, sign the zone, and start both hotspots. The visited one roams
    /// only if `roaming`.
    pub async fn start(clock: &Clock, roaming: bool, unplug: Option<Unplug>) -> anyhow::Result<Federation> {
        let folder = Folder::make(clock)?;
        let (join_euis, net_ids) = suffixes()?;
        let (zone, port) = zone(clock, unplug, &join_euis, &net_ids).await?;
        let anchor = folder.write("trust-anchor.key", &zone.trust_anchor)?;

        let root = Authority::root(&RootSpec::new("IoTRoam demo root"), clock)?;
        let roots = folder.write("root.pem", &root.cert_pem)?;
        for site in [HOME, VISITED] {
            let names = [net_id_name(site.net_id, &net_ids), join_eui_name(site.join_eui, &join_euis)];
            let institution = format!("IoTRoam demo, {} hotspot", site.name);
            let intermediate =
                root.intermediate(&IntermediateSpec::new(institution, names.clone()), clock)?;
            let leaf = LeafSpec::new(site.net_id.to_string().to_ascii_lowercase(), names);
            let Identity { chain_pem, key_pem } = intermediate.issue(&leaf, clock)?;
            folder.write(&format!("{}-chain.pem", site.name), &chain_pem)?;
            folder.write(&format!("{}-key.pem", site.name), &key_pem)?;
            for facet in [Facet::Whole, Facet::Alone, Facet::NoJs] {
                folder
                    .write(&facet.file(&site), &config_text(&folder, &site, port, &roots, &anchor, facet))?;
            }
        }

        let air = Air::new(clock.clone(), u64::from_be_bytes(clock.random()));
        let mut home = Hotspot::new(HOME, &folder);
        home.start(&air, clock, Facet::Whole).await?;
        let app_key = Key::new(clock.random());
        home.add_device(&app_key).await?;
        if unplug == Some(Unplug::HomeJs) {
            home.stop().await?;
            home.start(&air, clock, Facet::NoJs).await?;
        }
        let mut visited = Hotspot::new(VISITED, &folder);
        visited.start(&air, clock, Facet::roaming(roaming)).await?;
        Ok(Federation {
            folder,
            port,
            air,
            zone,
            root,
            home,
            visited,
            app_key,
            unplugged: unplug,
            clock: clock.clone(),
        })
    }

    /// A new device with the identity that the home knows, out of everybody's reach.
    pub fn device(&self) -> Device {
        let seed = u64::from_be_bytes(self.clock.random());
        Device::new(&self.air, self.clock.clone(), DEVICE, HOME.join_eui, &self.app_key, seed)
    }

    /// Turn roaming at the visited hotspot on or off. If that changes anything, the hotspot is stopped
    /// and started again, and has forgotten what it held in memory.
    pub async fn set_roaming(&mut self, roaming: bool) -> anyhow::Result<()> {
        let facet = Facet::roaming(roaming);
        if self.visited.facet == facet {
            return Ok(());
        }
        self.visited.stop().await?;
        self.visited.start(&self.air, &self.clock, facet).await
    }

    /// Open the control sockets, so that the command line reaches both hotspots; closed when dropped.
    pub async fn serve_control(&self, tap: &Tap) -> anyhow::Result<JoinSet<()>> {
        let mut serving = JoinSet::new();
        for hotspot in [&self.home, &self.visited] {
            let socket = Socket::bind(&self.folder.path.join(format!("{}.sock", hotspot.site.name))).await?;
            let router = router(hotspot.node()?.operator(), Some(tap.clone()), self.clock.clone());
            serving.spawn(socket.serve(router, self.clock.clone()));
        }
        Ok(serving)
    }

    /// Stop both hotspots and remove the folder.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.visited.stop().await?;
        self.home.stop().await
    }
}

impl Hotspot {
    fn new(site: Site, folder: &Folder) -> Hotspot {
        Hotspot { site, further: Vec::new(), folder: folder.path.clone(), facet: Facet::Whole, node: None }
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.join(self.facet.file(&self.site))
    }

    /// Stop the hotspot if it runs, and start it as its configuration file says now.
    pub async fn restart(&mut self, air: &Air, clock: &Clock) -> anyhow::Result<()> {
        self.stop().await?;
        self.start(air, clock, self.facet).await
    }

    async fn start(&mut self, air: &Air, clock: &Clock, facet: Facet) -> anyhow::Result<()> {
        self.facet = facet;
        let config = config::load(Some(&self.config()), std::iter::empty())?.checked()?.config;
        let mut radios = vec![air.head_at(self.site.gateway, self.site.name, Some(self.site.location))];
        radios.extend(self.further.iter().map(|gateway| air.head(*gateway, &gateway.to_string())));
        for gateway in self.further.iter().chain([&self.site.gateway]) {
            air.tune(*gateway, &config.network.plan());
        }
        let node = Node::start(config, clock.clone(), radios).await;
        self.node = Some(node.with_context(|| format!("start the {} hotspot", self.site.name))?);
        Ok(())
    }

    /// Stop the hotspot. Its database stays.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        match self.node.take() {
            Some(node) => node.shutdown().await,
            None => Ok(()),
        }
    }

    /// The running node.
    pub fn node(&self) -> anyhow::Result<&Node> {
        self.node.as_ref().with_context(|| format!("the {} hotspot is not running", self.site.name))
    }

    async fn add_device(&self, app_key: &Key) -> anyhow::Result<()> {
        let device = NewDevice {
            dev_eui: DEVICE,
            join_eui: HOME.join_eui,
            app_key: Some(app_key.clone()),
            nwk_key: None,
            name: "walking device".into(),
            // what the stack of the device is: DevNonces at random
            mac_version: MacVersion::V1_0_3,
            roaming: true,
            home: None,
        };
        self.node()?.operator().add_device(device).await?;
        Ok(())
    }

    /// Put a downlink into the device's queue.
    pub async fn enqueue(&self, id: String, f_port: u8, payload: &[u8]) -> anyhow::Result<()> {
        let item = QueueItem {
            id,
            f_port,
            payload: payload.to_vec(),
            confirmed: false,
            sent_as: None,
            attempts: 0,
            expires: None,
        };
        self.node()?.operator().enqueue(DEVICE, item).await?;
        Ok(())
    }

    /// Where a device stands that only this hotspot hears.
    pub fn reach(&self) -> [(GatewayEui, Link); 1] {
        [(self.site.gateway, Link::NEAR)]
    }
}

/// The zone's subtrees for JoinEUIs and for NetIDs.
pub fn suffixes() -> anyhow::Result<(Suffix, Suffix)> {
    Ok((format!("joineuis.{ZONE}").parse()?, format!("netids.{ZONE}").parse()?))
}

/// The zone, and a port that is free at every address of the federation: the zone's own.
async fn zone(
    clock: &Clock,
    unplug: Option<Unplug>,
    join_euis: &Suffix,
    net_ids: &Suffix,
) -> anyhow::Result<(Zone, u16)> {
    let mut records = Vec::new();
    for site in [HOME, VISITED] {
        let js = match unplug {
            Some(Unplug::HomeJs) if site == HOME => NOBODY,
            _ => site.address,
        };
        records.push((net_id_name(site.net_id, net_ids), Data::Address(IpAddr::V4(site.address))));
        records.push((join_eui_name(site.join_eui, join_euis), Data::Address(IpAddr::V4(js))));
    }
    let mut taken = None;
    for _ in 0..20 {
        let zone = Zone::start(Plan::new(ZONE, records.clone()), clock).await.context("start the zone")?;
        let port = zone.addr.port();
        let free = [HOME.address, VISITED.address, NOBODY]
            .iter()
            .try_for_each(|address| std::net::TcpListener::bind((*address, port)).map(drop));
        match free {
            Ok(()) => return Ok((zone, port)),
            Err(error) => taken = Some(error),
        }
    }
    let why = taken.map_or_else(String::new, |error| error.to_string());
    anyhow::bail!("no port is free at 127.0.0.1 to 127.0.0.4 together: {why}")
}

/// A hotspot's configuration as a person would write it.
fn config_text(folder: &Folder, site: &Site, port: u16, roots: &Path, anchor: &Path, facet: Facet) -> String {
    let (roams, js) = (facet != Facet::Alone, facet != Facet::NoJs);
    let Site { name, net_id, join_eui, address, .. } = site;
    let at = |file: String| format!("{:?}", folder.path.join(file).display().to_string());
    let roles = if js { r#""fns", "sns", "hns", "js", "as""# } else { r#""fns", "sns", "hns", "as""# };
    let roaming =
        if roams { "[roaming.default]\npassive = { start = true, activation = true }\n" } else { "" };
    let join_server =
        if js { format!("[join_server]\njoin_euis = [\"{join_eui}\"]\n") } else { String::new() };
    format!(
        r#"# The {name} hotspot of `roamgate demo`. Its radio is simulated, so none is listed.
radio = []

[network]
net_ids = ["{net_id}"]
region = "EU868"
roles = [{roles}]
experimental = true        # NetIDs 000000 and 000001 belong to nobody

[store]
url = {url}

[backend]
listen = "{address}:{port}"
identity = {{ chain = {chain}, key = {key} }}
roots = [{roots:?}]

[discovery]
join_eui_suffix = "joineuis.{ZONE}"
net_id_suffix = "netids.{ZONE}"
port = {port}
resolvers = ["127.0.0.1:{port}"]
dnssec = "require"
trust_anchor = {anchor:?}

{roaming}
{join_server}
[control]
socket = {socket}
"#,
        url = format_args!("{:?}", format!("sqlite:{}", folder.path.join(format!("{name}.db")).display())),
        chain = at(format!("{name}-chain.pem")),
        key = at(format!("{name}-key.pem")),
        socket = at(format!("{name}.sock")),
        roots = roots.display().to_string(),
        anchor = anchor.display().to_string(),
    )
}
