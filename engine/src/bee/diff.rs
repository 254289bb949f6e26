//! What differs between two versions, shared subtrees skipped.
//!
//! Two walks in key order, side by side. What both are about to enter is skipped when it is the same node
//! or the same key (same block): versions a few commits apart share almost everything, so the cost goes
//! with what changed, not with what there is.
//!
//! When they differ, the walk whose next item reaches further is opened up, until both are at keys:
//!
//! ```text
//! left    [ c..f ]  g          opened: its last key is before left's next key g,
//! right   [ c......m ]  n      so right's subtree, up to n, is opened first
//! ```
//!
//! A key put again with an equal value has another block, and is reported: that it was written is a fact.
//! Source: `iterators/diff.js` in holepunchto/hyperbee.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::cache::Access;
use super::node::{DEPTH_MAX, Nearness, Node};
use super::prefetch::{self, Item, Place};
use super::readahead::Readahead;
use super::tree::too_deep;
use super::{Entry, KeyRange, Snapshot, corrupt};
use crate::hypercore::Patience;
use crate::{BlockIndex, Error, Result};

/// A key that is not the same in two versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The entry in the version the diff was asked of (the newer one); `None`: deleted since the other.
    pub left: Option<Entry>,
    /// The entry in the other version (the older one); `None`: inserted since.
    pub right: Option<Entry>,
}

/// Differences in key order.
#[derive(Debug)]
pub struct Diff {
    left: Walk,
    right: Walk,
    range: KeyRange,
}

/// One side: the path to its next item. An item is a key or a whole subtree.
#[derive(Debug)]
struct Walk {
    snapshot: Snapshot,
    started: bool,
    stack: Vec<Frame>,
    ahead: Readahead,
    /// Where the range starts, until the walk has got there.
    seek: Option<(Bytes, bool)>,
    near: Nearness,
    /// A version of n blocks has fewer than n keys. More steps than that, and the nodes go in circles.
    steps_left: u64,
}

#[derive(Debug)]
struct Frame {
    node: Arc<Node>,
    /// Keys odd, children even, as in `cursor`.
    position: usize,
}

impl Diff {
    pub(crate) fn new(left: Snapshot, right: Snapshot, range: KeyRange) -> Diff {
        let walk = |snapshot: Snapshot| Walk {
            ahead: Readahead::up_to(snapshot.version().0),
            steps_left: snapshot.version().0,
            snapshot,
            started: range.is_empty(),
            stack: Vec::new(),
            near: Nearness::default(),
            seek: match &range.start {
                Bound::Unbounded => None,
                Bound::Included(key) => Some((key.clone(), true)),
                Bound::Excluded(key) => Some((key.clone(), false)),
            },
        };
        Diff { left: walk(left), right: walk(right), range }
    }

    /// The next difference, or `None` when there is no more.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`] on a replica whose source does not wait; the diff keeps its place, so call
    /// again once the block is there. [`Error::Corrupt`].
    #[allow(clippy::should_implement_trait)] // An iterator would have to end after an error.
    pub fn next(&mut self) -> Result<Option<Difference>> {
        let mut patience = Patience::default();
        loop {
            match self.try_next() {
                Err(error @ Error::MissingBlock(_)) => {
                    self.look_ahead();
                    patience.wait(&*self.left.snapshot.tree.source, error)?;
                }
                done => return done,
            }
        }
    }

    /// Asks for what differs, as far as that can be told from what is here.
    #[cold]
    fn look_ahead(&self) {
        let (left, right) = (self.left.path(), self.right.path());
        let (left_tree, right_tree) = (&*self.left.snapshot.tree, &*self.right.snapshot.tree);
        let mut wanted = prefetch::differing((left_tree, &left), (right_tree, &right), &self.range);
        let roots = [&self.left, &self.right].into_iter().filter_map(Walk::root_to_come);
        wanted.extend(roots);
        left_tree.source.want(&wanted);
    }

    fn try_next(&mut self) -> Result<Option<Difference>> {
        self.left.start()?;
        self.right.start()?;
        let (left, right) = (&mut self.left, &mut self.right);
        loop {
            let (l, r) = match (left.item(), right.item()) {
                (None, None) => return Ok(None),
                (Some(Item::Subtree(_)), None) => {
                    left.open()?;
                    continue;
                }
                (None, Some(Item::Subtree(_))) => {
                    right.open()?;
                    continue;
                }
                (Some(Item::Key(_)), None) => match left.take(&self.range)? {
                    None => continue,
                    entry => {
                        return Ok(Some(Difference { left: entry, right: None }));
                    }
                },
                (None, Some(Item::Key(_))) => match right.take(&self.range)? {
                    None => continue,
                    entry => {
                        return Ok(Some(Difference { left: None, right: entry }));
                    }
                },
                (Some(l), Some(r)) => (l, r),
            };
            if l == r {
                left.advance()?;
                right.advance()?;
                continue;
            }
            match (l, r) {
                (Item::Key(_), Item::Subtree(_)) => right.open()?,
                (Item::Subtree(_), Item::Key(_)) => left.open()?,
                // One key behind both, whatever it is: which needs no reading.
                (Item::Subtree(_), Item::Subtree(_)) if left.next_key() == right.next_key() => {
                    open_both(left, right)?;
                }
                (Item::Subtree(_), Item::Subtree(_)) => match left.reach()?.cmp(&right.reach()?) {
                    Ordering::Equal => open_both(left, right)?,
                    Ordering::Less => right.open()?,
                    Ordering::Greater => left.open()?,
                },
                (Item::Key(_), Item::Key(_)) => {
                    let (a, b) = (left.key()?, right.key()?);
                    let order = a.cmp(&b);
                    // Taking the second may fail: read both entries before either walk moves.
                    let l = match order {
                        Ordering::Greater => None,
                        _ if !self.range.before_end(&a) => None,
                        _ => Some(left.entry()?),
                    };
                    let r = match order {
                        Ordering::Less => None,
                        _ if !self.range.before_end(&b) => None,
                        _ => Some(right.entry()?),
                    };
                    if order != Ordering::Greater {
                        left.pass(l.is_some())?;
                    }
                    if order != Ordering::Less {
                        right.pass(r.is_some())?;
                    }
                    if l.is_some() || r.is_some() {
                        return Ok(Some(Difference { left: l, right: r }));
                    }
                }
            }
        }
    }
}

/// Opens two subtrees that reach equally far. Opening one alone would mean to compare what is in it with the other's end, which takes reading keys.
fn open_both(left: &mut Walk, right: &mut Walk) -> Result<()> {
    // Should this fail, neither has moved.
    right.child()?;
    left.open()?;
    right.open()
}

/// How far an item reaches: to the next key behind it, or to the end. Order matters: no key is after all
/// keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Before(Bytes),
    End,
}

impl Walk {
    fn path(&self) -> Vec<Place<'_>> {
        self.stack.iter().map(|frame| (&frame.node, frame.position as i32)).collect()
    }

    /// The root, if the walk has not begun.
    fn root_to_come(&self) -> Option<BlockIndex> {
        if self.started { None } else { self.snapshot.version().root() }
    }

    fn start(&mut self) -> Result<()> {
        if self.started {
            return Ok(());
        }
        let root = self.snapshot.root(&mut self.ahead, Access::Scan)?.cloned();
        if let Some(root) = root.filter(|root| !root.keys.is_empty()) {
            let frame = self.frame(root)?;
            self.stack.push(frame);
            self.settle();
        }
        self.started = true;
        Ok(())
    }

    /// A node not yet read, or read up to the start of the range.
    fn frame(&mut self, node: Arc<Node>) -> Result<Frame> {
        let leaf = usize::from(node.is_leaf());
        let mut position = leaf;
        if let Some((key, included)) = &self.seek {
            // Kept only when all went well: a search that failed half way has seen keys of this node.
            let mut near = self.near;
            let tree = &self.snapshot.tree;
            let found = tree.search(&node, key, &mut near, &mut self.ahead)?;
            self.near = near;
            position = match found {
                Ok(i) => 2 * i + 1 + if *included { 0 } else { 1 + leaf },
                Err(i) => 2 * i + leaf,
            };
            // Below this node, only the first subtree entered still holds keys before the start.
            if found.is_ok() || node.is_leaf() {
                self.seek = None;
            }
        }
        Ok(Frame { node, position })
    }

    /// Drops frames that are read to their end.
    fn settle(&mut self) {
        while let Some(frame) = self.stack.last()
            && frame.position > 2 * frame.node.keys.len() - usize::from(frame.node.is_leaf())
        {
            self.stack.pop();
        }
    }

    fn item(&self) -> Option<Item> {
        let frame = self.stack.last()?;
        let i = frame.position / 2;
        Some(match frame.position % 2 {
            1 => Item::Key(frame.node.keys[i].seq),
            _ => Item::Subtree(frame.node.children[i]),
        })
    }

    /// Moves past the item at hand.
    fn advance(&mut self) -> Result<()> {
        let frame = self.stack.last_mut().expect("there is an item");
        if self.steps_left == 0 {
            let block = frame.node.address.block;
            return Err(corrupt(block, "more keys than blocks"));
        }
        if frame.position % 2 == 1 {
            self.steps_left -= 1;
        }
        frame.position += 1 + usize::from(frame.node.is_leaf());
        // Skipping the subtree the range starts in (both sides have it) ends the search for the start.
        self.seek = None;
        self.settle();
        Ok(())
    }

    /// The node at the top of the subtree at hand.
    fn child(&mut self) -> Result<Arc<Node>> {
        let frame = self.stack.last().expect("there is an item");
        self.snapshot.tree.child(&frame.node, frame.position / 2, &mut self.ahead, Access::Scan)
    }

    /// Replaces the subtree at hand by what is in it.
    fn open(&mut self) -> Result<()> {
        let depth = self.stack.len();
        let frame = self.stack.last().expect("there is an item");
        if depth == DEPTH_MAX {
            return Err(too_deep(&frame.node));
        }
        let child = self.child()?;
        let inner = self.frame(child)?;
        let frame = self.stack.last_mut().expect("there is an item");
        frame.position += 1;
        self.stack.push(inner);
        self.settle();
        Ok(())
    }

    /// The node of the key behind the item at hand, and its place there.
    fn behind(&self) -> Option<(&Arc<Node>, usize)> {
        // Above the top, positions are past the subtree being read.
        let mut places = self.stack.iter().rev().map(|frame| (&frame.node, frame.position / 2));
        places.find(|(node, i)| *i < node.keys.len())
    }

    /// The block that wrote the key behind the item at hand.
    fn next_key(&self) -> Option<u64> {
        self.behind().map(|(node, i)| node.keys[i].seq)
    }

    fn reach(&mut self) -> Result<Reach> {
        let Some((node, i)) = self.behind().map(|(node, i)| (node.clone(), i)) else {
            return Ok(Reach::End);
        };
        let resolved = self.snapshot.tree.resolve(&node, i, &mut self.ahead, 1)?;
        Ok(Reach::Before(resolved.key_bytes()))
    }

    fn key(&mut self) -> Result<Bytes> {
        let frame = self.stack.last().expect("there is an item");
        let tree = &self.snapshot.tree;
        let resolved = tree.resolve(&frame.node, frame.position / 2, &mut self.ahead, 1)?;
        Ok(resolved.key_bytes())
    }

    fn entry(&mut self) -> Result<Entry> {
        let frame = self.stack.last().expect("there is an item");
        let tree = &self.snapshot.tree;
        tree.entry(&frame.node, frame.position / 2, &mut self.ahead, 1)
    }

    /// The key at hand, moving past it; `None` when it lies beyond the range, which ends this walk.
    fn take(&mut self, range: &KeyRange) -> Result<Option<Entry>> {
        let key = self.key()?;
        let entry = match range.before_end(&key) {
            true => Some(self.entry()?),
            false => None,
        };
        self.pass(entry.is_some())?;
        Ok(entry)
    }

    fn pass(&mut self, within: bool) -> Result<()> {
        if within {
            return self.advance();
        }
        self.stack.clear();
        Ok(())
    }
}
