//! A hotspot's way back: a backup is made while it runs, the box is lost, and what comes back goes on without sending anything twice.

use std::path::Path;
use std::process::{Command, Output};

use roamgate::clock::Clock;
use roamgate::control::{MakeBackup, Operator};
use roamgate::demo::device::Device;
use roamgate::demo::federation::{DEVICE, Federation};
use roamgate::store::Store;

/// A federation whose device has joined at home and been answered.
async fn federation(clock: &Clock) -> (Federation, Device) {
    let federation = Federation::start(clock, true, None).await.unwrap();
    let mut device = federation.device();
    device.move_to(&federation.home.reach());
    assert!(device.join().await.ok);
    assert!(answered(&mut device).await);
    (federation, device)
}

async fn answered(device: &mut Device) -> bool {
    device.send(b"hello", 10, true).await.is_ok_and(|sent| sent.acked)
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roamgate"))
        .args(arguments)
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap()
}

fn done(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(arguments: &[&str], words: &str) {
    let output = run(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains(words), "{arguments:?}: {error}");
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The next downlink counter and the last JoinNonce, as the store has them.
async fn numbers(store: &Path) -> (u32, u32) {
    let sql = rusqlite::Connection::open(store).unwrap();
    let down =
        sql.query_row("SELECT coalesce(max(fcnt_down), 0) FROM sessions", [], |row| row.get(0)).unwrap();
    let nonce = sql.query_row("SELECT max(join_nonce) FROM root_keys", [], |row| row.get(0)).unwrap();
    (down, nonce)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_goes_on_and_nothing_that_is_sent_repeats() {
    let clock = Clock::system();
    let (mut federation, mut device) = federation(&clock).await;
    let folder = federation.folder.path.clone();
    let at = |name: &str| folder.join(name);
    let (key, file) = (text(&at("backup-key")), text(&at("home.age")));
    let recipient = done(&["backup", "key", &key]);
    let recipient = recipient.lines().next().unwrap().to_owned();
    refused(&["backup", "key", &key], "already");

    // while it runs
    let lock = MakeBackup { recipients: vec![recipient.parse().unwrap()], passphrase: None };
    let packed = federation.home.node().unwrap().operator().backup(lock.lock().unwrap()).await.unwrap();
    std::fs::write(&file, packed).unwrap();
    // and goes on: counters and nonces that the backup knows nothing of
    for _ in 0..3 {
        assert!(answered(&mut device).await);
    }
    federation.home.stop().await.unwrap();
    let lost = numbers(&at("home.db")).await;

    // in the way, and with the wrong key
    let restore = ["restore", &file, "--key", &key];
    refused(&restore, "in the way");
    let other = text(&at("other-key"));
    done(&["backup", "key", &other]);
    refused(&["restore", &file, "--key", &other], "does not open");
    let said = done(&["restore", &file, "--key", &key, "--look"]);
    assert!(said.contains("backup of 000001") && said.contains("home.toml"), "{said}");

    // the box is gone
    for name in ["home.db", "home.db.key", "home.toml", "home-chain.pem", "home-key.pem"] {
        std::fs::remove_file(at(name)).unwrap();
    }
    let said = done(&["restore", &file, "--key", &key, "--force"]);
    assert!(said.contains("1 sessions go on"), "{said}");
    let back = numbers(&at("home.db")).await;
    assert!(back.0 > lost.0 && back.1 > lost.1, "{back:?} is not behind {lost:?}");
    let mode = std::fs::metadata(at("home-key.pem")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);

    federation.home.restart(&federation.air, &clock).await.unwrap();
    assert!(answered(&mut device).await, "the device takes what comes back");
    assert!(device.join().await.ok, "and a JoinNonce that it has not seen");
    assert!(answered(&mut device).await);
    federation.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_where_nothing_may_be_taken_twice() {
    let clock = Clock::system();
    let (mut federation, mut device) = federation(&clock).await;
    let folder = federation.folder.path.clone();
    let at = |name: &str| folder.join(name);
    let (secret, file) = (text(&at("passphrase")), text(&at("home.age")));
    std::fs::write(&secret, "correct horse battery staple\n").unwrap();
    federation.home.stop().await.unwrap();
    // while it does not run
    done(&["backup", &file, "--passphrase-file", &secret, "-c", &text(&at("home.toml"))]);
    refused(&["backup", &file, "--passphrase-file", &secret, "-c", &text(&at("home.toml"))], "already");
    let said = done(&["restore", &file, "--passphrase-file", &secret, "--force", "--rejoin"]);
    assert!(said.contains("1 sessions have ended"), "{said}");
    assert!(at("home.db.before-restore").exists());
    federation.home.restart(&federation.air, &clock).await.unwrap();
    assert!(!answered(&mut device).await, "its session has ended");
    assert!(device.join().await.ok);
    assert!(answered(&mut device).await);
    let device = federation.home.node().unwrap().operator().device(DEVICE).await;
    device.unwrap();
    federation.stop().await.unwrap();
}

/// Whatever happens between the last file and the end of the restore: whoever opens the database first moves its numbers on.
#[tokio::test]
async fn a_restore_that_was_interrupted_repeats_nothing_either() {
    let clock = Clock::system();
    let folder = tempfile::tempdir().unwrap();
    let url = roamgate::store::Url::sqlite(folder.path().join("one.db"));
    let config = roamgate::store::Config { url, ..Default::default() };
    let store = Store::open(&config, clock.clone()).unwrap();
    let image = store.snapshot().await.unwrap();
    assert_eq!(store.came_back().await.unwrap(), None);
    store.close().await.unwrap();
    let marked = roamgate::store::snapshot::marked(&image, false).unwrap();
    std::fs::write(folder.path().join("one.db"), marked).unwrap();
    let store = Store::open(&config, clock.clone()).unwrap();
    assert!(store.came_back().await.unwrap().is_some());
    let serial = store.registry(|book| Ok((book.serial()?, false))).await.unwrap();
    assert_eq!(serial, 1001, "once");
    store.close().await.unwrap();
    let store = Store::open(&config, clock).unwrap();
    let serial = store.registry(|book| Ok((book.serial()?, false))).await.unwrap();
    assert_eq!(serial, 1001, "and once only");
    assert!(roamgate::store::snapshot::marked(b"no database", false).is_err());
    assert!(roamgate::store::snapshot::marked(&image[..image.len() / 2], false).is_err());
}
