//! Lines that may be a transcript of a bus: an event that is read is written as a line that is read as the same event.

use sx1302::bus::Event;

pub fn fuzz(bytes: &[u8]) {
    let text = super::text(bytes);
    for event in text.lines().filter_map(Event::parse) {
        if let Event::Step(_) = event {
            continue;
        }
        // What was not kept of a direction stays away.
        let again = Event::parse(&event.line(0));
        assert_eq!(again, Some(event));
    }
}
