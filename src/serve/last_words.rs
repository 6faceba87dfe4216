//! What is said to whoever is not let in.

use crate::route::Table;

/// Said once before the failure that ends a connection, the same bytes whoever asks and
/// whatever was offered.
const LAST_WORDS: &str = "no VM answers here for the keys you offered. Check the name you connected to and the key \
                          (ssh -v shows which were offered).";

/// Said behind it to whoever has a `+` in the user name.
pub(super) const PLUS_WORDS: &str = "What stands behind the last + of a user name is taken for the name of a VM. A login that has a + \
                          of its own is written with the VM's name behind it: x+y+vm@host.";

/// The banner, naming the lobby if there is one.
pub(super) fn last_words(table: &Table) -> String {
    let lobby = table.addresses().into_iter().find(|address| address.lobby);
    lobby.map_or_else(
        || LAST_WORDS.to_owned(),
        |lobby| format!("{LAST_WORDS} `ssh {}` lists your VMs.", lobby.public),
    )
}
