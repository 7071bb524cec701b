//! Whatever a partner sends as JSON: attributed and answered, or dropped, never a panic. What is understood can be
//! answered.

#![no_main]

use libfuzzer_sys::fuzz_target;
use roamgate::backend::keywrap::Keks;
use roamgate::backend::message::wire;

fuzz_target!(|body: &[u8]| {
    if let Ok(wire::Incoming::Request(request)) = wire::open(body) {
        let _ = (request.as_sent(), request.header());
        if let Err(refusal) = request.body() {
            let answer = request.answer(&Err(refusal), &Keks::default());
            assert!(answer.starts_with(b"{"));
        }
    }
});
