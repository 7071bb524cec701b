//! The crash proof: a node is killed, or its power is cut, at random moments of its traffic, again and again on one
//! store, and the world around it looks whether the promises held. docs/crashes.md tells how, and what was seen.

mod child;
mod disk;
mod house;
mod windows;
mod world;

use std::time::Duration;

use house::{Crash, House, Mode};
use windows::Traffic;

/// The node itself; does nothing unless a house started it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_is_a_node_until_it_is_killed() {
    child::live().await;
}

/// Rounds of each kind and mode.
fn rounds() -> usize {
    std::env::var("ROAMGATE_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(10)
}

async fn survives(mode: Mode, crash: Crash) {
    let mut house = House::new(mode, crash).await;
    for _ in 0..rounds() {
        house.round().await;
        house.must_be_innocent();
    }
    house.settles().await;
    house.must_be_innocent();
    house.tells();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_survives_kill_9() {
    survives(Mode::Strict, Crash::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_survives_power_cuts() {
    survives(Mode::Strict, Crash::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn balanced_survives_kill_9_within_its_windows() {
    survives(Mode::Balanced, Crash::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn balanced_survives_power_cuts_within_its_windows() {
    survives(Mode::Balanced, Crash::Cut).await;
}

/// The judge can say guilty: a disk that forgets what was synced is found out in a few rounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_ignores_syncs_is_found_out() {
    let mut house = House::new(Mode::Strict, Crash::Cut).await;
    house.forgetful = true;
    for _ in 0..40 {
        house.round().await;
        if house.is_guilty() {
            return;
        }
    }
    panic!("nobody noticed that nothing was ever on the disk");
}

/// The same for the kills: a store that is put back to what it was a round ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_went_back_is_found_out() {
    let mut house = House::new(Mode::Strict, Crash::Kill).await;
    for _ in 0..40 {
        let before = house.image();
        house.round_for(Duration::from_millis(60)).await;
        house.must_be_innocent();
        house.lays(&before);
        house.inspects().await;
        if house.is_guilty() {
            return;
        }
    }
    panic!("nobody noticed that the store went back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_survives_power_cuts_while_it_is_made() {
    let mut house = House::new(Mode::Strict, Crash::Cut).await;
    for _ in 0..rounds() {
        house.is_born().await;
        house.must_be_innocent();
    }
}

/// Whether all is asked for, minutes of it.
fn in_full() -> bool {
    std::env::var_os("ROAMGATE_CRASH_ROUNDS").is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_uplinks_risks_1024_counters_at_most() {
    let time = Duration::from_secs(if in_full() { 15 } else { 4 });
    let flood = Traffic { pause: Duration::ZERO, time, sink_is_away: false };
    let worst = windows::measured("flood", flood).await;
    // Some is at stake indeed: this is not `strict`.
    assert!(worst.counters > 50, "{worst:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trickle_of_uplinks_risks_30_seconds_at_most() {
    let time = Duration::from_secs(if in_full() { 70 } else { 3 });
    // So slow that the log is not copied into the database before, which would make it durable too.
    let pause = Duration::from_millis(if in_full() { 4000 } else { 400 });
    let trickle = Traffic { pause, time, sink_is_away: false };
    let worst = windows::measured("trickle", trickle).await;
    assert!(worst.counters_age > Duration::from_secs(if in_full() { 25 } else { 1 }), "{worst:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_is_away_risks_one_second_at_most() {
    let time = Duration::from_secs(if in_full() { 15 } else { 4 });
    let away = Traffic { pause: Duration::from_millis(60), time, sink_is_away: true };
    let worst = windows::measured("application away", away).await;
    assert!(worst.undelivered_age > Duration::from_millis(500), "{worst:?}");
}
