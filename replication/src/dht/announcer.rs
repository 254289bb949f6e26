//! Keeps a server to be found: announced at three nodes, which forward to it.

/// What an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A node keeps our announcement, or not.
    Announced,
}
