//! What the DHT is asked for by its owner: look up, announce, put, get.

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The walk is over; that many nodes keep what was announced or put, or forgot what was unannounced.
    Ended {
        /// How many nodes said so.
        nodes: usize,
    },
    /// The latest value that its owner signed; None if no node has any.
    Mutable(Option<super::messages::MutableValue>),
    /// The value that has the hash; None if no node has it.
    Immutable(Option<Vec<u8>>),
}
