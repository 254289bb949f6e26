//! Opening a way through two NATs.
