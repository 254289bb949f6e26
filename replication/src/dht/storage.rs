//! What other peers keep at this node: announcements by topic, the routes of those who announced their own key, signed values, values by hash.
//!
//! ```text
//! records      topic            -> at most 256 records, 20 minutes       LOOKUP answers a sample of 20
//! routes       hash(key)        -> who forwards to it: its own address   FIND_PEER, and the router; 20 minutes
//! refreshes    hash of a secret -> the announcement that it renews       one use each; 20 minutes
//! mutables     hash(key)        -> the latest signed value               48 hours
//! immutables   hash(value)      -> the value                             48 hours
//!
//! each a Fair table:   /24 network -> host -> its entries, the oldest first
//!                      full? the oldest entry of the heaviest host of the heaviest network goes
//! ```
//!
//! Keys cost nothing, addresses do: a flood of announcements under made-up keys comes from few networks, and drives out its own entries first. The same rule
//! holds inside of one topic, and a lookup's sample takes one record of each host before it takes a second of any, so that a crowd of keys at one host cannot
//! hide the others.
//!
//! What must stay true: nothing is kept that its owner did not sign for this node and for a token that we gave to that very address (or, by hash, that is not
//! what its name says); a table's weight stays below its limit; an entry ends when its time is over, whatever is asked meanwhile.
//!
//! Source: hyperdht `lib/persistent.js`, which bounds the number of entries only. Times: hyperdht `index.js`, `defaultCacheOpts`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use pgbee_engine::encoding::compact;

use super::messages::{self, Announcement, MutableValue, PeerRecord, Place, RECORDS_MAX, RELAYS_MAX, Signed, command};
use super::rpc::{Answer, Incoming, message};
use crate::udp::{Now, Random};

type Key = [u8; 32];

/// Limits of what is kept for others.
#[derive(Clone, Debug)]
pub struct StorageLimits {
    /// Bytes of all announcements by topic.
    pub records_bytes: usize,
    /// Bytes of all routes.
    pub routes_bytes: usize,
    /// Bytes of all renewals.
    pub refreshes_bytes: usize,
    /// Bytes of all mutable values.
    pub mutables_bytes: usize,
    /// Bytes of all immutable values.
    pub immutables_bytes: usize,
    /// Records of one topic.
    pub topic_records: usize,
    /// How long announcements, routes and renewals live.
    pub announcement_age: Duration,
    /// How long values live.
    pub value_age: Duration,
    /// The time of day, in milliseconds since 1970, at time 0; bumps that are later than a minute from now are not believed, and none if this is unknown.
    pub unix_ms_at_start: Option<u64>,
}

impl Default for StorageLimits {
    fn default() -> StorageLimits {
        StorageLimits {
            records_bytes: 32 << 20,
            routes_bytes: 16 << 20,
            refreshes_bytes: 4 << 20,
            mutables_bytes: 16 << 20,
            immutables_bytes: 16 << 20,
            topic_records: 256,
            announcement_age: Duration::from_secs(20 * 60),
            value_age: Duration::from_secs(48 * 60 * 60),
            unix_ms_at_start: None,
        }
    }
}

/// Where a peer is reached that announced its own key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The address that the announcement came from.
    pub relay: SocketAddrV4,
    /// What it announced.
    pub record: Vec<u8>,
}

/// What a renewal renews.
#[derive(Clone)]
struct Refresh {
    target: Key,
    record: PeerRecord,
}

/// Why something is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not what it claims to be: say nothing.
    Forged,
    /// An error that the sender should know.
    Error(u64),
}

impl From<compact::DecodeError> for Refused {
    fn from(_: compact::DecodeError) -> Refused {
        Refused::Forged
    }
}

/// What other peers keep at this node.
pub struct Storage {
    records: Fair<(Key, Key), Vec<u8>>,
    /// Who announced a topic.
    topics: HashMap<Key, BTreeSet<Key>>,
    /// The latest time that an announcer gave for a topic that has records.
    bumps: HashMap<Key, u64>,
    routes: Fair<Key, Route>,
    refreshes: Fair<Key, Refresh>,
    mutables: Fair<Key, MutableValue>,
    immutables: Fair<Key, Vec<u8>>,
    topic_records: usize,
    unix_ms_at_start: Option<u64>,
}

/// How far ahead of ours another's clock may be.
const BUMP_DRIFT_MS: u64 = 60_000;
/// Bytes that the records of a lookup's reply may have: with closer nodes, ids and a token around them, one datagram.
const LOOKUP_BYTES_MAX: usize = 900;

impl Storage {
    /// With nothing in it.
    pub fn new(limits: &StorageLimits) -> Storage {
        Storage {
            records: Fair::new(limits.records_bytes, limits.announcement_age),
            topics: HashMap::new(),
            bumps: HashMap::new(),
            routes: Fair::new(limits.routes_bytes, limits.announcement_age),
            refreshes: Fair::new(limits.refreshes_bytes, limits.announcement_age),
            mutables: Fair::new(limits.mutables_bytes, limits.value_age),
            immutables: Fair::new(limits.immutables_bytes, limits.value_age),
            topic_records: limits.topic_records.max(1),
            unix_ms_at_start: limits.unix_ms_at_start,
        }
    }

    /// Answer a request of another node, `id` being ours. None: it gets no answer.
    pub fn answer(&mut self, now: Now, id: &Key, request: &Incoming, random: &mut Random) -> Option<Answer> {
        let target = request.target.as_ref()?;
        let value = request.value.as_deref();
        Some(match request.command {
            command::FIND_PEER => Answer::reply(self.route(now, target).map(|route| route.record.clone())),
            command::LOOKUP => Answer::reply(self.lookup(now, target, random)),
            command::MUTABLE_GET => {
                let seq_min = compact::Decoder::new(value?).uint().ok()?;
                Answer::reply(self.mutable(now, target, seq_min))
            }
            command::IMMUTABLE_GET => Answer::reply(self.immutable(now, target).cloned()),
            command::ANNOUNCE | command::UNANNOUNCE | command::MUTABLE_PUT | command::IMMUTABLE_PUT => {
                let Some(token) = request.token.as_ref().filter(|_| request.has_valid_token) else {
                    return Some(Answer { token: true, ..Answer::error(message::INVALID_TOKEN) });
                };
                let place = Place { target, node: id, token };
                match self.change(now, &place, request.command, request.from, value?) {
                    Ok(()) if matches!(request.command, command::ANNOUNCE | command::UNANNOUNCE) => Answer::default(),
                    Ok(()) => Answer::reply(None),
                    Err(Refused::Error(error)) => Answer::error(error),
                    Err(Refused::Forged) => return None,
                }
            }
            _ => return None,
        })
    }

    /// A request that changes something, from who can be reached where it says.
    fn change(
        &mut self,
        now: Now,
        place: &Place<'_>,
        command: u64,
        from: SocketAddrV4,
        value: &[u8],
    ) -> Result<(), Refused> {
        match command {
            command::ANNOUNCE => self.announce(now, place, from, &Announcement::decode(value)?),
            command::UNANNOUNCE => self.unannounce(place, &Announcement::decode(value)?),
            command::MUTABLE_PUT => {
                let (public_key, value) = MutableValue::decode_put(value)?;
                self.put_mutable(now, place.target, from, &public_key, value)
            }
            _ => self.put_immutable(now, place.target, from, value.to_vec()),
        }
    }

    /// Bytes kept, all in all.
    pub fn weight(&self) -> usize {
        self.records.weight + self.routes.weight + self.refreshes.weight + self.mutables.weight + self.immutables.weight
    }

    /// How many announcements are kept.
    pub fn records_len(&self) -> usize {
        self.records.entries.len()
    }

    /// What a lookup answers: the sample of a topic's records, as they are sent, and the topic's bump. None if there is nothing.
    pub fn lookup(&mut self, now: Now, topic: &Key, random: &mut Random) -> Option<Vec<u8>> {
        self.expire(now);
        let mut records: Vec<&Vec<u8>> = self.routes.get(topic).map(|route| &route.record).into_iter().collect();
        records.extend(self.sample(topic, random));
        let mut bytes = 0;
        records.retain(|record| {
            bytes += record.len();
            bytes <= LOOKUP_BYTES_MAX
        });
        records.truncate(RECORDS_MAX);
        let bump = self.bumps.get(topic).copied().unwrap_or(0);
        (!records.is_empty()).then(|| messages::LookupReply::encode(&records, bump))
    }

    /// Records of a topic, one of each host before the second of any, in an order that nobody can foresee.
    fn sample(&self, topic: &Key, random: &mut Random) -> Vec<&Vec<u8>> {
        let mut hosts: BTreeMap<Ipv4Addr, Vec<&Vec<u8>>> = BTreeMap::new();
        for key in self.topics.get(topic).into_iter().flatten() {
            if let Some(entry) = self.records.entries.get(&(*topic, *key)) {
                hosts.entry(entry.host).or_default().push(&entry.value);
            }
        }
        let mut hosts: Vec<_> = hosts.into_values().collect();
        let mut sample = Vec::new();
        while !hosts.is_empty() && sample.len() < RECORDS_MAX {
            shuffle(&mut hosts, random);
            hosts.truncate(RECORDS_MAX - sample.len());
            for records in &mut hosts {
                sample.push(records.swap_remove(random.below(records.len() as u64) as usize));
            }
            hosts.retain(|records| !records.is_empty());
        }
        sample
    }

    /// Where a key's owner is reached, if it announced itself here.
    pub fn route(&mut self, now: Now, target: &Key) -> Option<&Route> {
        self.expire(now);
        self.routes.get(target)
    }

    /// Keep an announcement, or renew one.
    ///
    /// # Errors
    /// [`Refused::Forged`] if it is not signed for this place by the one it is about, or renews nothing.
    pub fn announce(
        &mut self,
        now: Now,
        place: &Place<'_>,
        from: SocketAddrV4,
        announcement: &Announcement,
    ) -> Result<(), Refused> {
        self.expire(now);
        if announcement.peer.is_none() {
            return self.renew(now, from, announcement);
        }
        let mut record = announcement.verify(Signed::Announce, place).ok_or(Refused::Forged)?.clone();
        record.relays.truncate(RELAYS_MAX);
        self.keep(now, from, *place.target, &record);
        if messages::target_of(&record.public_key) != *place.target {
            self.bump(now, place.target, announcement.bump);
        }
        if let Some(refresh) = announcement.refresh {
            self.refreshes.insert(now, refresh, Refresh { target: *place.target, record }, from, REFRESH_BYTES);
        }
        Ok(())
    }

    fn bump(&mut self, now: Now, topic: &Key, time_ms: u64) {
        let Some(start) = self.unix_ms_at_start else { return };
        let latest_ms = start.saturating_add(now.as_millis() as u64 + BUMP_DRIFT_MS);
        if time_ms > 0 && time_ms <= latest_ms && self.topics.contains_key(topic) {
            let bump = self.bumps.entry(*topic).or_default();
            *bump = time_ms.max(*bump);
        }
    }

    /// Whoever shows a secret whose hash an announcement carried says the announcement again, without signing it; the secret is the next one's hash.
    fn renew(&mut self, now: Now, from: SocketAddrV4, announcement: &Announcement) -> Result<(), Refused> {
        let secret = announcement.refresh.ok_or(Refused::Forged)?;
        let refresh = self.refreshes.remove(&messages::target_of(&secret)).ok_or(Refused::Forged)?;
        self.keep(now, from, refresh.target, &refresh.record);
        self.refreshes.insert(now, secret, refresh, from, REFRESH_BYTES);
        Ok(())
    }

    fn keep(&mut self, now: Now, from: SocketAddrV4, target: Key, record: &PeerRecord) {
        let encoded = record.encode();
        let bytes = encoded.len();
        if messages::target_of(&record.public_key) == target {
            self.remove_record(&target, &record.public_key);
            self.routes.insert(now, target, Route { relay: from, record: encoded }, from, bytes);
            return;
        }
        self.topics.entry(target).or_default().insert(record.public_key);
        let mut gone = self.records.insert(now, (target, record.public_key), encoded, from, bytes);
        gone.iter().for_each(|(topic, key)| self.forget(topic, key));
        // The newcomer counts too: whose host has the most is the one whose oldest goes.
        gone.clear();
        if let Some(topic) = self.topics.get(&target).filter(|topic| topic.len() > self.topic_records) {
            gone.extend(self.records.heaviest_of(topic.iter().map(|key| (target, *key))));
        }
        gone.iter().for_each(|(topic, key)| self.remove_record(topic, key));
    }

    fn remove_record(&mut self, topic: &Key, key: &Key) {
        self.records.remove(&(*topic, *key));
        self.forget(topic, key);
    }

    /// The record is gone: so is its mention.
    fn forget(&mut self, topic: &Key, key: &Key) {
        let Some(keys) = self.topics.get_mut(topic) else { return };
        keys.remove(key);
        if keys.is_empty() {
            self.topics.remove(topic);
            self.bumps.remove(topic);
        }
    }

    /// Forget an announcement.
    ///
    /// # Errors
    /// [`Refused::Forged`] if it is not signed for this place by the one it is about.
    pub fn unannounce(&mut self, place: &Place<'_>, announcement: &Announcement) -> Result<(), Refused> {
        let key = announcement.verify(Signed::Unannounce, place).ok_or(Refused::Forged)?.public_key;
        self.unannounce_own(place.target, &key);
        Ok(())
    }

    /// Forget an announcement of our own.
    pub fn unannounce_own(&mut self, target: &Key, key: &Key) {
        if messages::target_of(key) == *target {
            self.routes.remove(target);
        }
        self.remove_record(target, key);
    }

    /// The latest value of a key's owner, unless it is older than wanted.
    pub fn mutable(&mut self, now: Now, target: &Key, seq_min: u64) -> Option<Vec<u8>> {
        self.expire(now);
        self.mutables.get(target).filter(|value| value.seq >= seq_min).map(MutableValue::encode)
    }

    /// Keep a value that its key's owner signed.
    ///
    /// # Errors
    /// [`Refused::Forged`] if the owner did not; [`messages::error`] if the sequence number is taken by another value, or past.
    pub fn put_mutable(
        &mut self,
        now: Now,
        target: &Key,
        from: SocketAddrV4,
        public_key: &Key,
        value: MutableValue,
    ) -> Result<(), Refused> {
        self.expire(now);
        if messages::target_of(public_key) != *target
            || value.value.is_empty()
            || value.value.len() > messages::VALUE_BYTES_MAX
        {
            return Err(Refused::Forged);
        }
        if !value.is_signed_by(public_key) {
            return Err(Refused::Forged);
        }
        if let Some(kept) = self.mutables.get(target) {
            if kept.seq == value.seq && kept.value != value.value {
                return Err(Refused::Error(messages::error::SEQ_REUSED));
            }
            if value.seq < kept.seq {
                return Err(Refused::Error(messages::error::SEQ_TOO_LOW));
            }
            if kept.seq == value.seq {
                self.mutables.renew(now, target, from);
                return Ok(());
            }
        }
        let bytes = value.value.len() + 72;
        self.mutables.insert(now, *target, value, from, bytes);
        Ok(())
    }

    /// The value that has this hash.
    pub fn immutable(&mut self, now: Now, target: &Key) -> Option<&Vec<u8>> {
        self.expire(now);
        self.immutables.get(target)
    }

    /// Keep a value under its hash.
    ///
    /// # Errors
    /// [`Refused::Forged`] if it is another's hash, or the value is too long to be sent back.
    pub fn put_immutable(&mut self, now: Now, target: &Key, from: SocketAddrV4, value: Vec<u8>) -> Result<(), Refused> {
        self.expire(now);
        if value.is_empty() || value.len() > messages::VALUE_BYTES_MAX || messages::target_of(&value) != *target {
            return Err(Refused::Forged);
        }
        if self.immutables.get(target).is_some() {
            self.immutables.renew(now, target, from);
            return Ok(());
        }
        let bytes = value.len();
        self.immutables.insert(now, *target, value, from, bytes);
        Ok(())
    }

    /// Forget what is too old. Each entry is looked at once in its life.
    fn expire(&mut self, now: Now) {
        for (topic, key) in self.records.expire(now) {
            self.forget(&topic, &key);
        }
        self.routes.expire(now);
        self.refreshes.expire(now);
        self.mutables.expire(now);
        self.immutables.expire(now);
    }
}

const REFRESH_BYTES: usize = 128;

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for end in (1..items.len()).rev() {
        items.swap(end, random.below(end as u64 + 1) as usize);
    }
}

/// What an entry costs beside its value: its places in four maps, with the maps of its network and its host, which it may be the only one of (measured: about
/// 1100 bytes under a flood from 50,000 networks).
const ENTRY_BYTES: usize = 1024;

/// A table of bounded weight that is fair to the networks whose hosts fill it; see the head of this file.
pub(super) struct Fair<K, V> {
    weight_max: usize,
    age: Duration,
    weight: usize,
    entries: HashMap<K, Entry<V>>,
    /// By when they came: the oldest, which ends first, is first.
    order: BTreeMap<u64, K>,
    networks: HashMap<[u8; 3], Network>,
    heaviest: BTreeSet<(usize, [u8; 3])>,
    next: u64,
}

struct Entry<V> {
    value: V,
    host: Ipv4Addr,
    weight: usize,
    order: u64,
    ends: Now,
}

/// What hosts of one network have in a table.
#[derive(Default)]
struct Network {
    weight: usize,
    hosts: BTreeMap<Ipv4Addr, Host>,
}

#[derive(Default)]
struct Host {
    weight: usize,
    orders: BTreeSet<u64>,
}

fn network_of(host: Ipv4Addr) -> [u8; 3] {
    let [a, b, c, _] = host.octets();
    [a, b, c]
}

impl<K: Copy + Eq + std::hash::Hash, V> Fair<K, V> {
    pub(super) fn new(weight_max: usize, age: Duration) -> Fair<K, V> {
        Fair {
            weight_max,
            age,
            weight: 0,
            entries: HashMap::new(),
            order: BTreeMap::new(),
            networks: HashMap::new(),
            heaviest: BTreeSet::new(),
            next: 0,
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Put an entry in, in place of one with the same key; gives the keys of others that had to go.
    pub(super) fn insert(&mut self, now: Now, key: K, value: V, from: SocketAddrV4, bytes: usize) -> Vec<K> {
        self.remove(&key);
        let (host, weight, order) = (*from.ip(), bytes + ENTRY_BYTES, self.next);
        self.next += 1;
        self.order.insert(order, key);
        self.entries.insert(key, Entry { value, host, weight, order, ends: now + self.age });
        self.weigh(host, order, weight, true);
        let mut gone = Vec::new();
        while self.weight > self.weight_max {
            let Some(key) = self.heaviest() else { break };
            self.remove(&key);
            gone.push(key);
        }
        gone
    }

    /// Let an entry live on as if it had been put in now. It counts for whichever host has less here: whoever repeats another's entry to own it, and floods
    /// then to drive out what it owns, owns nothing of that other.
    fn renew(&mut self, now: Now, key: &K, from: SocketAddrV4) {
        let Some(entry) = self.take(key) else { return };
        let lighter = if self.weight_of(entry.host) <= self.weight_of(*from.ip()) { entry.host } else { *from.ip() };
        self.insert(now, *key, entry.value, SocketAddrV4::new(lighter, 0), entry.weight - ENTRY_BYTES);
    }

    fn weight_of(&self, host: Ipv4Addr) -> usize {
        self.networks.get(&network_of(host)).map_or(0, |network| network.weight)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.take(key).map(|entry| entry.value)
    }

    fn take(&mut self, key: &K) -> Option<Entry<V>> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.order);
        self.weigh(entry.host, entry.order, entry.weight, false);
        Some(entry)
    }

    /// Count an entry for its host, or no longer.
    fn weigh(&mut self, host: Ipv4Addr, order: u64, weight: usize, is_new: bool) {
        let name = network_of(host);
        let network = self.networks.entry(name).or_default();
        self.heaviest.remove(&(network.weight, name));
        let owner = network.hosts.entry(host).or_default();
        if is_new {
            owner.orders.insert(order);
            owner.weight += weight;
            network.weight += weight;
            self.weight += weight;
        } else {
            owner.orders.remove(&order);
            owner.weight -= weight;
            network.weight -= weight;
            self.weight -= weight;
        }
        if owner.orders.is_empty() {
            network.hosts.remove(&host);
        }
        if network.hosts.is_empty() {
            self.networks.remove(&name);
        } else {
            self.heaviest.insert((network.weight, name));
        }
    }

    /// The oldest entry of the heaviest host of the heaviest network.
    fn heaviest(&self) -> Option<K> {
        let (_, name) = self.heaviest.last()?;
        let host = self.networks.get(name)?.hosts.values().max_by_key(|host| host.weight)?;
        self.order.get(host.orders.first()?).copied()
    }

    /// Among some entries the oldest of the host that has most of them, if any is in the table.
    fn heaviest_of(&self, keys: impl Iterator<Item = K>) -> Option<K> {
        let mut networks: BTreeMap<[u8; 3], BTreeMap<Ipv4Addr, Vec<(u64, K)>>> = BTreeMap::new();
        for key in keys {
            if let Some(entry) = self.entries.get(&key) {
                networks
                    .entry(network_of(entry.host))
                    .or_default()
                    .entry(entry.host)
                    .or_default()
                    .push((entry.order, key));
            }
        }
        let network = networks.into_values().max_by_key(|hosts| hosts.values().map(Vec::len).sum::<usize>())?;
        let host = network.into_values().max_by_key(Vec::len)?;
        host.into_iter().min_by_key(|(order, _)| *order).map(|(_, key)| key)
    }

    /// Forget what is too old; gives its keys.
    pub(super) fn expire(&mut self, now: Now) -> Vec<K> {
        let mut gone = Vec::new();
        while let Some((_, &key)) = self.order.first_key_value() {
            if self.entries.get(&key).is_some_and(|entry| entry.ends > now) {
                break;
            }
            self.remove(&key);
            gone.push(key);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::messages::{LookupReply, error};
    use crate::secret_stream::handshake::Identity;
    use crate::udp::SocketId;

    const NODE: Key = [5; 32];
    const TOKEN: Key = [4; 32];
    const TOPIC: Key = [3; 32];
    const AT: Now = Duration::from_secs(100);

    fn host(a: u8, b: u8, c: u8, d: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), 4000)
    }

    fn identity(n: u32) -> Identity {
        let mut seed = [1; 32];
        seed[..4].copy_from_slice(&n.to_le_bytes());
        Identity::from_seed(seed)
    }

    fn place(target: &Key) -> Place<'_> {
        Place { target, node: &NODE, token: &TOKEN }
    }

    fn announce(
        storage: &mut Storage,
        now: Now,
        target: &Key,
        identity: &Identity,
        from: SocketAddrV4,
    ) -> Result<(), Refused> {
        let relays = [host(9, 9, 9, 1), host(9, 9, 9, 2)];
        storage.announce(
            now,
            &place(target),
            from,
            &Announcement::signed(Signed::Announce, &place(target), identity, &relays),
        )
    }

    fn peers(storage: &mut Storage, now: Now, topic: &Key) -> Vec<PeerRecord> {
        let reply = storage.lookup(now, topic, &mut Random::new([1; 32]));
        reply.map(|reply| LookupReply::decode(&reply).expect("a reply").peers).unwrap_or_default()
    }

    fn request(command: u64, target: Option<Key>, value: Option<Vec<u8>>, has_valid_token: bool) -> Incoming {
        Incoming {
            tid: 1,
            from: host(10, 0, 0, 1),
            from_id: None,
            to: host(10, 0, 0, 2),
            socket: SocketId::SERVER,
            has_valid_token,
            token: has_valid_token.then_some(TOKEN),
            command,
            target,
            value,
            size: 100,
        }
    }

    #[test]
    fn announcements_are_found_for_twenty_minutes_and_forgotten_when_taken_back() {
        let mut storage = Storage::new(&StorageLimits::default());
        announce(&mut storage, AT, &TOPIC, &identity(1), host(10, 0, 0, 1)).expect("signed");
        announce(&mut storage, AT + Duration::from_secs(60), &TOPIC, &identity(2), host(10, 0, 0, 2)).expect("signed");
        assert_eq!(peers(&mut storage, AT + Duration::from_secs(61), &TOPIC).len(), 2);
        assert_eq!(peers(&mut storage, AT + Duration::from_secs(61), &[0; 32]), vec![]);
        let later = AT + Duration::from_secs(20 * 60);
        let left = peers(&mut storage, later, &TOPIC);
        assert_eq!(left.iter().map(|peer| peer.public_key).collect::<Vec<_>>(), [identity(2).public_key()]);
        assert_eq!(left[0].relays.len(), 2);
        // Only its owner takes it back, and only with what is signed for that.
        let stranger = Announcement {
            peer: Some(PeerRecord { public_key: identity(2).public_key(), relays: vec![] }),
            ..Announcement::signed(Signed::Unannounce, &place(&TOPIC), &identity(1), &[])
        };
        assert_eq!(storage.unannounce(&place(&TOPIC), &stranger), Err(Refused::Forged));
        let own = Announcement::signed(Signed::Unannounce, &place(&TOPIC), &identity(2), &[]);
        assert_eq!(storage.unannounce(&place(&TOPIC), &own), Ok(()));
        assert_eq!(peers(&mut storage, later, &TOPIC), vec![]);
        assert_eq!((storage.records_len(), storage.topics.len(), storage.weight()), (0, 0, 0));
    }

    #[test]
    fn what_is_not_signed_for_this_node_and_token_is_refused() {
        let mut storage = Storage::new(&StorageLimits::default());
        let good = Announcement::signed(Signed::Announce, &place(&TOPIC), &identity(1), &[host(9, 9, 9, 9)]);
        let from = host(10, 0, 0, 1);
        let elsewhere = Place { node: &[6; 32], ..place(&TOPIC) };
        let replayed = Place { token: &[7; 32], ..place(&TOPIC) };
        for place in [elsewhere, replayed, place(&[8; 32])] {
            assert_eq!(storage.announce(AT, &place, from, &good), Err(Refused::Forged));
        }
        let mut moved = good.clone();
        moved.peer.as_mut().expect("a peer").relays = vec![host(6, 6, 6, 6)];
        let unsigned = Announcement { signature: None, ..good.clone() };
        let refreshed = Announcement { refresh: Some([1; 32]), ..good.clone() };
        let nothing = Announcement::default();
        for forged in [moved, unsigned, refreshed, nothing] {
            assert_eq!(storage.announce(AT, &place(&TOPIC), from, &forged), Err(Refused::Forged));
        }
        assert_eq!(storage.weight(), 0);
        assert_eq!(storage.announce(AT, &place(&TOPIC), from, &good), Ok(()));
        // Said again it is one record.
        assert_eq!(storage.announce(AT, &place(&TOPIC), from, &good), Ok(()));
        assert_eq!(storage.records_len(), 1);
    }

    #[test]
    fn a_key_announced_by_its_owner_is_a_route() {
        let mut storage = Storage::new(&StorageLimits::default());
        let (owner, from) = (identity(1), host(10, 0, 0, 7));
        let target = messages::target_of(&owner.public_key());
        announce(&mut storage, AT, &target, &owner, from).expect("signed");
        assert_eq!(storage.route(AT, &target).map(|route| route.relay), Some(from));
        // Another one's record under the same target is a record of a topic, not a route.
        announce(&mut storage, AT, &target, &identity(2), host(10, 0, 0, 8)).expect("signed");
        assert_eq!(storage.route(AT, &target).map(|route| route.relay), Some(from));
        assert_eq!(peers(&mut storage, AT, &target).len(), 2);
        let answer = storage.answer(
            AT,
            &NODE,
            &request(command::FIND_PEER, Some(target), None, false),
            &mut Random::new([0; 32]),
        );
        let record = answer.and_then(|answer| answer.value).expect("a record");
        assert_eq!(PeerRecord::decode(&record).expect("a record").public_key, owner.public_key());
        assert_eq!(storage.route(AT + Duration::from_secs(20 * 60), &target), None);
    }

    #[test]
    fn a_chain_of_secrets_renews_an_announcement_each_once() {
        let mut storage = Storage::new(&StorageLimits::default());
        let last = [42; 32];
        let second = messages::target_of(&last);
        let first = messages::target_of(&second);
        let identity = identity(1);
        let peer = PeerRecord { public_key: identity.public_key(), relays: vec![] };
        // Signed with the refresh in it: done by hand, for our own announcements carry none.
        let mut parts = [TOPIC.to_vec(), NODE.to_vec(), TOKEN.to_vec(), peer.encode(), first.to_vec()].concat();
        let hash = messages::target_of(&parts);
        parts = [messages::namespace::ANNOUNCE.to_vec(), hash.to_vec()].concat();
        let signature = Some(identity.sign(&parts));
        let announcement = Announcement { peer: Some(peer), refresh: Some(first), signature, bump: 0 };
        let from = host(10, 0, 0, 1);
        storage.announce(AT, &place(&TOPIC), from, &announcement).expect("signed");
        let renewal = |secret| Announcement { refresh: Some(secret), ..Announcement::default() };
        let minutes = |n: u64| AT + Duration::from_secs(60 * n);
        assert_eq!(
            storage.announce(minutes(15), &place(&TOPIC), from, &renewal(first)),
            Err(Refused::Forged),
            "the hash is no secret"
        );
        assert_eq!(storage.announce(minutes(15), &place(&TOPIC), from, &renewal(second)), Ok(()));
        assert_eq!(peers(&mut storage, minutes(30), &TOPIC).len(), 1);
        assert_eq!(storage.announce(minutes(30), &place(&TOPIC), from, &renewal(second)), Err(Refused::Forged), "used");
        assert_eq!(storage.announce(minutes(30), &place(&TOPIC), from, &renewal(last)), Ok(()));
        assert_eq!(peers(&mut storage, minutes(49), &TOPIC).len(), 1);
        assert_eq!(peers(&mut storage, minutes(50), &TOPIC).len(), 0);
    }

    #[test]
    fn mutable_values_go_forward_only() {
        let mut storage = Storage::new(&StorageLimits::default());
        let (owner, from) = (identity(1), host(10, 0, 0, 1));
        let (key, target) = (owner.public_key(), messages::target_of(&owner.public_key()));
        let value = |seq, text: &str| MutableValue::sign(&owner, seq, text.as_bytes().to_vec());
        let mut put = |value| storage.put_mutable(AT, &target, from, &key, value);
        assert_eq!(put(value(5, "five")), Ok(()));
        assert_eq!(put(value(5, "five")), Ok(()));
        assert_eq!(put(value(5, "cinq")), Err(Refused::Error(error::SEQ_REUSED)));
        assert_eq!(put(value(4, "four")), Err(Refused::Error(error::SEQ_TOO_LOW)));
        assert_eq!(put(MutableValue { seq: 6, ..value(5, "five") }), Err(Refused::Forged));
        assert_eq!(put(MutableValue::sign(&identity(2), 9, b"nine".to_vec())), Err(Refused::Forged));
        assert_eq!(put(value(9, "")), Err(Refused::Forged));
        assert_eq!(put(value(9, &"x".repeat(messages::VALUE_BYTES_MAX + 1))), Err(Refused::Forged));
        assert_eq!(storage.put_mutable(AT, &[1; 32], from, &key, value(9, "nine")), Err(Refused::Forged));
        let read = storage.mutable(AT, &target, 5).map(|bytes| MutableValue::decode(&bytes).expect("a value"));
        assert_eq!(read, Some(value(5, "five")));
        assert_eq!(storage.mutable(AT, &target, 6), None);
        assert_eq!(storage.put_mutable(AT, &target, from, &key, value(7, "seven")), Ok(()));
        assert!(storage.mutable(AT, &target, 6).is_some());
        assert_eq!(storage.mutable(AT + Duration::from_secs(48 * 3600), &target, 0), None);
    }

    #[test]
    fn immutable_values_are_what_their_names_say() {
        let mut storage = Storage::new(&StorageLimits::default());
        let (value, from) = (b"hello".to_vec(), host(10, 0, 0, 1));
        let target = messages::target_of(&value);
        assert_eq!(storage.put_immutable(AT, &[1; 32], from, value.clone()), Err(Refused::Forged));
        assert_eq!(storage.put_immutable(AT, &target, from, value.clone()), Ok(()));
        assert_eq!(storage.immutable(AT, &target), Some(&value));
        // Put again it lives on.
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(storage.put_immutable(AT + day, &target, from, value.clone()), Ok(()));
        assert_eq!(storage.immutable(AT + 2 * day, &target), Some(&value));
        assert_eq!(storage.immutable(AT + 3 * day, &target), None);
    }

    #[test]
    fn requests_that_change_something_need_a_token() {
        let mut storage = Storage::new(&StorageLimits::default());
        let mut random = Random::new([0; 32]);
        let value = Announcement::signed(Signed::Announce, &place(&TOPIC), &identity(1), &[]).encode();
        for command in [command::ANNOUNCE, command::UNANNOUNCE, command::MUTABLE_PUT, command::IMMUTABLE_PUT] {
            let answer =
                storage.answer(AT, &NODE, &request(command, Some(TOPIC), Some(value.clone()), false), &mut random);
            let answer = answer.expect("told to fetch a token");
            assert_eq!((answer.error, answer.token, answer.value), (message::INVALID_TOKEN, true, None));
        }
        assert_eq!(storage.weight(), 0);
        let answer =
            storage.answer(AT, &NODE, &request(command::ANNOUNCE, Some(TOPIC), Some(value), true), &mut random);
        assert_eq!(answer, Some(Answer::default()));
        assert_eq!(storage.records_len(), 1);
        assert_eq!(
            storage.answer(AT, &NODE, &request(command::ANNOUNCE, Some(TOPIC), Some(vec![1; 9]), true), &mut random),
            None
        );
        assert_eq!(storage.answer(AT, &NODE, &request(command::LOOKUP, None, None, true), &mut random), None);
        assert_eq!(
            storage.answer(AT, &NODE, &request(command::PLUGIN, Some(TOPIC), Some(vec![0; 9]), true), &mut random),
            None
        );
    }

    #[test]
    fn a_flood_from_few_networks_drives_out_itself() {
        let limits = StorageLimits { records_bytes: 400 * (ENTRY_BYTES + 64), ..StorageLimits::default() };
        let mut storage = Storage::new(&limits);
        // Forty honest peers, each with its own topic and network.
        let topic = |n: u8| [n; 32];
        for n in 0..40 {
            announce(&mut storage, AT, &topic(n), &identity(n.into()), host(20, n, 0, 1)).expect("signed");
        }
        // 255 hosts of one network announce 3000 keys under as many topics; then one host another thousand.
        for n in 0..4000_u32 {
            let from = if n < 3000 { host(66, 6, 6, (n % 255) as u8) } else { host(77, 7, 7, 7) };
            let mut topic = [0xff; 32];
            topic[..4].copy_from_slice(&n.to_le_bytes());
            announce(&mut storage, AT, &topic, &identity(100 + n), from).expect("signed");
            assert!(storage.records.weight <= limits.records_bytes);
        }
        assert!(storage.records_len() > 300, "it is full: {}", storage.records_len());
        assert_eq!(storage.topics.len(), storage.records_len());
        for n in 0..40 {
            assert_eq!(peers(&mut storage, AT, &topic(n)).len(), 1, "honest peer {n}");
        }
    }

    #[test]
    fn a_crowd_in_one_topic_hides_nobody() {
        let mut storage = Storage::new(&StorageLimits::default());
        for n in 0..10_u8 {
            announce(&mut storage, AT, &TOPIC, &identity(n.into()), host(20, n, 0, 1)).expect("signed");
        }
        for n in 0..1000 {
            announce(&mut storage, AT, &TOPIC, &identity(100 + n), host(66, 6, 6, 6)).expect("signed");
        }
        assert_eq!(storage.topics[&TOPIC].len(), 256);
        let honest: BTreeSet<_> = (0..10).map(|n| identity(n).public_key()).collect();
        let mut random = Random::new([2; 32]);
        for _ in 0..20 {
            let reply = storage.lookup(AT, &TOPIC, &mut random).expect("records");
            assert!(reply.len() < 1000, "fits in one datagram: {}", reply.len());
            let found: BTreeSet<_> =
                LookupReply::decode(&reply).expect("a reply").peers.iter().map(|peer| peer.public_key).collect();
            assert!(found.len() <= RECORDS_MAX && honest.is_subset(&found), "all ten are in each sample");
        }
    }

    #[test]
    fn who_repeats_a_value_does_not_own_it() {
        let limits = StorageLimits { immutables_bytes: 100 * 512, ..StorageLimits::default() };
        let mut storage = Storage::new(&limits);
        let value = b"dear to somebody".to_vec();
        let target = messages::target_of(&value);
        storage.put_immutable(AT, &target, host(20, 1, 0, 1), value.clone()).expect("its hash");
        let put = |storage: &mut Storage, n: u32| {
            let junk = n.to_le_bytes().repeat(64);
            storage.put_immutable(AT, &messages::target_of(&junk), host(66, 6, 6, 6), junk)
        };
        for n in 0..50 {
            put(&mut storage, n).expect("its hash");
        }
        storage.put_immutable(AT, &target, host(66, 6, 6, 6), value.clone()).expect("its hash");
        for n in 50..1000 {
            put(&mut storage, n).expect("its hash");
        }
        assert!(storage.weight() <= limits.immutables_bytes);
        assert_eq!(storage.immutable(AT, &target), Some(&value));
    }

    #[test]
    fn bumps_are_believed_as_far_as_the_clock_goes() {
        let mut storage =
            Storage::new(&StorageLimits { unix_ms_at_start: Some(1_700_000_000_000), ..StorageLimits::default() });
        let bumped =
            |bump| Announcement { bump, ..Announcement::signed(Signed::Announce, &place(&TOPIC), &identity(1), &[]) };
        let bump_of = |storage: &mut Storage| {
            let reply = storage.lookup(AT, &TOPIC, &mut Random::new([0; 32])).expect("a record");
            LookupReply::decode(&reply).expect("a reply").bump
        };
        let from = host(10, 0, 0, 1);
        storage.announce(AT, &place(&TOPIC), from, &bumped(1_700_000_200_000)).expect("signed");
        assert_eq!(bump_of(&mut storage), 0, "from the future");
        storage.announce(AT, &place(&TOPIC), from, &bumped(1_700_000_100_000)).expect("signed");
        storage.announce(AT, &place(&TOPIC), from, &bumped(1_700_000_000_000)).expect("signed");
        assert_eq!(bump_of(&mut storage), 1_700_000_100_000);
    }
}
