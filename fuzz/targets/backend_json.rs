//! Whatever a partner sends as JSON: attributed and answered, or dropped, never a panic. What is understood can be
//! answered, and what is understood of a request survives being sent on. The same bytes are read as the answer to each
//! kind of request of ours.

use std::sync::LazyLock;

use roamgate::backend::keywrap::{Kek, Keks};
use roamgate::backend::message::wire::{self, Header, Incoming};
use roamgate::backend::message::{Refusal, Request, ResultCode};

/// What we may have asked when the bytes come as an answer.
static ASKED: LazyLock<Vec<(Header, Request)>> = LazyLock::new(|| {
    let requests: [&[u8]; 4] = [
        include_bytes!("../../tests/fixtures/examples/homens-req.json"),
        include_bytes!("../../tests/fixtures/examples/prstart-req.json"),
        include_bytes!("../../tests/fixtures/examples/xmitdata-req-dl-passive.json"),
        include_bytes!("../../tests/fixtures/examples/join-req.json"),
    ];
    let read = |body| match wire::open(body) {
        Ok(Incoming::Request(request)) => (request.header().unwrap(), request.body().unwrap()),
        other => panic!("{other:?}"),
    };
    requests.into_iter().map(read).collect()
});

static KEKS: LazyLock<Keks> = LazyLock::new(|| {
    let kek = Kek::new("ns1-js", [5; 16]).unwrap();
    Keks { send: Some(kek.clone()), open: vec![kek], allow_clear: true }
});

pub fn fuzz(body: &[u8]) {
    if let Ok(Incoming::Request(request)) = wire::open(body) {
        let _ = request.as_sent();
        let header = request.header();
        let understood = request.body();
        if let (Ok(header), Ok(understood)) = (&header, &understood) {
            // what we do not send (a second's fraction, members that nobody needs) is gone now, the rest stays
            let once = wire::encode_request(header, understood);
            let Ok(Incoming::Request(again)) = wire::open(&once) else {
                panic!("what we send is no request")
            };
            let again = again
                .body()
                .unwrap_or_else(|refusal| panic!("{refusal}: {}", String::from_utf8_lossy(&once)));
            let twice = wire::encode_request(header, &again);
            assert_eq!(String::from_utf8_lossy(&once), String::from_utf8_lossy(&twice));
        }
        let refusal = understood.err().unwrap_or_else(|| Refusal::new(ResultCode::Other, ""));
        assert!(request.answer(&Err(refusal), &KEKS).starts_with(b"{"));
    }
    for (header, request) in ASKED.iter() {
        let _ = wire::decode_answer(body, header, request, &KEKS);
    }
}
