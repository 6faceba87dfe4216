//! Containers: made, started, watched, removed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use tokio::io::{AsyncRead, ReadBuf};

use super::client::{Change, Docker, Question};
use super::exchange::{Answer, Patience};
use super::fault::{Fault, cleaned};
use super::model::{Container, ContainerListed, Created, Listed, filters};
use super::names::ContainerName;
use super::output::{Form, Logs, Output};
use super::spec::{ContainerSpec, LogPart};
use super::stats::Stats;
use super::target::Target;
use super::told::Told;

const CONTAINERS: &str = "/containers";
/// To make or start one: a busy disk, and runc.
const MADE: Patience = Patience::of(Duration::from_mins(2));
/// To remove one: all that it ever wrote.
const REMOVED: Patience = Patience::of(Duration::from_mins(5));

/// How a container's first process ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exit {
    /// Its status; 128 and the signal's number, if one ended it.
    pub status: i64,
    /// What went wrong besides.
    pub error: Option<String>,
}

impl Docker {
    /// Makes a container, which does not run yet. If the answer is lost, it may be there.
    ///
    /// # Errors
    /// [`super::Refusal::NotFound`] without its image, [`super::Refusal::Conflict`] if its
    /// name is taken.
    pub async fn create_container(
        &self,
        name: &ContainerName,
        spec: &ContainerSpec,
    ) -> Result<Created, Fault> {
        let target = Target::new("/containers/create").query("name", name.as_str());
        self.read(Question::post(target).json(spec).patience(MADE)).await
    }

    /// Starts it.
    pub async fn start_container(&self, name: &ContainerName) -> Result<Change, Fault> {
        let target = Target::of(CONTAINERS, name).then("/start");
        self.changes(Question::post(target).patience(MADE)).await
    }

    /// Asks it to end, and kills it after `grace`.
    pub async fn stop_container(
        &self,
        name: &ContainerName,
        grace: Duration,
    ) -> Result<Change, Fault> {
        self.changes(Self::ending(name, "/stop", grace)).await
    }

    /// Stops it as [`Self::stop_container`] does, and starts it.
    pub async fn restart_container(
        &self,
        name: &ContainerName,
        grace: Duration,
    ) -> Result<(), Fault> {
        self.does(Self::ending(name, "/restart", grace)).await
    }

    fn ending(name: &ContainerName, path: &'static str, grace: Duration) -> Question {
        let target = Target::of(CONTAINERS, name).then(path);
        let target = target.query("t", &grace.as_secs().to_string());
        Question::post(target).patience(Patience::of(Duration::from_mins(1).saturating_add(grace)))
    }

    /// Sends a signal to its first process: `KILL`, `HUP`...
    ///
    /// # Errors
    /// [`super::Refusal::Conflict`] if it does not run.
    pub async fn kill_container(&self, name: &ContainerName, signal: &str) -> Result<(), Fault> {
        let target = Target::of(CONTAINERS, name).then("/kill").query("signal", signal);
        self.does(Question::post(target)).await
    }

    /// Removes it. `force`: though it runs. `volumes`: those too that have no name.
    ///
    /// # Errors
    /// [`super::Refusal::InUse`] while it runs, or is being removed by somebody else.
    pub async fn remove_container(
        &self,
        name: &ContainerName,
        force: bool,
        volumes: bool,
    ) -> Result<(), Fault> {
        let target = Target::of(CONTAINERS, name).flag("force", force).flag("v", volumes);
        self.does(Question::new(Method::DELETE, target).patience(REMOVED)).await
    }

    /// All that is known of it.
    pub async fn inspect_container(&self, name: &ContainerName) -> Result<Container, Fault> {
        self.read(Question::get(Target::of(CONTAINERS, name).then("/json"))).await
    }

    /// Containers in any state that have a label: `keyway.vm`, or `keyway.vm=ID`.
    pub async fn containers(&self, label: &str) -> Result<Vec<ContainerListed>, Fault> {
        let target = Target::new("/containers/json").query("all", "1");
        let target = target.query("filters", &filters(&[("label", label)]));
        let listed: Listed<_> = self.read(Question::get(target)).await?;
        Ok(listed.0)
    }

    /// What its first process wrote. Asks first whether it has a terminal, because
    /// nothing in a log tells so.
    pub async fn logs(&self, name: &ContainerName, part: LogPart) -> Result<Logs, Fault> {
        let container = self.inspect_container(name).await?;
        let form = if container.config.tty { Form::Raw } else { Form::Framed };
        let LogPart { follow, since_s, tail, timestamps } = part;
        let target = Target::of(CONTAINERS, &container.id).then("/logs");
        let target = target.query("stdout", "1").query("stderr", "1");
        let target = target.flag("follow", follow).flag("timestamps", timestamps);
        let target = target.maybe("since", since_s.map(|s| s.to_string()).as_deref());
        let target = target.maybe("tail", tail.map(|lines| lines.to_string()).as_deref());
        // A long log takes a while to be searched; one that is followed may be silent.
        let usual = Patience::of(Duration::from_mins(2));
        let patience = if follow { usual.with_silence() } else { usual };
        let answer = self.ask(Question::get(target).patience(patience)).await?;
        Ok(Logs::new(Output::new(answer, form)))
    }

    /// What it uses, as one measurement.
    pub async fn stats(&self, name: &ContainerName) -> Result<Stats, Fault> {
        let target = Target::of(CONTAINERS, name).then("/stats");
        // Without `one-shot` a daemon measures for two seconds.
        self.read(Question::get(target.query("stream", "0").query("one-shot", "1"))).await
    }

    /// What it uses, measured every second.
    pub async fn stats_stream(&self, name: &ContainerName) -> Result<Told<Stats>, Fault> {
        let target = Target::of(CONTAINERS, name).then("/stats").query("stream", "1");
        Ok(Told::new(self.ask(Question::get(target)).await?))
    }

    /// Waits until it does not run, for as long as that takes.
    pub async fn wait_container(&self, name: &ContainerName) -> Result<Exit, Fault> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Waited {
            status_code: i64,
            error: Option<WaitFault>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct WaitFault {
            message: Option<String>,
        }
        let target = Target::of(CONTAINERS, name).then("/wait").query("condition", "not-running");
        // Podman sends no head before the end.
        let patience = Patience { head: None, body: None };
        let mut told = Told::new(self.ask(Question::post(target).patience(patience)).await?);
        let waited: Option<Waited> = told.next().await?;
        let Waited { status_code: status, error } =
            waited.ok_or_else(|| Fault::not_docker("it says nothing of how a container ended"))?;
        let error = error.and_then(|fault| fault.message).filter(|words| !words.is_empty());
        Ok(Exit { status, error: error.map(|words| cleaned(&words)) })
    }

    /// Unpacks a tar below `dir` of a container, which need not run. It is read as fast
    /// as the daemon takes it.
    pub async fn put_archive(
        &self,
        name: &ContainerName,
        dir: &str,
        tar: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<(), Fault> {
        let target = Target::of(CONTAINERS, name).then("/archive").query("path", dir);
        self.does(Question::new(Method::PUT, target).tar(tar).patience(MADE)).await
    }

    /// What lies at `path` of a container, as a tar; an error while it is read holds a [`Fault`].
    pub async fn get_archive(&self, name: &ContainerName, path: &str) -> Result<Archive, Fault> {
        let target = Target::of(CONTAINERS, name).then("/archive").query("path", path);
        Ok(Archive::new(self.ask(Question::get(target).patience(MADE)).await?))
    }
}

/// An archive as it comes: it is read no faster than whoever has it reads.
pub struct Archive(Answer);

impl Archive {
    pub(super) const fn new(answer: Answer) -> Self {
        Self(answer)
    }
}

impl AsyncRead for Archive {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}
