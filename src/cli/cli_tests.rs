//! Tests of `cli`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;

use super::testing::{Fake, Said, Scratch, Sitting, refusing, say_with};
use super::*;
use crate::registry::store::{Sqlite, Store as _, StoreId, Transaction};
use crate::ssh::publickey::PublicKey;

const SOUND: &str = "\
[[address]]\nname = \"s001\"\npublic = \"127.0.77.1\"\n\
[[user]]\nname = \"alice\"\nkeys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINILzCr80scSuAcnYpxLu4nnirz6xztusEayvak/vj9f\"]\n\
[[vm]]\nname = \"blue\"\nowner = \"alice\"\naddress = \"s001\"\nssh = \"127.0.0.1:2201\"\n";

/// A directory with both files.
fn two_files(keyway: &str, fleet: &str) -> Scratch {
    let scratch = Scratch::new();
    scratch.file("keyway.toml", &format!("state_dir = \"state\"\n{keyway}"));
    scratch.file("fleet.toml", fleet);
    scratch
}

/// Exit code, stdout, stderr.
fn say(arguments: &[&str], roles: &Roles) -> (u8, String, String) {
    let Said { code, out, err } = say_with(arguments, roles, &[], "", Sitting::Nobody);
    (code, out, err)
}

fn on(scratch: &Scratch, arguments: &[&str]) -> (u8, String, String) {
    let (config, fleet) = (scratch.path("keyway.toml"), scratch.path("fleet.toml"));
    let mut all = arguments.to_vec();
    all.extend(["--config", &config]);
    if !["ca", "identity"].contains(&arguments[0]) {
        all.extend(["--fleet", &fleet]);
    }
    let (code, stdout, stderr) = say(&all, &refusing());
    let prefix = format!("{}/", scratch.0.display());
    (code, stdout.replace(&prefix, ""), stderr.replace(&prefix, ""))
}

#[test]
fn the_arguments_are_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn help_and_version_go_to_stdout_and_wrong_arguments_to_stderr() {
    let (code, stdout, stderr) = say(&["--help"], &refusing());
    assert_eq!((code, stderr.as_str()), (DONE, ""));
    for command in ["serve", "check", "ca", "demo"] {
        assert!(stdout.contains(&format!("\n  {command} ")), "{stdout}");
        let (code, help, _) = say(&[command, "--help"], &refusing());
        assert!(code == DONE && (command == "ca" || help.contains("Example")), "{help}");
    }
    assert!(stdout.contains("Examples:"), "{stdout}");
    let (code, stdout, _) = say(&["--version"], &refusing());
    assert_eq!((code, stdout), (DONE, format!("keyway {}\n", env!("CARGO_PKG_VERSION"))));
    for wrong in [
        &["serv"][..],
        &["check", "--fleet"],
        &["ca"],
        &["ca", "show", "--vm", "blue"],
        &["ca", "show", "--drop-in", "--vm", "Blue"],
        &["ca", "show", "--drop-in", "--edge", "edge.example"],
        &["ca", "show", "--drop-in", "--sshd-version", "new"],
        &["ca", "show", "--drop-in", "--sshd-version", "7.4"],
        &["demo", "--port", "0"],
        &[],
    ] {
        let (code, stdout, stderr) = say(wrong, &refusing());
        assert_eq!((code, stdout.as_str()), (USAGE, ""), "{wrong:?}");
        assert!(!stderr.is_empty());
    }
}

#[test]
fn check_says_what_the_files_hold() {
    let scratch = two_files("[vm_leg]\nprincipals = \"login\"\n", SOUND);
    let (code, stdout, stderr) = on(&scratch, &["check"]);
    let nobody = "not held against a registry: no keyway answers at state/keyway.sock\n";
    assert_eq!((code, stderr.as_str()), (DONE, nobody));
    let (table, warnings) = stdout.split_at(stdout.find("warning:").unwrap());
    assert_eq!(
        table,
        "addresses        1\nusers            1\nkeys             1\nnodes            0\nvms              1\nwarnings         1\n"
    );
    assert!(warnings.starts_with("warning: keyway.toml:3: `vm_leg.principals` is \"login\""));
    assert!(!scratch.0.join("state").exists(), "check made the state directory");
    let (code, stdout, _) = on(&scratch, &["check", "--output", "json"]);
    assert_eq!(code, DONE);
    let mut told: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let warnings = told["warnings"].take();
    let plan = told.as_object_mut().unwrap().remove("plan").unwrap();
    assert!(plan["unknown"].as_str().unwrap().starts_with("no keyway answers at "), "{plan}");
    let sizes = serde_json::json!({
        "ok": true, "addresses": 1, "users": 1, "keys": 1, "nodes": 0, "vms": 1, "faults": [], "warnings": null
    });
    assert_eq!(told, sizes);
    assert_eq!((&warnings[0]["file"], &warnings[0]["line"]), (&"keyway.toml".into(), &3.into()));
}

#[test]
fn more_connections_than_the_host_has_descriptors_for_are_warned_of_with_the_numbers() {
    let keyway = "[edge]\nhide_keys = false\nsessions_max = 1000\nhalf_open_max = 488\n";
    let scratch = two_files(keyway, SOUND);
    let (config, fleet) = (scratch.0.join("keyway.toml"), scratch.0.join("fleet.toml"));
    let warned = |descriptors| {
        let mut loaded = config::load(Some(&config), Some(&fleet)).unwrap();
        if let Some(odd) = crate::host::check(&loaded.config.edge, descriptors) {
            loaded.warn_of_counts(odd);
        }
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(warned(3000), Vec::<String>::new(), "1000 sessions, 488 half-open, 512 for itself");
    let all = warned(2999);
    let [warning] = &*all else { panic!("{all:?}") };
    assert!(warning.contains("keyway.toml:4: "), "{warning}");
    for part in [" 1000 sessions", " 488 half", " 3000 file", " 2999 ", "NOFILE=3000", "; fix: "] {
        assert!(warning.contains(part), "{part} is not in {warning}");
    }
    // What is kept for the rest is more than there is: smaller counts would not help.
    for descriptors in [256, 519] {
        let all = warned(descriptors);
        let [warning] = &*all else { panic!("{all:?}") };
        assert!(warning.contains(&format!(" {descriptors} file")), "{warning}");
        assert!(
            warning.contains("LimitNOFILE=3072") && !warning.contains("sessions_max ="),
            "{warning}"
        );
    }
    fs::write(&config, "state_dir = \"state\"\n").unwrap();
    let all = warned(256);
    assert!(all.len() == 1 && all[0].contains("LimitNOFILE=1024"), "{all:?}");
    assert_eq!(warned(1 << 20), Vec::<String>::new(), "what is automatic fits");

    let scratch = two_files("[edge]\nsessions_max = 536870912\n", SOUND);
    let (code, stdout, _) = on(&scratch, &["check"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("warning: keyway.toml:3: 536870912 sessions"), "{stdout}");
}

#[test]
fn check_tells_all_faults_on_stderr_and_ends_with_1() {
    let scratch = two_files("[edge]\nshard = 1\n", "[[user]]\nname = \"A\\\"\"\n");
    let (code, stdout, stderr) = on(&scratch, &["check"]);
    assert_eq!((code, stdout.as_str()), (FAULTS, ""));
    assert_eq!(
        stderr,
        "keyway.toml:3: unknown key `edge.shard`; fix: did you mean `shards`?\n\
         fleet.toml:2: `user.name` is \"A\"\", which is no name; fix: write 1 to 63 of a-z, 0-9 and -, with no - at either end\n\
         keyway: 2 faults\n"
    );
    let (code, stdout, also) = on(&scratch, &["check", "--output", "json"]);
    assert_eq!((code, also), (FAULTS, stderr));
    let told: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let [first, second] = [&told["faults"][0], &told["faults"][1]];
    assert_eq!((&told["ok"], &first["file"]), (&false.into(), &"keyway.toml".into()));
    assert_eq!((&first["line"], &first["fix"]), (&3.into(), &"did you mean `shards`?".into()));
    assert!(second["what"].as_str().unwrap().contains("which is no name"), "{stdout}");
}

#[test]
fn faults_keep_serve_from_starting() {
    let scratch = two_files("shards = 1", SOUND);
    let (code, _, stderr) = on(&scratch, &["serve"]);
    assert_eq!(code, FAULTS);
    assert!(stderr.contains("unknown key `shards`") && !stderr.contains("serve was called"));
}

/// Level and message of each line.
fn json_lines(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let text = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap().to_owned();
    lines.map(|line| (text(&line, "level"), text(&line, "message"))).collect()
}

#[test]
fn what_keeps_serve_from_starting_is_told_as_its_log_is() {
    let faulty = "[edge]\nlog = \"json\"\nshard = 1\n[vm_leg]\nprincipals = \"login\"\n";
    let scratch = two_files(faulty, SOUND);
    let (code, _, stderr) = on(&scratch, &["serve"]);
    assert_eq!(code, FAULTS);
    let levels: Vec<String> = json_lines(&stderr).into_iter().map(|(level, _)| level).collect();
    assert_eq!(levels, ["ERROR", "WARN", "ERROR"], "{stderr}");
    let first: serde_json::Value = serde_json::from_str(stderr.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["message"], &first["line"]),
        (&"unknown key `edge.shard`".into(), &4.into())
    );
    assert_eq!(first["fix"], "did you mean `shards`?");
    // A terminal, or who asks for lines for people, gets those.
    fs::write(scratch.0.join("keyway.toml"), faulty.replace("json", "readable")).unwrap();
    let (_, _, stderr) = on(&scratch, &["serve"]);
    assert!(stderr.contains("keyway.toml:3: unknown key `edge.shard`; fix: "), "{stderr}");
    let config = scratch.file("keyway.toml", &faulty.replace("json", "auto"));
    let arguments = ["serve", "--config", &config];
    let Said { err, .. } = say_with(&arguments, &refusing(), &[], "", Sitting::Somebody);
    assert!(err.contains("keyway.toml:3: unknown key"), "{err}");
    let Said { err, .. } = say_with(&arguments, &refusing(), &[], "", Sitting::Nobody);
    assert!(err.starts_with('{'), "{err}");
}

#[test]
fn the_roles_are_given_what_they_start_from() {
    let scratch = two_files("", SOUND);
    let (code, _, stderr) = on(&scratch, &["serve"]);
    assert_eq!(code, FAULTS);
    assert_eq!(json_lines(&stderr), [("ERROR".to_owned(), "serve was called".to_owned())]);
    let scratch = two_files("[edge]\nlog = \"readable\"\n", SOUND);
    let (code, _, stderr) = on(&scratch, &["serve"]);
    assert_eq!((code, stderr.as_str()), (FAULTS, "keyway: serve was called\n"));

    let roles = Roles {
        serve: |start| {
            assert!(start.files.fleet.as_ref().unwrap().ends_with("fleet.toml"));
            assert_eq!(start.loaded.fleet.as_ref().unwrap().snapshot.vms().len(), 1);
            Ok(())
        },
        agent: |start| {
            assert!(start.files.config.ends_with("agent.toml"));
            assert_eq!(start.loaded.fleet.unwrap().snapshot.vms().len(), 1);
            Ok(())
        },
        demo: |demo| {
            assert_eq!(*demo, Demo { check: true, sshd: true, port: Some(2200), log: false });
            Ok(())
        },
    };
    let (config, fleet) = (scratch.path("keyway.toml"), scratch.path("fleet.toml"));
    let (code, ..) = say(&["serve", "--config", &config, "--fleet", &fleet], &roles);
    assert_eq!(code, DONE);
    let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINILzCr80scSuAcnYpxLu4nnirz6xztusEayvak/vj9f";
    let agent = scratch.file(
        "agent.toml",
        &format!(
            "listen = \"127.0.0.1:7022\"\nedge_networks = [\"127.0.0.1\"]\nedges = [\"{line}\"]\nhost_keys = [\"{line}\"]\n"
        ),
    );
    let (code, ..) = say(&["agent", "--config", &agent, "--fleet", &fleet], &roles);
    assert_eq!(code, DONE);
    let (code, _, stderr) = say(&["agent", "--config", &agent], &roles);
    assert_eq!((code, json_lines(&stderr)[0].1.as_str()), (FAULTS, "`replica` is missing"));
    let (code, ..) = say(&["demo", "--check", "--sshd", "--port", "2200"], &roles);
    assert_eq!(code, DONE);
}

#[test]
fn ca_show_makes_the_ca_once_and_prints_its_public_line() {
    let scratch = two_files("", SOUND);
    let (code, first, _) = on(&scratch, &["ca", "show"]);
    assert_eq!(code, DONE);
    assert!(
        first.starts_with("ssh-ed25519 AAAA") && first.ends_with(" keyway user CA\n"),
        "{first}"
    );
    assert_eq!(on(&scratch, &["ca", "show"]).1, first);
    assert!(scratch.0.join("state/user_ca").exists());
}

#[test]
fn ca_show_refuses_where_a_plain_key_is_configured() {
    let scratch = two_files("[vm_leg]\nidentity = \"id\"\n", SOUND);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(scratch.0.join("id"))
        .status();
    assert!(made.unwrap().success());
    let (code, stdout, stderr) = on(&scratch, &["ca", "show"]);
    assert_eq!((code, stdout.as_str()), (FAULTS, ""));
    let public = fs::read_to_string(scratch.0.join("id.pub")).unwrap();
    let key = public.split(' ').nth(1).unwrap();
    assert!(stderr.contains("authorized_keys") && stderr.contains(key), "{stderr}");
}

#[test]
fn the_drop_in_names_the_vm_and_the_edges_addresses() {
    let scratch = two_files("", SOUND);
    let show = |more: &[&str]| {
        let mut all = vec!["ca", "show", "--drop-in"];
        all.extend(more);
        let (code, stdout, stderr) = on(&scratch, &all);
        assert_eq!((code, stderr.as_str()), (DONE, ""));
        stdout
    };
    let active = |text: &str| -> Vec<String> {
        text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect()
    };
    let always = [
        "TrustedUserCAKeys /etc/ssh/keyway_user_ca.pub",
        "AuthorizedPrincipalsFile /etc/ssh/keyway_principals",
        "MaxStartups 100:30:300",
        "PerSourceMaxStartups none",
    ];
    let plain = show(&[]);
    assert_eq!(active(&plain), always);
    assert!(plain.contains("echo 'vm:ID'"), "{plain}");
    assert!(plain.contains("# PerSourcePenaltyExemptList EDGE_ADDRESS"), "{plain}");

    let old = show(&["--id", "blue", "--edge", "10.0.0.2", "--sshd-version", "9.2p1"]);
    assert_eq!(active(&old), always);
    assert!(old.contains("echo 'vm:blue' > /etc/ssh/keyway_principals"), "{old}");
    assert!(!old.contains("PerSourcePenaltyExemptList"), "{old}");

    let edges = ["--edge", "10.0.0.2", "--edge", "fd00::/64"];
    let new = show(&[&edges[..], &["--sshd-version", "OpenSSH_9.8"]].concat());
    let exempt = "PerSourcePenaltyExemptList 10.0.0.2,fd00::/64".to_owned();
    assert_eq!(active(&new).last(), Some(&exempt), "{new}");
}

#[test]
fn an_identity_is_made_once_and_printed_alone() {
    let scratch = two_files("", SOUND);
    let (code, line, stderr) = on(&scratch, &["identity"]);
    assert_eq!((code, stderr.as_str()), (DONE, ""));
    let (key, comment) = PublicKey::parse_line(line.trim_end()).unwrap();
    assert_eq!((comment, line.lines().count()), ("keyway identity", 1));
    assert_eq!(on(&scratch, &["identity"]).1, line, "the same again");
    let print = key.fingerprint().to_string();
    assert_eq!(on(&scratch, &["identity", "--fingerprint"]).1, format!("{print}\n"));
    let (_, json, _) = on(&scratch, &["identity", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!({ "fingerprint": print, "line": key.to_line() });
    assert_eq!(json, expected);
}

#[test]
fn an_agent_has_an_identity_and_a_ca_of_its_own() {
    let scratch = two_files("", SOUND);
    let (_, door, _) = on(&scratch, &["identity"]);
    let (_, door_ca, _) = on(&scratch, &["ca", "show"]);
    let line = door.trim_end();
    let agent = format!(
        "state_dir = \"agent\"\nlisten = \"127.0.0.1:7022\"\nedge_networks = [\"127.0.0.1\"]\nedges = [\"{line}\"]\n\
         host_keys = [\"{line}\"]\nreplica = \"not-looked-at\"\n"
    );
    fs::write(scratch.0.join("keyway.toml"), agent).unwrap();
    let (code, own, stderr) = on(&scratch, &["identity"]);
    assert_eq!((code, stderr.as_str()), (DONE, ""));
    assert_ne!(own, door);
    let (code, ca, stderr) = on(&scratch, &["ca", "show"]);
    assert_eq!((code, stderr.as_str()), (DONE, ""));
    assert!(ca.ends_with(" keyway user CA\n") && ca != door_ca, "{ca}");
    let (_, drop_in, _) = on(&scratch, &["ca", "show", "--drop-in", "--id", "blue"]);
    assert!(drop_in.contains(ca.trim_end()), "{drop_in}");
    assert!(drop_in.contains("# PerSourcePenaltyExemptList AGENT_ADDRESS"), "{drop_in}");
    let mut made: Vec<_> = fs::read_dir(scratch.0.join("agent")).unwrap().collect();
    let names: Vec<_> = made.drain(..).map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn the_drop_in_for_login_principals_leaves_the_principals_file_out() {
    let scratch = two_files("[vm_leg]\nprincipals = \"login\"\n", SOUND);
    let (code, stdout, stderr) = on(&scratch, &["ca", "show", "--drop-in"]);
    assert_eq!(code, DONE);
    assert!(stderr.starts_with("warning: keyway.toml:3:"), "{stderr}");
    assert!(!stdout.contains("\nAuthorizedPrincipalsFile"), "{stdout}");
}

#[test]
fn an_installed_sshd_accepts_the_drop_in() {
    let scratch = two_files("", SOUND);
    let (code, drop_in, _) = on(&scratch, &["ca", "show", "--drop-in", "--id", "blue"]);
    assert_eq!(code, DONE);
    let host_key = scratch.0.join("host");
    let keygen = ["-q", "-t", "ed25519", "-N", "", "-f"];
    let made = Command::new("ssh-keygen").args(keygen).arg(&host_key).status().unwrap();
    assert!(made.success());
    fs::set_permissions(&host_key, fs::Permissions::from_mode(0o600)).unwrap();
    let file = scratch.0.join("sshd_config");
    fs::write(&file, format!("HostKey {}\n{drop_in}", host_key.display())).unwrap();
    let sshd = Path::new("/usr/sbin/sshd");
    let tested = Command::new(sshd).arg("-t").arg("-f").arg(&file).output().unwrap();
    assert!(tested.status.success(), "{}\n{drop_in}", String::from_utf8_lossy(&tested.stderr));
}

#[test]
fn check_says_that_the_vms_were_prepared_for_another_ca() {
    let prepared = r#"{"in_use":"SHA256:x","prepared_for":"SHA256:other"}"#;
    let status = |vms| format!(r#"{{"state":"up","counts":{{"vms":{vms}}}}}"#);
    let (some, none) = (status(3), status(0));
    let plan = r#"{"planned_at":7,"counts":{},"held":null}"#;
    let answers = [prepared, &some, plan, prepared, &none, plan].map(|answer| (200, answer));
    let fake = Fake::new(&answers);
    fake.scratch.file("keyway.toml", "state_dir = \".\"\n");
    fake.scratch.file("fleet.toml", SOUND);
    let told = |stdout: &str| {
        stdout.contains(
            "warning: the VMs of this registry were prepared for another CA, SHA256:other",
        )
    };
    let (_, stdout, stderr) = on(&fake.scratch, &["check"]);
    assert!(told(&stdout), "{stdout}{stderr}");
    assert!(!fake.scratch.0.join("user_ca").exists(), "a check makes nothing");
    assert!(!told(&on(&fake.scratch, &["check"]).1), "nobody is shut out");

    // Nobody serves, and the store says it.
    let scratch = Scratch::new();
    let config = scratch.file("keyway.toml", "state_dir = \".\"\n");
    scratch.file("fleet.toml", SOUND);
    let store = Sqlite::open(&scratch.0.join("registry.db"), StoreId([1; 16])).unwrap();
    let put = Transaction::new().put("registry/this", r#"{"ca":"SHA256:other"}"#);
    store.transact(&put.put("vm/0000000000000001", "{}")).unwrap();
    drop(store);
    let (code, stdout, _) = on(&scratch, &["check"]);
    assert!(code == DONE && told(&stdout), "{config}: {stdout}");
    let (_, stdout, _) = on(&scratch, &["check", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(json["other_ca"].as_str().unwrap().contains("SHA256:other"), "{json}");
}

#[test]
fn check_says_what_a_running_keyway_would_make_of_the_fleet_file() {
    let counts = r#""users":{"added":1,"changed":0,"removed":0,"taken_over":2}"#;
    let plan = format!(r#"{{"planned_at":7,"counts":{{{counts}}},"held":null}}"#);
    let held = plan.replace("null", r#""the fleet file would remove 40 of 40 users""#);
    let ca = r#"{"in_use":null,"prepared_for":null}"#;
    let answers = [ca, &plan, ca, &held, ca, &held].map(|answer| (200, answer));
    let fake = Fake::new(&answers);
    fake.scratch.file("keyway.toml", "state_dir = \".\"\n[fleet_file]\nremovals_max = 5\n");
    fake.scratch.file("fleet.toml", SOUND);
    let (code, stdout, stderr) = on(&fake.scratch, &["check"]);
    assert_eq!((code, stderr.as_str()), (DONE, ""));
    let told = "at the next start or reload:\n\
                KIND         ADDED  CHANGED  REMOVED  TAKEN OVER\n\
                addresses    -      -        -        -\n\
                users        1      0        0        2\n";
    assert!(stdout.contains(told), "{stdout}");
    let (code, _, stderr) = on(&fake.scratch, &["check"]);
    assert_eq!(
        (code, stderr.as_str()),
        (FAULTS, "keyway: the fleet file would remove 40 of 40 users\n")
    );
    let (code, stdout, _) = on(&fake.scratch, &["check", "--output", "json"]);
    let told: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &told["plan"]["planned_at"]), (FAULTS, &7.into()));
    let asked = fake.asked();
    assert!(
        asked[1].starts_with("POST /v1/fleet-file/plan {\"fleet\":{\"addresses\":"),
        "{asked:?}"
    );
    assert!(asked[1].ends_with("\"removals_max\":5}"), "{asked:?}");
}

#[test]
fn check_takes_an_empty_fleet_file_for_a_fault() {
    let scratch = two_files("", "# nothing\n");
    let (code, stdout, stderr) = on(&scratch, &["check"]);
    assert_eq!((code, stdout.as_str()), (FAULTS, ""));
    assert!(stderr.starts_with("fleet.toml:1: there is nothing in it; fix: "), "{stderr}");
}

#[test]
fn check_judges_an_agents_file_as_it_does_a_front_doors() {
    let scratch = two_files("", SOUND);
    let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINILzCr80scSuAcnYpxLu4nnirz6xztusEayvak/vj9f";
    let own = "listen = \"127.0.0.1:7022\"\nedge_networks = [\"127.0.0.1\"]\n";
    let believes = format!("edges = []\nhost_keys = [\"{line}\"]\nreplica = \"fleet.toml\"\n");
    let agent = scratch.file("agent.toml", &format!("{own}{believes}"));
    let check = |more: &[&str]| say(&[&["check", "--config", &agent], more].concat(), &refusing());
    let (code, stdout, stderr) = check(&[]);
    assert_eq!((code, stderr.as_str()), (DONE, ""));
    let (table, warnings) = stdout.split_at(stdout.find("warning:").unwrap());
    assert_eq!(
        table,
        "addresses        1\nusers            1\nkeys             1\nnodes            0\nvms              1\n\
         edges            0\nhost_keys        1\nwarnings         1\n"
    );
    assert!(warnings.contains("agent.toml:3: `edges` is empty"), "{warnings}");
    let (code, stdout, _) = check(&["--output", "json"]);
    let told: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &told["ok"], &told["vms"]), (DONE, &true.into(), &1.into()));
    assert_eq!(told["warnings"][0]["line"], 3);
    // The fleet file of the command line is looked at in the place of the other.
    let other = scratch.file("other.toml", "[[user]\n");
    let (code, stdout, stderr) = check(&["--fleet", &other]);
    assert_eq!((code, stdout.as_str()), (FAULTS, ""));
    assert!(stderr.contains("other.toml:1: not TOML") && stderr.ends_with("fault\n"), "{stderr}");
    scratch.file("agent.toml", &format!("{own}shard = 1\n[control]\nurl = \"control\"\n"));
    let (code, stdout, stderr) = check(&["--output", "json"]);
    let told: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &told["ok"]), (FAULTS, &false.into()));
    assert_eq!(told["faults"].as_array().unwrap().len(), 2, "{stdout}");
    assert!(stderr.contains("`control.url` is no server") && stderr.contains("2 faults"));
}

#[test]
fn a_join_says_what_it_needs_before_it_asks_anybody() {
    let scratch = Scratch::new();
    let own =
        "listen = \"127.0.0.1:7022\"\nedge_networks = [\"127.0.0.1\"]\nstate_dir = \"state\"\n";
    let agent = scratch.file("agent.toml", own);
    let there = "[control]\nurl = \"https://127.0.0.1:1\"\nca = \"ca.pem\"\n";
    let ca = scratch.file("ca.pem", "-----BEGIN CERTIFICATE-----\n");
    let join = |more: &[&str], stdin: &str, sitting| {
        let all = [&["agent", "join", "--config", &agent], more].concat();
        say_with(&all, &refusing(), &[], stdin, sitting)
    };
    let alone = |more: &[&str]| join(more, "", Sitting::Nobody);
    let url = ["--yes", "--url", "https://127.0.0.1:1"];
    for (said, code, wanted) in [
        (alone(&[]), FAULTS, "--yes believes what control shows"),
        (alone(&["--yes"]), USAGE, "has no section [control]: say where control is, with --url"),
        (alone(&["--yes", "--url", "http://x"]), USAGE, "write https://HOST"),
        (alone(&[&url[..], &["--ca", "/nowhere"]].concat()), FAULTS, "/nowhere: No such file"),
        (alone(&url), FAULTS, "nobody is there to ask for the token"),
        (join(&url, "\n", Sitting::Somebody), FAULTS, "there is no token; `keyway node token"),
        (alone(&[&url[..], &["--token-file", &agent]].concat()), FAULTS, "is open to others"),
    ] {
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{wanted}: {said:?}");
        assert!(said.err.contains(wanted), "{wanted}: {said:?}");
    }
    scratch.file("agent.toml", &format!("{own}{there}"));
    let other = ["--yes", "--url", "https://127.0.0.1:2"];
    let said = alone(&other);
    assert!(said.code == USAGE && said.err.contains("leave --url and --ca out"), "{said:?}");
    assert!(!scratch.0.join("state").exists(), "nothing was made");
    // The one that is written there may be said again; its CA is none.
    let again = [&url[..], &["--ca", &ca, "--token-file", "-"]].concat();
    let said = join(&again, "kwj_x\n", Sitting::Nobody);
    assert!(said.code == FAULTS && said.err.contains("holds no certificate"), "{said:?}");
    assert_eq!(fs::read_to_string(&agent).unwrap(), format!("{own}{there}"));
}
