//! What is asked of daemons, asked of real ones: Debian's Docker, and its Podman.

use std::future::Future;
use std::time::Duration;

use keyway::nodes::docker::{
    BuildSpec, Change, Chunk, ContainerName, ContainerSpec, Docker, Exec, ExecSpec, Fault,
    HostConfig, ImageName, LogPart, Logs, NetworkMode, Origin, Output, Progress, Refusal, Told,
    VolumeMount, VolumeName, VolumeSpec,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::dockerd::{self, Daemon, IMAGE};

/// Most that an exchange with a daemon on a busy machine may take.
const LIMIT: Duration = Duration::from_mins(3);
const SHORT: Duration = Duration::from_secs(1);

#[track_caller]
fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(LIMIT, test).await }).expect("its end in time")
}

fn container(name: &str) -> ContainerName {
    ContainerName::new(name).expect("a name")
}

fn image(name: &str) -> ImageName {
    ImageName::new(name).expect("a name")
}

/// A container of the tests' image that runs `script`, without a network.
fn running(script: &str, label: &str) -> ContainerSpec {
    with_mounts(script, label, vec![])
}

fn with_mounts(script: &str, label: &str, mounts: Vec<VolumeMount>) -> ContainerSpec {
    let host =
        HostConfig { network_mode: Some(NetworkMode::None), mounts, ..HostConfig::default() };
    let mut spec = ContainerSpec::new(image(IMAGE), host);
    spec.cmd = Some(["sh", "-c", script].map(str::to_owned).to_vec());
    spec.labels.insert("keyway.vm".to_owned(), label.to_owned());
    spec
}

async fn lines(mut logs: Logs) -> Vec<String> {
    let mut all = vec![];
    while let Some(line) = logs.next().await.expect("a log") {
        let mark = if line.origin == Origin::Stderr { "!" } else { "" };
        all.push(format!("{mark}{}", line.shown()));
    }
    all
}

async fn all_of(mut output: Output) -> (String, String) {
    let (mut stdout, mut stderr): (Vec<u8>, Vec<u8>) = (vec![], vec![]);
    while let Some(Chunk { origin, bytes }) = output.next().await.expect("output") {
        if origin == Origin::Stdout { stdout.extend(&bytes) } else { stderr.extend(&bytes) }
    }
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (text(stdout), text(stderr))
}

async fn progress(told: Result<Told<Progress>, Fault>) -> Result<Vec<Progress>, Fault> {
    let (mut told, mut all) = (told?, vec![]);
    while let Some(progress) = told.next().await? {
        all.push(progress);
    }
    Ok(all)
}

async fn ended(docker: &Docker, exec: &keyway::nodes::docker::ExecId) -> Option<i64> {
    // The daemon takes note a moment after the output's end.
    loop {
        let state = docker.inspect_exec(exec).await.expect("its state");
        if !state.running {
            return state.exit_code;
        }
        tokio::task::yield_now().await;
    }
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, name, *bytes).expect("a file");
    }
    tar.into_inner().expect("a tar")
}

#[test]
fn a_daemon_says_what_it_is() {
    let Some([one, _]) = dockerd::pair() else { return };
    let docker = one.api();
    block_on(async {
        let ping = docker.ping().await.expect("alive");
        assert!(ping.api.is_some() && !ping.podman);
        let version = docker.version().await.expect("a version");
        assert_eq!((version.os.as_str(), version.is_podman()), ("linux", false));
        let info = docker.info().await.expect("what it runs on");
        assert_eq!((info.driver.is_empty(), info.has_containerd_store()), (false, false));
        assert!(!info.architecture.is_empty() && !info.cgroup_driver.is_empty(), "{info:?}");
        let networks = docker.networks().await.expect("networks");
        assert!(networks.iter().any(|network| network.name == "none"), "{networks:?}");
    });
}

#[test]
fn a_container_lives_from_its_making_to_its_removal() {
    let Some([one, _]) = dockerd::pair() else { return };
    let docker = one.api();
    block_on(async {
        let web = container("life");
        let mut events = docker.events("keyway.vm=life").await.expect("events");
        let script = "echo out; echo err >&2; trap 'exit 7' TERM; while :; do sleep 0.1; done";
        let made = docker.create_container(&web, &running(script, "life")).await.expect("made");
        let again = docker.create_container(&web, &running(script, "life")).await;
        assert_eq!(again.unwrap_err().refusal(), Some(Refusal::Conflict));
        assert_eq!(docker.start_container(&web).await, Ok(Change::Made));
        assert_eq!(docker.start_container(&web).await, Ok(Change::WasSo));
        let event = events.next().await.expect("an event").expect("one");
        assert_eq!((event.action.as_str(), event.id.as_str()), ("create", made.id.as_str()));

        let listed = docker.containers("keyway.vm=life").await.expect("a list");
        let [listed] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!((listed.name(), listed.state.as_str()), ("life", "running"));
        assert_eq!(docker.containers("keyway.vm=lif").await.expect("none").len(), 0);
        let inspected = docker.inspect_container(&made.id).await.expect("all of it");
        assert!(inspected.state.running && inspected.state.pid > 0 && !inspected.config.tty);

        let busy = docker.remove_container(&web, false, false).await.unwrap_err();
        assert_eq!(busy.refusal(), Some(Refusal::InUse), "{busy}");
        let stats = docker.stats(&web).await.expect("a measurement");
        assert!(stats.memory_bytes > 0 && stats.processes > 0, "{stats:?}");
        let mut stream = docker.stats_stream(&web).await.expect("measurements");
        assert!(stream.next().await.expect("one").is_some());
        drop(stream);

        let mut followed =
            docker.logs(&web, LogPart { follow: true, ..LogPart::default() }).await.expect("a log");
        for _ in 0..2 {
            followed.next().await.expect("a line").expect("one");
        }
        let waited = async {
            let (exit, stopped) =
                tokio::join!(docker.wait_container(&web), docker.stop_container(&web, 20 * SHORT));
            (exit.expect("its end").status, stopped)
        };
        assert_eq!(waited.await, (7, Ok(Change::Made)));
        assert_eq!(docker.stop_container(&web, SHORT).await, Ok(Change::WasSo));
        assert_eq!(followed.next().await, Ok(None), "a log ends with its container");
        let killed = docker.kill_container(&web, "HUP").await.unwrap_err();
        assert_eq!(killed.refusal(), Some(Refusal::Conflict), "{killed}");

        docker.restart_container(&web, SHORT).await.expect("a restart");
        docker.kill_container(&web, "KILL").await.expect("a signal");
        assert_eq!(docker.wait_container(&web).await.expect("its end").status, 137);
        docker.remove_container(&web, true, true).await.expect("gone");
        let gone = docker.inspect_container(&web).await.unwrap_err();
        assert_eq!(gone.refusal(), Some(Refusal::NotFound));
        assert!(gone.to_string().contains("No such container: life"), "{gone}");
    });
}

#[test]
fn a_log_is_read_from_its_end_and_by_its_time() {
    let Some([one, _]) = dockerd::pair() else { return };
    let docker = one.api();
    block_on(async {
        let web = container("log");
        let script = "yes x | head -c 200000 | tr -d '\\n'; echo; echo one; echo two >&2; printf '\\033[2Jthree\\n'";
        docker.create_container(&web, &running(script, "log")).await.expect("made");
        docker.start_container(&web).await.expect("started");
        docker.wait_container(&web).await.expect("its end");
        let part = async |part| lines(docker.logs(&web, part).await.expect("a log")).await;
        let mut all = part(LogPart::default()).await;
        let cut = all.iter().position(|line| line.ends_with("x [cut at 64 KiB]"));
        let cut = all.remove(cut.expect("the long line"));
        assert!(cut.len() < 66_000, "{} bytes are kept", cut.len());
        all.sort();
        assert_eq!(all, ["!two", "\\u{1b}[2Jthree", "one"]);
        assert_eq!(part(LogPart { tail: Some(2), ..LogPart::default() }).await.len(), 2);
        let later = LogPart { since_s: Some(9_999_999_999), ..LogPart::default() };
        assert!(part(later).await.is_empty());
        let timed = part(LogPart { timestamps: true, ..LogPart::default() }).await;
        assert!(
            timed.iter().any(|line| line.starts_with("20") && line.ends_with("Z one")),
            "{timed:?}"
        );
        docker.remove_container(&web, false, true).await.expect("gone");
    });
}

#[test]
fn a_command_runs_in_a_container_with_and_without_a_terminal() {
    let Some([one, _]) = dockerd::pair() else { return };
    let docker = one.api();
    block_on(async {
        let web = container("exec");
        docker.create_container(&web, &running("sleep 9999", "exec")).await.expect("made");
        let stopped = docker.exec(&web, &ExecSpec::new(["true"])).await.err().expect("no run");
        assert_eq!(stopped.refusal(), Some(Refusal::Conflict), "{stopped}");
        docker.start_container(&web).await.expect("started");

        let mut spec = ExecSpec::new(["sh", "-c", "cat; echo \"$A\" >&2; exit 3"]);
        (spec.attach_stdin, spec.env) = (true, vec!["A=b".to_owned()]);
        let Exec { id, mut input, output } = docker.exec(&web, &spec).await.expect("started");
        // More than all buffers on its way: input and output flow at once.
        let sent = "0123456789abcde\n".repeat(200_000);
        let write = async {
            input.write_all(sent.as_bytes()).await.expect("it reads");
            input.shutdown().await.expect("half-close");
        };
        let ((), (stdout, stderr)) = tokio::join!(write, all_of(output));
        assert!(stdout == sent, "{} bytes came back of {}", stdout.len(), sent.len());
        assert_eq!((stderr.as_str(), ended(&docker, &id).await), ("b\n", Some(3)));

        let mut spec = ExecSpec::new(["sh", "-c", "read x; stty size; printf '\\377\\n' >&2"]);
        (spec.attach_stdin, spec.tty) = (true, true);
        let Exec { id, mut input, mut output } = docker.exec(&web, &spec).await.expect("started");
        docker.resize_exec(&id, 91, 33).await.expect("a size");
        input.write_all(b"go\n").await.expect("it reads");
        let mut all: Vec<u8> = vec![];
        while let Some(chunk) = output.next().await.expect("output") {
            all.extend(&chunk.bytes);
        }
        assert_eq!(all, b"go\r\n33 91\r\n\xff\r\n", "a terminal's bytes are raw");
        assert_eq!(ended(&docker, &id).await, Some(0));
        docker.remove_container(&web, true, true).await.expect("gone");
    });
}

#[test]
fn archives_go_into_a_volume_and_come_out_again() {
    let Some([one, _]) = dockerd::pair() else { return };
    let docker = one.api();
    block_on(async {
        let name = VolumeName::new("keyway-archives").expect("a name");
        let labels = [("keyway.vm".to_owned(), "archives".to_owned())].into();
        let spec = VolumeSpec { name: name.clone(), labels };
        docker.create_volume(&spec).await.expect("a volume");
        let listed = docker.volumes("keyway.vm=archives").await.expect("a list");
        assert_eq!(listed.iter().map(|volume| &volume.name).collect::<Vec<_>>(), [&name]);

        let mounts = vec![VolumeMount::new(name.clone(), "/data".to_owned(), false)];
        let web = container("archives");
        let spec = with_mounts("true", "archives", mounts);
        docker.create_container(&web, &spec).await.expect("made");
        let noise: Vec<u8> =
            (0..3_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let tar = tar_of(&[("tool", &noise)]);
        docker.put_archive(&web, "/data", std::io::Cursor::new(tar)).await.expect("unpacked");
        let mut back = vec![];
        let mut archive = docker.get_archive(&web, "/data/tool").await.expect("packed");
        archive.read_to_end(&mut back).await.expect("all of it");
        let mut archive = tar::Archive::new(&back[..]);
        let mut entry = archive.entries().expect("a tar").next().expect("a file").expect("whole");
        let mut bytes = vec![];
        std::io::Read::read_to_end(&mut entry, &mut bytes).expect("its bytes");
        assert!(bytes == noise, "{} bytes came back", bytes.len());
        let missing = docker.get_archive(&web, "/data/../none").await.err().expect("nothing there");
        assert_eq!(missing.refusal(), Some(Refusal::NotFound), "{missing}");

        let used = docker.remove_volume(&name).await.unwrap_err();
        assert_eq!(used.refusal(), Some(Refusal::InUse), "{used}");
        docker.remove_container(&web, false, false).await.expect("gone");
        docker.remove_volume(&name).await.expect("gone");
    });
}

#[test]
fn an_image_is_built_tagged_moved_and_removed() {
    let Some([one, two]) = dockerd::pair() else { return };
    let (docker, other) = (one.api(), two.api());
    block_on(async {
        let recipe = format!("FROM {IMAGE}\nCOPY data /data\nRUN echo built; echo wrong >&2\n");
        let context = tar_of(&[("Recipe", recipe.as_bytes()), ("data", &vec![7; 100_000])]);
        let app = image("keyway-test/app:1");
        let spec = BuildSpec {
            tags: vec![app.clone()],
            dockerfile: Some("Recipe".to_owned()),
            labels: [("keyway.test".to_owned(), "built".to_owned())].into(),
            pull: false,
        };
        let told = progress(docker.build(&spec, std::io::Cursor::new(context)).await).await;
        let told = told.expect("built");
        let said = |line: &str| told.iter().any(|step| step.lines.iter().any(|one| one == line));
        assert!(said("built") && said("wrong"), "{told:?}");
        let built = docker.inspect_image(&app).await.expect("an image");
        assert!(told.iter().any(|step| step.image.as_deref() == Some(built.id.as_str())));
        assert_eq!((built.diff_ids().len(), built.os.as_str()), (2, "linux"));

        let wrong = tar_of(&[("Recipe", b"FROM busy:1\nRUN false\n")]);
        let failed = progress(docker.build(&spec, std::io::Cursor::new(wrong)).await).await;
        assert!(
            matches!(&failed, Err(Fault::Failed(why)) if why.contains("non-zero code: 1")),
            "{failed:?}"
        );

        let second = image("keyway-test/app:2");
        docker.tag(&app, &second).await.expect("a second tag");
        // Straight from one daemon to the other.
        let names = [app.clone(), second.clone()];
        let archive = docker.save(&names).await.expect("an archive");
        progress(other.load(archive).await).await.expect("loaded");
        let moved = other.inspect_image(&second).await.expect("the image");
        assert_eq!((moved.diff_ids(), &moved.id), (built.diff_ids(), &built.id));
        let listed = other.images(Some("keyway.test=built")).await.expect("a list");
        assert!(listed.iter().any(|image| image.repo_tags.len() == 2), "{listed:?}");

        let web = container("of-app");
        let mut spec = running("true", "of-app");
        spec.image = app.clone();
        other.create_container(&web, &spec).await.expect("made");
        other.remove_image(&second, false).await.expect("untagged");
        let used = other.remove_image(&app, false).await.unwrap_err();
        assert_eq!(used.refusal(), Some(Refusal::InUse), "{used}");
        other.remove_container(&web, false, false).await.expect("gone");
        other.remove_image(&app, false).await.expect("gone");
        for name in &names {
            docker.remove_image(name, false).await.expect("gone");
        }
        let gone = docker.inspect_image(&app).await.unwrap_err();
        assert_eq!(gone.refusal(), Some(Refusal::NotFound), "{gone}");
    });
}

#[test]
fn what_cannot_be_fetched_or_loaded_is_told() {
    let Some([one, _]) = dockerd::pair() else { return };
    let docker = one.api();
    block_on(async {
        let nowhere = progress(docker.pull(&image("127.0.0.1:1/app:1"), None).await).await;
        let nowhere = nowhere.unwrap_err();
        assert!(nowhere.to_string().contains("connection refused"), "{nowhere}");
        let garbage = progress(docker.load(&b"no archive of anything"[..]).await).await;
        assert!(garbage.is_err(), "{garbage:?}");
        let mut spec = running("true", "x");
        spec.image = image("keyway-test/none:1");
        let none = docker.create_container(&container("of-none"), &spec).await;
        assert_eq!(none.unwrap_err().refusal(), Some(Refusal::NotFound));
    });
}

#[test]
fn a_daemon_that_dies_is_told_and_found_again() {
    let Some(mut daemon) = Daemon::docker() else { return };
    let docker = daemon.api();
    let web = container("crash");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // A connection lives as long as the runtime on which it was made.
    let mut logs = runtime.block_on(async {
        docker
            .create_container(&web, &running("echo up; sleep 9999", "crash"))
            .await
            .expect("made");
        docker.start_container(&web).await.expect("started");
        let part = LogPart { follow: true, ..LogPart::default() };
        let mut logs = docker.logs(&web, part).await.expect("a log");
        assert_eq!(logs.next().await.expect("a line").expect("one").shown(), "up");
        logs
    });
    daemon.kill();
    runtime.block_on(async {
        let cut = logs.next().await.unwrap_err();
        assert_eq!(cut.label(), "closed", "{cut}");
        let down = docker.ping().await.unwrap_err();
        assert_eq!(down.label(), "unreachable", "{down}");
    });
    daemon.up();
    block_on(async {
        docker.ping().await.expect("it is back");
        docker.remove_container(&web, true, true).await.expect("what it left is there");
    });
}

#[test]
fn podman_answers_in_dockers_place() {
    let Some(daemon) = Daemon::podman() else { return };
    let docker = daemon.api();
    block_on(async {
        let ping = docker.ping().await.expect("alive");
        assert!(ping.podman);
        let version = docker.version().await.expect("a version");
        assert!(version.is_podman(), "{version:?}");
        assert!(!docker.info().await.expect("what it runs on").architecture.is_empty());
        let web = container("podman");
        let script = "echo out; echo err >&2; sleep 9999";
        docker.create_container(&web, &running(script, "podman")).await.expect("made");
        assert_eq!(docker.start_container(&web).await, Ok(Change::Made));
        assert_eq!(docker.start_container(&web).await, Ok(Change::WasSo));
        let mut spec = ExecSpec::new(["sh", "-c", "cat; exit 3"]);
        spec.attach_stdin = true;
        let Exec { id, mut input, output } = docker.exec(&web, &spec).await.expect("started");
        input.write_all(b"hello").await.expect("it reads");
        input.shutdown().await.expect("half-close");
        assert_eq!(all_of(output).await, ("hello".to_owned(), String::new()));
        assert_eq!(ended(&docker, &id).await, Some(3));
        let mut log = lines(docker.logs(&web, LogPart::default()).await.expect("a log")).await;
        log.sort();
        assert_eq!(log, ["!err", "out"]);
        let listed = docker.containers("keyway.vm=podman").await.expect("a list");
        assert_eq!(listed.len(), 1);
        docker.remove_container(&web, true, true).await.expect("gone");
        let gone = docker.inspect_container(&web).await.unwrap_err();
        assert_eq!(gone.refusal(), Some(Refusal::NotFound), "{gone}");
    });
}
