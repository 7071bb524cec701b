//! Files, locks, schemas, sealing keys.

use super::*;

#[tokio::test]
async fn a_closed_store_says_so_and_frees_the_file() {
    let (folder, store) = fresh();
    let other = store.clone();
    let queued = put(&store, session(1));
    let ((), closed) = tokio::join!(queued, store.close());
    closed.unwrap();
    assert_eq!(other.flush().await.unwrap_err().to_string(), "store: the store is closed");
    assert!(other.close().await.is_err());
    assert!(!folder.path().join("data/roamgate.db-wal").exists());
    assert_eq!(open(&folder).sessions_of(EUI).await.unwrap(), [session(1)]);
}

#[tokio::test]
async fn the_lock_names_the_file_the_process_and_the_remedy() {
    let (folder, _store) = fresh();
    let error = Store::open(&config(&folder), clock()).unwrap_err().to_string();
    let path = folder.path().join("data/roamgate.db");
    let process = std::process::id();
    assert_eq!(
        error,
        format!(
            "{} is in use by process {process}: stop it, or give the command to it through its control socket",
            path.display()
        )
    );
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn folder_and_files_are_for_their_owner_alone() {
    let (folder, store) = fresh();
    put(&store, session(1)).await;
    let data = folder.path().join("data");
    assert_eq!(mode(&data), 0o700);
    for file in std::fs::read_dir(&data).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

/// Everything on the disk.
fn bytes(folder: &TempDir) -> Vec<u8> {
    let files = std::fs::read_dir(folder.path().join("data")).unwrap();
    files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[tokio::test]
async fn no_key_lies_in_the_clear() {
    let (folder, store) = fresh();
    store.add_device(NewDevice { nwk_key: Some(Key::new(KEY)), ..new_device() }).await.unwrap();
    put(&store, session(1)).await;
    let join = |device: &mut Option<hns::Device>| {
        device.as_mut().unwrap().activations.push(Activation {
            dev_addr: ADDR,
            session_key_id: None,
            app_s_key: Some(KeyEnvelope { label: None, key: KEY.to_vec() }),
            fcnt_up: None,
            sns: None,
            fcnt_down: None,
            created: 0,
        });
        Commit::Durable
    };
    Devices::with_device(&store, EUI, Box::new(join)).await.unwrap();
    let secret = store.secret("tokens").await.unwrap();
    for closed in [false, true] {
        if closed {
            store.close().await.unwrap();
        }
        let disk = bytes(&folder);
        let holds = |key: &[u8]| disk.windows(key.len()).any(|window| window == key);
        assert!(!holds(&KEY) && !holds(hex::encode(KEY).as_bytes()) && !holds(&secret));
        assert!(holds(b"attic"), "the test looks where the rows are");
    }
}

#[tokio::test]
async fn a_ciphertext_that_was_moved_does_not_open() {
    let (_folder, store) = fresh();
    store.add_device(NewDevice { nwk_key: Some(Key::new([2; 16])), ..new_device() }).await.unwrap();
    let other = DevEui::from_msb([7; 8]);
    store.add_device(NewDevice { dev_eui: other, ..new_device() }).await.unwrap();
    put(&store, session(1)).await;
    put(&store, session(2)).await;
    let tamper = |sql: &'static str| {
        store.queue.run(false, move |db| Ok((db.run(sql, [])?, Done::new(Commit::Durable))))
    };
    let moves = [
        "UPDATE root_keys SET app_key = (SELECT app_key FROM root_keys ORDER BY dev_eui LIMIT 1)",
        "UPDATE root_keys SET app_key = nwk_key WHERE nwk_key IS NOT NULL",
        "UPDATE sessions SET nwk_s_key = (SELECT nwk_s_key FROM sessions WHERE id = 1)",
        "UPDATE sessions SET dev_eui = '0707070707070707' WHERE id = 1",
    ];
    let expect = [(true, false), (true, false), (true, true), (true, true)];
    for (sql, (keys, sessions)) in moves.into_iter().zip(expect) {
        tamper(sql).await.unwrap();
        let read = RootKeys::with_device(&store, EUI, Box::new(|_| Commit::Nothing)).await;
        assert_eq!(read.is_err(), keys, "{sql}");
        let error = store.sessions_of(EUI).await.map(|_| ());
        assert_eq!(error.is_err(), sessions, "{sql}");
    }
    let error = store.sessions_of(other).await.unwrap_err();
    assert!(error.0.contains("moved from another row"), "{error}");
}

#[tokio::test]
async fn a_secret_is_made_once_and_stays() {
    let (folder, store) = fresh();
    let (tokens, kek) = (store.secret("tokens").await.unwrap(), store.secret("kek").await.unwrap());
    assert_ne!(tokens, kek);
    store.close().await.unwrap();
    let store = open(&folder);
    assert_eq!(store.secret("tokens").await.unwrap(), tokens);
    assert_eq!(store.secret("kek").await.unwrap(), kek);
}

#[tokio::test]
async fn a_wrong_a_missing_and_a_misshapen_sealing_key_are_told_apart() {
    let (folder, store) = fresh();
    store.close().await.unwrap();
    let path = folder.path().join("data/roamgate.db.key");
    let key = std::fs::read(&path).unwrap();
    let error = |config: &Config| Store::open(config, clock()).unwrap_err();
    std::fs::write(&path, hex::encode([1; 32])).unwrap();
    assert!(matches!(error(&config(&folder)), OpenError::WrongKey { .. }));
    std::fs::write(&path, "secret").unwrap();
    assert!(matches!(error(&config(&folder)), OpenError::KeyShape { .. }));
    std::fs::remove_file(&path).unwrap();
    assert!(
        matches!(error(&config(&folder)), OpenError::KeyFile { .. }),
        "never a new key for an old database"
    );
    // elsewhere, and as bytes
    let elsewhere = folder.path().join("sealing.key");
    let mut raw = [0; 32];
    hex::decode_to_slice(key.trim_ascii(), &mut raw).unwrap();
    std::fs::write(&elsewhere, raw).unwrap();
    Store::open(&Config { key: Some(KeySource::File(elsewhere)), ..config(&folder) }, clock()).unwrap();
}

#[tokio::test]
async fn a_newer_a_foreign_and_a_damaged_database_are_refused() {
    let (folder, store) = fresh();
    store.close().await.unwrap();
    let path = folder.path().join("data/roamgate.db");
    let error = || Store::open(&config(&folder), clock()).unwrap_err();
    let sql = rusqlite::Connection::open(&path).unwrap();
    sql.pragma_update(None, "user_version", 1000).unwrap();
    drop(sql);
    let newer = error();
    assert!(matches!(newer, OpenError::Newer { found: 1000, known: migrations::NEWEST, .. }), "{newer}");
    std::fs::write(&path, "not a database, but a text that is long enough").unwrap();
    assert!(matches!(error(), OpenError::NotOurs { .. }));
    std::fs::remove_file(&path).unwrap();
    let sql = rusqlite::Connection::open(&path).unwrap();
    sql.execute_batch("CREATE TABLE notes (text)").unwrap();
    drop(sql);
    assert!(matches!(error(), OpenError::NotOurs { .. }));
}

/// Nobody knows what a session has sent since an old snapshot was made.
#[tokio::test]
async fn sessions_go_on_from_a_snapshot_of_yesterday_and_end_with_an_older_one() {
    for (days, goes_on) in [(1, true), (3, false)] {
        let (folder, store) = fresh();
        put(&store, session(1)).await;
        let image = store.snapshot().await.unwrap();
        store.close().await.unwrap();
        let path = folder.path().join("data/roamgate.db");
        snapshot::keep_good(&path, &image).unwrap();
        let made = std::time::SystemTime::from(Clock::system().wall()) - Duration::from_secs(days * 86_400);
        let good = std::fs::File::options().write(true).open(open::beside(&path, ".good")).unwrap();
        good.set_modified(made).unwrap();
        std::fs::write(&path, "not a database, but a text that is long enough").unwrap();
        let store = Store::open(&config(&folder), Clock::system()).unwrap();
        let back = store.came_back().await.unwrap().unwrap();
        assert_eq!([back.sessions, back.ended], if goes_on { [1, 0] } else { [0, 1] }, "{days}");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_database_with_large_pages_gets_small_ones_and_keeps_what_is_in_it() {
    let (folder, store) = fresh();
    store.add_device(new_device()).await.unwrap();
    put(&store, session(1)).await;
    store.close().await.unwrap();
    let path = folder.path().join("data/roamgate.db");
    let sql = rusqlite::Connection::open(&path).unwrap();
    let size = |sql: &rusqlite::Connection| {
        sql.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0)).unwrap()
    };
    assert_eq!(size(&sql), 1024);
    sql.execute_batch(
        "PRAGMA journal_mode = DELETE; PRAGMA page_size = 4096; VACUUM; PRAGMA journal_mode = WAL",
    )
    .unwrap();
    assert_eq!(size(&sql), 4096);
    drop(sql);
    for _ in 0..2 {
        let store = open(&folder);
        assert_eq!(store.sessions_of(EUI).await.unwrap(), [session(1)]);
        assert_eq!(store.devices().await.unwrap().len(), 1);
        store.close().await.unwrap();
    }
    assert_eq!(size(&rusqlite::Connection::open(&path).unwrap()), 1024);
}

/// The same image twice: what was used after the first time is not used again after the second.
#[tokio::test]
async fn an_image_that_comes_back_again_begins_behind_where_it_was_before() {
    let (folder, store) = fresh();
    store.add_device(new_device()).await.unwrap();
    put(&store, session(1)).await;
    let image = store.snapshot().await.unwrap();
    store.close().await.unwrap();
    let path = folder.path().join("data/roamgate.db");
    let now = clock().unix();
    let back = async |made: u64| {
        std::fs::write(&path, snapshot::marked(&image, made, false).unwrap()).unwrap();
        let store = open(&folder);
        let down = store.sessions_of(EUI).await.unwrap()[0].fcnt_down;
        let select = "SELECT max(join_nonce) FROM root_keys";
        let nonce =
            store.queue.look(|db| Ok(db.sql.query_row(select, [], |row| row.get::<_, u32>(0))?)).await;
        store.close().await.unwrap();
        (down, nonce.unwrap())
    };
    let (down, nonce) = back(now).await;
    assert_eq!((down, nonce), (8_000, 65_536));
    // an hour later; and after a day and a half it is no more than a device of 1.0.3 takes
    assert_eq!(back(now - 3_600).await, (down + 240, nonce + 60));
    assert_eq!(back(now - 200_000).await, (16_000, nonce + 3_333));
    // one whose age nobody knows is as old as can be
    assert_eq!(back(now + 1_000_000).await, (16_000, nonce + 800_000));
}

#[tokio::test]
async fn after_a_crash_a_damaged_database_is_found_and_a_whole_one_opens() {
    let (folder, store) = fresh();
    store.close().await.unwrap();
    let store = open(&folder);
    put(&store, session(1)).await;
    // What a crash would leave: the files of a store that was not closed.
    let crash = |damage: bool| {
        let image = TempDir::new().unwrap();
        std::fs::create_dir(image.path().join("data")).unwrap();
        for name in ["roamgate.db", "roamgate.db-wal", "roamgate.db.key"] {
            let mut bytes = std::fs::read(folder.path().join("data").join(name)).unwrap();
            if damage && name == "roamgate.db" {
                let second_half = bytes.len() / 2;
                bytes[second_half..].fill(0xA5);
            }
            std::fs::write(image.path().join("data").join(name), bytes).unwrap();
        }
        image
    };
    let whole = crash(false);
    let opened = open(&whole);
    assert_eq!(opened.sessions_of(EUI).await.unwrap(), [session(1)]);
    // What the last run may never have synced does not wait for the bounds of this one.
    assert_eq!(opened.stats().checkpoints, 1);
    assert_eq!(std::fs::metadata(whole.path().join("data/roamgate.db-wal")).unwrap().len(), 0);
    let damaged = crash(true);
    let error = Store::open(&config(&damaged), clock()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_database_of_the_first_version_moves_forward_with_all_it_holds() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("roamgate.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch(include_str!("../migrations/v1.sql")).unwrap();
    std::fs::write(folder.path().join("roamgate.db.key"), hex::encode([0x5A; 32])).unwrap();
    let config = Config { url: Url::sqlite(&path), ..Config::default() };
    let store = Store::open(&config, clock()).unwrap();
    assert_eq!(take_nonces(&store, 1).await, None, "used in the old database");
    assert_eq!(take_nonces(&store, 2).await, Some(2));
    assert_eq!(
        store.sessions_of(EUI).await.unwrap(),
        [Session {
            fcnt_up: Some(1),
            path: None,
            home: None,
            terms: Terms::default(),
            rj_count0: None,
            ..session(u64::MAX)
        }]
    );
    assert_eq!(store.waiting().await.unwrap(), [(forward_key(1), up(1))]);
    let device = store.device(EUI).await.unwrap().unwrap();
    assert_eq!(device.activations[0].app_s_key, Some(KeyEnvelope { label: None, key: KEY.to_vec() }));
    assert_eq!(device.queue.len(), 1);
    assert_eq!(store.net_ids().len(), 1);
    assert_eq!(store.secret("tokens").await.unwrap().len(), 32);
    assert!(store.remove_device(EUI).await.unwrap(), "which writes into the newest table");
}

/// Until the 14th version every device had the NetID of the node at the time; now those are just ours.
#[tokio::test]
async fn devices_of_a_node_that_knew_no_others_are_its_own_and_their_sessions_keep_their_network() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("roamgate.db");
    let mut sql = rusqlite::Connection::open(&path).unwrap();
    sql.execute_batch(include_str!("../migrations/v1.sql")).unwrap();
    migrations::migrate_to(&mut sql, &path, 13).unwrap();
    let home: String = sql.query_row("SELECT home FROM root_keys", [], |row| row.get(0)).unwrap();
    sql.execute("INSERT INTO derivations VALUES (?1, 1, 5, 1, 7)", [EUI.to_string()]).unwrap();
    drop(sql);
    std::fs::write(folder.path().join("roamgate.db.key"), hex::encode([0x5A; 32])).unwrap();
    let store = Store::open(&Config { url: Url::sqlite(&path), ..Config::default() }, clock()).unwrap();
    let keys = root_keys_of(&store).await.unwrap();
    assert_eq!(keys.home, None);
    let net_id = home.parse().unwrap();
    assert_eq!(
        keys.derivations,
        [js::Derivation { join_nonce: 1, nonce: 5, net_id, v1_1: true, rj_count0: Some(7) }]
    );
}

/// Until the 23rd version a device's row said when it was heard.
#[tokio::test]
async fn when_a_device_was_heard_moves_into_its_own_table() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("roamgate.db");
    let mut sql = rusqlite::Connection::open(&path).unwrap();
    sql.execute_batch(include_str!("../migrations/v1.sql")).unwrap();
    migrations::migrate_to(&mut sql, &path, 23).unwrap();
    sql.execute_batch(
        "INSERT INTO devices (dev_eui, join_eui, name, mac_version, enabled, roaming, profile_since)
            VALUES ('0102030405060708', '0000000000000001', 'cellar', '1.0.3', 1, 1, 0);
         UPDATE devices SET last_seen = 1795000000, last_via = 'C0002F' WHERE name = 'attic'",
    )
    .unwrap();
    drop(sql);
    std::fs::write(folder.path().join("roamgate.db.key"), hex::encode([0x5A; 32])).unwrap();
    let store = Store::open(&Config { url: Url::sqlite(&path), ..Config::default() }, clock()).unwrap();
    let heard: Vec<_> = store.devices().await.unwrap();
    let heard: Vec<_> = heard.iter().map(|one| (one.name.as_str(), one.last_seen, one.last_via)).collect();
    let via = Some("C0002F".parse().unwrap());
    assert_eq!(heard, [("cellar", None, None), ("attic", Some(1_795_000_000), via)]);
    let device = store.device(EUI).await.unwrap().unwrap();
    assert_eq!((device.last_seen, device.last_via), (Some(1_795_000_000), via));
    assert!(store.remove_device(EUI).await.unwrap());
    let count = "SELECT count(*) FROM seen";
    let left = store.queue.look(move |db| Ok(db.sql.query_row(count, [], |row| row.get::<_, i64>(0))?));
    assert_eq!(left.await.unwrap(), 0);
}

/// Until the 17th version usage knew no Service Profiles, and the events of both sinks were in one table.
#[tokio::test]
async fn usage_events_and_contexts_of_the_17th_version_are_all_there_afterwards() {
    use crate::application::outbox::{Outbox, Sink};
    use crate::fns::contexts::Contexts;
    use crate::usage::{Kind, TrafficRecord};
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("roamgate.db");
    let mut sql = rusqlite::Connection::open(&path).unwrap();
    sql.execute_batch(include_str!("../migrations/v1.sql")).unwrap();
    migrations::migrate_to(&mut sql, &path, 17).unwrap();
    sql.execute_batch(
        "INSERT INTO usage_traffic VALUES ('2026-11', 'C0002F', 'Passive', 1, 2, 3, 4);
         INSERT INTO usage_for_us VALUES ('2026-11', 'C0002F', 'Handover', 5, 6, 7, 8);
         INSERT INTO usage_roaming (month, net_id, dev_eui, active, at)
            VALUES ('2026-11', 'C0002F', '0102030405060708', 1, 1795000000);
         INSERT INTO contexts VALUES ('C0002F', '0102030405060708', 'FC00BC01', 1795172400, 3600, NULL, 0, 7);
         INSERT INTO outbox VALUES ('mqtt', 3, '0102030405060708', 'up', 'a'), ('mqtt', 4, '0102030405060708', 'up', 'b'),
            ('http', 9, '0102030405060708', 'join', 'c');",
    )
    .unwrap();
    drop(sql);
    std::fs::write(folder.path().join("roamgate.db.key"), hex::encode([0x5A; 32])).unwrap();
    let store = Store::open(&Config { url: Url::sqlite(&path), ..Config::default() }, clock()).unwrap();
    // the way back to the program before
    let kept = rusqlite::Connection::open(folder.path().join("roamgate.db.good")).unwrap();
    let version: i64 = kept.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 17);
    let usage = store.usage("2026-11".into()).await.unwrap();
    let them = "C0002F".parse().unwrap();
    assert_eq!(usage.traffic, [TrafficRecord::new(them, Kind::Passive, [1, 3, 2, 4])]);
    assert_eq!(usage.for_us, [TrafficRecord::new(them, Kind::Handover, [5, 7, 6, 8])]);
    assert_eq!(usage.activations[0].service_profile_id, "");
    let contexts = store.with_addr("FC00BC01".parse().unwrap()).await.unwrap();
    assert_eq!(
        contexts.iter().map(|context| (context.fcnt_up, &context.terms)).collect::<Vec<_>>(),
        [(7, &Terms::default())]
    );
    let waits = async |sink| {
        let waiting = store.first(sink, 9).await.unwrap();
        waiting.into_iter().map(|waiting| (waiting.id, waiting.event.body)).collect::<Vec<_>>()
    };
    assert_eq!(waits(Sink::Mqtt).await, [(3, "a".into()), (4, "b".into())]);
    assert_eq!(waits(Sink::Http).await, [(9, "c".into())]);
}

#[test]
fn the_store_opens_on_a_runtime_only() {
    let folder = TempDir::new().unwrap();
    assert!(matches!(Store::open(&config(&folder), Clock::system()), Err(OpenError::NoRuntime)));
}

#[test]
fn the_configuration_cannot_hold_a_wrong_value() {
    let parse = |text: &str| toml::from_str::<Config>(text);
    assert_eq!(parse("").unwrap().url.to_string(), "sqlite:./roamgate-data/roamgate.db");
    let full =
        parse("url = \"sqlite:///var/lib/r.db\"\ndurability = \"strict\"\nkey = { credential = \"seal\" }");
    let full = full.unwrap();
    assert_eq!(full.url, Url::sqlite("/var/lib/r.db"));
    assert_eq!(full.durability, Durability::Strict);
    assert_eq!(parse(&toml::to_string(&full).unwrap()).unwrap(), full);
    assert_eq!(parse("key = { file = \"/etc/k\" }").unwrap().key, Some(KeySource::File("/etc/k".into())));
    for wrong in [
        "url = \"postgres://db/r\"",
        "url = \"sqlite:\"",
        "url = \"sqlite::memory:\"",
        "url = \"r.db\"",
        "durability = \"fast\"",
        "key = \"abc\"",
        "key = { credential = \"../x\" }",
        "key = { file = \"a\", credential = \"b\" }",
        "path = \"x\"",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    let postgres = parse("url = \"postgres://db/r\"").unwrap_err().to_string();
    assert!(postgres.contains("not in this version"), "{postgres}");
}
