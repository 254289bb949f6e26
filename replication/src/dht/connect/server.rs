//! Being connected to.
