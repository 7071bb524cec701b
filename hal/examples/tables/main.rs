//! Reads a table of a pure function on standard input and writes it with its results computed anew.
//!
//! ```text
//! cargo run -q -p sx1302 --example tables -- time_on_air < time_on_air.csv
//! ```

mod table;

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tables: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let name = std::env::args()
        .nth(1)
        .ok_or_else(|| format!("usage: tables NAME < TABLE; {}", table::NAMES.join(", ")))?;
    let name = name.trim_end_matches(".csv").trim_end_matches(".jsonl");
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| error.to_string())?;
    let recomputed = table::recompute(name, &text)?;
    std::io::stdout().write_all(recomputed.as_bytes()).map_err(|error| error.to_string())
}
