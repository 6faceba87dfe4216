//! `keyway team`: users who share what is given to the team.

use clap::Subcommand;
use serde_json::{Value, json};

use super::api_path::path;
use super::api_session::named;
use super::change::{Change, ChangeArgs};
use super::error::Outcome;
use super::remote::Remote;
use super::table::{Column, cell};
use super::terminal::Terminal;
use super::user::count;
use crate::registry::Label;
use crate::registry::document::Access;

#[derive(Debug, Subcommand)]
pub(super) enum Team {
    /// All teams
    List,
    /// One team with its members
    Show {
        /// Which
        name: Label,
    },
    /// A new team
    #[command(
        visible_alias = "create",
        after_help = "\
Example:
  keyway team add ops --member alice --member bob"
    )]
    Add {
        /// A DNS label
        name: Label,
        /// A user (may be repeated)
        #[arg(long = "member", value_name = "USER")]
        members: Vec<Label>,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Remove a team, out of all shares
    #[command(visible_alias = "remove")]
    Rm {
        /// Which
        name: Label,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// Make a user a member, or change how a member enters
    #[command(after_help = "\
Examples:
  keyway team join ops carol
  keyway team join ops carol --renumber --dry-run    which VMs would get another address
  keyway team join support dave --by-name            as login+vm@ only: takes no addresses")]
    Join {
        /// Which
        team: Label,
        /// Who
        user: Label,
        /// The team's VMs are entered as login+vm@ only, which takes no address
        #[arg(long)]
        by_name: bool,
        #[command(flatten)]
        edit: ChangeArgs,
    },
    /// A member leaves; sessions that the membership gave end
    #[command(after_help = "\
Example:
  keyway team leave ops carol")]
    Leave {
        /// Which
        team: Label,
        /// Who
        user: Label,
        #[command(flatten)]
        edit: ChangeArgs,
    },
}

const COLUMNS: &[Column] = &[
    ("NAME", named),
    ("MEMBERS", |team| count(team, "members")),
    ("VMS", |team| cell(team, "vms")),
];

const FIELDS: &[Column] = &[
    ("NAME", named),
    ("MEMBERS", |team| grants(team, "members", "user")),
    ("VMS", |team| cell(team, "vms")),
    ("ORIGIN", |team| cell(team, "origin")),
    ("REVISION", |team| cell(team, "revision")),
];

/// Those who were let in, and how if that is by name.
pub(super) fn grants(item: &Value, key: &str, who: &str) -> String {
    let grants = item.get(key).and_then(Value::as_array);
    let each = grants.into_iter().flatten().map(|grant| match cell(grant, "access").as_str() {
        "slot" => cell(grant, who),
        access => format!("{} ({access})", cell(grant, who)),
    });
    each.collect::<Vec<_>>().join(",")
}

/// How somebody is let in.
pub(super) fn access(by_name: bool) -> Access {
    if by_name { Access::ByName } else { Access::Slot }
}

pub(super) fn run(command: Team, remote: &Remote, terminal: &mut Terminal<'_>) -> Outcome {
    let mut talk = remote.talk(terminal)?;
    match command {
        Team::List => talk.list(&path(["teams"]), &[], COLUMNS, &|_| true),
        Team::Show { name } => {
            let team = talk.get(path(["teams", name.as_str()]))?;
            talk.show(&team, FIELDS)
        }
        Team::Add { name, members, edit } => {
            let body = json!({ "name": name, "members": members });
            let members = crate::plural::count(members.len(), "member");
            let line = |_: &Value| format!("team {name} added with {members}");
            talk.change(Change::post(path(["teams"]), body), edit, &line)
        }
        Team::Rm { name, edit } => {
            let change = Change::delete(path(["teams", name.as_str()]));
            talk.change(change, edit, &|_| format!("team {name} removed"))
        }
        Team::Join { team, user, by_name, edit } => {
            let path = path(["teams", team.as_str(), "members", user.as_str()]);
            let change = Change::put(path, json!({ "access": access(by_name) }));
            let how = if by_name { ", by name" } else { "" };
            talk.change(change, edit, &|_| format!("{user} joined team {team}{how}"))
        }
        Team::Leave { team, user, edit } => {
            let change = Change::delete(path(["teams", team.as_str(), "members", user.as_str()]));
            talk.change(change, edit, &|_| format!("{user} left team {team}"))
        }
    }
}
