//! Rights that become less under live sessions and waiting logins, and maintenance:
//! what people read.

use super::*;

impl Island {
    /// Gives a user's key other options.
    #[track_caller]
    fn line(&self, user: &str, options: &str) {
        let key = fs::read_to_string(self.path(&format!("{user}.pub"))).expect("a set-up of ours");
        fs::write(self.path("line.pub"), format!("{options} {key}")).expect("a set-up of ours");
        self.keyway(&format!("key set {user} line.pub")).ok();
    }
}

#[test]
fn who_may_do_less_now_is_shown_out_with_a_word_and_whoever_waits_in_the_dial_too() {
    let Some(mut island) = settled() else { return };
    for (options, words) in [
        ("from=\"10.9.9.9\"", "rights of your key at blue were narrowed"),
        ("restrict,command=\"true\"", "rights of your key at blue were narrowed"),
        ("expiry-time=\"20200101\"", "time of your key or certificate for blue is over"),
    ] {
        let session = island.stays("alice", "blue.vm.test");
        let other = island.stays("bob", "green.vm.test");
        island.line("alice", options);
        ends_with_words(session, words);
        let sessions = || island.json("session list").as_array().map(Vec::len);
        wait::until("alice is gone", wait::SOON, || sessions() == Some(1));
        // Wider again: nobody is shown out for that.
        island.line("alice", "");
        assert_eq!(sessions(), Some(1));
        drop(other);
        wait::until("bob is gone", wait::SOON, || sessions() == Some(0));
    }

    // A time that comes while the session lives, and nobody says a word.
    let session = island.stays("alice", "blue.vm.test");
    let soon = run(Command::new("date").args(["-u", "-d", "+2 seconds", "+%Y%m%d%H%M%SZ"])).ok();
    island.line("alice", &format!("expiry-time=\"{}\"", soon.text()));
    ends_with_words_within(wait::SOON, session, "time of your key or certificate for blue is over");
    island.line("alice", "");

    let log = || island.keyway.as_ref().expect("a set-up of ours").log();
    wait::until("the log says why", wait::SOON, || {
        log().contains("right_narrowed") && log().contains("right_expired")
    });

    // A VM that accepts, and says nothing until it is let.
    let (to, go) = (island.sshd("slow"), island.path("go"));
    run(island.command("mkfifo").arg(&go)).ok();
    let script = format!(
        "import socket, threading\n\
         door = socket.create_server((\"127.79.0.99\", 2222))\n\
         print(\"listens\", flush=True)\n\
         near, _ = door.accept()\n\
         print(\"waits\", flush=True)\n\
         open(\"{}\").read()\n\
         far = socket.create_connection((\"{}\", {}))\n\
         def pass_on(one, other):\n\
        \x20   while data := one.recv(65536):\n\
        \x20       other.sendall(data)\n\
         threading.Thread(target=pass_on, args=(far, near), daemon=True).start()\n\
         pass_on(near, far)\n",
        go.display(),
        to.ip(),
        to.port()
    );
    let mut python = island.command("python3");
    let slow = Process::start("slow", island.dir.path(), python.args(["-c", &script]));
    wait::until("its port", wait::SOON, || slow.log().contains("listens"));
    island.keyway("vm add slow --owner carol --ssh 127.79.0.99:2222 --address s002").ok();
    let mut ssh = island.ssh("carol", &login(), "slow.vm.test", "true");
    let waits = Process::start("ssh-waits", island.dir.path(), &mut ssh);
    let dials = wait::happens(wait::SOON, || slow.log().contains("waits"));
    assert!(dials, "{}{}", slow.log(), waits.log());
    island.line("carol", "restrict,command=\"true\"");
    fs::write(&go, "").expect("a set-up of ours");
    ends_with_words(waits, "rights of your key at slow were narrowed");
}

#[test]
fn maintenance_is_said_to_whoever_would_get_in_and_the_name_stays() {
    let Some(island) = settled() else { return };
    let session = island.stays("alice", "blue.vm.test");
    island.keyway("vm set blue --state maint").ok();
    ends_with_words(session, "blue is in maintenance");
    assert_eq!(island.dig("blue", "A"), ["s001.vm.test.", POOL[0]]);
    let told = |user: &str, words: &str| {
        let output = run(&mut island.ssh(user, &login(), "blue.vm.test", "true")).ends(255);
        assert!(output.stderr.contains(words), "{}", output.stderr);
    };
    told("alice", "blue is in maintenance");
    told("carol", "Permission denied");
    assert_eq!(island.enters("bob", "blue.vm.test"), "green", "it is one VM's maintenance");
    island.keyway("vm set blue --state ready").ok();
    assert_eq!(island.enters("alice", "blue.vm.test"), "blue");
    island.keyway("address maint s001").ok();
    told("alice", "the address you dialled is in maintenance");
    told("carol", "Permission denied");
}
