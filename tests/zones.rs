//! Names in zones that BIND and Knot have signed and serve: what our own validator makes of others' signatures and denials.
//!
//! Wants Debian's packages bind9, bind9-utils, bind9-dnsutils and knot, so these tests run where they are asked for:
//! `cargo test --test zones -- --ignored`. `.ci/run` does.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hickory_proto::rr::RecordType;
use roamgate::backend::door::Deadline;
use roamgate::clock::Clock;
use roamgate::discovery::resolve::DiscoveryError;
use roamgate::discovery::{Config, Dnssec, Endpoint, Resolver, Security, Server};
use roamgate::lorawan::{DevEui, JoinEui};
use roamgate::pki::dane::Evidence;
use roamgate::registry;
use roamgate::store::{self, Durability, Store, Url};
use tempfile::TempDir;

const ORIGIN: &str = "iotroam.example";

/// Everything but SOA and NS. Names are below the origin.
fn content() -> String {
    let mut text = String::from(
        "000001.netids 60 IN AAAA 2001:db8::1
000001.netids 60 IN A 192.0.2.1
_443._tcp.000001.netids 60 IN TLSA 3 1 1 0707070707070707070707070707070707070707070707070707070707070707
000002.netids 60 IN NAPTR 10 10 \"S\" \"LWN\" \"\" _lwn._tcp.000002.netids
000002.netids 60 IN NAPTR 20 10 \"S\" \"LWNS\" \"\" _lwns._tcp.000002.netids
_lwns._tcp.000002.netids 60 IN SRV 20 0 7006 js
_lwns._tcp.000002.netids 60 IN SRV 10 0 7005 ns1.operator
000004.netids 60 IN CNAME ns1.operator
ns1.operator 60 IN A 192.0.2.10
js 60 IN A 192.0.2.20
moved 60 IN A 192.0.2.30
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.joineuis 60 IN CNAME js
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.joineuis 60 IN CNAME moved
*.0.d.e.7.5.d.3.b.0.7.joineuis 60 IN CNAME js
*.0.0.0.0.0.0.0.0.0.0.0.0.0.0.a.joineuis 60 IN CNAME js
lab 60 IN NS ns.lab
ns.lab 60 IN A 127.0.0.1
",
    );
    for n in 0..90 {
        writeln!(text, "000005.netids 60 IN AAAA 2001:db8::5:{n:x}").unwrap();
    }
    text
}

fn zone(content: &str) -> String {
    format!(
        "$ORIGIN {ORIGIN}.\n@ 60 IN SOA ns hostmaster 1 3600 600 86400 30\n@ 60 IN NS ns\nns 60 IN A 127.0.0.1\n{content}"
    )
}

/// A server of others, in a folder of its own.
struct Running {
    child: Child,
    at: SocketAddr,
    folder: TempDir,
}

impl Running {
    /// As if its power were cut; what it leaves.
    fn stop(mut self) -> TempDir {
        let left = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        drop(self);
        left
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free for both, as far as that can be known.
fn free() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        if UdpSocket::bind(at).is_ok() {
            return at;
        }
    }
}

/// Debian keeps servers where only root looks.
fn program(name: &str) -> PathBuf {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("{name} is not installed (Debian: apt-get install bind9 bind9-utils bind9-dnsutils knot)")
    })
}

fn tool(folder: &Path, name: &str, arguments: &[&str]) -> String {
    let done = Command::new(program(name)).current_dir(folder).args(arguments).output().unwrap();
    assert!(done.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// Sign with BIND's tools, as of now or as `times` say.
fn signed(folder: &Path, nsec3: bool, times: &[&str]) {
    std::fs::write(folder.join("zone"), zone(&content())).unwrap();
    let key = tool(folder, "dnssec-keygen", &["-q", "-a", "ECDSAP256SHA256", "-f", "KSK", ORIGIN]);
    let proof: &[&str] = if nsec3 { &["-3", "-"] } else { &[] };
    let arguments =
        [&["-q", "-S", "-z", "-P", "-o", ORIGIN, "-f", "zone.signed"], proof, times, &["zone"]].concat();
    tool(folder, "dnssec-signzone", &arguments);
    assert!(folder.join(format!("{key}.key")).exists());
}

fn bind(folder: TempDir, zones: &str, options: &str) -> Running {
    bind_at(folder, free(), zones, options)
}

fn bind_at(folder: TempDir, at: SocketAddr, zones: &str, options: &str) -> Running {
    let path = folder.path().display();
    let config = format!(
        "options {{ directory \"{path}\"; listen-on port {} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file none;\n\
         session-keyfile none; managed-keys-directory \"{path}\"; allow-transfer {{ none; }}; {options} }};\ncontrols {{ }};\n{zones}\n",
        at.port()
    );
    let file = folder.path().join("named.conf");
    std::fs::write(&file, config).unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let child = Command::new(program("named")).args(["-g", "-c"]).arg(&file).stderr(log).spawn().unwrap();
    Running { child, at, folder }
}

fn bind_serving(nsec3: bool, times: &[&str], change: impl FnOnce(String) -> String) -> Running {
    let folder = tempfile::tempdir().unwrap();
    signed(folder.path(), nsec3, times);
    let file = folder.path().join("zone.signed");
    let text = change(std::fs::read_to_string(&file).unwrap());
    std::fs::write(&file, text).unwrap();
    let lab = "$ORIGIN lab.iotroam.example.\n@ 60 IN SOA ns h 1 3600 600 86400 30\n@ 60 IN NS ns\nns 60 IN A 127.0.0.1\n000003.netids 60 IN A 192.0.2.3\n";
    std::fs::write(folder.path().join("lab"), lab).unwrap();
    let zones = format!(
        "zone \"{ORIGIN}\" {{ type primary; file \"zone.signed\"; }};\nzone \"lab.{ORIGIN}\" {{ type primary; file \"lab\"; }};"
    );
    bind(folder, &zones, "recursion no; dnssec-validation no;")
}

fn knot(nsec3: bool) -> Running {
    let folder = tempfile::tempdir().unwrap();
    // its delegation leads to a zone that it does not serve, and an unsigned one is BIND's to show
    std::fs::write(folder.path().join("zone"), zone(&content())).unwrap();
    knot_at(folder, free(), nsec3, "", "    zonefile-load: difference\n")
}

fn knot_at(folder: TempDir, at: SocketAddr, nsec3: bool, more: &str, of_zone: &str) -> Running {
    let path = folder.path().display();
    let config = format!(
        "server:\n  rundir: \"{path}\"\n  listen: 127.0.0.1@{}\ndatabase:\n  storage: \"{path}\"\npolicy:\n  - id: one\n    algorithm: ecdsap256sha256\n    \
         single-type-signing: on\n    nsec3: {}\n{more}zone:\n  - domain: {ORIGIN}\n    file: \"{path}/zone\"\n{of_zone}    \
         dnssec-signing: on\n    dnssec-policy: one\n",
        at.port(),
        if nsec3 { "on" } else { "off" },
    );
    let file = folder.path().join("knot.conf");
    std::fs::write(&file, config).unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let child = Command::new(program("knotd")).arg("-c").arg(&file).stdout(Stdio::null()).stderr(log).spawn();
    Running { child: child.unwrap(), at, folder }
}

impl Running {
    fn config(&self, dnssec: Dnssec) -> Config {
        Config {
            join_eui_suffix: format!("joineuis.{ORIGIN}").parse().unwrap(),
            net_id_suffix: format!("netids.{ORIGIN}").parse().unwrap(),
            resolvers: vec![Server::At(self.at)],
            dnssec,
            ..Config::default()
        }
    }

    /// The zone's keys in a file, once it serves them.
    async fn anchor(&self) -> PathBuf {
        let path = self.folder.path().join("anchor");
        for _ in 0..100 {
            let resolver = Resolver::new(self.config(Dnssec::Off), Clock::system()).unwrap();
            if let Ok((keys, _)) = resolver.records(ORIGIN, RecordType::DNSKEY).await {
                let lines = keys.iter().map(|key| format!("{ORIGIN}. 3600 IN DNSKEY {key}\n"));
                std::fs::write(&path, lines.collect::<String>()).unwrap();
                return path;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        panic!("it serves no keys: {lines:#?}");
    }

    async fn resolver(&self, dnssec: Dnssec) -> Resolver {
        let config = Config { trust_anchor: Some(self.anchor().await), ..self.config(dnssec) };
        Resolver::new(config, Clock::system()).unwrap()
    }
}

fn soon() -> Deadline {
    Deadline(Clock::system().now() + Duration::from_secs(5))
}

async fn net(resolver: &Resolver, net_id: &str) -> Result<Endpoint, DiscoveryError> {
    resolver.net_server(net_id.parse().unwrap(), soon()).await
}

async fn join(resolver: &Resolver, join_eui: &str, dev_eui: Option<u8>) -> Result<Endpoint, DiscoveryError> {
    let dev_eui = dev_eui.map(|n| DevEui::from_msb([0, 0, 0, 0, 0, 0, 0, n]));
    resolver.join_server(join_eui.parse::<JoinEui>().unwrap(), dev_eui, soon()).await
}

fn sockets(found: &Endpoint) -> Vec<String> {
    assert_eq!(found.security, Security::Secure, "{found:?}");
    found.ways.iter().flat_map(|way| way.sockets()).map(|at| at.to_string()).collect()
}

/// What holds in every one of these zones, whoever has signed it and however it denies.
async fn holds(server: &Running, what: &str) {
    let resolver = server.resolver(Dnssec::Require).await;
    let found = net(&resolver, "000001").await.unwrap_or_else(|err| panic!("{what}: {err}"));
    assert_eq!(sockets(&found), ["[2001:db8::1]:443", "192.0.2.1:443"], "{what}");
    let found = net(&resolver, "000002").await.unwrap();
    assert_eq!(sockets(&found), ["192.0.2.10:7005", "192.0.2.20:7006"], "{what}");
    let found = net(&resolver, "000004").await.unwrap();
    assert_eq!((sockets(&found), found.ways[0].names().len()), (vec!["192.0.2.10:443".into()], 1), "{what}");
    // too long for a datagram
    assert_eq!(sockets(&net(&resolver, "000005").await.unwrap()).len(), 90, "{what}");
    // denied with a proof
    for missing in ["000000", "000006", "FFFFFF"] {
        let err = net(&resolver, missing).await.unwrap_err();
        assert!(matches!(err, DiscoveryError::NotFound { proven: true, .. }), "{what}, {missing}: {err}");
    }
    // a device that moved, and one that did not
    let moved = join(&resolver, "0000000000000001", Some(1)).await.unwrap();
    assert_eq!(sockets(&moved), ["192.0.2.30:443"], "{what}");
    let other =
        join(&resolver, "0000000000000001", Some(2)).await.unwrap_or_else(|err| panic!("{what}: {err}"));
    assert_eq!(
        (sockets(&other), other.host.split('.').count()),
        (vec!["192.0.2.20:443".into()], 19),
        "{what}"
    );
    // a block of JoinEUIs
    let block = join(&resolver, "70B3D57ED0ABCDEF", None).await.unwrap_or_else(|err| panic!("{what}: {err}"));
    assert_eq!(sockets(&block), ["192.0.2.20:443"], "{what}");
    let err = join(&resolver, "70B3D57ED1ABCDEF", None).await.unwrap_err();
    assert!(matches!(err, DiscoveryError::NotFound { proven: true, .. }), "{what}: {err}");
    let keys = resolver.tlsa(&format!("_443._tcp.000001.netids.{ORIGIN}"), Evidence::Dane, soon()).await;
    assert_eq!(keys.records.map(|records| records.len()), Some(1), "{what}");
}

#[tokio::test]
#[ignore = "wants BIND: cargo test --test zones -- --ignored"]
async fn a_zone_of_bind() {
    for (nsec3, what) in [(false, "BIND, NSEC"), (true, "BIND, NSEC3")] {
        let server = bind_serving(nsec3, &[], |text| text);
        holds(&server, what).await;
        // the delegation without DS is proven to be one
        let lab = |dnssec| {
            let suffix = format!("netids.lab.{ORIGIN}").parse().unwrap();
            let anchor = Some(server.folder.path().join("anchor"));
            let config = Config { net_id_suffix: suffix, trust_anchor: anchor, ..server.config(dnssec) };
            Resolver::new(config, Clock::system()).unwrap()
        };
        let err = net(&lab(Dnssec::Require), "000003").await.unwrap_err();
        assert!(matches!(err, DiscoveryError::Insecure { .. }), "{what}: {err}");
        assert_eq!(net(&lab(Dnssec::Prefer), "000003").await.unwrap().security, Security::Insecure, "{what}");
    }
}

#[tokio::test]
#[ignore = "wants Knot: cargo test --test zones -- --ignored"]
async fn a_zone_of_knot() {
    for (nsec3, what) in [(false, "Knot, NSEC"), (true, "Knot, NSEC3")] {
        holds(&knot(nsec3), what).await;
    }
}

#[tokio::test]
#[ignore = "wants BIND: cargo test --test zones -- --ignored"]
async fn signatures_that_have_ended_or_fit_something_else_are_bogus() {
    let ended = bind_serving(false, &["-s", "20200101000000", "-e", "20200201000000"], |text| text);
    // somebody on the way, or at the zone's server, changes an address
    let changed = bind_serving(true, &[], |text| text.replace("192.0.2.1\n", "192.0.2.66\n"));
    for server in [ended, changed] {
        for dnssec in [Dnssec::Require, Dnssec::Prefer] {
            let resolver = server.resolver(dnssec).await;
            let addresses = resolver.records(&format!("000001.netids.{ORIGIN}"), RecordType::A).await;
            assert!(
                matches!(addresses, Err(roamgate::discovery::resolve::Trouble::Bogus(_))),
                "{addresses:?}"
            );
        }
        // whoever does not look is led astray
        assert!(net(&server.resolver(Dnssec::Off).await, "000001").await.is_ok());
    }
}

#[tokio::test]
#[ignore = "wants BIND: cargo test --test zones -- --ignored"]
async fn a_lame_server_is_one_that_fails() {
    let server = bind_serving(false, &[], |text| text);
    let anchor = server.anchor().await;
    let config = Config {
        net_id_suffix: "netids.elsewhere.example".parse().unwrap(),
        trust_anchor: Some(anchor),
        ..server.config(Dnssec::Prefer)
    };
    let err = net(&Resolver::new(config, Clock::system()).unwrap(), "000001").await.unwrap_err();
    assert!(matches!(err, DiscoveryError::ServFail { .. }), "{err:?}");
}

/// Our own validator calls such an answer bogus (docs/discovery.md); a validating resolver on this machine does not.
#[tokio::test]
#[ignore = "wants BIND: cargo test --test zones -- --ignored"]
async fn a_wildcard_for_one_label_is_secure_by_way_of_a_validating_resolver() {
    let server = bind_serving(false, &[], |text| text);
    let anchor = std::fs::read_to_string(server.anchor().await).unwrap();
    let mut key = anchor.split_whitespace().skip(4);
    let (flags, protocol, algorithm) = (key.next().unwrap(), key.next().unwrap(), key.next().unwrap());
    let public: String = key.collect();
    let anchors =
        format!("trust-anchors {{ \"{ORIGIN}\" static-key {flags} {protocol} {algorithm} \"{public}\"; }};");
    let forwarders = format!(
        "recursion yes; allow-recursion {{ any; }}; dnssec-validation yes; forward only; forwarders {{ 127.0.0.1 port {}; }};",
        server.at.port()
    );
    let validating = bind(tempfile::tempdir().unwrap(), &anchors, &forwarders);
    let config = Config { trust_ad: true, ..validating.config(Dnssec::Require) };
    let resolver = Resolver::new(config, Clock::system()).unwrap();
    for _ in 0..50 {
        if !matches!(
            net(&resolver, "000001").await,
            Err(DiscoveryError::ServFail { .. } | DiscoveryError::Timeout { .. })
        ) {
            break;
        }
        resolver.flush(None);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let found = join(&resolver, "A000000000000007", None).await.unwrap();
    assert_eq!(sockets(&found), ["192.0.2.20:443"]);
    let err = net(&resolver, "000006").await.unwrap_err();
    assert!(matches!(err, DiscoveryError::NotFound { proven: true, .. }), "{err}");
}

/// Our own registry's zone, with everything in it that members may put there, and where it is served.
async fn registry(folder: &Path) -> (registry::Running, SocketAddr) {
    let (running, _) = registry_with(folder, "secondaries = [\"127.0.0.1\"]\n").await;
    let at = running.dns.address;
    (running, at)
}

async fn registry_with(folder: &Path, more: &str) -> (registry::Running, Store) {
    let clock = Clock::system();
    let url = Url::sqlite(folder.join("registry.db"));
    let config = store::Config { url, durability: Durability::Balanced, ..Default::default() };
    let store = Store::open(&config, clock.clone()).unwrap();
    let text = format!(
        "zone = \"{ORIGIN}\"\nlisten = \"127.0.0.1:0\"\ndns = \"127.0.0.1:0\"\nservers = [\"ns.{ORIGIN}\"]\n\
         negative_ttl = 30\n{more}"
    );
    let lines: Vec<(String, RecordType, String)> = content()
        .lines()
        .map(|line| {
            let mut words = line.splitn(5, ' ');
            let owner = words.next().unwrap().to_owned();
            let kind: RecordType = words.nth(2).unwrap().parse().unwrap();
            let mut data = words.next().unwrap().to_owned();
            if matches!(kind, RecordType::CNAME | RecordType::NS | RecordType::SRV | RecordType::NAPTR) {
                data = format!("{data}.{ORIGIN}.");
            }
            (owner, kind, data)
        })
        // below the delegation is the child's to say
        .filter(|(owner, ..)| owner != "ns.lab")
        .collect();
    store.registry(|book| Ok((book.add_member("all", true)?, true))).await.unwrap();
    for owner in lines.iter().map(|(owner, ..)| owner.clone()).collect::<std::collections::BTreeSet<_>>() {
        let of_it = lines.iter().filter(|line| line.0 == owner);
        let records: Vec<(RecordType, &str)> = of_it.map(|(_, kind, data)| (*kind, &**data)).collect();
        put(&store, &owner, &records).await;
    }
    let unused = Resolver::new(Config::default(), clock.clone()).unwrap();
    let section = toml::from_str(&text).unwrap();
    let running = registry::Running::start(&section, unused, store.clone(), &clock).await.unwrap();
    (running, store)
}

/// Replace what stands at a name below the origin.
async fn put(store: &Store, owner: &str, records: &[(RecordType, &str)]) {
    let (owner, origin) =
        (registry::absolute(&format!("{owner}.{ORIGIN}")).unwrap(), registry::absolute(ORIGIN).unwrap());
    let place = registry::zone::place(&owner, &origin).unwrap();
    let entry = |(kind, data): &(RecordType, &str)| store::registry::Entry {
        place: place.clone(),
        kind: u16::from(*kind),
        data: (*data).to_owned(),
        ttl: 60,
        member: 1,
    };
    let entries: Vec<_> = records.iter().map(entry).collect();
    let place = place.clone();
    let done = store.registry(move |book| {
        book.put(&place, &entries)?;
        book.next_serial()?;
        Ok(((), true))
    });
    done.await.unwrap();
}

/// Until the primary has been told everything.
async fn told(store: &Store) {
    for _ in 0..200 {
        if store.registry(|book| Ok((book.untold()?, false))).await.unwrap() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the primary does not take the changes");
}

const SECRET: &str = "c2VjcmV0IG9mIGEgdGVzdCwgbm90aGluZyBtb3JlIQ==";

/// A zone with nothing in it, which takes updates that are signed with the secret. With NSEC3: our validator stumbles over NSEC where a
/// wildcard stands for one label.
fn bind_primary(folder: TempDir, at: SocketAddr) -> Running {
    let zones = format!(
        "key \"roamgate\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\nzone \"{ORIGIN}\" {{ type primary; file \"zone\"; \
         allow-update {{ key roamgate; }}; dnssec-policy roamgate; inline-signing yes; }};\ndnssec-policy \"roamgate\" {{ \
         keys {{ csk lifetime unlimited algorithm ecdsap256sha256; }}; nsec3param iterations 0 optout no salt-length 0; }};"
    );
    bind_at(folder, at, &zones, "recursion no; dnssec-validation no; key-directory \".\";")
}

fn knot_primary(folder: TempDir, at: SocketAddr) -> Running {
    let more = format!(
        "key:\n  - id: roamgate\n    algorithm: hmac-sha256\n    secret: {SECRET}\nacl:\n  - id: updates\n    key: roamgate\n    action: update\n"
    );
    knot_at(
        folder,
        at,
        true,
        &more,
        "    acl: updates\n    journal-content: all\n    zonefile-load: difference-no-serial\n",
    )
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants BIND and Knot"]
async fn another_primary_is_told_every_change() {
    type Start = fn(TempDir, SocketAddr) -> Running;
    for (what, start) in [("BIND", bind_primary as Start), ("Knot", knot_primary as Start)] {
        let (folder, at) = (tempfile::tempdir().unwrap(), free());
        std::fs::write(folder.path().join("zone"), zone("")).unwrap();
        let own = tempfile::tempdir().unwrap();
        let secret = own.path().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        let primary = format!(
            "primary = {{ server = \"{at}\", key = \"roamgate\", secret_file = \"{}\" }}\n",
            secret.display()
        );
        let (_registry, store) = registry_with(own.path(), &primary).await;
        let server = start(folder, at);
        server.anchor().await;
        told(&store).await;
        holds(&server, what).await;

        // an exception within a block: the block's other names stay where they were
        let exception = "1.0.0.0.0.0.0.d.e.7.5.d.3.b.0.7.joineuis";
        let far = "2.0.0.0.0.0.1.d.e.7.5.d.3.b.0.7.joineuis";
        put(&store, "*.d.e.7.5.d.3.b.0.7.joineuis", &[(RecordType::A, "192.0.2.40")]).await;
        put(&store, exception, &[(RecordType::A, "192.0.2.41")]).await;
        put(&store, far, &[(RecordType::A, "192.0.2.42")]).await;
        told(&store).await;
        let found = async |join_eui: &str| {
            let resolver = server.resolver(Dnssec::Require).await;
            let found = join(&resolver, join_eui, None).await;
            found.map(|found| sockets(&found)).map_err(|error| error.to_string())
        };
        for (join_eui, to) in [
            ("70B3D57ED0000001", "192.0.2.41:443"),
            ("70B3D57ED0000002", "192.0.2.20:443"),
            ("70B3D57ED1000002", "192.0.2.42:443"),
            ("70B3D57ED1000003", "192.0.2.40:443"),
            ("70B3D57ED2000003", "192.0.2.40:443"),
        ] {
            assert_eq!(found(join_eui).await, Ok(vec![to.to_owned()]), "{what}: {join_eui}");
        }

        // what changes while it is away, it is told when it is back
        let folder = server.stop();
        put(&store, "*.d.e.7.5.d.3.b.0.7.joineuis", &[]).await;
        put(&store, far, &[]).await;
        put(&store, exception, &[(RecordType::A, "192.0.2.43")]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_ne!(store.registry(|book| Ok((book.untold()?, false))).await.unwrap(), 0, "{what}");
        let server = start(folder, at);
        server.anchor().await;
        told(&store).await;
        let resolver = server.resolver(Dnssec::Require).await;
        let exception = join(&resolver, "70B3D57ED0000001", None).await.unwrap();
        assert_eq!(sockets(&exception), ["192.0.2.43:443"], "{what}");
        let block = join(&resolver, "70B3D57ED0000002", None).await.unwrap();
        assert_eq!(sockets(&block), ["192.0.2.20:443"], "{what}");
        for gone in ["70B3D57ED1000002", "70B3D57ED1000003", "70B3D57ED2000003"] {
            let error = join(&resolver, gone, None).await.unwrap_err();
            assert!(
                matches!(error, DiscoveryError::NotFound { proven: true, .. }),
                "{what}, {gone}: {error}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants BIND"]
async fn a_primary_that_has_another_secret_takes_nothing_and_nothing_is_lost() {
    let (folder, at) = (tempfile::tempdir().unwrap(), free());
    std::fs::write(folder.path().join("zone"), zone("")).unwrap();
    let own = tempfile::tempdir().unwrap();
    let secret = own.path().join("secret");
    std::fs::write(&secret, "b3RoZXI=").unwrap();
    let primary = format!(
        "primary = {{ server = \"{at}\", key = \"roamgate\", secret_file = \"{}\" }}\n",
        secret.display()
    );
    let server = bind_primary(folder, at);
    server.anchor().await;
    let (registry, store) = registry_with(own.path(), &primary).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let untold = store.registry(|book| Ok((book.untold()?, false))).await.unwrap();
    assert!(untold > 10, "{untold}");
    let resolver = server.resolver(Dnssec::Require).await;
    assert!(net(&resolver, "000001").await.is_err());
    registry.stop().await.unwrap();
    drop(store);
    // the right one, and all of it arrives
    std::fs::write(&secret, SECRET).unwrap();
    let url = Url::sqlite(own.path().join("registry.db"));
    let config = store::Config { url, durability: Durability::Balanced, ..Default::default() };
    let clock = Clock::system();
    let store = Store::open(&config, clock.clone()).unwrap();
    let text = format!(
        "zone = \"{ORIGIN}\"\nlisten = \"127.0.0.1:0\"\ndns = \"127.0.0.1:0\"\nservers = [\"ns.{ORIGIN}\"]\n{primary}"
    );
    let unused = Resolver::new(Config::default(), clock.clone()).unwrap();
    let section = toml::from_str(&text).unwrap();
    let _running = registry::Running::start(&section, unused, store.clone(), &clock).await.unwrap();
    told(&store).await;
    holds(&server, "BIND").await;
}

fn at(server: SocketAddr, folder: TempDir) -> Running {
    // nothing to end: the registry runs in this process
    Running { child: Command::new("true").spawn().unwrap(), at: server, folder }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants BIND"]
async fn what_the_registry_says_is_valid_to_others_and_to_us() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, server) = registry(folder.path()).await;
    let zone = at(server, folder);
    let key = std::fs::read_to_string(zone.anchor().await).unwrap();
    let words: Vec<&str> = key.split_whitespace().skip(4).collect();
    let [flags, protocol, algorithm, key @ ..] = &words[..] else { panic!("{words:?}") };
    let anchor = format!(
        "trust-anchors {{ {ORIGIN}. static-key {flags} {protocol} {algorithm} \"{}\"; }};",
        key.concat()
    );
    let file = zone.folder.path().join("delv.conf");
    std::fs::write(&file, anchor).unwrap();
    let (port, file) = (server.port().to_string(), file.display().to_string());
    let delv = async |name: &str, kind: &str| {
        let root = format!("+root={ORIGIN}");
        let name = format!("{name}{ORIGIN}");
        let arguments: Vec<String> =
            ["@127.0.0.1", "-p", &port, "-a", &file, &root, &name, kind].map(ToOwned::to_owned).into();
        let done = tokio::task::spawn_blocking(move || {
            Command::new(program("delv")).args(&arguments).output().unwrap()
        });
        let done = done.await.unwrap();
        format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
    };
    for (name, kind, words) in [
        ("000001.netids.", "AAAA", "; fully validated"),
        ("000001.netids.", "NAPTR", "negative response, fully validated"),
        ("000005.netids.", "AAAA", "; fully validated"),
        ("000009.netids.", "A", "ncache nxdomain"),
        ("000009.netids.", "A", "negative response, fully validated"),
        ("netids.", "A", "ncache nxrrset"),
        ("a.b.c.d.netids.", "A", "negative response, fully validated"),
        ("", "SOA", "; fully validated"),
        ("", "MX", "negative response, fully validated"),
        ("000004.netids.", "A", "; fully validated"),
        ("f.0.d.e.7.5.d.3.b.0.7.joineuis.", "A", "; fully validated"),
        ("8.7.6.5.4.3.2.0.d.e.7.5.d.3.b.0.7.joineuis.", "A", "; fully validated"),
        ("8.7.6.5.4.3.2.0.d.e.7.5.d.3.b.0.7.joineuis.", "AAAA", "ncache nxrrset"),
        ("d.e.7.5.d.3.b.0.7.joineuis.", "A", "ncache nxrrset"),
        ("lab.", "DS", "negative response, fully validated"),
    ] {
        let said = delv(name, kind).await;
        assert!(said.contains(words), "{name} {kind}: {said}");
    }
    // and by our own validator
    let resolver = zone.resolver(Dnssec::Require).await;
    assert_eq!(net(&resolver, "000002").await.unwrap().ways[0].port, 7005);
    let moved = join(&resolver, "0000000000000001", Some(1)).await.unwrap();
    assert_eq!(moved.ways[0].addresses, ["192.0.2.30".parse::<std::net::IpAddr>().unwrap()]);
    let block = join(&resolver, "70B3D57ED0123456", None).await.unwrap();
    assert_eq!(block.ways[0].security, Security::Secure);
    assert!(matches!(net(&resolver, "000009").await, Err(DiscoveryError::NotFound { proven: true, .. })));
    registry.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants BIND"]
async fn a_secondary_gets_the_registrys_zone_whole_and_serves_it() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, server) = registry(folder.path()).await;
    let transferred = tokio::task::spawn_blocking(move || {
        let port = server.port().to_string();
        tool(
            Path::new("/"),
            "dig",
            &["@127.0.0.1", "-p", &port, ORIGIN, "AXFR", "+noall", "+answer", "+onesoa"],
        )
    });
    let file = folder.path().join("axfr");
    std::fs::write(&file, transferred.await.unwrap() + "\n").unwrap();
    tool(folder.path(), "dnssec-verify", &["-q", "-z", "-o", ORIGIN, "axfr"]);
    let zones = format!(
        "zone \"{ORIGIN}\" {{ type secondary; primaries {{ 127.0.0.1 port {}; }}; file \"zone\"; masterfile-format text; }};",
        server.port()
    );
    let secondary = bind(tempfile::tempdir().unwrap(), &zones, "recursion no; dnssec-validation no;");
    let resolver = secondary.resolver(Dnssec::Require).await;
    assert_eq!(net(&resolver, "000002").await.unwrap().ways[0].port, 7005);
    assert!(matches!(net(&resolver, "000009").await, Err(DiscoveryError::NotFound { proven: true, .. })));
    registry.stop().await.unwrap();
}
