//! Transactions over a bee: who sees what, who wins, and how a commit becomes a version.
//!
//! A bee keeps every version of itself, so reading needs nothing from this module but a version to read
//! at: a [`Snapshot`] takes no lock, waits for nobody and holds nothing back. A [`Transaction`] is a
//! snapshot and a private set of writes laid over it. Committing hands the writes to a queue, which adds
//! them to the log as a whole, or refuses them.
//!
//! ```text
//! versions (time goes right)   ----- 9 ----------- 14 ---------- 20 ------- 23 ----->
//!                                    |              |             ^          ^
//! T1  begin, reads version 9         +--- put a ----|--- commit --+          |
//! T2  begins a little later                         +--- put b ---- commit --+   other keys: both win
//! T3  begin, reads version 9         +--- put a ----------------- commit: Conflict, a changed at 20
//! a reader at version 9              +--- sees 9, whatever is committed, for as long as it likes
//! ```
//!
//! **What a transaction sees.** Its base snapshot, and its own writes in layers above ([`ReadView`]). A
//! statement reads through a view taken at its start, so it never meets its own writes; a savepoint or a
//! failing statement drops the layers above it. Who wants READ COMMITTED gives the transaction a newer
//! snapshot for every statement ([`Transaction::refresh`]); who keeps the first has REPEATABLE READ.
//!
//! **Who wins.** The first to commit. Every write remembers the version it was based on; if its key changed
//! after that, the commit fails with [`Error::Conflict`] and nothing of it happened. So updates are never
//! lost. What a snapshot alone allows is write skew: two transactions read the same things and write
//! different ones. Who wants SERIALIZABLE has what it reads remembered ([`Reads`], [`Transaction::record`]), points, ranges
//! and what was not there, and that is checked in the same way; then transactions are as if they had run one after the other in the
//! order of their versions, so every version, read later or on a replica, is one that a serial order passes through. PostgreSQL looks for
//! circles of dependencies instead and so lets more pass, but its order is not the order of its log.
//!
//! Row locks, which make writers wait instead of failing, are the SQL layer's. What it writes under one is not checked
//! ([`Transaction::put_guarded`]): nobody else could.
//!
//! **How a commit becomes a version.** One bee batch: the keys in ascending order, then the reserved key 06,
//! the commit record ([`CommitRecord`]), which says when, by whom, and where the commits before it are. A
//! length of the log is a version exactly when its last block writes that key. Many that commit at once
//! share an append, a signature and an fsync; each is still a version of its own.
//!
//! What must stay true:
//!
//! * what was acknowledged is found again after any crash, what was not is there as a whole or not at all;
//! * a committed version never changes, and there is no way to read one in the middle of a commit;
//! * commit times rise strictly, so a time means one version;
//! * memory is bounded by [`Options`], whatever a transaction writes: large write sets go to disk, large
//!   commits are staged beyond the head;
//! * no clock is read: the time of a commit is an argument.
//!
//! The files, in reading order:
//!
//! ```text
//! testscripts/  short stories of transactions and what they see
//! snapshot      one version            view         a version under uncommitted writes
//! transaction   what a session holds   writes       its layers; chunk, spill: what they consist of
//! database      what all share         queue        who leads, who waits
//! commit        writes to blocks       conflict     who may commit
//! record        the commit record      log, history from versions and times to commits and back
//! ```
//!
//! [`Error::Conflict`]: crate::Error::Conflict

mod chunk;
mod commit;
mod conflict;
mod database;
mod history;
mod log;
mod news;
mod queue;
mod reads;
mod record;
#[cfg(test)]
mod scripts;
mod snapshot;
mod spill;
mod transaction;
mod view;
mod writes;

pub use commit::CommitInfo;
pub use database::{Database, Options};
pub use history::{Commits, History, HistoryItem, HistoryStep};
pub use news::Subscription;
pub use reads::Reads;
pub use record::{CommitRecord, KEY as COMMIT_RECORD_KEY};
pub use snapshot::{Scan, Snapshot};
pub use transaction::{ENTRY_BYTES_MAX, Transaction};
pub use view::{ReadView, ViewScan};
