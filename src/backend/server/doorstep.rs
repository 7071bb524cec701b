//! Where partners come in: a port of ours, a front's tunnel, or both. Called by `server` only.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Bytes both ways, on which TLS has yet to begin.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A connection of a partner.
pub struct Arrival {
    /// Its bytes.
    pub stream: Box<dyn Wire>,
    /// Where the partner is.
    pub from: SocketAddr,
}

/// Where partners are to come in.
#[derive(Default)]
pub struct Doorstep {
    /// A port of ours.
    pub listen: Option<SocketAddr>,
    /// The same, open already: the service manager has opened it, perhaps one that only it may.
    pub passed: Option<std::net::TcpListener>,
    /// What is brought from elsewhere.
    pub brought: Option<mpsc::Receiver<Arrival>>,
}

/// The same, open.
pub(super) struct Open {
    listener: Option<TcpListener>,
    brought: Option<mpsc::Receiver<Arrival>>,
}

impl Doorstep {
    /// A port and nothing else.
    pub fn at(listen: SocketAddr) -> Doorstep {
        Doorstep { listen: Some(listen), ..Doorstep::default() }
    }

    /// Open the port; its address, if there is one.
    pub(super) async fn open(self) -> io::Result<(Open, Option<SocketAddr>)> {
        let listener = match (self.passed, self.listen) {
            (Some(passed), _) => {
                passed.set_nonblocking(true)?;
                Some(TcpListener::from_std(passed)?)
            }
            (None, Some(listen)) => Some(TcpListener::bind(listen).await?),
            (None, None) => None,
        };
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        Ok((Open { listener, brought: self.brought }, address))
    }
}

impl Open {
    /// The next connection, wherever it comes from.
    pub(super) async fn next(&mut self) -> io::Result<Arrival> {
        tokio::select! {
            arrived = knock(self.listener.as_ref()) => arrived,
            arrived = bring(&mut self.brought) => Ok(arrived),
        }
    }
}

async fn knock(listener: Option<&TcpListener>) -> io::Result<Arrival> {
    let Some(listener) = listener else { return std::future::pending().await };
    let (stream, from) = listener.accept().await?;
    // messages are short and somebody waits for them
    let _ = stream.set_nodelay(true);
    Ok(Arrival { stream: Box::new(stream), from })
}

async fn bring(brought: &mut Option<mpsc::Receiver<Arrival>>) -> Arrival {
    if let Some(arrivals) = brought
        && let Some(arrival) = arrivals.recv().await
    {
        return arrival;
    }
    // whoever brought them is gone
    *brought = None;
    std::future::pending().await
}
