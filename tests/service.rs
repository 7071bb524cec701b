//! The unit files, and the program as a service: what it tells its manager, and the port that is opened for it.
//!
//! Wants systemd's tools and the feature: `cargo test --features systemd --test service -- --ignored`. `.ci/run` does.
#![cfg(feature = "systemd")]

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use roamgate::clock::Clock;
use roamgate::pki::check::PeerRules;
use roamgate::pki::make::{Authority, IntermediateSpec, LeafSpec, RootSpec};
use roamgate::tls::{Expected, Identity, Roots, Trust};

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

fn said(command: &mut Command) -> (bool, String) {
    let done = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error} (Debian: apt-get install systemd)"));
    (
        done.status.success(),
        [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat(),
    )
}

#[test]
#[ignore = "wants systemd"]
fn the_unit_is_understood_and_shuts_the_program_in() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["roamgate.service", "roamgate.socket"] {
        // what is not installed here is no fault of the unit
        let text = std::fs::read_to_string(unit(name)).unwrap();
        let text =
            text.replace("/usr/bin/roamgate", "/bin/true").replace("Documentation=man:roamgate(1)", "");
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let service = folder.path().join("roamgate.service");
    let (_, complaints) = said(Command::new("systemd-analyze").arg("verify").arg(&service));
    // keys of later versions, which this one leaves out
    let of_254 = ["RestartSteps", "RestartMaxDelaySec"];
    let complaints: Vec<&str> =
        complaints.lines().filter(|line| !of_254.iter().any(|key| line.contains(key))).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(&service);
    let (below, text) = said(&mut security);
    assert!(below, "more than 2.0: {text}");
}

/// A program under test; dropping it ends it.
struct Service {
    child: Child,
    manager: UnixDatagram,
    told: Vec<String>,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    /// Start it as a manager would that wants to hear from it every four seconds.
    fn start(folder: &Path, mut command: Command) -> Service {
        let socket = folder.join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let child = command
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "4000000")
            .env_remove("RUST_BACKTRACE")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        Service { child, manager, told: Vec::new() }
    }

    /// Until it has told this, often enough.
    fn tells(&mut self, what: &str, times: usize) {
        let begun = Clock::system().now();
        while self.told.iter().filter(|told| told.contains(what)).count() < times {
            let mut text = [0; 2048];
            if let Ok(length) = self.manager.recv(&mut text) {
                self.told.push(String::from_utf8_lossy(&text[..length]).into_owned());
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not tell {what}: {:?}", self.told);
        }
    }
}

fn config(folder: &Path, more: &str) -> PathBuf {
    let file = folder.join("roamgate.toml");
    let at = folder.display();
    let text = format!(
        "[network]\nnet_ids = [\"C00ABC\"]\n[store]\nurl = \"sqlite:{at}/one.db\"\n[control]\nsocket = \"{at}/control\"\n\
         [[radio]]\nkind = \"sx1302\"\nmodel = true\n{more}"
    );
    std::fs::write(&file, text).unwrap();
    file
}

fn roamgate(file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roamgate"));
    command.args(["run", "-c"]).arg(file);
    command
}

#[test]
#[ignore = "wants libsystemd"]
fn the_manager_hears_when_it_is_ready_that_it_lives_and_that_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(folder.path(), roamgate(&config(folder.path(), "")));
    service.tells("READY=1", 1);
    assert!(service.told.iter().any(|told| told.contains("STATUS=NetID C00ABC")), "{:?}", service.told);
    service.tells("WATCHDOG=1", 3);
    let (done, _) = said(Command::new("kill").arg(service.child.id().to_string()));
    assert!(done);
    service.tells("STOPPING=1", 1);
    assert!(service.child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants systemd"]
async fn a_port_that_was_opened_for_it_is_where_partners_come_in() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::system());
    let root = Authority::root(&RootSpec::new("Root"), &clock).unwrap();
    let name = "c00abc.netids.iotroam.example";
    let member = root.intermediate(&IntermediateSpec::new("Member", [name]), &clock).unwrap();
    let leaf = member.issue(&LeafSpec::new("c00abc", [name]), &clock).unwrap();
    for (file, text) in
        [("root.pem", &*root.cert_pem), ("chain.pem", &*leaf.chain_pem), ("key.pem", &*leaf.key_pem)]
    {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let at = folder.path().display();
    let backend = format!(
        "[backend]\nidentity = {{ chain = \"{at}/chain.pem\", key = \"{at}/key.pem\" }}\nroots = [\"{at}/root.pem\"]\n"
    );
    let file = config(folder.path(), &backend);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("systemd-socket-activate");
    command.args(["--listen", &port.to_string(), "--fdname=backend"]);
    let kept = BTreeSet::from(["NOTIFY_SOCKET", "WATCHDOG_USEC"]);
    kept.iter().for_each(|name| _ = command.arg(format!("--setenv={name}")));
    command.arg(env!("CARGO_BIN_EXE_roamgate")).args(["run", "-c"]).arg(&file);
    let mut service = Service::start(folder.path(), command);
    // the first connection starts it, and is served by it
    let begun = Clock::system().now();
    let first = loop {
        match TcpStream::connect(port) {
            Ok(stream) => break stream,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    service.tells("READY=1", 1);
    drop(first);
    roamgate::tls::install_provider();
    let identity = Identity::from_pem(&leaf.chain_pem, &leaf.key_pem).unwrap();
    let roots = Roots::from_pem(&root.cert_pem).unwrap();
    let trust = Trust::new(&roots, PeerRules::default(), clock).unwrap();
    let tls = roamgate::tls::client_config(&identity, &trust, Expected::default()).unwrap();
    let http = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().resolve(name, port);
    let http = http.build().unwrap();
    let answer = http.post(format!("https://{name}:{}/", port.port())).body("{}").send().await.unwrap();
    assert!(answer.status().is_client_error(), "{answer:?}");
}
