//! Handshakes and hole punches passed on between peers.
