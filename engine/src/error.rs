//! What can go wrong in the engine, sorted by what the caller does next.
//!
//! * run the transaction again: [`Error::Conflict`], [`Error::ReadConflict`];
//! * wait for a peer, then call again: [`Error::MissingBlock`];
//! * tell the user what was wrong with the request: [`Error::NotAVersion`], [`Error::Invalid`],
//!   [`Error::NotWritable`], [`Error::InvalidManifest`];
//! * refuse what a peer sent: [`Error::InvalidSignature`], [`Error::InvalidProof`];
//! * give the statement up: [`Error::GaveUp`];
//! * stop using the core or the store: [`Error::Corrupt`], [`Error::Storage`];
//! * do not start: [`Error::Locked`], [`Error::FormatVersion`].
//!
//! Errors are `Clone`, for one failed append is reported to every transaction of its group.

use crate::crypto::key::CoreKey;
use crate::position::{BlockIndex, Version};

/// The engine's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in the engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another transaction changed something this one wrote or relied on. Roll back and run it again.
    #[error("a key used here changed after version {base}")]
    Conflict {
        /// The version the transaction had based its decision on.
        base: Version,
    },
    /// Another transaction changed something this one, which is serializable, has read. Roll back and run it again.
    #[error("something read here changed after version {base}")]
    ReadConflict {
        /// The version it was read at.
        base: Version,
    },
    /// A replica does not hold this block yet. Wait for a peer to send it, then read on.
    #[error("block {0} is not stored here")]
    MissingBlock(BlockIndex),
    /// Stored bytes break the format or do not match their hash. Stop using the core; other copies of
    /// it may be sound.
    #[error("{}corrupt: {what}", place(core, block))]
    Corrupt {
        /// The core, when the bytes belong to one.
        core: Option<CoreKey>,
        /// The block, when one can be named.
        block: Option<BlockIndex>,
        /// What was found, for a person.
        what: String,
    },
    /// The disk failed or is full. Nothing of the batch at hand became visible.
    #[error("storage: {0}")]
    Storage(#[from] StorageError),
    /// No commit ended at this length, or it lies outside of what is stored.
    #[error("{asked} is not a version; versions go from {oldest} to {newest}")]
    NotAVersion {
        /// What was asked for.
        asked: Version,
        /// The oldest version that can be read.
        oldest: Version,
        /// The newest version that can be read.
        newest: Version,
    },
    /// A manifest that no core can have, or that does not belong to the key it came with.
    #[error("invalid manifest: {0}")]
    InvalidManifest(String),
    /// A signature that does not prove what it came with.
    #[error("invalid signature")]
    InvalidSignature,
    /// What a peer sent does not prove what it should. Nothing of it was kept.
    #[error("invalid proof: {0}")]
    InvalidProof(String),
    /// Whoever waited for a missing block has stopped waiting, for a reason that it keeps (a cancel, a timeout, no peer that has it).
    #[error("gave up waiting for block {0}")]
    GaveUp(BlockIndex),
    /// The writer signed two different histories: nothing more is taken from or given to peers of this core.
    #[error("core {0} is frozen: its writer signed two histories")]
    Frozen(CoreKey),
    /// The writer replaced the history that this block belonged to. Read again at the new head.
    #[error("block {0} belongs to a history that was replaced")]
    Rewritten(BlockIndex),
    /// The core can only be read here: its secret key is elsewhere.
    #[error("this core is not writable here")]
    NotWritable,
    /// A request that makes no sense, whatever is stored.
    #[error("{0}")]
    Invalid(String),
    /// Another process uses the store's directory.
    #[error("{0}")]
    Locked(String),
    /// The store was written by another, incompatible version of pgbee.
    #[error("the store has format {found}; this pgbee reads and writes format {supported}")]
    FormatVersion {
        /// The format found on disk.
        found: u64,
        /// The one format this build supports.
        supported: u64,
    },
}

impl Error {
    /// [`Error::Corrupt`] with neither core nor block known.
    pub fn corrupt(what: impl Into<String>) -> Error {
        Error::Corrupt { core: None, block: None, what: what.into() }
    }

    /// [`Error::Invalid`] from anything that reads as text.
    pub fn invalid(what: impl Into<String>) -> Error {
        Error::Invalid(what.into())
    }
}

fn place(core: &Option<CoreKey>, block: &Option<BlockIndex>) -> String {
    match (core, block) {
        (Some(core), Some(block)) => format!("block {block} of core {core} is "),
        (Some(core), None) => format!("core {core} is "),
        (None, Some(block)) => format!("block {block} is "),
        (None, None) => String::new(),
    }
}

/// What the storage layer met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StorageError {
    /// For a person: the store's own words.
    pub message: String,
    /// For the program.
    pub kind: StorageErrorKind,
}

/// Kinds of storage failure that callers treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageErrorKind {
    /// The disk or the file system failed.
    Io,
    /// The disk or the quota is full: the same write may succeed once there is room.
    NoSpace,
    /// A fault made by a test.
    Injected,
    /// Anything else the store reports.
    Other,
}
