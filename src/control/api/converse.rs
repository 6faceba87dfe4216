//! One connection of the API, from its first request to its end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use tokio::io::{AsyncRead, AsyncWrite};

use super::follow::{follow, no_feed, pin, report};
use super::join::join;
use super::origin::Origin;
use super::pipeline::{Connection, respond};
use super::shared::Api;
use crate::control::feed;
use crate::control::http::{self, Limits};

/// Connections served at a time on each listener. One on which nobody has shown a right makes
/// room for a newcomer.
pub(super) const CONNECTIONS_MAX: usize = 128;
/// For the head of a request, and between two requests.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// Of one connection. An apply of a whole fleet takes its time; whoever watches stays.
const LIMITS: Limits = Limits {
    silent: HEAD_MAX,
    head: HEAD_MAX,
    age: Duration::from_mins(5),
    last_request: Duration::from_hours(1),
};

/// Serves one connection to its end.
pub(super) async fn converse<S>(stream: S, api: Arc<Api>, from: Origin)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let follows = from.follows();
    let connection = Arc::new(Connection::new(api, from));
    let routes = Router::new()
        .route(feed::PATH, get(follow))
        .route(feed::PINS_PATH, post(pin))
        .route(feed::REPORT_PATH, post(report))
        .route(feed::JOIN_PATH, post(join));
    // Who has said that it follows has no seat for anything else.
    let routes = if follows {
        routes.fallback(no_feed).method_not_allowed_fallback(no_feed)
    } else {
        routes.fallback(respond).method_not_allowed_fallback(respond)
    };
    let routes = routes.with_state(Arc::clone(&connection));
    http::converse(stream, routes, LIMITS, || connection.watches()).await;
}
