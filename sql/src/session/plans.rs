//! The plan cache of a database: what its sessions have parsed, bound and planned, for the next who says the same.
//!
//! ```text
//! extended    (text, declared types)                    -> Shared: tree, parameters, shape of rows, plan
//! simple      shape of the text (literals taken out)    -> Slots: which literals may have other values
//!             shape, and the other literals' texts      -> Kept: a plan whose parameters are the slots
//! ```
//!
//! Each key goes with its [`Surroundings`]: the search path, the user, the settings that a literal or a folded constant may depend on. A plan is
//! used only under the definitions it was made with ([`Planned::is_current`]), never in a transaction that has changed definitions itself or that
//! reads the past, and not at all if it holds a literal that means another time tomorrow ([`literals::tells_time`]).
//!
//! A simple statement is kept when it is met for the second time, and only if with parameters for its slots it binds to the very columns, types and
//! kind of plan it has with its literals. The slots' values are read by the input functions of the parameters' types; where one of them fails, the
//! statement is parsed and bound as ever and fails there, with its place in the text.
//!
//! What is kept is counted as prepared statements are, and by the columns and operators of its plan, reserved in the instance's account and at most
//! [`BYTES_MAX`] and an eighth of the account, so that statements find theirs; what was used longest ago goes first.

pub mod literals;

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

use super::query::{Planned, is_query};
use super::transaction::{StatementCx, Status};
use super::{Outcome, Session};
use crate::bind::ParamTypes;
use crate::error::{Result, SqlError};
use crate::ir::Field;
use crate::memory::{self, Account, Reservation};
use crate::parse::ast;
use crate::types::Type;
use literals::{Literal, Shape, Slot};

/// Bytes of plans a database keeps.
const BYTES_MAX: usize = 32 << 20;
/// Which part of the instance's memory they may be.
const SHARE: usize = 8;
/// Statements remembered as met once.
const SIGHTINGS_MAX: usize = 4096;
/// Bytes of an entry besides what its text becomes.
const ENTRY_BYTES: usize = 1024;

/// What a text's meaning depends on besides the definitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Surroundings {
    /// Schemas searched.
    pub search_path: Vec<u32>,
    /// Settings and user.
    pub settings: Arc<str>,
}

/// A statement of the extended protocol, ready to be prepared by another session.
pub struct Shared {
    pub statement: Arc<ast::Statement>,
    pub params: Vec<Type>,
    pub planned: Arc<Planned>,
}

/// A simple statement with parameters in its slots.
pub struct Kept {
    slots: Arc<[Slot]>,
    types: Vec<Type>,
    planned: Arc<Planned>,
}

#[derive(Clone)]
enum Entry {
    Shared(Arc<Shared>),
    Slots(Arc<[Slot]>),
    Kept(Arc<Kept>),
    /// With parameters it is another statement, under definitions of this stamp.
    Never(u64),
}

impl Entry {
    /// What its plan takes, which a short text may make large: `SELECT *` names all columns.
    fn bytes(&self) -> usize {
        match self {
            Entry::Shared(shared) => shared.planned.bytes(),
            Entry::Kept(kept) => kept.planned.bytes(),
            Entry::Slots(_) | Entry::Never(_) => 0,
        }
    }
}

/// What a key is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Extended,
    Shape,
    Simple,
}

/// A key as it is kept, to be compared with what is asked for.
struct Held {
    what: What,
    text: Box<str>,
    /// Declared types, or ends of the pinned literals in `pinned`.
    types: Box<[Type]>,
    pinned: Box<str>,
    around: Option<Surroundings>,
    entry: Entry,
    used: u64,
    bytes: usize,
    _reserved: Reservation,
}

/// A key that is asked for.
#[derive(Clone, Copy, Hash)]
struct Asked<'a> {
    what: What,
    text: &'a str,
    types: &'a [Type],
    pinned: &'a str,
    around: Option<&'a Surroundings>,
}

impl Asked<'_> {
    fn is(&self, held: &Held) -> bool {
        self.what == held.what
            && *self.text == *held.text
            && *self.types == *held.types
            && *self.pinned == *held.pinned
            && self.around == held.around.as_ref()
    }
}

/// Plans shared by the sessions of a database.
#[derive(Default)]
pub struct PlanCache {
    /// Secret, so that nobody finds keys that push each other out.
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: FxHashMap<u64, Held>,
    sighted: FxHashSet<u64>,
    bytes: usize,
    clock: u64,
    hits: u64,
    misses: u64,
}

impl PlanCache {
    fn find(&self, asked: &Asked<'_>) -> Option<Entry> {
        let hash = self.hasher.hash_one(asked);
        let mut state = self.state.lock();
        state.clock += 1;
        let clock = state.clock;
        let found = state.entries.get_mut(&hash).filter(|held| asked.is(held)).map(|held| {
            held.used = clock;
            held.entry.clone()
        });
        if asked.what != What::Shape {
            *(if found.is_some() { &mut state.hits } else { &mut state.misses }) += 1;
        }
        found
    }

    /// Keeps an entry if there is memory for it; what was there under its key goes.
    fn put(&self, asked: &Asked<'_>, entry: Entry, account: &Arc<Account>) {
        let bytes = ENTRY_BYTES + memory::of_text(asked.text) + asked.pinned.len() + entry.bytes();
        let hash = self.hasher.hash_one(asked);
        let mut state = self.state.lock();
        state.remove(hash);
        let most = BYTES_MAX.min(account.limit() / SHARE);
        if bytes > most / 4 {
            return;
        }
        while state.bytes + bytes > most {
            state.make_room();
        }
        let Ok(reserved) = account.reserve("The plan cache", bytes) else {
            // Memory is short: plans can be made again.
            state.make_room();
            return;
        };
        state.bytes += bytes;
        state.clock += 1;
        let held = Held {
            what: asked.what,
            text: asked.text.into(),
            types: asked.types.into(),
            pinned: asked.pinned.into(),
            around: asked.around.cloned(),
            entry,
            used: state.clock,
            bytes,
            _reserved: reserved,
        };
        state.entries.insert(hash, held);
    }

    /// Whether a key was met before; from now on it was.
    fn is_sighted(&self, asked: &Asked<'_>) -> bool {
        let hash = self.hasher.hash_one(asked);
        let mut state = self.state.lock();
        if state.sighted.len() >= SIGHTINGS_MAX {
            state.sighted.clear();
        }
        !state.sighted.insert(hash)
    }

    /// Forgets everything: what is reserved then is not for plans.
    #[cfg(test)]
    pub fn clear(&self) {
        let mut state = self.state.lock();
        state.entries.clear();
        state.bytes = 0;
    }
    /// Entries, their bytes, and how often a plan was found and not found.
    #[cfg(test)]
    pub fn stats(&self) -> (usize, usize, u64, u64) {
        let state = self.state.lock();
        (state.entries.len(), state.bytes, state.hits, state.misses)
    }
}

impl State {
    fn remove(&mut self, hash: u64) {
        if let Some(held) = self.entries.remove(&hash) {
            self.bytes -= held.bytes;
        }
    }
    /// Drops the quarter that was used longest ago.
    fn make_room(&mut self) {
        let mut ages: Vec<(u64, u64)> = self.entries.iter().map(|(hash, held)| (held.used, *hash)).collect();
        ages.sort_unstable();
        let count = ages.len().div_ceil(4);
        ages.into_iter().take(count).for_each(|(_, hash)| self.remove(hash));
    }
}

/// A simple string that may be one the cache knows.
pub(super) struct Candidate {
    sql: Box<str>,
    shape: Shape,
}

impl Candidate {
    /// None for a string that is not looked up.
    pub fn of(sql: &str) -> Option<Candidate> {
        let shape = literals::read(sql)?;
        let first = shape.text.trim_start().get(..6)?;
        let is_query = ["select", "insert", "update", "delete"].iter().any(|word| first.eq_ignore_ascii_case(word));
        (is_query && !literals::tells_time(sql)).then(|| Candidate { sql: sql.into(), shape })
    }
    /// The string.
    pub fn sql(&self) -> &str {
        &self.sql
    }
    /// The texts of the literals that are no slots.
    fn pinned(&self, slots: &[Slot]) -> String {
        let mut pinned = String::new();
        for (i, Literal { start, end, .. }) in self.shape.literals.iter().enumerate() {
            if !slots.iter().any(|slot| slot.literal == i) {
                pinned.push_str(&self.sql[*start..*end]);
                pinned.push('\u{1}');
            }
        }
        pinned
    }
    fn by_shape(&self) -> Asked<'_> {
        Asked { what: What::Shape, text: &self.shape.text, types: &[], pinned: "", around: None }
    }
}

impl Session {
    /// What plans are kept under, where they may be kept and used at all.
    fn kept_under(&self, cx: &StatementCx) -> Option<Surroundings> {
        if cx.past || self.block.own.is_some() {
            return None;
        }
        let settings = self.shared.settings.lock().planning().clone();
        Some(Surroundings { search_path: cx.cx.search_path.clone(), settings })
    }

    /// The slots of a simple string, if the cache knows its shape.
    pub(super) fn known_slots(&self, candidate: &Candidate) -> Option<Arc<[Slot]>> {
        match self.shared.db.plans.find(&candidate.by_shape()) {
            Some(Entry::Slots(slots)) => Some(slots),
            _ => None,
        }
    }

    /// Runs a simple string by a plan that is kept; None if it must be parsed.
    pub(super) fn run_kept(&mut self, candidate: &Candidate, slots: &[Slot]) -> Result<Option<Outcome>> {
        if self.block.status == Status::Failed || self.awaits_first_head() {
            return Ok(None);
        }
        let mut found = None;
        let planned = self.plan_under_locks(|session, cx| {
            found = session.find_kept(candidate, slots, cx);
            found.as_ref().map(|kept| kept.planned.clone()).ok_or_else(not_kept)
        });
        let Some(kept) = found else { return Ok(None) };
        let (planned, cx) = planned?;
        let value = |(slot, ty): (&Slot, &Type)| slot.value(&candidate.sql, &candidate.shape.literals, *ty, &cx.cx);
        let Ok(params) = kept.slots.iter().zip(&kept.types).map(value).collect() else { return Ok(None) };
        let ran = self.run_planned(&planned, params, &cx)?;
        // A change that is a transaction of its own is committed before anything of it is given out.
        if planned.writes && self.block.status == Status::Implicit {
            self.commit()?;
        }
        Ok(Some(self.give(ran, None)))
    }

    fn find_kept(&self, candidate: &Candidate, slots: &[Slot], cx: &StatementCx) -> Option<Arc<Kept>> {
        let around = self.kept_under(cx)?;
        let pinned = candidate.pinned(slots);
        let asked = Asked {
            what: What::Simple,
            text: &candidate.shape.text,
            types: &[],
            pinned: &pinned,
            around: Some(&around),
        };
        match self.shared.db.plans.find(&asked) {
            Some(Entry::Kept(kept)) if kept.planned.is_current(cx) && !kept.planned.is_old(cx) => Some(kept),
            _ => None,
        }
    }

    /// Keeps a plan for a simple statement that was met before. What goes wrong here is told when the statement is run.
    pub(super) fn keep_plan(&mut self, candidate: &Candidate, statement: &ast::Statement) {
        if !is_query(&statement.kind) || self.block.status == Status::Failed || self.awaits_first_head() {
            return;
        }
        let mut written = statement.clone();
        let slots: Arc<[Slot]> = literals::slots(&mut written, &candidate.shape.literals).into();
        let plans = &self.shared.db.clone().plans;
        let account = self.instance.memory().clone();
        plans.put(&candidate.by_shape(), Entry::Slots(slots.clone()), &account);
        let pinned = candidate.pinned(&slots);
        let isolation = match self.block.status {
            Status::Idle => self.shared.settings.lock().derived().isolation,
            _ => self.block.isolation,
        };
        // The one snapshot of such a transaction is the statement's own to take.
        if isolation.is_fixed() {
            return;
        }
        let Ok(cx) = self.statement() else { return };
        let Some(around) = self.kept_under(&cx) else { return };
        let asked = Asked {
            what: What::Simple,
            text: &candidate.shape.text,
            types: &[],
            pinned: &pinned,
            around: Some(&around),
        };
        if !plans.is_sighted(&asked) {
            return;
        }
        if matches!(plans.find(&asked), Some(Entry::Never(stamp)) if stamp == cx.cx.catalog.stamp) {
            return;
        }
        // What does not even bind as it is may do so with another literal.
        let Ok(special) = self.plan(statement, &ParamTypes::none(), &cx) else { return };
        let entry = match self.generalise(candidate, &written, &special, slots, &cx) {
            Some(kept) => Entry::Kept(Arc::new(kept)),
            None => Entry::Never(cx.cx.catalog.stamp),
        };
        plans.put(&asked, entry, &account);
    }

    /// The plan with parameters, if it is in every way the one with the literals.
    fn generalise(
        &self,
        candidate: &Candidate,
        written: &ast::Statement,
        special: &Planned,
        slots: Arc<[Slot]>,
        cx: &StatementCx,
    ) -> Option<Kept> {
        let kind = |slot: &Slot| candidate.shape.literals[slot.literal].kind.declared();
        let params = ParamTypes::declared(slots.iter().map(kind).collect());
        let general = self.plan(written, &params, cx).ok()?;
        let types = params.finish().ok()?;
        // An interval's input depends on its column's modifier, which a parameter does not know.
        let is_same = types.len() == slots.len() && !types.contains(&Type::INTERVAL) && general.is_like(special);
        is_same.then(|| Kept { slots, types, planned: Arc::new(general) })
    }

    /// A statement of the extended protocol that someone prepared before.
    pub(super) fn find_shared(&self, sql: &str, types: &[Type], cx: &StatementCx) -> Option<Arc<Shared>> {
        let around = self.kept_under(cx)?;
        let asked = Asked { what: What::Extended, text: sql, types, pinned: "", around: Some(&around) };
        match self.shared.db.plans.find(&asked) {
            Some(Entry::Shared(shared)) if shared.planned.is_current(cx) => Some(shared),
            _ => None,
        }
    }
    /// Lets others have a prepared statement.
    pub(super) fn share(&self, sql: &str, types: &[Type], shared: Shared, cx: &StatementCx) {
        let Some(around) = self.kept_under(cx) else { return };
        if shared.planned.is_for_now() || literals::tells_time(sql) {
            return;
        }
        let asked = Asked { what: What::Extended, text: sql, types, pinned: "", around: Some(&around) };
        self.shared.db.plans.put(&asked, Entry::Shared(Arc::new(shared)), self.instance.memory());
    }
}

/// For plans that are looked up under locks; nobody is told.
pub(super) fn not_kept() -> SqlError {
    SqlError::internal("a plan is not kept")
}

impl Planned {
    /// Whether two plans give rows of one shape in one way: columns, types, kind of statement, number of operators.
    fn is_like(&self, other: &Planned) -> bool {
        let same = |(a, b): (&Field, &Field)| {
            a.name == b.name && a.ty == b.ty && a.table_oid == b.table_oid && a.attnum == b.attnum
        };
        let fields = self.fields.len() == other.fields.len() && self.fields.iter().zip(other.fields.iter()).all(same);
        fields && self.has_kind_of(other) && !self.is_for_now() && self.plan.nodes == other.plan.nodes
    }
}
