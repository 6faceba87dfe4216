//! What the registry and DNS add to the page of metrics. Closed sets of labels.

#![expect(clippy::disallowed_methods, reason = "saved routes have an age")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::health::Health;
use super::nodes::Nodes;
use crate::control::dns::{Counters, Event, ResponseKind, Transport};
use crate::control::feed::client::Followed;
use crate::control::feed::{Counts, Gauges as FeedGauges, Hub};
use crate::edge::handoff::{LinkState, Part};
use crate::edge::shared::Shared;
use crate::registry::document::Reached;
use crate::state::routes::Unsaved;

/// What is scraped of the plane; lives as long as the endpoint.
#[derive(Clone)]
pub(super) struct Gauges {
    pub(super) health: Arc<Health>,
    /// Seats taken, and how many there are.
    pub(super) seats: (Arc<AtomicUsize>, usize),
    pub(super) dns: Option<Arc<Counters>>,
    pub(super) hub: Arc<Hub>,
    pub(super) nodes: Arc<Nodes>,
}

impl Gauges {
    /// Text format 0.0.4. Writing to a String cannot fail.
    pub(super) fn render(&self) -> String {
        let mut page = String::new();
        let mut gauge = |name: &str, help: &str, value: u64| put(&mut page, name, help, value);
        let up = u64::from(self.health.registry_is_up());
        gauge(
            "keyway_registry_up",
            "1 if the registry can be changed, 0 if its store fails or is away.",
            up,
        );
        gauge(
            "keyway_registry_revision",
            "The registry's revision that routes and names are of.",
            self.health.revision.load(Ordering::Relaxed),
        );
        let age = self.health.saved().and_then(|at| at.elapsed().ok());
        gauge(
            "keyway_snapshot_age_seconds",
            "How old the saved routes are that the front door runs from; 0 while the registry is open.",
            age.map_or(0, |age| age.as_secs()),
        );
        unsaved(&mut page, &self.health.unsaved);
        page.push_str(&seats(&self.seats));
        feed(&mut page, &self.hub);
        nodes(&mut page, &self.nodes);
        let help = "1 if agents take sessions from this front door, 0 if its identity was removed.";
        let admitted = u64::from(self.health.edges.trouble().is_none());
        put(&mut page, "keyway_edge_admitted", help, admitted);
        let Some(dns) = &self.dns else { return page };
        let answers = "keyway_dns_answers_total";
        let _ = write!(page, "# HELP {answers} Answers sent.\n# TYPE {answers} counter\n");
        for transport in Transport::ALL {
            for said in ResponseKind::ALL {
                let count = dns.answers(transport, said);
                let (transport, said) = (transport.as_str(), said.as_str());
                let _ = writeln!(
                    page,
                    "{answers}{{transport=\"{transport}\",said=\"{said}\"}} {count}"
                );
            }
        }
        let events = "keyway_dns_events_total";
        let _ = write!(page, "# HELP {events} What else happened.\n# TYPE {events} counter\n");
        for event in Event::ALL {
            let _ =
                writeln!(page, "{events}{{event=\"{}\"}} {}", event.as_str(), dns.events(event));
        }
        page
    }
}

/// Of hosts that VMs lie on. Their names are the operator's.
fn nodes(page: &mut String, nodes: &Nodes) {
    let counts = nodes.counts();
    let name = "keyway_nodes";
    let help = "Nodes whose Docker is to be reached, by how they are.";
    let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} gauge\n");
    for (how, names) in &counts {
        let _ = writeln!(page, "{name}{{state=\"{}\"}} {}", how.word(), names.len());
    }
    if counts.iter().all(|(_, names)| names.is_empty()) {
        return;
    }
    let name = "keyway_node_online";
    let help = "1 if the Docker of a node answers, else 0.";
    let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} gauge\n");
    for (how, names) in counts {
        let online = u8::from(how == Reached::Online);
        for node in names {
            let _ = writeln!(page, "{name}{{node=\"{node}\"}} {online}");
        }
    }
}

/// Of those who follow from elsewhere.
fn feed(page: &mut String, hub: &Hub) {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let FeedGauges { followers, lag, kept_bytes } = hub.gauges();
    let help = "Agents that follow the registry, by their connections.";
    put(page, "keyway_feed_followers", help, number(followers));
    let help = "Revisions that the last of them is behind.";
    put(page, "keyway_feed_lag_revisions", help, lag);
    let help = "Bytes of changes kept for followers that come back.";
    put(page, "keyway_feed_kept_bytes", help, number(kept_bytes));
    let staged = "keyway_feed_staged";
    let is = |held: bool| u64::from(hub.staged().is_some_and(|it| it.trouble.is_some() == held));
    let (waits, kept) = (is(false), is(true));
    let _ = write!(
        page,
        "# HELP {staged} 1 while a large commit goes to one agent alone, by whether that comes to it.\n\
         # TYPE {staged} gauge\n{staged}{{state=\"waiting\"}} {waits}\n{staged}{{state=\"held\"}} {kept}\n"
    );
    let Counts { went_on, began_anew, cut_off } = hub.counts();
    let came = "keyway_feed_came_total";
    let _ = write!(
        page,
        "# HELP {came} Followers that came, by how they began.\n# TYPE {came} counter\n\
         {came}{{how=\"went_on\"}} {went_on}\n{came}{{how=\"anew\"}} {began_anew}\n"
    );
    let cut = "keyway_feed_cut_off_total";
    let _ = write!(
        page,
        "# HELP {cut} Followers that took too slowly what they were sent.\n\
         # TYPE {cut} counter\n{cut} {cut_off}\n"
    );
}

/// Seats taken, and how many there are, as a page of their own.
pub(super) fn seats((taken, most): &(Arc<AtomicUsize>, usize)) -> String {
    let mut page = String::new();
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let help = "Seats taken: sessions, and what is to be one.";
    put(&mut page, "keyway_seats_taken", help, number(taken.load(Ordering::Relaxed)));
    put(&mut page, "keyway_seats_max", "Seats there are: sessions_max.", number(*most));
    page
}

/// Control links, of an edge or an agent, as a page of their own.
pub(super) fn links(shared: &Shared) -> String {
    let counts: Vec<(LinkState, usize)> = match &shared.part {
        Part::Alone => return String::new(),
        Part::Edge(links) => {
            let shown = links.shown();
            let count = |of: LinkState| shown.iter().filter(|link| link.state == of).count();
            LinkState::ALL.iter().map(|state| (*state, count(*state))).collect()
        }
        Part::Agent(agent) => vec![(LinkState::Open, agent.links().len())],
    };
    let name = "keyway_control_links";
    let help = "Control links between edges and agents, by how they are.";
    let mut page = format!("# HELP {name} {help}\n# TYPE {name} gauge\n");
    for (state, count) in counts {
        let _ = writeln!(page, "{name}{{state=\"{state}\"}} {count}");
    }
    page
}

/// Of a process that follows the registry from elsewhere, as a page of their own.
pub(super) fn followed(feed: &Followed, kept: &Unsaved) -> String {
    let mut page = String::new();
    unsaved(&mut page, kept);
    let help = "1 while the feed comes from control, 0 while it is away.";
    put(&mut page, "keyway_feed_connected", help, u64::from(feed.is_connected()));
    let help = "The registry's revision that this process judges by; 0 before the first.";
    put(&mut page, "keyway_feed_revision", help, feed.revision());
    if let Some(age_s) = feed.age_s() {
        let help = "Seconds since what this process judges by was known to be so.";
        put(&mut page, "keyway_feed_age_seconds", help, age_s);
    }
    page
}

fn unsaved(page: &mut String, unsaved: &Unsaved) {
    let help =
        "Seconds since what this process judges by could not be kept for a restart; 0 while it is.";
    let for_s = unsaved.for_s().map_or(0, |for_s| for_s.max(1));
    put(page, "keyway_routes_unsaved_seconds", help, for_s);
}

fn put(page: &mut String, name: &str, help: &str, value: u64) {
    let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
}
