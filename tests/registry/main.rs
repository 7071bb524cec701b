//! The federation's registry through its doors: members change names over HTTP or with a browser, and everybody finds them in the
//! DNS, by our own validating resolver.

mod browser;
mod claims;
mod contract;
mod day;
mod office;
mod pages;

use std::time::Duration;

use hickory_proto::rr::RecordType;
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use roamgate::app::credentials::Credentials;
use roamgate::discovery::{Resolver, Security};
use roamgate::pki::folder::Folder;
use roamgate::registry::Running;
use serde_json::{Value, json};

use office::{Office, ZONE, address, is_nowhere, leads_to, resolver};

const A: &str = "70B3D57ED0000000/40";
const B: &str = "0004A30B00000000/40";

#[tokio::test]
async fn what_a_member_puts_is_found_at_once_and_secure() {
    let office = Office::open().await;
    let key = office.member("One", "C00ABC", A).await;
    is_nowhere(office.net("C00ABC").await);
    office.done(&key, Method::PUT, "/v1/net-ids/C00ABC", address("2001:db8::1")).await;
    leads_to(office.net("C00ABC").await, "2001:db8::1");
    // another address, at once
    office.done(&key, Method::PUT, "/v1/net-ids/C00ABC", address("192.0.2.1")).await;
    leads_to(office.net("C00ABC").await, "192.0.2.1");
    office.done(&key, Method::DELETE, "/v1/net-ids/C00ABC", Value::Null).await;
    is_nowhere(office.net("C00ABC").await);
    is_nowhere(office.net("C00ABD").await);
}

#[tokio::test]
async fn a_block_is_found_at_a_host_and_a_device_can_move_away() {
    let office = Office::open().await;
    let key = office.member("One", "C00ABC", A).await;
    // the host is a name of the zone too, so that all of it is secure
    let host = "c00abc.netids.iotroam.example";
    office.done(&key, Method::PUT, "/v1/net-ids/C00ABC", address("192.0.2.1")).await;
    let to_host = json!({ "records": [{ "type": "CNAME", "data": host }] });
    office.done(&key, Method::PUT, "/v1/join-euis/70B3D57ED0000000-40", to_host.clone()).await;
    leads_to(office.join("70B3D57ED0000001", None).await, "192.0.2.1");
    leads_to(office.join("70B3D57ED0ABCDEF", Some("0102030405060708")).await, "192.0.2.1");
    is_nowhere(office.join("70B3D57ED1000001", None).await);
    // one JoinEUI elsewhere: the block's wildcard stands for it no more
    office.done(&key, Method::PUT, "/v1/join-euis/70B3D57ED0000001", address("192.0.2.2")).await;
    leads_to(office.join("70B3D57ED0000001", None).await, "192.0.2.2");
    leads_to(office.join("70B3D57ED0000002", None).await, "192.0.2.1");
    // one device of it elsewhere again, and a batch of others
    let path = "/v1/join-euis/70B3D57ED0000001/devices/0102030405060708";
    office.done(&key, Method::PUT, path, address("192.0.2.3")).await;
    leads_to(office.join("70B3D57ED0000001", Some("0102030405060708")).await, "192.0.2.3");
    leads_to(office.join("70B3D57ED0000001", Some("0102030405060709")).await, "192.0.2.2");
    let devices: Vec<String> = (0..500).map(|n| format!("{:016X}", 0x0A00_0000_0000_0000_u64 + n)).collect();
    let batch = json!({ "dev_euis": devices, "records": [{ "type": "A", "data": "192.0.2.4" }] });
    let done = office.done(&key, Method::POST, "/v1/join-euis/70B3D57ED0000001/devices", batch).await;
    assert_eq!(done["devices"], 500);
    leads_to(office.join("70B3D57ED0000001", Some("0A000000000001F3")).await, "192.0.2.4");
    office.done(&key, Method::DELETE, path, Value::Null).await;
    leads_to(office.join("70B3D57ED0000001", Some("0102030405060708")).await, "192.0.2.2");
    // page by page everything is there, once
    let (mut after, mut names) = (String::new(), Vec::new());
    loop {
        let page = office.done(&key, Method::GET, &format!("/v1/records?after={after}"), Value::Null).await;
        names.extend(
            page["names"].as_array().unwrap().iter().map(|name| name["name"].as_str().unwrap().to_owned()),
        );
        match page["after"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(names.len(), 503);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 503);
}

#[tokio::test]
async fn a_block_is_handed_over_to_servers_of_its_owners() {
    let office = Office::open().await;
    let key = office.member("One", "C00ABC", A).await;
    let path = "/v1/join-euis/70B3D57ED0000000-40";
    let cut = "0.d.e.7.5.d.3.b.0.7.joineuis.iotroam.example";
    let to = |server: &str| json!({ "records": [{ "type": "NS", "data": server }] });
    office.refused(&key, Method::PUT, path, to(&format!("ns.{cut}")), 422, "found by nobody").await;
    office.done(&key, Method::PUT, path, address("192.0.2.1")).await;
    office.refused(&key, Method::PUT, path, to("ns.member.example"), 409, "records below it").await;
    office.done(&key, Method::DELETE, path, Value::Null).await;
    let put = office.done(&key, Method::PUT, path, to("ns.member.example")).await;
    assert_eq!((&put["name"], &put["records"][0]["data"]), (&json!(cut), &json!("ns.member.example.")));
    assert_eq!(office.done(&key, Method::GET, path, Value::Null).await, put);
    office.refused(&key, Method::PUT, path, address("192.0.2.1"), 409, "is delegated").await;
    // whoever asks for a name of the block is sent there
    let referral = office.question(&format!("1.0.0.0.0.0.{cut}")).await;
    assert!(!referral.metadata.authoritative && referral.answers.is_empty(), "{referral}");
    let sent = referral.authorities.iter().filter(|record| record.record_type() == RecordType::NS);
    let sent: Vec<String> = sent.map(|record| format!("{} {}", record.name, record.data)).collect();
    assert_eq!(sent, [format!("{cut}. ns.member.example.")]);
    office.done(&key, Method::DELETE, path, Value::Null).await;
    is_nowhere(office.join("70B3D57ED0000001", None).await);
}

#[tokio::test]
async fn servers_at_ports_and_keys_are_found_too() {
    let office = Office::open().await;
    let key = office.member("One", "C00ABC", A).await;
    let naptr = "10 10 \"S\" \"LWNS\" \"\" _lwns._tcp.c00abc.netids.iotroam.example";
    let records = json!({ "records": [
        { "type": "NAPTR", "data": naptr }, { "type": "A", "data": "192.0.2.1", "ttl": 60 } ] });
    office.done(&key, Method::PUT, "/v1/net-ids/C00ABC", records).await;
    let srv = json!({ "records": [{ "type": "SRV", "data": "0 0 7005 c00abc.netids.iotroam.example." }] });
    office.done(&key, Method::PUT, "/v1/net-ids/C00ABC?under=_lwns._tcp", srv).await;
    let found = office.net("C00ABC").await.unwrap();
    assert_eq!(found.ways[0].port, 7005, "{found:?}");
    let tlsa = json!({ "records": [{ "type": "TLSA", "data": format!("3 1 1 {}", "ab".repeat(32)) }] });
    office.done(&key, Method::PUT, "/v1/net-ids/C00ABC?under=_7005._tcp", tlsa).await;
    let resolver = office.resolver().await;
    let (found, security) =
        resolver.records("_7005._tcp.c00abc.netids.iotroam.example", RecordType::TLSA).await.unwrap();
    assert_eq!((found.len(), security), (1, Security::Secure));
}

#[tokio::test]
async fn nobody_changes_what_is_anothers() {
    let office = Office::open().await;
    let (one, two) = (office.member("One", "C00ABC", A).await, office.member("Two", "C0002F", B).await);
    office.done(&two, Method::PUT, "/v1/net-ids/C0002F", address("192.0.2.2")).await;
    for (method, body) in
        [(Method::PUT, address("192.0.2.66")), (Method::DELETE, Value::Null), (Method::GET, Value::Null)]
    {
        for path in [
            "/v1/net-ids/C0002F",
            "/v1/net-ids/C0002F?under=_443._tcp",
            "/v1/net-ids/00000A",
            "/v1/join-euis/0004A30B00000001",
            "/v1/join-euis/0004A30B00000000-40",
            "/v1/join-euis/70B3D57E00000000-32",
            "/v1/join-euis/0004A30B00000001/devices/0102030405060708",
        ] {
            office.refused(&one, method.clone(), path, body.clone(), 403, "not yours").await;
        }
    }
    let batch =
        json!({ "dev_euis": ["0102030405060708"], "records": [{ "type": "A", "data": "192.0.2.66" }] });
    office
        .refused(&one, Method::POST, "/v1/join-euis/0004A30B00000001/devices", batch, 403, "not yours")
        .await;
    leads_to(office.net("C0002F").await, "192.0.2.2");
    // what the operator alone may do
    for (path, body) in [
        ("/v1/members", json!({ "name": "Three" })),
        ("/v1/claims", json!({ "member": 2, "net_id": "C0002F" })),
    ] {
        office.refused(&one, Method::POST, path, body, 403, "operator").await;
    }
    office.refused(&one, Method::DELETE, "/v1/members/3", Value::Null, 403, "operator").await;
    // nor does the operator give it away
    for claim in [
        json!({ "member": 2, "net_id": "C0002F" }),
        json!({ "member": 2, "join_euis": "0004A30B00000001/64" }),
        json!({ "member": 2, "join_euis": "0004A30000000000/24" }),
    ] {
        office.refused(&office.operator, Method::POST, "/v1/claims", claim, 409, "another member").await;
    }
    let seen = office.done(&one, Method::GET, "/v1/audit", Value::Null).await;
    assert!(seen.as_array().unwrap().iter().all(|line| line["member"] == 2), "{seen}");
}

#[tokio::test]
async fn bad_input_is_an_answer_and_changes_nothing() {
    let office = Office::open().await;
    let key = office.member("One", "C00ABC", A).await;
    let put = |records: Value| json!({ "records": records });
    for (body, words) in [
        (put(json!([])), "1 to 32"),
        (put(json!([{ "type": "A", "data": "1.2.3" }])), "record A"),
        (put(json!([{ "type": "A", "data": "192.0.2.1", "ttl": 0 }])), "TTL"),
        (put(json!([{ "type": "CNAME", "data": "x.example\n. IN SOA" }])), "one line"),
        (put(json!([{ "type": "TXT", "data": "\"a\"" }])), "not a type"),
        (put(json!([{ "type": "CNAME", "data": "x');DROP TABLE registry_record;--" }])), "without ;"),
        (put(json!([{ "type": "A", "data": "192.0.2.1", "name": "other" }])), "unknown field"),
        (json!({ "record": [] }), "unknown field"),
        (json!("x"), "invalid type"),
    ] {
        office.refused(&key, Method::PUT, "/v1/net-ids/C00ABC", body, 422, words).await;
    }
    let good = address("192.0.2.1");
    for path in [
        "/v1/net-ids/C00ABCD",
        "/v1/net-ids/'%20OR%201=1--",
        "/v1/join-euis/70B3D57ED000000",
        "/v1/join-euis/70B3D57ED0000000-41",
        "/v1/join-euis/0000000000000000-0",
        "/v1/net-ids/C00ABC?under=www",
        "/v1/net-ids/C00ABC?under=_443._tcp.%00",
    ] {
        let (status, answer) = office.ask(&key, Method::PUT, path, good.clone()).await;
        assert_eq!(status.as_u16(), 422, "{path}: {answer}");
    }
    let many: Vec<String> = (0..10_001).map(|n| format!("{n:016X}")).collect();
    let batch = json!({ "dev_euis": many, "records": [{ "type": "A", "data": "192.0.2.1" }] });
    let path = "/v1/join-euis/70B3D57ED0000001/devices";
    office.refused(&key, Method::POST, path, batch, 422, "10000 devices").await;
    let (status, _) = office.ask(&key, Method::PUT, "/v1/net-ids/C00ABC", json!("x".repeat(2 << 20))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    office.refused(&key, Method::GET, "/v2", Value::Null, 404, "no thing").await;
    office.refused(&key, Method::PATCH, "/v1/net-ids/C00ABC", Value::Null, 405, "method").await;
    is_nowhere(office.net("C00ABC").await);
    let records = office.done(&key, Method::GET, "/v1/records", Value::Null).await;
    assert_eq!(records["names"], json!([]));
}

#[tokio::test]
async fn a_key_opens_what_it_may_until_it_is_revoked() {
    let office = Office::open().await;
    let key = office.member("One", "C00ABC", A).await;
    let make = async |scope: &str| {
        let body = json!({ "label": format!("a {scope} key"), "scope": scope });
        let made = office.done(&key, Method::POST, "/v1/keys", body).await;
        (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned())
    };
    let ((_, reads), (id, writes)) = (make("read").await, make("write").await);
    office.done(&reads, Method::GET, "/v1/net-ids/C00ABC", Value::Null).await;
    office.refused(&reads, Method::PUT, "/v1/net-ids/C00ABC", address("192.0.2.1"), 403, "may not").await;
    office.done(&writes, Method::PUT, "/v1/net-ids/C00ABC", address("192.0.2.1")).await;
    let more = json!({ "label": "more", "scope": "admin" });
    office.refused(&writes, Method::POST, "/v1/keys", more, 403, "may not").await;
    office.done(&key, Method::DELETE, &format!("/v1/keys/{id}"), Value::Null).await;
    office.refused(&writes, Method::GET, "/v1/claims", Value::Null, 401, "no such key").await;
    // neither the secret nor anything that opens is kept
    let listed = office.done(&key, Method::GET, "/v1/keys", Value::Null).await;
    assert!(!listed.to_string().contains("rg_"), "{listed}");
    office.store.flush().await.unwrap();
    for file in ["registry.db", "registry.db-wal"] {
        let bytes = std::fs::read(office.folder.path().join(file)).unwrap_or_default();
        let secret = key.rsplit('_').next().unwrap().as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{file}");
    }
    // whoever guesses waits, and whoever knows does not
    let mut codes = Vec::new();
    for n in 0..30 {
        let guess = format!("rg_{n:016x}_{}", "0".repeat(64));
        codes.push(office.ask(&guess, Method::GET, "/v1/claims", Value::Null).await.0.as_u16());
    }
    assert!(codes[0] == 401 && codes.contains(&429), "{codes:?}");
    office.done(&key, Method::GET, "/v1/claims", Value::Null).await;
}

#[tokio::test]
async fn a_member_that_is_revoked_is_gone_at_once() {
    let office = Office::open().await;
    let key = office.member("One", "C00ABC", A).await;
    office.done(&key, Method::PUT, "/v1/net-ids/C00ABC", address("192.0.2.1")).await;
    let members = office.done(&office.operator, Method::GET, "/v1/members", Value::Null).await;
    let id = members.as_array().unwrap().iter().find(|member| member["name"] == "One").unwrap()["id"].clone();
    office.refused(&office.operator, Method::DELETE, "/v1/members/1", Value::Null, 403, "himself").await;
    office.done(&office.operator, Method::DELETE, &format!("/v1/members/{id}"), Value::Null).await;
    office.refused(&key, Method::GET, "/v1/claims", Value::Null, 401, "no such key").await;
    is_nowhere(office.net("C00ABC").await);
    // what was its is free again
    office.member("Two", "C00ABC", A).await;
}

#[tokio::test]
async fn it_is_all_there_after_a_restart() {
    let office = Office::open().await;
    let key = office.member("One", "C00ABC", A).await;
    office.done(&key, Method::PUT, "/v1/net-ids/C00ABC", address("192.0.2.1")).await;
    let zone = office.done(&key, Method::GET, "/v1/zone", Value::Null).await;
    let Office { running, operator, http, clock, folder, store } = office;
    running.stop().await.unwrap();
    drop(store);
    let store = office::store(folder.path(), &clock);
    let text = format!(
        "zone = \"{ZONE}\"\nlisten = \"127.0.0.1:0\"\ndns = \"127.0.0.1:0\"\nservers = [\"ns.{ZONE}\"]\n"
    );
    let own = || resolver(office::free(), &folder.path().join("own-anchor"), &clock);
    let running =
        Running::start(&toml::from_str(&text).unwrap(), own(), store.clone(), &clock).await.unwrap();
    let office = Office { running, store, operator, http, clock, folder };
    let again = office.done(&key, Method::GET, "/v1/zone", Value::Null).await;
    assert_eq!(again, zone);
    leads_to(office.net("C00ABC").await, "192.0.2.1");
    // with secondaries it counts on, so that they fetch signatures that have not ended
    let Office { running, store, clock, folder, .. } = office;
    let own = || resolver(office::free(), &folder.path().join("own-anchor"), &clock);
    let text = format!("{text}secondaries = [\"192.0.2.7\"]\n");
    drop((running.dns, running.api));
    let section = toml::from_str(&text).unwrap();
    let _running = Running::start(&section, own(), store.clone(), &clock).await.unwrap();
    let mut serial = 0;
    for _ in 0..100 {
        serial = store.registry(|book| Ok((book.serial()?, false))).await.unwrap();
        if serial > zone["serial"].as_u64().unwrap() as u32 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the serial number stays {serial}");
}

/// A request for these names, made where its key stays.
fn request(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    roamgate::pki::request::make("node", &names).unwrap().0
}

#[tokio::test]
async fn certificates_are_signed_on_approval_and_then_renewed_without_until_they_are_revoked() {
    let office = Office::signing().await;
    let (one, two) = (office.member("One", "C00ABC", A).await, office.member("Two", "C0002F", B).await);
    let own = "c00abc.netids.iotroam.example";
    let ask = |names: &[&str]| json!({ "request": request(names) });
    for (names, code, words) in [
        (vec!["c0002f.netids.iotroam.example"], 403, "not yours"),
        (vec![own, "1.0.0.0.0.0.0.b.0.3.a.4.0.0.0.0.joineuis.iotroam.example"], 403, "not yours"),
        (vec!["netids.iotroam.example"], 403, "not yours"),
    ] {
        office.refused(&one, Method::POST, "/v1/certificates", ask(&names), code, words).await;
    }
    let none = json!({ "request": "-----BEGIN CERTIFICATE REQUEST-----" });
    office.refused(&one, Method::POST, "/v1/certificates", none, 422, "not a certificate request").await;
    let names = [own, "1.0.0.0.0.0.0.d.e.7.5.d.3.b.0.7.joineuis.iotroam.example"];
    let asked = office.done(&one, Method::POST, "/v1/certificates", ask(&names)).await;
    assert_eq!((&asked["state"], &asked["chain"]), (&json!("waiting"), &Value::Null));
    let path = format!("/v1/certificates/{}", asked["id"]);
    office.refused(&one, Method::POST, &format!("{path}/approve"), Value::Null, 403, "operator").await;
    office.refused(&two, Method::GET, &path, Value::Null, 404, "no certificate").await;
    let signed = office.done(&office.operator, Method::POST, &format!("{path}/approve"), Value::Null).await;
    let chain = signed["chain"].as_str().unwrap();
    let chain = roamgate::tls::certificates(chain.as_bytes(), "chain".as_ref()).unwrap();
    let leaf = roamgate::pki::check::facts(&chain[0]).unwrap();
    assert_eq!((chain.len(), &leaf.dns_names), (2, &names.map(ToOwned::to_owned).to_vec()));
    office
        .refused(
            &office.operator,
            Method::POST,
            &format!("{path}/approve"),
            Value::Null,
            409,
            "signed already",
        )
        .await;
    // the next one for the same names waits for nobody
    let renewed = office.done(&one, Method::POST, "/v1/certificates", ask(&names)).await;
    assert_eq!(renewed["state"], "signed");
    let more = office.done(&one, Method::POST, "/v1/certificates", ask(&[own])).await;
    assert_eq!(more["state"], "waiting");
    // struck off, it is on the list that everybody may read
    let list = async || {
        let url = format!("http://{}/v1/crl.pem", office.running.api.address);
        let pem = office.http.get(url).send().await.unwrap().bytes().await.unwrap();
        roamgate::pki::revoke::List::read(&pem).unwrap().serials
    };
    assert!(list().await.is_empty());
    office.done(&one, Method::POST, &format!("{path}/revoke"), Value::Null).await;
    assert_eq!(list().await.len(), 1);
    // and whoever is no member any more has none that counts
    let members = office.done(&office.operator, Method::GET, "/v1/members", Value::Null).await;
    let id = members.as_array().unwrap().iter().find(|member| member["name"] == "One").unwrap()["id"].clone();
    office.done(&office.operator, Method::DELETE, &format!("/v1/members/{id}"), Value::Null).await;
    assert_eq!(list().await.len(), 2);
}

#[tokio::test]
async fn a_registry_without_an_authority_signs_nothing() {
    let office = Office::open().await;
    let key = office.member("One", "C00ABC", A).await;
    let ask = json!({ "request": request(&["c00abc.netids.iotroam.example"]) });
    office.refused(&key, Method::POST, "/v1/certificates", ask, 404, "signs nothing").await;
    office.refused(&key, Method::GET, "/v1/crl.pem", Value::Null, 404, "signs nothing").await;
}

#[tokio::test]
async fn a_node_renews_its_certificate_and_keeps_its_address_current_by_itself() {
    let office = Office::signing().await;
    let key = office.member("One", "C00ABC", A).await;
    let at = |name: &str| office.folder.path().join(name);
    std::fs::write(at("key"), format!("{key}\n")).unwrap();
    let text = format!(
        "[network]\nnet_ids = [\"C00ABC\"]\n[store]\nurl = \"sqlite:{}\"\n[discovery]\nnet_id_suffix = \"netids.{ZONE}\"\n\
         join_eui_suffix = \"joineuis.{ZONE}\"\n[backend]\nidentity = {{ folder = \"{}\" }}\nroots = [\"{}\"]\n\
         crls = [\"http://{}/v1/crl.pem\"]\n[enrol]\nregistry = \"http://{}\"\nkey_file = \"{}\"\naddresses = [\"192.0.2.9\", \"seen\"]\n",
        at("node.db").display(),
        at("pki").display(),
        at("authority/root.pem").display(),
        office.running.api.address,
        office.running.api.address,
        at("key").display(),
    );
    let config = roamgate::config::parse(None, text, std::iter::empty()).unwrap().config;
    // the first certificate, with the operator's word
    let folder = Folder::new(at("pki"));
    let own = "c00abc.netids.iotroam.example".to_owned();
    let waiting = folder.request("c00abc", &[own], false).unwrap();
    let asked = json!({ "request": waiting.pem });
    let asked = office.done(&key, Method::POST, "/v1/certificates", asked).await;
    let path = format!("/v1/certificates/{}/approve", asked["id"]);
    let signed = office.done(&office.operator, Method::POST, &path, Value::Null).await;
    let roots = std::fs::read(at("authority/root.pem")).unwrap();
    let roots = roamgate::tls::certificates(&roots, "root".as_ref()).unwrap();
    folder.install(signed["chain"].as_str().unwrap(), &roots, &office.clock).unwrap();

    let credentials = Credentials::load(&config, &office.clock).unwrap().unwrap();
    let shown = || {
        let identity = credentials.shown.identity();
        roamgate::pki::check::facts(&identity.chain()[0]).unwrap()
    };
    let first = shown();
    credentials.look().await;
    leads_to(office.net("C00ABC").await, "192.0.2.9");
    leads_to(office.net("C00ABC").await, "127.0.0.1");
    assert_eq!(shown().serial, first.serial);
    let serial = office.done(&key, Method::GET, "/v1/zone", Value::Null).await["serial"].clone();
    // two thirds of 90 days later
    office.clock.move_wall(SignedDuration::from_hours(24 * 61));
    credentials.look().await;
    let second = shown();
    assert!(second.serial != first.serial && second.pin != first.pin && second.dns_names == first.dns_names);
    assert_eq!(folder.leaf().unwrap().unwrap().serial, second.serial);
    // once is enough, for the certificate and for the address
    credentials.look().await;
    assert_eq!(shown().serial, second.serial);
    let again = office.done(&key, Method::GET, "/v1/zone", Value::Null).await["serial"].clone();
    assert_eq!(serial, again);
    // and it can go back
    folder.roll_back().unwrap();
    assert_eq!(credentials.reload(None).unwrap().serial, first.serial);

    // whoever is struck off stays so over a restart, also while the registry cannot be asked
    let chain = credentials.shown.identity().chain().to_vec();
    credentials.trust.peer_identity(Some(&chain)).unwrap();
    let path = format!("/v1/certificates/{}/revoke", asked["id"]);
    office.done(&office.operator, Method::POST, &path, Value::Null).await;
    credentials.look().await;
    let error = credentials.trust.peer_identity(Some(&chain)).unwrap_err().to_string();
    assert!(error.contains("on the list of"), "{error}");
    let Office { running, clock, folder: _kept, .. } = office;
    running.stop().await.unwrap();
    let again = Credentials::load(&config, &clock).unwrap().unwrap();
    let error = again.trust.peer_identity(Some(&chain)).unwrap_err().to_string();
    assert!(error.contains("on the list of"), "{error}");
}

#[tokio::test]
async fn the_document_of_the_api_says_what_there_is() {
    let office = Office::signing().await;
    let url = format!("http://{}/v1/openapi.json", office.running.api.address);
    let document: Value = office.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    for route in roamgate::registry::openapi::ROUTES {
        let path = route
            .path
            .replace("{id}", "99")
            .replace("{key}", "00")
            .replace("{net_id}", "C00ABC")
            .replace("{join_eui}", "70B3D57ED0000001")
            .replace("{dev_eui}", "0102030405060708");
        let method: Method = route.method.to_uppercase().parse().unwrap();
        let url = format!("http://{}{path}", office.running.api.address);
        // without a key: nothing but what is for everybody
        let status = office.http.request(method.clone(), &url).send().await.unwrap().status();
        assert_eq!(status.as_u16(), if route.scope.is_some() { 401 } else { 200 }, "{path}");
        // with one: whatever it says, it is not that there is nothing, and it is no fault of ours
        let (status, answer) = office.ask(&office.operator, method, &path, json!({})).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(
            status.as_u16() < 500 && !error.contains("no thing at this address"),
            "{path}: {status} {answer}"
        );
        assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
}

#[tokio::test]
async fn the_zones_key_is_rolled_without_a_moment_in_which_it_is_not_valid() {
    let office = Office::open().await;
    let key = office.member("One", "C00ABC", A).await;
    office.done(&key, Method::PUT, "/v1/net-ids/C00ABC", address("192.0.2.1")).await;
    let before = office.resolver().await;
    let ask = async |resolver: &Resolver| {
        resolver.flush(None);
        resolver.net_server("C00ABC".parse().unwrap(), office.soon()).await
    };
    leads_to(ask(&before).await, "192.0.2.1");
    let (operator, path) = (&office.operator, "/v1/zone/keys");
    office.refused(&key, Method::POST, path, Value::Null, 403, "operator").await;
    office.refused(operator, Method::DELETE, "/v1/zone/keys/1", Value::Null, 409, "no other key").await;
    office.refused(operator, Method::POST, "/v1/zone/keys/7/sign", Value::Null, 404, "no zone key").await;
    // a key that is made changes nothing but what readers are told to trust
    office.done(operator, Method::POST, path, Value::Null).await;
    let keys = office.done(operator, Method::GET, path, Value::Null).await;
    assert_eq!((&keys[0]["state"], &keys[1]["state"]), (&json!("signing"), &json!("made")));
    leads_to(ask(&before).await, "192.0.2.1");
    let both = office.resolver().await;
    leads_to(ask(&both).await, "192.0.2.1");
    office.done(operator, Method::POST, "/v1/zone/keys/2/sign", Value::Null).await;
    leads_to(ask(&both).await, "192.0.2.1");
    office.refused(operator, Method::DELETE, "/v1/zone/keys/1", Value::Null, 409, "minutes").await;
    office.clock.move_wall(SignedDuration::from_hours(3));
    office.done(operator, Method::DELETE, "/v1/zone/keys/1", Value::Null).await;
    leads_to(ask(&both).await, "192.0.2.1");
    leads_to(office.net("C00ABC").await, "192.0.2.1");
    let zone = office.done(operator, Method::GET, "/v1/zone", Value::Null).await;
    assert_eq!(zone["ds"].as_array().unwrap().len(), 1);
    // whoever kept to the old key alone finds nothing valid any more
    assert!(ask(&before).await.is_err());
}
