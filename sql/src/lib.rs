//! SQL over bees: PostgreSQL's language, types and errors on the pgbee engine.
//!
//! Read in the order a statement travels: [`session`] takes text; [`parse`] makes statements of it; [`bind`] resolves names and types to the
//! typed form in [`ir`]; [`plan`] turns that into operators with key ranges; [`exec`] runs them; [`write`] changes rows. Beside the way stand
//! [`types`] and [`functions`] (what values are and what can be done with them), [`catalog`] (what exists, as data in the bee) and [`codec`] (rows and
//! keys as bytes); [`memory`] is what a statement may hold, [`follow`] what is asked of peers,
//! [`foreign`] bees that others write. This crate knows no socket, no peer and no wire protocol.

pub mod bind;
pub mod catalog;
pub mod codec;
pub mod error;
pub mod exec;
pub mod follow;
pub mod foreign;
pub mod functions;
pub mod ir;
pub mod lock;
pub mod memory;
pub mod parse;
pub mod plan;
pub mod session;
pub mod types;
pub mod wait;
pub mod write;

pub use error::{Result, SqlError};
