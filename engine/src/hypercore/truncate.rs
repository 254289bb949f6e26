//! Cutting a log back, and dropping blocks.

use std::ops::Range;

use super::{Core, Head};
use crate::error::{Error, Result};
use crate::position::{BlockIndex, Length};
use crate::storage::Durability;

impl Core {
    /// Cuts the log back: a new fork, signed at once.
    ///
    /// # Errors
    ///
    /// [`Error::NotWritable`]; [`Error::Invalid`]; [`Error::Storage`].
    pub fn truncate(&self, to: Length, durability: Durability) -> Result<Head> {
        let _ = (to, durability);
        Err(Error::NotWritable)
    }

    /// Drops blocks that are held.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn clear(&self, range: Range<BlockIndex>) -> Result<()> {
        let _ = range;
        Err(Error::NotWritable)
    }
}
