//! `control`, but for the data plane.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use keyway::config::ApiTls;
use keyway::control::api::{
    self, DataPlane, DataPlaneError, GivenKey, Handle, Nodes, Question, Trial, Tried, WriteText,
    condition, dto,
};
use keyway::control::feed::Hub;
use keyway::registry::document::SealedKey;
use keyway::registry::writer::{Start, Update};
use keyway::registry::{Label, Limits, Service, routes};
use keyway::route::saved_routes::Head;
use keyway::route::{Snapshot, Table};
use keyway::ssh::entropy::SystemEntropy;
use keyway::ssh::publickey::Fingerprint;

use crate::made::open;
use crate::measures::now_ns;

/// Revisions, and when they were durable.
pub(crate) type Commits = Vec<(u64, u64)>;

pub(crate) struct Control {
    pub(crate) service: Arc<Service>,
    hub: Arc<Hub>,
    commits: Arc<Mutex<Commits>>,
    api: Handle,
}

fn head(revision: u64) -> Head {
    Head { store: [7; 16], program: [1; 8], revision }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Control {
    pub(crate) fn start(dir: &Path) -> Self {
        let (store, _) = open(&dir.join("registry.db"));
        let (hub, table, commits) = (Arc::<Hub>::default(), Table::new(), Arc::default());
        let (told, noted) = (Arc::clone(&hub), Arc::<Mutex<Commits>>::clone(&commits));
        let follow = move |news: Update<'_>| match news {
            Update::Everything { revision, contents, .. } => {
                told.begin(head(revision));
                table.apply(Snapshot::new(contents).unwrap());
            }
            Update::Written { model, written } => {
                noted.lock().unwrap().push((model.revision(), now_ns()));
                let delta = routes::delta(written);
                table.change(delta.clone()).unwrap();
                let before = || routes::undone(written);
                told.change(model.revision(), &delta, &before, model);
            }
        };
        let service = Service::start(Start {
            store: Arc::new(store),
            limits: Limits::default(),
            now_s,
            entropy: Box::new(SystemEntropy::default()),
            known: None,
            follow: Box::new(follow),
        });
        let service = Arc::new(service.unwrap());
        let reserved = api::reserve(&dir.join("keyway.sock"), Some(&tls(dir))).unwrap();
        let api = api::start(api::Start {
            reserved,
            peers: Vec::new(),
            service: Arc::clone(&service),
            beside: Arc::new(Nothing),
            hub: Arc::clone(&hub),
        });
        Self { service, hub, commits, api: api.unwrap() }
    }

    pub(crate) fn port(&self) -> u16 {
        self.api.address().unwrap().port()
    }

    pub(crate) fn followers(&self) -> usize {
        self.hub.gauges().followers
    }

    /// All since the last time.
    pub(crate) fn commits(&self) -> Commits {
        std::mem::take(&mut self.commits.lock().unwrap())
    }

    /// As after a fault of the store.
    pub(crate) fn reread(&self) {
        self.hub.begin(head(self.service.revision()));
    }
}

fn tls(dir: &Path) -> ApiTls {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.join("control.crt"), dir.join("control.key"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    ApiTls { listen: "127.0.0.1:0".parse().unwrap(), cert, key }
}

/// Nobody asks for it.
struct Nothing;

/// There are no nodes to be reached.
impl Nodes for Nothing {
    fn seal(&self, _: &Label, _: &GivenKey) -> Result<SealedKey, String> {
        Err("nothing is sealed here".to_owned())
    }

    fn test(&self, _: Trial) -> Tried {
        Tried { shown: dto::NodeTest::default(), state: None }
    }

    fn seen_s(&self, _: &Label) -> Option<u64> {
        None
    }
}

impl DataPlane for Nothing {
    fn nodes(&self) -> &dyn Nodes {
        self
    }

    fn sessions(&self) -> Vec<dto::Session> {
        Vec::new()
    }

    fn end_session(&self, _: &str) -> bool {
        false
    }

    fn links(&self) -> Vec<dto::Link> {
        Vec::new()
    }

    fn explain(&self, _: &Question) -> dto::Explanation {
        unreachable!("nobody asks")
    }

    fn host_keys(&self) -> Vec<dto::HostKey> {
        Vec::new()
    }

    fn ca(&self) -> Option<Fingerprint> {
        None
    }

    fn zone(&self) -> Option<WriteText> {
        None
    }

    fn status(&self) -> condition::Status {
        unreachable!("nobody asks")
    }

    fn reload(&self, _: condition::Reload) -> Option<condition::Reloaded> {
        None
    }

    fn backup(&self, _: &Path) -> Result<(), DataPlaneError> {
        Ok(())
    }
}
