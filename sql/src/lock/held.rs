//! What one session holds, in the order it got it.
//!
//! ```text
//! fast       a few tables in weak modes, known to nobody else until somebody wants one of them in a strong mode
//! keys       rows and unique keys: a hash each, with the mode held before if it was a weaker one
//! tables     tables and modes;  advisory  keys, and how often each mode is held, by the session and by the transaction
//! ```
//!
//! The lists say what to release, and in what order savepoints came: what was got after a [`Mark`] is taken back to what it was, newest first.
//! Bytes beyond [`UNRESERVED`] are reserved in the server's account of memory.
//!
//! What must stay true: who holds a session's lock here may then lock a part of the shards, never the queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::mode::{TABLE_CONFLICTS, bit};
use super::{AdvisoryKey, Mark, Modes, Owner, TableMode};
use crate::error::Result;
use crate::functions::context::CancelFlag;
use crate::memory::{Account, Reservation};

/// Tables on the fast path of one session, as many as PostgreSQL has.
pub(super) const FAST_MAX: usize = 16;
/// What a session's locks take that is not reserved.
const UNRESERVED: usize = 16 << 10;
/// Bytes of a row's or a unique key's lock: its entry in the shards, which are between half and seven eighths full, and eight here.
pub(super) const KEY_BYTES: usize = 40;
/// What such a lock takes more when others hold it, too.
pub(super) const SHARED_BYTES: usize = 120;
/// Bytes of a table's lock.
const TABLE_BYTES: usize = 128;
/// Bytes of an advisory lock.
const ADVISORY_BYTES: usize = 192;

/// A session, to others.
pub(super) struct Member {
    pub owner: Owner,
    pub pid: i32,
    /// Where it sleeps.
    pub cancel: Arc<CancelFlag>,
    /// What it waited for is granted. Set under the queues' lock.
    pub is_granted: AtomicBool,
    /// Number of its transaction.
    pub transaction: AtomicU64,
    /// Transactions it has had.
    pub local: AtomicU32,
    pub in_transaction: AtomicBool,
    /// The transaction has locked what only writers lock: PostgreSQL would have given it a number by now.
    pub is_writer: AtomicBool,
    pub held: Mutex<Held>,
}

impl Member {
    pub fn new(owner: Owner, pid: i32, cancel: Arc<CancelFlag>, memory: &Arc<Account>) -> Member {
        Member {
            owner,
            pid,
            cancel,
            is_granted: AtomicBool::new(false),
            transaction: AtomicU64::new(0),
            local: AtomicU32::new(0),
            in_transaction: AtomicBool::new(false),
            is_writer: AtomicBool::new(false),
            held: Mutex::new(Held::new(memory)),
        }
    }
    /// Its transaction as pg_locks shows it.
    pub fn virtual_transaction(&self) -> String {
        virtual_transaction(self.owner, self.local.load(Ordering::Relaxed))
    }
}

/// A session's transaction as pg_locks shows it.
pub(super) fn virtual_transaction(owner: Owner, local: u32) -> String {
    format!("{}/{local}", owner + 1)
}

/// A table on the fast path.
#[derive(Clone, Copy, Default)]
pub(super) struct Fast {
    pub table: u32,
    /// None: the place is free.
    pub modes: Modes,
}

/// How often an advisory lock is held: shared and exclusive.
#[derive(Clone, Copy, Default)]
pub(super) struct Advisory {
    pub by_session: [u32; 2],
    pub by_transaction: [u32; 2],
}

impl Advisory {
    pub fn count(&self, exclusive: bool) -> u32 {
        self.by_session[usize::from(exclusive)] + self.by_transaction[usize::from(exclusive)]
    }
    fn is_free(&self) -> bool {
        self.count(false) + self.count(true) == 0
    }
}

/// All that a session holds.
pub(super) struct Held {
    pub fast: [Fast; FAST_MAX],
    /// [`super::shards::KeyId::with_note`] of the mode held before.
    pub keys: Vec<u64>,
    pub tables: FxHashMap<u32, Modes>,
    pub table_log: Vec<(u32, TableMode)>,
    pub advisory: FxHashMap<AdvisoryKey, Advisory>,
    /// Those of the transaction; true: exclusive.
    pub advisory_log: Vec<(AdvisoryKey, bool)>,
    /// The number of the transaction, if somebody waits for its end: then it holds itself, as [`super::shards::Object::Virtual`].
    pub awaited: Option<u32>,
    /// How many of the keys were shared with others when they were got.
    shared: usize,
    memory: Reservation,
}

impl Held {
    fn new(memory: &Arc<Account>) -> Held {
        Held {
            fast: [Fast::default(); FAST_MAX],
            keys: Vec::new(),
            tables: FxHashMap::default(),
            table_log: Vec::new(),
            advisory: FxHashMap::default(),
            advisory_log: Vec::new(),
            awaited: None,
            shared: 0,
            memory: memory.reservation("A transaction's locks"),
        }
    }
    /// Where it stands.
    pub fn mark(&self) -> Mark {
        let (keys, tables, advisory) = (self.keys.len(), self.table_log.len(), self.advisory_log.len());
        Mark { keys, tables, advisory, shared: self.shared }
    }
    /// Whether nothing of a transaction is held.
    pub fn is_idle(&self) -> bool {
        self.keys.is_empty() && self.table_log.is_empty() && self.advisory_log.is_empty()
    }

    /// Notes a key's lock.
    pub fn push_key(&mut self, noted: u64, shared: bool) -> Result<()> {
        self.shared += usize::from(shared);
        self.keys.push(noted);
        self.reserve().inspect_err(|_| {
            self.keys.pop();
            self.shared -= usize::from(shared);
        })
    }
    /// Takes out the keys since a mark.
    pub fn take_keys(&mut self, mark: Mark) -> Vec<u64> {
        self.shared = self.shared.min(mark.shared);
        match mark.keys {
            0 => std::mem::take(&mut self.keys),
            at => self.keys.split_off(at.min(self.keys.len())),
        }
    }
    /// Gives a list's memory back for the next transaction.
    pub fn reuse(&mut self, mut keys: Vec<u64>) {
        if self.keys.capacity() == 0 && keys.capacity() * size_of::<u64>() <= UNRESERVED {
            keys.clear();
            self.keys = keys;
        }
    }

    /// Whether a table is held in a mode, or one that keeps out all whom it would.
    pub fn covers(&self, table: u32, mode: TableMode) -> bool {
        let Some(held) = self.tables.get(&table) else { return false };
        let wanted = TABLE_CONFLICTS[mode as usize];
        held & bit(mode as u8) != 0
            || TableMode::ALL.iter().any(|m| held & bit(*m as u8) != 0 && wanted & !TABLE_CONFLICTS[*m as usize] == 0)
    }
    /// Puts a table on the fast path, if there is a place.
    pub fn take_fast(&mut self, table: u32, mode: TableMode) -> bool {
        let mut free = None;
        for (at, fast) in self.fast.iter_mut().enumerate() {
            if fast.modes == 0 {
                free = free.or(Some(at));
            } else if fast.table == table {
                fast.modes |= bit(mode as u8);
                return true;
            }
        }
        let Some(at) = free else { return false };
        self.fast[at] = Fast { table, modes: bit(mode as u8) };
        true
    }
    /// Takes a mode of a table off the fast path; false if it is not there.
    fn drop_fast(&mut self, table: u32, mode: TableMode) -> bool {
        let mode = bit(mode as u8);
        match self.fast.iter_mut().find(|f| f.table == table && f.modes & mode != 0) {
            Some(fast) => {
                fast.modes &= !mode;
                true
            }
            None => false,
        }
    }
    /// Notes a table's lock; if there is no memory for it, takes it off the fast path again.
    pub fn push_table(&mut self, table: u32, mode: TableMode) -> Result<()> {
        let before = self.mark();
        *self.tables.entry(table).or_default() |= bit(mode as u8);
        self.table_log.push((table, mode));
        self.reserve().inspect_err(|_| {
            self.pop_table(before);
        })
    }
    /// Takes out the newest of the tables since a mark, and says whether others know of it.
    pub fn pop_table(&mut self, mark: Mark) -> Option<(u32, TableMode, bool)> {
        if self.table_log.len() <= mark.tables {
            return None;
        }
        let (table, mode) = self.table_log.pop()?;
        if let Some(modes) = self.tables.get_mut(&table) {
            *modes &= !bit(mode as u8);
            if *modes == 0 {
                self.tables.remove(&table);
            }
        }
        let is_shared = !self.drop_fast(table, mode);
        Some((table, mode, is_shared))
    }

    /// Counts one more of an advisory lock.
    pub fn push_advisory(&mut self, key: AdvisoryKey, exclusive: bool, by_session: bool) -> Result<()> {
        let counts = self.advisory.entry(key).or_default();
        if by_session {
            counts.by_session[usize::from(exclusive)] += 1;
        } else {
            counts.by_transaction[usize::from(exclusive)] += 1;
            self.advisory_log.push((key, exclusive));
        }
        self.reserve()
    }
    /// Counts one less; the modes nobody holds any more, or None if it was not held that way.
    pub fn drop_advisory(&mut self, key: AdvisoryKey, exclusive: bool, by_session: bool) -> Option<Modes> {
        let counts = self.advisory.get_mut(&key)?;
        let of = if by_session { &mut counts.by_session } else { &mut counts.by_transaction };
        let count = &mut of[usize::from(exclusive)];
        *count = count.checked_sub(1)?;
        let gone = if counts.count(exclusive) == 0 { bit(super::advisory_mode(exclusive) as u8) } else { 0 };
        if counts.is_free() {
            self.advisory.remove(&key);
        }
        Some(gone)
    }
    /// Takes out the newest of the transaction's advisory locks since a mark, with the modes nobody holds any more.
    pub fn pop_advisory(&mut self, mark: Mark) -> Option<(AdvisoryKey, Modes)> {
        if self.advisory_log.len() <= mark.advisory {
            return None;
        }
        let (key, exclusive) = self.advisory_log.pop()?;
        Some((key, self.drop_advisory(key, exclusive, false).unwrap_or(0)))
    }

    /// Reserves what is held now.
    pub fn reserve(&mut self) -> Result<()> {
        let bytes = self.keys.len() * KEY_BYTES
            + self.shared * SHARED_BYTES
            + self.table_log.len() * TABLE_BYTES
            + (self.advisory.len() + self.advisory_log.len()) * ADVISORY_BYTES;
        self.memory.set(bytes.saturating_sub(UNRESERVED))
    }
}
