//! Two histories signed by one writer.

use super::Core;
use super::proof::{Proof, UpgradeProof};
use crate::error::{Error, Result};
use crate::position::{Fork, Length};

/// The evidence that a writer signed two histories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// On which fork.
    pub fork: Fork,
    /// The length at which the two trees differ.
    pub length: Length,
    /// What we hold: an upgrade from 0 to `length`.
    pub ours: UpgradeProof,
    /// What a peer showed: an upgrade from 0 to `length`.
    pub theirs: UpgradeProof,
}

impl Core {
    /// Whether a proof of an upgrade from 0 shows that the writer signed two histories.
    ///
    /// # Errors
    ///
    /// As [`Intake::verify`](super::intake::Intake::verify).
    pub fn check_conflict(&self, proof: &Proof) -> Result<Option<Conflict>> {
        let _ = proof;
        Ok(None)
    }

    /// Takes no more of this core from anyone, and gives none.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn freeze(&self, conflict: Conflict) -> Result<()> {
        let _ = conflict;
        Err(Error::Frozen(self.key()))
    }

    /// Why the core is frozen, if it is.
    pub fn conflict(&self) -> Option<Conflict> {
        None
    }
}
