//! Teams and who is in them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pattern::NAME;
use crate::registry::document::{self, Access, Origin};
use crate::registry::{Label, Model, Principal};

/// A team.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Team {
    /// A DNS label.
    pub name: String,
    /// By name.
    pub members: Vec<Member>,
    /// How many VMs the team owns or was given.
    pub vms: usize,
    /// Whose it is: what is the served fleet file's goes when that no longer names it. None while
    /// the registry is away.
    pub origin: Option<Origin>,
    /// Set while it is being removed. Whoever finds it so after a removal that was cut short
    /// removes it again.
    pub going: bool,
    /// Goes up with every change.
    pub revision: u64,
}

impl Team {
    /// As the registry has it.
    pub(in super::super) fn of(
        model: &Model,
        name: &Label,
        team: &document::Team,
        revision: u64,
    ) -> Self {
        let member =
            |(user, access): (&Label, &Access)| Member { user: user.to_string(), access: *access };
        Self {
            name: name.to_string(),
            members: team.members.iter().map(member).collect(),
            vms: model.visible_to(&Principal::Team(name.clone())).len(),
            origin: model.known(team.origin),
            going: team.going,
            revision,
        }
    }
}

/// A user in a team.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Member {
    /// The user, by name.
    pub user: String,
    /// How the member enters the team's VMs.
    pub access: Access,
}

/// A new team.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewTeam {
    #[schemars(regex(pattern = NAME))]
    pub(in super::super) name: String,
    /// Users.
    #[serde(default)]
    #[schemars(inner(regex(pattern = NAME)))]
    pub(in super::super) members: Vec<String>,
}
