//! Positions and counts in a log, each a type of its own: what a number counts is in its type.
//!
//! ```text
//! blocks    0   1   2   3   4            BlockIndex
//! nodes     0 1 2 3 4 5 6 7 8            NodeIndex: block i is node 2i, parents lie between
//! length    5                            Length: how many blocks
//! version   length, but only where a commit ended
//! ```

use std::fmt;

macro_rules! position {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

position! {
    /// Position of a block in its core. The first block is 0.
    BlockIndex
}

position! {
    /// Number of a Merkle node in flat in-order numbering: leaves are even, parents odd.
    NodeIndex
}

position! {
    /// How many blocks a core holds, or held at some time.
    Length
}

position! {
    /// How often a core's history was rewritten. Only truncation raises it.
    Fork
}

position! {
    /// How many blocks a core held when a commit ended. A bee read at a version sees `0..version`; in
    /// the middle of a commit there is no version, for only its last block holds a root. Version 0 is
    /// the empty core, version 1 the core with only its header: both are the empty database.
    Version
}

impl BlockIndex {
    /// The leaf that hashes this block.
    pub fn node(self) -> NodeIndex {
        NodeIndex(self.0 * 2)
    }

    /// The block after this one.
    pub fn next(self) -> BlockIndex {
        BlockIndex(self.0 + 1)
    }
}

impl NodeIndex {
    /// The block this leaf hashes, or `None` for a parent.
    pub fn block(self) -> Option<BlockIndex> {
        self.0.is_multiple_of(2).then_some(BlockIndex(self.0 / 2))
    }
}

impl Length {
    /// Whether a log of this length contains the block.
    pub fn contains(self, block: BlockIndex) -> bool {
        block.0 < self.0
    }

    /// The newest block, or `None` of an empty log.
    pub fn last(self) -> Option<BlockIndex> {
        self.0.checked_sub(1).map(BlockIndex)
    }
}

impl Version {
    /// The block with the tree's root, or `None` while the core is empty or holds only its header.
    pub fn root(self) -> Option<BlockIndex> {
        (self.0 >= 2).then(|| BlockIndex(self.0 - 1))
    }

    /// The length a core has at this version.
    pub fn length(self) -> Length {
        Length(self.0)
    }
}
