//! Proof that a peer knows a core's key: [`Handshake`], what a channel opens with.
//!
//! ```text
//! handshake  = uint flags (1 = seeks) || capability[32]
//! capability = H( key = handshake hash[64], REPLICATE_INITIATOR or REPLICATE_RESPONDER, of who shows it || core key )
//! ```
//!
//! It is bound to one Noise handshake, so nobody can show what another showed elsewhere, and to the side that shows it, so nobody can show what it was
//! shown. Source: `replicate` in hypercore `lib/caps.js`.

use pgbee_engine::CoreKey;
use pgbee_engine::crypto::hash;
use pgbee_engine::encoding::compact::{self, DecodeError, Decoder};

/// What a channel of a core opens with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Whether who sends it answers seeks.
    pub seeks: bool,
    /// The proof.
    pub capability: [u8; 32],
}

impl Handshake {
    /// What we show: `is_initiator` says which side of the Noise handshake we were.
    pub fn new(core: CoreKey, is_initiator: bool, handshake_hash: &[u8; 64]) -> Handshake {
        Handshake { seeks: true, capability: hash::capability(&core, is_initiator, handshake_hash) }
    }

    /// Whether it proves that the other side knows the key; `is_initiator` says which side *we* were.
    pub fn proves(&self, core: CoreKey, is_initiator: bool, handshake_hash: &[u8; 64]) -> bool {
        let expected = hash::capability(&core, !is_initiator, handshake_hash);
        // Every byte is looked at: the time it takes tells nothing of where a guess goes wrong.
        expected.iter().zip(&self.capability).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(33);
        compact::uint(&mut out, self.seeks.into());
        out.extend_from_slice(&self.capability);
        out
    }

    /// From bytes; what a newer version may have put behind is ignored.
    ///
    /// # Errors
    /// If they end too early.
    pub fn decode(bytes: &[u8]) -> Result<Handshake, DecodeError> {
        let mut from = Decoder::new(bytes);
        Ok(Handshake { seeks: from.uint()? & 1 != 0, capability: from.fixed()? })
    }
}
