//! The blind-relay protocol: its two messages, and the register of a relay, which brings together who shows the same token.
//!
//! ```text
//! protomux channel `blind-relay`, its id the client's key
//!
//! kind 0, pair     flags (1: from the side that named the relay) | token 32 | stream id uint | first packet's number uint, always 0
//! kind 1, unpair   flags, none | token 32
//!
//!                  pair, no other side          the other side's pair
//!  (unknown token) -----------------> (half) -----------------------> (pair) two streams of the relay, called legs, that pass on to each other
//!                                        |                               |
//!                                        | unpair, its session's end,    | unpair, either session's end,
//!                                        v or 60 s                       v either leg's end
//!                                    forgotten                       both legs are dropped without a word
//! ```
//!
//! A client's pair names its own stream; the relay's answer the leg that the client has to send to. Where the client's packets come from the relay learns
//! with the first of them.
//!
//! What must stay true: what one session makes us hold is bounded; only a session that asked for a token can end its pair; a leg is in one pair, and goes
//! with it. A leg must not be destroyed as other streams are: the two peers may have found a direct way, and a DESTROY from the relay would end that too.
//!
//! Source: blind-relay `index.js`; the silence of legs, `udx_stream_destroy` of libudx.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgbee_engine::encoding::compact::{self, Decoder};

use crate::udp::Now;

/// The protocol's name.
pub const PROTOCOL: &str = "blind-relay";
/// The kind of [`Pair`].
pub const PAIR: u64 = 0;
/// The kind of [`Unpair`].
pub const UNPAIR: u64 = 1;
/// Pairs of one session, whole or half.
pub const PAIRS_A_SESSION_MAX: usize = 64;
/// How long half a pair waits for its other half.
const HALF_PAIR_AGE: Duration = Duration::from_secs(60);
/// Flag of a pair: from the side that named the relay.
const INITIATOR: u8 = 1;

/// What two peers show the relay, to be brought together. Both know it from their handshake.
pub type Token = [u8; 32];

/// Asks for a pair, or says that it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Whether it is the side that named the relay.
    pub is_initiator: bool,
    /// What the other side shows as well.
    pub token: Token,
    /// The sender's stream: where to send to.
    pub id: u32,
}

impl Pair {
    /// As sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        out.push(if self.is_initiator { INITIATOR } else { 0 });
        out.extend_from_slice(&self.token);
        compact::uint(&mut out, u64::from(self.id));
        compact::uint(&mut out, 0);
        out
    }

    /// `None`: it ends early, or a number is impossible.
    pub fn decode(body: &[u8]) -> Option<Pair> {
        let mut rest = Decoder::new(body);
        let [flags] = rest.fixed().ok()?;
        let token = rest.fixed().ok()?;
        let id = u32::try_from(rest.uint().ok()?).ok()?;
        // The first packet's number is 0 from all that there are; another one would be no reason to refuse.
        rest.uint().ok()?;
        Some(Pair { is_initiator: flags & INITIATOR != 0, token, id })
    }
}

/// Ends a pair, or what asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpair {
    /// Which.
    pub token: Token,
}

impl Unpair {
    /// As sent.
    pub fn encode(&self) -> Vec<u8> {
        [&[0], &self.token[..]].concat()
    }

    /// `None`: it ends early.
    pub fn decode(body: &[u8]) -> Option<Unpair> {
        let mut rest = Decoder::new(body);
        let [_flags] = rest.fixed().ok()?;
        Some(Unpair { token: rest.fixed().ok()? })
    }
}

/// One side of a pair that is complete: tell its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// The session that asked.
    pub session: u32,
    /// The relay's stream for this side.
    pub leg: u32,
    /// What to send it.
    pub answer: Pair,
}

#[derive(Clone, Copy)]
struct Half {
    session: u32,
    /// The side's own stream.
    remote_id: u32,
    leg: Option<u32>,
}

struct State {
    since: Now,
    /// By whether it is the initiator.
    halves: [Option<Half>; 2],
}

/// Who asked a relay for which pair. Sessions and legs are named by the numbers of their streams.
#[derive(Default)]
pub struct Register {
    pairs: BTreeMap<Token, State>,
    /// Those with one half, by age.
    waiting: BTreeSet<(Now, Token)>,
    sessions: BTreeMap<u32, Vec<Token>>,
    legs: BTreeMap<u32, (Token, u32)>,
}

impl Register {
    /// How many pairs are complete.
    pub fn len(&self) -> usize {
        self.legs.len() / 2
    }

    /// Whether nobody asked for anything.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// A session asks. If the other side is there the pair is complete: `open` gives two streams, which have to pass on to each other. Refused without a word
    /// are a side that is there already, and too many pairs.
    pub fn ask(&mut self, now: Now, session: u32, asked: Pair, mut open: impl FnMut() -> u32) -> Option<[Side; 2]> {
        let place = usize::from(asked.is_initiator);
        let tokens = self.sessions.entry(session).or_default();
        let is_taken = self.pairs.get(&asked.token).is_some_and(|state| state.halves[place].is_some());
        if is_taken || tokens.len() >= PAIRS_A_SESSION_MAX {
            if tokens.is_empty() {
                self.sessions.remove(&session);
            }
            return None;
        }
        tokens.push(asked.token);
        let state = self.pairs.entry(asked.token).or_insert(State { since: now, halves: [None, None] });
        state.halves[place] = Some(Half { session, remote_id: asked.id, leg: None });
        let [Some(first), Some(second)] = &mut state.halves else {
            self.waiting.insert((state.since, asked.token));
            return None;
        };
        self.waiting.remove(&(state.since, asked.token));
        let sides = [(false, first), (true, second)].map(|(is_initiator, half)| {
            let leg = open();
            half.leg = Some(leg);
            self.legs.insert(leg, (asked.token, half.remote_id));
            Side { session: half.session, leg, answer: Pair { is_initiator, token: asked.token, id: leg } }
        });
        Some(sides)
    }

    /// A session asks for the end of a pair. The answer, here and below, are legs to drop; of others' pairs none are.
    pub fn cancel(&mut self, session: u32, token: &Token) -> Vec<u32> {
        let is_theirs = self.sessions.get(&session).is_some_and(|tokens| tokens.contains(token));
        if is_theirs { self.end(token) } else { Vec::new() }
    }

    /// A session is over.
    pub fn session_closed(&mut self, session: u32) -> Vec<u32> {
        let tokens = self.sessions.get(&session).cloned().unwrap_or_default();
        tokens.iter().flat_map(|token| self.end(token)).collect()
    }

    /// A leg is over.
    pub fn leg_closed(&mut self, leg: u32) -> Vec<u32> {
        let Some((token, _)) = self.legs.get(&leg).copied() else { return Vec::new() };
        self.end(&token)
    }

    /// The stream that a leg sends to; `None` if it is no leg.
    pub fn remote_id(&self, leg: u32) -> Option<u32> {
        self.legs.get(&leg).map(|(_, remote_id)| *remote_id)
    }

    /// When half a pair has waited long enough.
    pub fn poll_timeout(&self) -> Option<Now> {
        self.waiting.first().map(|(since, _)| *since + HALF_PAIR_AGE)
    }

    /// Forget such halves.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((_, token)) = self.waiting.first().copied().filter(|(since, _)| *since + HALF_PAIR_AGE <= now) {
            self.end(&token);
        }
    }

    fn end(&mut self, token: &Token) -> Vec<u32> {
        let Some(state) = self.pairs.remove(token) else { return Vec::new() };
        self.waiting.remove(&(state.since, *token));
        let mut legs = Vec::new();
        for half in state.halves.into_iter().flatten() {
            if let Some(tokens) = self.sessions.get_mut(&half.session) {
                tokens.retain(|other| other != token);
                if tokens.is_empty() {
                    self.sessions.remove(&half.session);
                }
            }
            if let Some(leg) = half.leg {
                self.legs.remove(&leg);
                legs.push(leg);
            }
        }
        legs
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret_stream::vectors::unhex;

    const TOKEN: Token = [7; 32];

    fn pair(is_initiator: bool, id: u32) -> Pair {
        Pair { is_initiator, token: TOKEN, id }
    }

    fn counter() -> impl FnMut() -> u32 {
        let mut next = 1000;
        move || {
            next += 1;
            next
        }
    }

    #[test]
    fn laid_out_as_in_javascript() {
        // Made with `messages` of blind-relay 1.6.1.
        let token = "07".repeat(32);
        for (message, hex) in [
            (pair(true, 5), format!("01{token}0500")),
            (pair(false, 70_000), format!("00{token}fe7011010000")),
            (pair(true, u32::MAX), format!("01{token}feffffffff00")),
        ] {
            assert_eq!(message.encode(), unhex(&hex));
            assert_eq!(Pair::decode(&unhex(&hex)), Some(message));
        }
        let unpair = Unpair { token: TOKEN };
        assert_eq!(unpair.encode(), unhex(&format!("00{token}")));
        assert_eq!(Unpair::decode(&unpair.encode()), Some(unpair));
        assert_eq!(Pair::decode(&unhex(&format!("01{token}ff000000000100000000"))), None, "an id of more than 32 bits");
    }

    #[test]
    fn two_sides_with_one_token_are_brought_together() {
        let (mut register, mut open) = (Register::default(), counter());
        assert_eq!(register.ask(Now::ZERO, 1, pair(true, 11), &mut open), None);
        let sides = register.ask(Now::ZERO, 2, pair(false, 22), &mut open).unwrap();
        assert_eq!(sides[0], Side { session: 2, leg: 1001, answer: pair(false, 1001) });
        assert_eq!(sides[1], Side { session: 1, leg: 1002, answer: pair(true, 1002) });
        assert_eq!((register.remote_id(1001), register.remote_id(1002)), (Some(22), Some(11)));
        assert_eq!((register.len(), register.poll_timeout()), (1, None));
        assert_eq!(register.session_closed(2), [1001, 1002]);
        assert!(register.is_empty() && register.sessions.is_empty() && register.legs.is_empty());
    }

    #[test]
    fn one_session_may_be_both_sides() {
        let (mut register, mut open) = (Register::default(), counter());
        register.ask(Now::ZERO, 1, pair(true, 11), &mut open);
        assert!(register.ask(Now::ZERO, 1, pair(false, 12), &mut open).is_some());
        assert_eq!(register.session_closed(1).len(), 2);
        assert!(register.is_empty() && register.sessions.is_empty());
    }

    #[test]
    fn a_side_that_is_there_is_not_replaced() {
        let (mut register, mut open) = (Register::default(), counter());
        register.ask(Now::ZERO, 1, pair(true, 11), &mut open);
        assert_eq!(register.ask(Now::ZERO, 3, pair(true, 33), &mut open), None);
        let sides = register.ask(Now::ZERO, 2, pair(false, 22), &mut open).unwrap();
        assert_eq!(sides[1].session, 1);
        // Nor may who has no part in it end it.
        assert!(register.cancel(3, &TOKEN).is_empty());
        assert!(register.session_closed(3).is_empty());
        assert_eq!(register.len(), 1);
        assert_eq!(register.cancel(2, &TOKEN).len(), 2);
        assert!(register.is_empty());
    }

    #[test]
    fn half_a_pair_waits_for_a_minute() {
        let (mut register, mut open) = (Register::default(), counter());
        register.ask(Duration::from_secs(1), 1, pair(true, 11), &mut open);
        assert_eq!(register.poll_timeout(), Some(Duration::from_secs(61)));
        register.handle_timeout(Duration::from_secs(60));
        assert!(!register.is_empty());
        register.handle_timeout(Duration::from_secs(61));
        assert!(register.is_empty() && register.sessions.is_empty());
        assert_eq!(register.ask(Duration::from_secs(61), 2, pair(false, 22), &mut open), None);
    }

    #[test]
    fn a_session_has_so_many_pairs_and_no_more() {
        let mut register = Register::default();
        for number in 0..1000_u32 {
            let mut token = [0; 32];
            token[..4].copy_from_slice(&number.to_le_bytes());
            register.ask(Now::ZERO, 1, Pair { is_initiator: true, token, id: number }, counter());
        }
        assert_eq!((register.pairs.len(), register.waiting.len()), (PAIRS_A_SESSION_MAX, PAIRS_A_SESSION_MAX));
        register.session_closed(1);
        assert!(register.is_empty() && register.waiting.is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (Pair::decode(&body), Unpair::decode(&body));
        }

        /// Whatever is asked in whatever order: a leg is in one pair, and when all sessions are over nothing is left.
        #[test]
        fn nothing_is_left_behind(steps in proptest::collection::vec((0..6_u8, 0..4_u32, 0..3_u8, any::<bool>()), 0..200)) {
            let (mut register, mut open) = (Register::default(), counter());
            let mut live = BTreeSet::new();
            for (number, (what, session, token, is_initiator)) in steps.into_iter().enumerate() {
                let now = Duration::from_secs(number as u64);
                let token = [token; 32];
                let gone = match what {
                    0..3 => {
                        for side in register.ask(now, session, Pair { is_initiator, token, id: session }, &mut open).into_iter().flatten() {
                            prop_assert!(live.insert(side.leg));
                        }
                        Vec::new()
                    }
                    3 => register.cancel(session, &token),
                    4 => register.session_closed(session),
                    _ => live.first().copied().map(|leg| register.leg_closed(leg)).unwrap_or_default(),
                };
                register.handle_timeout(now);
                for leg in gone {
                    prop_assert!(live.remove(&leg));
                    prop_assert_eq!(register.remote_id(leg), None);
                }
                prop_assert_eq!(register.len() * 2, live.len());
            }
            for session in 0..4 {
                register.session_closed(session).iter().for_each(|leg| assert!(live.remove(leg)));
            }
            prop_assert!(live.is_empty() && register.is_empty() && register.sessions.is_empty() && register.waiting.is_empty());
        }
    }
}
