//! The command line: what can be asked of the program, and the help that says so.

use std::io::{BufRead, IsTerminal, Write};

use pgbee_sql::session::Instance;

use crate::config::{Config, OF_FOLLOW, Problem};
use crate::{dht, keys, logging, node, password};

const HELP: &str = "\
pgbee: a PostgreSQL server whose tables are Hyperbees, signed logs that anyone can copy and verify

usage: pgbee serve    [options]              run the server
       pgbee follow   KEY [options]          run the server with a read-only copy of somebody else's database
       pgbee key      [DATABASE] [options]   print the key that replicas follow, and the read key of an encrypted one
       pgbee verify   [DATABASE] [options]   re-hash a database's log against its signed root, and walk its tree
       pgbee password [ROLE] [options]       set a role's password, read from standard input; an empty one removes it
       pgbee dht      [options]              run a node of the DHT, for a private network to begin with
       pgbee help | version

options, each also PGBEE_NAME in the environment or name = value in DIR/pgbee.toml, in that order:
  --data DIR                 data directory, made when missing    (default: pgbee-data)
  --listen HOST:PORT         where clients connect                (default: 127.0.0.1:5432)
  --peer-listen HOST:PORT    where peers connect who follow our databases, or what we follow; off for nowhere (default: off)
  --name NAME                follow: what the database is called here (default: the first 8 characters of its key)
  --peer HOST:PORT           follow: a peer to fetch from; may be repeated, and replaces the peers of an earlier time
  --read-key HEX             follow: the read key of an encrypted database; better as PGBEE_READ_KEY, which others do not see
  --mirror                   follow: fetch everything, now and from now on, instead of what is asked for
  --swarm WHERE              where peers are found by a key alone: off, public (the HyperDHT), or HOST:PORT,... of a private network's nodes
                             (default: off; public for follow without --peer)
  --bootstrap HOST:PORT,...  the same as --swarm HOST:PORT,..., instead of it; may be repeated
  --swarm-port N             UDP port of the swarm                (default: any)
  --relay KEY                a relay for peers that cannot be reached directly; KEY is what pgbee dht --relay prints
  --follow-on-connect        let all roles, not superusers alone, follow a database by connecting to its key (psql -d KEY)
  --max-connections N        more are refused with 53300          (default: 100)
  --cache-mb N               memory for decoded tree nodes        (default: a quarter of the memory)
  --block-cache-mb N         memory for stored blocks             (default: 128)
  --write-set-mb N           memory a transaction's writes may take before they go to disk (default: 64)
  --work-mem-mb N            memory of a sort or hash before it spills (default: 16)
  --memory-mb N              memory of all statements for what cannot spill (default: 1024)
  --max-message-mb N         longest message a client may send    (default: 256)
  --log-format text|json     how log lines look                   (default: text)
  --log FILTER               what is logged: error, warn, info, debug, or per module (default: info)

options of dht:
  --listen HOST:PORT         where it is; others begin with it    (default: 127.0.0.1:49737)
  --bootstrap HOST:PORT,...  nodes of the network it joins; none: it is the first one
  --relay                    also carry connections of peers that cannot reach each other
  --data DIR                 where its key is kept; none: a new one at each start
  --log, --log-format        as above

Connections from this machine are trusted until the role has a password; serving any other address needs one.
KEY is what pgbee key prints. What was followed once is followed again at every start, also by pgbee serve; without a peer it answers what is here.
A swarm is told of databases that are followed, and of own ones after ALTER DATABASE name SET bee.announce = on.
Peers are told nothing but blocks of the databases whose key they know; what they send is verified against it.
Ctrl-C or SIGTERM finishes open commits and stops; a second one stops at once.
";

/// Why the program ends badly.
pub struct Failure {
    /// One line for standard error.
    pub message: String,
    /// 2: asked wrongly; 1: it failed.
    pub code: u8,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Failure { message: format!("{}; see pgbee help", problem.0), code: 2 }
    }
}

/// A failure of the work itself.
pub fn failed(message: impl std::fmt::Display) -> Failure {
    Failure { message: message.to_string(), code: 1 }
}

/// Does what the arguments ask.
///
/// # Errors
/// Code 2 for a command line that makes no sense, 1 for what went wrong.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let asks_help = arguments.iter().any(|word| word == "--help" || word == "-h");
    let (command, rest) = match arguments.split_first() {
        Some((first, rest)) if !asks_help => (first.as_str(), rest),
        _ => ("help", arguments),
    };
    match command {
        "help" => {
            print(HELP);
            return Ok(());
        }
        "version" | "--version" | "-V" => {
            print(&format!("pgbee {}\n", env!("CARGO_PKG_VERSION")));
            return Ok(());
        }
        "dht" => return dht::run(rest),
        "serve" | "follow" | "key" | "verify" | "password" => {}
        other => return Err(Failure { message: format!("there is no command {other}; see pgbee help"), code: 2 }),
    }
    let (config, words) = Config::read(rest)?;
    let (given, _) = crate::config::split_flags(rest)?;
    if let Some((flag, _)) = given.iter().find(|(flag, _)| command != "follow" && OF_FOLLOW.contains(&flag.as_str())) {
        return Err(Failure { message: format!("--{flag} is for pgbee follow; see pgbee help"), code: 2 });
    }
    if words.len() > usize::from(command != "serve") {
        return Err(Failure {
            message: format!("{} is one word too many; see pgbee help", words[words.len() - 1]),
            code: 2,
        });
    }
    let name = words.first().map_or("postgres", String::as_str);
    let key = match (command, words.first()) {
        ("follow", Some(key)) => Some(keys::parse(key)?),
        ("follow", None) => {
            return Err(Failure { message: "pgbee follow wants a KEY; see pgbee help".to_owned(), code: 2 });
        }
        _ => None,
    };
    logging::start(&config).map_err(failed)?;
    match command {
        "serve" | "follow" => node::serve(config, key),
        "key" => print_key(&config, name),
        "verify" => verify(&config, name),
        _ => set_password(&config, name),
    }
}

/// Standard output may be a closed pipe; that is no reason to panic.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Opens the data directory, which must be there.
fn open_existing(config: &Config) -> Result<std::sync::Arc<Instance>, Failure> {
    node::refuse_strange_directory(&config.data)?;
    if !config.data.join("store").join("FORMAT").is_file() {
        return Err(failed(format!("there is no pgbee data in {}", config.data.display())));
    }
    open(config)
}

fn open(config: &Config) -> Result<std::sync::Arc<Instance>, Failure> {
    Instance::open(&config.data, config.instance_options()).map_err(|e| failed(node::describe(&e)))
}

fn print_key(config: &Config, database: &str) -> Result<(), Failure> {
    let instance = open_existing(config)?;
    let key = instance.key(database).map_err(|e| failed(node::describe(&e)))?;
    print(&format!("{}\n{}\n", keys::z_base_32(&key), keys::hex(&key)));
    if let Some(read_key) = instance.read_key(database).map_err(|e| failed(node::describe(&e)))? {
        print(&format!("{read_key}\n"));
    }
    Ok(())
}

fn verify(config: &Config, database: &str) -> Result<(), Failure> {
    let instance = open_existing(config)?;
    let show = std::io::stderr().is_terminal();
    let mut shown = 0;
    let verified = instance
        .verify(database, &mut |done, all| {
            let percent = (done * 100).checked_div(all).unwrap_or(100);
            if show && percent > shown {
                shown = percent;
                eprint!("\rverifying {database}: {percent:3} %");
            }
        })
        .map_err(|e| failed(node::describe(&e)))?;
    if show {
        eprintln!();
    }
    print(&format!("{database}: {} blocks, {} bytes, all as signed\n", verified.blocks, verified.bytes));
    Ok(())
}

/// Also before the server's first start, so that it may listen beyond loopback from the beginning.
fn set_password(config: &Config, role: &str) -> Result<(), Failure> {
    if role != "postgres" {
        return Err(failed(format!("role \"{role}\" does not exist: the only role is postgres")));
    }
    node::refuse_strange_directory(&config.data)?;
    let instance = open(config)?;
    if std::io::stdin().is_terminal() {
        eprint!("new password for {role}: ");
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(failed)?;
    let secret = line.trim_end_matches(['\r', '\n']);
    let verifier = if secret.is_empty() { None } else { Some(password::verifier(secret).map_err(failed)?) };
    instance.set_password_verifier(role, verifier.as_deref()).map_err(|e| failed(node::describe(&e)))?;
    instance.shutdown().map_err(|e| failed(node::describe(&e)))?;
    print(if verifier.is_some() { "password set\n" } else { "password removed\n" });
    Ok(())
}
