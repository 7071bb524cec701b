//! `roamgate pki root|intermediate|issue|inspect`: the federation's certificates, by hand. (What a node does with its own
//! is in [`super::certificate`].)
//!
//! Composes the names that a NetID or JoinEUI has in the DNS, lets `pki::make` sign, writes files and
//! says what to do with them. Prints no key.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::certificate::{self, InstallArgs, NodeArgs, RequestArgs, RevokeArgs, SignArgs};
use super::{Fail, show};
use crate::clock::Clock;
use crate::discovery::name::{Suffix, join_eui_name, join_eui_subtree, net_id_name};
use crate::lorawan::{JoinEui, JoinEuiRange, NetId};
use crate::pki::check::{self, Facts, Report, Weight};
use crate::pki::make::{
    self, Authority, INTERMEDIATE_DAYS, IntermediateSpec, LEAF_DAYS, LeafSpec, NewFile, ROOT_DAYS, RootSpec,
};
use crate::pki::name;
use crate::tls;

/// No institution owns more JoinEUIs than one OUI has.
const WIDEST_BLOCK: u8 = 24;

/// Make and look at certificates of a federation.
#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Make a federation's root: root.pem for every member, root-key.pem for its operator
    Root(RootArgs),
    /// Make an institution's intermediate, limited to the names that are its own
    Intermediate(IntermediateArgs),
    /// Make a node's certificate and key: chain.pem and key.pem
    Issue(IssueArgs),
    /// Make this node's key, and the request for its certificate: the key never leaves
    Request(RequestArgs),
    /// Sign a request that a member's node has made
    Sign(SignArgs),
    /// Check a certificate that came back, and use it from now on
    Install(InstallArgs),
    /// Use the certificate before the one in use again
    Rollback(NodeArgs),
    /// Strike certificates off: makes the list that members' nodes look at (CRL)
    Revoke(RevokeArgs),
    /// Say what certificates are good for, what is wrong with them, and what to do
    Inspect(InspectArgs),
}

/// Arguments of `pki root`.
#[derive(Debug, Args)]
pub struct RootArgs {
    /// Folder for root.pem and root-key.pem
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// What the federation is called
    #[arg(long, default_value = "Federation root")]
    pub name: String,
    /// Life in years
    #[arg(long, default_value_t = ROOT_DAYS / 365)]
    pub years: u32,
    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `pki intermediate`.
#[derive(Debug, Args)]
pub struct IntermediateArgs {
    /// Folder with root.pem and root-key.pem
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// A NetID of the institution; may be repeated
    #[arg(long, value_name = "NETID", requires = "net_id_suffix")]
    pub net_id: Vec<NetId>,
    /// A JoinEUI of the institution, or a block of them as PREFIX/BITS; may be repeated
    #[arg(long, value_name = "EUI[/BITS]", requires = "join_eui_suffix")]
    pub join_eui: Vec<JoinEuiRange>,
    /// A host name of the institution, with everything below it; may be repeated. Needs both suffixes,
    /// so that it cannot reach into other members' names
    #[arg(long, value_name = "NAME", requires_all = ["net_id_suffix", "join_eui_suffix"])]
    pub host: Vec<String>,
    /// For the federation's registry, which signs for every member: all names behind both suffixes
    #[arg(long, requires_all = ["net_id_suffix", "join_eui_suffix"], conflicts_with_all = ["net_id", "join_eui", "host"])]
    pub registry: bool,
    /// File with the key that the institution's intermediate has already: the same authority, below another root
    #[arg(long, value_name = "FILE")]
    pub keep_key: Option<PathBuf>,
    /// What stands behind a NetID in the federation's DNS
    #[arg(long, value_name = "SUFFIX")]
    pub net_id_suffix: Option<Suffix>,
    /// What stands behind a JoinEUI in the federation's DNS
    #[arg(long, value_name = "SUFFIX")]
    pub join_eui_suffix: Option<Suffix>,
    /// What the institution is called
    #[arg(long)]
    pub name: Option<String>,
    /// Life in days
    #[arg(long, default_value_t = INTERMEDIATE_DAYS)]
    pub days: u32,
    /// Folder for intermediate.pem and intermediate-key.pem
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `pki issue`.
#[derive(Debug, Args)]
pub struct IssueArgs {
    /// Folder with intermediate.pem and intermediate-key.pem
    #[arg(long, value_name = "DIR")]
    pub intermediate: PathBuf,
    /// A NetID that the node speaks for; may be repeated
    #[arg(long, value_name = "NETID")]
    pub net_id: Vec<NetId>,
    /// A JoinEUI that the node's join server serves; may be repeated
    #[arg(long, value_name = "EUI")]
    pub join_eui: Vec<JoinEui>,
    /// A further host name; may be repeated
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// What stands behind a NetID; known from the intermediate unless it is unusual
    #[arg(long, value_name = "SUFFIX")]
    pub net_id_suffix: Option<Suffix>,
    /// What stands behind a JoinEUI; known from the intermediate unless it is unusual
    #[arg(long, value_name = "SUFFIX")]
    pub join_eui_suffix: Option<Suffix>,
    /// Common name, if not the first NetID
    #[arg(long)]
    pub name: Option<String>,
    /// Life in days
    #[arg(long, default_value_t = LEAF_DAYS)]
    pub days: u32,
    /// Folder for chain.pem and key.pem
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `pki inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// PEM files with certificates
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The private key that should belong to the first file
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The federation's root; else root.pem beside a file, if there is one
    #[arg(long, value_name = "FILE")]
    pub root: Vec<PathBuf>,
    /// For machines
    #[arg(long)]
    pub json: bool,
}

/// Do it. The exit code is 1 where `inspect` found a fault.
pub(super) async fn run(command: &PkiCommand, clock: &Clock) -> Result<ExitCode, Fail> {
    let (text, good) = execute(command, clock).await?;
    show(&text);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What to print, and whether all is well.
async fn execute(command: &PkiCommand, clock: &Clock) -> Result<(String, bool), Fail> {
    let text = match command {
        PkiCommand::Root(args) => root(args, clock)?,
        PkiCommand::Intermediate(args) => intermediate(args, clock)?,
        PkiCommand::Issue(args) => issue(args, clock)?,
        PkiCommand::Request(args) => certificate::request(args)?,
        PkiCommand::Sign(args) => certificate::sign(args, clock)?,
        PkiCommand::Install(args) => certificate::install(args, clock).await?,
        PkiCommand::Rollback(args) => certificate::roll_back(args).await?,
        PkiCommand::Revoke(args) => certificate::revoke(args, clock)?,
        PkiCommand::Inspect(args) => return Ok(inspect(args, clock)?),
    };
    Ok((text, true))
}

fn root(args: &RootArgs, clock: &Clock) -> anyhow::Result<String> {
    let spec = RootSpec { days: args.years.saturating_mul(365), ..RootSpec::new(&args.name) };
    let made = Authority::root(&spec, clock)?;
    let files = [
        NewFile { name: "root.pem", text: &made.cert_pem, secret: false },
        NewFile { name: "root-key.pem", text: &made.key_pem, secret: true },
    ];
    make::write_files(&args.out, &files, args.force)?;
    let notes = ["every member stores this", "signs intermediates: keep it offline and secret"];
    let mut text = format!("root of {}\n", args.name);
    wrote(&mut text, &args.out, &files, &notes);
    valid(&mut text, made.facts());
    let _ = writeln!(text, "  next    roamgate pki intermediate --root {} ...", args.out.display());
    Ok(text)
}

fn intermediate(args: &IntermediateArgs, clock: &Clock) -> anyhow::Result<String> {
    let root = authority(&args.root, "root")?;
    let mut subtrees = Vec::new();
    for net_id in &args.net_id {
        let suffix = args.net_id_suffix.as_ref().context("--net-id needs --net-id-suffix")?;
        subtrees.push(net_id_name(*net_id, suffix));
    }
    for range in &args.join_eui {
        if range.bits() < WIDEST_BLOCK {
            bail!(
                "{range} is wider than a manufacturer's OUI ({WIDEST_BLOCK} bits): nobody owns that many JoinEUIs"
            );
        }
        let suffix = args.join_eui_suffix.as_ref().context("--join-eui needs --join-eui-suffix")?;
        subtrees.push(join_eui_subtree(*range, suffix));
    }
    for host in &args.host {
        let host = name::dns_subtree(host)?;
        // A host name at or above a suffix would permit everybody's names, one below it those of
        // somebody who was not asked.
        for suffix in args.net_id_suffix.iter().chain(&args.join_eui_suffix) {
            let (above, host) = ([host.clone()], &host);
            if check::is_within(suffix.as_str(), &above) || check::is_within(host, &[suffix.to_string()]) {
                bail!("--host {host} reaches into {suffix}, where only --net-id and --join-eui give names");
            }
        }
        subtrees.push(host);
    }
    if args.registry {
        subtrees.extend(args.net_id_suffix.iter().chain(&args.join_eui_suffix).map(ToString::to_string));
    }
    let name = match (&args.name, args.net_id.first(), args.join_eui.first()) {
        (Some(name), ..) => name.clone(),
        _ if args.registry => "Registry".to_owned(),
        (None, Some(net_id), _) => format!("Member {}", hex::encode(net_id.to_msb())),
        (None, None, Some(range)) => format!("Member with JoinEUI {range}"),
        (None, None, None) => "Member".to_owned(),
    };
    let kept = args.keep_key.as_ref().map(|file| {
        let key = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        anyhow::Ok(Zeroizing::new(key))
    });
    let key = kept.transpose()?;
    let spec = IntermediateSpec { days: args.days, key, ..IntermediateSpec::new(name, subtrees) };
    let made = root.intermediate(&spec, clock)?;
    let files = [
        NewFile { name: "intermediate.pem", text: &made.cert_pem, secret: false },
        NewFile { name: "intermediate-key.pem", text: &made.key_pem, secret: true },
        NewFile { name: "root.pem", text: &root.cert_pem, secret: false },
    ];
    make::write_files(&args.out, &files, args.force)?;
    let notes = ["goes into every chain.pem", "signs this member's nodes: keep it secret", "to trust"];
    let mut text = format!("intermediate {}, signed by {}\n", called(made.facts()), called(root.facts()));
    wrote(&mut text, &args.out, &files, &notes);
    may_name(&mut text, "  may name", made.facts());
    valid(&mut text, made.facts());
    let _ = writeln!(text, "  next    roamgate pki issue --intermediate {} ...", args.out.display());
    Ok(text)
}

fn issue(args: &IssueArgs, clock: &Clock) -> anyhow::Result<String> {
    let member = authority(&args.intermediate, "intermediate")?;
    let permitted = &member.facts().permitted;
    let mut names = Vec::new();
    for net_id in &args.net_id {
        let known = net_id_suffix_of(*net_id, permitted);
        let suffix = args.net_id_suffix.clone().or(known).with_context(|| {
            format!("{} has no name for NetID {net_id}; is it another member's?", called(member.facts()))
        })?;
        names.push(net_id_name(*net_id, &suffix));
    }
    for join_eui in &args.join_eui {
        let known = join_eui_suffix_of(*join_eui, permitted);
        let suffix = args.join_eui_suffix.clone().or(known).with_context(|| {
            format!("{} has no name for JoinEUI {join_eui}; is it another member's?", called(member.facts()))
        })?;
        names.push(join_eui_name(*join_eui, &suffix));
    }
    names.extend(args.host.iter().cloned());
    let name = match (&args.name, args.net_id.first(), args.join_eui.first()) {
        (Some(name), ..) => name.clone(),
        (None, Some(net_id), _) => hex::encode(net_id.to_msb()),
        (None, None, Some(join_eui)) => join_eui.to_string().to_lowercase(),
        (None, None, None) => "node".to_owned(),
    };
    let spec = LeafSpec { days: args.days, ..LeafSpec::new(name, names) };
    let made = member.issue(&spec, clock)?;
    let root = args.intermediate.join("root.pem");
    let root = std::fs::read_to_string(&root).ok();
    let mut files = vec![
        NewFile { name: "chain.pem", text: &made.chain_pem, secret: false },
        NewFile { name: "key.pem", text: &made.key_pem, secret: true },
    ];
    if let Some(root) = &root {
        files.push(NewFile { name: "root.pem", text: root, secret: false });
    }
    make::write_files(&args.out, &files, args.force)?;
    let mut text = format!("node {}, signed by {}\n", spec.common_name, called(member.facts()));
    wrote(
        &mut text,
        &args.out,
        &files,
        &["its certificate and the intermediate", "its key: keep it secret", "to trust"],
    );
    let leaf = CertificateDer::from_pem_slice(made.chain_pem.as_bytes())?;
    let leaf = check::facts(&leaf)?;
    known_as(&mut text, "  names   ", &leaf);
    valid(&mut text, &leaf);
    let folder = args.out.display();
    let _ = writeln!(
        text,
        "  next    in roamgate.toml:\n            [backend]\n            identity = {{ chain = \"{folder}/chain.pem\", key = \
         \"{folder}/key.pem\" }}\n            roots    = [\"{folder}/root.pem\"]"
    );
    Ok(text)
}

/// An authority from its folder.
pub(super) fn authority(folder: &Path, name: &str) -> anyhow::Result<Authority> {
    let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}-key.pem")));
    Authority::load(&cert, &key).with_context(|| format!("{} is no folder of a {name}", folder.display()))
}

/// What stands behind this NetID in one of an intermediate's subtrees.
fn net_id_suffix_of(net_id: NetId, permitted: &[String]) -> Option<Suffix> {
    let digits = hex::encode(net_id.to_msb());
    permitted.iter().find_map(|subtree| {
        let (label, suffix) = subtree.split_once('.')?;
        if label == digits { suffix.parse().ok() } else { None }
    })
}

/// What stands behind this JoinEUI in the narrowest of an intermediate's subtrees that covers it.
fn join_eui_suffix_of(join_eui: JoinEui, permitted: &[String]) -> Option<Suffix> {
    (WIDEST_BLOCK / 4..=16).rev().find_map(|digits| {
        let prefix = u64::from_be_bytes(join_eui.to_msb()) & u64::MAX << (64 - 4 * u32::from(digits));
        let range = JoinEuiRange::new(JoinEui::from_msb(prefix.to_be_bytes()), 4 * digits).ok()?;
        permitted.iter().find_map(|subtree| {
            let suffix = subtree.get(2 * usize::from(digits)..)?.parse().ok()?;
            (join_eui_subtree(range, &suffix) == *subtree).then_some(suffix)
        })
    })
}

/// The JoinEUI digits at the front of a name, in reading order.
fn leading_digits(name: &str) -> String {
    let digits: Vec<char> = name
        .split('.')
        .map_while(|label| label.parse().ok().filter(char::is_ascii_hexdigit))
        .take(16)
        .collect();
    digits.iter().rev().map(char::to_ascii_uppercase).collect()
}

fn called(facts: &Facts) -> &str {
    facts.common_name.as_deref().unwrap_or(&facts.subject)
}

fn day(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d").to_string()
}

fn wrote(text: &mut String, folder: &Path, files: &[NewFile<'_>], notes: &[&str]) {
    let width = files.iter().map(|file| file.name.len()).max().unwrap_or(0);
    for (place, (file, note)) in files.iter().zip(notes).enumerate() {
        let label = if place == 0 { "wrote" } else { "" };
        let _ = writeln!(text, "  {label:7} {}/{:width$}  {note}", folder.display(), file.name);
    }
}

pub(super) fn valid(text: &mut String, facts: &Facts) {
    let _ = writeln!(text, "  valid   {} to {}", day(facts.not_before), day(facts.not_after));
}

pub(super) fn known_as(text: &mut String, label: &str, facts: &Facts) {
    let width = label.len();
    for (place, name) in facts.dns_names.iter().enumerate() {
        let label = if place == 0 { label } else { "" };
        let digits = leading_digits(name);
        let note = if digits.len() == 16 { format!("  (JoinEUI {digits})") } else { String::new() };
        let name = if name.is_empty() { "(empty)" } else { name };
        let _ = writeln!(text, "{label:width$}{name}{note}");
    }
}

fn may_name(text: &mut String, label: &str, facts: &Facts) {
    let width = label.len();
    for (place, subtree) in facts.permitted.iter().enumerate() {
        let label = if place == 0 { label } else { "" };
        let digits = leading_digits(subtree);
        let note = match digits.len() {
            16 => format!("  (JoinEUI {digits})"),
            count @ 6..16 => format!("  (JoinEUIs {digits:0<16}/{})", 4 * count),
            _ => String::new(),
        };
        let _ = writeln!(text, "{label:width$} {subtree}{note}");
    }
}

fn inspect(args: &InspectArgs, clock: &Clock) -> anyhow::Result<(String, bool)> {
    let read = |path: &Path| -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let pem = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(tls::certificates(&pem, path)?)
    };
    let mut given = Vec::new();
    for path in &args.root {
        given.extend(read(path)?);
    }
    let key = args.key.as_deref().map(key_of).transpose()?;
    let (mut text, mut machine, mut good) = (String::new(), Vec::new(), true);
    for (place, path) in args.files.iter().enumerate() {
        let chain = read(path)?;
        let beside = path.with_file_name("root.pem");
        let look = args.root.is_empty() && beside != *path && beside.is_file();
        let roots = if look { read(&beside)? } else { given.clone() };
        let key = key.as_deref().filter(|_| place == 0);
        let report = check::inspect(&chain, key, &roots, clock.wall());
        good &= report.is_good();
        if args.json {
            machine.push(serde_json::json!({
                "file": path.display().to_string(),
                "good": report.is_good(),
                "certificates": report.certificates,
                "findings": report.findings,
            }));
        } else {
            if place > 0 {
                text.push('\n');
            }
            let against = match (look, args.root.first()) {
                (true, _) => format!(", checked against {}", beside.display()),
                (false, Some(root)) => format!(", checked against {}", root.display()),
                (false, None) => String::new(),
            };
            let _ = writeln!(text, "{}{against}", path.display());
            tell(&mut text, &report, clock.wall());
        }
    }
    if args.json {
        text = serde_json::to_string_pretty(&machine)? + "\n";
    }
    Ok((text, good))
}

/// The public part of a private key file.
fn key_of(path: &Path) -> anyhow::Result<Vec<u8>> {
    let pem = zeroize::Zeroizing::new(std::fs::read(path).with_context(|| path.display().to_string())?);
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| anyhow::anyhow!("{}: holds no readable private key", path.display()))?;
    tls::spki(&key).with_context(|| path.display().to_string())
}

fn tell(text: &mut String, report: &Report, wall: Timestamp) {
    for (place, facts) in report.certificates.iter().enumerate() {
        let kind = match (facts.authority, facts.self_signed) {
            (true, true) => "root",
            (true, false) => "intermediate",
            (false, _) => "leaf",
        };
        let _ = writeln!(text, "  {} {kind:13}{}", place + 1, called(facts));
        known_as(text, "    names        ", facts);
        match (facts.authority && !facts.self_signed, facts.permitted.is_empty()) {
            (true, true) => text.push_str("    may name     anything: it has no name constraints\n"),
            _ => may_name(text, "    may name    ", facts),
        }
        let left = (facts.not_after.as_second() - wall.as_second()).div_euclid(86_400);
        let left = match left {
            0.. => format!("{left} days left"),
            _ => "over".to_owned(),
        };
        let _ =
            writeln!(text, "    valid        {} to {}, {left}", day(facts.not_before), day(facts.not_after));
        let usage = match facts.usages.as_slice() {
            [] => String::new(),
            usages => format!(", for {}", usages.join(" and ")),
        };
        let _ = writeln!(text, "    key          {}, signed with {}{usage}", facts.key, facts.signature);
        if !facts.self_signed {
            let _ = writeln!(text, "    signed by    {}", facts.issuer);
        }
        let _ = writeln!(text, "    serial       {}", facts.serial);
        if !facts.authority {
            let _ = writeln!(text, "    pin          {}", facts.pin);
        }
    }
    for finding in &report.findings {
        let weight = match finding.weight {
            Weight::Fault => "FAULT",
            Weight::Hint => "hint",
        };
        let _ = writeln!(text, "  {weight:6} {}\n         remedy: {}", finding.what, finding.remedy);
    }
    let verdict = match (report.is_good(), report.findings.is_empty()) {
        (true, true) => "good",
        (true, false) => "good, with hints",
        (false, _) => "NOT GOOD: partners will refuse it",
    };
    let _ = writeln!(text, "  verdict: {verdict}");
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: PkiCommand,
    }

    /// A folder in which `pki` commands are typed; `@` stands for it.
    struct Desk(tempfile::TempDir, Clock);

    impl Desk {
        fn new() -> Desk {
            Desk(tempfile::tempdir().unwrap(), Clock::system())
        }
        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }
        fn types(&self, line: &str) -> anyhow::Result<(String, bool)> {
            let folder = self.0.path().display().to_string();
            let words = std::iter::once("pki".to_owned())
                .chain(line.split(' ').map(|word| word.replace('@', &folder)));
            let line = Line::try_parse_from(words)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            match runtime.block_on(execute(&line.command, &self.1)) {
                Ok((text, good)) => Ok((text.replace(&folder, "@"), good)),
                Err(fail) => Err(anyhow::anyhow!("{}", fail.errors[0].error)),
            }
        }
        fn federation() -> Desk {
            let desk = Desk::new();
            desk.types("root --out @/iot --name IoT").unwrap();
            desk.types(
                "intermediate --root @/iot --net-id C0002F --join-eui 70B3D57ED0000000/40 --join-eui 00005E100000002F \
                 --host hub.member.example --net-id-suffix .netids.iot.example. --join-eui-suffix joineuis.iot.example \
                 --out @/member",
            )
            .unwrap();
            desk
        }
        fn refuses(&self, line: &str, words: &str) {
            let error = format!("{:#}", self.types(line).unwrap_err());
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn three_commands_make_an_identity_that_inspect_calls_good() {
        let desk = Desk::federation();
        let (text, _) = desk
            .types(
                "issue --intermediate @/member --net-id C0002F --join-eui 70B3D57ED0000001 --join-eui 00005E100000002F \
                 --host ns.hub.member.example --out @/node",
            )
            .unwrap();
        print!("{text}");
        assert!(text.contains("(JoinEUI 00005E100000002F)"));
        tls::Identity::load(&desk.at("node/chain.pem"), &desk.at("node/key.pem")).unwrap();
        tls::Roots::load(&[desk.at("node/root.pem")]).unwrap();

        let (text, good) = desk
            .types("inspect @/node/chain.pem @/member/intermediate.pem @/iot/root.pem --key @/node/key.pem")
            .unwrap();
        print!("{text}");
        assert!(good, "{text}");
        assert!(
            text.contains("1.0.0.0.0.0.0.d.e.7.5.d.3.b.0.7.joineuis.iot.example  (JoinEUI 70B3D57ED0000001)")
        );
        assert!(text.contains("(JoinEUIs 70B3D57ED0000000/40)"));
        assert_eq!(text.matches("verdict: good\n").count(), 3, "{text}");
        assert!(!text.contains("PRIVATE"));
    }

    #[test]
    fn inspect_for_machines_carries_the_same_facts() {
        let desk = Desk::federation();
        desk.types("issue --intermediate @/member --net-id C0002F --out @/node").unwrap();
        let (text, good) =
            desk.types("inspect --json @/node/chain.pem --key @/member/intermediate-key.pem").unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(!good);
        assert_eq!(json[0]["good"], false);
        assert_eq!(json[0]["certificates"][0]["dns_names"][0], "c0002f.netids.iot.example");
        assert_eq!(json[0]["findings"][0]["weight"], "fault");
    }

    #[test]
    fn a_leaf_without_its_intermediate_gets_a_remedy() {
        let desk = Desk::federation();
        desk.types("issue --intermediate @/member --net-id C0002F --out @/node").unwrap();
        let chain = std::fs::read_to_string(desk.at("node/chain.pem")).unwrap();
        let end = chain.find("-----END CERTIFICATE-----\n").unwrap() + 26;
        std::fs::write(desk.at("leaf.pem"), &chain[..end]).unwrap();
        let (text, good) = desk.types("inspect @/leaf.pem --root @/iot/root.pem").unwrap();
        print!("{text}");
        assert!(!good && text.contains("FAULT") && text.contains("cat leaf.pem intermediate.pem"), "{text}");
    }

    #[test]
    fn what_nobody_owns_is_refused_with_a_reason() {
        let desk = Desk::federation();
        desk.refuses("root --out @/iot", "exists and is not overwritten");
        desk.refuses("intermediate --root @/iot --out @/x", "could name anybody");
        desk.refuses("intermediate --root @/nowhere --out @/x", "no folder of a root");
        desk.refuses("intermediate --root @/iot --out @/x --host joineuis.iot.example", "--join-eui-suffix");
        desk.refuses("intermediate --root @/iot --out @/x --net-id C0002F", "--net-id-suffix");
        let line =
            "intermediate --root @/iot --out @/x --net-id-suffix n.example --join-eui-suffix j.example";
        desk.refuses(&format!("{line} --join-eui 7000000000000000/4"), "wider than a manufacturer's OUI");
        desk.refuses(&format!("{line} --host n.example"), "reaches into n.example");
        desk.refuses(&format!("{line} --host 00000a.n.example"), "reaches into n.example");
        desk.refuses(&format!("{line} --host example"), "top-level domain");
        desk.refuses("issue --intermediate @/member --out @/x --net-id 00000A", "is it another member's?");
        desk.refuses(
            "issue --intermediate @/member --out @/x --join-eui 70B3D57ED1000000",
            "another member's?",
        );
        desk.refuses("issue --intermediate @/member --out @/x --host example.org", "not within the names");
        desk.refuses("issue --intermediate @/member --out @/x", "at least one name");
        desk.refuses("inspect @/member/intermediate-key.pem", "holds no certificate");
        assert!(!desk.at("x").exists());
    }

    #[test]
    fn a_node_keeps_its_key_and_gets_its_certificate_by_request() {
        let desk = Desk::federation();
        let config = |lines: &str| {
            let text = format!(
                "[network]\nnet_ids = [\"C0002F\"]\n[store]\nurl = \"sqlite:{}\"\n[discovery]\nnet_id_suffix = \"netids.iot.example\"\n\
                 join_eui_suffix = \"joineuis.iot.example\"\n[join_server]\njoin_euis = [\"00005E100000002F\", \"70B3D57ED0000000/40\"]\n\
                 [backend]\nroots = [\"{}\"]\n{lines}",
                desk.at("node.db").display(),
                desk.at("iot/root.pem").display()
            );
            std::fs::write(desk.at("node.toml"), text).unwrap();
        };
        config("identity = { chain = \"c\", key = \"k\" }\n");
        desk.refuses("request -c @/node.toml", "two files, which somebody else keeps");
        config(&format!("identity = {{ folder = \"{}\" }}\n", desk.at("pki").display()));
        let (text, _) = desk.types("request -c @/node.toml --host ns.hub.member.example").unwrap();
        print!("{text}");
        assert!(text.contains("stays here") && text.contains("c0002f.netids.iot.example"), "{text}");
        let (again, _) = desk.types("request -c @/node.toml --host ns.hub.member.example").unwrap();
        assert!(again.contains("waits for its certificate"), "{again}");
        desk.refuses("install @/iot/root.pem -c @/node.toml", "none of the keys");
        let (text, _) =
            desk.types("sign @/pki/next/request.pem --intermediate @/member --out @/back").unwrap();
        print!("{text}");
        let (text, _) = desk.types("install @/back/chain.pem -c @/node.toml").unwrap();
        print!("{text}");
        assert!(text.contains("none runs; the next one shows it"), "{text}");
        tls::Identity::load(&desk.at("pki/current/chain.pem"), &desk.at("pki/current/key.pem")).unwrap();
        desk.refuses("rollback -c @/node.toml", "no set before");
        desk.types("request -c @/node.toml").unwrap();
        desk.types("sign @/pki/next/request.pem --intermediate @/member --out @/back --force").unwrap();
        desk.types("install @/back/chain.pem -c @/node.toml").unwrap();
        let (text, _) = desk.types("rollback -c @/node.toml").unwrap();
        assert!(text.contains("ns.hub.member.example"), "{text}");
        // a member signs nobody else's names
        desk.types("request --folder @/other --fresh --host a.other.example").unwrap();
        desk.refuses(
            "sign @/other/next/request.pem --intermediate @/member --out @/x",
            "not within the names",
        );
    }

    #[test]
    fn what_is_revoked_is_listed_and_stays_so() {
        let desk = Desk::federation();
        let (text, _) = desk.types("revoke 0A1B --intermediate @/member").unwrap();
        print!("{text}");
        let (text, _) = desk.types("revoke ff --intermediate @/member").unwrap();
        assert!(text.contains("list 2") && text.contains("a1b") && text.contains("revoked ff"), "{text}");
        desk.refuses("revoke xyz --intermediate @/member", "names no certificate");
        let (text, _) = desk.types("revoke 01 --root @/iot").unwrap();
        assert!(text.contains("@/iot/crl.pem"), "{text}");
    }
}
