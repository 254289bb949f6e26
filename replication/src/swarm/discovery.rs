//! A topic that is looked up and announced.
