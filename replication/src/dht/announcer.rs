//! A server that stays findable.
