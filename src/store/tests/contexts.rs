//! Roaming contexts at rest: of visitors, and of our own devices elsewhere.

use super::*;
use crate::backend::message::MicKey;
use crate::fns::contexts::{Context, ContextId, Contexts};
use crate::sns::{Visit, Visits};

fn context(net_id: &str, mic_key: Option<MicKey>) -> Context {
    let id = ContextId { net_id: net_id.parse().unwrap(), dev_eui: EUI, dev_addr: ADDR };
    Context { id, until: 1_795_172_400, lifetime: 3600, mic_key, fcnt_up: 7 }
}

#[tokio::test]
async fn contexts_come_back_with_their_keys_after_a_restart_and_go_one_by_one() {
    let (folder, store) = fresh();
    let all = [
        context("000001", None),
        context("000002", Some(MicKey::NwkSKey(Key::new(KEY)))),
        context("000003", Some(MicKey::FNwkSIntKey(Key::new(KEY)))),
    ];
    for context in all.clone() {
        store.keep(context.clone()).await.unwrap();
        store.keep(context).await.unwrap();
    }
    assert_eq!(store.contexts().await.unwrap(), all);
    store.close().await.unwrap();
    let at_rest = std::fs::read(config(&folder).url.path()).unwrap();
    assert!(!at_rest.windows(KEY.len()).any(|bytes| bytes == KEY), "a key lies open in the file");
    let store = open(&folder);
    assert_eq!(store.contexts().await.unwrap(), all);
    store.keep(Context { until: 1_795_180_000, ..all[1].clone() }).await.unwrap();
    store.forget(vec![all[0].id, all[0].id]).await.unwrap();
    let left = store.contexts().await.unwrap();
    assert_eq!((left.len(), left[0].until, &left[1]), (2, 1_795_180_000, &all[2]));
}

#[tokio::test]
async fn a_key_that_was_moved_to_another_context_does_not_open() {
    let (_folder, store) = fresh();
    store.keep(context("000001", Some(MicKey::NwkSKey(Key::new(KEY))))).await.unwrap();
    let moved = "UPDATE contexts SET net_id = '000002'";
    store.queue.run(true, move |db| Ok((db.run(moved, [])?, Done::new(Commit::Durable)))).await.unwrap();
    assert!(store.contexts().await.is_err());
}

#[tokio::test]
async fn a_visit_outlives_its_session_until_it_is_ended() {
    let (folder, store) = fresh();
    let visit = |session, net_id: &str| Visit {
        session,
        net_id: net_id.parse().unwrap(),
        dev_eui: EUI,
        dev_addr: ADDR,
        until: 1_795_172_400,
    };
    let device = Addition::Joins { device: new_device(), enabled: true, class: ClassMode::A };
    assert_eq!(store.add_devices(vec![device], false).await.unwrap(), []);
    put(&store, session(u64::MAX)).await;
    put(&store, session(5)).await;
    let all = [visit(5, "000001"), visit(u64::MAX, "000001"), visit(u64::MAX, "000002")];
    for visit in all {
        store.grant(visit).await.unwrap();
        store.grant(visit).await.unwrap();
    }
    let found = async |store: &Store| {
        (store.visits().await.unwrap().len(), store.ended_visits().await.unwrap().len())
    };
    assert_eq!(found(&store).await, (3, 0));
    // one session ends, then the device may not roam, then it is gone
    let decide = |sessions: &mut Vec<Session>| {
        sessions.retain(|session| session.id != 5);
        write(Commit::Durable)
    };
    store.with_dev_addr(ADDR, Box::new(decide)).await.unwrap();
    assert_eq!(store.ended_visits().await.unwrap(), [visit(5, "000001")]);
    store.end_visits(vec![(5, visit(5, "000001").net_id)]).await.unwrap();
    assert_eq!(found(&store).await, (2, 0));
    let change = Change { roaming: Some(false), ..Change::default() };
    assert!(store.change_device(EUI, change).await.unwrap());
    assert_eq!(found(&store).await, (2, 2));
    let change = Change { roaming: Some(true), ..Change::default() };
    store.change_device(EUI, change).await.unwrap();
    assert_eq!(found(&store).await, (2, 0));
    assert!(store.remove_device(EUI).await.unwrap());
    store.close().await.unwrap();
    assert_eq!(found(&open(&folder)).await, (2, 2));
}
