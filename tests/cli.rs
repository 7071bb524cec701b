//! The command line as a person or a script sees it: the program itself, its output and its exit codes.

use std::io::{BufRead, BufReader, Write};
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
