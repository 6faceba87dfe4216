//! Tests of `agent`: every fault of an `agent.toml` at once, and what a fault leaves of the rest.

use super::*;
use crate::config::tests::{ALICE, BOB, Scratch, THIRD, fleet};
use crate::config::{Count, UserCa, VmCredential, find};

/// A P-256 key: no identity, but a host key.
const P256: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU=";

fn sound() -> String {
    format!(
        "listen = \"127.0.0.1:7022\"\nedge_networks = [\"10.0.0.0/24\"]\nedges = [\"{ALICE}\"]\n\
         host_keys = [\"{BOB}\", \"{P256}\"]\nreplica = \"fleet.toml\"\n"
    )
}

fn files(scratch: &Scratch, agent: &str, replica: &str) -> AgentFiles {
    scratch.put("fleet.toml", replica);
    AgentFiles { config: scratch.put("agent.toml", agent), fleet: None }
}

fn load(scratch: &Scratch, agent: &str, replica: &str) -> Result<LoadedAgent, Vec<String>> {
    load_agent(&files(scratch, agent, replica)).map_err(|report| scratch.told(&report.faults))
}

fn key(line: &str) -> PublicKey {
    PublicKey::parse_line(line).unwrap().0
}

#[test]
fn what_is_not_said_is_as_documented() {
    let scratch = Scratch::new();
    let LoadedAgent { config, fleet, warnings, .. } = load(&scratch, &sound(), &fleet()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(fleet.unwrap().snapshot.vms().len(), 1);
    assert_eq!(config.state_dir, Path::new("/var/lib/keyway-agent"));
    assert_eq!(config.metrics.listen, "127.0.0.1:9645".parse().unwrap());
    assert_eq!(config.edge.listen, ["127.0.0.1:7022".parse().unwrap()]);
    assert_eq!(config.edge_networks, ["10.0.0.0/24".parse().unwrap()]);
    assert_eq!(
        (config.edges, config.host_keys),
        (vec![key(ALICE).fingerprint()], vec![key(BOB), key(P256)])
    );
    assert_eq!(config.replica, Replica::File(scratch.0.join("fleet.toml")));
    assert_eq!(
        (config.edge.shards, config.edge.sessions_max),
        (Count::Automatic, Count::Automatic)
    );
    let VmCredential::Certificates { ca, .. } = config.vm_leg.credential else { panic!() };
    assert!(matches!(ca, UserCa::InState));
}

#[test]
fn what_is_said_of_the_door_counts_without_a_section() {
    let scratch = Scratch::new();
    scratch.put("revoked", THIRD);
    let text = format!(
        "state_dir = \"mine\"\nshards = 2\ndrain_s = 7\nlogin_grace_s = 8\nsessions_max = 9\nhalf_open_max = 10\n\
         client_alive_interval_s = 11\nclient_alive_count_max = 12\nprefer_gcm = \"never\"\nlog = \"json\"\n\
         revoked_keys = \"revoked\"\ntrusted_user_cas = [\"{THIRD}\"]\n{}[vm_leg]\ndial_timeout_s = 3\n\
         [metrics]\nlisten = \"127.0.0.1:99\"\n",
        sound().replace("\"127.0.0.1:7022\"", "[\"127.0.0.1:7022\", \"[::1]:7022\"]")
    );
    let LoadedAgent { config, .. } = load(&scratch, &text, &fleet()).unwrap();
    assert_eq!(config.state_dir, scratch.0.join("mine"));
    assert_eq!(config.edge.listen.len(), 2);
    let edge = &config.edge;
    assert_eq!((edge.drain.as_secs(), edge.login_grace.as_secs()), (7, 8));
    assert_eq!((edge.client_alive_interval.as_secs(), edge.client_alive_count_max), (11, 12));
    assert_eq!((edge.log, config.vm_leg.dial_timeout.as_secs()), (Log::Json, 3));
    assert!(edge.revocations.revokes_key(&key(THIRD)));
    assert_eq!(edge.trusted_user_cas, [key(THIRD)]);
    assert_eq!(agent_log(&scratch.0.join("agent.toml")), Log::Json);
}

#[test]
fn all_faults_are_told_together_with_their_lines() {
    let scratch = Scratch::new();
    let text = format!(
        "listen = []\nedge_networks = []\nedges = [\n  \"{P256}\",\n  \"no key\",\n]\nhost_keys = []\n\
         hide_keys = true\nreplica = \"\"\n\n\n\
         [metrics]\nlisten = \"0.0.0.0:9645\"\n[edge]\n"
    );
    assert_eq!(
        load(&scratch, &text, "").unwrap_err(),
        [
            "agent.toml:1: `listen` is empty: nothing would listen; fix: write at least one \"address:port\"",
            "agent.toml:2: `edge_networks` is empty: no edge could come; fix: write the networks of your edges",
            "agent.toml:4: `edges` holds a key that is no identity of an edge: those are Ed25519; fix: write what \
             `keyway identity` prints at the edge",
            "agent.toml:5: `edges` holds a line that is no public key: malformed key; fix: paste the one line of the .pub \
             file: type, base64, comment",
            "agent.toml:7: `host_keys` is empty: no session would be believed; fix: write the public host keys of the front \
             door (keyway hostkey list)",
            "agent.toml:8: unknown key `hide_keys`; fix: did you mean `host_keys`?",
            "agent.toml:9: `replica` is not a path; fix: write a path in double quotes",
            "agent.toml:13: `metrics.listen` is 0.0.0.0:9645, which includes the address that VMs and their tenants may \
             reach; fix: write an address of the management network, or 127.0.0.1",
            "agent.toml:14: unknown key `edge`; fix: did you mean `edges`?",
        ]
    );
    assert_eq!(
        load(&scratch, "", "").unwrap_err(),
        [
            "agent.toml:1: `edge_networks` is missing; fix: add `edge_networks = [\"10.0.0.0/24\"]`",
            "agent.toml:1: `listen` is missing; fix: add `listen = \"10.0.0.21:7022\"`",
            "agent.toml:1: nothing says who may go where, nor whom to believe; fix: `keyway agent join` adds `[control]`; \
             or add `replica = \"fleet.toml\"`, `edges` and `host_keys`",
        ]
    );
}

#[test]
fn every_key_stands_in_the_reference_and_its_example_is_sound() {
    let reference = include_str!("../../docs/configuration.md");
    let reference = reference.split_once("## agent.toml").unwrap().1;
    let reference = reference.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
    let scratch = Scratch::new();
    let mut known = 0;
    for (section, head) in [("", ""), ("vm_leg", "[vm_leg]\n"), ("metrics", "[metrics]\n")] {
        let told = load(&scratch, &format!("{head}zzz = 1\n"), &fleet()).unwrap_err();
        let keys = told.iter().find_map(|fault| fault.split_once("known here: ")).unwrap().1;
        for key in keys.split(", ").filter(|key| *key != "control") {
            let (line, table) = (format!("\n{key} = "), format!("\n[{key}]"));
            let is_there = format!("\n{reference}");
            assert!(is_there.contains(&line) || is_there.contains(&table), "{section} {key}");
            known += 1;
        }
    }
    assert!(known > 20, "{known}");
    let key = ALICE.rsplit_once(' ').unwrap().0;
    let example = reference.replace("ssh-ed25519 AAAA...", key);
    let LoadedAgent { warnings, .. } = load(&scratch, &example, &fleet()).unwrap();
    assert_eq!(warnings, []);
}

#[test]
fn a_replica_has_to_be_a_map_by_itself() {
    let scratch = Scratch::new();
    let told = load(&scratch, &sound(), &fleet().replace("owner = \"alice\"", "owner = \"bob\""));
    assert!(told.unwrap_err()[0].starts_with("fleet.toml:11: "));
    assert_eq!(
        load(&scratch, &sound(), "").unwrap_err(),
        [
            "fleet.toml:1: there is nothing in it; fix: name what there is to be; `keyway export` writes what there is"
        ]
    );
    std::fs::remove_file(scratch.0.join("fleet.toml")).unwrap();
    let named = AgentFiles { config: scratch.0.join("agent.toml"), fleet: None };
    let report = load_agent(&named).unwrap_err();
    assert_eq!(
        scratch.told(&report.faults),
        ["fleet.toml:1: cannot be read: no such file; fix: correct the path or its permissions"]
    );
    // The one of the command line stands in for it.
    let other = scratch.put("other.toml", fleet().replace("address = \"s001\"\n", ""));
    let LoadedAgent { config, warnings, .. } =
        load_agent(&AgentFiles { fleet: Some(other.clone()), ..named }).unwrap();
    assert_eq!(config.replica, Replica::File(other));
    let told = scratch.told(&warnings);
    assert!(told[0].starts_with("other.toml:9: VM `blue` has no address here"), "{told:?}");
    assert_eq!(told.len(), 1);
}

#[test]
fn what_takes_access_away_is_read_whatever_else_is_wrong() {
    let scratch = Scratch::new();
    scratch.put("revoked", THIRD);
    let rights = format!("revoked_keys = \"revoked\"\ntrusted_user_cas = [\"{THIRD}\"]\n");
    let all = format!("{rights}{}", sound());
    for (agent, replica) in [
        (all.clone(), fleet()),
        (all.clone() + "[vm_leg]\nuser_ca = \"gone\"\n", fleet()),
        (all.replace("127.0.0.1:7022", "nowhere"), "[[user]\n".to_owned()),
    ] {
        let AgentReread { rights, .. } = reread_agent(&files(&scratch, &agent, &replica), None);
        assert!(rights.users.revocations.unwrap().revokes_key(&key(THIRD)), "{agent}");
        assert_eq!(rights.users.trusted_user_cas.unwrap(), [key(THIRD)], "{agent}");
        assert_eq!(rights.edges.unwrap(), [key(ALICE).fingerprint()], "{agent}");
        assert_eq!(rights.host_keys.unwrap(), [key(BOB), key(P256)], "{agent}");
    }
    // What cannot be read is not taken for nothing.
    let faulty = sound().replace(BOB, "no key");
    let read = reread_agent(&files(&scratch, &faulty, &fleet()), None);
    assert!(read.rights.host_keys.is_none() && read.config.is_err());
    assert_eq!(read.rights.edges.unwrap(), [key(ALICE).fingerprint()]);
    assert!(read.fleet.unwrap().is_ok());
    let broken = reread_agent(
        &files(&scratch, &(sound() + "[oh"), &fleet()),
        Some(&scratch.0.join("revoked")),
    );
    assert!(broken.rights.edges.is_none() && broken.rights.host_keys.is_none());
    assert!(broken.rights.users.revocations.unwrap().revokes_key(&key(THIRD)));
}

#[test]
fn an_agents_file_is_told_from_a_front_doors() {
    let scratch = Scratch::new();
    let agent = files(&scratch, &sound(), "").config;
    let found = find(&agent).unwrap();
    assert_eq!(found.state_dir, Path::new("/var/lib/keyway-agent"));
    let Logins { of, state_dir, .. } = load_logins(Some(&agent)).unwrap();
    assert_eq!((of, state_dir), (Of::Agent, found.state_dir));
    let door = scratch.put("keyway.toml", "state_dir = \"here\"\n");
    assert_eq!(find(&door).unwrap().state_dir, scratch.0.join("here"));
    let Logins { of, state_dir, .. } = load_logins(Some(&door)).unwrap();
    assert_eq!((of, state_dir), (Of::FrontDoor, scratch.0.join("here")));
}

#[test]
fn who_follows_control_names_nothing_that_comes_with_the_feed() {
    let scratch = Scratch::new();
    let own = "listen = \"127.0.0.1:7022\"\nedge_networks = [\"10.0.0.0/24\"]\n";
    let section = "[control]\nurl = \"https://control.example:9643\"\nca = \"ca.pem\"\n";
    scratch.put("ca.pem", "-----BEGIN CERTIFICATE-----\n");
    let loaded = load(&scratch, &format!("{own}{section}"), "").unwrap();
    let Replica::Feed(Control { url, ca }) = loaded.config.replica else { panic!("a file") };
    assert_eq!(url, "https://control.example:9643");
    assert_eq!(ca.unwrap().file_name().unwrap(), "ca.pem");
    assert!(loaded.fleet.is_none() && loaded.config.edges.is_empty());
    let both = format!("{}revoked_keys = \"\"\ntrusted_user_cas = []\n{section}", sound());
    let told = load(&scratch, &both, &fleet()).unwrap_err();
    for (line, key) in [
        (3, "edges"),
        (4, "host_keys"),
        (5, "replica"),
        (6, "revoked_keys"),
        (7, "trusted_user_cas"),
    ] {
        let wanted = format!(
            "agent.toml:{line}: `{key}` comes with the feed of control; fix: remove `{key}`, or the section \
             [control]"
        );
        assert!(told.contains(&wanted), "{told:?}");
    }
    assert_eq!(told.len(), 5, "{told:?}");
    let wrong = load(&scratch, &format!("{own}[control]\nurl = \"http://control\"\n"), "");
    assert_eq!(
        wrong.unwrap_err(),
        [
            "agent.toml:4: `control.url` is no server; fix: write https://HOST or https://HOST:PORT, no more"
        ]
    );
    let config = scratch.put("agent.toml", format!("{own}{section}"));
    let files = AgentFiles { config, fleet: Some(scratch.put("fleet.toml", fleet())) };
    let report = load_agent(&files).unwrap_err();
    assert_eq!(
        scratch.told(&report.faults),
        [
            "agent.toml:3: `control` names a feed beside --fleet; fix: leave --fleet out, or remove the section"
        ]
    );
}

#[test]
fn who_joins_may_say_where_control_is_and_the_file_is_as_sound_as_it_will_be() {
    let scratch = Scratch::new();
    let own = "listen = \"127.0.0.1:7022\"\nedge_networks = [\"10.0.0.0/24\"]\n";
    let given = Control {
        url: "https://control.example".to_owned(),
        ca: Some(scratch.put("a \"ca\".pem", "-----BEGIN CERTIFICATE-----\n")),
    };
    let config = scratch.put("agent.toml", own);
    assert!(load_joining(&config, None).unwrap().is_none(), "nobody says where");
    let joining = load_joining(&config, Some(given.clone())).unwrap().unwrap();
    assert!(!joining.is_written && joining.config.edges.is_empty());
    assert_eq!(joining.control, given);
    // What is added behind a file without an end of line reads as it was given.
    scratch.put("agent.toml", format!("{}\n{}", own.trim_end(), given.section()));
    let joining = load_joining(&config, None).unwrap().unwrap();
    assert!(joining.is_written);
    assert_eq!(joining.control, given);
    scratch.put("agent.toml", format!("{own}[control]\nurl = \"https://other.example:1\"\n"));
    let joining = load_joining(&config, Some(given.clone())).unwrap().unwrap();
    assert_eq!(joining.control.url, "https://other.example:1", "the file counts");
    scratch.put("agent.toml", sound());
    let report = load_joining(&config, Some(given)).unwrap_err();
    assert_eq!(
        scratch.told(&report.faults),
        [
            "agent.toml:3: `edges` comes with the feed of control; fix: remove `edges`",
            "agent.toml:4: `host_keys` comes with the feed of control; fix: remove `host_keys`",
            "agent.toml:5: `replica` comes with the feed of control; fix: remove `replica`",
        ]
    );
}

#[test]
fn the_ca_of_control_has_to_be_there() {
    let scratch = Scratch::new();
    let own = "listen = \"127.0.0.1:7022\"\nedge_networks = [\"10.0.0.0/24\"]\n";
    let section = "[control]\nurl = \"https://control.example\"\nca = \"ca.pem\"\n";
    let told = || load(&scratch, &format!("{own}{section}"), "").map(drop);
    assert_eq!(
        told().unwrap_err(),
        [
            "agent.toml:5: `control.ca` names ca.pem: no such file; fix: correct the path or its permissions"
        ]
    );
    scratch.put("ca.pem", "no certificate");
    assert!(told().unwrap_err()[0].contains("holds no PEM block of a certificate"));
}
