//! Functions about locks: advisory locks of sessions and transactions, and who blocks whom.

use super::FnCx;
use super::args;
use super::registry::{Registry, ScalarFn, ScalarImpl, Volatility};
use crate::error::Result;
use crate::lock::AdvisoryKey;
use crate::types::{Array, Datum, Type};

const ONE: &[Type] = &[Type::INT8];
const TWO: &[Type] = &[Type::INT4, Type::INT4];
const VOID: Type = Type::VOID;
const BOOL: Type = Type::BOOL;

/// Adds them all.
pub fn register(r: &mut Registry) {
    // Each of one bigint and of two integers, which are different keys. `lock::<exclusive, by the session, waiting>`.
    for args in [ONE, TWO] {
        volatile(r, "pg_advisory_lock", args, VOID, lock::<true, true, true>);
        volatile(r, "pg_advisory_lock_shared", args, VOID, lock::<false, true, true>);
        volatile(r, "pg_try_advisory_lock", args, BOOL, lock::<true, true, false>);
        volatile(r, "pg_try_advisory_lock_shared", args, BOOL, lock::<false, true, false>);
        volatile(r, "pg_advisory_xact_lock", args, VOID, lock::<true, false, true>);
        volatile(r, "pg_advisory_xact_lock_shared", args, VOID, lock::<false, false, true>);
        volatile(r, "pg_try_advisory_xact_lock", args, BOOL, lock::<true, false, false>);
        volatile(r, "pg_try_advisory_xact_lock_shared", args, BOOL, lock::<false, false, false>);
        volatile(r, "pg_advisory_unlock", args, BOOL, unlock::<true>);
        volatile(r, "pg_advisory_unlock_shared", args, BOOL, unlock::<false>);
    }
    volatile(r, "pg_advisory_unlock_all", &[], VOID, |_, cx| {
        cx.session.services.advisory_unlock_all();
        Ok(Datum::text(""))
    });
    volatile(r, "pg_blocking_pids", &[Type::INT4], Type::INT4_ARRAY, |a, cx| {
        let pids = cx.session.services.blocking_pids(args::int4(a, 0)?);
        Ok(Array::from_values(Type::INT4, pids.into_iter().map(Datum::Int4).collect()).datum())
    });
}

fn volatile(r: &mut Registry, name: &'static str, args: &'static [Type], ret: Type, imp: ScalarImpl) {
    let volatility = Volatility::Volatile;
    r.scalar(ScalarFn { name, args, variadic: None, optional: 0, ret, strict: true, volatility, imp });
}

fn key(a: &[Datum]) -> Result<AdvisoryKey> {
    match a {
        [_] => Ok(AdvisoryKey::one(args::int8(a, 0)?)),
        _ => Ok(AdvisoryKey::two(args::int4(a, 0)?, args::int4(a, 1)?)),
    }
}

fn lock<const EXCLUSIVE: bool, const BY_SESSION: bool, const WAIT: bool>(a: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    let got = cx.session.services.advisory_lock(key(a)?, EXCLUSIVE, BY_SESSION, WAIT)?;
    Ok(if WAIT { Datum::text("") } else { Datum::Bool(got) })
}

fn unlock<const EXCLUSIVE: bool>(a: &[Datum], cx: &FnCx<'_>) -> Result<Datum> {
    cx.session.services.advisory_unlock(key(a)?, EXCLUSIVE).map(Datum::Bool)
}
