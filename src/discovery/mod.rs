//! From a name of the federation to an address: names, DNS with DNSSEC, cache.

pub mod bucket;
pub mod name;
