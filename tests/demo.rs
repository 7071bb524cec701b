//! `roamgate demo` as a person or a script sees it: the program itself, over its arguments, its output and
//! its exit code.

use std::process::{Command, Output};

use serde_json::Value;

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roamgate"))
        .arg("demo")
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .expect("the program starts")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        panic!("{error}\n{out}\n{err}")
    })
}

#[test]
fn the_three_scenarios_go_as_in_the_demonstration() {
    let output = demo(&["--json"]);
    let told = json(&output);
    assert_eq!((output.status.code(), &told["right"]), (Some(0), &Value::Bool(true)), "{told:#}");
    let scenarios = told["scenarios"].as_array().unwrap();
    let joined: Vec<(u64, bool)> = scenarios
        .iter()
        .map(|s| (s["scenario"].as_u64().unwrap(), s["join"]["ok"].as_bool().unwrap()))
        .collect();
    assert_eq!(joined, [(1, true), (2, false), (3, true)]);
    for story in [&scenarios[0], &scenarios[2]] {
        let join = &story["join"];
        let ms = |name: &str| join[name].as_f64().unwrap();
        let parts = ms("airtime_up_ms") + 5000.0 + ms("airtime_down_ms");
        assert!((ms("device_time_ms") - parts).abs() <= 20.0, "{join:#}");
        assert!(ms("lead_ms") >= 4000.0, "{join:#}");
        assert_eq!(story["data"]["acked"], true);
        assert_eq!(story["data"]["downlinks"][0][1], "window open");
    }
}

#[test]
fn without_the_homes_join_server_scenario_3_fails_and_says_why() {
    let output = demo(&["--json", "--scenario", "3", "--unplug", "home-js"]);
    let told = json(&output);
    assert_eq!((output.status.code(), &told["right"]), (Some(1), &Value::Bool(false)), "{told:#}");
    let story = &told["scenarios"][0];
    assert_eq!(story["join"]["ok"], false);
    let why = story["why"].as_str().unwrap_or_else(|| panic!("nobody said why: {story:#}"));
    assert!(why.contains("0000000000000001"), "{why}");
    assert!(why.contains("cannot reach"), "{why}");
}

#[test]
fn the_page_fits_100_columns_and_has_no_colours_where_nobody_sees_them() {
    let output = demo(&["--scenario", "2"]);
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{page}");
    assert!(page.contains("device does not exist") && page.contains("as the demonstration did"), "{page}");
    assert!(!page.contains('\x1b'));
    let widest = page.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?}\n{page}");
}

#[test]
fn wrong_use_is_said_with_exit_code_2() {
    assert_eq!(demo(&["--scenario", "4"]).status.code(), Some(2));
}
