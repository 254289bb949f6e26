//! What can be called: functions, operators, casts, aggregates, window functions, set-returning functions.
//!
//! One registry serves binding (which overload do these argument types mean?), execution (the Rust function) and
//! pg_catalog (pg_proc, pg_operator and pg_cast show what we implement and nothing else). A module of functions has
//! one `register`, called from [`registry`]. WHERE, SET, DEFAULT, CHECK and RETURNING all come here: one truth for
//! what an expression means.

pub mod activity;
pub mod aggregate;
mod args;
pub mod arith;
pub mod array;
pub mod bytea;
pub mod cancel;
pub mod cast;
pub mod catalog;
pub mod compare;
pub mod context;
pub mod datetime;
pub mod digest;
pub mod format;
mod grow;
pub mod inspection;
pub mod json;
pub mod keywords;
pub mod locks;
pub mod math;
pub mod ordered_set;
pub mod pattern;
pub mod procs;
mod regex_extent;
pub mod regex_syntax;
pub mod regexp;
pub mod registry;
pub mod srf;
pub mod statistics;
pub mod system;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;
pub mod to_char;
pub mod uuid;
pub mod window;

pub use context::{FnCx, Services, SessionCx};
pub use registry::{Registry, registry};
