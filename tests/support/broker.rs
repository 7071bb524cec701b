//! A broker for tests: as much of MQTT 3.1.1 as a client with QoS 0 and 1 sees, with a codec of its own. It can go
//! away and come back, and hang up in the middle.

#![allow(dead_code)] // each test binary uses a part of it

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A broker; it is gone when dropped.
pub struct Broker {
    pub address: SocketAddr,
    state: Shared,
    listener: Option<tokio::task::JoinHandle<()>>,
    with_tls: Option<tokio::task::JoinHandle<()>>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Everything that was published, in order: topic and payload.
    log: Vec<(String, Vec<u8>)>,
    /// By client id.
    sessions: BTreeMap<String, Session>,
    /// After so many more publications the broker hangs up, without acknowledging the last.
    hang_up: Option<usize>,
    /// Handshakes that failed.
    turned_away: usize,
}

#[derive(Default)]
struct Session {
    filters: Vec<String>,
    /// Where it is connected now.
    line: Option<mpsc::UnboundedSender<Vec<u8>>>,
    /// Sent and not acknowledged, or waiting for the client.
    waiting: BTreeMap<u16, Vec<u8>>,
    next: u16,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    pub async fn start() -> Broker {
        let mut broker = Broker {
            address: ([127, 0, 0, 1], 0).into(),
            state: Shared::default(),
            listener: None,
            with_tls: None,
        };
        broker.comes_back().await;
        broker
    }

    /// Close the port and every connection. What clients have subscribed to is remembered.
    pub async fn goes_away(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
            let _ = listener.await;
        }
        self.state.lock().sessions.values_mut().for_each(|session| session.line = None);
    }

    /// Listen, at the same address as before.
    pub async fn comes_back(&mut self) {
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        };
        self.address = listener.local_addr().expect("an address");
        let state = self.state.clone();
        self.listener = Some(tokio::spawn(async move {
            // the connections go with the listener
            let mut lines = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = state.clone();
                lines.spawn(async move { serve(stream, state).await.unwrap_or_default() });
            }
        }));
    }

    /// Listen at one more address, behind TLS.
    pub async fn listens_behind_tls(&mut self, config: ServerConfig) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (state, acceptor) = (self.state.clone(), TlsAcceptor::from(Arc::new(config)));
        self.with_tls = Some(tokio::spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, acceptor) = (state.clone(), acceptor.clone());
                lines.spawn(async move {
                    match acceptor.accept(stream).await {
                        Ok(stream) => serve(stream, state).await.unwrap_or_default(),
                        Err(_) => state.lock().turned_away += 1,
                    }
                });
            }
        }));
        address
    }

    /// How many handshakes have failed.
    pub fn turned_away(&self) -> usize {
        self.state.lock().turned_away
    }

    /// Hang up after so many more publications, once.
    pub fn hangs_up_after(&self, publications: usize) {
        self.state.lock().hang_up = Some(publications);
    }

    /// Everything that was published so far.
    pub fn log(&self) -> Vec<(String, Vec<u8>)> {
        self.state.lock().log.clone()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for listener in self.listener.iter().chain(&self.with_tls) {
            listener.abort();
        }
    }
}

/// One packet: first byte and body.
async fn packet(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let first = from.read_u8().await?;
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let byte = from.read_u8().await?;
        length |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok((first, body))
}

fn written(first: u8, body: &[u8]) -> Vec<u8> {
    let (mut bytes, mut length) = (vec![first], body.len());
    loop {
        let more = if length > 0x7F { 0x80 } else { 0 };
        bytes.push((length & 0x7F) as u8 | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

/// A string with its length in front, and the rest.
fn text(bytes: &[u8]) -> (String, &[u8]) {
    let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    (String::from_utf8(bytes[2..2 + length].to_vec()).expect("UTF-8"), &bytes[2 + length..])
}

fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some(wanted), Some(level)) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite, state: Shared) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    let (line, mut lines) = mpsc::unbounded_channel::<Vec<u8>>();
    let (_, connect) = packet(&mut from).await?;
    let (protocol, rest) = text(&connect);
    assert_eq!((protocol.as_str(), rest[0]), ("MQTT", 4));
    let (clean, (id, _)) = (rest[1] & 2 != 0, text(&rest[4..]));
    {
        let mut state = state.lock();
        let present = state.sessions.contains_key(&id) && !clean;
        let session = state.sessions.entry(id.clone()).or_default();
        if clean {
            *session = Session::default();
        }
        let _ = line.send(vec![0x20, 2, present.into(), 0]);
        for waiting in session.waiting.values() {
            let _ = line.send(waiting.clone());
        }
        session.line = Some(line.clone());
    }
    let read = async {
        loop {
            let (first, body) = packet(&mut from).await?;
            let mut state = state.lock();
            match first >> 4 {
                3 => {
                    let (topic, rest) = text(&body);
                    let acknowledge = first & 6 != 0;
                    let payload = if acknowledge { &rest[2..] } else { rest };
                    state.log.push((topic.clone(), payload.to_vec()));
                    if let Some(left) = state.hang_up.as_mut() {
                        *left -= 1;
                        if *left == 0 {
                            state.hang_up = None;
                            return Ok(());
                        }
                    }
                    if acknowledge {
                        let _ = line.send(vec![0x40, 2, rest[0], rest[1]]);
                    }
                    route(&mut state, &topic, payload);
                }
                4 => {
                    let number = u16::from_be_bytes([body[0], body[1]]);
                    state.sessions.entry(id.clone()).or_default().waiting.remove(&number);
                }
                8 => {
                    let (mut answer, mut rest) = (body[..2].to_vec(), &body[2..]);
                    while !rest.is_empty() {
                        let (filter, more) = text(rest);
                        answer.push(more[0].min(1));
                        rest = &more[1..];
                        state.sessions.entry(id.clone()).or_default().filters.push(filter);
                    }
                    let _ = line.send(written(0x90, &answer));
                }
                12 => drop(line.send(vec![0xD0, 0])),
                14 => return Ok(()),
                other => panic!("packets of type {other} are not of this broker"),
            }
        }
    };
    let write = async {
        while let Some(bytes) = lines.recv().await {
            to.write_all(&bytes).await?;
            to.flush().await?;
        }
        Ok(())
    };
    tokio::select! { done = read => done, done = write => done }
}

fn route(state: &mut State, topic: &str, payload: &[u8]) {
    for session in state.sessions.values_mut() {
        if !session.filters.iter().any(|filter| matches(filter, topic)) {
            continue;
        }
        session.next = session.next.wrapping_add(1).max(1);
        let mut body = u16::try_from(topic.len()).expect("a short topic").to_be_bytes().to_vec();
        body.extend(topic.as_bytes());
        body.extend(session.next.to_be_bytes());
        body.extend(payload);
        let bytes = written(0x32, &body);
        session.waiting.insert(session.next, bytes.clone());
        if let Some(line) = &session.line {
            let _ = line.send(bytes);
        }
    }
}
