//! Results PostgreSQL 15 gave for the same operations, and the properties the two byte forms must have.

use super::Numeric;
use crate::types::float;

/// Lines `operation|a|b|result or SQLSTATE`, printed by PostgreSQL 15.
const CASES: &str = include_str!("cases.txt");

fn answer(op: &str, a: &str, b: &str) -> String {
    let number = |s: &str| Numeric::parse(s).expect("a case holds numbers");
    let scale = || b.parse::<i32>().expect("a scale");
    let result = match op {
        "+" => number(a).add(&number(b)),
        "-" => number(a).sub(&number(b)),
        "*" => number(a).mul(&number(b)),
        "/" => number(a).div(&number(b)),
        "%" => number(a).rem(&number(b)),
        "^" => number(a).power(&number(b)),
        "log" => number(b).log(&number(a)),
        "sqrt" => number(a).sqrt(),
        "exp" => number(a).exp(),
        "ln" => number(a).ln(),
        "round" => Ok(number(a).round(scale())),
        "trunc" => Ok(number(a).trunc(scale())),
        "ceil" => Ok(number(a).ceil()),
        "floor" => Ok(number(a).floor()),
        "id" => Ok(number(a)),
        "f8" | "f4" => {
            let mut text = String::new();
            if op == "f8" {
                float::write_f64(&mut text, float::parse_f64(a).expect("a float8"));
            } else {
                float::write_f32(&mut text, float::parse_f32(a).expect("a float4"));
            }
            return text;
        }
        other => panic!("no operation {other}"),
    };
    match result {
        Ok(value) => value.to_string(),
        Err(error) => error.state().to_owned(),
    }
}

#[test]
fn results_are_postgresqls() {
    let mut wrong = Vec::new();
    for line in CASES.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let got = answer(fields[0], fields[1], fields[2]);
        if got != fields[3] {
            wrong.push(format!("{line}: got {got}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn byte_forms_keep_value_and_order() {
    let mut values: Vec<Numeric> = CASES
        .lines()
        .filter(|l| !l.starts_with('f'))
        .filter_map(|l| Numeric::parse(l.split('|').nth(1)?).ok())
        .collect();
    for value in &values {
        let mut wire = Vec::new();
        value.send(&mut wire);
        assert_eq!(Numeric::recv(&wire).expect("our own bytes").to_string(), value.to_string());
        let mut key = Vec::new();
        value.to_sortable(&mut key);
        assert_eq!(Numeric::from_sortable(&key), Some((value.clone(), key.len())));
    }
    values.sort();
    let key = |n: &Numeric| {
        let mut out = Vec::new();
        n.to_sortable(&mut out);
        out
    };
    assert!(values.windows(2).all(|w| key(&w[0]) <= key(&w[1]) && (w[0] == w[1]) == (key(&w[0]) == key(&w[1]))));
}

#[test]
fn modifiers_round_or_refuse() {
    let typmod = super::pack_typmod(5, 2);
    assert_eq!(
        Numeric::parse("123.456").and_then(|n| n.apply_typmod(typmod)).map(|n| n.to_string()),
        Ok("123.46".to_owned())
    );
    assert_eq!(Numeric::parse("12345.6").and_then(|n| n.apply_typmod(typmod)).map_err(|e| e.state()), Err("22003"));
    assert_eq!(
        Numeric::parse("123456").and_then(|n| n.apply_typmod(super::pack_typmod(4, -2))).map(|n| n.to_string()),
        Ok("123500".to_owned())
    );
}
