//! THE TABLE: every route, who may use it, what it takes and gives, and what carries it out. Authorisation and the check
//! of queries, revisions and bodies follow from it before any handler runs; so do the API's description and the tests.

use hyper::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{
    answer::{Answer, Problem},
    call::{Call, Changed, Gone, List, Query, Reply, percent_decoded},
    handlers::{beside, fleet, people, pool, vms},
    request as ask, view,
};
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
    pub(super) run: Run,
    pub(super) summary: &'static str,
}

/// What comes with a request and its answer, beside their bodies.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Shows something.
    Show(&'static [Query]),
    /// Shows a page of a list.
    List(&'static [Query]),
    /// Changes a thing that has a revision.
    Change,
    /// Makes one.
    Create,
    /// Does something else.
    Act,
}

const LIST: [Query; 2] = [Query::Limit, Query::After];
const CHANGE: [Query; 2] = [Query::DryRun, Query::Renumber];

impl Kind {
    /// All query parameters that are known.
    pub(super) fn queries(self) -> Vec<Query> {
        match self {
            Self::Show(more) => more.to_vec(),
            Self::List(more) => LIST.iter().chain(more).copied().collect(),
            Self::Change | Self::Create | Self::Act => CHANGE.to_vec(),
        }
    }

    /// Whether it takes `If-Match`.
    pub(super) const fn takes_revision(self) -> bool {
        matches!(self, Self::Change | Self::Create)
    }
}

/// What a body looks like.
pub(super) type Describe = fn(&mut SchemaGenerator) -> Schema;

/// What carries a route out, and what it takes and gives.
pub(super) struct Run {
    /// The body it takes, and its most bytes.
    pub(super) takes: Option<(Describe, usize)>,
    pub(super) gives: Gives,
    pub(super) carry_out: fn(&Call) -> Result<Answer, Problem>,
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

/// A handler with its types: `run!(handler -> Answer)`, `run!(Body => handler -> Answer)`. The table cannot say anything
/// else of a route than what its handler does.
macro_rules! run {
    ($handler:path => text) => {
        Run { takes: None, gives: Gives::Text, carry_out: |call| $handler(call).map(Answer::Text) }
    };
    ($handler:path => lines $line:ty) => {
        Run {
            takes: None,
            gives: Gives::Lines(describe::<$line>),
            carry_out: |call| $handler(call).map(Answer::Watch),
        }
    };
    ($handler:path => $gives:ty) => {
        Run {
            takes: None,
            gives: Gives::Json(describe::<$gives>),
            carry_out: |call| {
                let reply: Reply<$gives> = $handler(call)?.into();
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
            carry_out: |call| {
                let reply: Reply<$gives> = $handler(call, call.read::<$takes>()?)?.into();
                reply.finish()
            },
        }
    };
}

const fn get(path: &'static str, role: Role, summary: &'static str, run: Run) -> Route {
    Route { method: Method::GET, path, role, kind: Kind::Show(&[]), run, summary }
}

const fn list(
    path: &'static str,
    role: Role,
    more: &'static [Query],
    summary: &'static str,
    run: Run,
) -> Route {
    Route { method: Method::GET, path, role, kind: Kind::List(more), run, summary }
}

const fn create(path: &'static str, role: Role, summary: &'static str, run: Run) -> Route {
    Route { method: Method::POST, path, role, kind: Kind::Create, run, summary }
}

const fn change(
    method: Method,
    path: &'static str,
    role: Role,
    summary: &'static str,
    run: Run,
) -> Route {
    Route { method, path, role, kind: Kind::Change, run, summary }
}

const fn act(
    method: Method,
    path: &'static str,
    role: Role,
    summary: &'static str,
    run: Run,
) -> Route {
    Route { method, path, role, kind: Kind::Act, run, summary }
}

const VM_LIST: &[Query] = &[Query::VisibleTo, Query::Owner, Query::Address];

/// Every route.
#[rustfmt::skip]
pub(super) static ROUTES: &[Route] = &[
    list("/v1/users", Reader, &[], "Users, by name.", run!(people::users => List<view::User>)),
    create("/v1/users", Operator, "A new user.", run!(ask::NewUser => people::user_add => Changed<view::User>)),
    get("/v1/users/{name}", Reader, "A user.", run!(people::user => view::User)),
    change(Method::DELETE, "/v1/users/{name}", Operator, "A user goes, out of all teams and shares.",
        run!(people::user_remove => Changed<Gone>)),
    create("/v1/users/{name}/keys", Operator, "A key for a user.", run!(ask::NewKey => people::key_add => Changed<view::User>)),
    change(Method::DELETE, "/v1/users/{name}/keys/{fingerprint}", Operator, "A key goes.",
        run!(people::key_remove => Changed<view::User>)),
    list("/v1/keys", Reader, &[], "Everybody's keys.", run!(people::keys => List<view::Key>)),
    list("/v1/teams", Reader, &[], "Teams, by name.", run!(people::teams => List<view::Team>)),
    create("/v1/teams", Operator, "A new team.", run!(ask::NewTeam => people::team_add => Changed<view::Team>)),
    get("/v1/teams/{name}", Reader, "A team.", run!(people::team => view::Team)),
    change(Method::DELETE, "/v1/teams/{name}", Operator, "A team goes, out of all shares.",
        run!(people::team_remove => Changed<Gone>)),
    change(Method::PUT, "/v1/teams/{name}/members/{user}", Operator, "A user joins, or gets the other kind of access.",
        run!(ask::NewAccess => people::join => Changed<view::Team>)),
    change(Method::DELETE, "/v1/teams/{name}/members/{user}", Operator, "A member leaves.",
        run!(people::leave => Changed<view::Team>)),
    list("/v1/vms", Reader, VM_LIST, "VMs, by name.", run!(vms::vms => List<view::Vm>)),
    create("/v1/vms", Operator, "A new VM.", run!(ask::NewVm => vms::add => Changed<view::Vm>)),
    get("/v1/vms/{name}", Reader, "A VM.", run!(vms::vm => view::Vm)),
    change(Method::DELETE, "/v1/vms/{name}", Operator, "A VM goes.", run!(vms::remove => Changed<Gone>)),
    change(Method::PATCH, "/v1/vms/{name}", Operator, "Other properties of a VM.",
        run!(ask::VmPatch => vms::set => Changed<view::Vm>)),
    change(Method::PUT, "/v1/vms/{name}/shares/{principal}", Operator, "Somebody else may enter a VM.",
        run!(ask::NewAccess => vms::share => Changed<view::Vm>)),
    change(Method::DELETE, "/v1/vms/{name}/shares/{principal}", Operator, "Somebody may no longer.",
        run!(vms::unshare => Changed<view::Vm>)),
    change(Method::POST, "/v1/vms/{name}/rename", Operator, "Another name for a VM.",
        run!(ask::To => vms::rename => Changed<view::Vm>)),
    change(Method::POST, "/v1/vms/{name}/transfer", Operator, "Another owner for a VM.",
        run!(ask::To => vms::transfer => Changed<view::Vm>)),
    change(Method::POST, "/v1/vms/{name}/renumber", Operator, "Another address for a VM.",
        run!(ask::Renumber => vms::renumber => Changed<view::Vm>)),
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
