//! What the commands of the registry have in common: whom each is about, and what it is called.

use super::command::{Command, NewVm, Thing};
use super::document::{AddressState, Key};
use super::name::Label;
use super::noted::Noted;

impl Command {
    /// Whether it is about what operators may only look at.
    #[must_use]
    pub fn is_for_admins(&self) -> bool {
        let what = self.subject();
        matches!(what, Some(Subject::Key(Key::Address(_) | Key::Node(_)) | Subject::Edge(_)))
    }

    /// The document that the command is about, for the check of a revision. A VM is
    /// found by its name.
    #[must_use]
    pub fn subject(&self) -> Option<Subject<'_>> {
        Some(match self {
            Self::UserAdd { name, .. } | Self::UserRemove { name } => {
                Subject::Key(Key::User(name.clone()))
            }
            Self::KeyAdd { user, .. }
            | Self::KeySet { user, .. }
            | Self::KeyRemove { user, .. } => Subject::Key(Key::User(user.clone())),
            Self::TeamAdd { name, .. } | Self::TeamRemove { name } => {
                Subject::Key(Key::Team(name.clone()))
            }
            Self::TeamJoin { team, .. } | Self::TeamLeave { team, .. } => {
                Subject::Key(Key::Team(team.clone()))
            }
            Self::VmAdd(NewVm { name, .. })
            | Self::VmRemove { name }
            | Self::VmShare { name, .. }
            | Self::VmUnshare { name, .. }
            | Self::VmRename { name, .. }
            | Self::VmTransfer { name, .. }
            | Self::VmSet { name, .. }
            | Self::VmUnpin { name }
            | Self::VmRenumber { name, .. } => Subject::Vm(name),
            Self::AddressAdd { name, .. }
            | Self::AddressRemove { name }
            | Self::AddressSet { name, .. }
            | Self::AddressState { name, .. } => Subject::Key(Key::Address(name.clone())),
            Self::NodeAdd { name, .. }
            | Self::NodeRemove { name }
            | Self::NodeSet { name, .. }
            | Self::NodePin { name, .. }
            | Self::NodeToken { name, .. }
            | Self::NodeJoin { name, .. } => Subject::Key(Key::Node(name.clone())),
            Self::EdgeAdd { name, .. } | Self::EdgeRemove { name, .. } => Subject::Edge(name),
            Self::TokenAdd { name, .. } | Self::TokenRemove { name } => {
                Subject::Key(Key::Token(name.clone()))
            }
            Self::TakeOver { thing } => match thing {
                Thing::Address(name) => Subject::Key(Key::Address(name.clone())),
                Thing::User(name) => Subject::Key(Key::User(name.clone())),
                Thing::Team(name) => Subject::Key(Key::Team(name.clone())),
                Thing::Node(name) => Subject::Key(Key::Node(name.clone())),
                Thing::Vm(name) => Subject::Vm(name),
            },
            Self::Sweep
            | Self::VmPin { .. }
            | Self::EdgeRegister { .. }
            | Self::NodeFound { .. }
            | Self::QuarantineWays { .. }
            | Self::Refused { .. }
            | Self::Close { .. }
            | Self::CaConfirm { .. }
            | Self::Note { .. } => return None,
        })
    }

    /// Whether it may take several transactions.
    #[must_use]
    pub const fn in_parts(&self) -> bool {
        matches!(
            self,
            Self::UserRemove { .. } | Self::TeamRemove { .. } | Self::VmRemove { .. } | Self::Sweep
        )
    }

    /// Whether somebody wants it, rather than time, or the edge that goes on with its work.
    #[must_use]
    pub const fn is_wanted(&self) -> bool {
        let own = matches!(
            self,
            Self::Sweep | Self::VmPin { .. } | Self::EdgeRegister { .. } | Self::NodeFound { .. }
        );
        !own && !self.is_note()
    }

    /// Whether it changes nothing but the audit log.
    #[must_use]
    pub const fn is_note(&self) -> bool {
        matches!(self, Self::Note { .. } | Self::Refused { .. })
    }

    /// What it does, in a word: that of the audit log, of plans, and of the command line with
    /// its parts joined.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::UserAdd { .. } => "user-add",
            Self::UserRemove { .. } => "user-rm",
            Self::KeyAdd { .. } => "key-add",
            Self::KeySet { .. } => "key-set",
            Self::KeyRemove { .. } => "key-rm",
            Self::TeamAdd { .. } => "team-add",
            Self::TeamRemove { .. } => "team-rm",
            Self::TeamJoin { .. } => "team-join",
            Self::TeamLeave { .. } => "team-leave",
            Self::VmAdd(_) => "vm-add",
            Self::VmRemove { .. } => "vm-rm",
            Self::VmShare { .. } => "vm-share",
            Self::VmUnshare { .. } => "vm-unshare",
            Self::VmRename { .. } => "vm-rename",
            Self::VmTransfer { .. } => "vm-transfer",
            Self::VmSet { .. } => "vm-set",
            Self::VmPin { .. } => "vm-host-key-pin",
            Self::VmUnpin { .. } => "vm-host-key-forget",
            Self::VmRenumber { .. } => "vm-renumber",
            Self::AddressAdd { .. } => "address-add",
            Self::AddressRemove { .. } => "address-rm",
            Self::AddressSet { .. } => "address-set",
            Self::AddressState { state: AddressState::Ready, .. } => "address-undrain",
            Self::AddressState { state: AddressState::Drain, .. } => "address-drain",
            Self::AddressState { state: AddressState::Maint, .. } => "address-maint",
            Self::NodeAdd { .. } => "node-add",
            Self::NodeRemove { .. } => "node-rm",
            Self::NodeSet { .. } => "node-set",
            Self::NodePin { .. } => "node-host-key-pin",
            Self::NodeFound { .. } => "node-state",
            Self::EdgeAdd { .. } => "edge-add",
            Self::EdgeRegister { .. } => "edge-register",
            Self::EdgeRemove { .. } => "edge-rm",
            Self::NodeToken { .. } => "node-token",
            Self::NodeJoin { .. } => "node-join",
            Self::TokenAdd { .. } => "token-add",
            Self::TokenRemove { .. } => "token-rm",
            Self::TakeOver { .. } => "take-over",
            Self::Sweep => "sweep",
            Self::Refused { of, .. } => of.word(),
            Self::Note { what: Noted::Request, .. } => "request",
            Self::QuarantineWays { .. } => "slots-hold",
            Self::Close { .. } => "slots-close",
            Self::CaConfirm { .. } => "ca-confirm",
            Self::Note { what: Noted::SessionKill, .. } => "session-kill",
            Self::Note { what: Noted::NodeRelease, .. } => "node-release",
            Self::Note { what: Noted::StoreBackup, .. } => "store-backup",
            Self::Note { what: Noted::StoreRestore, .. } => "store-restore",
            Self::Note { what: Noted::StoreAdopt, .. } => "store-adopt",
            Self::Note { what: Noted::HostKeys, .. } => "host-keys",
            Self::Note { what: Noted::StoreFault, .. } => "store-fault",
            Self::Note { what: Noted::AuditForget, .. } => "audit-forget",
        }
    }
}

/// What a command is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Subject<'a> {
    /// This document.
    Key(Key),
    /// The VM of this name.
    Vm(&'a Label),
    /// The edge of this name.
    Edge(&'a Label),
}
