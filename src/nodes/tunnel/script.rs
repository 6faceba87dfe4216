//! The line that the probe runs on a node.
//!
//! sshd hands it to the login's shell, whatever that is: one line, and nothing in it that sh, csh
//! or fish would read within single quotes (no quote of that kind, no backslash, no exclamation
//! mark). The work is done by `sh`, with what is in every image; `curl` or `python3` only where the
//! kernel's table of sockets does not tell.

use super::endpoint::DockerSocket;

/// The line before the answer; its version is in it.
pub(super) const BEGIN: &str = "keyway-probe-1 begin";
/// The line after it.
pub(super) const END: &str = "keyway-probe-1 end";

/// Runs in `sh` with the socket's path in `p`.
///
/// `f`: what the file is. A path that is not there may be hidden by a directory: the nearest one
/// that is seen tells. `l`: whether somebody listens. The table's fourth column says
/// 00010000 for a listening socket (net/unix/af_unix.c, `__SO_ACCEPTCON`); a path that is not
/// in it is dead, or of another network namespace: then somebody must try.
const BODY: &str = r#"exec 2>/dev/null; f=missing; w=no; l=unknown
if [ -S "$p" ]; then f=socket; elif [ -e "$p" ]; then f=other; else
d=${p%/*}; while [ -n "$d" ]; do if [ -e "$d" ]; then [ -x "$d" ] || f=hidden; break; fi; d=${d%/*}; done; fi
if [ -w "$p" ]; then w=yes; fi
if [ $f = socket ]; then r=$(cd -P "${p%/*}" && pwd -P)/${p##*/}
t=$(grep -F -e " $p" -e " $r" /proc/net/unix | while read -r a b c g h i j q; do
if [ "$q" = "$p" ] || [ "$q" = "$r" ]; then if [ "$g" = 00010000 ]; then echo L; else echo B; fi; fi; done)
case $t in *L*) l=yes;; *B*) l=no;; *) if [ $w = yes ]; then
if command -v curl >/dev/null; then curl -s -o /dev/null -m 2 --unix-socket "$p" http://d/_ping; case $? in 7) l=no;; 0|28|52|56) l=yes;; esac
elif command -v python3 >/dev/null; then python3 -c "import socket,sys;s=socket.socket(socket.AF_UNIX);s.settimeout(2);s.connect(sys.argv[1])" "$p" && l=yes || l=no; fi; fi;; esac; fi
k=no; if command -v docker >/dev/null; then k=yes; fi
echo "file=$f"; echo "writable=$w"; echo "listening=$l"; echo "uid=$(id -u)"; echo "user=$(id -un)"
echo "groups=$(id -Gn)"; echo "machine=$(uname -m)"; echo "system=$(uname -s)"; echo "docker=$k""#;

/// The probe of a socket, for a session's `exec`.
pub(super) fn probe(socket: &DockerSocket) -> String {
    let body: Vec<&str> = BODY.lines().collect();
    // A `then`, `else` or `do` at the end of a line stands before no semicolon.
    let mut line = String::new();
    for part in body {
        line.push_str(part);
        let goes_on = ["then", "else", "do", ";"].iter().any(|end| part.ends_with(end));
        line.push_str(if goes_on { " " } else { "; " });
    }
    format!("sh -c 'p={socket}; echo; echo {BEGIN}; {line}echo {END}'")
}

/// A session that does nothing: sshd sends small packets at once only after one has begun.
pub(super) const NOTHING: &str = ":";

/// Docker's own client as a way to the socket, where sshd does not forward to it.
pub(super) fn dial_stdio(socket: &DockerSocket) -> String {
    format!("docker -H unix://{socket} system dial-stdio")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_holds_nothing_that_a_login_shell_reads() {
        let line = probe(&DockerSocket::default());
        assert_eq!(line.matches('\'').count(), 2);
        assert!(!line.contains(['\n', '\\', '!', '`']));
        assert!(line.len() < 4096, "{}", line.len());
    }
}
