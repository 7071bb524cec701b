//! GPS time for chrony, as samples for its reference clock SOCK: where there is no network, the machine's clock is right all the same.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use jiff::Timestamp;

/// Where our image's chrony listens.
pub(super) const USUAL: &str = "/run/chrony.roamgate.sock";

/// "SOCK": what a sample ends with.
const MAGIC: i32 = 0x534f_434b;

/// Gives samples away, where somebody takes them.
pub(super) struct Feed {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    /// Of how the last one went, so that a change is told once.
    taken: bool,
}

impl Feed {
    pub fn new(path: PathBuf) -> Feed {
        // without a socket nobody is told, which is no trouble of the radio
        let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        Feed { path, socket: socket.ok(), taken: false }
    }

    /// The machine's clock said `machine` when it was `right`.
    pub fn tell(&mut self, machine: Timestamp, right: Timestamp) {
        let Some(socket) = &self.socket else { return };
        let taken = socket.send_to(&sample(machine, right), &self.path).is_ok();
        if taken != self.taken {
            let path = self.path.display();
            match taken {
                true => tracing::info!(%path, "chrony hears GPS"),
                false => tracing::info!(%path, "chrony does not hear GPS any more"),
            }
        }
        self.taken = taken;
    }
}

/// `struct sock_sample` of chrony's reference clock SOCK, where time has 64 bits: a `timeval`, the seconds by which the machine
/// is behind, three numbers of which we know nothing (a pulse, a leap second, nothing) and the magic one.
fn sample(machine: Timestamp, right: Timestamp) -> [u8; 40] {
    let mut bytes = [0; 40];
    let (seconds, micros) = (machine.as_second(), i64::from(machine.subsec_microsecond()));
    let behind = right.duration_since(machine).as_secs_f64();
    bytes[..8].copy_from_slice(&seconds.to_ne_bytes());
    bytes[8..16].copy_from_slice(&micros.to_ne_bytes());
    bytes[16..24].copy_from_slice(&behind.to_ne_bytes());
    bytes[36..].copy_from_slice(&MAGIC.to_ne_bytes());
    bytes
}
