//! pg_locks: locks that are held or waited for, of all databases that are open.
//!
//! A row's lock is shown only while somebody waits for it, and without the row's place: it has none that others could look up.

use super::cluster::database_oid;
use super::made::Ask;
use super::value::{NULL, bool, int2, int4, oid, text};
use crate::catalog::DATABASE_OID;
use crate::error::Result;
use crate::functions::SessionCx;
use crate::lock::{LockStatus, LockTarget};
use crate::types::{Datum, Row};

/// Microseconds between 1970 and 2000, where SQL's time begins.
const EPOCH_2000: i64 = 946_684_800_000_000;

pub(super) fn locks(ask: &Ask<'_>) -> Result<Vec<Row>> {
    Ok(ask.cx.services.locks().into_iter().map(|(database, lock)| row(&database, lock, ask.cx)).collect())
}

fn row(database: &str, lock: LockStatus, cx: &SessionCx) -> Row {
    let of = oid(if database == cx.database { DATABASE_OID } else { database_oid(database) });
    // Everything that says what is locked; the columns of the other kinds are NULL.
    let mut what: [Datum; 9] = std::array::from_fn(|_| NULL);
    let kind = match lock.target {
        LockTarget::Relation(relation) => {
            (what[0], what[1]) = (of, oid(relation));
            "relation"
        }
        LockTarget::Tuple(relation) => {
            (what[0], what[1]) = (of, oid(relation));
            "tuple"
        }
        LockTarget::Virtual(transaction) => {
            what[4] = text(transaction);
            "virtualxid"
        }
        LockTarget::Transaction(number) => {
            what[5] = oid(number as u32);
            "transactionid"
        }
        LockTarget::Advisory(key) => {
            what[0] = of;
            (what[6], what[7], what[8]) = (oid(key.high), oid(key.low), int2(if key.is_pair { 2 } else { 1 }));
            "advisory"
        }
    };
    let mut row = vec![text(kind)];
    row.extend(what);
    row.extend([
        text(lock.virtual_transaction),
        int4(lock.pid),
        text(lock.mode.name()),
        bool(lock.granted),
        bool(lock.fast_path),
        lock.wait_start.map_or(NULL, |micros| Datum::TimestampTz(micros - EPOCH_2000)),
    ]);
    row
}
