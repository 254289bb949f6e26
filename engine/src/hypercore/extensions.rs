//! Messages that ride on a core's channel and mean nothing to the core: [`Extensions`].
//!
//! A layer above (a bee) sends one to all peers of the core, or registers what answers those that come in; the replicator carries them and looks into none.
//!
//! What must stay true: the queue of messages to be sent is bounded, and its oldest ones are forgotten: extensions are hints, nothing relies on them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Messages that wait to be sent, at most.
const OUTBOX_MAX: usize = 64;

/// What answers the messages of one extension. Payloads come from strangers.
pub trait ExtensionHandler: Send + Sync {
    /// A message from one peer; what it is answered with. Must be quick and must not wait.
    fn handle(&self, payload: &[u8]) -> Vec<Bytes>;
}

/// The extensions of one core.
#[derive(Default)]
pub struct Extensions {
    handlers: Mutex<HashMap<&'static str, Arc<dyn ExtensionHandler>>>,
    outbox: Mutex<VecDeque<(&'static str, Bytes)>>,
}

impl Extensions {
    /// From now on this answers messages of this name.
    pub fn register(&self, name: &'static str, handler: Arc<dyn ExtensionHandler>) {
        self.handlers.lock().insert(name, handler);
    }

    /// What answers messages of this name, and the name as it is known here.
    pub fn handler(&self, name: &str) -> Option<(&'static str, Arc<dyn ExtensionHandler>)> {
        self.handlers.lock().get_key_value(name).map(|(name, handler)| (*name, handler.clone()))
    }

    /// Queues a message for all peers of the core. Register a want next, which is what wakes the replicator.
    pub fn broadcast(&self, name: &'static str, payload: Bytes) {
        let mut outbox = self.outbox.lock();
        if outbox.len() == OUTBOX_MAX {
            outbox.pop_front();
        }
        outbox.push_back((name, payload));
    }

    /// The messages that wait to be sent, oldest first.
    pub fn take(&self) -> Vec<(&'static str, Bytes)> {
        self.outbox.lock().drain(..).collect()
    }
}
