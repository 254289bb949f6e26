//! What EXPLAIN ANALYZE measures.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::wait::Fetched;

/// Measurements of one node over all its runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeMetrics {
    /// How often it was started.
    pub loops: u64,
    /// Rows it gave.
    pub rows: u64,
    /// From the first call to the first row, all runs together.
    pub startup: Duration,
    /// Time spent in it and below.
    pub total: Duration,
    /// What was fetched from peers in it and below.
    pub fetched: Fetched,
    /// Bytes of memory, for nodes that gather rows.
    pub memory: usize,
    /// Whether it used temporary files.
    pub spilled: bool,
    started: bool,
}

/// Measurements of a plan's nodes, by id.
pub struct Metrics {
    nodes: Mutex<Vec<NodeMetrics>>,
}

impl Metrics {
    /// For a plan of so many nodes.
    pub fn new(nodes: usize) -> Metrics {
        Metrics { nodes: Mutex::new(vec![NodeMetrics::default(); nodes]) }
    }
    /// Those of a node.
    pub fn node(&self, id: usize) -> NodeMetrics {
        self.nodes.lock().get(id).copied().unwrap_or_default()
    }
    pub(crate) fn add(&self, id: usize, start: Instant, rows: usize, fetched: Fetched, first: bool) {
        if let Some(node) = self.nodes.lock().get_mut(id) {
            let elapsed = start.elapsed();
            if first {
                node.loops += 1;
                node.started = false;
            }
            if !node.started {
                node.startup += elapsed;
                node.started = true;
            }
            node.total += elapsed;
            node.rows += rows as u64;
            node.fetched = node.fetched.plus(fetched);
        }
    }
    pub(crate) fn gathered(&self, id: usize, memory: usize, spilled: bool) {
        if let Some(node) = self.nodes.lock().get_mut(id) {
            node.memory = node.memory.max(memory);
            node.spilled |= spilled;
        }
    }
}
