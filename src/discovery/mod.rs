//! From a name of the federation to an address: names, DNS with DNSSEC, cache.

mod ask;
pub mod bucket;
pub mod cache;
pub mod config;
pub mod name;
pub mod resolve;
pub mod timer;

pub use ask::SetupError;
pub use cache::Security;
pub use config::{Config, Dane, Dnssec, Server};
pub use name::Suffix;
pub use resolve::{DiscoveryError, Endpoint, Resolution, Resolver};
