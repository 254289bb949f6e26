//! How long the common statements take in the session's layer. Run with optimisation: `cargo test --profile release -- --ignored speed`.

use std::time::Instant;

use bytes::Bytes;

use super::*;

fn each(what: &str, count: u32, start: Instant) {
    println!("{what}: {:.2} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(count));
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    const ROWS: u32 = 200_000;
    let instance = Instance::in_memory(InstanceOptions::default()).unwrap();
    let mut s = connect(&instance);
    show(&mut s, "create table t (id int primary key, name text, n bigint, price numeric(10,2), at timestamptz)");
    let data: String =
        (0..ROWS).map(|i| format!("{i}\tname of {i}\t{}\t{}.50\t2024-01-01 00:00:00+00\n", i * 7, i % 1000)).collect();
    let start = Instant::now();
    s.simple("copy t from stdin").unwrap();
    s.next_result().unwrap();
    data.as_bytes().chunks(65536).for_each(|c| s.copy_data(c).unwrap());
    each("COPY FROM, parsed and put, a row", ROWS, start);
    s.copy_done().unwrap();
    while s.next_result().unwrap().is_some() {}
    each("COPY FROM, committed, a row", ROWS, start);

    s.parse("get", "select name from t where id = $1", &[]).unwrap();
    for round in 0..3u32 {
        let start = Instant::now();
        for i in 0..20_000u32 {
            let id = (i * 7919 + round) % ROWS;
            s.bind("", "get", vec![Some(Bytes::copy_from_slice(&id.to_be_bytes()))], &[1], &[]).unwrap();
            s.execute("", 0).unwrap();
            while matches!(s.fetch().unwrap(), Step::Rows(_)) {}
            s.sync().unwrap();
        }
        each("prepared SELECT by key", 20_000, start);
    }
    let snapshot = s.shared.db.database.snapshot();
    let table = s.shared.current.lock().catalog.find(&[2200], "t").unwrap().oid();
    for _ in 0..2 {
        let start = Instant::now();
        for i in 0..20_000u32 {
            let mut key = crate::codec::keyspace::table_prefix(table).to_vec();
            key.extend_from_slice(&((i * 7919 % ROWS) ^ (1 << 31)).to_be_bytes());
            assert!(snapshot.get(&key).unwrap().is_some());
        }
        each("the same from the engine", 20_000, start);
    }
    let start = Instant::now();
    for _ in 0..20_000u32 {
        s.statement().unwrap();
        s.rollback();
    }
    each("a statement's surroundings", 20_000, start);
    let start = Instant::now();
    for i in 0..5_000u32 {
        show(&mut s, &format!("select name from t where id = {}", i * 31));
    }
    each("simple SELECT by key", 5_000, start);
    let start = Instant::now();
    assert_eq!(show(&mut s, "select count(*), sum(n) from t").split('|').next(), Some("200000"));
    each("scan, a row", ROWS, start);
    s.parse("up", "update t set n = n + 1 where id = $1", &[]).unwrap();
    let start = Instant::now();
    for i in 0..5_000u32 {
        s.bind("", "up", vec![Some(Bytes::copy_from_slice(&i.to_be_bytes()))], &[1], &[]).unwrap();
        s.execute("", 0).unwrap();
        s.sync().unwrap();
    }
    each("prepared UPDATE by key, committed in memory", 5_000, start);
    let start = Instant::now();
    show(&mut s, "create index t_name on t (name)");
    each("CREATE INDEX, a row", ROWS, start);
    let start = Instant::now();
    s.simple("copy t to stdout").unwrap();
    s.next_result().unwrap();
    while let CopyStep::Data(_) = s.copy_out().unwrap() {}
    each("COPY TO, a row", ROWS, start);
    let start = Instant::now();
    show(&mut s, "insert into t select id + 1000000, name, n, price, at from t");
    each("INSERT ... SELECT with an index, a row", ROWS, start);
}
