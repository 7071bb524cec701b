//! The local control socket: the command line's door to a running daemon.
