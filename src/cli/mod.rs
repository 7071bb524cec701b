//! The command line, one file per subcommand.
//!
//! Owns arguments, what appears on the screen, and exit codes: 0 done, 1 failed, 2 wrong use, 78 bad
//! configuration. Every error is one clear line, and what to do about it on the next.

mod abp;
mod backup;
mod bulk;
mod certificate;
mod config;
mod device;
pub mod device_file;
mod device_try;
mod dns;
mod dns_zone;
mod doctor;
mod partner;
mod pki;
mod radio;
mod registry;
mod run;
mod spectrum;
mod status;
mod tail;
mod update;
mod usage;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::app::operator::Operator;
use crate::clock::Clock;
use crate::config::{ConfigError, Loaded};
use crate::control::{self, Client, ClientError};
use crate::demo;
use crate::radio::RadioError;
use crate::store::{OpenError, Store};
use crate::telemetry;
use crate::tls::TlsError;

/// EX_CONFIG of sysexits.
const BAD_CONFIGURATION: u8 = 78;

/// A LoRaWAN hotspot that roams.
#[derive(Debug, Parser)]
#[command(name = "roamgate", version, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "`roamgate demo` shows what it does; `roamgate run` does it, and needs no configuration."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What goes to the log, in the form of RUST_LOG: error, info, roamgate=debug
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the hotspot.
    Run(ConfigArg),
    /// Show a whole federation on this machine: a device joins at home, then away.
    Demo(demo::DemoArgs),
    /// Write, check or show the configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// The devices whose home this is.
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Who may roam how, where each partner is, and which line of the configuration decided.
    #[command(subcommand)]
    Partner(partner::PartnerCommand),
    /// What visitors of other networks were carried.
    #[command(subcommand)]
    Usage(usage::UsageCommand),
    /// What is wrong with configuration, clock, names, certificates and partners, and what to do. Fails where something is.
    Doctor(doctor::DoctorArgs),
    /// How the running hotspot is, and what it counted. Fails where none runs.
    Status(status::StatusArgs),
    /// From an identifier to its name in the DNS, and from there to addresses.
    #[command(subcommand)]
    Dns(dns::DnsCommand),
    /// Keys and certificates for roaming.
    #[command(subcommand)]
    Pki(pki::PkiCommand),
    /// The federation's registry: its DNS zone, and the API by which members change it.
    #[command(subcommand)]
    Registry(registry::RegistryCommand),
    /// Everything that makes this node this node, in one locked file; while it runs too.
    Backup(backup::BackupArgs),
    /// Put a backup back, here or on another box. Nothing that is sent repeats.
    Restore(backup::RestoreArgs),
    /// Whether there is a newer version, and whether an update did no harm.
    #[command(subcommand)]
    Update(update::UpdateCommand),
    /// The concentrator by hand: look, listen, send, scan, record; and its firmware.
    #[command(subcommand)]
    Radio(radio::RadioCommand),
    /// Follow frames and backend messages as they happen.
    Tail(tail::TailArgs),
}

/// Which configuration.
#[derive(Debug, Clone, Args)]
struct ConfigArg {
    /// The configuration file [default: /etc/roamgate/roamgate.toml where there is one, else none]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl ConfigArg {
    /// Read and understand, without checking combinations.
    fn load(&self) -> Result<Loaded, ConfigError> {
        // A variable that is not text cannot be one of ours.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        crate::config::load(self.file.as_deref(), variables)
    }
}

/// Why a command did not do it: lines for the screen and a code for the caller.
#[derive(Debug)]
struct Fail {
    code: u8,
    errors: Vec<Trouble>,
}

/// One error and its remedy.
#[derive(Debug)]
struct Trouble {
    error: String,
    remedy: Option<String>,
}

impl Fail {
    fn new(error: impl Into<String>, remedy: impl Into<String>) -> Fail {
        Fail::of(1, error.into(), Some(remedy.into()))
    }

    fn of(code: u8, error: String, remedy: Option<String>) -> Fail {
        Fail { code, errors: vec![Trouble { error, remedy }] }
    }

    /// To standard error.
    fn print(&self) {
        let mut text = String::new();
        for Trouble { error, remedy } in &self.errors {
            text.push_str(&format!("error: {error}\n"));
            if let Some(remedy) = remedy {
                text.push_str(&format!("  remedy: {remedy}\n"));
            }
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

impl From<ConfigError> for Fail {
    fn from(error: ConfigError) -> Fail {
        let errors = match error {
            ConfigError::Wrong(problems) => problems
                .into_iter()
                .map(|problem| Trouble { error: problem.what(), remedy: Some(problem.remedy) })
                .collect(),
            ConfigError::Read { .. } => {
                vec![Trouble { error: error.to_string(), remedy: Some(error.remedy().into()) }]
            }
        };
        Fail { code: BAD_CONFIGURATION, errors }
    }
}

impl From<ClientError> for Fail {
    fn from(error: ClientError) -> Fail {
        Fail::new(error.to_string(), error.remedy())
    }
}

impl From<anyhow::Error> for Fail {
    fn from(error: anyhow::Error) -> Fail {
        let remedy = error.chain().find_map(remedy_for);
        // the causes on one line; several of ours repeat their source in their own words
        let mut line = String::new();
        for cause in error.chain().map(ToString::to_string) {
            if !line.contains(&cause) {
                line = if line.is_empty() { cause } else { format!("{line}: {cause}") };
            }
        }
        // a certificate that is there and is not right is a fault of the configuration too
        let is_tls = error.chain().any(|cause| cause.is::<TlsError>());
        Fail::of(if is_tls { BAD_CONFIGURATION } else { 1 }, line, remedy)
    }
}

/// What to do about a cause, where it does not say so itself.
fn remedy_for(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    if let Some(OpenError::File { source, .. }) = cause.downcast_ref() {
        return Some(match source.kind() {
            PermissionDenied => {
                "run as the user that owns the data (often `sudo -u roamgate`), or name another [store] url"
                    .into()
            }
            _ => "make room or the folder, or name another [store] url".into(),
        });
    }
    if let Some(OpenError::Locked { .. }) = cause.downcast_ref() {
        return Some("one program at a time: stop the other, or name another [store] url".into());
    }
    let source = match cause.downcast_ref()? {
        RadioError::Bind { source, .. } => source,
        RadioError::Card { source, .. } => return Some(source.remedy().into()),
        RadioError::Thread { .. } => return None,
    };
    Some(match source.kind() {
        AddrInUse => "another program has that port, perhaps a network server: stop it, or name another [[radio]] listen".into(),
        AddrNotAvailable => "this machine has no such address: correct [[radio]] listen".into(),
        _ => "name another [[radio]] listen".into(),
    })
}

/// The command line's definition, for manual pages and completions.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// The whole program: parse, run, print what went wrong.
pub fn main() -> ExitCode {
    // clap answers wrong use with exit code 2 by itself
    let cli = Cli::parse();
    crate::tls::install_provider();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            Fail::of(1, format!("cannot start the runtime: {error}"), None).print();
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(cli.run(Clock::system()));
    // A reader of standard input may hang in a thread of its own: it must not keep us.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|fail| {
        fail.print();
        ExitCode::from(fail.code)
    })
}

impl Cli {
    async fn run(self, clock: Clock) -> Result<ExitCode, Fail> {
        let usual = if matches!(self.command, Command::Run(_)) { "info" } else { "warn" };
        let filter = self.log.or_else(|| std::env::var("RUST_LOG").ok()).unwrap_or_else(|| usual.into());
        let tap = telemetry::Tap::new(clock.clone());
        // the demo has a page of its own to write, and starts its own records
        if !matches!(self.command, Command::Demo(_)) {
            telemetry::init(&filter, &clock, Some(&tap))
                .map_err(|error| Fail::of(2, error.to_string(), Some("write it like --log info".into())))?;
        }
        match self.command {
            Command::Run(args) => run::run(args, clock, tap).await,
            Command::Demo(args) => done(demo::run(args, clock).await?),
            Command::Config(command) => config::run(command),
            Command::Device(command) => device::run(command, clock).await,
            Command::Partner(command) => partner::run(command).await,
            Command::Usage(command) => usage::run(command, clock).await,
            Command::Registry(command) => registry::run(command, clock).await,
            Command::Backup(args) => backup::backup(args, clock).await,
            Command::Update(command) => update::run(command, clock).await,
            Command::Restore(args) => backup::restore(args, clock).await,
            Command::Radio(command) => radio::run(command, clock).await,
            Command::Doctor(args) => doctor::run(args, clock).await,
            Command::Status(args) => status::run(args, clock).await,
            Command::Dns(command) => dns::run(command, clock).await,
            Command::Pki(command) => pki::run(&command, &clock).await,
            Command::Tail(args) => tail::run(args).await,
        }
    }
}

fn done(good: bool) -> Result<ExitCode, Fail> {
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The daemon where one runs, else the store itself, whose lock nobody else then gets.
/// `make`: where there is no database either, make one.
async fn client(config: &ConfigArg, make: bool, clock: &Clock) -> Result<(Client, Option<Store>), Fail> {
    let loaded = config.load()?;
    let socket = loaded.config.control_socket();
    if let Some(client) = Client::daemon(&socket).await? {
        return Ok((client, None));
    }
    let database = loaded.config.store.url.path();
    if !make && !database.exists() {
        return Err(Fail::new(
            format!(
                "no daemon answers at {}, and there is no database {}",
                socket.display(),
                database.display()
            ),
            "give the configuration with -c, or go to the folder that holds the data; `roamgate run` or `device add` make a new one",
        ));
    }
    let store = match Store::open(&loaded.config.store, clock.clone()) {
        Ok(store) => store,
        Err(error @ OpenError::Locked { .. }) => {
            return Err(Fail::new(
                error.to_string(),
                format!(
                    "a roamgate runs whose control socket is not at {}: give its configuration with -c",
                    socket.display()
                ),
            ));
        }
        Err(error) => return Err(anyhow::Error::new(error).into()),
    };
    let operator = Arc::new(Operator::alone(&loaded.config, store.clone(), clock.clone()));
    Ok((Client::Here(control::router(operator, None, clock.clone())), Some(store)))
}

/// Print; whoever closes the pipe has seen enough.
fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Print JSON as a person can read it and a program as well.
fn show_json(value: &serde_json::Value) {
    // a value has no way to fail
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    show(&(text + "\n"));
}

/// Columns under their heads, two spaces apart; the last one is as long as it likes.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_shows_its_causes_once() {
        let error =
            anyhow::anyhow!("no space left").context("write a.db: no space left").context("open the store");
        let fail = Fail::from(error);
        assert_eq!(fail.errors[0].error, "open the store: write a.db: no space left");
        assert_eq!(fail.code, 1);
    }

    #[test]
    fn a_table_is_aligned_by_characters() {
        let rows = [vec!["A".to_string(), "B".into()], vec!["äöü".into(), "x".into()]];
        assert_eq!(table(&rows), "A    B\näöü  x\n");
    }
}
