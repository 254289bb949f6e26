//! What can go wrong between peers, sorted by what is done about it.
//!
//! ```text
//! drop the message     nothing is said of it: an unknown type, an answer to no question
//! drop the peer        Fault: its connection ends, nothing of what it sent is kept, and nobody else notices
//! tell the user        FollowError: a request of ours that cannot be
//! ```

use pgbee_engine::Error;
use pgbee_engine::encoding::compact::DecodeError;

use crate::protomux::MuxError;
use crate::secret_stream::StreamError;

/// Why a peer's connection was ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The encryption failed.
    #[error("the secret stream broke: {0}")]
    Stream(#[from] StreamError),
    /// The channels are in disorder.
    #[error("the multiplexer broke: {0}")]
    Mux(#[from] MuxError),
    /// A message that cannot be read.
    #[error("a message of type {kind} cannot be read: {why}")]
    Message {
        /// Its type.
        kind: u64,
        /// Why.
        why: DecodeError,
    },
    /// A channel's id is no discovery key.
    #[error("a channel's id is not 32 bytes")]
    ChannelId,
    /// It does not know the key of the core it asked for.
    #[error("the peer did not prove that it knows the core's key")]
    Capability,
    /// What it sent does not verify.
    #[error("what the peer sent does not verify: {0}")]
    Unverified(Error),
    /// It asks faster than it takes answers.
    #[error("too many requests wait")]
    TooManyRequests,
    /// It asks for what cannot be, again and again.
    #[error("too many impossible requests")]
    InvalidRequests,
    /// It sent evidence of conflicts where there are none, again and again.
    #[error("too many unfounded conflicts")]
    UnfoundedConflicts,
    /// It does not read what it is sent.
    #[error("the peer does not read")]
    DoesNotRead,
    /// The handshake took too long.
    #[error("the handshake took too long")]
    HandshakeTimeout,
    /// Nothing was heard of it for too long.
    #[error("nothing was heard of the peer for too long")]
    Silent,
}

/// A request to follow a core that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// Not `host:port`.
    #[error("\"{0}\" is no address: give host:port")]
    Address(String),
}
