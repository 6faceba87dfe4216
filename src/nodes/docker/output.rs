//! Output of a process in a container: raw from a terminal, else in frames that say whether it is
//! output or error.
//!
//! A frame is passed on as it comes. Its header may say 4 GiB: that is a number, and nothing is
//! allocated for it.
//!
//! Source: Docker Engine API, `ContainerAttach` "Stream format"; moby `pkg/stdcopy`.

use std::io;
use std::pin::Pin;

use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::fault::Fault;
use super::lines::{Line, Lines};
use crate::plain_text::escaped;

/// Bytes that are read at a time, and so the most that is held.
const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Bytes of a line of a log.
const LINE_BYTES_MAX: usize = 64 << 10;
/// A frame's header: what it is, three zeros, its length in network order.
const HEADER_BYTES: usize = 8;

/// Where a process wrote something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// Its standard output, or its terminal.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// A part of what a process wrote.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chunk {
    /// Where to.
    pub origin: Origin,
    /// Up to 64 KiB, of one line or many.
    pub bytes: Bytes,
}

/// In which form output comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// Of a terminal: bytes.
    Raw,
    Framed,
}

/// What a process writes, as it comes.
pub struct Output {
    from: Pin<Box<dyn AsyncRead + Send>>,
    frames: Frames,
    buffer: Box<[u8]>,
    /// Part of the buffer that is not yet taken.
    from_byte: usize,
    to_byte: usize,
}

impl Output {
    pub(super) fn new(from: impl AsyncRead + Send + 'static, form: Form) -> Self {
        let frames = match form {
            Form::Raw => Frames::Raw,
            Form::Framed => Frames::NEXT,
        };
        let buffer = vec![0; CHUNK_BYTES_MAX].into_boxed_slice();
        Self { from: Box::pin(from), frames, buffer, from_byte: 0, to_byte: 0 }
    }

    /// The next part; nothing when the process has closed all of its output.
    ///
    /// # Errors
    /// What every call may come to. It is safe to stop waiting for it.
    pub async fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        loop {
            while self.from_byte < self.to_byte {
                let buffered = self.buffer.get(self.from_byte..self.to_byte).unwrap_or_default();
                let (taken, part) = self.frames.take(buffered)?;
                let part = part.map(|(origin, len)| {
                    let bytes = buffered.get(taken - len..taken).unwrap_or_default();
                    Chunk { origin, bytes: Bytes::copy_from_slice(bytes) }
                });
                self.from_byte += taken;
                if part.is_some() {
                    return Ok(part);
                }
            }
            let count = self.from.read(&mut self.buffer).await;
            let count = count.map_err(|error: io::Error| Fault::from_io(&error))?;
            if count == 0 {
                return self.frames.may_end().map(|()| None);
            }
            (self.from_byte, self.to_byte) = (0, count);
        }
    }
}

/// Where in a frame a stream is.
enum Frames {
    Raw,
    Header { bytes: [u8; HEADER_BYTES], len: usize },
    Body { origin: Origin, left: usize },
}

impl Frames {
    /// Before a frame.
    const NEXT: Self = Self::Header { bytes: [0; HEADER_BYTES], len: 0 };

    /// Reads on in `bytes`, which are some: how many of them it used, and how many
    /// of those, the last ones, are output.
    fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<(Origin, usize)>), Fault> {
        match self {
            Self::Raw => Ok((bytes.len(), Some((Origin::Stdout, bytes.len())))),
            Self::Header { bytes: header, len } => {
                let rest = header.get_mut(*len..).unwrap_or_default();
                let count = rest.len().min(bytes.len());
                for (to, from) in std::iter::zip(rest, bytes) {
                    *to = *from;
                }
                *len += count;
                if *len == HEADER_BYTES {
                    *self = Self::body(*header)?;
                }
                Ok((count, None))
            }
            Self::Body { origin, left } => {
                let (origin, count) = (*origin, bytes.len().min(*left));
                *left -= count;
                if *left == 0 {
                    *self = Self::NEXT;
                }
                Ok((count, (count > 0).then_some((origin, count))))
            }
        }
    }

    fn body([kind, zeros @ .., a, b, c, d]: [u8; HEADER_BYTES]) -> Result<Self, Fault> {
        // 0 is what was typed, told again; it stands where output does.
        let origin = match (kind, zeros) {
            (0 | 1, [0, 0, 0]) => Origin::Stdout,
            (2, [0, 0, 0]) => Origin::Stderr,
            // The daemon's own error, in moby's words: what it says stands in no frame of a kind
            // that others know.
            (3, [0, 0, 0]) => return Err(Fault::failed("it could not go on with the output")),
            _ => {
                return Err(Fault::not_docker("output without frames, where there is no terminal"));
            }
        };
        match usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX) {
            0 => Ok(Self::NEXT),
            left => Ok(Self::Body { origin, left }),
        }
    }

    fn may_end(&self) -> Result<(), Fault> {
        match self {
            Self::Raw | Self::Header { len: 0, .. } => Ok(()),
            Self::Header { .. } | Self::Body { .. } => {
                Err(Fault::Closed("in the middle of a frame of output".to_owned()))
            }
        }
    }
}

/// A line of a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogLine {
    /// Where the process wrote it.
    pub origin: Origin,
    /// As it was written, without its end; 64 KiB at most.
    pub bytes: Vec<u8>,
    /// Whether it was longer.
    pub cut: bool,
}

impl LogLine {
    /// As it may be shown: nothing in it commands a terminal, and a cut is marked.
    pub fn shown(&self) -> String {
        let mut text = escaped(&String::from_utf8_lossy(&self.bytes));
        if self.cut {
            text.push_str(" [cut at 64 KiB]");
        }
        text
    }
}

/// Output by lines.
pub struct Logs {
    output: Output,
    stdout: Lines,
    stderr: Lines,
    chunk: Chunk,
}

impl Logs {
    pub(super) fn new(output: Output) -> Self {
        let lines = || Lines::new(LINE_BYTES_MAX);
        let chunk = Chunk { origin: Origin::Stdout, bytes: Bytes::new() };
        Self { output, stdout: lines(), stderr: lines(), chunk }
    }

    /// The next line; nothing at the end of the log.
    ///
    /// # Errors
    /// What every call may come to. It is safe to stop waiting for it.
    pub async fn next(&mut self) -> Result<Option<LogLine>, Fault> {
        let whole = |origin, Line { bytes, cut }| LogLine { origin, bytes, cut };
        loop {
            let Chunk { origin, bytes } = &mut self.chunk;
            let lines = match origin {
                Origin::Stdout => &mut self.stdout,
                Origin::Stderr => &mut self.stderr,
            };
            let mut left: &[u8] = bytes;
            let line = lines.take(&mut left);
            let taken = bytes.len() - left.len();
            drop(bytes.split_to(taken));
            if let Some(line) = line {
                return Ok(Some(whole(*origin, line)));
            }
            let Some(chunk) = self.output.next().await? else {
                let stdout = self.stdout.rest().map(|line| whole(Origin::Stdout, line));
                let stderr = || self.stderr.rest().map(|line| whole(Origin::Stderr, line));
                return Ok(stdout.or_else(stderr));
            };
            self.chunk = chunk;
        }
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
