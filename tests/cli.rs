//! The command line as a person or a script sees it: the program itself, its output and its exit codes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A port that the system chooses, so that tests run side by side.
const CONFIG: &str = "[[radio]]\nkind = \"semtech-udp\"\nlisten = \"127.0.0.1:0\"\n";
const KEY: &str = "2B7E151628AED2A6ABF7158809CF4F3C";
const DEVICE: &str = "0102030405060708";

fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roamgate"));
    command.current_dir(folder).args(arguments).env_remove("RUST_LOG").env_remove("JOURNAL_STREAM");
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    program(folder, arguments).stdin(Stdio::null()).output().expect("the program starts")
}

/// What it prints where all is well.
fn good(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Exit code and what it says where something is wrong.
fn bad(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = run(folder, arguments);
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success(), "{arguments:?} went well");
    (output.status.code().expect("no signal"), said)
}

/// `device add`, with the key on standard input.
fn add(folder: &Path) -> String {
    let arguments = ["device", "add", "-c", "r.toml", "--dev-eui", "01-02-03-04-05-06-07-08"];
    let mut child = program(folder, &arguments)
        .args(["--join-eui", "0000000000000001", "--app-key", "-", "--name", "cow 7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().expect("piped").write_all(format!("{KEY}\n").as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

/// A running daemon; killed if a test fails before it stops it.
struct Daemon {
    child: Child,
    greeting: String,
}

impl Daemon {
    fn start(folder: &Path) -> Daemon {
        let mut child = program(folder, &["run", "-c", "r.toml"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut greeting = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        while !greeting.contains("Ctrl-C stops") {
            let read = out.read_line(&mut greeting).expect("text");
            assert!(read > 0, "it ended: {greeting}");
        }
        Daemon { child, greeting }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().expect("kill").success());
    }

    /// SIGTERM, and the exit code.
    fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("r.toml"), CONFIG).expect("a file");
    folder
}

#[test]
fn a_device_lives_through_a_daemon_and_without_one() {
    let folder = folder();
    let at = folder.path();
    let added = add(at);
    assert!(added.contains("Added 0102030405060708 (cow 7)") && added.contains("when `roamgate run` runs"));
    assert!(!added.contains("2B7E"), "no key on the screen");

    let daemon = Daemon::start(at);
    assert!(daemon.greeting.contains("1 device is at home here"), "{}", daemon.greeting);
    assert!(!daemon.greeting.contains("127.0.0.1:0"), "the port that the system chose: {}", daemon.greeting);
    assert!(good(at, &["device", "list", "-c", "r.toml"]).contains("cow 7"));
    let sent = good(at, &["device", "send", "-c", "r.toml", DEVICE, "--port", "10", "--text", "hi"]);
    assert!(sent.starts_with("Queued 2 bytes on FPort 10"), "{sent}");
    let (code, said) = bad(at, &["run", "-c", "r.toml"]);
    assert!(code == 1 && said.contains("another roamgate runs") && said.contains("remedy: "), "{said}");
    // an answer to SIGHUP is no end
    daemon.signal("HUP");
    assert!(good(at, &["device", "show", DEVICE, "-c", "r.toml"]).contains("FPort 10: 6869"));
    assert_eq!(daemon.stop(), Some(0));
    assert!(!at.join("roamgate-data/control.sock").exists());

    // what the daemon wrote is read without it
    let shown: Value =
        serde_json::from_str(&good(at, &["device", "show", DEVICE, "--json", "-c", "r.toml"])).expect("JSON");
    assert_eq!((&shown["name"], &shown["queue"][0]["payload"]), (&"cow 7".into(), &"6869".into()));
    good(at, &["device", "remove", DEVICE, "-c", "r.toml"]);
    let (code, said) = bad(at, &["device", "show", DEVICE, "-c", "r.toml"]);
    assert!(
        code == 1 && said.starts_with("error: no device with DevEUI 0102030405060708\n  remedy: "),
        "{said}"
    );
    assert!(good(at, &["device", "list", "-c", "r.toml"]).contains("No devices yet"));
}

/// Four devices as an export writes them, one of them of LoRaWAN 1.1 and one switched off.
const LIST: &str = "dev_eui,join_eui,app_key,nwk_key,name,mac_version,roaming,enabled\n\
    0102030405060708,0000000000000001,2B7E151628AED2A6ABF7158809CF4F3C,,\"cow 7, \"\"Berta\"\"\",1.0.3,true,true\n\
    0102030405060709,0000000000000001,2B7E151628AED2A6ABF7158809CF4F3D,,,1.0.4,false,true\n\
    010203040506070A,0000000000000002,2B7E151628AED2A6ABF7158809CF4F3E,,well,1.0.2,true,false\n\
    010203040506070B,0000000000000001,2B7E151628AED2A6ABF7158809CF4F3F,3C7E151628AED2A6ABF7158809CF4F3C,roof,1.1,true,true\n";

#[test]
fn what_was_exported_is_imported_as_the_same_devices() {
    let (one, two) = (folder(), folder());
    let (at, other) = (one.path(), two.path());
    std::fs::write(at.join("list.csv"), LIST).expect("a file");
    let said = good(at, &["device", "import", "-c", "r.toml", "list.csv"]);
    assert!(said.starts_with("Imported 4 devices."), "{said}");
    assert_eq!(good(at, &["device", "export", "-c", "r.toml", "--keys"]), LIST);
    let without = good(at, &["device", "export", "-c", "r.toml"]);
    assert!(!without.contains("_key") && !without.contains("7E1516") && without.contains("Berta"));

    // through a daemon, to another one, in the other form
    let daemon = Daemon::start(at);
    let output = run(at, &["device", "export", "-c", "r.toml", "--keys", "-o", "all.json"]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("all.json holds the root keys of 4 devices"));
    let mode = std::fs::metadata(at.join("all.json")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, said) = bad(at, &["device", "export", "-c", "r.toml", "-o", "all.json"]);
    assert!(code == 1 && said.contains("nothing is overwritten"), "{said}");
    assert_eq!(daemon.stop(), Some(0));
    std::fs::copy(at.join("all.json"), other.join("all.json")).expect("a file");
    let daemon = Daemon::start(other);
    let said = good(other, &["device", "import", "-c", "r.toml", "all.json", "--dry-run"]);
    assert!(said.contains("4 devices in all.json can be imported. Nothing was written."), "{said}");
    assert!(good(other, &["device", "list", "-c", "r.toml"]).contains("No devices yet"));
    good(other, &["device", "import", "-c", "r.toml", "all.json"]);
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(good(other, &["device", "export", "-c", "r.toml", "--keys"]), LIST);
}

#[test]
fn a_device_of_1_1_has_two_root_keys_and_one_of_1_0_has_one() {
    let folder = folder();
    let at = folder.path();
    let device = ["device", "add", "-c", "r.toml", "--dev-eui", DEVICE, "--join-eui", "0000000000000001"];
    let with = |more: &[&'static str]| [&device[..], &["--app-key", KEY], more].concat();
    let nwk_key = "3C7E151628AED2A6ABF7158809CF4F3C";
    let (code, said) = bad(at, &with(&["--mac-version", "1.1"]));
    assert!(code == 1 && said.contains("NwkKey is missing") && said.contains("remedy: give both"), "{said}");
    let (code, said) = bad(at, &with(&["--mac-version", "1.0.4", "--nwk-key", nwk_key]));
    assert!(code == 1 && said.contains("has one root key") && said.contains("remedy: leave"), "{said}");
    assert!(!said.contains("7E1516"), "{said}");
    assert!(bad(at, &with(&["--nwk-key", "3C"])).1.contains("NwkKey: a key is 32 hexadecimal digits"));
    // both keys on standard input, in their order; the version follows from there being two
    let mut child = program(at, &[&device[..], &["--app-key", "-", "--nwk-key", "-"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let keys = format!("{KEY}\n{nwk_key}\n");
    child.stdin.take().expect("piped").write_all(keys.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("LoRaWAN 1.1"));
    assert!(good(at, &["device", "show", DEVICE, "-c", "r.toml"]).contains("1.1"));
    let all = good(at, &["device", "export", "-c", "r.toml", "--keys"]);
    assert!(all.contains(&format!("{KEY},{nwk_key},")), "{all}");
}

#[test]
fn an_import_with_a_fault_imports_nothing_and_names_every_line() {
    let folder = folder();
    let at = folder.path();
    let wrong = LIST.replace("010203040506070A,", "0102,").replace("1.0.4", "1.9")
        + &LIST[LIST.find('\n').expect("a header") + 1..];
    std::fs::write(at.join("list.csv"), &wrong).expect("a file");
    let (code, said) = bad(at, &["device", "import", "-c", "r.toml", "list.csv"]);
    assert_eq!(code, 1);
    for words in [
        "error: list.csv:4: dev_eui is not 16 hexadecimal digits",
        "error: list.csv:6: DevEUI 0102030405060708 is on line 2 already",
        "nothing was imported\n  remedy: ",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert!(!said.contains("2B7E") && !at.join("roamgate-data").exists(), "{said}");

    // what only the hotspot knows: here already, and a version that is none
    add(at);
    std::fs::write(at.join("list.csv"), LIST.replace("1.0.4", "1.9")).expect("a file");
    let (code, said) = bad(at, &["device", "import", "-c", "r.toml", "list.csv"]);
    assert!(
        code == 1 && said.contains("list.csv:2: a device with DevEUI 0102030405060708 is here"),
        "{said}"
    );
    assert!(said.contains("error: list.csv:3: ") && said.contains("2 faults in list.csv"), "{said}");
    assert_eq!(good(at, &["device", "list", "-c", "r.toml"]).lines().count(), 2);
    std::fs::write(at.join("list.csv"), "dev_eui,join_eui,app_key\n").expect("a file");
    assert!(bad(at, &["device", "import", "-c", "r.toml", "list.csv"]).1.contains("no device in list.csv"));
}

#[test]
fn a_device_is_changed_and_the_status_tells_how_the_hotspot_is() {
    let folder = folder();
    let at = folder.path();
    add(at);
    let set = |more: &[&str]| good(at, &[&["device", "set", DEVICE, "-c", "r.toml"], more].concat());
    assert!(
        set(&["--name", "calf"])
            .starts_with("Changed 0102030405060708 (calf): it may join and talk, here and")
    );
    assert!(set(&["--roaming", "off"]).contains("nowhere else"));
    assert!(set(&["--disable"]).contains("may not join or talk"));
    assert!(good(at, &["device", "show", DEVICE, "-c", "r.toml"]).contains("it may not join or talk"));
    assert!(set(&["--enable", "--roaming", "on"]).contains("here and through other networks"));
    assert!(set(&["--forget-nonces"]).contains("it can join again from the beginning"));
    assert_eq!(bad(at, &["device", "set", DEVICE, "-c", "r.toml"]).0, 2);
    assert_eq!(bad(at, &["device", "set", DEVICE, "--enable", "--disable", "-c", "r.toml"]).0, 2);

    let output = run(at, &["status", "-c", "r.toml"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && said.contains("not running"), "{said}");
    let daemon = Daemon::start(at);
    let said = good(at, &["status", "-c", "r.toml"]);
    assert!(said.contains("running for") && said.contains("radio heads     0 online"), "{said}");
    let status: Value = serde_json::from_str(&good(at, &["status", "-c", "r.toml", "--json"])).expect("JSON");
    assert_eq!(status["counters"]["fns"]["heard"], 0);
    assert!(status["counters"]["store"]["jobs"].as_u64().is_some_and(|jobs| jobs > 0), "{status}");
    assert!(status["counters"]["radio"].is_object());
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_partner_shows_what_applies_and_which_line_decided() {
    let folder = folder();
    let at = folder.path();
    let roaming = "[discovery]\nnet_id_suffix = \"netids.example\"\n[roaming.default]\npassive = { start = true }\n\
        [[roaming.partner]]\nnet_id = \"C0002F\"\npassive = { activation = true }\nserver = \"https://ns.example\"\n";
    std::fs::write(at.join("r.toml"), format!("{CONFIG}{roaming}")).expect("a file");
    let said = good(at, &["partner", "list", "-c", "r.toml"]);
    assert!(said.contains("C0002F      joins    "), "{said}");
    assert!(said.contains("all others  data ") && said.ends_with("[roaming.default]\n"), "{said}");
    let show = |net_id: &str| -> Value {
        let said = good(at, &["partner", "show", net_id, "--json", "-c", "r.toml"]);
        serde_json::from_str(&said).expect("JSON")
    };
    assert_eq!(show("c0002f")["decided_by"], "[[roaming.partner]] net_id = \"C0002F\"");
    let other = show("00050A");
    assert_eq!(
        (&other["decided_by"], &other["passive"]["start"]),
        (&"[roaming.default]".into(), &true.into())
    );
    assert_eq!(other["identity"], "00050a.netids.example");
    assert!(good(at, &["partner", "show", "00050A", "-c", "r.toml"]).contains("there is no [backend]"));
    assert_eq!(bad(at, &["partner", "show", "0005", "-c", "r.toml"]).0, 2);
    assert!(!at.join("roamgate-data").exists(), "looking leaves nothing behind");

    // a daemon answers with what it was started with
    std::fs::write(at.join("r.toml"), CONFIG).expect("a file");
    let daemon = Daemon::start(at);
    let asked = show("C0002F");
    assert!(asked["decided_by"].as_str().is_some_and(|line| line.starts_with("no [roaming.default]")));
    assert_eq!(asked["learnt"], false);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_daemon_that_was_killed_is_followed_by_another() {
    let folder = folder();
    let mut daemon = Daemon::start(folder.path());
    daemon.child.kill().expect("it runs");
    daemon.child.wait().expect("it ends");
    assert!(folder.path().join("roamgate-data/control.sock").exists());
    assert_eq!(Daemon::start(folder.path()).stop(), Some(0));
}

#[test]
fn the_exit_code_tells_failure_wrong_use_and_bad_configuration_apart() {
    let folder = folder();
    let at = folder.path();
    std::fs::write(at.join("bad.toml"), "[network]\nregion = \"EU86\"\n").expect("a file");
    let table: [(&[&str], i32, &str); 8] = [
        (&["frob"], 2, "unrecognized subcommand"),
        (&["device", "send", DEVICE, "--port", "300", "--text", "x"], 2, "300 is not in 1..=223"),
        (&["--log", "roamgate=loud", "device", "list"], 2, "log filter"),
        (&["run", "-c", "bad.toml"], 78, "error: bad.toml:2:10: network.region: \"EU86\" is no region"),
        (&["config", "check", "-c", "bad.toml"], 78, "remedy: "),
        (&["config", "show", "-c", "nowhere.toml"], 78, "roamgate config init"),
        (&["tail", "-c", "r.toml"], 1, "roamgate run"),
        (&["device", "list", "-c", "r.toml"], 1, "there is no database"),
    ];
    for (arguments, code, words) in table {
        let (exit, said) = bad(at, arguments);
        assert_eq!(exit, code, "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
    }
    assert!(!at.join("roamgate-data").exists(), "looking leaves nothing behind");
}

#[test]
fn a_file_to_start_from_is_written_once_and_is_right() {
    let folder = folder();
    let at = folder.path();
    good(at, &["config", "init", "-c", "new.toml"]);
    assert_eq!(bad(at, &["config", "init", "-c", "new.toml"]).0, 1);
    assert!(good(at, &["config", "check", "-c", "new.toml"]).starts_with("Nothing is wrong in new.toml.\n"));
    let shown = good(at, &["config", "show", "-c", "new.toml"]);
    std::fs::write(at.join("shown.toml"), &shown).expect("a file");
    assert_eq!(good(at, &["config", "show", "-c", "shown.toml"]), shown);
    let json: Value = serde_json::from_str(&good(at, &["config", "show", "--json"])).expect("JSON");
    assert_eq!(json["radio"][0]["listen"], "0.0.0.0:1700");
}

#[test]
fn tail_follows_the_daemon_until_it_stops() {
    let folder = folder();
    let daemon = Daemon::start(folder.path());
    let tail = program(folder.path(), &["tail", "--json", "-c", "r.toml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // the daemon may be gone before the other has connected: then it says so, which is right as well
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(daemon.stop(), Some(0));
    let output = tail.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("has stopped") || said.contains("no daemon answers"), "{said}");
}

#[test]
fn usage_is_reported_from_the_store_where_no_daemon_runs() {
    let here = folder();
    let at = here.path();
    std::fs::write(at.join("r.toml"), CONFIG).unwrap();
    add(at);
    let none = good(at, &["usage", "report", "--month", "2026-11", "-c", "r.toml"]);
    assert_eq!(none, "No visitor of another network was carried in 2026-11.\n");
    let csv = good(at, &["usage", "report", "--csv", "-c", "r.toml"]);
    assert_eq!(
        csv,
        "month,net_id,roaming_type,ul_packets,ul_bytes,dl_packets,dl_bytes,activations,deactivations,\
         service_profile_id,out_profile_ul_packets,out_profile_dl_packets\n"
    );
    let json: Value =
        serde_json::from_str(&good(at, &["usage", "report", "--json", "-c", "r.toml"])).unwrap();
    assert!(json["traffic"].as_array().unwrap().is_empty() && json["month"].as_str().unwrap().len() == 7);
    let (code, said) = bad(at, &["usage", "report", "--month", "2026-13", "-c", "r.toml"]);
    assert!(code == 1 && said.contains("\"2026-13\" is no month") && said.contains("YYYY-MM"), "{said}");
}

#[test]
fn a_concentrator_is_looked_at_by_hand_on_the_model() {
    let here = folder();
    let (code, said) = bad(here.path(), &["radio", "info", "-c", "r.toml"]);
    assert!(code == 1 && said.contains("no radio of kind \"sx1302\"") && said.contains("--model"), "{said}");
    let info: Value =
        serde_json::from_str(&good(here.path(), &["radio", "info", "--model", "--json"])).expect("JSON");
    assert_eq!((info["chip"].as_str(), info["eui"].as_str()), (Some("SX1302"), Some("0016C001F0A1B2C3")));
    std::fs::write(
        here.path().join("gps.toml"),
        "[[radio]]\nkind = \"sx1302\"\nmodel = true\ngps = \"/nowhere/ttyAMA0\"\n",
    )
    .unwrap();
    let text = good(here.path(), &["radio", "info", "-c", "gps.toml"]);
    assert!(text.contains("GPS             cannot be read: No such file or directory"), "{text}");
    let text = good(here.path(), &["radio", "info", "--model"]);
    assert!(text.contains("temperature     31.5 °C") && text.contains("868.100 MHz, 125 kHz"), "{text}");
    let heard = good(here.path(), &["radio", "listen", "--model", "--seconds", "1"]);
    assert!(heard.contains("SF7BW125") && heard.contains("uplink DevAddr 00001B2A"), "{heard}");
    let send = ["radio", "send", "--model", "--frequency", "868100000", "--data-rate", "SF9BW125", "60aabb"];
    assert!(good(here.path(), &send).contains("with 14 dBm EIRP: 103.4 ms on the air"));
    let (code, said) = bad(here.path(), &[&send[..], &["--power", "27"]].concat());
    assert!(code == 1 && said.contains("louder than the 16 dBm EIRP of the region"), "{said}");
    let (code, _) =
        bad(here.path(), &["radio", "send", "--model", "--frequency", "1", "--data-rate", "SF99", "00"]);
    assert_eq!(code, 2);
    let scan = ["radio", "spectrum", "--model", "--sweeps", "2", "--png", "a.png", "--svg", "a.svg"];
    let screen = good(here.path(), &scan);
    assert!(screen.contains('▇') && !screen.contains('\x1b'), "plain where it is no terminal: {screen}");
    let picture = std::fs::read(here.path().join("a.png")).expect("a picture");
    assert!(picture.starts_with(b"\x89PNG") && here.path().join("a.svg").exists());
    let (code, said) = bad(here.path(), &["radio", "spectrum", "--model", "--step", "1"]);
    assert!(code == 1 && said.contains("cannot be scanned"), "{said}");
    good(here.path(), &["radio", "trace", "--model", "--seconds", "0", "bus.trace"]);
    let trace = std::fs::read_to_string(here.path().join("bus.trace")).expect("a record");
    let first: Value = serde_json::from_str(trace.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["dev"], "spidev0.0");
}

#[test]
fn firmware_is_imported_listed_and_asked_for() {
    let here = folder();
    std::fs::write(
        here.path().join("sx.toml"),
        "[[radio]]\nkind = \"sx1302\"\nboard = \"wm1302\"\nspi = \"none\"\nfirmware = \"images\"\n",
    )
    .expect("written");
    let (code, said) = bad(here.path(), &["run", "-c", "sx.toml"]);
    assert!(code == 1 && said.contains("the AGC firmware for SX1250 is not in images"), "{said}");
    assert!(said.contains("remedy: ") && said.contains("roamgate radio firmware import"), "{said}");
    // words whose two highest bits are right: all zeros are
    std::fs::write(here.path().join("arb_fw.var"), vec![0; 8192]).expect("written");
    std::fs::write(here.path().join("agc_fw_sx1250.var"), "0x00, ".repeat(8192)).expect("written");
    let imported = good(
        here.path(),
        &["radio", "firmware", "import", "-c", "sx.toml", "arb_fw.var", "agc_fw_sx1250.var"],
    );
    let sha256 = "9f1dcbc35c350d6027f98be0f5c8b43b42ca52b7604459c0c42be3aa88913d47";
    assert_eq!(imported.matches(sha256).count(), 2, "{imported}");
    assert_eq!(good(here.path(), &["radio", "firmware", "list", "-c", "sx.toml"]).lines().count(), 3);
    let (code, said) = bad(here.path(), &["run", "-c", "sx.toml"]);
    assert!(code == 1 && said.contains("cannot open none"), "{said}");
    std::fs::write(here.path().join("cal_fw.var"), vec![1; 8192]).expect("written");
    let (code, said) = bad(here.path(), &["radio", "firmware", "import", "cal_fw.var"]);
    assert!(code == 1 && said.contains("parity of word 0"), "{said}");
}
