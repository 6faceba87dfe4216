//! Pseudo-terminals: the one file here with `unsafe`, because a shell needs its terminal as
//! *controlling* terminal, which can only be arranged in the child itself, and because a terminal's
//! size has no safe call.

#![allow(
    unsafe_code,
    reason = "a hook between fork and exec and two ioctls, which no safe interface covers"
)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::OFlag;
use nix::libc;
use nix::pty::{Winsize, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{
    InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices as Key, Termios,
    tcgetattr, tcsetattr,
};
use nix::unistd::setsid;

use crate::ssh::connection::Pty;

/// The number in a pty-req that means "this key does nothing" (RFC 4254 §8).
const NO_KEY: u32 = 255;

/// Both ends of a pseudo-terminal, close-on-exec; the master does not block.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) master: File,
    slave: File,
    /// For `SSH_TTY`.
    pub(super) path: PathBuf,
    pub(super) term: String,
}

impl Terminal {
    /// Opens one as the client describes it.
    pub(super) fn open(pty: &Pty) -> io::Result<Self> {
        // openpty(3) has no close-on-exec: a child spawned at this moment would keep
        // the terminal open.
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let master = posix_openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = PathBuf::from(ptsname_r(&master)?);
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits())
            .open(&path)?;
        let mut modes = tcgetattr(&slave)?;
        for (opcode, value) in &pty.modes {
            set_mode(&mut modes, *opcode, *value);
        }
        tcsetattr(&slave, SetArg::TCSANOW, &modes)?;
        let master = File::from(OwnedFd::from(master));
        resize(&master, pty.columns, pty.rows)?;
        Ok(Self { master, slave, path, term: pty.term.clone() })
    }

    /// Makes it the controlling terminal, standard input, output and error of `command`, whose
    /// process leads a session of its own. Returns the master; drop `command` once it runs, for it
    /// holds the other end.
    pub(super) fn attach(self, command: &mut Command) -> io::Result<File> {
        command.stdin(self.slave.try_clone()?);
        command.stdout(self.slave.try_clone()?);
        command.stderr(self.slave);
        let hook = || {
            setsid()?;
            for signal in [libc::SIGINT, libc::SIGQUIT] {
                // SAFETY: sets a disposition of this process and touches no memory. Started in
                // the background we may ignore these, and a shell cannot trap what it was
                // started to ignore.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            // SAFETY: TIOCSCTTY takes an integer and touches no memory. Descriptor 0 is the
            // terminal by now.
            let failed = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } != 0;
            if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: between fork and exec the hook makes system calls alone; it takes no lock and
        // allocates nothing (an error made from an errno does not either).
        unsafe { command.pre_exec(hook) };
        Ok(self.master)
    }
}

/// Tells the terminal, and through it the program on it, its size in characters.
pub(super) fn resize(master: &File, columns: u32, rows: u32) -> io::Result<()> {
    let cells = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    let size = Winsize { ws_row: cells(rows), ws_col: cells(columns), ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open while `master` is borrowed, and TIOCSWINSZ reads one winsize,
    // which `size` is.
    let failed = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Applies one terminal mode (RFC 4254 §8). Opcodes that Linux does not have, and
/// speeds, change nothing.
fn set_mode(modes: &mut Termios, opcode: u8, value: u32) {
    let key = match opcode {
        1 => Some(Key::VINTR),
        2 => Some(Key::VQUIT),
        3 => Some(Key::VERASE),
        4 => Some(Key::VKILL),
        5 => Some(Key::VEOF),
        6 => Some(Key::VEOL),
        7 => Some(Key::VEOL2),
        8 => Some(Key::VSTART),
        9 => Some(Key::VSTOP),
        10 => Some(Key::VSUSP),
        12 => Some(Key::VREPRINT),
        13 => Some(Key::VWERASE),
        14 => Some(Key::VLNEXT),
        _ => None,
    };
    if let Some(key) = key {
        let byte = if value == NO_KEY { 0 } else { u8::try_from(value).unwrap_or(0) };
        modes.control_chars[key as usize] = byte;
        return;
    }
    let on = value != 0;
    let input = match opcode {
        30 => InputFlags::IGNPAR,
        31 => InputFlags::PARMRK,
        32 => InputFlags::INPCK,
        33 => InputFlags::ISTRIP,
        34 => InputFlags::INLCR,
        35 => InputFlags::IGNCR,
        36 => InputFlags::ICRNL,
        38 => InputFlags::IXON,
        39 => InputFlags::IXANY,
        40 => InputFlags::IXOFF,
        41 => InputFlags::IMAXBEL,
        42 => InputFlags::IUTF8,
        _ => InputFlags::empty(),
    };
    modes.input_flags.set(input, on);
    let local = match opcode {
        50 => LocalFlags::ISIG,
        51 => LocalFlags::ICANON,
        53 => LocalFlags::ECHO,
        54 => LocalFlags::ECHOE,
        55 => LocalFlags::ECHOK,
        56 => LocalFlags::ECHONL,
        57 => LocalFlags::NOFLSH,
        58 => LocalFlags::TOSTOP,
        59 => LocalFlags::IEXTEN,
        60 => LocalFlags::ECHOCTL,
        61 => LocalFlags::ECHOKE,
        62 => LocalFlags::PENDIN,
        _ => LocalFlags::empty(),
    };
    modes.local_flags.set(local, on);
    let output = match opcode {
        70 => OutputFlags::OPOST,
        72 => OutputFlags::ONLCR,
        73 => OutputFlags::OCRNL,
        74 => OutputFlags::ONOCR,
        75 => OutputFlags::ONLRET,
        _ => OutputFlags::empty(),
    };
    modes.output_flags.set(output, on);
}
