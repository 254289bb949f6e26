//! The messages of the hypercore channel, bounded when decoded, and the capability that shows a peer knows the key.
