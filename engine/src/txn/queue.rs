//! How those who commit together wait for each other: one [`Ticket`] each.
//!
//! There is no thread for it. Whoever opens a group leads it: it writes the group when the one before is written, and
//! answers everyone in it.
//!
//! ```text
//! A opens a group, writes it  |---- disk ----|
//! B opens the next one          B joins  .   | hears "lead"; writes |---- disk ----|  B, C, D are answered
//! C, D                             C joins, D joins
//! ```

use std::mem;

use parking_lot::{Condvar, Mutex};

/// A place in a group, of one who waits for an answer `A`.
pub(crate) struct Ticket<A> {
    state: Mutex<State<A>>,
    changed: Condvar,
}

enum State<A> {
    Waiting,
    /// Its owner is to lead.
    Lead,
    Answered(A),
    /// The owner took the answer.
    Gone,
}

impl<A> Ticket<A> {
    pub fn new() -> Ticket<A> {
        Ticket { state: Mutex::new(State::Waiting), changed: Condvar::new() }
    }

    /// Tells the owner that it is to lead.
    pub fn lead(&self) {
        self.set(State::Lead);
    }

    /// Tells the owner its answer.
    pub fn answer(&self, answer: A) {
        self.set(State::Answered(answer));
    }

    fn set(&self, state: State<A>) {
        *self.state.lock() = state;
        self.changed.notify_one();
    }

    /// Waits until it is this ticket's turn: `None`, or until it is answered.
    pub fn wait(&self) -> Option<A> {
        let mut state = self.state.lock();
        loop {
            match mem::replace(&mut *state, State::Gone) {
                State::Waiting => *state = State::Waiting,
                State::Lead => {
                    *state = State::Waiting;
                    return None;
                }
                State::Answered(answer) => return Some(answer),
                State::Gone => unreachable!("a ticket has one owner"),
            }
            self.changed.wait(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn who_waits_is_told_to_lead_and_then_the_answer() {
        let ticket = Ticket::new();
        thread::scope(|scope| {
            let owner = scope.spawn(|| {
                assert_eq!(ticket.wait(), None);
                ticket.answer(7);
                ticket.wait()
            });
            ticket.lead();
            assert_eq!(owner.join().unwrap(), Some(7));
        });
    }
}
