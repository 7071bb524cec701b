//! `roamgate run`: the hotspot, until a signal ends it.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigArg, Fail, config, show};
use crate::app::Node;
use crate::app::wall::{self, Judge};
use crate::backend::door::Boxed;
use crate::clock::{Clock, Instant};
use crate::config::{Config, Role};
use crate::control::{self, Client, Socket};
use crate::radio;
use crate::store::Store;
use crate::systemd as manager;
use crate::telemetry::Tap;

/// What is under way may take so long after a signal before we go without it.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(args: ConfigArg, clock: Clock, tap: Tap) -> Result<ExitCode, Fail> {
    let loaded = args.load()?.checked()?;
    let config = loaded.config;
    // Before anything is opened: a signal that comes early must not be lost.
    let mut signals = Signals::new().context("listen for signals")?;

    let path = config.control_socket();
    if Client::daemon(&path).await?.is_some() {
        return Err(Fail::new(
            format!("another roamgate runs on this data and answers at {}", path.display()),
            "stop it first, or give this one a configuration with a [store] of its own",
        ));
    }
    let judge = Judge::new(clock.clone(), wall::written(config.store.url.path()), Path::new("/"));
    // What it came to: port 0 lets the system choose.
    let mut real = config.clone();
    let mut radios = Vec::new();
    let around = config.surroundings();
    if !config.network.roles.has(Role::Fns) {
        // nobody would listen to them
        real.radio.clear();
    }
    for entry in &mut real.radio {
        let opened = radio::open(entry, &around, &clock).await.map_err(anyhow::Error::new)?;
        if let radio::Config::SemtechUdp(entry) = entry {
            entry.listen = opened.heads.listening().unwrap_or(entry.listen);
        }
        radios.push(opened);
    }
    let heads: Vec<_> = radios.iter().map(|radio| (radio.name.clone(), radio.heads.clone())).collect();
    let node = Node::start(config.clone(), clock.clone(), radios).await?;
    if let Some(backend) = &mut real.backend {
        backend.listen = node.listening();
    }
    if let (Some(front), Some(address)) = (&mut real.front, node.front()) {
        front.listen = address;
    }
    let socket = Socket::bind(&path).await.map_err(anyhow::Error::new)?;
    let router = control::router(node.operator(), Some(tap), clock.clone());
    let control = tokio::spawn(socket.serve(router, clock.clone()));

    let source = match &loaded.path {
        Some(path) => path.display().to_string(),
        None => "no configuration file: a standalone hotspot".into(),
    };
    let devices = control::Operator::status(&*node.operator()).await.map_or(0, |status| status.devices);
    show(&greeting(&real, &source, devices));
    manager::ready(&format!("NetID {}, devices: {devices}", config.network.net_ids.first()));
    let judge = tokio::spawn(judge.watch());
    let watchdog = tokio::spawn(watch(clock.clone(), vouchers(node.store(), &heads)));

    let failed = failed(&heads);
    tokio::pin!(failed);
    let mut given_up = None;
    loop {
        tokio::select! {
            ask = signals.next() => match ask {
                Ask::Stop(name) => {
                    tracing::info!("{name}: stopping");
                    break;
                }
                Ask::Reload => reload(&args, &config, &node),
            },
            why = &mut failed => {
                given_up = Some(why);
                break;
            }
        }
    }
    manager::stopping();
    watchdog.abort();
    judge.abort();
    control.abort();
    // its socket is gone when the task is
    let _ = control.await;
    let stopped = tokio::select! {
        stopped = node.shutdown() => stopped,
        () = clock.sleep(PATIENCE) => Err(anyhow::anyhow!("what was under way did not end within {} s", PATIENCE.as_secs())),
        Ask::Stop(name) = signals.next() => Err(anyhow::anyhow!("{name} again: not waiting for what is under way")),
    };
    stopped?;
    tracing::info!("stopped");
    match given_up {
        None => Ok(ExitCode::SUCCESS),
        Some(why) => Err(Fail::new(
            why,
            "the service manager starts the program again; if that does not help, look at power, ribbon and reset line",
        )),
    }
}

/// Ends when a radio has given up.
async fn failed(heads: &[(String, Arc<dyn radio::Heads>)]) -> String {
    let all = heads.iter().map(|(name, heads)| {
        Box::pin(async move { format!("radio {name} has failed: {}", heads.failed().await) })
    });
    match heads.is_empty() {
        true => std::future::pending().await,
        false => futures_util::future::select_all(all).await.0,
    }
}

/// What a person sees when it has started.
fn greeting(config: &Config, source: &str, devices: usize) -> String {
    let next = match devices {
        _ if config.network.roles.is_front_only() => {
            "`roamgate status` lists the hotspots that are connected.".to_string()
        }
        0 => "No devices yet: add one with `roamgate device add`.".to_string(),
        1 => "1 device is at home here.".to_string(),
        count => format!("{count} devices are at home here."),
    };
    format!(
        "Roamgate {} is up ({source}).\n{}{next} `roamgate tail` shows what happens; Ctrl-C stops.\n",
        env!("CARGO_PKG_VERSION"),
        config::summary(config),
    )
}

/// What a signal asks for.
enum Ask {
    Stop(&'static str),
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Ask {
        tokio::select! {
            _ = self.terminate.recv() => Ask::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Ask::Stop("SIGINT"),
            _ = self.hangup.recv() => Ask::Reload,
        }
    }
}

/// SIGHUP: certificates, roots, pins and what is revoked are read again. Of the rest this says what a restart would change.
fn reload(args: &ConfigArg, running: &Config, node: &Node) {
    let fresh = match args.load().and_then(crate::config::Loaded::checked) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            tracing::warn!("SIGHUP: the configuration is wrong now, and a restart would fail: {error}");
            return;
        }
    };
    if running.backend.is_some() && fresh.backend.is_some() {
        // it tells itself what is shown now
        if let Err(error) = node.operator().reload(Some(&fresh)) {
            tracing::warn!("SIGHUP: {error}");
        }
    }
    match changed(&taken_up(running, &fresh), &fresh).as_slice() {
        [] => tracing::info!("SIGHUP: all of the configuration is in use"),
        sections => tracing::warn!(
            "SIGHUP: changes in [{}] cannot be taken up while running: restart to apply them",
            sections.join("], [")
        ),
    }
}

/// What runs, with those keys of the fresh configuration that a reload takes up.
fn taken_up(running: &Config, fresh: &Config) -> Config {
    let mut running = running.clone();
    if let (Some(running), Some(fresh)) = (&mut running.backend, &fresh.backend) {
        running.identity = fresh.identity.clone();
        running.roots = fresh.roots.clone();
        running.deny = fresh.deny.clone();
        running.crls = fresh.crls.clone();
    }
    for partner in &mut running.roaming.partner {
        if let Some(fresh) = fresh.roaming.partner.iter().find(|fresh| fresh.net_id == partner.net_id) {
            partner.roots = fresh.roots.clone();
            partner.pin = fresh.pin.clone();
        }
    }
    running
}

/// Names of the sections that differ.
fn changed(running: &Config, fresh: &Config) -> Vec<String> {
    let (Ok(running), Ok(fresh)) = (running.to_json(), fresh.to_json()) else { return Vec::new() };
    let names = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().map(|sections| sections.keys().cloned().collect()).unwrap_or_default()
    };
    let mut all = names(&running);
    all.extend(names(&fresh));
    all.sort();
    all.dedup();
    all.retain(|name| running.get(name) != fresh.get(name));
    all
}

/// Somebody whose work could come to a stand without the program ending, and how he is asked whether it has.
struct Voucher {
    name: String,
    ask: Box<dyn Fn() -> Boxed<'static, ()> + Send + Sync>,
}

/// The writer of the store, and each radio. That the runtime turns is shown by their being asked.
fn vouchers(store: &Store, heads: &[(String, Arc<dyn radio::Heads>)]) -> Vec<Voucher> {
    let store = store.clone();
    let ask = move || -> Boxed<'static, ()> {
        let store = store.clone();
        // a store that fails says so itself; what counts here is that it says something
        Box::pin(async move { _ = store.vouch().await })
    };
    let mut all = vec![Voucher { name: "the store".into(), ask: Box::new(ask) }];
    for (name, heads) in heads {
        let heads = heads.clone();
        let ask = move || -> Boxed<'static, ()> {
            let heads = heads.clone();
            Box::pin(async move { heads.vouch().await })
        };
        all.push(Voucher { name: format!("radio {name}"), ask: Box::new(ask) });
    }
    all
}

/// Who has not vouched by then.
async fn silent(all: &[Voucher], by: Instant) -> Vec<&str> {
    let asked = all.iter().map(|voucher| async move {
        let answer = tokio::time::timeout_at(by, (voucher.ask)()).await;
        answer.is_err().then_some(&*voucher.name)
    });
    futures_util::future::join_all(asked).await.into_iter().flatten().collect()
}

/// Tell the service manager that we are alive, as long as everybody vouches for it. It starts us anew otherwise.
async fn watch(clock: Clock, all: Vec<Voucher>) {
    let Some(interval) = manager::watchdog() else { return };
    loop {
        let next = clock.now() + interval;
        match silent(&all, next).await.as_slice() {
            [] => manager::alive(),
            names => tracing::error!("no sign of life from {}: the watchdog is not fed", names.join(", ")),
        }
        clock.sleep_until(next).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[tokio::test(start_paused = true)]
    async fn whoever_hangs_is_named_and_nobody_waits_for_him_for_ever() {
        let voucher = |name: &str, hangs: bool| Voucher {
            name: name.into(),
            ask: Box::new(move || match hangs {
                true => Box::pin(std::future::pending()),
                false => Box::pin(tokio::time::sleep(Duration::from_secs(1))),
            }),
        };
        let all = [voucher("the store", false), voucher("radio roof", true)];
        let by = Clock::system().now() + Duration::from_secs(5);
        assert_eq!(silent(&all, by).await, ["radio roof"]);
        assert_eq!(
            silent(&all[..1], Clock::system().now() + Duration::from_secs(5)).await,
            Vec::<&str>::new()
        );
    }

    #[test]
    fn the_greeting_says_who_we_are_and_what_comes_next() {
        let text = greeting(&Config::default(), "no configuration file: a standalone hotspot", 0);
        assert!(text.contains("NetID 000000, EU868"), "{text}");
        assert!(text.contains("packet forwarders (Semtech UDP) on 0.0.0.0:1700"), "{text}");
        assert!(text.contains("roaming  off"), "{text}");
        assert!(text.contains("roamgate device add"), "{text}");
    }

    #[test]
    fn a_front_is_not_greeted_as_a_hotspot() {
        let text = "[network]\nroles = [\"front\"]\n[front]\nlisten = \"[::]:443\"\nanyone = true\n";
        let config = parse(None, text.into(), std::iter::empty()).unwrap().config;
        let text = greeting(&config, "front.toml", 0);
        assert!(text.contains("front    on [::]:443, for every hotspot that our roots vouch for"), "{text}");
        for words in ["roaming", "packet forwarders", "device add"] {
            assert!(!text.contains(words), "{text}");
        }
        assert!(text.contains("lists the hotspots"), "{text}");
    }

    #[test]
    fn a_reload_names_the_sections_that_changed() {
        let fresh = "[network]\nregion = \"US915\"\n[discovery]\n";
        let fresh = parse(None, fresh.into(), std::iter::empty()).unwrap().config;
        assert_eq!(changed(&Config::default(), &fresh), ["discovery", "network"]);
        let backend = |keys: &str| {
            let text = format!("[backend]\nidentity = {{ folder = \"f\" }}\n{keys}");
            parse(None, text, std::iter::empty()).unwrap().config
        };
        let (running, denies) = (backend(""), backend("deny = [\"0a\"]\n"));
        assert_eq!(changed(&running, &denies), ["backend"]);
        assert!(changed(&taken_up(&running, &denies), &denies).is_empty());
        let moved = backend("listen = \"[::]:443\"\n");
        assert_eq!(changed(&taken_up(&running, &moved), &moved), ["backend"]);
        assert!(changed(&fresh, &fresh).is_empty());
    }
}
