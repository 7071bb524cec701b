//! The box itself: disk, radio, backups. Called by `doctor` only.

use std::path::PathBuf;

use super::Findings;
use crate::clock::Clock;
use crate::config::Config;
use crate::radio;
use crate::radio::sx1302::tools::Bench;

fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999_999 => format!("{} kB", bytes / 1000),
        10_000_000..=9_999_999_999 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

/// Room for what has to be kept, and who may read it.
pub(super) fn disk(config: &Config, findings: &mut Findings) {
    let area = "disk";
    let database = config.store.url.path();
    // the folder is made at the first start
    let there = |path: &std::path::Path| path.ancestors().find(|path| path.exists()).map(PathBuf::from);
    let folder = there(&config.store.folder()).unwrap_or_else(|| PathBuf::from("."));
    let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
    match rustix::fs::statvfs(&folder) {
        Ok(room) => {
            let free = room.f_bavail.saturating_mul(room.f_frsize);
            let whole = room.f_blocks.saturating_mul(room.f_frsize);
            let what = format!("{} of {} are free at {}", size(free), size(whole), folder.display());
            let remedy = "remove what is not needed there; `roamgate backup` first";
            // load is shed below the reserve; somebody should look before that
            let reserve = u64::from(config.store.reserve_mb) << 20;
            match free {
                _ if free < reserve => findings.fault(area, what, remedy),
                _ if free < 2 * reserve => findings.hint(area, what, remedy),
                _ => findings.good(area, what),
            }
        }
        Err(error) => findings.fault(area, format!("{}: {error}", folder.display()), "is it mounted?"),
    }
    let Ok(file) = std::fs::metadata(database) else {
        findings.hint(
            area,
            format!("there is no database at {} yet", database.display()),
            "`roamgate run` makes it",
        );
        return;
    };
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777;
    let what = format!("the database has {}", size(file.len()));
    match mode & 0o077 {
        0 => findings.good(area, what),
        _ => findings.hint(
            area,
            format!("{what}, and others may read it (mode {mode:o})"),
            format!("chmod 600 {}", database.display()),
        ),
    }
}

/// Whether each radio is there. A concentrator that nobody uses is asked who it is.
pub(super) async fn radios(config: &Config, runs: bool, clock: &Clock, findings: &mut Findings) {
    let area = "radio";
    if config.radio.is_empty() {
        findings.hint(area, "there is no [[radio]]: nothing is heard", "docs/radio.md");
    }
    for entry in &config.radio {
        let radio = match entry {
            radio::Config::SemtechUdp(entry) => {
                findings.good(area, format!("packet forwarders send to {}", entry.listen));
                continue;
            }
            radio::Config::Sx1302(radio) => (**radio).clone(),
        };
        if runs {
            findings.good(area, format!("{}: the running hotspot has it", radio.summary()));
            continue;
        }
        let (around, clock) = (config.surroundings(), clock.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let mut bench = Bench::open(&radio, &around, &clock)?;
            let info = bench.info(&radio)?;
            bench.close()?;
            Ok(info)
        });
        match asked.await {
            Ok(Ok(info)) => {
                let warm = info.celsius.map(|celsius| format!(", {celsius:.0} °C")).unwrap_or_default();
                findings.good(area, format!("{} {}{warm}", info.chip, info.eui));
                if !info.parity_good {
                    findings.fault(
                        area,
                        "the firmware of its microcontrollers is damaged (parity)",
                        "look at power and ribbon; `roamgate radio firmware list`",
                    );
                }
            }
            Ok(Err(error)) => {
                let error: crate::radio::sx1302::card::CardError = error;
                findings.fault(area, error.whole(), error.remedy());
            }
            Err(error) => findings.fault(area, error.to_string(), "a fault of this program: tell its makers"),
        }
    }
}

/// Whether there is a way back. `last`: when the running hotspot made a backup, seconds since 1970.
pub(super) fn backups(config: &Config, last: Option<u64>, clock: &Clock, findings: &mut Findings) {
    let area = "backup";
    let Some(backup) = &config.backup else {
        let what = "none are made: when the card dies, devices have to be set up anew";
        findings.hint(area, what, "[backup] in docs/backup.md");
        return;
    };
    for folder in backup.directory.iter().filter(|folder| !folder.is_dir()) {
        findings.fault(area, format!("{} is not there", folder.display()), "mount it");
    }
    let Some(last) = last else {
        findings.hint(
            area,
            "the running hotspot has made none yet",
            "wait for the first, or `roamgate backup FILE`",
        );
        return;
    };
    let hours = clock.unix().saturating_sub(last) / 3600;
    match hours * 3600 > 2 * u64::from(backup.every.seconds()) {
        true => findings.fault(
            area,
            format!("the last was made {hours} hours ago"),
            "the log says why none is made since",
        ),
        false => findings.good(area, format!("the last was made {hours} hours ago")),
    }
}
