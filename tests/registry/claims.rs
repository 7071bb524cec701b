//! How NetIDs and JoinEUIs become a member's, and how they stop to be.

use hickory_proto::rr::RecordType;
use reqwest::Method;
use roamgate::discovery::Security;
use roamgate::registry::oui;
use serde_json::{Value, json};

use crate::office::{Office, ZONE, address, is_nowhere, leads_to};

const A: &str = "70B3D57ED0000000/40";

/// A member with nothing; its key.
async fn newcomer(office: &Office, name: &str) -> String {
    let made = office.done(&office.operator, Method::POST, "/v1/members", json!({ "name": name })).await;
    made["key"].as_str().unwrap().to_owned()
}

const WAITING: &str = "/v1/claims/waiting";

#[tokio::test]
async fn who_asks_for_something_proves_a_domain_and_the_operator_grants_it() {
    let office = Office::open().await;
    let (key, other) = (newcomer(&office, "Acme").await, newcomer(&office, "Other").await);
    let file = "Registry,Assignment,Organization Name\nMA-S,70B3D57ED,Acme\n";
    let (bits, lines) = oui::read(file.as_bytes()).unwrap();
    let taken_in = office.store.registry(move |book| Ok((book.assign(bits, &lines)?, true)));
    taken_in.await.unwrap();

    let asked = json!({ "join_euis": A, "domain": format!("Acme.{ZONE}.") });
    let wish = office.done(&key, Method::POST, WAITING, asked.clone()).await;
    assert_eq!(wish["organisation"], "Acme");
    let (name, text) = (wish["name"].as_str().unwrap(), wish["text"].as_str().unwrap());
    assert_eq!(name, format!("_roamgate-challenge.acme.{ZONE}"));
    office.refused(&key, Method::POST, WAITING, asked, 409, "asked for already").await;
    let foreign = json!({ "join_euis": "0004A30B00000000/40", "domain": "acme.example" });
    office.refused(&key, Method::POST, WAITING, foreign, 422, "assigned 0004A30B00000000/40 to nobody").await;

    let (prove, fulfil) =
        (format!("{WAITING}/{}/prove", wish["id"]), format!("{WAITING}/{}/fulfil", wish["id"]));
    office.refused(&key, Method::POST, &prove, Value::Null, 422, "was not found").await;
    office.refused(&office.operator, Method::POST, &fulfil, Value::Null, 409, "no proof").await;
    office.publish(name, "roamgate=somebody else's").await;
    office.refused(&key, Method::POST, &prove, Value::Null, 422, "has no TXT record").await;
    office.publish(name, text).await;
    office.refused(&other, Method::POST, &prove, Value::Null, 404, "there is no wish").await;
    let proven = office.done(&key, Method::POST, &prove, Value::Null).await;
    assert!(proven["proven"].is_u64() && proven["secure"] == true, "{proven}");
    office.refused(&key, Method::POST, &fulfil, Value::Null, 403, "operator").await;
    office.done(&office.operator, Method::POST, &fulfil, Value::Null).await;
    let claims = office.done(&key, Method::GET, "/v1/claims", Value::Null).await;
    assert_eq!(claims[0]["join_euis"], A);
    let wishes = office.done(&office.operator, Method::GET, WAITING, Value::Null).await;
    assert_eq!(wishes, json!([]));
    // what is somebody's is not asked for
    let late = json!({ "join_euis": "70B3D57ED0000001", "domain": "other.example" });
    office.refused(&other, Method::POST, WAITING, late, 409, "belongs to another").await;
}

#[tokio::test]
async fn a_wish_is_for_one_thing_and_by_a_domain() {
    let office = Office::open().await;
    let key = newcomer(&office, "Acme").await;
    for (body, words) in [
        (json!({ "domain": "acme.example" }), "either net_id or join_euis"),
        (json!({ "net_id": "C00ABC", "join_euis": A, "domain": "acme.example" }), "either"),
        (json!({ "net_id": "C00ABC", "domain": "localhost" }), "domain"),
        (json!({ "net_id": "C00ABC", "domain": "a..example" }), "domain"),
        (json!({ "net_id": "C00ABC", "domain": "*.example" }), "domain"),
        (json!({ "join_euis": "7000000000000000/8", "domain": "acme.example" }), "wider"),
    ] {
        office.refused(&key, Method::POST, WAITING, body, 422, words).await;
    }
    let wish = office
        .done(&key, Method::POST, WAITING, json!({ "net_id": "C00ABC", "domain": "acme.example" }))
        .await;
    assert!(wish.get("organisation").is_none(), "NetIDs are not the IEEE's: {wish}");
    office.done(&key, Method::DELETE, &format!("{WAITING}/{}", wish["id"]), Value::Null).await;
    office.done(&key, Method::POST, WAITING, json!({ "net_id": "C00ABC", "domain": "acme.example" })).await;
}

#[tokio::test]
async fn a_federation_of_its_own_hands_out_net_ids_and_says_so_in_its_zone() {
    let office = Office::with(|_, _| "net_ids = \"600100-600101\"\n".into()).await;
    let (one, two, three) =
        (newcomer(&office, "1").await, newcomer(&office, "2").await, newcomer(&office, "3").await);
    let hand_out = "/v1/net-ids";
    let have =
        async |key: &str| office.done(key, Method::POST, hand_out, Value::Null).await["net_id"].clone();
    assert_eq!((have(&one).await, have(&two).await), (json!("600100"), json!("600101")));
    office.refused(&one, Method::POST, hand_out, Value::Null, 409, "already").await;
    office.refused(&three, Method::POST, hand_out, Value::Null, 409, "is taken").await;
    office.done(&one, Method::DELETE, "/v1/claims/600100", Value::Null).await;
    assert_eq!(have(&three).await, json!("600100"));
    let declared =
        office.resolver().await.records(&format!("_handed-out.netids.{ZONE}"), RecordType::TXT).await;
    let (records, security) = declared.unwrap();
    assert_eq!((records[0].to_string().trim_matches('"'), security), ("600100-600101", Security::Secure));

    let of_the_alliance = Office::open().await;
    let key = newcomer(&of_the_alliance, "1").await;
    of_the_alliance.refused(&key, Method::POST, hand_out, Value::Null, 403, "hands out no NetIDs").await;
}

#[tokio::test]
async fn networks_that_share_addresses_are_listed_in_the_zone() {
    let office = Office::open().await;
    // one NwkID of type 3
    for (name, net_id) in [("1", "600001"), ("2", "600801"), ("3", "600002")] {
        let made = office.done(&office.operator, Method::POST, "/v1/members", json!({ "name": name })).await;
        let claim = json!({ "member": made["id"], "net_id": net_id });
        office.done(&office.operator, Method::POST, "/v1/claims", claim).await;
    }
    let addr = "600001".parse::<roamgate::lorawan::NetId>().unwrap().dev_addr(7);
    let listed = async || {
        let found = office.resolver().await.networks(addr, office.soon()).await;
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(listed().await, ["600001", "600801"]);
    office.done(&office.operator, Method::DELETE, "/v1/claims/600001", Value::Null).await;
    assert_eq!(listed().await, ["600801"]);
    office.done(&office.operator, Method::DELETE, "/v1/members/3", Value::Null).await;
    assert_eq!(listed().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_given_back_takes_its_names_along() {
    let office = Office::open().await;
    let key = office.member("One", "C00ABC", A).await;
    let other = newcomer(&office, "Two").await;
    let host = json!({ "records": [{ "type": "CNAME", "data": format!("c00abc.netids.{ZONE}") }] });
    office.done(&key, Method::PUT, "/v1/net-ids/C00ABC", address("192.0.2.1")).await;
    office.done(&key, Method::PUT, "/v1/join-euis/70B3D57ED0000000-40", host).await;
    office.done(&key, Method::PUT, "/v1/join-euis/70B3D57ED0000001", address("192.0.2.2")).await;
    leads_to(office.join("70B3D57ED0000001", None).await, "192.0.2.2");
    leads_to(office.join("70B3D57ED0000002", None).await, "192.0.2.1");
    office
        .refused(&other, Method::DELETE, "/v1/claims/70B3D57ED0000000-40", Value::Null, 403, "not yours")
        .await;
    office.refused(&key, Method::DELETE, "/v1/claims/70B3D57ED0000001", Value::Null, 403, "not yours").await;
    office.done(&key, Method::DELETE, "/v1/claims/70B3D57ED0000000-40", Value::Null).await;
    is_nowhere(office.join("70B3D57ED0000001", None).await);
    is_nowhere(office.join("70B3D57ED0000002", None).await);
    leads_to(office.net("C00ABC").await, "192.0.2.1");
    office.done(&key, Method::DELETE, "/v1/claims/C00ABC", Value::Null).await;
    is_nowhere(office.net("C00ABC").await);
    let claims = office.done(&key, Method::GET, "/v1/claims", Value::Null).await;
    assert_eq!(claims, json!([]));
}

#[tokio::test]
async fn what_was_put_is_looked_for_as_readers_do() {
    let office = Office::open().await;
    let key = office.member("One", "C00ABC", A).await;
    let found = office.done(&key, Method::GET, "/v1/net-ids/C00ABC/found", Value::Null).await;
    assert!(
        found["error"].as_str().unwrap().contains("has no address") && found["remedy"].is_string(),
        "{found}"
    );
    office.done(&key, Method::PUT, "/v1/net-ids/C00ABC", address("192.0.2.1")).await;
    let found = office.done(&key, Method::GET, "/v1/net-ids/C00ABC/found", Value::Null).await;
    assert_eq!((&found["dnssec"], &found["error"]), (&json!("secure"), &Value::Null), "{found}");
    assert_eq!(found["ways"][0]["addresses"], json!(["192.0.2.1"]));
    office.refused(&key, Method::GET, "/v1/net-ids/C00ABD/found", Value::Null, 403, "not yours").await;
}
