//! What the service manager wants to hear from us.
//!
//! Owns readiness, the watchdog, stopping, sockets that it has opened for us, and its journal. Crate `systemd` is named here only, behind the feature of that name; without it the messages go nowhere.

use std::time::Duration;

/// The start is complete; `status` is the line that `systemctl status` shows.
pub fn ready(status: &str) {
    // one line, and no byte that would end a C string
    let status: String = status.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    tell(&[("READY", "1"), ("STATUS", &status)]);
}

/// The stop has begun.
pub fn stopping() {
    tell(&[("STOPPING", "1")]);
}

/// Alive: to be said at least every [`watchdog`].
pub fn alive() {
    tell(&[("WATCHDOG", "1")]);
}

/// How often [`alive`] must be said, where the unit asks for it: half of `WatchdogSec=`.
#[cfg(feature = "systemd")]
pub fn watchdog() -> Option<Duration> {
    let micros = systemd::daemon::watchdog_enabled().ok().filter(|micros| *micros > 0)?;
    Some(Duration::from_micros(micros / 2))
}

/// How often [`alive`] must be said: never, this program was built without the service manager.
#[cfg(not(feature = "systemd"))]
pub fn watchdog() -> Option<Duration> {
    None
}

/// The TCP port that a socket unit has opened for us, by its `FileDescriptorName=`. To be asked for once.
#[cfg(feature = "systemd")]
pub fn listener(name: &str) -> Option<std::net::TcpListener> {
    let passed = systemd::daemon::listen_fds_with_names().ok()?;
    let fd = passed.iter_named(name).ok()?.next()?;
    match systemd::daemon::tcp_listener(fd) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(name, %error, "what the service manager has opened is no TCP port");
            None
        }
    }
}

/// The TCP port that a socket unit has opened for us: none, this program was built without the service manager.
#[cfg(not(feature = "systemd"))]
pub fn listener(_: &str) -> Option<std::net::TcpListener> {
    None
}

/// Whether standard error is the journal: then lines may go there with their fields.
#[cfg(feature = "systemd")]
pub fn is_journal() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some()
}

/// Whether standard error is the journal: this program was built without it.
#[cfg(not(feature = "systemd"))]
pub fn is_journal() -> bool {
    false
}

/// A line for the journal, as `FIELD=value`. Whether it was taken.
#[cfg(feature = "systemd")]
pub fn journal(fields: &[&str]) -> bool {
    systemd::journal::send(fields).is_ok()
}

/// A line for the journal: not taken, this program was built without it.
#[cfg(not(feature = "systemd"))]
pub fn journal(_: &[&str]) -> bool {
    false
}

#[cfg(feature = "systemd")]
fn tell(state: &[(&str, &str)]) {
    // Nobody to tell (started by hand) is no error.
    if let Err(error) = systemd::daemon::notify(state.iter()) {
        tracing::debug!(%error, "sd_notify");
    }
}

#[cfg(not(feature = "systemd"))]
fn tell(_: &[(&str, &str)]) {}
