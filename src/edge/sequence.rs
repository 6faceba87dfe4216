//! Which packet of one leg became which packet of the other (RFC 4253 §11.4).
//!
//! UNIMPLEMENTED names a packet by its sequence number, and the two legs count on their own.

/// Packets remembered. An answer comes within a round trip; only messages nobody
/// knows get this one.
const REMEMBERED: u32 = 64;

/// The last [`REMEMBERED`] sequence numbers sent on one leg, with the number under which each came
/// in on the other.
#[derive(Debug)]
pub(super) struct Origins {
    /// By sent number modulo [`REMEMBERED`].
    received: [u32; REMEMBERED as usize],
    /// Bit n: the packet n before `newest` was a relayed one and stands in `received`.
    relayed: u64,
    /// Bit n: that one was a global request whose reply has to come.
    asked: u64,
    newest: u32,
}

impl Origins {
    /// Remembers nothing.
    pub(super) const fn new() -> Self {
        Self { received: [0; REMEMBERED as usize], relayed: 0, asked: 0, newest: 0 }
    }

    /// Packet `received` of the other leg went out as packet `sent` of this one.
    pub(super) const fn record(&mut self, sent: u32, received: u32) {
        let ahead = sent.wrapping_sub(self.newest);
        // Behind, or the same again: strict key exchange began to count anew, the old
        // numbers mean nothing.
        if ahead == 0 || ahead >= REMEMBERED {
            (self.relayed, self.asked) = (0, 0);
        } else {
            (self.relayed, self.asked) = (self.relayed << ahead, self.asked << ahead);
        }
        self.relayed |= 1;
        self.newest = sent;
        self.received[(sent % REMEMBERED) as usize] = received;
    }

    /// Packet `sent`, if it was the last one recorded, is a global request whose reply has to come.
    pub(super) const fn wants_reply(&mut self, sent: u32) {
        if self.newest == sent && self.relayed & 1 == 1 {
            self.asked |= 1;
        }
    }

    /// Whether packet `sent` was such a request, for whoever asks first.
    pub(super) const fn takes_request(&mut self, sent: u32) -> bool {
        let behind = self.newest.wrapping_sub(sent);
        let asked = behind < REMEMBERED && (self.asked >> behind) & 1 == 1;
        if asked {
            self.asked &= !(1 << behind);
        }
        asked
    }

    /// The number under which packet `sent` of this leg came in, if it was relayed and
    /// not too long ago.
    pub(super) const fn find(&self, sent: u32) -> Option<u32> {
        let behind = self.newest.wrapping_sub(sent);
        if behind < REMEMBERED && (self.relayed >> behind) & 1 == 1 {
            Some(self.received[(sent % REMEMBERED) as usize])
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relayed_packets_of_the_last_64_are_found() {
        let mut origins = Origins::new();
        assert_eq!(origins.find(0), None);
        for sent in 0..200 {
            // Every third is one of our own: an answer to PING, a key exchange message.
            if sent % 3 != 0 {
                origins.record(sent, sent + 1_000);
            }
        }
        for sent in 0..210 {
            let found = (sent > 199 - 64 && sent <= 199 && sent % 3 != 0).then_some(sent + 1_000);
            assert_eq!(origins.find(sent), found, "packet {sent}");
        }
    }

    #[test]
    fn a_request_is_found_once_and_no_other_packet_is_one() {
        let mut origins = Origins::new();
        for sent in 0..70 {
            origins.record(sent, sent);
            if sent % 5 == 0 {
                origins.wants_reply(sent);
            }
            origins.wants_reply(sent + 1);
        }
        for sent in 0..80 {
            let asked = sent % 5 == 0 && sent > 69 - 64 && sent < 70;
            assert_eq!(origins.takes_request(sent), asked, "packet {sent}");
            assert!(!origins.takes_request(sent));
        }
        origins.wants_reply(69);
        origins.record(3, 77);
        assert!(!origins.takes_request(3));
    }

    #[test]
    fn numbers_wrap_at_2_to_the_32() {
        let mut origins = Origins::new();
        for n in 0..64_u32 {
            origins.record(n.wrapping_sub(32), n);
        }
        for n in 0..64_u32 {
            assert_eq!(origins.find(n.wrapping_sub(32)), Some(n));
        }
    }

    #[test]
    fn a_count_that_starts_anew_forgets_the_old_numbers() {
        let mut origins = Origins::new();
        for n in 0..40 {
            origins.record(n, n);
        }
        origins.record(3, 77);
        assert_eq!(origins.find(3), Some(77));
        assert_eq!(origins.find(2), None);
        assert_eq!(origins.find(39), None);
    }
}
