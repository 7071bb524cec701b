//! `roamgate config`: a file to start from, what is wrong with one, what is in force.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{BAD_CONFIGURATION, ConfigArg, Fail, show, show_json, table};
use crate::backend::Reachability;
use crate::config::{Config, ConfigError, DEFAULT_PATH, Loaded, Place, Problem};
use crate::radio;

/// The file that `config init` writes: everything in it is either in force by default or commented out.
const STARTER: &str = include_str!("starter.toml");

/// `roamgate config`
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Write a commented file to start from. Never overwrites.
    Init(InitArgs),
    /// Say what is wrong with the configuration, and where.
    Check(ShowArgs),
    /// Print the configuration in force: file, ROAMGATE__SECTION__KEY variables and defaults.
    Show(ShowArgs),
}

/// `roamgate config init`
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Where to write it
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = DEFAULT_PATH)]
    file: PathBuf,
}

/// `roamgate config check` and `show`
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: ConfigCommand) -> Result<ExitCode, Fail> {
    match command {
        ConfigCommand::Init(args) => init(&args.file),
        ConfigCommand::Check(args) => check(&args),
        ConfigCommand::Show(args) => {
            let config = args.config.load()?.config;
            if args.json {
                show_json(&config.to_json().map_err(|error| Fail::of(1, error.to_string(), None))?);
            } else {
                show(&config.to_toml().map_err(|error| Fail::of(1, error.to_string(), None))?);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn init(path: &Path) -> Result<ExitCode, Fail> {
    let written = OpenOptions::new().write(true).create_new(true).open(path);
    written.and_then(|mut file| file.write_all(STARTER.as_bytes())).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "it was left as it is; name another with -c FILE",
            std::io::ErrorKind::NotFound => "make the folder first, or write it here: -c roamgate.toml",
            _ => "use sudo, or write it here: -c roamgate.toml",
        };
        Fail::new(format!("cannot write {}: {error}", path.display()), remedy)
    })?;
    let path = path.display();
    show(&format!(
        "Wrote {path}: a standalone hotspot, every key explained.\n\
         Edit it, then:  roamgate config check -c {path}\n\
         \x20               roamgate run -c {path}\n"
    ));
    Ok(ExitCode::SUCCESS)
}

fn check(args: &ShowArgs) -> Result<ExitCode, Fail> {
    let checked = args.config.load().and_then(Loaded::checked);
    if args.json {
        let problems = match &checked {
            Ok(_) => Vec::new(),
            Err(ConfigError::Wrong(problems)) => problems.iter().map(problem_json).collect(),
            Err(error) => vec![json!({ "reason": error.to_string(), "remedy": error.remedy() })],
        };
        show_json(&json!({ "ok": problems.is_empty(), "problems": problems }));
        let code = if problems.is_empty() { 0 } else { BAD_CONFIGURATION };
        return Ok(ExitCode::from(code));
    }
    let loaded = checked?;
    let source = match &loaded.path {
        Some(path) => path.display().to_string(),
        None => format!("the defaults ({DEFAULT_PATH} is not there)"),
    };
    let variables = match loaded.variables.len() {
        0 => String::new(),
        1 => " with 1 environment variable".into(),
        more => format!(" with {more} environment variables"),
    };
    show(&format!("Nothing is wrong in {source}{variables}.\n{}", summary(&loaded.config)));
    Ok(ExitCode::SUCCESS)
}

/// What a configuration makes of this machine, in a few lines.
pub(super) fn summary(config: &Config) -> String {
    let mut rows = Vec::new();
    let mut row = |name: &str, text: String| rows.push(vec![format!("  {name}"), text]);
    let join = |items: Vec<String>| items.join(", ");
    let net_ids = join(config.network.net_ids.all().iter().map(ToString::to_string).collect());
    let roles = config.network.roles.iter().map(|role| role.to_string()).collect::<Vec<_>>().join(" ");
    let plan = config.network.plan();
    let bands = match plan.is_whole() {
        true => String::new(),
        false => format!(" sub-bands {}", plan.sub_bands()),
    };
    row("network", format!("NetID {net_ids}, {plan}{bands}, roles {roles}"));
    let is_front_only = config.network.roles.is_front_only();
    for radio in config.radio.iter().filter(|_| !is_front_only) {
        row(
            "radio",
            match radio {
                radio::Config::SemtechUdp(radio) => {
                    format!("packet forwarders (Semtech UDP) on {}", radio.listen)
                }
                radio::Config::Sx1302(radio) => radio.summary(),
            },
        );
    }
    if config.radio.is_empty() && !is_front_only {
        row("radio", "none".into());
    }
    if !is_front_only {
        row("roaming", roaming(config));
    }
    if let Some(backend) = config.backend.as_ref().filter(|_| !is_front_only) {
        let fronts: Vec<String> =
            backend.reachability.fronts().iter().map(|front| front.server.clone()).collect();
        let mapped = matches!(backend.reachability, Reachability::Mapped(_));
        let listen = match (backend.listen, fronts.is_empty()) {
            (Some(listen), true) if mapped => {
                format!("listens on {listen} (HTTPS), at a port that the router is asked to forward")
            }
            (Some(listen), true) => format!("listens on {listen} (HTTPS)"),
            (Some(listen), false) => format!("listens on {listen} (HTTPS), reached through {}", join(fronts)),
            (None, false) => format!("reached through {}", join(fronts)),
            (None, true) => "does not listen: downlinks ride in the answers".into(),
        };
        row("backend", listen);
    }
    if let Some(front) = &config.front {
        let whom = match (front.anyone, front.hotspot.len()) {
            (true, _) => "every hotspot that our roots vouch for".into(),
            (false, 1) => "1 listed hotspot".into(),
            (false, count) => format!("{count} listed hotspots"),
        };
        row("front", format!("on {}, for {whom}", front.listen));
    }
    let mqtt = config.application.mqtt.iter().map(|mqtt| mqtt.server.to_string());
    let http = config.application.http.iter().map(|http| http.url.origin());
    let sinks: Vec<String> = mqtt.chain(http).collect();
    if !sinks.is_empty() {
        row("events", format!("to {}", join(sinks)));
    }
    row("data", config.store.folder().display().to_string());
    row("control", config.control_socket().display().to_string());
    table(&rows)
}

fn roaming(config: &Config) -> String {
    if !config.roaming.roams() {
        return "off".into();
    }
    let partners = match config.roaming.partner.len() {
        0 => String::new(),
        1 => "1 listed partner".into(),
        count => format!("{count} listed partners"),
    };
    let passive = config.roaming.default.as_ref().map(|rules| &rules.passive);
    let default = match passive.map(|passive| (passive.activation, passive.start)) {
        Some((true, true)) => "the whole federation may join and talk",
        Some((true, false)) => "the whole federation may join",
        Some((false, true)) => "the whole federation may talk",
        _ => "",
    };
    let all: Vec<&str> = [default, &partners].into_iter().filter(|text| !text.is_empty()).collect();
    format!("on: {}", all.join(", "))
}

fn problem_json(problem: &Problem) -> serde_json::Value {
    let Problem { place, key, reason, remedy } = problem;
    let mut value = json!({ "key": key, "reason": reason, "remedy": remedy });
    match place {
        Place::File { path, line, column } => {
            value["file"] = path.display().to_string().into();
            value["line"] = (*line).into();
            value["column"] = (*column).into();
        }
        Place::Variable(name) => value["variable"] = name.as_str().into(),
        Place::Default => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn the_starter_file_is_the_default_and_every_key_in_it_is_right() {
        let plain = parse(None, STARTER.into(), std::iter::empty()).unwrap().config;
        assert_eq!(plain.to_toml().unwrap(), Config::default().to_toml().unwrap());
        // `#key` is a key that is commented out, `# text` is text
        let uncomment = |line: &'static str| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest,
            _ => line,
        };
        let all: String = STARTER.lines().map(uncomment).flat_map(|line| [line, "\n"]).collect();
        let all =
            parse(Some("starter.toml".into()), all, std::iter::empty()).unwrap_or_else(|e| panic!("{e}"));
        assert!(all.config.roaming.roams() && all.config.backend.is_some() && all.config.discovery.is_some());
        let problems = all.problems(all.config.check());
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn init_writes_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        init(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        let fail = init(&path).unwrap_err();
        assert!(fail.errors[0].remedy.as_deref().unwrap_or_default().contains("left as it is"));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        let fail = init(&folder.path().join("no/r.toml")).unwrap_err();
        assert!(fail.errors[0].remedy.as_deref().unwrap_or_default().contains("make the folder"));
    }

    #[test]
    fn the_summary_says_who_may_roam() {
        let read = |text: &str| parse(None, text.into(), std::iter::empty()).unwrap().config;
        assert_eq!(roaming(&Config::default()), "off");
        let config = read(
            "[roaming.default]\npassive = { activation = true, start = true }\n[[roaming.partner]]\nnet_id = \"60050A\"\n",
        );
        assert_eq!(roaming(&config), "on: the whole federation may join and talk, 1 listed partner");
        assert!(!summary(&config).contains("events"));
        let config = read(
            "[application.mqtt]\nserver = \"mqtt://b\"\n[application.http]\nurl = \"http://h/secret\"\n",
        );
        assert!(summary(&config).contains("  events   to mqtt://b:1883, http://h\n"), "{}", summary(&config));
        assert!(summary(&config).contains("  data     ./roamgate-data\n"), "{}", summary(&config));
    }
}
