//! One writer, two histories: [`Conflict`], and the core that is [frozen](Core::freeze) by it.
//!
//! ```text
//! ours     upgrade 0..length, additional nodes, signature of our head       both signatures are valid, on one fork,
//! theirs   upgrade 0..length, additional nodes, signature of their head     and the trees at `length` are not the same
//! ```
//!
//! Only who has the writer's secret key can make such a pair: a lost machine restored from a backup, a key used twice, or fraud.
//! Nobody can tell which history is the right one, so nothing more is taken or given. What is held stays readable. The evidence is
//! kept; anyone can check it with the core's key alone.
//!
//! Source: `checkConflict` in holepunchto/hypercore `lib/core.js`.

use bytes::Bytes;

use super::Core;
use super::proof::{Proof, Request, UpgradeProof, UpgradeRequest};
use super::verify;
use crate::crypto::merkle::{Roots, TreeNode};
use crate::encoding::compact::{self, DecodeError, Decoder};
use crate::error::{Error, Result};
use crate::position::{Fork, Length, NodeIndex};
use crate::storage::key::{CoreId, MetaKey};
use crate::storage::record::{self, Record};
use crate::storage::{Backend, Durability, Space, WriteBatch};

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
    /// Whether a proof of an upgrade from 0, on our fork and not beyond our length, shows that the writer signed two histories.
    /// `None` also where that cannot be told: it is another fork, it reaches beyond what we have, or our roots at that length are not
    /// known.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidProof`], [`Error::InvalidSignature`]: the peer's fault, and no evidence. Those of storage.
    pub fn check_conflict(&self, proof: &Proof) -> Result<Option<Conflict>> {
        let (Some(theirs), Some(verifier)) = (&proof.upgrade, self.verifier()) else {
            return Ok(None);
        };
        verify::check_bounds(proof)?;
        let head = self.head();
        let length = Length(theirs.start.0 + theirs.length);
        if theirs.start != Length(0) || proof.fork != head.fork || length > head.length || self.is_frozen() {
            return Ok(None);
        }
        verify::alone(proof, &verifier)?;
        let roots = super::tree::roots_at(length, |index| {
            let root = self.published.read().roots.node(index);
            root.map_or_else(|| self.known_node(index), |root| Ok(Some(root)))
        })?;
        let Some(roots) = roots else { return Ok(None) };
        let mut shown = Roots::new();
        let mut learned = Vec::new();
        let root = verify::subtree(proof, &mut learned)?;
        let asked = UpgradeProof { additional: Vec::new(), ..theirs.clone() };
        verify::extend(&mut shown, &asked, root, None, &mut learned)?;
        if shown == roots {
            return Ok(None);
        }
        let upgrade = Some(UpgradeRequest { start: Length(0), length: length.0 });
        let ours = match self.prove(&Request { upgrade, ..Request::default() }) {
            Ok(ours) => ours.upgrade,
            // Our own head is not durable, or not known well enough to accuse anyone.
            Err(Error::Invalid(_)) => None,
            Err(error) => return Err(error),
        };
        let theirs = UpgradeProof { nodes: shown.nodes().to_vec(), ..theirs.clone() };
        Ok(ours.map(|ours| Conflict { fork: head.fork, length, ours, theirs }))
    }

    /// Takes nothing more of this core from anyone, and gives nothing: appends, intakes, proofs and truncations answer
    /// [`Error::Frozen`], also after a restart. What is held stays readable. Nothing happens if it is frozen.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the evidence is none; [`Error::Storage`].
    pub fn freeze(&self, conflict: Conflict) -> Result<()> {
        if !conflict.holds(self)? {
            return Err(Error::invalid("no two histories are shown"));
        }
        let at = MetaKey::Conflict(self.id).encode();
        let mut batch = WriteBatch::new();
        batch.put(Space::Meta, &at, &record::encode(&at, &conflict));
        self.backend.write(batch, Durability::Sync)?;
        self.frozen.write().get_or_insert(conflict);
        Ok(())
    }

    /// Why the core is frozen, if it is.
    pub fn conflict(&self) -> Option<Conflict> {
        self.frozen.read().clone()
    }

    /// Whether the core is frozen.
    pub fn is_frozen(&self) -> bool {
        self.frozen.read().is_some()
    }

    pub(super) fn check_frozen(&self) -> Result<()> {
        if self.is_frozen() { Err(Error::Frozen(self.key)) } else { Ok(()) }
    }
}

impl Conflict {
    /// Whether both sides are signed, and differ.
    fn holds(&self, core: &Core) -> Result<bool> {
        let Some(verifier) = core.verifier() else { return Ok(false) };
        let at_length = |side: &UpgradeProof| -> Result<Roots> {
            let whole = Proof { fork: self.fork, upgrade: Some(side.clone()), ..Proof::default() };
            verify::alone(&whole, &verifier)?;
            let asked = UpgradeProof { additional: Vec::new(), ..side.clone() };
            let mut roots = Roots::new();
            verify::extend(&mut roots, &asked, None, None, &mut Vec::new())?;
            Ok(roots)
        };
        let (ours, theirs) = (at_length(&self.ours)?, at_length(&self.theirs)?);
        Ok(ours.length() == self.length && theirs.length() == self.length && ours != theirs)
    }

    /// The conflict a core was frozen by.
    pub(super) fn read_from(backend: &dyn Backend, core: CoreId) -> Result<Option<Conflict>> {
        let at = MetaKey::Conflict(core).encode();
        backend.get(Space::Meta, &at)?.map(|stored| record::decode(&at, stored)).transpose()
    }
}

impl Record for Conflict {
    const NAME: &'static str = "the record of a conflict";

    fn write(&self, out: &mut Vec<u8>) {
        compact::uint(out, self.fork.0);
        compact::uint(out, self.length.0);
        for side in [&self.ours, &self.theirs] {
            write_nodes(out, &side.nodes);
            write_nodes(out, &side.additional);
            compact::buffer(out, &side.signature);
        }
    }

    fn read(from: &mut Decoder<'_>) -> std::result::Result<Conflict, DecodeError> {
        let (fork, length) = (Fork(from.uint()?), from.uint()?);
        let mut side = || {
            Ok(UpgradeProof {
                start: Length(0),
                length,
                nodes: from.array(read_node)?,
                additional: from.array(read_node)?,
                signature: Bytes::copy_from_slice(from.buffer()?),
            })
        };
        let (ours, theirs) = (side()?, side()?);
        Ok(Conflict { fork, length: Length(length), ours, theirs })
    }
}

fn write_nodes(out: &mut Vec<u8>, nodes: &[TreeNode]) {
    compact::array(out, nodes, |out, node| {
        compact::uint(out, node.index.0);
        compact::uint(out, node.size);
        out.extend_from_slice(&node.hash);
    });
}

fn read_node(from: &mut Decoder<'_>) -> std::result::Result<TreeNode, DecodeError> {
    Ok(TreeNode { index: NodeIndex(from.uint()?), size: from.uint()?, hash: from.fixed()? })
}
