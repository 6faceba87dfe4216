//! How fast an edge signs for an agent: it cannot see what it signs, so a stolen agent gets no more
//! than a session needs. What is over the rate waits.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// Signatures that one session may have in a row.
const SESSION_BURST: u64 = 32;
/// And then one in so many milliseconds: 10 a second.
const SESSION_MS: u64 = 100;
/// Those that one agent may have in a row.
const AGENT_BURST: u64 = 500;
/// And then one in so many milliseconds: 500 a second.
const AGENT_MS: u64 = 2;
/// Questions that wait, of one link: as many as an agent asks at a time.
const WAITING_MAX: usize = 1 << 16;
/// And their bytes: so many with a key of 4096 bits.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Sessions whose rate is remembered; those that have rested are forgotten first.
const SESSIONS_MAX: usize = 1 << 16;

/// A question of an agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Question {
    pub(super) ticket: u64,
    pub(super) session: u64,
    pub(super) algorithm: String,
    pub(super) host_key: Vec<u8>,
    pub(super) hash: Vec<u8>,
}

impl Question {
    const fn bytes(&self) -> usize {
        self.algorithm.len() + self.host_key.len() + self.hash.len()
    }
}

/// When the last of a burst will have been paid for, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Meter(u64);

impl Meter {
    /// When one more may be had.
    const fn due_ms(self, burst: u64, each_ms: u64) -> u64 {
        self.0.saturating_sub(burst.saturating_sub(1).saturating_mul(each_ms))
    }

    fn count(&mut self, now_ms: u64, each_ms: u64) {
        self.0 = self.0.max(now_ms).saturating_add(each_ms);
    }
}

/// How much an agent has had, whichever of its links it asked on.
#[derive(Default)]
pub(super) struct Rates {
    agent: Meter,
    sessions: HashMap<u64, Meter>,
}

impl Rates {
    const fn agent_due_ms(&self) -> u64 {
        self.agent.due_ms(AGENT_BURST, AGENT_MS)
    }

    fn session_due_ms(&self, session: u64) -> u64 {
        let meter = self.sessions.get(&session).copied().unwrap_or_default();
        meter.due_ms(SESSION_BURST, SESSION_MS)
    }

    fn count(&mut self, session: u64, now_ms: u64) {
        if self.sessions.len() >= SESSIONS_MAX {
            self.sessions.retain(|_, meter| meter.0 > now_ms);
        }
        self.agent.count(now_ms, AGENT_MS);
        self.sessions.entry(session).or_default().count(now_ms, SESSION_MS);
    }
}

/// What was asked on one link.
#[derive(Default)]
pub(super) struct Questions {
    /// Of each session, in order; never none.
    waiting: HashMap<u64, VecDeque<Question>>,
    /// When the first question of each session may be answered, or earlier.
    order: BTreeSet<(u64, u64)>,
    count: usize,
    bytes: usize,
}

impl Questions {
    /// Takes a question. False: more wait than any agent asks.
    pub(super) fn push(&mut self, question: Question, rates: &Rates) -> bool {
        let bytes = self.bytes.saturating_add(question.bytes());
        if self.count >= WAITING_MAX || bytes > WAITING_BYTES_MAX {
            return false;
        }
        (self.count, self.bytes) = (self.count + 1, bytes);
        let session = question.session;
        let queue = self.waiting.entry(session).or_default();
        if queue.is_empty() {
            self.order.insert((rates.session_due_ms(session), session));
        }
        queue.push_back(question);
        true
    }

    /// A question that may be answered now; it is counted.
    pub(super) fn due(&mut self, now_ms: u64, rates: &mut Rates) -> Option<Question> {
        if rates.agent_due_ms() > now_ms {
            return None;
        }
        loop {
            let (_, session) = self.order.first().copied().filter(|(due, _)| *due <= now_ms)?;
            self.order.pop_first();
            // Another link of the agent's may have asked for the same session.
            let due_ms = rates.session_due_ms(session);
            if due_ms > now_ms {
                self.order.insert((due_ms, session));
                continue;
            }
            rates.count(session, now_ms);
            let queue = self.waiting.get_mut(&session)?;
            let question = queue.pop_front()?;
            if queue.is_empty() {
                self.waiting.remove(&session);
            } else {
                self.order.insert((rates.session_due_ms(session), session));
            }
            self.count -= 1;
            self.bytes -= question.bytes();
            return Some(question);
        }
    }

    /// How long until there is one, in milliseconds, if any waits.
    pub(super) fn next_ms(&self, now_ms: u64, rates: &Rates) -> Option<u64> {
        let (due_ms, _) = self.order.first()?;
        Some(rates.agent_due_ms().max(*due_ms).saturating_sub(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: u64 = 1_000_000;

    fn question(ticket: u64, session: u64) -> Question {
        let (algorithm, host_key, hash) = (String::new(), Vec::new(), Vec::new());
        Question { ticket, session, algorithm, host_key, hash }
    }

    /// The tickets of what is answered now.
    fn had(questions: &mut Questions, rates: &mut Rates, now_ms: u64) -> Vec<u64> {
        let due = std::iter::from_fn(|| questions.due(now_ms, rates));
        due.map(|question| question.ticket).collect()
    }

    #[test]
    fn a_session_has_a_burst_and_then_ten_a_second_and_keeps_no_other_one_waiting() {
        let (mut questions, mut rates) = (Questions::default(), Rates::default());
        for ticket in 0..100 {
            assert!(questions.push(question(ticket, 1), &rates));
        }
        let mut count = |at_ms| had(&mut questions, &mut rates, START_MS + at_ms);
        assert_eq!(count(0), (0..32).collect::<Vec<_>>(), "in order");
        assert_eq!(count(99).len(), 0);
        assert_eq!(count(100), [32]);
        assert_eq!(count(1_100).len(), 10);
        // What is over the rate is late, not lost.
        assert_eq!(count(1_000_000).len(), 32);
        assert_eq!(count(2_000_000), (75..100).collect::<Vec<_>>());
        assert_eq!(questions.next_ms(START_MS, &rates), None);
        for ticket in 0..40 {
            assert!(questions.push(question(ticket, 1), &rates));
        }
        let later_ms = START_MS + 2_000_000;
        assert_eq!(had(&mut questions, &mut rates, later_ms).len(), 7);
        assert!(questions.push(question(100, 2), &rates));
        assert_eq!(had(&mut questions, &mut rates, later_ms), [100]);
        assert_eq!(questions.next_ms(later_ms, &rates), Some(100));
        assert_eq!(questions.next_ms(later_ms + 60, &rates), Some(40));
        assert_eq!(questions.next_ms(later_ms + 160, &rates), Some(0));
    }

    #[test]
    fn an_agent_has_five_hundred_a_second_however_many_its_sessions() {
        let (mut questions, mut rates) = (Questions::default(), Rates::default());
        for session in 0..2000 {
            assert!(questions.push(question(session, session), &rates));
        }
        let mut count = |at_ms| had(&mut questions, &mut rates, START_MS + at_ms).len();
        assert_eq!([0, 1_000, 1_100].map(&mut count), [500, 500, 50]);
        assert_eq!(questions.next_ms(START_MS + 1_100, &rates), Some(2));
    }

    #[test]
    fn a_second_link_gives_an_agent_and_its_session_nothing_more() {
        let (mut links, mut rates) = ([(); 2].map(|()| Questions::default()), Rates::default());
        for questions in &mut links {
            for ticket in 0..40 {
                assert!(questions.push(question(ticket, 1), &rates));
            }
        }
        assert_eq!(had(&mut links[0], &mut rates, START_MS).len(), 32);
        assert_eq!(had(&mut links[1], &mut rates, START_MS).len(), 0);
        assert_eq!(links[1].next_ms(START_MS, &rates), Some(100));
        assert_eq!(had(&mut links[1], &mut rates, START_MS + 100).len(), 1);
        assert_eq!(had(&mut links[0], &mut rates, START_MS + 100).len(), 0);
    }

    #[test]
    fn no_more_wait_than_an_agent_asks_and_no_more_bytes() {
        let (mut questions, mut rates) = (Questions::default(), Rates::default());
        let all = u64::try_from(WAITING_MAX).unwrap();
        for session in 0..all {
            assert!(questions.push(question(session, session), &rates));
        }
        assert!(!questions.push(question(all, all), &rates));
        assert!(questions.due(START_MS, &mut rates).is_some());
        assert!(questions.push(question(all, all), &rates));
        let mut questions = Questions::default();
        let long = Question { host_key: vec![0; WAITING_BYTES_MAX / 2], ..question(1, 1) };
        assert!(questions.push(long.clone(), &rates) && questions.push(long.clone(), &rates));
        assert!(!questions.push(long.clone(), &rates));
        assert!(questions.due(START_MS + 10, &mut rates).is_some());
        assert!(questions.push(long, &rates));
    }
}
