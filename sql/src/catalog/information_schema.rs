//! The relations of information_schema.

use std::sync::Arc;

use super::schema::VirtualTable;

/// All of them.
pub fn tables() -> Vec<Arc<dyn VirtualTable>> {
    Vec::new()
}
