//! What a node has besides containers and images, and what happens on it.

use std::time::Duration;

use hyper::Method;
use serde::Deserialize;

use super::client::{Docker, Question};
use super::exchange::Patience;
use super::fault::{Fault, cleaned};
use super::model::{Info, Listed, Network, Texts, Volume, VolumesListed, filters, map};
use super::names::VolumeName;
use super::spec::VolumeSpec;
use super::target::Target;
use super::told::Told;

/// To remove one: all that lies in it.
const REMOVED: Patience = Patience::of(Duration::from_mins(5));

impl Docker {
    /// What the daemon runs on.
    pub async fn info(&self) -> Result<Info, Fault> {
        self.read(Question::get(Target::new("/info"))).await
    }

    /// Makes a volume; one that is there stays as it is.
    pub async fn create_volume(&self, spec: &VolumeSpec) -> Result<Volume, Fault> {
        self.read(Question::post(Target::new("/volumes/create")).json(spec)).await
    }

    /// Volumes that have a label: `keyway.vm`, or `keyway.vm=ID`.
    pub async fn volumes(&self, label: &str) -> Result<Vec<Volume>, Fault> {
        let target = Target::new("/volumes").query("filters", &filters(&[("label", label)]));
        let listed: VolumesListed = self.read(Question::get(target)).await?;
        Ok(listed.volumes)
    }

    /// Removes a volume and all that lies in it.
    ///
    /// # Errors
    /// [`super::Refusal::InUse`] while a container has it.
    pub async fn remove_volume(&self, name: &VolumeName) -> Result<(), Fault> {
        let question = Question::new(Method::DELETE, Target::of("/volumes", name));
        self.does(question.patience(REMOVED)).await
    }

    /// Networks that containers may be in.
    pub async fn networks(&self) -> Result<Vec<Network>, Fault> {
        let listed: Listed<_> = self.read(Question::get(Target::new("/networks"))).await?;
        Ok(listed.0)
    }

    /// What happens from now on to containers that have a label.
    pub async fn events(&self, label: &str) -> Result<Told<Event>, Fault> {
        let filters = filters(&[("label", label), ("type", "container")]);
        let target = Target::new("/events").query("filters", &filters);
        // Podman sends the head with the first event.
        let patience = Patience { head: None, body: None };
        Ok(Told::new(self.ask(Question::get(target).patience(patience)).await?))
    }
}

/// Something that happened to a container.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(from = "EventTold")]
pub struct Event {
    /// `start`, `die`, `oom`, `destroy`...
    pub action: String,
    /// The container's.
    pub id: String,
    /// The container's labels, name, and the status that it ended with, as the daemon has them.
    pub attributes: Texts,
    /// Unix time in seconds.
    pub time_s: i64,
}

#[derive(Deserialize)]
struct EventTold {
    #[serde(rename = "Action")]
    action: String,
    #[serde(rename = "Actor")]
    actor: Actor,
    #[serde(default)]
    time: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default, deserialize_with = "map")]
    attributes: Texts,
}

impl From<EventTold> for Event {
    fn from(EventTold { action, actor, time }: EventTold) -> Self {
        let [action, id] = [action, actor.id].map(|word| cleaned(&word));
        Self { action, id, attributes: actor.attributes, time_s: time }
    }
}
