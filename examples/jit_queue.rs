//! Reads a table of calls of a just-in-time queue on standard input and writes it with its results computed anew.
//!
//! ```text
//! cargo run -q --example jit_queue < tests/fixtures/jit/jit_queue.jsonl
//! ```
//!
//! Each line is one call: `init`, `enqueue`, `peek`, `dequeue` (of a place) or `advance`, which only lets time pass.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use roamgate::jit::queue::{Kind, Queue, Why};
use serde::Deserialize;

/// A line of the table; what is not here is a result.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Call {
    Init {
        case: u32,
    },
    Advance {
        now: u32,
    },
    Enqueue {
        now: u32,
        #[serde(rename = "type")]
        kind: String,
        count_us: u32,
        time_on_air_ms: u32,
    },
    Peek {
        now: u32,
    },
    Dequeue {
        index: i64,
    },
}

const KINDS: [(&str, Kind); 4] = [
    ("class_a", Kind::ClassA),
    ("class_b", Kind::ClassB),
    ("class_c", Kind::ClassC),
    ("beacon", Kind::Beacon),
];

fn why(why: Why) -> &'static str {
    match why {
        Why::Full => "full",
        Why::TooLate => "too_late",
        Why::TooEarly => "too_early",
        Why::CollisionPacket => "collision_packet",
        Why::CollisionBeacon => "collision_beacon",
    }
}

fn main() -> ExitCode {
    let mut text = String::new();
    let done = std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())
        .and_then(|_| recompute(&text))
        .and_then(|out| std::io::stdout().write_all(out.as_bytes()).map_err(|error| error.to_string()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jit_queue: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The same lines with the results of our queue.
fn recompute(text: &str) -> Result<String, String> {
    let (mut out, mut queue) = (String::new(), Queue::default());
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let call = serde_json::from_str(line).map_err(|error| format!("line {}: {error}", number + 1))?;
        let answer = answer(&mut queue, call).map_err(|error| format!("line {}: {error}", number + 1))?;
        out.push_str(&answer);
        out.push('\n');
    }
    Ok(out)
}

fn answer(queue: &mut Queue<()>, call: Call) -> Result<String, String> {
    let mut line = String::new();
    let written = match call {
        Call::Init { case } => {
            *queue = Queue::default();
            write!(line, "{{\"op\":\"init\",\"case\":{case}}}")
        }
        Call::Advance { now } => write!(line, "{{\"op\":\"advance\",\"now\":{now}}}"),
        Call::Enqueue { now, kind: name, count_us, time_on_air_ms } => {
            let known = KINDS.iter().find(|(known, _)| *known == name);
            let (_, kind) = known.ok_or_else(|| format!("{name:?} is no type of packet"))?;
            let airtime = Duration::from_millis(time_on_air_ms.into());
            let taken = queue.enqueue(now, *kind, count_us, airtime, ());
            let (result, after) = match taken {
                Ok(count) => ("ok", count),
                Err(refused) => (why(refused.why), count_us),
            };
            write!(
                line,
                "{{\"op\":\"enqueue\",\"now\":{now},\"type\":\"{name}\",\"count_us\":{count_us},\
                 \"time_on_air_ms\":{time_on_air_ms},\"result\":\"{result}\",\"count_us_after\":{after},\"queue\":{}}}",
                entries(queue)
            )
        }
        Call::Peek { now } => {
            let due = queue.peek(now);
            let index = due.next.map_or(-1, |place| place as i64);
            let result = if due.missed.is_empty() && queue.entries().is_empty() { "empty" } else { "ok" };
            write!(
                line,
                "{{\"op\":\"peek\",\"now\":{now},\"result\":\"{result}\",\"dropped\":{},\"index\":{index},\"queue\":{}}}",
                due.missed.len(),
                entries(queue)
            )
        }
        Call::Dequeue { index } => {
            let taken = usize::try_from(index).ok().and_then(|place| queue.remove(place));
            let (result, count) = taken.map_or(("empty", 0), |entry| ("ok", entry.count));
            write!(
                line,
                "{{\"op\":\"dequeue\",\"index\":{index},\"result\":\"{result}\",\"count_us\":{count},\"queue\":{}}}",
                entries(queue)
            )
        }
    };
    written.map_err(|error| error.to_string())?;
    Ok(line)
}

fn entries(queue: &Queue<()>) -> String {
    let name = |kind| KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name);
    let all = queue.entries().iter().map(|entry| format!("[{},\"{}\"]", entry.count, name(entry.kind)));
    format!("[{}]", all.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = include_str!("../tests/fixtures/jit/jit_queue.jsonl");
    const IMPROVED: &str = include_str!("../tests/fixtures/jit/improvements.txt");

    /// Lines of numbers and ranges of numbers.
    fn improved() -> Vec<usize> {
        let numbers = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
        let ranges = IMPROVED.lines().filter(numbers).flat_map(str::split_whitespace);
        ranges
            .flat_map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                first.parse().unwrap()..=last.parse().unwrap()
            })
            .collect()
    }

    #[test]
    fn every_line_is_the_references_except_those_that_are_better() {
        let ours = recompute(TABLE).unwrap();
        assert_eq!(ours.lines().count(), TABLE.lines().count());
        let pairs = ours.lines().zip(TABLE.lines()).zip(1..);
        let mut differ: Vec<usize> = pairs.filter(|((a, b), _)| a != b).map(|(_, number)| number).collect();
        let mut allowed = improved();
        differ.sort();
        allowed.sort();
        assert_eq!(differ, allowed);
    }

    #[test]
    fn results_of_the_input_are_ignored_and_nonsense_is_named() {
        let calls = "{\"op\":\"init\",\"case\":7,\"result\":\"wrong\"}\n{\"op\":\"peek\",\"now\":5}\n";
        let ours = recompute(calls).unwrap();
        let empty =
            "{\"op\":\"peek\",\"now\":5,\"result\":\"empty\",\"dropped\":0,\"index\":-1,\"queue\":[]}\n";
        assert_eq!(ours, format!("{{\"op\":\"init\",\"case\":7}}\n{empty}"));
        assert!(recompute("{\"op\":\"peek\"}").unwrap_err().starts_with("line 1: missing field"));
    }
}
