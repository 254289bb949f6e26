//! Walking towards a target.
