//! Logs, and the live record of frames and doors that tail and demo show.
