//! The B-tree inside a log.
