//! Where each process of an agent is asked how it is: a socket of its own, for one that drains
//! lives beside its successor.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::{fs, io};

use super::{State, StateFault};
use crate::ssh::entropy::Entropy;

/// What `AgentSocket`s are called, around a number.
const BEFORE: &str = "agent-";
const AFTER: &str = ".sock";
/// What is said there to have the process drain. Anything else asks how it is.
pub const AGENT_DRAIN: &str = "drain";
/// To have it end now.
pub const AGENT_END: &str = "end";

/// The socket of this process. Dropping it removes its file.
#[derive(Debug)]
pub struct AgentSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl AgentSocket {
    /// To accept from.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.path);
    }
}

impl State {
    /// Makes the socket of this process, and removes those of processes that are gone.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub fn agent_socket(&self, entropy: &mut dyn Entropy) -> Result<AgentSocket, StateFault> {
        for path in self.agent_sockets()? {
            let gone = UnixStream::connect(&path)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if gone {
                let _others_do_so_too = fs::remove_file(&path);
            }
        }
        let mut number = [0; 8];
        entropy.fill(&mut number);
        let number = u64::from_ne_bytes(number);
        let path = self.path.join(format!("{BEFORE}{number:016x}{AFTER}"));
        let listener = UnixListener::bind(&path)
            .map_err(|error| StateFault::Io { path: path.clone(), error })?;
        Ok(AgentSocket { path, listener })
    }

    /// The sockets of all processes of an agent, some of which may be gone.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub fn agent_sockets(&self) -> Result<Vec<PathBuf>, StateFault> {
        let io = |error| StateFault::Io { path: self.path.clone(), error };
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name();
            let is_one =
                name.to_str().is_some_and(|it| it.starts_with(BEFORE) && it.ends_with(AFTER));
            if is_one {
                all.push(entry.path());
            }
        }
        all.sort_unstable();
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::testing::Seeded;
    use crate::testing::scratch::Scratch;

    #[test]
    fn each_process_has_a_socket_of_its_own_and_those_of_the_gone_are_removed() {
        let scratch = Scratch::new();
        let state = State::open(&scratch.0.join("state")).unwrap();
        let mut entropy = Seeded(1);
        let [one, other] = [(); 2].map(|()| state.agent_socket(&mut entropy).unwrap());
        assert_eq!(state.agent_sockets().unwrap().len(), 2);
        // One that was killed leaves its file.
        let path = one.path.clone();
        drop(one);
        assert!(!path.exists());
        drop(UnixListener::bind(&path).unwrap());
        let third = state.agent_socket(&mut entropy).unwrap();
        let mut left = vec![other.path.clone(), third.path.clone()];
        left.sort_unstable();
        assert_eq!(state.agent_sockets().unwrap(), left);
        drop((other, third));
        assert!(state.agent_sockets().unwrap().is_empty());
    }
}
