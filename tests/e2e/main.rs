//! The whole program through its public surfaces: two hotspots of a federation, a device that nobody here
//! wrote, real frames' airtimes, real sockets, TLS, DNSSEC and SQLite.
//!
//! A story spends nearly all its time waiting for receive windows, so this binary has a runner of its own
//! which tells many at once, each on its own thread with its own federation.

mod abp;
mod away;
mod chip;
mod class_c;
mod contexts;
mod federation;
mod handover;
mod heads;
mod home;
mod keys;
mod lasting;
#[path = "../support/lorawan11.rs"]
mod lorawan11;
mod newer;
mod nuisance;
mod partner;
mod regions;
mod relay;
mod restart;
mod trust;
mod v11;
mod versions;
mod windows;

use std::collections::VecDeque;
use std::future::Future;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use roamgate::clock::Clock;

/// Stories told at once. They wait for the air: all together they take some fifteen seconds of a processor.
const AT_ONCE: usize = 24;
/// One begins so long after the other: a federation that is made (keys, a signed zone, handshakes) has the processor nearly to itself,
/// or joins would not be answered in their five seconds on a machine that has more to do.
const APART: Duration = Duration::from_millis(200);
/// No story is longer.
const LONGEST: Duration = Duration::from_secs(90);

struct Story {
    name: &'static str,
    tell: fn(),
}

macro_rules! stories {
    // the longest first: the others are told meanwhile
    ($($room:ident: $($name:ident)+;)+) => {
        const STORIES: &[Story] =
            &[$($(Story { name: concat!(stringify!($room), "::", stringify!($name)), tell: || tell($room::$name()) },)+)+];
    };
}

stories! {
    handover:
        the_visited_hotspot_serves_a_device_until_it_is_home
        a_rejoin_moves_a_device_there_and_back
        a_rejoin_gives_new_keys_and_recovers_a_lost_session
        a_rejoin_of_type_2_goes_home_through_who_forwards;
    home:
        a_1_0_2_device_joins_twice_and_talks
        a_1_0_3_device_joins_twice_and_talks
        a_1_0_4_device_joins_twice_and_talks
        downlinks_come_in_order_and_a_confirmed_one_waits_for_its_acknowledgement;
    away:
        a_device_joins_and_downlinks_ride_in_the_answers
        a_device_joins_and_downlinks_come_by_xmitdatareq
        a_visited_node_that_nobody_can_reach_serves_a_visitor
        a_device_that_joined_at_home_talks_away_at_once
        a_device_that_both_hotspots_hear_is_one_device
        without_the_homes_join_server_nobody_joins_and_the_visited_node_says_why;
    v11:
        a_device_joins_twice_and_talks
        it_says_that_it_rekeyed_until_it_is_confirmed
        it_joins_away_and_downlinks_ride_in_the_answers
        it_joins_away_and_downlinks_come_by_xmitdatareq
        it_talks_in_us915_at_home_and_away
        what_it_repeats_on_another_channel_is_acknowledged_again
        a_join_accept_that_it_did_not_hear_leaves_its_session
        the_home_restarts_and_both_counters_go_on
        on_a_network_of_1_0_4_it_falls_back_until_the_network_speaks_1_1;
    keys:
        a_network_of_another_make_gets_its_join_and_its_application_the_key
        a_join_server_of_another_make_keeps_the_keys_of_our_device
        a_network_that_gets_another_net_id_keeps_its_devices;
    abp:
        a_personalised_device_talks_at_home_and_away_and_after_a_restart
        a_personalised_device_that_forgot_its_counter_waits_for_the_operator
        a_personalised_device_of_1_1_says_that_it_began_anew_and_becomes_class_c;
    class_c:
        a_downlink_needs_no_uplink_not_even_after_a_restart
        a_confirmed_downlink_whose_acknowledgement_is_lost_comes_again
        a_downlink_that_meets_an_uplink_in_the_air_arrives
        away_from_home_a_downlink_needs_no_uplink_either;
    nuisance:
        replayed_and_forged_frames_at_home_change_nothing
        replayed_and_forged_frames_away_change_nothing;
    heads:
        the_head_with_the_better_snr_carries_the_downlink
        a_head_that_dies_between_uplink_and_downlink_leaves_it_to_the_other
        the_nearest_head_is_busy_so_the_other_one_sends;
    chip:
        a_device_joins_and_talks_through_the_driver
        in_us915_too;
    restart:
        the_home_restarts_between_join_and_data
        the_visited_node_restarts_between_join_and_data
        frames_wait_for_a_home_that_is_away;
    regions:
        us915_at_home_in_one_sub_band
        an_old_device_is_told_its_sub_band_by_command
        us915_away_from_home
        a_device_of_an_eu868_home_roams_in_us915
        au915_at_home
        in865_at_home;
    lasting:
        an_uplink_counter_goes_past_16_bits_at_home_and_away
        a_1_0_3_device_that_lost_its_state_joins_again_at_once
        a_1_0_4_device_that_lost_its_state_is_forgiven_by_name;
    relay:
        two_hotspots_without_a_port_reach_each_other_through_a_front
        a_front_passes_on_to_whom_it_admits_and_says_why_it_does_not;
    versions:
        a_partner_is_asked_in_1_1_until_it_does_not_understand
        what_is_set_for_a_partner_stands
        two_hotspots_with_nsids_speak_1_1;
    windows:
        what_rx1_cannot_carry_goes_in_rx2
        a_downlink_that_no_window_took_waits_for_the_next_uplink
        two_devices_at_once_get_one_window_each;
    contexts:
        a_visitor_is_forwarded_by_its_context_until_that_ends
        a_context_outlives_restarts_and_a_home_that_forgot_it_is_asked_anew
        a_context_that_begins_with_data_carries_downlinks_by_xmitdatareq
        a_device_that_its_home_removes_or_calls_back_is_forwarded_no_longer
        a_forged_frame_does_not_leave_the_house_and_keks_that_differ_end_the_join
        a_home_of_another_make_has_its_context_and_keeps_it_from_others
        an_address_of_ours_or_of_somebody_else_makes_no_context;
    trust:
        a_certificate_of_another_root_ends_the_join
        a_home_with_a_certificate_of_another_root_is_not_asked
        an_expired_certificate_ends_the_join
        a_forged_zone_ends_the_join
        a_zone_that_fails_keeps_silent_or_denies_ends_the_join;
    partner:
        a_downlink_that_overtakes_its_answer_is_sent_in_rx1
        a_home_that_hangs_up_or_answers_something_else_ends_the_join_and_no_other;
}

fn tell(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        assert!(tokio::time::timeout(LONGEST, story).await.is_ok(), "not at its end after {LONGEST:?}");
    });
}

/// What of the usual test arguments means something here.
struct Arguments {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
    /// Nothing here is ignored or a benchmark.
    nothing: bool,
    at_once: usize,
}

impl Arguments {
    fn read(mut given: impl Iterator<Item = String>) -> Arguments {
        let mut read = Arguments {
            filters: Vec::new(),
            skip: Vec::new(),
            exact: false,
            list: false,
            nothing: false,
            at_once: AT_ONCE,
        };
        while let Some(argument) = given.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            let mut value = || value.clone().or_else(|| given.next()).unwrap_or_default();
            match name {
                "--exact" => read.exact = true,
                "--list" => read.list = true,
                "--ignored" | "--bench" => read.nothing = true,
                "--skip" => read.skip.push(value()),
                "--test-threads" => read.at_once = value().parse().unwrap_or(AT_ONCE).max(1),
                "--format" | "--color" | "--logfile" | "-Z" => drop(value()),
                _ if name.starts_with('-') => (),
                _ => read.filters.push(argument),
            }
        }
        read
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        !self.nothing
            && (self.filters.is_empty() || self.filters.iter().any(fits))
            && !self.skip.iter().any(fits)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::read(std::env::args().skip(1));
    let wanted: VecDeque<&Story> = STORIES.iter().filter(|story| arguments.wants(story.name)).collect();
    if arguments.list {
        wanted.iter().for_each(|story| println!("{}: test", story.name));
        return ExitCode::SUCCESS;
    }
    roamgate::tls::install_provider();
    println!("\nrunning {} tests", wanted.len());
    let (clock, all) = (Clock::system(), wanted.len());
    let (waiting, failed) = (Mutex::new(wanted), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for n in 0..arguments.at_once.min(all) {
            let (waiting, failed, clock) = (&waiting, &failed, &clock);
            scope.spawn(move || {
                std::thread::sleep(APART * n as u32);
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(story) = next else { break };
                    let began = clock.now();
                    let told = std::thread::Builder::new().name(story.name.into()).spawn(story.tell);
                    let right = told.expect("a thread").join().is_ok();
                    let took = clock.now().duration_since(began).as_secs_f64();
                    println!("test {} ... {} ({took:.1} s)", story.name, if right { "ok" } else { "FAILED" });
                    if !right {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(story.name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (verdict, right) = if failed.is_empty() { ("ok", true) } else { ("FAILED", false) };
    println!("\ntest result: {verdict}. {} passed; {} failed\n", all - failed.len(), failed.len());
    failed.iter().for_each(|name| println!("    {name}"));
    if right { ExitCode::SUCCESS } else { ExitCode::from(101) }
}
