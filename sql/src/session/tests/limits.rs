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
fn tables_and_views_have_1600_columns() {
    with_table(|s| {
        let limit = "ERROR:  54011: tables can have at most 1600 columns";
        show(s, &format!("create table w ({})", list(1600, |i| format!("c{i} int"))));
        assert_eq!(show(s, "alter table w add column more int"), limit);
        assert_eq!(show(s, &format!("create view x as select {}", list(1601, |i| format!("1 as c{i}")))), limit);
        assert_eq!(
            show(s, "alter table w drop column c1; alter table w add column more int"),
            format!("ALTER TABLE\n{limit}")
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

#[test]
fn functions_build_nothing_larger_than_a_value() {
    with_table(|s| {
        let too_large = "ERROR:  54000: requested length too large";
        for call in [
            "replace(repeat('a', 20000), 'a', repeat('b', 100000))",
            "format('%2000000000s', 'a')",
            "repeat('a', 1073741820)",
            "rpad('a', 1073741820)",
        ] {
            assert_eq!(show(s, &format!("select length({call})")), too_large, "{call}");
        }
        for call in ["array_fill(1, array[10000, 10000])", "array_fill(1, array[100000000])"] {
            assert!(show(s, &format!("select {call}")).starts_with("ERROR:  54000: array size exceeds"), "{call}");
        }
        // A prefix is taken without making the rest.
        for call in ["regexp_split_to_table(v, ',')", "string_to_table(v, ',')"] {
            assert_eq!(show(s, &format!("select {call} from (select repeat('a,', 100) v) x limit 2")), "a\na");
        }
        assert_eq!(
            show(s, "select regexp_split_to_table('abc', ''), regexp_split_to_table('xaabx', 'a*')"),
            "a|x\nb|b\nc|x"
        );
        assert_eq!(show(s, "select regexp_matches('abab', '(a)(b)', 'g')"), "{a,b}\n{a,b}");
    });
}

#[test]
fn long_sets_and_large_expressions_take_no_time() {
    with_table(|s| {
        let set = "(select string_agg(chr(i), '') from generate_series(1000, 30000) i)";
        let text = "repeat(chr(29999), 100000)";
        assert_eq!(show(s, &format!("select length(translate({text}, {set}, 'ab'))")), "0");
        assert_eq!(show(s, &format!("select btrim({text}, {set}) = '', translate('1221', '121', 'abc')")), "t|abba");
        assert_eq!(
            show(s, "select repeat('a', 3000) ~ '((a{1,40}){1,40}){1,40}b'"),
            "ERROR:  2201B: invalid regular expression: regular expression is too complex"
        );
        assert_eq!(
            show(s, "select repeat('a', 99) ~ '^[[:alpha:]]{1,99}$', '7' ~ '^\\d{1,255}$', 'é' ~ '^\\w{1,50}$'"),
            "t|t|t"
        );
    });
}

#[test]
fn versions_are_those_of_commits() {
    with_table(|s| {
        for sql in [
            "select * from t as of version 0",
            "select * from t as of version 1",
            "set bee.as_of = 'version:1'",
            "set bee.as_of = '0'",
            "select * from bee_diff('t', 1)",
            "select * from bee_diff('t', -1)",
            "select * from bee_history('t', 0, 99999)",
        ] {
            let shown = show(s, sql);
            assert!(
                shown.starts_with("ERROR:  22023: ") && shown.contains("DETAIL:  Versions go from "),
                "{sql}: {shown}"
            );
        }
        assert!(
            show(s, "select * from t as of version 3.5")
                .starts_with("ERROR:  42804: argument of AS OF VERSION must be")
        );
        assert!(!show(s, "select _op from bee_diff('t', 0)").starts_with("ERROR"));
    });
}

#[test]
fn the_past_is_shown_or_refused_but_never_hidden() {
    with_table(|s| {
        show(s, "create table o (k int primary key, v text, n int); insert into o values (1, 'a', 10)");
        let v = show(s, "select max(version) from bee_commits");
        show(s, "alter table o alter column v type int using length(v)");
        let shown = show(s, "select k, v from bee_history('o')");
        assert!(
            shown.starts_with("ERROR:  0A000: ") && shown.contains(&format!("column \"v\" had at version {v}")),
            "{shown}"
        );
        show(s, "create table d (k int primary key, n int); insert into d values (1, 10)");
        let v = show(s, "select max(version) from bee_commits");
        show(s, "alter table d drop column n; alter table d add column n text default 'new'");
        assert_eq!(show(s, &format!("select * from bee_diff('d', {v})")), "update|1|NULL|1|new");
        assert_eq!(show(s, "select _op, k, n from bee_history('d')"), "insert|1|NULL");
        show(s, "insert into d values (2, 'b')");
        show(s, "alter table d drop constraint d_pkey");
        let last = "select _op, k from bee_history('d') where _version = (select max(version) from bee_commits)";
        assert_eq!(show(s, last), "delete|1\ndelete|2\ninsert|1\ninsert|2");
    });
}

/// As PostgreSQL 15 answers.
#[test]
fn rows_that_are_not_there_have_a_rank() {
    with_table(|s| {
        let from = "from (values (1),(2),(3),(3),(5),(null)) v(x)";
        let shown = show(
            s,
            &format!(
                "select rank(3) within group (order by x), rank(3) within group (order by x desc), \
                 dense_rank(9) within group (order by x), percent_rank(3) within group (order by x), \
                 cume_dist(3) within group (order by x), rank(null) within group (order by x nulls first), \
                 dense_rank(4) within group (order by x nulls first), rank(3) within group (order by x) filter (where x <> 1) {from}"
            ),
        );
        assert_eq!(shown, "3|3|5|0.3333333333333333|0.7142857142857143|1|5|2");
        let of_none = "dense_rank(9) within group (order by x), percent_rank(1) within group (order by x), cume_dist(1) within group (order by x)";
        assert_eq!(show(s, &format!("select {of_none} {from} where false")), "1|0|1");
        let two = "select rank(3, 'b') within group (order by x, y desc) from (values (3,'a'),(3,'c'),(1,'z')) v(x,y)";
        assert_eq!(show(s, two), "3");
        assert!(
            show(s, &format!("select rank(1, 2) within group (order by x) {from}"))
                .starts_with("ERROR:  42883: function rank(integer, integer)")
        );
        assert_eq!(show(s, "select rank() over (order by id) from t"), "1\n2");
    });
}
