//! What concurrent transactions did, and which anomalies that shows: a dependency graph, and the circles in it.
//!
//! Every value is written once, so a read tells who wrote what it saw; a register carries the number of its version and a list its whole past, so who wrote after whom
//! is known without guessing. From these follow the edges of Adya's graph:
//!
//! ```text
//! ww  T1 wrote a version, T2 the next one          wr  T2 read what T1 wrote          rw  T1 read a version, T2 wrote the next one
//!                                                  (rw of a predicate: T1 read a range, T2 put a row into it or took one from it)
//! ```
//!
//! | anomaly | | READ COMMITTED | REPEATABLE READ | SERIALIZABLE |
//! | --- | --- | --- | --- | --- |
//! | G0 | circle of ww | never | never | never |
//! | G1a, G1b | read of what was rolled back, or replaced by its own transaction | never | never | never |
//! | G1c | circle of ww and wr | never | never | never |
//! | lost update | read a version, wrote over a later one | may be | never | never |
//! | non-repeatable | two versions in one transaction | may be | never | never |
//! | G-single | circle with one rw | may be | never | never |
//! | nonadjacent | circle in which no two rw follow each other: a snapshot does not allow it (a long fork) | may be | never | never |
//! | G2-item, G2 | any other circle, of items alone or with a predicate | may be | may be | never |
//! | own, lost, torn, stale | own write not seen; a committed one gone; half a transaction; not seen though answered before | never | never | never |
//!
//! A transaction whose COMMIT was not answered counts as committed if any of its writes is seen by others or in the final state; then all of them must be there.
//!
//! What must stay true: what is reported is an anomaly (each has its witness in the report); what cannot be known (a row neither seen nor found at the end, which
//! someone deleted) makes no edge.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;

/// A key of the table it is in.
pub type Key = u64;
/// Written once in a whole history.
pub type Value = u64;

/// What was done, and what came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A register, its value and the number of its version; `(0, 0)` if there was no row.
    Read(Key, Value, u64),
    /// A register written; the number of the version this made.
    Write(Key, Value, u64),
    /// A list as it was seen.
    ReadList(Key, Vec<Value>),
    /// A value appended.
    Append(Key, Value),
    /// A row (its id) put into a group.
    Insert(Key, Value),
    /// A row of a group deleted, which was there.
    Delete(Key, Value),
    /// The rows of groups `from..=to`.
    Range(Key, Key, BTreeSet<Value>),
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// COMMIT was answered.
    Committed,
    /// It was rolled back, by whomever.
    Aborted,
    /// COMMIT was sent and never answered.
    Unknown,
}

/// A transaction.
#[derive(Clone, Debug)]
pub struct Txn {
    /// In the order in which they were sent.
    pub ops: Vec<Op>,
    /// How it ended.
    pub end: End,
    /// Before BEGIN was sent.
    pub began: u64,
    /// After the end was answered.
    pub ended: u64,
}

/// What was there when everybody had ended.
#[derive(Clone, Debug, Default)]
pub struct Final {
    /// Registers: value and version.
    pub registers: HashMap<Key, (Value, u64)>,
    /// Lists.
    pub lists: HashMap<Key, Vec<Value>>,
    /// Rows of the groups.
    pub rows: HashSet<Value>,
}

/// Kinds of anomalies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Anomaly {
    G0,
    G1a,
    G1b,
    G1c,
    Own,
    Lost,
    Torn,
    Stale,
    LostUpdate,
    NonRepeatable,
    GSingle,
    Nonadjacent,
    G2Item,
    G2,
}

/// What a level lets happen.
pub fn allowed(level: &str) -> &'static [Anomaly] {
    use Anomaly::{G2, G2Item, GSingle, LostUpdate, NonRepeatable, Nonadjacent};
    match level {
        "SERIALIZABLE" => &[],
        "REPEATABLE READ" => &[G2Item, G2],
        _ => &[LostUpdate, NonRepeatable, GSingle, Nonadjacent, G2Item, G2],
    }
}

/// Anomalies found, how many of each, and a few of them in words.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Of circles: how many components of the graph have one.
    pub counts: BTreeMap<Anomaly, usize>,
    /// The first of each kind.
    pub witnesses: Vec<String>,
    /// Transactions that count as committed.
    pub committed: usize,
    /// Edges of the graph.
    pub edges: usize,
}

impl Verdict {
    fn add(&mut self, anomaly: Anomaly, witness: impl FnOnce() -> String) {
        let count = self.counts.entry(anomaly).or_default();
        *count += 1;
        if *count <= 3 {
            self.witnesses.push(format!("{anomaly:?}: {}", witness()));
        }
    }
    /// The kinds that this level does not let happen.
    pub fn forbidden(&self, level: &str) -> Vec<Anomaly> {
        self.counts.keys().copied().filter(|a| !allowed(level).contains(a)).collect()
    }
}

/// Registers and lists are the same to the graph: things with versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Item {
    Register(Key),
    List(Key),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
enum Edge {
    Ww,
    Wr,
    RwItem,
    RwPredicate,
}

/// Who wrote each version of an item: `writers[i]` made version `i + 1`; `None` cannot be known.
type Order = Vec<(Value, Option<usize>)>;

struct Check<'a> {
    txns: &'a [Txn],
    last: &'a Final,
    committed: Vec<bool>,
    orders: HashMap<Item, Order>,
    verdict: Verdict,
    edges: Vec<Vec<(usize, Edge)>>,
}

/// Checks a history.
pub fn check(txns: &[Txn], last: &Final) -> Verdict {
    let committed = txns.iter().map(|t| t.end == End::Committed).collect();
    let mut check = Check {
        txns,
        last,
        committed,
        orders: HashMap::new(),
        verdict: Verdict::default(),
        edges: vec![Vec::new(); txns.len()],
    };
    check.settle_unknown();
    check.orders();
    check.items();
    check.predicates();
    check.circles();
    check.verdict.committed = check.committed.iter().filter(|c| **c).count();
    check.verdict.edges = check.edges.iter().map(Vec::len).sum();
    check.verdict
}

impl Check<'_> {
    fn words(&self, txn: usize) -> String {
        format!("T{txn} {:?} {:?}", self.txns[txn].end, self.txns[txn].ops)
    }
    fn of_committed(&self) -> impl Iterator<Item = (usize, &Op)> {
        self.txns
            .iter()
            .enumerate()
            .filter(|(i, _)| self.committed[*i])
            .flat_map(|(i, t)| t.ops.iter().map(move |op| (i, op)))
    }

    /// Counts those as committed whose writes were seen.
    fn settle_unknown(&mut self) {
        let unknown: Vec<usize> = (0..self.txns.len()).filter(|i| self.txns[*i].end == End::Unknown).collect();
        // How many transactions whose end is not known say they made this version, or deleted this row.
        let (mut versions, mut deletions) = (HashMap::<(Key, u64), usize>::new(), HashMap::<Value, usize>::new());
        for op in unknown.iter().flat_map(|i| &self.txns[*i].ops) {
            match op {
                Op::Write(key, _, n) => *versions.entry((*key, *n)).or_default() += 1,
                Op::Delete(_, id) => *deletions.entry(*id).or_default() += 1,
                _ => {}
            }
        }
        loop {
            let (mut made, mut seen, mut rows, mut deleted) =
                (HashSet::new(), HashSet::new(), HashSet::new(), HashSet::new());
            for (_, op) in self.of_committed() {
                match op {
                    Op::Write(key, _, n) => _ = made.insert((*key, *n)),
                    Op::Read(key, value, n) => _ = seen.insert((*key, *value, *n)),
                    Op::Range(_, _, ids) => rows.extend(ids.iter().copied()),
                    Op::Delete(_, id) => _ = deleted.insert(*id),
                    _ => {}
                }
            }
            let evident = |op: &Op| match op {
                Op::Append(key, value) => self.last.lists.get(key).is_some_and(|l| l.contains(value)),
                Op::Write(key, value, n) => {
                    let end = self.last.registers.get(key).copied().unwrap_or_default();
                    end == (*value, *n)
                        || seen.contains(&(*key, *value, *n))
                        || (*n < end.1 && !made.contains(&(*key, *n)) && versions[&(*key, *n)] == 1)
                }
                Op::Insert(_, id) => self.last.rows.contains(id) || rows.contains(id) || deleted.contains(id),
                Op::Delete(_, id) => {
                    !self.last.rows.contains(id) && !deleted.contains(id) && deletions[id] == 1 && rows.contains(id)
                }
                _ => false,
            };
            let more: Vec<usize> = unknown
                .iter()
                .copied()
                .filter(|i| !self.committed[*i] && self.txns[*i].ops.iter().any(evident))
                .collect();
            if more.is_empty() {
                break;
            }
            more.iter().for_each(|i| self.committed[*i] = true);
        }
    }

    /// The versions of every item, from the numbers registers carry and from the final lists.
    fn orders(&mut self) {
        let mut verdict = std::mem::take(&mut self.verdict);
        let mut appenders: HashMap<(Key, Value), usize> = HashMap::new();
        let mut registers: HashMap<Key, BTreeMap<u64, (Value, usize)>> = HashMap::new();
        let mut appended: HashSet<Key> = HashSet::new();
        for (i, txn) in self.txns.iter().enumerate() {
            for op in &txn.ops {
                match op {
                    Op::Append(key, value) => {
                        appenders.insert((*key, *value), i);
                        if self.committed[i] {
                            appended.insert(*key);
                        }
                    }
                    Op::Write(key, value, n) if self.committed[i] => {
                        if let Some((other, by)) = registers.entry(*key).or_default().insert(*n, (*value, i))
                            && other != *value
                        {
                            verdict.add(Anomaly::Lost, || {
                                format!(
                                    "version {n} of register {key} was made twice:\n    {}\n    {}",
                                    self.words(by),
                                    self.words(i)
                                )
                            });
                        }
                    }
                    _ => {}
                }
            }
        }
        for (key, versions) in registers {
            let (last, end) = self.last.registers.get(&key).copied().unwrap_or_default();
            let mut order: Order =
                (1..=end).map(|n| versions.get(&n).map_or((0, None), |(value, i)| (*value, Some(*i)))).collect();
            if let Some(newest) = order.last_mut() {
                if newest.1.is_some() && newest.0 != last {
                    verdict.add(Anomaly::Lost, || {
                        format!("register {key} ends with {last}, version {end} was {}", newest.0)
                    });
                }
                newest.0 = last;
            }
            for (n, (value, i)) in versions.range(end + 1..) {
                let lost = if self.txns[*i].end == End::Unknown { Anomaly::Torn } else { Anomaly::Lost };
                verdict.add(lost, || {
                    format!("register {key}, version {n} ({value}) is gone, {end} is the last: {}", self.words(*i))
                });
            }
            self.orders.insert(Item::Register(key), order);
        }
        let keys: BTreeSet<Key> = appended.into_iter().chain(self.last.lists.keys().copied()).collect();
        for key in keys {
            let list = self.last.lists.get(&key).cloned().unwrap_or_default();
            let mut met = HashSet::new();
            for value in list.iter().filter(|v| !met.insert(**v)) {
                verdict.add(Anomaly::Lost, || format!("{value} stands twice in list {key}"));
            }
            let order: Order = list.iter().map(|v| (*v, appenders.get(&(key, *v)).copied())).collect();
            for (value, writer) in &order {
                match writer {
                    None => verdict.add(Anomaly::Lost, || format!("nobody appended {value} to list {key}")),
                    Some(i) if !self.committed[*i] => {
                        verdict.add(Anomaly::G1a, || format!("list {key} ends with {value} of {}", self.words(*i)))
                    }
                    Some(_) => {}
                }
            }
            self.orders.insert(Item::List(key), order);
        }
        for (i, op) in self.of_committed() {
            if let Op::Append(key, value) = op
                && !self.last.lists.get(key).is_some_and(|l| l.contains(value))
            {
                let lost = if self.txns[i].end == End::Unknown { Anomaly::Torn } else { Anomaly::Lost };
                verdict.add(lost, || format!("{value} is not in list {key} at the end: {}", self.words(i)));
            }
        }
        self.verdict = verdict;
    }

    fn edge(&mut self, from: usize, to: usize, edge: Edge) {
        if from != to && self.committed[from] && self.committed[to] && !self.edges[from].contains(&(to, edge)) {
            self.edges[from].push((to, edge));
        }
    }

    /// Which version a read saw, if that can be said; a wrong value is an anomaly.
    fn version(&mut self, txn: usize, op: &Op) -> Option<(Item, usize)> {
        let (item, index, seen) = match op {
            Op::Read(key, value, n) => (Item::Register(*key), *n as usize, *value),
            Op::ReadList(key, list) => {
                let item = Item::List(*key);
                let order = self.orders.entry(item).or_default();
                if order.len() < list.len() || order.iter().zip(list).any(|((a, _), b)| a != b) {
                    let last: Vec<Value> = order.iter().map(|(v, _)| *v).collect();
                    let aborted = list.iter().find(|v| !last.contains(v)).is_some_and(|v| {
                        let by = |t: &Txn| t.ops.contains(&Op::Append(*key, *v));
                        self.txns.iter().zip(&self.committed).any(|(t, c)| !c && by(t))
                    });
                    let words = format!("list {key} was seen as {list:?}, and ends as {last:?}: {}", self.words(txn));
                    self.verdict.add(if aborted { Anomaly::G1a } else { Anomaly::Lost }, || words);
                    return None;
                }
                return Some((item, list.len()));
            }
            _ => return None,
        };
        if index == 0 {
            return Some((item, 0));
        }
        let found = self.orders.entry(item).or_default().get(index - 1).copied();
        match found {
            Some((value, Some(_))) if value == seen => Some((item, index)),
            Some((_, None)) => {
                // Nobody who committed made this version: whose value is it?
                let Item::Register(key) = item else { return None };
                self.read_of_uncommitted(txn, key, seen);
                None
            }
            _ => {
                let Item::Register(key) = item else { return None };
                if !self.read_of_uncommitted(txn, key, seen) {
                    let words = format!(
                        "register {key}, version {index} was seen as {seen}, and was {found:?}: {}",
                        self.words(txn)
                    );
                    self.verdict.add(Anomaly::Lost, || words);
                }
                None
            }
        }
    }
    fn read_of_uncommitted(&mut self, txn: usize, key: Key, value: Value) -> bool {
        let wrote = |t: &Txn| t.ops.iter().any(|op| matches!(op, Op::Write(k, v, _) if (*k, *v) == (key, value)));
        let Some(by) = (0..self.txns.len()).find(|i| !self.committed[*i] && wrote(&self.txns[*i])) else {
            return false;
        };
        let words = format!(
            "register {key} was {value}, which was never committed:\n    {}\n    {}",
            self.words(by),
            self.words(txn)
        );
        self.verdict.add(Anomaly::G1a, || words);
        true
    }

    /// Edges of registers and lists, and what one transaction alone can show.
    fn items(&mut self) {
        let orders = self.orders.clone();
        // Earliest answer to a writer of this version or a later one.
        let mut answered: HashMap<Item, Vec<u64>> = HashMap::new();
        for (item, order) in &orders {
            let mut times = vec![u64::MAX; order.len() + 1];
            for (at, (_, writer)) in order.iter().enumerate().rev() {
                let own =
                    writer.filter(|w| self.txns[*w].end == End::Committed).map_or(u64::MAX, |w| self.txns[w].ended);
                times[at] = own.min(times[at + 1]);
            }
            answered.insert(*item, times);
            for pair in order.windows(2) {
                if let [(_, Some(a)), (_, Some(b))] = pair {
                    self.edge(*a, *b, Edge::Ww);
                }
            }
        }
        for i in 0..self.txns.len() {
            if !self.committed[i] {
                continue;
            }
            // Newest version written here, and the first one read from others.
            let (mut own, mut first): (HashMap<Item, usize>, HashMap<Item, usize>) = (HashMap::new(), HashMap::new());
            for op in &self.txns[i].ops {
                match op {
                    Op::Read(..) | Op::ReadList(..) => {
                        let Some((item, index)) = self.version(i, op) else { continue };
                        let order = orders.get(&item).map_or(&[][..], Vec::as_slice);
                        if let Some(wrote) = own.get(&item) {
                            if index != *wrote {
                                let words = format!(
                                    "{item:?}: version {index} seen after {wrote} was written: {}",
                                    self.words(i)
                                );
                                self.verdict.add(Anomaly::Own, || words);
                            }
                            continue;
                        }
                        self.read(i, item, index, order);
                        if answered.get(&item).and_then(|t| t.get(index)).is_some_and(|t| *t < self.txns[i].began) {
                            let words = format!(
                                "{item:?}: version {index} seen, a later one had been answered before: {}",
                                self.words(i)
                            );
                            self.verdict.add(Anomaly::Stale, || words);
                        }
                        if *first.entry(item).or_insert(index) != index {
                            let words = format!("{item:?}: {} and then {index}: {}", first[&item], self.words(i));
                            self.verdict.add(Anomaly::NonRepeatable, || words);
                        }
                    }
                    Op::Write(..) | Op::Append(..) => {
                        let item =
                            if let Op::Write(key, ..) = op { Item::Register(*key) } else { Item::List(op_key(op)) };
                        let at = match op {
                            Op::Write(_, _, n) => *n as usize,
                            Op::Append(_, value) => orders
                                .get(&item)
                                .and_then(|o| o.iter().position(|(v, _)| v == value))
                                .map_or(0, |p| p + 1),
                            _ => 0,
                        };
                        if let (None, Some(read)) = (own.get(&item), first.get(&item))
                            && at > read + 1
                        {
                            let words =
                                format!("{item:?}: version {read} read, version {at} written: {}", self.words(i));
                            self.verdict.add(Anomaly::LostUpdate, || words);
                        }
                        own.insert(item, at);
                    }
                    _ => {}
                }
            }
        }
    }

    /// A version made by others is read.
    fn read(&mut self, i: usize, item: Item, index: usize, order: &[(Value, Option<usize>)]) {
        if let Some((_, Some(writer))) = index.checked_sub(1).and_then(|at| order.get(at)) {
            if order.get(index).is_some_and(|(_, next)| *next == Some(*writer)) && *writer != i {
                let words = format!("{item:?}, version {index}:\n    {}\n    {}", self.words(*writer), self.words(i));
                self.verdict.add(Anomaly::G1b, || words);
            }
            self.edge(*writer, i, Edge::Wr);
        }
        if let Some((_, Some(next))) = order.get(index) {
            self.edge(i, *next, Edge::RwItem);
        }
    }

    /// Edges of ranges and the rows that come into them and go.
    fn predicates(&mut self) {
        let mut groups: BTreeMap<Key, Vec<(Value, usize)>> = BTreeMap::new();
        let mut deleters: HashMap<Value, Vec<usize>> = HashMap::new();
        for (i, txn) in self.txns.iter().enumerate() {
            for op in &txn.ops {
                match op {
                    Op::Insert(group, id) => groups.entry(*group).or_default().push((*id, i)),
                    Op::Delete(_, id) if self.committed[i] => deleters.entry(*id).or_default().push(i),
                    _ => {}
                }
            }
        }
        for (id, by) in deleters.iter().filter(|(_, by)| by.len() > 1) {
            let words = format!("row {id} was deleted {} times: {}", by.len(), self.words(by[0]));
            self.verdict.add(Anomaly::Lost, || words);
        }
        for (id, inserter) in groups.values().flatten() {
            let (there, gone) = (self.last.rows.contains(id), deleters.contains_key(id));
            let deleted_by_unknown = || {
                self.txns
                    .iter()
                    .any(|t| t.end == End::Unknown && t.ops.iter().any(|op| matches!(op, Op::Delete(_, d) if d == id)))
            };
            let (words, inserted) = (self.words(*inserter), self.committed[*inserter]);
            if inserted && !there && !gone && !deleted_by_unknown() {
                let lost = if self.txns[*inserter].end == End::Unknown { Anomaly::Torn } else { Anomaly::Lost };
                self.verdict.add(lost, || format!("row {id} is gone: {words}"));
            } else if !inserted && there {
                self.verdict.add(Anomaly::G1a, || format!("row {id} is there: {words}"));
            } else if there && gone {
                self.verdict.add(Anomaly::Lost, || format!("row {id} was deleted and is there: {words}"));
            }
            if let (true, Some([deleter])) = (inserted, deleters.get(id).map(Vec::as_slice)) {
                self.edge(*inserter, *deleter, Edge::Wr);
            }
        }
        for i in (0..self.txns.len()).filter(|i| self.committed[*i]).collect::<Vec<_>>() {
            let (mut put, mut taken) = (HashSet::new(), HashSet::new());
            for op in &self.txns[i].ops {
                match op {
                    Op::Insert(_, id) => _ = put.insert(*id),
                    Op::Delete(_, id) => _ = taken.insert(*id),
                    Op::Range(from, to, seen) => {
                        let rows: Vec<(Value, usize)> =
                            groups.range(*from..=*to).flat_map(|(_, rows)| rows.iter().copied()).collect();
                        for (id, inserter) in rows {
                            let deleter = deleters.get(&id).and_then(|d| (d.len() == 1).then_some(d[0]));
                            self.in_range(
                                i,
                                id,
                                inserter,
                                deleter,
                                seen.contains(&id),
                                (put.contains(&id), taken.contains(&id)),
                            );
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// A row that belongs to a range somebody read; what the reader had done with it itself.
    fn in_range(
        &mut self,
        i: usize,
        id: Value,
        inserter: usize,
        deleter: Option<usize>,
        seen: bool,
        (put, taken): (bool, bool),
    ) {
        let before = |who: usize| self.txns[who].end == End::Committed && self.txns[who].ended < self.txns[i].began;
        let words = format!("row {id} seen: {seen}:\n    {}\n    {}", self.words(inserter), self.words(i));
        if (put && !taken && !seen) || (taken && seen) {
            self.verdict.add(Anomaly::Own, || words);
        } else if seen && !self.committed[inserter] {
            self.verdict.add(Anomaly::G1a, || words);
        } else if seen {
            if deleter.is_some_and(before) {
                self.verdict.add(Anomaly::Stale, || words);
            }
            self.edge(inserter, i, Edge::Wr);
            if let Some(deleter) = deleter {
                self.edge(i, deleter, Edge::RwPredicate);
            }
        } else if self.committed[inserter] && !taken && self.last.rows.contains(&id) {
            if before(inserter) {
                self.verdict.add(Anomaly::Stale, || words);
            }
            self.edge(i, inserter, Edge::RwPredicate);
        }
    }

    fn circles(&mut self) {
        let only = |wanted: &[Edge]| -> Vec<Vec<usize>> {
            self.edges
                .iter()
                .map(|out| out.iter().filter(|(_, e)| wanted.contains(e)).map(|(to, _)| *to).collect())
                .collect()
        };
        let count = self.txns.len();
        let mut found: Vec<(Anomaly, String)> = Vec::new();
        let (ww, depends) = (only(&[Edge::Ww]), only(&[Edge::Ww, Edge::Wr]));
        let mut of_ww = HashSet::new();
        for component in components(&ww) {
            found.push((Anomaly::G0, self.circle(&ww, &component)));
            of_ww.extend(component);
        }
        for component in components(&depends).iter().filter(|c| c.iter().all(|n| !of_ww.contains(n))) {
            found.push((Anomaly::G1c, self.circle(&depends, component)));
        }
        // Node `n + count` is node `n` entered by an rw edge, which no rw edge leaves: a circle here has no two rw edges in a row.
        let mut layered = depends.clone();
        layered.extend(depends.iter().cloned());
        for (from, out) in self.edges.iter().enumerate() {
            layered[from].extend(
                out.iter().filter(|(_, e)| matches!(e, Edge::RwItem | Edge::RwPredicate)).map(|(to, _)| to + count),
            );
        }
        let of_depends: HashSet<usize> = components(&depends).into_iter().flatten().collect();
        let mut settled: HashSet<usize> = of_depends.clone();
        for component in components(&layered) {
            let nodes: BTreeSet<usize> = component.iter().map(|n| n % count).collect();
            if component.iter().all(|n| *n < count) && nodes.iter().any(|n| of_depends.contains(n)) {
                continue;
            }
            match self.single(&depends, &nodes) {
                Some(words) => found.push((Anomaly::GSingle, words)),
                None => found.push((Anomaly::Nonadjacent, self.circle(&layered, &component))),
            }
            settled.extend(nodes);
        }
        let (items, all) =
            (only(&[Edge::Ww, Edge::Wr, Edge::RwItem]), only(&[Edge::Ww, Edge::Wr, Edge::RwItem, Edge::RwPredicate]));
        let of_items: Vec<Vec<usize>> = components(&items);
        for component in components(&all).iter().filter(|c| c.iter().all(|n| !settled.contains(n))) {
            let item = of_items.iter().find(|c| component.contains(&c[0]));
            found.push(item.map_or_else(
                || (Anomaly::G2, self.circle(&all, component)),
                |c| (Anomaly::G2Item, self.circle(&items, c)),
            ));
        }
        for (anomaly, words) in found {
            self.verdict.add(anomaly, || words);
        }
    }

    /// A circle with one rw edge among these.
    fn single(&self, depends: &[Vec<usize>], nodes: &BTreeSet<usize>) -> Option<String> {
        let rw = nodes.iter().flat_map(|n| self.edges[*n].iter().map(move |(to, e)| (*n, *to, *e)));
        let rw = rw.filter(|(_, to, e)| nodes.contains(to) && matches!(e, Edge::RwItem | Edge::RwPredicate));
        rw.take(2_000)
            .find_map(|(from, to, _)| path(depends, to, from).map(|path| self.described(&[vec![from], path].concat())))
    }
    /// The shortest circle through the first node of a component that has one.
    fn circle(&self, graph: &[Vec<usize>], component: &[usize]) -> String {
        let inside: HashSet<usize> = component.iter().copied().collect();
        let start = component[0];
        let next = graph[start].iter().filter(|n| inside.contains(n));
        let shortest = next.filter_map(|n| path(graph, *n, start)).min_by_key(Vec::len).unwrap_or_default();
        self.described(&[vec![start], shortest].concat())
    }
    fn described(&self, nodes: &[usize]) -> String {
        let mut text = String::new();
        for pair in nodes.windows(2) {
            let (a, b) = (pair[0] % self.txns.len(), pair[1] % self.txns.len());
            let kinds: Vec<Edge> = self.edges[a].iter().filter(|(to, _)| *to == b).map(|(_, e)| *e).collect();
            let _ = write!(text, "\n    T{a} -{kinds:?}-> T{b}");
        }
        let distinct: BTreeSet<usize> = nodes.iter().map(|n| n % self.txns.len()).collect();
        for node in distinct.iter().take(6) {
            let words: String = self.words(*node).chars().take(600).collect();
            let _ = write!(text, "\n    {words}");
        }
        text
    }
}

fn op_key(op: &Op) -> Key {
    match op {
        Op::Read(key, ..)
        | Op::Write(key, ..)
        | Op::ReadList(key, _)
        | Op::Append(key, _)
        | Op::Insert(key, _)
        | Op::Delete(key, _)
        | Op::Range(key, ..) => *key,
    }
}

/// The shortest way from one node to another, both named.
fn path(graph: &[Vec<usize>], from: usize, to: usize) -> Option<Vec<usize>> {
    let mut came: HashMap<usize, usize> = HashMap::from([(from, from)]);
    let mut open = std::collections::VecDeque::from([from]);
    while let Some(node) = open.pop_front() {
        if node == to {
            let mut way = vec![node];
            while way[way.len() - 1] != from {
                way.push(came[&way[way.len() - 1]]);
            }
            way.reverse();
            return Some(way);
        }
        for next in &graph[node] {
            if !came.contains_key(next) {
                came.insert(*next, node);
                open.push_back(*next);
            }
        }
    }
    None
}

/// Tarjan's strongly connected components of more than one node, without recursion.
fn components(graph: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let (mut index, mut low, mut on_stack) =
        (vec![UNSEEN; graph.len()], vec![0; graph.len()], vec![false; graph.len()]);
    let (mut stack, mut found, mut next) = (Vec::new(), Vec::new(), 0);
    for root in 0..graph.len() {
        if index[root] != UNSEEN {
            continue;
        }
        let mut calls = vec![(root, 0)];
        while let Some((node, child)) = calls.pop() {
            if child == 0 {
                (index[node], low[node]) = (next, next);
                next += 1;
                stack.push(node);
                on_stack[node] = true;
            } else {
                low[node] = low[node].min(low[graph[node][child - 1]]);
            }
            let mut child = child;
            let mut called = false;
            while let Some(to) = graph[node].get(child) {
                child += 1;
                if index[*to] == UNSEEN {
                    calls.push((node, child));
                    calls.push((*to, 0));
                    called = true;
                    break;
                }
                if on_stack[*to] {
                    low[node] = low[node].min(index[*to]);
                }
            }
            if called || low[node] != index[node] {
                continue;
            }
            let mut component = Vec::new();
            while let Some(member) = stack.pop() {
                on_stack[member] = false;
                component.push(member);
                if member == node {
                    break;
                }
            }
            if component.len() > 1 {
                found.push(component);
            }
        }
    }
    found
}
