//! `roamgate tail`: frames and backend messages of the running daemon, a line each.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde::Deserialize;

use super::{ConfigArg, Fail};
use crate::control::Client;

/// `roamgate tail`
#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// A record as the daemon writes it, or what it says of records that were lost.
#[derive(Debug, Deserialize)]
struct Line {
    kind: String,
    #[serde(default)]
    node: String,
    time: Option<Wall>,
    #[serde(default)]
    target: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    fields: BTreeMap<String, String>,
    took_us: Option<u64>,
    #[serde(default)]
    count: u64,
}

/// RFC 3339.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Wall(Timestamp);

impl TryFrom<String> for Wall {
    type Error = jiff::Error;
    fn try_from(text: String) -> Result<Wall, jiff::Error> {
        text.parse().map(Wall)
    }
}

pub(super) async fn run(args: TailArgs) -> Result<ExitCode, Fail> {
    let socket = args.config.load()?.config.control_socket();
    let Some(client) = Client::daemon(&socket).await? else {
        return Err(Fail::new(
            format!("no daemon answers at {}", socket.display()),
            "start one with `roamgate run`, or give the configuration of the one that runs with -c",
        ));
    };
    let mut lines = client.lines("/v1/tail").await?;
    if std::io::stdout().is_terminal() {
        let _ = std::io::stderr().write_all(b"Following the daemon; times are UTC; Ctrl-C ends.\n");
    }
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        };
        let line = match line {
            Some(Ok(line)) => line,
            // a daemon that stops does not say goodbye
            Some(Err(_)) | None => {
                let _ = std::io::stderr().write_all(b"The daemon has stopped.\n");
                return Ok(ExitCode::SUCCESS);
            }
        };
        let text = if args.json { Some(line) } else { readable(&line) };
        let Some(text) = text else { continue };
        let mut out = std::io::stdout().lock();
        if out.write_all((text + "\n").as_bytes()).and_then(|()| out.flush()).is_err() {
            // whoever closes the pipe has seen enough
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// One line for a person; `None` for what says nothing.
fn readable(line: &str) -> Option<String> {
    let Ok(line) = serde_json::from_str::<Line>(line) else { return Some(line.into()) };
    if line.kind == "lost" {
        return Some(format!("!! {} lines were lost: this reader was too slow", line.count));
    }
    let time = line.time.map(|time| format!("{:.3}", time.0)).unwrap_or_default();
    // 2026-11-20T12:00:00.000Z
    let time = time.get(11..23).unwrap_or_default();
    let field = |name: &str| line.fields.get(name).map_or("", String::as_str);
    let rest = |but: &[&str]| -> String {
        let others = line.fields.iter().filter(|(name, _)| !but.contains(&name.as_str()));
        others.map(|(name, value)| format!("  {name}={value}")).collect()
    };
    let text = if line.target.starts_with("roamgate::door") && line.kind != "event" {
        let message = format!("{} {} > {}", field("MessageType"), field("SenderID"), field("ReceiverID"));
        let said = ["MessageType", "SenderID", "ReceiverID", "ResultCode", "TransactionID", "local"];
        match line.kind.as_str() {
            "open" => format!("ask     {message}{}", rest(&said)),
            _ => {
                let took = line.took_us.unwrap_or_default();
                let result = match field("ResultCode") {
                    "" => "no answer",
                    result => result,
                };
                format!("answer  {message}: {result} ({:.1} ms)", took as f64 / 1000.0)
            }
        }
    } else if line.kind == "close" {
        // a span of the air or the net was told when it began
        return None;
    } else {
        let room = if line.target.starts_with("roamgate::net") { "net" } else { "air" };
        format!("{room:<6}  {}{}", line.name, rest(&["message"]))
    };
    Some(format!("{time}  {}  {text}", line.node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_a_door_and_a_loss_are_lines_that_a_person_reads() {
        let frame = r#"{"node":"000001","time":"2026-11-20T12:00:00.0123Z","kind":"event","target":"roamgate::frame",
            "name":"uplink heard","milestone":"uplink heard","fields":{"DevAddr":"FC00ABCD","FCnt":"7"},"span":1}"#;
        assert_eq!(
            readable(frame).unwrap(),
            "12:00:00.012  000001  air     uplink heard  DevAddr=FC00ABCD  FCnt=7"
        );
        let door = r#"{"node":"000001","time":"2026-11-20T12:00:00Z","kind":"close","target":"roamgate::door",
            "name":"door","fields":{"MessageType":"PRStartReq","SenderID":"000000","ReceiverID":"000001",
            "ResultCode":"Success","TransactionID":"9"},"span":1,"took_us":12345}"#;
        assert_eq!(
            readable(door).unwrap(),
            "12:00:00.000  000001  answer  PRStartReq 000000 > 000001: Success (12.3 ms)"
        );
        let open = door.replace("close", "open");
        assert_eq!(readable(&open).unwrap(), "12:00:00.000  000001  ask     PRStartReq 000000 > 000001");
        assert!(readable(r#"{"kind":"lost","count":12}"#).unwrap().contains("12 lines were lost"));
        assert_eq!(readable("what?").unwrap(), "what?");
    }
}
