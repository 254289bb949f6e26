//! The extension `hyperbee`: who runs a bee, too, is asked which blocks a read will touch, instead of finding out level by level.
//!
//! ```text
//! Message  { optional Cache cache = 1; optional Get get = 2; optional Iterator iterator = 3 }
//! Cache    { uint64 start = 1; uint64 end = 2; repeated uint64 blocks = 3 [packed] }              an answer: blocks that will be useful
//! Get      { uint64 version = 1; bytes key = 2 }                                                  who looks up a key and has to wait
//! Iterator { uint64 version = 1; bytes gte = 2, gt = 3, lte = 4, lt = 5; uint64 limit = 6;        who reads a range and has to wait; limit 0: no limit
//!            bool reverse = 7; repeated uint64 checkpoint = 8 [packed] }                          triples: block, node in it, position
//! ```
//!
//! A cursor asks again after every 2048 blocks, and says where it stands: the nodes from the root down, each with its next position (keys odd, children
//! even). The payloads here are bare protobuf. On the wire they are wrapped once more, as a compact `buffer`; that is the replicator's.
//!
//! [`Responder`] answers strangers, so: it reads only what is stored here and waits for nothing; a message costs it at most [`TOUCHED_MAX`] blocks and
//! [`READ_BYTES_MAX`] bytes read; what it is told (`cache`) becomes a bounded hint to the core's wants, never more. Nothing relies on any of this: a read gets
//! along without an answer.
//!
//! Source: `lib/extension.js`, `lib/messages.js`, `iterators/range.js` in holepunchto/hyperbee.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::cache::{Access, Cache};
use super::node::{Child, DEPTH_MAX, Nearness, Node};
use super::readahead::Readahead;
use super::{Bee, Cursor, Direction, KeyRange, Snapshot};
use crate::encoding::compact::DecodeError;
use crate::encoding::protobuf::{Reader, Value, varint_len, write_bytes, write_varint};
use crate::hypercore::extensions::ExtensionHandler;
use crate::hypercore::lineage::Lineage;
use crate::hypercore::{BlockSource, Core};
use crate::{BlockIndex, Error, Result, Version};

/// What the extension is called on a core's channel.
pub const NAME: &str = "hyperbee";
/// An answer names so many blocks at most; more make another. Source: `FLUSH_BATCH`.
const FLUSH_BLOCKS: usize = 128;
/// So many blocks are named to one who asks, at most. Source: `MAX_ACTIVE_BATCH`.
pub const TOUCHED_MAX: usize = 2048 + FLUSH_BLOCKS;
/// So many bytes of blocks are read for one who asks, at most.
pub const READ_BYTES_MAX: usize = 16 << 20;
/// A message that lists more than so many numbers is nobody's. JavaScript never lists more than 128 blocks.
const LIST_MAX: usize = 4096;

/// A message of the extension. JavaScript sends one of the three at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// An answer.
    pub cache: Option<CacheHint>,
    /// A question about a key.
    pub get: Option<GetRequest>,
    /// A question about a range.
    pub iterator: Option<RangeRequest>,
}

/// Blocks that will be useful to who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheHint {
    /// The lowest of them.
    pub start: u64,
    /// One more than the highest.
    pub end: u64,
    /// In the order they will be read.
    pub blocks: Vec<u64>,
}

/// Which blocks does one touch who looks up this key?
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetRequest {
    /// In which version.
    pub version: u64,
    /// The key as the bee has it, with the prefix of a sub.
    pub key: Bytes,
}

/// Which blocks does one touch who reads this range?
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// Of which version.
    pub version: u64,
    /// The smallest key.
    pub gte: Option<Bytes>,
    /// The key before the smallest. Counts before `gte`.
    pub gt: Option<Bytes>,
    /// The largest key.
    pub lte: Option<Bytes>,
    /// The key behind the largest. Counts before `lte`.
    pub lt: Option<Bytes>,
    /// How many entries are wanted; 0 for all.
    pub limit: u64,
    /// Whether from the largest key down.
    pub reverse: bool,
    /// Where the reader stands: block, node in it and position for each node from the root down. Empty at the beginning.
    pub checkpoint: Vec<u64>,
}

/// A question about a key, as it is sent.
pub(super) fn get(version: Version, key: &[u8]) -> Bytes {
    let get = GetRequest { version: version.0, key: Bytes::copy_from_slice(key) };
    Message { get: Some(get), ..Message::default() }.encode()
}

/// A question about what is left of a range; `None` when nothing is.
pub(super) fn range(
    snapshot: &Snapshot,
    range: &KeyRange,
    direction: Direction,
    checkpoint: Option<Vec<(Child, u64)>>,
) -> Option<RangeRequest> {
    let (gte, gt) = split(&range.start);
    let (lte, lt) = split(&range.end);
    let triples = checkpoint?.into_iter().flat_map(|(place, at)| [place.block, u64::from(place.offset), at]);
    Some(RangeRequest {
        version: snapshot.version().0,
        gte,
        gt,
        lte,
        lt,
        limit: 0,
        reverse: direction == Direction::Backward,
        checkpoint: triples.collect(),
    })
}

/// A bound as the key that is included and the one that is not.
fn split(bound: &Bound<Bytes>) -> (Option<Bytes>, Option<Bytes>) {
    match bound {
        Bound::Unbounded => (None, None),
        Bound::Included(key) => (Some(key.clone()), None),
        Bound::Excluded(key) => (None, Some(key.clone())),
    }
}

fn join(included: &Option<Bytes>, excluded: &Option<Bytes>) -> Bound<Bytes> {
    match (included, excluded) {
        (_, Some(key)) => Bound::Excluded(key.clone()),
        (Some(key), None) => Bound::Included(key.clone()),
        (None, None) => Bound::Unbounded,
    }
}

impl RangeRequest {
    /// With a limit; 0 for none.
    pub(super) fn limited(mut self, limit: u64) -> RangeRequest {
        self.limit = limit;
        self
    }

    /// As it is sent.
    pub(super) fn encode(self) -> Bytes {
        Message { iterator: Some(self), ..Message::default() }.encode()
    }

    fn range(&self) -> KeyRange {
        KeyRange { start: join(&self.gte, &self.gt), end: join(&self.lte, &self.lt) }
    }

    fn places(&self) -> Result<Vec<(Child, u64)>> {
        let (triples, rest) = self.checkpoint.as_chunks::<3>();
        let broken = || Error::corrupt("a checkpoint that cannot be");
        if !rest.is_empty() {
            return Err(broken());
        }
        let place = |&[block, offset, at]: &[u64; 3]| {
            Ok((Child { block, offset: u32::try_from(offset).map_err(|_| broken())? }, at))
        };
        triples.iter().map(place).collect()
    }
}

impl Message {
    /// Its bytes, exactly as JavaScript writes them.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        let mut inner = Vec::with_capacity(64);
        if let Some(cache) = &self.cache {
            write_number(&mut inner, 1, cache.start);
            write_number(&mut inner, 2, cache.end);
            write_packed(&mut inner, 3, &cache.blocks);
            write_bytes(&mut out, 1, &inner);
        }
        if let Some(get) = &self.get {
            inner.clear();
            write_number(&mut inner, 1, get.version);
            write_bytes(&mut inner, 2, &get.key);
            write_bytes(&mut out, 2, &inner);
        }
        if let Some(range) = &self.iterator {
            inner.clear();
            write_number(&mut inner, 1, range.version);
            for (field, bound) in [(2, &range.gte), (3, &range.gt), (4, &range.lte), (5, &range.lt)] {
                if let Some(key) = bound {
                    write_bytes(&mut inner, field, key);
                }
            }
            write_number(&mut inner, 6, range.limit);
            write_number(&mut inner, 7, u64::from(range.reverse));
            write_packed(&mut inner, 8, &range.checkpoint);
            write_bytes(&mut out, 3, &inner);
        }
        out.into()
    }

    /// Reads a message. It may be a stranger's.
    ///
    /// # Errors
    ///
    /// What is wrong with it; also a list of more than 4096 numbers.
    pub fn decode(payload: &[u8]) -> std::result::Result<Message, DecodeError> {
        let mut message = Message::default();
        let mut reader = Reader::new(payload);
        while let Some((field, value)) = reader.field()? {
            match field {
                1 => message.cache = Some(CacheHint::decode(value.bytes()?)?),
                2 => message.get = Some(GetRequest::decode(value.bytes()?)?),
                3 => message.iterator = Some(RangeRequest::decode(value.bytes()?)?),
                _ => {}
            }
        }
        Ok(message)
    }
}

impl CacheHint {
    fn decode(bytes: &[u8]) -> std::result::Result<CacheHint, DecodeError> {
        let mut cache = CacheHint::default();
        let mut reader = Reader::new(bytes);
        while let Some((field, value)) = reader.field()? {
            match field {
                1 => cache.start = value.varint()?,
                2 => cache.end = value.varint()?,
                3 => read_numbers(value, &mut cache.blocks)?,
                _ => {}
            }
        }
        Ok(cache)
    }
}

impl GetRequest {
    fn decode(bytes: &[u8]) -> std::result::Result<GetRequest, DecodeError> {
        let mut get = GetRequest::default();
        let mut reader = Reader::new(bytes);
        while let Some((field, value)) = reader.field()? {
            match field {
                1 => get.version = value.varint()?,
                2 => get.key = Bytes::copy_from_slice(value.bytes()?),
                _ => {}
            }
        }
        Ok(get)
    }
}

impl RangeRequest {
    fn decode(bytes: &[u8]) -> std::result::Result<RangeRequest, DecodeError> {
        let mut range = RangeRequest::default();
        let mut reader = Reader::new(bytes);
        while let Some((field, value)) = reader.field()? {
            let key = |value: Value<'_>| Ok(Some(Bytes::copy_from_slice(value.bytes()?)));
            match field {
                1 => range.version = value.varint()?,
                2 => range.gte = key(value)?,
                3 => range.gt = key(value)?,
                4 => range.lte = key(value)?,
                5 => range.lt = key(value)?,
                6 => range.limit = value.varint()?,
                7 => range.reverse = value.varint()? != 0,
                8 => read_numbers(value, &mut range.checkpoint)?,
                _ => {}
            }
        }
        Ok(range)
    }
}

fn write_number(out: &mut Vec<u8>, field: u64, number: u64) {
    write_varint(out, field << 3);
    write_varint(out, number);
}

/// JavaScript leaves an empty list out.
fn write_packed(out: &mut Vec<u8>, field: u64, numbers: &[u64]) {
    if numbers.is_empty() {
        return;
    }
    write_varint(out, field << 3 | 2);
    write_varint(out, numbers.iter().map(|&number| varint_len(number) as u64).sum());
    numbers.iter().for_each(|&number| write_varint(out, number));
}

fn read_numbers(value: Value<'_>, out: &mut Vec<u64>) -> std::result::Result<(), DecodeError> {
    let mut reader = Reader::new(value.bytes()?);
    while !reader.is_empty() {
        if out.len() == LIST_MAX {
            return Err(DecodeError::TooLarge);
        }
        out.push(reader.varint()?);
    }
    Ok(())
}

/// From now on questions of peers about the bee in this core are answered, and their answers to ours are heeded. What was decoded for it stays in `cache`.
pub fn register(core: &Arc<Core>, cache: Arc<Cache>) {
    let responder = Responder { core: Arc::downgrade(core), cache };
    core.extensions().register(NAME, Arc::new(responder));
}

/// Answers messages of peers. Knows its core weakly, for the core knows it.
pub struct Responder {
    core: Weak<Core>,
    cache: Arc<Cache>,
}

impl ExtensionHandler for Responder {
    fn handle(&self, payload: &[u8]) -> Vec<Bytes> {
        let (Some(core), Ok(message)) = (self.core.upgrade(), Message::decode(payload)) else {
            return Vec::new();
        };
        if let Some(hint) = &message.cache {
            heed(&core, hint);
        }
        let mut answers = Answers::default();
        if let Some(get) = &message.get
            && let Some(snapshot) = self.snapshot(&core, get.version)
        {
            // What it ends with is of no interest: what was touched until then is the answer.
            let _ = touch_path(&snapshot, &get.key, &mut answers);
            answers.flush();
        }
        if let Some(range) = &message.iterator
            && let Some(snapshot) = self.snapshot(&core, range.version)
        {
            let mut touched = Touched { seen: HashSet::new(), answers: &mut answers, work: 0 };
            if let Err(Error::MissingBlock(block)) = touch_range(&snapshot, range, &mut touched) {
                touched.push(block.0);
            }
            answers.flush();
        }
        answers.messages
    }
}

impl Responder {
    /// A version to look into, if there can be one.
    fn snapshot(&self, core: &Arc<Core>, version: u64) -> Option<Snapshot> {
        if version == 0 || version > core.len().0 {
            return None;
        }
        let stored = Stored { core: core.clone(), bytes_left: AtomicUsize::new(READ_BYTES_MAX) };
        // Readers share what is cached: nothing of the next history may get there under the name of this one.
        let fork = core.watch().position().fork;
        let lineage = Lineage::over(core.clone(), Arc::new(stored), fork);
        Some(Bee::new(Arc::new(lineage), self.cache.clone(), core.source_id_at(fork)).at(Version(version)))
    }
}

/// Blocks that will be useful, says a peer: those that exist and are not here are wanted, too.
fn heed(core: &Core, hint: &CacheHint) {
    let end = hint.end.min(core.len().0);
    let useful = |block: &u64| (hint.start..end).contains(block) && !core.has(BlockIndex(*block));
    let useful: Vec<BlockIndex> = hint.blocks.iter().copied().filter(useful).map(BlockIndex).collect();
    if !useful.is_empty() {
        core.wants().hint(useful);
    }
}

/// The stored blocks of a core, until so many bytes are read.
struct Stored {
    core: Arc<Core>,
    bytes_left: AtomicUsize,
}

impl BlockSource for Stored {
    fn block(&self, index: BlockIndex) -> Result<Bytes> {
        let left = self.bytes_left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(Error::MissingBlock(index));
        }
        let block = self.core.get(index)?;
        self.bytes_left.store(left.saturating_sub(block.len().max(1)), Ordering::Relaxed);
        Ok(block)
    }
}

/// Answers being written.
#[derive(Default)]
struct Answers {
    blocks: Vec<u64>,
    messages: Vec<Bytes>,
}

impl Answers {
    fn push(&mut self, block: u64) {
        self.blocks.push(block);
        if self.blocks.len() == FLUSH_BLOCKS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let blocks = std::mem::take(&mut self.blocks);
        let (Some(&start), Some(&last)) = (blocks.iter().min(), blocks.iter().max()) else {
            return;
        };
        let cache = CacheHint { start, end: last + 1, blocks };
        self.messages.push(Message { cache: Some(cache), ..Message::default() }.encode());
    }
}

/// Names every block that a look-up of a key touches, before it is read.
fn touch_path(snapshot: &Snapshot, key: &[u8], answers: &mut Answers) -> Result<()> {
    let mut touched = Touched { seen: HashSet::new(), answers, work: 0 };
    let tree = &snapshot.tree;
    let mut ahead = Readahead::none();
    let mut near = Nearness::default();
    let Some(root) = snapshot.version().root() else {
        return Ok(());
    };
    let mut place = Child { block: root.0, offset: 0 };
    for _ in 0..DEPTH_MAX {
        touched.push(place.block);
        let node = tree.node(place, &mut ahead, Access::Lookup)?;
        let found = match tree.search(&node, key, &mut near, &mut ahead) {
            Err(Error::MissingBlock(block)) => {
                touched.push(block.0);
                return Err(Error::MissingBlock(block));
            }
            found => found?,
        };
        touched.probes(&node, found);
        match found {
            Err(i) if !node.is_leaf() => place = node.children[i],
            _ => break,
        }
    }
    Ok(())
}

/// Names every block that a read of a range touches.
fn touch_range(snapshot: &Snapshot, request: &RangeRequest, touched: &mut Touched<'_>) -> Result<()> {
    let range = request.range();
    let direction = if request.reverse { Direction::Backward } else { Direction::Forward };
    let places = request.places()?;
    let mut cursor = Cursor::resume(snapshot.clone(), range.clone(), direction, &places)?.keys_only();
    cursor.begin()?;
    if places.is_empty() {
        let bound = if request.reverse { &range.end } else { &range.start };
        let (Bound::Included(key) | Bound::Excluded(key)) = bound else {
            return touch_entries(&mut cursor, request.limit, touched);
        };
        let path: Vec<Arc<Node>> = cursor.path().map(|(node, _)| node.clone()).collect();
        for node in path {
            touched.push(node.address.block);
            let found = snapshot.tree.search(&node, key, &mut Nearness::default(), &mut Readahead::none())?;
            touched.probes(&node, found);
        }
    } else {
        // Who asks stands on these.
        touched.seen.extend(places.iter().map(|(place, _)| place.block));
    }
    touch_entries(&mut cursor, request.limit, touched)
}

fn touch_entries(cursor: &mut Cursor, limit: u64, touched: &mut Touched<'_>) -> Result<()> {
    let limit = if limit == 0 { u64::MAX } else { limit };
    for _ in 0..limit {
        if touched.work >= TOUCHED_MAX {
            break;
        }
        let Some(entry) = cursor.try_next()? else {
            // Whoever reads the range has to see where it ends.
            cursor.stop().iter().for_each(|&block| touched.push(block));
            break;
        };
        cursor.path().for_each(|(node, _)| touched.push(node.address.block));
        touched.push(entry.seq.0);
    }
    Ok(())
}

/// Blocks named so far, each once.
struct Touched<'a> {
    seen: HashSet<u64>,
    answers: &'a mut Answers,
    work: usize,
}

impl Touched<'_> {
    fn push(&mut self, block: u64) {
        if self.seen.insert(block) {
            self.work += 1;
            self.answers.push(block);
        }
    }

    /// The keys that a binary search in a node compared with before it ended so.
    fn probes(&mut self, node: &Node, found: std::result::Result<usize, usize>) {
        let (mut low, mut high) = (0, node.keys.len());
        while low < high {
            let middle = (low + high) / 2;
            self.push(node.keys[middle].seq);
            match found {
                Ok(i) if i == middle => return,
                Ok(i) | Err(i) if i <= middle => high = middle,
                _ => low = middle + 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_of_a_stranger_does_harm() {
        let huge = Message {
            cache: Some(CacheHint { start: 0, end: u64::MAX, blocks: vec![1; LIST_MAX] }),
            ..Message::default()
        };
        assert_eq!(Message::decode(&huge.encode()), Ok(huge.clone()));
        let mut more = huge;
        more.cache.as_mut().unwrap().blocks.push(1);
        assert_eq!(Message::decode(&more.encode()), Err(DecodeError::TooLarge));
        for payload in [&[0x0a][..], &[0x0a, 5, 1], &[0x12, 2, 0x08], &[0x08, 1], &[0x1a, 2, 0x40, 1], &[0xff; 30]] {
            assert!(Message::decode(payload).is_err(), "{payload:?}");
        }
        let unknown = [0x22, 1, 7];
        assert_eq!(Message::decode(&unknown), Ok(Message::default()));
        let odd = RangeRequest { checkpoint: vec![1, 2], ..RangeRequest::default() };
        assert!(odd.places().is_err());
        let far = RangeRequest { checkpoint: vec![1, u64::MAX, 2], ..RangeRequest::default() };
        assert!(far.places().is_err());
    }
}
