//! How far a regular expression matches, and what its groups hold, where the `regex` crate and PostgreSQL may disagree.
//!
//! The crate takes alternatives in order, as Perl does. PostgreSQL (`regcomp.c`, `regexec.c`) first settles how long the match is: the longest
//! from the leftmost start, or the shortest if the first quantifier that has a preference is non-greedy; then it divides that piece among the
//! parts from left to right, each as long or as short as its own preference wants while the rest can still match the rest.
//!
//! ```text
//! (a|ab)(c|bcd)(d*)   on abcd   crate: a bcd ''    PostgreSQL: ab c d
//! ```
//!
//! [`Extents`] does the same over PostgreSQL's own tree of sub-expressions: a run of parts that hold no group and have one preference is one
//! leaf ([`Parts::Leaf`]); what comes before a group, the group, and what comes behind it are concatenated two by two. Which ends each
//! sub-expression can reach from a place is what a lazy DFA that keeps all matches tells.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use regex_automata::hybrid::dfa::{self, DFA};
use regex_automata::nfa::thompson::pikevm::PikeVM;
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};
use regex_syntax::ast::{self, Ast, RepetitionKind, RepetitionRange};

use crate::error::{Result, SqlError};

/// Parts one behind the other that may have to be told apart: the tree is as high.
const DEPTH_MAX: usize = 1000;
/// Bytes of sub-patterns that a tree may hold.
const COPIED_MAX: usize = 16 << 20;
/// Ends that are remembered at a time.
const KEPT_MAX: usize = 1 << 20;
/// Bytes of text that one match may be looked at: a few seconds' work.
const STEPS_MAX: usize = 1 << 30;

/// What the groups of a match hold; 0 is all of it.
pub(super) type Groups = Vec<Option<Range<usize>>>;

/// Whether a part of an expression would rather match much or little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preference {
    Long,
    Short,
}

/// PostgreSQL's flags of a sub-expression.
#[derive(Clone, Copy, Debug, Default)]
struct Traits {
    /// Its own preference: that of the first of its parts that has one.
    prefers: Option<Preference>,
    /// Its parts differ in theirs.
    mixed: bool,
    /// A group is in it.
    captures: bool,
}

impl Traits {
    fn of(prefers: Option<Preference>) -> Traits {
        Traits { prefers, ..Traits::default() }
    }
    /// Of two parts in this order.
    fn then(self, next: Traits) -> Traits {
        let clash = matches!((self.prefers, next.prefers), (Some(a), Some(b)) if a != b);
        Traits {
            prefers: self.prefers.or(next.prefers),
            mixed: self.mixed || next.mixed || clash,
            captures: self.captures || next.captures,
        }
    }
    /// It matters how it is divided.
    fn is_messy(self) -> bool {
        self.mixed || self.captures
    }
}

struct Tree {
    /// Its number, by which ends are remembered.
    id: usize,
    pattern: String,
    traits: Traits,
    parts: Parts,
    matcher: OnceCell<Matcher>,
}

enum Parts {
    /// Nothing in it matters but its length.
    Leaf,
    Group(usize, Box<Tree>),
    Pair(Box<Tree>, Box<Tree>),
    Alternatives(Vec<Tree>),
    /// At least none and at most so many.
    Repeated(Box<Tree>, Option<u32>),
}

/// An expression whose matches need more than the `regex` crate.
pub(super) struct Extents {
    root: Tree,
    groups: usize,
    ignore_case: bool,
}

impl Extents {
    /// For a pattern in the `regex` crate's syntax; None if that crate's match is PostgreSQL's anyway.
    pub fn new(pattern: &str, ignore_case: bool) -> Result<Option<Extents>> {
        let parsed = ast::parse::Parser::new().parse(pattern).map_err(|_| too_complex())?;
        let mut shape = Shape::default();
        if length(&parsed, &mut shape).is_some() && shape.variable <= 1 && !(shape.lazy && shape.alternatives) {
            return Ok(None);
        }
        let mut builder = Builder { pattern, nodes: 0, groups: 0, depth: 0, copied: 0 };
        let root = builder.alternatives(&parsed);
        if builder.depth > DEPTH_MAX || builder.copied > COPIED_MAX {
            return Err(too_complex());
        }
        Ok(Some(Extents { root, groups: builder.groups + 1, ignore_case }))
    }

    /// The match that begins at a place where one does.
    pub fn from(&self, text: &str, start: usize) -> Result<Groups> {
        let search = Search {
            text,
            ignore_case: self.ignore_case,
            known: RefCell::default(),
            kept: Cell::new(0),
            steps: Cell::new(0),
        };
        let ends = search.ends(&self.root, start)?;
        let end = match self.root.traits.prefers {
            Some(Preference::Short) => ends.first(),
            _ => ends.last(),
        };
        let end = *end.ok_or_else(|| SqlError::internal("a match of a regular expression was lost"))?;
        let mut groups = vec![None; self.groups];
        groups[0] = Some(start..end);
        search.divide(&self.root, start, end, &mut groups)?;
        Ok(groups)
    }
}

fn too_complex() -> SqlError {
    SqlError::new(
        crate::error::state::INVALID_REGULAR_EXPRESSION,
        "invalid regular expression: regular expression is too complex",
    )
}

/// What matters of an expression for whether the order of alternatives can tell how far it goes.
#[derive(Default)]
struct Shape {
    /// Parts of variable length.
    variable: usize,
    /// One of them is non-greedy.
    lazy: bool,
    /// There are alternatives, which as a whole prefer to be long though all are alike.
    alternatives: bool,
}

/// The number of characters an expression matches, parts of variable length counted as none. None where such a part is repeated, or one of several
/// alternatives: then where it ends can depend on their order.
fn length(e: &Ast, shape: &mut Shape) -> Option<usize> {
    match e {
        Ast::Empty(_) | Ast::Flags(_) | Ast::Assertion(_) => Some(0),
        Ast::Literal(_) | Ast::Dot(_) | Ast::ClassUnicode(_) | Ast::ClassPerl(_) | Ast::ClassBracketed(_) => Some(1),
        Ast::Group(group) => length(&group.ast, shape),
        Ast::Concat(concat) => concat.asts.iter().try_fold(0, |sum, part| Some(sum + length(part, shape)?)),
        Ast::Alternation(alternation) => {
            let mut inside = Shape::default();
            let mut lengths = alternation.asts.iter().map(|a| length(a, &mut inside));
            let first = lengths.next()??;
            let same = lengths.all(|l| l == Some(first));
            shape.alternatives = true;
            (same && inside.variable == 0).then_some(first)
        }
        Ast::Repetition(repetition) => {
            let mut inside = Shape::default();
            let once = length(&repetition.ast, &mut inside)?;
            // Of rounds that are nothing there can be one or none.
            if once == 0
                || inside.variable > 0
                || repetition.op.kind != RepetitionKind::ZeroOrOne && chooses_group(&repetition.ast)
            {
                return None;
            }
            shape.alternatives |= inside.alternatives;
            if let RepetitionKind::Range(RepetitionRange::Exactly(n)) = repetition.op.kind {
                return Some(once * n as usize);
            }
            shape.variable += 1;
            shape.lazy |= !repetition.greedy;
            Some(0)
        }
    }
}

/// Whether another group may be filled at each round: the crate leaves the others as the rounds before had them.
fn chooses_group(e: &Ast) -> bool {
    fn has_group(e: &Ast) -> bool {
        match e {
            Ast::Group(group) => group.capture_index().is_some() || has_group(&group.ast),
            Ast::Concat(concat) => concat.asts.iter().any(has_group),
            Ast::Alternation(alternation) => alternation.asts.iter().any(has_group),
            Ast::Repetition(repetition) => has_group(&repetition.ast),
            _ => false,
        }
    }
    match e {
        Ast::Alternation(_) => has_group(e),
        Ast::Group(group) => chooses_group(&group.ast),
        Ast::Concat(concat) => concat.asts.iter().any(chooses_group),
        Ast::Repetition(repetition) => chooses_group(&repetition.ast),
        _ => false,
    }
}

fn bounds(repetition: &ast::Repetition) -> (u32, Option<u32>) {
    match &repetition.op.kind {
        RepetitionKind::ZeroOrOne => (0, Some(1)),
        RepetitionKind::ZeroOrMore => (0, None),
        RepetitionKind::OneOrMore => (1, None),
        RepetitionKind::Range(RepetitionRange::Exactly(n)) => (*n, Some(*n)),
        RepetitionKind::Range(RepetitionRange::AtLeast(n)) => (*n, None),
        RepetitionKind::Range(RepetitionRange::Bounded(low, high)) => (*low, Some(*high)),
    }
}

struct Builder<'p> {
    pattern: &'p str,
    nodes: usize,
    groups: usize,
    depth: usize,
    copied: usize,
}

impl Builder<'_> {
    fn tree(&mut self, pattern: impl Into<String>, traits: Traits, parts: Parts) -> Tree {
        self.nodes += 1;
        Tree { id: self.nodes, pattern: pattern.into(), traits, parts, matcher: OnceCell::new() }
    }
    fn text(&mut self, from: usize, to: usize) -> String {
        self.copied += to - from;
        if self.copied > COPIED_MAX {
            return String::new();
        }
        self.pattern[from..to].to_owned()
    }

    /// `parse`: branches with `|` between.
    fn alternatives(&mut self, e: &Ast) -> Tree {
        let Ast::Alternation(alternation) = e else { return self.branch_of(e) };
        let branches: Vec<Tree> = alternation.asts.iter().map(|b| self.branch_of(b)).collect();
        let traits = branches.iter().fold(Traits::of(Some(Preference::Long)), |all, b| all.then(b.traits));
        let parts = if traits.is_messy() { Parts::Alternatives(branches) } else { Parts::Leaf };
        let span = e.span();
        let text = self.text(span.start.offset, span.end.offset);
        self.tree(text, traits, parts)
    }
    fn branch_of(&mut self, e: &Ast) -> Tree {
        match e {
            Ast::Concat(concat) => self.branch(&concat.asts.iter().collect::<Vec<_>>()),
            Ast::Empty(_) => self.tree("", Traits::default(), Parts::Leaf),
            other => self.branch(&[other]),
        }
    }

    /// `parsebranch`: parts one behind the other.
    fn branch(&mut self, parts: &[&Ast]) -> Tree {
        let start = parts.first().map_or(0, |p| p.span().start.offset);
        let end = parts.last().map_or(0, |p| p.span().end.offset);
        let mut before = Traits::default();
        for (i, part) in parts.iter().enumerate() {
            let (atom, low, high, prefers) = match part {
                Ast::Repetition(r) => {
                    let (low, high) = bounds(r);
                    let exact = matches!(r.op.kind, RepetitionKind::Range(RepetitionRange::Exactly(_)));
                    let prefers = if r.greedy { Preference::Long } else { Preference::Short };
                    (&*r.ast, low, high, (!exact).then_some(prefers))
                }
                other => (*other, 1, Some(1), None),
            };
            let inside = self.atom(atom);
            if (low, high) == (0, Some(0)) {
                continue;
            }
            let together = before.then(Traits::of(prefers)).then(inside.traits);
            if !together.is_messy() {
                before = together;
                continue;
            }
            let (from, to) = (part.span().start.offset, part.span().end.offset);
            let text = self.text(from, to);
            let quantified = self.quantified(inside, text, low, high, prefers);
            self.depth += 1;
            let rest = if i + 1 < parts.len() && self.depth <= DEPTH_MAX {
                self.branch(&parts[i + 1..])
            } else {
                self.tree("", Traits::default(), Parts::Leaf)
            };
            let traits = quantified.traits.then(rest.traits);
            let text = self.text(from, end);
            let tail = self.tree(text, traits, Parts::Pair(Box::new(quantified), Box::new(rest)));
            if from == start {
                return tail;
            }
            let text = self.text(start, from);
            let prefix = self.tree(text, before, Parts::Leaf);
            let text = self.text(start, end);
            return self.tree(text, before.then(traits), Parts::Pair(Box::new(prefix), Box::new(tail)));
        }
        let text = self.text(start, end);
        self.tree(text, before, Parts::Leaf)
    }

    fn atom(&mut self, e: &Ast) -> Tree {
        let span = e.span();
        let text = self.text(span.start.offset, span.end.offset);
        let Ast::Group(group) = e else { return self.tree(text, Traits::default(), Parts::Leaf) };
        match group.capture_index() {
            None => {
                let mut inside = self.alternatives(&group.ast);
                // Its flags hold inside only.
                inside.pattern = text;
                inside
            }
            Some(index) => {
                self.groups = self.groups.max(index as usize);
                let inside = self.alternatives(&group.ast);
                let traits = Traits { captures: true, ..inside.traits };
                self.tree(text, traits, Parts::Group(index as usize, Box::new(inside)))
            }
        }
    }

    /// A part with its quantifier, `text` being both.
    fn quantified(
        &mut self,
        atom: Tree,
        text: String,
        low: u32,
        high: Option<u32>,
        prefers: Option<Preference>,
    ) -> Tree {
        let traits = Traits::of(prefers).then(atom.traits);
        let agrees = atom.traits.prefers.is_none() && !atom.traits.mixed || !traits.mixed;
        if (low, high) == (1, Some(1)) && (prefers.is_none() || agrees) {
            return atom;
        }
        if !atom.traits.captures {
            return self.tree(text, traits, Parts::Leaf);
        }
        if low == 0 {
            return self.tree(text, traits, Parts::Repeated(Box::new(atom), high));
        }
        // Only the last round shows in the groups: x{m,n} is x{m-1,n-1}x.
        let most = high.map_or(String::new(), |n| (n - 1).to_string());
        let rounds = format!("(?:{}){{{},{most}}}", atom.pattern, low - 1);
        let rounds = self.tree(rounds, Traits::of(traits.prefers), Parts::Leaf);
        self.tree(text, traits, Parts::Pair(Box::new(rounds), Box::new(atom)))
    }
}

/// One match being looked into.
struct Search<'t> {
    text: &'t str,
    ignore_case: bool,
    /// By sub-expression and start, ascending.
    known: RefCell<HashMap<(usize, usize), Rc<[usize]>>>,
    /// How many ends are in `known`.
    kept: Cell<usize>,
    /// Bytes looked at.
    steps: Cell<usize>,
}

impl Search<'_> {
    /// All places where matches of a sub-expression end that begin at `start`, in order.
    fn ends(&self, tree: &Tree, start: usize) -> Result<Rc<[usize]>> {
        if let Some(known) = self.known.borrow().get(&(tree.id, start)) {
            return Ok(known.clone());
        }
        if tree.matcher.get().is_none() {
            let made = Matcher::new(&tree.pattern, self.ignore_case)?;
            let _ = tree.matcher.set(made);
        }
        let ends: Rc<[usize]> = match tree.matcher.get() {
            Some(matcher) => matcher.ends(self.text, start, &self.steps)?.into(),
            None => [].into(),
        };
        self.kept.set(self.kept.get() + ends.len() + 1);
        if self.kept.get() > KEPT_MAX {
            self.known.borrow_mut().clear();
            self.kept.set(ends.len() + 1);
        }
        self.known.borrow_mut().insert((tree.id, start), ends.clone());
        Ok(ends)
    }
    fn reaches(&self, tree: &Tree, start: usize, end: usize) -> Result<bool> {
        Ok(self.ends(tree, start)?.binary_search(&end).is_ok())
    }
    /// The ends within a piece, best first.
    fn tried(&self, tree: &Tree, prefers: Option<Preference>, start: usize, end: usize) -> Result<Vec<usize>> {
        let mut ends: Vec<usize> = self.ends(tree, start)?.iter().copied().filter(|e| *e <= end).collect();
        if prefers != Some(Preference::Short) {
            ends.reverse();
        }
        Ok(ends)
    }

    /// Fills in the groups of a sub-expression that matches exactly this piece.
    fn divide(&self, tree: &Tree, start: usize, end: usize, groups: &mut Groups) -> Result<()> {
        match &tree.parts {
            Parts::Leaf => Ok(()),
            Parts::Group(index, inside) => {
                self.divide(inside, start, end, groups)?;
                groups[*index] = Some(start..end);
                Ok(())
            }
            Parts::Pair(left, right) => {
                for middle in self.tried(left, left.traits.prefers, start, end)? {
                    if self.reaches(right, middle, end)? {
                        self.divide(left, start, middle, groups)?;
                        return self.divide(right, middle, end, groups);
                    }
                }
                Err(SqlError::internal("a match of a regular expression cannot be divided"))
            }
            Parts::Alternatives(branches) => {
                for branch in branches {
                    if self.reaches(branch, start, end)? {
                        return self.divide(branch, start, end, groups);
                    }
                }
                Err(SqlError::internal("a match of a regular expression has no branch"))
            }
            // Nothing is no round of what would rather be short, and one round of anything else that can be nothing.
            Parts::Repeated(inside, _) if start == end => {
                if inside.traits.prefers != Some(Preference::Short) && self.reaches(inside, start, end)? {
                    return self.divide(inside, start, end, groups);
                }
                Ok(())
            }
            Parts::Repeated(inside, most) => {
                let last = self.last_round(inside, start, end, *most)?;
                self.divide(inside, last, end, groups)
            }
        }
    }

    /// Where the last of the rounds begins that fill this piece, none of them empty: each as long (or short) as can be, the first ones first.
    fn last_round(&self, inside: &Tree, start: usize, end: usize, most: Option<u32>) -> Result<usize> {
        // The rounds so far: where each begins, and the ends it may still be given, best last.
        let mut rounds: Vec<(usize, Vec<usize>)> = Vec::new();
        // Places from which the end was not reached, with the number of rounds left there.
        let mut dead: std::collections::HashSet<(usize, Option<usize>)> = std::collections::HashSet::new();
        let mut at = start;
        loop {
            let mut ends = self.tried(inside, inside.traits.prefers, at, end)?;
            ends.retain(|e| *e > at);
            ends.reverse();
            rounds.push((at, ends));
            loop {
                let Some((from, ends)) = rounds.last_mut() else {
                    return Err(SqlError::internal("a repeated match of a regular expression cannot be divided"));
                };
                let from = *from;
                let Some(next) = ends.pop() else {
                    rounds.pop();
                    continue;
                };
                if next == end {
                    return Ok(from);
                }
                let left = most.map(|m| (m as usize).saturating_sub(rounds.len()));
                if left != Some(0) && dead.insert((next, left)) {
                    at = next;
                    break;
                }
            }
        }
    }
}

/// Finds the ends of one sub-expression's matches.
struct Matcher {
    dfa: DFA,
    cache: RefCell<dfa::Cache>,
    pattern: String,
    ignore_case: bool,
}

impl Matcher {
    fn new(pattern: &str, ignore_case: bool) -> Result<Matcher> {
        let dfa = DFA::builder()
            .configure(
                DFA::config().match_kind(MatchKind::All).unicode_word_boundary(true).skip_cache_capacity_check(true),
            )
            .syntax(syntax::Config::new().case_insensitive(ignore_case))
            .thompson(thompson::Config::new().which_captures(WhichCaptures::None))
            .build(&format!("(?:{pattern})"))
            .map_err(|_| too_complex())?;
        let cache = RefCell::new(dfa.create_cache());
        Ok(Matcher { dfa, cache, pattern: pattern.to_owned(), ignore_case })
    }

    fn ends(&self, text: &str, start: usize, steps: &Cell<usize>) -> Result<Vec<usize>> {
        let found = match self.fast_ends(text, start, steps) {
            Some(ends) => Ok(ends),
            None => self.slow_ends(text, start, steps),
        };
        if steps.get() > STEPS_MAX { Err(too_complex()) } else { found }
    }

    /// None where the automaton gives up: at a word's boundary in text that is not ASCII.
    fn fast_ends(&self, text: &str, start: usize, steps: &Cell<usize>) -> Option<Vec<usize>> {
        let bytes = text.as_bytes();
        let mut cache = self.cache.borrow_mut();
        let input = Input::new(text).span(start..text.len()).anchored(Anchored::Yes);
        let mut state = self.dfa.start_state_forward(&mut cache, &input).ok()?;
        let mut ends = Vec::new();
        // A state tells of the match before the byte that led to it.
        for (at, byte) in bytes.iter().enumerate().skip(start) {
            steps.set(steps.get() + 1);
            state = self.dfa.next_state(&mut cache, state, *byte).ok()?;
            if state.is_match() {
                ends.push(at);
            } else if state.is_dead() {
                return Some(ends);
            } else if state.is_quit() {
                return None;
            }
        }
        state = self.dfa.next_eoi_state(&mut cache, state).ok()?;
        if state.is_match() {
            ends.push(bytes.len());
        }
        Some(ends)
    }

    fn slow_ends(&self, text: &str, start: usize, steps: &Cell<usize>) -> Result<Vec<usize>> {
        let vm = PikeVM::builder()
            .configure(PikeVM::config().match_kind(MatchKind::All))
            .syntax(syntax::Config::new().case_insensitive(self.ignore_case))
            .build(&format!("(?:{})", self.pattern))
            .map_err(|_| too_complex())?;
        let mut cache = vm.create_cache();
        let mut ends = Vec::new();
        // The longest match within what is left, then within one character less than that.
        let mut limit = text.len();
        loop {
            let input = Input::new(text).span(start..limit).anchored(Anchored::Yes);
            steps.set(steps.get() + 16 * (limit - start) + 1);
            if steps.get() > STEPS_MAX {
                return Err(too_complex());
            }
            let Some(found) = vm.find_iter(&mut cache, input).next() else { break };
            ends.push(found.end());
            match text[start..found.end()].char_indices().next_back() {
                Some((last, _)) => limit = start + last,
                None => break,
            }
        }
        ends.reverse();
        Ok(ends)
    }
}
