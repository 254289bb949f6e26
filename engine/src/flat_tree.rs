//! Arithmetic of flat in-order tree numbering: a binary tree as a list of integers.
//!
//! ```text
//! depth 2            3
//!             ┌──────┴──────┐
//! depth 1     1             5             9
//!          ┌──┴──┐       ┌──┴──┐       ┌──┴──┐
//! depth 0  0     2       4     6       8    10       node 2i is the leaf of block i
//! block    0     1       2     3       4     5
//! ```
//!
//! A node's depth is its number of trailing one bits. A log of six blocks has the roots 3 and 9: one for
//! every bit set in its length, the largest first. A node is *complete* once its rightmost leaf exists,
//! so block `i` completes its leaf and as many parents as `i` has trailing one bits; that is how nodes
//! are packed on disk.
//!
//! Source: mafintosh/flat-tree.

use crate::position::{BlockIndex, Length, NodeIndex};

/// How far the node is above the leaves.
pub fn depth(node: NodeIndex) -> u32 {
    node.0.trailing_ones()
}

/// The node of this depth and offset: the `offset`th from the left on its level.
pub fn node(depth: u32, offset: u64) -> NodeIndex {
    NodeIndex((offset << (depth + 1)) | ((1 << depth) - 1))
}

/// How many nodes of the same depth lie to the left.
pub fn offset(node: NodeIndex) -> u64 {
    node.0 >> (depth(node) + 1)
}

/// The node above.
pub fn parent(of: NodeIndex) -> NodeIndex {
    node(depth(of) + 1, offset(of) >> 1)
}

/// The other child of the same parent.
pub fn sibling(of: NodeIndex) -> NodeIndex {
    node(depth(of), offset(of) ^ 1)
}

/// The left child, or `None` of a leaf.
pub fn left_child(of: NodeIndex) -> Option<NodeIndex> {
    let below = depth(of).checked_sub(1)?;
    Some(node(below, offset(of) << 1))
}

/// The right child, or `None` of a leaf.
pub fn right_child(of: NodeIndex) -> Option<NodeIndex> {
    let below = depth(of).checked_sub(1)?;
    Some(node(below, (offset(of) << 1) | 1))
}

/// How many blocks lie below the node.
pub fn blocks(of: NodeIndex) -> u64 {
    1 << depth(of)
}

/// The leftmost block below the node.
pub fn first_block(of: NodeIndex) -> BlockIndex {
    BlockIndex(offset(of) << depth(of))
}

/// The rightmost block below the node: the one whose append completes it.
pub fn last_block(of: NodeIndex) -> BlockIndex {
    BlockIndex(((offset(of) + 1) << depth(of)) - 1)
}

/// Whether the node lies on the path from the block to the top.
pub fn contains(node: NodeIndex, block: BlockIndex) -> bool {
    block.0 >> depth(node) == offset(node)
}

/// Whether a node is the other one, or lies below it.
pub fn covers(node: NodeIndex, other: NodeIndex) -> bool {
    let (above, below) = (depth(node), depth(other));
    above >= below && offset(other) >> (above - below) == offset(node)
}

/// The roots of a log of this length, from left to right.
pub fn full_roots(length: Length) -> impl Iterator<Item = NodeIndex> {
    let mut first = 0;
    let mut left = length.0;
    std::iter::from_fn(move || {
        let depth = left.checked_ilog2()?;
        let root = node(depth, first >> depth);
        first += 1 << depth;
        left -= 1 << depth;
        Some(root)
    })
}

/// How many nodes are complete in a log of this length. Block `i` completes the nodes numbered
/// `completed(i)..completed(i + 1)`: its leaf first, then upwards.
pub fn completed(length: Length) -> u64 {
    2 * length.0 - u64::from(length.0.count_ones())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_picture_above() {
        assert_eq!(parent(NodeIndex(0)), NodeIndex(1));
        assert_eq!(parent(NodeIndex(5)), NodeIndex(3));
        assert_eq!(sibling(NodeIndex(1)), NodeIndex(5));
        assert_eq!(left_child(NodeIndex(3)), Some(NodeIndex(1)));
        assert_eq!(right_child(NodeIndex(3)), Some(NodeIndex(5)));
        assert_eq!(left_child(NodeIndex(4)), None);
        let roots: Vec<_> = full_roots(Length(6)).collect();
        assert_eq!(roots, [NodeIndex(3), NodeIndex(9)]);
        assert_eq!(full_roots(Length(0)).count(), 0);
    }

    proptest! {
        #[test]
        fn a_node_lies_between_its_children(index in 0..1u64 << 50) {
            let index = NodeIndex(index);
            prop_assert_eq!(node(depth(index), offset(index)), index);
            prop_assert_eq!(sibling(sibling(index)), index);
            let above = parent(index);
            let children = [left_child(above), right_child(above)];
            prop_assert!(children.contains(&Some(index)) && children.contains(&Some(sibling(index))));
            prop_assert_eq!(first_block(index).0 + blocks(index) - 1, last_block(index).0);
            prop_assert!(contains(index, first_block(index)) && contains(index, last_block(index)));
            prop_assert!(!contains(index, last_block(index).next()));
            prop_assert!(covers(above, index) && covers(index, index) && !covers(index, sibling(index)));
            prop_assert!(!covers(index, above) && covers(above, first_block(index).node()));
        }

        #[test]
        fn roots_tile_the_log(length in 0..1u64 << 40) {
            let mut next = 0;
            for root in full_roots(Length(length)) {
                prop_assert_eq!(first_block(root).0, next);
                next = last_block(root).0 + 1;
            }
            prop_assert_eq!(next, length);
            let one_more = 1 + u64::from(length.trailing_ones());
            prop_assert_eq!(completed(Length(length + 1)) - completed(Length(length)), one_more);
        }
    }
}
