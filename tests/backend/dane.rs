//! TLSA records in the place of roots or beside them (RFC 6698), over a signed zone, in both directions.

use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::TLSA;
use hickory_proto::rr::rdata::tlsa::{CertUsage, Matching, Selector};
use roamgate::demo::zone::{Data, Manner, Plan, Signing, Zone};
use roamgate::discovery::{self, Dnssec, Resolver, Way};
use sha2::{Digest, Sha256};

use super::*;

/// What a certificate is called in a record.
#[derive(Clone, Copy)]
enum Named {
    /// By its own key: usage 3.
    Key,
    /// By the intermediate above it: usage 2.
    Authority,
    /// Another key altogether.
    Other,
}

fn record(at: &str, identity: &Identity, named: Named) -> (String, Data) {
    let spki = |n: usize| roamgate::pki::check::spki(&identity.chain()[n]).unwrap();
    let (usage, data) = match named {
        Named::Key => (CertUsage::DaneEe, Sha256::digest(spki(0)).to_vec()),
        Named::Authority => (CertUsage::DaneTa, Sha256::digest(spki(1)).to_vec()),
        Named::Other => (CertUsage::DaneEe, vec![7; 32]),
    };
    (at.to_owned(), Data::Other(RData::TLSA(TLSA::new(usage, Selector::Spki, Matching::Sha256, data))))
}

/// The zone `example` and whoever asks it.
struct Dns {
    zone: Zone,
    clock: Clock,
    folder: tempfile::TempDir,
}

impl Dns {
    async fn new(clock: &Clock, records: Vec<(String, Data)>) -> Dns {
        let mut plan = Plan::new("example", records);
        (plan.ttl, plan.negative_ttl) = (5, 1);
        let zone = Zone::start(plan, clock).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("anchor"), &zone.trust_anchor).unwrap();
        Dns { zone, clock: clock.clone(), folder }
    }

    fn resolver(&self, dnssec: Dnssec) -> Resolver {
        let config = discovery::Config {
            net_id_suffix: suffix(),
            resolvers: vec![discovery::Server::At(self.zone.addr)],
            trust_anchor: Some(self.folder.path().join("anchor")),
            dnssec,
            ..discovery::Config::default()
        };
        Resolver::new(config, self.clock.clone()).unwrap()
    }
}

/// Finds everybody at one address, and their keys in the DNS.
struct Found(SocketAddr, Resolver);

impl Discover for Found {
    fn find<'a>(
        &'a self,
        _: &'a Party,
        _: Option<DevEui>,
        _: Deadline,
    ) -> Boxed<'a, Result<Endpoint, String>> {
        Box::pin(std::future::ready(Ok(Endpoint::at(HOME_NAME, self.0))))
    }
    fn keys<'a>(
        &'a self,
        name: &'a str,
        for_it: Evidence,
        by: Deadline,
    ) -> Boxed<'a, Option<Vec<roamgate::pki::dane::Tlsa>>> {
        Discover::keys(&self.1, name, for_it, by)
    }
}

/// A server of a federation, whoever comes.
async fn served(federation: &Federation, identity: &Identity) -> Server {
    let config = tls::server_config(identity, &federation.trust()).unwrap();
    let parts = federation.parts(OPEN, Arc::new(Known::default()));
    server::serve(Doorstep::at("127.0.0.1:0".parse().unwrap()), config, parts).await.unwrap()
}

#[tokio::test]
async fn a_server_is_believed_by_its_root_its_record_or_both_as_the_entry_says() {
    let (ours, theirs) = (Federation::new(), Federation::named("Another"));
    // they let our certificate in, and it is theirs that we judge
    let known = ours.identity(HOME_NAME);
    let unknown = theirs.identity(HOME_NAME);
    const ALL: [Option<&str>; 5] =
        [None, Some("pkix"), Some("dane"), Some("pkix-and-dane"), Some("pkix-or-dane")];
    // for each of them: is the certificate accepted? `None` is what [discovery] dane = "prefer" means.
    let table: [(&str, &Identity, &[Named], [bool; 5]); 8] = [
        ("root, no record", &known, &[], [true, true, false, false, true]),
        ("root, its key", &known, &[Named::Key], [true, true, true, true, true]),
        ("root, another key", &known, &[Named::Other], [false, true, false, false, true]),
        (
            "root, the next key and its own",
            &known,
            &[Named::Other, Named::Key],
            [true, true, true, true, true],
        ),
        ("no root, no record", &unknown, &[], [false; 5]),
        ("no root, its key", &unknown, &[Named::Key], [false, false, true, false, true]),
        ("no root, its authority", &unknown, &[Named::Authority], [false, false, true, false, true]),
        ("no root, another key", &unknown, &[Named::Other], [false; 5]),
    ];
    for (what, identity, records, accepted) in table {
        let server = served(&ours, identity).await;
        let at = server.address().unwrap();
        let owner = format!("_{}._tcp.{HOME_NAME}", at.port());
        let records = records.iter().map(|named| record(&owner, identity, *named)).collect();
        let dns = Dns::new(&ours.clock, records).await;
        for (trust, accepted) in ALL.into_iter().zip(accepted) {
            let entry = trust.map_or(String::new(), |trust| format!("trust = \"{trust}\""));
            let partners = format!("[[partner]]\nnet_id = \"000001\"\n{entry}");
            let discover = Arc::new(Found(at, dns.resolver(Dnssec::Require)));
            let client = ours.client_by(&partners, discover, Evidence::PkixAndDaneIfAny);
            let answer = client.send(Party::Ns(HOME), pr_start(), soon(&ours.clock)).await;
            // whoever is accepted is asked, and knows nothing of the device
            let spoken = answer.as_ref().is_err_and(|error| error.is(ResultCode::UnknownDevEui));
            assert_eq!(spoken, accepted, "{what}, {trust:?}: {answer:?}");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_record_counts_only_where_dnssec_proves_it_and_names_the_target_first() {
    let federation = Federation::new();
    let identity = federation.identity(HOME_NAME);
    let server = served(&federation, &identity).await;
    let at = server.address().unwrap();
    let owner = format!("_{}._tcp.{HOME_NAME}", at.port());
    let target = format!("_{}._tcp.ns.operator.example", at.port());
    let dns = Dns::new(&federation.clock, vec![record(&owner, &identity, Named::Key)]).await;
    let ask = async |discover: Arc<dyn Discover>| {
        let partners = "[[partner]]\nnet_id = \"000001\"\ntrust = \"dane\"";
        let client = federation.client_by(partners, discover, Evidence::Pkix);
        let answer = client.send(Party::Ns(HOME), pr_start(), soon(&federation.clock)).await;
        answer.err().unwrap().to_string()
    };
    let why = ask(Arc::new(Found(at, dns.resolver(Dnssec::Prefer)))).await;
    assert!(why.contains("UnknownDevEui"), "{why}");
    // nobody looks at signatures, or they are wrong
    let why = ask(Arc::new(Found(at, dns.resolver(Dnssec::Off)))).await;
    assert!(why.contains("no TLSA record that DNSSEC proves"), "{why}");
    dns.zone.set_signing(Signing::Forged).unwrap();
    let why = ask(Arc::new(Found(at, dns.resolver(Dnssec::Prefer)))).await;
    assert!(why.contains("no TLSA record that DNSSEC proves"), "{why}");
    dns.zone.set_signing(Signing::Right).unwrap();

    /// By way of a target, with the DNS's word for it or without.
    struct By(SocketAddr, Resolver, roamgate::discovery::Security);
    impl Discover for By {
        fn find<'a>(
            &'a self,
            _: &'a Party,
            _: Option<DevEui>,
            _: Deadline,
        ) -> Boxed<'a, Result<Endpoint, String>> {
            let endpoint = Endpoint::at(HOME_NAME, self.0);
            let by = vec!["ns.operator.example".to_owned()];
            let ways = vec![Way { by, security: self.2, ..endpoint.ways[0].clone() }];
            Box::pin(std::future::ready(Ok(Endpoint { ways, ..endpoint })))
        }
        fn keys<'a>(
            &'a self,
            name: &'a str,
            for_it: Evidence,
            by: Deadline,
        ) -> Boxed<'a, Option<Vec<roamgate::pki::dane::Tlsa>>> {
            Discover::keys(&self.1, name, for_it, by)
        }
    }
    let records = vec![record(&owner, &identity, Named::Key), record(&target, &identity, Named::Other)];
    dns.zone.set_records(records).unwrap();
    let by = |security| Arc::new(By(at, dns.resolver(Dnssec::Prefer), security));
    let why = ask(by(discovery::Security::Secure)).await;
    assert!(why.contains("none of its TLSA records"), "the target's counts: {why}");
    assert!(ask(by(discovery::Security::Insecure)).await.contains("UnknownDevEui"), "nobody is led astray");
}

#[tokio::test]
async fn a_root_is_believed_without_a_long_wait_for_records_that_are_not_needed() {
    let federation = Federation::new();
    let identity = federation.identity(HOME_NAME);
    let server = served(&federation, &identity).await;
    let at = server.address().unwrap();
    let owner = format!("_{}._tcp.{HOME_NAME}", at.port());
    let dns = Dns::new(&federation.clock, vec![record(&owner, &identity, Named::Other)]).await;
    dns.zone.set_manner(Manner::Slow(Duration::from_millis(400)));
    let ask = async |evidence, discover: &Arc<Found>| {
        let client = federation.client_by("", discover.clone(), evidence);
        // a data frame's time
        let by = Deadline(federation.clock.now() + Duration::from_millis(900));
        client.send(js(), home_ns_req(), by).await
    };
    let discover = Arc::new(Found(at, dns.resolver(Dnssec::Require)));
    assert!(ask(Evidence::PkixAndDaneIfAny, &discover).await.is_ok());
    // the question went on, and what it brings counts: these records are of another key
    federation.clock.sleep(Duration::from_secs(2)).await;
    dns.zone.set_manner(Manner::Silent);
    let error = ask(Evidence::PkixAndDaneIfAny, &discover).await.unwrap_err().to_string();
    assert!(error.contains("none of its TLSA records"), "{error}");
}

#[tokio::test]
async fn a_client_is_believed_by_its_record_and_turned_away_when_that_is_gone() {
    let (ours, theirs) = (Federation::new(), Federation::named("Another"));
    let identity = theirs.identity(AWAY_NAME);
    let owner = format!("_ns-client.{AWAY_NAME}");
    let dns = Dns::new(&ours.clock, vec![record(&owner, &identity, Named::Key)]).await;
    let serve = async |trust: &str| {
        let partners = format!(
            "{OPEN}\n[[partner]]\nnet_id = \"000002\"\ntrust = \"{trust}\"\npassive = {{ start = true, activation = true }}"
        );
        let mut rules = PeerRules::default();
        rules.rootless = true;
        let roots = Roots::from_pem(&ours.root.cert_pem).unwrap();
        let trust = Trust::new(&roots, rules, ours.clock.clone()).unwrap();
        let config = tls::server_config(&ours.identity(HOME_NAME), &trust).unwrap();
        let mut parts = ours.parts(&partners, Arc::new(Known::default()));
        (parts.trust, parts.resolver) = (trust, Some(dns.resolver(Dnssec::Require)));
        server::serve(Doorstep::at("127.0.0.1:0".parse().unwrap()), config, parts).await.unwrap()
    };
    // who shows a certificate of theirs, and believes our server
    let both = Roots::from_pem(&(ours.root.cert_pem.clone() + &theirs.root.cert_pem)).unwrap();
    let believes = Trust::new(&both, PeerRules::default(), ours.clock.clone()).unwrap();
    let guest = |shown: &Identity, server: &Server| {
        let at = server.address().unwrap();
        let tls = tls::client_config(shown, &believes, tls::Expected::default()).unwrap();
        let http =
            reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().resolve(HOME_NAME, at);
        Partner { http: http.build().unwrap(), url: format!("https://{HOME_NAME}:{}/", at.port()) }
    };
    for (trust, accepted) in
        [("dane", true), ("pkix-or-dane", true), ("pkix-and-dane", false), ("pkix", false)]
    {
        let server = serve(trust).await;
        let partner = guest(&identity, &server);
        let answer = partner.http.post(&partner.url).body(home_ns().to_string()).send().await;
        assert_eq!(answer.is_ok(), accepted, "{trust}: {answer:?}");
        if accepted {
            assert_eq!(partner.code(&home_ns()).await, "Success", "{trust}");
        }
        // another key of the same name is nobody's
        let other = guest(&theirs.identity(AWAY_NAME), &server);
        assert!(other.http.post(&other.url).body(home_ns().to_string()).send().await.is_err(), "{trust}");
        // and one below our root comes as before where a root's word will do
        let member = guest(&ours.identity(AWAY_NAME), &server);
        let answer = member.http.post(&member.url).body(home_ns().to_string()).send().await;
        assert_eq!(answer.is_ok(), trust == "pkix" || trust == "pkix-or-dane", "{trust}");
    }
    // without a root's word and without a name nobody gets a connection
    let server = serve("dane").await;
    let nameless = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(nameless.signing_key.serialize_der());
    let nameless =
        guest(&Identity::from_der(vec![nameless.cert.der().clone()], key.into()).unwrap(), &server);
    assert!(nameless.http.post(&nameless.url).body(home_ns().to_string()).send().await.is_err());
    // the record is taken out: the connection that stands ends with the next request after it has been noticed
    let server = serve("dane").await;
    let partner = guest(&identity, &server);
    assert_eq!(partner.code(&home_ns()).await, "Success");
    dns.zone.set_records(Vec::new()).unwrap();
    ours.clock.sleep(Duration::from_millis(5500)).await;
    let response = partner.http.post(&partner.url).body(home_ns().to_string()).send().await.unwrap();
    assert_eq!(response.headers()["connection"], "close");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["Result"]["ResultCode"], "UnknownSender");
    assert!(answer["Result"]["Description"].as_str().unwrap().contains("TLSA"), "{answer}");
    assert!(partner.http.post(&partner.url).body(home_ns().to_string()).send().await.is_err());
}
