//! The part of the tree a writer has in memory: nodes that can change, found by small numbers.
//!
//! ```text
//! nodes      keys: numbers of keys         children: numbers of links      changed: to be written
//! links      block, offset                 node: its number, once loaded
//! keys       block that wrote it           bytes, once needed
//! ```
//!
//! A link is a place where a node is written, or will be: JavaScript's `Child` object. It is a thing of
//! its own because it moves between parents when nodes are split and merged, and because the pending
//! blocks of a batch remember links, not nodes: which of them still is the newest place of its node is
//! found out at the end (see `batch`). A node that was the root gets a new link when it stops being it;
//! an older link it may have had is left as it was. All of this shows in the bytes.

use std::cmp::Ordering;

use super::cache::Access;
use super::node::{Child, DEPTH_MAX, KEYS_MAX_READ, KEYS_MIN, Node, Resolved};
use super::readahead::Readahead;
use super::tree::Tree;
use super::{Entry, corrupt};
use crate::Result;

pub(super) type NodeId = u32;
pub(super) type LinkId = u32;
pub(super) type KeyId = u32;

/// No node, link or key.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(super) struct Arena {
    pub(super) nodes: Vec<ArenaNode>,
    pub(super) links: Vec<Link>,
    pub(super) keys: Vec<ArenaKey>,
    /// Bytes of the keys and values that are known.
    pub(super) key_bytes: usize,
    /// Links that nodes had before they became the root. Their places hold older states of these nodes.
    pub(super) retired: Vec<LinkId>,
}

/// One key more than any stored node has: it is split right after.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArenaNode {
    keys: [KeyId; KEYS_MAX_READ + 1],
    children: [LinkId; KEYS_MAX_READ + 2],
    key_count: u8,
    child_count: u8,
    pub(super) changed: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) block: u64,
    pub(super) offset: u32,
    pub(super) node: NodeId,
}

#[derive(Debug)]
pub(super) struct ArenaKey {
    pub(super) seq: u64,
    pub(super) resolved: Option<Resolved>,
}

impl ArenaNode {
    pub(super) fn empty() -> ArenaNode {
        ArenaNode {
            keys: [NONE; KEYS_MAX_READ + 1],
            children: [NONE; KEYS_MAX_READ + 2],
            key_count: 0,
            child_count: 0,
            changed: true,
        }
    }

    #[inline]
    pub(super) fn keys(&self) -> &[KeyId] {
        &self.keys[..self.key_count as usize]
    }

    #[inline]
    pub(super) fn children(&self) -> &[LinkId] {
        &self.children[..self.child_count as usize]
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.child_count == 0
    }

    pub(super) fn set_key(&mut self, i: usize, key: KeyId) {
        self.keys[..self.key_count as usize][i] = key;
    }

    pub(super) fn insert_key(&mut self, i: usize, key: KeyId) {
        let count = self.key_count as usize;
        self.keys[i..=count].rotate_right(1);
        self.keys[i] = key;
        self.key_count += 1;
    }

    pub(super) fn remove_key(&mut self, i: usize) -> KeyId {
        let count = self.key_count as usize;
        let key = self.keys[i];
        self.keys[i..count].rotate_left(1);
        self.key_count -= 1;
        key
    }

    pub(super) fn insert_child(&mut self, i: usize, link: LinkId) {
        let count = self.child_count as usize;
        self.children[i..=count].rotate_right(1);
        self.children[i] = link;
        self.child_count += 1;
    }

    pub(super) fn remove_child(&mut self, i: usize) -> LinkId {
        let count = self.child_count as usize;
        let link = self.children[i];
        self.children[i..count].rotate_left(1);
        self.child_count -= 1;
        link
    }

    /// Cuts the node in two around its middle key: `(median, right half)`.
    pub(super) fn split(&mut self) -> (KeyId, ArenaNode) {
        let mut right = ArenaNode::empty();
        let count = self.key_count as usize;
        let moved = count / 2;
        right.keys[..moved].copy_from_slice(&self.keys[count - moved..count]);
        right.key_count = moved as u8;
        let median = self.keys[count - moved - 1];
        self.key_count = (count - moved - 1) as u8;
        if !self.is_leaf() {
            let count = self.child_count as usize;
            right.children[..=moved].copy_from_slice(&self.children[count - moved - 1..count]);
            right.child_count = moved as u8 + 1;
            self.child_count -= moved as u8 + 1;
        }
        self.changed = true;
        (median, right)
    }

    /// Appends a key and all of another node.
    pub(super) fn merge(&mut self, median: KeyId, right: &ArenaNode) {
        self.insert_key(self.key_count as usize, median);
        for &key in right.keys() {
            self.insert_key(self.key_count as usize, key);
        }
        for &link in right.children() {
            self.insert_child(self.child_count as usize, link);
        }
        self.changed = true;
    }
}

impl Arena {
    pub(super) fn node(&self, id: NodeId) -> &ArenaNode {
        &self.nodes[id as usize]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut ArenaNode {
        &mut self.nodes[id as usize]
    }

    pub(super) fn link(&self, id: LinkId) -> &Link {
        &self.links[id as usize]
    }

    pub(super) fn link_mut(&mut self, id: LinkId) -> &mut Link {
        &mut self.links[id as usize]
    }

    /// Gives a link a new place.
    pub(super) fn place(&mut self, id: LinkId, block: u64, offset: u32) {
        let link = self.link_mut(id);
        link.block = block;
        link.offset = offset;
    }

    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.links.clear();
        self.keys.clear();
        self.key_bytes = 0;
        self.retired.clear();
    }

    /// At the end of a batch, when no list of places needs them any more.
    pub(super) fn drop_retired(&mut self) {
        for link in std::mem::take(&mut self.retired) {
            self.link_mut(link).block = 0;
        }
    }

    pub(super) fn add_node(&mut self, node: ArenaNode) -> NodeId {
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    pub(super) fn add_link(&mut self, block: u64, offset: u32, node: NodeId) -> LinkId {
        self.links.push(Link { block, offset, node });
        (self.links.len() - 1) as u32
    }

    pub(super) fn add_key(&mut self, seq: u64, resolved: Option<Resolved>) -> KeyId {
        self.key_bytes += resolved.as_ref().map_or(0, Resolved::heap_bytes);
        self.keys.push(ArenaKey { seq, resolved });
        (self.keys.len() - 1) as u32
    }

    /// Copies a stored node in. What a writer builds on must be sound: unlike a reader it would go on to
    /// write what follows from it.
    pub(super) fn load(&mut self, node: &Node, is_root: bool) -> Result<NodeId> {
        if !is_root && node.keys.len() < KEYS_MIN {
            let what = format!("a tree node with only {} keys", node.keys.len());
            return Err(corrupt(node.address.block, what));
        }
        let mut loaded = ArenaNode::empty();
        loaded.changed = false;
        for (i, key) in node.keys.iter().enumerate() {
            loaded.keys[i] = self.add_key(key.seq, key.resolved.get().cloned());
        }
        for (i, child) in node.children.iter().enumerate() {
            loaded.children[i] = self.add_link(child.block, child.offset, NONE);
        }
        loaded.key_count = node.keys.len() as u8;
        loaded.child_count = node.children.len() as u8;
        Ok(self.add_node(loaded))
    }

    /// Child `i` of a node, loaded if it was not.
    #[inline]
    pub(super) fn child(&mut self, tree: &Tree, node: NodeId, i: usize) -> Result<NodeId> {
        let id = self.node(node).children()[i];
        let link = *self.link(id);
        if link.node != NONE {
            return Ok(link.node);
        }
        let place = Child { block: link.block, offset: link.offset };
        let stored = tree.node(place, &mut Readahead::none(), Access::Lookup)?;
        let loaded = self.load(&stored, false)?;
        self.link_mut(id).node = loaded;
        Ok(loaded)
    }

    /// The bytes of a key, read if they were not.
    #[inline]
    pub(super) fn resolve(&mut self, tree: &Tree, key: KeyId) -> Result<&Resolved> {
        let key = &mut self.keys[key as usize];
        if key.resolved.is_none() {
            let resolved = tree.read_resolved(key.seq, &mut Readahead::none(), 1)?;
            self.key_bytes += resolved.heap_bytes();
            key.resolved = Some(resolved);
        }
        Ok(key.resolved.as_ref().expect("set above"))
    }

    /// `Ok` with the index of a key, or `Err` with the place it would have.
    #[inline]
    pub(super) fn search(
        &mut self,
        tree: &Tree,
        node: NodeId,
        key: &[u8],
    ) -> Result<std::result::Result<usize, usize>> {
        let keys = self.node(node).keys;
        let (mut low, mut high) = (0, self.node(node).key_count as usize);
        while low < high {
            let middle = (low + high) / 2;
            match key.cmp(self.resolve(tree, keys[middle])?.key()) {
                Ordering::Equal => return Ok(Ok(middle)),
                Ordering::Less => high = middle,
                Ordering::Greater => low = middle + 1,
            }
        }
        Ok(Err(low))
    }

    /// A key's entry, its value read again if it is large.
    pub(super) fn entry(&mut self, tree: &Tree, key: KeyId) -> Result<Entry> {
        let seq = self.keys[key as usize].seq;
        let resolved = self.resolve(tree, key)?.clone();
        tree.complete(seq, &resolved, &mut Readahead::none())
    }

    /// Walks down from a node to its first or last leaf, loading it, and appends the nodes passed and the
    /// child taken in each: the node itself first, the leaf last.
    pub(super) fn edge(
        &mut self,
        tree: &Tree,
        mut node: NodeId,
        first: bool,
        path: &mut Vec<(NodeId, usize)>,
    ) -> Result<()> {
        for _ in 0..DEPTH_MAX {
            let last = self.node(node).children().len().checked_sub(1);
            let Some(last) = last else {
                path.push((node, 0));
                return Ok(());
            };
            let i = if first { 0 } else { last };
            path.push((node, i));
            node = self.child(tree, node, i)?;
        }
        Err(corrupt(0, "a path that does not end"))
    }
}
