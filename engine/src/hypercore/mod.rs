//! One signed, append-only log of blocks: [`Core`].
//!
//! ```text
//! append     hash the leaves, fold the roots, sign once, one atomic batch, then publish the head
//! get        below the published length: one read and a checksum
//! stage      blocks written beyond the head, by and by; a signed head makes them visible as one
//! verify     hash everything again, up to the signed head
//!
//! intake     proofs of peers, verified up to signed roots, stored as one batch: a replica, whole or with holes
//! prove      what is held, to peers
//! truncate   cut back, under a new fork; reorg follows a writer who did; clear makes holes
//! freeze     for good, once a writer has signed two histories
//! ```
//!
//! A core has one writer at a time and any number of readers, who take no lock but for the head. Blocks
//! are opaque here. With an encryption key (see [`encryption`]) what is stored and what is read differ: everything about trees, proofs and lengths in bytes is
//! of what is stored.
//!
//! What must stay true:
//!
//! * a published head is in the store, with all its blocks and nodes (never the other way round: the
//!   store may be ahead of what is published, if a write was reported as failed and yet was there);
//! * the stored head is signed and matches the stored roots, or opening fails;
//! * what lies in the store beyond the head is not part of the core: it is ignored by readers, and
//!   removed before anything is written there again;
//! * a stored block below the head never changes, but by a new fork (see [`lineage`]).

pub mod append;
pub mod bitfield;
pub mod conflict;
pub mod encryption;
pub mod extensions;
pub mod intake;
pub mod lineage;
pub mod proof;
mod prove;
pub mod reorg;
mod source;
pub mod stage;
mod tree;
pub mod truncate;
pub mod verify;
pub mod verify_held;
pub mod verify_log;
mod wakers;
pub mod wants;
pub mod watch;

pub use prove::Sought;
pub use source::{BlockSource, READ_BYTES_MAX};
pub(crate) use source::{Patience, patiently};

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::crypto::hash::Hash;
use crate::crypto::key::{CoreKey, DiscoveryKey, KeyPair};
use crate::crypto::manifest::Manifest;
use crate::crypto::merkle::{Roots, TreeNode};
use crate::crypto::verifier::Verifier;
use crate::error::{Error, Result};
use crate::hypercore::append::{Writer, WriterLock};
use crate::hypercore::bitfield::Bitfield;
use crate::hypercore::conflict::Conflict;
use crate::hypercore::encryption::{BlockCipher, EncryptionKey};
use crate::hypercore::extensions::Extensions;
use crate::hypercore::tree::NodeCache;
use crate::hypercore::wants::Wants;
use crate::hypercore::watch::{Position, Watch};
use crate::position::{BlockIndex, Fork, Length, NodeIndex};
use crate::storage::key::{self, CoreId, MetaKey};
use crate::storage::record::{self, CoreRecord, HeadRecord};
use crate::storage::{Backend, Durability, Range, Space, WriteBatch};

/// The state of a core that was signed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many blocks.
    pub length: Length,
    /// How often history was rewritten.
    pub fork: Fork,
    /// The tree hash: the hash over the roots.
    pub root_hash: Hash,
    /// The signature over tree hash, length and fork, in the form that is sent to peers. Empty while the
    /// core is empty, and where a prologue stands for it.
    pub signature: Bytes,
    /// How many bytes all blocks have, as they are stored.
    pub byte_length: u64,
}

/// One signed log. Made by [`crate::corestore::Store`], shared by all who use it.
pub struct Core {
    id: CoreId,
    key: CoreKey,
    discovery_key: DiscoveryKey,
    /// `None` until the manifest of a core that was opened by its key is known.
    verifier: RwLock<Option<Arc<Verifier>>>,
    /// Present if this core can be written here.
    pair: Option<KeyPair>,
    encryption: Option<EncryptionKey>,
    /// Made when the first block is encrypted or decrypted, for how depends on the manifest.
    cipher: OnceLock<BlockCipher>,
    backend: Arc<dyn Backend>,
    published: RwLock<Published>,
    /// The published length and fork once more, for readers. The length shrinks only with a new fork.
    length: AtomicU64,
    fork: AtomicU64,
    /// How much of the core may be shown to peers.
    durable: AtomicU64,
    writer: WriterLock,
    /// Nodes that were read or verified last.
    nodes: NodeCache,
    /// Raised before and after a history is replaced: odd meanwhile.
    rewrites: AtomicU64,
    /// How many intakes there were.
    intakes: AtomicU64,
    frozen: RwLock<Option<Conflict>>,
    watch: Arc<Watch>,
    wants: Arc<Wants>,
    extensions: Extensions,
}

struct Published {
    head: Head,
    roots: Roots,
    held: Bitfield,
    /// What may be shown to peers; nothing after a truncation that is not durable yet.
    shown: Option<Arc<Shown>>,
    /// Which histories were replaced since the core was opened: the fork of each, and the first block that was replaced. A later
    /// one that reaches further back takes the place of those before it.
    rewrites: Vec<(Fork, Length)>,
}

/// A head that survives a crash, with its roots.
struct Shown {
    head: Head,
    roots: Roots,
}

/// What is published as one.
struct State {
    head: Head,
    roots: Roots,
    held: Bitfield,
}

impl Core {
    /// Open a core from its record. The store makes sure that it is open only once.
    ///
    /// Reads the head, its roots (O(log length)) and the last block, whatever the length.
    pub(crate) fn open(backend: Arc<dyn Backend>, id: CoreId, record: &CoreRecord) -> Result<Core> {
        let key = record.key;
        let verifier = match &record.manifest {
            Some(manifest) => Some(Arc::new(Verifier::new(key, Manifest::decode(manifest)?)?)),
            None => None,
        };
        let opened = Opened::read(&*backend, id, key, verifier.as_deref()).map_err(|error| name(error, key, None))?;
        let Opened { roots, head, held, has_tail } = opened;
        let position = Position { fork: head.fork, length: head.length };
        let frozen = Conflict::read_from(&*backend, id).map_err(|error| name(error, key, None))?;
        let shown = Some(Arc::new(Shown { head: head.clone(), roots: roots.clone() }));
        let core = Core {
            id,
            key,
            discovery_key: key.discovery_key(),
            verifier: RwLock::new(verifier),
            pair: record.seed.as_ref().map(KeyPair::from_seed),
            encryption: record.encryption.clone(),
            cipher: OnceLock::new(),
            backend,
            length: AtomicU64::new(head.length.0),
            fork: AtomicU64::new(head.fork.0),
            durable: AtomicU64::new(head.length.0),
            published: RwLock::new(Published { head, roots: roots.clone(), held, shown, rewrites: Vec::new() }),
            writer: WriterLock::new(roots, has_tail),
            nodes: NodeCache::default(),
            rewrites: AtomicU64::new(0),
            intakes: AtomicU64::new(0),
            frozen: RwLock::new(frozen),
            watch: Watch::new(position),
            wants: Arc::default(),
            extensions: Extensions::default(),
        };
        // The last append is the likeliest to be damaged, and a bee's newest root is in its last block.
        if let Some(last) = core.len().last()
            && core.has(last)
        {
            core.get(last)?;
        }
        Ok(core)
    }

    /// What readers are given: blocks are verified against it.
    pub fn key(&self) -> CoreKey {
        self.key
    }

    /// What peers find the core by.
    pub fn discovery_key(&self) -> DiscoveryKey {
        self.discovery_key
    }

    /// Who may sign, if that is known here yet.
    pub fn manifest(&self) -> Option<Manifest> {
        Some(self.verifier()?.manifest().clone())
    }

    /// What checks signatures of this core, if its manifest is known here yet.
    pub fn verifier(&self) -> Option<Arc<Verifier>> {
        self.verifier.read().clone()
    }

    /// Take in the manifest a peer sent. Nothing happens if one is known.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidManifest`] unless it belongs to this core's key; [`Error::Storage`].
    pub fn learn_manifest(&self, manifest: Manifest) -> Result<()> {
        if self.verifier.read().is_some() {
            return Ok(());
        }
        let verifier = Verifier::new(self.key, manifest)?;
        let mut batch = WriteBatch::new();
        self.put_manifest(&mut batch, &verifier)?;
        // Not under the lock, for readers would wait for the disk. Two who learn at a time write the same:
        // one key has one manifest.
        self.backend.write(batch, Durability::Sync)?;
        self.verifier.write().get_or_insert_with(|| Arc::new(verifier));
        Ok(())
    }

    /// Whether appends can be signed here.
    pub fn is_writable(&self) -> bool {
        match (&self.pair, self.verifier()) {
            (Some(pair), Some(verifier)) => verifier.can_sign(pair.public_key()),
            _ => false,
        }
    }

    /// The published head.
    pub fn head(&self) -> Head {
        self.published.read().head.clone()
    }

    /// How many blocks there are: one atomic load.
    pub fn len(&self) -> Length {
        Length(self.length.load(Ordering::Acquire))
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.len() == Length(0)
    }

    /// How often history was rewritten: one atomic load.
    pub fn fork(&self) -> Fork {
        Fork(self.fork.load(Ordering::Acquire))
    }

    /// How many blocks may be shown to peers: those of our own appends that survive a crash of the machine, and all that came from
    /// peers. Behind [`len`](Core::len) while appends are not synced: after a crash the writer would sign something else at
    /// the same length, which to peers is a conflict. 0 while a truncation is not synced.
    pub fn durable_len(&self) -> Length {
        Length(self.durable.load(Ordering::Acquire))
    }

    /// Make all appends so far durable.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn sync(&self) -> Result<()> {
        let synced = {
            let published = self.published.read();
            Shown { head: published.head.clone(), roots: published.roots.clone() }
        };
        self.backend.sync()?;
        let mut published = self.published.write();
        let is_newer = match &published.shown {
            Some(shown) => synced.head.length > shown.head.length,
            None => true,
        };
        // What was rewritten meanwhile must not come back.
        if is_newer && synced.head.fork == published.head.fork {
            self.show(&mut published, synced);
        }
        Ok(())
    }

    /// Whether this block is stored here. Every block below the length is, but on a sparse replica.
    pub fn has(&self, block: BlockIndex) -> bool {
        self.published.read().held.get(block)
    }

    /// The first block that is not stored here.
    pub fn contiguous_len(&self) -> Length {
        self.published.read().held.contiguous()
    }

    /// How many blocks are stored here.
    pub fn held_blocks(&self) -> u64 {
        let published = self.published.read();
        published.held.count(BlockIndex(0)..BlockIndex(published.head.length.0))
    }

    /// What is held from `start` on, as words of the bitfield: bit `i` of word `w` is block `start + 32 w + i`. `start` is rounded
    /// down to a multiple of 32.
    pub fn bitfield_words(&self, start: BlockIndex, words: usize) -> Vec<u32> {
        self.published.read().held.words(start, words)
    }

    /// The first block from here on that is not stored here, beyond the length at the latest.
    pub fn first_missing(&self, from: BlockIndex) -> BlockIndex {
        self.published.read().held.first_unset(from)
    }

    /// The store below.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Where to wait for the core to grow.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Which blocks someone waits for.
    pub fn wants(&self) -> &Arc<Wants> {
        &self.wants
    }

    /// Messages that ride on the core's channel.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// A block.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] beyond the length; [`Error::MissingBlock`] if it is not stored here;
    /// `Corrupt`, naming core and block, if what is stored does not match its checksum.
    pub fn get(&self, index: BlockIndex) -> Result<Bytes> {
        self.plain(index, self.get_stored(index)?)
    }

    /// A block as it is stored, hashed and sent: of an encrypted core, ciphertext.
    ///
    /// # Errors
    ///
    /// As [`get`](Core::get).
    pub fn get_stored(&self, index: BlockIndex) -> Result<Bytes> {
        self.check_bounds(index, 1)?;
        self.read(index)
    }

    /// Show peers a head that is durable.
    fn show(&self, published: &mut Published, shown: Shown) {
        self.durable.store(shown.head.length.0, Ordering::Release);
        published.shown = Some(Arc::new(shown));
    }

    /// What is in the store now: let readers see it, and peers if it may be shown.
    fn publish(&self, state: State, is_shown: bool) {
        let position = self.replace_state(state, is_shown);
        self.watch.publish(position);
    }

    /// As [`publish`](Core::publish), but nobody is told yet.
    fn replace_state(&self, state: State, is_shown: bool) -> Position {
        let State { head, roots, held } = state;
        let position = Position { fork: head.fork, length: head.length };
        {
            let mut published = self.published.write();
            if is_shown {
                self.show(&mut published, Shown { head: head.clone(), roots: roots.clone() });
            } else if head.fork != published.head.fork {
                published.shown = None;
                self.durable.store(0, Ordering::Release);
            }
            published.held = held;
            published.roots = roots;
            self.length.store(head.length.0, Ordering::Release);
            self.fork.store(head.fork.0, Ordering::Release);
            published.head = head;
        }
        position
    }

    /// After a failed write: find out what is in the store, if that can be read now. Else whoever writes next does.
    fn look_again(&self, writer: &mut Writer) {
        if let Err(error) = self.refresh(writer) {
            tracing::warn!(core = %self.key, %error, "after a failed write the store could not be read yet");
        }
    }

    /// Find out what is in the store, where a failed write left that open.
    fn refresh(&self, writer: &mut Writer) -> Result<()> {
        if !writer.is_stale {
            return Ok(());
        }
        self.backend.sync()?;
        let verifier = self.verifier();
        let opened = Opened::read(&*self.backend, self.id, self.key, verifier.as_deref());
        let Opened { roots, head, held, has_tail } = opened.map_err(|error| name(error, self.key, None))?;
        let before = self.head();
        if before.fork != head.fork {
            // How far back is not known.
            self.note_rewrite(Length(0));
        }
        self.nodes.forget();
        self.publish(State { head, roots: roots.clone(), held }, true);
        *writer = Writer { roots, has_tail, is_stale: false };
        Ok(())
    }

    /// What the blocks are encrypted with, if they are and it is known here.
    pub fn encryption_key(&self) -> Option<&EncryptionKey> {
        self.encryption.as_ref()
    }

    fn cipher(&self) -> Option<&BlockCipher> {
        let encryption = self.encryption.as_ref()?;
        // Where there is a block but no manifest, the key itself has signed it.
        let is_compat = || self.verifier().is_none_or(|verifier| verifier.is_compat());
        Some(self.cipher.get_or_init(|| BlockCipher::new(encryption, self.key, is_compat())))
    }

    /// A block as it is read, from how it is stored.
    fn plain(&self, index: BlockIndex, stored: Bytes) -> Result<Bytes> {
        let Some(cipher) = self.cipher() else {
            return Ok(stored);
        };
        let plain = cipher.decrypt(index, &stored);
        plain.ok_or_else(|| name(Error::corrupt("it is too short to be encrypted"), self.key, Some(index)))
    }

    fn plain_all(&self, first: BlockIndex, stored: Vec<Bytes>) -> Result<Vec<Bytes>> {
        if self.encryption.is_none() {
            return Ok(stored);
        }
        stored.into_iter().zip(first.0..).map(|(block, index)| self.plain(BlockIndex(index), block)).collect()
    }

    /// Consecutive blocks, all of them, by one sequential read.
    ///
    /// # Errors
    ///
    /// As [`get`](Core::get), for the first block that cannot be had.
    pub fn get_range(&self, first: BlockIndex, count: usize) -> Result<Vec<Bytes>> {
        self.check_bounds(first, count as u64)?;
        let (blocks, error) = self.read_range(first, count, usize::MAX);
        error.map_or_else(|| self.plain_all(first, blocks), Err)
    }

    /// A Merkle node, if it is stored here and covers no block beyond the length.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the stored nodes are damaged.
    pub fn node(&self, index: NodeIndex) -> Result<Option<TreeNode>> {
        if !tree::is_below(index, self.len()) {
            return Ok(None);
        }
        tree::read_node(&*self.backend, self.id, index).map_err(|error| name(error, self.key, None))
    }

    fn check_bounds(&self, first: BlockIndex, count: u64) -> Result<()> {
        let length = self.len();
        match first.0.checked_add(count) {
            Some(end) if end <= length.0 => Ok(()),
            _ => {
                let block = first.0.max(length.0);
                Err(Error::Invalid(format!("block {block} is beyond the core's length of {length}")))
            }
        }
    }

    /// A block as it is stored, whatever the published length.
    fn read(&self, index: BlockIndex) -> Result<Bytes> {
        let at = key::block(self.id, index);
        let corrupt = |error| name(error, self.key, Some(index));
        match self.backend.get(Space::Block, &at).map_err(corrupt)? {
            Some(value) => record::unseal(&at, value).map_err(|what| corrupt(Error::corrupt(what))),
            None => Err(self.absent(index)),
        }
    }

    /// As many blocks, as they are stored, from `first` on as can be had, and why it is not `count`; fewer without an error where
    /// the last of them reaches so many bytes.
    fn read_range(&self, first: BlockIndex, count: usize, bytes_max: usize) -> (Vec<Bytes>, Option<Error>) {
        let mut blocks: Vec<Bytes> = Vec::with_capacity(count.min(4096));
        let mut bytes = 0;
        // An iterator costs more than two point reads.
        if count > 2 {
            let range = key::blocks(self.id, first, count as u64);
            let mut next = first;
            for entry in self.backend.scan(Space::Block, range, false) {
                let corrupt = |error| name(error, self.key, Some(next));
                let block = entry.and_then(|(at, value)| match key::block_index(&at) {
                    Some(index) if index == next => record::unseal(&at, value).map_err(Error::corrupt),
                    _ => Err(self.absent(next)),
                });
                match block.map_err(corrupt) {
                    Ok(block) => {
                        bytes += block.len();
                        blocks.push(block);
                    }
                    Err(error) => return (blocks, Some(error)),
                }
                if bytes >= bytes_max {
                    break;
                }
                next = next.next();
            }
        }
        while blocks.len() < count && bytes < bytes_max {
            match self.read(BlockIndex(first.0 + blocks.len() as u64)) {
                Ok(block) => {
                    bytes += block.len();
                    blocks.push(block);
                }
                Err(error) => return (blocks, Some(error)),
            }
        }
        (blocks, None)
    }

    /// Why a block below the length is not in the store.
    fn absent(&self, index: BlockIndex) -> Error {
        if self.has(index) {
            name(Error::corrupt("it is gone from the store"), self.key, Some(index))
        } else {
            Error::MissingBlock(index)
        }
    }
}

impl BlockSource for Core {
    fn block(&self, index: BlockIndex) -> Result<Bytes> {
        self.get(index)
    }

    fn blocks(&self, first: BlockIndex, count: usize) -> Result<Vec<Bytes>> {
        self.check_bounds(first, 1)?;
        let count = count.min((self.len().0 - first.0) as usize);
        match self.read_range(first, count, READ_BYTES_MAX) {
            (blocks, Some(error)) if blocks.is_empty() => Err(error),
            (blocks, _) => self.plain_all(first, blocks),
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Core({}, {} blocks)", self.key, self.len())
    }
}

/// Put the name of the core, and of the block if there is one, into an error that lacks them.
fn name(error: Error, of: CoreKey, at: Option<BlockIndex>) -> Error {
    match error {
        Error::Corrupt { core, block, what } => Error::Corrupt { core: core.or(Some(of)), block: block.or(at), what },
        other => other,
    }
}

/// A core as it was found in the store.
struct Opened {
    roots: Roots,
    head: Head,
    held: Bitfield,
    /// Whether blocks or nodes lie beyond the head: what a stage or a failed write left behind.
    has_tail: bool,
}

impl Opened {
    fn read(backend: &dyn Backend, id: CoreId, key: CoreKey, verifier: Option<&Verifier>) -> Result<Opened> {
        let at = MetaKey::Head(id).encode();
        let Some(stored) = backend.get(Space::Meta, &at)? else {
            let has_tail = has_tail(backend, id, Length(0))?;
            let (roots, held) = (Roots::new(), Bitfield::default());
            let head = Head::of(&roots, Fork(0), Bytes::new());
            return Ok(Opened { roots, head, held, has_tail });
        };
        let stored: HeadRecord = record::decode(&at, stored)?;
        let mut nodes = Vec::new();
        for index in crate::flat_tree::full_roots(stored.length) {
            let node = tree::read_node(backend, id, index)?;
            nodes.push(node.ok_or_else(|| Error::corrupt(format!("Merkle root {index} is gone")))?);
        }
        let roots =
            Roots::from_nodes(stored.length, nodes).ok_or_else(|| Error::corrupt("the stored roots cannot be"))?;
        if roots.hash() != stored.tree_hash || roots.byte_length() != stored.byte_length {
            return Err(Error::corrupt("the stored roots do not match the head"));
        }
        let compat = Verifier::compat(key);
        verifier
            .unwrap_or(&compat)
            .verify(&roots, stored.fork, &stored.signature)
            .map_err(|_| Error::corrupt("the head's signature is not valid"))?;

        let mut held = Bitfield::full(stored.contiguous.min(stored.length));
        for entry in backend.scan(Space::Meta, MetaKey::all_pages(id), false) {
            let (at, value) = entry?;
            let page = at.split_last_chunk().map(|(_, page)| u32::from_be_bytes(*page));
            let bytes = record::unseal(&at, value).map_err(Error::corrupt)?;
            if !page.is_some_and(|page| held.load_page(page.into(), &bytes)) {
                return Err(Error::corrupt("a bitfield page has an impossible size"));
            }
        }
        // A page may be ahead of a head that was put back. What is cut off here is cut off in the store by the next commit, which
        // writes the pages that have changed.
        held.truncate(stored.length);
        let has_tail = has_tail(backend, id, stored.length)?;
        let head = Head::of(&roots, stored.fork, stored.signature);
        Ok(Opened { roots, head, held, has_tail })
    }
}

impl Head {
    fn of(roots: &Roots, fork: Fork, signature: Bytes) -> Head {
        Head { length: roots.length(), fork, root_hash: roots.hash(), signature, byte_length: roots.byte_length() }
    }

    /// As it is stored by who holds so many blocks without a hole.
    fn record(&self, contiguous: Length) -> HeadRecord {
        HeadRecord {
            fork: self.fork,
            length: self.length,
            byte_length: self.byte_length,
            contiguous: contiguous.min(self.length),
            tree_hash: self.root_hash,
            signature: self.signature.clone(),
        }
    }
}

fn has_tail(backend: &dyn Backend, id: CoreId, length: Length) -> Result<bool> {
    let first = BlockIndex(length.0);
    let singles = Range::new(key::nodes_from(id, first), key::nodes_end(id));
    let beyond = key::blocks_from(id, first);
    for (space, beyond) in [(Space::Block, beyond.clone()), (Space::Tree, beyond), (Space::Tree, singles)] {
        if let Some(entry) = backend.scan(space, beyond, false).next() {
            entry?;
            return Ok(true);
        }
    }
    Ok(false)
}
