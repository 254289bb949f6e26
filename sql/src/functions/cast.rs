//! Casts of the string, boolean and oid types, and the length coercions of varchar(n) and char(n).
//!
//! Contexts are those of PostgreSQL 15's `pg_cast`. What is "binary" there and is not here, for an integer and an oid are different
//! [`Datum`]s, goes through a function. Casts that `pg_cast` does not list (anything to text and back by I/O functions, arrays element by element)
//! are the binder's.

use super::args;
use super::registry::CastContext::{Assignment, Explicit, Implicit};
use super::registry::{CastMethod, Registry, ScalarFn};
use crate::error::{SqlError, state};
use crate::types::io::{NAME_BYTES_MAX, char_byte, char_text, cut_bytes, fit_bpchar, fit_varchar};
use crate::types::{Datum, Type, reg};

const REG_TYPES: [Type; 8] = [
    Type::REGPROC,
    Type::REGPROCEDURE,
    Type::REGOPER,
    Type::REGOPERATOR,
    Type::REGCLASS,
    Type::REGTYPE,
    Type::REGNAMESPACE,
    Type::REGROLE,
];

/// Adds them all.
pub fn register(r: &mut Registry) {
    booleans(r);
    strings(r);
    lengths(r);
    oids(r);
}

fn booleans(r: &mut Registry) {
    let f = r.pure("int4", &[Type::BOOL], Type::INT4, |a, _| Ok(Datum::Int4(i32::from(args::boolean(a, 0)?))));
    r.cast(Type::BOOL, Type::INT4, Explicit, CastMethod::Function(f));
    let f = r.pure("bool", &[Type::INT4], Type::BOOL, |a, _| Ok(Datum::Bool(args::int4(a, 0)? != 0)));
    r.cast(Type::INT4, Type::BOOL, Explicit, CastMethod::Function(f));
    let f = r.pure("text", &[Type::BOOL], Type::TEXT, |a, _| {
        Ok(Datum::text(if args::boolean(a, 0)? { "true" } else { "false" }))
    });
    for target in [Type::TEXT, Type::BPCHAR, Type::VARCHAR] {
        r.cast(Type::BOOL, target, Assignment, CastMethod::Function(f));
    }
}

fn strings(r: &mut Registry) {
    for (source, target) in [
        (Type::TEXT, Type::BPCHAR),
        (Type::TEXT, Type::VARCHAR),
        (Type::VARCHAR, Type::TEXT),
        (Type::VARCHAR, Type::BPCHAR),
    ] {
        r.cast(source, target, Implicit, CastMethod::Binary);
    }
    // Blanks at the end of a char(n) mean nothing, so they do not survive becoming another string.
    let f =
        r.pure("text", &[Type::BPCHAR], Type::TEXT, |a, _| Ok(Datum::text(args::text(a, 0)?.trim_end_matches(' '))));
    r.cast(Type::BPCHAR, Type::TEXT, Implicit, CastMethod::Function(f));
    r.cast(Type::BPCHAR, Type::VARCHAR, Implicit, CastMethod::Function(f));
    let f = r.pure("name", &[Type::BPCHAR], Type::NAME, |a, _| {
        Ok(Datum::text(cut_bytes(args::text(a, 0)?, NAME_BYTES_MAX).trim_end_matches(' ')))
    });
    r.cast(Type::BPCHAR, Type::NAME, Implicit, CastMethod::Function(f));
    for source in [&[Type::TEXT], &[Type::VARCHAR]] {
        let f =
            r.pure("name", source, Type::NAME, |a, _| Ok(Datum::text(cut_bytes(args::text(a, 0)?, NAME_BYTES_MAX))));
        r.cast(source[0], Type::NAME, Implicit, CastMethod::Function(f));
    }
    for (name, target, context) in
        [("text", Type::TEXT, Implicit), ("bpchar", Type::BPCHAR, Assignment), ("varchar", Type::VARCHAR, Assignment)]
    {
        let f = r.pure(name, &[Type::NAME], target, |a, _| Ok(a[0].clone()));
        r.cast(Type::NAME, target, context, CastMethod::Function(f));
    }

    let to_char = r.pure("char", &[Type::TEXT], Type::CHAR, |a, _| Ok(Datum::text(first_byte(args::text(a, 0)?))));
    for source in [Type::TEXT, Type::BPCHAR, Type::VARCHAR] {
        r.cast(source, Type::CHAR, Assignment, CastMethod::Function(to_char));
    }
    let f = r.pure("text", &[Type::CHAR], Type::TEXT, |a, _| Ok(a[0].clone()));
    r.cast(Type::CHAR, Type::TEXT, Implicit, CastMethod::Function(f));
    r.cast(Type::CHAR, Type::VARCHAR, Assignment, CastMethod::Function(f));
    let f = r.pure("bpchar", &[Type::CHAR], Type::BPCHAR, |a, _| Ok(a[0].clone()));
    r.cast(Type::CHAR, Type::BPCHAR, Assignment, CastMethod::Function(f));
    let f = r.pure("int4", &[Type::CHAR], Type::INT4, |a, _| {
        Ok(Datum::Int4(i32::from(char_byte(args::text(a, 0)?).cast_signed())))
    });
    r.cast(Type::CHAR, Type::INT4, Explicit, CastMethod::Function(f));
    let f = r.pure("char", &[Type::INT4], Type::CHAR, |a, _| {
        let byte = i8::try_from(args::int4(a, 0)?)
            .map_err(|_| SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "\"char\" out of range"))?;
        Ok(Datum::text(char_text(byte.cast_unsigned())))
    });
    r.cast(Type::INT4, Type::CHAR, Explicit, CastMethod::Function(f));
}

fn first_byte(s: &str) -> String {
    s.bytes().next().map_or_else(String::new, char_text)
}

// (value, typmod, whether the cast was written): an assignment of too much is 22001, a written cast cuts.
fn lengths(r: &mut Registry) {
    let f = r.pure("varchar", &[Type::VARCHAR, Type::INT4, Type::BOOL], Type::VARCHAR, |a, _| {
        let s = args::text(a, 0)?;
        let fitted = fit_varchar(s, args::int4(a, 1)?, args::boolean(a, 2)?)?;
        Ok(if fitted.len() == s.len() { a[0].clone() } else { Datum::text(fitted) })
    });
    r.cast(Type::VARCHAR, Type::VARCHAR, Implicit, CastMethod::Function(f));
    let f = r.pure("bpchar", &[Type::BPCHAR, Type::INT4, Type::BOOL], Type::BPCHAR, |a, _| {
        Ok(Datum::Text(fit_bpchar(args::text(a, 0)?, args::int4(a, 1)?, args::boolean(a, 2)?)?))
    });
    r.cast(Type::BPCHAR, Type::BPCHAR, Implicit, CastMethod::Function(f));
}

fn oids(r: &mut Registry) {
    let from_int8 = r.pure("oid", &[Type::INT8], Type::OID, |a, _| {
        u32::try_from(args::int8(a, 0)?)
            .map(Datum::Oid)
            .map_err(|_| SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "OID out of range"))
    });
    let wrap: fn(&[Datum], &super::FnCx<'_>) -> crate::Result<Datum> =
        |a, _| Ok(Datum::Oid(args::int4(a, 0)?.cast_unsigned()));
    let from_int4 = r.pure("oid", &[Type::INT4], Type::OID, wrap);
    let from_int2 = r.pure("oid", &[Type::INT2], Type::OID, wrap);
    let to_int8 = r.pure("int8", &[Type::OID], Type::INT8, |a, _| Ok(Datum::Int8(i64::from(args::oid(a, 0)?))));
    let to_int4 = r.pure("int4", &[Type::OID], Type::INT4, |a, _| Ok(Datum::Int4(args::oid(a, 0)?.cast_signed())));
    let mut both_ways = |ty: Type| {
        for (source, f) in [(Type::INT8, from_int8), (Type::INT4, from_int4), (Type::INT2, from_int2)] {
            r.cast(source, ty, Implicit, CastMethod::Function(f));
        }
        for (target, f) in [(Type::INT8, to_int8), (Type::INT4, to_int4)] {
            r.cast(ty, target, Assignment, CastMethod::Function(f));
        }
        if ty != Type::OID {
            r.cast(ty, Type::OID, Implicit, CastMethod::Binary);
            r.cast(Type::OID, ty, Implicit, CastMethod::Binary);
        }
    };
    both_ways(Type::OID);
    REG_TYPES.into_iter().for_each(&mut both_ways);
    for (a, b) in [(Type::REGPROC, Type::REGPROCEDURE), (Type::REGOPER, Type::REGOPERATOR)] {
        r.cast(a, b, Implicit, CastMethod::Binary);
        r.cast(b, a, Implicit, CastMethod::Binary);
    }
    let f: &'static ScalarFn = r.stable("regclass", &[Type::TEXT], Type::REGCLASS, |a, cx| {
        reg::class_in(args::text(a, 0)?, cx.session).map(Datum::Oid)
    });
    r.cast(Type::TEXT, Type::REGCLASS, Implicit, CastMethod::Function(f));
    r.cast(Type::VARCHAR, Type::REGCLASS, Implicit, CastMethod::Function(f));
}
