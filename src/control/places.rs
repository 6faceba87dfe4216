//! Places for the connections of one listener: a full house shows somebody out for a newcomer.
//!
//! Whoever may be there (see [`Place::asks`]) keeps its place, if it holds no more than an eighth
//! of them. Of all others, a peer that holds more than an eighth of the places is the first to lose
//! one, its oldest; otherwise the oldest of all goes. So connections that say nothing cost others
//! nothing, however many there are and wherever they come from. Where everybody may be there,
//! whoever holds most and more than that eighth loses the place that has rested longest; if nobody
//! does, a newcomer waits until somebody goes.

#![expect(clippy::disallowed_methods, reason = "how often to warn is measured by the clock")]

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::hash::Hash;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// One peer may hold this part (1/n) of all places before it is the first to lose one.
const SHARE: usize = 8;
/// How often the log hears of connections that were shown out.
const WARN_AGAIN: Duration = Duration::from_mins(1);

/// The places of one listener, for peers told apart by a `P`.
pub(super) struct Places<P: Peer>(Arc<House<P>>);

/// What tells peers apart.
pub(super) trait Peer: Copy + Eq + Hash {}

impl<P: Copy + Eq + Hash> Peer for P {}

struct House<P> {
    /// For the log.
    name: &'static str,
    places: usize,
    guests: Mutex<Guests<P>>,
    /// Somebody went.
    left: Notify,
}

struct Guests<P> {
    /// The next number; they grow with time.
    next: u64,
    all: BTreeMap<u64, Guest<P>>,
    /// Shown out since the log heard of it, and when it did.
    shown_out: u64,
    warned: Option<Instant>,
}

struct Guest<P> {
    peer: P,
    known: Option<Known>,
    /// Dropped to show it out: nothing is ever sent.
    _door: oneshot::Sender<()>,
}

/// Who may be there.
struct Known {
    who: String,
    /// Whether something was asked that is not answered yet.
    asks: bool,
    /// Grows with time: when it asked last.
    last: u64,
}

/// A place, free again when this is dropped.
pub(super) struct Place<P: Peer> {
    house: Arc<House<P>>,
    number: u64,
    /// Whoever has left it, and stays all the same.
    outside: Mutex<Option<Guest<P>>>,
}

/// Comes when somebody else has the place, and stays so.
pub(super) struct ShownOut(Option<oneshot::Receiver<()>>);

impl<P: Peer> Places<P> {
    /// `places` at a time; `name` is what the log calls the listener.
    pub(super) fn new(name: &'static str, places: usize) -> Self {
        let guests = Guests { next: 0, all: BTreeMap::new(), shown_out: 0, warned: None };
        Self(Arc::new(House { name, places, guests: Mutex::new(guests), left: Notify::new() }))
    }

    /// A place for a newcomer. Waits only while everybody inside may be there and holds no
    /// more than a share.
    pub(super) async fn take(&self, peer: P) -> (Place<P>, ShownOut) {
        loop {
            if let Some(taken) = self.try_take(peer) {
                return taken;
            }
            self.0.left.notified().await;
        }
    }

    fn try_take(&self, peer: P) -> Option<(Place<P>, ShownOut)> {
        let house = &self.0;
        let mut guests = house.guests();
        if guests.all.len() >= house.places {
            let share = house.places / SHARE;
            let first = guests.first_out(share).or_else(|| guests.longest_rest(share))?;
            guests.all.remove(&first);
            guests.tell(house.name);
        }
        let number = guests.next;
        guests.next += 1;
        let (door, out) = oneshot::channel();
        guests.all.insert(number, Guest { peer, known: None, _door: door });
        let outside = Mutex::default();
        Some((Place { house: Arc::clone(house), number, outside }, ShownOut(Some(out))))
    }
}

impl<P: Peer> House<P> {
    fn guests(&self) -> MutexGuard<'_, Guests<P>> {
        // Nothing panics while it is held.
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Peer> Guests<P> {
    /// Whose turn it is to go, by the rules at the top of this file.
    fn first_out(&self, share: usize) -> Option<u64> {
        let strangers = || self.all.iter().filter(|(_, guest)| guest.known.is_none());
        let mut held: HashMap<P, usize> = HashMap::new();
        for (_, guest) in strangers() {
            *held.entry(guest.peer).or_default() += 1;
        }
        let most = held.into_iter().max_by_key(|(_, count)| *count)?;
        let crowd = Some(most).filter(|(_, count)| *count > share).map(|(peer, _)| peer);
        let mut turn = strangers().filter(|(_, guest)| crowd.is_none_or(|peer| guest.peer == peer));
        turn.next().map(|(number, _)| *number)
    }

    /// The place that the one who holds most of them needs least, if these are more than a share.
    fn longest_rest(&self, share: usize) -> Option<u64> {
        let known = || self.all.iter().filter_map(|(at, it)| Some((at, it.known.as_ref()?)));
        let mut held: HashMap<&str, usize> = HashMap::new();
        for (_, known) in known() {
            *held.entry(&known.who).or_default() += 1;
        }
        let (most, count) = held.into_iter().max_by_key(|(_, count)| *count)?;
        let rests = known().filter(|(_, known)| known.who == most && !known.asks);
        let longest = rests.min_by_key(|(_, known)| known.last);
        longest.filter(|_| count > share).map(|(at, _)| *at)
    }

    fn tell(&mut self, name: &str) {
        self.shown_out += 1;
        let now = Instant::now();
        if self.warned.is_none_or(|last| now.saturating_duration_since(last) >= WARN_AGAIN) {
            let connections = self.shown_out;
            tracing::warn!(
                connections,
                "{name}: all places are taken; connections that have shown no right to one, or rest and are one of many, make room for newcomers"
            );
            (self.shown_out, self.warned) = (0, Some(now));
        }
    }
}

impl<P: Peer> Place<P> {
    /// `who` has it, may be there and has asked for something: nobody takes it away meanwhile.
    pub(super) fn asks(&self, who: &str) {
        let mut guests = self.house.guests();
        let last = guests.next;
        guests.next += 1;
        if let Some(guest) = guests.all.get_mut(&self.number) {
            guest.known = Some(Known { who: who.to_owned(), asks: true, last });
        }
    }

    /// Whoever has it needs it no more and is not shown out: others count it.
    pub(super) fn leaves(&self) {
        let guest = self.house.guests().all.remove(&self.number);
        *self.outside.lock().unwrap_or_else(PoisonError::into_inner) = guest;
        self.house.left.notify_one();
    }

    /// It is answered: whoever holds more than a share may lose the place.
    pub(super) fn rests(&self) {
        let mut guests = self.house.guests();
        let guest = guests.all.get_mut(&self.number);
        if let Some(known) = guest.and_then(|guest| guest.known.as_mut()) {
            known.asks = false;
        }
        drop(guests);
        self.house.left.notify_one();
    }
}

impl<P: Peer> Drop for Place<P> {
    fn drop(&mut self) {
        self.house.guests().all.remove(&self.number);
        self.house.left.notify_one();
    }
}

impl Future for ShownOut {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(inside) = &mut self.0
            && Pin::new(inside).poll(cx).is_pending()
        {
            return Poll::Pending;
        }
        self.0 = None;
        Poll::Ready(())
    }
}

/// What one host can choose its addresses from: an address, or a network of 64 bits.
pub(super) fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => std::net::Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is out of those that came in as `guests`.
    fn out(guests: &mut [(Place<char>, ShownOut)]) -> Vec<usize> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let is_out = |(_, out): &mut (_, ShownOut)| Pin::new(out).poll(&mut cx).is_ready();
        let all = guests.iter_mut().map(is_out).enumerate();
        all.filter_map(|(at, out)| out.then_some(at)).collect()
    }

    fn enter(places: &Places<char>, peers: &str) -> Vec<(Place<char>, ShownOut)> {
        peers.chars().map(|peer| places.try_take(peer).expect("a place")).collect()
    }

    #[test]
    fn the_oldest_stranger_makes_room() {
        let places = Places::new("here", 8);
        let mut guests = enter(&places, "abcdefgh");
        guests[0].0.asks("user");
        guests.extend(enter(&places, "ij"));
        assert_eq!(out(&mut guests), [1, 2]);
    }

    #[test]
    fn whoever_holds_more_than_a_share_makes_room_first() {
        let places = Places::new("here", 16);
        let mut guests = enter(&places, "abcdefghxxixxjkl");
        // It goes down to its share, two of sixteen, and then the oldest of all is next.
        guests.extend(enter(&places, "mno"));
        assert_eq!(out(&mut guests), [0, 8, 9]);
        // A newcomer of the crowd costs the crowd.
        guests.extend(enter(&places, "xx"));
        assert_eq!(out(&mut guests), [0, 1, 8, 9, 11]);
    }

    #[tokio::test]
    async fn who_may_be_there_is_not_shown_out_and_a_newcomer_waits_until_one_goes() {
        let places = Places::new("here", 2);
        let mut guests = enter(&places, "aa");
        for (place, _) in &guests {
            place.asks("user");
        }
        assert!(places.try_take('b').is_none());
        let next = places.take('b');
        tokio::pin!(next);
        assert!(futures_lite::future::poll_once(&mut next).await.is_none());
        assert_eq!(out(&mut guests), [0; 0]);
        guests.clear();
        let (_place, _out) = next.await;
        assert!(places.try_take('c').is_some() && places.try_take('d').is_some());
    }

    #[test]
    fn one_token_cannot_hold_all_places() {
        let places = Places::new("here", 16);
        let mut guests = enter(&places, "abcdefghijklmnop");
        for (number, (place, _)) in guests.iter().enumerate() {
            place.asks(if number < 3 { "few" } else { "many" });
            // What is asked for and not answered yet is let be.
            if number != 3 {
                place.rests();
            }
        }
        guests[4].0.asks("many");
        guests[4].0.rests();
        let newcomers = enter(&places, "qr");
        assert_eq!(out(&mut guests), [5], "a stranger makes room before a second one");
        for (place, _) in &newcomers {
            place.asks("other");
        }
        guests.extend(newcomers);
        guests.extend(enter(&places, "s"));
        assert_eq!(out(&mut guests), [5, 6, 16]);
    }

    #[test]
    fn the_addresses_of_one_host_are_one_peer() {
        let of = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }
}
