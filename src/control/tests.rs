//! Over a real socket, with devices in memory.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use axum::http::Method;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt;

use super::socket::admitted;
use super::*;
use crate::clock::Clock;
use crate::telemetry::Tap;

/// Devices in memory.
#[derive(Default)]
struct Fake(Mutex<BTreeMap<DevEui, hns::Device>>);

impl Operator for Fake {
    fn status(&self) -> Boxed<'_, Result<Status, OperatorError>> {
        let devices = self.0.lock().unwrap().len();
        Box::pin(async move { Ok(Status { devices, ..Status::default() }) })
    }
    fn add_device(&self, new: NewDevice) -> Boxed<'_, Result<(), OperatorError>> {
        assert_eq!(new.app_key.expose(), &[0x2B; 16]);
        let NewDevice { dev_eui, join_eui, name, mac_version, roaming, .. } = new;
        let (activations, queue, last_seen, last_via) = (vec![], vec![], Some(1_795_000_000), None);
        let enabled = true;
        let device = hns::Device {
            dev_eui,
            join_eui,
            name,
            mac_version,
            enabled,
            roaming,
            activations,
            queue,
            last_seen,
            last_via,
        };
        let taken = self.0.lock().unwrap().insert(dev_eui, device).is_some();
        let result = if taken { Err(OperatorError::Exists(dev_eui)) } else { Ok(()) };
        Box::pin(async { result })
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
        ("/v1/devices", with("mac_version", json!("1.1")), "1.1 devices are not served yet"),
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
