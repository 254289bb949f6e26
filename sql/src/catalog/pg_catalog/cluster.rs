//! The server around the database, as far as a session knows it: itself, its user, its database, its settings.

use super::made::Ask;
use super::value::{NULL, bool, char, int4, oid, text};
use crate::catalog::DATABASE_OID;
use crate::catalog::bee_views::{committed_at, peers::time};
use crate::error::Result;
use crate::follow::PeerStatus;
use crate::functions::system::z_base_32;
use crate::types::reg::SUPERUSER;
use crate::types::{Array, Datum, Row, Type};

/// Oid of pg_default.
const DEFAULT_TABLESPACE: u32 = 1663;
/// pg_database.encoding of UTF8.
const UTF8: i32 = 6;

/// All databases of the server, the session's own first. Others are another bee each, and nothing but their names is seen from here.
pub(super) fn databases(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let own = &ask.cx.database;
    let others = ask.cx.services.databases().into_iter().filter(|name| name != own);
    let others: Vec<Row> = others.map(|name| database(database_oid(&name), &name)).collect();
    Ok(std::iter::once(database(DATABASE_OID, own)).chain(others).collect())
}

fn database(number: u32, name: &str) -> Row {
    vec![
        oid(number),
        text(name),
        oid(SUPERUSER),
        int4(UTF8),
        char('c'),   // datlocprovider
        bool(false), // datistemplate
        bool(true),  // datallowconn
        int4(-1),
        oid(0),
        oid(0),
        oid(DEFAULT_TABLESPACE),
        text("C"),
        text("C"),
        NULL,
        NULL,
        NULL,
    ]
}

/// A database has no number outside of itself; this one is made of its name (FNV-1a), far from those of definitions.
pub(super) fn database_oid(name: &str) -> u32 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash | 0x8000_0000
}

/// pg_db_role_setting: what ALTER DATABASE set.
pub(super) fn database_settings(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let row = |(name, settings): (String, Vec<String>)| {
        let number = if name == ask.cx.database { DATABASE_OID } else { database_oid(&name) };
        let settings = Array::from_values(Type::TEXT, settings.into_iter().map(Datum::text).collect());
        vec![oid(number), oid(0), Datum::Array(settings.into())]
    };
    Ok(ask.cx.services.database_settings().into_iter().map(row).collect())
}

/// The session's user: roles are the server's, and no other is known here.
pub(super) fn roles(ask: &Ask<'_>) -> Result<Vec<Row>> {
    Ok(vec![vec![
        text(&ask.cx.user),
        bool(true),  // rolsuper
        bool(true),  // rolinherit
        bool(true),  // rolcreaterole
        bool(true),  // rolcreatedb
        bool(true),  // rolcanlogin
        bool(false), // rolreplication
        int4(-1),
        text("********"),
        NULL,
        bool(true), // rolbypassrls
        NULL,
        oid(SUPERUSER),
    ]])
}

/// The same, without a password: it is not kept in the database.
pub(super) fn authids(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let yes = || bool(true);
    Ok(vec![vec![
        oid(SUPERUSER),
        text(&ask.cx.user),
        yes(),
        yes(),
        yes(),
        yes(),
        yes(),
        bool(false),
        yes(),
        int4(-1),
        NULL,
        NULL,
    ]])
}

pub(super) fn users(ask: &Ask<'_>) -> Result<Vec<Row>> {
    Ok(vec![vec![
        text(&ask.cx.user),
        oid(SUPERUSER),
        bool(true),
        bool(true),
        bool(false),
        bool(true),
        text("********"),
        NULL,
        NULL,
    ]])
}

/// Settings that tools look for, with the type and category pg_settings files them under. Values come from the session; a name it
/// does not know is left out.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("application_name", "string", "Reporting and Logging / What to Log"),
    ("bytea_output", "enum", "Client Connection Defaults / Statement Behavior"),
    ("client_encoding", "string", "Client Connection Defaults / Locale and Formatting"),
    ("client_min_messages", "enum", "Client Connection Defaults / Statement Behavior"),
    ("DateStyle", "string", "Client Connection Defaults / Locale and Formatting"),
    ("deadlock_timeout", "integer", "Lock Management"),
    ("default_transaction_deferrable", "bool", "Client Connection Defaults / Statement Behavior"),
    ("default_transaction_isolation", "enum", "Client Connection Defaults / Statement Behavior"),
    ("default_transaction_read_only", "bool", "Client Connection Defaults / Statement Behavior"),
    ("extra_float_digits", "integer", "Client Connection Defaults / Locale and Formatting"),
    ("idle_in_transaction_session_timeout", "integer", "Client Connection Defaults / Statement Behavior"),
    ("integer_datetimes", "bool", "Preset Options"),
    ("IntervalStyle", "enum", "Client Connection Defaults / Locale and Formatting"),
    ("is_superuser", "bool", "Client Connection Defaults / Statement Behavior"),
    ("lc_collate", "string", "Client Connection Defaults / Locale and Formatting"),
    ("lc_ctype", "string", "Client Connection Defaults / Locale and Formatting"),
    ("lc_messages", "string", "Client Connection Defaults / Locale and Formatting"),
    ("lock_timeout", "integer", "Client Connection Defaults / Statement Behavior"),
    ("max_connections", "integer", "Connections and Authentication / Connection Settings"),
    ("max_identifier_length", "integer", "Preset Options"),
    ("max_index_keys", "integer", "Preset Options"),
    ("search_path", "string", "Client Connection Defaults / Statement Behavior"),
    ("server_encoding", "string", "Preset Options"),
    ("server_version", "string", "Preset Options"),
    ("server_version_num", "integer", "Preset Options"),
    ("session_authorization", "string", "Client Connection Defaults / Statement Behavior"),
    ("standard_conforming_strings", "bool", "Version and Platform Compatibility / Previous PostgreSQL Versions"),
    ("statement_timeout", "integer", "Client Connection Defaults / Statement Behavior"),
    ("synchronous_commit", "enum", "Write-Ahead Log / Settings"),
    ("TimeZone", "string", "Client Connection Defaults / Locale and Formatting"),
    ("transaction_isolation", "enum", "Client Connection Defaults / Statement Behavior"),
    ("transaction_read_only", "bool", "Client Connection Defaults / Statement Behavior"),
    ("work_mem", "integer", "Resource Usage / Memory"),
];

pub(super) fn settings(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, kind, category) in SETTINGS {
        let Some(value) = ask.cx.services.setting(name) else { continue };
        let context = if *category == "Preset Options" { "internal" } else { "user" };
        rows.push(vec![
            text(name),
            text(&value),
            NULL,
            text(category),
            text(""),
            NULL,
            text(context),
            text(kind),
            text("default"),
            NULL,
            NULL,
            NULL,
            NULL,
            NULL,
            NULL,
            NULL,
            bool(false),
        ]);
    }
    Ok(rows)
}

/// A length of a core in the shape of a place in PostgreSQL's log, which counts bytes where this counts blocks.
fn lsn(length: u64) -> Datum {
    text(format!("{:X}/{:X}", length >> 32, length & 0xffff_ffff))
}

fn host_and_port(address: &str) -> (Datum, Datum) {
    match address.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) => (text(host.trim_start_matches('[').trim_end_matches(']')), int4(port)),
        _ => (text(address), NULL),
    }
}

/// Those who may be following this database: its peers if it is written here, those we have sent blocks to if it is followed. What they have is what they say.
pub(super) fn replication(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let peers = ask.cx.services.peers()?;
    let followers = peers
        .into_iter()
        .filter(|p| (!p.is_followed || p.peer.blocks_out > 0) && p.database.as_ref() == Some(&ask.cx.database));
    let newest = ask.cx.services.version();
    let row = |status: PeerStatus| {
        let peer = status.peer;
        let (host, port) = host_and_port(&peer.address);
        let (has, state) = (lsn(peer.remote_length), if peer.remote_length < newest { "catchup" } else { "streaming" });
        vec![
            NULL, // pid
            NULL, // usesysid
            NULL, // usename
            text(z_base_32(&peer.peer_key)),
            host,
            NULL, // client_hostname
            port,
            time(peer.connected_at),
            NULL, // backend_xmin
            text(state),
            has.clone(),
            has.clone(),
            has.clone(),
            has,
            NULL, // write_lag
            NULL, // flush_lag
            NULL, // replay_lag
            int4(0),
            text("async"),
            NULL, // reply_time
        ]
    };
    Ok(followers.map(row).collect())
}

/// The peer that has most of this database, if it is followed.
pub(super) fn wal_receiver(ask: &Ask<'_>) -> Result<Vec<Row>> {
    let services = &ask.cx.services;
    if !services.is_follower() {
        return Ok(Vec::new());
    }
    let peers = services.peers()?.into_iter().filter(|p| p.database.as_ref() == Some(&ask.cx.database));
    let Some(best) = peers.max_by_key(|p| p.peer.remote_length) else { return Ok(Vec::new()) };
    let newest = services.cores()?.into_iter().find(|c| c.database == ask.cx.database);
    let (length, appended) = newest.map_or((0, None), |c| (c.length, c.last_append_at));
    let (host, port) = host_and_port(&best.peer.address);
    Ok(vec![vec![
        NULL, // pid
        text("streaming"),
        NULL, // receive_start_lsn
        NULL, // receive_start_tli
        lsn(length),
        lsn(length),
        NULL, // received_tli
        NULL, // last_msg_send_time
        NULL, // last_msg_receipt_time
        lsn(best.peer.remote_length),
        appended.map_or(NULL, committed_at),
        NULL, // slot_name
        host,
        port,
        text(format!("bee_key={} peer={}", z_base_32(&services.key()), best.peer.address)),
    ]])
}
