//! Transactions over a bee.
