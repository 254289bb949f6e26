//! Memory that is reserved before it is used, so that a statement fails and not the server.
//!
//! ```text
//! the instance   InstanceOptions::memory_bytes
//!   a statement  the greater of 64 MB and 16 x work_mem
//!     a Reservation: one operator's rows, one aggregate's state
//! ```
//!
//! What can spill (sorts, hashes, buffers of rows) keeps within `work_mem` by itself and reserves nothing. What cannot, reserves what it
//! grows by, and fails with 53200 when either limit is reached. Bytes are those of the values held, estimated; an allocator needs more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Result, SqlError, state};

/// What a statement may reserve at least.
const STATEMENT_MIN: usize = 64 << 20;
/// What parsing, binding and planning make of a byte and of a word of a statement's text.
const BYTES_A_BYTE: usize = 4;
const BYTES_A_WORD: usize = 600;
/// What a statement may reserve, in units of work_mem.
const STATEMENT_WORK_MEMS: usize = 16;

/// About what a statement's text becomes, parsed, bound and planned: a word or a number costs much more than a byte of a long string.
pub fn of_text(sql: &str) -> usize {
    let (mut words, mut in_word, mut in_quotes) = (0, false, false);
    for byte in sql.bytes() {
        in_quotes ^= byte == b'\'';
        let goes_on = in_quotes || byte.is_ascii_alphanumeric() || byte >= 0x80 || matches!(byte, b'_' | b'\'' | b'.');
        words += usize::from(goes_on && !in_word);
        in_word = goes_on;
    }
    sql.len() * BYTES_A_BYTE + words * BYTES_A_WORD
}

/// A limit and what is reserved under it.
#[derive(Debug)]
pub struct Account {
    whose: &'static str,
    limit: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
    parent: Option<Arc<Account>>,
}

impl Default for Account {
    /// A statement's, of no instance.
    fn default() -> Self {
        Account::new("the statement", STATEMENT_MIN, None)
    }
}

impl Account {
    /// The account of all statements of an instance.
    pub fn of_instance(limit: usize) -> Account {
        Account::new("the server", limit, None)
    }
    /// The account of one statement.
    pub fn of_statement(instance: &Arc<Account>, work_mem_bytes: usize) -> Account {
        let limit = work_mem_bytes.saturating_mul(STATEMENT_WORK_MEMS).max(STATEMENT_MIN);
        Account::new("the statement", limit, Some(instance.clone()))
    }
    fn new(whose: &'static str, limit: usize, parent: Option<Arc<Account>>) -> Account {
        Account { whose, limit, used: AtomicUsize::new(0), peak: AtomicUsize::new(0), parent }
    }
    /// Bytes that may be reserved.
    pub fn limit(&self) -> usize {
        self.limit
    }
    /// Bytes reserved now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
    /// The most that was ever reserved.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
    /// An empty reservation for this purpose.
    pub fn reservation(self: &Arc<Self>, what: &'static str) -> Reservation {
        Reservation { account: self.clone(), what, held: 0, reserved: 0 }
    }
    /// A reservation of so many bytes.
    ///
    /// # Errors
    /// 53200 when they are not to be had.
    pub fn reserve(self: &Arc<Self>, what: &'static str, bytes: usize) -> Result<Reservation> {
        let mut reservation = self.reservation(what);
        reservation.set(bytes)?;
        Ok(reservation)
    }

    fn take(&self, bytes: usize, what: &str) -> Result<()> {
        let room = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room) {
            Ok(before) => self.peak.fetch_max(before + bytes, Ordering::Relaxed),
            Err(used) => {
                return Err(SqlError::new(state::OUT_OF_MEMORY, "out of memory").detail(format!(
                    "{what} wants {bytes} bytes more; {} holds {used} of the {} it may.",
                    self.whose, self.limit
                )));
            }
        };
        if let Some(parent) = &self.parent
            && let Err(e) = parent.take(bytes, what)
        {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(e);
        }
        Ok(())
    }
    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.give_back(bytes);
        }
    }
}

/// Bytes reserved for one purpose, given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    account: Arc<Account>,
    what: &'static str,
    /// Bytes needed now.
    held: usize,
    /// Bytes taken from the account: a little more, so that growth by small steps asks rarely.
    reserved: usize,
}

impl Reservation {
    /// Bytes needed now.
    pub fn held(&self) -> usize {
        self.held
    }
    /// It needs so many bytes more.
    ///
    /// # Errors
    /// 53200 when they are not to be had; it then holds what it held.
    #[inline]
    pub fn add(&mut self, bytes: usize) -> Result<()> {
        self.set(self.held.saturating_add(bytes))
    }
    /// It needs so many bytes.
    ///
    /// # Errors
    /// 53200 when they are not to be had; it then holds what it held.
    #[inline]
    pub fn set(&mut self, bytes: usize) -> Result<()> {
        if bytes > self.reserved || bytes < self.reserved / 2 {
            self.resize(bytes)?;
        }
        self.held = bytes;
        Ok(())
    }
    fn resize(&mut self, bytes: usize) -> Result<()> {
        if bytes < self.reserved {
            self.account.give_back(self.reserved - bytes);
            self.reserved = bytes;
            return Ok(());
        }
        let (ample, just) = (bytes.saturating_add(bytes / 8), bytes);
        if self.account.take(ample - self.reserved, self.what).is_ok() {
            self.reserved = ample;
            return Ok(());
        }
        self.account.take(just - self.reserved, self.what)?;
        self.reserved = just;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.account.give_back(self.reserved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_fails_at_either_limit_and_gives_back_what_it_had() {
        let server = Arc::new(Account::of_instance(100 << 20));
        let statements = [0, 0].map(|work_mem| Arc::new(Account::of_statement(&server, work_mem)));
        let mut first = statements[0].reserve("A sort", 60 << 20).unwrap();
        let refused = first.add(5 << 20).unwrap_err();
        assert_eq!(refused.state(), state::OUT_OF_MEMORY);
        let detail = refused.0.detail.clone().unwrap_or_default();
        assert!(detail.starts_with("A sort wants 5242880 bytes more; the statement holds 62914560 of"), "{detail}");
        let refused = statements[1].reserve("A hash", 50 << 20).unwrap_err();
        assert!(refused.0.detail.as_ref().is_some_and(|d| d.contains("the server holds 62914560 of")), "{refused:?}");
        assert_eq!((statements[1].used(), server.used(), first.held()), (0, 60 << 20, 60 << 20));
        first.set(1 << 20).unwrap();
        let second = statements[1].reserve("A hash", 50 << 20).unwrap();
        drop((first, second));
        assert_eq!((server.used(), statements[0].used()), (0, 0));
        assert!(server.peak() >= 60 << 20 && server.peak() <= 100 << 20);
    }
}
