//! A hundred thousand roaming contexts, and as many visits: `cargo bench --bench contexts`.
//!
//! Bytes on disk each, what a look-up costs that an uplink waits for, and how much resident memory they cost a node that has
//! started on them. Memory is that of a process of its own (this program once more) which opens the store, reads every id
//! as a start does, and then looks up; the same on an empty store is taken away.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt;
use futures_util::stream;
use roamgate::backend::message::{MicKey, Terms};
use roamgate::clock::Clock;
use roamgate::fns::contexts::{Context, ContextId, Contexts};
use roamgate::lorawan::{DevEui, Key, NetId};
use roamgate::sns::{Visit, Visits};
use roamgate::store::{Config, Store};

/// How many there are.
const MANY: u64 = 100_000;
/// Looked up one after the other, at random.
const LOOKUPS: u64 = 20_000;
const PAGE: usize = 1_000;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let runtime = tokio::runtime::Runtime::new()?;
    match arguments.as_slice() {
        [word, folder] if word == "child" => runtime.block_on(child(Path::new(folder))),
        _ => runtime.block_on(measure()),
    }
}

fn config(folder: &Path) -> anyhow::Result<Config> {
    let text = format!("url = \"sqlite:{}\"", folder.join("roamgate.db").display());
    toml::from_str(&text).context("a configuration")
}

/// Of one of fifty networks.
fn id(n: u64) -> ContextId {
    let net_id = NetId::new(0x60_0500 + (n % 50) as u32).unwrap_or(NetId::from_msb([0x60, 5, 0]));
    ContextId { net_id, dev_eui: DevEui::from_msb(n.to_be_bytes()), dev_addr: net_id.dev_addr(n as u32) }
}

async fn fill(store: &Store) -> anyhow::Result<()> {
    let until = 4_000_000_000;
    let contexts = stream::iter(0..MANY).map(|n| {
        // every other one with a key for MIC checks
        let mic_key = (n % 2 == 0).then(|| MicKey::NwkSKey(Key::new([n as u8; 16])));
        store.keep(Context {
            id: id(n),
            until,
            lifetime: 3600,
            mic_key,
            fcnt_up: 0,
            terms: Terms::ours(None, None),
        })
    });
    let mut kept = contexts.buffer_unordered(512);
    while let Some(done) = kept.next().await {
        done?;
    }
    let visits = stream::iter(0..MANY).map(|n| {
        let ContextId { net_id, dev_eui, dev_addr } = id(n);
        store.grant(Visit {
            session: n.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            net_id,
            dev_eui,
            dev_addr,
            until,
        })
    });
    let mut granted = visits.buffer_unordered(512);
    while let Some(done) = granted.next().await {
        done?;
    }
    Ok(())
}

fn size(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()?)
}

/// What a node that starts on this folder does, and what it costs.
async fn child(folder: &Path) -> anyhow::Result<()> {
    let clock = Clock::system();
    let store = Store::open(&config(folder)?, clock.clone())?;
    let (mut after, mut count) = (None, 0);
    loop {
        let page = store.page(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        (after, count) = (Some(*last), count + page.len());
    }
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..LOOKUPS {
        let id = id(u64::from_be_bytes(clock.random()) % MANY);
        let begun = clock.now();
        let _ = store.with_addr(id.dev_addr).await?;
        took[0].push(begun.elapsed());
        let begun = clock.now();
        let _ = store.visits_at(id.net_id, id.dev_addr).await?;
        took[1].push(begun.elapsed());
    }
    let of = |took: &mut Vec<Duration>, share: usize| {
        took.sort();
        took.get(took.len() * share / 1000).copied().unwrap_or_default().as_nanos()
    };
    let [contexts, visits] = &mut took;
    let numbers = [of(contexts, 500), of(contexts, 990), of(visits, 500), of(visits, 990)];
    println!("{count} {} {}", resident()?, numbers.map(|number| number.to_string()).join(" "));
    store.close().await?;
    Ok(())
}

fn look(folder: &Path) -> anyhow::Result<Vec<u64>> {
    let output = Command::new(std::env::current_exe()?).arg("child").arg(folder).output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    text.split_whitespace().map(|word| Ok(word.parse()?)).collect()
}

async fn measure() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (empty, full) = (folder.path().join("empty"), folder.path().join("full"));
    for place in [&empty, &full] {
        std::fs::create_dir(place)?;
        let store = Store::open(&config(place)?, Clock::system())?;
        if place == &full {
            fill(&store).await?;
        }
        store.close().await?;
    }
    let bytes = size(&full).saturating_sub(size(&empty)) as f64 / MANY as f64;
    println!(
        "{MANY} contexts (every other one with a key) and {MANY} visits: {bytes:.0} bytes on disk for one of each\n"
    );
    println!("| run | resident: empty | full | growth | context: median | 99 % | visit: median | 99 % |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for run in 1..=5 {
        let (without, with) = (look(&empty)?, look(&full)?);
        let [_, rss_empty, ..] = without[..] else { anyhow::bail!("{without:?}") };
        let [count, rss, median, most, visit_median, visit_most] = with[..] else {
            anyhow::bail!("{with:?}")
        };
        anyhow::ensure!(count == MANY, "{count} contexts were read");
        let us = |ns: u64| format!("{:.1} µs", ns as f64 / 1e3);
        let mb = |kb: u64| format!("{:.1} MB", kb as f64 / 1024.0);
        println!(
            "| {run} | {} | {} | {} | {} | {} | {} | {} |",
            mb(rss_empty),
            mb(rss),
            mb(rss.saturating_sub(rss_empty)),
            us(median),
            us(most),
            us(visit_median),
            us(visit_most)
        );
    }
    Ok(())
}
