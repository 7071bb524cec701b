//! The process that is killed: a whole node on a store, with a radio whose heads are its standard input and output.
//!
//! It reads a line for every frame that a head hears and writes a line for every effect, at the moment of the effect: a
//! frame handed to a head, an uplink accepted. What applications are told goes to the HTTP sink, as ever.

use std::fmt;
use std::io::{BufRead, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use roamgate::app::Node;
use roamgate::backend::door::{Boxed, Deadline};
use roamgate::clock::Clock;
use roamgate::control::Operator as _;
use roamgate::fns::{Air, AirError, Count, Heard, Sent, Tx};
use roamgate::hns::QueueItem;
use roamgate::lorawan::{GatewayEui, Modulation};
use roamgate::radio::{HeadStatus, Heads, Radio};
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The node's configuration, for the process that is to be one.
pub const CONFIG: &str = "ROAMGATE_TEST_CRASH_CONFIG";
/// The name of the test that becomes the node.
pub const NAME: &str = "child_is_a_node_until_it_is_killed";

/// What the node at `folder` is told. Without a sink the log is its application.
pub fn config(folder: &Path, strict: bool, sink: Option<SocketAddr>) -> String {
    let durability = if strict { "strict" } else { "balanced" };
    let sink = sink.map_or(String::new(), |sink| format!("[application.http]\nurl = \"http://{sink}/\"\n"));
    format!(
        "radio = []\n[network]\nnet_ids = [\"{}\"]\n[store]\nurl = \"sqlite:{}\"\ndurability = \"{durability}\"\n{sink}",
        super::world::NET_ID,
        folder.join(DATABASE).display(),
    )
}

/// In the node's folder.
pub const DATABASE: &str = "roamgate.db";

fn say(line: &str) {
    // Past the test harness, in one write.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}

struct Lines;

impl Air for Lines {
    fn transmit(&self, tx: Tx, _: Deadline) -> Boxed<'_, Result<Sent, AirError>> {
        say(&format!("tx {} {}", tx.at.unwrap().0, hex::encode(&tx.phy)));
        Box::pin(std::future::ready(Ok(Sent { power: None })))
    }
    fn heads(&self) -> usize {
        64
    }
    fn online(&self, _: GatewayEui) -> bool {
        true
    }
}

impl Heads for Lines {
    fn has(&self, _: GatewayEui) -> bool {
        true
    }
    fn status(&self) -> Vec<HeadStatus> {
        Vec::new()
    }
}

/// Says every accepted uplink.
struct Accepted;

#[derive(Default)]
struct Fields(std::collections::BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: tracing::Subscriber> Layer<S> for Accepted {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let of = |name: &str| fields.0.get(name).map(String::as_str).unwrap_or_default();
        if of("milestone") == "uplink accepted" {
            let new = if of("repeated") == "true" { "again" } else { "new" };
            say(&format!("accepted {} {} {new}", of("DevAddr"), of("FCntUp")));
        } else if *event.metadata().level() <= tracing::Level::WARN {
            eprintln!("{:?}", fields.0);
        }
    }
}

/// Whoever started this process, and this test alone, with a configuration wants a node.
pub async fn live() {
    let Ok(config) = std::env::var(CONFIG) else { return };
    // The test harness has begun a line.
    say("");
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Accepted));
    let clock = Clock::system();
    let (heard, hears) = mpsc::channel(1024);
    let (asked, mut asks) = mpsc::channel(64);
    // From the first moment on: frames wait while the node starts.
    let ears = clock.clone();
    std::thread::spawn(move || listen(&ears, &heard, &asked));
    let loaded = roamgate::config::parse(None, config, std::iter::empty()).unwrap().checked().unwrap();
    let radio = Radio { name: "lines".into(), heard: hears, heads: Arc::new(Lines) };
    let node = match Node::start(loaded.config, clock, vec![radio]).await {
        Ok(node) => node,
        Err(error) => return say(&format!("failed {error:#}")),
    };
    say("ready");
    while let Some(Asked { dev_eui, item }) = asks.recv().await {
        let id = item.id.clone();
        if node.operator().enqueue(dev_eui.parse().unwrap(), item).await.is_ok() {
            say(&format!("queued {id}"));
        }
    }
    match node.shutdown().await {
        Ok(()) => say("stopped"),
        Err(error) => say(&format!("failed {error:#}")),
    }
    std::process::exit(0);
}

struct Asked {
    dev_eui: String,
    item: QueueItem,
}

/// `heard HEAD TMST PHY`, `queue DEVEUI ID PAYLOAD`, `stop`.
fn listen(clock: &Clock, heard: &mpsc::Sender<Heard>, asked: &mpsc::Sender<Asked>) {
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["heard", head, tmst, phy] => {
                let frame = Heard {
                    phy: hex::decode(phy).unwrap(),
                    gateway: GatewayEui::from_msb(head.parse::<u64>().unwrap().to_be_bytes()),
                    session: 1,
                    frequency: 868_100_000,
                    modulation: Modulation::Lora { sf: 7, bandwidth: 125_000 },
                    rssi: -60,
                    snr: 9.0,
                    tmst: Count(tmst.parse().unwrap()),
                    at: clock.now(),
                    time: clock.wall(),
                    location: None,
                    fine_time: None,
                };
                let _ = heard.blocking_send(frame);
            }
            ["queue", dev_eui, id, payload] => {
                let item = QueueItem {
                    id: id.into(),
                    f_port: 2,
                    payload: hex::decode(payload).unwrap(),
                    confirmed: false,
                    sent_as: None,
                    expires: None,
                    attempts: 0,
                };
                let _ = asked.blocking_send(Asked { dev_eui: dev_eui.into(), item });
            }
            _ => return,
        }
    }
}
