//! Sessions and what they counted: pg_stat_activity, pg_stat_database, and the functions beneath them.
//!
//! The server has no processes but its sessions, so nothing else is listed. What is not counted here (blocks, rows, temporary files) is NULL and not 0.

use super::cluster::database_oid;
use super::made::Ask;
use super::value::{NULL, int4, int8, oid, text, text_or_null};
use crate::catalog::DATABASE_OID;
use crate::error::Result;
use crate::functions::SessionCx;
use crate::session::activity::{DatabaseStatus, SessionStatus};
use crate::types::reg::SUPERUSER;
use crate::types::{Datum, Row};

/// What is shown in place of a statement that is not the asker's to know.
const HIDDEN: &str = "<insufficient privilege>";

/// Oid of a database, as pg_database has it.
pub(crate) fn oid_of(database: &str, cx: &SessionCx) -> u32 {
    if database == cx.database { DATABASE_OID } else { database_oid(database) }
}

/// Oid of a role: of the session's own, and by its name of any other.
pub(crate) fn role_oid(user: &str, cx: &SessionCx) -> u32 {
    if user == cx.user { SUPERUSER } else { database_oid(user) }
}

/// A moment, if it was ever.
pub(crate) fn moment(at: Option<i64>) -> Datum {
    at.map_or(NULL, Datum::TimestampTz)
}

pub(super) fn activity(ask: &Ask<'_>) -> Result<Vec<Row>> {
    Ok(ask.cx.services.sessions().into_iter().map(|session| row(session, ask.cx)).collect())
}

fn row(session: SessionStatus, cx: &SessionCx) -> Row {
    let known = session.is_visible;
    let if_known = |value: Datum| if known { value } else { NULL };
    let client = session.client.filter(|_| known);
    let (kind, event) = session.wait.filter(|_| known).unzip();
    vec![
        oid(oid_of(&session.database, cx)),
        text(&session.database),
        int4(session.pid),
        NULL, // leader_pid
        oid(role_oid(&session.user, cx)),
        text(&session.user),
        text(&session.application),
        text_or_null(client.map(|c| c.ip().to_string())),
        NULL, // client_hostname
        client.map_or(NULL, |c| int4(i32::from(c.port()))),
        if_known(Datum::TimestampTz(session.started)),
        if_known(moment(session.transaction_start)),
        if_known(moment(session.query_start)),
        if_known(moment(session.state_change)),
        text_or_null(kind),
        text_or_null(event),
        if_known(text(session.state.name())),
        if_known(session.transaction.map_or(NULL, Datum::Oid)),
        NULL, // backend_xmin: snapshots are versions, not transactions
        NULL, // query_id
        text(if known { &session.query } else { HIDDEN }),
        if_known(text("client backend")),
    ]
}

/// Of each database; the first row of PostgreSQL's, for what belongs to none, is left out: nothing is counted there.
pub(super) fn databases(ask: &Ask<'_>) -> Result<Vec<Row>> {
    Ok(ask.cx.services.database_statuses().into_iter().map(|status| database_row(&status, ask.cx)).collect())
}

fn database_row(status: &DatabaseStatus, cx: &SessionCx) -> Row {
    let count = |n: u64| int8(i64::try_from(n).unwrap_or(i64::MAX));
    let milliseconds = |micros: u64| Datum::Float8(micros as f64 / 1000.0);
    let totals = &status.totals;
    vec![
        oid(oid_of(&status.database, cx)),
        text(&status.database),
        int4(status.sessions_now),
        count(totals.commits),
        count(totals.rollbacks),
        NULL,    // blks_read
        NULL,    // blks_hit
        NULL,    // tup_returned
        NULL,    // tup_fetched
        NULL,    // tup_inserted
        NULL,    // tup_updated
        NULL,    // tup_deleted
        int8(0), // conflicts: no replay here ever cancels a statement
        NULL,    // temp_files
        NULL,    // temp_bytes
        count(totals.deadlocks),
        NULL, // checksum_failures
        NULL, // checksum_last_failure
        NULL, // blk_read_time
        NULL, // blk_write_time
        milliseconds(totals.session_micros),
        milliseconds(totals.active_micros),
        milliseconds(totals.idle_in_transaction_micros),
        count(totals.sessions),
        count(totals.abandoned),
        NULL, // sessions_fatal
        count(totals.killed),
        NULL, // stats_reset
    ]
}
