//! An ordered range, both ways, resumable.
//!
//! A cursor stands between two steps of a walk through the tree. Its stack holds the path from the root,
//! and for each node the next position to take, keys at odd positions and children at even ones:
//!
//! ```text
//! position   0   1   2   3   4   5   6
//!           c0  k0  c1  k1  c2  k2  c3        a leaf has the odd ones only
//! ```
//!
//! Every step first reads what it needs and then moves, so an error (a missing block) leaves the cursor
//! where it was, and the same call can be made again. Keys are checked to come in order: whatever a
//! hostile peer signed, a walk ends.
//!
//! On a replica a cursor that misses a block looks ahead (see `prefetch`) before it waits, and once it has missed one it asks for what comes next while it
//! still has half of what it asked for before: a long scan waits for the network's width, not for its length. Peers that run a bee themselves are asked which
//! blocks the range has (see `extension`), again after every [`ASK_AGAIN_BLOCKS`].

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::cache::Access;
use super::node::{Child, DEPTH_MAX, Nearness, Node};
use super::prefetch::{self, Place, Window};
use super::readahead::Readahead;
use super::tree::too_deep;
use super::{Direction, Entry, KeyRange, Snapshot, corrupt, extension};
use crate::hypercore::Patience;
use crate::{Error, Result};

/// Peers are asked again for a range after so many blocks of it. Source: `MAX_PASSIVE_BATCH` in holepunchto/hyperbee `lib/extension.js`.
const ASK_AGAIN_BLOCKS: u32 = 2048;

/// Reads the entries of a range, in order.
#[derive(Debug)]
pub struct Cursor {
    snapshot: Snapshot,
    range: KeyRange,
    direction: Direction,
    keys_only: bool,
    state: State,
    stack: Vec<Frame>,
    ahead: Readahead,
    /// The last key given out, to check that the next one lies beyond.
    last: Option<Bytes>,
    /// How many more entries the caller is known to want, if it told.
    wanted: Option<u64>,
    window: Window,
    /// See [`stop`](Cursor::stop).
    stop: Vec<u64>,
    /// Blocks to be read before peers are asked again.
    until_ask: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unstarted,
    Walking,
    Done,
}

#[derive(Debug)]
struct Frame {
    node: Arc<Node>,
    position: i32,
}

/// What the top of the stack has next.
enum Step {
    Key(usize),
    Child(usize),
    Nothing,
}

impl Cursor {
    pub(crate) fn new(snapshot: Snapshot, range: KeyRange, direction: Direction) -> Cursor {
        let state = match range.is_empty() {
            true => State::Done,
            false => State::Unstarted,
        };
        Cursor {
            ahead: Readahead::up_to(snapshot.version().0),
            snapshot,
            range,
            direction,
            keys_only: false,
            state,
            stack: Vec::new(),
            last: None,
            wanted: None,
            window: Window::default(),
            stop: Vec::new(),
            until_ask: 0,
        }
    }

    /// Goes on from where another cursor stood, perhaps in another process: its stack, from the root down, as blocks, nodes in them, and positions. An empty
    /// one is the beginning of the range. Blocks are read singly.
    ///
    /// # Errors
    ///
    /// As [`Cursor::next`]; `Corrupt` also for a stack that cannot be.
    pub(super) fn resume(
        snapshot: Snapshot,
        range: KeyRange,
        direction: Direction,
        checkpoint: &[(Child, u64)],
    ) -> Result<Cursor> {
        let mut cursor = Cursor::new(snapshot, range, direction);
        cursor.ahead = Readahead::none();
        if cursor.state == State::Done || checkpoint.is_empty() {
            return Ok(cursor);
        }
        if checkpoint.len() > DEPTH_MAX {
            return Err(Error::corrupt("a checkpoint deeper than any tree"));
        }
        for &(place, position) in checkpoint {
            if place.block >= cursor.snapshot.version().0 {
                return Err(Error::corrupt("a checkpoint beyond its version"));
            }
            let node = cursor.snapshot.tree.node(place, &mut cursor.ahead, Access::Scan)?;
            // Beyond a node's end all positions are the same.
            let beyond = 2 * node.keys.len() as u64 + 2;
            let position = position.min(beyond) as i32;
            // JavaScript also stands before the children that a leaf does not have.
            let aside = i32::from(node.is_leaf() && position % 2 == 0);
            let position = match direction {
                Direction::Forward => position + aside,
                Direction::Backward => position - aside,
            };
            cursor.stack.push(Frame { node, position });
        }
        cursor.state = State::Walking;
        Ok(cursor)
    }

    /// Tells how many entries the caller will want at most, where that is known: a replica then asks its peers for no more. The cursor goes on behind them all the
    /// same.
    pub fn expecting(mut self, entries: u64) -> Cursor {
        self.wanted = Some(entries);
        self
    }

    /// Gives entries without values: large ones are then not read again for them.
    pub fn keys_only(mut self) -> Cursor {
        self.keys_only = true;
        self
    }

    /// The next entry, or `None` at the end of the range.
    ///
    /// Finding the start reads one node a level; then each entry costs its own block, unless it is in the
    /// cache, and neighbours in the log are read together.
    ///
    /// # Errors
    ///
    /// [`Error::MissingBlock`] on a replica whose source does not wait;
    /// the cursor keeps its place, so call again once the block is there. [`Error::GaveUp`] from one that waited; the place is kept, too.
    /// [`Error::Corrupt`].
    #[allow(clippy::should_implement_trait)] // An iterator would have to end after an error.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        let entry = match self.try_next() {
            Err(error @ Error::MissingBlock(_)) => self.next_patiently(error)?,
            entry => entry?,
        };
        self.until_ask = self.until_ask.saturating_sub(1);
        // Who reads on beyond what was expected may want anything.
        self.wanted = self.wanted.map(|wanted| wanted.saturating_sub(1)).filter(|&wanted| wanted > 0);
        if self.window.read_one() {
            self.look_ahead();
        }
        Ok(entry)
    }

    #[cold]
    fn next_patiently(&mut self, mut error: Error) -> Result<Option<Entry>> {
        let mut patience = Patience::default();
        loop {
            if self.until_ask == 0
                && let Some(request) = extension::range(&self.snapshot, &self.range, self.direction, self.checkpoint())
            {
                self.until_ask = ASK_AGAIN_BLOCKS;
                let limit = self.wanted.unwrap_or(0);
                self.snapshot.tree.source.ask(extension::NAME, request.limited(limit).encode());
            }
            self.look_ahead();
            patience.wait(&*self.snapshot.tree.source, error)?;
            error = match self.try_next() {
                Err(missing @ Error::MissingBlock(_)) => missing,
                done => return done,
            };
        }
    }

    /// Asks for what will be needed next.
    #[cold]
    fn look_ahead(&mut self) {
        if self.state != State::Walking {
            return;
        }
        let entries = self.window.open(self.wanted);
        let path: Vec<Place<'_>> = self.stack.iter().map(|frame| (&frame.node, frame.position)).collect();
        let wanted = prefetch::upcoming(&self.snapshot.tree, &path, &self.range, self.direction, entries);
        if !wanted.is_empty() {
            self.snapshot.tree.source.want(&wanted);
        }
    }

    /// The stack as peers are told it. `None` when nothing is left.
    fn checkpoint(&self) -> Option<Vec<(Child, u64)>> {
        let places = self.stack.iter().filter_map(|Frame { node, position }| {
            let place = Child { block: node.address.block, offset: node.address.offset };
            Some((place, u64::try_from(*position).ok()?))
        });
        let places: Vec<(Child, u64)> = places.collect();
        (self.state == State::Unstarted || !places.is_empty()).then_some(places)
    }

    /// The nodes from the root to where the cursor stands, each with its next position.
    pub(super) fn path(&self) -> impl Iterator<Item = Place<'_>> {
        self.stack.iter().map(|frame| (&frame.node, frame.position))
    }

    /// The blocks that told that the range was over: the nodes down to the first key beyond it, and that key's.
    pub(super) fn stop(&self) -> &[u64] {
        &self.stop
    }

    /// Descends to where the read begins, unless that is done.
    pub(super) fn begin(&mut self) -> Result<()> {
        if self.state == State::Unstarted { self.start() } else { Ok(()) }
    }

    /// The next entry, as far as blocks are here.
    pub(super) fn try_next(&mut self) -> Result<Option<Entry>> {
        loop {
            match self.state {
                State::Walking => {}
                State::Done => return Ok(None),
                State::Unstarted => self.start()?,
            }
            let Some(frame) = self.stack.last_mut() else {
                self.state = State::Done;
                continue;
            };
            match frame.step() {
                Step::Key(i) => {
                    let run = frame.run(i, self.direction);
                    let tree = &self.snapshot.tree;
                    let resolved = tree.resolve(&frame.node, i, &mut self.ahead, run)?;
                    let seq = frame.node.keys[i].seq;
                    if !self.range.before_stop(resolved.key(), self.direction) {
                        self.stop = self.stack.iter().map(|frame| frame.node.address.block).chain([seq]).collect();
                        self.finish();
                        return Ok(None);
                    }
                    let in_order = match (&self.last, self.direction) {
                        (None, _) => true,
                        (Some(last), Direction::Forward) => resolved.key() > last.as_ref(),
                        (Some(last), Direction::Backward) => resolved.key() < last.as_ref(),
                    };
                    if !in_order {
                        return Err(corrupt(frame.node.address.block, "keys out of order"));
                    }
                    let entry = match self.keys_only {
                        true => resolved.key_entry(seq),
                        false => tree.complete(seq, resolved, &mut self.ahead)?,
                    };
                    frame.advance(self.direction);
                    self.last = Some(entry.key.clone());
                    return Ok(Some(entry));
                }
                Step::Child(i) => {
                    if self.stack.len() == DEPTH_MAX {
                        return Err(too_deep(&self.stack[0].node));
                    }
                    let frame = self.stack.last_mut().expect("just looked at");
                    let child = self.snapshot.tree.child(&frame.node, i, &mut self.ahead, Access::Scan)?;
                    frame.advance(self.direction);
                    self.until_ask = self.until_ask.saturating_sub(1);
                    self.stack.push(Frame::outermost(child, self.direction));
                }
                Step::Nothing => {
                    self.stack.pop();
                }
            }
        }
    }

    /// Appends up to `max` entries; fewer only at the end of the range or before an error, which the next
    /// call then meets again. Returns how many.
    ///
    /// # Errors
    ///
    /// As [`Cursor::next`], when there was not even one.
    pub fn next_batch(&mut self, entries: &mut Vec<Entry>, max: usize) -> Result<usize> {
        for count in 0..max {
            match self.next() {
                Ok(Some(entry)) => entries.push(entry),
                Ok(None) => return Ok(count),
                Err(error) if count == 0 => return Err(error),
                Err(_) => return Ok(count),
            }
        }
        Ok(max)
    }

    /// The range this cursor reads.
    pub fn range(&self) -> &KeyRange {
        &self.range
    }

    fn finish(&mut self) {
        self.state = State::Done;
        self.stack = Vec::new();
        self.last = None;
    }

    /// Descends to the bound where the read begins. On an error nothing has happened: nodes read so far
    /// are in the cache.
    fn start(&mut self) -> Result<()> {
        let tree = &self.snapshot.tree;
        let Some(root) = self.snapshot.root(&mut self.ahead, Access::Scan)?.cloned() else {
            self.state = State::Done;
            return Ok(());
        };
        let bound = match self.direction {
            Direction::Forward => &self.range.start,
            Direction::Backward => &self.range.end,
        };
        let mut stack = Vec::with_capacity(12);
        let mut near = Nearness::default();
        let mut node = root;
        loop {
            if stack.len() == DEPTH_MAX {
                return Err(too_deep(&node));
            }
            let mut frame = Frame::outermost(node, self.direction);
            let (key, included) = match bound {
                Bound::Unbounded => {
                    stack.push(frame);
                    break;
                }
                Bound::Included(key) => (key, true),
                Bound::Excluded(key) => (key, false),
            };
            match tree.search(&frame.node, key, &mut near, &mut self.ahead)? {
                Ok(i) => {
                    frame.position = 2 * i as i32 + 1;
                    if !included {
                        frame.advance(self.direction);
                    }
                    stack.push(frame);
                    break;
                }
                Err(i) if frame.node.is_leaf() => {
                    // The keys around the bound: i - 1 before it, i behind it.
                    frame.position = match self.direction {
                        Direction::Forward => 2 * i as i32 + 1,
                        Direction::Backward => 2 * i as i32 - 1,
                    };
                    stack.push(frame);
                    break;
                }
                Err(i) => {
                    frame.position = 2 * i as i32;
                    node = tree.child(&frame.node, i, &mut self.ahead, Access::Scan)?;
                    frame.advance(self.direction);
                    stack.push(frame);
                }
            }
        }
        self.stack = stack;
        self.state = State::Walking;
        Ok(())
    }
}

impl Frame {
    /// A node none of which has been read.
    fn outermost(node: Arc<Node>, direction: Direction) -> Frame {
        let leaf = i32::from(node.is_leaf());
        let position = match direction {
            Direction::Forward => leaf,
            Direction::Backward => 2 * node.keys.len() as i32 - leaf,
        };
        Frame { node, position }
    }

    #[inline]
    fn step(&self) -> Step {
        let i = (self.position >> 1) as usize;
        match (self.position < 0, self.position & 1 == 1) {
            (false, true) if i < self.node.keys.len() => Step::Key(i),
            (false, false) if i < self.node.children.len() => Step::Child(i),
            _ => Step::Nothing,
        }
    }

    #[inline]
    fn advance(&mut self, direction: Direction) {
        let by = if self.node.is_leaf() { 2 } else { 1 };
        match direction {
            Direction::Forward => self.position += by,
            Direction::Backward => self.position -= by,
        }
    }

    /// How many keys from `i` on, in this direction, lie in consecutive blocks and are not known yet:
    /// see [`Readahead::block`].
    fn run(&self, i: usize, direction: Direction) -> i64 {
        let keys = &self.node.keys;
        if keys[i].resolved.get().is_some() || !self.node.is_leaf() {
            return 1;
        }
        let at = |k: usize| {
            let key = keys.get(k)?;
            key.resolved.get().is_none().then_some(key.seq as i64)
        };
        let step = |k: usize| match direction {
            Direction::Forward => Some(i + k),
            Direction::Backward => i.checked_sub(k),
        };
        let first = keys[i].seq as i64;
        let Some(second) = step(1).and_then(at) else {
            return 1;
        };
        let delta = second - first;
        if delta.abs() != 1 {
            return 1;
        }
        let mut run = 2;
        while let Some(seq) = step(run as usize).and_then(at)
            && seq == first + delta * run
        {
            run += 1;
        }
        run * delta
    }
}
