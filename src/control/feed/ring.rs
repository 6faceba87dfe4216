//! What one audience was sent: encoded once, kept for whoever comes back, and never much of it.

use std::collections::VecDeque;

use axum::body::Bytes;
use tokio::sync::watch;

use crate::route::saved_routes::{self, Head, VERSION};
use crate::route::{Change, Delta, Denied, TeamEntry, UserEntry, VmEntry};

/// Changes that wait to be encoded. Where somebody listens they wait for some milliseconds only.
pub(super) const PENDING_MAX: usize = 256;
/// Connections of one follower: a process, its successor, and what is not known to be gone yet.
/// The oldest makes room.
pub(super) const STREAMS_MAX: usize = 4;

/// One who follows.
#[derive(Debug)]
pub(super) struct Stream {
    number: u64,
    /// How far it has come.
    pub(super) after: u64,
    /// The version of the frames.
    pub(super) speaks: u16,
    /// It begins anew, and it is not its turn yet.
    pub(super) waits: bool,
    /// What it was told is denied: which time that was.
    denials: u64,
}

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
    /// What comes waits: others are to show first that it does no harm.
    pub(super) held: bool,
    /// What is taken away by changes that are not sent for a while, and the last revision of these.
    denied: Option<(u64, Denied)>,
    /// Goes up with every change of it.
    denials: u64,
    /// Who follows, the oldest first.
    pub(super) streams: VecDeque<Stream>,
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
            held: false,
            denied: None,
            denials: 0,
            streams: VecDeque::new(),
            moved: watch::Sender::new(()),
        }
    }

    /// Takes what leads to the revision of `head`.
    pub(super) fn push(&mut self, head: Head, changes: Vec<Change>, bytes_max: usize) {
        self.pending.0 = head.revision;
        self.pending.1.extend(changes);
        // Nobody may be there to take it.
        if !self.held && self.pending.1.len() >= PENDING_MAX {
            self.flush(head, bytes_max);
        }
        self.moved.send_replace(());
    }

    /// Encodes what came since the last time.
    pub(super) fn flush(&mut self, head: Head, bytes_max: usize) {
        if self.held || self.pending.1.is_empty() {
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

    /// Whether somebody follows, and nobody who cannot be told what is denied.
    pub(super) fn can_be_asked(&self) -> bool {
        !self.streams.is_empty() && self.can_be_held() && self.streams.iter().all(|it| !it.waits)
    }

    /// Whether nobody follows who cannot be told what is denied.
    pub(super) fn can_be_held(&self) -> bool {
        self.streams.iter().all(|stream| stream.speaks >= VERSION)
    }

    /// Whether somebody is sent no ordered changes for a while.
    pub(super) fn is_aside(&self) -> bool {
        self.held || self.streams.iter().any(|stream| stream.waits)
    }

    /// What a commit takes away, which leads to this revision; nothing if that is too much.
    pub(super) fn deny(&mut self, until: u64, more: Option<Denied>) -> bool {
        let Some(more) = more else {
            self.denied = None;
            return false;
        };
        if more.is_empty() {
            return true;
        }
        let before = self.denied.take().map(|(_, denied)| denied).unwrap_or_default();
        self.denied = before.and(more).ok().map(|denied| (until, denied));
        self.denials += 1;
        self.denied.is_some()
    }

    /// Everybody has what was denied, or will in a moment.
    pub(super) fn deny_no_more(&mut self) {
        self.denied = None;
    }

    /// What is denied, if somebody is to be told who is sent no ordered changes.
    pub(super) fn denied_to(&mut self, number: u64, head: Head) -> Option<Bytes> {
        let Self { denied: Some((until, denied)), denials, streams, held, .. } = self else {
            return None;
        };
        let stream = streams.iter_mut().find(|it| it.number == number)?;
        let is_aside = *held || stream.waits;
        if !is_aside || stream.denials == *denials || stream.speaks < VERSION {
            return None;
        }
        stream.denials = *denials;
        Some(framed(&[saved_routes::encode_denied(Head { revision: *until, ..head }, denied)]))
    }

    /// Whether nothing came after this revision.
    pub(super) fn has_come_to(&self, revision: u64) -> bool {
        self.pending.1.is_empty() && self.last <= revision
    }

    /// Sends what comes from now on only when it is let go; what has come goes.
    pub(super) fn hold(&mut self, head: Head, bytes_max: usize) {
        self.flush(head, bytes_max);
        self.held = true;
    }

    /// All that waits, in one piece.
    pub(super) fn let_go(&mut self, head: Head, bytes_max: usize) {
        if std::mem::take(&mut self.held) {
            self.flush(head, bytes_max);
            self.moved.send_replace(());
        }
    }

    /// One more who follows, and has come so far, or waits for everything.
    pub(super) fn enter(&mut self, number: u64, (after, waits): (u64, bool), speaks: u16) {
        self.streams.push_back(Stream { number, after, speaks, waits, denials: 0 });
        if self.streams.len() > STREAMS_MAX {
            self.streams.pop_front();
            self.moved.send_replace(());
        }
    }

    pub(super) fn leave(&mut self, number: u64) {
        self.streams.retain(|stream| stream.number != number);
    }

    /// Where somebody stands who follows.
    pub(super) fn stream(&mut self, number: u64) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.number == number)
    }

    /// What leads on from a revision, in order, and to which one.
    pub(super) fn since(&self, after: u64) -> (u64, impl Iterator<Item = Bytes>) {
        let from = self.deltas.partition_point(|(revision, _)| *revision <= after);
        let to = self.deltas.back().map_or(after, |(revision, _)| after.max(*revision));
        (to, self.deltas.iter().skip(from).map(|(_, delta)| delta.clone()))
    }
}

/// About how much it takes: what it names.
pub(super) fn weight(change: &Change) -> usize {
    1 + match change {
        Change::PutUser(UserEntry { keys, .. }) => keys.len(),
        Change::PutTeam(TeamEntry { members, members_by_name, .. }) => {
            members.len() + members_by_name.len()
        }
        Change::PutVm(VmEntry { slots, by_name, .. }) => slots.len() + by_name.len(),
        Change::PutAddress(_)
        | Change::PutNode(_)
        | Change::RemoveAddress(_)
        | Change::RemoveUser(_)
        | Change::RemoveTeam(_)
        | Change::RemoveNode(_)
        | Change::RemoveVm(_) => 0,
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
