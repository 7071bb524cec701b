//! Our application server: decrypt, deliver, accept and queue downlinks.
