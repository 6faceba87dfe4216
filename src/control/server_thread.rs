//! The thread of one server of this room: its event loop runs there, until whoever started it
//! drops what it holds.

#![expect(clippy::disallowed_methods, reason = "each server runs on a thread of its own")]

use std::io;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

/// Whether the server is to stop: ready once that is so.
pub(super) type Stopped = oneshot::Receiver<()>;

/// A server that runs. Dropping it stops the server and waits until its thread is gone.
#[derive(Debug)]
pub(super) struct ServerThread {
    /// Dropped to stop: nothing is ever sent.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ServerThread {
    /// Runs `serve` on a thread called `name`.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(
        name: &str,
        serve: impl FnOnce(Stopped) + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(|| serve(stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for ServerThread {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic over there has been reported by its own hook; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}
