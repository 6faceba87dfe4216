//! What one audience was sent: encoded once, kept for whoever comes back, and never much of it.

use std::collections::VecDeque;

use axum::body::Bytes;
use tokio::sync::watch;

use crate::route::saved_routes::{self, Head};
use crate::route::{Change, Delta};

/// Changes that wait to be encoded. Where somebody listens they wait for some milliseconds only.
pub(super) const PENDING_MAX: usize = 256;
/// Connections of one follower: a process, its successor, and what is not known to be gone yet.
/// The oldest makes room.
pub(super) const STREAMS_MAX: usize = 4;

/// What one audience was sent.
#[derive(Debug)]
pub(super) struct Ring {
    /// Of the one who may follow.
    pub(super) key: [u8; 32],
    /// All that changed after this revision is here.
    pub(super) floor: u64,
    /// The digest of what was read, before there were changes.
    pub(super) origin: Option<[u8; 32]>,
    /// Where the last delta leads.
    last: u64,
    /// Encoded, with the revision that each leads to.
    deltas: VecDeque<(u64, Bytes)>,
    pub(super) bytes: usize,
    /// Not encoded yet, and the revision that it leads to.
    pending: (u64, Vec<Change>),
    /// Who follows, the oldest first, and how far each has come.
    pub(super) streams: VecDeque<(u64, u64)>,
    /// Says that there is something more; gone with the ring.
    pub(super) moved: watch::Sender<()>,
}

impl Ring {
    pub(super) fn new(key: [u8; 32], revision: u64) -> Self {
        Self {
            key,
            floor: revision,
            origin: None,
            last: revision,
            deltas: VecDeque::new(),
            bytes: 0,
            pending: (revision, Vec::new()),
            streams: VecDeque::new(),
            moved: watch::Sender::new(()),
        }
    }

    /// Takes what leads to the revision of `head`.
    pub(super) fn push(&mut self, head: Head, changes: Vec<Change>, bytes_max: usize) {
        self.pending.0 = head.revision;
        self.pending.1.extend(changes);
        // Nobody may be there to take it.
        if self.pending.1.len() >= PENDING_MAX {
            self.flush(head, bytes_max);
        }
        self.moved.send_replace(());
    }

    /// Encodes what came since the last time.
    pub(super) fn flush(&mut self, head: Head, bytes_max: usize) {
        if self.pending.1.is_empty() {
            return;
        }
        let (revision, changes) = (self.pending.0, std::mem::take(&mut self.pending.1));
        let head = Head { revision, ..head };
        let delta = framed(&[saved_routes::encode_delta(head, self.last, &Delta { changes })]);
        self.last = revision;
        self.bytes += delta.len();
        self.deltas.push_back((revision, delta));
        while self.bytes > bytes_max && self.deltas.len() > 1 {
            let Some((gone, delta)) = self.deltas.pop_front() else { break };
            self.bytes -= delta.len();
            self.floor = gone;
        }
    }

    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.pending.1.len()
    }

    /// One more who follows, and has come so far.
    pub(super) fn enter(&mut self, number: u64, after: u64) {
        self.streams.push_back((number, after));
        if self.streams.len() > STREAMS_MAX {
            self.streams.pop_front();
            self.moved.send_replace(());
        }
    }

    pub(super) fn leave(&mut self, number: u64) {
        self.streams.retain(|(other, _)| *other != number);
    }

    /// Where somebody stands who follows.
    pub(super) fn after(&mut self, number: u64) -> Option<&mut u64> {
        let mut streams = self.streams.iter_mut();
        streams.find(|(other, _)| *other == number).map(|(_, after)| after)
    }

    /// What leads on from a revision, in order, and to which one.
    pub(super) fn since(&self, after: u64) -> (u64, impl Iterator<Item = Bytes>) {
        let from = self.deltas.partition_point(|(revision, _)| *revision <= after);
        let to = self.deltas.back().map_or(after, |(revision, _)| after.max(*revision));
        (to, self.deltas.iter().skip(from).map(|(_, delta)| delta.clone()))
    }
}

/// In one piece, behind its length.
pub(super) fn framed<P: AsRef<[u8]>>(pieces: &[P]) -> Bytes {
    let length: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
    let mut frame = Vec::with_capacity(size_of::<u32>() + length);
    // What is longer is refused where it is read.
    frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    for piece in pieces {
        frame.extend_from_slice(piece.as_ref());
    }
    frame.into()
}
