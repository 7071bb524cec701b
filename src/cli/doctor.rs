//! `roamgate doctor`: what is wrong with this node's configuration, clock, names, certificates and partners, and what to do about
//! each. Asks the DNS and knocks at partners' doors; changes nothing.

mod bundle;
mod own;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;

use super::{ConfigArg, Fail, show, show_json};
use crate::app::wall::{self, Judge};
use crate::app::way::Way;
use crate::backend::door::Deadline;
use crate::backend::message::Party;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{Client, Method, Status};
use crate::discovery::resolve::DiscoveryError;
use crate::discovery::{Dnssec, Resolver, Security};
use crate::pki::check::{self, Weight};
use crate::pki::revoke::List;
use crate::tls;

/// A partner's server, or the DNS, has so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Partners that are knocked at.
const MOST_PARTNERS: usize = 50;

/// `roamgate doctor`
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write what helps somebody else to help into a file (.tar.gz): findings, status and configuration, without secrets
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Good,
    Hint,
    Fault,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    area: &'static str,
    state: State,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, area: &'static str, what: impl Into<String>) {
        self.0.push(Finding { area, state: State::Good, what: what.into(), remedy: None });
    }
    fn hint(&mut self, area: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { area, state: State::Hint, what: what.into(), remedy: Some(remedy.into()) });
    }
    fn fault(&mut self, area: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { area, state: State::Fault, what: what.into(), remedy: Some(remedy.into()) });
    }
}

/// Look at everything; exit code 1 where there is a fault.
pub(super) async fn run(args: DoctorArgs, clock: Clock) -> Result<ExitCode, Fail> {
    let loaded = args.config.load()?;
    let findings = examine(&loaded.config, &clock).await;
    let faults = findings.iter().filter(|finding| finding.state == State::Fault).count();
    if let Some(file) = &args.bundle {
        support(file, &loaded.config, &findings, &clock).await?;
    }
    if args.json {
        // a finding has no way to fail
        show_json(&serde_json::to_value(&findings).unwrap_or_default());
    } else {
        show(&text(&findings, faults));
    }
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The bundle, written.
async fn support(file: &Path, config: &Config, findings: &[Finding], clock: &Clock) -> anyhow::Result<()> {
    let status = match Client::daemon(&config.control_socket()).await {
        Ok(Some(client)) => client.call(Method::GET, "/v1/status", None::<&()>).await.ok(),
        _ => None,
    };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let json = |value: &serde_json::Value| serde_json::to_string_pretty(value).unwrap_or_default();
    let machine = format!(
        "roamgate {}\n{}\n{}",
        env!("CARGO_PKG_VERSION"),
        read("/proc/version").trim(),
        read("/proc/device-tree/model").trim_end_matches('\0')
    );
    let parts = [
        ("machine.txt", machine),
        ("findings.json", json(&serde_json::to_value(findings)?)),
        ("status.json", status.as_ref().map(json).unwrap_or_default()),
        ("roamgate.toml", bundle::shown(&config.to_toml()?)?),
        ("memory.txt", read("/proc/meminfo")),
        (
            "log.txt",
            "journalctl -u roamgate --since -1h has the log: look through it before you pass it on\n".into(),
        ),
    ];
    let to = std::fs::File::create_new(file).with_context(|| format!("make {}", file.display()))?;
    bundle::pack(&parts, to, clock.unix())
}

async fn examine(config: &Config, clock: &Clock) -> Vec<Finding> {
    let mut findings = Findings::default();
    configuration(config, &mut findings);
    let status = daemon(config, &mut findings).await;
    own::disk(config, &mut findings);
    own::radios(config, status.is_some(), clock, &mut findings).await;
    own::backups(config, status.as_ref().and_then(|status| status.backup), clock, &mut findings);
    time(config, status.as_ref(), clock, &mut findings);
    trust(config, clock, &mut findings);
    names(config, clock, &mut findings).await;
    partners(config, clock, &mut findings).await;
    findings.0
}

fn configuration(config: &Config, findings: &mut Findings) {
    let refusals: Vec<_> = config.check().into_iter().chain(config.check_files()).collect();
    for refusal in &refusals {
        findings.fault("configuration", format!("{}: {}", refusal.key, refusal.reason), &refusal.remedy);
    }
    if refusals.is_empty() {
        findings.good("configuration", "fits together");
    }
}

/// What the running hotspot says of itself, if one runs.
async fn daemon(config: &Config, findings: &mut Findings) -> Option<Status> {
    let socket = config.control_socket();
    let client = match Client::daemon(&socket).await {
        Ok(Some(client)) => client,
        Ok(None) => {
            findings.hint("daemon", "none runs", "start it: `roamgate run`");
            return None;
        }
        Err(error) => {
            findings.fault("daemon", error.to_string(), error.remedy());
            return None;
        }
    };
    match client.call(Method::GET, "/v1/status", None::<&()>).await {
        Ok(status) => {
            findings.good("daemon", format!("answers at {}", socket.display()));
            Some(serde_json::from_value(status).unwrap_or_default())
        }
        Err(error) => {
            findings.fault("daemon", error.to_string(), error.remedy());
            None
        }
    }
}

/// As the running hotspot sees it, or as one would that starts now.
fn time(config: &Config, status: Option<&Status>, clock: &Clock, findings: &mut Findings) {
    let wall = clock.wall();
    let believed = match status {
        Some(status) => !status.clock_unset,
        None => {
            Judge::new(clock.clone(), wall::written(config.store.url.path()), Path::new("/"));
            clock.is_trusted()
        }
    };
    match believed {
        true => findings.good("clock", format!("{wall:.0}")),
        false => findings.fault(
            "clock",
            format!("it says {wall:.0} and nobody has set it: no certificate and no signature can be judged"),
            "let GPS or NTP set it (systemd-timesyncd, chrony); roaming waits for it",
        ),
    }
}

fn trust(config: &Config, clock: &Clock, findings: &mut Findings) {
    let area = "trust";
    let Some(backend) = &config.backend else {
        findings.hint(area, "no [backend]: nobody roams", "README.md, \"Join a federation\"");
        return;
    };
    let read = |path: &PathBuf| {
        let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        tls::certificates(&pem, path).map_err(|error| error.to_string())
    };
    let mut roots = Vec::new();
    for path in &backend.roots {
        match read(path) {
            Ok(found) => roots.extend(found),
            Err(error) => findings.fault(area, error, "name the federation's root certificate"),
        }
    }
    let (chain, key) = (backend.identity.chain(), backend.identity.key());
    let remedy = "`roamgate pki request` and `pki install` make them: docs/certificates.md";
    if let Err(error) = tls::Identity::load(&chain, &key) {
        findings.fault(area, error.to_string(), remedy);
    }
    if let Ok(found) = read(&chain) {
        let report = check::inspect(&found, None, &roots, clock.wall());
        for finding in &report.findings {
            match finding.weight {
                Weight::Fault => findings.fault(area, &finding.what, finding.remedy.to_string()),
                Weight::Hint => findings.hint(area, &finding.what, finding.remedy.to_string()),
            }
        }
        if let Some(leaf) = report.certificates.first().filter(|_| report.is_good()) {
            let until = leaf.not_after.strftime("%Y-%m-%d");
            findings.good(area, format!("certificate of {} until {until}", leaf.dns_names.join(" ")));
        }
    }
    for root in roots.iter().filter_map(|root| check::facts(root).ok()) {
        let named = root.common_name.as_deref().unwrap_or(&root.subject);
        let left = (root.not_after.as_second() - clock.wall().as_second()).div_euclid(86_400);
        let remedy = "ask the federation for its new root, and list both until every partner has changed";
        match left {
            ..0 => findings.fault(area, format!("root {named} has ended"), remedy),
            0..=30 => findings.hint(area, format!("root {named} ends in {left} days"), remedy),
            _ => findings.good(area, format!("root {named}")),
        }
    }
    for list in backend.crls.iter().filter(|list| !list.contains("://")) {
        let remedy = "fetch the authority's new list; what the old one names still counts";
        match std::fs::read(list).map_err(|error| error.to_string()).map(|bytes| List::read(&bytes)) {
            Ok(Ok(read)) if read.next.is_some_and(|next| next < clock.wall()) => {
                findings.hint(area, format!("{list} is older than its authority wants"), remedy);
            }
            Ok(Ok(read)) => {
                findings.good(area, format!("{list}: {} revoked by {}", read.serials.len(), read.issuer))
            }
            Ok(Err(error)) => findings.fault(area, format!("{list}: {error}"), remedy),
            Err(error) => findings.fault(area, format!("{list}: {error}"), remedy),
        }
    }
}

async fn names(config: &Config, clock: &Clock, findings: &mut Findings) {
    let area = "names";
    let Some(discovery) = &config.discovery else {
        findings.hint(area, "no [discovery]: only who is listed is found", "docs/discovery.md");
        return;
    };
    let resolver = match Resolver::new(discovery.clone(), clock.clone()) {
        Ok(resolver) => resolver,
        Err(error) => {
            findings.fault(area, error.to_string(), "correct [discovery]");
            return;
        }
    };
    if discovery.dnssec != Dnssec::Require {
        findings.hint(
            area,
            "answers of the DNS are believed without signatures ([discovery] dnssec)",
            "dnssec = \"require\", once the federation's zone is signed",
        );
    }
    for net_id in config.network.net_ids.all() {
        let found = resolver.net_server(*net_id, Deadline(clock.now() + PATIENCE)).await;
        match found {
            Ok(found) => {
                let secure = found.ways.iter().all(|way| way.security == Security::Secure);
                let how = if secure { "signed" } else { "not signed" };
                findings.good(area, format!("NetID {net_id} is found at {} ({how})", found.host));
            }
            Err(error @ DiscoveryError::NotFound { .. }) => findings.hint(
                area,
                format!("others do not find NetID {net_id}: {error}"),
                "publish what `roamgate dns zone` prints; `roamgate dns check` compares",
            ),
            Err(error) => findings.fault(
                area,
                format!("NetID {net_id}: {error}"),
                "`roamgate dns resolve` shows each step; look at [discovery] resolvers and trust_anchor",
            ),
        }
    }
}

async fn partners(config: &Config, clock: &Clock, findings: &mut Findings) {
    let area = "partners";
    let client = Way::new(config, clock).and_then(|way| way.out(way.resolver()?));
    let client = match client {
        Ok(Some(client)) => client,
        Ok(None) => return,
        Err(error) => {
            findings.fault(area, format!("{error:#}"), "correct what is wrong above first");
            return;
        }
    };
    let listed = config.roaming.partner.iter().take(MOST_PARTNERS);
    let knocks = listed.map(|partner| {
        let by = Deadline(clock.now() + PATIENCE);
        let client = client.clone();
        async move { (partner.net_id, client.knock(Party::Ns(partner.net_id), by).await) }
    });
    for (net_id, knocked) in join_all(knocks).await {
        match knocked {
            Ok(host) => findings.good(area, format!("NetID {net_id} lets us in at {host}")),
            Err(error) => findings.fault(
                area,
                format!("NetID {net_id}: {error}"),
                format!(
                    "`roamgate partner show {net_id}` says where it is looked for; then ask its operator"
                ),
            ),
        }
    }
}

fn text(findings: &[Finding], faults: usize) -> String {
    let mut text = String::new();
    for finding in findings {
        let state = match finding.state {
            State::Good => "good",
            State::Hint => "hint",
            State::Fault => "FAULT",
        };
        text.push_str(&format!("{state:<6} {:<14} {}\n", finding.area, finding.what));
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!("{:<21} remedy: {remedy}\n", ""));
        }
    }
    text.push_str(&match faults {
        0 => "nothing is wrong\n".to_owned(),
        1 => "1 fault\n".to_owned(),
        faults => format!("{faults} faults\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use tempfile::TempDir;

    use super::*;
    use crate::demo::zone::{Data, Plan, Signing, Zone};
    use crate::pki::make::{self, Authority, IntermediateSpec, LeafSpec, NewFile, RootSpec};

    const NAME: &str = "c00abc.netids.iotroam.example";

    /// A node with a certificate, whose names a zone serves.
    struct Bench {
        folder: TempDir,
        zone: Zone,
        clock: Clock,
    }

    impl Bench {
        async fn new(records: Vec<(String, Data)>) -> Bench {
            crate::tls::install_provider();
            let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::system());
            let root = Authority::root(&RootSpec::new("Root of all"), &clock).unwrap();
            let member = root.intermediate(&IntermediateSpec::new("m", [NAME]), &clock).unwrap();
            let node = member.issue(&LeafSpec::new("c00abc", [NAME]), &clock).unwrap();
            let zone = Zone::start(Plan::new("iotroam.example", records), &clock).await.unwrap();
            let file = |name, text, secret| NewFile { name, text, secret };
            let files = [
                file("root.pem", &*root.cert_pem, false),
                file("chain.pem", &*node.chain_pem, false),
                file("key.pem", &*node.key_pem, true),
                file("anchor", &*zone.trust_anchor, false),
            ];
            make::write_files(folder.path(), &files, false).unwrap();
            Bench { folder, zone, clock }
        }

        async fn says(&self, more: &str) -> String {
            let at = self.folder.path().display();
            let text = format!(
                "[network]\nnet_ids = [\"C00ABC\"]\n[store]\nurl = \"sqlite:{at}/node.db\"\n[discovery]\nnet_id_suffix = \"netids.iotroam.example\"\n\
                 join_eui_suffix = \"joineuis.iotroam.example\"\nresolvers = [\"{}\"]\ntrust_anchor = \"{at}/anchor\"\n\
                 [backend]\nidentity = {{ chain = \"{at}/chain.pem\", key = \"{at}/key.pem\" }}\nroots = [\"{at}/root.pem\"]\n{more}",
                self.zone.addr
            );
            let config = crate::config::parse(None, text, std::iter::empty()).unwrap().config;
            let findings = examine(&config, &self.clock).await;
            let faults = findings.iter().filter(|finding| finding.state == State::Fault).count();
            let said = super::text(&findings, faults);
            println!("{said}");
            said
        }
    }

    fn address() -> Vec<(String, Data)> {
        vec![(NAME.to_owned(), Data::Address("192.0.2.1".parse().unwrap()))]
    }

    #[tokio::test]
    async fn a_node_that_is_well_is_told_so() {
        let bench = Bench::new(address()).await;
        let said = bench.says("").await;
        for words in [
            "good   configuration  fits together",
            "good   clock",
            "good   trust          certificate of c00abc",
            "good   trust          root Root of all",
            "good   names          NetID C00ABC is found at c00abc.netids.iotroam.example (signed)",
            "nothing is wrong",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }

    #[tokio::test]
    async fn everything_that_is_wrong_has_its_remedy() {
        let bench = Bench::new(Vec::new()).await;
        let said = bench.says("").await;
        assert!(
            said.contains("others do not find NetID C00ABC") && said.contains("roamgate dns zone"),
            "{said}"
        );
        // nobody answers there
        let partner = "[[roaming.partner]]\nnet_id = \"C0002F\"\nserver = \"https://127.0.0.1:1\"\npassive = { start = true }\n";
        let said = bench.says(partner).await;
        assert!(
            said.contains("FAULT  partners       NetID C0002F: ") && said.contains("partner show C0002F"),
            "{said}"
        );
        bench.zone.set_signing(Signing::Forged).unwrap();
        let said = bench.says("").await;
        assert!(said.contains("FAULT  names") && said.contains("trust_anchor"), "{said}");
        bench.clock.move_wall(SignedDuration::from_hours(24 * 500));
        let said = bench.says("").await;
        assert!(said.contains("FAULT  trust") && said.contains("expired"), "{said}");
        std::fs::write(bench.folder.path().join("key.pem"), "").unwrap();
        let said = bench.says("").await;
        assert!(said.contains("holds no private key") && said.contains("pki install"), "{said}");
        bench.clock.set_trusted(false);
        let said = bench.says("").await;
        assert!(said.contains("FAULT  clock") && said.contains("GPS or NTP"), "{said}");
    }
}
