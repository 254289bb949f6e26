//! pgbee's engine: signed logs, the trees inside them, and transactions over those.
//!
//! The crate knows bytes, keys, versions and blocks. It knows no SQL, no socket, no clock (time is an
//! argument) and no async runtime, and it starts no thread of its own. A block that is not stored here
//! is an error value, [`Error::MissingBlock`], which the caller waits out and tries again.
//!
//! Modules in reading order. Each uses only those above it; but `error` names cores by their keys, which are
//! in `crypto`.
//!
//! ```text
//! position    what a number counts: block, node, length, fork, version
//! error       what can go wrong, sorted by what the caller does next
//! encoding    compact-encoding and protobuf: the bytes of the JavaScript stack; the order of bytes
//! flat_tree   arithmetic of the numbering of Merkle nodes
//! crypto      hashes, Merkle trees, keys, manifests: who may sign a log and what exactly is signed
//! storage     one ordered, atomic, crash-safe key-value store for all logs (RocksDB, memory, faulty)
//! hypercore   one signed, append-only log of blocks
//! corestore   many logs under one primary key, each opened once
//! bee         a B-tree inside a log: every commit a readable version
//! txn         isolation, conflicts and the commit queue over a bee
//! ```
//!
//! What must stay true is in `README.md` beside this crate; why it is so, in `decisions/`.

pub mod bee;
pub mod corestore;
pub mod crypto;
pub mod encoding;
pub mod error;
pub mod flat_tree;
pub mod hypercore;
pub mod position;
pub mod storage;
pub mod txn;

pub use crypto::key::{CoreKey, DiscoveryKey};
pub use error::{Error, Result, StorageError, StorageErrorKind};
pub use position::{BlockIndex, Fork, Length, NodeIndex, Version};
