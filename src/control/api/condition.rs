//! How a front door is, and what came of reading its files again. Shown to operators and asked for
//! by their programs.

use schemars::JsonSchema;
use serde::Serialize;

use crate::registry::apply::served_file::PlannedRevision;

/// How this front door is.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Status {
    /// The worst of its parts, as a whole.
    pub state: State,
    /// Of keyway.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// Unix time of its start.
    pub since_s: u64,
    /// The registry's revision that routes and names are of.
    pub revision: u64,
    /// How much of everything there is.
    pub counts: Counts,
    /// Each part by itself.
    pub parts: Vec<PartStatus>,
}

/// Whether people get in, and whether all else works.
#[derive(Clone, Copy, Debug, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// They do, and it does.
    Up,
    /// They do, and something else does not.
    Degraded,
    /// They do not.
    Down,
}

/// How much there is now.
#[derive(Clone, Copy, Debug, Default, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Counts {
    /// Sessions carried to a VM.
    pub sessions: u64,
    /// Most of them.
    pub sessions_max: u64,
    /// Connections that are not authenticated yet.
    pub half_open: u64,
    /// Most of them.
    pub half_open_max: u64,
    /// Users.
    pub users: u64,
    /// Their keys.
    pub keys: u64,
    /// VMs.
    pub vms: u64,
    /// Addresses of the pool.
    pub addresses: u64,
}

/// How one part is.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PartStatus {
    /// The part that this is about.
    pub part: Part,
    /// Its health.
    pub state: PartState,
    /// For people: where it listens, or what is wrong and what to do.
    pub detail: String,
}

/// What a front door consists of.
#[derive(Clone, Copy, Debug, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Where people come in.
    Door,
    /// Who may go where.
    Registry,
    /// Whether the VMs were prepared for the CA that logs in to them.
    VmCa,
    /// This API.
    Api,
    /// Names.
    Dns,
    /// Metrics and health.
    Metrics,
    /// What `--fleet` names.
    FleetFile,
    /// Whether agents take sessions from it.
    Identity,
}

/// Whether a part works.
#[derive(Clone, Copy, Debug, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartState {
    /// It does.
    Up,
    /// It does not.
    Down,
    /// It is not configured.
    Off,
}

/// How the files are to be read again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reload {
    /// Say what would come of it, and change nothing.
    pub dry_run: bool,
    /// The plan of a fleet file that somebody has seen and means, however much it removes.
    pub allow_mass_removal: Option<PlannedRevision>,
}

/// What came of reading the files again.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Reloaded {
    /// Whether all of the files is in force from now on, but for what takes a restart.
    pub done: bool,
    /// Whether this only says what would happen.
    pub dry_run: bool,
    /// Each part by itself, in the order in which they were renewed: none waits for another.
    pub parts: Vec<PartReloaded>,
    /// Names the plan of a fleet file that would remove too much to be meant: sent back as
    /// `allow_mass_removal` it is carried out, if it is still the same.
    pub plan: Option<String>,
    /// What has changed in `keyway.toml` and takes a restart.
    pub restart: Vec<NeedsRestart>,
    /// What is not wrong, but worth a word.
    pub warnings: Vec<String>,
}

/// What came of one part.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PartReloaded {
    /// The part that this is about.
    pub part: Renewed,
    /// What came of it.
    pub result: Renewal,
    /// For people: what was done, or why it was not, each with what to do.
    pub details: Vec<String>,
}

/// What a reload renews, in this order.
#[derive(Clone, Copy, Debug, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Renewed {
    /// `revoked_keys` and `trusted_user_cas`: what they take away is gone whatever is
    /// wrong with the rest.
    Revocations,
    /// `keyway.toml` as a whole, read and sound.
    Config,
    /// Host keys, how VMs are logged in to, and what clients are offered.
    Door,
    /// Its certificate and its peers.
    Api,
    /// The host keys in the zone.
    Dns,
    /// What `--fleet` names.
    FleetFile,
}

impl Renewed {
    /// As people read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revocations => "revocations",
            Self::Config => "keyway.toml",
            Self::Door => "door",
            Self::Api => "api",
            Self::Dns => "dns",
            Self::FleetFile => "fleet file",
        }
    }
}

/// What came of a part.
#[derive(Clone, Copy, Debug, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Renewal {
    /// The files are in force.
    Done,
    /// Something of it is not.
    Failed,
    /// Not tried: what it depends on has failed.
    Skipped,
}

/// A key of `keyway.toml` whose new value takes a restart.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NeedsRestart {
    /// `edge.listen`, or a section as a whole.
    pub key: String,
    /// What is in force.
    pub running: String,
    /// What the file says.
    pub file: String,
}
