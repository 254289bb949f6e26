//! `pgbee follow`: which database it is here, and fetching all of it.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgbee_sql::follow::{CoreKey, CoreStatus, parse_read_key};
use pgbee_sql::session::Instance;
use tokio::task::JoinHandle;

use crate::cli::{Failure, failed};
use crate::config::Config;
use crate::node::describe;

/// Characters of a key that make a name.
const NAME_CHARACTERS: usize = 8;
/// How often a mirror's progress is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How often it is told where there is no terminal.
const TELL: Duration = Duration::from_secs(5);
/// Characters of the progress bar.
const BAR: usize = 30;

/// The name of the database that follows a key: the one it has, or a new one. Peers that are named replace those of an earlier time.
///
/// # Errors
/// Another database has the name, the key is our own, or the key is followed under another name than the one asked for.
pub fn begin(instance: &Instance, key: CoreKey, config: &Config) -> Result<String, Failure> {
    let failed = |error| failed(describe(&error));
    let read_key = config.read_key.as_deref().map(parse_read_key).transpose().map_err(failed)?;
    let known = instance.followed().into_iter().find(|(_, followed, _)| *followed == key);
    if let Some((name, ..)) = known {
        if let Some(other) = config.name.as_ref().filter(|other| **other != name) {
            return Err(crate::cli::failed(format!("this key is followed here as database {name}, not {other}")));
        }
        if let Some(read_key) = &read_key {
            instance.set_read_key(&name, read_key).map_err(failed)?;
        }
        if !config.peers.is_empty() {
            instance.set_peers(&name, &config.peers).map_err(failed)?;
        }
        return Ok(name);
    }
    let name = config.name.clone().unwrap_or_else(|| key.to_z32()[..NAME_CHARACTERS].to_owned());
    instance.follow_database(&name, key, &config.peers, read_key.as_ref()).map_err(failed)?;
    Ok(name)
}

/// Fetches all of a followed database from now on, and shows how far it is.
///
/// # Errors
/// It is not followed.
pub fn mirror(instance: Arc<Instance>, name: String) -> Result<JoinHandle<()>, Failure> {
    instance.mirror(&name, true).map_err(|e| failed(describe(&e)))?;
    Ok(tokio::spawn(async move {
        let mut shown = Shown::new(name.clone());
        loop {
            let (instance, name) = (instance.clone(), name.clone());
            let found = tokio::task::spawn_blocking(move || {
                instance.cores().map(|cores| cores.into_iter().find(|core| core.database == name))
            });
            match found.await {
                Ok(Ok(Some(core))) => shown.update(&core),
                Ok(Ok(None)) => return,
                Ok(Err(error)) => tracing::warn!("mirror: {}", describe(&error)),
                Err(_) => return,
            }
            tokio::time::sleep(LOOK).await;
        }
    }))
}

/// What was shown of a mirror last.
struct Shown {
    name: String,
    terminal: bool,
    /// Blocks that were here then, and how many there should be.
    last: Option<(u64, u64)>,
    told: Instant,
    started: Option<(Instant, u64)>,
}

impl Shown {
    fn new(name: String) -> Shown {
        Shown { name, terminal: std::io::stderr().is_terminal(), last: None, told: Instant::now(), started: None }
    }

    fn update(&mut self, core: &CoreStatus) {
        let (held, all) = (core.held_blocks, core.remote.map_or(core.length, |r| r.length.max(core.length)));
        let (started, from) = *self.started.get_or_insert((Instant::now(), held));
        if self.last == Some((held, all)) {
            return;
        }
        let was_whole = self.last.is_none_or(|(held, all)| held == all);
        let is_whole = held == all && all > 0;
        let per_second = (held.saturating_sub(from)) as f64 / started.elapsed().as_secs_f64().max(0.001);
        if is_whole {
            self.line(
                &format!("mirror of {}: all {all} blocks are here, version {}", self.name, core.length),
                was_whole,
            );
            self.started = None;
        } else if self.terminal {
            let mut err = std::io::stderr();
            let _ = write!(err, "\r{}", bar(&self.name, held, all, per_second));
        } else if self.told.elapsed() >= TELL {
            tracing::info!("mirror of {}: {held} of {all} blocks, {per_second:.0} a second", self.name);
            self.told = Instant::now();
        }
        self.last = Some((held, all));
    }

    /// A line of its own, below the bar if one is shown.
    fn line(&self, text: &str, was_whole: bool) {
        if self.terminal && !was_whole {
            eprintln!();
        }
        tracing::info!("{text}");
    }
}

fn bar(name: &str, held: u64, all: u64, per_second: f64) -> String {
    let part = if all == 0 { 0.0 } else { held as f64 / all as f64 };
    let full = (part * BAR as f64) as usize;
    let left = if per_second > 0.0 { (all.saturating_sub(held) as f64 / per_second).ceil() } else { f64::INFINITY };
    let left = if left.is_finite() { format!("{left:.0} s left") } else { "waiting for peers".to_owned() };
    let (done, rest) = ("#".repeat(full.min(BAR)), ".".repeat(BAR - full.min(BAR)));
    format!("{name} [{done}{rest}] {:3.0} %  {held} of {all} blocks, {per_second:.0} a second, {left}   ", part * 100.0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bar_fills_and_never_overflows() {
        let bar = |held, all| super::bar("shop", held, all, 10.0);
        assert!(bar(0, 0).contains(&format!("[{}]", ".".repeat(30))));
        assert!(bar(50, 100).contains(&format!("[{}{}]  50 %", "#".repeat(15), ".".repeat(15))));
        assert!(bar(120, 100).contains(&"#".repeat(30)) && bar(50, 100).contains("5 s left"));
    }
}
