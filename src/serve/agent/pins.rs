//! Host keys that VMs show at their first use go into a file of the agent's state directory, and
//! into its map when that is read next.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::start::Failure;
use crate::config::Fleet;
use crate::edge::first_use::{FirstUse, Shown};
use crate::route::{Pin, Snapshot, Vm};
use crate::ssh::publickey::PublicKey;
use crate::state::{KeptPins, Pinned, State, StateFault};

/// The file, while this process has it.
pub(super) struct InFile(Mutex<KeptPins>);

impl InFile {
    pub(super) fn open(state: &State) -> Result<Self, StateFault> {
        Ok(Self(Mutex::new(state.kept_pins()?)))
    }

    fn pins(&self) -> MutexGuard<'_, KeptPins> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operator removes a line to have a VM's key pinned anew.
    pub(super) fn read_again(&self, state: &State) -> Result<(), StateFault> {
        let mut pins = self.pins();
        *pins = state.kept_pins()?;
        Ok(())
    }

    /// What a fleet file says, with the keys that VMs have shown for which it has none.
    pub(super) fn map_of(&self, fleet: &Fleet) -> Result<Snapshot, Failure> {
        let mut contents = fleet.desired.contents();
        let pins = self.pins();
        for entry in &mut contents.vms {
            let vm = &mut entry.vm;
            if let (None, Some(key)) = (&vm.host_key, pins.get(&vm.id)) {
                vm.host_key = Some(Pin::of_key(key.blob()));
            }
        }
        Snapshot::new(contents).map_err(|found| {
            let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
            lines.join("\n").into()
        })
    }
}

impl FirstUse for InFile {
    fn shown(&self, vm: &Vm, key: &PublicKey) -> Shown {
        if vm.host_key.is_some() {
            // The file says which it is.
            return Shown::Pinned;
        }
        let mut pins = self.pins();
        match pins.get(&vm.id) {
            Some(pinned) if pinned == key => return Shown::Pinned,
            Some(_) => return Shown::Other,
            None => {}
        }
        if let Some(other) = pins.of_other_owner(key, &vm.owner) {
            return Shown::OfOtherOwner { vm: other.to_owned() };
        }
        match pins.pin(&vm.id, key, &vm.owner) {
            Ok(Pinned::Other) => Shown::Other,
            Ok(Pinned::OfOtherOwner(vm)) => Shown::OfOtherOwner { vm },
            Ok(Pinned::Done) => {
                let (vm, fingerprint) = (vm.name.as_str(), key.fingerprint());
                tracing::info!(vm, %fingerprint, "the host key of a VM is pinned at its first use");
                Shown::Pinned
            }
            Err(fault) => Shown::Failed { why: fault.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{AgentFiles, load_agent};
    use crate::ssh::entropy::SystemEntropy;
    use crate::ssh::private_key::PrivateKey;
    use crate::testing::scratch::Scratch;

    const LINE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINILzCr80scSuAcnYpxLu4nnirz6xztusEayvak/vj9f";

    /// A fleet of these VMs and their owners.
    fn fleet(scratch: &Scratch, vms: &[(&str, &str, &str)]) -> Fleet {
        let vms = vms.iter().map(|(vm, owner, more)| {
            format!(
                "[[vm]]\nname = \"{vm}\"\nowner = \"{owner}\"\nssh = \"10.0.0.1:22\"\nno_address = true\n{more}"
            )
        });
        let text = "[[user]]\nname = \"alice\"\n[[user]]\nname = \"bob\"\n".to_owned();
        let text = text + &vms.collect::<String>();
        scratch.file("fleet.toml", &text);
        let agent = format!(
            "listen = \"127.0.0.1:7022\"\nedge_networks = [\"127.0.0.1\"]\nedges = [\"{LINE}\"]\n\
             host_keys = [\"{LINE}\"]\nreplica = \"fleet.toml\"\n"
        );
        let config = scratch.file("agent.toml", &agent).into();
        load_agent(&AgentFiles { config, fleet: None }).unwrap().fleet.unwrap()
    }

    fn vm(map: &Snapshot, name: &str) -> Vm {
        let found = map.vms().find(|entry| entry.name == name);
        Vm::clone(found.unwrap())
    }

    #[test]
    fn the_key_that_a_vm_shows_first_is_its_own_until_an_operator_removes_its_line() {
        let scratch = Scratch::new();
        let state = State::open(&scratch.0.join("state")).unwrap();
        let fleet = fleet(&scratch, &[("blue", "alice", ""), ("green", "bob", "")]);
        let mut entropy = SystemEntropy::default();
        let [one, other] =
            [(); 2].map(|()| PrivateKey::generate_ed25519(&mut entropy).public().clone());
        let pins = InFile::open(&state).unwrap();
        let map = pins.map_of(&fleet).unwrap();
        let (blue, green) = (vm(&map, "blue"), vm(&map, "green"));
        assert!(blue.host_key.is_none());
        assert_eq!(pins.shown(&blue, &one), Shown::Pinned);
        assert_eq!(pins.shown(&blue, &one), Shown::Pinned);
        assert_eq!(pins.shown(&blue, &other), Shown::Other);
        assert_eq!(pins.shown(&green, &one), Shown::OfOtherOwner { vm: "blue".to_owned() });

        // The next process has it in its map.
        let pins = InFile::open(&state).unwrap();
        let known = vm(&pins.map_of(&fleet).unwrap(), "blue").host_key.unwrap();
        assert_eq!(known.key().as_deref(), Some(one.blob()));
        fs::write(scratch.0.join("state/vm_host_keys"), "").unwrap();
        assert_eq!(pins.shown(&green, &other), Shown::Pinned);
        assert_eq!(pins.shown(&blue, &other), Shown::Other, "not read yet");
        pins.read_again(&state).unwrap();
        assert!(vm(&pins.map_of(&fleet).unwrap(), "blue").host_key.is_none());
        assert_eq!(pins.shown(&blue, &one), Shown::Pinned);
        let green = vm(&pins.map_of(&fleet).unwrap(), "green").host_key.unwrap();
        assert_eq!(green.key().as_deref(), Some(other.blob()), "what was not removed stays");
    }

    /// One drains and logs in to the last that came to it, the other one has taken over.
    #[test]
    fn of_two_processes_the_first_to_pin_a_vm_stands_and_neither_loses_what_the_other_pins() {
        let scratch = Scratch::new();
        let state = State::open(&scratch.0.join("state")).unwrap();
        let names: Vec<String> = (0..40).map(|number| format!("vm{number}")).collect();
        let vms: Vec<_> = names.iter().map(|name| (name.as_str(), "alice", "")).collect();
        let fleet = fleet(&scratch, &vms);
        let mut entropy = SystemEntropy::default();
        let [one, other] =
            [(); 2].map(|()| PrivateKey::generate_ed25519(&mut entropy).public().clone());
        let [old, new] = [(); 2].map(|()| InFile::open(&state).unwrap());
        let map = new.map_of(&fleet).unwrap();
        let first = vm(&map, "vm0");
        assert_eq!(old.shown(&first, &one), Shown::Pinned);
        assert_eq!(new.shown(&first, &other), Shown::Other);
        assert_eq!(new.shown(&first, &one), Shown::Pinned);
        let pin = |pins: &InFile, odd: usize| {
            for name in names.iter().skip(1).skip(odd).step_by(2) {
                assert_eq!(pins.shown(&vm(&map, name), &one), Shown::Pinned);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| pin(&old, 1));
            pin(&new, 0);
        });
        let map = InFile::open(&state).unwrap().map_of(&fleet).unwrap();
        let lost: Vec<_> = names.iter().filter(|name| vm(&map, name).host_key.is_none()).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }

    #[test]
    fn what_the_fleet_file_says_of_a_host_key_goes_before_what_was_shown() {
        let scratch = Scratch::new();
        let state = State::open(&scratch.0.join("state")).unwrap();
        let key = PrivateKey::generate_ed25519(&mut SystemEntropy::default());
        let pins = InFile::open(&state).unwrap();
        let unknown = fleet(&scratch, &[("blue", "alice", "")]);
        let blue = vm(&pins.map_of(&unknown).unwrap(), "blue");
        assert_eq!(pins.shown(&blue, key.public()), Shown::Pinned);
        let given = fleet(&scratch, &[("blue", "alice", &format!("host_key = \"{LINE}\"\n"))]);
        let blue = vm(&pins.map_of(&given).unwrap(), "blue");
        let line = PublicKey::parse_line(LINE).unwrap().0;
        assert_eq!(blue.host_key.unwrap().key().as_deref(), Some(line.blob()));
    }
}
