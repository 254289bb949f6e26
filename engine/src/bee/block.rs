//! One block: an operation, and the tree nodes it changed. Decoding and encoding.
//!
//! Block 0 is the header; every other block is one put or delete. Protobuf, every field length-delimited
//! (wire type 2), written in the order of their numbers:
//!
//! ```text
//! header     0a len "hyperbee"                           protocol
//!            12 len { 0a len feed key, 12 len bytes }    metadata: contentFeed, userData; both optional
//!
//! operation  0a len index                                the nodes, see below
//!            12 len key
//!            1a len value                                left out for null; 1a 00 is the empty value
//!
//! index      0a len level, 0a len level, ...             level n is the node others call (block, n)
//! level      0a len varints                              keys: the block that wrote each key
//!            12 len varints                              children: block, offset, block, offset, ...
//! ```
//!
//! Lists without items are left out, so an empty node is `0a 00`, and a block that changed no node that
//! was still current at the end of its batch begins with `0a 00`.
//!
//! For example, the third block of a bee, `put "b" = "2"` after `put "a" = "1"`:
//!
//! ```text
//! 0a 06            index, 6 bytes
//!   0a 04          level 0, the root, 4 bytes
//!     0a 02 01 02  keys: block 1 ("a"), block 2 ("b", this block)
//! 12 01 62         key "b"
//! 1a 01 32         value "2"
//! ```
//!
//! Level 0 of the last block of a batch is the root of that version. In other blocks of a batch it is
//! whatever node came first. Fields with unknown numbers are skipped. Source: `lib/messages.js` in
//! holepunchto/hyperbee.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::corrupt;
use crate::encoding::compact::DecodeError;
use crate::encoding::protobuf::{Reader, Value, varint_len, write_bytes, write_varint};
use crate::{BlockIndex, Result};

const PROTOCOL: &[u8] = b"hyperbee";

/// What block 0 says about the bee.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Metadata, when its writer set any; it may be there and empty.
    pub metadata: Option<Metadata>,
}

/// Free for applications; drives keep the key of their blobs core here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Key of a core with contents this bee refers to.
    pub content_feed: Option<Bytes>,
    /// Anything.
    pub user_data: Option<Bytes>,
}

impl Header {
    /// Reads block 0.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) when it is no header of a bee: the core holds something else.
    pub fn decode(bytes: &Bytes) -> Result<Header> {
        let read = || -> std::result::Result<Option<Header>, DecodeError> {
            let mut header = Header::default();
            let mut protocol = None;
            let mut reader = Reader::new(bytes);
            while let Some((number, value)) = reader.field()? {
                match number {
                    1 => protocol = Some(value.bytes()?),
                    2 => header.metadata = Some(Metadata::decode(bytes, value.bytes()?)?),
                    _ => {}
                }
            }
            Ok((protocol == Some(PROTOCOL)).then_some(header))
        };
        match read() {
            Ok(Some(header)) => Ok(header),
            Ok(None) => Err(corrupt(0, "not the header of a bee")),
            Err(error) => Err(corrupt(0, format!("not the header of a bee: {error}"))),
        }
    }

    /// The bytes of block 0.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(16);
        write_bytes(&mut out, 1, PROTOCOL);
        if let Some(metadata) = &self.metadata {
            let mut inner = Vec::new();
            if let Some(feed) = &metadata.content_feed {
                write_bytes(&mut inner, 1, feed);
            }
            if let Some(data) = &metadata.user_data {
                write_bytes(&mut inner, 2, data);
            }
            write_bytes(&mut out, 2, &inner);
        }
        out.into()
    }
}

impl Metadata {
    fn decode(block: &Bytes, bytes: &[u8]) -> std::result::Result<Metadata, DecodeError> {
        let mut metadata = Metadata::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            match number {
                1 => metadata.content_feed = Some(block.slice_ref(value.bytes()?)),
                2 => metadata.user_data = Some(block.slice_ref(value.bytes()?)),
                _ => {}
            }
        }
        Ok(metadata)
    }
}

/// An operation block, taken apart but not copied. Its levels are decoded when asked for.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    at: BlockIndex,
    bytes: &'a Bytes,
    key: Range<usize>,
    value: Option<Range<usize>>,
    index: Range<usize>,
}

impl<'a> Block<'a> {
    /// Takes block `at` apart.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt), naming the block, when it is no operation of a bee.
    pub fn decode(at: BlockIndex, bytes: &'a Bytes) -> Result<Block<'a>> {
        let read = || -> std::result::Result<Option<Block<'a>>, DecodeError> {
            let (mut key, mut value, mut index) = (None, None, None);
            let mut reader = Reader::new(bytes);
            while let Some((number, field)) = reader.field()? {
                if !(1..=3).contains(&number) {
                    continue;
                }
                let end = bytes.len() - reader.remaining();
                let range = Some(end - field.bytes()?.len()..end);
                match number {
                    1 => index = range,
                    2 => key = range,
                    _ => value = range,
                }
            }
            Ok(key.zip(index).map(|(key, index)| Block { at, bytes, key, value, index }))
        };
        match read() {
            Ok(Some(block)) => Ok(block),
            Ok(None) => Err(corrupt(at.0, "a bee block without a key or an index")),
            Err(error) => Err(corrupt(at.0, format!("not a bee block: {error}"))),
        }
    }

    /// The key this operation put or deleted.
    pub fn key(&self) -> &'a [u8] {
        &self.bytes[self.key.clone()]
    }

    /// The value put; `None` for null and for a delete.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value.clone().map(|range| &self.bytes[range])
    }

    /// The nodes in this block, one after the other.
    pub fn levels(&self) -> Levels<'a> {
        Levels { at: self.at, reader: Reader::new(&self.bytes[self.index.clone()]) }
    }

    /// Node `offset`, found by stepping over those before it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) when there are not so many.
    pub fn level(&self, offset: u32) -> Result<Level<'a>> {
        match self.levels().nth(offset as usize) {
            Some(level) => level,
            None => Err(corrupt(self.at.0, format!("no tree node {offset} here"))),
        }
    }

    /// Whether this block deleted its key: its value is null and no node in it names this block as the
    /// home of a key.
    ///
    /// JavaScript's rule, and its limit: a put of null looks like a delete when a later operation of the
    /// same batch rewrote or removed the key.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) when its index cannot be read.
    pub fn is_deletion(&self) -> Result<bool> {
        if self.value.is_some() {
            return Ok(false);
        }
        for level in self.levels() {
            for key in level?.keys() {
                if key? == self.at.0 {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Steps through the nodes of a block: see [`Block::levels`].
#[derive(Clone, Debug)]
pub struct Levels<'a> {
    at: BlockIndex,
    reader: Reader<'a>,
}

impl<'a> Levels<'a> {
    fn step(&mut self) -> std::result::Result<Option<Level<'a>>, DecodeError> {
        while let Some((number, value)) = self.reader.field()? {
            if number == 1 {
                return Level::decode(self.at, value).map(Some);
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Levels<'a> {
    type Item = Result<Level<'a>>;

    fn next(&mut self) -> Option<Result<Level<'a>>> {
        match self.step() {
            Ok(level) => level.map(Ok),
            Err(error) => {
                self.reader = Reader::new(&[]);
                Some(Err(corrupt(self.at.0, format!("its tree nodes: {error}"))))
            }
        }
    }
}

/// One node as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct Level<'a> {
    at: BlockIndex,
    keys: &'a [u8],
    children: &'a [u8],
}

impl<'a> Level<'a> {
    fn decode(at: BlockIndex, value: Value<'a>) -> std::result::Result<Level<'a>, DecodeError> {
        let (mut keys, mut children) = (&[][..], &[][..]);
        let mut reader = Reader::new(value.bytes()?);
        while let Some((number, list)) = reader.field()? {
            let place = match number {
                1 => &mut keys,
                2 => &mut children,
                _ => continue,
            };
            // Protobuf would let a list come in pieces. No writer of bees ever split one.
            if !place.is_empty() {
                return Err(DecodeError::Unknown("second list in a node"));
            }
            *place = list.bytes()?;
        }
        Ok(Level { at, keys, children })
    }

    /// The blocks that wrote this node's keys, smallest key first.
    pub fn keys(&self) -> Varints<'a> {
        Varints { at: self.at, reader: Reader::new(self.keys) }
    }

    /// Block and offset of each child, alternating.
    pub fn children(&self) -> Varints<'a> {
        Varints { at: self.at, reader: Reader::new(self.children) }
    }
}

/// Numbers of a packed list.
#[derive(Clone, Debug)]
pub struct Varints<'a> {
    at: BlockIndex,
    reader: Reader<'a>,
}

impl Iterator for Varints<'_> {
    type Item = Result<u64>;

    #[inline]
    fn next(&mut self) -> Option<Result<u64>> {
        if self.reader.is_empty() {
            return None;
        }
        Some(self.reader.varint().map_err(|error| {
            self.reader = Reader::new(&[]);
            corrupt(self.at.0, format!("a tree node: {error}"))
        }))
    }
}

/// Writes blocks: its nodes first, then [`Encoder::finish`]. One encoder serves many blocks, which share
/// its buffers.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    index: Vec<u8>,
    keys: Vec<u8>,
    children: Vec<u8>,
    out: BytesMut,
}

/// Finished blocks are cut from buffers of this size, so that a block that is kept keeps little else.
const BUFFER_BYTES: usize = 32 << 10;

impl Encoder {
    /// Adds the next node of the block at hand.
    pub(crate) fn level(&mut self, keys: impl Iterator<Item = u64>, children: impl Iterator<Item = (u64, u32)>) {
        self.keys.clear();
        self.children.clear();
        for key in keys {
            write_varint(&mut self.keys, key);
        }
        for (block, offset) in children {
            write_varint(&mut self.children, block);
            write_varint(&mut self.children, u64::from(offset));
        }
        let list_len = |list: &[u8]| match list.len() {
            0 => 0,
            length => 1 + varint_len(length as u64) + length,
        };
        self.index.push(0x0a);
        let level_len = list_len(&self.keys) + list_len(&self.children);
        write_varint(&mut self.index, level_len as u64);
        if !self.keys.is_empty() {
            write_bytes(&mut self.index, 1, &self.keys);
        }
        if !self.children.is_empty() {
            write_bytes(&mut self.index, 2, &self.children);
        }
    }

    /// The finished block; the encoder is ready for the next.
    pub(crate) fn finish(&mut self, key: &[u8], value: Option<&[u8]>) -> Bytes {
        let value_len = value.map_or(0, |value| value.len() + 11);
        let need = self.index.len() + key.len() + value_len + 22;
        if self.out.capacity() < need {
            self.out = BytesMut::with_capacity(need.max(BUFFER_BYTES));
        }
        write_field(&mut self.out, 0x0a, &self.index);
        write_field(&mut self.out, 0x12, key);
        if let Some(value) = value {
            write_field(&mut self.out, 0x1a, value);
        }
        self.index.clear();
        self.out.split().freeze()
    }
}

fn write_field(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    let mut head = [tag; 11];
    let mut length = bytes.len();
    let mut used = 1;
    while length >= 0x80 {
        head[used] = length as u8 | 0x80;
        length >>= 7;
        used += 1;
    }
    head[used] = length as u8;
    out.extend_from_slice(&head[..=used]);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(list: &[u8]) -> Bytes {
        Bytes::copy_from_slice(list)
    }

    #[test]
    fn the_example_above_is_what_is_written_and_read() {
        let mut encoder = Encoder::default();
        encoder.level([1, 2].into_iter(), std::iter::empty());
        let block = encoder.finish(b"b", Some(b"2"));
        let expected = [0x0a, 6, 0x0a, 4, 0x0a, 2, 1, 2, 0x12, 1, b'b', 0x1a, 1, b'2'];
        assert_eq!(&block[..], &expected[..]);
        let read = Block::decode(BlockIndex(2), &block).unwrap();
        assert_eq!((read.key(), read.value()), (&b"b"[..], Some(&b"2"[..])));
        let level = read.level(0).unwrap();
        assert_eq!(level.keys().collect::<Result<Vec<_>>>().unwrap(), [1, 2]);
        assert_eq!(level.children().count(), 0);
        assert!(read.level(1).is_err());
        assert!(!read.is_deletion().unwrap());
    }

    #[test]
    fn an_empty_node_an_empty_index_a_null_and_an_empty_value_differ() {
        let mut encoder = Encoder::default();
        encoder.level(std::iter::empty(), std::iter::empty());
        assert_eq!(&encoder.finish(b"a", None)[..], &[0x0a, 2, 0x0a, 0, 0x12, 1, b'a']);
        let block = encoder.finish(b"", Some(b""));
        assert_eq!(&block[..], &[0x0a, 0, 0x12, 0, 0x1a, 0]);
        let read = Block::decode(BlockIndex(9), &block).unwrap();
        assert_eq!((read.key(), read.value()), (&b""[..], Some(&b""[..])));
        assert_eq!(read.levels().count(), 0);
    }

    #[test]
    fn buffers_are_reused_without_mixing_blocks() {
        let mut encoder = Encoder::default();
        let value = vec![7u8; 50_000];
        let blocks: Vec<Bytes> = (0..20u64)
            .map(|i| {
                encoder.level([i].into_iter(), [(i, 3)].into_iter());
                encoder.finish(&i.to_be_bytes(), (i % 3 == 0).then_some(&value[..]))
            })
            .collect();
        for (i, block) in blocks.iter().enumerate() {
            let read = Block::decode(BlockIndex(99), block).unwrap();
            assert_eq!(read.key(), (i as u64).to_be_bytes());
            assert_eq!(read.value().is_some(), i % 3 == 0);
            let level = read.level(0).unwrap();
            assert_eq!(level.keys().next().unwrap().unwrap(), i as u64);
        }
    }

    #[test]
    fn unknown_fields_are_skipped_and_missing_ones_refused() {
        let block = bytes(&[0x0a, 0, 0x20, 5, 0x12, 1, b'k', 0x32, 1, 0]);
        assert_eq!(Block::decode(BlockIndex(1), &block).unwrap().key(), b"k");
        for broken in [&[0x0a, 0][..], &[0x12, 0], &[], &[0x08, 1, 0x12, 0]] {
            assert!(Block::decode(BlockIndex(1), &bytes(broken)).is_err());
        }
    }

    #[test]
    fn headers_round_trip() {
        let data = Some(bytes(b"x"));
        for metadata in
            [None, Some(Metadata::default()), Some(Metadata { content_feed: data.clone(), user_data: data })]
        {
            let header = Header { metadata };
            assert_eq!(Header::decode(&header.encode()).unwrap(), header);
        }
        assert!(Header::decode(&bytes(b"\x0a\x09hyperdisk")).is_err());
        assert!(Header::decode(&bytes(b"")).is_err());
    }
}
