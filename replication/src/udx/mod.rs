//! Reliable streams over UDP, as libudx speaks them.

pub mod congestion;
pub mod mux;
pub mod packet;
pub mod stream;
