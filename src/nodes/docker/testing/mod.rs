//! A daemon that does as a script says, at the other end of streams in memory.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

use super::Docker;

pub(super) const VERSION: &str =
    r#"{"Version":"20.10","ApiVersion":"1.41","MinAPIVersion":"1.12","Arch":"amd64","Os":"linux"}"#;

/// What a daemon does with one connection, once it has read a request's head.
pub(super) enum Does {
    /// Writes this, so many bytes at a time, and closes.
    Says(Vec<u8>, usize),
    /// Writes this, and then nothing more.
    Hangs(Vec<u8>),
    /// Writes the first, then the second for ever, with a pause before each.
    Goes(Vec<u8>, Vec<u8>, Duration),
    /// Says what it reads to its end; the answer is empty.
    Reads,
    /// Reads no further than the head, says this after a while, and is gone.
    ReadsNot(Vec<u8>),
    /// Becomes a stream that sends everything back as frames of output.
    Echoes,
}

/// Its end of each connection.
#[derive(Clone, Default)]
pub(super) struct Daemon {
    does: Arc<Mutex<VecDeque<Does>>>,
    /// Heads of requests, and what was read behind one that is read to its end.
    pub(super) heard: Arc<Mutex<Vec<String>>>,
    /// Connections that the client has closed.
    pub(super) left: Arc<Mutex<usize>>,
}

impl Daemon {
    pub(super) fn that(does: impl IntoIterator<Item = Does>) -> (Self, Docker) {
        let daemon = Self::default();
        daemon.does.lock().unwrap().extend(does);
        let at = daemon.clone();
        let docker = Docker::new(move || {
            let at = at.clone();
            async move {
                let does = at.does.lock().unwrap().pop_front();
                let does = does.ok_or_else(|| io::Error::other("nobody\x1b[2J listens"))?;
                let (ours, theirs) = duplex(64 << 10);
                tokio::spawn(at.serve(theirs, does));
                Ok(ours)
            }
        });
        (daemon, docker)
    }

    /// With a good answer to the question for its version before that.
    pub(super) fn known_that(does: impl IntoIterator<Item = Does>) -> (Self, Docker) {
        Self::that(std::iter::once(json(VERSION)).chain(does))
    }

    async fn serve(self, mut stream: DuplexStream, does: Does) {
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        self.heard.lock().unwrap().push(String::from_utf8(head).unwrap());
        let stays = !matches!(does, Does::ReadsNot(_));
        let _ = self.does(&mut stream, does).await;
        if !stays {
            return;
        }
        // What the client has closed is read to its end.
        let mut rest = vec![];
        while stream.read_buf(&mut rest).await.is_ok_and(|count| count > 0) {
            rest.clear();
        }
        *self.left.lock().unwrap() += 1;
    }

    async fn does(&self, stream: &mut DuplexStream, does: Does) -> io::Result<()> {
        match does {
            Does::Says(bytes, each) => {
                for piece in bytes.chunks(each.max(1)) {
                    stream.write_all(piece).await?;
                    tokio::task::yield_now().await;
                }
                stream.shutdown().await
            }
            Does::Hangs(bytes) => stream.write_all(&bytes).await,
            Does::Goes(first, then, pause) => {
                stream.write_all(&first).await?;
                loop {
                    stream.write_all(&then).await?;
                    sleep(pause).await;
                }
            }
            Does::Reads => {
                let mut all = vec![];
                while !all.ends_with(b"0\r\n\r\n") && stream.read_buf(&mut all).await? > 0 {}
                self.heard.lock().unwrap().push(String::from_utf8_lossy(&all).into_owned());
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await
            }
            Does::ReadsNot(bytes) => {
                sleep(Duration::from_secs(5)).await;
                stream.write_all(&bytes).await?;
                stream.shutdown().await
            }
            Does::Echoes => {
                // The question itself comes before what is typed.
                let mut question = vec![];
                while !question.ends_with(b"}") {
                    stream.read_buf(&mut question).await?;
                }
                let mut bytes =
                    b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
                        .to_vec();
                bytes.extend(frame(1, b"ready\n"));
                stream.write_all(&bytes).await?;
                let mut block = vec![0; 1000];
                loop {
                    match stream.read(&mut block).await? {
                        0 => break,
                        count => stream.write_all(&frame(2, &block[..count])).await?,
                    }
                }
                stream.write_all(&frame(1, b"bye")).await?;
                stream.shutdown().await
            }
        }
    }

    pub(super) fn heads(&self) -> Vec<String> {
        let first = |head: &String| head.lines().next().unwrap_or_default().to_owned();
        self.heard.lock().unwrap().iter().map(first).collect()
    }

    pub(super) async fn all_left(&self, count: usize) {
        while *self.left.lock().unwrap() < count {
            tokio::task::yield_now().await;
        }
    }
}

pub(super) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(super) fn json(text: &str) -> Does {
    Does::Says(answer("200 OK", "", text.as_bytes()), usize::MAX)
}

pub(super) fn chunked(body: &[u8]) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(7) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend([chunk, b"\r\n"].concat());
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

pub(super) fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[kind, 0, 0, 0][..], &len, bytes].concat()
}
