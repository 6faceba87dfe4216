//! What is asked of a daemon: containers and volumes as they are to be.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use hyper::header::HeaderValue;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::model::Texts;
use super::names::{ContainerName, ImageName, NetworkName, VolumeName};

/// A container as it is to be made. No path of the node stands in it: what lies beyond its own
/// files comes from volumes.
#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerSpec {
    /// What it is made of.
    pub image: ImageName,
    /// In the place of the image's, if any is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// In the place of the image's, if any is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// `NAME=value`; may hold secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// What ties it to something of ours.
    pub labels: Texts,
    /// In the place of the image's, if any is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its own name for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Whether its first process has a terminal.
    pub tty: bool,
    /// Whether the input of its first process stays open.
    pub open_stdin: bool,
    #[serde(rename = "ExposedPorts", serialize_with = "exposed")]
    ports: Vec<Published>,
    host_config: HostConfig,
}

/// What the host gives to a container.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostConfig {
    /// Bytes of memory; 0 for no limit.
    pub memory: u64,
    /// Thousand millionths of a processor; 0 for no limit.
    pub nano_cpus: u64,
    /// Processes; 0 for no limit.
    pub pids_limit: u32,
    /// How its network is made, if not as the daemon likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<NetworkMode>,
    /// What it sees of volumes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<VolumeMount>,
    /// What is done when it ends.
    pub restart_policy: Restart,
    /// Whether its own files can only be read.
    pub readonly_rootfs: bool,
    /// Rights of root's that it does without; `ALL` for each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// `no-new-privileges` and its like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_opt: Vec<String>,
    /// Ports that the node passes on to it.
    #[serde(rename = "PortBindings", serialize_with = "bound")]
    pub published: Vec<Published>,
}

/// How a container's network is made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NetworkMode {
    /// Loopback alone.
    None,
    /// The host's own.
    Host,
    /// That of another container.
    Container(ContainerName),
    /// A network of the node.
    Named(NetworkName),
}

impl Serialize for NetworkMode {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => to.serialize_str("none"),
            Self::Host => to.serialize_str("host"),
            Self::Container(name) => to.collect_str(&format_args!("container:{name}")),
            Self::Named(name) => to.collect_str(name),
        }
    }
}

/// What is done when a container ends.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Restart {
    /// Nothing.
    #[default]
    No,
    /// It is started again.
    Always,
    /// It is started again unless somebody stopped it.
    UnlessStopped,
    /// It is started again if it failed.
    OnFailure,
}

impl Serialize for Restart {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(1))?;
        let name = match self {
            Self::No => "no",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
            Self::OnFailure => "on-failure",
        };
        map.serialize_entry("Name", name)?;
        map.end()
    }
}

/// A volume as a container sees it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeMount {
    /// The volume, which is made if it is not there.
    source: VolumeName,
    /// Where in the container.
    target: String,
    read_only: bool,
    #[serde(rename = "Type")]
    kind: &'static str,
}

impl VolumeMount {
    /// The volume `source` at `target` in a container.
    pub const fn new(source: VolumeName, target: String, read_only: bool) -> Self {
        Self { source, target, read_only, kind: "volume" }
    }
}

/// A port of a container that the node passes on to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Published {
    /// Of the node: one address, never all of them without saying so.
    pub address: IpAddr,
    /// Of the node.
    pub port: u16,
    /// In the container, TCP.
    pub inner: u16,
}

/// What Go's sets have for values.
#[derive(Serialize)]
struct Empty {}

fn exposed<S: Serializer>(ports: &[Published], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(ports.iter().map(|port| (format!("{}/tcp", port.inner), Empty {})))
}

fn bound<S: Serializer>(ports: &[Published], to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Binding {
        host_ip: String,
        host_port: String,
    }
    let mut by_inner: BTreeMap<String, Vec<Binding>> = BTreeMap::new();
    for Published { address, port, inner } in ports {
        let binding = Binding { host_ip: address.to_string(), host_port: port.to_string() };
        by_inner.entry(format!("{inner}/tcp")).or_default().push(binding);
    }
    by_inner.serialize(to)
}

impl ContainerSpec {
    /// A container of `image` with what the host gives to it, and nothing else said.
    pub fn new(image: ImageName, host_config: HostConfig) -> Self {
        Self {
            image,
            entrypoint: None,
            cmd: None,
            env: vec![],
            labels: Texts::new(),
            user: None,
            hostname: None,
            tty: false,
            open_stdin: false,
            ports: host_config.published.clone(),
            host_config,
        }
    }
}

impl fmt::Debug for ContainerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not its environment, which may hold secrets.
        f.debug_struct("ContainerSpec").field("image", &self.image).finish_non_exhaustive()
    }
}

/// A command for a container that runs.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExecSpec {
    /// Program and arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`; may hold secrets.
    pub env: Vec<String>,
    /// In the place of the container's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// In the place of the container's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it has input. Without, it is told of the end of input at once.
    pub attach_stdin: bool,
}

impl ExecSpec {
    /// A command without input.
    pub fn new<S: Into<String>>(cmd: impl IntoIterator<Item = S>) -> Self {
        let cmd = cmd.into_iter().map(Into::into).collect();
        Self { cmd, ..Self::default() }
    }
}

impl fmt::Debug for ExecSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSpec").field("tty", &self.tty).finish_non_exhaustive()
    }
}

/// A volume as it is to be made.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeSpec {
    /// Of the node.
    pub name: VolumeName,
    /// What ties it to something of ours.
    pub labels: Texts,
}

/// Which part of a log.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogPart {
    /// Whether what comes later comes too.
    pub follow: bool,
    /// From then on: Unix time in seconds.
    pub since_s: Option<u64>,
    /// So many lines from its end; all if nothing is said.
    pub tail: Option<u32>,
    /// Whether each line begins with its time.
    pub timestamps: bool,
}

/// What is built of a context.
#[derive(Clone, Debug, Default)]
pub struct BuildSpec {
    /// References of the image that comes of it.
    pub tags: Vec<ImageName>,
    /// Where in the context the recipe is, if not in `Dockerfile`.
    pub dockerfile: Option<String>,
    /// What ties the image to something of ours.
    pub labels: Texts,
    /// Whether newer versions of the images it begins with are looked for.
    pub pull: bool,
}

/// Credentials for a registry, as they go into a header.
#[derive(Clone, Eq, PartialEq)]
pub struct RegistryAuth(HeaderValue);

impl RegistryAuth {
    /// For one registry: its host, a user and a password or token.
    pub fn new(registry: &str, user: &str, password: &str) -> Self {
        let texts = [("username", user), ("password", password), ("serveraddress", registry)];
        let texts = BTreeMap::from(texts);
        // Texts in JSON in base64: nothing in it fails.
        let text = URL_SAFE.encode(serde_json::to_vec(&texts).unwrap_or_default());
        let mut header = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        header.set_sensitive(true);
        Self(header)
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryAuth(..)")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec() -> ContainerSpec {
        let host = HostConfig {
            memory: 512 << 20,
            network_mode: Some(NetworkMode::Container(ContainerName::new("db").unwrap())),
            mounts: vec![VolumeMount::new(VolumeName::new("data").unwrap(), "/d".to_owned(), true)],
            restart_policy: Restart::UnlessStopped,
            published: vec![Published { address: [127, 0, 0, 1].into(), port: 8080, inner: 80 }],
            ..HostConfig::default()
        };
        let mut spec = ContainerSpec::new(ImageName::new("app:1").unwrap(), host);
        spec.env = vec!["TOKEN=geheim".to_owned()];
        spec
    }

    #[test]
    fn a_container_is_asked_for_in_dockers_words() {
        let asked = serde_json::to_value(spec()).unwrap();
        assert_eq!(asked["Image"], "app:1");
        assert_eq!(asked["ExposedPorts"], json!({"80/tcp": {}}));
        let host = &asked["HostConfig"];
        assert_eq!(host["Memory"], 536_870_912);
        assert_eq!(host["NetworkMode"], "container:db");
        assert_eq!(host["RestartPolicy"], json!({"Name": "unless-stopped"}));
        let mount = json!({"Type": "volume", "Source": "data", "Target": "/d", "ReadOnly": true});
        assert_eq!(host["Mounts"], json!([mount]));
        let bindings = json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]});
        assert_eq!(host["PortBindings"], bindings);
        // What was not said is not said: an empty list would take the image's away.
        assert!(asked.get("Cmd").is_none() && asked.get("Entrypoint").is_none());
    }

    #[test]
    fn no_secret_is_in_what_is_printed_of_a_request() {
        let exec = ExecSpec { env: vec!["TOKEN=geheim".to_owned()], ..ExecSpec::new(["geheim"]) };
        let auth = RegistryAuth::new("reg.example", "u", "geheim");
        let printed = format!("{:?} {exec:?} {auth:?} {:?}", spec(), auth.header());
        assert!(!printed.contains("geheim") && !printed.contains("Z2VoZW"), "{printed}");
    }
}
