//! A made-up network.
