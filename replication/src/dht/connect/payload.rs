//! What both sides tell each other inside of the Noise handshake.
