//! JSON on the wire: headers, hex, aliases (TS002 sections 5, 7, 8, 18).
