//! The API's description (OpenAPI 3.1), made from the table of routes.

use axum::http::Method;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::auth::role_word;
use super::dto::{NAME, PRINCIPAL};
use super::problem::{BUSY, COME_AGAIN_S, ProblemBody, REGISTRY_AWAY};
use super::query::Query;
use super::routes::{Gives, Kind, ROUTES, Route, Source};
use super::shared::WHOLE_MAX;

/// The whole document.
pub(super) fn describe() -> Value {
    let settings = |settings: &mut SchemaSettings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    };
    let settings = SchemaSettings::draft2020_12().with(settings);
    let settings = settings.with_transform(RecursiveTransform(unwrap_description));
    // What is taken and what is given differ: a field with a default may be left out, and
    // is always there.
    let mut takes = settings.clone().for_deserialize().into_generator();
    let mut gives = settings.for_serialize().into_generator();
    let problem = gives.subschema_for::<ProblemBody<'static>>();
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let operation = operation(route, &mut takes, &mut gives, &problem.clone().to_value());
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.as_str().to_lowercase(), operation);
        }
    }
    let mut schemas = takes.take_definitions(true);
    schemas.extend(gives.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Keyway",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "An SSH front door for fleets of virtual machines. Errors are application/problem+json with a stable `code`."
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}
        },
        // At the unix socket the kernel says who asks.
        "security": [{"token": []}, {}]
    })
}

/// Where the lines of a comment end is no part of the API.
fn unwrap_description(schema: &mut Schema) {
    let description = schema.as_object_mut().and_then(|schema| schema.get_mut("description"));
    if let Some(Value::String(text)) = description {
        let paragraphs: Vec<_> = text.split("\n\n").map(|text| text.replace('\n', " ")).collect();
        *text = paragraphs.join("\n\n");
    }
}

fn operation(
    route: &Route,
    takes: &mut SchemaGenerator,
    gives: &mut SchemaGenerator,
    problem: &Value,
) -> Value {
    let places = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let place = |name: &str| {
        let schema = match name {
            "name" | "user" => json!({"type": "string", "pattern": NAME}),
            "principal" => json!({"type": "string", "pattern": PRINCIPAL}),
            _ => json!({"type": "string"}),
        };
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    };
    let mut parameters: Vec<Value> = places.map(place).collect();
    parameters.extend(route.kind.queries().into_iter().map(|query| {
        json!({
            "name": query.name(),
            "in": "query",
            "description": query.summary(),
            "schema": query_schema(query)
        })
    }));
    if route.kind.takes_revision() {
        parameters.push(json!({
            "name": "If-Match",
            "in": "header",
            "description": if matches!(route.kind, Kind::All) {
                "The registry's revision that the plan was made at, in quotes: `planned_at` of a dry run."
            } else {
                "The revision that is to be changed, in quotes, as ETag had it."
            },
            "schema": {"type": "string", "pattern": "^(\\*|\"[0-9]{1,19}\")$"}
        }));
    }
    let (media_type, schema) = match route.run.gives {
        Gives::Json(describe) => ("application/json", describe(gives).to_value()),
        Gives::Text => ("text/plain", json!({"type": "string"})),
        Gives::Lines(describe) => ("application/x-ndjson", describe(gives).to_value()),
    };
    let mut responses = Map::new();
    let mut good = json!({"description": "As asked.", "content": {media_type: {"schema": schema}}});
    if let (Source::Known, Some(good)) = (route.source, good.as_object_mut()) {
        good.insert("headers".into(), stale());
    }
    if matches!(route.kind, Kind::Create) {
        responses.insert("201".into(), good.clone());
    }
    responses.insert("200".into(), good);
    let refused = json!({
        "description": "Not as asked; `code` says why.",
        "content": {"application/problem+json": {"schema": problem}}
    });
    for status in statuses(route) {
        responses.insert(status.to_string(), refused.clone());
    }
    responses.insert("503".into(), unavailable(route, problem));
    let mut operation = json!({
        "operationId": id(route),
        "summary": route.summary,
        "description": format!("Takes the role {}.", role_word(route.role)),
        "parameters": parameters,
        "responses": responses
    });
    if let (Some((describe, _)), Some(operation)) = (&route.run.takes, operation.as_object_mut()) {
        let schema = describe(takes).to_value();
        let body = json!({"required": true, "content": {"application/json": {"schema": schema}}});
        operation.insert("requestBody".into(), body);
    }
    operation
}

/// What an answer says that is not of the registry as it is.
fn stale() -> Value {
    json!({"Warning": {
        "description": "`110 keyway`: the registry is away, and this is what its routes said when they were saved last.",
        "schema": {"type": "string"}
    }})
}

/// What is answered where something is away, or all places are taken.
fn unavailable(route: &Route, problem: &Value) -> Value {
    let whole = matches!(route.kind, Kind::Whole);
    let away = format!("`{REGISTRY_AWAY}`: the registry cannot be read or changed.");
    let busy = if whole {
        format!(" `{BUSY}`: {WHOLE_MAX} such answers are on their way already.")
    } else {
        String::new()
    };
    let headers = if whole {
        json!({"Retry-After": {
            "description": "Seconds, where the code is `busy`.",
            "schema": {"type": "integer", "minimum": COME_AGAIN_S}
        }})
    } else {
        json!({})
    };
    json!({
        "description": format!("Not as asked; `code` says why. {away}{busy}"),
        "headers": headers,
        "content": {"application/problem+json": {"schema": problem}}
    })
}

/// `delete-users-name-keys-fingerprint`: good for a file name and, but for the hyphens, a function.
fn id(route: &Route) -> String {
    let words = route.path.split(['/', '{', '}', '.']).filter(|word| !matches!(*word, "" | "v1"));
    std::iter::once(route.method.as_str())
        .chain(words)
        .map(str::to_lowercase)
        .collect::<Vec<_>>()
        .join("-")
}

/// The problems that a route may answer with.
fn statuses(route: &Route) -> Vec<u16> {
    let mut statuses = vec![400, 401, 403, 404, 409, 422, 503];
    if route.run.takes.is_some() {
        statuses.extend([413, 415]);
    }
    if route.kind.takes_revision() {
        statuses.push(412);
    }
    if route.method == Method::GET && matches!(route.run.gives, Gives::Lines(_)) {
        statuses.push(410);
    }
    statuses
}

fn query_schema(query: Query) -> Value {
    match query {
        Query::DryRun | Query::Renumber | Query::Newest => {
            json!({"type": "boolean", "default": false})
        }
        Query::Limit => json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
        Query::Revision => json!({"type": "integer", "minimum": 0}),
        Query::VisibleTo | Query::Owner => json!({"type": "string", "pattern": PRINCIPAL}),
        Query::Address | Query::Node => json!({"type": "string", "pattern": NAME}),
        Query::After | Query::User | Query::Vm => json!({"type": "string"}),
    }
}
