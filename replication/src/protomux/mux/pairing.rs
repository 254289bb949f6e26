//! Which opens of the two sides belong together: those of the same protocol, or an alias of it, and the same id.
//!
//! A pairing has several names when a protocol has aliases. It exists while a channel of it is open or an open of either side waits for the other's.
//! First come, first paired.

use std::collections::{HashMap, VecDeque};

use pgbee_engine::encoding::compact;

/// One of [`Pairings`]. Only good while the pairing exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PairingId(u64);

#[derive(Default)]
struct Pairing {
    names: Vec<Vec<u8>>,
    /// Channels of ours that wait or are open.
    open: usize,
    /// Places of channels of ours that wait for the remote's open, abandoned ones too.
    outgoing: VecDeque<usize>,
    /// Places of the remote's opens that wait for ours.
    incoming: VecDeque<usize>,
}

/// All pairings of a stream. Names come from strangers, so the maps are of the kind whose collisions nobody can compute.
#[derive(Default)]
pub(super) struct Pairings {
    names: HashMap<Vec<u8>, PairingId>,
    pairings: HashMap<u64, Pairing>,
    next: u64,
}

impl Pairings {
    /// Whether a channel of ours exists under one of these names.
    pub(super) fn has_open(&self, protocol: &str, aliases: &[&str], id: &[u8]) -> bool {
        self.all(protocol, aliases, id).any(|(_, pairing)| pairing.open > 0)
    }

    /// The pairing of these names: one that waits for an answer of ours before any other, a new one if there is none.
    pub(super) fn find_or_add(&mut self, protocol: &str, aliases: &[&str], id: &[u8]) -> PairingId {
        let waiting = self.all(protocol, aliases, id).find(|(_, pairing)| !pairing.incoming.is_empty());
        let found = waiting.or_else(|| self.all(protocol, aliases, id).next()).map(|(found, _)| found);
        let pairing = found.unwrap_or_else(|| {
            self.next += 1;
            self.pairings.insert(self.next, Pairing::default());
            PairingId(self.next)
        });
        for name in names(protocol, aliases, id) {
            if !self.names.contains_key(&name) {
                self.names.insert(name.clone(), pairing);
                self.get(pairing).names.push(name);
            }
        }
        pairing
    }

    /// A channel of ours was opened at this place. The remote's oldest open that it answers; otherwise it waits.
    pub(super) fn answer(&mut self, pairing: PairingId, place: usize) -> Option<usize> {
        let pairing = self.get(pairing);
        pairing.open += 1;
        let remote = pairing.incoming.pop_front();
        if remote.is_none() {
            pairing.outgoing.push_back(place);
        }
        remote
    }

    /// The remote opened a channel, and none of ours waits for it.
    pub(super) fn request(&mut self, pairing: PairingId, remote: usize) {
        self.get(pairing).incoming.push_back(remote);
    }

    /// The place of our oldest channel that waits for the remote's open.
    pub(super) fn oldest_outgoing(&self, protocol: &str, id: &[u8]) -> Option<usize> {
        self.all(protocol, &[], id).find_map(|(_, pairing)| pairing.outgoing.front().copied())
    }

    /// The place of the remote's oldest open that waits for ours.
    pub(super) fn oldest_incoming(&self, protocol: &str, id: &[u8]) -> Option<usize> {
        self.all(protocol, &[], id).find_map(|(_, pairing)| pairing.incoming.front().copied())
    }

    /// The remote answered our open at this place.
    pub(super) fn answered(&mut self, pairing: PairingId, place: usize) {
        self.get(pairing).outgoing.retain(|&waiting| waiting != place);
    }

    /// We refused the remote's open at this place.
    pub(super) fn refused(&mut self, pairing: PairingId, remote: usize) {
        self.get(pairing).incoming.retain(|&waiting| waiting != remote);
        self.tidy(pairing);
    }

    /// A channel of ours ended.
    pub(super) fn closed(&mut self, pairing: PairingId) {
        self.get(pairing).open -= 1;
    }

    /// Forget a pairing that nothing needs.
    pub(super) fn tidy(&mut self, PairingId(id): PairingId) {
        let unused = |p: &Pairing| p.open == 0 && p.outgoing.is_empty() && p.incoming.is_empty();
        if self.pairings.get(&id).is_some_and(unused)
            && let Some(pairing) = self.pairings.remove(&id)
        {
            for name in pairing.names {
                self.names.remove(&name);
            }
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.pairings.len(), self.names.len())
    }

    fn all<'a>(
        &'a self,
        protocol: &'a str,
        aliases: &'a [&'a str],
        id: &'a [u8],
    ) -> impl Iterator<Item = (PairingId, &'a Pairing)> {
        let found = names(protocol, aliases, id).filter_map(|name| self.names.get(&name).copied());
        found.filter_map(|id| Some((id, self.pairings.get(&id.0)?)))
    }

    fn get(&mut self, id: PairingId) -> &mut Pairing {
        self.pairings.get_mut(&id.0).expect("a pairing lives as long as a channel or an open names it")
    }
}

/// The protocol's length keeps a protocol's end and an id's beginning apart.
fn names<'a>(protocol: &'a str, aliases: &'a [&'a str], id: &'a [u8]) -> impl Iterator<Item = Vec<u8>> + 'a {
    std::iter::once(protocol).chain(aliases.iter().copied()).map(move |protocol| {
        let mut name = Vec::with_capacity(9 + protocol.len() + id.len());
        compact::string(&mut name, protocol);
        name.extend_from_slice(id);
        name
    })
}
