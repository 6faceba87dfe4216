//! Every client through a handoff, over wires as they may be: ones that let all pass as it comes,
//! and ones that cut what edge, client and agent say into small pieces.

use crate::copying::{Client, MB};
use crate::harness::wire::seed;
use crate::harness::{World, full};

/// Once, and ten times where there is time.
fn rounds() -> u64 {
    if full("the clients over wires nine times more") { 10 } else { 1 }
}

fn cut(client: Client) {
    if World::is_passed_by() {
        return;
    }
    let first = seed();
    for round in 0..rounds() {
        let world = World::usual_plan().handed().cut(first.wrapping_add(round)).start();
        client.copies(&world, MB);
    }
}

fn whole(client: Client) {
    if World::is_passed_by() {
        return;
    }
    let world = World::usual_plan().handed().start();
    for _ in 0..rounds() {
        client.copies(&world, 100 * MB);
    }
}

macro_rules! matrix {
    ($($name:ident is $client:ident;)*) => {$(
        mod $name {
            use crate::copying::Client;

            #[test]
            fn copies_through_wires_that_cut_all_into_small_pieces() {
                super::cut(Client::$client);
            }

            #[test]
            fn copies_a_hundred_megabytes_each_way_that_are_not_cut() {
                super::whole(Client::$client);
            }
        }
    )*};
}

matrix! {
    stock_ssh is OpenSsh;
    dropbear is Dropbear;
    putty is Putty;
    libssh is Libssh;
    libssh2 is Libssh2;
    paramiko is Paramiko;
    asyncssh is Asyncssh;
    node_ssh2 is NodeSsh2;
    russh is Russh;
}
