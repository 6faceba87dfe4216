//! A change to ask a server for, and how it is meant.

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::api_path::with_query;
use super::client::Request;

/// How a change is meant.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "How the change is meant")]
pub(super) struct ChangeArgs {
    /// Say what would happen, change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Give VMs other addresses where the change needs it; the old ones lead to them for a while
    #[arg(long)]
    pub(super) renumber: bool,
    /// Only if what is changed is still at this revision; else exit code 4
    #[arg(long, value_name = "N")]
    pub(super) if_revision: Option<u64>,
}

impl ChangeArgs {
    fn query(self) -> Vec<(&'static str, String)> {
        let flags = [("dry_run", self.dry_run), ("renumber", self.renumber)];
        let set = flags.into_iter().filter(|(_, set)| *set);
        set.map(|(name, _)| (name, "true".to_owned())).collect()
    }
}

/// A change to ask for.
pub(super) struct Change {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
}

impl Change {
    pub(super) fn post(path: String, body: Value) -> Self {
        Self { method: Method::POST, path, body: Some(body) }
    }

    /// A POST that says everything by its path.
    pub(super) fn act(path: String) -> Self {
        Self { method: Method::POST, path, body: None }
    }

    pub(super) fn put(path: String, body: Value) -> Self {
        Self { method: Method::PUT, path, body: Some(body) }
    }

    pub(super) fn patch(path: String, body: Value) -> Self {
        Self { method: Method::PATCH, path, body: Some(body) }
    }

    pub(super) fn delete(path: String) -> Self {
        Self { method: Method::DELETE, path, body: None }
    }

    pub(super) fn request(self, edit: ChangeArgs) -> Request {
        let Self { method, path, body } = self;
        let path = with_query(&path, edit.query());
        Request { method, path, body, if_match: edit.if_revision }
    }
}
