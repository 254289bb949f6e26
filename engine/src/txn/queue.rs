//! A queue that works in groups, without a thread of its own.
//!
//! Whoever comes while nobody leads becomes the leader: it takes all that wait, does their work at once
//! and its own with it, answers everyone, and hands the lead to the first who came meanwhile.
//!
//! ```text
//! A comes, leads:   [A]      |-- work --|
//! B, C, D come:                 wait, wait, wait
//! B is handed the lead:                 [B C D] |-- work --|  all three answered
//! ```
//!
//! While one group waits for the disk the next one gathers, so the more commit at once, the fewer fsyncs
//! each costs. Nobody waits for company: a lone committer leads at once.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Jobs `J` are answered by `A`.
pub(crate) struct Queue<J, A> {
    line: Mutex<Line<J, A>>,
    /// The answer of those whose leader panicked.
    abandoned: fn() -> A,
}

struct Line<J, A> {
    waiting: VecDeque<Arc<Ticket<J, A>>>,
    /// Someone leads or was handed the lead. If nobody does, nobody waits.
    has_leader: bool,
}

struct Ticket<J, A> {
    job: Mutex<Option<J>>,
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

impl<J, A> Ticket<J, A> {
    fn set(&self, state: State<A>) {
        *self.state.lock() = state;
        self.changed.notify_one();
    }

    /// Waits until it is this ticket's turn: `None`, or until it is answered.
    fn wait(&self) -> Option<A> {
        let mut state = self.state.lock();
        loop {
            match mem::replace(&mut *state, State::Gone) {
                State::Waiting => *state = State::Waiting,
                State::Lead => return None,
                State::Answered(answer) => return Some(answer),
                State::Gone => unreachable!("a ticket has one owner"),
            }
            self.changed.wait(&mut state);
        }
    }
}

impl<J, A> Queue<J, A> {
    pub fn new(abandoned: fn() -> A) -> Queue<J, A> {
        let line = Line { waiting: VecDeque::new(), has_leader: false };
        Queue { line: Mutex::new(line), abandoned }
    }

    /// Has the job done, by this thread or another. `work` answers each job of a group, in their order.
    pub fn run(&self, job: J, work: impl FnOnce(&[J]) -> Vec<A>) -> A {
        let ticket =
            Arc::new(Ticket { job: Mutex::new(Some(job)), state: Mutex::new(State::Waiting), changed: Condvar::new() });
        let leads = {
            let mut line = self.line.lock();
            line.waiting.push_back(ticket.clone());
            !mem::replace(&mut line.has_leader, true)
        };
        if !leads && let Some(answer) = ticket.wait() {
            return answer;
        }
        let group: Vec<_> = self.line.lock().waiting.drain(..).collect();
        debug_assert!(Arc::ptr_eq(&group[0], &ticket), "the first in line leads");
        let jobs: Vec<J> = group.iter().filter_map(|ticket| ticket.job.lock().take()).collect();
        let mut lead = Lead { queue: self, group, answers: Vec::new() };
        lead.answers = work(&jobs);
        assert_eq!(lead.answers.len(), lead.group.len(), "every job has one answer");
        drop(lead);
        drop(jobs); // a large one takes a while: only after everyone was answered
        match ticket.wait() {
            Some(answer) => answer,
            None => unreachable!("a leader answers itself"),
        }
    }
}

/// The lead, given up by dropping it: also when the work panics.
struct Lead<'a, J, A> {
    queue: &'a Queue<J, A>,
    group: Vec<Arc<Ticket<J, A>>>,
    answers: Vec<A>,
}

impl<J, A> Drop for Lead<'_, J, A> {
    fn drop(&mut self) {
        {
            let mut line = self.queue.line.lock();
            match line.waiting.front() {
                Some(first) => first.set(State::Lead),
                None => line.has_leader = false,
            }
        }
        let mut answers = mem::take(&mut self.answers).into_iter();
        for ticket in &self.group {
            ticket.set(State::Answered(answers.next().unwrap_or_else(self.queue.abandoned)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    #[test]
    fn every_job_gets_its_own_answer_in_fewer_groups() {
        let queue: Queue<usize, usize> = Queue::new(|| usize::MAX);
        let (groups, working) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for thread in 0..8 {
                let (queue, groups, working) = (&queue, &groups, &working);
                scope.spawn(move || {
                    for i in 0..100 {
                        let job = thread * 1000 + i;
                        let answer = queue.run(job, |jobs| {
                            assert_eq!(working.fetch_add(1, Ordering::SeqCst), 0, "two lead");
                            groups.fetch_add(1, Ordering::Relaxed);
                            thread::sleep(Duration::from_micros(200));
                            working.fetch_sub(1, Ordering::SeqCst);
                            jobs.iter().map(|job| job * 2).collect()
                        });
                        assert_eq!(answer, job * 2);
                    }
                });
            }
        });
        let groups = groups.into_inner();
        assert!(groups < 600, "800 jobs in {groups} groups");
        assert!(!queue.line.lock().has_leader);
    }

    #[test]
    fn a_panic_of_the_leader_strands_nobody() {
        let queue: Queue<usize, usize> = Queue::new(|| usize::MAX);
        thread::scope(|scope| {
            let leader = scope.spawn(|| {
                queue.run(1, |_| {
                    // Let the other one line up behind us.
                    while queue.line.lock().waiting.is_empty() {
                        thread::yield_now();
                    }
                    panic!("on purpose")
                })
            });
            while !queue.line.lock().has_leader {
                thread::yield_now();
            }
            assert_eq!(queue.run(2, |jobs| jobs.to_vec()), 2);
            assert!(leader.join().is_err());
        });
        assert_eq!(queue.run(3, |jobs| jobs.to_vec()), 3);
    }
}
