//! When may a frame go out: airtime, duty cycle, collisions. Pure.
