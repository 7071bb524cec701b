//! DNS over TLS (RFC 7858).

use std::net::SocketAddr;
use std::path::PathBuf;

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::pki::make::{Authority, IntermediateSpec, LeafSpec, RootSpec};
use crate::tls;

/// The bench's server behind TLS, as dns.example.
async fn behind_tls(bench: &Bench) -> (SocketAddr, PathBuf) {
    tls::install_provider();
    let root = Authority::root(&RootSpec::new("Resolvers"), &bench.clock).unwrap();
    let member = root.intermediate(&IntermediateSpec::new("R", ["dns.example"]), &bench.clock).unwrap();
    let made = member.issue(&LeafSpec::new("dns", ["dns.example"]), &bench.clock).unwrap();
    let chain = tls::certificates(made.chain_pem.as_bytes(), "chain".as_ref()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.key_pem.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (inside, listener) = (bench.zone.addr, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut inside = TcpStream::connect(inside).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut inside).await;
            });
        }
    });
    let roots = bench.folder.path().join("roots.pem");
    std::fs::write(&roots, &root.cert_pem).unwrap();
    (at, roots)
}

#[tokio::test]
async fn a_resolver_is_asked_over_tls_and_only_the_one_that_is_meant() {
    let bench = Bench::new().await;
    let (at, roots) = behind_tls(&bench).await;
    let ask = async |name: &str, trust_ad| {
        let config = Config {
            resolvers: vec![format!("tls://{at}#{name}").parse().unwrap()],
            tls_roots: vec![roots.clone()],
            trust_ad,
            ..bench.config(Dnssec::Require)
        };
        let resolver = Resolver::new(config, bench.clock.clone()).unwrap();
        resolver.net_server(net_id("000001"), bench.soon()).await
    };
    let found = ask("dns.example", false).await.unwrap();
    assert_eq!((found.ways[0].addresses.len(), found.security), (2, Security::Secure));
    // over TLS the AD bit counts, and this server does not set it
    let err = ask("dns.example", true).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::Insecure { .. }), "{err:?}");
    bench.zone.forget_queries();
    for trust_ad in [false, true] {
        let err = ask("other.example", trust_ad).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::ServFail { .. } | DiscoveryError::Timeout { .. }), "{err:?}");
    }
    assert_eq!(bench.zone.queries(), []);
}

#[tokio::test]
async fn without_roots_no_resolver_is_believed() {
    let bench = Bench::new().await;
    let resolvers = vec!["tls://192.0.2.53#dns.example".parse().unwrap()];
    let config = Config { resolvers, ..bench.config(Dnssec::Require) };
    let err = Resolver::new(config.clone(), bench.clock.clone()).err().unwrap();
    assert!(err.to_string().contains("[discovery] tls_roots"), "{err}");
    let config = Config { tls_roots: vec!["/nowhere/roots.pem".into()], ..config };
    let err = Resolver::new(config, bench.clock.clone()).err().unwrap();
    assert!(err.to_string().contains("/nowhere/roots.pem"), "{err}");
}
