//! The pool's commands: addresses come, go and change.

use std::net::IpAddr;

use super::Done;
use crate::plural::count;
use crate::registry::command::{NewAddress, Options};
use crate::registry::document::{Address, AddressState, Document, Key};
use crate::registry::draft::Draft;
use crate::registry::model::ips;
use crate::registry::name::Label;
use crate::registry::refusal::{Kind, Refusal};
use crate::route::is_dialable;

impl Draft<'_> {
    pub(in crate::registry) fn address_add(
        &mut self,
        name: &Label,
        new: &NewAddress,
        options: Options,
    ) -> Done {
        let lobby = new.lobby.unwrap_or(false);
        if !(lobby && name.as_str() == "lobby") {
            self.free_name(name, "address")?;
        }
        self.free_in_zone(name, "address")?;
        let Some(public) = new.public else {
            return Err(Refusal::invalid("an address needs a public IP", "add it"));
        };
        let address = Address {
            public: public.to_canonical(),
            public6: new.public6,
            private: new.private.map(|ip| ip.to_canonical()),
            lobby,
            state: AddressState::Ready,
            origin: options.origin,
        };
        self.check_address(name, &address)?;
        self.put(&Key::Address(name.clone()), Some(Document::Address(address)));
        Ok(())
    }

    fn check_address(&self, name: &Label, address: &Address) -> Done {
        let mut seen = Vec::new();
        for ip in ips(address) {
            if !is_dialable(ip) {
                return Err(Refusal::invalid(
                    format_args!("{ip} cannot be dialled"),
                    "write an address that clients can dial",
                ));
            }
            let of = self.model().address_of(ip).filter(|of| *of != name);
            if let Some(of) = of.or_else(|| seen.contains(&ip).then_some(name)) {
                return Err(Refusal::IpTaken { ip, of: of.clone() });
            }
            seen.push(ip);
        }
        if let (IpAddr::V6(public), Some(public6)) = (address.public, address.public6) {
            // DNS would have two addresses of one kind for one name, of which a
            // client takes either.
            return Err(Refusal::invalid(
                format_args!("public is {public}, an IPv6 address, beside public6 {public6}"),
                "write the IPv4 address as public, or leave public6 out",
            ));
        }
        if let Some(ip) = address.public6.filter(|ip| ip.to_canonical().is_ipv4()) {
            return Err(Refusal::invalid(
                format_args!("public6 is {ip}, which is no IPv6 address"),
                "write an IPv6 address, or leave it out",
            ));
        }
        Ok(())
    }

    pub(in crate::registry) fn stored_address(&self, name: &Label) -> Result<Address, Refusal> {
        let stored = self.model().address(name);
        stored.map(|it| it.document.clone()).ok_or_else(|| Refusal::unknown(Kind::Address, name))
    }

    /// Refuses where VMs stand at an address, or stood there not long ago.
    fn nothing_at(&self, name: &Label) -> Done {
        let site = self.model().address_ix(name).and_then(|ix| self.model().site(ix));
        let Some(site) = site else { return Ok(()) };
        let in_use = |by, fix: &str| {
            let (name, fix) = (name.to_string(), fix.to_owned());
            Err(Refusal::InUse { kind: Kind::Address, name, by, fix })
        };
        if !site.vms.is_empty() {
            let fix = "move them first (`keyway address drain`)";
            return in_use(format!("{} there", count(site.vms.len(), "VM")), fix);
        }
        if site.old + site.quarantined > 0 {
            let by = format!(
                "{} that led there not long ago",
                count(site.old + site.quarantined, "way")
            );
            return in_use(by, "wait until the quarantine is over");
        }
        Ok(())
    }

    pub(in crate::registry) fn address_remove(&mut self, name: &Label) -> Done {
        self.stored_address(name)?;
        self.nothing_at(name)?;
        self.put(&Key::Address(name.clone()), None);
        Ok(())
    }

    pub(in crate::registry) fn address_set(&mut self, name: &Label, set: &NewAddress) -> Done {
        let mut address = self.stored_address(name)?;
        let was = (address.public, address.public6, address.private, address.lobby);
        let NewAddress { public, public6, private, lobby, no_public6, no_private } = set;
        address.public = public.map_or(address.public, |ip| ip.to_canonical());
        address.public6 = public6.or(address.public6.filter(|_| !no_public6));
        let private = private.map(|ip| ip.to_canonical());
        address.private = private.or(address.private.filter(|_| !no_private));
        address.lobby = lobby.unwrap_or(address.lobby);
        let (public, public6, _, lobby) = was;
        // A new IP under an old name is another address for everybody who remembers the old one.
        if public != address.public
            || (public6.is_some() && public6 != address.public6)
            || lobby != address.lobby
        {
            self.nothing_at(name)?;
        }
        self.check_address(name, &address)?;
        self.put(&Key::Address(name.clone()), Some(Document::Address(address)));
        Ok(())
    }

    pub(in crate::registry) fn address_state(&mut self, name: &Label, state: AddressState) -> Done {
        let mut address = self.stored_address(name)?;
        address.state = state;
        self.put(&Key::Address(name.clone()), Some(Document::Address(address)));
        Ok(())
    }
}
