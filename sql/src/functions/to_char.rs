//! `to_char`, `to_date`, `to_timestamp` and `to_number`: formatting and reading by template.
//!
//! A template is cut into nodes by [`template`]; [`date`] writes times by it, [`scan`] reads them, [`number`] does both for
//! numbers. Names and separators are those of the C locale, which is the only one we have: `TM` changes padding and
//! nothing else, `L` is a blank, `D` a point and `G` a comma.

mod date;
mod number;
mod scan;
mod template;

use super::context::FnCx;
use super::datetime::{span, stamp, text};
use super::registry::Registry;
use crate::error::{Result, SqlError};
use crate::types::datetime::is_finite;
use crate::types::{Datum, Type};

/// Adds everything of this module.
pub fn register(r: &mut Registry) {
    use Type as T;
    r.stable("to_char", &[T::TIMESTAMPTZ, T::TEXT], T::TEXT, |a, cx| moment(a, cx, true));
    r.stable("to_char", &[T::TIMESTAMP, T::TEXT], T::TEXT, |a, cx| moment(a, cx, false));
    r.stable("to_char", &[T::INTERVAL, T::TEXT], T::TEXT, |a, _| {
        let template = text(a, 1)?;
        if template.is_empty() {
            return Ok(Datum::Null);
        }
        date::interval(&span(a, 0)?, template).map(Datum::text)
    });
    r.stable("to_date", &[T::TEXT, T::TEXT], T::DATE, |a, _| scan::to_date(text(a, 0)?, text(a, 1)?).map(Datum::Date));
    r.stable("to_timestamp", &[T::TEXT, T::TEXT], T::TIMESTAMPTZ, |a, cx| {
        scan::to_timestamp(text(a, 0)?, text(a, 1)?, &cx.session.time_zone).map(Datum::TimestampTz)
    });
    const NUMBERS: [&[Type]; 5] = [
        &[T::NUMERIC, T::TEXT],
        &[T::INT4, T::TEXT],
        &[T::INT8, T::TEXT],
        &[T::FLOAT4, T::TEXT],
        &[T::FLOAT8, T::TEXT],
    ];
    for args in NUMBERS {
        r.stable("to_char", args, T::TEXT, |a, _| number::to_char(&a[0], text(a, 1)?).map(Datum::text));
    }
    r.stable("to_number", &[T::TEXT, T::TEXT], T::NUMERIC, |a, _| {
        Ok(number::to_number(text(a, 0)?, text(a, 1)?)?.map_or(Datum::Null, Datum::Numeric))
    });
}

fn moment(a: &[Datum], cx: &FnCx<'_>, zoned: bool) -> Result<Datum> {
    let (micros, template) = (stamp(a, 0)?, text(a, 1)?);
    if template.is_empty() || !is_finite(micros) {
        return Ok(Datum::Null);
    }
    date::timestamp(micros, zoned.then_some(&cx.session.time_zone), template).map(Datum::text)
}

/// Adds `ST`, `ND`, `RD` or `TH` to what stands in `out` from `start`.
fn push_ordinal(out: &mut String, start: usize, upper: bool) -> Result<()> {
    let suffix = ordinal(&out[start..])?;
    if upper {
        out.push_str(&suffix.to_ascii_uppercase());
    } else {
        out.push_str(suffix);
    }
    Ok(())
}

/// The ordinal suffix of a number, in lower case: 11 to 19 (of any hundred) have `th`.
fn ordinal(number: &str) -> Result<&'static str> {
    let bytes = number.as_bytes();
    let teens = bytes.len() > 1 && bytes[bytes.len() - 2] == b'1';
    Ok(match bytes.last() {
        Some(b'1') if !teens => "st",
        Some(b'2') if !teens => "nd",
        Some(b'3') if !teens => "rd",
        Some(b'0'..=b'9') => "th",
        _ => {
            return Err(SqlError::new(
                crate::error::state::INVALID_TEXT_REPRESENTATION,
                format!("\"{number}\" is not a number"),
            ));
        }
    })
}
