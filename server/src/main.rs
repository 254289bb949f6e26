//! The pgbee binary.
fn main() {}
