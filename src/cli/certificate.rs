//! `roamgate pki request|sign|install|rollback|revoke`: the life of a node's certificate.
//!
//! The key is made on the node and stays there; a request goes out, a chain comes in, is checked and taken into use in one
//! step, by a running daemon too.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::pki::{authority, known_as, valid};
use super::{ConfigArg, Fail};
use crate::backend;
use crate::clock::Clock;
use crate::config::{Config, Role};
use crate::control::{Client, Method};
use crate::discovery::name::{join_eui_name, net_id_name};
use crate::pki::check;
use crate::pki::folder::Folder;
use crate::pki::make::{self, LEAF_DAYS, LeafSpec, NewFile};
use crate::pki::request::Request;
use crate::pki::revoke::List;
use crate::tls;

/// The list of what an authority has revoked, in its folder.
const LIST: &str = "crl.pem";

/// Which node's certificate.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The folder, if not that of [backend] identity = { folder = ... }
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Arguments of `pki request`.
#[derive(Debug, Args)]
pub struct RequestArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// A further host name; may be repeated
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Make another key and request even if one waits for its certificate
    #[arg(long)]
    fresh: bool,
}

/// Arguments of `pki sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The request (PKCS#10, PEM)
    #[arg(value_name = "FILE")]
    request: PathBuf,
    /// Folder with intermediate.pem and intermediate-key.pem
    #[arg(long, value_name = "DIR")]
    intermediate: PathBuf,
    /// Common name, if not the first label of the first name
    #[arg(long)]
    name: Option<String>,
    /// Life in days
    #[arg(long, default_value_t = LEAF_DAYS)]
    days: u32,
    /// Folder for chain.pem
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// Arguments of `pki install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// The certificate and its intermediate (PEM), as they came back
    #[arg(value_name = "FILE")]
    chain: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
    /// The federation's root, if not those of [backend] roots
    #[arg(long, value_name = "FILE")]
    root: Vec<PathBuf>,
}

/// Arguments of `pki revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Serial numbers, as `pki inspect` prints them; none: renew the list
    #[arg(value_name = "SERIAL")]
    serials: Vec<String>,
    /// Folder of the intermediate that signed them (or, with --root, of the root)
    #[arg(long, value_name = "DIR", required_unless_present = "root", conflicts_with = "root")]
    intermediate: Option<PathBuf>,
    /// Folder of the root that signed them
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

impl NodeArgs {
    fn folder(&self, config: &Config) -> Result<Folder, Fail> {
        if let Some(folder) = &self.folder {
            return Ok(Folder::new(folder));
        }
        match config.backend.as_ref().map(|backend| &backend.identity) {
            Some(backend::Identity::Folder(folder)) => Ok(Folder::new(folder)),
            Some(backend::Identity::Files { .. }) => Err(Fail::new(
                "[backend] identity names two files, which somebody else keeps",
                "write identity = { folder = \"/var/lib/roamgate/pki\" }, or name a folder with --folder",
            )),
            None => Err(Fail::new(
                "the configuration has no [backend], so this node shows no certificate",
                "name a folder with --folder, and the configuration with -c",
            )),
        }
    }

    /// Tell a running daemon; what it says.
    async fn tell(&self, config: &Config) -> Result<Option<String>, Fail> {
        let Some(client) = Client::daemon(&config.control_socket()).await? else { return Ok(None) };
        let told = client.call::<()>(Method::POST, "/v1/reload", None).await?;
        Ok(Some(told["certificate"].as_str().unwrap_or_default().to_owned()))
    }
}

fn wrong(error: impl std::error::Error, remedy: &str) -> Fail {
    Fail::new(error.to_string(), remedy)
}

/// The names that the configuration wants in a certificate.
fn names(config: &Config, hosts: &[String]) -> (String, Vec<String>) {
    let discovery = config.discovery.clone().unwrap_or_default();
    let net_ids = config.network.net_ids.all();
    let mut names: Vec<String> =
        net_ids.iter().map(|net_id| net_id_name(*net_id, &discovery.net_id_suffix)).collect();
    if config.network.roles.has(Role::Js) {
        let single = config.join_server.join_euis.iter().filter(|range| range.bits() == 64);
        names.extend(single.map(|range| join_eui_name(range.prefix(), &discovery.join_eui_suffix)));
    }
    names.extend(hosts.iter().map(|host| host.trim_end_matches('.').to_ascii_lowercase()));
    names.dedup();
    (hex::encode(config.network.net_ids.first().to_msb()), names)
}

pub(super) fn request(args: &RequestArgs) -> Result<String, Fail> {
    let config = args.node.config.load()?.config;
    let folder = args.node.folder(&config)?;
    let (common_name, names) = names(&config, &args.host);
    let made = folder.request(&common_name, &names, args.fresh);
    let made = made.map_err(|error| wrong(error, "correct the name, or make room in the folder"))?;
    let mut text = match made.new {
        true => format!("request of {common_name}; its key was made just now and stays here\n"),
        false => format!("request of {common_name}; it waits for its certificate\n"),
    };
    for (place, name) in made.names.iter().enumerate() {
        let _ = writeln!(text, "  {:7} {name}", if place == 0 { "names" } else { "" });
    }
    let blocks = config.join_server.join_euis.iter().filter(|range| range.bits() < 64);
    for block in blocks.filter(|_| args.host.is_empty()) {
        let _ =
            writeln!(text, "  note    JoinEUIs {block} are found at a host of yours: name it with --host");
    }
    let _ = writeln!(text, "  send    {} to whoever signs (`roamgate pki sign`)", made.path.display());
    let _ = writeln!(text, "  next    roamgate pki install CHAIN.pem");
    Ok(text)
}

pub(super) fn sign(args: &SignArgs, clock: &Clock) -> anyhow::Result<String> {
    use anyhow::Context;
    let member = authority(&args.intermediate, "intermediate")?;
    let pem = std::fs::read_to_string(&args.request).with_context(|| args.request.display().to_string())?;
    let request = Request::read(&pem).with_context(|| args.request.display().to_string())?;
    let first = request.names.first().and_then(|name| name.split('.').next()).unwrap_or_default();
    let name = args.name.clone().unwrap_or_else(|| first.to_owned());
    let spec = LeafSpec { days: args.days, ..LeafSpec::new(name, &request.names) };
    let chain = member.issue_for(&request, &spec, clock)?;
    let file = [NewFile { name: "chain.pem", text: &chain, secret: false }];
    let paths = make::write_files(&args.out, &file, args.force)?;
    let leaf = check::facts(&CertificateDer::from_pem_slice(chain.as_bytes())?)?;
    let mut text = format!("certificate of {}, serial {}\n", spec.common_name, leaf.serial);
    known_as(&mut text, "  names   ", &leaf);
    valid(&mut text, &leaf);
    for path in paths {
        let _ = writeln!(text, "  wrote   {}: send it back", path.display());
    }
    Ok(text)
}

pub(super) async fn install(args: &InstallArgs, clock: &Clock) -> Result<String, Fail> {
    let config = args.node.config.load()?.config;
    let folder = args.node.folder(&config)?;
    let named = config.backend.as_ref().map(|backend| backend.roots.clone()).unwrap_or_default();
    let mut roots = Vec::new();
    for path in if args.root.is_empty() { &named } else { &args.root } {
        roots.extend(tls::certificates(&read(path)?, path).map_err(anyhow::Error::new)?);
    }
    if roots.is_empty() {
        return Err(Fail::new(
            "there is no root to check the certificate against",
            "list the federation's root in [backend] roots, or name it with --root",
        ));
    }
    let chain = String::from_utf8_lossy(&read(&args.chain)?).into_owned();
    let before = folder.leaf().ok().flatten();
    let report = folder
        .install(&chain, &roots, clock)
        .map_err(|error| wrong(error, "nothing was changed; `roamgate pki inspect` says more"))?;
    let mut text = String::new();
    if let Some(leaf) = report.certificates.first() {
        let _ = writeln!(text, "in use: serial {}", leaf.serial);
        known_as(&mut text, "  names   ", leaf);
        valid(&mut text, leaf);
    }
    for hint in &report.findings {
        let _ = writeln!(text, "  hint    {} ({})", hint.what, hint.remedy);
    }
    match args.node.tell(&config).await {
        Ok(Some(shown)) => _ = writeln!(text, "  daemon  shows it to new connections: {shown}"),
        Ok(None) => text.push_str("  daemon  none runs; the next one shows it\n"),
        Err(refused) => {
            // whoever has nothing to go back to keeps what he has
            let back = before.is_some() && folder.roll_back().is_ok();
            let what =
                if back { "the certificate before it is in use again" } else { "correct it and restart" };
            let error = refused.errors.first().map(|trouble| trouble.error.clone()).unwrap_or_default();
            return Err(Fail::new(format!("the daemon does not take it: {error}"), what));
        }
    }
    Ok(text)
}

pub(super) async fn roll_back(args: &NodeArgs) -> Result<String, Fail> {
    let config = args.config.load()?.config;
    let leaf = args
        .folder(&config)?
        .roll_back()
        .map_err(|error| wrong(error, "the folder is as it was; `pki install` takes another certificate"))?;
    let mut text = format!("in use again: serial {}\n", leaf.serial);
    known_as(&mut text, "  names   ", &leaf);
    valid(&mut text, &leaf);
    match args.tell(&config).await? {
        Some(shown) => _ = writeln!(text, "  daemon  shows it to new connections: {shown}"),
        None => text.push_str("  daemon  none runs; the next one shows it\n"),
    }
    Ok(text)
}

pub(super) fn revoke(args: &RevokeArgs, clock: &Clock) -> anyhow::Result<String> {
    use anyhow::Context;
    let (folder, name) = match (&args.root, &args.intermediate) {
        (Some(folder), _) => (folder, "root"),
        (None, Some(folder)) => (folder, "intermediate"),
        (None, None) => anyhow::bail!("name the folder of the authority"),
    };
    let authority = authority(folder, name)?;
    let path = folder.join(LIST);
    let before = match std::fs::read(&path) {
        Ok(bytes) => Some(List::read(&bytes).with_context(|| path.display().to_string())?),
        Err(_) => None,
    };
    let pem = authority.revoke(before.as_ref(), &args.serials, clock)?;
    make::write_files(folder, &[NewFile { name: LIST, text: &pem, secret: false }], true)?;
    let list = List::read(pem.as_bytes())?;
    let mut text = format!("list {} of {}\n", list.number.unwrap_or_default(), list.issuer);
    for serial in &list.serials {
        let _ = writeln!(text, "  revoked {serial}");
    }
    let next = list.next.map(|next| next.strftime("%Y-%m-%d").to_string()).unwrap_or_default();
    let _ = writeln!(text, "  wrote   {}", path.display());
    let _ = writeln!(
        text,
        "  next    publish it where members' [backend] crls point; renew it (`pki revoke` without a number) before {next}"
    );
    Ok(text)
}

fn read(path: &Path) -> Result<Vec<u8>, Fail> {
    std::fs::read(path)
        .map_err(|error| Fail::new(format!("{}: {error}", path.display()), "name a file that can be read"))
}
