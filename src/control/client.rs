//! The client: the same requests to a running daemon or to the router in this process.

use std::io;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Body;
pub use axum::http::Method;
use axum::http::{Request, header};
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;
use tower::ServiceExt;

use super::Trouble;

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

    /// One request whose answer is a file.
    pub async fn file<B: Serialize>(&self, path: &str, body: &B) -> Result<Vec<u8>, ClientError> {
        let body = serde_json::to_vec(body).map_err(answer)?;
        let body = self.send(Method::POST, path, body.into()).await?;
        Ok(body.collect().await.map_err(answer)?.to_bytes().to_vec())
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
