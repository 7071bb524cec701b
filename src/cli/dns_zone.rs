//! `roamgate dns zone|check`: what a node needs in the DNS, and whether it is there.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use clap::Args;
use futures_util::future::join_all;
use hickory_proto::rr::RecordType;
use serde::Serialize;

use super::{ConfigArg, Fail, show, show_json};
use crate::clock::Clock;
use crate::config::{Config, Role};
use crate::discovery::publish::{self, Node, Set, USUAL_PORT};
use crate::discovery::resolve::Trouble;
use crate::discovery::{Dnssec, Resolver, Security};
use crate::pki::check;
use crate::tls;

/// What the configuration does not know of a node.
#[derive(Debug, Args)]
pub(super) struct ZoneArgs {
    /// An address at which partners reach this node; may be repeated
    #[arg(long, value_name = "IP")]
    address: Vec<IpAddr>,
    /// A name of its own, to which blocks of JoinEUIs lead
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// The port at which partners reach it [default: that of `[backend] listen`, or 443]
    #[arg(long)]
    port: Option<u16>,
    /// Of every record, in seconds
    #[arg(long, default_value_t = 60)]
    ttl: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// What is to be published.
pub(super) fn zone(args: &ZoneArgs) -> Result<ExitCode, Fail> {
    let config = args.config.load()?.config;
    if args.address.is_empty() {
        let remedy = "name the addresses at which partners reach it with --address, those of the front if there is one";
        return Err(Fail::new("nobody can say from here where this node is", remedy));
    }
    let sets = wanted(&config, args, args.address.clone())?;
    if args.json {
        let line = |set: &Set| {
            let data: Vec<String> = set.data.iter().map(ToString::to_string).collect();
            serde_json::json!({ "name": set.name, "type": set.kind.to_string(), "ttl": set.ttl, "data": data })
        };
        show_json(&sets.iter().map(line).collect());
    } else {
        let lines: Vec<String> = sets.iter().flat_map(Set::lines).collect();
        show(&(lines.join("\n") + "\n"));
    }
    Ok(ExitCode::SUCCESS)
}

fn wanted(config: &Config, args: &ZoneArgs, addresses: Vec<IpAddr>) -> Result<Vec<Set>, Fail> {
    let discovery = config.discovery.clone().unwrap_or_default();
    let Some(backend) = &config.backend else {
        let remedy = "add a section [backend] with the node's certificate: docs/discovery.md";
        return Err(Fail::new(
            "this node has no [backend], so there is nothing that others could find",
            remedy,
        ));
    };
    let chain = &backend.identity.chain();
    let pem = fs::read(chain).map_err(|error| anyhow::anyhow!("read {}: {error}", chain.display()))?;
    let certificates = tls::certificates(&pem, chain).map_err(anyhow::Error::new)?;
    let leaf = certificates.first().map(|leaf| check::facts(leaf)).transpose().map_err(anyhow::Error::new)?;
    let own_port =
        backend.listen.map(|listen| listen.port()).filter(|_| backend.reachability.fronts().is_empty());
    let is_js = config.network.roles.has(Role::Js);
    let node = Node {
        net_ids: config.network.net_ids.all().to_vec(),
        join_euis: if is_js { config.join_server.join_euis.clone() } else { Vec::new() },
        net_id_suffix: discovery.net_id_suffix,
        join_eui_suffix: discovery.join_eui_suffix,
        host: args.host.as_ref().map(|host| host.trim_end_matches('.').to_ascii_lowercase()),
        addresses,
        port: args.port.or(own_port).unwrap_or(USUAL_PORT),
        keys: leaf.iter().map(|leaf| leaf.pin.0).collect(),
        ttl: args.ttl,
    };
    publish::wanted(&node).map_err(|error| Fail::new(error.to_string(), "correct --host"))
}

/// How a set of records stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Good,
    Missing,
    Differs,
    Unsigned,
    Bogus,
    Unanswered,
}

/// What is published, beside what should be.
#[derive(Debug, Serialize)]
struct Finding {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    state: State,
    /// What should be there; empty: anything will do.
    wanted: Vec<String>,
    found: Vec<String>,
    dnssec: Option<Security>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// Compare; exit code 1 where something is not as it should be.
pub(super) async fn check(args: &ZoneArgs, clock: Clock) -> Result<ExitCode, Fail> {
    let findings = compare(args, clock).await?;
    let wrong = findings.iter().filter(|finding| finding.state != State::Good).count();
    if args.json {
        // a finding has no way to fail
        show_json(&serde_json::to_value(&findings).unwrap_or_default());
    } else {
        show(&text(&findings, wrong));
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn compare(args: &ZoneArgs, clock: Clock) -> Result<Vec<Finding>, Fail> {
    let config = args.config.load()?.config;
    let any = args.address.is_empty();
    let nowhere = vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
    let addresses = if any { nowhere } else { args.address.clone() };
    let sets = wanted(&config, args, addresses)?;
    let discovery = config.discovery.unwrap_or_default();
    let required = discovery.dnssec == Dnssec::Require;
    let resolver = Resolver::new(discovery, clock).map_err(anyhow::Error::new)?;
    let mut findings = join_all(sets.iter().map(|set| find(&resolver, set, any, required))).await;
    for (finding, set) in findings.iter_mut().zip(&sets) {
        if finding.state == State::Missing
            && let Some(other) = other_spelling(&set.ask)
            && resolver.records(&other, set.kind).await.is_ok()
        {
            finding.remedy = Some(format!(
                "it stands at {other}: the suffix is spelled in two ways; ask the federation which is right, and correct the zone or [discovery]"
            ));
        }
    }
    if any {
        one_family_will_do(&mut findings);
    }
    Ok(findings)
}

async fn find(resolver: &Resolver, set: &Set, any: bool, required: bool) -> Finding {
    let is_address = matches!(set.kind, RecordType::A | RecordType::AAAA);
    let mut wanted: Vec<String> = set.data.iter().map(|data| data.to_string().to_ascii_lowercase()).collect();
    wanted.sort();
    if any && is_address {
        wanted.clear();
    }
    let (mut found, mut dnssec, mut remedy) = (Vec::new(), None, None);
    let print = || Some("publish it: `roamgate dns zone` prints the line".to_owned());
    let state = match resolver.records(&set.ask, set.kind).await {
        Ok((data, security)) => {
            found.extend(data.iter().map(|data| data.to_string().to_ascii_lowercase()));
            found.sort();
            dnssec = Some(security);
            if !wanted.is_empty() && found != wanted {
                remedy = Some(
                    match set.kind {
                        RecordType::TLSA => {
                            "the certificate's key is another one: correct the zone, or the certificate"
                        }
                        _ => "correct the zone: `roamgate dns zone` prints the lines",
                    }
                    .to_owned(),
                );
                State::Differs
            } else if required && security == Security::Insecure {
                remedy = Some(
                    "its zone is not signed: partners that require DNSSEC will not come; ask its owner"
                        .into(),
                );
                State::Unsigned
            } else {
                State::Good
            }
        }
        Err(Trouble::Missing(worth)) => {
            (dnssec, remedy) = (Some(worth.security), print());
            State::Missing
        }
        Err(Trouble::Useless(_, why)) => {
            remedy = Some(why);
            State::Differs
        }
        Err(Trouble::Bogus(why)) => {
            (dnssec, remedy) = (Some(Security::Bogus), Some(why));
            State::Bogus
        }
        Err(Trouble::Failed(why)) => {
            remedy = Some(why);
            State::Unanswered
        }
        Err(Trouble::Timeout) => {
            remedy = Some("the resolver does not answer: look at [discovery] resolvers".into());
            State::Unanswered
        }
    };
    Finding { name: set.name.clone(), kind: set.kind.to_string(), state, wanted, found, dnssec, remedy }
}

/// Where no address was named, either family will do.
fn one_family_will_do(findings: &mut Vec<Finding>) {
    let has: Vec<String> = findings
        .iter()
        .filter(|one| is_address(one) && one.state != State::Missing)
        .map(|one| one.name.clone())
        .collect();
    findings.retain(|one| !is_address(one) || one.state != State::Missing || !has.contains(&one.name));
}

fn is_address(finding: &Finding) -> bool {
    matches!(finding.kind.as_str(), "A" | "AAAA")
}

/// The papers of the federation write its suffixes with and without an s.
fn other_spelling(name: &str) -> Option<String> {
    let pairs = [
        (".netids.", ".netid."),
        (".netid.", ".netids."),
        (".joineuis.", ".joineui."),
        (".joineui.", ".joineuis."),
    ];
    let (from, to) = pairs.into_iter().find(|(from, _)| name.contains(from))?;
    Some(name.replacen(from, to, 1))
}

fn text(findings: &[Finding], wrong: usize) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        let state = match finding.state {
            State::Good => "good",
            State::Missing => "missing",
            State::Differs => "differs",
            State::Unsigned => "unsigned",
            State::Bogus => "bogus",
            State::Unanswered => "no answer",
        };
        let dnssec = finding.dnssec.map(|security| format!(" ({security})")).unwrap_or_default();
        let shown = if finding.found.is_empty() { &finding.wanted } else { &finding.found };
        lines.push(format!("{state:<10} {} {} {}{dnssec}", finding.name, finding.kind, shown.join(", ")));
        if finding.state == State::Differs && !finding.wanted.is_empty() {
            lines.push(format!("{:<10} should be {}", "", finding.wanted.join(", ")));
        }
        if let Some(remedy) = &finding.remedy {
            lines.push(format!("{:<10} {remedy}", ""));
        }
    }
    lines.push(match wrong {
        0 => format!("all {} are as they should be", findings.len()),
        wrong => format!("{wrong} of {} are not as they should be", findings.len()),
    });
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tempfile::TempDir;

    use super::*;
    use crate::demo::zone::{Data, Plan, Signing, Zone};
    use crate::discovery::name::join_eui_name;
    use crate::pki::make::{Authority, IntermediateSpec, LeafSpec, RootSpec};

    const NAME: &str = "00050a.netids.iotroam.example";

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ZoneArgs,
    }

    /// A node with a certificate and a configuration, and a zone that its resolver asks.
    struct Bench {
        folder: TempDir,
        zone: Zone,
    }

    impl Bench {
        async fn new() -> Bench {
            let clock = Clock::system();
            let folder = tempfile::tempdir().unwrap();
            let zone = Zone::start(Plan::new("iotroam.example", Vec::new()), &clock).await.unwrap();
            let root = Authority::root(&RootSpec::new("A federation"), &clock).unwrap();
            let member = root.intermediate(&IntermediateSpec::new("A member", [NAME]), &clock).unwrap();
            let made = member.issue(&LeafSpec::new("node", [NAME]), &clock).unwrap();
            let path = |name: &str| folder.path().join(name).display().to_string();
            std::fs::write(path("chain.pem"), &made.chain_pem).unwrap();
            std::fs::write(path("anchor.key"), &zone.trust_anchor).unwrap();
            let config = format!(
                r#"
                [network]
                net_ids = ["00050A"]
                [backend]
                listen = "[::]:7005"
                identity = {{ chain = "{}", key = "key.pem" }}
                [discovery]
                net_id_suffix = "netids.iotroam.example"
                join_eui_suffix = "joineuis.iotroam.example"
                resolvers = ["{}"]
                trust_anchor = "{}"
                [join_server]
                join_euis = ["00005E100000002F", "70B3D57ED0000000/40"]
                "#,
                path("chain.pem"),
                zone.addr,
                path("anchor.key"),
            );
            std::fs::write(path("r.toml"), config).unwrap();
            Bench { folder, zone }
        }

        fn args(&self, line: &str) -> ZoneArgs {
            let config = self.folder.path().join("r.toml");
            let words = ["zone", "-c", config.to_str().unwrap()].into_iter().chain(line.split_whitespace());
            Line::try_parse_from(words).unwrap().args
        }

        fn wanted(&self, line: &str) -> Vec<Set> {
            let args = self.args(line);
            wanted(&args.config.load().unwrap().config, &args, args.address.clone()).unwrap()
        }

        /// Publish all that is wanted, but what `keep` leaves out.
        fn publish(&self, line: &str, keep: impl Fn(&Set) -> bool) {
            let sets = self.wanted(line).into_iter().filter(keep);
            let all = sets
                .flat_map(|set| set.data.into_iter().map(move |data| (set.name.clone(), Data::Other(data))));
            self.zone.set_records(all.collect()).unwrap();
        }

        async fn check(&self, line: &str) -> Vec<Finding> {
            compare(&self.args(line), Clock::system()).await.unwrap()
        }
    }

    const WHERE: &str = "--address 192.0.2.5 --address 2001:db8::5 --host js.iotroam.example";

    #[tokio::test]
    async fn what_is_printed_is_what_is_looked_for() {
        let bench = Bench::new().await;
        bench.publish(WHERE, |_| true);
        let findings = bench.check(WHERE).await;
        assert!(findings.iter().all(|one| one.state == State::Good), "{}", text(&findings, 1));
        let kinds: std::collections::BTreeSet<&str> = findings.iter().map(|one| one.kind.as_str()).collect();
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["A", "AAAA", "CNAME", "NAPTR", "SRV", "TLSA"]);
        assert!(findings.iter().any(|one| one.name == format!("_7005._tcp.{NAME}") && one.kind == "TLSA"));
        let text = text(&findings, 0);
        assert!(text.ends_with("are as they should be\n") && text.contains("192.0.2.5 (secure)"), "{text}");
        // where nobody says at which addresses it should be, any will do, of either family
        bench.publish(WHERE, |set| set.kind != RecordType::AAAA);
        let findings = bench.check("--host js.iotroam.example").await;
        assert!(findings.iter().all(|one| one.state == State::Good), "{}", super::text(&findings, 1));
    }

    #[tokio::test]
    async fn what_is_missing_or_other_is_named_with_its_remedy() {
        let bench = Bench::new().await;
        let service = format!("_ns-client.{NAME}");
        bench.publish(WHERE, |set| set.name != service);
        let findings = bench.check(&WHERE.replace("192.0.2.5", "192.0.2.6")).await;
        let state = |name: &str, kind: &str| {
            let one = findings.iter().find(|one| one.name == name && one.kind == kind).unwrap();
            (one.state, one.remedy.clone().unwrap_or_default())
        };
        let (missing, remedy) = state(&service, "TLSA");
        assert!(missing == State::Missing && remedy.contains("dns zone"), "{remedy}");
        assert_eq!(state(NAME, "A").0, State::Differs);
        assert_eq!(state(NAME, "AAAA").0, State::Good);
        let text = text(&findings, 3);
        assert!(text.contains("should be 192.0.2.6") && text.contains("3 of "), "{text}");
        bench.zone.set_signing(Signing::Forged).unwrap();
        let findings = bench.check(WHERE).await;
        assert!(findings.iter().all(|one| one.state == State::Bogus), "{findings:?}");
    }

    #[tokio::test]
    async fn a_suffix_that_is_spelled_otherwise_is_found() {
        let bench = Bench::new().await;
        // the bench's server proves too little where the suffix itself does not exist
        let config = bench.folder.path().join("r.toml");
        let file = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, file.replace("resolvers =", "dnssec = \"off\"\nresolvers =")).unwrap();
        let suffix = "joineui.iotroam.example".parse().unwrap();
        let at = |name: &str| (name.to_owned(), Data::Address("192.0.2.5".parse().unwrap()));
        let join = join_eui_name("00005E100000002F".parse().unwrap(), &suffix);
        bench.zone.set_records(vec![at("00050a.netid.iotroam.example"), at(&join)]).unwrap();
        let findings = bench.check("--host js.iotroam.example").await;
        let spelled =
            |one: &&Finding| one.remedy.as_ref().is_some_and(|remedy| remedy.contains("spelled in two ways"));
        let names: Vec<_> = findings.iter().filter(spelled).map(|one| one.kind.as_str()).collect();
        assert_eq!(names, ["A", "A"], "{}", text(&findings, 9));
    }

    #[tokio::test]
    async fn without_an_address_or_a_certificate_nothing_is_printed() {
        let bench = Bench::new().await;
        let fail = zone(&bench.args("")).unwrap_err();
        assert!(fail.errors[0].remedy.as_ref().unwrap().contains("--address"));
        std::fs::remove_file(bench.folder.path().join("chain.pem")).unwrap();
        let fail = zone(&bench.args(WHERE)).unwrap_err();
        assert!(fail.errors[0].error.contains("chain.pem"), "{:?}", fail.errors);
    }
}
