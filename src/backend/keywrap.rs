//! KeyEnvelope: wrap and unwrap by RFC 3394 (TS002 section 10).
