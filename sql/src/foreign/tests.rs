//! Encodings one by one: what bytes mean, and that ranges hold what they must.

use std::ops::Bound;

use super::encoding::{self, Encoding};
use super::options;
use crate::codec::row::storage_cx;
use crate::types::{Datum, Type, io};

fn text(encoding: Encoding, bytes: &[u8]) -> String {
    match encoding.decode(bytes, Type::TEXT.plain(), storage_cx()) {
        Ok(value) if value.is_null() => "NULL".into(),
        Ok(value) => io::to_text(&value, Type::TEXT, storage_cx()),
        Err(e) => e.state().into(),
    }
}

#[test]
fn bytes_become_text() {
    for (encoding, bytes, expected) in [
        (Encoding::Utf8, &b"caf\xc3\xa9"[..], "café"),
        (Encoding::Utf8, b"\xff", "22021"),
        (Encoding::Utf8, b"a\0b", "22021"),
        (Encoding::Ascii, b"abc", "abc"),
        (Encoding::Ascii, b"caf\xc3\xa9", "22021"),
        (Encoding::Hex, b"\x00\xff", "00ff"),
        (Encoding::Hex, b"", ""),
        (Encoding::Base64, b"", ""),
        (Encoding::Base64, b"f", "Zg=="),
        (Encoding::Base64, b"fo", "Zm8="),
        (Encoding::Base64, b"foo", "Zm9v"),
        (Encoding::Base64, b"\xff\xff\xff\xfe", "/////g=="),
        (Encoding::Json, br#""a\u00e9\n""#, "aé\n"),
        (Encoding::Json, b" 1.50 ", "1.50"),
        (Encoding::Json, b"null", "NULL"),
        (Encoding::Json, br#"{"a": [1,  2]}"#, r#"{"a": [1,  2]}"#),
        (Encoding::Json, b"{", "22P02"),
        (Encoding::Json, b"", "22P02"),
        (Encoding::Json, br#""\u0000""#, "22P05"),
        (Encoding::Json, b"1 2", "22P02"),
    ] {
        assert_eq!(text(encoding, bytes), expected, "{encoding:?} {bytes:?}");
    }
    let bytes = Encoding::Json.decode(b"\xff", Type::BYTEA.plain(), storage_cx()).unwrap();
    assert!(matches!(bytes, Datum::Bytea(b) if *b == [0xff]), "bytea shows what is there");
}

#[test]
fn members_are_found_by_name() {
    let find = |json: &str, names: &[&'static str]| {
        let mut found: super::Members<'_> = names.iter().map(|n| (*n, None)).collect();
        encoding::members(json.as_bytes(), &mut found)
            .map(|()| {
                found.iter().map(|(_, raw)| raw.map_or("-", |r| r.get()).to_owned()).collect::<Vec<_>>().join(" ")
            })
            .map_err(|e| e.state())
    };
    assert_eq!(find(r#"{"a": 1, "b": {"a": 2}, "c": null}"#, &["a", "c", "d"]), Ok("1 null -".into()));
    assert_eq!(find(r#"{"a": 1, "a": 2}"#, &["a"]), Ok("2".into()), "the last one");
    assert_eq!(find(r#"{"\u0061": 1}"#, &["a"]), Ok("1".into()), "names are read, not compared as written");
    assert_eq!(find("[1]", &["a"]), Ok("-".into()));
    assert_eq!(find("7", &["a"]), Ok("-".into()));
    assert_eq!(find(r#"{"a": 1"#, &["a"]), Err("22P02"));
    assert_eq!(find(r#"{"a": 1} x"#, &["a"]), Err("22P02"));
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    assert!(find(&deep, &["a"]).is_ok() || find(&deep, &["a"]) == Err("22P02"), "depth is no danger");
}

/// Each key that decodes to a value within the bounds is in the range; where the range is exact no other is.
#[test]
fn ranges_hold_their_keys() {
    let prefix = b"s\0";
    let mut keys: Vec<Vec<u8>> = vec![vec![]];
    for a in [0x01, 0x1a, 0x61, 0x7a, 0x7f] {
        keys.push(vec![a]);
        keys.extend([0x01, 0x61, 0x7f].map(|b| vec![a, b]));
    }
    let bounds = ["", "0", "1a", "1a6", "61", "a", "aa", "z", "zz", "\u{7f}"];
    for encoding in [Encoding::Utf8, Encoding::Ascii, Encoding::Hex] {
        for low in bounds {
            for high in bounds {
                let (l, h) = (Datum::text(low), Datum::text(high));
                let range = encoding.range(prefix, Bound::Excluded(&l), Bound::Included(&h));
                for key in &keys {
                    let shown = text(encoding, key);
                    let inside = *low < *shown.as_str() && *shown.as_str() <= *high;
                    let found = range.contains(&[&prefix[..], key].concat());
                    assert!(!inside || found, "{encoding:?}: {shown:?} is between {low:?} and {high:?}");
                    assert!(inside || !found || !encoding.is_exact(Type::TEXT), "{encoding:?}: {shown:?}");
                }
            }
        }
    }
    for encoding in [Encoding::Utf8, Encoding::Hex] {
        for key in &keys {
            let point = encoding.point(prefix, &Datum::text(text(encoding, key))).unwrap();
            assert!(point.contains(&[&prefix[..], key].concat()));
        }
    }
    assert!(Encoding::Hex.point(prefix, &Datum::text("AB")).is_none(), "hex is written in lower case");
    assert!(Encoding::Hex.point(prefix, &Datum::text("abc")).is_none());
}

#[test]
fn every_encoding_has_its_names() {
    for name in ["binary", "utf-8", "UTF8", "ascii", "hex", "base64", "json", "ndjson"] {
        assert!(Encoding::by_name(name).is_some(), "{name}");
    }
    assert!(Encoding::by_name("latin1").is_none());
    assert_eq!(options::get(&vec![("a".into(), "b".into())], "a"), Some("b"));
}
