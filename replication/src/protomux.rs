//! Channels over one encrypted stream: open, pair, close, batch.
