//! The line to a broker: bytes of a socket, in the clear or inside TLS, as MQTT packets and back.
//!
//! The packets are the library's, the connection is ours: so TLS is the one that the rest of the program speaks, and
//! nothing waits anywhere but here.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::{ConnAck, Connect, ConnectReturnCode, Packet, mqttbytes};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Server;
use crate::tls;

/// For the connection, the TLS handshake and the broker's first word together; and for it to take what we write.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest command, and the longest event, in bytes.
const PACKETS: [usize; 2] = [64 * 1024, 1024 * 1024];

/// What a line ends of.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// The network, or TLS.
    #[error("{}", tls::explain(.0).unwrap_or_else(|| .0.to_string()))]
    Socket(#[from] io::Error),
    /// The broker's or the operator's move.
    #[error("the broker lets us not in: {0:?}")]
    Refused(ConnectReturnCode),
    /// Not by MQTT's rules.
    #[error("the broker began with something else than CONNACK")]
    NotConnAck,
    /// Its fault, or a message that is too long for us.
    #[error("it sent what cannot be read: {0}")]
    Unreadable(mqttbytes::Error),
    /// Ours.
    #[error("a packet cannot be written: {0}")]
    Unwritable(mqttbytes::Error),
    /// Without a word.
    #[error("the broker has closed the connection")]
    Closed,
    /// Nothing moves.
    #[error("nothing within {} s", PATIENCE.as_secs())]
    Late,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to a broker.
pub(super) struct Line {
    stream: Box<dyn Stream>,
    /// Read and not understood yet.
    bytes: BytesMut,
}

/// As long as a broker may take.
async fn patient<T>(work: impl Future<Output = Result<T, LineError>>) -> Result<T, LineError> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(LineError::Late))
}

impl Line {
    /// Connect, with TLS where there is a configuration for it, and be let in.
    pub async fn open(
        server: &Server,
        tls: Option<Arc<ClientConfig>>,
        connect: Connect,
    ) -> Result<Line, LineError> {
        let open = async {
            let tcp = TcpStream::connect(format!("{}:{}", server.host, server.port)).await?;
            tcp.set_nodelay(true)?;
            let stream: Box<dyn Stream> = match tls {
                Some(config) => Box::new(TlsConnector::from(config).connect(server.name()?, tcp).await?),
                None => Box::new(tcp),
            };
            let mut line = Line { stream, bytes: BytesMut::new() };
            line.send([Packet::Connect(connect)]).await?;
            match line.receive().await? {
                Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, .. }) => Ok(line),
                Packet::ConnAck(ConnAck { code, .. }) => Err(LineError::Refused(code)),
                _ => Err(LineError::NotConnAck),
            }
        };
        patient(open).await
    }

    /// Write packets, all at once.
    pub async fn send(&mut self, packets: impl IntoIterator<Item = Packet>) -> Result<(), LineError> {
        let mut bytes = BytesMut::new();
        for packet in packets {
            packet.write(&mut bytes, PACKETS[1]).map_err(LineError::Unwritable)?;
        }
        let write = async {
            self.stream.write_all(&bytes).await?;
            Ok(self.stream.flush().await?)
        };
        patient(write).await
    }

    /// The next packet. Whoever stops waiting loses nothing.
    pub async fn receive(&mut self) -> Result<Packet, LineError> {
        loop {
            match Packet::read(&mut self.bytes, PACKETS[0]) {
                Ok(packet) => return Ok(packet),
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => return Err(LineError::Unreadable(error)),
            }
            if self.stream.read_buf(&mut self.bytes).await? == 0 {
                return Err(LineError::Closed);
            }
        }
    }
}

impl Server {
    /// What its certificate must say.
    fn name(&self) -> Result<ServerName<'static>, LineError> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']').to_string();
        ServerName::try_from(host).map_err(|error| LineError::Socket(io::Error::other(error)))
    }
}
