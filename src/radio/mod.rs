//! Concentrators behind one trait: semtech-udp, simulated.
