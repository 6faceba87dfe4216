//! The log's way to stderr: shards leave their lines in a buffer, one thread writes them in batches.
//!
//! A slow or failing stderr costs lines, never a shard: a line that finds the buffer full is dropped and counted, and
//! the count is written once there is room. A shard pays for a lock and a copy; waking the thread costs a system call
//! and two context switches, so it is woken once a batch and not once a line.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait, together, in bytes.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// How long lines gather while a batch before them is not older than this.
const BATCH: Duration = Duration::from_millis(100);

/// How long the last lines may take to be written.
const FAREWELL_WAIT: Duration = Duration::from_secs(2);

/// Takes lines, for [`tracing_subscriber`].
#[derive(Clone)]
pub struct Lines(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    some: Condvar,
}

struct Waiting {
    lines: Vec<u8>,
    dropped: u64,
    writer: Writer,
}

/// What the writing thread does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Writer {
    /// It sleeps until it is told of a line.
    Asleep,
    /// It will look by itself.
    Awake,
    /// It writes what is left, and ends.
    Ending,
    /// It has ended.
    Ended,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writing thread. Dropping it writes what is left.
pub struct Written {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the thread that writes to `out`.
///
/// # Errors
/// Out of threads.
pub fn start(out: impl Write + Send + 'static) -> io::Result<(Lines, Written)> {
    let waiting = Waiting { lines: Vec::new(), dropped: 0, writer: Writer::Awake };
    let shared = Arc::new(Shared { waiting: Mutex::new(waiting), some: Condvar::new() });
    let theirs = Arc::clone(&shared);
    let thread =
        std::thread::Builder::new().name("log".into()).spawn(move || write(&theirs, out))?;
    Ok((Lines(Arc::clone(&shared)), Written { shared, thread: Some(thread) }))
}

fn write(shared: &Shared, mut out: impl Write) {
    let mut batch = Vec::new();
    loop {
        let mut waiting = shared.waiting();
        while waiting.lines.is_empty() && waiting.writer != Writer::Ending {
            waiting.writer = Writer::Asleep;
            waiting = shared.some.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.writer == Writer::Asleep {
            waiting.writer = Writer::Awake;
        }
        let ending = waiting.writer == Writer::Ending;
        std::mem::swap(&mut waiting.lines, &mut batch);
        let dropped = std::mem::take(&mut waiting.dropped);
        drop(waiting);
        if dropped > 0 {
            let _ = writeln!(batch, "keyway: {dropped} log lines dropped: stderr is too slow");
        }
        // There is nobody to tell that the log cannot be written.
        let _lost = out.write_all(&batch).and_then(|()| out.flush());
        if ending {
            shared.waiting().writer = Writer::Ended;
            shared.some.notify_all();
            return;
        }
        batch.clear();
        let waiting = shared.waiting();
        if waiting.writer != Writer::Ending {
            // A wake that is not the end's only shortens the batch.
            let _rested = shared.some.wait_timeout(waiting, BATCH);
        }
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let mut waiting = self.shared.waiting();
        waiting.writer = Writer::Ending;
        self.shared.some.notify_all();
        let writes = |waiting: &mut Waiting| waiting.writer != Writer::Ended;
        let (waiting, late) = self
            .shared
            .some
            .wait_timeout_while(waiting, FAREWELL_WAIT, writes)
            .unwrap_or_else(PoisonError::into_inner);
        drop(waiting);
        // A reader that has stopped for good must not keep the process from ending.
        if !late.timed_out()
            && let Some(thread) = self.thread.take()
        {
            let _ended = thread.join();
        }
    }
}

impl Write for Lines {
    /// Takes one whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.waiting();
        if waiting.lines.len().saturating_add(line.len()) > WAITING_BYTES_MAX {
            waiting.dropped += 1;
            return Ok(line.len());
        }
        waiting.lines.extend_from_slice(line);
        if waiting.writer == Writer::Asleep {
            waiting.writer = Writer::Awake;
            drop(waiting);
            self.0.some.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Writes what it is given into a channel, and waits for leave before each write.
    struct Slow {
        leave: mpsc::Receiver<()>,
        seen: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open_gate = self.leave.recv();
            let _reader_gone = self.seen.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_whole_in_order_and_the_last_ones_at_the_end() {
        let (seen, lines_seen) = mpsc::channel();
        let (gate, leave) = mpsc::channel();
        drop(gate);
        let (mut lines, written) = start(Slow { leave, seen }).unwrap();
        let mut expected = Vec::new();
        for number in 0..1000 {
            let line = format!("line {number}\n");
            lines.write_all(line.as_bytes()).unwrap();
            expected.extend_from_slice(line.as_bytes());
        }
        drop(written);
        assert_eq!(lines_seen.iter().flatten().collect::<Vec<u8>>(), expected);
    }

    #[test]
    fn a_reader_that_is_too_slow_costs_lines_and_is_told_how_many() {
        let (seen, lines_seen) = mpsc::channel();
        let (gate, leave) = mpsc::channel();
        let (mut lines, written) = start(Slow { leave, seen }).unwrap();
        let line = vec![b'x'; WAITING_BYTES_MAX / 4];
        // Four fit into the buffer and at most four are in the writer's hands: two at least are dropped.
        for _ in 0..10 {
            lines.write_all(&line).unwrap();
        }
        drop(gate);
        drop(written);
        let all: Vec<u8> = lines_seen.iter().flatten().collect();
        let said = String::from_utf8_lossy(&all);
        let kept = said.bytes().filter(|byte| *byte == b'x').count() / line.len();
        let dropped = 10 - kept;
        assert!(dropped >= 2, "{dropped}");
        assert!(said.contains(&format!("{dropped} log lines dropped")), "{}", said.len());
    }
}
