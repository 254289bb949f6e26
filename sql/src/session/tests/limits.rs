//! Statements made to be too much: they are refused as PostgreSQL refuses them, or answered soon, and never take the server down.

use super::*;

fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

/// Runs a test on a table of two rows, with the stack that sessions have.
fn with_table(test: impl FnOnce(&mut Session) + Send + 'static) {
    let run = || {
        let mut s = connect(&instance());
        show(&mut s, "create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b')");
        test(&mut s);
    };
    std::thread::Builder::new().stack_size(16 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn target_lists_have_1664_entries() {
    with_table(|s| {
        let limit = "ERROR:  54011: target lists can have at most 1664 entries";
        assert!(!show(s, &format!("select {}", list(1664, |_| "1".into()))).starts_with("ERROR"));
        assert_eq!(show(s, &format!("select {}", list(300_000, |_| "1".into()))), limit);
        assert_eq!(show(s, &format!("values ({})", list(1665, |_| "1".into()))), limit);
        // Hidden entries count too; one written twice is one.
        for clause in ["order", "group"] {
            let of = |n, item: fn(usize) -> String| format!("select 1 from t {clause} by {}", list(n, item));
            assert_eq!(show(s, &of(20_000, |i| format!("id+{i}"))), limit);
            assert_eq!(show(s, &of(20_000, |_| "id".into())), "1\n1");
        }
        assert_eq!(
            show(s, &format!("select row({})", list(1665, |_| "1".into()))),
            "ERROR:  54011: ROW expressions can have at most 1664 entries"
        );
        assert!(
            show(s, &format!("select 1 from t group by rollup ({})", list(20_000, |_| "id".into()))).contains("54001")
        );
    });
}

#[test]
fn calls_have_100_arguments() {
    with_table(|s| {
        assert_eq!(show(s, &format!("select length(concat({}))", list(100, |_| "'a'".into()))), "100");
        assert_eq!(
            show(s, &format!("select concat({})", list(200_000, |_| "'a'".into()))),
            "ERROR:  54023: cannot pass more than 100 arguments to a function"
        );
        assert_eq!(show(s, &format!("select length(concat(variadic array[{}]))", list(200, |_| "'a'".into()))), "200");
    });
}

/// Without sharing, each level would double what is below it.
#[test]
fn tests_nested_in_tests_stay_small() {
    with_table(|s| {
        let nest = |f: fn(&str, usize) -> String| {
            let test = (0..30).fold("id".to_owned(), |e, i| f(&e, i));
            format!("select count(*) from t where {test} >= 0")
        };
        assert_eq!(show(s, &nest(|e, i| format!("({e} between {i} and {i} + 1)::int"))), "2");
        assert_eq!(show(s, &nest(|e, i| format!("({e} between symmetric {i} + 1 and {i})::int"))), "2");
        assert_eq!(show(s, &nest(|e, i| format!("(id between symmetric {i} and {e})::int"))), "2");
        assert_eq!(show(s, &nest(|e, _| format!("({e} in (id, id + 1))::int"))), "2");
        assert_eq!(show(s, &nest(|e, _| format!("(({e}, 1) in ((id, 1), (2, 2)))::int"))), "2");
    });
}

/// NULLs and negation where operands are shared, against the plain comparisons.
#[test]
fn shared_operands_mean_the_same() {
    with_table(|s| {
        let long = |e: &str| format!("({e}+0+0+0+0+0+0+0+0+0+0)");
        let values = ["1", "3", "5", "null::int"];
        for x in values {
            for low in values {
                for high in values {
                    let (lx, ll, lh) = (long(x), long(low), long(high));
                    for not in ["", "not "] {
                        let sql = format!(
                            "select {lx} {not}between {ll} and {lh} is not distinct from {not}({x} >= {low} and {x} <= {high}), \
                         {lx} {not}between symmetric {ll} and {lh} is not distinct from \
                         {not}(({x} >= {low} and {x} <= {high}) or ({x} >= {high} and {x} <= {low})), \
                         {lx} {not}in ({ll}, (select {high})) is not distinct from {not}({x} = {low} or {x} = {high})"
                        );
                        assert_eq!(show(s, &sql), "t|t|t", "{sql}");
                    }
                }
            }
        }
        assert!(
            show(s, "explain select * from t where id between 1 and 2")
                .contains("Index Cond: ((id >= 1) AND (id <= 2))")
        );
    });
}

#[test]
fn many_relations_are_joined_soon_or_refused() {
    with_table(|s| {
        let chain = |n: usize, kind: &str| {
            let joins: String = (1..n).map(|i| format!(" {kind} t t{i} on t{i}.id = t{}.id", i - 1)).collect();
            format!("select count(*) from t t0{joins}")
        };
        for kind in ["join", "left join"] {
            assert_eq!(show(s, &chain(200, kind)), "2");
            assert!(show(s, &chain(320, kind)).starts_with("ERROR:  54001: stack depth limit exceeded"));
        }
        let union = vec!["select id from t"; 300].join(" union ");
        assert_eq!(show(s, &format!("select count(*) from ({union}) x")), "2");
        show(s, "create view v0 as select a.id from t a join t b on a.id = b.id");
        for i in 1..8 {
            show(s, &format!("create view v{i} as select a.id from v{} a join v{} b on a.id = b.id", i - 1, i - 1));
        }
        assert_eq!(show(s, "select count(*) from v7"), "2");
        assert!(show(s, "select count(*) from v7 a join v7 b on a.id = b.id").starts_with("ERROR:  54001"));
        let all = list(10, |i| format!("v7 a{i}"));
        assert!(show(s, &format!("select 1 from {all}")).starts_with("ERROR:  54000: too many range table entries"));
    });
}
