//! The registry with a million names: how long it takes to start, what it holds in memory, how long a question takes over UDP,
//! and how long a change is not seen.
//!
//! `cargo bench --bench registry [-- COUNT]`

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::RecordType;
use roamgate::clock::Clock;
use roamgate::discovery::{self, Resolver};
use roamgate::registry::access::{self, Scope};
use roamgate::registry::{Config, Running, absolute, zone};
use roamgate::store::registry::{Claim, Entry};
use roamgate::store::{self, Durability, Store, Url};
use tokio::net::UdpSocket;

const ZONE: &str = "iotroam.example";
const QUESTIONS: usize = 2000;
const CHANGES: usize = 100;

#[tokio::main]
async fn main() {
    // cargo gives --bench, and a test run of all targets nothing
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let count: u64 =
        std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(1_000_000);
    if !is_bench {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Clock::system();
    let url = Url::sqlite(folder.path().join("registry.db"));
    let config = store::Config { url, durability: Durability::Balanced, ..Default::default() };

    let begun = clock.now();
    let key = fill(&Store::open(&config, clock.clone()).expect("a store"), &clock, count).await;
    println!("filled with {count} names in {:.1} s", begun.elapsed().as_secs_f64());

    let before = resident();
    let begun = clock.now();
    let store = Store::open(&config, clock.clone()).expect("a store");
    let text = format!(
        "zone = \"{ZONE}\"\nlisten = \"127.0.0.1:0\"\ndns = \"127.0.0.1:0\"\nservers = [\"ns.{ZONE}\"]\n"
    );
    let section: Config = toml::from_str(&text).expect("a section");
    let unused = Resolver::new(discovery::Config::default(), clock.clone()).expect("a resolver");
    let running = Running::start(&section, unused, store, &clock).await.expect("a registry");
    println!("start       {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);

    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let name = |n: u64| format!("{}.joineuis.{ZONE}", digits(n));
    let mut there = Vec::new();
    let mut missing = Vec::new();
    for n in 0..QUESTIONS as u64 {
        // spread over all of them
        let n = n * (count / QUESTIONS as u64).max(1);
        there.push(ask(&clock, &socket, running.dns.address, &name(n)).await.0);
        missing.push(ask(&clock, &socket, running.dns.address, &name(n | 1 << 40)).await.0);
    }
    told("found       ", there);
    told("not found   ", missing);

    roamgate::tls::install_provider();
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut seen = Vec::new();
    for n in 0..CHANGES {
        let address = format!("198.51.100.{n}");
        let body = serde_json::json!({ "records": [{ "type": "A", "data": address }] });
        let eui = format!("{:016X}", 0x70B3_D500_0000_0000_u64 | n as u64);
        let url = format!("http://{}/v1/join-euis/{eui}", running.api.address);
        let begun = clock.now();
        let put = http.put(url).bearer_auth(&key).json(&body).send().await.expect("an answer");
        assert!(put.status().is_success(), "{}", put.status());
        while !ask(&clock, &socket, running.dns.address, &name(n as u64)).await.1.contains(&address) {}
        seen.push(begun.elapsed());
    }
    told("change seen ", seen);
    println!("memory      {:.1} MB, of which {:.1} MB before it was opened", resident(), before);
    running.stop().await.expect("an end");
}

/// A block's JoinEUI, as its name is written.
fn digits(n: u64) -> String {
    let eui = format!("{:016x}", 0x70B3_D500_0000_0000_u64 | n);
    let labels: Vec<String> = eui.chars().rev().map(String::from).collect();
    labels.join(".")
}

/// One member with this many JoinEUIs; its key.
async fn fill(store: &Store, clock: &Clock, count: u64) -> String {
    let chance = clock.clone();
    let made = store.registry(move |book| {
        let member = book.add_member("One", false)?;
        let (shown, key) = access::make(member, "key", Scope::Admin, &chance);
        book.add_key(&key)?;
        let first = "70B3D50000000000".to_owned();
        book.add_claim(&Claim { kind: "join_eui".into(), first, bits: 24, member, since: 0 })?;
        Ok(((member, shown.to_string()), true))
    });
    let (member, key) = made.await.expect("a member");
    let origin = absolute(ZONE).expect("a name");
    for from in (0..count).step_by(10_000) {
        let entries: Vec<Entry> = (from..count.min(from + 10_000))
            .map(|n| {
                let name = absolute(&format!("{}.joineuis.{ZONE}", digits(n))).expect("a name");
                let place = zone::place(&name, &origin).expect("a place");
                let data = format!("192.0.{}.{}", n >> 8 & 255, n & 255);
                Entry { place, kind: RecordType::A.into(), data, ttl: 300, member }
            })
            .collect();
        let written = store.registry(move |book| {
            for entry in &entries {
                book.put(&entry.place, std::slice::from_ref(entry))?;
            }
            Ok(((), true))
        });
        written.await.expect("room");
    }
    store.close().await.expect("an end");
    key
}

/// A question for A with DNSSEC, and its answer in words.
async fn ask(clock: &Clock, socket: &UdpSocket, server: SocketAddr, name: &str) -> (Duration, String) {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(absolute(name).expect("a name"), RecordType::A));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    edns.set_dnssec_ok(true);
    message.edns = Some(edns);
    let bytes = message.to_vec().expect("a message");
    let mut answer = [0; 4096];
    let begun = clock.now();
    socket.send_to(&bytes, server).await.expect("a way");
    let length = socket.recv(&mut answer).await.expect("an answer");
    let took = begun.elapsed();
    let answer = Message::from_vec(&answer[..length]).expect("an answer");
    (took, answer.answers.iter().map(|record| format!("{record} ")).collect())
}

fn told(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
    println!("{what}median {:.0} us, 99 % {:.0} us, most {:.0} us", at(50), at(99), at(100));
}

/// Of this process, MB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    let kilobytes: f64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    kilobytes / 1024.0
}
