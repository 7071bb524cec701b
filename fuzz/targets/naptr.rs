//! Whatever the owner of a name writes into the regexp field of a NAPTR record: a place to connect to, or words about what is
//! wrong with it, and never a panic or a pattern that takes long.

use roamgate::discovery::resolve::naptr;

pub fn fuzz(field: &[u8]) {
    let name = "f.2.0.0.0.0.0.0.0.1.e.5.0.0.0.0.joineuis.iotroam.example";
    if let Ok(place) = naptr::uri(name, &String::from_utf8_lossy(field)) {
        assert!(place.path.starts_with('/') && place.port > 0);
        assert!(!place.host.to_string().ends_with('.'));
    }
}
