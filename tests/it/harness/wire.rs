//! What lies between an edge and an agent: passes connections on, until a test cuts their links.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Listens at an address of a world, for as long as the tests run.
#[derive(Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_cut: bool,
    /// Both ends of every control link.
    links: Vec<[TcpStream; 2]>,
}

impl Wire {
    #[track_caller]
    pub(crate) fn start(at: SocketAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).expect("an address of the world");
        let wire = Self::default();
        let state = wire.clone();
        std::thread::spawn(move || {
            for edge in listener.incoming().flatten() {
                let state = state.clone();
                std::thread::spawn(move || state.pass_on(edge, to));
            }
        });
        wire
    }

    /// Ends the control links there are, and lets none come. Data connections go on.
    pub(crate) fn cut(&self) {
        let mut state = self.0.lock().expect("no panic");
        state.is_cut = true;
        for end in state.links.drain(..).flatten() {
            let _gone = end.shutdown(Shutdown::Both);
        }
    }

    /// Lets control links come again.
    pub(crate) fn mend(&self) {
        self.0.lock().expect("no panic").is_cut = false;
    }

    fn pass_on(&self, mut edge: TcpStream, to: SocketAddr) {
        let mut first = [0];
        if edge.read_exact(&mut first).is_err() {
            return;
        }
        let Ok(mut agent) = TcpStream::connect(to) else { return };
        let again = |stream: &TcpStream| stream.try_clone().expect("a second handle");
        // A data connection begins with a 0, a link with an identification line.
        if first != [0] {
            let mut state = self.0.lock().expect("no panic");
            if state.is_cut {
                return;
            }
            state.links.push([again(&edge), again(&agent)]);
        }
        if agent.write_all(&first).is_err() {
            return;
        }
        let (mut up, mut down) = ([again(&edge), again(&agent)], [again(&agent), again(&edge)]);
        std::thread::spawn(move || copy(&mut up));
        copy(&mut down);
    }
}

fn copy([from, to]: &mut [TcpStream; 2]) {
    let _ended = std::io::copy(from, to);
    let _gone = to.shutdown(Shutdown::Write);
}
