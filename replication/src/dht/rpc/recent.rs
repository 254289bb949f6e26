//! A map that forgets what was not used for long, in two generations: when the young one is full it becomes the old one, and the old one is forgotten.
//!
//! What must stay true: it never holds more than twice its limit, and what was used among the last `max` insertions is still there. Source: xache `index.js`.

use std::collections::HashMap;
use std::hash::Hash;

/// See the module.
pub struct Recent<K, V> {
    max: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    /// An empty one; at most twice `max` entries will be held.
    pub fn new(max: usize) -> Recent<K, V> {
        Recent { max: max.max(1), young: HashMap::new(), old: HashMap::new() }
    }

    /// A value, which is used by this.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if let Some(value) = self.old.remove(key) {
            self.insert(key.clone(), value);
        }
        self.young.get_mut(key)
    }

    /// A value, which is made if it is not there, and used by this.
    pub fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key).unwrap_or_else(make);
            self.insert(key.clone(), value);
        }
        self.young.get_mut(&key).expect("inserted above, and a full generation is replaced before an insertion")
    }

    /// Keep a value.
    pub fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// How many are held.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;

    #[test]
    fn what_is_used_stays() {
        let mut recent = Recent::new(10);
        for n in 0..1000 {
            recent.insert(n, n);
            assert!(recent.len() <= 20, "{}", recent.len());
            assert_eq!(recent.get_mut(&0), Some(&mut 0));
        }
        assert_eq!(recent.get_mut(&500), None);
        assert_eq!(*recent.entry(999, || 1), 999);
        assert_eq!(*recent.entry(500, || 1), 1);
    }
}
