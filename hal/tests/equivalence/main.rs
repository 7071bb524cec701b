//! The driver against recordings of the reference: the same effects on the chip, and the same values received.

#[path = "../../examples/replay/case.rs"]
mod case;
mod compare;
#[path = "../../examples/replay/play.rs"]
mod play;
#[path = "../../examples/tables/table.rs"]
mod table;

use serde_json::Value;

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What differs between a recorded result and ours; levels are single precision there.
fn unequal(recorded: &Value, found: &Value, place: &str) -> Vec<String> {
    match (recorded, found) {
        (Value::Object(recorded), Value::Object(_)) => recorded
            .iter()
            .flat_map(|(name, value)| unequal(value, &found[name], &format!("{place}.{name}")))
            .collect(),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).flat_map(|(a, b)| unequal(a, b, place)).collect()
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() => {
            let far = (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() > 0.01;
            far.then(|| format!("{place}: {b}, wanted {a}")).into_iter().collect()
        }
        _ if recorded == found => Vec::new(),
        _ => vec![format!("{place}: {found}, wanted {recorded}")],
    }
}

#[track_caller]
fn same_as_recorded(name: &str) {
    let case: Value = serde_json::from_str(&fixture(&format!("traces/{name}.json"))).unwrap();
    let played = play::play(&case).unwrap();
    assert_eq!(played.refused, Vec::<String>::new());
    let found = compare::differences(&fixture(&format!("traces/{name}.trace")), &played.trace.join("\n"));
    assert!(found.is_empty(), "{name}: {} differences:\n{}", found.len(), found.join("\n"));
    for (step, result) in case["steps"].as_array().unwrap().iter().zip(&played.results) {
        if step.get("result").is_some() {
            let place = result["step"].as_str().unwrap();
            assert_eq!(unequal(&step["result"], &result["result"], place), Vec::<String>::new());
        }
    }
}

#[test]
fn eu868_is_as_recorded() {
    same_as_recorded("eu868_sx1250");
}

#[test]
fn as923_is_as_recorded() {
    same_as_recorded("as923_sx1250");
}

#[test]
fn sx1257_radios_are_calibrated_as_recorded_with_the_other_radio_and_alone() {
    same_as_recorded("sx1257_full_duplex");
    same_as_recorded("sx1257_alone");
}

#[test]
fn fine_time_stamps_are_as_recorded() {
    same_as_recorded("sx1303_fine");
}

#[test]
fn listening_before_talk_and_the_spectral_scan_are_as_recorded() {
    same_as_recorded("sx1261");
}

#[test]
fn every_kind_of_transmission_is_as_recorded() {
    same_as_recorded("transmissions");
}

#[test]
fn the_comparison_sees_a_changed_register_an_order_and_a_wait() {
    let trace = fixture("traces/eu868_sx1250.trace");
    assert_eq!(compare::differences(&trace, &trace), Vec::<String>::new());
    let changed = |from: &str, to: &str| {
        assert!(trace.contains(from), "{from}");
        compare::differences(&trace, &trace.replacen(from, to, 1))
    };
    assert!(!changed("00d82634", "00d82635").is_empty());
    assert!(!changed("00d7c001", "00d7c005").is_empty());
    assert!(!changed("{\"wait_us\":500000}", "{\"wait_us\":400000}").is_empty());
    assert!(!changed("00d78980", "00d78981").is_empty());
}

#[test]
fn tables_are_recomputed_as_they_are() {
    for name in table::NAMES {
        let ending = if name == "gps" { "jsonl" } else { "csv" };
        let wanted = fixture(&format!("tables/{name}.{ending}"));
        let found = table::recompute(name, &wanted).unwrap();
        let line = wanted.lines().zip(found.lines()).find(|(wanted, found)| wanted != found);
        assert_eq!(line, None, "{name}");
        assert_eq!(wanted, found, "{name}");
    }
}

/// The start that everything is measured by: how long it sleeps, and what an empty poll moves.
#[test]
fn the_start_sleeps_less_than_the_reference_and_polls_are_small() {
    let case: Value = serde_json::from_str(&fixture("traces/eu868_sx1250.json")).unwrap();
    let played = play::play(&case).unwrap();
    let until_receive = played.trace.iter().take_while(|line| !line.contains("2:receive"));
    let slept: u64 = until_receive
        .filter_map(|line| match sx1302::bus::Event::parse(line) {
            Some(sx1302::bus::Event::Wait(us)) => Some(u64::from(us)),
            _ => None,
        })
        .sum();
    assert!(slept < 1_300_000, "{slept} us");
}
