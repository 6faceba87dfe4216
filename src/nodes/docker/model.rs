//! What daemons say of themselves and of what they have: the fields that are used, and no others.
//!
//! Lists and maps are bounded: 16 MiB of JSON may name millions of things, each of which takes
//! more memory than its text. Words and names that are shown are cleaned here, which leaves an
//! honest one as it is; labels and what a container was made with are as the daemon has them.
//!
//! Source: Docker Engine API 1.40 to 1.47.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::fault::cleaned;
use super::names::{ContainerName, ExecId, ImageName, NetworkName, VolumeName};
use super::version::ApiVersion;

/// Things in a list.
const LIST_MAX: usize = 10_000;
/// Labels of one thing, and other maps.
const MAP_MAX: usize = 1_000;

/// Texts by name: labels, options.
pub type Texts = BTreeMap<String, String>;

/// What a daemon says at the least.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ping {
    /// Its newest API.
    pub api: Option<ApiVersion>,
    /// Whether it is Podman.
    pub podman: bool,
}

/// What a daemon is.
#[derive(Clone, Debug, Deserialize)]
pub struct Version {
    /// Of the daemon: `20.10.24+dfsg1`.
    #[serde(rename = "Version", deserialize_with = "word")]
    pub version: String,
    #[serde(rename = "ApiVersion")]
    pub(super) api: String,
    #[serde(rename = "MinAPIVersion")]
    pub(super) api_min: Option<String>,
    /// In Go's words: `amd64`.
    #[serde(rename = "Arch", deserialize_with = "word")]
    pub architecture: String,
    /// `linux`.
    #[serde(rename = "Os", deserialize_with = "word")]
    pub os: String,
    #[serde(rename = "Components", default, deserialize_with = "list")]
    components: Vec<Component>,
}

#[derive(Clone, Debug, Deserialize)]
struct Component {
    #[serde(rename = "Name")]
    name: String,
}

impl Version {
    /// Its newest API: `1.41`.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// Whether Podman answers in Docker's place.
    pub fn is_podman(&self) -> bool {
        self.components.iter().any(|component| component.name.contains("Podman"))
    }
}

/// What a daemon runs on.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Info {
    /// Of the daemon, another one whenever its data are.
    #[serde(rename = "ID", default, deserialize_with = "word")]
    pub id: String,
    /// In the kernel's words: `x86_64`.
    #[serde(default, deserialize_with = "word")]
    pub architecture: String,
    /// `linux`.
    #[serde(rename = "OSType", default, deserialize_with = "word")]
    pub os: String,
    /// Of the storage: `overlay2`.
    #[serde(default, deserialize_with = "word")]
    pub driver: String,
    #[serde(default, deserialize_with = "list")]
    driver_status: Vec<(String, String)>,
    /// `systemd` or `cgroupfs`.
    #[serde(default, deserialize_with = "word")]
    pub cgroup_driver: String,
    /// `1` or `2`.
    #[serde(default, deserialize_with = "word")]
    pub cgroup_version: String,
    /// Processors.
    #[serde(rename = "NCPU", default)]
    pub cpus: u32,
    /// Of the host.
    #[serde(rename = "MemTotal", default)]
    pub memory_bytes: u64,
    /// Containers of all states.
    #[serde(default)]
    pub containers: u32,
}

impl Info {
    /// Whether images lie in containerd's store, which takes no archive that lacks layers.
    pub fn has_containerd_store(&self) -> bool {
        let is_snapshotter =
            |(key, value): &(String, String)| key == "driver-type" && value.contains("containerd");
        self.driver_status.iter().any(is_snapshotter)
    }
}

/// A container in a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerListed {
    /// All 64 digits of it.
    pub id: ContainerName,
    #[serde(default, deserialize_with = "words")]
    names: Vec<String>,
    /// What it was made of.
    #[serde(default, deserialize_with = "word")]
    pub image: String,
    /// `running`, `exited`, `created`...
    #[serde(default, deserialize_with = "word")]
    pub state: String,
    /// What ties it to something of ours.
    #[serde(default, deserialize_with = "map")]
    pub labels: Texts,
}

impl ContainerListed {
    /// Its first name, without the slash that Docker puts before it.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", |name| name.trim_start_matches('/'))
    }
}

/// A container as a whole.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// All 64 digits of it.
    pub id: ContainerName,
    /// With a slash before it.
    #[serde(default, deserialize_with = "word")]
    pub name: String,
    /// Id of the image.
    #[serde(default, deserialize_with = "word")]
    pub image: String,
    /// How it is with it.
    pub state: ContainerState,
    /// What it was made with.
    pub config: ContainerConfig,
    /// Starts again by itself so many times.
    #[serde(default)]
    pub restart_count: u32,
    /// Where it lies in its networks.
    #[serde(default)]
    pub network_settings: NetworkSettings,
    /// What it sees of volumes and of the host.
    #[serde(default, deserialize_with = "list")]
    pub mounts: Vec<MountPoint>,
}

/// How it is with a container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerState {
    /// `running`, `exited`, `created`...
    #[serde(default, deserialize_with = "word")]
    pub status: String,
    /// Whether its first process lives.
    #[serde(default)]
    pub running: bool,
    /// Of its first process, on the host.
    #[serde(default)]
    pub pid: i64,
    /// Of its last run.
    #[serde(default)]
    pub exit_code: i64,
    /// Whether memory ran out in its last run.
    #[serde(rename = "OOMKilled", default)]
    pub out_of_memory: bool,
    /// Why it did not start.
    #[serde(default, deserialize_with = "word")]
    pub error: String,
    /// RFC 3339.
    #[serde(default, deserialize_with = "word")]
    pub started_at: String,
    /// RFC 3339.
    #[serde(default, deserialize_with = "word")]
    pub finished_at: String,
}

/// What a container or an image was made with.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// As it was named.
    #[serde(deserialize_with = "or_default")]
    pub image: String,
    /// Whether its output is that of a terminal.
    pub tty: bool,
    /// Name or number; empty for root.
    pub user: String,
    /// Where it begins.
    pub working_dir: String,
    /// Before the command.
    #[serde(deserialize_with = "list")]
    pub entrypoint: Vec<String>,
    /// What runs.
    #[serde(deserialize_with = "list")]
    pub cmd: Vec<String>,
    /// `NAME=value`.
    #[serde(deserialize_with = "list")]
    pub env: Vec<String>,
    /// What ties it to something of ours.
    #[serde(deserialize_with = "map")]
    pub labels: Texts,
}

/// Where a container lies in its networks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    /// By the networks' names.
    #[serde(deserialize_with = "map")]
    pub networks: BTreeMap<String, Endpoint>,
}

/// A container's place in one network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Empty while it does not run.
    #[serde(rename = "IPAddress", deserialize_with = "word")]
    pub ipv4: String,
    /// Empty without one.
    #[serde(rename = "GlobalIPv6Address", deserialize_with = "word")]
    pub ipv6: String,
}

/// What a container sees of a volume or of the host.
#[derive(Clone, Debug, Deserialize)]
pub struct MountPoint {
    /// `volume`, `bind`...
    #[serde(rename = "Type", default, deserialize_with = "word")]
    pub kind: String,
    /// The volume's.
    #[serde(rename = "Name", default)]
    pub name: String,
    /// Where in the container.
    #[serde(rename = "Destination", default)]
    pub destination: String,
    /// Whether it may be written.
    #[serde(rename = "RW", default)]
    pub writable: bool,
}

/// A command in a container.
#[derive(Clone, Debug, Deserialize)]
pub struct ExecState {
    /// Whether it still runs.
    #[serde(rename = "Running")]
    pub running: bool,
    /// Once it has ended.
    #[serde(rename = "ExitCode")]
    pub exit_code: Option<i64>,
    /// On the host; 0 before its start.
    #[serde(rename = "Pid", default)]
    pub pid: i64,
}

/// An image in a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageListed {
    /// Of its configuration or of its manifest, as the store has it.
    pub id: ImageName,
    /// References; `<none>:<none>` for none.
    #[serde(default, deserialize_with = "words")]
    pub repo_tags: Vec<String>,
    /// With all of its layers.
    #[serde(default)]
    pub size: u64,
    /// Unix time in seconds.
    #[serde(default)]
    pub created: i64,
    /// What ties it to something of ours.
    #[serde(default, deserialize_with = "map")]
    pub labels: Texts,
}

/// An image as a whole.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    /// Of its configuration or of its manifest, as the store has it.
    pub id: ImageName,
    /// References.
    #[serde(default, deserialize_with = "words")]
    pub repo_tags: Vec<String>,
    /// In Go's words: `amd64`.
    #[serde(default, deserialize_with = "word")]
    pub architecture: String,
    /// `linux`.
    #[serde(default, deserialize_with = "word")]
    pub os: String,
    /// With all of its layers.
    #[serde(default)]
    pub size: u64,
    /// What containers get that say nothing else.
    #[serde(default, deserialize_with = "or_default")]
    pub config: ContainerConfig,
    #[serde(rename = "RootFS", default, deserialize_with = "or_default")]
    root: RootFs,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RootFs {
    #[serde(deserialize_with = "list")]
    layers: Vec<String>,
}

impl Image {
    /// Digests of its layers as they are unpacked, the lowest first.
    pub fn diff_ids(&self) -> &[String] {
        &self.root.layers
    }
}

/// What became of an image that was removed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "PascalCase")]
pub enum ImageRemoved {
    /// A reference is gone.
    Untagged(String),
    /// An image or a layer is gone.
    Deleted(String),
}

/// A volume.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// Of the node.
    pub name: VolumeName,
    /// `local`.
    #[serde(default, deserialize_with = "word")]
    pub driver: String,
    /// What ties it to something of ours.
    #[serde(default, deserialize_with = "map")]
    pub labels: Texts,
}

/// A network.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// All 64 digits of it.
    pub id: NetworkName,
    /// Other people's may have any.
    #[serde(deserialize_with = "word")]
    pub name: String,
    /// `bridge`, `host`, `null`...
    #[serde(default, deserialize_with = "word")]
    pub driver: String,
    /// Whether nothing beyond the node is reached from it.
    #[serde(default)]
    pub internal: bool,
    /// What ties it to something of ours.
    #[serde(default, deserialize_with = "map")]
    pub labels: Texts,
}

/// What has an id since it was made.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct MadeExec {
    #[serde(rename = "Id")]
    pub(super) id: ExecId,
}

/// A container that was made.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Created {
    /// All 64 digits of it.
    pub id: ContainerName,
    /// What the daemon left out of what was asked for.
    #[serde(default, deserialize_with = "words")]
    pub warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VolumesListed {
    #[serde(default, deserialize_with = "list")]
    pub(super) volumes: Vec<Volume>,
}

/// A list that is an answer by itself.
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(super) struct Listed<T>(#[serde(deserialize_with = "list")] pub(super) Vec<T>);

/// Filters of a list, as they stand in a query.
pub(super) fn filters(of: &[(&str, &str)]) -> String {
    let mut by_key: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, value) in of {
        by_key.entry(key).or_default().push(value);
    }
    // Texts only: nothing in it fails.
    serde_json::to_string(&by_key).unwrap_or_default()
}

/// A word that is shown: without what commands a terminal, and cut.
fn word<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Option::<String>::deserialize(from).map(|text| cleaned(&text.unwrap_or_default()))
}

/// The same of each in a list.
fn words<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let texts: Vec<String> = list(from)?;
    Ok(texts.iter().map(|text| cleaned(text)).collect())
}

/// Go writes `null` for what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// A list of not too many, or `null`.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct Bounded<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of {LIST_MAX} at most")
        }

        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(vec![])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut all = vec![];
            while let Some(item) = items.next_element()? {
                if all.len() == LIST_MAX {
                    return Err(serde::de::Error::invalid_length(LIST_MAX + 1, &self));
                }
                all.push(item);
            }
            Ok(all)
        }
    }
    from.deserialize_any(Bounded(PhantomData))
}

/// A map of not too many, or `null`.
pub(super) fn map<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<BTreeMap<String, T>, D::Error> {
    struct Bounded<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
        type Value = BTreeMap<String, T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a map of {MAP_MAX} at most")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some((key, value)) = items.next_entry()? {
                if all.len() == MAP_MAX {
                    return Err(serde::de::Error::invalid_length(MAP_MAX + 1, &self));
                }
                all.insert(key, value);
            }
            Ok(all)
        }
    }
    from.deserialize_any(Bounded(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_cleaned_and_null_is_nothing() {
        let text =
            r#"{"Id":"a","Names":["/x\u001b[2J"],"Image":"app:1\n","State":null,"Labels":null}"#;
        let listed: ContainerListed = serde_json::from_str(text).unwrap();
        let shown = (listed.name(), listed.image.as_str(), listed.state.as_str());
        assert_eq!(shown, ("x\\u{1b}[2J", "app:1", ""));
        let image = r#"{"Id":"sha256:SUM","RepoTags":null,"Config":null,"RootFS":{"Layers":null}}"#;
        let image: Image = serde_json::from_str(&image.replace("SUM", &"0".repeat(64))).unwrap();
        assert!(image.repo_tags.is_empty() && image.diff_ids().is_empty());
    }

    #[test]
    fn no_list_and_no_map_grows_beyond_its_maximum() {
        let many: Vec<String> = (0..=MAP_MAX).map(|n| format!("\"{n}\":\"\"")).collect();
        let text = |labels: &[String]| format!(r#"{{"Id":"a","Labels":{{{}}}}}"#, labels.join(","));
        let read = |labels| serde_json::from_str::<ContainerListed>(&text(labels));
        assert_eq!(read(&many[1..]).unwrap().labels.len(), MAP_MAX);
        assert!(read(&many[..]).unwrap_err().to_string().contains("a map of 1000 at most"));
        let networks = r#"{"Id":"a","State":{},"Config":{},"NetworkSettings":{"Networks":{"n":{"IPAddress":"10.0.0.2"}}}}"#;
        let container: Container = serde_json::from_str(networks).unwrap();
        assert_eq!(container.network_settings.networks["n"].ipv4, "10.0.0.2");
    }

    #[test]
    fn the_store_of_images_is_told_by_the_status_of_its_driver() {
        let info = |status: &str| -> Info { serde_json::from_str(status).unwrap() };
        let containerd = r#"{"DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}"#;
        assert!(info(containerd).has_containerd_store());
        assert!(
            !info(r#"{"DriverStatus":[["Backing Filesystem","extfs"]]}"#).has_containerd_store()
        );
        assert!(!info(r#"{"DriverStatus":null}"#).has_containerd_store());
    }
}
