//! What a running front door is told, by signals and over the API: one thing after another,
//! all on one thread.

#![expect(clippy::disallowed_methods, reason = "signals come to a thread of their own")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::control::api::condition::{Reload, Reloaded};

/// One thing to do.
pub(super) enum Event {
    /// Read the files again, and tell whoever waits what came of it.
    Reload(Reload, Option<SyncSender<Reloaded>>),
    /// Let people go, and then end.
    Drain,
    /// End.
    End,
}

/// All that comes.
pub(super) struct Events {
    queue: Receiver<Event>,
    asking: Asking,
}

/// Asks for something from another thread.
#[derive(Clone)]
pub(super) struct Asking {
    queue: Sender<Event>,
    /// Whether somebody is there who would do it.
    open: Arc<AtomicBool>,
}

impl Events {
    /// Takes the signals of this process.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn start() -> io::Result<Self> {
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2])?;
        let (sender, queue) = mpsc::channel();
        let asking = Asking { queue: sender.clone(), open: Arc::new(AtomicBool::new(true)) };
        // Ends with the process.
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                let event = match signal {
                    SIGHUP => Event::Reload(Reload::default(), None),
                    SIGTERM => Event::Drain,
                    SIGINT => Event::End,
                    // They end a process that does not know them, and log rotation sends them
                    // to every daemon.
                    _ => {
                        tracing::info!("SIGUSR1 and SIGUSR2 mean nothing here: SIGHUP reloads, SIGTERM drains, SIGINT ends");
                        continue;
                    }
                };
                if sender.send(event).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { queue, asking })
    }

    /// For whoever asks for something from elsewhere.
    pub(super) fn asking(&self) -> Asking {
        self.asking.clone()
    }

    /// The next one.
    pub(super) fn next(&self) -> Event {
        // The signals' thread lives as long as the process.
        self.queue.recv().unwrap_or(Event::End)
    }

    /// The next one, if it comes in time.
    pub(super) fn next_within(&self, patience: Duration) -> Option<Event> {
        match self.queue.recv_timeout(patience) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Event::End),
        }
    }

    /// Whoever asks from elsewhere is told no from now on, and so is who waits.
    pub(super) fn close(&self) {
        self.asking.open.store(false, Ordering::SeqCst);
        // What signals have said holds: nobody waits for its answer.
        let waits = |event: &Event| matches!(event, Event::Reload(_, Some(_)));
        let signals: Vec<Event> = self.queue.try_iter().filter(|event| !waits(event)).collect();
        for event in signals {
            let _kept = self.asking.queue.send(event);
        }
    }
}

impl Asking {
    /// Has this process drain; one that does already ends now.
    pub(super) fn drain(&self) {
        // The signals' thread lives as long as the process.
        let _heard = self.queue.send(Event::Drain);
    }

    /// Has this process end now.
    pub(super) fn end(&self) {
        let _heard = self.queue.send(Event::End);
    }

    /// Has the files read again; nothing if the process ends meanwhile.
    pub(super) fn reload(&self, order: Reload) -> Option<Reloaded> {
        let (answer, answered) = mpsc::sync_channel(1);
        let event = Event::Reload(order, Some(answer));
        let sent = self.open.load(Ordering::SeqCst) && self.queue.send(event).is_ok();
        sent.then(|| answered.recv().ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_signals_have_said_outlives_the_closing_and_whoever_waits_is_told_no() {
        let (sender, queue) = mpsc::channel();
        let asking = Asking { queue: sender.clone(), open: Arc::new(AtomicBool::new(true)) };
        let events = Events { queue, asking: asking.clone() };
        let (answer, answered) = mpsc::sync_channel(1);
        sender.send(Event::Reload(Reload::default(), Some(answer))).unwrap();
        sender.send(Event::Reload(Reload::default(), None)).unwrap();
        sender.send(Event::Drain).unwrap();
        events.close();
        assert!(answered.recv().is_err(), "it would wait for ever");
        assert!(asking.reload(Reload::default()).is_none());
        assert!(matches!(events.next(), Event::Reload(_, None)));
        assert!(matches!(events.next(), Event::Drain));
        assert!(events.next_within(Duration::ZERO).is_none());
    }
}
