//! What a server knows of peers, all of the process, whatever database asks.
//!
//! ```text
//! bee_cores         what is here of each database
//! bee_peers         who it is exchanged with
//! bee_progress      what is being fetched
//! bee_swarm         our place in the swarm: one row, none without a swarm
//! bee_swarm_topics  what peers are looked for by, a row each, and how that goes
//! ```

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pgbee_engine::DiscoveryKey;

use super::commits::committed_at;
use super::{Rows, field};
use crate::catalog::PG_CATALOG;
use crate::catalog::schema::VirtualTable;
use crate::error::Result;
use crate::exec::ExecCx;
use crate::follow::{CoreStatus, PeerStatus, ProgressStatus, Swarm, TopicStatus};
use crate::functions::context::Services;
use crate::functions::system::z_base_32;
use crate::ir::Field;
use crate::types::{Datum, Interval, Row, Type};

type Columns = &'static [(&'static str, Type)];

const CORES: Columns = &[
    ("database", Type::NAME),
    ("key", Type::TEXT),
    ("discovery_key", Type::TEXT),
    ("length", Type::INT8),
    ("version", Type::INT8),
    ("held_blocks", Type::INT8),
    ("held_bytes", Type::INT8),
    ("remote_length", Type::INT8),
    ("lag_blocks", Type::INT8),
    ("last_append_at", Type::TIMESTAMPTZ),
    ("verification_failures", Type::INT8),
    ("conflict", Type::TEXT),
];

const PEERS: Columns = &[
    ("database", Type::NAME),
    ("peer_key", Type::TEXT),
    ("address", Type::TEXT),
    ("transport", Type::TEXT),
    ("remote_length", Type::INT8),
    ("blocks_in", Type::INT8),
    ("blocks_out", Type::INT8),
    ("bytes_in", Type::INT8),
    ("bytes_out", Type::INT8),
    ("round_trip", Type::INTERVAL),
    ("connected_at", Type::TIMESTAMPTZ),
];

const PROGRESS: Columns = &[
    ("pid", Type::INT4),
    ("database", Type::NAME),
    ("what", Type::TEXT),
    ("blocks_done", Type::INT8),
    ("blocks_total", Type::INT8),
    ("bytes", Type::INT8),
    ("started_at", Type::TIMESTAMPTZ),
];

const SWARM: Columns = &[
    ("public_key", Type::TEXT),
    ("bootstrap", Type::TEXT),
    ("address", Type::TEXT),
    ("public_address", Type::TEXT),
    ("nat", Type::TEXT),
    ("persistent", Type::BOOL),
    ("nodes", Type::INT8),
    ("topics", Type::INT8),
    ("connections", Type::INT8),
    ("relayed", Type::INT8),
    ("punches_tried", Type::INT8),
    ("punches_won", Type::INT8),
    ("last_note", Type::TEXT),
];

const SWARM_TOPICS: Columns = &[
    ("database", Type::NAME),
    ("topic", Type::TEXT),
    ("announced", Type::BOOL),
    ("looked_up", Type::BOOL),
    ("peers", Type::INT8),
    ("connections", Type::INT8),
    ("state", Type::TEXT),
];

/// A view whose rows the session knows.
pub(super) struct Live {
    oid: u32,
    name: &'static str,
    columns: Arc<[Field]>,
    rows: fn(&dyn Services) -> Result<Vec<Row>>,
}

impl Live {
    fn new(oid: u32, name: &'static str, columns: Columns, rows: fn(&dyn Services) -> Result<Vec<Row>>) -> Live {
        let columns = (1..).zip(columns).map(|(n, (name, ty))| field(name, *ty, oid, n)).collect();
        Live { oid, name, columns, rows }
    }
    /// bee_cores.
    pub fn cores(oid: u32) -> Live {
        Live::new(oid, "bee_cores", CORES, |services| Ok(services.cores()?.into_iter().map(core_row).collect()))
    }
    /// bee_peers.
    pub fn peers(oid: u32) -> Live {
        Live::new(oid, "bee_peers", PEERS, |services| Ok(services.peers()?.into_iter().map(peer_row).collect()))
    }
    /// bee_swarm.
    pub fn swarm(oid: u32) -> Live {
        Live::new(oid, "bee_swarm", SWARM, |services| Ok(services.swarm().into_iter().map(swarm_row).collect()))
    }
    /// bee_swarm_topics.
    pub fn swarm_topics(oid: u32) -> Live {
        Live::new(oid, "bee_swarm_topics", SWARM_TOPICS, |services| {
            Ok(services.swarm_topics()?.into_iter().map(topic_row).collect())
        })
    }
    /// bee_progress.
    pub fn progress(oid: u32) -> Live {
        Live::new(oid, "bee_progress", PROGRESS, |services| {
            Ok(services.progress().into_iter().map(progress_row).collect())
        })
    }
}

impl VirtualTable for Live {
    fn oid(&self) -> u32 {
        self.oid
    }
    fn name(&self) -> &str {
        self.name
    }
    fn schema(&self) -> u32 {
        PG_CATALOG
    }
    fn columns(&self) -> Arc<[Field]> {
        self.columns.clone()
    }
    fn rows<'a>(&'a self, _: &[Datum], _: &[(usize, Datum)], cx: &'a ExecCx) -> Result<Rows<'a>> {
        Ok(Box::new((self.rows)(&*cx.session.services)?.into_iter().map(Ok)))
    }
}

fn count(n: u64) -> Datum {
    Datum::Int8(n.cast_signed())
}

fn count_or_null(n: Option<u64>) -> Datum {
    n.map_or(Datum::Null, count)
}

fn core_row(core: CoreStatus) -> Row {
    let remote_length = core.remote.filter(|r| r.peers > 0).map(|r| r.length);
    vec![
        Datum::text(core.database),
        Datum::text(core.key.to_z32()),
        Datum::text(core.discovery_key.to_hex()),
        count(core.length),
        count_or_null(core.version),
        count(core.held_blocks),
        count_or_null(core.held_bytes),
        count_or_null(remote_length),
        // Who follows us is behind us; we lag behind nobody.
        if core.is_followed {
            count_or_null(remote_length.map(|r| r.saturating_sub(core.length)))
        } else {
            Datum::Null
        },
        core.last_append_at.map_or(Datum::Null, committed_at),
        count(core.remote.map_or(0, |r| r.verification_failures)),
        core.conflict.map_or(Datum::Null, Datum::text),
    ]
}

fn peer_row(status: PeerStatus) -> Row {
    let peer = status.peer;
    vec![
        status.database.map_or(Datum::Null, Datum::text),
        Datum::text(z_base_32(&peer.peer_key)),
        Datum::text(peer.address),
        Datum::text(peer.transport),
        count(peer.remote_length),
        count(peer.blocks_in),
        count(peer.blocks_out),
        count(peer.bytes_in),
        count(peer.bytes_out),
        peer.round_trip_micros.map_or(Datum::Null, |micros| {
            Datum::Interval(Interval { months: 0, days: 0, micros: micros.cast_signed() })
        }),
        time(peer.connected_at),
    ]
}

fn text_or_null(text: Option<String>) -> Datum {
    text.map_or(Datum::Null, Datum::text)
}

fn swarm_row(swarm: Swarm) -> Row {
    vec![
        Datum::text(z_base_32(&swarm.public_key)),
        Datum::text(swarm.bootstrap),
        Datum::text(swarm.address),
        text_or_null(swarm.public_address),
        Datum::text(swarm.nat),
        Datum::Bool(swarm.is_persistent),
        count(swarm.nodes),
        count(swarm.topics.len() as u64),
        count(swarm.connections),
        count(swarm.relayed),
        count(swarm.punches_tried),
        count(swarm.punches_won),
        text_or_null(swarm.last_note),
    ]
}

fn topic_row(status: TopicStatus) -> Row {
    let topic = status.topic;
    vec![
        text_or_null(status.database),
        Datum::text(DiscoveryKey(topic.discovery_key).to_hex()),
        Datum::Bool(topic.is_announced),
        Datum::Bool(topic.is_looked_up),
        count(topic.peers),
        count(topic.connections),
        Datum::text(topic.state),
    ]
}

fn progress_row(progress: ProgressStatus) -> Row {
    vec![
        Datum::Int4(progress.pid),
        Datum::text(progress.database),
        Datum::text(progress.what),
        count(progress.blocks_done),
        count_or_null(progress.blocks_total),
        count(progress.bytes),
        committed_at(progress.started_at),
    ]
}

/// A clock's time as a timestamptz.
pub(crate) fn time(at: SystemTime) -> Datum {
    let micros = at.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
    committed_at(micros)
}
