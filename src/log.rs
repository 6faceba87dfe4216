//! The log's way to stderr: shards leave their lines in a buffer, one thread writes
//! them in batches.
//!
//! A slow or failing stderr costs lines, never a shard: a line that finds the buffer full is
//! dropped and counted, and so is what cannot be written; the count is written once there is room,
//! and is a metric. A stderr that does not block (somebody else made it so, for both of us) is
//! waited for as one that does. A shard pays for a lock and a copy; waking the thread costs a
//! system call and two context switches, so it is woken once a batch and not once a line.

#![expect(
    clippy::disallowed_methods,
    reason = "lines are written by a thread of its own, or a slow reader would stop the doors"
)]

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait, together, in bytes.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// How long lines gather while a batch before them is not older than this.
const BATCH: Duration = Duration::from_millis(100);

/// How long the last lines may take to be written.
const FAREWELL_WAIT: Duration = Duration::from_secs(2);

/// Lines of this process that were never written.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Lines that were kept back, because their sources had caused so many.
static KEPT_BACK: AtomicU64 = AtomicU64::new(0);

/// A line was not written, because its source had caused so many.
pub(crate) fn kept_back() {
    KEPT_BACK.fetch_add(1, Ordering::Relaxed);
}

/// How many log lines were kept back since the start, because their sources had caused so many.
#[must_use]
pub fn lines_kept_back() -> u64 {
    KEPT_BACK.load(Ordering::Relaxed)
}

/// How many log lines were lost since the start, because stderr took no more or failed.
#[must_use]
pub fn lines_lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Where lines go.
pub trait Out: Write + Send + 'static {
    /// Blocks until a write that would have blocked is worth another try.
    ///
    /// # Errors
    /// It cannot be waited for.
    fn wait(&mut self) -> io::Result<()>;
}

impl Out for io::Stderr {
    fn wait(&mut self) -> io::Result<()> {
        let mut stderr = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut stderr, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

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

/// Starts the thread that writes to `out`. `told` is the line, with its end, that says how many
/// lines were lost.
///
/// # Errors
/// Out of threads.
pub fn start(out: impl Out, told: fn(u64) -> String) -> io::Result<(Lines, Written)> {
    let waiting = Waiting { lines: Vec::new(), dropped: 0, writer: Writer::Awake };
    let shared = Arc::new(Shared { waiting: Mutex::new(waiting), some: Condvar::new() });
    let theirs = Arc::clone(&shared);
    let out = Writing { out, mid_line: false };
    let thread =
        std::thread::Builder::new().name("log".into()).spawn(move || write(&theirs, out, told))?;
    Ok((Lines(Arc::clone(&shared)), Written { shared, thread: Some(thread) }))
}

fn write(shared: &Shared, mut out: Writing<impl Out>, told: fn(u64) -> String) {
    let mut batch = Vec::new();
    // Lost, and not told yet.
    let mut lost = 0;
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
        lost += std::mem::take(&mut waiting.dropped);
        drop(waiting);
        let lines = batch.len();
        if lost > 0 {
            batch.extend_from_slice(told(lost).as_bytes());
        }
        match out.write_all(&batch) {
            Ok(()) => lost = 0,
            // There is nobody else to tell.
            Err(written) => {
                let rest = batch.get(written..lines).unwrap_or_default();
                let count = rest.iter().fold(0, |count, byte| count + u64::from(*byte == b'\n'));
                LOST.fetch_add(count, Ordering::Relaxed);
                lost += count;
            }
        }
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

/// An [`Out`] in the middle of its work.
struct Writing<O> {
    out: O,
    /// A write failed behind a part of a line.
    mid_line: bool,
}

impl<O: Out> Writing<O> {
    /// Writes everything, however long that takes; else how much was.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), usize> {
        if self.mid_line {
            self.write_some(b"\n").map_err(|_| 0_usize)?;
            self.mid_line = false;
        }
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            let Ok(count) = self.write_some(rest) else {
                let last = written.checked_sub(1).and_then(|at| bytes.get(at));
                self.mid_line = last.is_some_and(|byte| *byte != b'\n');
                return Err(written);
            };
            written += count;
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.out.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.out.wait()?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
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
            LOST.fetch_add(1, Ordering::Relaxed);
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
    use std::sync::mpsc;

    use super::*;

    fn told(lines: u64) -> String {
        format!("{lines} lines were lost\n")
    }

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

    impl Out for Slow {
        fn wait(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_whole_in_order_and_the_last_ones_at_the_end() {
        let (seen, lines_seen) = mpsc::channel();
        let (gate, leave) = mpsc::channel();
        drop(gate);
        let (mut lines, written) = start(Slow { leave, seen }, told).unwrap();
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
        let (mut lines, written) = start(Slow { leave, seen }, told).unwrap();
        let line = vec![b'x'; WAITING_BYTES_MAX / 4];
        let before = lines_lost();
        // Four fit into the buffer and at most four are in the writer's hands: two at
        // least are dropped.
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
        assert!(said.contains(&format!("{dropped} lines were lost")), "{}", said.len());
        // Tests beside this one count too.
        assert!(lines_lost() - before >= u64::try_from(dropped).unwrap());
    }

    /// A pipe that nobody reads until it has been waited for, written as a socket
    /// that does not block.
    struct Reluctant {
        to: io::PipeWriter,
        /// Told whenever a write would have blocked.
        full: mpsc::Sender<()>,
    }

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            nix::unistd::write(&self.to, bytes).map_err(io::Error::from)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Out for Reluctant {
        fn wait(&mut self) -> io::Result<()> {
            let _nobody_counts = self.full.send(());
            let mut pipe = [PollFd::new(self.to.as_fd(), PollFlags::POLLOUT)];
            poll(&mut pipe, PollTimeout::NONE)?;
            Ok(())
        }
    }

    #[test]
    fn an_output_that_does_not_block_loses_no_line() {
        use std::io::Read;

        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let (mut from, to) = io::pipe().unwrap();
        fcntl(&to, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let (full, filled) = mpsc::channel();
        let (mut lines, written) = start(Reluctant { to, full }, told).unwrap();
        let mut expected = String::new();
        for number in 0..5000 {
            let line = format!("{number:0100}\n");
            lines.write_all(line.as_bytes()).unwrap();
            expected.push_str(&line);
        }
        // Eight times what a pipe holds: it is full before anybody reads.
        filled.recv().unwrap();
        let reader = std::thread::spawn(move || {
            let mut said = String::new();
            from.read_to_string(&mut said).map(|_| said)
        });
        drop(written);
        let said = reader.join().unwrap().unwrap();
        assert_eq!(said.lines().count(), 5000);
        assert!(said == expected, "not the lines that were written");
    }

    /// Fails behind some bytes, once.
    struct Broken {
        room: usize,
        seen: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Broken {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                self.room = usize::MAX;
                return Err(ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.room);
            let _reader_gone = self.seen.send(bytes[..taken].to_vec());
            self.room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Out for Broken {
        fn wait(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_an_output_that_fails_did_not_take_is_counted_and_the_next_line_begins_anew() {
        let (seen, taken) = mpsc::channel();
        let mut out = Writing { out: Broken { room: 6, seen }, mid_line: false };
        assert_eq!(out.write_all(b"one\ntwo\nthree\n"), Err(6), "one whole line and a part");
        out.write_all(b"four\n").unwrap();
        drop(out);
        assert_eq!(taken.iter().flatten().collect::<Vec<u8>>(), b"one\ntw\nfour\n");

        let (seen, taken) = mpsc::channel();
        let (mut lines, written) = start(Broken { room: 6, seen }, told).unwrap();
        for line in ["one\n", "two\n", "three\n"] {
            lines.write_all(line.as_bytes()).unwrap();
        }
        let mut said: Vec<u8> = Vec::new();
        while said.len() < 6 {
            said.extend(taken.recv().unwrap());
        }
        lines.write_all(b"four\n").unwrap();
        drop(written);
        said.extend(taken.iter().flatten());
        let said = String::from_utf8(said).unwrap();
        // However the lines fell into batches, each is there or counted.
        let lost: usize = said
            .lines()
            .filter_map(|line| line.strip_suffix(" lines were lost"))
            .map(|count| count.parse::<usize>().unwrap())
            .sum();
        let whole = ["one", "two", "three", "four"];
        let there = said.lines().filter(|line| whole.contains(line)).count();
        assert!(lost > 0, "{said}");
        assert_eq!(there + lost, 4, "{said}");
    }
}
