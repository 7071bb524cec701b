//! Over a real socket, with devices in memory.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::Method;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt;

use super::socket::admitted;
use super::*;
use crate::backup::archive::{self, Lock};
use crate::clock::Clock;
use crate::discovery::cache::{Cache, Found, Security, Trouble, Way, Worth};
use crate::partners::Passive;
use crate::radio::sx1302::model::Modelled;
use crate::store::usage::Month;
use crate::telemetry::Tap;
use crate::tls::signed::Signed;
use crate::usage::{ActivationRecord, Kind, Statement, TrafficRecord};

/// Devices in memory.
#[derive(Default)]
struct Fake(Mutex<BTreeMap<DevEui, hns::Device>>);

impl Operator for Fake {
    fn status(&self) -> Boxed<'_, Result<Status, OperatorError>> {
        let devices = self.0.lock().unwrap().len();
        Box::pin(async move { Ok(Status { devices, ..Status::default() }) })
    }
    fn health(&self) -> Boxed<'_, Result<Health, OperatorError>> {
        Box::pin(std::future::ready(Ok(Health { store: true, ..Health::default() })))
    }
    fn model(&self) -> Option<Modelled> {
        None
    }
    fn reload(&self) -> Boxed<'_, Result<String, OperatorError>> {
        Box::pin(std::future::ready(Ok("c00abc.netids.iot.example".into())))
    }
    fn backup(&self, lock: Lock) -> Boxed<'_, Result<Vec<u8>, OperatorError>> {
        let mut packed = Vec::new();
        archive::pack(&archive::Contents::default(), lock, &mut packed).unwrap();
        Box::pin(async move { Ok(packed) })
    }
    fn names(&self) -> Boxed<'_, Result<Vec<Line>, OperatorError>> {
        let worth = Worth { security: Security::Secure, ttl: Duration::from_secs(60), signed_until: None };
        let at = Way {
            by: vec!["ns.example".into()],
            addresses: vec!["2001:db8::5".parse().unwrap()],
            port: 7005,
            path: "/".into(),
            security: Security::Secure,
        };
        let mut cache = Cache::new(Default::default(), 10);
        let clock = Clock::system();
        cache.put("a.example", Arc::new(Ok(Found { ways: vec![at], worth })), clock.now(), 0);
        cache.put("b.example", Arc::new(Err(Trouble::Missing(worth))), clock.now(), 0);
        let lines = cache.list(clock.now(), 0);
        Box::pin(async move { Ok(lines) })
    }
    fn forget_names(&self, name: Option<String>) -> Boxed<'_, Result<usize, OperatorError>> {
        let forgotten = match name.as_deref() {
            None => 2,
            Some("a.example") => 1,
            Some(_) => 0,
        };
        Box::pin(async move { Ok(forgotten) })
    }
    fn usage(&self, month: String) -> Boxed<'_, Result<UsageView, OperatorError>> {
        let (net_id, dev_eui) = (NetId::from_msb([0xC0, 0x0A, 0xBC]), DevEui::from_msb([1; 8]));
        let traffic = vec![TrafficRecord::new(net_id, Kind::Passive, [12, 240, 3, 12])];
        let roams = |begun: Option<&str>, ended: Option<&str>| ActivationRecord {
            net_id,
            service_profile_id: String::new(),
            individual_record: true,
            total_active_devices: None,
            dev_eui: Some(dev_eui),
            activation_time: begun.map(Into::into),
            deactivation_time: ended.map(Into::into),
        };
        let times = [Some("2026-11-20T10:00:00Z"), Some("2026-11-20T11:00:00Z")];
        let activations = vec![roams(times[0], None), roams(None, times[1])];
        let month_of = Month { traffic, activations, for_us: vec![] };
        Box::pin(async move { Ok(UsageView::new(month, month_of)) })
    }
    fn add_device(&self, device: NewDevice) -> Boxed<'_, Result<(), OperatorError>> {
        Box::pin(async move {
            let new = Import { device: New::Joins(device), enabled: true, class: ClassMode::A };
            let wrong = self.add_devices(vec![new], false).await?;
            wrong.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
        })
    }
    fn add_devices(&self, devices: Vec<Import>, dry_run: bool) -> Boxed<'_, Result<Wrong, OperatorError>> {
        let mut here = self.0.lock().unwrap();
        let taken = |new: &Import| here.contains_key(&new.device.dev_eui());
        let wrong: Wrong = devices
            .iter()
            .enumerate()
            .filter(|(_, new)| taken(new))
            .map(|(place, new)| (place, OperatorError::Exists(new.device.dev_eui())))
            .collect();
        for Import { device, enabled, class } in devices.into_iter().filter(|_| !dry_run && wrong.is_empty())
        {
            let New::Joins(device) = device else { continue };
            assert_eq!(device.app_key.unwrap().expose(), &[0x2B; 16]);
            let NewDevice { dev_eui, join_eui, name, mac_version, roaming, .. } = device;
            let (activations, queue, last_seen, last_via) = (vec![], vec![], Some(1_795_000_000), None);
            let device = hns::Device {
                dev_eui,
                join_eui,
                name,
                mac_version,
                enabled,
                roaming,
                personalised: false,
                class,
                activations,
                queue,
                last_seen,
                last_via,
                profile_since: 0,
                home: None,
            };
            here.insert(dev_eui, device);
        }
        Box::pin(async { Ok(wrong) })
    }
    fn export_devices(&self, keys: bool) -> Boxed<'_, Result<Vec<DeviceRecord>, OperatorError>> {
        let record = |device: &hns::Device| DeviceRecord {
            dev_eui: device.dev_eui,
            join_eui: Some(device.join_eui),
            app_key: keys.then(|| "2B".repeat(16)),
            nwk_key: None,
            name: device.name.clone(),
            mac_version: device.mac_version.to_string(),
            roaming: device.roaming,
            enabled: device.enabled,
            class: None,
            home: None,
            session: None,
        };
        let records = self.0.lock().unwrap().values().map(record).collect();
        Box::pin(async { Ok(records) })
    }
    fn change_device(&self, dev_eui: DevEui, change: ChangeDevice) -> Boxed<'_, Result<(), OperatorError>> {
        let mut devices = self.0.lock().unwrap();
        let Some(device) = devices.get_mut(&dev_eui) else {
            return Box::pin(async move { Err(OperatorError::NoDevice(dev_eui)) });
        };
        device.name = change.name.unwrap_or(device.name.clone());
        device.roaming = change.roaming.unwrap_or(device.roaming);
        device.enabled = change.enabled.unwrap_or(device.enabled);
        Box::pin(async { Ok(()) })
    }
    fn reset_counter(&self, dev_eui: DevEui) -> Boxed<'_, Result<(), OperatorError>> {
        Box::pin(async move { Err(OperatorError::NoDevice(dev_eui)) })
    }
    fn rejoin(&self, dev_eui: DevEui, _: u8) -> Boxed<'_, Result<Option<NetId>, OperatorError>> {
        let here = self.0.lock().unwrap().contains_key(&dev_eui);
        Box::pin(async move { if here { Ok(None) } else { Err(OperatorError::NoDevice(dev_eui)) } })
    }
    fn partners(&self) -> Boxed<'_, Result<PartnersView, OperatorError>> {
        let everybody_else = Everybody {
            passive: Passive::default(),
            handover: Default::default(),
            decided_by: "nothing".into(),
        };
        Box::pin(async { Ok(PartnersView { partners: vec![], everybody_else }) })
    }
    fn statement(&self, month: String, net_id: NetId) -> Boxed<'_, Result<Signed, OperatorError>> {
        let text = Statement::new(net_id, net_id, month, None).text();
        let signed = Signed { text, scheme: "none".into(), signature: String::new(), chain: vec![] };
        Box::pin(async { Ok(signed) })
    }
    fn partner(&self, net_id: NetId) -> Boxed<'_, Result<PartnerView, OperatorError>> {
        Box::pin(async move {
            Ok(PartnerView {
                net_id,
                ours: false,
                listed: false,
                trust: crate::pki::dane::Evidence::Pkix,
                passive: Passive::default(),
                handover: Default::default(),
                airtime: None,
                ul: None,
                dl: None,
                decided_by: "nothing".into(),
                server: Whereabouts::Nowhere { why: "a test".into() },
                identity: "c0002f.example".into(),
                pin: None,
                asked_in: "1.0".into(),
                quirks: Default::default(),
                mode: Default::default(),
                own_roots: false,
                kek: None,
                speaks_for: vec![],
                spoken_for_by: vec![],
                learnt: None,
            })
        })
    }
    fn devices(&self) -> Boxed<'_, Result<Vec<DeviceView>, OperatorError>> {
        let devices = self.0.lock().unwrap().values().map(DeviceView::from).collect();
        Box::pin(async { Ok(devices) })
    }
    fn device(&self, dev_eui: DevEui) -> Boxed<'_, Result<hns::Device, OperatorError>> {
        let device = self.0.lock().unwrap().get(&dev_eui).cloned();
        Box::pin(async move { device.ok_or(OperatorError::NoDevice(dev_eui)) })
    }
    fn remove_device(&self, dev_eui: DevEui) -> Boxed<'_, Result<(), OperatorError>> {
        let device = self.0.lock().unwrap().remove(&dev_eui);
        Box::pin(async move { device.map(drop).ok_or(OperatorError::NoDevice(dev_eui)) })
    }
    fn enqueue(&self, dev_eui: DevEui, item: hns::QueueItem) -> Boxed<'_, Result<(), OperatorError>> {
        let mut devices = self.0.lock().unwrap();
        let mut device = devices.remove(&dev_eui);
        let (result, _) = enqueue(dev_eui, &mut device, &item);
        devices.extend(device.map(|device| (dev_eui, device)));
        Box::pin(async { result })
    }
}

struct Daemon {
    client: Client,
    tap: Tap,
    folder: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

async fn daemon() -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let (clock, tap) = (Clock::system(), Tap::new(Clock::system()));
    let router = router(Arc::new(Fake::default()), Some(tap.clone()), clock.clone());
    let task = tokio::spawn(Socket::bind(&path).await.unwrap().serve(router, clock));
    let client = Client::daemon(&path).await.unwrap().unwrap();
    Daemon { client, tap, folder, task }
}

fn adding() -> Value {
    json!({ "dev_eui": "0102030405060708", "join_eui": "0000000000000001", "app_key": "2B".repeat(16), "name": "cow 7" })
}

async fn said(client: &Client, method: Method, path: &str, body: Value) -> String {
    match client.call(method, path, Some(&body)).await {
        Err(ClientError::Said(trouble)) if !trouble.remedy.is_empty() => trouble.error,
        other => panic!("{path}: {other:?}"),
    }
}

#[tokio::test]
async fn a_device_is_added_listed_given_a_downlink_and_removed_through_the_socket() {
    let daemon = daemon().await;
    let client = &daemon.client;
    let added = client.call(Method::POST, "/v1/devices", Some(&adding())).await.unwrap();
    assert_eq!(
        (&added["name"], &added["mac_version"], &added["roaming"]),
        (&json!("cow 7"), &json!("1.0.4"), &json!(true))
    );
    assert_eq!(added["last_seen"], "2026-11-18T11:06:40Z");
    assert!(!added.to_string().contains("2B2B"), "no key comes back");
    let list = client.call::<()>(Method::GET, "/v1/devices", None).await.unwrap();
    assert_eq!(list, json!([added]));

    let queue = "/v1/devices/01-02-03-04-05-06-07-08/queue";
    let body = json!({ "f_port": 10, "payload": "0aFF", "confirmed": true });
    let sent = client.call(Method::POST, queue, Some(&body)).await.unwrap();
    assert_eq!(sent["payload"], "0AFF");
    assert_eq!(client.call::<()>(Method::GET, queue, None).await.unwrap(), json!([sent]));
    let status = client.call::<()>(Method::GET, "/v1/status", None).await.unwrap();
    assert_eq!(status["devices"], 1);

    let path = "/v1/devices/0102030405060708";
    assert_eq!(client.call::<()>(Method::GET, path, None).await.unwrap()["waiting"], 1);
    assert_eq!(client.call::<()>(Method::DELETE, path, None).await.unwrap(), Value::Null);
    assert_eq!(said(client, Method::GET, path, json!(null)).await, "no device with DevEUI 0102030405060708");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_a_remedy() {
    let daemon = daemon().await;
    let client = &daemon.client;
    client.call(Method::POST, "/v1/devices", Some(&adding())).await.unwrap();
    let with = |key: &str, value: Value| {
        let mut body = adding();
        body[key] = value;
        body
    };
    let queue = "/v1/devices/0102030405060708/queue";
    let table = [
        ("/v1/devices", adding(), "is here already"),
        ("/v1/devices", with("app_key", json!("2B2B")), "AppKey: a key is 32 hexadecimal digits"),
        ("/v1/devices", with("dev_eui", json!("01")), "DevEui is 16 hexadecimal digits"),
        ("/v1/devices", with("nwk_key", json!("2B2B")), "NwkKey: a key is 32 hexadecimal digits"),
        ("/v1/devices", with("mac_version", json!("1.2")), "\"1.2\" is no LoRaWAN version"),
        ("/v1/devices", with("app_kye", json!("")), "unknown field `app_kye`"),
        ("/v1/devices", with("name", json!("a\nb")), "control characters"),
        (queue, json!({ "f_port": 0, "payload": "" }), "FPort 0 is not for applications"),
        (queue, json!({ "f_port": 1, "payload": "0" }), "not hexadecimal"),
        (queue, json!({ "f_port": 1, "payload": "00".repeat(243) }), "more than any data rate"),
        ("/v1/devices/0102/queue", json!({ "f_port": 1, "payload": "00" }), "DevEui is 16 hexadecimal"),
        ("/v1/nothing", json!(null), "nothing at this address"),
        ("/v1/status", json!(null), "does not take that method"),
    ];
    for (path, body, reason) in table {
        let error = said(client, Method::POST, path, body).await;
        assert!(error.contains(reason), "{path}: {error}");
    }
}

#[tokio::test]
async fn a_list_is_imported_whole_or_not_at_all_and_every_fault_is_told() {
    let daemon = daemon().await;
    let client = &daemon.client;
    let with = |key: &str, value: Value| {
        let mut device = adding();
        device[key] = value;
        device
    };
    let other = with("dev_eui", json!("0102030405060709"));
    client.call(Method::POST, "/v1/devices", Some(&adding())).await.unwrap();
    let mixed = json!({ "devices": [other, with("app_key", json!("2B2B")), adding()] });
    let Err(ClientError::Said(trouble)) = client.call(Method::POST, "/v1/devices/import", Some(&mixed)).await
    else {
        panic!("two of them cannot be");
    };
    assert_eq!(trouble.error, "2 of 3 devices cannot be added, so none was");
    let rows: Vec<_> = trouble.rows.iter().map(|row| (row.row, &*row.error)).collect();
    assert_eq!(rows[0], (1, "AppKey: a key is 32 hexadecimal digits"));
    assert_eq!(rows[1], (2, "a device with DevEUI 0102030405060708 is here already"));
    assert!(trouble.rows.iter().all(|row| !row.remedy.is_empty()));

    let list = |dry_run: bool| json!({ "devices": [other], "dry_run": dry_run });
    let import = |body: Value| async move {
        client.call(Method::POST, "/v1/devices/import", Some(&body)).await.unwrap()
    };
    assert_eq!(import(list(true)).await, json!({ "devices": 1, "written": false }));
    assert_eq!(
        client.call::<()>(Method::GET, "/v1/devices", None).await.unwrap().as_array().unwrap().len(),
        1
    );
    assert_eq!(import(list(false)).await, json!({ "devices": 1, "written": true }));
    let exported = client.call::<()>(Method::GET, "/v1/devices/export", None).await.unwrap();
    assert_eq!((exported.as_array().unwrap().len(), exported[1].get("app_key")), (2, None));
    let with_keys = client.call::<()>(Method::GET, "/v1/devices/export-with-keys", None).await.unwrap();
    assert_eq!(with_keys[1]["app_key"], "2B".repeat(16));
}

#[tokio::test]
async fn thousands_of_devices_fit_into_one_import() {
    let daemon = daemon().await;
    let device = |number: u64| {
        let mut device = adding();
        device["dev_eui"] = json!(format!("{number:016X}"));
        device
    };
    let body = json!({ "devices": (0..3000).map(device).collect::<Vec<_>>() });
    let report = daemon.client.call(Method::POST, "/v1/devices/import", Some(&body)).await.unwrap();
    assert_eq!(report, json!({ "devices": 3000, "written": true }));
}

#[tokio::test]
async fn a_device_is_changed_in_what_is_named_alone() {
    let daemon = daemon().await;
    let (client, path) = (&daemon.client, "/v1/devices/0102030405060708");
    assert!(said(client, Method::PATCH, path, json!({ "name": "x" })).await.contains("no device"));
    client.call(Method::POST, "/v1/devices", Some(&adding())).await.unwrap();
    let changed = client.call(Method::PATCH, path, Some(&json!({ "roaming": false }))).await.unwrap();
    assert_eq!(
        (&changed["name"], &changed["roaming"], &changed["enabled"]),
        (&json!("cow 7"), &json!(false), &json!(true))
    );
    let changed =
        client.call(Method::PATCH, path, Some(&json!({ "name": "", "enabled": false }))).await.unwrap();
    assert_eq!((&changed["name"], &changed["enabled"]), (&json!(""), &json!(false)));
    let forgiven = client.call(Method::PATCH, path, Some(&json!({ "forget_nonces": true }))).await.unwrap();
    assert_eq!(forgiven, changed, "what is seen of a device stays");
    let table = [
        (json!({}), "nothing is to be changed"),
        (json!({ "forget_nonces": false }), "nothing is to be changed"),
        (json!({ "app_key": "" }), "unknown field"),
        (json!({ "name": "a\nb" }), "control characters"),
    ];
    for (body, reason) in table {
        assert!(said(client, Method::PATCH, path, body).await.contains(reason));
    }
}

#[tokio::test]
async fn any_network_may_be_asked_about() {
    let daemon = daemon().await;
    let client = &daemon.client;
    let view = client.call::<()>(Method::GET, "/v1/partners/c0002F", None).await.unwrap();
    assert_eq!((&view["net_id"], &view["server"]["by"]), (&json!("C0002F"), &json!("nowhere")));
    let view = client.call::<()>(Method::GET, "/v1/partners", None).await.unwrap();
    assert_eq!(view["everybody_else"]["decided_by"], "nothing");
    assert!(said(client, Method::GET, "/v1/partners/C0", json!(null)).await.contains("6 hexadecimal"));
}

#[tokio::test]
async fn a_queue_is_bounded() {
    let daemon = daemon().await;
    daemon.client.call(Method::POST, "/v1/devices", Some(&adding())).await.unwrap();
    let (queue, body) = ("/v1/devices/0102030405060708/queue", json!({ "f_port": 1, "payload": "" }));
    for _ in 0..QUEUE_LIMIT {
        daemon.client.call(Method::POST, queue, Some(&body)).await.unwrap();
    }
    assert!(said(&daemon.client, Method::POST, queue, body).await.contains("64 downlinks wait"));
}

#[tokio::test]
async fn the_tail_tells_each_record_on_a_line() {
    let daemon = daemon().await;
    let mut lines = daemon.client.lines("/v1/tail").await.unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(daemon.tap.layer()), || {
        tracing::info!(target: "roamgate::frame", milestone = "uplink heard", DevEUI = "0102030405060708");
        tracing::info!(target: "roamgate::frame", milestone = "uplink accepted");
    });
    let first: Value = serde_json::from_str(&lines.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(
        (&first["milestone"], &first["fields"]["DevEUI"]),
        (&json!("uplink heard"), &json!("0102030405060708"))
    );
    assert!(lines.next().await.unwrap().unwrap().contains("uplink accepted"));
}

#[tokio::test]
async fn without_a_daemon_the_same_router_answers_here_but_nothing_can_be_followed() {
    let clock = Clock::system();
    let client = Client::Here(router(Arc::new(Fake::default()), None, clock));
    client.call(Method::POST, "/v1/devices", Some(&adding())).await.unwrap();
    assert_eq!(client.call::<()>(Method::GET, "/v1/devices", None).await.unwrap()[0]["name"], "cow 7");
    assert!(matches!(client.lines("/v1/tail").await.err(), Some(ClientError::Said(_))));
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_goes_with_its_daemon() {
    let daemon = daemon().await;
    let path = daemon.folder.path().join("control.sock");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(Socket::bind(&path).await, Err(SocketError::Taken(_))));
    daemon.task.abort();
    let _ = daemon.task.await;
    assert!(!path.exists() && Client::daemon(&path).await.unwrap().is_none());
}

#[tokio::test]
async fn a_socket_that_a_killed_daemon_left_is_replaced_and_another_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(Socket::bind(&path).await.unwrap());
    std::fs::write(&path, "mine").unwrap();
    assert!(matches!(Socket::bind(&path).await, Err(SocketError::NoSocket(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[tokio::test]
async fn a_foreign_user_is_told_that_the_daemon_is_not_his() {
    assert!(admitted(Some(1000), 1000) && admitted(Some(0), 1000));
    assert!(!admitted(Some(1001), 1000) && !admitted(None, 1000));
    // The same over a socket whose owner is somebody whom nobody here is.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let mut socket = Socket::bind(&path).await.unwrap();
    if socket.owner == 0 {
        // root always gets through
        return;
    }
    socket.owner += 1;
    let router = router(Arc::new(Fake::default()), None, Clock::system());
    tokio::spawn(socket.serve(router, Clock::system()));
    let client = Client::daemon(&path).await.unwrap().unwrap();
    assert!(said(&client, Method::GET, "/v1/status", json!(null)).await.contains("another user"));
}

#[test]
fn a_uuid_says_that_it_is_random() {
    assert_eq!(uuid([0xFF; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
}

#[tokio::test]
async fn usage_is_told_with_the_names_of_the_specification() {
    let daemon = daemon().await;
    let client = &daemon.client;
    let told = client.call::<()>(Method::GET, "/v1/usage/2026-11", None).await.unwrap();
    let traffic = &told["traffic"][0];
    assert_eq!((&traffic["NetID"], &traffic["RoamingType"]), (&json!("C00ABC"), &json!("Passive")));
    assert_eq!((&traffic["TotalULPackets"], &traffic["TotalULBytes"]), (&json!(12), &json!(240)));
    assert_eq!(traffic.as_object().unwrap().len(), 11, "every element of table 10");
    let [begun, ended] = [&told["activations"][0], &told["activations"][1]];
    assert_eq!(
        (&begun["ActivationTime"], &begun["IndividualRecord"]),
        (&json!("2026-11-20T10:00:00Z"), &json!(true))
    );
    assert!(begun["DeactivationTime"].is_null() && ended["ActivationTime"].is_null());
    for wrong in ["2026-13", "november", "2026-1", "2026-11-20"] {
        let why = said(client, Method::GET, &format!("/v1/usage/{wrong}"), json!(null)).await;
        assert!(why.contains("is no month"), "{why}");
    }
    let signed = client.call::<()>(Method::GET, "/v1/usage/2020-11/statement/C0002F", None).await.unwrap();
    let statement = Statement::read(signed["text"].as_str().unwrap()).unwrap();
    assert_eq!((&*statement.month, statement.partner), ("2020-11", NetId::from_msb([0xC0, 0, 0x2F])));
    for (month, partner, words) in [("2999-01", "C0002F", "is not over"), ("2020-11", "C0002", "hexadecimal")]
    {
        let path = format!("/v1/usage/{month}/statement/{partner}");
        let why = said(client, Method::GET, &path, json!(null)).await;
        assert!(why.contains(words), "{why}");
    }
}

#[tokio::test]
async fn a_reload_says_what_partners_see_now() {
    let client = Client::Here(router(Arc::new(Fake::default()), None, Clock::system()));
    let told = client.call::<()>(Method::POST, "/v1/reload", None).await.unwrap();
    assert_eq!(told, serde_json::json!({ "certificate": "c00abc.netids.iot.example" }));
}

#[tokio::test]
async fn names_are_told_and_forgotten() {
    let daemon = daemon().await;
    let client = &daemon.client;
    let told = client.call::<()>(Method::GET, "/v1/names", None).await.unwrap();
    assert_eq!((&told[0]["name"], &told[0]["security"]), (&json!("a.example"), &json!("secure")));
    let way = json!({ "by": ["ns.example"], "addresses": ["2001:db8::5"], "port": 7005, "path": "/", "security": "secure" });
    assert_eq!(told[0]["ways"], json!([way]));
    assert_eq!((&told[1]["ways"], &told[1]["trouble"]), (&json!([]), &json!("there is nothing")));
    for (path, forgotten) in [("/v1/names/A.Example.", 1), ("/v1/names/c.example", 0), ("/v1/names", 2)] {
        let told = client.call::<()>(Method::DELETE, path, None).await.unwrap();
        assert_eq!(told, json!({ "forgotten": forgotten }), "{path}");
    }
}
