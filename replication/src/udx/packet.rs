//! A UDX packet's bytes.
