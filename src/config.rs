//! Composes the Config of every room; loads, checks, explains.
