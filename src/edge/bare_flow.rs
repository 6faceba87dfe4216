//! A login's pattern of waits without SSH: accept, turns with the client, connect, turns with the
//! VM, a last word, close.
//!
//! For `cargo bench --bench executor` alone, which runs the same on another executor and compares
//! what both ask of the kernel.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::executor::{Control, Executor};
use super::stream::{Acceptor, Read, Stream};
use super::{listen, pump};

/// Bytes of a message; every turn is one each way.
pub const MESSAGE_BYTES: usize = 64;
/// Turns with the client: version lines, key exchange, service and key.
pub const CLIENT_TURNS: usize = 4;
/// Turns with the VM: version lines, key exchange, login.
pub const VM_TURNS: usize = 3;

/// Serves flows at `listen` towards `vm` on the calling thread, which it pins to `cpu`. Ends with
/// an error or never.
///
/// # Errors
/// What keeps it from listening.
pub fn serve(listen: SocketAddr, vm: SocketAddr, cpu: usize) -> io::Result<()> {
    pump::pin(cpu);
    let (_control, parts) = Control::new()?;
    let tasks = Executor::new(parts);
    let listeners = listen::bind(&[listen], &[cpu]).map_err(io::Error::other)?;
    for listener in listeners.shards.into_iter().flatten() {
        let acceptor = Acceptor::new(&tasks, listener)?;
        tasks.spawn(accept(acceptor, vm, tasks.clone()));
    }
    tasks.run(|| {})
}

async fn accept(acceptor: Acceptor, vm: SocketAddr, tasks: Executor) {
    let never = Rc::new(Cell::new(false));
    loop {
        match acceptor.accept() {
            Ok(Some((client, _))) => {
                let on = tasks.clone();
                tasks.spawn(async move {
                    // A flow that breaks is missed by whoever began it.
                    let _broken = flow(client, vm, &on).await;
                });
            }
            Ok(None) => acceptor.waiting(&never).await,
            Err(_) => tasks.yield_now().await,
        }
    }
}

async fn flow(client: Stream, vm: SocketAddr, tasks: &Executor) -> io::Result<()> {
    let mut message = [0; MESSAGE_BYTES];
    for _ in 0..CLIENT_TURNS {
        read_exact(&client, &mut message).await?;
        client.write(&message).await?;
    }
    let vm = Stream::connect(tasks, vm)?;
    for _ in 0..VM_TURNS {
        vm.write(&message).await?;
        read_exact(&vm, &mut message).await?;
    }
    client.write(&message).await?;
    Ok(())
}

async fn read_exact(stream: &Stream, message: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < message.len() {
        match stream.read(&mut message[filled..])? {
            Read::Bytes(count) => filled += count,
            Read::Nothing => stream.readable().await?,
            Read::End => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    Ok(())
}
