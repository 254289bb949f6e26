//! Arrays: a flat list of elements with the lengths and lower bounds of their dimensions.

use super::{Datum, Type};

/// An array of any number of dimensions (tables store up to one; expressions may build more).
#[derive(Clone, Debug)]
pub struct Array {
    /// Type of the elements.
    pub elem: Type,
    /// Length and lower bound of each dimension, outermost first; empty for the empty array.
    pub dims: Vec<(i32, i32)>,
    /// All elements, row by row.
    pub values: Vec<Datum>,
}
