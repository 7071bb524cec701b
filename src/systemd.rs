//! What the service manager wants to hear from us.
//!
//! Owns readiness, the watchdog and stopping. Crate `systemd` is named here only, behind the feature of that name; without it the messages go nowhere.

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

#[cfg(feature = "systemd")]
fn tell(state: &[(&str, &str)]) {
    // Nobody to tell (started by hand) is no error.
    if let Err(error) = systemd::daemon::notify(state.iter()) {
        tracing::debug!(%error, "sd_notify");
    }
}

#[cfg(not(feature = "systemd"))]
fn tell(_: &[(&str, &str)]) {}
