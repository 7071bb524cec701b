//! `roamgate device import` and `device export`: a file of devices in, a file of devices out.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use zeroize::Zeroizing;

use super::device::view;
use super::device_file::{self, Bad, Format, Row};
use super::{ConfigArg, Fail, Trouble, client, show};
use crate::clock::Clock;
use crate::control::{Client, ClientError, DeviceRecord, ImportDevices, Method};

/// Devices that are looked at in one request: often enough for a person to see it move.
const CHUNK: usize = 500;

/// `roamgate device import`
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The file; - reads standard input
    #[arg(value_name = "FILE|-")]
    from: PathBuf,
    /// What it is [default: as the file's name and beginning tell]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Only say what is wrong with it
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// `roamgate device export`
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// What to write [default: csv]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write root keys too: without them the devices cannot be imported elsewhere
    #[arg(long)]
    keys: bool,
    /// A file that is not there yet, for your eyes only; else it goes to the screen
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArg,
}

pub(super) async fn import(args: ImportArgs, clock: Clock) -> Result<ExitCode, Fail> {
    let path = args.from.clone();
    let name = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
    let text = tokio::task::spawn_blocking(move || read(&path)).await.map_err(std::io::Error::other);
    let text = text.and_then(|text| text).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::InvalidData => "save it as UTF-8",
            _ => "name a file that can be read, or - for standard input",
        };
        Fail::new(format!("cannot read {name}: {error}"), remedy)
    })?;
    let format = args.format.unwrap_or_else(|| Format::guess(&name, &text));
    let (rows, bad) = device_file::read(format, &text);
    if rows.is_empty() && bad.is_empty() {
        let remedy = "it has a line (CSV: after the header) or an array element for each device";
        return Err(Fail::new(format!("there is no device in {name}"), remedy));
    }
    // Where nothing would be written anyway, no store is made for it.
    let (client, store) = match client(&args.config, !args.dry_run && bad.is_empty(), &clock).await {
        Err(_) if !bad.is_empty() => return Err(refused(bad, &name)),
        client => client?,
    };
    let done = run(&client, rows, bad, args.dry_run, &name).await;
    if let Some(store) = store {
        store.close().await.map_err(anyhow::Error::new)?;
    }
    show(&done?);
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    if path == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text)?;
    } else {
        std::fs::File::open(path)?.read_to_string(&mut text)?;
    }
    Ok(text)
}

/// Look at all of them, then add all of them or none.
async fn run(
    client: &Client,
    rows: Vec<Row>,
    mut bad: Vec<Bad>,
    dry_run: bool,
    name: &str,
) -> Result<String, Fail> {
    let (lines, mut devices): (Vec<u64>, Vec<_>) = rows.into_iter().map(|row| (row.line, row.device)).unzip();
    let (count, progress) = (lines.len(), Progress::new(lines.len()));
    let mut checked = Vec::new();
    for place in (0..count).step_by(CHUNK) {
        progress.tell(place);
        let chunk = devices.drain(..CHUNK.min(devices.len())).collect();
        let request = ImportDevices { devices: chunk, dry_run: true };
        bad.extend(told(post(client, &request).await, &lines, place)?);
        checked.extend(request.devices);
    }
    progress.end();
    if bad.is_empty() && !dry_run {
        // somebody may have added one of them since we looked
        bad = told(post(client, &ImportDevices { devices: checked, dry_run }).await, &lines, 0)?;
    }
    if !bad.is_empty() {
        return Err(refused(bad, name));
    }
    let devices = if count == 1 { "1 device".to_string() } else { format!("{count} devices") };
    Ok(match (dry_run, client) {
        (true, _) => format!("{devices} in {name} can be imported. Nothing was written.\n"),
        (_, Client::Daemon(_)) => {
            format!("Imported {devices}. They can join now: `roamgate tail` shows it.\n")
        }
        (_, Client::Here(_)) => format!("Imported {devices}. They can join when `roamgate run` runs.\n"),
    })
}

async fn post(client: &Client, request: &ImportDevices) -> Result<serde_json::Value, ClientError> {
    client.call(Method::POST, "/v1/devices/import", Some(request)).await
}

/// The rows that an answer calls wrong, with their lines; `first` is the place of the first one asked for.
fn told(
    answer: Result<serde_json::Value, ClientError>,
    lines: &[u64],
    first: usize,
) -> Result<Vec<Bad>, Fail> {
    match answer {
        Ok(_) => Ok(Vec::new()),
        Err(ClientError::Said(trouble)) if !trouble.rows.is_empty() => {
            let bad = trouble.rows.into_iter().map(|row| Bad {
                line: lines.get(first + row.row).copied().unwrap_or_default(),
                reason: row.error,
                remedy: Some(row.remedy),
            });
            Ok(bad.collect())
        }
        Err(error) => Err(error.into()),
    }
}

/// Every bad line, then what it means.
fn refused(mut bad: Vec<Bad>, name: &str) -> Fail {
    bad.sort_by_key(|bad| bad.line);
    let count = bad.len();
    let mut errors: Vec<Trouble> = bad
        .into_iter()
        .map(|bad| Trouble { error: format!("{name}:{}: {}", bad.line, bad.reason), remedy: bad.remedy })
        .collect();
    let (faults, them) =
        if count == 1 { ("1 fault".into(), "it") } else { (format!("{count} faults"), "them") };
    errors.push(Trouble {
        error: format!("{faults} in {name}: nothing was imported"),
        remedy: Some(format!("correct {them} and import the file again")),
    });
    Fail { code: 1, errors }
}

/// How far it is, where a person looks.
struct Progress {
    count: usize,
    shown: bool,
}

impl Progress {
    fn new(count: usize) -> Progress {
        Progress { count, shown: count > CHUNK && std::io::stderr().is_terminal() }
    }
    fn tell(&self, done: usize) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r{done} of {} devices looked at", self.count);
        }
    }
    fn end(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

pub(super) async fn export(args: ExportArgs, clock: Clock) -> Result<ExitCode, Fail> {
    let (client, store) = client(&args.config, false, &clock).await?;
    let path = if args.keys { "/v1/devices/export-with-keys" } else { "/v1/devices/export" };
    let answer = client.call::<()>(Method::GET, path, None).await;
    if let Some(store) = store {
        store.close().await.map_err(anyhow::Error::new)?;
    }
    let devices: Vec<DeviceRecord> = view(answer?)?;
    let format = args.format.unwrap_or_else(|| match &args.output {
        Some(path) => Format::guess(&path.to_string_lossy(), ""),
        None => Format::Csv,
    });
    let text = device_file::write(format, &devices, args.keys).map(Zeroizing::new);
    let text =
        text.map_err(|error| Fail::new(format!("cannot write the list: {error}"), "try --format json"))?;
    match &args.output {
        Some(path) => write(path, &text)?,
        None => show(&text),
    }
    if args.keys {
        let place = args.output.as_ref().map_or("This output".into(), |path| path.display().to_string());
        let said = format!(
            "{place} holds the root keys of {} devices: whoever reads it can speak for them and read what they say.\n",
            devices.len()
        );
        let _ = std::io::stderr().write_all(said.as_bytes());
    } else if let Some(path) = &args.output {
        show(&format!("Wrote {} devices to {}, without keys.\n", devices.len(), path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// A new file for its owner alone, on disk when this returns.
fn write(path: &Path, text: &str) -> Result<(), Fail> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all())).map_err(
        |error| {
            let remedy = match error.kind() {
                std::io::ErrorKind::AlreadyExists => "move it away, or name another: nothing is overwritten",
                _ => "name a file in a folder that you may write to, with room on its disk",
            };
            Fail::new(format!("cannot write {}: {error}", path.display()), remedy)
        },
    )
}
