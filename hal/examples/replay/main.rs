//! Executes a case file against the model of the chip and prints the bus trace.
//!
//! ```text
//! cargo run -q -p sx1302 --example replay -- CASE.json > CASE.trace
//! cargo run -q -p sx1302 --example replay -- CASE.json --results RESULTS.json > CASE.trace
//! ```
//!
//! RESULTS.json is a list with an entry for each step of the case: `{"step": "4:receive", "op": "receive", "result": {…}}`,
//! and `{"op": "model"}` where the step only changes the model.

mod case;
mod play;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("replay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let (mut file, mut results) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--results" => results = Some(arguments.next().ok_or("--results wants a file")?),
            _ if file.is_none() => file = Some(argument),
            other => return Err(format!("unexpected {other:?}; usage: replay CASE.json [--results FILE]")),
        }
    }
    let file = file.ok_or("usage: replay CASE.json [--results FILE]")?;
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
    let case = serde_json::from_str(&text).map_err(|error| format!("{file}: {error}"))?;
    let played = play::play(&case)?;
    for refused in &played.refused {
        eprintln!("refused: {refused}");
    }
    let mut out = std::io::stdout().lock();
    for line in &played.trace {
        writeln!(out, "{line}").map_err(|error| error.to_string())?;
    }
    if let Some(path) = results {
        let text = serde_json::to_string_pretty(&played.results).map_err(|error| error.to_string())?;
        std::fs::write(&path, text + "\n").map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}
