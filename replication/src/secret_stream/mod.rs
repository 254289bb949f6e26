//! Noise XX with Ed25519 keys, then frames under the secretstream cipher: a stream is encrypted or closed.

use bytes::Bytes;

/// Who began the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The side that connected: it speaks first.
    Initiator,
    /// The side that listened.
    Responder,
}

/// A static Ed25519 key pair: who a peer is on every stream. Wiped from memory when dropped.
#[derive(Clone)]
pub struct Identity {}

impl Identity {
    /// The key pair grown from a seed, as in libsodium.
    pub fn from_seed(_seed: [u8; 32]) -> Identity {
        unimplemented!()
    }

    /// What the other side learns.
    pub fn public_key(&self) -> [u8; 32] {
        unimplemented!()
    }
}

/// The random bytes one stream needs: fresh from the operating system for each stream (56 bytes), fixed in tests.
#[derive(Clone)]
pub struct Randomness {
    /// The seed of the ephemeral key pair.
    pub ephemeral_seed: [u8; 32],
    /// The header of the sending cipher.
    pub stream_header: [u8; 24],
}

impl Randomness {
    /// Both parts out of 56 random bytes.
    pub fn new(_random: [u8; 56]) -> Randomness {
        unimplemented!()
    }
}

/// Why a stream ended, or why something was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A handshake message is malformed, forged, or holds a bad point.
    #[error("the handshake failed")]
    Handshake,
    /// A frame claims to be longer than what is taken.
    #[error("a frame of {len} bytes, at most {max} are taken")]
    FrameTooLarge {
        /// What it claims.
        len: usize,
        /// What is taken at this point of the stream.
        max: usize,
    },
    /// The stream header has another length, or belongs to another handshake.
    #[error("the stream header is not that of this handshake")]
    Header,
    /// A frame is forged, repeated, missing, or out of order.
    #[error("a frame does not decrypt")]
    Forged,
    /// Nothing can be sent before the handshake is over.
    #[error("the handshake is not over")]
    NotOpen,
    /// Our own message is longer than a frame can hold.
    #[error("a message of {0} bytes does not fit into a frame")]
    MessageTooLarge(usize),
}

/// The most plaintext bytes one frame can carry: 2^24 - 1 less tag and MAC.
pub const MESSAGE_BYTES_MAX: usize = (1 << 24) - 1 - 17;

/// One encrypted stream, without I/O: bytes of the transport in and out on one side, messages on the other.
pub struct SecretStream {}

impl SecretStream {
    /// A stream about to shake hands (Noise XX). An initiator has output at once.
    pub fn new(_role: Role, _identity: &Identity, _random: Randomness) -> SecretStream {
        unimplemented!()
    }

    /// Refuse frames with more plaintext than this; at most and by default [`MESSAGE_BYTES_MAX`].
    pub fn set_message_bytes_max(&mut self, _max: usize) {}

    /// Take what the transport received, in pieces of any size. Messages read before the error still come out; the stream stays failed.
    pub fn handle_bytes(&mut self, _bytes: &[u8]) -> Result<(), StreamError> {
        unimplemented!()
    }

    /// The next message received, in order. Keepalives do not show.
    pub fn poll_message(&mut self) -> Option<Bytes> {
        unimplemented!()
    }

    /// Encrypt one message into the output. Refused before the stream is open or if the message does not fit into a frame.
    pub fn send(&mut self, _plaintext: &[u8]) -> Result<(), StreamError> {
        unimplemented!()
    }

    /// Send an empty message, which peers ignore.
    pub fn keep_alive(&mut self) -> Result<(), StreamError> {
        self.send(&[])
    }

    /// What waits to be written to the transport; after writing some call [`consume_output`](Self::consume_output).
    pub fn output(&self) -> &[u8] {
        unimplemented!()
    }

    /// So many bytes of [`output`](Self::output) were written.
    pub fn consume_output(&mut self, _len: usize) {}

    /// At most so many bytes to write to the transport, taken out; empty when there is nothing to write.
    pub fn take_output(&mut self, _max: usize) -> Bytes {
        unimplemented!()
    }

    /// Whether the handshake is over, so that messages can be sent.
    pub fn is_open(&self) -> bool {
        unimplemented!()
    }

    /// Whether we began the connection.
    pub fn is_initiator(&self) -> bool {
        unimplemented!()
    }

    /// Who the other side has proved to be; known once open.
    pub fn remote_public_key(&self) -> Option<[u8; 32]> {
        unimplemented!()
    }

    /// What both sides and nobody else agree on; known once open. Capabilities are bound to it.
    pub fn handshake_hash(&self) -> Option<&[u8; 64]> {
        unimplemented!()
    }
}
