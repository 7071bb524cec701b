//! `roamgate usage`: what visitors of other networks were carried, and what other networks say that they carried for us. From the
//! daemon where one runs, else from the store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::device::view;
use super::{ConfigArg, Fail, client, show, show_json, table};
use crate::app::credentials::{pins, roots};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{DeviceView, Method, UsageView};
use crate::discovery::name::net_id_name;
use crate::lorawan::{DevEui, NetId};
use crate::store::usage::month;
use crate::tls::Trust;
use crate::tls::signed::Signed;
use crate::usage::{self, Kind, Line, Statement, TrafficRecord};

/// `roamgate usage`
#[derive(Debug, Subcommand)]
pub(super) enum UsageCommand {
    /// A month's traffic and activations of visitors, by their home.
    Report(ReportArgs),
    /// What one network's devices were carried in a month that is over, signed, for that network.
    Statement(StatementArgs),
    /// Compare statements of another network with what we have on record.
    Reconcile(ReconcileArgs),
}

/// `roamgate usage report`
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Which month, in UTC [default: this one]
    #[arg(long, value_name = "YYYY-MM")]
    month: Option<String>,
    /// Print JSON: every record, with the names of TS002
    #[arg(long)]
    json: bool,
    /// Print CSV, a line for each network
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// `roamgate usage statement`
#[derive(Debug, Args)]
pub(super) struct StatementArgs {
    /// For whom
    #[arg(value_name = "NETID")]
    partner: NetId,
    /// Which month, in UTC; it has to be over
    #[arg(long, value_name = "YYYY-MM")]
    month: String,
    #[command(flatten)]
    config: ConfigArg,
}

/// `roamgate usage reconcile`
#[derive(Debug, Args)]
pub(super) struct ReconcileArgs {
    /// Statements of one network, as `usage statement` prints them
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

pub(super) async fn run(command: UsageCommand, clock: Clock) -> Result<ExitCode, Fail> {
    match command {
        UsageCommand::Report(args) => report(args, &clock).await,
        UsageCommand::Statement(args) => {
            let path = format!("/v1/usage/{}/statement/{}", args.month, args.partner);
            // as a file, to be sent: there is no other form of it
            show_json(&ask(&args.config, &clock, &path).await?);
            Ok(ExitCode::SUCCESS)
        }
        UsageCommand::Reconcile(args) => reconcile(args, &clock).await,
    }
}

async fn ask(config: &ConfigArg, clock: &Clock, path: &str) -> Result<serde_json::Value, Fail> {
    let (client, store) = client(config, false, clock).await?;
    let answer = client.call::<()>(Method::GET, path, None).await;
    if let Some(store) = store {
        store.close().await.map_err(anyhow::Error::new)?;
    }
    Ok(answer?)
}

async fn report(args: ReportArgs, clock: &Clock) -> Result<ExitCode, Fail> {
    let wanted = args.month.clone().unwrap_or_else(|| month(clock.unix()));
    let value = ask(&args.config, clock, &format!("/v1/usage/{wanted}")).await?;
    let usage: UsageView = view(value.clone())?;
    match (args.json, args.csv) {
        (true, _) => show_json(&value),
        (_, true) => show(&csv(&usage)?),
        _ => show(&text(&usage)),
    }
    Ok(ExitCode::SUCCESS)
}

/// What a comparison found.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Found {
    issuer: NetId,
    month: String,
    /// Every element of both sides.
    lines: Vec<Line>,
    /// Devices of theirs that are none of ours.
    strangers: Vec<DevEui>,
    /// It does not name the statement of the month before that was given here.
    chain_broken: bool,
}

impl Found {
    fn agrees(&self) -> bool {
        !self.chain_broken
            && self.strangers.is_empty()
            && self.lines.iter().all(|line| line.theirs == line.ours)
    }
}

async fn reconcile(args: ReconcileArgs, clock: &Clock) -> Result<ExitCode, Fail> {
    let config = args.config.load()?.config;
    let mut statements = Vec::new();
    for file in &args.files {
        let bytes = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let (signed, statement) = believed(&bytes, &config, clock)
            .map_err(|why| Fail::new(format!("{}: {why}", file.display()), "ask the network that sent it"))?;
        statements.push((signed.text, statement));
    }
    statements.sort_by(|(_, a), (_, b)| a.month.cmp(&b.month));
    let devices: Vec<DeviceView> = view(ask(&args.config, clock, "/v1/devices").await?)?;
    let devices: BTreeSet<DevEui> = devices.into_iter().map(|device| device.dev_eui).collect();
    let mut all = Vec::new();
    for (place, (_, statement)) in statements.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|place| statements.get(place));
        let ours: UsageView =
            view(ask(&args.config, clock, &format!("/v1/usage/{}", statement.month)).await?)?;
        let strangers: BTreeSet<DevEui> = statement
            .activations
            .iter()
            .filter_map(|record| record.dev_eui)
            .filter(|eui| !devices.contains(eui))
            .collect();
        all.push(Found {
            issuer: statement.issuer,
            month: statement.month.clone(),
            lines: usage::compare(statement, &ours.for_us),
            strangers: strangers.into_iter().collect(),
            chain_broken: before.is_some_and(|(text, before)| {
                before.issuer != statement.issuer || statement.previous != Some(usage::hash(text))
            }),
        });
    }
    if args.json {
        show_json(&serde_json::to_value(&all).map_err(anyhow::Error::new)?);
    } else {
        show(&all.iter().map(compared).collect::<Vec<_>>().join("\n"));
    }
    Ok(if all.iter().all(Found::agrees) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A statement that its issuer has signed, and that is for us.
fn believed(bytes: &str, config: &Config, clock: &Clock) -> anyhow::Result<(Signed, Statement)> {
    let backend = config.backend.as_ref().context("there is no [backend] with roots to judge it by")?;
    let suffix = config.discovery.clone().unwrap_or_default().net_id_suffix;
    let signed: Signed = serde_json::from_str(bytes).context("it is no signed statement")?;
    let statement = Statement::read(&signed.text)?;
    let trust = Trust::new(&roots(config, backend, &suffix)?, pins(config, &suffix)?, clock.clone())?;
    let signer = trust.signer(usage::PURPOSE, &signed)?;
    let listed = config.roaming.partner(statement.issuer).and_then(|partner| partner.identity.clone());
    let name = listed.unwrap_or_else(|| net_id_name(statement.issuer, &suffix));
    anyhow::ensure!(
        signer.speaks_for(&name),
        "it is of NetID {}, and was signed by {}, not by {name}",
        statement.issuer,
        signer.names.join(", ")
    );
    anyhow::ensure!(
        config.network.net_ids.contains(statement.partner),
        "it is for NetID {}, which is not ours",
        statement.partner
    );
    Ok((signed, statement))
}

fn compared(found: &Found) -> String {
    let mut rows = vec![["ROAMING", "ELEMENT", "THEIRS", "OURS", "DIFFERENCE"].map(String::from).to_vec()];
    rows.extend(found.lines.iter().map(|line| {
        let difference = i128::from(line.theirs) - i128::from(line.ours);
        let difference = if difference == 0 { "-".into() } else { format!("{difference:+}") };
        let numbers = [line.theirs.to_string(), line.ours.to_string(), difference];
        [format!("{:?}", line.roaming_type), line.element.clone()].into_iter().chain(numbers).collect()
    }));
    let mut text = format!("NetID {} on {}: ", found.issuer, found.month);
    text += if found.agrees() { "both records agree.\n" } else { "the records differ.\n" };
    if !found.lines.is_empty() {
        text += &table(&rows);
    }
    for stranger in &found.strangers {
        text += &format!("{stranger} is no device of ours.\n");
    }
    if found.chain_broken {
        text += "It does not follow the statement before: a month is missing, or one was changed.\n";
    }
    text
}

/// Beginnings and ends by network.
fn activations(usage: &UsageView) -> BTreeMap<NetId, [u64; 2]> {
    let mut all: BTreeMap<NetId, [u64; 2]> = BTreeMap::new();
    for record in usage.activations.iter().filter(|record| record.individual_record) {
        let ended = usize::from(record.deactivation_time.is_some());
        all.entry(record.net_id).or_default()[ended] += 1;
    }
    all
}

/// NetID, kind of roaming, Service Profile; uplinks, bytes, downlinks, bytes; uplinks and downlinks out of profile; beginnings
/// and ends, in the first line of a network.
fn rows(usage: &UsageView) -> Vec<Vec<String>> {
    let activations = activations(usage);
    let networks: BTreeSet<NetId> =
        usage.traffic.iter().map(|one| one.net_id).chain(activations.keys().copied()).collect();
    let mut rows = Vec::new();
    for net_id in networks {
        let mut counts = activations.get(&net_id).copied().unwrap_or_default();
        let of: Vec<_> = usage.traffic.iter().filter(|one| one.net_id == net_id).collect();
        let nothing = of.is_empty().then(|| TrafficRecord::new(net_id, Kind::Passive, [0; 4]));
        for one in of.into_iter().chain(&nothing) {
            let out = [one.total_out_profile_ul_packets, one.total_out_profile_dl_packets];
            let all = one.numbers().into_iter().chain(out).chain(std::mem::take(&mut counts));
            let words =
                [net_id.to_string(), format!("{:?}", one.roaming_type), one.service_profile_id.clone()];
            rows.push(words.into_iter().chain(all.map(|count| count.to_string())).collect());
        }
    }
    rows
}

fn text(usage: &UsageView) -> String {
    let mut rows = rows(usage);
    for profile in rows.iter_mut().filter_map(|row| row.get_mut(2)).filter(|profile| profile.is_empty()) {
        profile.push('-');
    }
    let mut text = if rows.is_empty() {
        format!("No visitor of another network was carried in {}.\n", usage.month)
    } else {
        let head = [
            "HOME",
            "ROAMING",
            "PROFILE",
            "UPLINKS",
            "BYTES",
            "DOWNLINKS",
            "BYTES",
            "OUT UP",
            "OUT DOWN",
            "BEGUN",
            "ENDED",
        ];
        let mut all = vec![head.map(String::from).to_vec()];
        all.extend(rows);
        format!("Visitors of other networks in {}:\n{}", usage.month, table(&all))
    };
    let ours = usage.for_us.iter().map(|one| {
        let numbers = one.numbers().map(|count| count.to_string());
        [one.net_id.to_string(), format!("{:?}", one.roaming_type)].into_iter().chain(numbers).collect()
    });
    let mut ours: Vec<Vec<String>> = ours.collect();
    if !ours.is_empty() {
        let head = ["BY", "ROAMING", "UPLINKS", "BYTES", "DOWNLINKS", "BYTES"];
        ours.insert(0, head.map(String::from).to_vec());
        text += &format!("\nOur devices, carried by other networks:\n{}", table(&ours));
    }
    text
}

fn csv(usage: &UsageView) -> Result<String, Fail> {
    let head = [
        "month",
        "net_id",
        "roaming_type",
        "ul_packets",
        "ul_bytes",
        "dl_packets",
        "dl_bytes",
        "activations",
        "deactivations",
        "service_profile_id",
        "out_profile_ul_packets",
        "out_profile_dl_packets",
    ];
    // who reads it by position finds what there was before where it was
    const ORDER: [usize; 11] = [0, 1, 3, 4, 5, 6, 9, 10, 2, 7, 8];
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(head).map_err(anyhow::Error::new)?;
    for row in rows(usage) {
        let row = std::iter::once(&usage.month).chain(ORDER.into_iter().filter_map(|at| row.get(at)));
        writer.write_record(row).map_err(anyhow::Error::new)?;
    }
    let bytes = writer.into_inner().map_err(|error| anyhow::anyhow!("write CSV: {error}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::usage::Month;
    use crate::usage::ActivationRecord;

    #[test]
    fn networks_are_in_a_table_and_in_csv() {
        let (a, b) = (NetId::from_msb([0xC0, 0x0A, 0xBC]), NetId::from_msb([0, 0, 1]));
        let begins = |net_id, active: bool| ActivationRecord {
            net_id,
            service_profile_id: String::new(),
            individual_record: true,
            total_active_devices: None,
            dev_eui: Some(DevEui::from_msb([1; 8])),
            activation_time: active.then(|| "2026-11-20T10:00:00Z".into()),
            deactivation_time: (!active).then(|| "2026-11-20T11:00:00Z".into()),
        };
        let all_month = ActivationRecord {
            individual_record: false,
            total_active_devices: Some(7),
            dev_eui: None,
            activation_time: None,
            ..begins(a, true)
        };
        let month = Month {
            traffic: vec![
                TrafficRecord {
                    service_profile_id: "gold, or so".into(),
                    total_out_profile_ul_packets: 2,
                    ..TrafficRecord::new(a, Kind::Passive, [12, 240, 3, 12])
                },
                TrafficRecord::new(a, Kind::Handover, [1, 2, 3, 4]),
            ],
            activations: vec![begins(a, true), begins(b, true), begins(a, true), begins(a, false), all_month],
            for_us: vec![TrafficRecord::new(b, Kind::Passive, [5, 6, 0, 0])],
        };
        let usage = UsageView::new("2026-11".into(), month);
        assert_eq!(
            text(&usage),
            "Visitors of other networks in 2026-11:\n\
             HOME    ROAMING   PROFILE      UPLINKS  BYTES  DOWNLINKS  BYTES  OUT UP  OUT DOWN  BEGUN  ENDED\n\
             000001  Passive   -            0        0      0          0      0       0         1      0\n\
             C00ABC  Passive   gold, or so  12       240    3          12     2       0         2      1\n\
             C00ABC  Handover  -            1        2      3          4      0       0         0      0\n\
             \n\
             Our devices, carried by other networks:\n\
             BY      ROAMING  UPLINKS  BYTES  DOWNLINKS  BYTES\n\
             000001  Passive  5        6      0          0\n"
        );
        let csv = csv(&usage).map_err(|_| "no CSV").unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines[1], "2026-11,000001,Passive,0,0,0,0,1,0,,0,0");
        assert_eq!(lines[2], "2026-11,C00ABC,Passive,12,240,3,12,2,1,\"gold, or so\",2,0");
    }

    #[test]
    fn what_differs_is_said_with_its_sign() {
        let line = |element: &str, theirs, ours| Line {
            roaming_type: Kind::Passive,
            element: element.into(),
            theirs,
            ours,
        };
        let mut found = Found {
            issuer: NetId::from_msb([0, 0, 2]),
            month: "2026-11".into(),
            lines: vec![line("TotalULPackets", 10, 9), line("TotalDLPackets", 2, 2)],
            strangers: vec![DevEui::from_msb([1; 8])],
            chain_broken: true,
        };
        assert_eq!(
            compared(&found),
            "NetID 000002 on 2026-11: the records differ.\n\
             ROAMING  ELEMENT         THEIRS  OURS  DIFFERENCE\n\
             Passive  TotalULPackets  10      9     +1\n\
             Passive  TotalDLPackets  2       2     -\n\
             0101010101010101 is no device of ours.\n\
             It does not follow the statement before: a month is missing, or one was changed.\n"
        );
        (found.lines, found.strangers, found.chain_broken) = (vec![], vec![], false);
        assert_eq!(compared(&found), "NetID 000002 on 2026-11: both records agree.\n");
    }
}
