//! Real handshakes over loopback. The wall clock is moved by hand.

use jiff::SignedDuration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use rustls_pki_types::ServerName;

use super::*;
use crate::pki::check::PeerRules;
use crate::pki::make::{self, Authority, IntermediateSpec, LeafSpec, RootSpec};

const HOME: &str = "000001.netids.iot.example";
const VISITED: &str = "000000.netids.iot.example";
const JOIN: &str = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.joineuis.iot.example";

/// A federation: its root, and what its members need.
struct Federation {
    clock: Clock,
    root: Authority,
}

impl Federation {
    fn new() -> Federation {
        install_provider();
        let clock = Clock::system();
        let root = Authority::root(&RootSpec::new("Test root"), &clock).unwrap();
        Federation { clock, root }
    }
    fn member(&self, subtrees: &[&str]) -> Authority {
        let spec = IntermediateSpec::new("A member", subtrees.iter().copied());
        self.root.intermediate(&spec, &self.clock).unwrap()
    }
    fn unconstrained(&self) -> Authority {
        let spec = IntermediateSpec { unconstrained: true, ..IntermediateSpec::new("Anybody", [HOME]) };
        self.root.intermediate(&spec, &self.clock).unwrap()
    }
    fn node(&self, names: &[&str]) -> Identity {
        self.issue(&self.member(names), LeafSpec::new("node", names.iter().copied()))
    }
    fn issue(&self, by: &Authority, spec: LeafSpec) -> Identity {
        identity(&by.issue(&spec, &self.clock).unwrap())
    }
    fn trust(&self) -> Arc<Trust> {
        self.trust_with(PeerRules::default())
    }
    fn trust_with(&self, rules: PeerRules) -> Arc<Trust> {
        Trust::new(&Roots::from_pem(&self.root.cert_pem).unwrap(), rules, self.clock.clone()).unwrap()
    }
}

fn identity(made: &make::Identity) -> Identity {
    let key = PrivateKeyDer::from_pem_slice(made.key_pem.as_bytes()).unwrap();
    Identity::from_der(certificates(made.chain_pem.as_bytes(), Path::new("chain")).unwrap(), key).unwrap()
}

/// A leaf as asked for, whether partners accept it or not.
fn odd(names: &[&str]) -> LeafSpec {
    LeafSpec { unchecked: true, ..LeafSpec::new("odd", names.iter().copied()) }
}

fn pin(identity: &Identity) -> Pin {
    identity.certificate().unwrap().pin
}

/// One connection over loopback with a byte each way: what the server and the client say of it.
async fn connect_with(
    server: Arc<ServerConfig>,
    trust: &Trust,
    client: ClientConfig,
    name: &str,
) -> (Result<PeerIdentity, String>, Result<ProtocolVersion, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (socket, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(server).accept(socket).await?;
        let peer = trust.peer_identity(stream.get_ref().1.peer_certificates());
        let peer = peer.map_err(std::io::Error::other)?;
        handshake_done(stream.get_ref().1, &peer);
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        stream.write_all(&byte).await?;
        stream.shutdown().await?;
        Ok::<_, std::io::Error>(peer)
    };
    let ask = async {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let socket = TcpStream::connect(address).await?;
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, socket).await?;
        let mut byte = [7];
        stream.write_all(&byte).await?;
        stream.read_exact(&mut byte).await?;
        Ok::<_, std::io::Error>(stream.get_ref().1.protocol_version().unwrap())
    };
    let (served, asked) = tokio::join!(serve, ask);
    let text = |error: std::io::Error| explain(&error).unwrap_or_else(|| error.to_string());
    (served.map_err(text), asked.map_err(text))
}

/// The same with one trust for both.
async fn connect(
    server: &Identity,
    client: &Identity,
    trust: &Arc<Trust>,
    name: &str,
) -> (Result<PeerIdentity, String>, Result<ProtocolVersion, String>) {
    let client = client_config(client, trust, Expected::default()).unwrap();
    connect_with(server_config(server, trust).unwrap(), trust, client, name).await
}

fn says<T: fmt::Debug>(result: Result<T, String>, words: &str) {
    let error = result.unwrap_err();
    assert!(error.contains(words), "{error}");
}

#[tokio::test]
async fn two_members_meet_over_tls_1_3_and_1_2() {
    let federation = Federation::new();
    let (home, visited) = (federation.node(&[HOME, JOIN]), federation.node(&[VISITED]));
    let trust = federation.trust();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for name in [HOME, JOIN] {
            let server = server_config(&home, &trust).unwrap();
            let client = client_config_for(&[version], &visited, &trust, Expected::default()).unwrap();
            let (served, asked) = connect_with(server, &trust, client, name).await;
            let peer = served.unwrap();
            assert!(peer.constrained && peer.speaks_for(VISITED) && !peer.speaks_for(HOME));
            assert_eq!(asked.unwrap(), version.version);
        }
    }
}

#[tokio::test]
async fn a_leaf_sent_without_its_intermediate_is_refused_by_both_sides() {
    let federation = Federation::new();
    let (home, visited) = (federation.node(&[HOME]), federation.node(&[VISITED]));
    let alone = |identity: &Identity| Identity { chain: identity.chain[..1].to_vec(), ..identity.clone() };
    let trust = federation.trust();
    let (served, asked) = connect(&alone(&home), &visited, &trust, HOME).await;
    says(asked, "does not send its intermediate");
    says(served, "does not know who signed our certificate");
    let (served, asked) = connect(&home, &alone(&visited), &trust, HOME).await;
    says(served, "does not send its intermediate");
    says(asked, "does not know who signed our certificate");
}

#[tokio::test]
async fn a_root_sent_along_does_no_harm() {
    let federation = Federation::new();
    let mut home = federation.node(&[HOME]);
    home.chain.extend(certificates(federation.root.cert_pem.as_bytes(), Path::new("root")).unwrap());
    let (served, asked) = connect(&home, &federation.node(&[VISITED]), &federation.trust(), HOME).await;
    served.unwrap();
    asked.unwrap();
}

#[tokio::test]
async fn expired_and_not_yet_valid_certificates_are_refused_as_the_wall_clock_moves() {
    let federation = Federation::new();
    let (home, visited) = (federation.node(&[HOME]), federation.node(&[VISITED]));
    let trust = federation.trust();
    let meet = || connect(&home, &visited, &trust, HOME);
    let peer = meet().await.0.unwrap();
    assert!(peer.is_valid_at(federation.clock.wall()));

    federation.clock.move_wall(SignedDuration::from_hours(24 * 400));
    assert!(!peer.is_valid_at(federation.clock.wall()));
    says(meet().await.1, "expired on");
    federation.clock.move_wall(SignedDuration::from_hours(-24 * 500));
    says(meet().await.1, "none of our roots is valid today");
    federation.clock.move_wall(SignedDuration::from_hours(24 * 100));
    meet().await.1.unwrap();

    // a leaf from tomorrow, under a root of today
    let tomorrow = federation.clock.wall() + SignedDuration::from_hours(24);
    let member = federation.member(&[HOME]);
    let early = federation.issue(&member, LeafSpec { not_before: Some(tomorrow), ..odd(&[HOME]) });
    says(connect(&early, &visited, &trust, HOME).await.1, "not valid before");
    says(connect(&home, &early, &trust, HOME).await.0, "not valid before");

    // twenty years on the root itself has ended
    federation.clock.move_wall(SignedDuration::from_hours(24 * 366 * 20));
    says(meet().await.1, "none of our roots is valid today");
}

#[tokio::test]
async fn while_the_clock_is_not_trusted_nobody_meets() {
    let federation = Federation::new();
    let (home, visited) = (federation.node(&[HOME]), federation.node(&[VISITED]));
    federation.clock.set_trusted(false);
    says(connect(&home, &visited, &federation.trust(), HOME).await.1, "clock is not set");
}

#[tokio::test]
async fn a_wildcard_matches_no_join_eui_name() {
    let federation = Federation::new();
    let member = federation.member(&["joineuis.iot.example"]);
    let home = federation.issue(&member, odd(&["*.joineuis.iot.example"]));
    let (_, asked) = connect(&home, &federation.node(&[VISITED]), &federation.trust(), JOIN).await;
    says(asked, "not valid for name");
}

#[tokio::test]
async fn a_member_cannot_sign_for_another_networks_name() {
    let federation = Federation::new();
    let member = federation.member(&[VISITED]);
    let liar = federation.issue(&member, odd(&[HOME]));
    let honest = federation.node(&[VISITED]);
    let trust = federation.trust();
    says(connect(&liar, &honest, &trust, HOME).await.1, "may not give");
    says(connect(&federation.node(&[HOME]), &liar, &trust, HOME).await.0, "may not give");
    // nor beside a name of its own, nor with a second intermediate that would allow it
    let mut both = federation.issue(&member, odd(&[VISITED, HOME]));
    says(connect(&both, &honest, &trust, HOME).await.1, "may not give");
    both.chain.push(federation.node(&[HOME]).chain[1].clone());
    connect(&both, &honest, &trust, HOME).await.1.unwrap_err();
}

#[tokio::test]
async fn an_unconstrained_intermediate_is_refused_unless_the_leaf_is_pinned() {
    let federation = Federation::new();
    let anybody = federation.issue(&federation.unconstrained(), odd(&[HOME, VISITED]));
    let (home, visited) = (federation.node(&[HOME]), federation.node(&[VISITED]));
    let trust = federation.trust();
    says(connect(&anybody, &visited, &trust, HOME).await.1, "no critical name constraints");
    says(connect(&home, &anybody, &trust, HOME).await.0, "no critical name constraints");
    // a decoy with constraints changes nothing
    let mut decoy = anybody.clone();
    decoy.chain.push(home.chain[1].clone());
    says(connect(&decoy, &visited, &trust, HOME).await.1, "no critical name constraints");

    let mut rules = PeerRules::default();
    rules.allow(pin(&anybody), [HOME]);
    let trust = federation.trust_with(rules);
    connect(&anybody, &visited, &trust, HOME).await.1.unwrap();
    // what it writes beside the name of its entry is worth nothing
    says(connect(&anybody, &visited, &trust, VISITED).await.1, "not valid for name");
    let peer = connect(&home, &anybody, &trust, HOME).await.0.unwrap();
    assert_eq!((peer.constrained, peer.names.as_slice()), (false, [HOME.to_owned()].as_slice()));
    assert_eq!(peer.dns_names, [HOME, VISITED]);
}

#[tokio::test]
async fn a_leaf_under_the_root_itself_is_unlimited_and_refused() {
    let federation = Federation::new();
    let direct = federation.issue(&federation.root, odd(&[HOME]));
    let trust = federation.trust();
    says(
        connect(&direct, &federation.node(&[VISITED]), &trust, HOME).await.1,
        "no critical name constraints",
    );
}

#[tokio::test]
async fn a_certificate_with_only_a_common_name_speaks_for_its_pins_names() {
    let federation = Federation::new();
    let spec = LeafSpec { unchecked: true, ..LeafSpec::new("000001", Vec::<String>::new()) };
    let old = federation.issue(&federation.unconstrained(), spec);
    let visited = federation.node(&[VISITED]);
    let mut rules = PeerRules::default();
    rules.allow(pin(&old), [HOME]);
    let trust = federation.trust_with(rules);
    connect(&old, &visited, &trust, HOME).await.1.unwrap();
    assert!(connect(&visited, &old, &trust, VISITED).await.0.unwrap().speaks_for(HOME));
    // an empty SAN entry, as some clients carry one, is tolerated there
    let old = federation.issue(&federation.unconstrained(), odd(&[""]));
    let mut rules = PeerRules::default();
    rules.allow(pin(&old), [HOME]);
    connect(&visited, &old, &federation.trust_with(rules), VISITED).await.0.unwrap();
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let federation = Federation::new();
    let trust = federation.trust();
    let server = server_config(&federation.node(&[HOME]), &trust).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Servers {
            trust: trust.clone(),
            expected: Expected::default(),
        }))
        .with_no_client_auth();
    let (served, asked) = connect_with(server, &trust, client, HOME).await;
    says(served, "showed no certificate");
    says(asked, "wants a client certificate");
    assert!(trust.peer_identity(None).is_err());
}

#[tokio::test]
async fn another_federation_is_refused_even_under_the_same_name() {
    let (ours, theirs) = (Federation::new(), Federation::new());
    let (home, stranger) = (ours.node(&[HOME]), theirs.node(&[VISITED]));
    let (served, _) = connect_with(
        server_config(&home, &ours.trust()).unwrap(),
        &ours.trust(),
        client_config(&stranger, &ours.trust(), Expected::default()).unwrap(),
        HOME,
    )
    .await;
    assert!(served.is_err());
    let (_, asked) = connect(&stranger, &home, &ours.trust(), VISITED).await;
    assert!(asked.is_err());
}

#[tokio::test]
async fn two_roots_overlap_during_a_roll_over() {
    let (old, new) = (Federation::new(), Federation::new());
    let text = format!("{}{}", old.root.cert_pem, new.root.cert_pem);
    let roots = Roots::from_pem(&text).unwrap();
    assert_eq!(roots.facts().count(), 2);
    let trust = Trust::new(&roots, PeerRules::default(), old.clock.clone()).unwrap();
    let (served, asked) = connect(&old.node(&[HOME]), &new.node(&[VISITED]), &trust, HOME).await;
    served.unwrap();
    asked.unwrap();
}

#[tokio::test]
async fn a_certificate_for_one_direction_is_refused_in_the_other() {
    let federation = Federation::new();
    let member = federation.member(&[HOME, VISITED]);
    let client_only = federation.issue(&member, LeafSpec { server: false, ..odd(&[HOME]) });
    let both = federation.node(&[VISITED]);
    let trust = federation.trust();
    says(connect(&client_only, &both, &trust, HOME).await.1, "extended key usage");
    connect(&both, &client_only, &trust, VISITED).await.0.unwrap();
    let server_only = federation.issue(&member, LeafSpec { client: false, ..odd(&[HOME]) });
    says(connect(&both, &server_only, &trust, VISITED).await.0, "extended key usage");
}

#[tokio::test]
async fn a_secure_alias_is_accepted_and_an_address_is_nobodys_name() {
    let federation = Federation::new();
    let (home, visited) = (federation.node(&[HOME]), federation.node(&[VISITED]));
    let trust = federation.trust();
    says(connect(&home, &visited, &trust, JOIN).await.1, "not valid for name");
    says(connect(&home, &visited, &trust, "127.0.0.1").await.1, "not valid for name");
    let server = server_config(&home, &trust).unwrap();
    let client =
        client_config(&visited, &trust, Expected { also: vec![format!("{HOME}.")], ..Expected::default() })
            .unwrap();
    connect_with(server, &trust, client, JOIN).await.1.unwrap();
}

#[test]
fn half_a_configuration_names_the_file_and_the_remedy() {
    let federation = Federation::new();
    let folder = tempfile::tempdir().unwrap();
    let made = federation.member(&[HOME]).issue(&LeafSpec::new("x", [HOME]), &federation.clock).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let chain = file("chain.pem", &made.chain_pem);
    let key = file("key.pem", &made.key_pem);
    Identity::load(&chain, &key).unwrap();

    let other = federation.member(&[HOME]).issue(&LeafSpec::new("x", [HOME]), &federation.clock).unwrap();
    let blocks: Vec<&str> = made.chain_pem.split_inclusive("-----END CERTIFICATE-----\n").collect();
    let reversed = format!("{}{}", blocks[1], blocks[0]);
    let strange = format!("{}{}", blocks[0], federation.root.cert_pem);
    let cases = [
        (chain.clone(), folder.path().join("none.pem"), "none.pem"),
        (chain.clone(), file("other.pem", &other.key_pem), "does not belong to"),
        (chain.clone(), file("empty-key.pem", ""), "empty-key.pem: holds no private key"),
        (chain.clone(), chain.clone(), "holds no private key"),
        (file("empty.pem", ""), key.clone(), "empty.pem: holds no certificate"),
        (file("leaf.pem", blocks[0]), key.clone(), "leaf.pem: the intermediate is missing"),
        (file("reversed.pem", &reversed), key.clone(), "wrong order"),
        (file("strange.pem", &strange), key.clone(), "signed by the one after it"),
    ];
    for (chain, key, words) in cases {
        says(Identity::load(&chain, &key).map_err(|error| error.to_string()), words);
    }

    let none: [PathBuf; 0] = [];
    says(Roots::load(&none).map_err(|error| error.to_string()), "no root certificate is configured");
    let empty = [folder.path().join("empty.pem")];
    says(Roots::load(&empty).map_err(|error| error.to_string()), "empty.pem: holds no certificate");
    let leaf = [folder.path().join("leaf.pem")];
    says(Roots::load(&leaf).map_err(|error| error.to_string()), "is no authority");
    assert!(Trust::new(&Roots::default(), PeerRules::default(), Clock::system()).is_err());
}

#[test]
fn a_text_is_of_its_signer_to_the_byte_and_for_its_purpose() {
    let federation = Federation::new();
    let roots = Roots::from_pem(&federation.root.cert_pem).unwrap();
    let trust = Trust::new(&roots, PeerRules::default(), federation.clock.clone()).unwrap();
    let signed = federation.node(&[HOME]).sign("usage statement", "42 uplinks".into()).unwrap();
    assert_eq!(signed.scheme, "ECDSA_NISTP256_SHA256");
    assert!(trust.signer("usage statement", &signed).unwrap().speaks_for(HOME));
    // as a file it is the same
    let again: signed::Signed = serde_json::from_str(&serde_json::to_string(&signed).unwrap()).unwrap();
    assert_eq!(again, signed);
    let why = |changed: signed::Signed| trust.signer("usage statement", &changed).unwrap_err().to_string();
    let other = federation.node(&[VISITED]).sign("usage statement", signed.text.clone()).unwrap();
    for changed in [
        signed::Signed { text: "43 uplinks".into(), ..signed.clone() },
        signed::Signed { signature: other.signature.clone(), ..signed.clone() },
        signed::Signed { chain: other.chain.clone(), ..signed.clone() },
        federation.node(&[HOME]).sign("something else", signed.text.clone()).unwrap(),
    ] {
        assert!(why(changed).starts_with("the signature is wrong"));
    }
    let scheme = signed::Signed { scheme: "none".into(), ..signed.clone() };
    assert!(why(scheme).contains("no signature scheme"));
    assert!(why(signed::Signed { signature: "!".into(), ..signed.clone() }).contains("base64"));
    assert!(why(signed::Signed { chain: vec![], ..signed.clone() }).contains("certificate"));
    // who is not of the federation signs nothing
    let stranger = Federation::new().node(&[HOME]).sign("usage statement", signed.text.clone()).unwrap();
    assert!(why(stranger).contains("not accepted"));
}

#[tokio::test]
async fn the_root_of_one_partner_vouches_for_its_name_and_for_nobody_else() {
    const HUB: &str = "hub.partner.example";
    let (ours, theirs) = (Federation::new(), Federation::new());
    let roots = Roots::from_pem(&ours.root.cert_pem).unwrap();
    let roots = roots.and(Roots::from_pem(&theirs.root.cert_pem).unwrap().only_for([HUB]));
    let trust = Trust::new(&roots, PeerRules::default(), ours.clock.clone()).unwrap();
    let home = ours.node(&[HOME]);
    // its own authority limits no names, and has no need to
    let anybody = theirs.unconstrained();
    let hub = theirs.issue(&anybody, odd(&[HUB, VISITED, HOME]));
    let (served, asked) = connect(&home, &hub, &trust, HOME).await;
    assert_eq!(served.unwrap().names, [HUB], "and not who else it says to be");
    asked.unwrap();
    // as a server it is who it is called, and nobody else
    connect(&hub, &home, &trust, HUB).await.1.unwrap();
    assert!(connect(&hub, &home, &trust, VISITED).await.1.is_err());
    let stranger = theirs.issue(&anybody, odd(&[VISITED]));
    says(connect(&home, &stranger, &trust, HOME).await.0, "vouches for hub.partner.example only");
    // our members are none of that root's
    let visited = ours.node(&[VISITED]);
    connect(&home, &visited, &trust, HOME).await.0.unwrap();
    let only = Roots::from_pem(&theirs.root.cert_pem).unwrap().only_for([HUB]);
    let only = Trust::new(&only, PeerRules::default(), ours.clock.clone()).unwrap();
    assert!(connect(&home, &visited, &only, HOME).await.0.is_err());
}
