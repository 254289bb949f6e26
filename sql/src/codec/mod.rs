//! Rows and keys as bytes: what the bee holds, and nothing about when or why.
//!
//! ```text
//! keyspace   which key holds what: the table of prefixes, definition keys, names, sequences
//! key        one value as bytes whose order is the value's order; ranges of keys from bounds on values
//! entry      row keys and index entries of one table, by a plan made once
//! row        a row as bytes, and decoders that read only the columns a query needs
//! ```
//!
//! What must stay true:
//!
//! * keys order as PostgreSQL's default btree operator classes order values (collation C), and equal values
//!   give equal bytes, so uniqueness is one lookup;
//! * no encoded value is a prefix of another of the same type, so encoded columns can be put side by side;
//! * a row holds all its columns, those of the primary key included: a key need not give a value back
//!   (numeric loses its display scale, char(n) its blanks, an interval its parts);
//! * a row written under an older definition of its table stays readable: slots are only ever added.

pub mod entry;
pub mod key;
pub mod keyspace;
pub mod row;

#[cfg(test)]
mod tests;

pub use entry::{IndexCodec, RowKeyCodec};
pub use key::{KeyColumn, key_is_lossless};
pub use row::{Decoder, RowEncoder};
