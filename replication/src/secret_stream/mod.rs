//! An encrypted stream between two peers who prove their keys to each other: Noise XX, then frames under secretstream. Encrypted, or closed.
//!
//! ```text
//! initiator                                  responder
//!   u24(32) e                           ->                              XX, message 1
//!                                       <-     u24(96) e, s, mac, mac   XX, message 2
//!   u24(64) s, mac, mac                 ->                              XX, message 3
//!   u24(56) stream id[32] header[24]    ->  <-  u24(56) stream id[32] header[24]
//!   u24(n + 17) sealed message          ->  <-  u24(n + 17) sealed message       n = 0 is a keepalive
//!
//! stream id = H(key = handshake hash, namespace("hyperswarm/secret-stream", 0 if the sender began, else 1))
//! ```
//!
//! * [`handshake`]: who the other side is, and a key for each direction;
//! * `frame`: pieces of any size cut into frames, without trusting their lengths;
//! * `cipher`: messages sealed in order.
//!
//! A state machine without I/O, clock or randomness: bytes go in with [`SecretStream::handle_bytes`], messages come out of
//! [`SecretStream::poll_message`], bytes to write out of [`SecretStream::output`]. The end of the stream is the end of the transport; timeouts and
//! keepalives are timed by whoever drives it.
//!
//! What must stay true:
//!
//! * nothing is given out before it was authenticated, nothing is sent before there is a key;
//! * what is held for a peer is at most about twice what it really sent;
//! * after the first error nothing is read any more.
//!
//! Source: @hyperswarm/secret-stream in JavaScript. Vectors: `raw` in `tests/vectors/transcript-*.json`.

mod cipher;
mod frame;
pub mod handshake;
#[cfg(test)]
pub(crate) mod vectors;

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use pgbee_engine::crypto::hash;
use zeroize::Zeroizing;

pub use handshake::Identity;

use cipher::{Chain, HEADER_BYTES, SEAL_BYTES};
use frame::{Frames, LENGTH_BYTES, PAYLOAD_BYTES_MAX, length_bytes};
use handshake::{Handshake, HandshakeError, Pattern, Session};

/// The most plaintext bytes one frame can carry: 2^24 - 1 less tag and MAC.
pub const MESSAGE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - SEAL_BYTES;

/// What a stranger may send in one frame before the handshake is over. The messages have at most 96 bytes; payloads, which nobody uses, are ignored.
const HANDSHAKE_BYTES_MAX: usize = 1024;

const STREAM_ID_BYTES: usize = 32;
const STREAM_HEADER_BYTES: usize = STREAM_ID_BYTES + HEADER_BYTES;

/// Who began the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The side that connected: it speaks first.
    Initiator,
    /// The side that listened.
    Responder,
}

impl Role {
    fn other(self) -> Role {
        match self {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        }
    }
}

/// The random bytes one stream needs: fresh from the operating system for each stream, fixed in tests. Wiped from memory when dropped.
#[derive(Clone)]
pub struct Randomness {
    ephemeral_seed: Zeroizing<[u8; 32]>,
    stream_header: [u8; HEADER_BYTES],
}

impl Randomness {
    /// The seed of the ephemeral key pair (32 bytes), then the header of the sending cipher (24).
    pub fn new(random: [u8; 56]) -> Randomness {
        let random = Zeroizing::new(random);
        let (seed, header) = random.split_first_chunk::<32>().expect("56 bytes are more than 32");
        Randomness {
            ephemeral_seed: Zeroizing::new(*seed),
            stream_header: header.try_into().expect("56 bytes are 32 and 24"),
        }
    }
}

/// Why a stream ended, or why something was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A handshake message is malformed, forged, or holds a bad point.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
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

/// What is expected of the other side next.
enum Receiving {
    Handshake(Box<Handshake>),
    Header { key: Zeroizing<[u8; 32]> },
    Messages(Chain),
    Failed(StreamError),
}

/// What the handshake left, and our half of the stream.
struct Established {
    sending: Chain,
    handshake_hash: [u8; 64],
    remote_public_key: [u8; 32],
}

/// One encrypted stream, without I/O: bytes of the transport in and out on one side, messages on the other.
pub struct SecretStream {
    role: Role,
    receiving: Receiving,
    established: Option<Established>,
    stream_header: [u8; HEADER_BYTES],
    message_bytes_max: usize,
    frames: Frames,
    messages: VecDeque<Bytes>,
    output: BytesMut,
}

impl SecretStream {
    /// A stream about to shake hands (Noise XX). An initiator has output at once.
    pub fn new(role: Role, identity: &Identity, random: Randomness) -> SecretStream {
        let mut handshake = Handshake::new(Pattern::Xx, role, identity, *random.ephemeral_seed, &[], None)
            .expect("XX needs no key of the remote");
        let mut output = BytesMut::new();
        if role == Role::Initiator {
            let message =
                handshake.send(&[]).expect("the initiator speaks first, and its first message holds no secret");
            put_frame(&mut output, &message);
        }
        SecretStream::with(role, Receiving::Handshake(Box::new(handshake)), random.stream_header, output)
    }

    /// A stream whose handshake was made elsewhere, as the DHT does: only the headers are exchanged. The random bytes must be fresh.
    pub fn established(role: Role, session: &Session, stream_header: [u8; 24]) -> SecretStream {
        let failed = Receiving::Failed(StreamError::NotOpen);
        let mut stream = SecretStream::with(role, failed, stream_header, BytesMut::new());
        stream.establish(session);
        stream
    }

    fn with(role: Role, receiving: Receiving, stream_header: [u8; HEADER_BYTES], output: BytesMut) -> SecretStream {
        SecretStream {
            role,
            receiving,
            established: None,
            stream_header,
            message_bytes_max: MESSAGE_BYTES_MAX,
            frames: Frames::default(),
            messages: VecDeque::new(),
            output,
        }
    }

    /// Refuse frames with more plaintext than this; at most and by default [`MESSAGE_BYTES_MAX`].
    pub fn set_message_bytes_max(&mut self, max: usize) {
        self.message_bytes_max = max.min(MESSAGE_BYTES_MAX);
    }

    /// Take what the transport received, in pieces of any size. Give no more while messages wait: all of it is decrypted at once.
    ///
    /// # Errors
    ///
    /// The other side broke the stream: close the transport. Messages read before the error still come out; later calls give the same error.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        if let Receiving::Failed(error) = self.receiving {
            return Err(error);
        }
        self.frames.push(bytes);
        let read = self.read_frames();
        if let Err(error) = read {
            self.receiving = Receiving::Failed(error);
            self.frames = Frames::default();
        }
        read
    }

    /// The next message received, in order. Keepalives do not show. Messages that arrived together share one buffer, which lives as long as the last of
    /// them: copy a small one to keep it.
    pub fn poll_message(&mut self) -> Option<Bytes> {
        self.messages.pop_front()
    }

    /// Encrypt one message into the output.
    ///
    /// # Errors
    ///
    /// [`StreamError::NotOpen`] before the handshake is over, [`StreamError::MessageTooLarge`] above [`MESSAGE_BYTES_MAX`]. The stream stays as it was.
    pub fn send(&mut self, plaintext: &[u8]) -> Result<(), StreamError> {
        let established = self.established.as_mut().ok_or(StreamError::NotOpen)?;
        if plaintext.len() > MESSAGE_BYTES_MAX {
            return Err(StreamError::MessageTooLarge(plaintext.len()));
        }
        let len = plaintext.len() + SEAL_BYTES;
        self.output.reserve(LENGTH_BYTES + len);
        self.output.put_slice(&length_bytes(len));
        let sealed = self.output.len();
        self.output.put_u8(0);
        self.output.put_slice(plaintext);
        self.output.put_bytes(0, SEAL_BYTES - 1);
        established.sending.seal(&mut self.output[sealed..]);
        Ok(())
    }

    /// Send an empty message, which peers ignore.
    ///
    /// # Errors
    ///
    /// [`StreamError::NotOpen`] before the handshake is over.
    pub fn keep_alive(&mut self) -> Result<(), StreamError> {
        self.send(&[])
    }

    /// What waits to be written to the transport; after writing some call [`consume_output`](Self::consume_output).
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// So many bytes of [`output`](Self::output) were written.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn consume_output(&mut self, len: usize) {
        self.output.advance(len);
    }

    /// At most so many bytes to write to the transport, taken out; empty when there is nothing to write.
    pub fn take_output(&mut self, max: usize) -> Bytes {
        let len = self.output.len().min(max);
        self.output.split_to(len).freeze()
    }

    /// Whether the handshake is over, so that messages can be sent. It says nothing of errors since.
    pub fn is_open(&self) -> bool {
        self.established.is_some()
    }

    /// Whether we began the connection.
    pub fn is_initiator(&self) -> bool {
        self.role == Role::Initiator
    }

    /// Who the other side has proved to be; known once open.
    pub fn remote_public_key(&self) -> Option<[u8; 32]> {
        self.established.as_ref().map(|established| established.remote_public_key)
    }

    /// What both sides and nobody else agree on; known once open. Capabilities are bound to it.
    pub fn handshake_hash(&self) -> Option<&[u8; 64]> {
        self.established.as_ref().map(|established| &established.handshake_hash)
    }

    fn read_frames(&mut self) -> Result<(), StreamError> {
        while let Some(payload) = self.frames.next(self.payload_max())? {
            self.read_frame(payload)?;
        }
        Ok(())
    }

    fn payload_max(&self) -> usize {
        match self.receiving {
            Receiving::Handshake(_) | Receiving::Failed(_) => HANDSHAKE_BYTES_MAX,
            Receiving::Header { .. } => STREAM_HEADER_BYTES,
            Receiving::Messages(_) => self.message_bytes_max + SEAL_BYTES,
        }
    }

    fn read_frame(&mut self, mut payload: BytesMut) -> Result<(), StreamError> {
        match &mut self.receiving {
            Receiving::Messages(chain) => {
                chain.open(&mut payload).map_err(|_| StreamError::Forged)?;
                let plaintext = payload.len() - SEAL_BYTES;
                if plaintext > 0 {
                    payload.advance(1);
                    payload.truncate(plaintext);
                    self.messages.push_back(payload.freeze());
                }
                Ok(())
            }
            Receiving::Header { key } => {
                let (id, header) = payload.split_at_checked(STREAM_ID_BYTES).ok_or(StreamError::Header)?;
                let header = header.try_into().map_err(|_| StreamError::Header)?;
                let chain = Chain::new(key, header);
                let hash = self.handshake_hash().ok_or(StreamError::Header)?;
                if id != stream_id(hash, self.role.other()) {
                    return Err(StreamError::Header);
                }
                self.receiving = Receiving::Messages(chain);
                Ok(())
            }
            Receiving::Handshake(_) => self.shake_hands(&payload),
            Receiving::Failed(error) => Err(*error),
        }
    }

    fn shake_hands(&mut self, message: &[u8]) -> Result<(), StreamError> {
        let Receiving::Handshake(handshake) = &mut self.receiving else { return Ok(()) };
        handshake.receive(message)?;
        if !handshake.is_complete() {
            let answer = handshake.send(&[])?;
            put_frame(&mut self.output, &answer);
        }
        if handshake.is_complete() {
            let none = Receiving::Failed(StreamError::NotOpen);
            let Receiving::Handshake(handshake) = std::mem::replace(&mut self.receiving, none) else { return Ok(()) };
            let session = handshake.finish().ok_or(HandshakeError::Turn)?;
            self.establish(&session);
        }
        Ok(())
    }

    fn establish(&mut self, session: &Session) {
        let mut header = BytesMut::with_capacity(STREAM_HEADER_BYTES);
        header.put_slice(&stream_id(&session.hash, self.role));
        header.put_slice(&self.stream_header);
        put_frame(&mut self.output, &header);
        self.receiving = Receiving::Header { key: Zeroizing::new(session.receive_key) };
        self.established = Some(Established {
            sending: Chain::new(&session.send_key, &self.stream_header),
            handshake_hash: session.hash,
            remote_public_key: session.remote_public_key,
        });
    }
}

/// What tells one stream of a handshake from another, and one direction from the other.
fn stream_id(handshake_hash: &[u8; 64], sender: Role) -> [u8; STREAM_ID_BYTES] {
    let namespace = hash::namespace("hyperswarm/secret-stream", if sender == Role::Initiator { 0 } else { 1 });
    hash::keyed(handshake_hash, &[&namespace])
}

fn put_frame(output: &mut BytesMut, payload: &[u8]) {
    output.put_slice(&length_bytes(payload.len()));
    output.put_slice(payload);
}

#[cfg(test)]
mod tests;
