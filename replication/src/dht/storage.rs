//! What a node keeps for others.
