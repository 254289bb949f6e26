//! What others say our address is.
