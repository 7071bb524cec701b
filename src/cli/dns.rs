//! `roamgate dns`: from an identifier to its name, and from there to addresses.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::device::{view, yes};
use super::dns_zone::{self, ZoneArgs};
use super::{ConfigArg, Fail, client, show, show_json, table};
use crate::backend::door::Deadline;
use crate::clock::Clock;
use crate::control::{Client, Forgotten, Method};
use crate::discovery::cache::Line;
use crate::discovery::name::Foreign;
use crate::discovery::{self, Dnssec, Resolution, Resolver, Server, Suffix, name};
use crate::lorawan::{DevEui, JoinEui, NetId};

/// Identifier to name, name to addresses.
#[derive(Debug, Subcommand)]
pub(super) enum DnsCommand {
    /// Print the name of a join server, a device's join server or a network; or of a thing that is no LoRaWAN device.
    #[command(group(clap::ArgGroup::new("whose").required(true).args(["join_eui", "net_id", "epc", "udid"])))]
    Name {
        /// Whose.
        #[command(flatten)]
        who: Who,
        /// A thing with an EPC of GS1, as a URN; its name is that of the Object Name Service, below onsepc.com unless --suffix says otherwise.
        #[arg(long, value_name = "URN", value_parser = Foreign::epc)]
        epc: Option<Foreign>,
        /// A thing with an identifier of hexadecimal digits; behind them stands --suffix.
        #[arg(long, value_name = "DIGITS", value_parser = Foreign::udid, requires = "suffix")]
        udid: Option<Foreign>,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Look up a server's addresses and what DNSSEC says of them. Fails where they may not be used.
    Resolve(Resolve),
    /// Print the records that partners need to find this node, as lines of a zone file
    Zone(ZoneArgs),
    /// Compare them with what the DNS says. Fails where something is missing or differs
    Check(ZoneArgs),
    /// What the running hotspot knows of names, or what it has kept; forget it, to have it asked anew.
    Cache(CacheArgs),
}

/// Where GS1's names are.
const ONS: &str = "onsepc.com";

/// `roamgate dns cache`
#[derive(Debug, Args)]
pub(super) struct CacheArgs {
    /// Forget one name, or all.
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    flush: Option<Option<String>>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

fn list(lines: &[Line]) -> String {
    if lines.is_empty() {
        return "nothing is known of any name\n".into();
    }
    let mut rows = vec![["NAME", "LEFT", "USED", "ANSWER"].map(String::from).to_vec()];
    for line in lines {
        let left = match line.left {
            0 => "stale".to_owned(),
            left => format!("{left} s"),
        };
        rows.push(vec![line.name.clone(), left, yes(line.used), known(line)]);
    }
    table(&rows)
}

/// What is known of a name, in a line.
pub(super) fn known(line: &Line) -> String {
    let mut text = line.security.map_or_else(|| "no answer".to_owned(), |security| security.to_string());
    for way in &line.ways {
        let addresses: Vec<String> = way.addresses.iter().map(ToString::to_string).collect();
        text += &format!(", {} port {}", addresses.join(" "), way.port);
    }
    if let Some(trouble) = &line.trouble {
        text += &format!(": {trouble}");
    }
    text
}

/// An identifier.
#[derive(Debug, Args)]
pub(super) struct Who {
    /// A join server: 16 hexadecimal digits.
    #[arg(long, value_name = "EUI", conflicts_with = "net_id")]
    join_eui: Option<JoinEui>,
    /// One device of it, which may have a name of its own.
    #[arg(long, value_name = "EUI", requires = "join_eui")]
    dev_eui: Option<DevEui>,
    /// A network: 6 hexadecimal digits.
    #[arg(long, value_name = "NETID")]
    net_id: Option<NetId>,
    /// What stands behind the digits, instead of the configuration's.
    #[arg(long)]
    suffix: Option<Suffix>,
}

/// `roamgate dns resolve`
#[derive(Debug, Args)]
pub(super) struct Resolve {
    /// Whose addresses.
    #[command(flatten)]
    who: Who,
    /// Any name.
    #[arg(conflicts_with_all = ["join_eui", "net_id"], required_unless_present_any = ["join_eui", "net_id"])]
    name: Option<String>,
    #[command(flatten)]
    config: ConfigArg,
    /// Whom to ask: "system", an IP address, or IP:port.
    #[arg(long, value_name = "IP[:PORT]")]
    resolver: Vec<Server>,
    /// DNSKEY records to start from, beside the root's.
    #[arg(long, value_name = "FILE")]
    trust_anchor: Option<PathBuf>,
    /// What an answer has to be: require, prefer or off.
    #[arg(long, value_name = "POLICY")]
    dnssec: Option<Dnssec>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `resolve --json` prints.
#[derive(Serialize)]
struct Report {
    /// A server was found that may be used.
    ok: bool,
    /// The name that counts.
    host: Option<String>,
    /// Why none does.
    error: Option<String>,
    /// Every name asked.
    names: Vec<Resolution>,
}

pub(super) async fn run(command: DnsCommand, clock: Clock) -> Result<ExitCode, Fail> {
    match command {
        DnsCommand::Name { who, epc, udid, config } => {
            let thing = epc.or(udid);
            let name = match thing {
                Some(thing) => {
                    Some(thing.name(&who.suffix.clone().map_or_else(|| ONS.parse(), Ok).context(ONS)?))
                }
                None => who.names(&who.suffixes(discovery(&config)?)).into_iter().next(),
            };
            show(&(name.context("name --join-eui or --net-id")? + "\n"));
            Ok(ExitCode::SUCCESS)
        }
        DnsCommand::Resolve(args) => {
            let (json, config) = (args.json, discovery(&args.config)?);
            let report = resolve(args, config, clock).await?;
            match json {
                // a report has no way to fail
                true => show_json(&serde_json::to_value(&report).unwrap_or_default()),
                false => show(&report.text()),
            }
            Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        DnsCommand::Zone(args) => dns_zone::zone(&args),
        DnsCommand::Check(args) => dns_zone::check(&args, clock).await,
        DnsCommand::Cache(args) => {
            let (client, store) = client(&args.config, false, &clock).await?;
            let done = cache(&args, &client).await;
            if let Some(store) = store {
                store.close().await.map_err(anyhow::Error::new)?;
            }
            done.map(|()| ExitCode::SUCCESS)
        }
    }
}

fn discovery(config: &ConfigArg) -> Result<discovery::Config, Fail> {
    Ok(config.load()?.config.discovery.unwrap_or_default())
}

/// Through the hotspot's control socket, or the router that stands for it.
async fn cache(args: &CacheArgs, client: &Client) -> Result<(), Fail> {
    let Some(name) = &args.flush else {
        let value = client.call::<()>(Method::GET, "/v1/names", None).await?;
        let lines: Vec<Line> = view(value.clone())?;
        if args.json {
            show_json(&value)
        } else {
            show(&list(&lines))
        }
        return Ok(());
    };
    let fits = |name: &String| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let path = match name {
        Some(name) if fits(name) => format!("/v1/names/{name}"),
        Some(name) => {
            let remedy = "`roamgate dns cache` shows those that are known";
            return Err(Fail::new(format!("{name:?} is no name of the DNS"), remedy));
        }
        None => "/v1/names".to_owned(),
    };
    let value = client.call::<()>(Method::DELETE, &path, None).await?;
    let Forgotten { forgotten } = view(value.clone())?;
    if args.json {
        show_json(&value)
    } else {
        show(&format!("{forgotten} forgotten\n"))
    }
    Ok(())
}

async fn resolve(args: Resolve, config: discovery::Config, clock: Clock) -> anyhow::Result<Report> {
    let mut config = args.who.suffixes(config);
    if !args.resolver.is_empty() {
        config.resolvers = args.resolver;
    }
    config.trust_anchor = args.trust_anchor.or(config.trust_anchor);
    config.dnssec = args.dnssec.unwrap_or(config.dnssec);
    let asked = args.name.map_or_else(|| args.who.names(&config), |name| vec![name]);
    let resolver = Resolver::new(config, clock.clone())?;
    let names = futures_util::future::join_all(asked.iter().map(|name| resolver.name(name))).await;
    let (host, error) = match (args.who.join_eui, names.as_slice()) {
        // which of the two names counts is the resolver's to say; both are in its cache by now
        (Some(join_eui), [_, _]) => {
            let by = Deadline(clock.now() + Duration::from_secs(1));
            match resolver.join_server(join_eui, args.who.dev_eui, by).await {
                Ok(endpoint) => (Some(endpoint.host), None),
                Err(err) => (None, Some(err.to_string())),
            }
        }
        (_, names) => match names.first() {
            Some(Resolution { error: Some(error), .. }) => (None, Some(error.clone())),
            Some(found) => (Some(found.name.clone()), None),
            None => (None, None),
        },
    };
    Ok(Report { ok: host.is_some(), host, error, names })
}

impl Who {
    fn suffixes(&self, mut config: discovery::Config) -> discovery::Config {
        if let Some(suffix) = &self.suffix {
            config.join_eui_suffix = suffix.clone();
            config.net_id_suffix = suffix.clone();
        }
        config
    }

    /// The most special name first.
    fn names(&self, config: &discovery::Config) -> Vec<String> {
        let (join, net) = (&config.join_eui_suffix, &config.net_id_suffix);
        let device = self.join_eui.zip(self.dev_eui).map(|(eui, dev)| name::dev_eui_name(dev, eui, join));
        let server = self.join_eui.map(|eui| name::join_eui_name(eui, join));
        let network = self.net_id.map(|net_id| name::net_id_name(net_id, net));
        device.into_iter().chain(server).chain(network).collect()
    }
}

impl Report {
    fn text(&self) -> String {
        let mut lines = Vec::new();
        for found in &self.names {
            lines.push(found.name.clone());
            let mut line = |what: &str, value: String| lines.push(format!("  {what:<10} {value}"));
            for way in &found.ways {
                let addresses: Vec<String> = way.addresses.iter().map(ToString::to_string).collect();
                let path = if way.path == "/" { String::new() } else { format!(", path {}", way.path) };
                line("addresses", format!("{}, port {}{path}", addresses.join(", "), way.port));
                if !way.by.is_empty() {
                    line("by way of", way.by.join(" -> "));
                }
                if found.dnssec != Some(way.security) {
                    line("", format!("DNSSEC {}", way.security));
                }
            }
            line("DNSSEC", found.dnssec.map_or_else(|| "no answer".to_owned(), |dnssec| dnssec.to_string()));
            line("TTL", format!("{} s", found.ttl));
            line("time", format!("{:.1} ms", found.took_ms));
            if let Some(error) = &found.error {
                line("unusable", error.clone());
            }
        }
        if self.names.len() > 1 {
            match &self.host {
                Some(host) => lines.push(format!("counts: {host}")),
                None => lines.push("counts: none".to_owned()),
            }
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::zone::{Data, Plan, Zone};
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        cmd: DnsCommand,
    }

    async fn dns(line: &str) -> (String, bool) {
        let cli = Cli::try_parse_from(std::iter::once("dns").chain(line.split_whitespace())).unwrap();
        let config = discovery::Config::default();
        match cli.cmd {
            DnsCommand::Name { who, .. } => (who.names(&who.suffixes(config)).swap_remove(0), true),
            DnsCommand::Resolve(args) => {
                let json = args.json;
                let report = resolve(args, config, Clock::system()).await.unwrap();
                let text = if json { serde_json::to_string(&report).unwrap() } else { report.text() };
                (text, report.ok)
            }
            _ => unreachable!(),
        }
    }
    fn refused(line: &str) -> bool {
        Cli::try_parse_from(std::iter::once("dns").chain(line.split_whitespace())).is_err()
    }

    #[tokio::test]
    async fn a_name_stands_alone_on_its_line() {
        let cases = [
            ("name --join-eui 00005E100000002F", "f.2.0.0.0.0.0.0.0.1.e.5.0.0.0.0.joineuis.lorawan.net"),
            ("name --net-id 00050A", "00050a.netids.lorawan.net"),
            ("name --net-id 00050A --suffix .Netids.example.", "00050a.netids.example"),
            (
                "name --join-eui 00005E100000002F --dev-eui ACDE480001020234",
                "4.3.2.0.2.0.1.0.0.0.8.4.e.d.c.a.f.2.0.0.0.0.0.0.0.1.e.5.0.0.0.0.joineuis.lorawan.net",
            ),
        ];
        for (line, name) in cases {
            assert_eq!(dns(line).await, (name.to_owned(), true));
        }
    }

    #[test]
    fn half_an_identifier_is_wrong_use() {
        for line in [
            "name --dev-eui ACDE480001020234",
            "name --net-id 00050A --join-eui 00005E100000002F",
            "name --net-id 50A",
            "name",
            "resolve",
            "resolve js.example --net-id 00050A",
            "resolve --net-id 00050A --dnssec maybe",
        ] {
            assert!(refused(line), "{line}");
        }
    }

    #[tokio::test]
    async fn a_lookup_shows_addresses_and_what_dnssec_says() {
        let at = |name: &str, ip: &str| (name.to_owned(), Data::Address(ip.parse().unwrap()));
        let server = "f.2.0.0.0.0.0.0.0.1.e.5.0.0.0.0.joineuis.iotroam.example";
        let records = vec![
            at("000001.netids.iotroam.example", "2001:db8::1"),
            at("js.iotroam.example", "192.0.2.1"),
            (server.to_owned(), Data::Cname("js.iotroam.example".to_owned())),
        ];
        let zone = Zone::start(Plan::new("iotroam.example", records), &Clock::system()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let anchor = folder.path().join("anchor");
        std::fs::write(&anchor, &zone.trust_anchor).unwrap();
        let how = format!("--resolver {} --trust-anchor {}", zone.addr, anchor.display());

        let (text, ok) = dns(&format!("resolve --net-id 000001 --suffix netids.iotroam.example {how}")).await;
        assert!(
            ok && text.contains("2001:db8::1") && text.contains("secure") && text.contains("60 s"),
            "{text}"
        );

        let who = "--join-eui 00005E100000002F --dev-eui ACDE480001020234 --suffix joineuis.iotroam.example";
        let (text, ok) = dns(&format!("resolve {who} {how} --json")).await;
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(ok && json["host"] == server, "{text}");
        assert_eq!(json["names"][1]["ways"][0]["by"][0], "js.iotroam.example");
        assert_eq!(json["names"][1]["dnssec"], "secure");

        let (text, ok) = dns(&format!("resolve nobody.iotroam.example. {how}")).await;
        assert!(!ok && text.contains("proven by DNSSEC"), "{text}");
    }
}
