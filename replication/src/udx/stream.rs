//! One UDX stream.
