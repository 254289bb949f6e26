//! Key pairs out of one primary key, namespaces and names, exactly as the JavaScript corestore makes
//! them: the same primary key gives the same cores there and here.
//!
//! ```text
//! root namespace   32 zero bytes
//! namespace(n)     H( namespace above || n )                        they nest by hashing
//! seed(name)       H( key = primary key, CORESTORE || namespace || name )
//! ```
//!
//! An empty name is a name like any other, and an empty namespace is not the one above. Source:
//! `generateNamespace`, `deriveSeed` in holepunchto/corestore `index.js`.

use zeroize::Zeroizing;

use crate::crypto::hash::{self, CORESTORE, Hash};
use crate::crypto::key::KeyPair;

/// The namespace names are in unless they are in another.
pub const ROOT: Hash = [0; 32];

/// A namespace below another.
pub fn namespace(above: &Hash, name: &[u8]) -> Hash {
    hash::hash(&[above, name])
}

/// The key pair of a name in a namespace.
pub fn key_pair(primary_key: &[u8; 32], namespace: &Hash, name: &[u8]) -> KeyPair {
    let seed = Zeroizing::new(hash::keyed(primary_key, &[&CORESTORE, namespace, name]));
    KeyPair::from_seed(&seed)
}
