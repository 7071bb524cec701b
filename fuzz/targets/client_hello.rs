//! Whatever a stranger sends to a front first: a name and a purpose, or nothing, never a panic.

use roamgate::backend::tunnel::{forwarded_for, host_of};
use roamgate::front::hello;

pub fn fuzz(bytes: &[u8]) {
    if let Some(hello) = hello::of(bytes) {
        assert!(hello.name.is_none_or(|name| name.is_ascii() && name == name.to_ascii_lowercase()));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Some(address) = forwarded_for(text) {
            assert_eq!(forwarded_for(&format!("for=\"{address}\"")), Some(address));
        }
        let _ = host_of(text);
    }
}
