//! Modes of locks, and which of them keep each other out.
//!
//! ```text
//! tables and advisory keys       AS RS RX SUX S SRX X AX        rows            KS  S NKU  U
//!   ACCESS SHARE            AS    .  .  .  .  .  .  .  x        KEY SHARE        .  .  .  x
//!   ROW SHARE               RS    .  .  .  .  .  .  x  x        SHARE            .  .  x  x
//!   ROW EXCLUSIVE           RX    .  .  .  .  x  x  x  x        NO KEY UPDATE    .  x  x  x
//!   SHARE UPDATE EXCLUSIVE  SUX   .  .  .  x  x  x  x  x        UPDATE           x  x  x  x
//!   SHARE                   S     .  .  x  x  .  x  x  x
//!   SHARE ROW EXCLUSIVE     SRX   .  .  x  x  x  x  x  x        a claim conflicts with every claim
//!   EXCLUSIVE               X     .  x  x  x  x  x  x  x
//!   ACCESS EXCLUSIVE        AX    x  x  x  x  x  x  x  x
//! ```
//!
//! What must stay true: both tables are symmetric; modes of rows are ordered, each conflicting with all that a weaker one conflicts with, so that
//! a transaction's several locks of one row are as good as the strongest of them. Source: PostgreSQL's `lock.c` and `README.tuplock`.

use super::Modes;

/// Mode of a table's lock, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TableMode {
    /// SELECT.
    AccessShare = 1,
    /// SELECT FOR UPDATE and its kin.
    RowShare,
    /// INSERT, UPDATE, DELETE, COPY FROM.
    RowExclusive,
    /// VACUUM, ANALYZE, CREATE INDEX CONCURRENTLY, VALIDATE CONSTRAINT.
    ShareUpdateExclusive,
    /// CREATE INDEX.
    Share,
    /// ADD FOREIGN KEY, CREATE TRIGGER.
    ShareRowExclusive,
    /// REFRESH MATERIALIZED VIEW CONCURRENTLY.
    Exclusive,
    /// DROP, TRUNCATE, most of ALTER TABLE.
    AccessExclusive,
}

/// Mode of a row's lock, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RowMode {
    /// FOR KEY SHARE; checks of foreign keys.
    KeyShare = 1,
    /// FOR SHARE.
    Share,
    /// FOR NO KEY UPDATE; UPDATE of no unique column.
    NoKeyUpdate,
    /// FOR UPDATE; DELETE, UPDATE of a unique column.
    Update,
}

impl TableMode {
    /// All modes.
    pub const ALL: [TableMode; 8] = {
        use TableMode::*;
        [
            AccessShare,
            RowShare,
            RowExclusive,
            ShareUpdateExclusive,
            Share,
            ShareRowExclusive,
            Exclusive,
            AccessExclusive,
        ]
    };
    /// The mode of this number.
    pub(super) fn from_number(number: u8) -> TableMode {
        TableMode::ALL[usize::from(number) - 1]
    }
    /// As pg_locks shows it.
    pub fn name(self) -> &'static str {
        match self {
            TableMode::AccessShare => "AccessShareLock",
            TableMode::RowShare => "RowShareLock",
            TableMode::RowExclusive => "RowExclusiveLock",
            TableMode::ShareUpdateExclusive => "ShareUpdateExclusiveLock",
            TableMode::Share => "ShareLock",
            TableMode::ShareRowExclusive => "ShareRowExclusiveLock",
            TableMode::Exclusive => "ExclusiveLock",
            TableMode::AccessExclusive => "AccessExclusiveLock",
        }
    }
    /// As LOCK TABLE spells it, in upper case.
    pub fn from_words(words: &str) -> Option<TableMode> {
        Some(match words {
            "ACCESS SHARE" => TableMode::AccessShare,
            "ROW SHARE" => TableMode::RowShare,
            "ROW EXCLUSIVE" => TableMode::RowExclusive,
            "SHARE UPDATE EXCLUSIVE" => TableMode::ShareUpdateExclusive,
            "SHARE" => TableMode::Share,
            "SHARE ROW EXCLUSIVE" => TableMode::ShareRowExclusive,
            "EXCLUSIVE" => TableMode::Exclusive,
            "ACCESS EXCLUSIVE" => TableMode::AccessExclusive,
            _ => return None,
        })
    }
    /// One of the three that never conflict with each other, and are kept out of the shared table while nobody wants a strong one.
    pub fn is_weak(self) -> bool {
        self <= TableMode::RowExclusive
    }
    /// Conflicts with a weak mode.
    pub fn is_strong(self) -> bool {
        self > TableMode::ShareUpdateExclusive
    }
    /// Whether two transactions may not hold both.
    pub fn conflicts(self, other: TableMode) -> bool {
        TABLE_CONFLICTS[self as usize] & bit(other as u8) != 0
    }
}

impl RowMode {
    /// All modes.
    pub const ALL: [RowMode; 4] = [RowMode::KeyShare, RowMode::Share, RowMode::NoKeyUpdate, RowMode::Update];
    /// Whether two transactions may not hold both.
    pub fn conflicts(self, other: RowMode) -> bool {
        ROW_CONFLICTS[self as usize] & bit(other as u8) != 0
    }
    /// The table lock PostgreSQL queues with for this mode: what pg_locks shows of who waits for a row in line.
    pub(super) fn queue_mode(self) -> TableMode {
        match self {
            RowMode::KeyShare => TableMode::AccessShare,
            RowMode::Share => TableMode::RowShare,
            RowMode::NoKeyUpdate => TableMode::Exclusive,
            RowMode::Update => TableMode::AccessExclusive,
        }
    }
}

/// The set of one mode.
pub(super) const fn bit(mode: u8) -> Modes {
    1 << (mode - 1)
}

const fn set(modes: &[u8]) -> Modes {
    let (mut all, mut i) = (0, 0);
    while i < modes.len() {
        all |= bit(modes[i]);
        i += 1;
    }
    all
}

/// What each table mode conflicts with, by its number.
pub(super) const TABLE_CONFLICTS: [Modes; 9] = [
    0,
    set(&[8]),
    set(&[7, 8]),
    set(&[5, 6, 7, 8]),
    set(&[4, 5, 6, 7, 8]),
    set(&[3, 4, 6, 7, 8]),
    set(&[3, 4, 5, 6, 7, 8]),
    set(&[2, 3, 4, 5, 6, 7, 8]),
    set(&[1, 2, 3, 4, 5, 6, 7, 8]),
];

/// What each row mode conflicts with, by its number.
pub(super) const ROW_CONFLICTS: [Modes; 5] = [0, set(&[4]), set(&[3, 4]), set(&[2, 3, 4]), set(&[1, 2, 3, 4])];

// Who holds several locks of a row counts as holding the strongest.
const _: () = {
    let mut mode = 1;
    while mode < 4 {
        assert!(
            ROW_CONFLICTS[mode] & !ROW_CONFLICTS[mode + 1] == 0,
            "a stronger mode conflicts with all a weaker one does"
        );
        mode += 1;
    }
};
