//! Who holds what: the table of locks that are held, in parts that are locked one at a time.
//!
//! ```text
//! part   keys    key's hash -> owner and mode     one holder, nobody waits: 12 bytes and a byte of the hash table's own
//!        wide    object -> holders, is_queued     several holders, or somebody waits; tables and advisory keys always
//! ```
//!
//! A key is known by 60 bits of a secret hash and the kind of its lock. Two keys that share them share a lock: someone waits in vain, once in
//! about 10^6 years of a million locks at a time; nothing else depends on it.
//!
//! What must stay true:
//!
//! * an object is in `keys` or in `wide` or in neither, and in neither when nobody holds it and nobody waits for it;
//! * an object somebody waits for is in `wide` with `is_queued`; its holders then change only under the lock of the queues ([`super::queues`]), but
//!   for the row locks that are free to be had in spite of the queue.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;

use super::mode::{ROW_CONFLICTS, RowMode, TABLE_CONFLICTS, bit};
use super::{AdvisoryKey, Modes, Owner};

/// How many parts: enough that a few dozen threads seldom meet in one.
const PARTS: usize = 64;
/// A part's table below this size is not made smaller.
const SMALL: usize = 256;

/// A row's or a unique key's lock: 60 bits of the key's hash, a bit that tells the two kinds apart, and three that are free for what is remembered
/// of the lock (see [`super::held`]); here they are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeyId(u64);

const CLAIM_BIT: u64 = 0b1000;
const NOTE_BITS: u64 = 0b0111;

impl KeyId {
    /// Of a row's lock, or of a claim.
    pub fn new(hash: u64, is_claim: bool) -> KeyId {
        KeyId(hash & !(CLAIM_BIT | NOTE_BITS) | if is_claim { CLAIM_BIT } else { 0 })
    }
    pub fn is_claim(self) -> bool {
        self.0 & CLAIM_BIT != 0
    }
    /// With a number below 8 in its free bits.
    pub fn with_note(self, note: u8) -> u64 {
        self.0 | u64::from(note) & NOTE_BITS
    }
    /// What [`KeyId::with_note`] put together.
    pub fn split(noted: u64) -> (KeyId, u8) {
        (KeyId(noted & !NOTE_BITS), (noted & NOTE_BITS) as u8)
    }
}

/// What can be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Object {
    Key(KeyId),
    Table(u32),
    Advisory(AdvisoryKey),
    /// A session's transaction, by the number it has there: held by that session once somebody waits for its end.
    Virtual(Owner, u32),
}

/// Who wants what how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub object: Object,
    pub owner: Owner,
    /// A [`RowMode`] of keys, a [`super::TableMode`] of all else.
    pub mode: u8,
}

impl Request {
    /// Modes of others that it cannot be granted beside.
    pub fn conflicts(&self) -> Modes {
        conflicts(self.object, self.mode)
    }
    /// What its owner holds once it is granted, of what it held before.
    fn granted(&self, before: Modes) -> Modes {
        match self.object {
            // The strongest alone: it conflicts with all that the others do.
            Object::Key(_) => before.max(bit(self.mode)),
            Object::Table(_) | Object::Advisory(_) | Object::Virtual(..) => before | bit(self.mode),
        }
    }
    /// Free to be had whoever waits, if no holder conflicts: PostgreSQL lets who shares a row in, past those that wait to have it alone.
    pub fn passes_queue(&self) -> bool {
        matches!(self.object, Object::Key(_))
    }
}

/// What a mode of an object conflicts with.
pub(super) fn conflicts(object: Object, mode: u8) -> Modes {
    match object {
        Object::Key(_) => ROW_CONFLICTS[usize::from(mode)],
        Object::Table(_) | Object::Advisory(_) | Object::Virtual(..) => TABLE_CONFLICTS[usize::from(mode)],
    }
}

/// Whether what is held of a key is as good as a mode.
fn covers(held: Modes, mode: u8) -> bool {
    held >= bit(mode)
}

/// One who holds an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub owner: Owner,
    pub modes: Modes,
}

/// An object that is told about at length.
#[derive(Default)]
pub(super) struct Wide {
    pub holders: Vec<Holder>,
    pub is_queued: bool,
}

impl Wide {
    /// What one holds, and what all others hold.
    pub fn held(&self, owner: Owner) -> (Modes, Modes) {
        let (mut own, mut others) = (0, 0);
        for holder in &self.holders {
            let whose = if holder.owner == owner { &mut own } else { &mut others };
            *whose |= holder.modes;
        }
        (own, others)
    }
    fn set(&mut self, owner: Owner, modes: Modes) {
        match self.holders.iter().position(|h| h.owner == owner) {
            Some(at) if modes == 0 => drop(self.holders.swap_remove(at)),
            Some(at) => self.holders[at].modes = modes,
            None if modes == 0 => {}
            None => self.holders.push(Holder { owner, modes }),
        }
    }
    /// Grants a request.
    pub fn grant(&mut self, request: &Request) {
        let (before, _) = self.held(request.owner);
        self.set(request.owner, request.granted(before));
    }
}

/// What came of asking for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// Here it is; with what the owner held before.
    Granted { before: Modes, shared: bool },
    /// Held as well as that already.
    Had,
    /// Somebody holds what conflicts, or may be before us in the queue.
    Conflict,
}

/// How what is held becomes less.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lower {
    To(Modes),
    Without(Modes),
}

impl Lower {
    fn of(self, modes: Modes) -> Modes {
        match self {
            Lower::To(left) => left,
            Lower::Without(gone) => modes & !gone,
        }
    }
}

/// Eight bytes at the alignment of four, for entries of 12 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Packed([u32; 2]);

impl From<KeyId> for Packed {
    fn from(key: KeyId) -> Packed {
        Packed([(key.0 >> 32) as u32, key.0 as u32])
    }
}

impl std::hash::Hash for Packed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.0[0]) << 32 | u64::from(self.0[1]));
    }
}

/// Keys are hashes: their bits only have to be where the hash table looks.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only whole keys are hashed");
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = (key >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Owner and modes of a key's one holder.
#[derive(Clone, Copy)]
struct Single(u32);

impl Single {
    fn new(owner: Owner, modes: Modes) -> Single {
        Single(owner << 4 | u32::from(modes))
    }
    fn holder(self) -> Holder {
        Holder { owner: self.0 >> 4, modes: (self.0 & 0xf) as Modes }
    }
}

/// Owners have room beside four modes.
pub(super) const OWNERS_MAX: usize = 1 << 28;

/// Some of the locks.
#[derive(Default)]
pub(super) struct Part {
    keys: HashMap<Packed, Single, BuildHasherDefault<Spread>>,
    pub wide: FxHashMap<Object, Wide>,
}

impl Part {
    /// Grants a request if it conflicts with no holder, and nobody waits who might come first.
    fn take(&mut self, request: &Request) -> Take {
        if let Some(wide) = self.find_wide(request.object) {
            let (before, others) = wide.held(request.owner);
            if request.passes_queue() && covers(before, request.mode) {
                return Take::Had;
            }
            if others & request.conflicts() != 0 || wide.is_queued && !request.passes_queue() {
                return Take::Conflict;
            }
            wide.set(request.owner, request.granted(before));
            return Take::Granted { before, shared: others != 0 };
        }
        let Object::Key(key) = request.object else {
            self.wide.entry(request.object).or_default().grant(request);
            return Take::Granted { before: 0, shared: false };
        };
        self.take_single(key, request)
    }

    fn take_single(&mut self, key: KeyId, request: &Request) -> Take {
        let fresh = Single::new(request.owner, bit(request.mode));
        let single = match self.keys.entry(key.into()) {
            std::collections::hash_map::Entry::Occupied(single) => single,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(fresh);
                return Take::Granted { before: 0, shared: false };
            }
        };
        let holder = single.get().holder();
        if holder.owner == request.owner {
            if covers(holder.modes, request.mode) {
                return Take::Had;
            }
            *single.into_mut() = fresh;
            return Take::Granted { before: holder.modes, shared: false };
        }
        if holder.modes & request.conflicts() != 0 {
            return Take::Conflict;
        }
        single.remove();
        let wide = self.wide.entry(request.object).or_default();
        wide.set(holder.owner, holder.modes);
        wide.grant(request);
        Take::Granted { before: 0, shared: true }
    }

    fn find_wide(&mut self, object: Object) -> Option<&mut Wide> {
        // Almost always empty of keys: a look at its length spares hashing.
        if self.wide.is_empty() { None } else { self.wide.get_mut(&object) }
    }

    /// The object told about at length, from now on.
    pub fn widen(&mut self, object: Object) -> &mut Wide {
        let single = match object {
            Object::Key(key) => self.keys.remove(&key.into()),
            Object::Table(_) | Object::Advisory(_) | Object::Virtual(..) => None,
        };
        let wide = self.wide.entry(object).or_default();
        if let Some(single) = single {
            let holder = single.holder();
            wide.set(holder.owner, holder.modes);
        }
        wide
    }

    /// Takes from what an owner holds. False, and nothing was done, if somebody waits and `under_queues` is.
    fn lower(&mut self, object: Object, owner: Owner, lower: Lower, under_queues: bool) -> bool {
        if let Some(wide) = self.find_wide(object) {
            if wide.is_queued && !under_queues {
                return false;
            }
            let (own, _) = wide.held(owner);
            wide.set(owner, lower.of(own));
            self.tidy(object);
            return true;
        }
        let Object::Key(key) = object else { return true };
        if let std::collections::hash_map::Entry::Occupied(mut single) = self.keys.entry(key.into()) {
            let holder = single.get().holder();
            // Released twice, or never got: another's stays.
            if holder.owner == owner {
                match lower.of(holder.modes) {
                    0 => drop(single.remove()),
                    left => drop(single.insert(Single::new(owner, left))),
                }
            }
        }
        if self.keys.capacity() > SMALL && self.keys.len() < self.keys.capacity() / 8 {
            self.keys.shrink_to(self.keys.len() * 2);
        }
        true
    }

    /// Forgets an object nobody holds and nobody waits for.
    pub fn tidy(&mut self, object: Object) {
        if self.wide.get(&object).is_some_and(|w| w.holders.is_empty() && !w.is_queued) {
            self.wide.remove(&object);
            if self.wide.capacity() > SMALL && self.wide.len() < self.wide.capacity() / 8 {
                self.wide.shrink_to(self.wide.len() * 2);
            }
        }
    }
}

#[derive(Default)]
#[repr(align(64))]
struct Padded(Mutex<Part>);

/// All locks that are held, but for those of the fast path.
pub(super) struct Shards {
    parts: Box<[Padded]>,
    secret: RandomState,
}

impl Default for Shards {
    fn default() -> Self {
        Shards { parts: (0..PARTS).map(|_| Padded::default()).collect(), secret: RandomState::new() }
    }
}

impl Shards {
    /// What a row or a unique key is known by. The hash is secret: strangers choose keys, and must not make others wait by it.
    pub fn key(&self, key: &[u8], is_claim: bool) -> KeyId {
        KeyId::new(self.secret.hash_one(key), is_claim)
    }
    /// The part an object is in.
    pub fn part(&self, object: Object) -> MutexGuard<'_, Part> {
        let hash = match object {
            Object::Key(key) => key.0 >> 57,
            Object::Table(oid) => u64::from(oid),
            Object::Advisory(key) => u64::from(key.high ^ key.low),
            Object::Virtual(owner, _) => u64::from(owner),
        };
        self.parts[hash as usize % PARTS].0.lock()
    }
    /// Grants a request if nothing speaks against it.
    pub fn take(&self, request: &Request) -> Take {
        self.part(request.object).take(request)
    }
    /// Takes from what an owner holds. False, and nothing was done, if somebody waits for it: then it is to be done under the queues' lock.
    pub fn lower(&self, object: Object, owner: Owner, lower: Lower) -> bool {
        self.part(object).lower(object, owner, lower, false)
    }
    /// The same under the queues' lock.
    pub fn lower_queued(&self, object: Object, owner: Owner, lower: Lower) {
        self.part(object).lower(object, owner, lower, true);
    }
    /// Who holds an object.
    pub fn holders(&self, object: Object) -> Vec<Holder> {
        let part = self.part(object);
        if let Some(wide) = part.wide.get(&object) {
            return wide.holders.clone();
        }
        match object {
            Object::Key(key) => part.keys.get(&key.into()).map(|s| s.holder()).into_iter().collect(),
            Object::Table(_) | Object::Advisory(_) | Object::Virtual(..) => Vec::new(),
        }
    }
    /// Holders of all tables and advisory keys.
    pub fn listed(&self) -> Vec<(Object, Holder)> {
        let mut all = Vec::new();
        for part in &self.parts {
            for (object, wide) in &part.0.lock().wide {
                if !matches!(object, Object::Key(_)) {
                    all.extend(wide.holders.iter().map(|h| (*object, *h)));
                }
            }
        }
        all
    }
    /// Locks held, and bytes that takes.
    #[cfg(test)]
    pub fn size(&self) -> (usize, usize) {
        let (mut held, mut bytes) = (0, 0);
        for part in &self.parts {
            let part = part.0.lock();
            let slots = |capacity: usize| if capacity == 0 { 0 } else { (capacity * 8 / 7).next_power_of_two() };
            bytes += slots(part.keys.capacity()) * (size_of::<(Packed, Single)>() + 1);
            bytes += slots(part.wide.capacity()) * (size_of::<(Object, Wide)>() + 1);
            bytes += part.wide.values().map(|w| w.holders.capacity() * size_of::<Holder>() + 16).sum::<usize>();
            held += part.keys.len() + part.wide.values().map(|w| w.holders.len()).sum::<usize>();
        }
        (held, bytes)
    }
}

const _: () = assert!(size_of::<(Packed, Single)>() == 12, "a lock's entry in the table is 12 bytes");
const _: () = assert!(RowMode::Update as u8 == 4, "modes of keys fit beside the owner");
