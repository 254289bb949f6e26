//! A [`Backend`] on disk: RocksDB, one column family a space, options with their reasons.
//!
//! ```text
//! directory/
//!   FORMAT     "pgbee <version>\n", written before RocksDB makes its first file
//!   PROCESS    locked by the process that has the store open; holds its process id
//!   *.sst *.log MANIFEST-* ...   RocksDB's own
//! ```
//!
//! The directory is readable by its owner only, for the store holds secret keys.
//!
//! **Durability.** A `Sync` write returns after the write-ahead log is fsynced; RocksDB logs in order, so
//! everything before it is durable as well. Scratch is not logged at all and is dropped at open.
//!
//! **Recovery** is point-in-time: the log is replayed up to the first record that is not whole. The two
//! stricter modes would refuse to open after a power cut in the middle of un-synced writes, when the
//! file system may have kept the pages of the log's tail in any order; the looser one would skip records
//! in the middle. What is cut off is what was never acknowledged as durable. Were the disk to damage a
//! synced part of the log, what follows would be cut off as well (PostgreSQL's log is the same); that
//! closed log files are missing or short is noticed (`track_and_verify_wals_in_manifest`).
//!
//! **After a failed write** RocksDB refuses further writes until it has recovered by itself (a full disk
//! that has room again) or is reopened (anything worse, a failed fsync above all). Each refusal is an
//! error to the caller; none is retried or ignored here. To sync its log meanwhile would turn a full disk
//! into the worse kind: after a failed write a sync is a write of nothing, until one succeeds.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    DataBlockIndexType, ErrorKind, IteratorMode, LogLevel, Options, ReadOptions, WriteOptions, properties,
};

use super::{
    Backend, Change, Durability, FORMAT_VERSION, FORMAT_VERSION_MIN, Range, Scan, Space, Statistics, WriteBatch,
};
use crate::error::{Error, Result, StorageError, StorageErrorKind};

/// How much memory and work the store may use.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// Bytes of the cache that all reads share, index and filter blocks included.
    pub block_cache_bytes: usize,
    /// Bytes of writes that are gathered in memory before they become a file; twice as many at most are
    /// held over all spaces.
    pub write_buffer_bytes: usize,
    /// Flushes and compactions that may run at a time.
    pub background_jobs: i32,
}

impl Default for RocksOptions {
    fn default() -> RocksOptions {
        RocksOptions { block_cache_bytes: 256 << 20, write_buffer_bytes: 64 << 20, background_jobs: 2 }
    }
}

/// An open store on disk. One process at a time has it open.
pub struct Rocks {
    db: DB,
    cache: Cache,
    /// The last logged write failed.
    has_failed: AtomicBool,
    // Dropped after the database, as fields are in order: the lock outlives what it guards.
    _process: File,
}

impl Rocks {
    /// Open the store in this directory, or make one.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if another process (or this one) has it open, naming who; `FormatVersion` if an
    /// incompatible pgbee made it; [`Error::Invalid`] if it is someone else's RocksDB; `Corrupt` or
    /// `Storage` if it cannot be opened.
    pub fn open(directory: impl AsRef<Path>, options: &RocksOptions) -> Result<Rocks> {
        let directory = directory.as_ref();
        make_directory(directory).map_err(|error| io_error(directory, &error))?;
        let process = lock(directory)?;
        check_format(directory)?;

        let cache = Cache::new_hyper_clock_cache(options.block_cache_bytes, 0);
        let families =
            Space::ALL.map(|space| ColumnFamilyDescriptor::new(space.name(), family(space, &cache, options)));
        let mut db = DB::open_cf_descriptors(&database(options), directory, families).map_err(failure)?;
        // Dropping and making the family anew is a matter of two files, whatever it held.
        db.drop_cf(Space::Scratch.name()).map_err(failure)?;
        db.create_cf(Space::Scratch.name(), &family(Space::Scratch, &cache, options)).map_err(failure)?;
        Ok(Rocks { db, cache, has_failed: AtomicBool::new(false), _process: process })
    }

    fn family(&self, space: Space) -> &ColumnFamily {
        self.db.cf_handle(space.name()).expect("every space was opened")
    }

    fn property(&self, space: Space, name: &properties::PropName) -> u64 {
        self.db.property_int_value_cf(self.family(space), name).ok().flatten().unwrap_or(0)
    }
}

fn database(options: &RocksOptions) -> Options {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    db.set_track_and_verify_wals_in_manifest(true);
    db.set_paranoid_checks(true);
    // Flushing and compacting must not take the processors from queries.
    db.set_max_background_jobs(options.background_jobs);
    db.set_db_write_buffer_size(2 * options.write_buffer_bytes);
    // `meta` is written at every commit and never fills a write buffer: without a limit its tail would
    // keep every log file alive, and recovery would replay them all.
    db.set_max_total_wal_size(4 * options.write_buffer_bytes as u64);
    // Write back steadily, so that a commit's fsync does not meet seconds' worth of a bulk load.
    db.set_wal_bytes_per_sync(1 << 20);
    db.set_bytes_per_sync(1 << 20);
    // Table files are opened as needed; at 64 MB each this is some 60 GB without opening one twice.
    db.set_max_open_files(1000);
    db.set_keep_log_file_num(4);
    db.set_max_log_file_size(4 << 20);
    db.set_log_level(LogLevel::Warn);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db
}

fn family(space: Space, cache: &Cache, options: &RocksOptions) -> Options {
    let mut table = BlockBasedOptions::default();
    // One cache for data, indexes and filters bounds the memory of reads as a whole; indexes and filters
    // stay when data goes.
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(6);

    let mut family = Options::default();
    family.set_level_compaction_dynamic_level_bytes(true);
    match space {
        Space::Block => {
            // Point reads of some 150 bytes: a small unit to read and decompress, a hash instead of a
            // binary search inside it, a filter for levels that do not have the key. Nearly every read
            // finds its block, so the last and by far largest level goes without a filter.
            table.set_block_size(8 << 10);
            table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
            table.set_bloom_filter(10.0, false);
            family.set_optimize_filters_for_hits(true);
            // The same compression on all levels: files of consecutive blocks, as a log writes them,
            // are then moved down, not rewritten.
            family.set_compression_type(DBCompressionType::Lz4);
            family.set_write_buffer_size(options.write_buffer_bytes);
            family.set_max_write_buffer_number(3);
        }
        Space::Tree => {
            // Hashes do not compress, and nodes are found by seeking, for which filters are no use.
            family.set_compression_type(DBCompressionType::None);
            table.set_block_size(16 << 10);
            family.set_write_buffer_size(options.write_buffer_bytes / 2);
        }
        Space::Meta => {
            // A few records, the same ones again and again.
            family.set_compression_type(DBCompressionType::None);
            table.set_block_size(4 << 10);
            family.set_write_buffer_size((4 << 20).min(options.write_buffer_bytes));
        }
        Space::Scratch => {
            family.set_compression_type(DBCompressionType::Lz4);
            table.set_block_size(16 << 10);
            table.set_bloom_filter(10.0, false);
            family.set_write_buffer_size(options.write_buffer_bytes / 4);
        }
    }
    family.set_block_based_table_factory(&table);
    family
}

impl Backend for Rocks {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.db.get_pinned_cf(self.family(space), key).map_err(failure)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn multi_get(&self, space: Space, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        self.db
            .batched_multi_get_cf(self.family(space), keys, false)
            .into_iter()
            .map(|value| Ok(value.map_err(failure)?.map(|value| Bytes::copy_from_slice(&value))))
            .collect()
    }

    fn scan(&self, space: Space, range: Range, reverse: bool) -> Scan<'_> {
        if range.is_empty() {
            return Box::new(std::iter::empty());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(range.start);
        if let Some(end) = range.end {
            options.set_iterate_upper_bound(end);
        }
        let from = if reverse { IteratorMode::End } else { IteratorMode::Start };
        let entries = self.db.iterator_cf_opt(self.family(space), options, from);
        Box::new(entries.map(|entry| {
            let (key, value) = entry.map_err(failure)?;
            Ok((Bytes::from(key), Bytes::from(value)))
        }))
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_memtable_insert_hint_per_batch(true);
        if batch.is_scratch() {
            options.disable_wal(true);
        } else {
            options.set_sync(durability == Durability::Sync);
        }
        let families = Space::ALL.map(|space| self.family(space));
        // What RocksDB adds to a change is a few bytes of lengths and its family's number.
        let bytes = batch.byte_len() + 16 * batch.len() + 16;
        let mut changes = rocksdb::WriteBatch::with_capacity_bytes(bytes);
        for change in batch.iter() {
            match change {
                Change::Put { space, key, value } => {
                    changes.put_cf(families[space as usize], key, value);
                }
                Change::Delete { space, key } => changes.delete_cf(families[space as usize], key),
                Change::DeleteRange { space, start, end } => {
                    changes.delete_range_cf(families[space as usize], start, end);
                }
            }
        }
        let written = self.db.write_opt(changes, &options);
        if !batch.is_scratch() {
            self.has_failed.store(written.is_err(), Ordering::Release);
        }
        written.map_err(failure)
    }

    fn sync(&self) -> Result<()> {
        if self.has_failed.load(Ordering::Acquire) {
            return self.write(WriteBatch::default(), Durability::Sync);
        }
        self.db.flush_wal(true).map_err(failure)
    }

    fn statistics(&self) -> Statistics {
        let sum = |name| Space::ALL.iter().map(|&space| self.property(space, name)).sum();
        Statistics {
            live_bytes: sum(properties::ESTIMATE_LIVE_DATA_SIZE),
            file_bytes: sum(properties::TOTAL_SST_FILES_SIZE),
            memtable_bytes: sum(properties::CUR_SIZE_ALL_MEM_TABLES),
            cache_bytes: self.cache.get_usage() as u64,
            entries: Space::ALL.map(|space| self.property(space, properties::ESTIMATE_NUM_KEYS)),
            background_errors: self.property(Space::Meta, properties::BACKGROUND_ERRORS),
            is_write_stopped: self.property(Space::Meta, properties::IS_WRITE_STOPPED) != 0,
        }
    }
}

/// RocksDB's error as ours. It tells a full disk from other failures only in its text.
fn failure(error: rocksdb::Error) -> Error {
    let kind = error.kind();
    let message = error.into_string();
    let full = ["No space left", "Disk quota exceeded", "Max allowed space was reached"];
    match kind {
        ErrorKind::Corruption => Error::corrupt(message),
        _ if full.iter().any(|text| message.contains(text)) => {
            StorageError { message, kind: StorageErrorKind::NoSpace }.into()
        }
        ErrorKind::IOError => StorageError { message, kind: StorageErrorKind::Io }.into(),
        _ => StorageError { message, kind: StorageErrorKind::Other }.into(),
    }
}

fn io_error(path: &Path, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StorageErrorKind::NoSpace,
        _ => StorageErrorKind::Io,
    };
    StorageError { message: format!("{}: {error}", path.display()), kind }.into()
}

/// Make the directory if need be, for its owner only. One that is there keeps its permissions.
fn make_directory(directory: &Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Lock the directory for as long as the file is open. The kernel frees it when a process dies, however
/// it dies, so there are no stale locks. RocksDB has a lock of its own, which cannot say who holds it.
fn lock(directory: &Path) -> Result<File> {
    let path = directory.join("PROCESS");
    let failed = |error: &std::io::Error| io_error(&path, error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| failed(&error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message: that it cannot be read changes nothing.
            let _ = file.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_string(),
                pid => format!("process {pid}"),
            };
            return Err(Error::Locked(format!("{} is in use by {holder}", directory.display())));
        }
        Err(TryLockError::Error(error)) => return Err(failed(&error)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        file.flush()
    };
    write(&mut file).map_err(|error| failed(&error))?;
    Ok(file)
}

/// Check the directory's format, or write ours into an empty one before RocksDB makes its first file.
fn check_format(directory: &Path) -> Result<()> {
    let path = directory.join("FORMAT");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let found = text.strip_prefix("pgbee ").and_then(|version| version.trim().parse().ok());
            match found {
                Some(FORMAT_VERSION) => Ok(()),
                // Said before anything of the newer format is written, so that an older pgbee refuses it.
                Some(FORMAT_VERSION_MIN..FORMAT_VERSION) => {
                    write_format(directory).map_err(|error| io_error(&path, &error))
                }
                Some(found) => Err(Error::FormatVersion { found, supported: FORMAT_VERSION }),
                None => Err(Error::corrupt(format!("{} is not pgbee's", path.display()))),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if directory.join("CURRENT").exists() {
                let directory = directory.display();
                return Err(Error::Invalid(format!("{directory} holds a RocksDB that is not pgbee's")));
            }
            write_format(directory).map_err(|error| io_error(&path, &error))
        }
        Err(error) => Err(io_error(&path, &error)),
    }
}

/// Atomically and durably, or the next opener could find it empty.
fn write_format(directory: &Path) -> std::io::Result<()> {
    let temporary = directory.join("FORMAT.new");
    let mut file = File::create(&temporary)?;
    writeln!(file, "pgbee {FORMAT_VERSION}")?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join("FORMAT"))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> RocksOptions {
        RocksOptions { block_cache_bytes: 1 << 20, write_buffer_bytes: 1 << 20, background_jobs: 2 }
    }

    #[test]
    fn a_second_opener_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Rocks::open(dir.path().join("store"), &small()).unwrap();
        match Rocks::open(dir.path().join("store"), &small()) {
            Err(Error::Locked(message)) => {
                assert!(message.contains(&std::process::id().to_string()), "{message}");
            }
            other => panic!("{:?}", other.err()),
        }
        drop(first);
        Rocks::open(dir.path().join("store"), &small()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(dir.path().join("store")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }

    #[test]
    fn other_formats_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Rocks::open(dir.path(), &small()).unwrap());
        fs::write(dir.path().join("FORMAT"), "pgbee 7\n").unwrap();
        let found = Rocks::open(dir.path(), &small()).err();
        assert_eq!(found, Some(Error::FormatVersion { found: 7, supported: FORMAT_VERSION }));
        fs::write(dir.path().join("FORMAT"), "pgbee 1\n").unwrap();
        drop(Rocks::open(dir.path(), &small()).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("FORMAT")).unwrap(), format!("pgbee {FORMAT_VERSION}\n"));
        fs::write(dir.path().join("FORMAT"), "postgres\n").unwrap();
        assert!(matches!(Rocks::open(dir.path(), &small()), Err(Error::Corrupt { .. })));
        fs::remove_file(dir.path().join("FORMAT")).unwrap();
        assert!(matches!(Rocks::open(dir.path(), &small()), Err(Error::Invalid(_))));
    }

    #[test]
    fn scratch_is_empty_after_opening_and_the_rest_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Rocks::open(dir.path(), &small()).unwrap();
        let mut scratch = WriteBatch::new();
        scratch.put(Space::Scratch, b"k", b"v");
        store.write(scratch, Durability::NoSync).unwrap();
        assert_eq!(store.get(Space::Scratch, b"k").unwrap().unwrap(), "v");
        let mut batch = WriteBatch::new();
        for n in 0..10u8 {
            batch.put(Space::Block, &[n], &[n; 3]);
        }
        batch.delete_range(Space::Block, &[3], &[6]);
        batch.delete(Space::Block, &[8]);
        batch.put(Space::Block, &[4], b"again");
        store.write(batch, Durability::Sync).unwrap();
        drop(store);

        let store = Rocks::open(dir.path(), &small()).unwrap();
        assert_eq!(store.get(Space::Scratch, b"k").unwrap(), None);
        let keys = |range: Range, reverse| -> Vec<u8> {
            store.scan(Space::Block, range, reverse).map(|entry| entry.unwrap().0[0]).collect()
        };
        assert_eq!(keys(Range::all(), false), [0, 1, 2, 4, 6, 7, 9]);
        assert_eq!(keys(Range::new([1], [7]), true), [6, 4, 2, 1]);
        assert_eq!(keys(Range::new([7], [1]), false), []);
        let values = store.multi_get(Space::Block, &[&[4], &[5], &[9]]).unwrap();
        assert_eq!(values[0].as_deref(), Some(&b"again"[..]));
        assert_eq!((values[1].as_deref(), values[2].as_deref()), (None, Some(&[9, 9, 9][..])));
        assert!(store.statistics().entries[1] > 0);
    }
}
