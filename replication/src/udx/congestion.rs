//! How fast a stream sends.
