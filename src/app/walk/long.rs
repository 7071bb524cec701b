//! Long walks: ten thousand frames over a line that loses messages between hotspots that restart, and a day of lifetimes with
//! clocks that jump.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::usage::Way;

/// What the line does to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives, and its answer.
    Fine,
    /// It never arrives.
    Lost,
    /// It is acted on, and nobody hears of it.
    Unanswered,
}

/// A line that loses some messages, the same ones in every run.
pub(super) struct Line {
    dice: StdRng,
    share: f64,
    /// Messages that were acted on and whose answers got lost.
    unanswered: Vec<&'static str>,
    lost: usize,
}

impl Line {
    fn new(seed: u64, share: f64) -> Line {
        Line { dice: StdRng::seed_from_u64(seed), share, unanswered: Vec::new(), lost: 0 }
    }

    pub(super) fn fate(&mut self, message: &'static str) -> Fate {
        if !self.dice.random_bool(self.share) {
            return Fate::Fine;
        }
        match self.dice.random_bool(0.5) {
            true => {
                self.lost += 1;
                Fate::Lost
            }
            false => {
                self.unanswered.push(message);
                Fate::Unanswered
            }
        }
    }
}

impl Street {
    fn line(&self, share: f64) {
        *self.line.lock().unwrap() = Some(Line::new(11, share));
    }

    /// Messages that got lost so far: on their way, and on the way back.
    fn trouble(&self) -> usize {
        let line = self.line.lock().unwrap();
        line.as_ref().map_or(0, |line| line.lost + line.unanswered.len())
    }

    fn unanswered(&self, message: &str) -> usize {
        let line = self.line.lock().unwrap();
        line.as_ref().map_or(0, |line| line.unanswered.iter().filter(|other| **other == message).count())
    }
}

impl Hotspot {
    /// Frames on record that it has carried, or had carried for it, and their bytes.
    fn on_record(&self, for_us: bool, way: Way) -> (usize, usize) {
        let records = if for_us { &self.memory.for_us } else { &self.memory.carried };
        let records = records.lock().unwrap();
        let of = records.iter().filter(|(_, _, other, _)| *other == way);
        of.fold((0, 0), |(frames, all), (.., bytes)| (frames + 1, all + bytes))
    }

    /// What a running node does now and then.
    async fn tends(&self) {
        self.house.sns.resend_waiting().await.unwrap();
        self.house.sns.stop_ended().await.unwrap();
        self.house.fns.tend_contexts().await.unwrap();
        self.house.fns.send_parked().await.unwrap();
    }
}

/// A network restarts as after a power cut: what was not on disk is gone.
async fn restarted(street: &Arc<Street>, hotspot: Hotspot, net_id: NetId, rules: &str) -> Hotspot {
    hotspot_on(street, net_id, rules, false, hotspot.memory.clone()).await
}

/// The frames of one device, whose payloads are of any length: what is on record can be told by number and bytes.
async fn ten_thousand(rules: &str) {
    const FRAMES: u32 = 10_000;
    let street = Arc::new(Street::default());
    let mut away = hotspot(&street, AWAY, rules, false).await;
    let mut home = hotspot(&street, HOME, rules, false).await;
    let mut device = Device::new();
    home.add(&device);
    join(&mut away, &mut device).await;
    // the first frame makes the device known: before, nobody would keep its frames
    away.hears(&device.up(false, false, &[], b"0")).await;
    street.line(0.05);
    let (mut dice, mut restarts, mut bytes, mut seen) = (StdRng::seed_from_u64(5), 0, 1, 0);
    for frame in 1..FRAMES {
        let payload = vec![7; dice.random_range(0..40)];
        bytes += payload.len();
        if dice.random_bool(0.2) {
            home.queue(b"down", false);
        }
        let phy = device.up(dice.random_bool(0.5), false, &[], &payload);
        away.hears(&phy).await;
        while away.transmitted().is_some() {}
        tokio::time::sleep(Duration::from_secs(5)).await;
        // sometimes it is a power cut that took the message
        let trouble = street.trouble();
        if trouble > seen && restarts < 20 && frame > (restarts + 1) * (FRAMES / 22) {
            restarts += 1;
            if restarts % 2 == 0 {
                away = restarted(&street, away, AWAY, rules).await;
            } else {
                home = restarted(&street, home, HOME, rules).await;
            }
        }
        seen = trouble;
        if frame % 12 == 0 {
            home.tends().await;
            away.tends().await;
        }
    }
    assert_eq!(restarts, 20);
    let lost = street.trouble();
    assert!(lost > 500, "{lost} messages were lost");
    // the line is mended, and what waits goes
    if let Some(line) = street.line.lock().unwrap().as_mut() {
        line.share = 0.0;
    }
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        home.tends().await;
        away.tends().await;
    }
    assert_eq!((away.house.fns.parked(), home.memory.forward.lock().unwrap().len()), (0, 0));

    // every frame is at home once, and on record at both
    assert_eq!(home.on_record(true, Way::Up), (FRAMES as usize, bytes));
    assert_eq!(away.on_record(false, Way::Up), (FRAMES as usize, bytes));
    // a downlink whose XmitDataAns got lost was sent, and its home does not know it
    let (sent, known) = (away.on_record(false, Way::Down).0, home.on_record(true, Way::Down).0);
    let explained = street.unanswered("XmitDataReq");
    assert!(
        known > 1_000 && sent >= known && sent - known <= explained,
        "{known} of {sent}, {explained} explained"
    );
    assert_eq!(home.memory.sessions.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_frames_over_a_bad_line_with_restarts_are_on_record_once_each() {
    ten_thousand(ROAMING).await;
}

#[tokio::test(start_paused = true)]
async fn and_likewise_by_contexts() {
    ten_thousand("[default]\npassive = { start = true, activation = true, lifetime = \"30m\" }").await;
}

#[tokio::test(start_paused = true)]
async fn a_day_of_lifetimes_and_jumping_clocks_leaves_no_context_behind() {
    const RULES: &str = "[default]\npassive = { start = true, activation = true, lifetime = \"10m\" }";
    let street = Arc::new(Street::default());
    let mut away = hotspot(&street, AWAY, RULES, false).await;
    let home = hotspot(&street, HOME, RULES, false).await;
    let mut device = Device::new();
    home.add(&device);
    join(&mut away, &mut device).await;
    let mut dice = StdRng::seed_from_u64(3);
    let begun = Instant::now();
    let (mut frames, mut renewed) = (0, 0);
    while begun.elapsed() < Duration::from_secs(24 * 3600) {
        // often enough to renew, or so rarely that it has ended
        let pause =
            if dice.random_bool(0.8) { dice.random_range(30..590) } else { dice.random_range(700..2400) };
        for _ in 0..pause / 60 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            home.tends().await;
            away.tends().await;
        }
        tokio::time::sleep(Duration::from_secs(pause % 60)).await;
        match dice.random_range(0..40) {
            0 => join(&mut away, &mut device).await,
            1 => away.clock.move_wall(jiff::SignedDuration::from_hours(2)),
            2 => away.clock.move_wall(jiff::SignedDuration::from_hours(-2)),
            3 => home.clock.move_wall(jiff::SignedDuration::from_hours(2)),
            4 => home.clock.move_wall(jiff::SignedDuration::from_hours(-2)),
            _ => {}
        }
        street.messages();
        away.hears(&device.up(false, false, &[], b"21.5")).await;
        frames += 1;
        renewed += usize::from(street.messages().contains(&"PRStartReq"));
        assert_eq!(home.delivered(), Some(device.fcnt_up - 1), "frame {frames} is at home");
        assert!(away.house.fns.contexts() <= 2, "one, or one of a join that it had before");
    }
    assert!(frames > 100 && renewed > 20 && renewed < frames, "{renewed} of {frames}");
    // the device falls silent, and the clocks are right again at last
    for hotspot in [&home, &away] {
        let wrong = hotspot.clock.wall() - "2026-11-20T10:00:00Z".parse::<jiff::Timestamp>().unwrap();
        let right = jiff::SignedDuration::try_from(hotspot.epoch.elapsed()).unwrap();
        hotspot
            .clock
            .move_wall(right - wrong.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).unwrap());
    }
    for _ in 0..3 * 60 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        home.tends().await;
        away.tends().await;
    }
    assert_eq!((away.house.fns.contexts(), away.memory.contexts.lock().unwrap().len()), (0, 0));
    assert_eq!(home.memory.visits.lock().unwrap().len(), 0);
    assert_eq!(home.memory.sessions.lock().unwrap().len(), 1);
    assert_eq!((away.house.fns.parked(), home.memory.forward.lock().unwrap().len()), (0, 0));
    // it began to roam (a join begins anew) and it has ended
    let mut seen: Vec<bool> = away.memory.roams.lock().unwrap().iter().map(|(.., active)| *active).collect();
    seen.dedup();
    let expected: Vec<bool> = (0..seen.len()).map(|n| n % 2 == 0).collect();
    assert!(seen == expected && seen.len().is_multiple_of(2) && seen.len() > 10, "{seen:?}");
    assert_eq!(away.on_record(false, Way::Up).0, frames);
}
