//! A running API for tests: a registry in memory, a data plane that is none, and a
//! client of few words.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ALL_VERSIONS, ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use super::shared::Api;
use super::{
    DataPlane, DataPlaneError, GivenKey, Handle, Nodes, Question, Trial, Tried, WriteText,
    condition, dto, server,
};
use crate::config::ApiTls;
use crate::control::feed::Hub;
use crate::registry::command::Dialled;
use crate::registry::document::{NodeState, Reached, Role, SealedKey, fingerprint_of};
use crate::registry::store::StoreId;
use crate::registry::store::testing::memory::Memory;
use crate::registry::writer::{self, Actor, CommandRequest, Mode};
use crate::registry::{Command, Label, Limits, Model, Options, Service};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::Fingerprint;
use crate::ssh::testing::Seeded;

/// What every node shows.
pub(super) const HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINkR3vqdVwKDaepdXSXYYZEndkjXA7+HiTyqvgUJfVL+";
/// For an answer that must come.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// Unix time in every test, in seconds; a test may let it pass.
static NOW_S: AtomicU64 = AtomicU64::new(1_000_000);

pub(super) fn now_s() -> u64 {
    NOW_S.load(Ordering::Relaxed)
}

/// What stands for the data plane.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) sessions: Mutex<Vec<dto::Session>>,
    pub(super) asked: Mutex<Vec<Question>>,
    pub(super) backups: Mutex<Vec<PathBuf>>,
    pub(super) zone: Mutex<Option<String>>,
    /// Questions that were begun; they wait while `asked` is held.
    pub(super) asking: AtomicUsize,
}

/// Every node shows one host key, and is online where that may be believed.
impl Nodes for Fake {
    fn seal(&self, node: &Label, key: &GivenKey) -> Result<SealedKey, String> {
        if key.text.contains("PRIVATE KEY") {
            return Ok(SealedKey { public: HOST_KEY.to_owned(), sealed: format!("for {node}") });
        }
        Err("that is no private key".to_owned())
    }

    fn test(&self, trial: Trial) -> Tried {
        let Trial { docker, accept_new, .. } = trial;
        let pinned = docker.ssh.as_ref().map(|ssh| ssh.host_key.as_deref().map(fingerprint_of));
        let (state, cause) = match (pinned, accept_new) {
            (None | Some(None), true) | (None, false) => (Reached::Online, None),
            (Some(None), false) => (Reached::Pending, Some("host-key-unconfirmed")),
            (Some(Some(key)), _) if key == fingerprint_of(HOST_KEY) => (Reached::Online, None),
            (Some(Some(_)), _) => (Reached::Error, Some("host-key-changed")),
        };
        let shown = dto::NodeTest {
            state,
            cause: cause.map(str::to_owned),
            reason: cause.map(str::to_owned),
            host_key: docker.ssh.as_ref().map(|_| fingerprint_of(HOST_KEY)),
            host_key_line: docker.ssh.as_ref().map(|_| HOST_KEY.to_owned()),
            ..dto::NodeTest::default()
        };
        let found = NodeState { reached: state, since_s: now_s(), ..NodeState::default() };
        Tried { shown, state: (state == Reached::Online).then_some(found) }
    }

    fn seen_s(&self, _node: &Label) -> Option<u64> {
        Some(now_s())
    }
}

impl DataPlane for Fake {
    fn nodes(&self) -> &dyn Nodes {
        self
    }

    fn sessions(&self) -> Vec<dto::Session> {
        self.sessions.lock().unwrap().clone()
    }

    fn links(&self) -> Vec<dto::Link> {
        let link = |node: &str, state: &str| dto::Link {
            node: node.to_owned(),
            agent: ([192, 0, 2, 1], 7022).into(),
            agent_key: "SHA256:x".to_owned(),
            state: state.to_owned(),
            since_s: (state == "open").then_some(1),
            sessions: 2,
            error: None,
            error_s: None,
        };
        vec![link("n2", "open"), link("n1", "leaving"), link("n1", "open")]
    }

    fn end_session(&self, id: &str) -> bool {
        let mut sessions = self.sessions.lock().unwrap();
        let count = sessions.len();
        sessions.retain(|session| session.id != id);
        sessions.len() < count
    }

    fn explain(&self, question: &Question) -> dto::Explanation {
        self.asking.fetch_add(1, Ordering::SeqCst);
        self.asked.lock().unwrap().push(question.clone());
        dto::Explanation {
            decision: dto::Decision::Refused,
            principal: None,
            vm: None,
            address: None,
            login: question.login.clone(),
            by_name: false,
            carried: None,
            reason: "nobody has this key".to_owned(),
            code: "unknown-key".to_owned(),
            steps: Vec::new(),
        }
    }

    fn host_keys(&self) -> Vec<dto::HostKey> {
        let text = |text: &str| text.to_owned();
        vec![dto::HostKey {
            key_type: text("ssh-ed25519"),
            fingerprint: text("SHA256:x"),
            line: text("ssh-ed25519 AAAA"),
        }]
    }

    fn ca(&self) -> Option<Fingerprint> {
        Some(Fingerprint([7; 32]))
    }

    fn zone(&self) -> Option<WriteText> {
        let text = self.zone.lock().unwrap().clone()?;
        Some(Box::new(move |into| into.write_all(text.as_bytes())))
    }

    fn status(&self) -> condition::Status {
        condition::Status {
            state: condition::State::Up,
            version: "1.2.3".to_owned(),
            pid: 7,
            since_s: 1,
            revision: 0,
            counts: condition::Counts::default(),
            parts: Vec::new(),
        }
    }

    fn reload(&self, order: condition::Reload) -> Option<condition::Reloaded> {
        Some(condition::Reloaded {
            done: true,
            dry_run: order.dry_run,
            parts: Vec::new(),
            plan: None,
            restart: Vec::new(),
            warnings: Vec::new(),
        })
    }

    fn backup(&self, to: &Path) -> Result<(), DataPlaneError> {
        if to.ends_with("full") {
            return Err(DataPlaneError::Failed("no space left".to_owned()));
        }
        if to.ends_with("there") {
            return Err(DataPlaneError::Exists(format!("{} is there already", to.display())));
        }
        self.backups.lock().unwrap().push(to.to_owned());
        Ok(())
    }
}

/// A directory of one test.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("keyway-api-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Scratch {
    /// A certificate that signs itself, and its key.
    pub(super) fn certificate(&self, name: &str) -> ApiTls {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let path = |end: &str| self.0.join(format!("{name}.{end}"));
        let (cert, key) = (path("crt"), path("key"));
        fs::write(&cert, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        ApiTls { listen: "127.0.0.1:0".parse().unwrap(), cert, key }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running API. Everybody at its socket has the role that the test sets.
pub(super) struct World {
    pub(super) handle: Handle,
    pub(super) service: Arc<Service>,
    pub(super) fake: Arc<Fake>,
    pub(super) role: Arc<Mutex<Option<Role>>>,
    pub(super) store: Memory,
    pub(super) scratch: Scratch,
    /// Told of nothing but what a test tells it.
    pub(super) hub: Arc<Hub>,
}

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(is, _)| is == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|fault| panic!("{fault}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The code of a problem, or nothing.
    pub(super) fn code(&self) -> Option<String> {
        let problem = self.header("content-type") == Some("application/problem+json");
        problem.then(|| self.json()["code"].as_str().unwrap().to_owned())
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Scratch::new(), None)
    }

    /// Over TLS too.
    pub(super) fn over_tls() -> Self {
        let scratch = Scratch::new();
        let tls = scratch.certificate("one");
        Self::with(scratch, Some(&tls))
    }

    pub(super) fn with(scratch: Scratch, tls: Option<&ApiTls>) -> Self {
        let store = Memory::new(StoreId([7; 16]));
        let service = Service::start(writer::Start {
            store: Arc::new(store.clone()),
            limits: Limits::default(),
            now_s,
            entropy: Box::new(Seeded(1)),
            known: None,
            follow: Box::new(|_| ()),
        });
        Self::of(service.unwrap(), store, scratch, tls)
    }

    /// As it is when the store of this one is away, over TLS too.
    pub(super) fn away(&self, why: &str) -> Self {
        let known = self
            .service
            .read(|model| Model::of_routes(Limits::default(), model.revision(), model.contents()));
        let service = Service::stand_in(known, why.to_owned(), now_s);
        let scratch = Scratch::new();
        let tls = scratch.certificate("one");
        Self::of(service, self.store.clone(), scratch, Some(&tls))
    }

    fn of(service: Service, store: Memory, scratch: Scratch, tls: Option<&ApiTls>) -> Self {
        let service = Arc::new(service);
        let fake = Arc::new(Fake::default());
        let role = Arc::new(Mutex::new(Some(Role::Admin)));
        let beside = Arc::clone(&fake) as Arc<dyn DataPlane>;
        let given = Arc::clone(&role);
        let role_of = Box::new(move |_| *given.lock().unwrap());
        let hub: Arc<Hub> = Arc::default();
        let api = Arc::new(Api::new(Arc::clone(&service), beside, role_of, Arc::clone(&hub)));
        let socket = scratch.0.join("keyway.sock");
        let handle = server::start(api, server::reserve(&socket, tls).unwrap()).unwrap();
        Self { handle, service, fake, role, store, scratch, hub }
    }

    pub(super) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.handle.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(super) fn connect_tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.handle.address().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A TLS connection to a server that shows `certificate`.
    pub(super) fn connect_tls(
        &self,
        certificate: &Path,
        versions: &[&'static SupportedProtocolVersion],
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        for one in CertificateDer::pem_file_iter(certificate).unwrap() {
            roots.add(one.unwrap()).unwrap();
        }
        let config = ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        StreamOwned::new(client, self.connect_tcp())
    }

    /// As [`World::send`], over TLS with a token.
    pub(super) fn send_tls(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Reply {
        let mut stream = self.connect_tls(&self.scratch.0.join("one.crt"), ALL_VERSIONS);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let bearer = token.map(|token| format!("authorization: Bearer {token}"));
        let mut headers = vec!["content-type: application/json"];
        headers.extend(bearer.as_deref());
        let head = head(method, path, &headers, body.as_bytes());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        read_reply(stream)
    }

    /// A new token of a role.
    pub(super) fn token(&self, name: &str, role: &str) -> String {
        let made = self.must("POST", "/v1/tokens", &json!({"name": name, "role": role}));
        made["item"]["token"].as_str().unwrap().to_owned()
    }

    /// Sends one request and reads its answer.
    pub(super) fn send(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Reply {
        let mut stream = self.connect();
        let head = head(method, path, headers, body);
        // A refused request may be answered before all of it is taken.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        read_reply(stream)
    }

    pub(super) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub(super) fn ask(&self, method: &str, path: &str, body: &Value) -> Reply {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, &["content-type: application/json"], body.as_bytes())
    }

    /// A change that must be made.
    #[track_caller]
    pub(super) fn must(&self, method: &str, path: &str, body: &Value) -> Value {
        let reply = self.ask(method, path, body);
        let text = String::from_utf8_lossy(&reply.body);
        assert!((200..300).contains(&reply.status), "{method} {path}: {} {text}", reply.status);
        reply.json()
    }

    /// The VM is entered for the first time and shows its host key.
    pub(super) fn shows(&self, id: &str, key: &str) {
        let dialled = self.service.read(|model| {
            let (_, stored) = model.vm_named(&Label::new(id).unwrap()).unwrap();
            let vm = &stored.document;
            Dialled { owner: vm.owner.to_string(), endpoint: vm.ssh.clone() }
        });
        let order = CommandRequest {
            command: Command::VmPin { id: id.to_owned(), key: key.to_owned(), dialled },
            options: Options::default(),
            expected: None,
            actor: Actor { name: "keyway".to_owned(), from: "first use".to_owned() },
        };
        self.service.carry_out(order, Mode::Real).unwrap();
    }

    /// Status and code of what must be refused.
    #[track_caller]
    pub(super) fn refused(&self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let reply = self.ask(method, path, body);
        let code = reply.code().unwrap_or_else(|| panic!("{method} {path}: {}", reply.status));
        let problem = reply.json();
        assert_eq!(problem["status"], reply.status);
        assert_eq!(problem["type"], "about:blank");
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        (reply.status, code)
    }
}

/// A new public key line.
pub(super) fn key() -> String {
    PrivateKey::generate_ed25519(&mut SystemEntropy::default()).public().to_line()
}

pub(super) fn user(world: &World, name: &str) {
    world.must("POST", "/v1/users", &json!({"name": name}));
}

pub(super) fn head(method: &str, path: &str, headers: &[&str], body: &[u8]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: keyway\r\nconnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    if !body.is_empty() {
        head.extend(["content-length: ", &body.len().to_string(), "\r\n"]);
    }
    head.push_str("\r\n");
    head
}

pub(super) fn read_reply(stream: impl Read) -> Reply {
    let mut reader = BufReader::new(stream);
    let (status, headers) = read_head(&mut reader);
    let mut body = Vec::new();
    // A reset behind the answer is as good as an end.
    let _ = reader.read_to_end(&mut body);
    let chunked = |(name, _): &(String, String)| name == "transfer-encoding";
    if headers.iter().any(chunked) {
        body = dechunked(&body);
    }
    Reply { status, headers, body }
}

/// Undoes RFC 9112 §7.1; what is cut off is left out.
fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = rest.get(end + 2..end + 2 + size) else { break };
        body.extend_from_slice(chunk);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
    body
}

pub(super) fn read_head(reader: &mut impl BufRead) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    (status, headers)
}
