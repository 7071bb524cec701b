//! `roamgate backup` and `roamgate restore`: the way back when the box, or its card, is gone.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{ConfigArg, Fail, client, show};
use crate::app::backups;
use crate::app::way::Way;
use crate::backend;
use crate::backup::archive::{self, Contents, Opener, Recipient};
use crate::backup::kept::Entry;
use crate::backup::shelf;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::control::{Client, MakeBackup};
use crate::lorawan::NetId;
use crate::pki::folder::Folder;
use crate::pki::make::{self, NewFile};
use crate::store::{KeySource, Store, snapshot};

/// Arguments of `backup`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct BackupArgs {
    #[command(subcommand)]
    command: Option<BackupCommand>,
    /// The file to write; it must not be there yet
    #[arg(required = true, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Who can open it: age1…; may be repeated. Those of [backup] where none is named
    #[arg(long, value_name = "RECIPIENT", conflicts_with = "passphrase_file")]
    recipient: Vec<Recipient>,
    /// Whoever knows what is in this file can open it
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Make a key that opens backups; keep it where the box is not. Prints the recipient to lock them for
    Key {
        /// The file to write; it must not be there yet
        file: PathBuf,
    },
    /// List the backups that are kept here for partners, or what a partner keeps for us
    Kept {
        /// The partner whose hotspot is asked
        #[arg(long, value_name = "NETID")]
        at: Option<NetId>,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Bring a backup of ours back from a partner's hotspot. Any box with a certificate for our NetID may ask for it
    Fetch {
        /// The partner that keeps it
        #[arg(value_name = "NETID")]
        from: NetId,
        /// The file to write; it must not be there yet
        #[arg(value_name = "FILE")]
        to: PathBuf,
        /// Which one, as `backup kept` calls it; the newest where none is named
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        config: ConfigArg,
    },
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// The key that opens it, as `roamgate backup key` made it
    #[arg(long, value_name = "FILE", required_unless_present = "passphrase_file")]
    key: Option<PathBuf>,
    /// The passphrase that opens it
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    passphrase_file: Option<PathBuf>,
    /// End all sessions: devices have to join again, and nothing of theirs can be accepted twice
    #[arg(long)]
    rejoin: bool,
    /// Where files are in the way, put them aside (as FILE.before-restore)
    #[arg(long)]
    force: bool,
    /// Only say what is in it
    #[arg(long)]
    look: bool,
}

pub(super) async fn backup(args: BackupArgs, clock: Clock) -> Result<ExitCode, Fail> {
    match &args.command {
        Some(BackupCommand::Key { file }) => return key(file),
        Some(BackupCommand::Kept { at, config }) => return kept(*at, config, &clock).await,
        Some(BackupCommand::Fetch { from, to, name, config }) => {
            return fetch(*from, to, name.as_deref(), config, &clock).await;
        }
        None => {}
    }
    let file = args.to.clone().context("name the file to write")?;
    is_free(&file)?;
    let (folder, name) = place(&file)?;
    let body = match &args.passphrase_file {
        Some(path) => MakeBackup { passphrase: Some(secret(path)?), ..MakeBackup::default() },
        None => MakeBackup { recipients: recipients(&args)?, ..MakeBackup::default() },
    };
    let (client, store): (Client, Option<Store>) = client(&args.config, false, &clock).await?;
    let packed = client.file("/v1/backup", &body).await;
    if let Some(store) = store {
        store.close().await.map_err(anyhow::Error::new)?;
    }
    let packed = packed.map_err(|error| Fail::new(error.to_string(), error.remedy()))?;
    shelf::write(&folder, &name, &packed).map_err(anyhow::Error::new)?;
    show(&format!(
        "{}: {} bytes, with database, keys, counters, certificates and configuration\n",
        file.display(),
        packed.len()
    ));
    Ok(ExitCode::SUCCESS)
}

fn recipients(args: &BackupArgs) -> Result<Vec<Recipient>, Fail> {
    if !args.recipient.is_empty() {
        return Ok(args.recipient.clone());
    }
    let backup = args.config.load()?.config.backup;
    let all = backup.map(|backup| backup.recipients).unwrap_or_default();
    match all.is_empty() {
        false => Ok(all),
        true => Err(Fail::new(
            "nobody could open it",
            "name a --recipient (`roamgate backup key` makes one) or a --passphrase-file",
        )),
    }
}

fn is_free(file: &Path) -> Result<(), Fail> {
    match file.symlink_metadata().is_ok() {
        true => Err(Fail::new(format!("{} is there already", file.display()), "choose another name")),
        false => Ok(()),
    }
}

fn key(file: &Path) -> Result<ExitCode, Fail> {
    is_free(file)?;
    let (text, recipient) = archive::new_key();
    let (folder, name) = place(file)?;
    make::write_files(&folder, &[NewFile { name: &name, text: &text, secret: true }], false)
        .map_err(anyhow::Error::new)?;
    show(&format!(
        "{recipient}\n  {} opens what is locked for it: keep it where the box is not\n  next    recipients = [\"{recipient}\"] in [backup], or --recipient\n",
        file.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// The way to partners, with what this box shows them.
fn partners(config: &ConfigArg, clock: &Clock) -> anyhow::Result<backend::client::Client> {
    let way = Way::new(&config.load()?.config, clock)?;
    way.out(way.resolver()?)?
        .context("there is no [backend] in the configuration, so no partner can be asked")
}

async fn kept(at: Option<NetId>, config: &ConfigArg, clock: &Clock) -> Result<ExitCode, Fail> {
    let list = |owner: &str, all: &[Entry]| -> String {
        all.iter().map(|entry| format!("{owner}  {}  {} bytes\n", entry.name, entry.length)).collect()
    };
    let text = match at {
        Some(partner) => {
            let all = partners(config, clock)?.left(partner).await.map_err(anyhow::Error::new)?;
            match all.is_empty() {
                true => format!("NetID {partner} keeps nothing of ours.\n"),
                false => list(&partner.to_string(), &all),
            }
        }
        None => {
            let kept = backups::kept(&config.load()?.config);
            let mut text = String::new();
            for owner in kept.owners().context("look at what is kept for partners")? {
                let all = kept.list(owner).with_context(|| kept.of(owner).display().to_string())?;
                text += &format!("{}in {}\n", list(&owner.to_string(), &all), kept.of(owner).display());
            }
            match text.is_empty() {
                true => "Nothing is kept here for partners.\n".into(),
                false => text,
            }
        }
    };
    show(&text);
    Ok(ExitCode::SUCCESS)
}

async fn fetch(
    from: NetId,
    file: &Path,
    name: Option<&str>,
    config: &ConfigArg,
    clock: &Clock,
) -> Result<ExitCode, Fail> {
    is_free(file)?;
    let (folder, to) = place(file)?;
    let client = partners(config, clock)?;
    let name = match name {
        Some(name) => name.to_owned(),
        None => {
            let mut all = client.left(from).await.map_err(anyhow::Error::new)?;
            let newest = all.pop().with_context(|| format!("NetID {from} keeps nothing of ours"))?;
            newest.name
        }
    };
    let packed = client.fetch(from, &name).await.map_err(anyhow::Error::new)?;
    shelf::write(&folder, &to, &packed).map_err(anyhow::Error::new)?;
    show(&format!(
        "{}: {name}, {} bytes\n  next    roamgate restore {} --key FILE\n",
        file.display(),
        packed.len(),
        file.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn secret(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    Ok(Zeroizing::new(std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?))
}

/// The folder of a file, and its name there.
fn place(file: &Path) -> anyhow::Result<(PathBuf, String)> {
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} names no file", file.display()))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok((folder.unwrap_or(Path::new(".")).to_owned(), name.to_owned()))
}

pub(super) async fn restore(args: RestoreArgs, clock: Clock) -> Result<ExitCode, Fail> {
    let opener = match (&args.key, &args.passphrase_file) {
        (Some(path), _) => Opener::from_file(&secret(path)?).map_err(anyhow::Error::new)?,
        (None, Some(path)) => Opener::passphrase(&secret(path)?),
        (None, None) => return Err(Fail::new("nothing opens it", "name its --key or --passphrase-file")),
    };
    let file = std::fs::File::open(&args.file).with_context(|| format!("open {}", args.file.display()))?;
    let contents =
        archive::unpack(BufReader::new(file), &opener).with_context(|| args.file.display().to_string())?;
    let database = snapshot::marked(&contents.database, contents.made, args.rejoin)
        .map_err(|error| Fail::new(error, "use the backup before this one"))?;
    show(&about(&contents));
    if args.look {
        return Ok(ExitCode::SUCCESS);
    }
    let config = match contents.config.clone() {
        Some((path, text)) => config::parse(Some(path), text, std::iter::empty())?.config,
        // made by a hotspot without a file: what holds here is what held there
        None => ConfigArg { file: None }.load()?.config,
    };
    let socket = config.control_socket();
    if Client::daemon(&socket).await.is_ok_and(|client| client.is_some()) {
        return Err(Fail::new(
            "a hotspot runs with this configuration",
            "stop it first: systemctl stop roamgate",
        ));
    }
    let written = write(&contents, &database, &config, args.force)?;
    let store = Store::open(&config.store, clock).map_err(anyhow::Error::new)?;
    let done = store.came_back().await;
    store.close().await.map_err(anyhow::Error::new)?;
    let done = done.map_err(anyhow::Error::new)?.unwrap_or_default();
    let mut text = format!("{written} files are back.\n{} devices can join", done.devices);
    match args.rejoin {
        true => {
            text += &format!(
                "; {} sessions have ended, {} of personalised devices go on.\n",
                done.ended, done.sessions
            )
        }
        false => {
            text += &format!(
                ", {} sessions go on.\nUplinks from before may be accepted once more; --rejoin would end all sessions.\n",
                done.sessions
            )
        }
    }
    if done.exhausted > 0 {
        text +=
            &format!("{} devices have used up their JoinNonces: give them new root keys.\n", done.exhausted);
    }
    text += "The box from which the backup is must not run any more: both would send with the same keys.\n";
    show(&text);
    Ok(ExitCode::SUCCESS)
}

fn about(contents: &Contents) -> String {
    let made = i64::try_from(contents.made).ok().and_then(|made| Timestamp::from_second(made).ok());
    let made = made.map(|made| made.strftime("%Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default();
    let config =
        contents.config.as_ref().map(|(path, _)| format!("\n  {}", path.display())).unwrap_or_default();
    let files: String = contents.files.iter().map(|kept| format!("\n  {}", kept.path.display())).collect();
    format!(
        "backup of {}, made on {made}: a database of {} bytes{config}{files}\n",
        contents.net_ids.join(", "),
        contents.database.len()
    )
}

/// Put everything where it was. How many files.
fn write(contents: &Contents, image: &[u8], config: &Config, force: bool) -> anyhow::Result<usize> {
    let database = config.store.url.path();
    let sealing_key = match &config.store.key {
        Some(KeySource::File(path)) => path.clone(),
        // where the store looks for one that nobody configures
        Some(KeySource::Credential(_)) | None => snapshot::belongings(database)[3].clone(),
    };
    if let Some(KeySource::Credential(_)) = &config.store.key {
        bail!(
            "the keys of this database were sealed with a systemd credential: set it up again with the hex digits that \
             `age -d -i KEY FILE | tar -xzO sealing-key` prints, set [store] key = {{ file = ... }} to them, and restore once more"
        );
    }
    let mut all: Vec<(PathBuf, bool, &[u8])> = Vec::new();
    if let Some((path, text)) = &contents.config {
        all.push((path.clone(), false, text.as_bytes()));
    }
    all.extend(contents.files.iter().map(|kept| (kept.path.clone(), kept.secret, &kept.bytes[..])));
    let key = Zeroizing::new(format!("{}\n", contents.sealing_key.as_str()));
    all.push((sealing_key, true, key.as_bytes()));
    all.push((database.to_owned(), true, image));
    let in_the_way = all.iter().map(|(path, ..)| path.clone()).chain(snapshot::belongings(database));
    let mut in_the_way: Vec<PathBuf> = in_the_way.filter(|path| path.symlink_metadata().is_ok()).collect();
    in_the_way.sort();
    in_the_way.dedup();
    if !force && !in_the_way.is_empty() {
        let named: Vec<String> = in_the_way.iter().map(|path| path.display().to_string()).collect();
        bail!("these are in the way: {}; --force puts them aside", named.join(", "));
    }
    for path in &in_the_way {
        let aside = PathBuf::from(format!("{}.before-restore", path.display()));
        std::fs::rename(path, &aside).with_context(|| format!("put {} aside", path.display()))?;
    }
    for (path, secret, bytes) in &all {
        put(path, *secret, bytes).with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(backend::Identity::Folder(folder)) = config.backend.as_ref().map(|backend| &backend.identity)
    {
        Folder::new(folder).take_up()?;
    }
    Ok(all.len())
}

fn put(path: &Path, secret: bool, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let mode = if secret { 0o600 } else { 0o644 };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
