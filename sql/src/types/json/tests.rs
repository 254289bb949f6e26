//! jsonb against PostgreSQL's answers, and what must hold of any value and any bytes.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use proptest::prelude::*;

use super::*;

/// A text, what PostgreSQL 15 makes of it as jsonb, and its place in PostgreSQL's order; equal values have one place. COPY text.
const SAMPLE: &str = include_str!("sample.tsv");

fn sample() -> Vec<(String, String, usize)> {
    let plain = |s: &str| {
        let (mut out, mut chars) = (String::new(), s.chars());
        while let Some(c) = chars.next() {
            match c {
                '\\' => out.push(match chars.next() {
                    Some('t') => '\t',
                    Some('n') => '\n',
                    other => other.expect("an escape"),
                }),
                c => out.push(c),
            }
        }
        out
    };
    let line = |l: &str| {
        let fields: Vec<&str> = l.split('\t').collect();
        (plain(fields[0]), plain(fields[1]), fields[2].parse().expect("a number"))
    };
    SAMPLE.lines().map(line).collect()
}

fn hash(j: &Jsonb) -> u64 {
    let mut h = rustc_hash::FxHasher::default();
    j.hash(&mut h);
    h.finish()
}

fn sortable(j: &Jsonb) -> Vec<u8> {
    let mut out = Vec::new();
    j.to_sortable(&mut out);
    out
}

#[test]
fn values_read_and_print_as_in_postgresql() {
    let sample = sample();
    assert!(sample.len() >= 600);
    for (text, printed, _) in &sample {
        let value = Jsonb::parse(text).expect(text);
        assert_eq!(value.to_string(), *printed, "{text}");
        assert_eq!(Jsonb::parse(printed).expect(printed).bytes(), value.bytes(), "{text}");
        assert_eq!(Jsonb::from_stored(value.bytes()).expect(text).bytes(), value.bytes());
        text::check(text).expect(text);
    }
}

#[test]
fn values_and_their_keys_order_as_in_postgresql() {
    let sample: Vec<(Jsonb, usize)> =
        sample().into_iter().map(|(text, _, place)| (Jsonb::parse(&text).expect("a value"), place)).collect();
    let keys: Vec<Vec<u8>> = sample.iter().map(|(j, _)| sortable(j)).collect();
    for ((a, at), key) in sample.iter().zip(&keys) {
        for ((b, other), other_key) in sample.iter().zip(&keys) {
            let expected = at.cmp(other);
            assert_eq!(a.cmp(b), expected, "{a} {b}");
            assert_eq!(key.cmp(other_key), expected, "{a} {b}");
            assert!(key == other_key || !key.starts_with(other_key), "{a} {b}");
            assert!(expected.is_ne() || hash(a) == hash(b), "{a} {b}");
        }
        let (back, len) = Jsonb::from_sortable(key).expect("a key");
        assert_eq!((back.cmp(a), len), (Ordering::Equal, key.len()));
    }
}

/// A JSON text: values nest, names are few so that they meet.
fn text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?",
        "[ -!#-\\[\\]-~é€]{0,5}".prop_map(|s| format!("\"{s}\"")),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|v| format!("[{}]", v.join(", "))),
            prop::collection::vec(("[ab]{0,2}", inner), 0..5).prop_map(|v| {
                let members: Vec<String> = v.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

#[test]
fn numbers_that_numeric_does_not_print_are_refused() {
    let stored = |number: &str| {
        let mut bytes = vec![super::NUMBER, u8::try_from(number.len()).unwrap()];
        bytes.extend_from_slice(number.as_bytes());
        Jsonb::from_stored(&bytes)
    };
    for good in ["0", "0.000", "-0.001", "10", "-7", "100.10"] {
        assert_eq!(stored(good).unwrap(), Jsonb::parse(good).unwrap());
    }
    for bad in ["00", "00.1", "-0", "-0.000", "01", "-01.5", "1e5", ".5", "5.", "", "-", "+1", "NaN"] {
        assert!(stored(bad).is_none(), "{bad}");
    }
}

proptest! {
    #[test]
    fn compare_is_a_total_order_and_keys_have_it(a in text(), b in text(), c in text()) {
        let (a, b, c) = (Jsonb::parse(&a).unwrap(), Jsonb::parse(&b).unwrap(), Jsonb::parse(&c).unwrap());
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a.cmp(&a), Ordering::Equal);
        if a.cmp(&b).is_le() && b.cmp(&c).is_le() {
            prop_assert!(a.cmp(&c).is_le());
        }
        for x in [&a, &b, &c] {
            for y in [&a, &b, &c] {
                prop_assert_eq!(sortable(x).cmp(&sortable(y)), x.cmp(y));
                prop_assert!(x != y || hash(x) == hash(y));
            }
        }
    }

    #[test]
    fn what_is_printed_reads_as_the_same(text in text()) {
        let value = Jsonb::parse(&text).unwrap();
        let again = Jsonb::parse(&value.to_string()).unwrap();
        prop_assert_eq!(again.bytes(), value.bytes());
        let mut pretty = String::new();
        value.item().write_pretty(&mut pretty);
        let unpretty = Jsonb::parse(&pretty).unwrap();
        prop_assert_eq!(unpretty.bytes(), value.bytes());
        let mut copied = Builder::default();
        value.item().tokens().try_for_each(|t| copied.token(t)).unwrap();
        let copied = copied.finish();
        prop_assert_eq!(copied.bytes(), value.bytes());
        prop_assert!(Jsonb::from_stored(value.bytes()).is_some());
    }

    /// Bytes from a peer are a value or are refused; what is accepted can be used.
    #[test]
    fn broken_bytes_are_refused_or_sound(text in text(), at: prop::sample::Index, new: u8, cut: prop::sample::Index) {
        let value = Jsonb::parse(&text).unwrap();
        let mut bytes = value.bytes().to_vec();
        let place = at.index(bytes.len());
        bytes[place] = new;
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Some(found) = Jsonb::from_stored(bytes) {
                let printed = Jsonb::parse(&found.to_string());
                prop_assert!(printed.is_ok_and(|p| p == found));
                let (back, _) = Jsonb::from_sortable(&sortable(&found)).unwrap();
                prop_assert!(back == found);
            }
        }
        let mut key = sortable(&value);
        let place = at.index(key.len());
        key[place] = new;
        let _ = Jsonb::from_sortable(&key);
        let _ = Jsonb::from_sortable(&key[..cut.index(key.len())]);
    }

    /// Of a text both types accept, the parts of the one are the parts of the other.
    #[test]
    fn parts_of_a_text_are_those_of_its_value(text in text()) {
        let value = Jsonb::parse(&text).unwrap();
        prop_assert_eq!(text::kind(&text), value.item().kind());
        let mut parts = text::Parts::new(&text).unwrap();
        while let Some((name, found)) = parts.next().unwrap() {
            let part = Jsonb::parse(found.raw).unwrap();
            match (name, value.item().view()) {
                (None, View::Array(mut elements)) => prop_assert!(elements.any(|e| e.bytes() == part.bytes())),
                (Some(name), View::Object(members)) => prop_assert!(members.get(&name).is_some()),
                other => prop_assert!(false, "{:?}", other.0),
            }
        }
    }
}

#[test]
fn nesting_has_an_end() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |n: usize| {
            let inside = if open == "[" { "" } else { "1" };
            format!("{}{inside}{}", open.repeat(n), close.repeat(n))
        };
        let deepest = Jsonb::parse(&nested(DEPTH_MAX)).expect("as deep as may be");
        assert_eq!(deepest.item().depth(), DEPTH_MAX);
        assert_eq!(deepest.to_string().replace(' ', ""), nested(DEPTH_MAX));
        assert_eq!(Jsonb::from_stored(deepest.bytes()).map(|j| j.cmp(&deepest)), Some(Ordering::Equal));
        assert_eq!(Jsonb::from_sortable(&sortable(&deepest)).map(|(j, _)| j == deepest), Some(true));
        assert_eq!(Jsonb::parse(&nested(DEPTH_MAX + 1)).unwrap_err().state(), state::STATEMENT_TOO_COMPLEX);
        assert_eq!(text::check(&nested(DEPTH_MAX + 1)).unwrap_err().state(), state::STATEMENT_TOO_COMPLEX);
        let mut deeper = Builder::default();
        deeper.begin_array().expect("one level");
        assert_eq!(deeper.item(deepest.item()).unwrap_err().state(), state::STATEMENT_TOO_COMPLEX);
    }
}

#[test]
fn stored_bytes_that_are_no_value_are_refused() {
    let bytes = |s: &str| Jsonb::parse(s).expect(s).bytes().to_vec();
    assert!(Jsonb::from_stored(&bytes("[1, {\"a\": \"x\"}]")).is_some());
    let swapped = {
        let mut b = bytes("{\"a\": 1, \"b\": 1}");
        let (a, z) = (b.iter().position(|c| *c == b'a').unwrap(), b.iter().position(|c| *c == b'b').unwrap());
        b.swap(a, z);
        b
    };
    let twice = {
        let mut b = bytes("{\"a\": 1, \"b\": 1}");
        let z = b.iter().position(|c| *c == b'b').unwrap();
        b[z] = b'a';
        b
    };
    for bad in [
        &[][..],
        &[9],
        &[NULL, NULL],
        &[NUMBER, 0],
        &[NUMBER, 2, b'1', b'.'],
        &[NUMBER, 3, b'N', b'a', b'N'],
        &[STRING, 1, 0],
        &[STRING, 1, 0xff],
        &[STRING, 5, b'a'],
        &[ARRAY, 1, 1],
        &[ARRAY, 2, 0, NULL],
        &[ARRAY, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[OBJECT, 3, 1, 1, b'a'],
        &swapped,
        &twice,
    ] {
        assert!(Jsonb::from_stored(bad).is_none(), "{bad:?}");
    }
}
