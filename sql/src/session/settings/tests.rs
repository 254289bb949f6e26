//! Settings: read, checked, printed and undone as PostgreSQL does.

use super::*;

fn settings() -> Settings {
    Settings::new([]).unwrap()
}

fn set(s: &mut Settings, name: &str, value: &str) -> std::result::Result<String, String> {
    s.set(name, &[value.to_owned()], false).map_err(|e| format!("{} {}", e.state(), e.message()))?;
    Ok(s.show(name).unwrap())
}

#[test]
fn the_table_can_be_searched() {
    assert!(DEFINITIONS.windows(2).all(|w| w[0].name.to_ascii_lowercase() < w[1].name.to_ascii_lowercase()));
    for d in DEFINITIONS {
        assert_eq!(definition(d.name).map(|d| d.name), Some(d.name));
    }
    assert_eq!(definition("datestyle").unwrap().name, "DateStyle");
}

#[test]
fn values_print_as_show_prints_them() {
    let mut s = settings();
    for (name, value, shown) in [
        ("work_mem", "4096", "4MB"),
        ("work_mem", "100000", "100000kB"),
        ("work_mem", "1.5GB", "1536MB"),
        ("statement_timeout", "60000", "1min"),
        ("statement_timeout", "1500", "1500ms"),
        ("statement_timeout", "0", "0"),
        ("statement_timeout", "2 min", "2min"),
        ("shared_buffers", "x", ""),
        ("synchronous_commit", "false", "off"),
        ("datestyle", "ISO, DMY", "ISO, DMY"),
        ("datestyle", "iso", "ISO, MDY"),
        ("client_encoding", "utf-8", "UTF8"),
        ("client_encoding", "'utf-8'", "UTF8"),
        ("timezone", "Europe/Berlin", "Europe/Berlin"),
        ("enable_seqscan", "f", "off"),
        ("random_page_cost", "1.10", "1.1"),
        ("my.own", "x", "x"),
    ] {
        if shown.is_empty() {
            assert!(set(&mut s, name, value).is_err());
        } else {
            assert_eq!(set(&mut s, name, value).as_deref(), Ok(shown), "{name} = {value}");
        }
    }
    s.set_text("search_path", "a, \"B \"\"c\" ,PUBLIC", false).unwrap();
    assert_eq!(s.derived().search_path, ["a", "B \"c", "public"]);
    s.set("search_path", &[String::new()], false).unwrap();
    assert_eq!(s.show("search_path").unwrap(), "\"\"");
    s.set("search_path", &["x".into(), "Y".into()], false).unwrap();
    assert_eq!(s.show("search_path").unwrap(), "x, \"Y\"");
}

#[test]
fn errors_are_postgres_own() {
    let mut s = settings();
    for (name, value, error) in [
        ("work_mem", "abc", "22023 invalid value for parameter \"work_mem\": \"abc\""),
        ("work_mem", "1", "22023 1 kB is outside the valid range for parameter \"work_mem\" (64 .. 2147483647)"),
        ("enable_seqscan", "maybe", "22023 parameter \"enable_seqscan\" requires a Boolean value"),
        ("nope", "1", "42704 unrecognized configuration parameter \"nope\""),
        ("server_version", "1", "55P02 parameter \"server_version\" cannot be changed"),
        ("max_connections", "1", "55P02 parameter \"max_connections\" cannot be changed without restarting the server"),
        ("timezone", "Mars/Base", "22023 invalid value for parameter \"TimeZone\": \"Mars/Base\""),
        (
            "default_transaction_isolation",
            "chaos",
            "22023 invalid value for parameter \"default_transaction_isolation\": \"chaos\"",
        ),
        ("intervalstyle", "iso_8601", "0A000 IntervalStyle = iso_8601 is not supported"),
        ("bee.nope", "1", "42704 unrecognized configuration parameter \"bee.nope\""),
    ] {
        assert_eq!(set(&mut s, name, value), Err(error.to_owned()));
    }
    assert_eq!(s.show("my.unset").unwrap_err().state(), "42704");
}

#[test]
fn transactions_undo_what_they_set() {
    let mut s = settings();
    let value = |s: &Settings| s.show("application_name").unwrap();
    let one = |s: &mut Settings, v: &str, local| s.set("application_name", &[v.to_owned()], local).unwrap();
    one(&mut s, "a", false);
    s.commit();
    one(&mut s, "b", false);
    let mark = s.mark();
    one(&mut s, "c", true);
    assert_eq!(value(&s), "c");
    s.undo_to(mark);
    assert_eq!(value(&s), "b");
    s.rollback();
    assert_eq!(value(&s), "a");
    one(&mut s, "d", false);
    one(&mut s, "e", true);
    s.commit();
    assert_eq!(value(&s), "d");
    s.reset("application_name", false).unwrap();
    assert_eq!(value(&s), "");
    s.rollback();
    assert_eq!(value(&s), "d");
    assert_eq!(s.take_changed(), [("application_name", "d".to_owned())]);
    assert!(s.take_changed().is_empty());
}
