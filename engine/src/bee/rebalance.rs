//! Deleting a key from the tree in memory: nearest leaf, borrowing, merging.
//!
//! ```text
//! in a leaf      remove it there
//! in a node      the greatest key left of it, or the smallest right of it, takes its place: whichever
//!                leaf has more keys gives (the left one when equal), and is the leaf to look at below
//! leaf too short borrow over the parent from the left sibling, else from the right one;
//!                else merge with the left one, else with the right one; the parent lost a key: look at it
//! root empty     its only child becomes the root
//! ```
//!
//! Which sibling comes first shows in the bytes. Everything that has to be read is read before the first
//! change, so that an error (a missing block, a full disk) leaves the tree as it was. Source:
//! `setKeyToNearestLeaf` and `rebalance` in holepunchto/hyperbee `index.js`.

use super::arena::{Arena, LinkId, NONE, NodeId};
use super::corrupt;
use super::node::KEYS_MIN;
use super::tree::Tree;
use crate::Result;

/// The path to a key: each node with the child taken in it.
pub(super) type Path = Vec<(NodeId, usize)>;

/// Removes key `i` of the last node of `path` and returns the root the tree then has. All nodes that
/// differ afterwards are marked changed.
pub(super) fn remove(arena: &mut Arena, tree: &Tree, path: &mut Path, i: usize) -> Result<NodeId> {
    let (node, _) = *path.last().expect("a path has at least the root");
    let holder = path.len() - 1;
    if !arena.node(node).is_leaf() {
        descend_to_nearest_leaf(arena, tree, path, i)?;
    }
    load_siblings(arena, tree, path)?;

    // From here on nothing can fail.
    let (leaf, _) = *path.last().expect("it has not become shorter");
    if leaf == node {
        arena.node_mut(node).remove_key(i);
    } else {
        let last = arena.node(leaf).keys().len() - 1;
        let from_right = path[holder].1 == i + 1;
        let key = arena.node_mut(leaf).remove_key(if from_right { 0 } else { last });
        arena.node_mut(node).set_key(i, key);
    }
    for &(node, _) in path.iter() {
        arena.node_mut(node).changed = true;
    }
    Ok(rebalance(arena, path))
}

/// Extends the path from an inner node to the leaf whose key will replace key `i`.
fn descend_to_nearest_leaf(arena: &mut Arena, tree: &Tree, path: &mut Path, i: usize) -> Result<()> {
    let (node, _) = *path.last().expect("not empty");
    let left = arena.child(tree, node, i)?;
    let right = arena.child(tree, node, i + 1)?;
    let (mut left_path, mut right_path) = (Path::new(), Path::new());
    arena.edge(tree, left, false, &mut left_path)?;
    arena.edge(tree, right, true, &mut right_path)?;
    let size = |path: &Path| path.last().map_or(0, |&(leaf, _)| arena.node(leaf).keys().len());
    let from_right = size(&left_path) < size(&right_path);
    let last = path.len() - 1;
    path[last].1 = if from_right { i + 1 } else { i };
    path.extend(if from_right { right_path } else { left_path });
    Ok(())
}

/// Loads the siblings that [`rebalance`] will look at, by going through its motions.
fn load_siblings(arena: &mut Arena, tree: &Tree, path: &Path) -> Result<()> {
    for pair in path.windows(2).rev() {
        let ((parent, index), (node, _)) = (pair[0], pair[1]);
        // This node loses a key: the leaf the deleted one, a parent the one between merged children.
        if arena.node(node).keys().len() > KEYS_MIN {
            return Ok(());
        }
        let mut lends = false;
        let siblings = [index.checked_sub(1), Some(index + 1)];
        for sibling in siblings.into_iter().flatten() {
            if sibling >= arena.node(parent).children().len() {
                continue;
            }
            let sibling = arena.child(tree, parent, sibling)?;
            if arena.node(sibling).is_leaf() != arena.node(node).is_leaf() {
                let key = arena.node(sibling).keys()[0];
                let seq = arena.keys[key as usize].seq;
                return Err(corrupt(seq, "leaves are not equally deep around this key"));
            }
            lends |= arena.node(sibling).keys().len() > KEYS_MIN;
        }
        if lends {
            return Ok(());
        }
    }
    Ok(())
}

/// Repairs nodes that became too short, from the leaf up, and returns the root.
fn rebalance(arena: &mut Arena, path: &mut Path) -> NodeId {
    let (root, _) = path[0];
    while let Some((node, _)) = path.pop()
        && let Some(&(parent, index)) = path.last()
    {
        if arena.node(node).keys().len() >= KEYS_MIN {
            return root;
        }
        let left = index.checked_sub(1).and_then(|i| sibling(arena, parent, i));
        let right = sibling(arena, parent, index + 1);
        if let Some(left) = left.filter(|&left| arena.node(left).keys().len() > KEYS_MIN) {
            borrow_from_left(arena, parent, index, node, left);
            return root;
        }
        if let Some(right) = right.filter(|&right| arena.node(right).keys().len() > KEYS_MIN) {
            borrow_from_right(arena, parent, index, node, right);
            return root;
        }
        match (left, right) {
            (Some(left), _) => merge(arena, parent, index - 1, left, node),
            (None, Some(right)) => merge(arena, parent, index, node, right),
            (None, None) => unreachable!("a parent has at least two children"),
        }
    }
    let top = arena.node(root);
    match (top.keys().is_empty(), top.children().first()) {
        (true, Some(&only)) => {
            arena.retired.push(only);
            arena.link(only).node
        }
        _ => root,
    }
}

fn sibling(arena: &Arena, parent: NodeId, i: usize) -> Option<NodeId> {
    let link: LinkId = *arena.node(parent).children().get(i)?;
    let node = arena.link(link).node;
    assert!(node != NONE, "siblings were loaded before the first change");
    Some(node)
}

fn borrow_from_left(arena: &mut Arena, parent: NodeId, index: usize, node: NodeId, left: NodeId) {
    let giver = arena.node_mut(left);
    giver.changed = true;
    let key = giver.remove_key(giver.keys().len() - 1);
    let child = giver.children().len().checked_sub(1);
    let child = child.map(|last| giver.remove_child(last));
    let between = arena.node(parent).keys()[index - 1];
    arena.node_mut(parent).set_key(index - 1, key);
    let taker = arena.node_mut(node);
    taker.insert_key(0, between);
    if let Some(child) = child {
        taker.insert_child(0, child);
    }
}

fn borrow_from_right(arena: &mut Arena, parent: NodeId, index: usize, node: NodeId, right: NodeId) {
    let giver = arena.node_mut(right);
    giver.changed = true;
    let key = giver.remove_key(0);
    let child = (!giver.is_leaf()).then(|| giver.remove_child(0));
    let between = arena.node(parent).keys()[index];
    arena.node_mut(parent).set_key(index, key);
    let taker = arena.node_mut(node);
    taker.insert_key(taker.keys().len(), between);
    if let Some(child) = child {
        taker.insert_child(taker.children().len(), child);
    }
}

/// Joins two children of `parent` around its key `index`.
fn merge(arena: &mut Arena, parent: NodeId, index: usize, left: NodeId, right: NodeId) {
    let right = *arena.node(right);
    let median = arena.node_mut(parent).remove_key(index);
    let dropped = arena.node_mut(parent).remove_child(index + 1);
    arena.node_mut(parent).changed = true;
    arena.node_mut(left).merge(median, &right);
    // No block has this number for an operation, so no pending block takes the link for its own.
    arena.link_mut(dropped).block = 0;
}
