//! `roamgate registry run|account|oui`: the federation's DNS zone and the API by which its members change it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigArg, Fail, show};
use crate::clock::Clock;
use crate::discovery::{self, Resolver};
use crate::registry::access::{self, Scope};
use crate::registry::{self, Running, oui};
use crate::store::{self, Store};

/// The federation's registry.
#[derive(Debug, Subcommand)]
pub(super) enum RegistryCommand {
    /// Serve the zone and the API
    Run(ConfigArg),
    /// Make a member and its first key, which is shown once; while `registry run` does not run
    Account(AccountArgs),
    /// Take in files of the IEEE's assignments (MA-L, MA-M, MA-S as CSV); while `registry run` does not run
    Oui(OuiArgs),
}

/// Arguments of `registry oui`.
#[derive(Debug, Args)]
pub(super) struct OuiArgs {
    /// Files as the IEEE publishes them: oui.csv, mam.csv, oui36.csv
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigArg,
}

/// Arguments of `registry account`.
#[derive(Debug, Args)]
pub(super) struct AccountArgs {
    /// What the member is called
    name: String,
    /// It runs the registry: makes members, grants NetIDs and JoinEUIs
    #[arg(long)]
    operator: bool,
    #[command(flatten)]
    config: ConfigArg,
}

pub(super) async fn run(command: RegistryCommand, clock: Clock) -> Result<ExitCode, Fail> {
    match command {
        RegistryCommand::Run(args) => serve(&args, clock).await,
        RegistryCommand::Account(args) => account(args, clock).await,
        RegistryCommand::Oui(args) => oui_files(&args, clock).await,
    }
}

fn section(args: &ConfigArg) -> Result<(registry::Config, store::Config, discovery::Config), Fail> {
    let config = args.load()?.config;
    let section = config.registry.ok_or_else(|| {
        Fail::new(
            "the configuration has no [registry]",
            "docs/federation.md shows one; give its file with -c",
        )
    })?;
    Ok((section, config.store, config.discovery.unwrap_or_default()))
}

fn open(config: &store::Config, clock: &Clock) -> Result<Store, Fail> {
    let store = Store::open(config, clock.clone())
        .with_context(|| format!("open the store {}", config.url.path().display()))?;
    Ok(store)
}

async fn serve(args: &ConfigArg, clock: Clock) -> Result<ExitCode, Fail> {
    let (section, store, discovery) = section(args)?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for signals")?;
    let store = open(&store, &clock)?;
    let resolver = Resolver::new(discovery, clock.clone()).map_err(anyhow::Error::new)?;
    let running = Running::start(&section, resolver, store, &clock).await?;
    show(&format!(
        "The registry of {} is up.\nzone  on {} (UDP and TCP), signed as it is answered\npages http://{}/\nAPI   http://{}/v1/\nCtrl-C stops.\n",
        section.zone, running.dns.address, running.api.address, running.api.address
    ));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    running.stop().await?;
    Ok(ExitCode::SUCCESS)
}

async fn account(args: AccountArgs, clock: Clock) -> Result<ExitCode, Fail> {
    let (_, config, _) = section(&args.config)?;
    let store = open(&config, &clock)?;
    let (name, operator, chance) = (args.name.clone(), args.operator, clock.clone());
    let made = store.registry(move |book| {
        if book.member_named(&name)?.is_some() {
            return Ok((None, false));
        }
        let id = book.add_member(&name, operator)?;
        let (shown, key) = access::make(id, "first key", Scope::Admin, &chance);
        book.add_key(&key)?;
        book.audit(Some(id), None, "member added on the machine", &name)?;
        Ok((Some((id, shown)), true))
    });
    let made = made.await.map_err(anyhow::Error::new)?;
    store.close().await.map_err(anyhow::Error::new)?;
    let Some((id, key)) = made else {
        return Err(Fail::new(
            format!("there is a member {:?}", args.name),
            "choose another name, or make it a key through the API",
        ));
    };
    let role = if args.operator { "operator" } else { "member" };
    show(&format!(
        "{role} {id}, {}\n  key     {}\n  keep it: it is shown once, and opens everything of this member\n",
        args.name,
        key.as_str()
    ));
    Ok(ExitCode::SUCCESS)
}

async fn oui_files(args: &OuiArgs, clock: Clock) -> Result<ExitCode, Fail> {
    let (_, config, _) = section(&args.config)?;
    let mut all = Vec::new();
    for file in &args.files {
        let text = std::fs::File::open(file).with_context(|| format!("open {}", file.display()))?;
        let read = oui::read(std::io::BufReader::new(text));
        all.push(read.with_context(|| format!("{}", file.display()))?);
    }
    let told: Vec<String> =
        all.iter().map(|(bits, lines)| format!("{} assignments of {bits} bits\n", lines.len())).collect();
    let store = open(&config, &clock)?;
    let done = store.registry(move |book| {
        for (bits, lines) in &all {
            book.assign(*bits, lines)?;
        }
        book.audit(None, None, "assignments of the IEEE taken in", "on the machine")?;
        Ok(((), true))
    });
    done.await.map_err(anyhow::Error::new)?;
    store.close().await.map_err(anyhow::Error::new)?;
    show(&told.concat());
    Ok(ExitCode::SUCCESS)
}
