//! `roamgate partner`: who may roam how, and which line of the configuration decided. From the daemon where one
//! runs, since it may have been started with another configuration; else from the configuration alone.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::device::{view, yes};
use super::{ConfigArg, Fail, show, show_json, table};
use crate::app::partners;
use crate::config::Config;
use crate::control::{Client, Method, PartnerView, PartnersView, Whereabouts};
use crate::limits::{RateLimit, RatePolicy};
use crate::lorawan::NetId;
use crate::partners::{Lifetime, Mode, Passive};

/// `roamgate partner`
#[derive(Debug, Subcommand)]
pub(super) enum PartnerCommand {
    /// Networks with an entry of their own, homes that were learnt, and what applies to all others.
    List(ListArgs),
    /// What applies to one network, listed or not.
    Show(ShowArgs),
}

/// `roamgate partner list`
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// `roamgate partner show`
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Any network: 6 hexadecimal digits
    #[arg(value_name = "NETID")]
    net_id: NetId,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

pub(super) async fn run(command: PartnerCommand) -> Result<ExitCode, Fail> {
    match command {
        PartnerCommand::List(args) => {
            let (config, daemon) = reach(&args.config).await?;
            let all = match daemon {
                Some(client) => view(client.call::<()>(Method::GET, "/v1/partners", None).await?)?,
                None => partners::all(&config, None),
            };
            if args.json { show_json(&value(&all)) } else { show(&list(&all)) }
        }
        PartnerCommand::Show(args) => {
            let (config, daemon) = reach(&args.config).await?;
            let path = format!("/v1/partners/{}", args.net_id);
            let one = match daemon {
                Some(client) => view(client.call::<()>(Method::GET, &path, None).await?)?,
                None => partners::one(&config, args.net_id, None),
            };
            if args.json { show_json(&value(&one)) } else { show(&text(&one)) }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn reach(config: &ConfigArg) -> Result<(Config, Option<Client>), Fail> {
    let config = config.load()?.config;
    let daemon = Client::daemon(&config.control_socket()).await?;
    Ok((config, daemon))
}

fn value(view: &impl serde::Serialize) -> serde_json::Value {
    // a view has no way to fail
    serde_json::to_value(view).unwrap_or_default()
}

fn list(all: &PartnersView) -> String {
    let mut rows = vec![["NETID", "PASSIVE", "HANDOVER", "SERVER", "DECIDED BY"].map(String::from).to_vec()];
    for partner in &all.partners {
        let server = match &partner.server {
            Whereabouts::Configuration { url } => url.clone(),
            Whereabouts::Dns { name, .. } => name.clone(),
            Whereabouts::Nowhere { .. } => "-".into(),
        };
        rows.push(vec![
            partner.net_id.to_string(),
            summary(&partner.passive),
            allowed(partner.handover.activation, partner.handover.start).into(),
            server,
            partner.decided_by.clone(),
        ]);
    }
    let others = &all.everybody_else;
    let handover = allowed(others.handover.activation, others.handover.start).into();
    let passive = summary(&others.passive);
    rows.push(vec!["all others".into(), passive, handover, "-".into(), others.decided_by.clone()]);
    table(&rows)
}

/// What is allowed, and how it is done, in short.
fn summary(passive: &Passive) -> String {
    let mut text = allowed(passive.activation, passive.start).to_string();
    if passive.any() && passive.lifetime > Lifetime::NONE {
        text += &format!(", for {}", passive.lifetime);
    }
    if passive.any() && passive.mic_check {
        text += ", MICs checked";
    }
    text
}

fn lifetime(passive: &Passive) -> String {
    match passive.lifetime {
        Lifetime::NONE => "0s: stateless, every uplink asks anew".into(),
        lifetime => format!("{lifetime}: so long it forwards a device of ours by one context"),
    }
}

fn mic_check(passive: &Passive) -> &'static str {
    if passive.mic_check {
        "yes: the network that forwards checks uplinks, with a key of the home"
    } else {
        "no"
    }
}

fn handover(partner: &PartnerView) -> String {
    let what = allowed(partner.handover.activation, partner.handover.start);
    if partner.handover.any() {
        format!("{what}: the network that is visited serves the device, with the keys of its session")
    } else {
        what.into()
    }
}

fn allowed(activation: bool, start: bool) -> &'static str {
    match (activation, start) {
        (true, true) => "joins, data",
        (true, false) => "joins",
        (false, true) => "data",
        (false, false) => "nothing",
    }
}

fn text(partner: &PartnerView) -> String {
    let server = match &partner.server {
        Whereabouts::Configuration { url } => format!("{url} (of its entry, instead of DNS)"),
        Whereabouts::Dns { name, answer: None } => format!("as DNS says of {name}"),
        Whereabouts::Dns { name, answer: Some(line) } => {
            format!("as DNS says of {name}: {}", super::dns::known(line))
        }
        Whereabouts::Nowhere { why } => format!("not asked: {why}"),
    };
    let mut certificate = partner.identity.clone();
    if let Some(pin) = &partner.pin {
        certificate += &format!(", with the key {pin}");
    }
    if partner.own_roots {
        certificate += ", below a root of its entry";
    }
    let mut lines = vec![
        ("NetID", partner.net_id.to_string()),
        ("listed", yes(partner.listed)),
        ("passive", allowed(partner.passive.activation, partner.passive.start).to_string()),
        ("lifetime", lifetime(&partner.passive)),
        ("MIC check", mic_check(&partner.passive).to_string()),
        ("handover", handover(partner)),
        ("decided by", partner.decided_by.clone()),
        ("server", server),
        ("certificate", certificate),
        ("believed by", format!("the word of {}", partner.trust)),
        ("asked in", format!("TS002 {}", partner.asked_in)),
    ];
    if partner.mode == Mode::Async {
        lines.push(("answered", "by requests of our own to its server".into()));
    }
    if !partner.quirks.is_empty() {
        let quirks: Vec<String> = partner.quirks.iter().map(ToString::to_string).collect();
        lines.push(("quirks", quirks.join(", ")));
    }
    if !partner.passive.any() {
        lines.retain(|(name, _)| !matches!(*name, "lifetime" | "MIC check"));
    }
    if let Some(airtime) = partner.airtime {
        lines.push(("airtime", format!("{airtime} a day for downlinks to its visitors")));
    }
    for (name, what, limit) in [("uplinks", "from", partner.ul), ("downlinks", "to", partner.dl)] {
        if let Some(RateLimit { rate, bucket, policy }) = limit {
            let above = match policy {
                RatePolicy::Drop => "it drops those above",
                RatePolicy::Mark => "it marks those above in its records",
            };
            let text = format!("{rate} an hour, {bucket} at once, {what} each device of ours there; {above}");
            lines.push((name, text));
        }
    }
    if !partner.passive.defer.is_none() {
        let text = format!(
            "{}: so long it is not wanted where our own radio hears the device",
            partner.passive.defer
        );
        lines.push(("deferred", text));
    }
    if let Some(label) = &partner.kek {
        lines.push(("key label", label.clone()));
    }
    if partner.ours {
        lines.retain(|(name, _)| matches!(*name, "NetID" | "decided by" | "certificate"));
        lines.insert(1, ("ours", "yes: nothing has to be agreed with it".into()));
    }
    let list = |of: &[NetId]| of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !partner.speaks_for.is_empty() {
        lines.push(("speaks for", list(&partner.speaks_for)));
    }
    if !partner.spoken_for_by.is_empty() {
        lines.push(("spoken for by", list(&partner.spoken_for_by)));
    }
    if partner.learnt == Some(true) {
        lines.push(("learnt", "yes: a join server has named it as the home of a visitor".into()));
    }
    table(&lines.into_iter().map(|(name, text)| vec![name.to_string(), text]).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Everybody;
    use crate::partners::Switches;

    fn partner() -> PartnerView {
        PartnerView {
            net_id: "C0002F".parse().unwrap(),
            ours: false,
            listed: true,
            trust: crate::pki::dane::Evidence::PkixOrDane,
            passive: Passive {
                start: true,
                activation: false,
                lifetime: Lifetime::of_seconds(3600),
                mic_check: true,
                defer: Lifetime::of_seconds(600),
            },
            handover: Switches { start: false, activation: true },
            airtime: Some(Lifetime::of_seconds(60)),
            ul: Some(RateLimit { rate: 60, bucket: 10, policy: RatePolicy::Drop }),
            dl: Some(RateLimit { rate: 6, bucket: 2, policy: RatePolicy::Mark }),
            decided_by: "[[roaming.partner]] net_id = \"C0002F\"".into(),
            server: Whereabouts::Configuration { url: "https://ns.example:7005".into() },
            identity: "ns.example".into(),
            pin: Some("sha256/AAAA".into()),
            asked_in: "1.1".into(),
            quirks: [crate::partners::Quirk::LowerHex, crate::partners::Quirk::OldRegions].into(),
            mode: Mode::Async,
            own_roots: true,
            kek: Some("ns1-ns2".into()),
            speaks_for: vec!["00050A".parse().unwrap(), "00050B".parse().unwrap()],
            spoken_for_by: vec![],
            learnt: Some(true),
        }
    }

    #[test]
    fn a_list_ends_with_what_applies_to_all_others() {
        let everybody_else = Everybody {
            passive: Passive::default(),
            handover: Switches::default(),
            decided_by: "there is no [roaming.default]".into(),
        };
        assert_eq!(
            list(&PartnersView { partners: vec![partner()], everybody_else }),
            "NETID       PASSIVE                     HANDOVER  SERVER                   DECIDED BY\n\
             C0002F      data, for 1h, MICs checked  joins     https://ns.example:7005  [[roaming.partner]] net_id = \"C0002F\"\n\
             all others  nothing                     nothing   -                        there is no [roaming.default]\n"
        );
    }

    #[test]
    fn one_partner_shows_all_that_its_entry_says() {
        let text = text(&partner());
        for words in [
            "server       https://ns.example:7005 (of its entry, instead of DNS)\n",
            "lifetime     1h: so long",
            "MIC check    yes",
            "handover     joins: the network that is visited",
            "airtime      1m a day",
            "uplinks      60 an hour, 10 at once, from each device of ours there; it drops those above\n",
            "downlinks    6 an hour, 2 at once, to each device of ours there; it marks those above in its records\n",
            "deferred     10m: so long",
            "key label    ns1-ns2\n",
            "certificate  ns.example, with the key sha256/AAAA, below a root of its entry\n",
            "believed by  the word of a root or a TLSA record\n",
            "asked in     TS002 1.1\n",
            "answered     by requests of our own",
            "quirks       lower-hex, old-regions\n",
            "speaks for   00050A, 00050B\n",
            "learnt       yes",
        ] {
            assert!(text.contains(words), "{text}");
        }
        let ours = super::text(&PartnerView { ours: true, speaks_for: vec![], ..partner() });
        assert!(ours.contains("ours         yes") && !ours.contains("passive"), "{ours}");
    }
}
