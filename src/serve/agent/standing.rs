//! How an agent is, and what it is told besides signals: at a socket of its own in the state
//! directory. Each process has one, so that the one that drains is heard beside its successor.
//!
//! Whoever connects says one word, and gets one JSON object. The directory is nobody else's.

#![expect(clippy::disallowed_methods, reason = "whoever asks is answered by a thread")]

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::door::at;
use super::super::events::Asking;
use super::feed::Following;
use crate::edge::handoff::{Agent, FarEnd, Part};
use crate::edge::shared::Shared;
use crate::edge::{Edge, clock};
use crate::metrics::Registry;
use crate::state::{AGENT_DRAIN, AGENT_END, AgentSocket};

/// How long whoever has connected may take to say what it wants, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longer than any word that is known, in bytes.
const WORD_BYTES_MAX: u64 = 16;

/// What is told of this process.
pub(super) struct Standing {
    pub(super) edge: Weak<Edge>,
    pub(super) shared: Arc<Shared>,
    pub(super) counted: Arc<Registry>,
    pub(super) seats_max: usize,
    /// Of an agent that follows a control plane.
    pub(super) following: Option<Following>,
    pub(super) since_s: u64,
    pub(super) phase: Mutex<Phase>,
}

/// What it does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// It takes sessions.
    Up,
    /// It was told to go, and takes sessions until its successor does, or for a moment.
    HandingOver,
    /// It takes nothing more; at this second of Unix time whoever is left is sent away.
    Draining { until_s: u64 },
}

impl Standing {
    pub(super) fn is(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> Value {
        let edge = self.edge.upgrade();
        let has_fallen = edge.as_ref().is_none_or(|edge| edge.has_fallen());
        let (state, until_s) = match self.phase() {
            Phase::Up if has_fallen => ("fallen", None),
            Phase::Up => ("up", None),
            Phase::HandingOver => ("handing-over", None),
            Phase::Draining { until_s } => ("draining", Some(until_s)),
        };
        let feed = self.following.as_ref().map(|Following { followed, unsaved }| {
            json!({
                "connected": followed.is_connected(),
                "revision": followed.revision(),
                "age_s": followed.age_s(),
                "unsaved_s": unsaved.for_s(),
            })
        });
        let agent = match &self.shared.part {
            Part::Agent(agent) => Some(agent),
            Part::Alone | Part::Edge(_) => None,
        };
        json!({
            "state": state,
            "until_s": until_s,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "since_s": self.since_s,
            "sessions": self.shared.seats_taken().load(Ordering::Relaxed),
            "sessions_max": self.seats_max,
            "half_open": self.counted.half_open(),
            "identity": agent.map(|agent| agent.key().to_string()),
            "listen": edge.as_ref().map(|edge| at(edge)),
            "feed": feed,
            "edges": edge.zip(agent).map_or_else(Vec::new, |(edge, agent)| edges(&edge, agent)),
        })
    }
}

/// Each control link that is open, with the sessions of its edge.
fn edges(edge: &Edge, agent: &Agent) -> Vec<Value> {
    let mut sessions = HashMap::<_, u64>::new();
    for present in edge.sessions() {
        if let Some(FarEnd::Edge(key)) = present.report.far_end.as_deref() {
            *sessions.entry(*key).or_default() += 1;
        }
    }
    let mut links = agent.links();
    links.sort_unstable_by_key(|link| link.since_s);
    let told = links.into_iter().map(|link| {
        let sessions = sessions.get(&link.edge).copied().unwrap_or_default();
        let (edge, from) = (link.edge.to_string(), link.from.to_string());
        json!({ "edge": edge, "from": from, "since_s": link.since_s, "sessions": sessions })
    });
    told.collect()
}

/// Answers at `socket` until the process ends.
///
/// # Errors
/// Out of threads.
pub(super) fn answer(
    socket: &AgentSocket,
    standing: Arc<Standing>,
    asking: Asking,
) -> io::Result<()> {
    let listener = socket.listener()?;
    let serve = move || {
        for came in listener.incoming().flatten() {
            // Whoever does not wait for the answer has not asked.
            let _gone = answer_one(came, &standing, &asking);
        }
    };
    std::thread::Builder::new().name("standing".to_owned()).spawn(serve)?;
    Ok(())
}

fn answer_one(mut came: UnixStream, standing: &Standing, asking: &Asking) -> io::Result<()> {
    came.set_read_timeout(Some(PATIENCE))?;
    came.set_write_timeout(Some(PATIENCE))?;
    let mut word = String::new();
    (&came).take(WORD_BYTES_MAX).read_to_string(&mut word)?;
    match word.as_str() {
        // One that goes already would be ended by being told so again.
        AGENT_DRAIN if standing.phase() == Phase::Up => {
            standing.is(Phase::HandingOver);
            asking.drain();
        }
        AGENT_END => asking.end(),
        _ => {}
    }
    let mut told = standing.told().to_string();
    told.push('\n');
    came.write_all(told.as_bytes())
}

/// Until when sessions go on that do so for `patience` from now.
pub(super) fn ends_s(patience: Duration) -> u64 {
    clock::unix_s().saturating_add(patience.as_secs())
}
