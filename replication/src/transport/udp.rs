//! UDP sockets of the operating system.
