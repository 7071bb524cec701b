//! From a name of the federation to an address: names, DNS with DNSSEC, cache.

pub mod bucket;
pub mod cache;
pub mod name;
pub mod publish;
pub mod resolve;

pub use name::Suffix;
pub use resolve::{
    Config, Dane, DiscoveryError, Dnssec, Endpoint, Resolution, Resolver, Security, Server, SetupError, Way,
};
