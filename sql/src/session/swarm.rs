//! Databases that are found by their keys alone: which of ours the swarm is told of, and connecting to a key.
//!
//! ```text
//! bee.announce     own databases   off, until ALTER DATABASE .. SET: the key is the right to read, and finding comes before reading
//!                  followed ones   on, unless set off: who follows helps others to follow
//! psql -d KEY      known here: that database, whatever its name; else it is followed from now on, under its key in z-base-32
//!                  on trial until the first session ends in which something of it was seen: what nobody was found for is dropped with its last session
//! ```
//!
//! What must stay true: nothing is announced that was not to be; nothing is dropped of which a block or a signed length is here; connecting asks no peer (the first statement waits for a version); whoever may not follow a key is
//! not told whether anybody has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::instance::{Db, Instance, Private, SUPERUSER_NAME, Source, unknown_database};
use super::settings::{definition, truth};
use super::shared::on_or_off;
use super::utility::command;
use super::{Outcome, Session};
use crate::error::{Result, SqlError, state};
use crate::follow::{CoreKey, TopicStatus};
use crate::parse::ast::SetValue;

/// The one setting of a database.
pub(super) const ANNOUNCE: &str = "bee.announce";
/// Databases that were followed by connecting to them, at most: who may connect may not fill the disk with names.
const FOLLOWED_BY_CONNECTING_MAX: usize = 1000;
/// SQLSTATE insufficient_privilege.
const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// SQLSTATE configuration_limit_exceeded.
const LIMIT_EXCEEDED: &str = "53400";
/// SQLSTATE warning.
const WARNING: &str = "01000";

impl Instance {
    /// Whether the swarm is told that this server has a database.
    pub fn is_announced(&self, name: &str) -> bool {
        let private = self.private.lock();
        private.announce.get(name).copied().unwrap_or_else(|| private.followed.contains_key(name))
    }

    /// ALTER DATABASE .. SET bee.announce; None: as if it had never been set.
    ///
    /// # Errors
    /// 3D000 if there is no such database; 58030.
    pub fn set_announce(&self, name: &str, on: Option<bool>) -> Result<()> {
        {
            let mut private = self.private.lock();
            if !private.has(name) {
                return Err(unknown_database(name));
            }
            let mut next = private.clone();
            match on {
                Some(on) => next.announce.insert(name.to_owned(), on),
                None => next.announce.remove(name),
            };
            self.save(&next)?;
            *private = next;
        }
        let key = self.db(name)?.database.key();
        if let Some(network) = self.network() {
            network.announce(key, self.is_announced(name));
        }
        Ok(())
    }

    /// Settings of databases, as pg_db_role_setting shows them.
    pub(super) fn database_settings(&self) -> Vec<(String, Vec<String>)> {
        let private = self.private.lock();
        let text = |(name, on): (&String, &bool)| (name.clone(), vec![format!("{ANNOUNCE}={}", on_or_off(*on))]);
        private.announce.iter().map(text).collect()
    }

    /// What peers are looked for by, with the databases it is for.
    pub(super) fn swarm_topics(&self) -> Result<Vec<TopicStatus>> {
        let Some(swarm) = self.network().and_then(|network| network.swarm()) else { return Ok(Vec::new()) };
        let mut names: BTreeMap<[u8; 32], String> = BTreeMap::new();
        for name in self.databases() {
            if let Ok(db) = self.db(&name) {
                names.insert(db.database.core().discovery_key().0, name);
            }
        }
        let status = |topic: crate::follow::SwarmTopic| TopicStatus {
            database: names.get(&topic.discovery_key).cloned(),
            topic,
        };
        Ok(swarm.topics.into_iter().map(status).collect())
    }

    /// The database of a key that somebody connects to; followed from now on if it is not one of ours. None if it was dropped again at once.
    ///
    /// # Errors
    /// 42501 if the role may not follow, 3D000 if there is nobody to ask for it, 53400 when too many were followed like this.
    pub(super) fn database_by_key(&self, key: CoreKey, user: &str) -> Result<Option<Arc<Db>>> {
        if let Some(db) = self.known_by_key(key)? {
            return Ok(Some(db));
        }
        let name = key.to_z32();
        if user != SUPERUSER_NAME && !self.options().follow_on_connect {
            let message = format!("permission denied to follow database \"{name}\"");
            return Err(SqlError::new(INSUFFICIENT_PRIVILEGE, message)
                .detail("Only roles with the SUPERUSER attribute follow a database by connecting to its key.")
                .hint("The server's option --follow-on-connect lets all roles do so."));
        }
        let can_ask = self.network().is_some_and(|n| n.swarm().is_some() || !n.peers().is_empty());
        if !can_ask {
            return Err(unknown_database(&name).hint(
                "It is a key, and this server has nobody to ask for it: start it with --swarm, or name a peer by CREATE DATABASE ... WITH bee_key = '...' peer = 'host:port'.",
            ));
        }
        let by_connecting = self.followed().iter().filter(|(name, key, _)| *name == key.to_z32()).count();
        if by_connecting >= FOLLOWED_BY_CONNECTING_MAX {
            let message = format!("{by_connecting} databases are followed by connecting to their keys already");
            return Err(SqlError::new(LIMIT_EXCEEDED, message).hint("Drop those that nobody reads any more."));
        }
        let source = Source { key: name.clone(), peers: Vec::new(), read_key: None, is_on_trial: true };
        match self.follow_source(&name, key, source) {
            Ok(()) => tracing::info!("following {name}: {user} connected to it"),
            // Somebody else connected to it just now.
            Err(error) if matches!(error.state(), state::DUPLICATE_DATABASE | state::DUPLICATE_OBJECT) => {}
            Err(error) => return Err(error),
        }
        self.known_by_key(key)
    }

    /// A session was the last one of a database that is followed. One that was followed by connecting to its key goes again, as long as nothing of it was seen and
    /// nobody was found who may have it: it may be a slip of the pen, and is followed anew as easily.
    pub(super) fn end_trial(&self, db: &Db) {
        let name = &db.name;
        if !self.private.lock().followed.get(name).is_some_and(|source| source.is_on_trial) {
            return;
        }
        if db.database.core().len().0 > 0 {
            self.end_trial_well(name);
            return;
        }
        let (key, topic) = (db.database.key(), db.database.core().discovery_key().0);
        let swarm = self.network().and_then(|network| network.swarm());
        let is_hoped_for = self.remote(key).peers > 0
            || swarm.is_some_and(|swarm| swarm.topics.iter().any(|t| t.discovery_key == topic && t.peers > 0));
        if is_hoped_for {
            return;
        }
        let is_on_trial = |private: &Private| {
            private.followed.get(name).is_some_and(|source| source.is_on_trial) && !private.announce.contains_key(name)
        };
        match self.drop_database_if(name, is_on_trial) {
            Ok(true) => tracing::info!("{name} is not followed any more: nobody was found who has it"),
            // Somebody has set something, connected or dropped it meanwhile.
            Ok(false) => {}
            Err(error) if matches!(error.state(), super::instance::OBJECT_IN_USE | state::INVALID_CATALOG_NAME) => {}
            Err(error) => tracing::warn!("{name}: {error}"),
        }
    }

    /// Something of it is here: it stays.
    fn end_trial_well(&self, name: &str) {
        let mut private = self.private.lock();
        let mut next = private.clone();
        let Some(source) = next.followed.get_mut(name) else { return };
        source.is_on_trial = false;
        match self.save(&next) {
            Ok(()) => *private = next,
            // It is looked at again when the next session ends.
            Err(error) => tracing::warn!("{name}: {error}"),
        }
    }

    /// At a start: no session of before is left.
    pub(super) fn end_trials(&self) -> Result<()> {
        let mut private = self.private.lock();
        let mut next = private.clone();
        let mut is_changed = false;
        for (name, source) in &private.followed {
            let Some(key) = source.key.parse::<CoreKey>().ok().filter(|_| source.is_on_trial) else { continue };
            is_changed = true;
            if self.store().get_by_key(key)?.len().0 > 0 || private.announce.contains_key(name) {
                next.followed.entry(name.clone()).and_modify(|source| source.is_on_trial = false);
            } else {
                next.followed.remove(name);
            }
        }
        if is_changed {
            self.save(&next)?;
            *private = next;
        }
        Ok(())
    }

    fn known_by_key(&self, key: CoreKey) -> Result<Option<Arc<Db>>> {
        if let Some((name, ..)) = self.followed().into_iter().find(|(_, followed, _)| *followed == key) {
            match self.db(&name) {
                // Dropped meanwhile.
                Err(gone) if gone.state() == state::INVALID_CATALOG_NAME => {}
                found => return found.map(Some),
            }
        }
        for name in self.databases() {
            match self.db(&name) {
                Ok(db) if db.database.key() == key => return Ok(Some(db)),
                // One that cannot be opened, or was dropped meanwhile, is not it.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(None)
    }
}

impl Session {
    /// ALTER DATABASE .. SET | RESET.
    pub(super) fn alter_database(&mut self, name: &str, setting: Option<&str>, value: &SetValue) -> Result<Outcome> {
        self.refuse_in_block("ALTER DATABASE")?;
        if self.user != SUPERUSER_NAME {
            return Err(SqlError::new(INSUFFICIENT_PRIVILEGE, format!("must be owner of database {name}")));
        }
        let setting = setting.unwrap_or(ANNOUNCE);
        let Some(known) = definition(setting) else {
            let message = format!("unrecognized configuration parameter \"{setting}\"");
            return Err(SqlError::new(state::UNDEFINED_OBJECT, message));
        };
        if known.name != ANNOUNCE {
            return Err(SqlError::unsupported(format!("ALTER DATABASE ... SET {}", known.name)));
        }
        let on = match value {
            SetValue::Default => None,
            SetValue::Current => Some(self.instance.is_announced(&self.shared.db.name)),
            SetValue::Values(values) => Some(truth(known, values)?),
            SetValue::Interval(text) => Some(truth(known, std::slice::from_ref(text))?),
        };
        self.instance.set_announce(name, on)?;
        let has_swarm = self.instance.network().is_some_and(|network| network.swarm().is_some());
        if on == Some(true) && !has_swarm {
            self.warn(WARNING, "this server takes part in no swarm: nobody is told before it is started with --swarm");
        }
        command("ALTER DATABASE")
    }
}
