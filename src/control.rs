//! The local control socket: the command line's door to a running daemon.
//!
//! Owns the router and the JSON that it speaks, over a Unix socket now, as REST API of the dashboard
//! later, and the client for it. Acts on an [`Operator`] alone; who that is (a running node, or the store while no daemon
//! runs) it does not know.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{self, DefaultBodyLimit, State};
use axum::http::{Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tower::ServiceExt;
use zeroize::Zeroizing;

use crate::backend::door::{Boxed, Commit, StoreError};
use crate::backend::message::MacVersion;
use crate::clock::Clock;
use crate::hns;
use crate::lorawan::{DevAddr, DevEui, JoinEui, Key, NetId};
use crate::telemetry::Tap;

/// Downlinks that may wait for one device.
pub const QUEUE_LIMIT: usize = 64;

/// Bodies longer than this are no request of ours, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// Connections served at once.
const CONNECTIONS: usize = 64;

/// The longest FRMPayload of any region and data rate, in bytes.
pub const PAYLOAD_LIMIT: usize = 242;

/// What an operator may do. Implemented by the running node and by the store alone.
pub trait Operator: Send + Sync {
    /// How the node is.
    fn status(&self) -> Boxed<'_, Result<Status, OperatorError>>;
    /// Make a device ours: its home network and its root keys.
    fn add_device(&self, device: NewDevice) -> Boxed<'_, Result<hns::Device, OperatorError>>;
    /// All devices, by DevEUI.
    fn devices(&self) -> Boxed<'_, Result<Vec<hns::Device>, OperatorError>>;
    /// One device; [`OperatorError::NoDevice`] where there is none.
    fn device(&self, dev_eui: DevEui) -> Boxed<'_, Result<hns::Device, OperatorError>>;
    /// Forget a device, its keys and its sessions.
    fn remove_device(&self, dev_eui: DevEui) -> Boxed<'_, Result<(), OperatorError>>;
    /// Put a downlink into a device's queue (see [`enqueue`] for the decision).
    fn enqueue(&self, dev_eui: DevEui, item: hns::QueueItem) -> Boxed<'_, Result<(), OperatorError>>;
}

/// Why an operator did not get it. Each says whose move it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// The operator's move.
    #[error("no device with DevEUI {0}")]
    NoDevice(DevEui),
    /// The operator's move.
    #[error("a device with DevEUI {0} is here already")]
    Exists(DevEui),
    /// The operator's move: wait for the device, or remove it and add it again.
    #[error("{QUEUE_LIMIT} downlinks wait for DevEUI {0} already")]
    QueueFull(DevEui),
    /// The operator's move: a value that cannot be.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The machine's: disk full, damaged file.
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for OperatorError {
    fn from(error: StoreError) -> OperatorError {
        OperatorError::Failed(error.to_string())
    }
}

impl OperatorError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            OperatorError::NoDevice(_) => "`roamgate device list` shows those that are here".into(),
            OperatorError::Exists(dev_eui) => {
                format!("`roamgate device show {dev_eui}` shows it; remove it first to add it anew")
            }
            OperatorError::QueueFull(_) => {
                "wait for the device's next uplinks: each takes one downlink along".into()
            }
            OperatorError::Invalid { remedy, .. } => remedy.clone(),
            OperatorError::Failed(_) => "look at the log, and at the disk's free space".into(),
        }
    }
}

/// A device to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDevice {
    /// Identity.
    pub dev_eui: DevEui,
    /// Its join server.
    pub join_eui: JoinEui,
    /// AppKey: the only root key of a 1.0.x device.
    pub app_key: Key,
    /// The operator's word for it, may be empty.
    pub name: String,
    /// LoRaWAN version of the device.
    pub mac_version: MacVersion,
    /// May activate and talk through other networks.
    pub roaming: bool,
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Ours, the first the one we allocate from.
    pub net_ids: Vec<NetId>,
    /// Region of RP002.
    pub region: String,
    /// Roles of TS002, small letters.
    pub roles: Vec<String>,
    /// Whether anything roams.
    pub roaming: bool,
    /// Seconds since the start; absent where no daemon runs.
    pub uptime: Option<u64>,
    /// What each radio is, one line each.
    pub radios: Vec<String>,
    /// Radio heads online.
    pub heads: usize,
    /// Devices whose home we are.
    pub devices: usize,
}

/// May this downlink wait for the device? The decision for [`Operator::enqueue`]; may run twice.
pub fn enqueue(
    dev_eui: DevEui,
    device: &mut Option<hns::Device>,
    item: &hns::QueueItem,
) -> (Result<(), OperatorError>, Commit) {
    let Some(device) = device else { return (Err(OperatorError::NoDevice(dev_eui)), Commit::Nothing) };
    if device.queue.len() >= QUEUE_LIMIT {
        return (Err(OperatorError::QueueFull(dev_eui)), Commit::Nothing);
    }
    device.queue.push(item.clone());
    (Ok(()), Commit::Durable)
}

/// A device as JSON. No keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Identity.
    pub dev_eui: DevEui,
    /// Its join server.
    pub join_eui: JoinEui,
    /// The operator's word for it.
    pub name: String,
    /// LoRaWAN version.
    pub mac_version: String,
    /// May activate and talk at all.
    pub enabled: bool,
    /// May activate and talk through other networks.
    pub roaming: bool,
    /// Address of the newest activation.
    pub dev_addr: Option<DevAddr>,
    /// When that was: RFC 3339, UTC.
    pub joined: Option<String>,
    /// The newest uplink's counter.
    pub fcnt_up: Option<u32>,
    /// When the last uplink came: RFC 3339, UTC.
    pub last_seen: Option<String>,
    /// NetID through which it came, where that was not ours.
    pub last_via: Option<NetId>,
    /// Downlinks that wait.
    pub waiting: usize,
}

impl From<&hns::Device> for DeviceView {
    fn from(device: &hns::Device) -> DeviceView {
        let newest = device.activations.last();
        DeviceView {
            dev_eui: device.dev_eui,
            join_eui: device.join_eui,
            name: device.name.clone(),
            mac_version: device.mac_version.to_string(),
            enabled: device.enabled,
            roaming: device.roaming,
            dev_addr: newest.map(|activation| activation.dev_addr),
            joined: newest.and_then(|activation| date(activation.created)),
            fcnt_up: newest.and_then(|activation| activation.fcnt_up),
            last_seen: device.last_seen.and_then(date),
            last_via: device.last_via,
            waiting: device.queue.len(),
        }
    }
}

fn date(unix: u64) -> Option<String> {
    let timestamp = Timestamp::from_second(i64::try_from(unix).ok()?).ok()?;
    Some(timestamp.to_string())
}

/// A downlink as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownlinkView {
    /// A UUID.
    pub id: String,
    /// 1 to 223.
    pub f_port: u8,
    /// Hexadecimal.
    pub payload: String,
    /// Wants the device's acknowledgement.
    pub confirmed: bool,
    /// Sent with this FCntDown and not acknowledged yet.
    pub sent_as: Option<u32>,
    /// How often it was sent.
    pub attempts: u32,
}

impl From<&hns::QueueItem> for DownlinkView {
    fn from(item: &hns::QueueItem) -> DownlinkView {
        DownlinkView {
            id: item.id.clone(),
            f_port: item.f_port,
            payload: hex::encode_upper(&item.payload),
            confirmed: item.confirmed,
            sent_as: item.sent_as,
            attempts: item.attempts,
        }
    }
}

/// Body of `POST /v1/devices`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddDevice {
    /// Identity.
    pub dev_eui: DevEui,
    /// Its join server.
    pub join_eui: JoinEui,
    /// 32 hexadecimal digits.
    pub app_key: String,
    /// The operator's word for it.
    #[serde(default)]
    pub name: String,
    /// `1.0.4` where none is given.
    pub mac_version: Option<String>,
    /// `true` where nothing is said.
    pub roaming: Option<bool>,
}

/// Body of `POST /v1/devices/{dev_eui}/queue`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddDownlink {
    /// 1 to 223.
    pub f_port: u8,
    /// Hexadecimal.
    pub payload: String,
    /// Wants the device's acknowledgement.
    #[serde(default)]
    pub confirmed: bool,
}

/// Every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What is wrong.
    pub error: String,
    /// What to do.
    pub remedy: String,
}

impl AddDevice {
    fn check(self) -> Result<NewDevice, OperatorError> {
        let text = Zeroizing::new(self.app_key);
        let app_key = text.trim().parse().map_err(|e: crate::lorawan::key::KeyError| {
            invalid(format!("AppKey: {e}"), "the maker of the device gives it along with the DevEUI")
        })?;
        let version = self.mac_version.as_deref().unwrap_or("1.0.4");
        let mac_version = match version.parse() {
            Ok(MacVersion::V1_1) => Err("LoRaWAN 1.1 devices are not served yet".to_string()),
            Ok(version) => Ok(version),
            Err(error) => Err(format!("{error}")),
        };
        let mac_version = mac_version.map_err(|reason| {
            invalid(reason, "one of 1.0, 1.0.1, 1.0.2, 1.0.3, 1.0.4; the data sheet tells")
        })?;
        if self.name.chars().count() > 100 || self.name.chars().any(char::is_control) {
            return Err(invalid("the name is too long or has control characters", "100 characters at most"));
        }
        let roaming = self.roaming.unwrap_or(true);
        let (dev_eui, join_eui, name) = (self.dev_eui, self.join_eui, self.name);
        Ok(NewDevice { dev_eui, join_eui, app_key, name, mac_version, roaming })
    }
}

impl AddDownlink {
    fn check(self, clock: &Clock) -> Result<hns::QueueItem, OperatorError> {
        let AddDownlink { f_port, payload, confirmed } = self;
        if !(1..=223).contains(&f_port) {
            return Err(invalid(format!("FPort {f_port} is not for applications"), "use 1 to 223"));
        }
        let payload = hex::decode(payload.trim()).map_err(|error| {
            invalid(format!("the payload is not hexadecimal: {error}"), "two digits a byte")
        })?;
        if payload.len() > PAYLOAD_LIMIT {
            return Err(invalid(
                format!("{} bytes are more than any data rate carries ({PAYLOAD_LIMIT})", payload.len()),
                "send it in parts; 51 bytes pass at every data rate of EU868",
            ));
        }
        Ok(hns::QueueItem {
            id: uuid(clock.random()),
            f_port,
            payload,
            confirmed,
            sent_as: None,
            attempts: 0,
        })
    }
}

fn invalid(reason: impl Into<String>, remedy: &str) -> OperatorError {
    OperatorError::Invalid { reason: reason.into(), remedy: remedy.into() }
}

/// A random UUID (RFC 9562 version 4).
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let text = hex::encode(bytes);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

impl IntoResponse for OperatorError {
    fn into_response(self) -> Response {
        let status = match &self {
            OperatorError::NoDevice(_) => StatusCode::NOT_FOUND,
            OperatorError::Exists(_) | OperatorError::QueueFull(_) => StatusCode::CONFLICT,
            OperatorError::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            OperatorError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        trouble(status, self.to_string(), &self.remedy())
    }
}

fn trouble(status: StatusCode, error: String, remedy: &str) -> Response {
    (status, axum::Json(Trouble { error, remedy: remedy.into() })).into_response()
}

/// What the handlers share.
#[derive(Clone)]
struct Desk {
    operator: Arc<dyn Operator>,
    tap: Option<Tap>,
    clock: Clock,
}

/// The one router, for every way in. Without a `tap` nothing can be followed.
pub fn router(operator: Arc<dyn Operator>, tap: Option<Tap>, clock: Clock) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/devices", get(devices).post(add_device))
        .route("/v1/devices/{dev_eui}", get(device).delete(remove_device))
        .route("/v1/devices/{dev_eui}/queue", get(queue).post(enqueue_downlink))
        .route("/v1/tail", get(tail))
        .fallback(|| async {
            let error = "there is nothing at this address".to_string();
            trouble(StatusCode::NOT_FOUND, error, "is the command line of another version than the daemon?")
        })
        .method_not_allowed_fallback(|| async {
            let error = "this address does not take that method".to_string();
            trouble(StatusCode::METHOD_NOT_ALLOWED, error, "GET reads, POST adds, DELETE removes")
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Desk { operator, tap, clock })
}

type Answer<T> = Result<T, OperatorError>;

async fn status(State(desk): State<Desk>) -> Answer<axum::Json<Status>> {
    Ok(axum::Json(desk.operator.status().await?))
}

async fn devices(State(desk): State<Desk>) -> Answer<axum::Json<Vec<DeviceView>>> {
    let devices = desk.operator.devices().await?;
    Ok(axum::Json(devices.iter().map(DeviceView::from).collect()))
}

async fn add_device(State(desk): State<Desk>, body: Bytes) -> Answer<Response> {
    let device = read::<AddDevice>(&body)?.check()?;
    let device = desk.operator.add_device(device).await?;
    Ok((StatusCode::CREATED, axum::Json(DeviceView::from(&device))).into_response())
}

async fn device(State(desk): State<Desk>, path: extract::Path<String>) -> Answer<axum::Json<DeviceView>> {
    let device = desk.operator.device(dev_eui(&path)?).await?;
    Ok(axum::Json(DeviceView::from(&device)))
}

async fn remove_device(State(desk): State<Desk>, path: extract::Path<String>) -> Answer<StatusCode> {
    desk.operator.remove_device(dev_eui(&path)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn queue(
    State(desk): State<Desk>,
    path: extract::Path<String>,
) -> Answer<axum::Json<Vec<DownlinkView>>> {
    let device = desk.operator.device(dev_eui(&path)?).await?;
    Ok(axum::Json(device.queue.iter().map(DownlinkView::from).collect()))
}

async fn enqueue_downlink(
    State(desk): State<Desk>,
    path: extract::Path<String>,
    body: Bytes,
) -> Answer<Response> {
    let dev_eui = dev_eui(&path)?;
    let item = read::<AddDownlink>(&body)?.check(&desk.clock)?;
    let view = DownlinkView::from(&item);
    desk.operator.enqueue(dev_eui, item).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(view)).into_response())
}

/// One JSON object a line, from now on until the reader leaves. What a slow reader lost is told as
/// `{"kind":"lost","count":N}`.
async fn tail(State(desk): State<Desk>) -> Response {
    let Some(tap) = &desk.tap else {
        let error = "no daemon runs here, so there is nothing to follow".to_string();
        return trouble(StatusCode::CONFLICT, error, "start one: `roamgate run`");
    };
    let lines = stream::unfold(tap.subscribe(), |mut records| async {
        let line = match records.recv().await {
            Ok(record) => record.to_json() + "\n",
            Err(RecvError::Lagged(count)) => format!("{{\"kind\":\"lost\",\"count\":{count}}}\n"),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok::<_, Infallible>(line), records))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, OperatorError> {
    serde_json::from_slice(body).map_err(|error| {
        invalid(format!("the request cannot be read: {error}"), "docs/control.md shows its form")
    })
}

fn dev_eui(text: &str) -> Result<DevEui, OperatorError> {
    let text: String = text.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    text.parse().map_err(|error: crate::lorawan::ids::IdError| {
        invalid(error.to_string(), "a DevEUI is printed on the device, most significant digit first")
    })
}

/// The socket could not be made: the operator's move.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Two daemons, one socket.
    #[error("another roamgate answers at {0}; stop it first, or give this one a [control] socket of its own")]
    Taken(PathBuf),
    /// A file of somebody else's.
    #[error("{0} is there and is no socket; move it away, or name another [control] socket")]
    NoSocket(PathBuf),
    /// Folder missing, no right, name too long.
    #[error("cannot make the control socket {path}")]
    Make {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A bound control socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

impl Socket {
    /// Make the socket, for its owner only. One that a killed daemon left behind is replaced.
    pub async fn bind(path: &Path) -> Result<Socket, SocketError> {
        let fail = |source| SocketError::Make { path: path.into(), source };
        match std::fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => return Err(SocketError::NoSocket(path.into())),
            Ok(_) => match UnixStream::connect(path).await {
                Ok(_) => return Err(SocketError::Taken(path.into())),
                // nobody behind it
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(fail)?;
                }
                Err(error) => return Err(fail(error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        let listener = UnixListener::bind(path).map_err(fail)?;
        // Who connects before the mode is set meets the check of the peer's user.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
        // our own user, without a system call of our own
        let owner = UnixStream::pair().and_then(|(one, _)| one.peer_cred()).map_err(fail)?.uid();
        Ok(Socket { listener, path: path.into(), owner })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answer until dropped. Only the daemon's own user and root get through.
    pub async fn serve(self, router: Router, clock: Clock) {
        let refusal = Router::new().fallback(|| async {
            let error = "the daemon runs as another user than you".to_string();
            trouble(StatusCode::FORBIDDEN, error, "use sudo, or the daemon's own user (sudo -u roamgate)")
        });
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            if connections.len() >= CONNECTIONS {
                connections.join_next().await;
            }
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "control socket: accept");
                    // out of file descriptors: somebody else must let go of some
                    clock.sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let uid = stream.peer_cred().ok().map(|peer| peer.uid());
            let router = if admitted(uid, self.owner) { router.clone() } else { refusal.clone() };
            connections.spawn(async move {
                let service = TowerToHyperService::new(router);
                let mut http = hyper::server::conn::http1::Builder::new();
                // no timer: the peer is on this machine and one of us
                let served =
                    http.header_read_timeout(None).serve_connection(TokioIo::new(stream), service).await;
                if let Err(error) = served {
                    tracing::debug!(%error, "control socket");
                }
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether a peer may act: the daemon's user, and root, who may anyway.
fn admitted(uid: Option<u32>, owner: u32) -> bool {
    uid.is_some_and(|uid| uid == owner || uid == 0)
}

/// How the command line acts: through a running daemon, or in this process while none runs.
#[derive(Clone)]
pub enum Client {
    /// A daemon's control socket.
    Daemon(PathBuf),
    /// The same router, here.
    Here(Router),
}

/// Why the command line did not get it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The router said no, and what to do.
    #[error("{}", .0.error)]
    Said(Trouble),
    /// The socket is there and does not let us in.
    #[error("cannot reach the daemon at {path}: {source}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The daemon hung up or speaks another language.
    #[error("the daemon's answer cannot be understood: {0}")]
    Answer(String),
}

impl ClientError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            ClientError::Said(trouble) => trouble.remedy.clone(),
            ClientError::Socket { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "the daemon runs as another user: use sudo, or its own user (sudo -u roamgate)".into()
            }
            ClientError::Socket { .. } => "is the daemon well? its log tells".into(),
            ClientError::Answer(_) => {
                "are daemon and command line of the same version? the daemon's log tells".into()
            }
        }
    }
}

impl Client {
    /// A client for the daemon at a socket, if one answers there.
    pub async fn daemon(path: &Path) -> Result<Option<Client>, ClientError> {
        match UnixStream::connect(path).await {
            Ok(_) => Ok(Some(Client::Daemon(path.into()))),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(source) => Err(ClientError::Socket { path: path.into(), source }),
        }
    }

    /// One request; the JSON of its answer, `null` for an empty one.
    pub async fn call<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<serde_json::Value, ClientError> {
        let body = body.map(serde_json::to_vec).transpose().map_err(answer)?.unwrap_or_default();
        let body = self.send(method, path, body.into()).await?;
        // what the router of this program sends; a list of many devices is the longest
        let bytes = Limited::new(body, 64 << 20).collect().await.map_err(answer)?.to_bytes();
        if bytes.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(answer)
    }

    /// A body that never ends, line by line, without the line breaks.
    pub async fn lines(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<String, ClientError>> + Unpin + use<>, ClientError> {
        let chunks = self.send(Method::GET, path, Body::empty()).await?.into_data_stream();
        let lines = stream::unfold((chunks, Vec::new()), |(mut chunks, mut rest)| async {
            loop {
                if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let line = String::from_utf8_lossy(&line).trim_end().to_string();
                    return Some((Ok(line), (chunks, rest)));
                }
                match chunks.next().await? {
                    Ok(chunk) => rest.extend_from_slice(&chunk),
                    Err(error) => return Some((Err(answer(error)), (chunks, Vec::new()))),
                }
            }
        });
        Ok(Box::pin(lines))
    }

    async fn send(&self, method: Method, path: &str, body: Body) -> Result<Body, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "roamgate")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(answer)?;
        let response = match self {
            Client::Here(router) => match router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Client::Daemon(path) => {
                let socket = |source| ClientError::Socket { path: path.clone(), source };
                let stream = TokioIo::new(UnixStream::connect(path).await.map_err(socket)?);
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(stream).await.map_err(answer)?;
                // ends when the body has been read or dropped
                tokio::spawn(connection);
                sender.send_request(request).await.map_err(answer)?.map(Body::new)
            }
        };
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        let bytes = Limited::new(body, 1 << 20).collect().await.map_err(answer)?.to_bytes();
        let said = serde_json::from_slice(&bytes);
        Err(said.map_or_else(|_| answer(head.status), ClientError::Said))
    }
}

fn answer(error: impl ToString) -> ClientError {
    ClientError::Answer(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use serde_json::{Value, json};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Devices in memory.
    #[derive(Default)]
    struct Fake(Mutex<BTreeMap<DevEui, hns::Device>>);

    impl Operator for Fake {
        fn status(&self) -> Boxed<'_, Result<Status, OperatorError>> {
            let devices = self.0.lock().unwrap().len();
            Box::pin(async move { Ok(Status { devices, ..Status::default() }) })
        }
        fn add_device(&self, new: NewDevice) -> Boxed<'_, Result<hns::Device, OperatorError>> {
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
            let taken = self.0.lock().unwrap().insert(dev_eui, device.clone()).is_some();
            let result = if taken { Err(OperatorError::Exists(dev_eui)) } else { Ok(device) };
            Box::pin(async { result })
        }
        fn devices(&self) -> Boxed<'_, Result<Vec<hns::Device>, OperatorError>> {
            let devices = self.0.lock().unwrap().values().cloned().collect();
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
        assert_eq!(
            said(client, Method::GET, path, json!(null)).await,
            "no device with DevEUI 0102030405060708"
        );
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
}
