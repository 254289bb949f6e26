//! Settings of the program: one struct, its defaults beside its fields; flags win over the environment, that over `pgbee.toml`.

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use pgbee_sql::follow::parse_key;
use pgbee_sql::session::InstanceOptions;

use crate::memory::default_cache_mb;
use crate::swarm::SwarmChoice;

/// All settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Data directory.
    pub data: PathBuf,
    /// Address of the wire protocol.
    pub listen: SocketAddr,
    /// Address peers connect to; none by default.
    pub peer_listen: Option<SocketAddr>,
    /// follow: the database's name here.
    pub name: Option<String>,
    /// follow: `host:port` of peers.
    pub peers: Vec<String>,
    /// follow: what the blocks are encrypted with.
    pub read_key: Option<String>,
    /// follow: fetch everything.
    pub mirror: bool,
    /// Where peers are looked for; None if nothing was said.
    pub swarm: Option<SwarmChoice>,
    /// UDP port of the swarm; 0 for any.
    pub swarm_port: u16,
    /// Public key of a relay for those who cannot be reached otherwise.
    pub relay: Option<[u8; 32]>,
    /// Whether all roles follow a database by connecting to its key.
    pub follow_on_connect: bool,
    /// Connections served at once.
    pub max_connections: usize,
    /// Memory for decoded nodes, in MiB: a quarter of what there is.
    pub cache_mb: usize,
    /// Memory for stored blocks, in MiB.
    pub block_cache_mb: usize,
    /// Memory of a transaction's writes, in MiB.
    pub write_set_mb: usize,
    /// work_mem, in MiB.
    pub work_mem_mb: usize,
    /// Memory of all statements for what they cannot spill, in MiB.
    pub memory_mb: usize,
    /// Longest message, in MiB.
    pub max_message_mb: usize,
    /// Log lines as JSON.
    pub log_json: bool,
    /// Log filter, as the `tracing` crates write it.
    pub log: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data: PathBuf::from("pgbee-data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 5432)),
            peer_listen: None,
            name: None,
            peers: Vec::new(),
            read_key: None,
            mirror: false,
            swarm: None,
            swarm_port: 0,
            relay: None,
            follow_on_connect: false,
            max_connections: 100,
            cache_mb: default_cache_mb(),
            block_cache_mb: 128,
            write_set_mb: 64,
            work_mem_mb: 16,
            memory_mb: 1024,
            max_message_mb: 256,
            log_json: false,
            log: "info".to_owned(),
        }
    }
}

/// Flags that only `follow` knows.
pub const OF_FOLLOW: [&str; 4] = ["name", "peer", "read-key", "mirror"];

/// What is wrong with a setting, in one line.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem(pub String);

const NAMES: [&str; 21] = [
    "data",
    "listen",
    "peer-listen",
    "name",
    "peer",
    "read-key",
    "mirror",
    "swarm",
    "bootstrap",
    "swarm-port",
    "relay",
    "follow-on-connect",
    "max-connections",
    "cache-mb",
    "block-cache-mb",
    "write-set-mb",
    "work-mem-mb",
    "memory-mb",
    "max-message-mb",
    "log-format",
    "log",
];

impl Config {
    /// Reads the flags; what they leave open, the environment; what that leaves open, `pgbee.toml` of the data directory. Also returns the words that are no flags.
    ///
    /// # Errors
    /// An unknown flag or a value that is none.
    pub fn read(arguments: &[String]) -> Result<(Config, Vec<String>), Problem> {
        let (flags, words) = split_flags(arguments)?;
        let environment: Vec<(String, String)> = NAMES
            .iter()
            .filter_map(|name| {
                Some((
                    (*name).to_owned(),
                    std::env::var(format!("PGBEE_{}", name.to_uppercase().replace('-', "_"))).ok()?,
                ))
            })
            .collect();
        said_once(flags.iter().map(|(name, _)| name.as_str()), "--")?;
        said_once(environment.iter().map(|(name, _)| name.as_str()), "PGBEE_")?;
        let mut config = Config::default();
        // The data directory decides where the file is, so it is looked for first.
        for (name, value) in environment.iter().chain(&flags).filter(|(name, _)| name == "data") {
            config.set(name, value)?;
        }
        let file = config.data.join("pgbee.toml");
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                config.set_from_file(&text).map_err(|Problem(what)| Problem(format!("{}: {what}", file.display())))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Problem(format!("{}: {error}", file.display()))),
        }
        for (name, value) in environment.iter().chain(&flags) {
            config.set(name, value)?;
        }
        Ok((config, words))
    }

    fn set_from_file(&mut self, text: &str) -> Result<(), Problem> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| Problem(e.message().to_owned()))?;
        said_once(table.keys().map(String::as_str), "")?;
        for (name, value) in table {
            let value = match value {
                toml::Value::String(s) => s,
                toml::Value::Integer(i) => i.to_string(),
                toml::Value::Boolean(b) => b.to_string(),
                toml::Value::Array(items) if matches!(name.as_str(), "peer" | "swarm" | "bootstrap") => {
                    let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
                    texts.ok_or_else(|| Problem(format!("{name} wants strings")))?.join(",")
                }
                _ => return Err(Problem(format!("{name} wants a string or a number"))),
            };
            let name = name.replace('_', "-");
            if name == "data" {
                return Err(Problem("the data directory cannot be set inside itself".into()));
            }
            self.set(&name, &value)?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        let number = || {
            value
                .parse::<usize>()
                .ok()
                .filter(|n| (1..=1 << 20).contains(n))
                .ok_or_else(|| Problem(format!("--{name} wants a positive number, not {value}")))
        };
        match name {
            "data" => self.data = PathBuf::from(value),
            "listen" => {
                let wrong = || Problem(format!("--listen wants HOST:PORT, not {value}"));
                self.listen = value.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(wrong)?;
            }
            "peer-listen" => {
                self.peer_listen = match value {
                    "off" | "" => None,
                    _ => {
                        let wrong = || Problem(format!("--peer-listen wants HOST:PORT or off, not {value}"));
                        Some(value.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(wrong)?)
                    }
                }
            }
            "name" => self.name = Some(value.to_owned()).filter(|name| !name.is_empty()),
            "peer" => {
                self.peers = value.split(',').map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect();
                if let Some(wrong) = self.peers.iter().find(|p| !is_address(p)) {
                    return Err(Problem(format!("--peer wants HOST:PORT, not {wrong}")));
                }
            }
            "read-key" => self.read_key = Some(value.to_owned()).filter(|key| !key.is_empty()),
            "mirror" => self.mirror = truth(name, value)?,
            "swarm" => self.swarm = Some(SwarmChoice::parse(name, value)?),
            "bootstrap" => match SwarmChoice::parse(name, value)? {
                private @ SwarmChoice::Private(_) => self.swarm = Some(private),
                _ => return Err(Problem(format!("--bootstrap wants HOST:PORT, not {value}"))),
            },
            "swarm-port" => {
                let wrong = || Problem(format!("--swarm-port wants a port, not {value}"));
                self.swarm_port = value.parse().map_err(|_| wrong())?;
            }
            "relay" => {
                let wrong = || Problem(format!("--relay wants the key that pgbee dht --relay prints, not {value}"));
                self.relay = if value.is_empty() { None } else { Some(parse_key(value).map_err(|_| wrong())?.0) };
            }
            "follow-on-connect" => self.follow_on_connect = truth(name, value)?,
            "max-connections" => self.max_connections = number()?,
            "cache-mb" => self.cache_mb = number()?,
            "block-cache-mb" => self.block_cache_mb = number()?,
            "write-set-mb" => self.write_set_mb = number()?,
            "work-mem-mb" => self.work_mem_mb = number()?,
            "memory-mb" => self.memory_mb = number()?,
            "max-message-mb" => {
                self.max_message_mb = number()?;
                if !(1..=1023).contains(&self.max_message_mb) {
                    return Err(Problem(format!("--max-message-mb wants 1 to 1023, not {value}")));
                }
            }
            "log-format" => {
                self.log_json = match value {
                    "json" => true,
                    "text" => false,
                    _ => return Err(Problem(format!("--log-format wants text or json, not {value}"))),
                }
            }
            "log" => self.log = value.to_owned(),
            _ => return Err(Problem(format!("there is no option {name}"))),
        }
        Ok(())
    }

    /// What the instance needs of them.
    pub fn instance_options(&self) -> InstanceOptions {
        InstanceOptions {
            cache_bytes: self.cache_mb << 20,
            block_cache_bytes: self.block_cache_mb << 20,
            write_set_bytes: self.write_set_mb << 20,
            work_mem_bytes: self.work_mem_mb << 20,
            memory_bytes: self.memory_mb << 20,
            max_connections: self.max_connections,
            port: self.listen.port(),
            follow_on_connect: self.follow_on_connect,
        }
    }
}

/// Which swarm is said by one of two names, and at one place by one of them.
fn said_once<'a>(names: impl Iterator<Item = &'a str>, prefix: &str) -> Result<(), Problem> {
    if names.filter(|name| matches!(*name, "swarm" | "bootstrap")).collect::<BTreeSet<_>>().len() < 2 {
        return Ok(());
    }
    let (mut swarm, mut bootstrap) = (format!("{prefix}swarm"), format!("{prefix}bootstrap"));
    if prefix == "PGBEE_" {
        (swarm, bootstrap) = (swarm.to_uppercase(), bootstrap.to_uppercase());
    }
    Err(Problem(format!("{swarm} and {bootstrap} say the same thing: give one of them")))
}

/// on or off.
fn truth(name: &str, value: &str) -> Result<bool, Problem> {
    match value {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err(Problem(format!("--{name} wants on or off, not {value}"))),
    }
}

/// Whether it can be `host:port`. The host is looked up when it is connected to, and again whenever the connection is lost.
pub fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// Flags (`--name value`, `--name=value`) and other words. `--mirror` and `--follow-on-connect` need no value; several `--peer` are one list, and so are several `--bootstrap`.
pub fn split_flags(arguments: &[String]) -> Result<(Vec<(String, String)>, Vec<String>), Problem> {
    let (mut flags, mut words): (Vec<(String, String)>, Vec<String>) = (Vec::new(), Vec::new());
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let Some(flag) = word.strip_prefix("--") else {
            words.push(word.clone());
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None if matches!(flag, "mirror" | "follow-on-connect") => (flag, "on".to_owned()),
            None => (flag, rest.next().ok_or_else(|| Problem(format!("--{flag} wants a value")))?.clone()),
        };
        if !NAMES.contains(&name) {
            return Err(Problem(format!("there is no option --{name}")));
        }
        match flags.iter_mut().find(|(known, _)| known == name && matches!(name, "peer" | "bootstrap")) {
            Some((_, listed)) => {
                listed.push(',');
                listed.push_str(&value);
            }
            None => flags.push((name.to_owned(), value)),
        }
    }
    Ok((flags, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn flags_are_read_and_wrong_ones_refused() {
        let (config, rest) = Config::read(&words("shop --data=/nowhere/at/all --listen 127.0.0.1:7000 --cache-mb 5"))
            .expect("good flags");
        assert_eq!((config.listen.port(), config.cache_mb, rest), (7000, 5, vec!["shop".to_owned()]));
        for wrong in ["--listen nowhere", "--cache-mb 0", "--cache-mb", "--colour blue", "--log-format xml"] {
            assert!(Config::read(&words(wrong)).is_err(), "{wrong} was accepted");
        }
    }

    #[test]
    fn several_peers_are_a_list() {
        let words =
            words("KEY --peer 10.0.0.1:1 --mirror --peer=host.example:2,[::1]:3 --name shop --data /nowhere/at/all");
        let (config, rest) = Config::read(&words).expect("good flags");
        assert_eq!(config.peers, ["10.0.0.1:1", "host.example:2", "[::1]:3"]);
        assert_eq!((config.mirror, config.name.as_deref(), rest), (true, Some("shop"), vec!["KEY".to_owned()]));
        let mut config = Config::default();
        config
            .set_from_file("peer = [\"a:1\", \"b:2\"]\nmirror = true\npeer_listen = \"127.0.0.1:0\"")
            .expect("a good file");
        assert_eq!((config.peers.len(), config.mirror, config.peer_listen.is_some()), (2, true, true));
        for wrong in ["--peer nowhere", "--peer :1", "--peer a:70000", "--mirror=maybe", "--peer-listen x"] {
            assert!(Config::read(&super::tests::words(wrong)).is_err(), "{wrong} was accepted");
        }
    }

    #[test]
    fn one_swarm_is_said_at_one_place() {
        let read = |text: &str| Config::read(&words(text));
        assert!(read("--data /nowhere/at/all --swarm off --bootstrap 127.0.0.1:1").is_err());
        assert!(read("--data /nowhere/at/all --swarm 127.0.0.1:1 --bootstrap=127.0.0.1:1").is_err());
        let (config, _) = read("--data /nowhere/at/all --swarm 127.0.0.1:1 --swarm off").expect("the last one counts");
        assert_eq!(config.swarm, Some(SwarmChoice::Off));
        let mut config = Config::default();
        assert!(config.set_from_file("swarm = \"off\"\nbootstrap = \"127.0.0.1:1\"").is_err());
        config.set_from_file("bootstrap = [\"127.0.0.1:1\", \"a.example:2\"]").expect("a good file");
        let private = SwarmChoice::Private(vec!["127.0.0.1:1".into(), "a.example:2".into()]);
        assert_eq!(config.swarm, Some(private), "and what is said elsewhere is stronger or weaker, as ever");
        config.set("swarm", "off").expect("a good flag");
        assert_eq!(config.swarm, Some(SwarmChoice::Off));
    }

    #[test]
    fn the_file_is_weaker_than_a_flag() {
        let mut config = Config::default();
        config.set_from_file("listen = \"127.0.0.1:6000\"\ncache_mb = 7").expect("a good file");
        assert_eq!((config.listen.port(), config.cache_mb), (6000, 7));
        assert!(config.set_from_file("data = \"x\"").is_err());
        assert!(config.set_from_file("cache_mb = [1]").is_err());
    }
}
