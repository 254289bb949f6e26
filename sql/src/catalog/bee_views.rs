//! The bee_* views and table functions.

use std::sync::Arc;

use super::schema::VirtualTable;

/// The views; they are in pg_catalog, so that every search path finds them.
pub fn tables() -> Vec<Arc<dyn VirtualTable>> {
    Vec::new()
}

/// The table functions, found by name.
pub fn table_functions() -> Vec<Arc<dyn VirtualTable>> {
    Vec::new()
}
