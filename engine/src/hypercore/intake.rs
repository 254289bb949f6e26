//! Taking in what peers send: [`Intake`].

use super::proof::{Proof, Request};
use super::{Core, Head};
use crate::error::{Error, Result};
use crate::position::{BlockIndex, Length, NodeIndex};
use crate::storage::Durability;

/// A batch of verified proofs on its way into the store. One at a time a core.
pub struct Intake<'a> {
    core: &'a Core,
}

/// What a proof brings, verified. Only [`Intake::verify`] makes one.
#[derive(Debug)]
pub struct Verified {
    block: Option<BlockIndex>,
}

impl Verified {
    /// The block it brings.
    pub fn block(&self) -> Option<BlockIndex> {
        self.block
    }
}

/// What a commit has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The blocks that were taken in.
    pub blocks: Vec<BlockIndex>,
    /// The new head, if it moved.
    pub head: Option<Head>,
    /// Blocks from here on were dropped, or belong to a new history.
    pub truncated_to: Option<Length>,
}

impl Core {
    /// Begins to take in proofs. Waits for whoever else writes.
    pub fn intake(&self) -> Intake<'_> {
        Intake { core: self }
    }

    /// A proof of what is asked.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`]; [`Error::Invalid`] for what cannot be proved; [`Error::Frozen`].
    pub fn prove(&self, request: &Request) -> Result<Proof> {
        let _ = request;
        Err(Error::invalid("not yet"))
    }

    /// How many steps lead up from a node to one that is known here.
    pub fn missing_nodes(&self, index: NodeIndex) -> u64 {
        let _ = index;
        0
    }

    /// Whether a peer with a log of this length can be given an upgrade.
    pub fn can_prove_upgrade(&self, from: Length) -> bool {
        let _ = from;
        false
    }
}

impl Intake<'_> {
    /// Verifies a proof against the store and what was added.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidProof`], [`Error::InvalidSignature`], [`Error::InvalidManifest`]: the peer's fault.
    /// [`Error::Invalid`]: a late answer that fits no longer, nobody's fault.
    pub fn verify(&self, proof: Proof) -> Result<Verified> {
        let _ = (proof, self.core);
        Err(Error::invalid("not yet"))
    }

    /// Adds it to the batch.
    pub fn add(&mut self, verified: Verified) {
        let _ = verified;
    }

    /// Writes the batch and publishes it.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn commit(self, durability: Durability) -> Result<Applied> {
        let _ = durability;
        Ok(Applied::default())
    }
}
