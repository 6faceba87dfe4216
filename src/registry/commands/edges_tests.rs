//! Tests of edges: what is removed comes back by a command and by nothing else.

use crate::registry::apply::{self, Prune, Step};
use crate::registry::command::{Command, NodeSettings, Options};
use crate::registry::document::{Document, Edge, EdgeState, Key, Origin};
use crate::registry::draft::Draft;
use crate::registry::fleet::{Fleet, FleetEdge};
use crate::registry::model::{CommandContext, Limits, Model};
use crate::registry::name::Label;
use crate::registry::refusal::Refusal;
use crate::route::LABEL_BYTES_MAX;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::{Fingerprint, PublicKey};
use crate::ssh::testing::Seeded;

fn label(name: &str) -> Label {
    Label::new(name).unwrap()
}

fn key(of: u64) -> PublicKey {
    PrivateKey::generate_ed25519(&mut Seeded(of)).public().clone()
}

fn print(of: u64) -> Fingerprint {
    key(of).fingerprint()
}

fn add(name: &str, of: u64) -> Command {
    Command::EdgeAdd { name: label(name), identity: key(of).to_line() }
}

fn register(name: &str, of: u64) -> Command {
    Command::EdgeRegister { name: label(name), identity: key(of).to_line() }
}

fn remove(name: &str) -> Command {
    Command::EdgeRemove { name: label(name), identity: None }
}

struct World {
    model: Model,
    now_s: u64,
}

impl World {
    fn new() -> Self {
        Self { model: Model::new(Limits::default()), now_s: 1_000 }
    }

    fn run_as(&mut self, command: &Command, options: Options) -> Result<(), Refusal> {
        let stamp = CommandContext { now_s: self.now_s, nonce: self.model.revision() };
        let itself = matches!(command, Command::EdgeRegister { .. });
        let by = if itself { "keyway" } else { "uid 7" };
        let mut draft = Draft::new(&mut self.model, stamp).ordered_by(by);
        draft.carry_out(command, options)?;
        let _written = draft.keep();
        Ok(())
    }

    fn must(&mut self, command: &Command) {
        let done = self.run_as(command, Options::default());
        done.unwrap_or_else(|refusal| panic!("{command:?}: {refusal}"));
    }

    fn refused(&mut self, command: &Command) -> String {
        let revision = self.model.revision();
        let refusal = self.run_as(command, Options::default()).unwrap_err();
        assert_eq!(self.model.revision(), revision);
        format!("{}: {refusal}", refusal.code())
    }

    fn edge(&self, of: u64) -> &Edge {
        &self.model.edges()[&print(of)].document
    }

    /// Names and whether they are admitted, by name.
    fn all(&self) -> Vec<(String, bool)> {
        let edges = self.model.edges().values().map(|stored| &stored.document);
        let mut all: Vec<_> =
            edges.map(|it| (it.name.to_string(), it.state == EdgeState::Admitted)).collect();
        all.sort();
        all
    }

    /// Carries a plan out; returns what it did and what was refused.
    fn apply(&mut self, fleet: &Fleet, prune: Prune) -> (Vec<String>, Vec<String>) {
        let steps = apply::plan(fleet, &self.model, prune).unwrap();
        self.carry_out(steps)
    }

    fn carry_out(&mut self, steps: Vec<Step>) -> (Vec<String>, Vec<String>) {
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        for step in steps {
            let options = Options { origin: step.origin, planned: true, ..Options::default() };
            match self.run_as(&step.command, options) {
                Ok(()) => done.push(step.text),
                Err(refusal) => refused.push(refusal.code().to_owned()),
            }
        }
        (done, refused)
    }
}

fn said(name: &str, of: u64, removed: bool) -> FleetEdge {
    FleetEdge { name: label(name), identity: key(of).to_line(), removed, origin: None }
}

fn fleet(edges: Vec<FleetEdge>) -> Fleet {
    Fleet { edges, ..Fleet::default() }
}

#[test]
fn an_edge_is_known_by_its_identity_with_who_admitted_and_who_removed_it() {
    let mut world = World::new();
    world.must(&add("e1", 1));
    let line = key(1).to_line();
    let at = Key::Edge(print(1));
    let (document, _) = world.model.get(&at).unwrap();
    assert_eq!(
        String::from_utf8(document.to_json()).unwrap(),
        format!(r#"{{"name":"e1","key":"{line}","state":"admitted","since_s":1000,"by":"uid 7"}}"#)
    );
    assert_eq!(Document::from_json(&at, &document.to_json()).unwrap(), document);
    let text = at.to_string();
    assert_eq!((text.len(), text.parse()), ("edge/".len() + 64, Ok(at)));
    for wrong in [&text[..text.len() - 1], &text.to_uppercase(), &format!("{text}0"), "edge/"] {
        assert!(wrong.parse::<Key>().is_err(), "{wrong}");
    }
    world.now_s = 2_000;
    world.must(&remove("e1"));
    let Edge { state, since_s, by, .. } = world.edge(1);
    assert_eq!((*state, *since_s, by.as_str()), (EdgeState::Removed, 2_000, "uid 7"));
    assert_eq!(world.refused(&remove("e1")), "already: edge `e1` is removed already");
    assert_eq!(
        world.refused(&remove("e2")),
        "not-found: there is no edge `e2`; `keyway edge list` shows what there is"
    );
}

#[test]
fn what_was_removed_never_registers_itself_again_and_comes_back_by_a_command() {
    let mut world = World::new();
    world.must(&register("host", 1));
    world.must(&remove("host"));
    let before = world.model.revision();
    world.must(&register("host", 1));
    assert_eq!((world.model.revision(), world.all()), (before, vec![("host".into(), false)]));
    world.must(&add("e1", 1));
    assert_eq!(world.all(), [("e1".into(), true)]);
    // Who is admitted needs not to say so again.
    let before = world.model.revision();
    world.must(&register("host", 1));
    assert_eq!(world.model.revision(), before);
}

#[test]
fn a_host_whose_last_edge_was_removed_registers_no_new_identity_by_itself() {
    let mut world = World::new();
    world.must(&register("web1", 1));
    world.must(&register("web1", 2));
    world.must(&remove("web1"));
    world.refused(&register("web1", 3));
    assert_eq!(world.edge(2).name, label("web1-2"), "it is still there, and was said earlier");
    world.must(&remove("web1-2"));
    let said = world.refused(&register("web1", 3));
    assert!(said.contains("edge `web1-2`") && said.contains("keyway edge add web1 "), "{said}");
    assert!(said.contains(&key(3).to_line()), "{said}");
    // Of another host nothing was said.
    world.must(&register("web10", 4));
    world.must(&register("web1-x", 5));
    world.must(&register("web", 6));
    // By somebody who means it, and then as any other.
    world.must(&add("web1", 3));
    world.must(&register("web1", 7));
    let long = "x".repeat(LABEL_BYTES_MAX);
    world.must(&register(&long, 8));
    world.must(&register(&long, 9));
    let second = world.edge(9).name.to_string();
    world.must(&remove(&second));
    world.refused(&register(&long, 10));
}

#[test]
fn a_name_is_one_admitted_edges_and_free_once_that_is_removed() {
    let mut world = World::new();
    world.must(&add("e1", 1));
    assert!(world.refused(&add("e1", 2)).starts_with("name-taken: "));
    let other_name = world.refused(&add("e2", 1));
    assert_eq!(
        other_name,
        format!(
            "identity-taken: identity {} is already that of edge `e1`; every edge and every agent has one of its own",
            print(1)
        )
    );
    // Whoever registers itself gets a name beside it.
    world.must(&register("e1", 2));
    world.must(&register("e1", 3));
    world.must(&remove("e1"));
    world.must(&add("e1", 4));
    let all = [("e1", false), ("e1", true), ("e1-2", true), ("e1-3", true)];
    assert_eq!(world.all(), all.map(|(name, admitted)| (name.to_owned(), admitted)));
    assert_eq!(world.model.edge_named(&label("e1")).unwrap().0, print(4));
    let long = "x".repeat(63);
    world.must(&register(&long, 5));
    world.must(&register(&long, 6));
    assert_eq!(world.edge(6).name.as_str(), format!("{}-2", &long[..61]));
}

#[test]
fn what_cannot_be_an_edges_identity_is_refused_with_what_to_write() {
    let mut world = World::new();
    let identity = |text: &str| Command::EdgeAdd { name: label("e1"), identity: text.to_owned() };
    for wrong in ["", "x", &print(1).to_string(), "ssh-rsa AAAA"] {
        let told = world.refused(&identity(wrong));
        assert!(told.ends_with("write the ssh-ed25519 line that `keyway identity` prints there"));
    }
    // As `keyway identity` prints it.
    world.must(&identity(&format!(" {} keyway identity\n", key(1).to_line())));
    let set = NodeSettings {
        agent: Some("10.0.0.1:7022".to_owned()),
        agent_key: Some(print(2).to_string()),
        ..NodeSettings::default()
    };
    world.must(&Command::NodeAdd { name: label("n1"), set });
    let of_agent = world.refused(&add("e2", 2));
    assert!(of_agent.contains("is already that of the agent of node `n1`"), "{of_agent}");
    let set = NodeSettings { agent_key: Some(key(1).to_line()), ..NodeSettings::default() };
    let of_edge = world.refused(&Command::NodeSet { name: label("n1"), set });
    assert!(of_edge.contains("is already that of edge `e1`"), "{of_edge}");
}

#[test]
fn a_fleet_says_whom_it_admits_and_whom_it_has_removed() {
    let mut world = World::new();
    world.must(&add("e1", 1));
    world.must(&add("e2", 2));
    world.must(&remove("e2"));
    let exported = Fleet::of(&world.model);
    assert_eq!(exported.edges, [said("e1", 1, false), said("e2", 2, true)]);
    assert!(exported.to_toml().contains("[[edge]]\nname = \"e2\"\n"));
    assert!(exported.to_toml().contains("removed = true\n"));
    // What was removed there is so here, though nobody knew it.
    let mut other = World::new();
    assert_eq!(other.apply(&exported, Prune::Nothing).1, Vec::<String>::new());
    assert_eq!(other.all(), world.all());
    assert_eq!(Fleet::of(&other.model), exported);
    assert_eq!(other.apply(&exported, Prune::Everything), (vec![], vec![]));
    // What a fleet says nothing of stays: a removal is remembered.
    assert_eq!(other.apply(&fleet(vec![]), Prune::Everything), (vec![], vec![]));
}

#[test]
fn a_served_file_brings_back_what_it_took_away_itself_and_nothing_else() {
    let mut world = World::new();
    let both = fleet(vec![said("e1", 1, false), said("e2", 2, false)]);
    world.must(&register("host", 9));
    world.apply(&both, Prune::FromFleet);
    // By the file.
    let one = fleet(vec![said("e2", 2, false)]);
    assert_eq!(world.apply(&one, Prune::FromFleet).0, ["remove edge e1"]);
    assert_eq!(world.apply(&both, Prune::FromFleet).0, ["add edge e1"]);
    // By a command, as in an emergency: a reload for something else is no way back.
    world.must(&remove("e2"));
    assert_eq!(world.apply(&both, Prune::FromFleet), (vec![], vec!["edge-removed".into()]));
    assert_eq!(world.edge(2).state, EdgeState::Removed);
    world.must(&add("e2", 2));
    // What a command made, and who registered itself, is none of the file's, named or not.
    assert_eq!(world.apply(&both, Prune::FromFleet), (vec![], vec![]));
    let all = fleet([&both.edges[..], &[said("host", 9, false)]].concat());
    assert_eq!(world.apply(&all, Prune::FromFleet), (vec![], vec![]));
    let first = fleet(vec![said("e1", 1, false)]);
    assert_eq!(world.apply(&first, Prune::FromFleet), (vec![], vec![]));
    assert_eq!(world.edge(2).state, EdgeState::Admitted);
    assert_eq!(world.edge(9).state, EdgeState::Admitted);
    let gone = fleet(vec![said("e1", 1, true), said("e2", 2, false)]);
    assert_eq!(world.apply(&gone, Prune::FromFleet).0, ["remove edge e1"]);
    assert_eq!(world.apply(&gone, Prune::FromFleet).0, Vec::<String>::new());
}

#[test]
fn a_fleet_that_names_an_identity_or_an_admitted_name_twice_contradicts_itself() {
    let world = World::new();
    let plan = |edges| apply::plan(&fleet(edges), &world.model, Prune::Nothing);
    assert!(plan(vec![said("e1", 1, false), said("e2", 1, true)]).is_err());
    assert!(plan(vec![said("e1", 1, false), said("e1", 2, false)]).is_err());
    assert!(plan(vec![said("e1", 1, false), said("e1", 2, true)]).is_ok());
}

#[test]
fn a_plan_that_a_removal_overtakes_brings_nothing_back() {
    let mut world = World::new();
    world.must(&add("e1", 1));
    let file = fleet(vec![said("e1", 1, false)]);
    let steps = apply::plan(&file, &world.model, Prune::FromFleet).unwrap();
    world.must(&remove("e1"));
    assert!(world.carry_out(steps).1.is_empty());
    for _ in 0..2 {
        assert_eq!(world.apply(&file, Prune::FromFleet), (vec![], vec!["edge-removed".into()]));
    }
    assert_eq!(world.edge(1).state, EdgeState::Removed);
    // Nor does one take away what is called so by then.
    world.apply(&fleet(vec![said("e2", 2, false)]), Prune::FromFleet);
    let steps = apply::plan(&fleet(vec![]), &world.model, Prune::FromFleet).unwrap();
    world.must(&remove("e2"));
    world.must(&add("e2", 3));
    world.carry_out(steps);
    assert_eq!(world.edge(3).state, EdgeState::Admitted);
}

#[test]
fn what_was_removed_is_not_brought_back_by_a_fleet_that_is_applied() {
    let mut world = World::new();
    world.must(&add("e1", 1));
    let before = Fleet::of(&world.model);
    world.must(&remove("e1"));
    for prune in [Prune::Nothing, Prune::Everything] {
        assert_eq!(world.apply(&before, prune), (vec![], vec!["edge-removed".into()]));
    }
    // Whatever it says of whose it is.
    let edge = FleetEdge { origin: Some(Origin::Fleet), ..said("e1", 1, false) };
    assert_eq!(world.apply(&fleet(vec![edge]), Prune::Nothing).1, ["edge-removed"]);
    assert_eq!(world.edge(1).state, EdgeState::Removed);
}

#[test]
fn a_command_makes_a_files_removal_one_that_the_file_cannot_undo() {
    let mut world = World::new();
    let file = fleet(vec![said("e1", 1, false)]);
    world.apply(&file, Prune::FromFleet);
    world.apply(&fleet(vec![]), Prune::FromFleet);
    world.must(&remove("e1"));
    assert_eq!(world.refused(&remove("e1")), "already: edge `e1` is removed already");
    assert_eq!(world.apply(&file, Prune::FromFleet), (vec![], vec!["edge-removed".into()]));
}

#[test]
fn a_fleet_names_edges_as_it_likes_and_who_registered_itself_makes_room() {
    let mut world = World::new();
    world.must(&register("web1", 1));
    // As exported where this host's name was another identity's.
    let exported = fleet(vec![said("web1", 2, false)]);
    assert_eq!(world.apply(&exported, Prune::Nothing), (vec!["add edge web1".into()], vec![]));
    assert_eq!((world.edge(2).name.as_str(), world.edge(1).name.as_str()), ("web1", "web1-2"));
    let renamed = fleet(vec![said("web1", 2, false), said("edge1", 1, false)]);
    let done = vec!["rename edge web1-2 to edge1".to_owned()];
    assert_eq!(world.apply(&renamed, Prune::FromFleet), (done, vec![]));
    let Edge { name, since_s, by, origin, .. } = world.edge(1);
    let is = (name.as_str(), *since_s, by.as_str(), *origin);
    assert_eq!(is, ("edge1", 1_000, "keyway", Origin::Command));
    // A name that somebody gave is no other's.
    let other = fleet(vec![said("web1", 3, false)]);
    assert_eq!(world.apply(&other, Prune::Nothing), (vec![], vec!["name-taken".into()]));
}
