//! Runs the node in a process of its own, ends it, and has its store judged.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use roamgate::application::outbox::{Outbox, Sink};
use roamgate::backend::door::{Commit, decided, outcome};
use roamgate::backend::message::{ClassMode, MacVersion};
use roamgate::clock::Clock;
use roamgate::js::RootKeys;
use roamgate::sns::Sessions;
use roamgate::store::{Addition, Config, Durability, NewDevice, Store, Url};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::child;
use crate::disk::{self, Disk, Image};
use crate::world::{Action, Found, FoundDevice, JOIN_EUI, Lost, World};

/// Devices of a house.
const DEVICES: usize = 6;
/// An answer that has not come by then will not.
const PATIENCE: Duration = Duration::from_millis(300);
/// Nothing that is waited for takes longer, on a slow machine under load.
const WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Strict,
    Balanced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// SIGKILL: what was written stays.
    Kill,
    /// What was not synced may go.
    Cut,
}

pub type Shared = Arc<Mutex<World>>;

pub fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nanoseconds since 1970.
fn now(clock: &Clock) -> u64 {
    clock.wall().as_nanosecond() as u64
}

/// One store, and everybody around it.
pub struct House {
    mode: Mode,
    crash: Crash,
    clock: Clock,
    seed: u64,
    rng: StdRng,
    folder: tempfile::TempDir,
    pub world: Shared,
    sink: SocketAddr,
    sink_is_away: Arc<AtomicBool>,
    /// The disk takes no sync seriously.
    pub forgetful: bool,
    lost: Vec<Lost>,
    unsynced: Vec<usize>,
    starts_cut: usize,
    stops_cut: usize,
    /// What killed processes left on the disk, synced or not.
    pub disk: Option<Disk>,
    kills: usize,
}

/// A node that runs.
pub struct Running {
    child: Child,
    /// Lines for it.
    pub to: mpsc::UnboundedSender<String>,
    /// What it said of its own state last.
    pub state: watch::Receiver<String>,
    reader: JoinHandle<()>,
}

/// When a round ends.
enum End {
    /// So long after the process began.
    Starting(Duration),
    /// So long after it was ready.
    Running(Duration),
    /// It is told to stop after this time, and crashes within that.
    Stopping(Duration, Duration),
}

impl House {
    /// A new store with its devices, and an application.
    pub async fn new(mode: Mode, crash: Crash) -> House {
        let clock = Clock::system();
        let seed = std::env::var("ROAMGATE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from_be_bytes(clock.random()));
        println!("ROAMGATE_TEST_SEED={seed} ({mode:?}, {crash:?})");
        let mut rng = StdRng::seed_from_u64(seed);
        let world: Shared = Arc::new(Mutex::new(World::new(DEVICES, &mut rng)));
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let sink_is_away = Arc::new(AtomicBool::new(false));
        let sink = listen(world.clone(), sink_is_away.clone()).await;
        let house = House {
            mode,
            crash,
            clock,
            seed,
            rng,
            folder,
            world,
            sink,
            sink_is_away,
            forgetful: false,
            lost: Vec::new(),
            unsynced: Vec::new(),
            starts_cut: 0,
            stops_cut: 0,
            disk: None,
            kills: 0,
        };
        let store = open(&house.data(), &house.clock).unwrap();
        let new: Vec<Addition> = lock(&house.world)
            .devices
            .iter()
            .map(|device| NewDevice {
                dev_eui: device.dev_eui,
                join_eui: JOIN_EUI,
                name: device.dev_eui.to_string(),
                mac_version: if device.counts { MacVersion::V1_0_4 } else { MacVersion::V1_0_3 },
                app_key: Some(device.app_key.clone()),
                nwk_key: None,
                home: None,
                roaming: false,
            })
            .map(|device| Addition::Joins { device, enabled: true, class: ClassMode::A })
            .collect();
        assert!(store.add_devices(new, false).await.unwrap().is_empty());
        store.close().await.unwrap();
        house
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn copy(&self) -> PathBuf {
        self.folder.path().join("copy")
    }

    pub fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// Whether the application takes no events.
    pub fn is_away(&self, away: bool) {
        self.sink_is_away.store(away, Ordering::Relaxed);
    }

    /// Kill -9.
    pub async fn dies(&self, mut running: Running) {
        let _ = running.child.start_kill();
        let _ = running.child.wait().await;
        running.reader.await.unwrap();
    }

    /// The store's files.
    pub fn image(&self) -> Image {
        disk::image(&self.data())
    }

    /// Put the store's files back.
    pub fn lays(&self, image: &Image) {
        disk::lay(image, &self.data());
    }

    /// Start the node; `with_sink`: it has an application to tell.
    pub fn starts(&self, with_sink: bool) -> Running {
        let sink = with_sink.then_some(self.sink);
        let config = child::config(&self.data(), self.mode == Mode::Strict, sink);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", child::NAME, "--nocapture", "--test-threads=1"]).env(child::CONFIG, config);
        let said = std::fs::File::create(self.folder.path().join("stderr")).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said).kill_on_drop(true);
        if self.crash == Crash::Cut {
            // One that dies before it begins a journal leaves none.
            let _ = std::fs::remove_file(self.journal());
            disk::observe(&mut command, &self.data(), &self.journal());
        }
        let mut child = command.spawn().unwrap();
        let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (to, mut lines) = mpsc::unbounded_channel::<String>();
        tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                if stdin.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let (told, state) = watch::channel(String::new());
        let (world, clock) = (self.world.clone(), self.clock.clone());
        let reader = tokio::spawn(async move {
            let mut out = BufReader::new(stdout);
            let mut line = String::new();
            // A line that the kill cut off has no end, and was not said.
            while out.read_line(&mut line).await.unwrap_or(0) > 0 && line.ends_with('\n') {
                let words = line.trim();
                if ["ready", "stopped", "failed"].iter().any(|state| words.starts_with(state)) {
                    let _ = told.send(words.to_owned());
                } else {
                    lock(&world).effect(words, now(&clock));
                }
                line.clear();
            }
        });
        Running { child, to, state, reader }
    }

    /// Start, talk, crash, judge.
    pub async fn round(&mut self) {
        let ms = |from: u64, to: u64, rng: &mut StdRng| {
            Duration::from_micros(rng.random_range(from * 1000..to * 1000))
        };
        let rng = &mut self.rng;
        let end = match rng.random_range(0..10) {
            0 => End::Starting(ms(1, 60, rng)),
            1 => End::Stopping(ms(1, 40, rng), ms(0, 15, rng)),
            _ => End::Running(ms(1, 90, rng)),
        };
        let away = rng.random_range(0..6) == 0;
        self.sink_is_away.store(away, Ordering::Relaxed);
        self.ends(end).await;
    }

    /// A new store whose power is cut while it is made: the next start finishes it.
    pub async fn is_born(&mut self) {
        lock(&self.world).next_round();
        let nothing = Image::new();
        self.lays(&nothing);
        let running = self.starts(false);
        sleep(Duration::from_micros(self.rng.random_range(1000..60_000))).await;
        self.dies(running).await;
        let left = self.tells_disk(&nothing).cut(&mut self.rng);
        self.lays(&left);
        let mut running = self.starts(false);
        self.is_ready(&mut running).await;
        self.dies(running).await;
    }

    /// A round with traffic for so long.
    pub async fn round_for(&mut self, time: Duration) {
        self.ends(End::Running(time)).await;
    }

    async fn ends(&mut self, end: End) {
        lock(&self.world).next_round();
        let before = self.image();
        let mut running = self.starts(true);
        // Some frames are there before the node is.
        let early = self.rng.random_range(0..3) == 0;
        let mut talk = JoinSet::new();
        if early {
            self.talks(&running, &mut talk);
        }
        if let End::Starting(time) = end {
            self.starts_cut += 1;
            sleep(time).await;
        } else {
            self.is_ready(&mut running).await;
            if !early {
                self.talks(&running, &mut talk);
            }
        }
        match end {
            End::Starting(_) => {}
            End::Running(time) => sleep(time).await,
            End::Stopping(time, more) => {
                self.stops_cut += 1;
                sleep(time).await;
                talk.abort_all();
                let _ = running.to.send("stop".into());
                sleep(more).await;
            }
        }
        let at = now(&self.clock);
        let _ = running.child.start_kill();
        let status = running.child.wait().await.unwrap();
        running.reader.await.unwrap();
        talk.shutdown().await;
        if status.code().is_some() && !matches!(end, End::Stopping(..)) {
            let said = std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
            let state = running.state.borrow().clone();
            lock(&self.world).faults.push(format!("the node ended by itself: {status}, {state}: {said}"));
        }
        if self.crash == Crash::Cut {
            let disk = self.tells_disk(&before);
            // Sometimes only the process dies, and what it did not sync is at stake under the next one.
            if self.rng.random_range(0..4) == 0 {
                self.kills += 1;
                self.disk = Some(disk);
            } else {
                self.unsynced.push(disk.unsynced());
                // What is left is what the next node finds.
                let left = disk.cut(&mut self.rng);
                self.lays(&left);
            }
        }
        self.judges(at).await;
    }

    pub async fn is_ready(&self, running: &mut Running) {
        let ready = timeout(WAIT, running.state.wait_for(|state| !state.is_empty())).await;
        let state = match ready {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => "it ended".into(),
            Err(_) => "it does not start".into(),
        };
        if state != "ready" {
            let said = std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
            lock(&self.world).faults.push(format!("the node is not ready: {state}: {said}"));
        }
    }

    /// Every device talks until it is stopped.
    pub fn talks(&mut self, running: &Running, talk: &mut JoinSet<()>) {
        for n in 0..DEVICES {
            let (world, to) = (self.world.clone(), running.to.clone());
            let mut rng = StdRng::seed_from_u64(self.rng.random());
            talk.spawn(async move {
                loop {
                    let action = lock(&world).acts(n, &mut rng);
                    act(action, &to).await;
                    sleep(Duration::from_micros(rng.random_range(0..3000))).await;
                }
            });
        }
    }

    /// The process has been killed: what its journal tells, and whether that is all.
    pub fn tells_disk(&mut self, before: &Image) -> Disk {
        let records = disk::read(&self.journal());
        let mut disk = self.disk.take().unwrap_or_else(|| Disk::holding(before));
        disk.forgetful = self.forgetful;
        disk.next_journal();
        let real = self.image();
        if !disk.ends(&records, &real) {
            let lengths =
                |image: &Image| image.iter().map(|(name, of)| (name.clone(), of.len())).collect::<Vec<_>>();
            let (told, found) = (lengths(&disk.now()), lengths(&real));
            disk::lay(&real, &self.folder.path().join("real"));
            disk::lay(&disk.now(), &self.folder.path().join("told"));
            let fault =
                format!("the journal does not tell what became of the folder: {told:?}, not {found:?}");
            lock(&self.world).faults.push(fault);
        }
        disk
    }

    /// Look into the store as it is.
    pub async fn inspects(&mut self) {
        self.judges(now(&self.clock)).await;
    }

    async fn judges(&mut self, at: u64) {
        let lossy = self.mode == Mode::Balanced;
        match look(&self.image(), &self.copy(), &self.world, &self.clock).await {
            Ok(found) => {
                let lost = lock(&self.world).check(&found, lossy, at);
                self.lost.push(lost);
            }
            Err(error) => lock(&self.world).faults.push(format!("the store does not open: {error}")),
        }
    }

    /// No more crashes: what waits arrives, every session works, and nothing old is new.
    pub async fn settles(&mut self) {
        self.sink_is_away.store(false, Ordering::Relaxed);
        lock(&self.world).next_round();
        let mut running = self.starts(true);
        self.is_ready(&mut running).await;
        let mut talk = JoinSet::new();
        self.talks(&running, &mut talk);
        sleep(Duration::from_millis(500)).await;
        talk.shutdown().await;
        // the last frames are still on their way into the store: what is stopped before it delivers them is no loss
        let mut quiet = 0;
        for _ in 0..200 {
            quiet = if lock(&self.world).all_delivered() { quiet + 1 } else { 0 };
            if quiet == 10 {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        let _ = running.to.send("stop".into());
        let status = timeout(WAIT, running.child.wait()).await.unwrap().unwrap();
        running.reader.await.unwrap();
        let mut world = lock(&self.world);
        if !status.success() || *running.state.borrow() != "stopped" {
            world.faults.push(format!("the node does not stop: {status}"));
        }
        world.check_delivered();
    }

    pub fn is_guilty(&self) -> bool {
        !lock(&self.world).faults.is_empty()
    }

    /// Or the test has failed; what the node left is kept.
    pub fn must_be_innocent(&mut self) {
        if !self.is_guilty() {
            return;
        }
        self.folder.disable_cleanup(true);
        let faults = lock(&self.world).faults.join("\n");
        let (seed, kept) = (self.seed, self.folder.path().display());
        panic!("{:?} {:?}, ROAMGATE_TEST_SEED={seed}, kept in {kept}:\n{faults}", self.mode, self.crash);
    }

    /// What was seen, on one line.
    pub fn tells(&self) {
        let world = lock(&self.world);
        let counts = &world.counts;
        println!(
            "{:?} {:?}: {} rounds ({} while starting, {} while stopping, {} kills between the cuts), {} effects: {counts:?}",
            self.mode,
            self.crash,
            self.lost.len(),
            self.starts_cut,
            self.stops_cut,
            self.kills,
            counts.effects(),
        );
        if self.crash == Crash::Cut {
            println!("  unsynced at the cut: {}", spread(self.unsynced.iter().map(|count| *count as u64)));
        }
        if self.mode == Mode::Balanced && self.crash == Crash::Cut {
            tells_lost(&self.lost);
        }
    }
}

/// Median, 90 %, most.
pub fn spread(values: impl Iterator<Item = u64>) -> String {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    let at = |part: usize| {
        values.get((values.len() * part / 100).min(values.len().saturating_sub(1))).unwrap_or(&0)
    };
    format!("median {}, p90 {}, most {}", at(50), at(90), at(100))
}

pub fn tells_lost(lost: &[Lost]) {
    let ms = |age: u64| age / 1_000_000;
    println!("  counters lost, frames: {}", spread(lost.iter().map(|lost| lost.counters as u64)));
    println!("  counters lost, ms: {}", spread(lost.iter().map(|lost| ms(lost.counters_age))));
    println!("  undelivered lost, frames: {}", spread(lost.iter().map(|lost| lost.undelivered as u64)));
    println!("  undelivered lost, ms: {}", spread(lost.iter().map(|lost| ms(lost.undelivered_age))));
}

/// Do it, and wait for what comes of it.
pub async fn act(action: Action, to: &mpsc::UnboundedSender<String>) {
    match action {
        Action::Send(line) => _ = to.send(line),
        Action::Wait(line, wait) => {
            let _ = to.send(line);
            let _ = timeout(PATIENCE, wait).await;
        }
    }
}

fn open(folder: &Path, clock: &Clock) -> Result<Store, roamgate::store::OpenError> {
    let url = Url::sqlite(folder.join(child::DATABASE));
    Store::open(&Config { url, durability: Durability::Balanced, ..Default::default() }, clock.clone())
}

/// What a store holds; the store is looked at in a copy.
pub async fn look(image: &Image, copy: &Path, world: &Shared, clock: &Clock) -> Result<Found, String> {
    disk::lay(image, copy);
    let store = open(copy, clock).map_err(|error| format!("{error}: {error:?}"))?;
    let found = read(&store, world).await.map_err(|error| error.to_string())?;
    store.close().await.map_err(|error| error.to_string())?;
    Ok(found)
}

async fn read(store: &Store, world: &Shared) -> Result<Found, roamgate::backend::door::StoreError> {
    let mut found = Found::default();
    let devices: Vec<_> = lock(world).devices.iter().map(|device| device.dev_eui).collect();
    for dev_eui in devices {
        let (decide, slot) =
            decided(|device: &mut Option<roamgate::js::Device>| (device.clone(), Commit::Nothing));
        RootKeys::with_device(store, dev_eui, Box::new(decide)).await?;
        let Some(keys) = outcome(&slot)? else { continue };
        let sessions = store.sessions_of(dev_eui).await?;
        let device = store.device(dev_eui).await?;
        let queue = device.into_iter().flat_map(|device| device.queue).map(|item| item.id).collect();
        let sessions = sessions.into_iter().map(|of| (of.dev_addr, (of.fcnt_up, of.fcnt_down))).collect();
        let device =
            FoundDevice { dev_nonces: keys.dev_nonces, join_nonce: keys.join_nonce, sessions, queue };
        found.devices.insert(dev_eui, device);
    }
    for waiting in store.first(Sink::Http, 1_000_000).await? {
        let event: serde_json::Value = serde_json::from_str(&waiting.event.body).unwrap_or_default();
        let addr = event["devAddr"].as_str().and_then(|addr| addr.parse().ok());
        let uplink = addr.zip(event["fCnt"].as_u64().map(|fcnt| fcnt as u32));
        found.waiting.extend(uplink.map(|uplink| (uplink, "outbox")));
    }
    for (_, up) in store.waiting().await? {
        found.waiting.extend(up.ul.dev_addr.zip(up.ul.fcnt_up).map(|uplink| (uplink, "forward")));
    }
    Ok(found)
}

#[derive(Clone)]
struct Application {
    world: Shared,
    is_away: Arc<AtomicBool>,
}

/// The application: hears every event, unless it is away.
async fn listen(world: Shared, is_away: Arc<AtomicBool>) -> SocketAddr {
    async fn hear(State(application): State<Application>, body: String) -> StatusCode {
        if application.is_away.load(Ordering::Relaxed) {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        lock(&application.world).delivered(&serde_json::from_str(&body).unwrap_or_default());
        StatusCode::NO_CONTENT
    }
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let router = Router::new().route("/", post(hear)).with_state(Application { world, is_away });
    tokio::spawn(async move { axum::serve(socket, router).await });
    address
}
