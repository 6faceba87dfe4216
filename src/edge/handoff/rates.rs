//! How fast an edge signs for an agent: it cannot see what it signs, so a stolen agent gets no more
//! than a session needs. What is over the rate waits.

use std::collections::{HashMap, VecDeque};

use super::super::clock;

/// Signatures that one session may have in a row.
const SESSION_BURST: u64 = 32;
/// And then one in so many milliseconds: 10 a second.
const SESSION_MS: u64 = 100;
/// Those that one agent may have in a row.
const AGENT_BURST: u64 = 500;
/// And then one in so many milliseconds: 500 a second.
const AGENT_MS: u64 = 2;
/// Questions that wait, of one agent: as many as it asks at a time.
const WAITING_MAX: usize = 1 << 16;
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

/// What one agent has asked, and how much it has had.
#[derive(Default)]
pub(super) struct Questions {
    waiting: VecDeque<Question>,
    agent: Meter,
    sessions: HashMap<u64, Meter>,
}

impl Questions {
    /// Takes a question. False: more wait than any agent asks.
    pub(super) fn push(&mut self, question: Question) -> bool {
        let has_room = self.waiting.len() < WAITING_MAX;
        if has_room {
            self.waiting.push_back(question);
        }
        has_room
    }

    /// The first question that may be answered now.
    pub(super) fn due(&mut self, now_ms: u64) -> Option<Question> {
        if self.agent.due_ms(AGENT_BURST, AGENT_MS) > now_ms {
            return None;
        }
        let at = self.waiting.iter().position(|question| self.session_due(question) <= now_ms)?;
        let question = self.waiting.remove(at)?;
        if self.sessions.len() >= SESSIONS_MAX {
            self.sessions.retain(|_, meter| meter.0 > now_ms);
        }
        self.agent.count(now_ms, AGENT_MS);
        self.sessions.entry(question.session).or_default().count(now_ms, SESSION_MS);
        Some(question)
    }

    /// How long until there is one, in milliseconds, if any waits.
    pub(super) fn next_ms(&self) -> Option<u64> {
        let session = self.waiting.iter().map(|question| self.session_due(question)).min()?;
        let at_ms = session.max(self.agent.due_ms(AGENT_BURST, AGENT_MS));
        Some(at_ms.saturating_sub(clock::monotonic_ms()))
    }

    fn session_due(&self, question: &Question) -> u64 {
        let meter = self.sessions.get(&question.session).copied().unwrap_or_default();
        meter.due_ms(SESSION_BURST, SESSION_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(ticket: u64, session: u64) -> Question {
        let (algorithm, host_key, hash) = (String::new(), Vec::new(), Vec::new());
        Question { ticket, session, algorithm, host_key, hash }
    }

    fn had(questions: &mut Questions, now_ms: u64) -> usize {
        std::iter::from_fn(|| questions.due(now_ms)).count()
    }

    #[test]
    fn a_session_has_a_burst_and_then_ten_a_second_and_keeps_no_other_one_waiting() {
        let mut questions = Questions::default();
        for ticket in 0..100 {
            assert!(questions.push(question(ticket, 1)));
        }
        assert_eq!(had(&mut questions, 1_000_000), 32);
        assert!(questions.push(question(100, 2)));
        assert_eq!(questions.due(1_000_000).map(|question| question.session), Some(2));
        assert_eq!(had(&mut questions, 1_000_099), 0);
        assert_eq!(had(&mut questions, 1_000_100), 1);
        assert_eq!(had(&mut questions, 1_001_100), 10);
        // What is over the rate is late, not lost.
        assert_eq!(had(&mut questions, 2_000_000), 32);
        assert_eq!(had(&mut questions, 3_000_000), 25);
    }

    #[test]
    fn an_agent_has_five_hundred_a_second_however_many_its_sessions() {
        let mut questions = Questions::default();
        for session in 0..2000 {
            assert!(questions.push(question(session, session)));
        }
        assert_eq!(had(&mut questions, 1_000_000), 500);
        assert_eq!(had(&mut questions, 1_001_000), 500);
        assert_eq!(had(&mut questions, 1_001_100), 50);
    }
}
