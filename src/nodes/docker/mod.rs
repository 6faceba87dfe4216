//! The Docker API of a node, over any stream that leads to its socket; Podman's too.
//!
//! Whoever has a way to a daemon gives a [`Dial`]: [`Docker`] makes a stream for each call, speaks
//! the API that both sides know, and drops the stream with the answer. It knows no node and no VM,
//! never retries, and never believes: names are judged before they go into a path and when they
//! come back, whatever a daemon says is bounded, and no wait is longer than its limit. Only what
//! may rightly be silent (a log that is followed, a command, events) ends by whoever waits.

mod client;
mod containers;
mod deadline;
mod exchange;
mod exec;
mod fault;
mod host;
mod images;
mod lines;
mod model;
mod names;
mod output;
mod payload;

mod spec;
mod stats;
mod stream;
mod target;
mod told;
mod version;

pub use self::client::{Change, Docker};
pub use self::containers::{Archive, Exit};
pub use self::exec::{Exec, ExecInput};
pub use self::fault::{Fault, Refusal, Stage};
pub use self::host::Event;
pub use self::model::{
    Container, ContainerConfig, ContainerListed, ContainerState, Created, Endpoint, ExecState,
    Image, ImageListed, ImageRemoved, Info, MountPoint, Network, NetworkSettings, Ping, Texts,
    Version, Volume,
};
pub use self::names::{
    ContainerName, ExecId, ImageName, Name, NameFault, Named, NetworkName, OfContainer, OfExec,
    OfNetwork, OfVolume, VolumeName,
};
pub use self::output::{Chunk, LogLine, Logs, Origin, Output};
pub use self::spec::{
    BuildSpec, ContainerSpec, ExecSpec, HostConfig, LogPart, NetworkMode, Published, RegistryAuth,
    Restart, VolumeMount, VolumeSpec,
};
pub use self::stats::Stats;
pub use self::stream::{Dial, Stream};
pub use self::told::{Progress, Told};
pub use self::version::ApiVersion;

#[cfg(test)]
mod testing;
#[cfg(test)]
#[path = "hostile_tests.rs"]
mod tests;
