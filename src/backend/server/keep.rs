//! Partners leave their backups here and take them away again, over the same connections: `GET /backups/NETID`, `GET` and `PUT`
//! `/backups/NETID/NAME`. This is between Roamgates; TS002 knows nothing of it.
//!
//! Whoever has a certificate for a NetID is served, as far as that partner's entry says. What comes goes to the disk piece by piece, one file
//! at a time, so that nobody fills the memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request as HttpRequest;
use axum::http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::guest::Guest;
use super::{Reception, closing, json, plain};
use crate::backend::message::Party;
use crate::backup::kept::{Kept, KeptError};
use crate::lorawan::NetId;

/// Paths that begin so are for this file.
pub(super) const PLACE: &str = "/backups/";
/// A long file over a slow line.
const PATIENCE: Duration = Duration::from_secs(1800);
/// What is read of a file at a time, in bytes.
const PIECE: usize = 64 * 1024;

/// Where partners' backups are kept.
pub struct Keeping {
    /// Their folder.
    pub kept: Kept,
    /// Whether the disk has room for more.
    pub has_room: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// The same, in use.
pub(super) struct Keeper {
    keeping: Keeping,
    /// One file at a time.
    turn: Semaphore,
}

impl Keeper {
    pub fn new(keeping: Keeping) -> Keeper {
        Keeper { keeping, turn: Semaphore::new(1) }
    }
}

/// A refusal in words.
type Refused = (StatusCode, String);

impl Reception {
    /// One request to the place of backups.
    pub(super) async fn keep(&self, guest: &Guest, request: HttpRequest) -> Response<Body> {
        let patient = self.patience.request(&guest.name, guest.listed);
        self.renew(guest).await;
        let answer = match patient {
            Ok(()) => self.kept(guest, request).await,
            Err((refusal, _)) => Err((StatusCode::TOO_MANY_REQUESTS, refusal.to_string())),
        };
        answer.unwrap_or_else(|(status, why)| {
            if let Some(left_out) = self.patience.tell(&guest.name, &why) {
                tracing::warn!(peer = guest.name, %status, why, left_out, "a partner's backup: refused");
            }
            // what has not been read of a body must not be taken for the next request
            let mut response = closing(plain(status));
            *response.body_mut() = Body::from(why);
            response
        })
    }

    async fn kept(&self, guest: &Guest, request: HttpRequest) -> Result<Response<Body>, Refused> {
        let path = request.uri().path().strip_prefix(PLACE).unwrap_or_default();
        let (net_id, name) = match path.split_once('/') {
            Some((net_id, name)) => (net_id, Some(name.to_owned())),
            None => (path, None),
        };
        let net_id: NetId =
            net_id.parse().map_err(|_| (StatusCode::NOT_FOUND, "/backups/NETID/NAME".into()))?;
        self.authority(guest).map_err(|refusal| (StatusCode::FORBIDDEN, refusal.to_string()))?;
        if !self.is_party(&guest.peer, &Party::Ns(net_id)) {
            return Err((
                StatusCode::FORBIDDEN,
                format!("your certificate does not speak for NetID {net_id}"),
            ));
        }
        let limit = self.partners.partner(net_id).and_then(|partner| partner.keep_backups_mb);
        let (Some(keeper), Some(limit)) = (&self.keeper, limit) else {
            let why = format!("no backups of NetID {net_id} are kept here: its entry has no keep_backups_mb");
            return Err((StatusCode::FORBIDDEN, why));
        };
        let kept = keeper.keeping.kept.clone();
        match (request.method(), name) {
            (&Method::GET, None) => {
                let listed = aside(move || kept.list(net_id)).await.map_err(|error| refused(error.into()))?;
                Ok(json(StatusCode::OK, serde_json::to_vec(&listed).unwrap_or_default()))
            }
            (&Method::GET, Some(name)) => {
                let opened = aside(move || kept.open(net_id, &name)).await.map_err(refused)?;
                let file = opened.ok_or((StatusCode::NOT_FOUND, "there is no backup of that name".into()))?;
                tracing::info!(%net_id, peer = guest.name, "a partner takes a backup of its own away");
                Ok(Response::new(pieces(file)))
            }
            (&Method::PUT, Some(name)) => {
                let _turn = keeper.turn.acquire().await;
                if !(keeper.keeping.has_room)() {
                    return Err((StatusCode::INSUFFICIENT_STORAGE, "the disk here is nearly full".into()));
                }
                let taken =
                    timeout(PATIENCE, take(kept, net_id, name.clone(), limit, request.into_body())).await;
                let taken = taken.map_err(|_| (StatusCode::REQUEST_TIMEOUT, "it came too slowly".into()))?;
                let bytes = taken.map_err(refused)?;
                tracing::info!(%net_id, peer = guest.name, name, bytes, "a partner's backup is kept");
                Ok(plain(StatusCode::CREATED))
            }
            _ => Err((StatusCode::METHOD_NOT_ALLOWED, "GET or PUT".into())),
        }
    }
}

fn refused(error: KeptError) -> Refused {
    let status = match error {
        KeptError::Name(_) => StatusCode::BAD_REQUEST,
        KeptError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
        KeptError::File(_) => StatusCode::INSUFFICIENT_STORAGE,
    };
    (status, error.to_string())
}

/// Where waiting for the disk keeps nobody waiting.
async fn aside<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
}

/// A body into a file. Its length.
async fn take(
    kept: Kept,
    owner: NetId,
    name: String,
    limit_mb: u32,
    mut body: Body,
) -> Result<u64, KeptError> {
    let (send, mut pieces) = mpsc::channel::<Option<Bytes>>(4);
    let writing = aside(move || {
        let mut incoming = kept.take(owner, &name, limit_mb)?;
        loop {
            match pieces.blocking_recv() {
                Some(Some(piece)) => incoming.write(&piece)?,
                Some(None) => break,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it was cut off").into()),
            }
        }
        let length = incoming.finish()?;
        kept.tidy(owner, limit_mb)?;
        Ok(length)
    });
    let reading = async move {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return };
            let Ok(data) = frame.into_data() else { continue };
            // whoever writes has given up, and says why
            if send.send(Some(data)).await.is_err() {
                return;
            }
        }
        let _ = send.send(None).await;
    };
    let (written, ()) = tokio::join!(writing, reading);
    written
}

/// A file, piece by piece.
fn pieces(file: std::fs::File) -> Body {
    let file = tokio::fs::File::from_std(file);
    Body::from_stream(futures_util::stream::unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE];
        match file.read(&mut piece).await {
            Ok(0) => None,
            Ok(length) => {
                piece.truncate(length);
                Some((Ok(Bytes::from(piece)), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    }))
}
