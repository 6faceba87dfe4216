//! A running demonstration: the front door, and who and what is behind it.

use super::agent::Agent;
use super::agent_identity::Identity;
use super::directory::Directory;
use super::door::{self, FILES, FrontDoor, KNOWN_HOSTS};
use super::stage::{Kind, Stage};
use crate::serve::Failure;
use crate::ssh::entropy::SystemEntropy;
use crate::state::State;

/// A running demonstration.
pub(super) struct Demo {
    pub(super) door: FrontDoor,
    agent: Agent,
    pub(super) stage: Stage,
}

impl Demo {
    pub(super) fn start(kind: Kind, port: Option<u16>) -> Result<Self, Failure> {
        let mut entropy = SystemEntropy::default();
        let directory = Directory::new(&mut entropy)?;
        let remembered = State::open(&directory.path().join("state"))?;
        let host_key = remembered.host_key(&mut entropy)?;
        let user_ca = remembered.user_ca(&mut entropy)?;
        let beside = Identity::make(&directory, &mut entropy)?;
        let stage = Stage::set(directory, user_ca.public(), &beside, kind, &mut entropy)?;
        let loaded = door::configured(stage.directory(), &stage.fleet(&beside)?, port)?;
        let [_, fleet] = FILES;
        let edge = remembered.identity(&mut entropy)?;
        let knows = (edge.public(), host_key.public());
        let agent = Agent::start(&beside, stage.directory(), knows, fleet)?;
        let door = door::front_door(loaded, host_key.public().clone(), &remembered)?;
        stage.directory().file(KNOWN_HOSTS, &door.known_hosts())?;
        Ok(Self { door, agent, stage })
    }

    /// Users first, then the agent and the VMs, then the directory.
    pub(super) fn end(self) {
        let Self { door, agent, stage } = self;
        door.close();
        agent.close();
        drop(stage);
    }
}
