//! Lines that may be a transcript of a bus: an event that is read is written as a line that is read as the same event.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sx1302::bus::Event;

fuzz_target!(|text: &str| {
    for event in text.lines().filter_map(Event::parse) {
        if let Event::Step(_) = event {
            continue;
        }
        // What was not kept of a direction stays away.
        let again = Event::parse(&event.line(0));
        assert_eq!(again, Some(event));
    }
});
