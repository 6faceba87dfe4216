//! A way that takes time: a TCP proxy that passes every byte on half a round trip after it came.
//!
//! Connections are accepted at once, so that the round trip of a connect is missing: it is the same
//! for whoever is measured through one.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;

/// Bytes read at a time.
const BITE: usize = 64 << 10;

/// Starts one to `to` and says where it listens; it lives as long as this process.
pub(crate) fn start(to: SocketAddr, round_trip: Duration) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let one_way = round_trip / 2;
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            if let Err(why) = join(near, to, one_way) {
                eprintln!("no way to {to}: {why}");
            }
        }
    });
    Ok(address)
}

fn join(near: TcpStream, to: SocketAddr, one_way: Duration) -> Result<()> {
    let far = TcpStream::connect(to)?;
    for socket in [&near, &far] {
        socket.set_nodelay(true)?;
    }
    carry(near.try_clone()?, far.try_clone()?, one_way);
    carry(far, near, one_way);
    Ok(())
}

/// Carries one direction by two threads: one reads and notes the time, one waits and writes.
fn carry(mut from: TcpStream, mut to: TcpStream, one_way: Duration) {
    let (sent, due) = mpsc::sync_channel::<(Instant, Vec<u8>)>(1024);
    thread::spawn(move || {
        let mut room = vec![0; BITE];
        loop {
            // A reset ends the direction as a FIN does.
            let count = from.read(&mut room).unwrap_or(0);
            let bytes = room.get(..count).unwrap_or_default().to_vec();
            if sent.send((Instant::now() + one_way, bytes)).is_err() || count == 0 {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (when, bytes) in due {
            thread::sleep(when.saturating_duration_since(Instant::now()));
            if bytes.is_empty() || to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _gone = to.shutdown(Shutdown::Write);
    });
}
