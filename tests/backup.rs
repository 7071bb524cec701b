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

/// A store of its own, and where it is.
fn one(folder: &tempfile::TempDir) -> (std::path::PathBuf, roamgate::store::Config) {
    let path = folder.path().join("one.db");
    let url = roamgate::store::Url::sqlite(&path);
    (path, roamgate::store::Config { url, ..Default::default() })
}

/// The registry's number, which moves on with all others.
async fn serial(store: &Store) -> u32 {
    store.registry(|book| Ok((book.serial()?, false))).await.unwrap()
}

#[tokio::test]
async fn a_damaged_database_gives_way_to_its_snapshot() {
    use roamgate::store::snapshot;
    let clock = Clock::system();
    let folder = tempfile::tempdir().unwrap();
    let (path, config) = one(&folder);
    let store = Store::open(&config, clock.clone()).unwrap();
    snapshot::keep_good(&path, &store.snapshot().await.unwrap()).unwrap();
    assert!(snapshot::keep_good(&path, b"no database").is_err());
    store.close().await.unwrap();
    // its first page is gone, as a card does it
    let whole = std::fs::read(&path).unwrap();
    let damage = |from: usize| {
        let mut bytes = whole.clone();
        bytes[from..from + 4096].fill(0xA5);
        std::fs::write(&path, bytes).unwrap();
    };
    damage(0);
    let store = Store::open(&config, clock.clone()).unwrap();
    assert_eq!(serial(&store).await, 1001, "numbers have moved on");
    store.close().await.unwrap();
    // the same again, before there was another day: not the same numbers once more
    damage(0);
    let store = Store::open(&config, clock.clone()).unwrap();
    assert_eq!(serial(&store).await, 2001, "nothing repeats");
    store.close().await.unwrap();
    let damaged = std::fs::read_dir(folder.path())
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert!(
        (1..=2).contains(&damaged.filter(|name| name.contains(".damaged-")).count()),
        "what was damaged is kept"
    );

    // without a snapshot nothing is made up
    std::fs::remove_file(folder.path().join("one.db.good")).unwrap();
    damage(0);
    let error = Store::open(&config, clock.clone()).unwrap_err().to_string();
    assert!(error.contains("another program") || error.contains("restore a backup"), "{error}");
    // and a damaged snapshot is none
    std::fs::write(folder.path().join("one.db.good"), &whole[..5000]).unwrap();
    assert!(Store::open(&config, clock).is_err());
}

/// An update migrates the database, is found ill, and is taken back: the program before goes on with what it left.
#[tokio::test]
async fn an_update_that_is_taken_back_leaves_a_database_that_opens() {
    use roamgate::store::snapshot;
    let clock = Clock::system();
    let folder = tempfile::tempdir().unwrap();
    let (path, config) = one(&folder);
    let store = Store::open(&config, clock.clone()).unwrap();
    let before = store.snapshot().await.unwrap();
    store.close().await.unwrap();
    let newer = || {
        let sql = rusqlite::Connection::open(&path).unwrap();
        sql.pragma_update(None, "user_version", 1000).unwrap();
    };
    // without a snapshot it is refused, and stays as it is
    newer();
    let error = Store::open(&config, clock.clone()).unwrap_err().to_string();
    assert!(error.contains("newer program"), "{error}");
    // with the one from before the migration it gives way
    snapshot::keep_good(&path, &before).unwrap();
    let store = Store::open(&config, clock.clone()).unwrap();
    assert_eq!(serial(&store).await, 1001, "numbers have moved on");
    let later = store.snapshot().await.unwrap();
    store.close().await.unwrap();
    let aside = |what: &str| {
        let names = std::fs::read_dir(folder.path()).unwrap();
        names.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(what)).count()
    };
    assert_eq!(aside(".newer-"), 1, "what the newer program left is kept");
    // a snapshot that the newer program has made is none for this one
    newer();
    let image = {
        let good = folder.path().join("one.db.good");
        std::fs::write(&good, &later).unwrap();
        rusqlite::Connection::open(&good).unwrap().pragma_update(None, "user_version", 1000).unwrap();
        std::fs::read(&good).unwrap()
    };
    assert!(Store::open(&config, clock).unwrap_err().to_string().contains("newer program"));
    assert_eq!(std::fs::read(folder.path().join("one.db.good")).unwrap(), image);
}

/// Whatever happens between the last file and the end of the restore: whoever opens the database first moves its numbers on.
#[tokio::test]
async fn a_restore_that_was_interrupted_repeats_nothing_either() {
    let clock = Clock::system();
    let folder = tempfile::tempdir().unwrap();
    let (path, config) = one(&folder);
    let store = Store::open(&config, clock.clone()).unwrap();
    let image = store.snapshot().await.unwrap();
    assert_eq!(store.came_back().await.unwrap(), None);
    store.close().await.unwrap();
    let marked = roamgate::store::snapshot::marked(&image, clock.unix(), false).unwrap();
    std::fs::write(&path, marked).unwrap();
    let store = Store::open(&config, clock.clone()).unwrap();
    assert!(store.came_back().await.unwrap().is_some());
    assert_eq!(serial(&store).await, 1001, "once");
    store.close().await.unwrap();
    let store = Store::open(&config, clock).unwrap();
    assert_eq!(serial(&store).await, 1001, "and once only");
    assert!(roamgate::store::snapshot::marked(b"no database", 0, false).is_err());
    assert!(roamgate::store::snapshot::marked(&image[..image.len() / 2], 0, false).is_err());
}

/// A bucket as far as backups need one: it takes what is signed for its account, lists, and removes.
async fn bucket() -> (std::net::SocketAddr, Objects) {
    use axum::extract::{Path, Query, State};
    use axum::http::StatusCode;
    type Asked = Query<std::collections::BTreeMap<String, String>>;
    fn is_signed(query: &std::collections::BTreeMap<String, String>) -> bool {
        let has = |name: &str, part: &str| query.get(name).is_some_and(|value| value.contains(part));
        has("X-Amz-Credential", "AK/")
            && has("X-Amz-Algorithm", "AWS4-HMAC-SHA256")
            && has("X-Amz-Signature", "")
    }
    let objects = Objects::default();
    let put = async |State(objects): State<Objects>,
                     Path(key): Path<String>,
                     Query(query): Asked,
                     body: axum::body::Bytes| {
        if !is_signed(&query) {
            return StatusCode::FORBIDDEN;
        }
        objects.lock().unwrap().insert(key, body.to_vec());
        StatusCode::OK
    };
    let remove = async |State(objects): State<Objects>, Path(key): Path<String>, Query(query): Asked| {
        if !is_signed(&query) {
            return StatusCode::FORBIDDEN;
        }
        objects.lock().unwrap().remove(&key);
        StatusCode::NO_CONTENT
    };
    let list = async |State(objects): State<Objects>, Query(query): Asked| {
        let prefix = query.get("prefix").cloned().unwrap_or_default();
        let contents: String = objects
            .lock()
            .unwrap()
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(key, bytes)| {
                format!(
                    "<Contents><Key>{key}</Key><LastModified>2026-11-30T00:00:00.000Z</LastModified><ETag>\"0\"</ETag>\
                     <Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
                    bytes.len()
                )
            })
            .collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Name>hotspots</Name><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        )
    };
    let router = axum::Router::new()
        .route("/hotspots", axum::routing::get(list))
        .route("/hotspots/", axum::routing::get(list))
        .route("/hotspots/{*key}", axum::routing::put(put).delete(remove))
        .with_state(objects.clone());
    let served = roamgate::web::serve("127.0.0.1:0".parse().unwrap(), router, Clock::system()).await.unwrap();
    let address = served.address;
    // as long as the test
    std::mem::forget(served);
    (address, objects)
}

type Objects = std::sync::Arc<std::sync::Mutex<std::collections::BTreeMap<String, Vec<u8>>>>;

#[tokio::test(flavor = "multi_thread")]
async fn backups_go_to_a_folder_and_a_bucket_and_the_newest_stay() {
    let clock = Clock::system();
    let (address, objects) = bucket().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("stick")).unwrap();
    std::fs::write(at("s3-secret"), "hush\n").unwrap();
    let recipient = done(&["backup", "key", &text(&at("key"))]).lines().next().unwrap().to_owned();
    let config = format!(
        "[store]\nurl = \"sqlite:{0}/one.db\"\n[backup]\nrecipients = [\"{recipient}\"]\nkeep = 2\ndirectory = \"{0}/stick\"\n\
         s3 = {{ endpoint = \"http://{address}\", bucket = \"hotspots\", prefix = \"attic/\", access_key = \"AK\", secret_file = \"{0}/s3-secret\" }}\n",
        folder.path().display()
    );
    std::fs::write(at("roamgate.toml"), config).unwrap();
    let loaded = roamgate::config::load(Some(&at("roamgate.toml")), std::iter::empty()).unwrap();
    let config = loaded.checked().unwrap().config;
    let store = Store::open(&config.store, clock.clone()).unwrap();
    objects.lock().unwrap().insert("attic/holiday.jpg".into(), vec![1]);
    for _ in 0..3 {
        let backup = config.backup.as_ref().unwrap();
        roamgate::app::backups::once(&config, backup, &store, None, &clock).await.unwrap();
        clock.move_wall(jiff::SignedDuration::from_secs(1));
    }
    assert_eq!(std::fs::read_dir(at("stick")).unwrap().count(), 2);
    let kept: Vec<String> = objects.lock().unwrap().keys().cloned().collect();
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(kept.contains(&"attic/holiday.jpg".to_owned()), "{kept:?}");
    assert!(store.last_backup().await.unwrap().is_some());
    // what lies there opens, and has what it needs
    let (name, bytes) =
        objects.lock().unwrap().iter().nth(2).map(|(name, bytes)| (name.clone(), bytes.clone())).unwrap();
    assert!(name.starts_with("attic/roamgate-000000-") && name.ends_with(".age"), "{name}");
    let opener =
        roamgate::backup::archive::Opener::from_file(&std::fs::read_to_string(at("key")).unwrap()).unwrap();
    let contents = roamgate::backup::archive::unpack(&bytes[..], &opener).unwrap();
    assert!(contents.files.iter().any(|kept| kept.path.ends_with("s3-secret")) && contents.config.is_some());
    // one place that fails keeps no other from being served, and is told
    std::fs::remove_dir_all(at("stick")).unwrap();
    let backup = config.backup.as_ref().unwrap();
    let error =
        roamgate::app::backups::once(&config, backup, &store, None, &clock).await.unwrap_err().to_string();
    assert!(error.contains("is it mounted") && !error.contains("bucket"), "{error}");
}

/// Make one with this configuration, as the schedule does, beside the running node.
async fn once(config: &Path, node: &roamgate::app::Node, clock: &Clock) -> anyhow::Result<()> {
    let config = roamgate::config::load(Some(config), std::iter::empty())?.checked()?.config;
    let way = roamgate::app::way::Way::new(&config, clock)?;
    let out = way.out(way.resolver()?)?.unwrap();
    let bring: std::sync::Arc<dyn roamgate::backup::shelf::Bring> = std::sync::Arc::new(out);
    let backup = config.backup.as_ref().unwrap();
    roamgate::app::backups::once(&config, backup, node.store(), Some(&bring), clock).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_keeps_them_and_a_new_box_with_our_certificate_gets_them_back() {
    let clock = Clock::system();
    let (mut federation, _device) = federation(&clock).await;
    let folder = federation.folder.path.clone();
    let at = |name: &str| folder.join(name);
    let add = |name: &str, more: &str| {
        let before = std::fs::read_to_string(at(name)).unwrap();
        std::fs::write(at(name), format!("{before}\n{more}")).unwrap();
    };
    let (home, visited) = (text(&at("home.toml")), text(&at("visited.toml")));
    let recipient = done(&["backup", "key", &text(&at("key"))]).lines().next().unwrap().to_owned();
    add("home.toml", &format!("[backup]\nrecipients = [\"{recipient}\"]\npartner = \"000000\"\n"));
    done(&["config", "check", "-c", &home]);

    // it was not asked to
    let node = federation.home.node().unwrap();
    let error = once(&at("home.toml"), node, &clock).await.unwrap_err().to_string();
    assert!(error.contains("NetID 000000") && error.contains("no keep_backups_mb"), "{error}");
    assert!(node.store().last_backup().await.unwrap().is_none());
    refused(&["backup", "kept", "--at", "000000", "-c", &home], "no keep_backups_mb");
    assert_eq!(done(&["backup", "kept", "-c", &visited]), "Nothing is kept here for partners.\n");

    let entry = "[[roaming.partner]]\nnet_id = \"000001\"\nkeep_backups_mb = 1\npassive = { start = true, activation = true }\n";
    add("visited.toml", entry);
    federation.visited.restart(&federation.air, &clock).await.unwrap();
    let node = federation.home.node().unwrap();
    assert_eq!(
        done(&["backup", "kept", "--at", "000000", "-c", &home]),
        "NetID 000000 keeps nothing of ours.\n"
    );
    for _ in 0..2 {
        once(&at("home.toml"), node, &clock).await.unwrap();
        clock.move_wall(jiff::SignedDuration::from_secs(1));
    }
    let listed = done(&["backup", "kept", "--at", "000000", "-c", &home]);
    assert_eq!(listed.matches("000000  roamgate-000001-").count(), 2, "{listed}");
    let here = done(&["backup", "kept", "-c", &visited]);
    assert!(here.contains("000001  roamgate-000001-") && here.contains("kept/000001\n"), "{here}");

    // nobody else gets at them, and nothing else is taken
    let own = roamgate::config::load(Some(&at("visited.toml")), std::iter::empty()).unwrap();
    let way = roamgate::app::way::Way::new(&own.checked().unwrap().config, &clock).unwrap();
    let visitor = way.out(way.resolver().unwrap()).unwrap().unwrap();
    let error = visitor.left(roamgate::demo::federation::HOME.net_id).await.unwrap_err().to_string();
    assert!(error.contains("no backups of NetID 000000 are kept here"), "{error}");
    let home_way = roamgate::config::load(Some(&at("home.toml")), std::iter::empty()).unwrap();
    let home_way = roamgate::app::way::Way::new(&home_way.checked().unwrap().config, &clock).unwrap();
    let client = home_way.out(home_way.resolver().unwrap()).unwrap().unwrap();
    let visited_id = roamgate::demo::federation::VISITED.net_id;
    for (name, length, words) in [
        ("../000000/roamgate-000001-20261130T031200Z.age", 10, "HTTP 4"),
        ("roamgate-000000-20261130T031200Z.age", 10, "is called roamgate-000001-TIME.age"),
        ("roamgate-000001-20261130T031200Z.age", 1_100_000, "longer than 1 MB"),
    ] {
        let error = client.leave(visited_id, name, vec![7; length]).await.unwrap_err().to_string();
        assert!(error.contains(words), "{name}: {error}");
    }
    let kept = std::fs::read_dir(at("kept/000001")).unwrap().count();
    assert_eq!((kept, std::fs::read_dir(at("kept")).unwrap().count()), (2, 1));

    // the box is gone: a new one has a certificate and nothing else
    let back = text(&at("back.age"));
    let said = done(&["backup", "fetch", "000000", &back, "-c", &home]);
    assert!(said.contains("roamgate restore"), "{said}");
    refused(&["backup", "fetch", "000000", &back, "-c", &home], "already");
    let said = done(&["restore", &back, "--key", &text(&at("key")), "--look"]);
    assert!(said.contains("backup of 000001"), "{said}");
    federation.stop().await.unwrap();
}
