//! The machine's clock is set by our GPS receiver, through a chrony that others wrote: it hears a machine that is an hour behind.
//! Needs chronyd and chronyc (Debian: chrony).

#[allow(dead_code)] // this test types no commands
#[path = "support/program.rs"]
mod program;
#[path = "support/receiver.rs"]
mod receiver;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use program::Place;
use roamgate::clock::Clock;
use tokio::io::AsyncWriteExt;
use tokio_serial::{SerialPort, SerialStream};

/// Seconds that GPS is ahead of this machine.
const AHEAD: i64 = 3600;
const LONG: Duration = Duration::from_secs(60);

/// Ends with the test.
struct Chrony(Child);

impl Drop for Chrony {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn user() -> String {
    let id = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim().to_owned()
}

/// A chrony that listens, and changes nothing about this machine's clock.
fn chrony(folder: &Path) -> (Chrony, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let (socket, commands) = (folder.join("gps.sock"), folder.join("commands"));
    std::fs::create_dir(&commands).unwrap();
    std::fs::set_permissions(&commands, PermissionsExt::from_mode(0o700)).unwrap();
    let text = format!(
        "refclock SOCK {} refid GPS precision 1e-3 poll 2\nbindcmdaddress {}\ncmdport 0\npidfile {}\n",
        socket.display(),
        commands.join("sock").display(),
        folder.join("pid").display(),
    );
    let config = folder.join("chrony.conf");
    std::fs::write(&config, text).unwrap();
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let arguments = ["-x", "-U", "-d", "-u", &user(), "-f", config.to_str().unwrap()];
    let started = Command::new("chronyd").args(arguments).env("PATH", path).stdout(Stdio::null()).spawn();
    (Chrony(started.expect("chronyd starts (Debian: apt-get install chrony)")), socket)
}

/// What chrony has of its only source: seconds that it is ahead of the machine, once it has some samples.
fn heard(folder: &Path) -> Option<f64> {
    let socket = folder.join("commands/sock");
    let asked = Command::new("chronyc").args(["-c", "-h", socket.to_str()?, "sources"]).output().unwrap();
    let answer = String::from_utf8(asked.stdout).unwrap();
    // mode, state, name, stratum, poll, reached, seconds since, adjusted offset, measured offset, error
    let fields: Vec<_> = answer.trim().split(',').collect();
    let reached = fields.get(5).is_some_and(|reached| *reached != "0");
    (reached && fields[2] == "GPS").then(|| -fields[8].parse::<f64>().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chrony"]
async fn chrony_hears_what_gps_says() {
    let (clock, mut place) = (Clock::system(), Place::empty());
    let folder = place.folder.path().to_owned();
    let (_chrony, socket) = chrony(&folder);
    let (mut port, other) = SerialStream::pair().unwrap();
    place.configure(&format!(
        "[network]\nnet_ids = [\"000000\"]\nregion = \"EU868\"\n[store]\nurl = \"sqlite:@/data/one.db\"\n\
         [[radio]]\nkind = \"sx1302\"\nmodel = true\ngps = \"{}\"\nchrony = \"{}\"\n",
        other.name().unwrap(),
        socket.display(),
    ));
    let hotspot = place.runs().await;
    let speaking = tokio::spawn(async move {
        let clock = Clock::system();
        loop {
            let gps = clock.wall().as_second() + AHEAD - receiver::EPOCH;
            port.write_all(&receiver::says(gps as u64)).await.unwrap();
            clock.sleep(Duration::from_secs(1)).await;
        }
    });
    let begun = clock.now();
    let ahead = loop {
        if let Some(ahead) = heard(&folder) {
            break ahead;
        }
        assert!(clock.now() - begun < LONG, "chrony has heard nothing");
        clock.sleep(Duration::from_millis(500)).await;
    };
    // the model's pulse is somewhere within the second that is told after it
    assert!((ahead - AHEAD as f64).abs() < 2.1, "{ahead} s");
    speaking.abort();
    assert!(hotspot.stops().await.success());
}
