//! The API as strangers' programs meet it: curl over the socket and over TLS, and a fuzzer that
//! reads its description.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::harness::peers::{program, python};
use crate::harness::{Process, Scratch, run, wait};

/// What the fuzzer holds an answer against: no status from 500 on, and nothing that the
/// description does not say.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,response_headers_conformance";

/// A front door with its API on TLS, on loopback addresses of its own.
struct Door {
    process: Process,
    listen: SocketAddr,
    dir: Scratch,
}

impl Door {
    #[track_caller]
    fn start() -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(1);
        let dir = Scratch::new();
        // Networks of worlds end below 230 and count from 0: these never meet theirs.
        let process = u8::try_from(std::process::id() % 150).expect("less than 150") + 80;
        let ip = Ipv4Addr::new(127, process, 255, COUNT.fetch_add(1, Ordering::Relaxed));
        // As `openssl req -x509` makes them: a server's own, and a CA's.
        let mut params = rcgen::CertificateParams::new([ip.to_string()]).expect("a name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("a set-up of ours");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        };
        put("cert.pem", &cert.pem());
        put("key.pem", &key.serialize_pem());
        let config = format!(
            "state_dir = \"state\"\n\
             [edge]\nlisten = [\"{ip}:2222\"]\nshards = 1\nlog = \"json\"\n\
             [metrics]\nlisten = \"{ip}:9644\"\n\
             [api]\nlisten = \"{ip}:9643\"\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n"
        );
        put("keyway.toml", &config);
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
        command.arg("serve").arg("--config").arg(dir.path().join("keyway.toml"));
        let mut process = Process::start("keyway", dir.path(), &mut command);
        let listen = SocketAddr::new(ip.into(), 9643);
        wait::listens(&mut process, listen);
        Self { process, listen, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A token of a role, made over the socket.
    #[track_caller]
    fn token(&self, curl: &Path, name: &str, role: &str) -> String {
        let body = format!("{{\"name\":\"{name}\",\"role\":\"{role}\"}}");
        let made = self.socket(curl, &["-d", &body, "http://keyway/v1/tokens"]);
        let made: serde_json::Value = serde_json::from_str(&made).expect("JSON");
        made["item"]["token"].as_str().expect("a token, shown once").to_owned()
    }

    /// What curl reads at the socket.
    #[track_caller]
    fn socket(&self, curl: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new(curl);
        command.arg("-sS").arg("--fail-with-body").arg("--unix-socket");
        command.arg(self.path("state/keyway.sock"));
        run(command.args(["-H", "Content-Type: application/json"]).args(arguments)).ok().text()
    }

    /// The status and the body that curl reads over TLS.
    #[track_caller]
    fn tls(&self, curl: &Path, arguments: &[&str], path: &str) -> (String, String) {
        let mut command = Command::new(curl);
        command.args(["-sS", "-w", "\n%{http_code}", "--cacert"]).arg(self.path("cert.pem"));
        let url = format!("https://{}{path}", self.listen);
        let text = run(command.args(arguments).arg(url)).ok().text();
        let (body, status) = text.rsplit_once('\n').expect("a status behind the body");
        (status.to_owned(), body.to_owned())
    }
}

#[test]
fn curl_reads_and_changes_over_the_socket_and_over_both_versions_of_tls() {
    let Some(curl) = program("curl", "curl") else { return };
    let door = Door::start();
    let admin = door.token(&curl, "ci", "operator");
    let bearer = format!("Authorization: Bearer {admin}");
    let json = "Content-Type: application/json";
    for (version, name) in [("1.2", "alice"), ("1.3", "bob")] {
        let tls = ["--tls-max", version, &format!("--tlsv{version}")].map(str::to_owned);
        let body = format!("{{\"name\":\"{name}\"}}");
        let mut arguments: Vec<&str> = tls.iter().map(String::as_str).collect();
        arguments.extend(["-H", &bearer, "-H", json, "-d", &body]);
        let (status, made) = door.tls(&curl, &arguments, "/v1/users");
        assert_eq!(status, "201", "{made}");
    }
    let users = door.socket(&curl, &["http://keyway/v1/users"]);
    assert!(users.contains("\"alice\"") && users.contains("\"bob\""), "{users}");
    let (status, refused) = door.tls(&curl, &["-H", &bearer], "/v1/tokens");
    assert_eq!(status, "403", "{refused}");
    let (status, refused) = door.tls(&curl, &[], "/v1/users");
    assert_eq!(status, "401", "{refused}");
    // Without the certificate nobody is trusted, and without TLS nobody answers.
    let url = format!("https://{}/v1/health", door.listen);
    run(Command::new(&curl).args(["-sS", &url])).ends(60);
    let plain = url.replace("https", "http");
    let plain = run(Command::new(&curl).args(["-sS", &plain]));
    assert!(plain.status != 0 && plain.stdout.is_empty(), "{}", plain.text());
    // Whoever only looked whether somebody listens has a line too.
    for why in ["UnknownCA", "InvalidContentType"] {
        let told = || {
            let log = door.process.log();
            log.lines().any(|line| line.contains("API connection refused") && line.contains(why))
        };
        wait::until(why, wait::SOON, told);
    }
}

#[test]
fn a_token_that_went_to_a_file_is_taken_from_it_and_what_it_may_not_leaves_a_trace() {
    let door = Door::start();
    let keyway = env!("CARGO_BIN_EXE_keyway");
    let script = format!("umask 022; '{keyway}' token add ci --role reader > ci.token");
    let socket = door.path("state/keyway.sock");
    let mut shell = Command::new("sh");
    let said =
        run(shell.arg("-c").arg(script).current_dir(door.dir.path()).env("KEYWAY_SOCKET", &socket));
    assert!(said.ok().stderr.contains("its file is open to nobody else now"));
    let mode = fs::metadata(door.path("ci.token")).expect("the token").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let over_tls = |words: &[&str]| {
        let mut command = Command::new(keyway);
        command.arg("--server").arg(format!("https://{}", door.listen));
        command.args(["--token-file", "ci.token", "--ca", "cert.pem", "--output", "json"]);
        run(command.args(words).current_dir(door.dir.path()))
    };
    assert_eq!(over_tls(&["users", "list"]).ok().text(), "[]");
    assert_eq!(over_tls(&["user", "rm", "alice"]).status, 1);
    assert_eq!(over_tls(&["user", "show", "a\nb"]).status, 2);
    assert_eq!(over_tls(&["vm", "show", "blue"]).status, 1);

    let mut command = Command::new(keyway);
    let audit = run(command.args(["audit", "list"]).env("KEYWAY_SOCKET", &socket)).ok().text();
    let entry = audit.lines().find(|line| line.contains("refused: forbidden")).expect("an entry");
    assert!(entry.contains("token ci") && entry.contains("DELETE /v1/users/alice"), "{audit}");
    // Lines are written in batches.
    wait::until("the last line", wait::SOON, || door.process.log().contains("/v1/vms/blue"));
    let lines: Vec<serde_json::Value> =
        door.process.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let refused: Vec<_> =
        lines.iter().filter(|line| line["message"] == "API request refused").collect();
    let [forbidden, absent] = &*refused else { panic!("{}", door.process.log()) };
    assert_eq!((&forbidden["status"], &forbidden["by"]), (&403.into(), &"token ci".into()));
    assert_eq!(forbidden["path"], "/v1/users/alice");
    assert_eq!((&absent["status"], &absent["path"]), (&404.into(), &"/v1/vms/blue".into()));
    let done = lines.iter().find(|line| line["message"] == "API").expect("the token");
    assert_eq!((&done["path"], &done["dry_run"]), (&"/v1/tokens".into(), &false.into()));
}

#[test]
fn schemathesis_finds_no_answer_that_the_description_does_not_know() {
    let Some(curl) = program("curl", "curl") else { return };
    let Some(schemathesis) = python("schemathesis") else { return };
    let mut door = Door::start();
    let token = door.token(&curl, "fuzzer", "admin");
    let mut command = Command::new(schemathesis);
    command
        .current_dir(door.dir.path())
        .arg("run")
        .arg(format!("https://{}/v1/openapi.json", door.listen))
        .arg("--tls-verify")
        .arg(door.path("cert.pem"))
        .args(["-H", &format!("Authorization: Bearer {token}")])
        // Endless; writes files anywhere; would take the fuzzer's own token.
        .args(["--exclude-path", "/v1/watch", "--exclude-path", "/v1/store/backup"])
        .args(["--exclude-operation-id", "delete-tokens-name"])
        .args(["--checks", CHECKS])
        .args(["--max-examples", "20", "--generation-database", "none"])
        .args([
            "--continue-on-failure", // It says of its own generator that few examples fit a pattern: no fault of the server.
            "--suppress-health-check=filter_too_much",
            "--warnings",
            "off",
            "--no-color",
        ]);
    let report = run(&mut command).ok().text();
    println!("{report}");
    assert!(report.contains("No issues found"), "{report}");
    assert!(!door.process.has_ended(), "{}", door.process.log());
    let audit = door.socket(&curl, &["http://keyway/v1/audit?newest=true&limit=1000"]);
    let changes = audit.matches("\"at_s\"").count();
    assert!(changes > 20, "it made {changes} changes: too few to have tried anything");
}
