//! What can be called: functions, operators, casts, aggregates, window functions, set-returning functions.
//!
//! One registry serves binding (which overload do these argument types mean?), execution (the Rust function) and
//! pg_catalog (pg_proc, pg_operator and pg_cast show what we implement and nothing else). A module of functions has
//! one `register`, called from [`registry`]. WHERE, SET, DEFAULT, CHECK and RETURNING all come here: one truth for
//! what an expression means.

pub mod registry;
pub mod context;
pub mod aggregate;
pub mod ordered_set;
pub mod statistics;
pub mod window;
pub mod cast;
pub mod compare;
pub mod arith;
pub mod math;
pub mod text;
pub mod pattern;
pub mod regexp;
pub mod regex_syntax;
pub mod format;
pub mod bytea;
pub mod digest;
pub mod datetime;
pub mod to_char;
pub mod array;
pub mod srf;
pub mod catalog;
pub mod system;
pub mod inspection;
pub mod uuid;
mod args;
#[cfg(test)]
pub(crate) mod testing;
pub mod keywords;
pub mod procs;

pub use context::{FnCx, Services, SessionCx};
pub use registry::{registry, Registry};
