//! The one router: what may be asked, and how it is answered.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{self, DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use futures_util::stream;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast::error::RecvError;

use super::{
    AddDevice, AddDownlink, ChangeDevice, DeviceRecord, DeviceView, DownlinkView, Forgotten, Health,
    ImportDevices, ImportReport, MakeBackup, ModelFrame, ModelHeard, ModelSent, Operator, OperatorError,
    PartnerView, PartnersView, Rejoin, Reloaded, RowTrouble, Served, Status, Trouble, UsageView, invalid,
};
use crate::clock::{Clock, Instant};
use crate::discovery::cache::Line;
use crate::lorawan::{DevEui, NetId};
use crate::radio::sx1302::model::{Frame, Modelled};
use crate::telemetry::Tap;
use crate::tls::signed::Signed;

/// Bodies longer than this are no request of ours, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// The same for lists of devices: some 70,000 of them.
const IMPORT_LIMIT: usize = 16 * 1024 * 1024;

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

pub(super) fn trouble(status: StatusCode, error: String, remedy: &str) -> Response {
    (status, axum::Json(Trouble { error, remedy: remedy.into(), rows: Vec::new() })).into_response()
}

/// What the handlers share.
#[derive(Clone)]
struct Desk {
    operator: Arc<dyn Operator>,
    tap: Option<Tap>,
    clock: Clock,
}

impl Desk {
    fn model(&self) -> Answer<Modelled> {
        self.operator.model().ok_or_else(|| {
            let remedy = "[[radio]] kind = \"sx1302\", model = true: for trying, not for use";
            invalid("no radio of this hotspot is a model".to_owned(), remedy)
        })
    }
}

/// The one router, for every way in. Without a `tap` nothing can be followed.
pub fn router(operator: Arc<dyn Operator>, tap: Option<Tap>, clock: Clock) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/health", get(health))
        .route("/v1/air", post(hear))
        .route("/v1/air/{after}", get(radiated))
        .route("/v1/devices", get(devices).post(add_device))
        .route("/v1/devices/import", post(import).layer(DefaultBodyLimit::max(IMPORT_LIMIT)))
        .route("/v1/devices/export", get(export))
        .route("/v1/devices/export-with-keys", get(export_with_keys))
        .route("/v1/devices/{dev_eui}", get(device).patch(change_device).delete(remove_device))
        .route("/v1/devices/{dev_eui}/queue", get(queue).post(enqueue_downlink))
        .route("/v1/devices/{dev_eui}/reset-counter", post(reset_counter))
        .route("/v1/devices/{dev_eui}/rejoin", post(rejoin))
        .route("/v1/partners", get(partners))
        .route("/v1/partners/{net_id}", get(partner))
        .route("/v1/reload", post(reload))
        .route("/v1/backup", post(backup))
        .route("/v1/names", get(names).delete(forget_names))
        .route("/v1/names/{name}", delete(forget_name))
        .route("/v1/usage/{month}", get(usage))
        .route("/v1/usage/{month}/statement/{net_id}", get(statement))
        .route("/v1/tail", get(tail))
        .fallback(|| async {
            let error = "there is nothing at this address".to_string();
            trouble(StatusCode::NOT_FOUND, error, "is the command line of another version than the daemon?")
        })
        .method_not_allowed_fallback(|| async {
            let error = "this address does not take that method".to_string();
            trouble(
                StatusCode::METHOD_NOT_ALLOWED,
                error,
                "GET reads, POST adds, PATCH changes, DELETE removes",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Desk { operator, tap, clock })
}

type Answer<T> = Result<T, OperatorError>;

async fn backup(State(desk): State<Desk>, body: Bytes) -> Answer<Response> {
    let packed = desk.operator.backup(read::<MakeBackup>(&body)?.lock()?).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], packed).into_response())
}

async fn status(State(desk): State<Desk>) -> Answer<axum::Json<Status>> {
    Ok(axum::Json(desk.operator.status().await?))
}

async fn health(State(desk): State<Desk>) -> Answer<axum::Json<Health>> {
    Ok(axum::Json(desk.operator.health().await?))
}

/// What a radio that is a model hears: somebody tries the hotspot without hardware.
async fn hear(State(desk): State<Desk>, body: Bytes) -> Answer<StatusCode> {
    let ModelHeard { phy, frequency, data_rate, ended_unix_us } = read(&body)?;
    let model = desk.model()?;
    let phy = hex::decode(&phy).map_err(|error| invalid(format!("phy: {error}"), "hexadecimal digits"))?;
    if phy.is_empty() || phy.len() > 255 {
        return Err(invalid(format!("{} bytes are no frame", phy.len()), "1 to 255 bytes"));
    }
    let modulation = data_rate.parse().map_err(|error| invalid(error, "such as SF7BW125"))?;
    let now = desk.clock.now();
    let ago = desk.clock.wall().as_microsecond().saturating_sub(ended_unix_us).clamp(0, 60_000_000);
    let end = now.checked_sub(Duration::from_micros(ago.unsigned_abs())).unwrap_or(now);
    model.hear(Frame { phy, frequency, modulation, rssi: -60, snr: 9.0, end, broken: false });
    Ok(StatusCode::NO_CONTENT)
}

/// What it radiates; waits a second for something that is new.
async fn radiated(State(desk): State<Desk>, after: extract::Path<usize>) -> Answer<axum::Json<ModelSent>> {
    let (model, by) = (desk.model()?, desk.clock.now() + Duration::from_secs(1));
    let (sent, next) = loop {
        let (sent, next) = model.radiated_after(*after);
        if next != *after || desk.clock.now() >= by {
            break (sent, next);
        }
        desk.clock.sleep(Duration::from_millis(2)).await;
    };
    let (now, wall) = (desk.clock.now(), desk.clock.wall().as_microsecond());
    let until = |start: Instant| match start.checked_duration_since(now) {
        Some(to_come) => to_come.as_micros() as i64,
        None => -(now.saturating_duration_since(start).as_micros() as i64),
    };
    let frames = sent.iter().filter_map(|sent| {
        Some(ModelFrame {
            phy: hex::encode(&sent.phy),
            frequency: sent.frequency,
            data_rate: sent.modulation?.to_string(),
            starts_unix_us: wall.saturating_add(until(sent.start)),
        })
    });
    Ok(axum::Json(ModelSent { next, frames: frames.collect() }))
}

async fn devices(State(desk): State<Desk>) -> Answer<axum::Json<Vec<DeviceView>>> {
    let devices = desk.operator.devices().await?;
    Ok(axum::Json(devices))
}

async fn add_device(State(desk): State<Desk>, body: Bytes) -> Answer<Response> {
    let new = read::<AddDevice>(&body)?.check()?;
    let dev_eui = new.device.dev_eui();
    if let Some((_, error)) = desk.operator.add_devices(vec![new], false).await?.pop() {
        return Err(error);
    }
    let device = desk.operator.device(dev_eui).await?;
    Ok((StatusCode::CREATED, axum::Json(DeviceView::from(&device))).into_response())
}

async fn device(State(desk): State<Desk>, path: extract::Path<String>) -> Answer<axum::Json<DeviceView>> {
    let device = desk.operator.device(dev_eui(&path)?).await?;
    Ok(axum::Json(DeviceView::from(&device)))
}

async fn change_device(
    State(desk): State<Desk>,
    path: extract::Path<String>,
    body: Bytes,
) -> Answer<axum::Json<DeviceView>> {
    let dev_eui = dev_eui(&path)?;
    let change = read::<ChangeDevice>(&body)?.check()?;
    desk.operator.change_device(dev_eui, change).await?;
    let device = desk.operator.device(dev_eui).await?;
    Ok(axum::Json(DeviceView::from(&device)))
}

async fn reset_counter(State(desk): State<Desk>, path: extract::Path<String>) -> Answer<StatusCode> {
    desk.operator.reset_counter(dev_eui(&path)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn rejoin(
    State(desk): State<Desk>,
    path: extract::Path<String>,
    body: Bytes,
) -> Answer<(StatusCode, axum::Json<Served>)> {
    let (dev_eui, rejoin) = (dev_eui(&path)?, read::<Rejoin>(&body)?.check()?);
    let served_by = desk.operator.rejoin(dev_eui, rejoin.kind).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(Served { served_by })))
}

/// All devices of a list or none.
async fn import(State(desk): State<Desk>, body: Bytes) -> Answer<Response> {
    let ImportDevices { devices, dry_run } = read(&body)?;
    let count = devices.len();
    let (mut good, mut places, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for (row, device) in devices.into_iter().enumerate() {
        match device.check() {
            Ok(device) => {
                good.push(device);
                places.push(row);
            }
            Err(error) => rows.push(RowTrouble::new(row, &error)),
        }
    }
    // one that cannot be keeps all others out, but they are looked at: a person wants to know of every fault
    let dry = dry_run || !rows.is_empty();
    for (index, error) in desk.operator.add_devices(good, dry).await? {
        rows.extend(places.get(index).map(|row| RowTrouble::new(*row, &error)));
    }
    if rows.is_empty() {
        return Ok(axum::Json(ImportReport { devices: count, written: !dry_run }).into_response());
    }
    rows.sort_by_key(|wrong| wrong.row);
    let error = format!("{} of {count} devices cannot be added, so none was", rows.len());
    let remedy = "correct them, or leave them out".to_string();
    Ok((StatusCode::UNPROCESSABLE_ENTITY, axum::Json(Trouble { error, remedy, rows })).into_response())
}

async fn export(State(desk): State<Desk>) -> Answer<axum::Json<Vec<DeviceRecord>>> {
    Ok(axum::Json(desk.operator.export_devices(false).await?))
}

async fn export_with_keys(State(desk): State<Desk>) -> Answer<axum::Json<Vec<DeviceRecord>>> {
    Ok(axum::Json(desk.operator.export_devices(true).await?))
}

async fn partners(State(desk): State<Desk>) -> Answer<axum::Json<PartnersView>> {
    Ok(axum::Json(desk.operator.partners().await?))
}

async fn partner(State(desk): State<Desk>, path: extract::Path<String>) -> Answer<axum::Json<PartnerView>> {
    Ok(axum::Json(desk.operator.partner(net_id(&path)?).await?))
}

async fn reload(State(desk): State<Desk>) -> Answer<axum::Json<Reloaded>> {
    Ok(axum::Json(Reloaded { certificate: desk.operator.reload().await? }))
}

async fn names(State(desk): State<Desk>) -> Answer<axum::Json<Vec<Line>>> {
    Ok(axum::Json(desk.operator.names().await?))
}

async fn forget_names(State(desk): State<Desk>) -> Answer<axum::Json<Forgotten>> {
    let forgotten = desk.operator.forget_names(None).await?;
    Ok(axum::Json(Forgotten { forgotten }))
}

async fn forget_name(State(desk): State<Desk>, name: extract::Path<String>) -> Answer<axum::Json<Forgotten>> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let forgotten = desk.operator.forget_names(Some(name)).await?;
    Ok(axum::Json(Forgotten { forgotten }))
}

fn net_id(text: &str) -> Answer<NetId> {
    text.parse().map_err(|error: crate::lorawan::ids::IdError| {
        invalid(error.to_string(), "6 hexadecimal digits, such as C0002F")
    })
}

async fn usage(State(desk): State<Desk>, path: extract::Path<String>) -> Answer<axum::Json<UsageView>> {
    Ok(axum::Json(desk.operator.usage(month(&path)?).await?))
}

async fn statement(
    State(desk): State<Desk>,
    extract::Path((path, net_id)): extract::Path<(String, String)>,
) -> Answer<axum::Json<Signed>> {
    let (month, net_id) = (month(&path)?, self::net_id(&net_id)?);
    let now = desk.clock.wall().strftime("%Y-%m").to_string();
    if month >= now {
        let reason = format!("{month} is not over: what is signed is not changed any more");
        return Err(invalid(reason, "ask for an earlier month; `roamgate usage report` shows this one"));
    }
    Ok(axum::Json(desk.operator.statement(month, net_id).await?))
}

fn month(text: &str) -> Answer<String> {
    let is_month = text.len() == 7 && format!("{text}-01").parse::<jiff::civil::Date>().is_ok();
    if is_month {
        return Ok(text.to_owned());
    }
    let text: String = text.chars().take(20).collect();
    Err(invalid(format!("{text:?} is no month"), "YYYY-MM, such as 2026-11"))
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
