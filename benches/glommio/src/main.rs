//! The flow of `keyway::edge::bare_flow` on glommio 0.9, for `cargo bench --bench executor`, which
//! builds and runs this.
//!
//! LISTEN VM CLIENT_TURNS VM_TURNS MESSAGE_BYTES CPU: serves flows at LISTEN towards VM
//! until it is killed.

use std::io;
use std::net::SocketAddr;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};

#[derive(Clone, Copy)]
struct Flow {
    vm: SocketAddr,
    client_turns: usize,
    vm_turns: usize,
    message_bytes: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, vm, numbers @ ..] = arguments.as_slice() else {
        panic!("LISTEN VM and four numbers")
    };
    let listen: SocketAddr = listen.parse().expect("LISTEN is an address");
    let numbers: Vec<usize> = numbers.iter().map(|it| it.parse().expect("a number")).collect();
    let [client_turns, vm_turns, message_bytes, cpu] = numbers[..] else { panic!("four numbers") };
    let vm = vm.parse().expect("VM is an address");
    let flow = Flow { vm, client_turns, vm_turns, message_bytes };
    let executor = LocalExecutorBuilder::new(Placement::Fixed(cpu)).spawn(move || async move {
        let listener = TcpListener::bind(listen).expect("a port that was free");
        while let Ok(client) = listener.accept().await {
            glommio::spawn_local(async move {
                // A flow that breaks is missed by whoever began it.
                let _broken = flow.run(client).await;
            })
            .detach();
        }
    });
    executor.expect("an executor").join().expect("it runs until it is killed");
}

impl Flow {
    async fn run(self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut message = vec![0; self.message_bytes];
        for _ in 0..self.client_turns {
            client.read_exact(&mut message).await?;
            client.write_all(&message).await?;
        }
        let mut vm = TcpStream::connect(self.vm).await?;
        vm.set_nodelay(true)?;
        for _ in 0..self.vm_turns {
            vm.write_all(&message).await?;
            vm.read_exact(&mut message).await?;
        }
        client.write_all(&message).await
    }
}
