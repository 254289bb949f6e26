//! What a reader that met a missing block will need next, so that a replica asks its peers for all of it at once.
//!
//! On a replica every round trip counts, and a tree names its blocks only level by level. So a reader that must wait first looks ahead through
//! the nodes that are here, as far as it is likely to read, and names every block that it finds pointed to:
//!
//! ```text
//!            [ here ]                     a cursor stands at x and is likely to read up to y
//!         /     |     \
//!    [here]  (asked)   .                  ( ) asked for now: all of one level at a time, so that
//!    /  |  \                                  a scan costs a few round trips a level,
//!  ..  x |  (asked) ..... y                   not one a block
//! ```
//!
//! How many entries lie below a node that is not here is guessed from how far it is above the leaves.
//!
//! What must stay true: looking ahead fetches nothing and never fails, it visits at most [`VISITS_MAX`] nodes, and names at most [`WANTED_MAX`] blocks; what
//! it names may be held.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::cache::Access;
use super::node::{Child, DEPTH_MAX, Node};
use super::readahead::Readahead;
use super::tree::Tree;
use super::{Direction, KeyRange};
use crate::{BlockIndex, Error};

/// So many blocks are named at a time, at most.
pub(crate) const WANTED_MAX: usize = 4096;
/// So many nodes are looked at for it.
const VISITS_MAX: usize = 2048;
/// Entries a cursor looks ahead when it first misses a block; so many times more each further time.
const ENTRIES_FIRST: usize = 32;
const ENTRIES_GROWTH: usize = 4;
/// Entries a cursor looks ahead at most.
const ENTRIES_MAX: usize = 2048;
/// How many children a node has at least: what a subtree that is not here is guessed to hold.
const FANOUT: usize = 5;
/// A subtree of unknown height is guessed to hold so many entries.
const ENTRIES_UNKNOWN: usize = 32;

/// A node on the path of a walk and the next position to take in it: keys odd, children even, as in `cursor`.
pub(crate) type Place<'a> = (&'a Arc<Node>, i32);

/// How far ahead a cursor looks: the more it turns out to read, the farther.
#[derive(Debug)]
pub(crate) struct Window {
    entries: usize,
    /// Entries to be read until looking ahead again pays; 0 while nothing was missing yet.
    until_next: usize,
}

impl Default for Window {
    fn default() -> Window {
        Window { entries: ENTRIES_FIRST, until_next: 0 }
    }
}

impl Window {
    /// How many entries to look ahead now, if the reader wants at most `limit` more.
    pub(crate) fn open(&mut self, limit: Option<u64>) -> usize {
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let entries = match limit {
            Some(limit) => limit.clamp(1, ENTRIES_MAX),
            None => self.entries,
        };
        self.entries = (ENTRIES_GROWTH * self.entries).min(ENTRIES_MAX);
        self.until_next = entries.div_ceil(2);
        entries
    }

    /// An entry was read. Whether the window is half used up, so that its next half should be asked for before it is missed.
    #[inline]
    pub(crate) fn read_one(&mut self) -> bool {
        if self.until_next == 0 {
            return false;
        }
        self.until_next -= 1;
        self.until_next == 0
    }
}

/// The blocks a walk will need for its next `entries`, nearest first. `path` is its stack, from the root down.
pub(crate) fn upcoming(
    tree: &Tree,
    path: &[Place<'_>],
    range: &KeyRange,
    direction: Direction,
    entries: usize,
) -> Vec<BlockIndex> {
    let leaf_depth = path.last().and_then(|(node, _)| node.is_leaf().then_some(path.len()));
    let mut lookout =
        Lookout { tree, range, direction, entries, leaf_depth, visits: VISITS_MAX, wanted: Vec::with_capacity(64) };
    for (depth, (node, position)) in path.iter().enumerate().rev() {
        if lookout.node(node, *position, depth + 1).is_break() {
            break;
        }
    }
    lookout.wanted
}

struct Lookout<'a> {
    tree: &'a Tree,
    range: &'a KeyRange,
    direction: Direction,
    /// How many more to look for.
    entries: usize,
    leaf_depth: Option<usize>,
    visits: usize,
    wanted: Vec<BlockIndex>,
}

impl Lookout<'_> {
    /// Looks at what a node still has from a position on; breaks when enough is found.
    fn node(&mut self, node: &Node, position: i32, depth: usize) -> ControlFlow<()> {
        if node.is_leaf() {
            self.leaf_depth.get_or_insert(depth);
        }
        let mut position = position;
        while let Ok(at) = usize::try_from(position)
            && at <= 2 * node.keys.len()
        {
            match at % 2 {
                1 => self.key(node, at / 2)?,
                _ if node.is_leaf() => {}
                _ => self.subtree(node.children[at / 2], depth + 1)?,
            }
            position += match self.direction {
                Direction::Forward => 1,
                Direction::Backward => -1,
            };
        }
        ControlFlow::Continue(())
    }

    fn key(&mut self, node: &Node, i: usize) -> ControlFlow<()> {
        match self.tree.resolve(node, i, &mut Readahead::none(), 1) {
            Ok(resolved) if !self.range.before_stop(resolved.key(), self.direction) => return ControlFlow::Break(()),
            Ok(_) => {}
            Err(Error::MissingBlock(block)) => self.wanted.push(block),
            // Whoever gets there reads it again, and is told.
            Err(_) => return ControlFlow::Break(()),
        }
        self.spend(1)
    }

    fn subtree(&mut self, child: Child, depth: usize) -> ControlFlow<()> {
        if depth > DEPTH_MAX || self.visits == 0 {
            return ControlFlow::Break(());
        }
        self.visits -= 1;
        match self.tree.node(child, &mut Readahead::none(), Access::Scan) {
            Ok(node) => {
                let outermost = match self.direction {
                    Direction::Forward => 0,
                    Direction::Backward => 2 * node.keys.len() as i32,
                };
                self.node(&node, outermost, depth)
            }
            Err(Error::MissingBlock(block)) => {
                self.wanted.push(block);
                let below = match self.leaf_depth {
                    Some(leaf) => FANOUT.saturating_pow((leaf.saturating_sub(depth) + 1) as u32),
                    None => ENTRIES_UNKNOWN,
                };
                self.spend(below)
            }
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn spend(&mut self, entries: usize) -> ControlFlow<()> {
        self.entries = self.entries.saturating_sub(entries);
        match self.entries == 0 || self.wanted.len() >= WANTED_MAX {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// What a walk has before it: a key, by the block that wrote it, or a subtree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Item {
    /// The block that wrote the key.
    Key(u64),
    /// The node at its top.
    Subtree(Child),
}

/// The blocks two walks side by side will need, where what both have is skipped. `left` and `right` are their stacks, each with the tree it walks.
pub(crate) fn differing(
    left: (&Tree, &[Place<'_>]),
    right: (&Tree, &[Place<'_>]),
    range: &KeyRange,
) -> Vec<BlockIndex> {
    let mut visits = VISITS_MAX;
    let (mut of_left, mut of_right) = (items(left.1, range), items(right.1, range));
    for _ in 0..DEPTH_MAX {
        let before = visits;
        let (known_left, known_right) = (known(&of_left), known(&of_right));
        of_left = unfold(left.0, of_left, &known_right, range, &mut visits);
        of_right = unfold(right.0, of_right, &known_left, range, &mut visits);
        if visits == before {
            break;
        }
    }
    let (known_left, known_right) = (known(&of_left), known(&of_right));
    let left = of_left.into_iter().filter(|item| !known_right.contains(item)).take(WANTED_MAX / 2);
    let right = of_right.into_iter().filter(|item| !known_left.contains(item)).take(WANTED_MAX / 2);
    let mut wanted: Vec<BlockIndex> = left.chain(right).map(Item::block).collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

impl Item {
    fn block(self) -> BlockIndex {
        match self {
            Item::Key(block) | Item::Subtree(Child { block, .. }) => BlockIndex(block),
        }
    }
}

fn known(items: &[Item]) -> HashSet<Item> {
    items.iter().copied().collect()
}

/// All that the nodes of a path still have, in key order, up to the range's end as far as it can be told.
fn items(path: &[Place<'_>], range: &KeyRange) -> Vec<Item> {
    let mut items = Vec::new();
    for (node, position) in path.iter().rev() {
        if items_of(node, *position, range, &mut items).is_break() {
            break;
        }
    }
    items
}

fn items_of(node: &Node, position: i32, range: &KeyRange, items: &mut Vec<Item>) -> ControlFlow<()> {
    for at in usize::try_from(position).unwrap_or(0)..=2 * node.keys.len() {
        match at % 2 {
            1 => {
                let key = &node.keys[at / 2];
                if key.resolved.get().is_some_and(|resolved| !range.before_end(resolved.key())) {
                    return ControlFlow::Break(());
                }
                items.push(Item::Key(key.seq));
            }
            _ if node.is_leaf() => {}
            _ => items.push(Item::Subtree(node.children[at / 2])),
        }
    }
    ControlFlow::Continue(())
}

/// Puts in the place of each subtree that the other side lacks, and that is here, what it holds.
fn unfold(tree: &Tree, items: Vec<Item>, other: &HashSet<Item>, range: &KeyRange, visits: &mut usize) -> Vec<Item> {
    let mut unfolded = Vec::with_capacity(items.len());
    for item in items {
        let node = match item {
            Item::Subtree(child) if *visits > 0 && !other.contains(&item) => {
                tree.node(child, &mut Readahead::none(), Access::Scan).ok()
            }
            _ => None,
        };
        let Some(node) = node else {
            unfolded.push(item);
            continue;
        };
        *visits -= 1;
        if items_of(&node, 0, range, &mut unfolded).is_break() {
            break;
        }
    }
    unfolded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_with_what_is_read_and_heeds_a_limit() {
        let mut window = Window::default();
        assert!(!window.read_one(), "nothing was missing yet");
        assert_eq!((window.open(None), window.open(None), window.open(Some(5))), (32, 128, 5));
        assert_eq!((window.read_one(), window.read_one(), window.read_one()), (false, false, true));
        assert!(!window.read_one());
        (0..20).for_each(|_| {
            window.open(None);
        });
        assert_eq!((window.open(None), window.open(Some(u64::MAX))), (ENTRIES_MAX, ENTRIES_MAX));
    }
}
