//! COPY: rows as text, CSV or PostgreSQL's binary form, in from the client and out to it.
//!
//! ```text
//! options  what was asked for, checked as PostgreSQL checks it
//! lines    bytes cut into records and fields: text and CSV
//! binary   the binary form's frames
//! from     [`CopyIn`]: pushed bytes become rows of a table
//! to       [`CopyOut`]: rows become bytes, pulled
//! ```

mod binary;
mod from;
mod lines;
mod options;
mod to;

#[cfg(test)]
mod tests;

pub use from::{CopyIn, CopyRules};
pub use options::{CopyOptions, Format, Header};
pub use to::{CopyOut, CopyPiece};
