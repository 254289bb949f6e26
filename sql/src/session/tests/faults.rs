//! A table is the same after any failure: each write of a workload fails in each way there is, and what was acknowledged must be there, whole, and nothing half.

use std::collections::BTreeMap;

use pgbee_engine::storage::faulty::{Fault, Faulty, Plan};
use pgbee_engine::storage::memory::Memory;

use super::*;

/// Statements, each a transaction of its own, and what they do to the model: a map of t(id, v).
const WORKLOAD: [(&str, fn(&mut BTreeMap<i32, i32>)); 7] = [
    ("insert into t select i, i from generate_series(1, 30) i", |m| m.extend((1..=30).map(|i| (i, i)))),
    ("update t set v = v + 100 where id % 2 = 0", |m| {
        m.iter_mut().filter(|(k, _)| *k % 2 == 0).for_each(|(_, v)| *v += 100)
    }),
    (
        "begin; insert into t values (31, 5); savepoint s; delete from t; rollback to s; delete from t where id <= 3; commit",
        |m| {
            m.insert(31, 5);
            m.retain(|k, _| *k > 3);
        },
    ),
    ("insert into t values (4, 0), (32, 6) on conflict (id) do update set v = -1", |m| {
        m.entry(4).and_modify(|v| *v = -1).or_insert(0);
        m.entry(32).and_modify(|v| *v = -1).or_insert(6);
    }),
    ("create index t_v2 on t (v, id)", |_| {}),
    ("delete from t where v > 110", |m| m.retain(|_, v| *v <= 110)),
    ("insert into t values (40, 40)", |m| {
        m.insert(40, 40);
    }),
];

fn options() -> InstanceOptions {
    InstanceOptions { cache_bytes: 16 << 20, ..InstanceOptions::default() }
}

/// What the table holds, after checking that its indexes, its catalog and its log agree with it.
fn table(instance: &Arc<Instance>) -> BTreeMap<i32, i32> {
    let mut s = connect(instance);
    let rows = show(&mut s, "select id, v from t order by id");
    let by_index = show(&mut s, "select id, v from t where v > -1000000 order by v, id");
    let (mut a, mut b): (Vec<&str>, Vec<&str>) = (rows.lines().collect(), by_index.lines().collect());
    a.sort_unstable();
    b.sort_unstable();
    assert_eq!(a, b, "the index and the table differ");
    assert_eq!(show(&mut s, "select count(*) from t"), rows.lines().count().to_string());
    let twice = show(&mut s, "begin; insert into t select * from t limit 1; rollback");
    assert!(rows.is_empty() || twice.contains("23505"), "{twice}");
    instance.verify("postgres", &mut |_, _| {}).unwrap();
    let row = |l: &str| l.split_once('|').map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).unwrap();
    rows.lines().map(row).collect()
}

struct Run {
    backend: Arc<Faulty>,
    instance: Arc<Instance>,
    /// Writes before the workload.
    before: u64,
}

fn set_up() -> Run {
    let backend = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
    let instance = Instance::on(backend.clone(), options()).unwrap();
    let mut s = connect(&instance);
    assert_eq!(
        show(&mut s, "create table t (id int primary key, v int); create index t_v on t (v)"),
        "CREATE TABLE\nCREATE INDEX"
    );
    let before = backend.writes();
    Run { backend, instance, before }
}

/// Runs the workload; the states that may be found after it: what failed is undone, or, if `uncertain`, perhaps done, and then the rest is left.
fn work(run: &Run, uncertain: bool) -> (Vec<BTreeMap<i32, i32>>, Vec<String>) {
    let (mut possible, mut errors) = (vec![BTreeMap::new()], Vec::new());
    let mut s = connect(&run.instance);
    for (sql, effect) in WORKLOAD {
        let shown = show(&mut s, sql);
        let mut done = possible.clone();
        done.iter_mut().for_each(effect);
        if shown.contains("ERROR") {
            errors.push(shown);
            show(&mut s, "rollback");
            if uncertain {
                possible.extend(done);
                break;
            }
        } else {
            possible = done;
        }
    }
    (possible, errors)
}

fn writes_of_the_workload() -> u64 {
    let run = set_up();
    let (possible, errors) = work(&run, false);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(table(&run.instance), possible[0]);
    run.backend.writes() - run.before
}

#[test]
fn a_table_is_the_same_after_any_crash() {
    let writes = writes_of_the_workload();
    assert!(writes >= WORKLOAD.len() as u64);
    for n in 1..=writes {
        for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::FailBefore, Fault::FailAfter] {
            for survivors in [0, usize::MAX] {
                let run = set_up();
                run.backend.set_plan(Plan::at(run.before + n, fault));
                let (possible, errors) = work(&run, true);
                assert!(!errors.is_empty(), "write {n}, {fault:?}: nobody was told");
                run.backend.crash();
                drop(run.instance);
                run.backend.heal(survivors).unwrap();
                let found = table(&Instance::on(run.backend.clone(), options()).unwrap());
                assert!(
                    possible.contains(&found),
                    "write {n}, {fault:?}: {found:?} is none of {possible:?}; {errors:?}"
                );
            }
        }
    }
}

#[test]
fn a_full_disk_is_told_and_got_over() {
    let writes = writes_of_the_workload();
    for n in 1..=writes {
        let run = set_up();
        run.backend.set_plan(Plan::none().no_space(run.before + n, 2));
        let (possible, errors) = work(&run, false);
        assert!(errors.iter().all(|e| e.contains("53100")), "write {n}: {errors:?}");
        assert!(!errors.is_empty(), "write {n}: nobody was told");
        // There is room again: the same server reads and writes.
        run.backend.set_plan(Plan::none());
        let found = table(&run.instance);
        assert!(possible.contains(&found), "write {n}: {found:?} is none of {possible:?}; {errors:?}");
        assert_eq!(show(&mut connect(&run.instance), "insert into t values (99, 99)"), "INSERT 0 1", "write {n}");
    }
}
