//! All streams over all sockets.
