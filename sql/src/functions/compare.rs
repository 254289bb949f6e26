//! Comparison operators of all types but numbers and times: `=`, `<>`, `<`, `<=`, `>`, `>=` and the btree order behind them.
//!
//! All six of a type ask one order, that of [`compare_typed`]; only the names differ, and they are `pg_proc`'s.

use std::cmp::Ordering;

use super::args;
use super::registry::Registry;
use crate::error::{Result, SqlError, state};
use crate::types::datum::{Record, compare_typed};
use crate::types::{Datum, Type};

macro_rules! six {
    ($r:ident, $args:expr, $order:expr, [$eq:literal, $ne:literal, $lt:literal, $le:literal, $gt:literal, $ge:literal]) => {{
        six!($r, $args, ["=", "<>", "<", "<=", ">", ">="], $order, [$eq, $ne, $lt, $le, $gt, $ge]);
    }};
    ($r:ident, $args:expr, [$oeq:literal, $one:literal, $olt:literal, $ole:literal, $ogt:literal, $oge:literal], $order:expr, [$eq:literal, $ne:literal, $lt:literal, $le:literal, $gt:literal, $ge:literal]) => {{
        $r.binary($oeq, $eq, $args, Type::BOOL, |a, _| Ok(Datum::Bool($order(a)?.is_eq())));
        $r.binary($one, $ne, $args, Type::BOOL, |a, _| Ok(Datum::Bool($order(a)?.is_ne())));
        $r.binary($olt, $lt, $args, Type::BOOL, |a, _| Ok(Datum::Bool($order(a)?.is_lt())));
        $r.binary($ole, $le, $args, Type::BOOL, |a, _| Ok(Datum::Bool($order(a)?.is_le())));
        $r.binary($ogt, $gt, $args, Type::BOOL, |a, _| Ok(Datum::Bool($order(a)?.is_gt())));
        $r.binary($oge, $ge, $args, Type::BOOL, |a, _| Ok(Datum::Bool($order(a)?.is_ge())));
    }};
}

/// Adds them all.
pub fn register(r: &mut Registry) {
    six!(r, &[Type::BOOL, Type::BOOL], plain, ["booleq", "boolne", "boollt", "boolle", "boolgt", "boolge"]);
    six!(r, &[Type::BYTEA, Type::BYTEA], plain, ["byteaeq", "byteane", "bytealt", "byteale", "byteagt", "byteage"]);
    six!(r, &[Type::UUID, Type::UUID], plain, ["uuid_eq", "uuid_ne", "uuid_lt", "uuid_le", "uuid_gt", "uuid_ge"]);
    six!(
        r,
        &[Type::JSONB, Type::JSONB],
        plain,
        ["jsonb_eq", "jsonb_ne", "jsonb_lt", "jsonb_le", "jsonb_gt", "jsonb_ge"]
    );
    six!(r, &[Type::OID, Type::OID], plain, ["oideq", "oidne", "oidlt", "oidle", "oidgt", "oidge"]);
    six!(r, &[Type::TEXT, Type::TEXT], plain, ["texteq", "textne", "text_lt", "text_le", "text_gt", "text_ge"]);
    six!(r, &[Type::NAME, Type::NAME], plain, ["nameeq", "namene", "namelt", "namele", "namegt", "namege"]);
    six!(
        r,
        &[Type::NAME, Type::TEXT],
        plain,
        ["nameeqtext", "namenetext", "namelttext", "nameletext", "namegttext", "namegetext"]
    );
    six!(
        r,
        &[Type::TEXT, Type::NAME],
        plain,
        ["texteqname", "textnename", "textltname", "textlename", "textgtname", "textgename"]
    );
    six!(
        r,
        &[Type::BPCHAR, Type::BPCHAR],
        bpchar,
        ["bpchareq", "bpcharne", "bpcharlt", "bpcharle", "bpchargt", "bpcharge"]
    );
    six!(r, &[Type::CHAR, Type::CHAR], char, ["chareq", "charne", "charlt", "charle", "chargt", "charge"]);
    six!(
        r,
        &[Type::ANYARRAY, Type::ANYARRAY],
        array,
        ["array_eq", "array_ne", "array_lt", "array_le", "array_gt", "array_ge"]
    );
    six!(
        r,
        &[Type::OIDVECTOR, Type::OIDVECTOR],
        array,
        ["oidvectoreq", "oidvectorne", "oidvectorlt", "oidvectorle", "oidvectorgt", "oidvectorge"]
    );
    six!(
        r,
        &[Type::RECORD, Type::RECORD],
        record,
        ["record_eq", "record_ne", "record_lt", "record_le", "record_gt", "record_ge"]
    );
    // Byte order is the only order there is, so the pattern operators (they exist for LIKE under other collations) are the plain ones.
    r.binary("~<~", "text_pattern_lt", &[Type::TEXT, Type::TEXT], Type::BOOL, |a, _| {
        Ok(Datum::Bool(plain(a)?.is_lt()))
    });
    r.binary("~<=~", "text_pattern_le", &[Type::TEXT, Type::TEXT], Type::BOOL, |a, _| {
        Ok(Datum::Bool(plain(a)?.is_le()))
    });
    r.binary("~>~", "text_pattern_gt", &[Type::TEXT, Type::TEXT], Type::BOOL, |a, _| {
        Ok(Datum::Bool(plain(a)?.is_gt()))
    });
    r.binary("~>=~", "text_pattern_ge", &[Type::TEXT, Type::TEXT], Type::BOOL, |a, _| {
        Ok(Datum::Bool(plain(a)?.is_ge()))
    });
    r.binary("=", "xideq", &[Type::XID, Type::XID], Type::BOOL, |a, _| Ok(Datum::Bool(plain(a)?.is_eq())));
    r.binary("<>", "xidneq", &[Type::XID, Type::XID], Type::BOOL, |a, _| Ok(Datum::Bool(plain(a)?.is_ne())));
    r.binary("=", "xideqint4", &[Type::XID, Type::INT4], Type::BOOL, |a, _| {
        Ok(Datum::Bool(args::oid(a, 0)? == args::oid(a, 1)?))
    });
    r.binary("<>", "xidneqint4", &[Type::XID, Type::INT4], Type::BOOL, |a, _| {
        Ok(Datum::Bool(args::oid(a, 0)? != args::oid(a, 1)?))
    });
    r.binary("=", "cideq", &[Type::CID, Type::CID], Type::BOOL, |a, _| Ok(Datum::Bool(plain(a)?.is_eq())));
    r.binary("=", "tideq", &[Type::TID, Type::TID], Type::BOOL, |a, _| Ok(Datum::Bool(plain(a)?.is_eq())));
    r.binary("<>", "tidne", &[Type::TID, Type::TID], Type::BOOL, |a, _| Ok(Datum::Bool(plain(a)?.is_ne())));
    orders(r);
}

// The support functions of the btree operator classes: -1, 0 or 1.
fn orders(r: &mut Registry) {
    fn sign(order: Ordering) -> Result<Datum> {
        Ok(Datum::Int4(order as i32))
    }
    r.pure("btboolcmp", &[Type::BOOL, Type::BOOL], Type::INT4, |a, _| sign(plain(a)?));
    r.pure("byteacmp", &[Type::BYTEA, Type::BYTEA], Type::INT4, |a, _| sign(plain(a)?));
    r.pure("jsonb_cmp", &[Type::JSONB, Type::JSONB], Type::INT4, |a, _| sign(plain(a)?));
    r.pure("uuid_cmp", &[Type::UUID, Type::UUID], Type::INT4, |a, _| sign(plain(a)?));
    r.pure("btoidcmp", &[Type::OID, Type::OID], Type::INT4, |a, _| sign(plain(a)?));
    r.pure("bttextcmp", &[Type::TEXT, Type::TEXT], Type::INT4, |a, _| sign(plain(a)?));
    r.pure("btnamecmp", &[Type::NAME, Type::NAME], Type::INT4, |a, _| sign(plain(a)?));
    r.pure("bpcharcmp", &[Type::BPCHAR, Type::BPCHAR], Type::INT4, |a, _| sign(bpchar(a)?));
    r.pure("btcharcmp", &[Type::CHAR, Type::CHAR], Type::INT4, |a, _| sign(char(a)?));
    r.pure("btarraycmp", &[Type::ANYARRAY, Type::ANYARRAY], Type::INT4, |a, _| sign(array(a)?));
    r.pure("btrecordcmp", &[Type::RECORD, Type::RECORD], Type::INT4, |a, _| sign(record(a)?));
}

fn plain(a: &[Datum]) -> Result<Ordering> {
    Ok(a[0].compare(&a[1]))
}

fn bpchar(a: &[Datum]) -> Result<Ordering> {
    Ok(compare_typed(&a[0], &a[1], Type::BPCHAR))
}

fn char(a: &[Datum]) -> Result<Ordering> {
    Ok(compare_typed(&a[0], &a[1], Type::CHAR))
}

fn array(a: &[Datum]) -> Result<Ordering> {
    let (left, right) = (args::array(a, 0)?, args::array(a, 1)?);
    if left.elem != right.elem {
        return Err(SqlError::new(state::DATATYPE_MISMATCH, "cannot compare arrays of different element types"));
    }
    has_order(left.elem)?;
    Ok(left.compare(right))
}

// json can be part of arrays and rows, which then cannot be compared.
fn has_order(ty: Type) -> Result<()> {
    if matches!(ty, Type::JSON | Type::JSON_ARRAY) {
        let message = format!("could not identify an equality operator for type {}", ty.sql_name());
        return Err(SqlError::new(state::UNDEFINED_FUNCTION, message));
    }
    Ok(())
}

fn record(a: &[Datum]) -> Result<Ordering> {
    let (Datum::Record(left), Datum::Record(right)) = (&a[0], &a[1]) else {
        return Err(SqlError::internal("a row comparison of no rows"));
    };
    comparable(left, right)?;
    Ok(a[0].compare(&a[1]))
}

// Rows are compared only with rows of the same columns.
fn comparable(left: &Record, right: &Record) -> Result<()> {
    for (i, ((_, l), (_, r))) in left.fields.iter().zip(right.fields.iter()).enumerate() {
        if l.ty != r.ty {
            let message = format!(
                "cannot compare dissimilar column types {} and {} at record column {}",
                l.ty.sql_name(),
                r.ty.sql_name(),
                i + 1
            );
            return Err(SqlError::new(state::DATATYPE_MISMATCH, message));
        }
        has_order(l.ty)?;
    }
    if left.values.len() != right.values.len() {
        return Err(SqlError::new(
            state::DATATYPE_MISMATCH,
            "cannot compare record types with different numbers of columns",
        ));
    }
    Ok(())
}
