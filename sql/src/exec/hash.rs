//! A hash index: from a hash to entry numbers counted from 0, the entries themselves kept by the owner.
//!
//! Open addressing with linear probing; entries are never removed. The owner says what is equal, so one index serves groups,
//! join keys and duplicate elimination without boxing keys.

/// The index.
#[derive(Default)]
pub(crate) struct HashIndex {
    /// Entry number plus one, or 0 for a free slot.
    slots: Vec<u32>,
    /// Hash of each entry.
    hashes: Vec<u64>,
}

impl HashIndex {
    /// Entries held.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * 4 + self.hashes.capacity() * 8
    }
    /// The entry with this hash that `equal` accepts.
    #[inline]
    pub fn find(&self, hash: u64, mut equal: impl FnMut(usize) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.slots[at] {
                0 => return None,
                slot => {
                    let entry = (slot - 1) as usize;
                    if self.hashes[entry] == hash && equal(entry) {
                        return Some(entry);
                    }
                }
            }
            at = (at + 1) & mask;
        }
    }
    /// Adds an entry and returns its number: the count of those before it.
    pub fn insert(&mut self, hash: u64) -> usize {
        if (self.hashes.len() + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let entry = self.hashes.len();
        self.hashes.push(hash);
        self.place(entry, hash);
        entry
    }

    fn place(&mut self, entry: usize, hash: u64) {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = entry as u32 + 1;
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(16);
        self.slots.clear();
        self.slots.resize(size, 0);
        for entry in 0..self.hashes.len() {
            self.place(entry, self.hashes[entry]);
        }
    }
}

/// Files that rows are divided among by their hash, when a hash table cannot take more.
///
/// Each level of division uses other bits, so a file that is still too large is divided again.
pub(crate) struct Partitions {
    files: Vec<Option<super::spill::Spool>>,
    level: u32,
}

/// A file of rows whose hashes agree in the bits of all levels up to this one.
pub(crate) struct Partition {
    /// The rows, ready to be read.
    pub rows: super::spill::Spool,
    /// Level of the next division.
    pub level: u32,
}

/// Levels after which rows are no longer divided: so many equal bits mean equal keys.
pub(crate) const MAX_LEVEL: u32 = 8;
const FAN_OUT_BITS: u32 = 4;

impl Partitions {
    /// For rows at this level.
    pub fn new(level: u32) -> Partitions {
        Partitions { files: (0..1 << FAN_OUT_BITS).map(|_| None).collect(), level }
    }
    /// Which file a hash belongs to.
    pub fn index(&self, hash: u64) -> usize {
        (hash >> (64 - FAN_OUT_BITS * (self.level + 1))) as usize & ((1 << FAN_OUT_BITS) - 1)
    }
    /// Appends a row to its file.
    pub fn push(&mut self, hash: u64, row: &[crate::types::Datum]) -> crate::Result<()> {
        let index = self.index(hash);
        match &mut self.files[index] {
            Some(file) => file.push(row),
            none => none.insert(super::spill::Spool::new()?).push(row),
        }
    }
    /// The files in order, those without rows missing; ready to be read.
    pub fn finish(self) -> crate::Result<Vec<Option<Partition>>> {
        let level = self.level + 1;
        self.files
            .into_iter()
            .map(|file| {
                file.map(|mut rows| {
                    rows.flush()?;
                    Ok(Partition { rows, level })
                })
                .transpose()
            })
            .collect()
    }
}
