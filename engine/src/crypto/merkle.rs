//! Growing the Merkle tree: [`TreeNode`], and [`Roots`], all that is needed to append.
//!
//! ```text
//! length 6:   roots [3, 9]      append leaf 12, then fold siblings:
//! length 7:   roots [3, 9, 12]
//! length 8:   roots [7]         leaf 14 and 12 give 13, 13 and 9 give 11, 11 and 3 give 7
//! ```
//!
//! An append reads nothing: the roots are in memory, at most one for every bit of the length. Every
//! node that an append completes is handed out once, leaf first and then upwards, which is the order in
//! which nodes are packed on disk (see [`crate::storage::record`]).

use crate::crypto::hash::{self, Hash};
use crate::flat_tree;
use crate::position::{Length, NodeIndex};

/// One Merkle node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeNode {
    /// Its place in the tree.
    pub index: NodeIndex,
    /// How many block bytes lie below it.
    pub size: u64,
    /// Its hash.
    pub hash: Hash,
}

impl TreeNode {
    /// The leaf over a block.
    pub fn leaf(index: NodeIndex, block: &[u8]) -> TreeNode {
        TreeNode { index, size: block.len() as u64, hash: hash::leaf(block) }
    }

    /// The parent of this node and its sibling, given in any order. `None` when the sizes add up to more
    /// than can be, which only made-up nodes do.
    pub fn parent(&self, sibling: &TreeNode) -> Option<TreeNode> {
        debug_assert_eq!(flat_tree::sibling(self.index), sibling.index);
        Some(TreeNode {
            index: flat_tree::parent(self.index),
            size: self.size.checked_add(sibling.size)?,
            hash: hash::parent(self, sibling),
        })
    }
}

/// The roots of a log: the hashes that stand for all of it, and all that appending to it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    nodes: Vec<TreeNode>,
    length: u64,
    byte_length: u64,
}

impl Roots {
    /// Of the empty log.
    pub fn new() -> Roots {
        Roots::default()
    }

    /// Of a log of this length. `None` unless the nodes are just those of [`flat_tree::full_roots`].
    pub fn from_nodes(length: Length, nodes: Vec<TreeNode>) -> Option<Roots> {
        if !flat_tree::full_roots(length).eq(nodes.iter().map(|node| node.index)) {
            return None;
        }
        let byte_length = nodes.iter().try_fold(0u64, |sum, node| sum.checked_add(node.size))?;
        Some(Roots { nodes, length: length.0, byte_length })
    }

    /// How many blocks.
    pub fn length(&self) -> Length {
        Length(self.length)
    }

    /// How many bytes all blocks have.
    pub fn byte_length(&self) -> u64 {
        self.byte_length
    }

    /// The roots from left to right.
    pub fn nodes(&self) -> &[TreeNode] {
        &self.nodes
    }

    /// The root of this index, if it is one.
    pub fn node(&self, index: NodeIndex) -> Option<TreeNode> {
        self.nodes.iter().find(|node| node.index == index).copied()
    }

    /// The tree hash: what gets signed, with length and fork.
    pub fn hash(&self) -> Hash {
        hash::tree(&self.nodes)
    }

    /// Append a block, handing out each node this completes.
    pub fn append(&mut self, block: &[u8], completed: impl FnMut(&TreeNode)) {
        let leaf = TreeNode::leaf(NodeIndex(self.length * 2), block);
        let grown = self.push(leaf, completed);
        assert!(grown, "a leaf at the end of the log did not fit");
    }

    /// Append a node that covers the next blocks, folding siblings into parents, each of which is handed
    /// out, the node itself first. `false`, with nothing changed, when the node belongs elsewhere or its
    /// size cannot be.
    pub fn push(&mut self, node: TreeNode, mut completed: impl FnMut(&TreeNode)) -> bool {
        let Some(byte_length) = self.byte_length.checked_add(node.size) else {
            return false;
        };
        if flat_tree::first_block(node.index).0 != self.length {
            return false;
        }
        // Aligned nodes never cover roots only in part, so it is either folded or stays a root.
        self.length += flat_tree::blocks(node.index);
        self.byte_length = byte_length;
        completed(&node);
        let mut node = node;
        while let Some(left) = self.nodes.last()
            && flat_tree::sibling(left.index) == node.index
        {
            node = left.parent(&node).expect("the sum of all sizes was checked above");
            self.nodes.pop();
            completed(&node);
        }
        self.nodes.push(node);
        true
    }

    /// The nodes a log of this length has to be given, in this order, to [`push`](Roots::push) in order
    /// to reach length `to`: the fewest that will do. Empty when it is not longer.
    pub fn extension(&self, to: Length) -> impl Iterator<Item = NodeIndex> + use<> {
        let mut at = self.length;
        std::iter::from_fn(move || {
            let left = to.0.checked_sub(at)?.checked_ilog2()?;
            let depth = at.trailing_zeros().min(left);
            let node = flat_tree::node(depth, at >> depth);
            at += 1 << depth;
            Some(node)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The definition: a node over `blocks`, whose first is number `first`.
    fn naive(blocks: &[Vec<u8>], first: u64) -> TreeNode {
        if let [block] = blocks {
            return TreeNode::leaf(NodeIndex(first * 2), block);
        }
        let (left, right) = blocks.split_at(blocks.len() / 2);
        naive(left, first).parent(&naive(right, first + left.len() as u64)).unwrap()
    }

    proptest! {
        #[test]
        fn roots_are_those_of_the_definition(blocks in vec(vec(any::<u8>(), 0..40), 0..80)) {
            let mut roots = Roots::new();
            let mut handed_out = 0;
            for block in &blocks {
                roots.append(block, |_| handed_out += 1);
            }
            let length = Length(blocks.len() as u64);
            let expected: Vec<TreeNode> = flat_tree::full_roots(length)
                .map(|root| {
                    let first = flat_tree::first_block(root).0 as usize;
                    naive(&blocks[first..][..flat_tree::blocks(root) as usize], first as u64)
                })
                .collect();
            prop_assert_eq!(handed_out, flat_tree::completed(length));
            prop_assert_eq!(roots.nodes(), &expected[..]);
            prop_assert_eq!(Roots::from_nodes(length, expected), Some(roots));
        }

        #[test]
        fn an_extension_reaches_any_longer_length(from in 0..200u64, more in 0..200u64) {
            let mut roots = Roots::new();
            let mut all = std::collections::HashMap::new();
            let mut at_from = Roots::new();
            for block in 0..from + more {
                if block == from { at_from = roots.clone(); }
                roots.append(&block.to_le_bytes(), |node| { all.insert(node.index, *node); });
            }
            if more == 0 { at_from = roots.clone(); }
            for index in at_from.extension(Length(from + more)) {
                prop_assert!(at_from.push(all[&index], |_| ()));
            }
            prop_assert_eq!(at_from, roots);
        }
    }

    #[test]
    fn foreign_nodes_are_refused() {
        let mut roots = Roots::new();
        roots.append(b"a", |_| ());
        let before = roots.clone();
        let node = |index, size| TreeNode { index: NodeIndex(index), size, hash: [0; 32] };
        assert!(!roots.push(node(0, 1), |_| ()), "covers blocks that are there");
        assert!(!roots.push(node(4, 1), |_| ()), "leaves a gap");
        assert!(!roots.push(node(5, 1), |_| ()), "leaves a gap");
        assert!(!roots.push(node(2, u64::MAX), |_| ()), "too many bytes");
        assert_eq!(roots, before);
        assert!(Roots::from_nodes(Length(2), before.nodes().to_vec()).is_none());
    }
}
