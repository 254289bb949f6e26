//! Which kind of NAT a socket is behind.
