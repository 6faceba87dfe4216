//! Random commands about few things, so that they meet all the time.

use std::sync::OnceLock;

use crate::registry::command::{Command, NewAddress, NewVm, NodeSettings, Placement, VmSettings};
use crate::registry::document::{Access, AddressState, VmState};
use crate::registry::name::{Label, Principal};
use crate::registry::values::parse_key;
use crate::route::Carry;
use crate::ssh::entropy::Entropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::Fingerprint;
use crate::ssh::testing::Seeded;

/// Throws commands.
pub(crate) struct Dice(pub(crate) Seeded);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.next() % end
    }

    fn label(&mut self, letter: char, end: u64) -> Label {
        Label::new(&format!("{letter}{}", self.below(end))).unwrap()
    }

    fn principal(&mut self) -> Principal {
        if self.below(3) == 0 {
            Principal::Team(self.label('t', 3))
        } else {
            Principal::User(self.label('u', 4))
        }
    }

    fn access(&mut self) -> Access {
        if self.below(4) == 0 { Access::ByName } else { Access::Slot }
    }

    fn keep(&mut self) -> Option<Access> {
        (self.below(3) > 0).then(|| self.access())
    }

    fn placement(&mut self) -> Placement {
        match self.below(6) {
            0 => Placement::Nowhere,
            1 | 2 => Placement::At(self.label('s', 4)),
            _ => Placement::Chosen,
        }
    }

    pub(crate) fn command(&mut self) -> Command {
        let name = self.label('v', 6);
        match self.below(32) {
            0 => Command::UserAdd {
                name: self.label('u', 4),
                keys: (0..self.below(2)).map(|_| self.line()).collect(),
            },
            1 => Command::UserRemove { name: self.label('u', 4) },
            2 => Command::TeamAdd {
                name: self.label('t', 3),
                members: (0..self.below(3)).map(|_| self.label('u', 4)).collect(),
            },
            3 => Command::TeamRemove { name: self.label('t', 3) },
            4..=6 => Command::TeamJoin {
                team: self.label('t', 3),
                user: self.label('u', 4),
                access: self.access(),
            },
            7 | 8 => Command::TeamLeave { team: self.label('t', 3), user: self.label('u', 4) },
            9..=11 => Command::VmAdd(NewVm {
                placement: self.placement(),
                node: self.node(),
                carry: self.carry(),
                ..NewVm::new(name, self.principal(), format!("127.0.0.1:{}", 22 + self.below(3)))
            }),
            12 | 13 => Command::VmRemove { name },
            14 | 15 => Command::VmShare { name, with: self.principal(), access: self.access() },
            16 => Command::VmUnshare { name, with: self.principal() },
            17 => Command::VmRename { name, to: self.label('v', 6) },
            18 => Command::VmTransfer { name, to: self.principal(), keep: self.keep() },
            19 => Command::VmRenumber { name, to: self.placement() },
            20 => Command::AddressState {
                name: self.label('s', 4),
                state: [AddressState::Ready, AddressState::Ready, AddressState::Drain]
                    [usize::try_from(self.below(3)).unwrap()],
            },
            21 => Command::AddressRemove { name: self.label('s', 4) },
            22 => {
                let name = self.label('s', 4);
                let last = name.as_str().as_bytes()[1] - b'0';
                let public = Some([127, 0, 77, last].into());
                Command::AddressAdd {
                    name,
                    address: NewAddress { public, ..NewAddress::default() },
                }
            }
            23 => Command::KeyAdd { user: self.label('u', 4), line: self.line() },
            24 | 25 => {
                let line = self.line();
                let fingerprint = parse_key(&line).unwrap().fingerprint;
                let user = self.label('u', 4);
                if self.below(2) == 0 {
                    Command::KeySet { user, fingerprint, line }
                } else {
                    Command::KeyRemove { user, fingerprint }
                }
            }
            26 => {
                let state = Some(if self.below(2) == 0 { VmState::Maint } else { VmState::Ready });
                Command::VmSet { name, set: VmSettings { state, ..VmSettings::default() } }
            }
            27 => {
                let node = Some(self.node().map(|node| node.to_string()).unwrap_or_default());
                let carry = Some(self.carry());
                Command::VmSet { name, set: VmSettings { node, carry, ..VmSettings::default() } }
            }
            28..=30 => self.about_a_node(),
            _ => Command::Sweep,
        }
    }

    fn about_a_node(&mut self) -> Command {
        let (name, set) = (self.label('n', 3), self.settings());
        match self.below(3) {
            0 => Command::NodeAdd { name, set },
            1 => Command::NodeSet { name, set },
            _ => Command::NodeRemove { name },
        }
    }

    fn node(&mut self) -> Option<Label> {
        (self.below(3) == 0).then(|| self.label('n', 3))
    }

    pub(crate) fn carry(&mut self) -> Carry {
        match self.below(6) {
            0 => Carry::Handoff,
            1 => Carry::Relay,
            _ => Carry::Auto,
        }
    }

    fn settings(&mut self) -> NodeSettings {
        let key = u8::try_from(self.below(4)).unwrap();
        let agent = (self.below(4) > 0).then(|| format!("10.0.0.{}:7022", 1 + self.below(3)));
        // Without one it is an agent that has not joined, or stays who it is.
        let agent_key = agent.as_ref().filter(|_| self.below(4) > 0);
        let agent_key = agent_key.map(|_| Fingerprint([key; 32]).to_string());
        let agent = agent.or((key == 0).then(String::new));
        let ssh = match self.below(4) {
            0 => Some(String::new()),
            1 | 2 => Some(format!("root@10.0.9.{}", self.below(3))),
            _ => None,
        };
        let is_there = ssh.as_ref().is_some_and(|ssh| !ssh.is_empty());
        let host_key = (is_there && self.below(2) == 0).then(|| Fingerprint([key; 32]).to_string());
        let trusted = Some(self.below(3) > 0);
        NodeSettings { agent, agent_key, trusted, ssh, host_key, ..NodeSettings::default() }
    }

    /// One of few keys, with a comment.
    fn line(&mut self) -> String {
        static KEYS: OnceLock<Vec<String>> = OnceLock::new();
        let keys = KEYS.get_or_init(|| {
            let mut entropy = Seeded(78);
            let entropy: &mut dyn Entropy = &mut entropy;
            let key = |_| PrivateKey::generate_ed25519(entropy).public().to_line();
            (0..5).map(key).collect()
        });
        let comment = ["", " a", " b"][usize::try_from(self.below(3)).unwrap()];
        format!("{}{comment}", keys[usize::try_from(self.below(5)).unwrap()])
    }
}
