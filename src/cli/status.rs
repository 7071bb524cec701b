//! `roamgate status`: how the running hotspot is.

use std::process::ExitCode;

use clap::Args;

use super::device::{view, yes};
use super::{ConfigArg, Fail, client, show, show_json, table};
use crate::clock::Clock;
use crate::control::{Method, Status};

/// `roamgate status`
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// Exit code 1 where no daemon runs: what can be said without one is printed all the same.
pub(super) async fn run(args: StatusArgs, clock: Clock) -> Result<ExitCode, Fail> {
    let (client, store) = client(&args.config, false, &clock).await?;
    let answer = client.call::<()>(Method::GET, "/v1/status", None).await;
    if let Some(store) = store {
        store.close().await.map_err(anyhow::Error::new)?;
    }
    let value = answer?;
    let status: Status = view(value.clone())?;
    if args.json {
        show_json(&value)
    } else {
        show(&text(&status))
    }
    Ok(if status.uptime.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(status: &Status) -> String {
    let state = match status.uptime {
        Some(seconds) => format!("running for {}", duration(seconds)),
        None => "not running: start it with `roamgate run`".into(),
    };
    let net_ids: Vec<String> = status.net_ids.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        (format!("Roamgate {}", status.version), state),
        ("NetID".into(), net_ids.join(", ")),
        ("region".into(), status.region.clone()),
        ("roles".into(), status.roles.join(" ")),
        ("roaming".into(), yes(status.roaming)),
        ("devices".into(), status.devices.to_string()),
    ];
    if status.clock_unset {
        lines
            .push(("clock".into(), "nobody has set it: nobody roams until GPS, NTP or a person does".into()));
    }
    if status.uptime.is_some() {
        lines.push(("radio heads".into(), format!("{} online", status.heads)));
    }
    for radio in &status.radios {
        lines.push((String::new(), radio.clone()));
    }
    for (label, ways) in [("reached", &status.reached), ("certificate", &status.certificate)] {
        for (i, way) in ways.iter().enumerate() {
            lines.push((if i == 0 { label.into() } else { String::new() }, way.clone()));
        }
    }
    for (room, counters) in &status.counters {
        // what never happened is no news; JSON has it
        let counted: Vec<String> = counters
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        lines
            .push((room.clone(), if counted.is_empty() { "nothing yet".into() } else { counted.join(", ") }));
    }
    table(&lines.into_iter().map(|(name, text)| vec![name, text]).collect::<Vec<_>>())
}

fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_status_is_a_page_and_leaves_out_what_never_happened() {
        let counters = BTreeMap::from([
            ("fns".to_string(), BTreeMap::from([("heard".to_string(), 12), ("malformed".to_string(), 0)])),
            ("radio".to_string(), BTreeMap::from([("stray".to_string(), 0)])),
        ]);
        let status = Status {
            version: "0.1.0".into(),
            net_ids: vec!["C00ABC".parse().unwrap()],
            region: "EU868".into(),
            roles: vec!["fns".into(), "js".into()],
            uptime: Some(3720),
            radios: vec!["semtech-udp 0102030405060708 online, heard 12, sent 1".into()],
            heads: 1,
            reached: vec!["through front.example:443".into(), "not through b.example:443: it is full".into()],
            counters,
            clock_unset: true,
            ..Status::default()
        };
        assert_eq!(
            text(&status),
            "Roamgate 0.1.0  running for 1 h 2 min\n\
             NetID           C00ABC\n\
             region          EU868\n\
             roles           fns js\n\
             roaming         no\n\
             devices         0\n\
             clock           nobody has set it: nobody roams until GPS, NTP or a person does\n\
             radio heads     1 online\n\
             \x20               semtech-udp 0102030405060708 online, heard 12, sent 1\n\
             reached         through front.example:443\n\
             \x20               not through b.example:443: it is full\n\
             fns             heard 12\n\
             radio           nothing yet\n"
        );
    }

    #[test]
    fn a_duration_has_two_units_at_most() {
        let shown = [59, 61, 3600, 90_000].map(duration);
        assert_eq!(shown, ["59 s", "1 min", "1 h 0 min", "1 d 1 h"]);
    }
}
