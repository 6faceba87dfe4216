//! The host key that a VM has proved, against the one it has to show; and its first use,
//! where there is none.

use std::sync::Arc;

use super::super::first_use::Shown;
use super::super::shared::Shared;
use super::VmLegs;
use crate::ended::{Cause, Ended, Stage};
use crate::route::{Pin, Vm};
use crate::ssh::publickey::{KeyType, PublicKey};
use crate::ssh::transport::ClientConfig;

impl VmLegs {
    /// What to ask for, in order.
    pub(super) fn configs(&self, wanted: Option<&Pin>) -> Vec<Arc<ClientConfig>> {
        let configs = match wanted.map(|pin| pin.key().and_then(|blob| key_type(&blob))) {
            None | Some(Some(KeyType::SkEd25519 | KeyType::SkEcdsaP256)) => vec![&self.any],
            Some(None) => vec![&self.ed25519, &self.ecdsa, &self.rsa],
            Some(Some(KeyType::Ed25519)) => vec![&self.ed25519],
            Some(Some(KeyType::EcdsaP256 | KeyType::EcdsaP384 | KeyType::EcdsaP521)) => {
                vec![&self.ecdsa]
            }
            Some(Some(KeyType::Rsa)) => vec![&self.rsa],
        };
        configs.into_iter().map(Arc::clone).collect()
    }

    /// Judges the host key the VM has proved, and has it pinned at first use.
    pub(super) async fn judge_host_key(
        &self,
        shared: &Arc<Shared>,
        vm_entry: &Arc<Vm>,
        blob: &[u8],
    ) -> Result<(), Ended> {
        let mismatch = Ended::vm(Stage::VmExchange, Cause::PinMismatch);
        let key = PublicKey::parse(blob).map_err(|_| mismatch)?;
        let wanted = vm_entry.host_key.as_ref();
        if let Some(pinned) = wanted.and_then(Pin::key) {
            return if *pinned == *blob { Ok(()) } else { Err(mismatch) };
        }
        if let Some(Pin::Fingerprint(given)) = wanted
            && key.fingerprint().0 != *given
        {
            return Err(mismatch);
        }
        if wanted.is_none() {
            return self.pin(shared, vm_entry, key).await;
        }
        // The VM has shown what it has to; only the next login has to find out the
        // key's type again.
        if let Some(place) = self.completions.take() {
            let (first_use, entry) = (Arc::clone(&shared.first_use), Arc::clone(vm_entry));
            shared.pins.run(move || {
                if let Shown::Failed { why } = first_use.shown(&entry, &key) {
                    tracing::warn!(vm = entry.name, why, "the host key could not be written down");
                }
                drop(place);
            });
        }
        Ok(())
    }

    /// Has `key` pinned at its first use, in its turn.
    async fn pin(
        &self,
        shared: &Arc<Shared>,
        vm_entry: &Arc<Vm>,
        key: PublicKey,
    ) -> Result<(), Ended> {
        let unwritten = Ended::edge(Stage::VmExchange, Cause::PinUnwritten);
        let (first_use, entry) = (Arc::clone(&shared.first_use), Arc::clone(vm_entry));
        let write = move || first_use.shown(&entry, &key);
        match self.tasks.blocking(&shared.pins, write).await.ok_or(unwritten)? {
            Shown::Pinned => Ok(()),
            Shown::Other => Err(Ended::vm(Stage::VmExchange, Cause::PinMismatch)),
            Shown::OfOtherOwner { vm: other } => {
                tracing::warn!(
                    vm = vm_entry.name,
                    other,
                    "the VM's host key belongs to a VM of another owner; if images are cloned, give it with \
                     `keyway vm host-key set` or host_key in the fleet file"
                );
                Err(Ended::vm(Stage::VmExchange, Cause::PinConflict))
            }
            Shown::Failed { why } => {
                tracing::warn!(vm = vm_entry.name, why, "the host key could not be pinned");
                Err(unwritten)
            }
        }
    }
}

fn key_type(blob: &[u8]) -> Option<KeyType> {
    PublicKey::parse(blob).ok().map(|key| key.key_type())
}
