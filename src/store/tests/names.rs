//! Where names led.

use std::net::IpAddr;

use super::*;
use crate::discovery::cache::{Found, Kept, Security, Way, Worth};

fn kept(name: &str, until: u64) -> Kept {
    let way = Way {
        by: vec!["ns.example".into()],
        addresses: vec!["2001:db8::5".parse::<IpAddr>().unwrap(), IpAddr::from([192, 0, 2, 5])],
        port: 7005,
        path: "/in?a=b".into(),
        security: Security::Secure,
    };
    let worth = Worth { security: Security::Insecure, ttl: Duration::from_secs(60), signed_until: Some(7) };
    Kept { name: name.into(), found: Found { ways: vec![way], worth }, until }
}

#[tokio::test]
async fn names_outlive_a_restart_and_what_is_kept_takes_the_place_of_what_was() {
    let (folder, store) = fresh();
    assert_eq!(store.names().await.unwrap(), []);
    store.keep_names(vec![kept("a.example", 1), kept("b.example", 2)]).await.unwrap();
    store.keep_names(vec![kept("b.example", 3), kept("c.example", 4)]).await.unwrap();
    store.close().await.unwrap();
    let store = open(&folder);
    assert_eq!(store.names().await.unwrap(), [kept("b.example", 3), kept("c.example", 4)]);
    let many = (0..600).map(|n| kept(&format!("{n}.example"), n)).collect();
    store.keep_names(many).await.unwrap();
    let names = store.names().await.unwrap();
    assert_eq!(names.len(), 512);
    assert!(names.iter().all(|kept| kept.until >= 88), "those that are believed longest");
}

#[tokio::test]
async fn an_answer_of_another_version_is_asked_for_anew() {
    let (folder, store) = fresh();
    store.keep_names(vec![kept("a.example", 1)]).await.unwrap();
    store.close().await.unwrap();
    let sql = rusqlite::Connection::open(folder.path().join("data/roamgate.db")).unwrap();
    for (name, answer) in
        [("b.example", "{\"v\":\"9\"}"), ("c.example", "no"), ("d.example", "{\"v\":\"1\",\"ways\":3}")]
    {
        sql.execute("INSERT INTO names VALUES (?1, ?2, 5)", [name, answer]).unwrap();
    }
    drop(sql);
    assert_eq!(open(&folder).names().await.unwrap(), [kept("a.example", 1)]);
}
