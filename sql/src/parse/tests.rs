//! What the grammar accepts, refuses and how it groups; expectations were taken from PostgreSQL 15.

use super::ast::*;
use super::parse;

fn one(sql: &str) -> StatementKind {
    let mut statements = parse(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0).kind
}

fn error(sql: &str) -> (String, String, u32) {
    let e = parse(sql).map(|s| panic!("{sql} parsed: {s:?}")).unwrap_err();
    (e.state().to_owned(), e.message().to_owned(), e.0.position.unwrap_or(0))
}

/// An expression in Lisp's clothes, so that grouping shows.
fn shape(sql: &str) -> String {
    fn list(items: &[Expr]) -> String {
        items.iter().map(show).collect::<Vec<_>>().join(" ")
    }
    fn show(e: &Expr) -> String {
        match &e.kind {
            ExprKind::Number(n) => n.clone(),
            ExprKind::String(s) => format!("'{s}'"),
            ExprKind::Bool(b) => b.to_string(),
            ExprKind::Null => "null".into(),
            ExprKind::Column(names) => names.iter().map(|n| n.text.as_str()).collect::<Vec<_>>().join("."),
            ExprKind::Op { name, left: Some(left), right, .. } => format!("({name} {} {})", show(left), show(right)),
            ExprKind::Op { name, left: None, right, .. } => format!("({name} {})", show(right)),
            ExprKind::And(v) => format!("(and {})", list(v)),
            ExprKind::Or(v) => format!("(or {})", list(v)),
            ExprKind::Not(v) => format!("(not {})", show(v)),
            ExprKind::IsNull { input, negated } => {
                format!("({} {})", if *negated { "notnull" } else { "isnull" }, show(input))
            }
            ExprKind::IsBool { input, value, negated } => format!("(is {negated} {value:?} {})", show(input)),
            ExprKind::IsDistinct { left, right, .. } => format!("(distinct {} {})", show(left), show(right)),
            ExprKind::Between { input, low, high, .. } => {
                format!("(between {} {} {})", show(input), show(low), show(high))
            }
            ExprKind::InList { input, list: l, .. } => format!("(in {} {})", show(input), list(l)),
            ExprKind::Like { input, pattern, .. } => format!("(like {} {})", show(input), show(pattern)),
            ExprKind::Cast { input, ty } => {
                format!("({}:{}{} {})", ty.name.last(), ty.mods.len(), "[]".repeat(ty.dims), show(input))
            }
            ExprKind::Call(c) => {
                format!("({} {})", c.name.last(), list(&c.args.iter().map(|a| a.value.clone()).collect::<Vec<_>>()))
            }
            ExprKind::Row { fields, .. } => format!("(row {})", list(fields)),
            ExprKind::Field { input, name } => format!("(field {} {})", show(input), name.text),
            ExprKind::Subscript { input, items } => format!("(sub{} {})", items.len(), show(input)),
            ExprKind::ScalarQuery(_) => "query".into(),
            ExprKind::Quantified { left, op, all, .. } => format!("({op} {all} {})", show(left)),
            other => format!("{other:?}"),
        }
    }
    match one(&format!("SELECT {sql}")) {
        StatementKind::Query(q) => match q.body {
            Body::Select(s) => list(&s.targets.iter().map(|t| t.expr.clone()).collect::<Vec<_>>()),
            _ => panic!("no select"),
        },
        _ => panic!("no query"),
    }
}

#[test]
fn precedence_is_postgresqls() {
    for (sql, expected) in [
        ("1 + 2 * 3 ^ 4 ^ 5", "(+ 1 (* 2 (^ (^ 3 4) 5)))"),
        ("-2 ^ 2", "(^ -2 2)"),
        ("- a ^ 2", "(^ (- a) 2)"),
        ("-1::int", "(- (int4:0 1))"),
        ("not a = b and c or d", "(or (and (not (= a b)) c) d)"),
        ("a or b and c or d", "(or a (and b c) d)"),
        ("~ 5 + 3", "(~ (+ 5 3))"),
        ("~5 | 3", "(| (~ 5) 3)"),
        ("a || b = c || d", "(= (|| a b) (|| c d))"),
        ("1 between 0 and 1 and 1 = 1", "(and (between 1 0 1) (= 1 1))"),
        ("a not like b || c", "(like a (|| b c))"),
        ("a is null is null", "(isnull (isnull a))"),
        ("a + 1 is distinct from b + 1", "(distinct (+ a 1) (+ b 1))"),
        ("a at time zone 'x' + b", "(+ (timezone 'x' a) b)"),
        ("a + b at time zone 'x'", "(+ a (timezone 'x' b))"),
        ("a::numeric(10,2)[]", "(numeric:2[] a)"),
        ("int4 '42', date '2024-01-01', double precision '1'", "(int4:0 '42') (date:0 '2024-01-01') (float8:0 '1')"),
        ("(a).b.c, a.b[1][2].c, (f(x)).y", "(field (field a b) c) (field (sub2 a.b) c) (field (f x) y)"),
        ("((1)), (1, 2), ((1, 2)), ((select 1)), (((select 1)) + 1)", "1 (row 1 2) (row 1 2) query (+ query 1)"),
        (
            "extract(year from a), substring(a from 2 for 3), substring(a, 2), substring(a for 3)",
            "(extract 'year' a) (substring a 2 3) (substring a 2) (substring a 1 (int4:0 3))",
        ),
        (
            "trim(both 'x' from a), trim(a), position('a' in b), overlay(a placing b from 1)",
            "(btrim a 'x') (btrim a) (position b 'a') (overlay a b 1)",
        ),
        ("1 <> -1, 1 +- 1, 1 *- 1", "(<> 1 -1) (+ 1 -1) (* 1 -1)"),
        ("a = any(array[1]), a like all (select 1)", "(= false a) (~~ true a)"),
        ("a in (1, 2), a in ((1), (2))", "(in a 1 2) (in a 1 2)"),
        ("1 operator(pg_catalog.+) 2 * 3", "(+ 1 (* 2 3))"),
        ("-2147483648, - 1.5", "-2147483648 -1.5"),
        ("(a, b) overlaps (c, d)", "(overlaps a b c d)"),
        ("E'a\\nb' 'c'".trim_end_matches(" 'c'"), "'a\nb'"),
        ("U&'d\\0061t', $$x$$, $a$ $$ $a$", "'dat' 'x' ' $$ '"),
        ("a isnull, not a notnull", "(isnull a) (not (notnull a))"),
        (
            "case when a then 1 end is null",
            "(isnull Case { operand: None, whens: [(Expr { kind: Column([Name { text: \"a\", pos: 17 }]), pos: 17 }, Expr { kind: Number(\"1\"), pos: 24 })], otherwise: None })",
        ),
    ] {
        assert_eq!(shape(sql), expected, "{sql}");
    }
}

#[test]
fn syntax_errors_have_postgresqls_words_and_place() {
    for (sql, message, position) in [
        ("SELECT 1 +", "syntax error at end of input", 11),
        ("SELEC 1", "syntax error at or near \"SELEC\"", 1),
        ("SELECT 'é' FROM FROM", "syntax error at or near \"FROM\"", 17),
        ("SELECT 'abc", "unterminated quoted string at or near \"'abc\"", 8),
        ("SELECT \"abc", "unterminated quoted identifier at or near \"\"abc\"", 8),
        ("SELECT /* a", "unterminated /* comment at or near \"/* a\"", 8),
        ("SELECT 0x1F", "trailing junk after numeric literal at or near \"0x1F\"", 8),
        ("SELECT 'foo' 'bar'", "syntax error at or near \"'bar'\"", 14),
        ("SELECT 1 = 2 = 3", "syntax error at or near \"=\"", 14),
        ("SELECT ARRAY[1][1]", "syntax error at or near \"[\"", 16),
        ("SELECT 1; SELECT )", "syntax error at or near \")\"", 18),
        ("SELECT f(a => 1, 2)", "positional argument cannot follow named argument", 18),
        ("SELECT 1 over", "syntax error at or near \"over\"", 10),
        ("INSERT INTO t", "syntax error at end of input", 14),
        ("CREATE TABLE t (a int,)", "syntax error at or near \")\"", 23),
    ] {
        assert_eq!(error(sql), ("42601".to_owned(), message.to_owned(), position), "{sql}");
    }
}

#[test]
fn statements_are_split_and_keep_their_text() {
    let statements = parse("; SELECT 'a;é' ;; /* ; */ SELECT $1 + $3;").expect("parses");
    assert_eq!(statements.iter().map(Statement::text).collect::<Vec<_>>(), ["SELECT 'a;é'", "SELECT $1 + $3"]);
    assert_eq!(statements[1].char_offset(), 26);
    assert_eq!((statements[0].max_param, statements[1].max_param), (0, 3));
}

fn as_of(sql: &str) -> String {
    let StatementKind::Query(query) = one(sql) else { panic!("{sql}") };
    let Body::Select(select) = query.body else { panic!("{sql}") };
    match &select.from[0] {
        FromItem::Table { as_of, alias, .. } => {
            let kind = match as_of.as_ref().map(|a| &a.kind) {
                None => "none".to_owned(),
                Some(AsOfKind::Version(e)) => format!("version {:?}", e.kind),
                Some(AsOfKind::Time(e)) => format!("time {:?}", e.kind),
                Some(AsOfKind::Tag(t)) => format!("tag {t}"),
            };
            format!("{kind} {}", alias.as_ref().map_or("-", |a| &a.name))
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn as_of_in_every_form() {
    for (sql, expected) in [
        ("SELECT * FROM t AS OF VERSION 12 o", "version Number(\"12\") o"),
        ("SELECT * FROM t AS OF 12 AS o", "version Number(\"12\") o"),
        ("SELECT * FROM t AS OF $1", "version Param(1) -"),
        ("SELECT * FROM t AS OF TIMESTAMP '2026-11-01 00:00+00' WHERE a", "time String(\"2026-11-01 00:00+00\") -"),
        ("SELECT * FROM t AS OF TAG 'audit-2026Q3'", "tag audit-2026Q3 -"),
        ("SELECT * FROM t AS OF TAG q3 x", "tag q3 x"),
        ("SELECT * FROM t FOR SYSTEM_TIME AS OF '2026-01-01' x", "time String(\"2026-01-01\") x"),
        ("SELECT * FROM t FOR SYSTEM_VERSION AS OF 7", "version Number(\"7\") -"),
        ("SELECT * FROM t AS OF SYSTEM TIME '-10s' y", "time String(\"-10s\") y"),
        ("SELECT * FROM t AS of", "none of"),
        ("SELECT * FROM t AS of(c)", "none of"),
        ("SELECT * FROM t AS of WHERE true", "none of"),
        ("SELECT * FROM t, u", "none -"),
    ] {
        assert_eq!(as_of(sql), expected, "{sql}");
    }
}

#[test]
fn every_statement_of_the_conformance_kind_parses() {
    for sql in [
        "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM s WHERE n<3) CYCLE n SET is_cycle USING path SELECT n FROM s",
        "WITH update AS (SELECT 1) UPDATE t SET a = 1 FROM update RETURNING *",
        "WITH x AS (SELECT 1) SELECT (1) FROM x FOR UPDATE SKIP LOCKED",
        "SELECT * FROM ROWS FROM (generate_series(1,2), generate_series(1,3)) WITH ORDINALITY AS f(a, b)",
        "SELECT * FROM ((a JOIN b USING (id)) LEFT JOIN c ON true) AS j, LATERAL (SELECT 1) x",
        "SELECT * FROM a JOIN b JOIN c ON b.x = c.x ON a.x = b.x",
        "SELECT * FROM ((SELECT 1) UNION (SELECT 2)) AS u",
        "SELECT sum(x) OVER (w ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES) FROM t WINDOW w AS (PARTITION BY a ORDER BY b DESC NULLS LAST)",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FILTER (WHERE x > 1) FROM t GROUP BY GROUPING SETS ((a), ROLLUP (b, (c, d)), ())",
        "SELECT a FROM t ORDER BY a OFFSET 1 ROW FETCH NEXT 2 ROWS WITH TIES",
        "INSERT INTO t AS x (a, b) OVERRIDING SYSTEM VALUE VALUES (1, DEFAULT) ON CONFLICT (a) WHERE a > 1 DO UPDATE SET (a, b) = (1, 2), c = excluded.c WHERE x.a = 1 RETURNING *, a AS z",
        "INSERT INTO t ((SELECT 1)) ON CONFLICT ON CONSTRAINT t_pkey DO NOTHING",
        "DELETE FROM ONLY t AS x USING u WHERE x.id = u.id RETURNING x.*",
        "COPY t (a, b) FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ',', FORCE_QUOTE (a)) WHERE a > 1",
        "COPY (SELECT 1) TO STDOUT CSV HEADER QUOTE AS '\"' FORCE QUOTE *",
        "COPY t FROM '/x' DELIMITER '|' NULL ''",
        "CREATE TABLE IF NOT EXISTS s.t (id serial PRIMARY KEY, v int DEFAULT 5 CHECK (v>0), w numeric(10,2) NOT NULL, UNIQUE(v), CONSTRAINT c FOREIGN KEY (w) REFERENCES u (x) ON DELETE SET NULL, LIKE o INCLUDING ALL EXCLUDING INDEXES, g int GENERATED ALWAYS AS IDENTITY (START 5))",
        "CREATE TEMP TABLE tt (a int) ON COMMIT DROP",
        "CREATE TABLE a (x, y) AS SELECT 1, 2 WITH NO DATA",
        "CREATE UNIQUE INDEX CONCURRENTLY i ON t USING btree (a DESC NULLS LAST, lower(b) text_ops, (a + 1)) WHERE a > 1",
        "CREATE OR REPLACE VIEW v (a) AS SELECT 1",
        "CREATE SEQUENCE s AS int START 5 INCREMENT BY -1 NO MAXVALUE CACHE 3 OWNED BY t.a",
        "ALTER SEQUENCE s RESTART WITH 7",
        "ALTER TABLE t ADD COLUMN a int NOT NULL DEFAULT 1, DROP COLUMN IF EXISTS b CASCADE, ALTER c TYPE text USING c::text, ALTER d SET DEFAULT 5, ADD CONSTRAINT k CHECK (a > 1) NOT VALID",
        "ALTER TABLE t RENAME COLUMN a TO b",
        "CREATE TAG \"audit-2026Q3\" AS OF VERSION 1234",
        "CREATE TAG 'x'",
        "DROP TAG IF EXISTS x",
        "CREATE DATABASE shop WITH bee_key = 'abc' OWNER postgres",
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT 1",
        "EXPLAIN ANALYZE VERBOSE (SELECT 1)",
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        "SET TRANSACTION SNAPSHOT '1234'",
        "SET LOCAL bee.commit_message = 'x'",
        "SET search_path TO a, \"B\", 'c'",
        "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE, ISOLATION LEVEL SERIALIZABLE",
        "ROLLBACK TO SAVEPOINT a",
        "COMMIT AND CHAIN",
        "ABORT",
        "DISCARD ALL",
        "PREPARE p(int) AS SELECT $1 + 1",
        "DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT 1",
        "FETCH FORWARD 10 FROM c",
        "FETCH c",
        "NOTIFY x, 'y'",
        "VACUUM (FULL, ANALYZE) t (a)",
        "LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE NOWAIT",
        "GRANT SELECT, INSERT (a) ON TABLE t TO PUBLIC WITH GRANT OPTION",
        "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM x CASCADE",
        "DO $$ BEGIN END $$ LANGUAGE plpgsql",
        "COMMENT ON COLUMN t.a IS NULL",
        "TRUNCATE TABLE a, b RESTART IDENTITY CASCADE",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
        "MERGE INTO a USING b ON true WHEN MATCHED THEN DELETE",
        "SELECT FROM t",
        "TABLE t AS OF 5",
        "VALUES (1, 'a'), (2, 'b') ORDER BY 1 LIMIT 1",
        "SELECT DISTINCT ON (a, b) a AS \"Foo\", b bar, t.*, * FROM t",
    ] {
        let parsed = one(sql);
        assert!(!matches!(parsed, StatementKind::Checkpoint), "{sql}");
    }
}

/// On the stack a session has, whatever is written either parses or is refused; nothing overflows, not even when dropped.
#[test]
fn depth_is_refused_not_overflowed() {
    let on_session_stack = |sql: String| {
        std::thread::Builder::new()
            .stack_size(16 << 20)
            .spawn(move || parse(&sql).map(|s| s.len()).map_err(|e| e.state().to_owned()))
            .expect("spawns")
            .join()
            .expect("no overflow")
    };
    let deep = Err("54001".to_owned());
    assert_eq!(on_session_stack(format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000))), deep);
    assert_eq!(on_session_stack(format!("SELECT {}1", "- ".repeat(100_000))), deep);
    assert_eq!(on_session_stack(format!("SELECT 1{}", " + 1".repeat(100_000))), deep);
    assert_eq!(on_session_stack(format!("SELECT {}1{}", "(SELECT ".repeat(50_000), ")".repeat(50_000))), deep);
    assert_eq!(on_session_stack(format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(50_000))), deep);
    assert_eq!(on_session_stack(format!("SELECT {}1{}", "f(".repeat(50_000), ")".repeat(50_000))), deep);
    assert_eq!(on_session_stack(format!("SELECT {}1{}", "ARRAY[".repeat(50_000), "]".repeat(50_000))), deep);
    assert_eq!(
        on_session_stack(format!("SELECT * FROM {}a{}", "(".repeat(50_000), " JOIN b ON true)".repeat(50_000))),
        deep
    );
    assert_eq!(on_session_stack(format!("SELECT a{}", "::int".repeat(50_000))), deep);
    assert_eq!(on_session_stack(format!("SELECT {}1{}", "substring(".repeat(150), ", 1)".repeat(150))), Ok(1));
    assert_eq!(on_session_stack(format!("SELECT true{}", " AND true".repeat(100_000))), Ok(1));
    assert_eq!(on_session_stack(format!("SELECT 1 IN (1{})", ", 1".repeat(200_000))), Ok(1));
    assert_eq!(on_session_stack(format!("SELECT 1{}", " + 1".repeat(1_000))), Ok(1));
}

#[test]
fn a_long_statement_is_read_in_linear_time() {
    let started = std::time::Instant::now();
    let rows = "(1, 'some text', 3.5, NULL), ".repeat(40_000);
    assert_eq!(parse(&format!("INSERT INTO t VALUES {rows}(1, 'x', 2, 3)")).expect("parses").len(), 1);
    assert!(started.elapsed().as_secs() < 20, "{:?} for a megabyte", started.elapsed());
}

/// Where sqlparser's scanner and PostgreSQL's differ, PostgreSQL's rules hold.
#[test]
fn tokens_are_postgresqls() {
    for (sql, expected) in [
        ("1+-1, 1 <- 2, a@-1, 1 *-- x\n 2", "(+ 1 -1) (< 1 -2) (@- a 1) (* 1 2)"),
        ("'a'\n  'b', 'a' -- c\n 'b', e'x\\'y' 'z'".trim_end_matches(" 'z'"), "'ab' 'ab' 'x'y'"),
        ("$$a$b$$, $q$ it's $$ $q$, a$b, a$1", "'a$b' ' it's $$ ' a$b a$1"),
        ("\"a\"\"b\", U&\"d\\0061t\", U&'!0041' UESCAPE '!', N'x'", "a\"b dat 'A' (bpchar:0 'x')"),
        ("a /* x /* y */ ' */ + b -- '\n, c", "(+ a b) c"),
        ("é, \"É\", naïve_1", "é É naïve_1"),
        ("a->b, a#>>b, a@>b, a<->b, a||-1, a ?| b", "(-> a b) (#>> a b) (@> a b) (<-> a b) (||- a 1) (?| a b)"),
        (".5, 5., 1.e5, 1e-5, 1.5E+10", ".5 5. 1.e5 1e-5 1.5E+10"),
        ("E'\\x41\\101\\u0041\\U00000041\\t'", "'AAAA\t'"),
        ("'\\n', 'a''b'", "'\\n' 'a'b'"),
    ] {
        assert_eq!(shape(sql), expected, "{sql}");
    }
    let long: String = "a".repeat(70);
    assert_eq!(shape(&long), "a".repeat(63));
    for (sql, state, message) in [
        ("SELECT 1_000", "42601", "trailing junk after numeric literal at or near \"1_000\""),
        ("SELECT $1a", "42601", "trailing junk after parameter at or near \"$1a\""),
        ("SELECT 1.5e", "42601", "trailing junk after numeric literal at or near \"1.5e\""),
        ("SELECT $$a", "42601", "unterminated dollar-quoted string at or near \"$$a\""),
        ("SELECT \"\"", "42601", "zero-length delimited identifier at or near \"\"\"\""),
        ("SELECT E'\\u12'", "22025", "invalid Unicode escape"),
        ("SELECT E'\\xff'", "22021", "invalid byte sequence for encoding \"UTF8\": 0xff"),
        ("SELECT U&'d\\00'", "42601", "invalid Unicode escape"),
        ("SELECT FROM FROM 'x", "42601", "syntax error at or near \"FROM\""),
    ] {
        let (got_state, got, _) = error(sql);
        assert_eq!((got_state.as_str(), got.as_str()), (state, message), "{sql}");
    }
    // Escapes sqlparser refuses make it start again; many of them must not take the square of the text's length.
    let started = std::time::Instant::now();
    assert_eq!(parse(&format!("SELECT {}1", "E'\\u0041', ".repeat(50_000))).expect("parses").len(), 1);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn select_into_makes_a_table() {
    let StatementKind::CreateTableAs(made) = one("SELECT a, b INTO TABLE s.t FROM u WHERE a > 1") else {
        panic!("no CREATE TABLE AS")
    };
    assert_eq!(made.name.to_string(), "s.t");
    assert!(
        matches!(&made.statement, StatementKind::Query(q) if matches!(&q.body, Body::Select(s) if s.into.is_none()))
    );
    assert_eq!(error("SELECT 1 INTO TEMP t").0, "0A000");
}

#[test]
fn a_percent_behind_a_type_is_the_operator() {
    assert_eq!(shape("7::int4 % 2"), "(% (int4:0 7) 2)");
    assert_eq!(shape("a::int8 % type = 0"), "(= (% (int8:0 a) type) 0)");
    assert_eq!(error("create table t (a s.b%type)").0, "42601");
}

#[test]
fn similar_in_substring_is_its_own_word() {
    assert_eq!(shape("substring(a similar b escape 'c')"), "(substring a b 'c')");
    assert_eq!(shape("a similar to b"), shape("(a) similar to b"));
    assert_eq!(error("select a similar b").0, "42601");
}
