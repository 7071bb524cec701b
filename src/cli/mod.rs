//! The command line, one file per subcommand.

pub mod dns;
pub mod pki;
