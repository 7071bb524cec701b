//! From a name of the federation to an address: names, DNS with DNSSEC, cache.

pub mod bucket;
pub mod cache;
pub mod name;
pub mod resolve;
pub mod timer;

pub use cache::Security;
pub use name::Suffix;
pub use resolve::{Config, DiscoveryError, Dnssec, Endpoint, Resolution, Resolver};
