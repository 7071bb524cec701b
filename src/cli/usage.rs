//! `roamgate usage`: what visitors of other networks were carried. From the daemon where one runs, else from the store.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::device::view;
use super::{ConfigArg, Fail, client, show, show_json, table};
use crate::clock::Clock;
use crate::control::{Method, UsageView};
use crate::lorawan::NetId;
use crate::store::usage::month;

/// `roamgate usage`
#[derive(Debug, Subcommand)]
pub(super) enum UsageCommand {
    /// A month's traffic and activations of visitors, by their home.
    Report(ReportArgs),
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

pub(super) async fn run(command: UsageCommand, clock: Clock) -> Result<ExitCode, Fail> {
    let UsageCommand::Report(args) = command;
    let (client, store) = client(&args.config, false, &clock).await?;
    let wanted = args.month.clone().unwrap_or_else(|| month(clock.unix()));
    let answer = client.call::<()>(Method::GET, &format!("/v1/usage/{wanted}"), None).await;
    if let Some(store) = store {
        store.close().await.map_err(anyhow::Error::new)?;
    }
    let value = answer?;
    let usage: UsageView = view(value.clone())?;
    match (args.json, args.csv) {
        (true, _) => show_json(&value),
        (_, true) => show(&csv(&usage)),
        _ => show(&text(&usage)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Beginnings and ends by network.
fn activations(usage: &UsageView) -> BTreeMap<NetId, [u64; 2]> {
    let mut all: BTreeMap<NetId, [u64; 2]> = usage.traffic.iter().map(|one| (one.net_id, [0, 0])).collect();
    for record in &usage.activations {
        let ended = usize::from(record.deactivation_time.is_some());
        all.entry(record.net_id).or_default()[ended] += 1;
    }
    all
}

/// NetID, uplinks, bytes, downlinks, bytes, beginnings, ends.
fn rows(usage: &UsageView) -> Vec<Vec<String>> {
    let row = |(net_id, [begun, ended]): (NetId, [u64; 2])| {
        let traffic = usage.traffic.iter().find(|one| one.net_id == net_id);
        let [up, up_bytes, down, down_bytes] = traffic.map_or([0; 4], |one| {
            [one.total_ul_packets, one.total_ul_bytes, one.total_dl_packets, one.total_dl_bytes]
        });
        let counts = [up, up_bytes, down, down_bytes, begun, ended];
        std::iter::once(net_id.to_string()).chain(counts.map(|count| count.to_string())).collect()
    };
    activations(usage).into_iter().map(row).collect()
}

fn text(usage: &UsageView) -> String {
    let rows = rows(usage);
    if rows.is_empty() {
        return format!("No visitor of another network was carried in {}.\n", usage.month);
    }
    let head =
        ["HOME", "UPLINKS", "BYTES", "DOWNLINKS", "BYTES", "BEGUN", "ENDED"].map(String::from).to_vec();
    let mut all = vec![head];
    all.extend(rows);
    format!("Visitors of other networks in {}:\n{}", usage.month, table(&all))
}

fn csv(usage: &UsageView) -> String {
    let mut out =
        "month,net_id,ul_packets,ul_bytes,dl_packets,dl_bytes,activations,deactivations\n".to_string();
    for row in rows(usage) {
        // digits only: nothing to quote
        out.push_str(&format!("{},{}\n", usage.month, row.join(",")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::usage::{Month, Roaming, Traffic};

    #[test]
    fn networks_are_in_a_table_and_in_csv() {
        let (a, b) = (NetId::from_msb([0xC0, 0x0A, 0xBC]), NetId::from_msb([0, 0, 1]));
        let dev_eui = crate::lorawan::DevEui::from_msb([1; 8]);
        let traffic = vec![Traffic {
            net_id: a,
            roaming_type: "Passive".into(),
            ul_packets: 12,
            dl_packets: 3,
            ul_bytes: 240,
            dl_bytes: 12,
        }];
        let roams = |net_id, active| Roaming { net_id, dev_eui, active, at: 1_795_168_800 };
        let roaming = vec![roams(a, true), roams(b, true), roams(a, true), roams(a, false)];
        let usage = UsageView::new("2026-11".into(), Month { traffic, roaming });
        assert_eq!(
            text(&usage),
            "Visitors of other networks in 2026-11:\n\
             HOME    UPLINKS  BYTES  DOWNLINKS  BYTES  BEGUN  ENDED\n\
             000001  0        0      0          0      1      0\n\
             C00ABC  12       240    3          12     2      1\n"
        );
        let csv = csv(&usage);
        assert_eq!(csv.lines().nth(2), Some("2026-11,C00ABC,12,240,3,12,2,1"));
    }
}
