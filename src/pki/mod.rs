//! Certificates of the federation: check, make.
