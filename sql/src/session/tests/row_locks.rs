//! Sessions that want the same rows: who waits, who goes on, and with what. `row_locks.txt` was recorded from PostgreSQL 15.
//!
//! ```text
//! == what it is about
//! setup: statements           in a database of its own
//! a: statement                session `a` runs it
//!   output                    as psql -At shows it
//! b: statement
//!   (waits)                   it is not done before another session does something
//! b goes on                   and now it is
//!   output
//! ```

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::*;

/// When one that should be done is given up.
const STUCK: Duration = Duration::from_secs(60);

struct Client {
    pid: i32,
    statements: Sender<String>,
    outputs: Receiver<String>,
}

impl Client {
    fn new(instance: &Arc<Instance>, pid: i32) -> Client {
        let (statements, todo) = channel::<String>();
        let (done, outputs) = channel();
        let instance = instance.clone();
        let body = move || {
            let mut session = connect_as(&instance, pid);
            for sql in todo {
                let _ = done.send(show(&mut session, &sql));
            }
        };
        std::thread::Builder::new().stack_size(16 << 20).spawn(body).unwrap();
        Client { pid, statements, outputs }
    }
    fn output(&self) -> Vec<String> {
        let output = self.outputs.recv_timeout(STUCK).expect("a statement that nobody holds up is done");
        output.lines().map(|l| format!("  {l}")).collect()
    }
}

impl Client {
    /// Watches its statement until it waits for a lock or is done.
    fn waits(&self, watcher: &mut Session) -> String {
        let waiting = format!("select count(*) > 0 from pg_locks where not granted and pid = {}", self.pid);
        let start = Instant::now();
        while start.elapsed() < STUCK {
            let is_waiting = show(watcher, &waiting) == "t";
            match self.outputs.try_recv() {
                Ok(output) => return format!("  does not wait: {output}"),
                Err(TryRecvError::Empty) if is_waiting => return "  (waits)".to_owned(),
                Err(TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
                Err(TryRecvError::Disconnected) => return "  is gone".to_owned(),
            }
        }
        "  neither waits nor is done".to_owned()
    }
}

/// Runs a scene as it is written and says what happened.
fn play(scene: &str) -> String {
    let instance = instance();
    let mut watcher = connect(&instance);
    let mut clients: BTreeMap<String, Client> = BTreeMap::new();
    let mut happened: Vec<String> = Vec::new();
    for (i, line) in scene.lines().enumerate() {
        if line.starts_with("  ") {
            continue;
        }
        happened.push(line.to_owned());
        if let Some(name) = line.strip_suffix(" goes on") {
            happened.extend(clients[name].output());
        } else if let Some((name, sql)) = line.split_once(": ").filter(|_| !line.starts_with("==")) {
            if name == "setup" {
                let shown = show(&mut connect(&instance), sql);
                assert!(!shown.contains("ERROR"), "{shown}");
                continue;
            }
            let pid = 100 + clients.len() as i32;
            let client = clients.entry(name.to_owned()).or_insert_with(|| Client::new(&instance, pid));
            client.statements.send(sql.to_owned()).unwrap();
            if scene.lines().nth(i + 1) != Some("  (waits)") {
                happened.extend(client.output());
                continue;
            }
            happened.push(client.waits(&mut watcher));
        }
    }
    happened.join("\n")
}

#[test]
fn rows_are_waited_for_as_in_postgresql() {
    let scenes: Vec<&str> = include_str!("row_locks.txt").trim_end().split("\n\n").collect();
    assert!(scenes.len() > 40);
    let mut wrong = Vec::new();
    for scene in scenes {
        let happened = play(scene);
        if happened != scene {
            wrong.push(format!("{scene}\n---- but ----\n{happened}"));
        }
    }
    assert!(wrong.is_empty(), "{} scenes went otherwise:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn read_committed_never_fails_to_serialize() {
    const SESSIONS: usize = 6;
    const EACH: usize = 30;
    let instance = instance();
    show(
        &mut connect(&instance),
        "create table t (id int primary key, n int, k int unique); insert into t select g, 0, g from generate_series(1, 3) g;
         create table l (id int primary key)",
    );
    std::thread::scope(|scope| {
        for session in 0..SESSIONS {
            let instance = &instance;
            scope.spawn(move || {
                let mut s = connect(instance);
                for i in 0..EACH {
                    // Always the same order of rows, so that nobody waits in a circle.
                    let row = i % 3 + 1;
                    let what = match (session + i) % 3 {
                        0 => format!("begin; update t set n = n + 1 where id = {row}; insert into l values ({}); commit", session * EACH + i),
                        1 => format!("update t set n = n + 1, k = k + 10 where id = {row}; insert into l values ({})", session * EACH + i),
                        _ => format!(
                            "begin; select n from t where id = {row} for update; \
                             insert into t values ({row}, 0, 0) on conflict (id) do update set n = t.n + 1; insert into l values ({}); commit",
                            session * EACH + i
                        ),
                    };
                    let shown = show(&mut s, &what);
                    assert!(!shown.contains("ERROR"), "{what}: {shown}");
                }
            });
        }
    });
    let mut s = connect(&instance);
    let all = (SESSIONS * EACH).to_string();
    assert_eq!(show(&mut s, "select sum(n) from t"), all);
    assert_eq!(show(&mut s, "select count(*) from l"), all);
}

#[test]
fn rows_say_who_wrote_them_and_where() {
    let instance = instance();
    let mut s = connect(&instance);
    show(&mut s, "create table t (id int primary key, v int); create index on t (v)");
    let written = show(&mut s, "insert into t values (1, 10) returning xmin");
    let xmin = written.lines().next().unwrap().to_owned();
    assert_eq!(show(&mut s, "select xmin, xmax, cmin, cmax, t.tableoid::regclass from t"), format!("{xmin}|0|0|0|t"));
    // A token of what was read: it changes with the row, and no one else's change goes unnoticed.
    // PostgreSQL's is 0 for those inserted only; to say so of all would be wrong.
    let upsert = "insert into t values (1, 10) on conflict (id) do update set v = excluded.v returning xmax = 0";
    assert!(show(&mut s, upsert).starts_with("ERROR:  0A000"));
    let update = format!("update t set v = v + 1 where id = 1 and xmin = '{xmin}' returning xmin, v");
    let updated = show(&mut s, &update);
    let (now, v) = updated.lines().next().unwrap().split_once('|').unwrap();
    assert!(v == "11" && now != xmin, "{updated}");
    assert_eq!(show(&mut s, "select xmin from t where v = 11"), now);
    assert_eq!(show(&mut s, &update), "UPDATE 0");
    assert_eq!(show(&mut s, &format!("delete from t where xmin = '{xmin}'")), "DELETE 0");
    // Rows are found by where they are.
    let ctid = show(&mut s, "select ctid from t");
    assert!(ctid.starts_with('(') && ctid != "(4294967295,0)", "{ctid}");
    assert_eq!(show(&mut s, &format!("select id, v from t where ctid = '{ctid}'")), "1|11");
    assert_eq!(show(&mut s, "select id from t where ctid = '(7,7)'"), "");
    assert_eq!(show(&mut s, &format!("update t set v = 12 where ctid = '{ctid}' returning v")), "12\nUPDATE 1");
    assert_ne!(show(&mut s, "select ctid from t"), ctid);
    // In joins and under locks too.
    let own = show(&mut s, "select a.xmin = b.xmin, a.ctid = b.ctid from t a join t b using (id) for update of a");
    assert_eq!(own, "t|t");
    assert_eq!(show(&mut s, "delete from t returning xmin = xmin, id"), "t|1\nDELETE 1");
    assert!(show(&mut s, "select * from (select 1 as a) x where xmin = '1'").contains("42703"));
    // Both of a transaction's statements carry its number.
    let both = show(
        &mut s,
        "begin; insert into t values (1, 1) returning xmin; insert into t values (2, 2) returning xmin; commit",
    );
    let numbers: Vec<&str> = both.lines().filter(|l| l.parse::<u32>().is_ok()).collect();
    assert!(numbers.len() == 2 && numbers[0] == numbers[1], "{both}");
}

#[test]
fn explain_shows_where_rows_are_locked() {
    let instance = instance();
    let mut s = connect(&instance);
    show(&mut s, "create table t (id int primary key, v int); insert into t values (1, 1), (2, 2)");
    let plan = show(&mut s, "explain (costs off) select v from t order by v limit 1 for update");
    let nodes: Vec<&str> = plan.lines().map(|l| l.trim_start_matches([' ', '-', '>'])).collect();
    assert_eq!(nodes[0], "Limit", "{plan}");
    assert!(nodes.iter().position(|n| *n == "LockRows") < nodes.iter().position(|n| *n == "Sort"), "{plan}");
    let plan =
        show(&mut s, "explain (analyze, costs off, timing off, summary off) select v from t where id = 1 for share");
    assert!(plan.contains("LockRows") && plan.contains("rows=1"), "{plan}");
}

#[test]
fn a_portal_locks_only_the_rows_it_gives() {
    let instance = instance();
    let (mut a, mut b) = (connect(&instance), connect(&instance));
    show(&mut a, "create table t (id int primary key); insert into t select generate_series(1, 5)");
    show(&mut a, "begin");
    a.parse("q", "select id from t order by id for update", &[]).unwrap();
    a.bind("p", "q", vec![], &[], &[]).unwrap();
    a.execute("p", 2).unwrap();
    while let Step::Rows(_) = a.fetch().unwrap() {}
    assert_eq!(show(&mut b, "select id from t order by id for update skip locked"), "3\n4\n5");
    show(&mut a, "rollback");
    assert_eq!(show(&mut b, "select count(*) from (select from t for update skip locked) x"), "5");
}

#[test]
fn ties_are_not_skipped() {
    let mut s = connect(&instance());
    show(&mut s, "create table t (a int)");
    let skip = "select a from t order by a fetch first 2 rows with ties for update skip locked";
    assert_eq!(show(&mut s, skip), "ERROR:  42601: SKIP LOCKED and WITH TIES options cannot be used together");
    assert_eq!(show(&mut s, &skip.replace("skip locked", "nowait")), "");
}
