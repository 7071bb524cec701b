//! GPS sentences, and the chip's counter against GPS time. Pure: bytes and numbers in, facts out.
