//! The first message of a TLS connection: whom it wants, read without taking part. Called by `front` only.

use std::io;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::tls;

/// No first message is longer.
const LIMIT: usize = 32 * 1024;

/// What a ClientHello says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The server name, in small letters.
    pub name: Option<String>,
    /// Whether a hotspot wants to be passed on to.
    pub tunnel: bool,
}

/// Read until the whole message is there; also the bytes, which somebody else has to read as well.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Hello, Vec<u8>)> {
    let (mut acceptor, mut taken) = (Acceptor::default(), Vec::new());
    let mut chunk = [0; 4096];
    loop {
        let length = stream.read(&mut chunk).await?;
        let new = chunk.get(..length).unwrap_or_default();
        if new.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        taken.extend_from_slice(new);
        if let Some(hello) = take(&mut acceptor, new)? {
            return Ok((hello, taken));
        }
        if taken.len() > LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a first message without end"));
        }
    }
}

fn take(acceptor: &mut Acceptor, mut unread: &[u8]) -> io::Result<Option<Hello>> {
    while !unread.is_empty() {
        acceptor.read_tls(&mut unread)?;
        let accepted = acceptor
            .accept()
            .map_err(|(error, _alert)| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        if let Some(accepted) = accepted {
            let hello = accepted.client_hello();
            let name = hello.server_name().map(str::to_ascii_lowercase);
            let tunnel = hello.alpn().is_some_and(|mut all| all.any(|one| one == tls::TUNNEL));
            return Ok(Some(Hello { name, tunnel }));
        }
    }
    Ok(None)
}

/// [`read`] of bytes that are all there: for fuzzing. `None`: no whole ClientHello.
pub fn of(bytes: &[u8]) -> Option<Hello> {
    take(&mut Acceptor::default(), bytes).ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn client_hello(name: &str, alpn: &[u8]) -> Vec<u8> {
        tls::install_provider();
        let mut config =
            ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        config.alpn_protocols = vec![b"other".to_vec(), alpn.to_vec()];
        let mut client =
            ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_hello_is_read_in_whatever_pieces_it_comes_and_nothing_of_it_is_lost() {
        for (alpn, tunnel) in [(tls::TUNNEL, true), (&b"http/1.1"[..], false)] {
            let sent = client_hello("C00ABC.netids.example", alpn);
            for piece in [1, 7, 4096] {
                let (mut from, to) = tokio::io::duplex(piece);
                let bytes = sent.clone();
                let sending = tokio::spawn(async move {
                    let mut to = to;
                    tokio::io::AsyncWriteExt::write_all(&mut to, &bytes).await.unwrap();
                });
                let (hello, taken) = read(&mut from).await.unwrap();
                sending.await.unwrap();
                assert_eq!(hello, Hello { name: Some("c00abc.netids.example".into()), tunnel });
                assert_eq!(taken, sent);
            }
        }
        let (hello, _) = read(&mut &client_hello("192.0.2.7", b"http/1.1")[..]).await.unwrap();
        assert_eq!(hello.name, None);
    }

    #[tokio::test]
    async fn what_is_no_hello_is_an_error() {
        let whole = client_hello("a.example", b"http/1.1");
        for wrong in [&b"GET / HTTP/1.1\r\n\r\n"[..], &whole[..whole.len() - 1], &[]] {
            assert!(read(&mut &wrong[..]).await.is_err());
        }
        // records of a handshake message that says it is 16 MB long
        let mut endless = vec![0x16, 3, 1, 0x40, 0];
        endless.extend([1, 0xFF, 0xFF, 0xFF]);
        endless.extend(std::iter::repeat_n(0, 0x4000 - 4));
        let endless = endless.repeat(4);
        assert!(read(&mut &endless[..]).await.is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, cut in 0usize..400, flip in 0usize..400, with: u8) {
            of(&bytes);
            let mut hello = client_hello("a.example", b"http/1.1");
            let place = flip % hello.len();
            hello[place] ^= with;
            hello.truncate(hello.len() - cut % hello.len());
            of(&hello);
        }
    }
}
