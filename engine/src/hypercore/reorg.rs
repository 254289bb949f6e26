//! Following the writer to a new fork: [`Reorg`].

use std::sync::Arc;

use super::Core;
use super::intake::Applied;
use super::proof::{Proof, Request};
use crate::error::{Error, Result};
use crate::storage::Durability;

/// A new history on its way to replacing the one that is held.
pub struct Reorg {
    core: Arc<Core>,
}

impl Core {
    /// Begins to follow a newer fork. The proof is of an upgrade from 0 to the remote length.
    ///
    /// # Errors
    ///
    /// As [`Intake::verify`](super::intake::Intake::verify).
    pub fn reorg(self: &Arc<Self>, proof: Proof) -> Result<Reorg> {
        let _ = proof;
        let _ = Reorg { core: self.clone() };
        Err(Error::invalid("not yet"))
    }
}

impl Reorg {
    /// What has to be asked next; `None` once it can be committed.
    pub fn next_request(&self) -> Option<Request> {
        let _ = &self.core;
        None
    }

    /// The answer to it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidProof`].
    pub fn receive(&mut self, proof: Proof) -> Result<()> {
        let _ = proof;
        Ok(())
    }

    /// Replaces the history.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the core changed meanwhile: begin again. [`Error::Storage`].
    pub fn commit(self, durability: Durability) -> Result<Applied> {
        let _ = durability;
        Ok(Applied::default())
    }
}
