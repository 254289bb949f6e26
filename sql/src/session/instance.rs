//! A data directory: its databases, each a bee in a core of its own, and what never enters a bee.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Session;
use crate::error::{Result, SqlError};

/// How an instance uses the machine.
#[derive(Clone, Debug)]
pub struct InstanceOptions {
    /// Memory for decoded nodes and entries of all databases.
    pub cache_bytes: usize,
    /// Memory for the store's own blocks.
    pub block_cache_bytes: usize,
    /// Memory one transaction may use for its writes before they are put aside on disk.
    pub write_set_bytes: usize,
    /// Default of work_mem, in bytes.
    pub work_mem_bytes: usize,
    /// What `SHOW max_connections` says; the server enforces it.
    pub max_connections: usize,
    /// What `SHOW port` says.
    pub port: u16,
}

impl Default for InstanceOptions {
    fn default() -> Self {
        InstanceOptions {
            cache_bytes: 256 << 20,
            block_cache_bytes: 128 << 20,
            write_set_bytes: 64 << 20,
            work_mem_bytes: 4 << 20,
            max_connections: 100,
            port: 5432,
        }
    }
}

/// Who connects to what.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Role. Whether it may is the server's to know.
    pub user: String,
    /// `name`, or `name@version` for a past one.
    pub database: String,
    /// Settings of the startup packet and of its `options`, in order (application_name, client_encoding ...).
    pub settings: Vec<(String, String)>,
    /// Process id told to the client.
    pub backend_pid: i32,
    /// Address and port of the client, if it has any, as pg_stat_activity shows it.
    pub client: Option<std::net::SocketAddr>,
}

/// What [`Instance::verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Blocks hashed.
    pub blocks: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// A data directory in use by this process, and its databases.
pub struct Instance {
    dir: PathBuf,
}

impl Instance {
    /// Opens a data directory; an empty or missing one is made, with a database `postgres`.
    ///
    /// # Errors
    /// 55000 when another process uses it, XX000 when it is not ours or of another format, 58030 when the disk fails.
    pub fn open(dir: &Path, options: InstanceOptions) -> Result<Arc<Instance>> {
        unfinished((dir, options))
    }
    /// An instance that keeps nothing: for tests.
    pub fn in_memory(options: InstanceOptions) -> Result<Arc<Instance>> {
        unfinished(options)
    }
    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// A session in a database.
    ///
    /// # Errors
    /// 3D000 unknown database, 22023 a version that is none, and those of the settings.
    pub fn connect(self: &Arc<Self>, options: ConnectOptions) -> Result<Session> {
        unfinished(options)
    }
    /// Names of the databases.
    pub fn databases(&self) -> Vec<String> {
        Vec::new()
    }
    /// CREATE DATABASE. 42P04 if there is one.
    pub fn create_database(&self, name: &str) -> Result<()> {
        unfinished(name)
    }
    /// DROP DATABASE: its name goes; its log stays on disk, since others may follow it. 3D000 if there is none, 55006 while in use.
    pub fn drop_database(&self, name: &str) -> Result<()> {
        unfinished(name)
    }
    /// The public key replicas follow the database by.
    pub fn key(&self, database: &str) -> Result<[u8; 32]> {
        unfinished(database)
    }
    /// Re-hashes a database's log against its signed root; `progress` gets (blocks done, blocks in all).
    ///
    /// # Errors
    /// XX001 naming the first bad block.
    pub fn verify(&self, database: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified> {
        let _ = progress;
        unfinished(database)
    }
    /// A role's password verifier (`SCRAM-SHA-256$...`), which never enters a bee.
    pub fn password_verifier(&self, role: &str) -> Result<Option<String>> {
        unfinished(role)
    }
    /// Sets or removes a role's password verifier.
    pub fn set_password_verifier(&self, role: &str, verifier: Option<&str>) -> Result<()> {
        unfinished((role, verifier))
    }
    /// Cancels all sessions (57P01), waits for running commits and makes everything durable. The instance takes no connections after it.
    pub fn shutdown(&self) -> Result<()> {
        unfinished(())
    }
}

fn unfinished<A, T>(_: A) -> Result<T> {
    Err(SqlError::internal("the session is being written"))
}
