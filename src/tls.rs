//! rustls configurations from identity and roots; peer certificate to who it is.
