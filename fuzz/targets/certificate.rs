//! Whatever a peer presents as its chain: judged, never a panic. The input is a sequence of certificates (DER), each
//! with two bytes in front for its length; the last one is taken as the root as well, and each as a list of revoked certificates and as a request for one.

use base64::Engine;
use jiff::Timestamp;
use roamgate::pki::check::{self, PeerRules};
use roamgate::pki::request::Request;
use roamgate::pki::revoke::{List, Revoked};
use rustls_pki_types::CertificateDer;

pub fn fuzz(bytes: &[u8]) {
    let mut chain = Vec::new();
    let mut rest = bytes;
    while let [high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (certificate, next) = tail.split_at(length);
        chain.push(CertificateDer::from(certificate));
        rest = next;
    }
    for certificate in &chain {
        if let Ok(facts) = check::facts(certificate) {
            let _ = check::acceptable(&facts);
        }
    }
    // inside the dates of the seeds
    let wall = Timestamp::from_second(1_795_000_000).unwrap();
    if let Ok(peer) = check::identity(&chain) {
        let _ = (peer.is_valid_at(wall), peer.speaks_for("000001.netids.iotroam.example"));
        let proven = peer.proven(true, &PeerRules::default());
        let _ = proven.speaks_for("000001.netids.iotroam.example");
    }
    let roots = chain.last().map(std::slice::from_ref).unwrap_or_default();
    let mut revoked = Revoked::default();
    for bytes in &chain {
        if let Ok(list) = List::read(bytes) {
            let _ = list.is_signed_by(bytes);
            revoked.add(list);
        }
        let text = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            base64::engine::general_purpose::STANDARD.encode(bytes)
        );
        let _ = Request::read(&text);
    }
    let _ = revoked.deny(&String::from_utf8_lossy(bytes));
    let _ = revoked.why(&chain, roots);
    let _ = check::inspect(&chain, Some(bytes), roots, wall).is_good();
}
