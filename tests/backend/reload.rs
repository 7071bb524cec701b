//! What is shown and whom we believe changes while connections stand: nobody is cut off who still counts, and nobody goes on
//! who does not.

use roamgate::pki::check::{self, Pin};
use roamgate::pki::revoke::{List, Revoked};
use roamgate::tls::Shown;

use super::*;

fn pin_of(identity: &Identity) -> Pin {
    check::facts(&identity.chain()[0]).unwrap().pin
}

/// A server whose certificate and trust can be replaced, behind a front that counts connections.
struct Living {
    shown: Shown,
    trust: Arc<Trust>,
    server: Server,
    front: SocketAddr,
    connections: Arc<AtomicUsize>,
}

async fn living(federation: &Federation) -> Living {
    let (shown, trust) = (Shown::from(&federation.identity(HOME_NAME)), federation.trust());
    let config = tls::server_config(&shown, &trust).unwrap();
    let parts = server::Parts { trust: trust.clone(), ..federation.parts(OPEN, Arc::new(Known::default())) };
    let listen = "127.0.0.1:0".parse().unwrap();
    let server = server::serve(Doorstep::at(listen), config, parts).await.unwrap();
    let (front, connections) = counting_front(server.address().unwrap()).await;
    Living { shown, trust, server, front, connections }
}

impl Living {
    fn guest(&self, federation: &Federation, identity: &Identity) -> Partner {
        let tls = tls::client_config(identity, &federation.trust(), tls::Expected::default()).unwrap();
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
        let http = http.resolve(HOME_NAME, self.front).build().unwrap();
        Partner { http, url: format!("https://{HOME_NAME}:{}/", self.front.port()) }
    }
    fn believes(&self, roots: &str, revoked: Revoked) {
        self.trust.renew(&Roots::from_pem(roots).unwrap(), PeerRules::default(), revoked).unwrap();
    }
    fn opened(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// NetID 000002 below a member of its own.
fn visitor(federation: &Federation) -> (Authority, Identity) {
    let spec = IntermediateSpec::new("A member", [AWAY_NAME]);
    let member = federation.root.intermediate(&spec, &federation.clock).unwrap();
    let made = member.issue(&LeafSpec::new("node", [AWAY_NAME]), &federation.clock).unwrap();
    (member, Identity::from_pem(&made.chain_pem, &made.key_pem).unwrap())
}

#[tokio::test]
async fn a_partner_that_is_struck_off_is_refused_at_its_next_request_and_cannot_come_back() {
    let federation = Federation::new();
    let (member, identity) = visitor(&federation);
    let serial = check::facts(&identity.chain()[0]).unwrap().serial;
    let denied = || {
        let mut revoked = Revoked::default();
        revoked.deny(&pin_of(&identity).to_string()).unwrap();
        revoked
    };
    let listed = |authority: &Authority, serial: &str| {
        let mut revoked = Revoked::default();
        let pem = authority.revoke(None, &[serial], &federation.clock).unwrap();
        revoked.add(List::read(pem.as_bytes()).unwrap());
        revoked
    };
    let of_member = listed(&federation.root, &member.facts().serial);
    for (revoked, words) in [
        (denied(), "deny list"),
        (listed(&member, &serial), "on the list of CN=A member"),
        (of_member, "on the list of CN=A federation"),
    ] {
        let home = living(&federation).await;
        let guest = home.guest(&federation, &identity);
        assert_eq!(guest.code(&home_ns()).await, "Success");
        // another's fate is none of its business, and its connection goes on
        home.believes(&federation.root.cert_pem, listed(&member, "0102030405"));
        assert_eq!(guest.code(&home_ns()).await, "Success");
        assert_eq!(home.opened(), 1);
        home.believes(&federation.root.cert_pem, revoked);
        let (_, answer) = guest.post(home_ns().to_string()).await;
        assert_eq!(answer["Result"]["ResultCode"], "UnknownSender", "{answer}");
        let why = answer["Result"]["Description"].as_str().unwrap();
        assert!(why.contains(words), "{why}");
        let again = home.guest(&federation, &identity);
        assert!(again.http.post(&again.url).body(home_ns().to_string()).send().await.is_err(), "{words}");
        // a mistake is corrected as fast
        home.believes(&federation.root.cert_pem, Revoked::default());
        assert_eq!(again.code(&home_ns()).await, "Success");
        home.server.stop().await;
    }
}

#[tokio::test]
async fn a_root_is_rolled_while_connections_stand() {
    let (old, new) = (Federation::new(), Federation::named("The same, later"));
    let home = living(&old).await;
    let early = home.guest(&old, &old.identity(AWAY_NAME));
    assert_eq!(early.code(&home_ns()).await, "Success");
    let both = format!("{}{}", old.root.cert_pem, new.root.cert_pem);
    home.believes(&both, Revoked::default());
    // the old one still counts, on the same connection
    assert_eq!(early.code(&home_ns()).await, "Success");
    assert_eq!(home.opened(), 1);
    // partners that know both, of which one shows a certificate below the new root
    let late = |identity: &Identity| {
        let trust = Trust::new(&Roots::from_pem(&both).unwrap(), PeerRules::default(), old.clock.clone());
        let tls = tls::client_config(identity, &trust.unwrap(), tls::Expected::default()).unwrap();
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
        let http = http.resolve(HOME_NAME, home.front).build().unwrap();
        Partner { http, url: format!("https://{HOME_NAME}:{}/", home.front.port()) }
    };
    let renewed = late(&new.identity(AWAY_NAME));
    assert_eq!(renewed.code(&home_ns()).await, "Success");
    // our own certificate below the new root: new connections see it, those that are open go on
    let before = home.opened();
    let ours = new.identity(HOME_NAME);
    home.shown.show(&ours);
    assert_eq!(early.code(&home_ns()).await, "Success");
    assert_eq!(home.opened(), before);
    let fresh = late(&new.identity(AWAY_NAME));
    assert_eq!(fresh.code(&home_ns()).await, "Success");
    assert!(home.guest(&old, &old.identity(AWAY_NAME)).http.post(&early.url).send().await.is_err());
    // the old root goes
    home.believes(&new.root.cert_pem, Revoked::default());
    let (_, answer) = early.post(home_ns().to_string()).await;
    assert_eq!(answer["Result"]["ResultCode"], "UnknownSender", "{answer}");
    assert_eq!(fresh.code(&home_ns()).await, "Success");
    home.server.stop().await;
}

#[tokio::test]
async fn a_client_asks_a_revoked_server_nothing_more() {
    let federation = Federation::new();
    let home = living(&federation).await;
    let partners: Arc<partners::Config> = Arc::new(toml::from_str(OPEN).unwrap());
    let (shown, trust) = (Shown::from(&federation.identity(AWAY_NAME)), federation.trust());
    let client = Client::new(client::Parts {
        join_servers: Vec::new(),
        net_id: AWAY,
        partners,
        discover: Arc::new(At(home.front, HOME_NAME)),
        identity: shown.clone(),
        trust: trust.clone(),
        evidence: Evidence::Pkix,
        net_id_suffix: suffix(),
        keks: BTreeMap::new(),
        pending: Arc::default(),
        tokens: Arc::default(),
        manners: Arc::default(),
        keep_warm: Duration::ZERO,
        clock: federation.clock.clone(),
    });
    let ask = async || client.send(js(), home_ns_req(), soon(&federation.clock)).await;
    ask().await.unwrap();
    ask().await.unwrap();
    assert_eq!(home.opened(), 1);
    // our own new certificate is shown by the next connection, and this one is good enough until then
    shown.show(&federation.identity(AWAY_NAME));
    ask().await.unwrap();
    assert_eq!(home.opened(), 1);
    let roots = Roots::from_pem(&federation.root.cert_pem).unwrap();
    let mut revoked = Revoked::default();
    revoked.deny(&pin_of(&home.shown.identity()).to_string()).unwrap();
    trust.renew(&roots, PeerRules::default(), revoked).unwrap();
    let error = ask().await.unwrap_err().to_string();
    assert!(error.contains("revoked"), "{error}");
    // the server gets another one
    home.shown.show(&federation.identity(HOME_NAME));
    ask().await.unwrap();
    home.server.stop().await;
}
