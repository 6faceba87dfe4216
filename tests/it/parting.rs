//! The end of a session that an agent carries, when it is the edge that ends it: the edge has no
//! key to say why, and has the agent say it.

use std::fs;

use nix::sys::signal::Signal;

use crate::away::session;
use crate::handoff::{ends, last_line, stays, take_alices_key, world};
use crate::harness::{World, process, wait};
use crate::operations::{keyway, reload, replace};
use crate::signing::{cut_links, wired};

/// What the user reads whose session `ending` ends.
#[track_caller]
fn read(world: &mut World, ending: impl FnOnce(&mut World)) -> String {
    let (mut ssh, said) = stays(world);
    ending(world);
    ends(&mut ssh);
    fs::read_to_string(said).expect("what ssh said")
}

#[track_caller]
fn kill(world: &World) {
    keyway(world, &["session", "kill", &session(world)]).ok();
}

/// The agent's map is a file that it does not read again: it knows of all of this by the edge.
#[test]
fn a_user_whose_session_the_edge_ends_reads_why_from_the_agent() {
    let Some(mut world) = world() else { return };
    let said = read(&mut world, |world| kill(world));
    assert!(said.contains("keyway: an operator ended this session with blue. [request "), "{said}");
    let told = |log: &str| {
        last_line(log).contains("\"operator\",\"stage\":\"session\",\"cause\":\"killed\"")
    };
    wait::until("both lines", wait::SOON, || told(&world.log()) && told(&world.agent_log()));
    let fleet = world.path("fleet.toml");
    let said = read(&mut world, |world| {
        replace(&fleet, "[[vm]]\n", "[[vm]]\nstate = \"maint\"\n");
        reload(world);
    });
    assert!(said.contains("keyway: blue is in maintenance"), "{said}");
    replace(&fleet, "\"maint\"", "\"ready\"");
    reload(&mut world);
    let said = read(&mut world, |world| {
        take_alices_key(world);
        reload(world);
    });
    assert!(said.contains("keyway: your access to blue was taken away"), "{said}");
}

#[test]
fn a_user_who_is_left_at_the_end_of_the_edges_drain_reads_so() {
    if World::is_passed_by() {
        return;
    }
    let mut world = World::usual_plan().handed().edge("drain_s = 1\n").start();
    let said = read(&mut world, |world| process::signal(world.edge().id(), Signal::SIGTERM));
    assert!(said.contains("keyway: this server is going down for maintenance"), "{said}");
}

/// Nobody can say it: it ends all the same, and an operator sees why nobody could.
#[test]
fn without_a_control_link_the_edge_closes_without_a_word() {
    let Some(mut world) = world() else { return };
    let wire = wired(&mut world);
    let links = |world: &World| keyway(world, &["node", "links"]).ok().text();
    let said = read(&mut world, |world| {
        let shown = links(world);
        let words: Vec<_> = shown.split_whitespace().rev().take(5).collect();
        assert!(matches!(words[..], ["-", "-", "1", _, "open"]), "{shown}");
        let open = "keyway_control_links{state=\"open\"} 1\n";
        assert!(world.page("/metrics").contains(open) && world.agent_page().contains(open));
        cut_links(&wire);
        wait::until("the link's end", wait::SOON, || world.log().contains("\"no control link\""));
        let broken =
            || world.page("/metrics").contains("keyway_control_links{state=\"broken\"} 1\n");
        wait::until("it is broken", wait::SOON, broken);
        let shown = links(world);
        let words: Vec<_> = shown.split_whitespace().rev().take(5).collect();
        assert!(matches!(words[..], ["closed", _, "1", "-", "broken"]), "{shown}");
        kill(world);
    });
    assert!(!said.contains("keyway:") && said.contains("closed"), "{said}");
    let killed = || last_line(&world.log()).contains("\"killed\"");
    wait::until("the line", wait::SOON, killed);
}
