//! Files of the IEEE's assignments, and identifiers of things that are no LoRaWAN devices: read or refused, never a panic.

use roamgate::discovery::name::Foreign;
use roamgate::registry::oui;

pub fn fuzz(bytes: &[u8]) {
    if let Ok((bits, all)) = oui::read(bytes) {
        // what was read can be looked for
        assert!(all.iter().all(|line| line.bits == bits && line.first.len() == 16));
    }
    let text = String::from_utf8_lossy(bytes);
    let suffix = "things.example".parse().unwrap();
    for thing in [Foreign::epc(&text), Foreign::udid(&text)].into_iter().flatten() {
        assert!(thing.name(&suffix).ends_with(".things.example"));
    }
}
