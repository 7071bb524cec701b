//! What is committed when, and what waits for the disk.

use super::*;

#[tokio::test]
async fn decisions_may_run_twice() {
    let (_folder, store) = fresh();
    store.add_device(new_device()).await.unwrap();
    let twice = Twice(store.clone());
    put(&twice, session(u64::MAX)).await;
    uplink(&twice, 5, Commit::Durable, true).await;
    assert_eq!(take_nonces(&twice, 1).await, Some(1));
    let rename = |device: &mut Option<hns::Device>| {
        device.as_mut().unwrap().name.push('!');
        Commit::Lazy
    };
    Devices::with_device(&twice, EUI, Box::new(rename)).await.unwrap();
    assert_eq!(store.device(EUI).await.unwrap().unwrap().name, "attic!");
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [Session { fcnt_up: Some(5), ..session(u64::MAX) }]);
    assert_eq!(twice.waiting().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_batch_that_turns_out_to_be_durable_is_committed_with_what_was_held() {
    let (_folder, store) = fresh();
    put(&store, session(u64::MAX)).await;
    uplink(&store, 1, Commit::Lazy, false).await;
    let before = store.stats();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let decide = move |sessions: &mut Vec<Session>| {
        counted.fetch_add(1, Ordering::Relaxed);
        sessions[0].fcnt_up = sessions[0].fcnt_up.map(|fcnt| fcnt + 1);
        write(Commit::Durable)
    };
    store.with_dev_addr(ADDR, Box::new(decide)).await.unwrap();
    let after = store.stats();
    assert_eq!((runs.load(Ordering::Relaxed), after.reruns), (1, 0));
    assert_eq!(after.commits - before.commits, 1, "durable before it returned");
    assert_eq!(store.sessions_of(EUI).await.unwrap()[0].fcnt_up, Some(2), "and counted once");
}

#[tokio::test]
async fn a_failing_job_takes_back_its_own_writes_only() {
    let (_folder, store) = fresh();
    let panicking = |sessions: &mut Vec<Session>| -> sns::Write {
        assert!(sessions.is_empty(), "first");
        panic!("a bug in a room")
    };
    let taken = |sessions: &mut Vec<Session>| {
        sessions.push(Session { dev_eui: DevEui::from_msb([7; 8]), ..session(7) });
        sessions.push(session(7));
        write(Commit::Durable)
    };
    let (first, second, third) = tokio::join!(
        store.with_dev_addr(ADDR, Box::new(panicking)),
        Sessions::with_device(&store, EUI, Box::new(taken)),
        put(&store, session(1)),
    );
    assert_eq!(first.unwrap_err().to_string(), "store: the decision panicked");
    assert!(second.unwrap_err().0.contains("UNIQUE"));
    let () = third;
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [session(1)]);
    assert_eq!(store.sessions_of(DevEui::from_msb([7; 8])).await.unwrap(), []);
    assert_eq!(store.stats().failed, 2);
}

/// As if the disk had room for no more than so many pages.
async fn limit(store: &Store, pages: u32) {
    let set = move |db: &writer::Db<'_>| {
        Ok(db.sql.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?)
    };
    store.queue.look(set).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_an_error_for_the_batch_and_not_the_end() {
    let (_folder, store) = fresh();
    limit(&store, 1).await;
    let many = |sessions: &mut Vec<Session>| {
        sessions.extend((0..1000).map(session));
        write(Commit::Durable)
    };
    let error = Sessions::with_device(&store, EUI, Box::new(many)).await.unwrap_err();
    assert!(error.0.contains("full"), "{error}");
    limit(&store, 1_000_000).await;
    put(&store, session(1)).await;
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [session(1)]);
}

#[tokio::test]
async fn jobs_that_queue_are_committed_together() {
    let (_folder, store) = fresh();
    let before = store.stats();
    let take = |id: u64| {
        let session = Session { dev_eui: DevEui::from_msb(id.to_be_bytes()), ..session(id) };
        let decide = move |sessions: &mut Vec<Session>| {
            sessions.push(session.clone());
            write(Commit::Durable)
        };
        Sessions::with_device(&store, DevEui::from_msb(id.to_be_bytes()), Box::new(decide))
    };
    for taken in futures_util::future::join_all((0..200).map(take)).await {
        taken.unwrap();
    }
    let after = store.stats();
    assert_eq!(after.jobs - before.jobs, 200);
    assert!(after.commits - before.commits <= 10, "{} commits", after.commits - before.commits);
    let (decide, slot) = decided(|sessions: &mut Vec<Session>| (sessions.len(), write(Commit::Nothing)));
    store.with_dev_addr(ADDR, Box::new(decide)).await.unwrap();
    assert_eq!(outcome(&slot).unwrap(), 200);
}

#[tokio::test]
async fn a_caller_who_gives_up_does_not_stop_the_work() {
    let (_folder, store) = fresh();
    let mut abandoned = Box::pin(put(&store, session(1)));
    // polled once: handed over
    assert!(futures_util::poll!(abandoned.as_mut()).is_pending());
    drop(abandoned);
    assert_eq!(store.sessions_of(EUI).await.unwrap(), [session(1)]);
}

#[tokio::test(start_paused = true)]
async fn lazy_counters_reach_the_disk_within_30_seconds() {
    let (_folder, store) = fresh();
    put(&store, session(1)).await;
    let before = store.stats();
    uplink(&store, 1, Commit::Lazy, false).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    uplink(&store, 2, Commit::Lazy, false).await;
    assert_eq!(store.stats().commits, before.commits);
    tokio::time::sleep(Duration::from_millis(9_900)).await;
    let after = store.stats();
    assert_eq!((after.commits - before.commits, after.pushes), (1, 1));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(store.stats(), after, "the push served both, and nothing polls the disk");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_reaches_the_disk_within_a_second_and_an_answered_one_need_not() {
    let (_folder, store) = fresh();
    put(&store, session(u64::MAX)).await;
    uplink(&store, 1, Commit::Lazy, true).await;
    store.forwarded(forward_key(1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(store.stats().pushes, 0);
    uplink(&store, 2, Commit::Lazy, true).await;
    tokio::time::sleep(Duration::from_millis(950)).await;
    assert_eq!(store.stats().pushes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_push_that_fails_is_tried_again_and_does_not_spin() {
    let (_folder, store) = fresh();
    put(&store, session(1)).await;
    uplink(&store, 1, Commit::Lazy, false).await;
    let write = |sql: &'static str| {
        let work = move |db: &writer::Db<'_>| {
            db.sql.execute_batch(sql)?;
            Ok(((), Done { harmless: true, ..Done::new(Commit::Lazy) }))
        };
        store.queue.run(false, work)
    };
    // what SQLite looks at when it commits
    let orphan = "CREATE TABLE parents (id INTEGER PRIMARY KEY);
        CREATE TABLE children (parent REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
        INSERT INTO children VALUES (1)";
    write(orphan).await.unwrap();
    tokio::time::sleep(Duration::from_millis(39_500)).await;
    assert_eq!(store.stats().pushes, 11);
    write("INSERT INTO parents VALUES (1)").await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(store.stats().pushes, 12);
    assert_eq!(store.sessions_of(EUI).await.unwrap()[0].fcnt_up, Some(1), "what was held is still there");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_1024_frames_are_lazy() {
    let (_folder, store) = fresh();
    let fill = |sessions: &mut Vec<Session>| {
        sessions.extend((0..256).map(session));
        write(Commit::Durable)
    };
    store.with_dev_addr(ADDR, Box::new(fill)).await.unwrap();
    let before = store.stats();
    for fcnt in 1..=3 {
        uplink(&store, fcnt, Commit::Lazy, false).await;
    }
    let after = store.stats();
    assert_eq!((after.uplinks, after.commits), (768, before.commits));
    uplink(&store, 4, Commit::Lazy, false).await;
    assert_eq!(store.stats().commits - before.commits, 1);
}

#[tokio::test(start_paused = true)]
async fn uplinks_that_are_answered_write_nothing_until_the_bounds_are_reached() {
    let (folder, store) = fresh();
    put(&store, session(u64::MAX)).await;
    let log = || folder.path().join("data/roamgate.db-wal").metadata().unwrap().len();
    let (before, length) = (store.stats(), log());
    for fcnt in 0..1000 {
        uplink(&store, fcnt, Commit::Lazy, true).await;
        store.forwarded(forward_key(fcnt)).await.unwrap();
    }
    let after = store.stats();
    assert_eq!((after.commits - before.commits, after.rows - before.rows), (0, 3000));
    assert_eq!((log(), after.reruns), (length, 0));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(store.stats().commits - before.commits, 1);
    assert!(log() - length < 64 << 10, "{} bytes", log() - length);
}

#[tokio::test]
async fn the_log_stays_short() {
    let folder = TempDir::new().unwrap();
    let store = open_with(&folder, Durability::Strict);
    put(&store, session(u64::MAX)).await;
    for fcnt in 0..2000 {
        uplink(&store, fcnt, Commit::Lazy, true).await;
        store.forwarded(forward_key(fcnt)).await.unwrap();
    }
    let stats = store.stats();
    assert!(stats.commits == 4001 && stats.checkpoints >= 1, "{stats:?}");
    let log = folder.path().join("data/roamgate.db-wal").metadata().unwrap().len();
    assert!(log < 5 << 20, "{log} bytes");
}

/// Where SQLite ends the transaction, what was held goes with it, as in a power cut; what was durable stays, and so does the store.
#[tokio::test]
async fn a_disk_that_is_full_takes_what_was_held_and_no_more() {
    let (_folder, store) = fresh();
    put(&store, session(1)).await;
    uplink(&store, 1, Commit::Durable, false).await;
    uplink(&store, 2, Commit::Lazy, false).await;
    limit(&store, 1).await;
    let many = |sessions: &mut Vec<Session>| {
        sessions.extend((2..1000).map(session));
        write(Commit::Durable)
    };
    Sessions::with_device(&store, EUI, Box::new(many)).await.unwrap_err();
    limit(&store, 1_000_000).await;
    let stored = || async {
        store.sessions_of(EUI).await.unwrap().into_iter().map(|of| of.fcnt_up).collect::<Vec<_>>()
    };
    assert_eq!(stored().await, [Some(1)]);
    uplink(&store, 3, Commit::Lazy, false).await;
    store.flush().await.unwrap();
    assert_eq!(stored().await, [Some(3)]);
}

#[tokio::test]
async fn a_runtime_that_ends_leaves_what_was_held_on_the_disk() {
    let folder = TempDir::new().unwrap();
    let config = config(&folder);
    let work = move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let store = Store::open(&config, Clock::system()).unwrap();
            put(&store, session(1)).await;
            uplink(&store, 7, Commit::Lazy, false).await;
        });
    };
    std::thread::spawn(work).join().unwrap();
    assert_eq!(open(&folder).sessions_of(EUI).await.unwrap()[0].fcnt_up, Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_durable_decision_pushes_what_it_rests_on() {
    let (_folder, store) = fresh();
    put(&store, session(1)).await;
    uplink(&store, 1, Commit::Lazy, false).await;
    let before = store.stats().commits;
    store.with_dev_addr(ADDR, Box::new(|_| write(Commit::Durable))).await.unwrap();
    assert_eq!(store.stats().commits - before, 1);
    store.with_dev_addr(ADDR, Box::new(|_| write(Commit::Durable))).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.stats().commits - before, 1, "nothing left to push");
    uplink(&store, 2, Commit::Lazy, false).await;
    store.flush().await.unwrap();
    assert_eq!(store.stats().commits - before, 2);
}

#[tokio::test]
async fn strict_waits_for_the_disk_every_time() {
    let folder = TempDir::new().unwrap();
    let store = open_with(&folder, Durability::Strict);
    put(&store, session(u64::MAX)).await;
    uplink(&store, 1, Commit::Lazy, true).await;
    store.forwarded(forward_key(1)).await.unwrap();
    let stats = store.stats();
    assert_eq!((stats.commits, stats.reruns), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn paused_time_stands_still_while_the_store_works() {
    let (_folder, store) = fresh();
    let start = clock().now();
    let alarm = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
    });
    put(&store, session(u64::MAX)).await;
    for fcnt in 0..300 {
        uplink(&store, fcnt, Commit::Durable, true).await;
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    alarm.await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_millis(1));
}
