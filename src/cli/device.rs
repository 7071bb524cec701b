//! `roamgate device`: through the daemon where one runs, else on the store.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

use super::abp::AbpArgs;
use super::{ConfigArg, Fail, bulk, client, device_try, show, table};
use crate::clock::Clock;
use crate::control::{
    AddDevice, AddDownlink, ChangeDevice, Class, Client, DeviceView, DownlinkView, Method, Rejoin, Served,
};
use crate::lorawan::{DevEui, JoinEui, NetId};

/// `roamgate device`
#[derive(Debug, Subcommand)]
pub(super) enum DeviceCommand {
    #[command(flatten)]
    One(One),
    /// Make all devices of a file ours, or none of them where one cannot be.
    Import(bulk::ImportArgs),
    /// Write all devices as a file that can be imported.
    Export(bulk::ExportArgs),
    /// Play a device to a hotspot whose radio is a model: it joins and sends.
    Try(device_try::TryArgs),
}

/// What is done to one device, and the list of all.
#[derive(Debug, Subcommand)]
pub(super) enum One {
    /// Make a device ours: it can join as soon as it is here.
    Add(Box<AddArgs>),
    /// All devices.
    List(ListArgs),
    /// One device, with what waits for it.
    Show(OneArgs),
    /// Change its name, its class, or what it may do.
    Set(SetArgs),
    /// Let a personalised device's uplink counter begin anew, after the device forgot its own. Whoever recorded its
    /// frames can replay one until the device speaks.
    ResetCounter(OneArgs),
    /// Have a LoRaWAN 1.1 device begin a new session, and come back where another network serves it. It hears so with the
    /// answer to its next uplink.
    Rejoin(RejoinArgs),
    /// Forget a device, its keys and its session.
    Remove(OneArgs),
    /// Put a downlink into a device's queue. It goes out after the device's next uplink.
    Send(SendArgs),
}

/// `roamgate device add`
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Printed on the device: 16 hexadecimal digits, - and : are ignored
    #[arg(long, value_name = "EUI", value_parser = eui::<DevEui>)]
    dev_eui: DevEui,
    /// Its join server (AppEUI in older words)
    #[arg(long, value_name = "EUI", value_parser = eui::<JoinEui>, required_unless_present = "abp")]
    join_eui: Option<JoinEui>,
    /// Its root key, 32 hexadecimal digits; - reads it from standard input, which keeps it out of the shell's history
    /// Left out: its join server is elsewhere
    #[arg(long, value_name = "KEY|-")]
    app_key: Option<String>,
    /// Its other root key, of a LoRaWAN 1.1 device; - reads it from standard input, after the AppKey
    #[arg(long, value_name = "KEY|-", conflicts_with = "abp")]
    nwk_key: Option<String>,
    /// Your word for it
    #[arg(long)]
    name: Option<String>,
    /// LoRaWAN version of the device [default: 1.0.4, and 1.1 with the keys of 1.1]
    #[arg(long, value_name = "VERSION")]
    mac_version: Option<String>,
    /// C: it always listens, so downlinks go at once (LoRaWAN 1.1: after the device has said so itself)
    #[arg(long, value_name = "A|C")]
    class: Option<Class>,
    /// It may not join or talk through other networks
    #[arg(long)]
    no_roaming: bool,
    /// NetID of its home network, where that is not this one: then this is its join server only
    #[arg(long, value_name = "NETID", conflicts_with_all = ["abp", "no_roaming", "class"])]
    home: Option<NetId>,
    #[command(flatten)]
    abp: AbpArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// `roamgate device list`
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// `roamgate device show` and `remove`
#[derive(Debug, Args)]
pub(super) struct OneArgs {
    /// DevEUI
    #[arg(value_name = "DEVEUI", value_parser = eui::<DevEui>)]
    dev_eui: DevEui,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// `roamgate device rejoin`
#[derive(Debug, Args)]
pub(super) struct RejoinArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Other keys and another address, and its channels as they are (a Rejoin-request of type 2)
    #[arg(long)]
    keys_only: bool,
}

/// `roamgate device set`
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true).args(["name", "roaming", "class", "enable", "disable", "forget_nonces"])))]
pub(super) struct SetArgs {
    /// DevEUI
    #[arg(value_name = "DEVEUI", value_parser = eui::<DevEui>)]
    dev_eui: DevEui,
    /// Your word for it
    #[arg(long)]
    name: Option<String>,
    /// Whether it may join and talk through other networks; a session that runs follows at once
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    roaming: Option<bool>,
    /// C: it always listens, so downlinks go at once
    #[arg(long, value_name = "A|C")]
    class: Option<Class>,
    /// It may join again
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// It may not join or talk: its session ends, its keys stay
    #[arg(long)]
    disable: bool,
    /// It lost its state and counts its DevNonces from the beginning: accept those that it has used once more
    #[arg(long)]
    forget_nonces: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

fn on_or_off(text: &str) -> Result<bool, &'static str> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("on or off"),
    }
}

/// `roamgate device send`
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["payload", "text"])))]
pub(super) struct SendArgs {
    /// DevEUI
    #[arg(value_name = "DEVEUI", value_parser = eui::<DevEui>)]
    dev_eui: DevEui,
    /// FPort
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=223))]
    port: u8,
    /// Bytes, in hexadecimal
    #[arg(long, value_name = "HEX")]
    payload: Option<String>,
    /// Bytes, as text
    #[arg(long)]
    text: Option<String>,
    /// Send again until the device acknowledges it
    #[arg(long)]
    confirmed: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// As printed on a device: with or without `-` and `:` between the digits.
pub(super) fn eui<T: FromStr>(text: &str) -> Result<T, T::Err> {
    text.chars().filter(|c| !matches!(c, '-' | ':')).collect::<String>().parse()
}

pub(super) async fn run(command: DeviceCommand, clock: Clock) -> Result<ExitCode, Fail> {
    let command = match command {
        DeviceCommand::Import(args) => return bulk::import(args, clock).await,
        DeviceCommand::Export(args) => return bulk::export(args, clock).await,
        DeviceCommand::Try(args) => return device_try::run(args, clock).await,
        DeviceCommand::One(command) => command,
    };
    let config = match &command {
        One::Add(args) => &args.config,
        One::List(args) => &args.config,
        One::Show(args) | One::Remove(args) | One::ResetCounter(args) => &args.config,
        One::Rejoin(args) => &args.one.config,
        One::Set(args) => &args.config,
        One::Send(args) => &args.config,
    };
    let adds = matches!(command, One::Add(_));
    let (client, store) = client(config, adds, &clock).await?;
    let done = act(command, &client, &clock).await;
    if let Some(store) = store {
        // what was added must be on disk when we say so
        store.close().await.map_err(anyhow::Error::new)?;
    }
    show(&done?);
    Ok(ExitCode::SUCCESS)
}

/// Do it; what to print.
async fn act(command: One, client: &Client, clock: &Clock) -> Result<String, Fail> {
    match command {
        One::Add(args) => add(*args, client).await,
        One::List(args) => {
            let value = client.call::<()>(Method::GET, "/v1/devices", None).await?;
            Ok(if args.json { json(&value) } else { list(&view::<Vec<DeviceView>>(value)?, clock.wall()) })
        }
        One::Show(args) => {
            let path = path(args.dev_eui);
            let mut device = client.call::<()>(Method::GET, &path, None).await?;
            let queue = client.call::<()>(Method::GET, &format!("{path}/queue"), None).await?;
            if args.json {
                device["queue"] = queue;
                return Ok(json(&device));
            }
            Ok(one(&view(device)?, &view::<Vec<DownlinkView>>(queue)?, clock.wall()))
        }
        One::Remove(args) => {
            let value = client.call::<()>(Method::DELETE, &path(args.dev_eui), None).await?;
            Ok(if args.json {
                json(&value)
            } else {
                format!("Removed {}: its keys, its session and what waited for it are gone.\n", args.dev_eui)
            })
        }
        One::ResetCounter(args) => {
            let path = format!("{}/reset-counter", path(args.dev_eui));
            let value = client.call::<()>(Method::POST, &path, None).await?;
            Ok(if args.json {
                json(&value)
            } else {
                format!(
                    "The uplink counter of {} begins anew with its next uplink. Its downlink counters go on.\n",
                    args.dev_eui
                )
            })
        }
        One::Rejoin(RejoinArgs { one, keys_only }) => {
            let path = format!("{}/rejoin", path(one.dev_eui));
            let rejoin = Rejoin { kind: if keys_only { 2 } else { 0 } };
            let value = client.call(Method::POST, &path, Some(&rejoin)).await?;
            if one.json {
                return Ok(json(&value));
            }
            Ok(match view::<Served>(value)?.served_by {
                Some(net_id) => format!(
                    "NetID {net_id} will tell {} to rejoin with its next uplink; then it is served here again.\n",
                    one.dev_eui
                ),
                None => format!("{} is told to rejoin with the answer to its next uplink.\n", one.dev_eui),
            })
        }
        One::Set(args) => set(args, client).await,
        One::Send(args) => send(args, client).await,
    }
}

async fn add(args: AddArgs, client: &Client) -> Result<String, Fail> {
    let AddArgs {
        dev_eui, join_eui, app_key, nwk_key, name, mac_version, no_roaming, class, home, abp, ..
    } = args;
    let app_key = match app_key.as_deref() {
        Some("-") => Some(read_key("AppKey").await?),
        _ => app_key,
    };
    let nwk_key = match nwk_key.as_deref() {
        Some("-") => Some(read_key("NwkKey").await?),
        _ => nwk_key,
    };
    let session = abp.session().await?;
    let name = name.unwrap_or_default();
    let (roaming, enabled) = (Some(!no_roaming), None);
    let body = AddDevice {
        dev_eui,
        join_eui,
        app_key,
        nwk_key,
        session,
        class,
        name,
        mac_version,
        roaming,
        enabled,
        home,
    };
    let value = client.call(Method::POST, "/v1/devices", Some(&body)).await?;
    if args.json {
        return Ok(json(&value));
    }
    let device: DeviceView = view(value)?;
    let named = if device.name.is_empty() { String::new() } else { format!(" ({})", device.name) };
    if let Some(net_id) = device.home {
        return Ok(format!(
            "Added {dev_eui}{named}: LoRaWAN {}, a device of NetID {net_id}.\n\
             That network can ask for its joins now, if it is a [[roaming.partner]] with a kek.\n",
            device.mac_version
        ));
    }
    let roams = if device.roaming { "may roam" } else { "may not roam" };
    let next = match client {
        Client::Daemon(_) if device.personalised => "It can talk now: `roamgate tail` shows it.",
        Client::Here(_) if device.personalised => "It can talk when `roamgate run` runs.",
        Client::Daemon(_) => "It can join now: `roamgate tail` shows it.",
        Client::Here(_) => "It can join when `roamgate run` runs.",
    };
    Ok(format!("Added {dev_eui}{named}: LoRaWAN {}, {roams}.\n{next}\n", device.mac_version))
}

async fn set(args: SetArgs, client: &Client) -> Result<String, Fail> {
    let SetArgs { dev_eui, name, roaming, class, enable, disable, forget_nonces, .. } = args;
    let enabled = (enable || disable).then_some(enable);
    let change = ChangeDevice { name, roaming, enabled, class, forget_nonces };
    let value = client.call(Method::PATCH, &path(dev_eui), Some(&change)).await?;
    if args.json {
        return Ok(json(&value));
    }
    let device: DeviceView = view(value)?;
    let named = if device.name.is_empty() { String::new() } else { format!(" ({})", device.name) };
    let may = match (device.enabled, device.roaming) {
        (false, _) => "it may not join or talk; its keys stay",
        (true, true) => "it may join and talk, here and through other networks",
        (true, false) => "it may join and talk here, and nowhere else",
    };
    let nonces = match forget_nonces {
        true => {
            "The DevNonces that it has used are forgotten: it can join again from the beginning, and so could somebody \
             who replays an old request, once each. Its keys stay fresh: no JoinNonce comes twice.\n"
        }
        false => "",
    };
    Ok(format!("Changed {dev_eui}{named}: {may}.\n{nonces}"))
}

pub(super) async fn read_key(name: &'static str) -> Result<String, Fail> {
    let read = tokio::task::spawn_blocking(move || {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            let _ = std::io::stderr().write_all(format!("{name}: ").as_bytes());
        }
        let mut line = Zeroizing::new(String::new());
        stdin.lock().read_line(&mut line).map(|_| line.trim().to_string())
    });
    let line = read.await.map_err(std::io::Error::other).and_then(|line| line);
    line.map_err(|error| Fail::new(format!("cannot read the {name}: {error}"), "give it as one line of text"))
}

async fn send(args: SendArgs, client: &Client) -> Result<String, Fail> {
    let SendArgs { dev_eui, port, confirmed, .. } = args;
    let payload = args.payload.unwrap_or_else(|| hex::encode(args.text.unwrap_or_default()));
    let body = AddDownlink { f_port: port, payload, confirmed };
    let value = client.call(Method::POST, &format!("{}/queue", path(dev_eui)), Some(&body)).await?;
    if args.json {
        return Ok(json(&value));
    }
    let item: DownlinkView = view(value)?;
    let bytes = match item.payload.len() / 2 {
        1 => "1 byte".to_string(),
        count => format!("{count} bytes"),
    };
    let confirmed = if confirmed { ", to be acknowledged" } else { "" };
    let device: DeviceView = view(client.call::<()>(Method::GET, &path(dev_eui), None).await?)?;
    let when = match (client, device.class) {
        (Client::Daemon(_), Class::C) => "sent as soon as the device can be reached",
        _ => "sent after its next uplink",
    };
    Ok(format!("Queued {bytes} on FPort {port} for {dev_eui}{confirmed}: {when}.\n"))
}

fn path(dev_eui: DevEui) -> String {
    format!("/v1/devices/{dev_eui}")
}

pub(super) fn view<T: DeserializeOwned>(value: Value) -> Result<T, Fail> {
    serde_json::from_value(value).map_err(|error| {
        Fail::new(
            format!("the daemon's answer cannot be understood: {error}"),
            "are daemon and command line of the same version?",
        )
    })
}

fn json(value: &Value) -> String {
    // a value has no way to fail
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn list(devices: &[DeviceView], now: Timestamp) -> String {
    if devices.is_empty() {
        return "No devices yet. Add one:\n  roamgate device add --dev-eui EUI --join-eui EUI --app-key - --name NAME\n"
            .into();
    }
    let heads = ["DEVEUI", "NAME", "DEVADDR", "LAST SEEN", "VIA", "WAITING", "ROAMS"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for device in devices {
        rows.push(vec![
            device.dev_eui.to_string(),
            dash(&device.name),
            match (device.home, device.dev_addr) {
                (Some(net_id), _) => format!("of {net_id}"),
                (None, addr) => addr.map_or("not joined".into(), |addr| addr.to_string()),
            },
            device.last_seen.as_deref().map_or("never".into(), |seen| ago(seen, now)),
            via(device),
            device.waiting.to_string(),
            yes(device.roaming),
        ]);
    }
    table(&rows)
}

fn one(device: &DeviceView, queue: &[DownlinkView], now: Timestamp) -> String {
    let when = |text: &Option<String>| text.as_deref().map(|text| format!("{} ({text})", ago(text, now)));
    let joined = match (device.dev_addr, when(&device.joined)) {
        (Some(addr), _) if device.personalised => format!("never: it was given DevAddr {addr} (ABP)"),
        (Some(addr), Some(when)) => format!("DevAddr {addr}, {when}"),
        (Some(addr), None) => format!("DevAddr {addr}"),
        (None, _) => "not yet".into(),
    };
    let seen = match when(&device.last_seen) {
        Some(when) => format!("{when}, {}", via(device)),
        None => "never".into(),
    };
    let mut lines = vec![
        ("DevEUI", device.dev_eui.to_string()),
        ("name", dash(&device.name)),
        ("JoinEUI", device.join_eui.to_string()),
        ("LoRaWAN", device.mac_version.clone()),
        ("class", device.class.to_string()),
        ("roams", yes(device.roaming)),
        ("joined", joined),
        ("last seen", seen),
        ("FCntUp", device.fcnt_up.map_or("-".into(), |fcnt| fcnt.to_string())),
        ("waiting", queue.len().to_string()),
    ];
    if let Some(net_id) = device.home {
        lines.insert(3, ("home", format!("NetID {net_id}; this is its join server only")));
    }
    if let Some(net_id) = device.served_by {
        lines.insert(7, ("served by", format!("NetID {net_id} (handover roaming)")));
    }
    if !device.enabled {
        lines.insert(1, ("enabled", "no: it may not join or talk".into()));
    }
    let rows: Vec<Vec<String>> = lines.into_iter().map(|(name, text)| vec![name.to_string(), text]).collect();
    let mut text = table(&rows);
    for item in queue {
        let confirmed = if item.confirmed { ", to be acknowledged" } else { "" };
        let sent = match item.attempts {
            0 => String::new(),
            1 => ", sent once".into(),
            times => format!(", sent {times} times"),
        };
        text.push_str(&format!("  FPort {}: {}{confirmed}{sent}\n", item.f_port, dash(&item.payload)));
    }
    text
}

pub(super) fn dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.into() }
}

pub(super) fn yes(is: bool) -> String {
    if is { "yes".into() } else { "no".into() }
}

fn via(device: &DeviceView) -> String {
    match (&device.last_seen, device.last_via) {
        (None, _) => "-".into(),
        (_, None) => "home".into(),
        (_, Some(net_id)) => net_id.to_string(),
    }
}

/// How long ago, as a person says it; a date where it is long ago.
fn ago(text: &str, now: Timestamp) -> String {
    let Ok(then) = text.parse::<Timestamp>() else { return text.into() };
    match now.as_second() - then.as_second() {
        ..=1 => "just now".into(),
        seconds @ ..120 => format!("{seconds} s ago"),
        seconds @ ..7200 => format!("{} min ago", seconds / 60),
        seconds @ ..172_800 => format!("{} h ago", seconds / 3600),
        _ => text.chars().take(10).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceView {
        DeviceView {
            dev_eui: "0102030405060708".parse().unwrap(),
            join_eui: "0000000000000001".parse().unwrap(),
            name: "cow 7".into(),
            mac_version: "1.0.4".into(),
            enabled: true,
            roaming: true,
            personalised: false,
            class: Class::A,
            dev_addr: Some("FC00ABCD".parse().unwrap()),
            joined: Some("2026-11-20T10:00:00Z".into()),
            fcnt_up: Some(12),
            last_seen: Some("2026-11-20T11:59:00Z".into()),
            last_via: Some("000013".parse().unwrap()),
            served_by: Some("000013".parse().unwrap()),
            home: None,
            waiting: 1,
        }
    }

    #[test]
    fn a_list_is_a_table_and_an_empty_one_says_how_to_begin() {
        let now = "2026-11-20T12:00:00Z".parse().unwrap();
        let fresh = DeviceView {
            name: String::new(),
            dev_addr: None,
            last_seen: None,
            last_via: None,
            served_by: None,
            waiting: 0,
            roaming: false,
            ..device()
        };
        assert_eq!(
            list(&[device(), fresh], now),
            "DEVEUI            NAME   DEVADDR     LAST SEEN  VIA     WAITING  ROAMS\n\
             0102030405060708  cow 7  FC00ABCD    60 s ago   000013  1        yes\n\
             0102030405060708  -      not joined  never      -       0        no\n"
        );
        assert!(list(&[], now).contains("roamgate device add"));
    }

    #[test]
    fn one_device_shows_what_waits() {
        let now = "2026-11-20T12:00:00Z".parse().unwrap();
        let (id, payload, sent_as) = ("x".to_string(), "0A0B".to_string(), Some(3));
        let item = DownlinkView { id, f_port: 10, payload, confirmed: true, sent_as, attempts: 2 };
        let text = one(&device(), &[item], now);
        assert!(text.contains("joined     DevAddr FC00ABCD, 2 h ago (2026-11-20T10:00:00Z)\n"), "{text}");
        assert!(text.contains("served by  NetID 000013 (handover roaming)\n"), "{text}");
        assert!(
            text.ends_with("waiting    1\n  FPort 10: 0A0B, to be acknowledged, sent 2 times\n"),
            "{text}"
        );
    }

    #[test]
    fn an_eui_is_taken_as_it_is_printed() {
        assert_eq!(eui::<DevEui>("01-02-03-04-05-06-07-08"), Ok("0102030405060708".parse().unwrap()));
        assert_eq!(eui::<DevEui>("01:02:03:04:05:06:07:0a"), Ok("010203040506070A".parse().unwrap()));
        assert!(eui::<DevEui>("0102").is_err());
    }
}
