//! The Kademlia table: nodes sorted into rows by how many bits their id shares with ours.
//!
//! ```text
//! row 0      first bit differs         half of all nodes, of which we keep 20
//! row 1      first bit is the same     a quarter
//! ..
//! row 255
//! ```
//!
//! So we know few of the far nodes and most of the near ones. Within a row nodes are sorted by id; [`Table::closest`] takes the row that the target belongs to
//! and the ones before it, then those behind: near enough for a walk, but not sorted by distance.
//!
//! What must stay true: a node is in one row only, and in the order of when we heard of it last; a row has at most [`K`] nodes, and of one public /24 at most a
//! few (which JavaScript's does not limit: one who owns a /24 shall not own a row). Source: kademlia-routing-table `index.js`, time-ordered-set `index.js`.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use super::message::{K, node_id};
use super::scope::{Scope, subnet};
use crate::udp::Random;

const ROWS: usize = 256;

/// A node of the table. Times are ticks of 5 s.
#[derive(Clone, Debug)]
pub struct Node {
    /// The hash of its address.
    pub id: [u8; 32],
    /// Where it is.
    pub address: SocketAddrV4,
    /// Our address as it sees us.
    pub to: Option<SocketAddrV4>,
    /// When that was counted among the samples; 0 for never.
    pub sampled: u64,
    /// When it came into the table.
    pub added: u64,
    /// When we asked it last, or heard of it.
    pub pinged: u64,
    /// When we heard of it last.
    pub seen: u64,
    /// How many nodes said that it does not answer.
    pub down_hints: u32,
    recency: u64,
}

impl Node {
    /// A node heard of at a tick.
    pub fn new(address: SocketAddrV4, to: Option<SocketAddrV4>, tick: u64) -> Node {
        Node {
            id: node_id(address),
            address,
            to,
            sampled: 0,
            added: tick,
            pinged: tick,
            seen: tick,
            down_hints: 0,
            recency: 0,
        }
    }
}

/// What became of a node that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is in the table now.
    New,
    /// It was there already.
    Known,
    /// Its row is full.
    RowFull,
    /// Its row has enough nodes of its /24.
    SubnetFull,
}

/// See the module.
pub struct Table {
    id: [u8; 32],
    rows: Vec<Vec<Node>>,
    /// Ids by when they were heard of, the oldest first.
    order: BTreeMap<u64, [u8; 32]>,
    next_recency: u64,
    nodes_per_subnet: usize,
}

impl Table {
    /// An empty table of the node with this id.
    pub fn new(id: [u8; 32], nodes_per_subnet: usize) -> Table {
        Table { id, rows: vec![Vec::new(); ROWS], order: BTreeMap::new(), next_recency: 0, nodes_per_subnet }
    }

    /// Whose table it is.
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// How many nodes it has.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// A node.
    pub fn get(&self, id: &[u8; 32]) -> Option<&Node> {
        let row = &self.rows[self.row(id)];
        row.binary_search_by_key(id, |node| node.id).ok().map(|at| &row[at])
    }

    /// A node, to be changed.
    pub fn get_mut(&mut self, id: &[u8; 32]) -> Option<&mut Node> {
        let row = self.row(id);
        let row = &mut self.rows[row];
        row.binary_search_by_key(id, |node| node.id).ok().map(|at| &mut row[at])
    }

    /// Adds a node, as the one heard of last.
    pub fn add(&mut self, mut node: Node) -> Added {
        let row = self.row(&node.id);
        let Err(at) = self.rows[row].binary_search_by_key(&node.id, |other| other.id) else { return Added::Known };
        if self.rows[row].len() >= K {
            return Added::RowFull;
        }
        if self.is_subnet_full(row, node.address) {
            return Added::SubnetFull;
        }
        self.next_recency += 1;
        node.recency = self.next_recency;
        self.order.insert(node.recency, node.id);
        self.rows[row].insert(at, node);
        Added::New
    }

    /// Removes a node; whether it was there.
    pub fn remove(&mut self, id: &[u8; 32]) -> bool {
        let row = self.row(id);
        let Ok(at) = self.rows[row].binary_search_by_key(id, |node| node.id) else { return false };
        let node = self.rows[row].remove(at);
        self.order.remove(&node.recency);
        true
    }

    /// Makes a node the one heard of last.
    pub fn touch(&mut self, id: &[u8; 32]) {
        let recency = self.next_recency + 1;
        let Some(node) = self.get_mut(id) else { return };
        let before = std::mem::replace(&mut node.recency, recency);
        self.next_recency = recency;
        self.order.remove(&before);
        self.order.insert(recency, *id);
    }

    /// Nodes, the one heard of last first.
    pub fn latest(&self) -> impl Iterator<Item = &Node> {
        self.order.values().rev().filter_map(|id| self.get(id))
    }

    /// Nodes, the one not heard of for longest first.
    pub fn oldest(&self) -> impl Iterator<Item = &Node> {
        self.order.values().filter_map(|id| self.get(id))
    }

    /// The nodes of the row that an id belongs to.
    pub fn row_of(&self, id: &[u8; 32]) -> &[Node] {
        &self.rows[self.row(id)]
    }

    /// At most `k` nodes that are close to a target.
    pub fn closest<'a>(&'a self, target: &[u8; 32], k: usize) -> impl Iterator<Item = &'a Node> + use<'a> {
        let row = self.row(target);
        (0..=row).rev().chain(row + 1..ROWS).flat_map(|row| &self.rows[row]).take(k)
    }

    /// Any node.
    pub fn random(&self, random: &mut Random) -> Option<&Node> {
        let nth = random.below(self.len() as u64) as usize;
        self.rows.iter().flatten().nth(nth)
    }

    /// The table of another id with the same nodes, less those that find no place, and that id's own.
    pub fn rebuilt(&self, id: [u8; 32]) -> Table {
        let mut table = Table::new(id, self.nodes_per_subnet);
        for node in self.oldest().filter(|node| node.id != id) {
            table.add(node.clone());
        }
        table
    }

    /// What nodes said our address is does not count any more; they may say it again.
    pub fn forget_samples(&mut self) {
        for node in self.rows.iter_mut().flatten() {
            (node.to, node.sampled) = (None, 0);
        }
    }

    /// The row of an id: how many of its first bits are ours.
    pub fn row(&self, id: &[u8; 32]) -> usize {
        let differs = id.iter().zip(&self.id).position(|(a, b)| a != b);
        differs.map_or(ROWS - 1, |byte| byte * 8 + (id[byte] ^ self.id[byte]).leading_zeros() as usize)
    }

    fn is_subnet_full(&self, row: usize, address: SocketAddrV4) -> bool {
        let is_neighbour = |node: &&Node| subnet(*node.address.ip()) == subnet(*address.ip());
        Scope::of(address) == Some(Scope::Public)
            && self.rows[row].iter().filter(is_neighbour).count() >= self.nodes_per_subnet
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::secret_stream::vectors::{bytes, read};

    fn id(value: &serde_json::Value, name: &str) -> [u8; 32] {
        bytes(value, name).try_into().expect("32 bytes")
    }

    fn loopback(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    #[test]
    fn vectors() {
        let file = read("swarm/routing-table");
        for case in file["cases"].as_array().expect("cases") {
            let table = Table::new(id(case, "local"), 10);
            assert_eq!(table.row(&id(case, "id")) as u64, case["row"].as_u64().expect("a row"));
        }
        let mut table = Table::new(node_id(loopback(1)), 10);
        for port in 2..=39 {
            table.add(Node::new(loopback(port), None, 1));
        }
        for result in file["closest"]["results"].as_array().expect("results") {
            let ports: Vec<u64> =
                table.closest(&id(result, "target"), K).map(|node| node.address.port().into()).collect();
            let expected: Vec<u64> =
                result["closest_ports"].as_array().expect("ports").iter().filter_map(|port| port.as_u64()).collect();
            assert_eq!(ports, expected);
        }
    }

    #[test]
    fn rows_are_bounded_and_order_is_kept() {
        let mut table = Table::new([0; 32], 10);
        let mut random = Random::new([3; 32]);
        let mut refused = 0;
        for n in 0..3000u32 {
            let host = Ipv4Addr::from(random.bytes::<4>());
            refused += usize::from(table.add(Node::new(SocketAddrV4::new(host, 1), None, u64::from(n))) != Added::New);
            if n % 3 == 0 {
                let any = table.random(&mut random).expect("a node").id;
                table.touch(&any);
                assert_eq!(table.latest().next().map(|node| node.id), Some(any));
            }
            if n % 7 == 0 {
                let oldest = table.oldest().next().expect("a node").id;
                assert!(table.remove(&oldest) && !table.remove(&oldest) && table.get(&oldest).is_none());
            }
        }
        assert!(refused > 1000 && table.rows.iter().all(|row| row.len() <= K && row.is_sorted_by_key(|node| node.id)));
        assert_eq!(table.rows.iter().map(Vec::len).sum::<usize>(), table.len());
        assert_eq!((table.latest().count(), table.oldest().count()), (table.len(), table.len()));
        let new = table.oldest().next().expect("a node").id;
        let rebuilt = table.rebuilt(new);
        assert!(rebuilt.get(&new).is_none() && rebuilt.len() < table.len());
    }

    #[test]
    fn one_subnet_does_not_fill_a_row() {
        let mut table = Table::new([0; 32], 4);
        let count = |table: &mut Table, host: [u8; 3]| {
            let [a, b, c] = host;
            (0..=255u8)
                .filter(|&d| {
                    table.add(Node::new(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), 9), None, 1)) == Added::New
                })
                .count()
        };
        count(&mut table, [8, 8, 8]);
        assert_eq!(table.rows.iter().map(Vec::len).max(), Some(4));
        let mut table = Table::new([0; 32], 4);
        count(&mut table, [10, 0, 0]);
        assert_eq!(table.rows.iter().map(Vec::len).max(), Some(K));
    }
}
