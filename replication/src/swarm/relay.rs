//! Connections through a relay that both sides can reach.
