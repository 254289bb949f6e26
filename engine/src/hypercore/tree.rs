//! Reading packed Merkle nodes; how they are packed is told in [`crate::storage::record`].

use crate::crypto::merkle::TreeNode;
use crate::error::{Error, Result};
use crate::flat_tree;
use crate::position::NodeIndex;
use crate::storage::key::{self, CoreId};
use crate::storage::record;
use crate::storage::{Backend, Space};

/// A node, if it is in the store. One seek: the chunk that has a node is the first to end at or after
/// its rightmost leaf.
pub(super) fn read_node(backend: &dyn Backend, core: CoreId, index: NodeIndex) -> Result<Option<TreeNode>> {
    let range = key::blocks_from(core, flat_tree::last_block(index));
    let Some(entry) = backend.scan(Space::Tree, range, false).next() else {
        return Ok(None);
    };
    let (at, value) = entry?;
    let last = key::block_index(&at).ok_or_else(|| Error::corrupt("a key of a Merkle chunk is cut off"))?;
    let damaged = |what| Error::corrupt(format!("Merkle nodes up to block {last}: {what}"));
    let payload = record::unseal(&at, value).map_err(damaged)?;
    record::chunk_node(last, &payload, index).map_err(damaged)
}
