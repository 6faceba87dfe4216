//! THE CONTROL PLANE: what operators and their machines talk to. Own threads, own runtime (tokio).
//!
//! It never names the data plane: what it shows is handed to it as a function, what it changes goes
//! through `route`.

pub mod api;
pub mod dns;
pub mod feed;
mod http;
pub mod metrics_endpoint;
mod places;
mod server_thread;
