//! `roamgate update`: is there a newer version, and is after an update healthy what was healthy before?

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::device::view;
use super::{ConfigArg, Fail, show, show_json};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{Client, Health, Method};
use crate::limits::Lifetime;
use crate::pki::make::{self, NewFile};
use crate::update::{self, Version};

/// How often a hotspot that is not well yet is asked again.
const AGAIN: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
pub(super) enum UpdateCommand {
    /// Ask whether there is a newer version ([update] in the configuration). Installs nothing
    Check(CheckArgs),
    /// Say whether radios, store and control socket are well. Fails where one is not
    Healthy(HealthyArgs),
}

/// Arguments of `update check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// Arguments of `update healthy`.
#[derive(Debug, Args)]
pub(super) struct HealthyArgs {
    /// Write into this file what is well now, before an update
    #[arg(long, value_name = "FILE", conflicts_with = "like")]
    record: Option<PathBuf>,
    /// What this file says was well has to be, and nothing else
    #[arg(long = "as", value_name = "FILE", id = "like")]
    like: Option<PathBuf>,
    /// It may take so long: 30s, 10m
    #[arg(long, value_name = "TIME", default_value = "0s")]
    within: Lifetime,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// What was well, as it is kept over an update: an older program may read what a newer one wrote, when an update is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: u32,
    /// Whether the control socket answered at all.
    control: bool,
    store: bool,
    radios: BTreeMap<String, bool>,
}

const FORMAT: u32 = 1;

impl Record {
    fn of(health: Option<Health>) -> Record {
        match health {
            Some(Health { store, radios }) => Record { format: FORMAT, control: true, store, radios },
            None => Record { format: FORMAT, control: false, store: false, radios: BTreeMap::new() },
        }
    }

    /// What has to be well where nothing was written down: everything that there is.
    fn everything(&self) -> Record {
        let radios = self.radios.keys().map(|name| (name.clone(), true)).collect();
        Record { format: FORMAT, control: true, store: true, radios }
    }

    /// What was well and is not.
    fn missing(&self, now: &Record) -> Vec<String> {
        let mut missing = Vec::new();
        if self.control && !now.control {
            missing.push("the control socket does not answer".to_owned());
        }
        if self.store && !now.store {
            missing.push("the store's writer does not answer".into());
        }
        for (name, _) in self.radios.iter().filter(|(_, well)| **well) {
            if now.radios.get(name) != Some(&true) {
                missing.push(format!("radio {name} is not online"));
            }
        }
        missing
    }

    fn read(path: &Path) -> anyhow::Result<Record> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let record: Record = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        anyhow::ensure!(record.format == FORMAT, "{}: format {} is not known", path.display(), record.format);
        Ok(record)
    }
}

pub(super) async fn run(command: UpdateCommand, clock: Clock) -> Result<ExitCode, Fail> {
    match command {
        UpdateCommand::Check(args) => check(args, &clock).await,
        UpdateCommand::Healthy(args) => healthy(args, &clock).await,
    }
}

async fn check(args: CheckArgs, clock: &Clock) -> Result<ExitCode, Fail> {
    let config = args.config.load()?.checked()?.config;
    let Some(update) = &config.update else {
        return Err(Fail::new(
            "nobody is named who says which version is the newest",
            "[update] in docs/updates.md",
        ));
    };
    let newest = update::newest(update, clock).await.map_err(|error| {
        Fail::new(error.to_string(), "look at [update] url and roots, and at the network")
    })?;
    let (ours, newer) = (Version::ours(), newest.version > Version::ours());
    if args.json {
        show_json(&json!({ "version": ours, "newest": newest, "newer": newer }));
        return Ok(ExitCode::SUCCESS);
    }
    match newer {
        false => show(&format!("This is {ours}, and the newest is {}.\n", newest.version)),
        true => {
            show(&format!("This is {ours}. {} is there.\n", newest.version));
            if let Some(notes) = &newest.notes {
                show(&format!("What is new: {notes}\n"));
            }
            if let Some(bundle) = &newest.bundle {
                show(&format!("On an image: rauc install {bundle} && systemctl reboot\n"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn healthy(args: HealthyArgs, clock: &Clock) -> Result<ExitCode, Fail> {
    // one that is refused may be what the update has to be taken back for: it is read for the control socket only
    let config = args.config.load()?.config;
    let before = match &args.like {
        Some(file) => Some(Record::read(file)?),
        None => None,
    };
    let until = clock.now() + Duration::from_secs(args.within.seconds().into());
    let (now, missing) = loop {
        let now = Record::of(asked(&config, clock).await);
        let missing = before.clone().unwrap_or_else(|| now.everything()).missing(&now);
        if missing.is_empty() || clock.now() >= until {
            break (now, missing);
        }
        clock.sleep(AGAIN).await;
    };
    let text = serde_json::to_string(&now).map_err(anyhow::Error::new)?;
    if let Some(file) = &args.record {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = file.file_name().and_then(|name| name.to_str()).context("the file has no name")?;
        let file = NewFile { name, text: &text, secret: false };
        make::write_files(folder, &[file], true).map_err(anyhow::Error::new)?;
    }
    if args.json {
        show_json(&json!({ "now": now, "missing": missing }));
    } else if missing.is_empty() {
        show("All is well.\n");
    } else {
        show(&format!("{}.\n", missing.join(". ")));
    }
    // to have written down what is ill is done, too
    Ok(if missing.is_empty() || args.record.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the running hotspot says, if one runs and says it in time.
async fn asked(config: &Config, clock: &Clock) -> Option<Health> {
    let ask = async {
        let client = Client::daemon(&config.control_socket()).await.ok()??;
        let answer = client.call::<()>(Method::GET, "/v1/health", None).await.ok()?;
        view::<Health>(answer).ok()
    };
    tokio::select! {
        health = ask => health,
        () = clock.sleep(Duration::from_secs(10)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(store: bool, radios: &[(&str, bool)]) -> Record {
        let radios = radios.iter().map(|(name, well)| ((*name).to_owned(), *well)).collect();
        Record::of(Some(Health { store, radios }))
    }

    #[test]
    fn what_was_ill_before_need_not_be_well() {
        let before = record(true, &[("roof", true), ("cellar", false)]);
        assert_eq!(before.missing(&record(true, &[("roof", true), ("cellar", false)])), [""; 0]);
        let worse = before.missing(&record(false, &[("cellar", true)]));
        assert_eq!(worse, ["the store's writer does not answer", "radio roof is not online"]);
        assert_eq!(before.missing(&Record::of(None)).len(), 3);
        // nothing ran before: nothing has to run after
        assert_eq!(Record::of(None).missing(&Record::of(None)), [""; 0]);
    }

    #[test]
    fn where_nothing_was_written_down_everything_has_to_be_well() {
        let now = record(true, &[("roof", false)]);
        assert_eq!(now.everything().missing(&now), ["radio roof is not online"]);
        assert_eq!(Record::of(None).everything().missing(&Record::of(None)).len(), 2);
    }
}
