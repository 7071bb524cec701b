//! The Unix socket: for its owner alone, replaced when a killed daemon left it.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::router::trouble;
use crate::clock::Clock;

/// Connections served at once.
const CONNECTIONS: usize = 64;

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
    /// Who gets through, beside root.
    pub(super) owner: u32,
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
pub(super) fn admitted(uid: Option<u32>, owner: u32) -> bool {
    uid.is_some_and(|uid| uid == owner || uid == 0)
}
