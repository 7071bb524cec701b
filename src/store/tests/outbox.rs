//! Events that wait for applications.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::application::outbox::{Event, Kind, Letter, Outbox, Postman, Sink, Waiting};
use crate::hns::{Device, Devices, Notice};

fn event(n: u32) -> Event {
    Event { dev_eui: EUI, kind: Kind::Up, body: format!("{{\"n\":{n}}}") }
}

async fn fill(store: &Store, sinks: &[Sink], numbers: std::ops::Range<u32>, most: u32) -> u64 {
    let mut dropped = 0;
    for n in numbers {
        dropped += store.put(sinks.to_vec(), event(n), most).await.unwrap();
    }
    dropped
}

async fn line(store: &Store, sink: Sink) -> Vec<Event> {
    store.first(sink, 100).await.unwrap().into_iter().map(|waiting| waiting.event).collect()
}

#[tokio::test]
async fn events_wait_in_order_for_each_sink_and_across_a_restart() {
    let (folder, store) = fresh();
    fill(&store, &[Sink::Mqtt, Sink::Http], 0..5, 100).await;
    let first: Vec<Waiting> = store.first(Sink::Mqtt, 3).await.unwrap();
    assert_eq!(first.len(), 3);
    store.taken(Sink::Mqtt, first[1].id).await.unwrap();
    store.close().await.unwrap();
    let store = open(&folder);
    assert_eq!(line(&store, Sink::Mqtt).await, [event(2), event(3), event(4)]);
    assert_eq!(line(&store, Sink::Http).await.len(), 5, "one sink's success is not another's");
    fill(&store, &[Sink::Mqtt], 5..6, 100).await;
    assert_eq!(line(&store, Sink::Mqtt).await.last(), Some(&event(5)));
}

#[tokio::test]
async fn too_many_waiting_events_drop_the_oldest_and_count_them() {
    let (_folder, store) = fresh();
    assert_eq!(fill(&store, &[Sink::Mqtt], 0..12, 10).await, 2);
    assert_eq!(line(&store, Sink::Mqtt).await, (2..12).map(event).collect::<Vec<_>>());
    assert_eq!(store.stats().outbox_dropped, 2);
    // a smaller bound holds from the next event on
    assert_eq!(fill(&store, &[Sink::Mqtt], 12..13, 3).await, 8);
    assert_eq!(line(&store, Sink::Mqtt).await, (10..13).map(event).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_waits_reaches_the_disk_within_a_second_and_a_delivered_one_need_not() {
    let (_folder, store) = fresh();
    fill(&store, &[Sink::Mqtt], 0..1, 10).await;
    let waiting = store.first(Sink::Mqtt, 1).await.unwrap();
    store.taken(Sink::Mqtt, waiting[0].id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(store.stats().pushes, 0);
    fill(&store, &[Sink::Mqtt], 1..2, 10).await;
    tokio::time::sleep(Duration::from_millis(950)).await;
    assert_eq!(store.stats().pushes, 1);
}

/// Writes every notice as its text; what was posted is counted.
#[derive(Default)]
struct Scribe(AtomicU64);

impl Postman for Scribe {
    fn letter(&self, device: &Device, notice: &Notice) -> Letter {
        let body = format!("{} of {}", device.queue.len(), notice_item(notice));
        let event = Event { dev_eui: device.dev_eui, kind: Kind::Ack, body };
        Letter { sinks: vec![Sink::Mqtt, Sink::Http], event, most: 10 }
    }
    fn posted(&self, _dropped: u64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn notice_item(notice: &Notice) -> &str {
    match notice {
        Notice::Expired { item } => item,
        other => panic!("{other:?}"),
    }
}

fn expire(device: &mut Option<Device>) -> (Commit, Vec<Notice>) {
    let gone = device.as_mut().unwrap().queue.remove(0);
    (Commit::Durable, vec![Notice::Expired { item: gone.id }])
}

#[tokio::test]
async fn what_becomes_of_a_downlink_reaches_the_outbox_with_it_or_not_at_all() {
    let (folder, store) = fresh();
    store.add_device(new_device()).await.unwrap();
    let item = |id: &str| QueueItem {
        id: id.into(),
        f_port: 1,
        payload: vec![1],
        confirmed: false,
        sent_as: None,
        attempts: 0,
        expires: Some(5),
    };
    let fill = move |device: &mut Option<Device>| {
        device.as_mut().unwrap().queue = ["a", "b"].map(item).to_vec();
        Commit::Durable
    };
    Devices::with_device(&store, EUI, Box::new(fill)).await.unwrap();
    let scribe = Arc::new(Scribe::default());
    let told = store.telling(scribe.clone());
    told.telling(EUI, Box::new(expire)).await.unwrap();
    // a decision that fails after it has spoken leaves neither: here it renames the device, which no decision may
    let confused = |device: &mut Option<Device>| {
        let decided = expire(device);
        device.as_mut().unwrap().dev_eui = DevEui::from_msb([9; 8]);
        decided
    };
    told.telling(EUI, Box::new(confused)).await.unwrap_err();
    assert_eq!(scribe.0.load(Ordering::SeqCst), 1);
    // a crash right after: the files as they lie there, nothing closed
    let crashed = TempDir::new().unwrap();
    std::fs::create_dir(crashed.path().join("data")).unwrap();
    for file in std::fs::read_dir(folder.path().join("data")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), crashed.path().join("data").join(file.file_name())).unwrap();
    }
    let store = open(&crashed);
    for sink in [Sink::Mqtt, Sink::Http] {
        let bodies: Vec<String> = line(&store, sink).await.into_iter().map(|event| event.body).collect();
        assert_eq!(bodies, ["1 of a"]);
    }
    let left: Vec<String> =
        store.device(EUI).await.unwrap().unwrap().queue.into_iter().map(|item| item.id).collect();
    assert_eq!(left, ["b"]);
}
