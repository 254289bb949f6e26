//! Foreign tables over bees that the test writes with the engine's own writer, or another database of the instance: the script in `cases/foreign.txt`, and what a script
//! cannot show: what is read, what is fetched, when a bee is let go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pgbee_engine::CoreKey;
use pgbee_engine::bee::{Cache, Writer};
use pgbee_engine::hypercore::Core;
use pgbee_engine::storage::Durability;

use super::follower::{Nearby, attach};
use super::scripts::parse;
use super::{connect, connect_to, instance, show, show_copying};
use crate::session::Instance;

/// Puts entries into a core of the store as one batch, as JavaScript would write them.
fn write(core: &Arc<Core>, entries: &[(&[u8], Option<&[u8]>)]) {
    let mut writer = Writer::new(core.clone(), Cache::new(1 << 20), 1, core.len());
    let mut batch = writer.batch();
    for (key, value) in entries {
        batch.put(key, *value).unwrap();
    }
    batch.flush();
    core.append(&writer.take_pending(), Durability::Sync).unwrap();
}

fn core(instance: &Arc<Instance>, name: &str) -> Arc<Core> {
    instance.store().get_by_name(name).unwrap()
}

/// A bee of texts.
fn texts(instance: &Arc<Instance>, name: &str, entries: &[(&str, &str)]) -> CoreKey {
    let core = core(instance, name);
    let entries: Vec<(&[u8], Option<&[u8]>)> =
        entries.iter().map(|(k, v)| (k.as_bytes(), Some(v.as_bytes()))).collect();
    write(&core, &entries);
    core.key()
}

const USERS: &[(&str, &str)] = &[
    ("alice", r#"{"name": "Alice", "age": 31, "tags": ["a", "b"], "n": 12345678901234567890.50}"#),
    ("bob", r#"{"name": "Bob \"B\"", "age": null, "name2": 1}"#),
    ("carol", r#"{"age": 27, "name": "x", "name": "Carol"}"#),
    ("dave", r#"[1, 2]"#),
];

/// The bees of the script, by the names it calls their keys by.
fn bees(instance: &Arc<Instance>) -> Vec<(&'static str, String)> {
    let users = texts(instance, "users", USERS);
    let broken = texts(instance, "broken", &[("a", "1"), ("b", "{oops"), ("c", "3")]);
    let subs = texts(
        instance,
        "subs",
        &[
            ("plain", "1"),
            ("users\0alice", r#"{"name": "Alice"}"#),
            ("users\0bob", r#"{"name": "Bob"}"#),
            ("users\0admins\0root", r#"{"name": "Root"}"#),
            ("words\0ab", "one"),
            ("words\0abc", "two"),
            ("words\0b", "three"),
        ],
    );
    let raw = core(instance, "raw");
    write(&raw, &[(&[0, 1], Some(&[0xff])), (&[0xab, 0x10], Some(b"")), (&[0xab, 0xcd], None), (&[0xff], Some(b"x"))]);
    instance.create_database("other").unwrap();
    let mut other = connect_to(instance, "other").unwrap();
    let made = show(
        &mut other,
        "CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, gone int, price numeric(8,2) DEFAULT 1);
         ALTER TABLE items DROP COLUMN gone;
         CREATE INDEX items_name ON items (name);
         INSERT INTO items SELECT i, 'item ' || i, i * 1.5 FROM generate_series(1, 200) i;
         CREATE TABLE \"Odd\" (a text);
         CREATE VIEW v AS SELECT 1;
         CREATE SCHEMA s; CREATE TABLE s.t (x int);",
    );
    assert!(!made.contains("ERROR"), "{made}");
    let other = CoreKey(instance.key("other").unwrap());
    let nobody = CoreKey([7; 32]);
    let empty = core(instance, "empty").key();
    [
        ("users", users),
        ("broken", broken),
        ("subs", subs),
        ("raw", raw.key()),
        ("other", other),
        ("nobody", nobody),
        ("empty", empty),
    ]
    .map(|(name, key)| (name, key.to_z32()))
    .to_vec()
}

#[test]
fn foreign() {
    let instance = instance();
    let keys = bees(&instance);
    let mut session = connect(&instance);
    let mut other = connect_to(&instance, "other").unwrap();
    let mut failures = Vec::new();
    let mut all = String::new();
    for case in parse(include_str!("../cases/foreign.txt")) {
        let mut sql = case.sql.clone();
        for (name, key) in &keys {
            sql = sql.replace(&format!("{{{name}}}"), key);
        }
        // A statement for the database whose tables are imported.
        let session = if let Some(rest) = sql.strip_prefix("other: ") {
            sql = rest.to_owned();
            &mut other
        } else {
            &mut session
        };
        let mut shown = show_copying(session, &sql, &case.data);
        for (name, key) in &keys {
            shown = shown.replace(key, &format!("{{{name}}}"));
        }
        all += &format!("> {}\n{shown}\n", case.sql);
        if shown != case.expected {
            failures.push(format!("> {}\n--- expected\n{}\n--- shown\n{shown}\n", case.sql, case.expected));
        }
    }
    if let Ok(path) = std::env::var("PGBEE_SCRATCH") {
        std::fs::write(path, all).unwrap();
    }
    assert!(failures.is_empty(), "{} differences\n{}", failures.len(), failures.join("\n"));
}

/// Entries enough for many blocks and levels.
fn many(instance: &Arc<Instance>, count: usize) -> Arc<Core> {
    let core = core(instance, "many");
    let entries: Vec<(String, String)> = (0..count).map(|i| (format!("k{i:05}"), format!("{{\"i\": {i}}}"))).collect();
    let bytes: Vec<(&[u8], Option<&[u8]>)> = entries.iter().map(|(k, v)| (k.as_bytes(), Some(v.as_bytes()))).collect();
    write(&core, &bytes);
    core
}

/// Whatever the condition and the encoding: the rows by ranges are those that a filter over all rows gives.
#[test]
fn ranges_lose_nothing() {
    let instance = instance();
    let core = core(&instance, "keys");
    let mut keys: Vec<Vec<u8>> = vec![b"".to_vec()];
    for a in [0x00, 0x0a, 0x61, 0x62, 0xab, 0xff] {
        keys.push(vec![a]);
        for b in [0x00, 0x61, 0xbc, 0xff] {
            keys.push(vec![a, b]);
            keys.push(vec![a, b, 0x61]);
        }
    }
    let entries: Vec<Vec<u8>> = keys.iter().map(|k| [b"s\0", k.as_slice()].concat()).collect();
    let mut all: Vec<(&[u8], Option<&[u8]>)> = entries.iter().map(|k| (k.as_slice(), Some(&b"1"[..]))).collect();
    // Neighbours that must never show.
    all.extend([(&b"s"[..], Some(&b"1"[..])), (b"s\x01", Some(b"1")), (b"r\0a", Some(b"1")), (b"t\0a", Some(b"1"))]);
    write(&core, &all);
    let mut session = connect(&instance);
    let key = core.key().to_z32();
    let made = show(
        &mut session,
        &format!(
            "CREATE SERVER k FOREIGN DATA WRAPPER hyperbee OPTIONS (bee_key '{key}');
             CREATE FOREIGN TABLE raw (key bytea) SERVER k OPTIONS (sub 's');
             CREATE FOREIGN TABLE hex (key text) SERVER k OPTIONS (sub 's', key_encoding 'hex');
             CREATE FOREIGN TABLE b64 (key text) SERVER k OPTIONS (sub_hex '7300', key_encoding 'base64');"
        ),
    );
    assert!(!made.contains("ERROR"), "{made}");
    let count = show(&mut session, "SELECT count(*) FROM raw");
    assert_eq!(count, keys.len().to_string());
    let values = |table: &str| match table {
        "raw" => vec![r"'\x'", r"'\x00'", r"'\x61'", r"'\x6161'", r"'\xab'", r"'\xabbc61'", r"'\xff'", r"'\xffffff'"],
        _ => vec![
            "''", "'0'", "'00'", "'61'", "'6161'", "'abc'", "'ab'", "'AB'", "'abbc61'", "'ff'", "'zz'", "'YWI='",
            "'abx'",
        ],
    };
    for table in ["raw", "hex", "b64"] {
        for value in values(table) {
            for op in ["=", "<", "<=", ">", ">="] {
                let fast = show(&mut session, &format!("SELECT key FROM {table} WHERE key {op} {value} ORDER BY key"));
                // A call in the way of the range.
                let slow = show(
                    &mut session,
                    &format!(
                        "SELECT key FROM {table} WHERE coalesce(key, key) {op} {value} ORDER BY coalesce(key, key)"
                    ),
                );
                assert_eq!(fast, slow, "{table} {op} {value}");
            }
            let both =
                show(&mut session, &format!("SELECT key FROM {table} WHERE key >= {value} ORDER BY key DESC LIMIT 3"));
            let slow = show(
                &mut session,
                &format!(
                    "SELECT key FROM {table} WHERE coalesce(key, key) >= {value} ORDER BY coalesce(key, key) DESC LIMIT 3"
                ),
            );
            assert_eq!(both, slow, "{table} backwards from {value}");
        }
    }
}

/// Over a network a foreign table fetches what a query touches, waits for a first head, and is let go with its session.
#[test]
fn only_what_is_touched_is_fetched() {
    let writer = instance();
    let core = many(&writer, 3000);
    let network = Nearby::over(core.clone());
    let reader = instance();
    attach(&reader, &network);
    let mut session = connect(&reader);
    let made = show(
        &mut session,
        &format!(
            "CREATE SERVER far FOREIGN DATA WRAPPER hyperbee OPTIONS (bee_key '{}', peer '127.0.0.1:1');
             CREATE FOREIGN TABLE many (key text, i int, seq bigint) SERVER far;",
            core.key()
        ),
    );
    assert!(!made.contains("ERROR"), "{made}");
    let sent = || network.sent.swap(0, Ordering::SeqCst);
    assert_eq!(sent(), 0, "definitions fetch nothing");
    assert_eq!(show(&mut session, "SELECT key, i FROM many WHERE key = 'k01234'"), "k01234|1234");
    let point = sent();
    assert!((1..200).contains(&point), "{point} blocks for one key");
    assert_eq!(
        show(&mut session, "SELECT i FROM many WHERE key LIKE 'k0200%' ORDER BY key DESC LIMIT 2"),
        "2009\n2008"
    );
    let range = sent();
    assert!(range < 300, "{range} blocks for ten keys");
    assert_eq!(show(&mut session, "SELECT i FROM many ORDER BY key LIMIT 1"), "0");
    let first = sent();
    assert!(first < 300, "{first} blocks for the first key");
    assert_eq!(show(&mut session, "SELECT i FROM many WHERE key = 'k01234'"), "1234");
    assert_eq!(sent(), 0, "what is here is not fetched again");
    assert_eq!(show(&mut session, "SELECT count(*), sum(i) FROM many"), "3000|4498500");
    // A new head is seen by the next statement, once it came.
    write(&core, &[(b"k99999", Some(b"{\"i\": -1}"))]);
    let start = std::time::Instant::now();
    while show(&mut session, "SELECT i FROM many WHERE key = 'k99999'") != "-1" {
        assert!(start.elapsed().as_secs() < 10, "the new head never came");
    }
    assert!(network.follows(core.key()));
    drop(session);
    assert!(!network.follows(core.key()), "nobody reads it any more");
}

/// A database that follows a bee pgbee did not write has one table.
#[test]
fn a_followed_bee_is_a_table() {
    let writer = instance();
    let core = core(&writer, "theirs");
    write(&core, &[(b"a", Some(b"1")), (b"b", None), (b"c\0d", Some(b"{}"))]);
    let network = Nearby::over(core.clone());
    let reader = instance();
    attach(&reader, &network);
    reader.follow_database("theirs", core.key(), &[], None).unwrap();
    let mut session = connect_to(&reader, "theirs").unwrap();
    assert_eq!(
        show(&mut session, "SELECT key, value, seq FROM bee ORDER BY key"),
        "\\x61|\\x31|1\n\\x62|NULL|2\n\\x630064|\\x7b7d|3"
    );
    assert_eq!(show(&mut session, "SELECT count(*) FROM public.bee WHERE key >= 'b'"), "2");
    assert_eq!(
        show(&mut session, "EXPLAIN (COSTS OFF) SELECT * FROM bee WHERE key = 'b'"),
        "Foreign Scan on bee\n  Key Range: (key = '\\x62'::bytea)"
    );
    assert_eq!(
        show(
            &mut session,
            "SELECT c.relkind, s.srvname, w.fdwname FROM pg_class c JOIN pg_foreign_table t ON t.ftrelid = c.oid JOIN pg_foreign_server s ON s.oid = t.ftserver JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw WHERE c.relname = 'bee'"
        ),
        "f|bee|hyperbee"
    );
    assert!(show(&mut session, "CREATE TABLE t (a int)").starts_with("ERROR:  25006"));
    assert!(
        show(&mut session, "DELETE FROM bee").starts_with("ERROR:  0A000: cannot delete from foreign table \"bee\"")
    );
    assert_eq!(show(&mut session, "SELECT count(*) FROM bee AS OF VERSION 4"), "3");
    assert!(show(&mut session, "SELECT count(*) FROM bee AS OF VERSION 3").starts_with("ERROR:  22023"));
    assert_eq!(show(&mut session, "SELECT bee_download('bee')"), "0", "all of it was read");
    // It moves on; what was its head once can still be read.
    write(&core, &[(b"e", Some(b"2"))]);
    let start = std::time::Instant::now();
    while show(&mut session, "SELECT count(*) FROM bee") != "4" {
        assert!(start.elapsed().as_secs() < 10, "the new head never came");
    }
    assert_eq!(show(&mut session, "SELECT count(*), (SELECT count(*) FROM bee) FROM bee AS OF VERSION 4"), "3|4");
    let refused = show(&mut session, "SELECT count(*) FROM bee AS OF VERSION 3");
    assert!(refused.contains("3 is not a version") && refused.contains("no commit records"), "{refused}");
    write(&core, &[(b"f", Some(b"3")), (b"g", Some(b"4"))]);
    // How much it still has to bring depends on how far the prefetch of the new head's keys has come.
    assert_eq!(show(&mut session, "SELECT bee_wait_for(7, '10 s')"), "t");
    assert!(show(&mut session, "SELECT bee_download('bee')").parse::<u64>().is_ok());
    network.set_online(false);
    assert_eq!(show(&mut session, "SELECT count(*) FROM bee"), "6");
}

/// A stranger's definitions do not enter our catalog unless they could be our own.
#[test]
fn unsound_definitions_are_refused() {
    use crate::codec::keyspace::{self, Kind};
    let instance = instance();
    let column = |attnum: i16, name: &str, ty: u32| serde_json::json!({ "attnum": attnum, "name": name, "ty": ty, "typmod": -1, "not_null": false });
    let cases = [
        ("sound", vec![column(1, "a", 23)], serde_json::json!(null)),
        ("numbers", vec![column(2, "a", 23)], serde_json::json!(null)),
        ("types", vec![column(1, "a", 4_000_000)], serde_json::json!(null)),
        ("pseudo", vec![column(1, "a", 2249)], serde_json::json!(null)),
        ("names", vec![column(1, "a", 23), column(2, "a", 23)], serde_json::json!(null)),
        ("nameless", vec![column(1, "", 23)], serde_json::json!(null)),
        ("keys", vec![column(1, "a", 23)], serde_json::json!({ "oid": 9, "name": "k", "columns": [7] })),
    ];
    for (name, columns, key) in cases {
        let core = core(&instance, name);
        let table = serde_json::json!({
            "oid": 20_000, "schema": 2200, "name": name, "slots": columns, "primary_key": key, "indexes": [], "checks": [],
        });
        let schema = serde_json::json!({ "oid": 2200, "name": "public" });
        let (table, schema) = (table.to_string(), schema.to_string());
        let (table_key, schema_key) =
            (keyspace::definition(Kind::Table, 20_000), keyspace::definition(Kind::Schema, 2200));
        write(
            &core,
            &[
                (keyspace::STAMP, Some(b"1")),
                (&table_key, Some(table.as_bytes())),
                (&schema_key, Some(schema.as_bytes())),
            ],
        );
        let mut session = connect(&instance);
        show(
            &mut session,
            &format!("CREATE SERVER {name} FOREIGN DATA WRAPPER hyperbee OPTIONS (bee_key '{}')", core.key()),
        );
        let shown = show(&mut session, &format!("IMPORT FOREIGN SCHEMA public FROM SERVER {name} INTO public"));
        if name == "sound" {
            assert_eq!(shown, "IMPORT FOREIGN SCHEMA");
            assert_eq!(show(&mut session, "SELECT count(*) FROM sound"), "0");
        } else {
            assert!(shown.starts_with("ERROR:  XX001"), "{name}: {shown}");
        }
    }
}
