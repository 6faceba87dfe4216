//! THE TABLE: every route, who may use it, what it takes and gives, and what carries it out.
//! Authorisation and the check of queries, revisions and bodies follow from it before any handler
//! runs; so do the API's description and the tests.

use Source::{Process, Registry};
use axum::http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::condition::{Reloaded, Status};
use super::context::Context;
use super::handlers::{
    addresses_tokens, condition, data_plane, edges, fleet, nodes, users_teams, vms,
};
use super::problem::Problem;
use super::query::{Query, percent_decoded};
use super::reply::{Changed, Gone, List, Reply};
use super::response::Answer;
use super::{dto, watch};
use crate::registry::document::Role::{self, Admin, Operator, Reader};

/// Bytes of a usual body.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of a fleet: some 50,000 users with their VMs.
const FLEET_BYTES_MAX: usize = 16 << 20;

/// One thing that can be asked for.
pub(super) struct Route {
    pub(super) method: Method,
    /// As in OpenAPI: `/v1/users/{name}`.
    pub(super) path: &'static str,
    /// The least that may.
    pub(super) role: Role,
    pub(super) kind: Kind,
    pub(super) source: Source,
    pub(super) run: Run,
    pub(super) summary: &'static str,
}

/// Where an answer comes from, which decides whether there is one while the registry is away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// This process: there is always one.
    Process,
    /// What is known of the registry: at worst its routes as they were saved last, and
    /// then it says so.
    Known,
    /// The registry itself: there is none.
    Registry,
}

/// What comes with a request and its answer, beside their bodies.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Shows something.
    Show(&'static [Query]),
    /// Shows everything, however much that is: few of these at a time.
    Whole,
    /// Shows a page of a list.
    List(&'static [Query]),
    /// Changes a thing that has a revision.
    Change,
    /// Makes one.
    Create,
    /// Changes everything: the revision is the registry's.
    All,
    /// Does something else.
    Act,
}

const LIST: [Query; 2] = [Query::Limit, Query::After];
const CHANGE: [Query; 2] = [Query::DryRun, Query::Renumber];

impl Route {
    /// What answers, where that is not usual for its kind.
    const fn from(mut self, source: Source) -> Self {
        self.source = source;
        self
    }
}

impl Kind {
    /// All query parameters that are known.
    pub(super) fn queries(self) -> Vec<Query> {
        match self {
            Self::Show(more) => more.to_vec(),
            Self::Whole => Vec::new(),
            Self::List(more) => LIST.iter().chain(more).copied().collect(),
            Self::Change | Self::Create | Self::All | Self::Act => CHANGE.to_vec(),
        }
    }

    /// Whether it leaves everything as it is.
    pub(super) const fn only_shows(self) -> bool {
        matches!(self, Self::Show(_) | Self::Whole | Self::List(_))
    }

    /// Whether it takes `If-Match`.
    pub(super) const fn takes_revision(self) -> bool {
        matches!(self, Self::Change | Self::Create | Self::All)
    }
}

/// What a body looks like.
pub(super) type Describe = fn(&mut SchemaGenerator) -> Schema;

/// What carries a route out, and what it takes and gives.
pub(super) struct Run {
    /// The body it takes, and its most bytes.
    pub(super) takes: Option<(Describe, usize)>,
    pub(super) gives: Gives,
    pub(super) carry_out: fn(&Context) -> Result<Answer, Problem>,
}

/// What is answered.
pub(super) enum Gives {
    /// JSON.
    Json(Describe),
    /// Plain text.
    Text,
    /// Lines of JSON.
    Lines(Describe),
}

fn describe<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A handler with its types: `run!(handler -> Answer)`, `run!(Body => handler -> Answer)`. The
/// table cannot say anything else of a route than what its handler does.
macro_rules! run {
    ($handler:path => text) => {
        Run { takes: None, gives: Gives::Text, carry_out: |context| $handler(context).map(Answer::Text) }
    };
    ($handler:path => lines $line:ty) => {
        Run {
            takes: None,
            gives: Gives::Lines(describe::<$line>),
            carry_out: |context| $handler(context).map(Answer::Watch),
        }
    };
    ($handler:path => $gives:ty) => {
        Run {
            takes: None,
            gives: Gives::Json(describe::<$gives>),
            carry_out: |context| {
                let reply: Reply<$gives> = $handler(context)?.into();
                reply.finish()
            },
        }
    };
    ($takes:ty => $handler:path => $gives:ty) => {
        run!($takes, BODY_BYTES_MAX => $handler => $gives)
    };
    ($takes:ty, $max:expr => $handler:path => $gives:ty) => {
        Run {
            takes: Some((describe::<$takes>, $max)),
            gives: Gives::Json(describe::<$gives>),
            carry_out: |context| {
                let reply: Reply<$gives> = $handler(context, context.read::<$takes>()?)?.into();
                reply.finish()
            },
        }
    };
}

const fn get(path: &'static str, role: Role, summary: &'static str, run: Run) -> Route {
    show(Method::GET, path, role, &[], summary, run)
}

const fn show(
    method: Method,
    path: &'static str,
    role: Role,
    queries: &'static [Query],
    summary: &'static str,
    run: Run,
) -> Route {
    Route { method, path, role, kind: Kind::Show(queries), source: Source::Known, run, summary }
}

const fn whole(path: &'static str, role: Role, summary: &'static str, run: Run) -> Route {
    Route {
        method: Method::GET,
        path,
        role,
        kind: Kind::Whole,
        source: Source::Known,
        run,
        summary,
    }
}

const fn list(
    path: &'static str,
    role: Role,
    more: &'static [Query],
    summary: &'static str,
    run: Run,
) -> Route {
    Route {
        method: Method::GET,
        path,
        role,
        kind: Kind::List(more),
        source: Source::Known,
        run,
        summary,
    }
}

const fn create(path: &'static str, role: Role, summary: &'static str, run: Run) -> Route {
    Route { method: Method::POST, path, role, kind: Kind::Create, source: Registry, run, summary }
}

const fn change(
    method: Method,
    path: &'static str,
    role: Role,
    summary: &'static str,
    run: Run,
) -> Route {
    Route { method, path, role, kind: Kind::Change, source: Registry, run, summary }
}

const fn all(path: &'static str, role: Role, summary: &'static str, run: Run) -> Route {
    Route { method: Method::POST, path, role, kind: Kind::All, source: Registry, run, summary }
}

const fn act(
    method: Method,
    path: &'static str,
    role: Role,
    summary: &'static str,
    run: Run,
) -> Route {
    Route { method, path, role, kind: Kind::Act, source: Registry, run, summary }
}

const VM_LIST: &[Query] = &[Query::VisibleTo, Query::Owner, Query::Address, Query::Node];

/// Every route.
#[rustfmt::skip]
pub(super) static ROUTES: &[Route] = &[
    list("/v1/users", Reader, &[], "Users, by name.", run!(users_teams::users => List<dto::User>)),
    create("/v1/users", Operator, "A new user.", run!(dto::NewUser => users_teams::user_add => Changed<dto::User>)),
    get("/v1/users/{name}", Reader, "A user.", run!(users_teams::user => dto::User)),
    change(Method::DELETE, "/v1/users/{name}", Operator, "A user goes, out of all teams and shares.",
        run!(users_teams::user_remove => Changed<Gone>)),
    create("/v1/users/{name}/keys", Operator, "A key for a user.", run!(dto::NewKey => users_teams::key_add => Changed<dto::User>)),
    change(Method::PUT, "/v1/users/{name}/keys/{fingerprint}", Operator, "Another comment or other options for a key.",
        run!(dto::NewKey => users_teams::key_set => Changed<dto::User>)),
    change(Method::DELETE, "/v1/users/{name}/keys/{fingerprint}", Operator, "A key goes.",
        run!(users_teams::key_remove => Changed<dto::User>)),
    list("/v1/keys", Reader, &[], "Everybody's keys.", run!(users_teams::keys => List<dto::Key>)),
    list("/v1/teams", Reader, &[], "Teams, by name.", run!(users_teams::teams => List<dto::Team>)),
    create("/v1/teams", Operator, "A new team.", run!(dto::NewTeam => users_teams::team_add => Changed<dto::Team>)),
    get("/v1/teams/{name}", Reader, "A team.", run!(users_teams::team => dto::Team)),
    change(Method::DELETE, "/v1/teams/{name}", Operator, "A team goes, out of all shares.",
        run!(users_teams::team_remove => Changed<Gone>)),
    change(Method::PUT, "/v1/teams/{name}/members/{user}", Operator, "A user joins, or gets the other kind of access.",
        run!(dto::NewAccess => users_teams::join => Changed<dto::Team>)),
    change(Method::DELETE, "/v1/teams/{name}/members/{user}", Operator, "A member leaves.",
        run!(users_teams::leave => Changed<dto::Team>)),
    list("/v1/vms", Reader, VM_LIST, "VMs, by name.", run!(vms::vms => List<dto::Vm>)),
    create("/v1/vms", Operator, "A new VM.", run!(dto::NewVm => vms::add => Changed<dto::Vm>)),
    get("/v1/vms/{name}", Reader, "A VM.", run!(vms::vm => dto::Vm)),
    change(Method::DELETE, "/v1/vms/{name}", Operator, "A VM goes.", run!(vms::remove => Changed<Gone>)),
    change(Method::PATCH, "/v1/vms/{name}", Operator, "Other properties of a VM.",
        run!(dto::VmPatch => vms::set => Changed<dto::Vm>)),
    change(Method::PUT, "/v1/vms/{name}/shares/{principal}", Operator, "Somebody else may enter a VM.",
        run!(dto::NewAccess => vms::share => Changed<dto::Vm>)),
    change(Method::DELETE, "/v1/vms/{name}/shares/{principal}", Operator, "Somebody may no longer.",
        run!(vms::unshare => Changed<dto::Vm>)),
    change(Method::POST, "/v1/vms/{name}/rename", Operator, "Another name for a VM.",
        run!(dto::To => vms::rename => Changed<dto::Vm>)),
    change(Method::POST, "/v1/vms/{name}/transfer", Operator, "Another owner for a VM.",
        run!(dto::Transfer => vms::transfer => Changed<dto::Vm>)),
    change(Method::POST, "/v1/vms/{name}/renumber", Operator, "Another address for a VM.",
        run!(dto::Renumber => vms::renumber => Changed<dto::Vm>)),
    get("/v1/vms/{name}/host-key", Reader, "The host key of a VM.", run!(data_plane::vm_host_key => dto::VmHostKey)),
    act(Method::DELETE, "/v1/vms/{name}/host-key", Operator, "Forgets the host key that was seen first.",
        run!(data_plane::pin_forget => Changed<Gone>)),
    list("/v1/addresses", Reader, &[], "Pool addresses, by name.", run!(addresses_tokens::addresses => List<dto::Address>)),
    create("/v1/addresses", Admin, "A new pool address.",
        run!(dto::NewAddress => addresses_tokens::address_add => Changed<dto::Address>)),
    get("/v1/addresses/{name}", Reader, "A pool address.", run!(addresses_tokens::address => dto::Address)),
    change(Method::DELETE, "/v1/addresses/{name}", Admin, "A pool address goes.",
        run!(addresses_tokens::address_remove => Changed<Gone>)),
    change(Method::PATCH, "/v1/addresses/{name}", Admin, "Other properties of a pool address.",
        run!(dto::AddressPatch => addresses_tokens::address_set => Changed<dto::Address>)),
    change(Method::POST, "/v1/addresses/{name}/drain", Admin, "No more VMs are put there, and those there are moved.",
        run!(addresses_tokens::drain => Changed<dto::Address>)),
    change(Method::POST, "/v1/addresses/{name}/undrain", Admin, "VMs are put there again.",
        run!(addresses_tokens::undrain => Changed<dto::Address>)),
    change(Method::POST, "/v1/addresses/{name}/maint", Admin, "Connections there are refused.",
        run!(addresses_tokens::maint => Changed<dto::Address>)),
    list("/v1/nodes", Reader, &[], "Hosts that hold VMs, by name.", run!(nodes::nodes => List<dto::Node>)),
    create("/v1/nodes", Admin, "A new node.", run!(dto::NewNode => nodes::add => Changed<dto::Node>)),
    get("/v1/nodes/{name}", Reader, "A node.", run!(nodes::node => dto::Node)),
    change(Method::DELETE, "/v1/nodes/{name}", Admin, "A node on which no VM lies goes.", run!(nodes::remove => Changed<Gone>)),
    change(Method::PATCH, "/v1/nodes/{name}", Admin, "Other properties of a node.",
        run!(dto::NodePatch => nodes::set => Changed<dto::Node>)),
    show(Method::POST, "/v1/nodes/test", Admin, &[], "Tries a node that nobody keeps.",
        run!(dto::NewTest => nodes::test_new => dto::NodeTest)),
    act(Method::POST, "/v1/nodes/{name}/test", Admin, "Tries a node, and keeps the host key that is confirmed.",
        run!(dto::Retest => nodes::test => dto::NodeTest)),
    list("/v1/edges", Reader, &[], "Edges that agents take sessions from, and those removed, by name.",
        run!(edges::edges => List<dto::Edge>)).from(Registry),
    create("/v1/edges", Admin, "A new edge, or one that was removed and comes back.",
        run!(dto::NewEdge => edges::add => Changed<dto::Edge>)),
    get("/v1/edges/{name}", Reader, "An edge; if none of that name is admitted, the one removed last.",
        run!(edges::edge => dto::Edge)).from(Registry),
    change(Method::DELETE, "/v1/edges/{name}", Admin, "An edge goes, and its sessions at agents; that is remembered.",
        run!(edges::remove => Changed<dto::Edge>)),
    change(Method::POST, "/v1/nodes/{name}/token", Admin, "A token that the node's agent joins with, once; shown once.",
        run!(dto::NewJoinToken => nodes::token => Changed<dto::Node>)),
    list("/v1/tokens", Admin, &[], "API tokens, by name.", run!(addresses_tokens::tokens => List<dto::Token>)).from(Registry),
    create("/v1/tokens", Admin, "A new API token, shown once.",
        run!(dto::NewToken => addresses_tokens::token_add => Changed<dto::Token>)),
    change(Method::DELETE, "/v1/tokens/{name}", Admin, "A token ends.", run!(addresses_tokens::token_remove => Changed<Gone>)),
    list("/v1/links", Reader, &[], "Control links to agents, by node.", run!(data_plane::links => List<dto::Link>)).from(Process),
    list("/v1/staged", Reader, &[], "The large commit that one agent has before the others.",
        run!(data_plane::staged => List<dto::Staged>)).from(Process),
    act(Method::POST, "/v1/staged/release", Admin, "The large commit that waits goes to all agents.",
        run!(data_plane::staged_release => Changed<Gone>)).from(Process),
    list("/v1/sessions", Reader, &[Query::User, Query::Vm], "Live sessions.",
        run!(data_plane::sessions => List<dto::Session>)).from(Process),
    act(Method::DELETE, "/v1/sessions/{id}", Operator, "Ends a session.", run!(data_plane::session_end => Changed<Gone>)).from(Process),
    list("/v1/audit", Admin, &[Query::Newest], "Who did what, the oldest first.",
        run!(fleet::audit => List<dto::Audit>)).from(Registry),
    show(Method::GET, "/v1/watch", Reader, &[Query::Revision], "Commits as they come, a line each.",
        run!(fleet::watch => lines watch::Line<'static>)).from(Registry),
    show(Method::POST, "/v1/explain", Reader, &[], "Where a key leads, and why.",
        run!(dto::Explain => data_plane::explain => dto::Explanation)),
    all("/v1/apply", Operator, "Makes the registry say what a fleet says.",
        run!(fleet::Apply, FLEET_BYTES_MAX => fleet::apply => fleet::Applied)),
    show(Method::POST, "/v1/fleet-file/plan", Reader, &[], "What a served fleet file would do at the next start or reload.",
        run!(fleet::File, FLEET_BYTES_MAX => fleet::file_plan => fleet::FilePlan)).from(Registry),
    whole("/v1/export", Reader, "The registry as a fleet.", run!(fleet::export => fleet::Export)).from(Registry),
    whole("/v1/zone", Reader, "The zone as a file.", run!(data_plane::zone => text)),
    act(Method::POST, "/v1/store/backup", Admin, "Copies the store to a file.",
        run!(dto::Backup => data_plane::backup => Changed<Gone>)),
    get("/v1/store", Reader, "Which store it is.", run!(fleet::store => fleet::Store)).from(Registry),
    get("/v1/ca", Reader, "The CA that logs in to VMs.", run!(data_plane::ca => dto::Ca)),
    act(Method::POST, "/v1/ca/confirm", Admin, "The VMs trust the CA in use now.",
        run!(data_plane::ca_confirm => Changed<dto::Ca>)),
    get("/v1/hostkeys", Reader, "The host keys of this front door.", run!(data_plane::host_keys => data_plane::HostKeys)).from(Process),
    get("/v1/openapi.json", Reader, "This description.", run!(fleet::openapi => fleet::OpenApi)).from(Process),
    get("/v1/status", Reader, "How it is, each part by itself.", run!(condition::status => Status)).from(Process),
    act(Method::POST, "/v1/reload", Admin, "Reads the files again, as SIGHUP does, and tells what came of it.",
        run!(dto::Reload => condition::reload => Reloaded)).from(Process),
    get("/v1/health", Reader, "That it is there.", run!(fleet::health => fleet::Health)).from(Process),
];

/// The route of a request, and what stands in the places of its path.
pub(super) fn find(method: &Method, path: &str) -> Result<(&'static Route, Vec<String>), Problem> {
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(params) = matched(route.path, path) else { continue };
        if route.method == *method {
            let decoded: Result<_, _> = params.into_iter().map(percent_decoded).collect();
            return Ok((route, decoded?));
        }
        allowed.push(route.method.as_str());
    }
    if allowed.is_empty() {
        return Err(Problem::no_route());
    }
    allowed.sort_unstable();
    allowed.dedup();
    Err(Problem::method_not_allowed(&allowed))
}

/// What stands in the places of a template, still encoded. An empty place is none.
fn matched<'p>(template: &str, path: &'p str) -> Option<Vec<&'p str>> {
    let (mut parts, mut params) = (path.split('/'), Vec::new());
    for wanted in template.split('/') {
        let part = parts.next()?;
        if wanted.starts_with('{') {
            if part.is_empty() {
                return None;
            }
            params.push(part);
        } else if wanted != part {
            return None;
        }
    }
    parts.next().is_none().then_some(params)
}
