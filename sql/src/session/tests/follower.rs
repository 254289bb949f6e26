//! A follower: what it shows, what it fetches, what it refuses, what it answers without anybody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use pgbee_engine::hypercore::proof::{BlockRequest, Request, UpgradeRequest};
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::storage::{Backend, Durability};
use pgbee_engine::{BlockIndex, NodeIndex};

use super::{connect, connect_to, instance, show};
use crate::error::Result;
use crate::follow::{Core, CoreKey, Network, Peer, Remote, Swarm, SwarmTopic};
use crate::session::{Instance, InstanceOptions, Session};

/// A network whose one peer is the writer in the same process: every request is a proof, made and verified.
pub(super) struct Nearby {
    writer: Arc<Core>,
    online: AtomicBool,
    /// Blocks the peer says it does not have.
    hides: AtomicBool,
    pub(super) sent: AtomicU64,
    follows: Mutex<Vec<CoreKey>>,
    asked: AtomicUsize,
    /// It is found in a swarm; otherwise there is none.
    pub(super) has_swarm: AtomicBool,
    /// Nobody announces it there.
    pub(super) is_forgotten: AtomicBool,
    /// What the swarm is told of.
    pub(super) announced: Mutex<BTreeSet<CoreKey>>,
}

impl Nearby {
    pub(super) fn of(writer: &Arc<Instance>) -> Arc<Nearby> {
        Nearby::of_database(writer, "postgres")
    }
    fn of_database(writer: &Arc<Instance>, name: &str) -> Arc<Nearby> {
        let key = CoreKey(writer.key(name).unwrap());
        Nearby::over(writer.store().get_by_key(key).unwrap())
    }
    /// The same over any core.
    pub(super) fn over(writer: Arc<Core>) -> Arc<Nearby> {
        Arc::new(Nearby {
            writer,
            online: AtomicBool::new(true),
            hides: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            follows: Mutex::default(),
            asked: AtomicUsize::new(0),
            has_swarm: AtomicBool::new(false),
            is_forgotten: AtomicBool::new(false),
            announced: Mutex::default(),
        })
    }
    pub(super) fn set_online(&self, online: bool) {
        self.online.store(online, Ordering::SeqCst);
    }
    /// How often a core was begun to be followed.
    pub(super) fn times_followed(&self, key: CoreKey) -> usize {
        self.follows.lock().iter().filter(|followed| **followed == key).count()
    }
    pub(super) fn follows(&self, key: CoreKey) -> bool {
        self.follows.lock().contains(&key)
    }

    /// One round: the head first, then what is wanted.
    fn exchange(&self, core: &Arc<Core>) {
        let online = self.online.load(Ordering::SeqCst);
        core.wants().note_peers(usize::from(online));
        if !online {
            return;
        }
        self.asked.fetch_add(core.extensions().take().len(), Ordering::SeqCst);
        let (have, there) = (core.len(), self.writer.durable_len());
        if there > have {
            let upgrade = UpgradeRequest { start: have, length: there.0 - have.0 };
            let manifest = core.manifest().is_none();
            self.bring(core, &[Request { upgrade: Some(upgrade), manifest, ..Request::default() }]);
        }
        core.wants().take();
        let mut wanted = core.wants().all();
        for range in core.wants().ranges() {
            wanted.extend((range.start.0..range.end.0.min(core.len().0)).map(BlockIndex));
        }
        wanted.retain(|b| core.len().contains(*b) && !core.has(*b));
        if self.hides.load(Ordering::SeqCst) {
            wanted.iter().for_each(|b| core.wants().note_holders(*b, Some(0)));
            return;
        }
        wanted.sort_unstable();
        wanted.dedup();
        self.sent.fetch_add(wanted.len() as u64, Ordering::SeqCst);
        for block in wanted {
            core.wants().note_holders(block, Some(1));
            let nodes = core.missing_nodes(NodeIndex(2 * block.0));
            self.bring(core, &[Request { block: Some(BlockRequest { index: block, nodes }), ..Request::default() }]);
        }
    }
    fn bring(&self, core: &Core, requests: &[Request]) {
        let mut intake = core.intake();
        for request in requests {
            let proof = self.writer.prove(request).unwrap();
            let verified = intake.verify(proof).unwrap();
            intake.add(verified);
        }
        intake.commit(Durability::NoSync).unwrap();
    }
}

/// The network as an instance has it: dropped with it, which ends its thread.
struct Handle {
    network: Arc<Nearby>,
    over: Arc<AtomicBool>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

impl Network for Handle {
    fn follow(&self, core: &Arc<Core>, _: &[String]) -> Result<()> {
        let (network, over, core) = (self.network.clone(), self.over.clone(), core.clone());
        let key = core.key();
        network.follows.lock().push(key);
        std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) && network.follows(key) {
                network.exchange(&core);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Ok(())
    }
    fn unfollow(&self, key: CoreKey) {
        self.network.follows.lock().retain(|k| *k != key);
    }
    fn peers(&self) -> Vec<Peer> {
        if !self.network.online.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let has_swarm = self.network.has_swarm.load(Ordering::SeqCst);
        vec![Peer {
            core: self.network.writer.key(),
            peer_key: [7; 32],
            address: "127.0.0.1:4000".into(),
            transport: if has_swarm { "udx" } else { "tcp" },
            remote_length: self.network.writer.len().0,
            blocks_in: self.network.sent.load(Ordering::SeqCst),
            blocks_out: 0,
            bytes_in: 0,
            bytes_out: 0,
            round_trip_micros: Some(1500),
            connected_at: SystemTime::now(),
        }]
    }
    fn remote(&self, key: CoreKey) -> Option<Remote> {
        let online = self.network.online.load(Ordering::SeqCst);
        (key == self.network.writer.key()).then(|| Remote {
            length: self.network.writer.len().0,
            peers: usize::from(online),
            verification_failures: 0,
            is_searching: false,
        })
    }
    fn announce(&self, key: CoreKey, on: bool) {
        let mut announced = self.network.announced.lock();
        _ = if on { announced.insert(key) } else { announced.remove(&key) };
    }
    fn swarm(&self) -> Option<Swarm> {
        self.network.has_swarm.load(Ordering::SeqCst).then(|| Swarm {
            public_key: [8; 32],
            bootstrap: "127.0.0.1:4001".into(),
            address: "127.0.0.1:4002".into(),
            public_address: None,
            nat: "unknown",
            is_persistent: false,
            nodes: 3,
            connections: 1,
            relayed: 0,
            punches_tried: 5,
            punches_won: 4,
            last_note: Some("a peer was not reached".into()),
            topics: vec![SwarmTopic {
                discovery_key: self.network.writer.discovery_key().0,
                is_announced: self.network.announced.lock().contains(&self.network.writer.key()),
                is_looked_up: true,
                // Who announces it may be away all the same.
                peers: 2 * u64::from(!self.network.is_forgotten.load(Ordering::SeqCst)),
                connections: 1,
                state: "2 peers announce it".into(),
            }],
        })
    }
    fn search(&self, _: CoreKey) -> Option<String> {
        self.network.has_swarm.load(Ordering::SeqCst).then(|| "Nobody announces it among the 3 nodes asked.".into())
    }
}

pub(super) fn attach(follower: &Arc<Instance>, network: &Arc<Nearby>) {
    let handle = Handle { network: network.clone(), over: Arc::default() };
    follower.set_network(Arc::new(handle)).unwrap();
}

/// A writer with a table, and its key.
fn writer() -> (Arc<Instance>, Session, CoreKey) {
    let writer = instance();
    let mut w = connect(&writer);
    show(&mut w, "create table t(id int primary key, v text); create index on t(v)");
    show(&mut w, "insert into t select i, 'value ' || i from generate_series(1, 2000) i");
    let key = CoreKey(writer.key("postgres").unwrap());
    (writer, w, key)
}

/// A follower of the writer, named shop.
fn follower(writer: &Arc<Instance>, key: CoreKey) -> (Arc<Instance>, Arc<Nearby>) {
    let (follower, network) = (instance(), Nearby::of(writer));
    attach(&follower, &network);
    let mut admin = connect(&follower);
    let created = show(&mut admin, &format!("create database shop with bee_key = '{key}' peer = 'a:1, b:2'"));
    assert_eq!(created, "CREATE DATABASE");
    (follower, network)
}

fn shop(follower: &Arc<Instance>) -> Session {
    let mut session = connect_to(follower, "shop").unwrap();
    show(&mut session, "set bee.fetch_wait = '100ms'");
    session
}

/// Waits until the follower has heard of all the writer has.
fn catch_up(f: &mut Session, w: &mut Session) {
    let version = show(w, "select bee_version()");
    assert_eq!(show(f, &format!("select bee_wait_for({version}, '10 s')")), "t");
}

/// A number behind a word of an EXPLAIN line.
fn number(line: &str, word: &str) -> u64 {
    let rest = &line[line.find(word).unwrap_or_else(|| panic!("{word} in {line}")) + word.len()..];
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn a_follower_shows_what_the_writer_wrote_and_fetches_what_it_reads() {
    let (writer, mut w, key) = writer();
    let old = show(&mut w, "select bee_version()");
    show(&mut w, "update t set v = 'corrected' where id = 7");
    let (follower, network) = follower(&writer, key);
    let mut f = shop(&follower);
    assert_eq!(show(&mut f, "select v from t where id = 7"), "corrected");
    let fetched = network.sent.load(Ordering::SeqCst);
    assert!(fetched < 200, "a lookup fetched {fetched} blocks");
    assert_eq!(show(&mut f, &format!("select v from t as of version {old} where id = 7")), "value 7");
    assert_eq!(show(&mut f, "select id from t where v = 'value 1999'"), "1999");
    assert!(network.asked.load(Ordering::SeqCst) > 0, "peers are asked which blocks a read will touch");
    // Oids, definitions, and all that is derived of the whole.
    let same = [
        "select oid, relname from pg_class where relname = 't'",
        "select count(*), sum(id), min(v) from t",
        "select version, message from bee_commits order by 1",
        "select * from bee_history('t') where id = 7",
    ];
    for query in same {
        assert_eq!(show(&mut f, query), show(&mut w, query), "{query}");
    }
    assert_eq!(show(&mut f, &format!("select new_v from bee_diff('t', {old})")), "corrected");
    // Live.
    show(&mut w, "insert into t values (5000, 'new')");
    catch_up(&mut f, &mut w);
    assert_eq!(show(&mut f, "select v from t where id = 5000"), "new");
    // A second read costs nothing.
    let before = network.sent.load(Ordering::SeqCst);
    assert_eq!(show(&mut f, "select count(*) from t"), "2001");
    assert_eq!(show(&mut f, "select count(*) from t"), "2001");
    assert!(network.sent.load(Ordering::SeqCst) - before < 20);
    assert!(network.writer.wants().is_idle());
}

#[test]
fn a_follower_is_read_only() {
    let (writer, mut w, key) = writer();
    show(&mut w, "create sequence s");
    let (follower, _network) = follower(&writer, key);
    let mut f = shop(&follower);
    for (sql, what) in [
        ("insert into t values (1)", "INSERT"),
        ("update t set v = ''", "UPDATE"),
        ("delete from t", "DELETE"),
        ("create table u(x int)", "CREATE TABLE"),
        ("truncate t", "TRUNCATE TABLE"),
        ("drop table t", "DROP TABLE"),
        ("alter view v rename to w", "ALTER VIEW"),
        ("alter table t rename x to y", "ALTER TABLE"),
        ("select nextval('s')", "nextval()"),
        ("create tag x", "CREATE TAG"),
        ("copy t from stdin", "COPY FROM"),
    ] {
        let told = show(&mut f, sql);
        let wanted = format!("ERROR:  25006: cannot execute {what} in a read-only transaction");
        assert!(told.starts_with(&wanted) && told.contains("follows a remote bee"), "{sql}: {told}");
    }
    assert_eq!(show(&mut f, "vacuum t"), "ERROR:  25006: cannot execute VACUUM during recovery");
    assert_eq!(
        show(&mut f, "begin read write"),
        "ERROR:  0A000: cannot set transaction read-write mode during recovery"
    );
    assert_eq!(show(&mut f, "show transaction_read_only; select pg_is_in_recovery()"), "on\nt");
    assert_eq!(
        show(&mut f, "begin; show transaction_read_only; set work_mem = '8MB'; commit"),
        "BEGIN\non\nSET\nCOMMIT"
    );
    assert_eq!(
        show(&mut f, "begin; savepoint a; select count(*) from t; rollback to a; commit"),
        "BEGIN\nSAVEPOINT\n2000\nROLLBACK\nCOMMIT"
    );
    assert_eq!(show(&mut w, "select pg_is_in_recovery(); show in_hot_standby"), "f\noff");
    assert_eq!(show(&mut f, "show in_hot_standby"), "on", "drivers that want to write pass it by");
    assert_eq!(show(&mut f, "select datname from pg_database order by oid"), "shop\npostgres");
}

#[test]
fn what_was_read_is_answered_without_anybody_and_the_rest_is_refused_clearly() {
    let backend: Arc<dyn Backend> = Arc::new(Memory::new());
    let (writer, mut w, key) = writer();
    let network = Nearby::of(&writer);
    let start = || Instance::on(backend.clone(), InstanceOptions::default()).unwrap();
    let follower = start();
    follower.follow_database("shop", key, &[], None).unwrap();
    attach(&follower, &network);
    let mut f = shop(&follower);
    assert_eq!(show(&mut f, "select v from t where id = 7"), "value 7");
    // A small commit comes by itself: nobody has to read it for it to be here.
    show(&mut w, "update t set v = 'corrected' where id = 7");
    catch_up(&mut f, &mut w);
    let end = Instant::now() + Duration::from_secs(10);
    while !follower.store().get_by_key(key).unwrap().wants().is_idle() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(50));
    network.set_online(false);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(show(&mut f, "select v from t where id = 7"), "corrected");
    let start_of = Instant::now();
    let told = show(&mut f, "select v from t where id = 1900");
    assert!(told.contains("of database \"shop\" is not here and no peer is connected"), "{told}");
    assert!(told.starts_with("ERROR:  58030: block ") && told.contains("table \"t\" at version"), "{told}");
    assert!(start_of.elapsed() >= Duration::from_millis(100) && start_of.elapsed() < Duration::from_secs(5));
    assert!(follower.store().get_by_key(key).unwrap().wants().is_idle(), "claims end with their statement");
    drop((f, follower));

    // A restart, and nobody there.
    let follower = start();
    follower.follow_database("shop", key, &[], None).unwrap();
    let mut f = shop(&follower);
    assert_eq!(show(&mut f, "select v from t where id = 7"), "corrected");
    assert!(show(&mut f, "select v from t where id = 1900").starts_with("ERROR:  58030: block "));
    follower.verify("shop", &mut |_, _| {}).unwrap();
    follower.shutdown().unwrap();
}

#[test]
fn peers_that_have_not_the_block_are_counted() {
    let (writer, _w, key) = writer();
    let (follower, network) = follower(&writer, key);
    let mut f = shop(&follower);
    assert_eq!(show(&mut f, "select v from t where id = 7"), "value 7");
    network.hides.store(true, Ordering::SeqCst);
    let told = show(&mut f, "select v from t where id = 1900");
    assert!(told.contains("is not here and its 1 peer does not have it"), "{told}");
    network.hides.store(false, Ordering::SeqCst);
    assert_eq!(show(&mut f, "select v from t where id = 1900"), "value 1900");
}

#[test]
fn a_wait_ends_with_its_statement() {
    let (writer, _w, key) = writer();
    let (follower, network) = follower(&writer, key);
    let mut f = shop(&follower);
    assert_eq!(show(&mut f, "select v from t where id = 7"), "value 7");
    network.set_online(false);
    std::thread::sleep(Duration::from_millis(20));
    show(&mut f, "set bee.fetch_wait = '1h'; set statement_timeout = '150ms'");
    let start = Instant::now();
    let told = show(&mut f, "select count(*) from t");
    assert_eq!(told, "ERROR:  57014: canceling statement due to statement timeout");
    assert!(start.elapsed() < Duration::from_secs(10));
    show(&mut f, "reset statement_timeout");
    let flag = f.cancel_flag();
    let told = super::cancelling(&flag, || show(&mut f, "select count(*) from t"));
    assert_eq!(told, "ERROR:  57014: canceling statement due to user request");
    assert!(follower.store().get_by_key(key).unwrap().wants().is_idle());
    // A shutdown ends one, too.
    let closing = follower.clone();
    let closer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        closing.shutdown().unwrap();
    });
    assert!(show(&mut f, "select count(*) from t").starts_with("ERROR:  57P01"));
    closer.join().unwrap();
    // A server that stops has no network any more: nobody waits for what cannot come.
    let stops = follower.clone();
    let stopping = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        stops.clear_network();
    });
    let told = show(&mut f, "select count(*) from t");
    assert_eq!(told, "ERROR:  57P01: terminating connection due to administrator command");
    stopping.join().unwrap();
}

#[test]
fn a_database_nobody_was_met_for_yet() {
    let (writer, _w, key) = writer();
    let (follower, network) = (instance(), Nearby::of(&writer));
    network.set_online(false);
    attach(&follower, &network);
    follower.follow_database("shop", key, &[], None).unwrap();
    let mut f = shop(&follower);
    assert_eq!(show(&mut f, "select 1; show server_version_num"), "1\n150018");
    assert_eq!(show(&mut f, "select bee_version(), current_database()"), "0|shop");
    let told = show(&mut f, "select * from t");
    assert_eq!(
        told.lines().next().unwrap(),
        "ERROR:  58030: no version of database \"shop\" is here and no peer is connected"
    );
    assert!(
        show(&mut f, "select bee_download()").starts_with("ERROR:  58030: no version of"),
        "nothing is not everything"
    );
    assert_eq!(show(&mut f, "select length, held_blocks, version from bee_cores where database = 'shop'"), "0|0|NULL");
    // It waits, and goes on when somebody comes.
    show(&mut f, "set bee.fetch_wait = '20s'");
    let later = network.clone();
    let comes = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        later.set_online(true);
    });
    assert_eq!(show(&mut f, "select v from t where id = 3"), "value 3");
    comes.join().unwrap();
    assert_eq!(show(&mut f, "select * from nowhere"), "ERROR:  42P01: relation \"nowhere\" does not exist");
}

#[test]
fn databases_that_follow_are_made_and_dropped() {
    let (writer, _w, key) = writer();
    let (follower, network) = follower(&writer, key);
    let mut admin = connect(&follower);
    assert_eq!(follower.databases(), ["postgres", "shop"]);
    assert_eq!(follower.followed(), [("shop".to_owned(), key, vec!["a:1".to_owned(), "b:2".to_owned()])]);
    assert!(network.follows(key));
    let own = CoreKey(follower.key("postgres").unwrap());
    for (sql, told) in [
        (format!("create database other bee_key '{key}'"), "42710: key "),
        (
            format!("create database shop with bee_key = '{}'", CoreKey([9; 32])),
            "42P04: database \"shop\" already exists",
        ),
        (format!("create database mine with bee_key = '{own}'"), "22023: key "),
        ("create database x with bee_key = 'nonsense'".into(), "22023: invalid key: \"nonsense\""),
        (
            format!("create database x with bee_key = '{}' peer = 'nowhere'", CoreKey([9; 32])),
            "22023: invalid peer address",
        ),
        ("create database x with peer = 'a:1'".into(), "22023: option \"peer\" needs option \"bee_key\""),
        (format!("create database x with bee_key = '{}' template = x", CoreKey([9; 32])), "0A000: "),
    ] {
        let answer = show(&mut admin, &sql);
        assert!(answer.starts_with(&format!("ERROR:  {told}")), "{sql}: {answer}");
    }
    let hex = CoreKey([9; 32]).to_hex();
    assert_eq!(show(&mut admin, &format!("create database pear bee_key 'pear://{hex}/'")), "CREATE DATABASE");
    assert_eq!(show(&mut admin, "drop database pear"), "DROP DATABASE");
    let f = shop(&follower);
    assert!(show(&mut admin, "drop database shop").starts_with("ERROR:  55006"));
    drop(f);
    follower.set_peers("shop", &["c:3".to_owned()]).unwrap();
    assert_eq!(follower.followed()[0].2, ["c:3"]);
    assert_eq!(show(&mut admin, "drop database shop"), "DROP DATABASE");
    assert!(!network.follows(key) && connect_to(&follower, "shop").is_err());
}

#[test]
fn explain_tells_what_each_node_fetched() {
    let (writer, _w, key) = writer();
    let (follower, _network) = follower(&writer, key);
    let mut f = shop(&follower);
    let plan = show(&mut f, "explain (analyze, buffers, costs off) select count(*) from t where v > 'value 5'");
    let lines: Vec<&str> = plan.lines().filter(|l| l.contains("Fetched: ")).collect();
    assert!(lines.len() >= 3, "{plan}");
    // The aggregate's are those of the scan below it, at least.
    assert!(number(lines[0], "blocks=") >= number(lines[1], "blocks=") && number(lines[1], "blocks=") > 10, "{plan}");
    assert!(number(lines[1], "bytes=") > 100 && number(lines[1], "round trips=") > 0, "{plan}");
    assert!(plan.contains("Planning:\n  Fetched: "), "{plan}");
    // Rows behind an index, and keys of a list, are looked up together.
    for query in [
        "select id, v from t where v between 'value 10' and 'value 109'",
        "select v from t where id in (11, 555, 999, 1313, 1717, 1999)",
    ] {
        let (fresh, _network) = self::follower(&writer, key);
        let mut f = shop(&fresh);
        let plan = show(&mut f, &format!("explain (analyze, buffers, costs off) {query}"));
        let top = plan.lines().find(|l| l.contains("Fetched: ")).unwrap_or_else(|| panic!("{plan}"));
        assert!(number(top, "round trips=") <= 20, "{plan}");
    }
    let again = show(&mut f, "explain (analyze, buffers, costs off) select count(*) from t where v > 'value 5'");
    assert!(!again.contains("Fetched"), "{again}");
    assert!(!show(&mut f, "explain (buffers) select 1").contains("Fetched"));
}

#[test]
fn a_download_brings_a_table_an_index_or_everything() {
    let (writer, mut w, key) = writer();
    show(&mut w, "create table u(id int primary key); insert into u select generate_series(1, 500)");
    let (follower, network) = follower(&writer, key);
    let mut f = shop(&follower);
    let count = |text: String| text.parse::<u64>().unwrap_or_else(|_| panic!("{text}"));
    assert!(count(show(&mut f, "select bee_download('t_v_idx')")) >= 2000);
    assert!(count(show(&mut f, "select bee_download('t'::regclass)")) >= 1000);
    assert_eq!(show(&mut f, "select bee_download('t')"), "0");
    assert!(show(&mut f, "select bee_download('pg_class')").starts_with("ERROR:  42809"));
    assert!(show(&mut f, "select bee_download('nothing')").starts_with("ERROR:  42P01"));
    // Blocks that come for the whole are counted like those of a table: bee_progress tells of both.
    let missing = "select length - held_blocks from bee_cores where database = 'shop'";
    let missing = count(show(&mut f, missing));
    assert!(missing > 0);
    assert_eq!(count(show(&mut f, "select bee_download()")), missing);
    assert_eq!(
        show(
            &mut f,
            "select held_blocks = length, lag_blocks, remote_length = length, held_bytes > 1000 from bee_cores where database = 'shop'"
        ),
        "t|0|t|t"
    );
    network.set_online(false);
    std::thread::sleep(Duration::from_millis(20));
    for query in ["select count(*), max(v) from t", "select sum(id) from u"] {
        assert_eq!(show(&mut f, query), show(&mut w, query));
    }
    assert_eq!(show(&mut w, "select bee_download()"), "0");
}

#[test]
fn a_download_is_seen_from_another_session_and_can_be_cancelled() {
    let (writer, _w, key) = writer();
    let (follower, network) = follower(&writer, key);
    let (mut f, mut other) = (shop(&follower), connect(&follower));
    assert_eq!(show(&mut f, "select count(*) from t where id < 10"), "9");
    network.hides.store(true, Ordering::SeqCst);
    show(&mut f, "set bee.fetch_wait = '1h'");
    let flag = f.cancel_flag();
    let downloading = std::thread::spawn(move || show(&mut f, "select bee_download()"));
    let end = Instant::now() + Duration::from_secs(10);
    let mut seen = String::new();
    while seen.is_empty() && Instant::now() < end {
        seen = show(
            &mut other,
            "select database, what, blocks_total > 1000, started_at <= now() + '1 min' from bee_progress",
        );
    }
    assert_eq!(seen, "shop|database shop|t|t");
    flag.raise(crate::SqlError::new("57014", "canceling statement due to user request"));
    assert!(downloading.join().unwrap().starts_with("ERROR:  57014"));
    assert_eq!(show(&mut other, "select * from bee_progress"), "");
}

#[test]
fn a_mirror_has_everything_and_what_comes() {
    let (writer, mut w, key) = writer();
    let (follower, network) = follower(&writer, key);
    follower.mirror("shop", true).unwrap();
    assert!(follower.mirror("postgres", true).is_err());
    show(&mut w, "insert into t select i, 'x' from generate_series(3000, 4000) i");
    let whole = |instance: &Arc<Instance>| {
        let core = instance.store().get_by_key(key).unwrap();
        core.len() == network.writer.len() && core.contiguous_len() == core.len()
    };
    let end = Instant::now() + Duration::from_secs(30);
    while !whole(&follower) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(whole(&follower));
    network.set_online(false);
    assert_eq!(show(&mut shop(&follower), "select count(*) from t"), "3001");
}

#[test]
fn views_tell_of_peers() {
    let (writer, mut w, key) = writer();
    let (follower, network) = follower(&writer, key);
    let mut f = shop(&follower);
    catch_up(&mut f, &mut w);
    assert_eq!(
        show(&mut f, "select database, address, transport, round_trip from bee_peers"),
        "shop|127.0.0.1:4000|tcp|00:00:00.0015"
    );
    assert_eq!(
        show(&mut f, "select status, sender_host, sender_port from pg_stat_wal_receiver"),
        "streaming|127.0.0.1|4000"
    );
    assert_eq!(show(&mut f, "select count(*) from pg_stat_replication"), "0");
    assert_eq!(
        show(
            &mut f,
            "select database, lag_blocks, verification_failures, conflict, key = bee_key() from bee_cores order by 1"
        ),
        "postgres|NULL|0|NULL|f\nshop|0|0|NULL|t"
    );
    attach(&writer, &network);
    network.unfollow_all();
    assert_eq!(show(&mut w, "select state, client_port, sync_state from pg_stat_replication"), "streaming|4000|async");
    assert_eq!(show(&mut w, "select count(*) from pg_stat_wal_receiver"), "0");
}

impl Nearby {
    fn unfollow_all(&self) {
        self.follows.lock().clear();
    }
}

#[test]
fn new_versions_are_told_on_a_channel() {
    let (writer, mut w, key) = writer();
    let (follower, _network) = follower(&writer, key);
    let mut f = shop(&follower);
    catch_up(&mut f, &mut w);
    assert_eq!(show(&mut f, "listen bee_commit"), "LISTEN");
    assert_eq!(show(&mut f, "select pg_listening_channels()"), "bee_commit");
    show(&mut w, "listen bee_commit");
    let woken = Arc::new(AtomicUsize::new(0));
    let wake = woken.clone();
    f.on_notification(Arc::new(move || {
        wake.fetch_add(1, Ordering::SeqCst);
    }));
    show(&mut w, "insert into t values (9000, '')");
    let version = show(&mut w, "select bee_version()");
    let told = w.take_notifications();
    assert_eq!(
        told.iter().map(|n| (&*n.channel, &*n.payload, n.pid)).collect::<Vec<_>>(),
        [("bee_commit", &*version, 0)]
    );
    // The thread that tells may have been behind when the channel was listened on.
    let (mut newest, end) = (String::new(), Instant::now() + Duration::from_secs(10));
    while newest != version && Instant::now() < end {
        newest = f.take_notifications().last().map_or(newest, |n| n.payload.to_string());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(newest == version && woken.load(Ordering::SeqCst) > 0, "{newest} instead of {version}");
    assert_eq!(show(&mut f, &format!("select bee_wait_for({version})")), "t");
    assert_eq!(show(&mut f, "select bee_wait_for(1000000, '30 ms')"), "f");
    show(&mut f, "unlisten *");
    f.take_notifications();
    show(&mut w, "insert into t values (9001, '')");
    catch_up(&mut f, &mut w);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(f.take_notifications(), []);
}

#[test]
fn notify_is_told_at_the_commit_and_never_inside_of_a_block() {
    let writer = instance();
    let (mut one, mut two) = (connect(&writer), connect(&writer));
    let told = |s: &mut Session| {
        s.take_notifications().iter().map(|n| format!("{} {} {}", n.channel, n.payload, n.pid)).collect::<Vec<_>>()
    };
    show(&mut one, "listen a; listen b");
    show(&mut two, "begin; notify a, 'x'; savepoint s; notify a, 'undone'; rollback to s; select pg_notify('b', 'y')");
    assert_eq!(told(&mut one), Vec::<String>::new());
    show(&mut one, "begin");
    show(&mut two, "commit; notify c; begin; notify a, 'z'; rollback");
    assert_eq!(told(&mut one), Vec::<String>::new());
    show(&mut one, "commit");
    assert_eq!(told(&mut one), ["a x 7", "b y 7"]);
    assert_eq!(
        show(&mut two, "notify bee_commit, '1'"),
        "ERROR:  42939: channel \"bee_commit\" tells of new versions only"
    );
    show(&mut one, "begin; unlisten a; notify b, 'to myself'; commit");
    show(&mut two, "notify a, 'unheard'");
    assert_eq!(told(&mut one), ["b to myself 7"]);
    show(&mut one, "discard all");
    show(&mut two, "notify b");
    assert_eq!(told(&mut one), Vec::<String>::new());
}

#[test]
fn a_foreign_table_is_waited_for_and_followed_as_long_as_it_is_used() {
    let (writer, mut w, key) = writer();
    let (own, network) = (instance(), Nearby::of(&writer));
    attach(&own, &network);
    let mut s = connect(&own);
    show(&mut s, "set bee.fetch_wait = '100ms'");
    let made = show(
        &mut s,
        &format!("create server remote foreign data wrapper hyperbee options (bee_key '{key}', peer 'a:1')"),
    );
    assert_eq!(made, "CREATE SERVER");
    let imported = show(&mut s, "import foreign schema public from server remote into public");
    assert_eq!(imported, "IMPORT FOREIGN SCHEMA");
    assert!(network.follows(key));
    assert_eq!(show(&mut s, "select v from t where id = 7"), "value 7");
    let plan = show(&mut s, "explain (analyze, buffers, costs off) select count(*) from t where id > 1500");
    assert!(plan.lines().any(|l| l.contains("Fetched: ") && number(l, "blocks=") > 10), "{plan}");
    show(&mut w, "insert into t values (6000, 'live')");
    catch_up_with(&own, key, &mut w);
    assert_eq!(show(&mut s, "select v from t where id = 6000"), "live");
    network.set_online(false);
    std::thread::sleep(Duration::from_millis(20));
    let told = show(&mut s, "select v from t where id = 900");
    assert!(told.starts_with("ERROR:  58030: block ") && told.contains(&format!("of bee {key} is not here")), "{told}");
    assert!(told.contains("table \"t\" at version"), "{told}");
    assert_eq!(show(&mut s, "select v from t where id = 7"), "value 7");
    drop(s);
    assert!(!network.follows(key), "nobody uses it any more");
    // Sessions of one statement each, as those of `psql -c`: each sees what was committed before it.
    network.set_online(true);
    for i in 6001..6004 {
        show(&mut w, &format!("insert into t values ({i}, 'between sessions')"));
        let mut short = connect(&own);
        assert_eq!(
            show(&mut short, &format!("select count(*) from t where id > 6000 and id <= {i}")),
            (i - 6000).to_string()
        );
        drop(short);
        assert!(!network.follows(key));
    }
    // With nobody there what is here is read all the same.
    network.set_online(false);
    assert_eq!(show(&mut connect(&own), "select v from t where id = 6001"), "between sessions");
}

/// Waits until an instance has the newest head of a core.
fn catch_up_with(instance: &Arc<Instance>, key: CoreKey, w: &mut Session) {
    let version: u64 = show(w, "select bee_version()").parse().unwrap();
    let core = instance.store().get_by_key(key).unwrap();
    assert!(core.watch().wait_for(pgbee_engine::Length(version), Duration::from_secs(10)));
}

#[test]
fn an_encrypted_database_is_followed_by_many_and_read_by_who_has_the_read_key() {
    let writer = instance();
    show(&mut connect(&writer), "create database secret with encrypted = true");
    let mut w = connect_to(&writer, "secret").unwrap();
    show(&mut w, "create table t(id int primary key, v text)");
    show(&mut w, "insert into t select i, 'value ' || i from generate_series(1, 300) i");
    let (key, read_key) = (CoreKey(writer.key("secret").unwrap()), writer.read_key("secret").unwrap().unwrap());
    let (reader, copier) = (instance(), instance());
    for follower in [&reader, &copier] {
        attach(follower, &Nearby::of_database(&writer, "secret"));
    }
    let with_key = format!("create database shop with bee_key = '{key}' read_key = '{read_key}' peer = 'a:1'");
    assert_eq!(show(&mut connect(&reader), &with_key), "CREATE DATABASE");
    let mut f = shop(&reader);
    assert_eq!(show(&mut f, "select v from t where id = 77"), "value 77");
    assert_eq!(show(&mut f, "select count(*) from t"), "300");
    reader.verify("shop", &mut |_, _| {}).unwrap();
    // Without it: a copy, verified, that says nothing.
    copier.follow_database("shop", key, &[], None).unwrap();
    copier.mirror("shop", true).unwrap();
    let core = copier.store().get_by_key(key).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while (core.is_empty() || core.contiguous_len() < core.len()) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    let told = show(&mut shop(&copier), "select count(*) from t");
    assert!(told.starts_with("ERROR:  XX001"), "{told}");
    let wrong = show(&mut connect(&copier), &format!("create database x with bee_key = '{key}' read_key = 'secret'"));
    assert!(wrong.starts_with("ERROR:  22023: invalid read key") && !wrong.contains("secret"), "{wrong}");
}

#[test]
fn what_is_followed_is_known_after_a_restart() {
    let (dir, key) = (tempfile::tempdir().unwrap(), CoreKey([9; 32]));
    let open = || Instance::open(dir.path(), InstanceOptions::default()).unwrap();
    let instance = open();
    let file = dir.path().join("instance.json");
    let before = std::fs::read_to_string(&file).unwrap();
    assert!(!before.contains("followed"), "a directory that follows nothing can be read by those before: {before}");
    instance.follow_database("shop", key, &["a:1".to_owned()], None).unwrap();
    assert_eq!(show(&mut shop(&instance), "select 1"), "1");
    instance.shutdown().unwrap();
    drop(instance);
    let instance = open();
    assert_eq!(instance.followed(), [("shop".to_owned(), key, vec!["a:1".to_owned()])]);
    assert_eq!(show(&mut shop(&instance), "select current_database()"), "shop");
    instance.drop_database("shop").unwrap();
    drop(instance);
    assert_eq!(open().databases(), ["postgres"]);
}
