//! Where peers are looked for, and how far that reaches: `--swarm off | public | HOST:PORT,...`, resolved to addresses to ask and an address to bind.
//!
//! ```text
//!                     nothing said    off    public                       HOST:PORT,...
//! serve               off             off    the public bootstrap nodes   these
//! follow --peer *     off             off    "                            "
//! follow              public          off    "                            "
//!
//! * or with peers that were named at an earlier time
//!
//! bound on   off: nothing is    all nodes on loopback: 127.0.0.1    else: 0.0.0.0
//! ```
//!
//! What must stay true: nothing is bound and nobody is asked unless that was chosen; what has only loopback to ask is bound where only loopback reaches it; the
//! public nodes are asked only where `public` was said, or where follow was given nobody else to ask, which is told on a line of its own.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};

use crate::config::{Config, Problem, is_address};

/// The nodes that everybody's HyperDHT begins with. Source: hyperdht `lib/constants.js`.
const PUBLIC: [SocketAddrV4; 3] = [
    SocketAddrV4::new(Ipv4Addr::new(88, 99, 3, 86), 49737),
    SocketAddrV4::new(Ipv4Addr::new(142, 93, 90, 113), 49737),
    SocketAddrV4::new(Ipv4Addr::new(138, 68, 147, 8), 49737),
];

/// What was said of the swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwarmChoice {
    /// None.
    Off,
    /// Everybody's.
    Public,
    /// That of these `host:port` nodes.
    Private(Vec<String>),
}

impl SwarmChoice {
    /// From an option's value.
    ///
    /// # Errors
    /// It is none of the three.
    pub fn parse(name: &str, value: &str) -> Result<SwarmChoice, Problem> {
        match value {
            "off" | "" => return Ok(SwarmChoice::Off),
            "public" => return Ok(SwarmChoice::Public),
            _ => {}
        }
        let nodes: Vec<String> = value.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
        if !nodes.is_empty() && nodes.iter().all(|node| is_node(node)) {
            return Ok(SwarmChoice::Private(nodes));
        }
        let wanted = if name == "bootstrap" { "HOST:PORT,..." } else { "off, public or HOST:PORT,..." };
        Err(Problem(format!("--{name} wants {wanted}, not {value}")))
    }

    /// What was said, or else what the command does by itself; `known_peers`: there are some for what is followed, from an earlier time.
    pub fn of(config: &Config, is_follow: bool, known_peers: bool) -> SwarmChoice {
        match &config.swarm {
            Some(said) => said.clone(),
            None if is_follow && !known_peers && config.peers.is_empty() => SwarmChoice::Public,
            None => SwarmChoice::Off,
        }
    }

    /// As bee_swarm shows it.
    pub fn title(&self) -> String {
        match self {
            SwarmChoice::Off => "off".to_owned(),
            SwarmChoice::Public => "public".to_owned(),
            SwarmChoice::Private(nodes) => nodes.join(","),
        }
    }

    /// Whom to ask first and where to bind; None for no swarm. Looks up names of a private network's nodes, so it may wait.
    ///
    /// # Errors
    /// No node of a private network has an IPv4 address. Of several, some may have none for the moment, which is told.
    pub fn reach(&self) -> Result<Option<Reach>, Problem> {
        match self {
            SwarmChoice::Off => Ok(None),
            SwarmChoice::Public => Ok(Some(Reach::of(PUBLIC.to_vec()))),
            SwarmChoice::Private(nodes) => {
                let (found, missing): (Vec<_>, Vec<_>) = nodes.iter().map(address_of).partition(Result::is_ok);
                let found: Vec<SocketAddrV4> = found.into_iter().flatten().collect();
                let mut missing = missing.into_iter().filter_map(Result::err);
                if found.is_empty() {
                    let problem = missing.next();
                    return Err(problem.unwrap_or_else(|| Problem("no node of the swarm is named".to_owned())));
                }
                missing.for_each(|Problem(why)| tracing::warn!("a node of the swarm is left out: {why}"));
                Ok(Some(Reach::of(found)))
            }
        }
    }
}

/// Whom to ask first, and where to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Nodes of the DHT.
    pub bootstrap: Vec<SocketAddrV4>,
    /// Address of ours.
    pub host: Ipv4Addr,
}

impl Reach {
    fn of(bootstrap: Vec<SocketAddrV4>) -> Reach {
        let is_local = bootstrap.iter().all(|node| node.ip().is_loopback());
        Reach { bootstrap, host: if is_local { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED } }
    }
}

/// Whether it can be `host:port` of a node: one that is somewhere.
pub fn is_node(text: &str) -> bool {
    is_address(text) && text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Addresses of `host:port` nodes: the DHT's are IPv4.
///
/// # Errors
/// One that has none.
pub fn resolve(nodes: &[String]) -> Result<Vec<SocketAddrV4>, Problem> {
    nodes.iter().map(address_of).collect()
}

fn address_of(node: &String) -> Result<SocketAddrV4, Problem> {
    let found = node.to_socket_addrs().map_err(|error| Problem(format!("{node}: {error}")))?;
    found
        .filter_map(|address| if let SocketAddr::V4(address) = address { Some(address) } else { None })
        .next()
        .ok_or_else(|| Problem(format!("{node} has no IPv4 address, and the DHT's nodes have")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(command: &str) -> (SwarmChoice, Option<Reach>) {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let (config, _) = Config::read(&words[1..]).expect("good flags");
        let choice = SwarmChoice::of(&config, words[0] == "follow", words.contains(&"known".to_owned()));
        let reach = choice.reach().expect("addresses");
        (choice, reach)
    }

    /// Nothing goes further than was chosen: a default that could is a failure here.
    #[test]
    fn no_default_reaches_the_public_network() {
        for command in [
            "serve --data /nowhere/at/all",
            "serve --data /nowhere/at/all --peer-listen 127.0.0.1:0 --swarm-port 4000 --follow-on-connect",
            "serve --data /nowhere/at/all --swarm off",
            "follow KEY --data /nowhere/at/all --peer 127.0.0.1:4000",
            "follow KEY known --data /nowhere/at/all",
            "follow KEY --data /nowhere/at/all --swarm off",
            "follow KEY --data /nowhere/at/all --swarm=",
        ] {
            assert_eq!(choice(command), (SwarmChoice::Off, None), "{command}: nobody is asked and nothing is bound");
        }
        assert_eq!(Config::default().swarm, None);
        for command in [
            "serve --data /nowhere/at/all --swarm 127.0.0.1:4000",
            "serve --data /nowhere/at/all --bootstrap 127.0.0.1:4000 --bootstrap 127.0.0.2:4001",
            "follow KEY --data /nowhere/at/all --bootstrap 127.0.0.1:4000",
            "follow KEY --data /nowhere/at/all --peer 127.0.0.1:1 --swarm 127.0.0.1:4000,127.0.0.1:4001",
        ] {
            let (_, reach) = choice(command);
            let reach = reach.expect("a swarm was asked for");
            assert_eq!(reach.host, Ipv4Addr::LOCALHOST, "{command}: nothing reaches further than loopback");
            assert!(reach.bootstrap.iter().all(|node| node.ip().is_loopback()), "{command}");
        }
    }

    #[test]
    fn the_public_network_is_asked_where_that_was_chosen() {
        for command in [
            "serve --data /nowhere/at/all --swarm public",
            "follow KEY --data /nowhere/at/all",
            "follow KEY --data /nowhere/at/all --peer 127.0.0.1:1 --swarm public",
        ] {
            let (choice, reach) = choice(command);
            assert_eq!((choice.title().as_str(), reach.expect("a swarm").bootstrap.len()), ("public", 3), "{command}");
        }
        let (_, reach) = choice("serve --data /nowhere/at/all --swarm 127.0.0.1:4000,10.1.2.3:4001");
        assert_eq!(reach.expect("a swarm").host, Ipv4Addr::UNSPECIFIED, "a node elsewhere has to reach us");
    }

    #[test]
    fn wrong_choices_are_refused() {
        for flags in [
            "--swarm nowhere",
            "--swarm ,",
            "--bootstrap public",
            "--bootstrap off",
            "--swarm 127.0.0.1:99999",
            "--swarm 127.0.0.1:0",
            "--swarm-port x",
            "--relay x",
            "--follow-on-connect=maybe",
        ] {
            let words: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
            assert!(Config::read(&words).is_err(), "{flags} was accepted");
        }
        assert!(resolve(&["[::1]:4000".to_owned()]).is_err());
        // One of several that cannot be found is done without; all of them cannot.
        let reach = |nodes: &[&str]| SwarmChoice::Private(nodes.iter().map(|n| (*n).to_owned()).collect()).reach();
        let found = reach(&["[::1]:4000", "127.0.0.1:4000"]).expect("one is enough").expect("a swarm");
        assert_eq!((found.bootstrap.len(), found.host), (1, Ipv4Addr::LOCALHOST));
        assert!(reach(&["[::1]:4000", "[::1]:4001"]).is_err());
    }
}
