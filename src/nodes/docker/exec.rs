//! Commands in containers that run. Docker has no way to end one: it ends by itself, or with its
//! container.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use serde::Serialize;
use tokio::io::{AsyncWrite, WriteHalf, split};

use super::client::{Docker, Question};
use super::exchange::Patience;
use super::fault::Fault;
use super::model::{ExecState, MadeExec};
use super::names::{ContainerName, ExecId};
use super::output::{Form, Output};
use super::spec::ExecSpec;
use super::stream::Resumed;
use super::target::Target;

const EXEC: &str = "/exec";

/// A command that was started.
pub struct Exec {
    /// For [`Docker::inspect_exec`] and [`Docker::resize_exec`].
    pub id: ExecId,
    /// What the command reads. To shut it down is the end of the command's input; what comes
    /// from it still comes.
    pub input: ExecInput,
    /// What the command writes. Its end comes when nobody holds it open any more,
    /// which may be long after the command's.
    pub output: Output,
}

/// What a command reads.
pub struct ExecInput(WriteHalf<Resumed>);

impl Docker {
    /// Starts a command. When input and output are dropped, the command gets the end of
    /// its input and nothing else.
    ///
    /// # Errors
    /// [`super::Refusal::Conflict`] if the container does not run.
    pub async fn exec(&self, name: &ContainerName, spec: &ExecSpec) -> Result<Exec, Fault> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Made<'a> {
            #[serde(flatten)]
            spec: &'a ExecSpec,
            attach_stdout: bool,
            attach_stderr: bool,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Start {
            detach: bool,
            tty: bool,
        }
        let target = Target::of("/containers", name).then("/exec");
        let made = Made { spec, attach_stdout: true, attach_stderr: true };
        let MadeExec { id } = self.read(Question::post(target).json(&made)).await?;
        let start = Start { detach: false, tty: spec.tty };
        let question = Question::post(Target::of(EXEC, &id).then("/start")).json(&start);
        // As long as the node starts others first.
        let patience = Patience::of(std::time::Duration::from_mins(1));
        let stream = self.upgrade(question.patience(patience)).await?;
        let (output, input) = split(stream);
        let form = if spec.tty { Form::Raw } else { Form::Framed };
        Ok(Exec { id, input: ExecInput(input), output: Output::new(output, form) })
    }

    /// How it is with a command, and its status once it has ended.
    pub async fn inspect_exec(&self, id: &ExecId) -> Result<ExecState, Fault> {
        self.read(Question::get(Target::of(EXEC, id).then("/json"))).await
    }

    /// Tells a command's terminal how large it is.
    pub async fn resize_exec(&self, id: &ExecId, columns: u16, rows: u16) -> Result<(), Fault> {
        let target = Target::of(EXEC, id).then("/resize");
        let target = target.query("w", &columns.to_string()).query("h", &rows.to_string());
        self.does(Question::post(target)).await
    }
}

impl AsyncWrite for ExecInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
