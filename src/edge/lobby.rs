//! The lobby: a pool address where any registered key gets the list of its VMs.
//!
//! `ssh lobby` prints a table, `ssh lobby -- --json` the same as JSON.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use crate::route::{Address, Vm};
use crate::ssh::connection::{Asked, ChannelEvent, ChannelId, Connection};
use crate::ssh::fault::Fault;
use crate::ssh::transport::{Context, Transport};

/// Channels one visitor may have open.
const CHANNELS_MAX: usize = 4;
const REFUSAL: &str = "the lobby forwards nothing: connect to one of your VMs";
const USAGE: &str = "keyway: the lobby lists your VMs: `ssh <lobby>` for a table, `ssh <lobby> -- --json` for JSON\n";

/// One visitor's conversation.
pub(super) struct Lobby {
    connection: Connection,
    table: String,
    json: String,
    /// Whether the visitor asked for a terminal, which wants CR LF.
    terminal: bool,
    telling: Option<Telling>,
}

struct Telling {
    channel: ChannelId,
    stderr: bool,
    rest: Vec<u8>,
    exit_status: u32,
}

impl Lobby {
    pub(super) fn new(visible: &[(Arc<Vm>, Option<Arc<Address>>)]) -> Self {
        Self {
            connection: Connection::new(CHANNELS_MAX, REFUSAL),
            table: table(visible),
            json: json(visible),
            terminal: false,
            telling: None,
        }
    }

    /// Takes one connection message; true once an answer was given and its channel is closed.
    pub(super) fn receive(
        &mut self,
        payload: &[u8],
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<bool, Fault> {
        match self.connection.receive(payload, transport, cx)? {
            ChannelEvent::None | ChannelEvent::Opened(_) | ChannelEvent::Eof(_) => {}
            ChannelEvent::Data { channel, bytes } => {
                self.connection.consumed(channel, bytes.len(), transport, cx)?;
            }
            ChannelEvent::Closed(_) => return Ok(self.telling.is_none()),
            ChannelEvent::Request { channel, asked, wants_reply } => {
                let granted = self.asked(channel, &asked);
                if wants_reply {
                    self.connection.answer(channel, granted, transport, cx)?;
                }
            }
        }
        self.tell(transport, cx)?;
        Ok(false)
    }

    fn asked(&mut self, channel: ChannelId, asked: &Asked) -> bool {
        let (stderr, text, exit_status) = match asked {
            Asked::Pty(_) => {
                self.terminal = true;
                return true;
            }
            Asked::Env { .. } | Asked::Window { .. } | Asked::Signal(_) => return true,
            Asked::Shell => (false, &*self.table, 0),
            Asked::Exec(command) => match command.trim() {
                "" | "list" => (false, &*self.table, 0),
                "--json" | "list --json" => (false, &*self.json, 0),
                _ => (true, USAGE, 2),
            },
            Asked::Subsystem(_) | Asked::Other(_) => return false,
        };
        let text = if self.terminal { text.replace('\n', "\r\n") } else { text.to_owned() };
        self.telling = Some(Telling { channel, stderr, rest: text.into_bytes(), exit_status });
        true
    }

    fn tell(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> Result<(), Fault> {
        let Some(telling) = &mut self.telling else { return Ok(()) };
        let channel = telling.channel;
        let taken = self.connection.data(channel, telling.stderr, &telling.rest, transport, cx)?;
        telling.rest.drain(..taken);
        if telling.rest.is_empty() {
            self.connection.finish(channel, telling.exit_status, transport, cx)?;
            self.telling = None;
        }
        Ok(())
    }
}

/// The columns of one VM.
fn row((vm, address): &(Arc<Vm>, Option<Arc<Address>>)) -> [String; 4] {
    let (name, public) = address.as_ref().map_or_else(
        || ("(by name)".to_owned(), format!("user+{}@", vm.name)),
        |address| (address.name.clone(), IpAddr::to_string(&address.public)),
    );
    [vm.name.clone(), vm.owner.clone(), name, public]
}

fn table(visible: &[(Arc<Vm>, Option<Arc<Address>>)]) -> String {
    if visible.is_empty() {
        return "You have no VMs here yet.\n".to_owned();
    }
    let head = ["VM", "OWNER", "ADDRESS", "CONNECT TO"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(visible.iter().map(row)).collect();
    let mut widths = [0; 4];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut out = String::new();
    for [vm, owner, address, connect] in rows {
        let [a, b, c, _] = widths;
        let _infallible = writeln!(out, "{vm:a$}  {owner:b$}  {address:c$}  {connect}");
    }
    out
}

/// Names are DNS labels and addresses are addresses: nothing here needs escaping.
fn json(visible: &[(Arc<Vm>, Option<Arc<Address>>)]) -> String {
    let rows: Vec<_> = visible
        .iter()
        .map(|(vm, address)| {
            let (name, public) = address.as_ref().map_or_else(
                || ("null".to_owned(), "null".to_owned()),
                |address| (format!("\"{}\"", address.name), format!("\"{}\"", address.public)),
            );
            format!(
                "{{\"name\":\"{}\",\"owner\":\"{}\",\"address\":{name},\"public\":{public}}}",
                vm.name, vm.owner
            )
        })
        .collect();
    format!("[{}]\n", rows.join(","))
}

#[cfg(test)]
mod tests {
    use super::{json, table};
    use crate::route::{AddressEntry, Contents, KeyEntry, Snapshot, Table, UserEntry, Vm, VmEntry};

    fn live() -> Table {
        let vm = |name: &str| Vm {
            id: name.into(),
            name: name.into(),
            owner: "alice".into(),
            endpoint: "127.0.0.1:22".into(),
            login: None,
            host_key: None,
            source_address: None,
            address: None,
            closed: false,
        };
        let user = |name: &str, key| UserEntry {
            name: name.into(),
            keys: vec![KeyEntry::plain([key; 32])],
            closed: false,
        };
        let contents = Contents {
            addresses: vec![AddressEntry {
                name: "s001".into(),
                public: [127, 0, 77, 1].into(),
                public6: None,
                private: None,
                lobby: false,
                closed: false,
            }],
            users: vec![user("alice", 1), user("bob", 2)],
            teams: Vec::new(),
            vms: vec![
                VmEntry::owned(vm("blue"), "s001"),
                VmEntry { vm: vm("longer-name"), slots: Vec::new(), by_name: vec!["alice".into()] },
            ],
        };
        let table = Table::new();
        table.apply(Snapshot::new(contents).unwrap());
        table
    }

    #[test]
    fn a_user_sees_names_and_where_to_connect() {
        let visible = live().visible("alice");
        let expected = "VM           OWNER  ADDRESS    CONNECT TO\n\
                        blue         alice  s001       127.0.77.1\n\
                        longer-name  alice  (by name)  user+longer-name@\n";
        assert_eq!(table(&visible), expected);
        assert_eq!(
            json(&visible),
            "[{\"name\":\"blue\",\"owner\":\"alice\",\"address\":\"s001\",\"public\":\"127.0.77.1\"},\
             {\"name\":\"longer-name\",\"owner\":\"alice\",\"address\":null,\"public\":null}]\n"
        );
    }

    #[test]
    fn a_user_without_vms_is_told_so() {
        let visible = live().visible("bob");
        assert_eq!(table(&visible), "You have no VMs here yet.\n");
        assert_eq!(json(&visible), "[]\n");
    }
}
