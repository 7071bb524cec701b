//! Events that wait for applications.

use super::*;
use crate::application::outbox::{Event, Kind, Outbox, Sink, Waiting};

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
