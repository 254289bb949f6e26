//! Functions about sessions: cancelling and ending them, and the pg_stat_get_backend family, which numbers them from 1 in the order of their process ids.

use super::FnCx;
use super::args;
use super::registry::{Registry, ScalarFn, SetFn, Volatility};
use crate::catalog::pg_catalog::activity::{moment, oid_of, role_oid};
use crate::error::Result;
use crate::session::activity::SessionStatus;
use crate::types::{Datum, Type};

const I: Type = Type::INT4;
const L: Type = Type::INT8;
const T: Type = Type::TEXT;
const B: Type = Type::BOOL;
const TIME: Type = Type::TIMESTAMPTZ;

/// Adds them all.
pub fn register(r: &mut Registry) {
    r.scalar(ScalarFn {
        name: "pg_cancel_backend",
        args: &[I],
        variadic: None,
        optional: 0,
        ret: B,
        strict: true,
        volatility: Volatility::Volatile,
        imp: |a, cx| cx.session.services.cancel_backend(args::int4(a, 0)?).map(Datum::Bool),
    });
    r.scalar(ScalarFn {
        name: "pg_terminate_backend",
        args: &[I, L],
        variadic: None,
        optional: 1,
        ret: B,
        strict: true,
        volatility: Volatility::Volatile,
        imp: |a, cx| {
            let timeout = if a.len() > 1 { args::int8(a, 1)? } else { 0 };
            cx.session.services.terminate_backend(args::int4(a, 0)?, timeout).map(Datum::Bool)
        },
    });
    // What is shown is always what is: there is no copy to throw away.
    r.scalar(ScalarFn {
        name: "pg_stat_clear_snapshot",
        args: &[],
        variadic: None,
        optional: 0,
        ret: Type::VOID,
        strict: false,
        volatility: Volatility::Volatile,
        imp: |_, _| Ok(Datum::text("")),
    });
    backends(r);
    databases(r);
}

/// The session of this number, with what the asker may know of it.
fn backend(a: &[Datum], cx: &FnCx<'_>) -> Result<Option<SessionStatus>> {
    let number = usize::try_from(args::int4(a, 0)?).unwrap_or(0);
    Ok(number.checked_sub(1).and_then(|i| cx.session.services.sessions().into_iter().nth(i)))
}

fn or_null(value: Option<Datum>) -> Result<Datum> {
    Ok(value.unwrap_or(Datum::Null))
}

fn known(a: &[Datum], cx: &FnCx<'_>) -> Result<Option<SessionStatus>> {
    Ok(backend(a, cx)?.filter(|s| s.is_visible))
}

fn backends(r: &mut Registry) {
    r.set(SetFn {
        name: "pg_stat_get_backend_idset",
        args: &[],
        variadic: None,
        columns: &[("pg_stat_get_backend_idset", I)],
        strict: true,
        imp: |_, cx| {
            let all = cx.session.services.sessions().len();
            Ok(Box::new((1..=all).map(|i| Ok(vec![args::count(i)]))))
        },
    });
    r.stable("pg_stat_get_backend_pid", &[I], I, |a, cx| or_null(backend(a, cx)?.map(|s| Datum::Int4(s.pid))));
    r.stable("pg_stat_get_backend_dbid", &[I], Type::OID, |a, cx| {
        or_null(backend(a, cx)?.map(|s| Datum::Oid(oid_of(&s.database, cx.session))))
    });
    r.stable("pg_stat_get_backend_userid", &[I], Type::OID, |a, cx| {
        or_null(backend(a, cx)?.map(|s| Datum::Oid(role_oid(&s.user, cx.session))))
    });
    r.stable("pg_stat_get_backend_activity", &[I], T, |a, cx| {
        or_null(backend(a, cx)?.map(|s| Datum::text(if s.is_visible { &s.query } else { "<insufficient privilege>" })))
    });
    r.stable("pg_stat_get_backend_activity_start", &[I], TIME, |a, cx| {
        Ok(moment(known(a, cx)?.and_then(|s| s.query_start)))
    });
    r.stable("pg_stat_get_backend_xact_start", &[I], TIME, |a, cx| {
        Ok(moment(known(a, cx)?.and_then(|s| s.transaction_start)))
    });
    r.stable("pg_stat_get_backend_start", &[I], TIME, |a, cx| Ok(moment(known(a, cx)?.map(|s| s.started))));
    r.stable("pg_stat_get_backend_client_port", &[I], I, |a, cx| {
        or_null(known(a, cx)?.and_then(|s| s.client).map(|c| Datum::Int4(i32::from(c.port()))))
    });
    r.stable("pg_stat_get_backend_wait_event_type", &[I], T, |a, cx| {
        or_null(known(a, cx)?.and_then(|s| s.wait).map(|(kind, _)| Datum::text(kind)))
    });
    r.stable("pg_stat_get_backend_wait_event", &[I], T, |a, cx| {
        or_null(known(a, cx)?.and_then(|s| s.wait).map(|(_, event)| Datum::text(event)))
    });
}

fn databases(r: &mut Registry) {
    fn of(a: &[Datum], cx: &FnCx<'_>) -> Result<crate::session::activity::DatabaseStatus> {
        let wanted = args::oid(a, 0)?;
        let mut all = cx.session.services.database_statuses().into_iter();
        Ok(all.find(|d| oid_of(&d.database, cx.session) == wanted).unwrap_or_default())
    }
    r.stable("pg_stat_get_db_numbackends", &[Type::OID], I, |a, cx| Ok(Datum::Int4(of(a, cx)?.sessions_now)));
    r.stable("pg_stat_get_db_xact_commit", &[Type::OID], L, |a, cx| {
        Ok(Datum::Int8(of(a, cx)?.totals.commits.cast_signed()))
    });
    r.stable("pg_stat_get_db_xact_rollback", &[Type::OID], L, |a, cx| {
        Ok(Datum::Int8(of(a, cx)?.totals.rollbacks.cast_signed()))
    });
    r.stable("pg_stat_get_db_deadlocks", &[Type::OID], L, |a, cx| {
        Ok(Datum::Int8(of(a, cx)?.totals.deadlocks.cast_signed()))
    });
}
