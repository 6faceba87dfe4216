//! A stretch of network between two programs: passes on what comes, cut into small pieces if the
//! test wants that, and can be torn.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most bytes in one piece of a wire that cuts.
const PIECE_BYTES_MAX: u64 = 400;
/// What the dialling side of a control link begins with; a data connection begins with a zero.
const LINK_BEGINS: u8 = b'S';

/// How what comes in on a wire goes out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Passing {
    /// As it is read.
    Whole,
    /// In pieces of 1 to 400 bytes, the same ones for the same seed as far as reads are.
    Cut { seed: u64 },
}

/// What a connection through a wire is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A client's.
    Client,
    /// The control link of an edge to an agent.
    Link,
    /// The data connection of a session.
    Data,
}

/// Where a wire leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum To {
    Door(SocketAddr),
    Agent(SocketAddr),
}

/// A wire that lies until the tests are over.
#[derive(Clone, Debug)]
pub(crate) struct Wire(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    to: To,
    passing: Passing,
    /// These are cut as they come.
    without: Mutex<Vec<Kind>>,
    connections: Mutex<Vec<(Kind, [TcpStream; 2])>>,
}

impl Wire {
    /// Lays one from `at` to `to`.
    #[track_caller]
    pub(crate) fn lay(at: SocketAddr, to: To, passing: Passing) -> Self {
        let listener = TcpListener::bind(at).expect("an address of this world's own");
        let (without, connections) = (Mutex::default(), Mutex::default());
        let wire = Self(Arc::new(Shared { to, passing, without, connections }));
        let own = wire.clone();
        std::thread::spawn(move || {
            for (number, near) in (0_u64..).zip(listener.incoming().flatten()) {
                let wire = own.clone();
                std::thread::spawn(move || wire.carry(&near, number));
            }
        });
        wire
    }

    /// Breaks all connections of one kind; how many there were.
    pub(crate) fn tear(&self, kind: Kind) -> usize {
        let mut count = 0;
        self.connections().retain(|(of, ends)| {
            if *of == kind {
                count += 1;
                for end in ends {
                    let _gone_already = end.shutdown(Shutdown::Both);
                }
            }
            *of != kind
        });
        count
    }

    /// Whether connections of one kind may pass, from now on.
    pub(crate) fn let_pass(&self, kind: Kind, pass: bool) {
        let mut without = self.0.without.lock().unwrap_or_else(PoisonError::into_inner);
        without.retain(|of| *of != kind);
        without.extend((!pass).then_some(kind));
    }

    fn connections(&self) -> MutexGuard<'_, Vec<(Kind, [TcpStream; 2])>> {
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection, until both directions are over. Nobody at the far end: it is closed.
    fn carry(&self, near: &TcpStream, number: u64) {
        let mut first = [0];
        let (to, kind) = match self.0.to {
            To::Door(to) => (to, Kind::Client),
            // An edge speaks first.
            To::Agent(to) => match near.peek(&mut first) {
                Ok(1) if first[0] == LINK_BEGINS => (to, Kind::Link),
                Ok(1) => (to, Kind::Data),
                Ok(_) | Err(_) => return,
            },
        };
        let Ok(far) = TcpStream::connect(to) else { return };
        let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
        let ends = [clone(near), clone(&far)];
        {
            let mut connections = self.connections();
            // Asked where whoever tears them looks.
            let without = self.0.without.lock().unwrap_or_else(PoisonError::into_inner);
            if without.contains(&kind) {
                return;
            }
            connections.push((kind, ends));
        }
        let seed = |direction| match self.0.passing {
            Passing::Whole => None,
            Passing::Cut { seed } => Some(Random::new(seed ^ (number << 1 | direction))),
        };
        let (up, down) = (seed(0), seed(1));
        std::thread::scope(|scope| {
            scope.spawn(|| pass(near, &far, up));
            pass(&far, near, down);
        });
    }
}

/// One direction, its end included.
fn pass(mut from: &TcpStream, mut to: &TcpStream, mut cut: Option<Random>) {
    let _gone_already = to.set_nodelay(true);
    let mut block = vec![0; 1 << 16];
    while let Ok(len @ 1..) = from.read(&mut block) {
        let mut rest = &block[..len];
        while !rest.is_empty() {
            let most = cut.as_mut().map_or(u64::MAX, |random| 1 + random.next() % PIECE_BYTES_MAX);
            let now = rest.len().min(usize::try_from(most).unwrap_or(usize::MAX));
            if to.write_all(&rest[..now]).is_err() {
                let _gone_already = from.shutdown(Shutdown::Both);
                return;
            }
            rest = &rest[now..];
        }
    }
    let _gone_already = to.shutdown(Shutdown::Write);
}

/// As random as tests need it (xorshift64*).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

/// `KEYWAY_SEED` if it is given, else one that no run had before; said, for whoever has to repeat
/// a failure.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("KEYWAY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let micros = now.expect("after 1970").as_micros();
        u64::try_from(micros).expect("not as late as that")
    });
    println!("KEYWAY_SEED={seed}");
    seed
}
