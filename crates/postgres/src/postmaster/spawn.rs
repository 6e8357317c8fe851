//! Starting a process that is nobody's child.
//!
//!     agent ──fork──> in between ──fork──> postmaster: new session, no inherited descriptors, not too late, exec
//!       │ <── its id through a pipe ─┘ exits, is reaped; init adopts the postmaster
//!
//! The death of the agent, a Ctrl-C at its terminal or the end of its session therefore never reach PostgreSQL.
#![expect(unsafe_code, reason = "no safe interface forks twice; each block says why it is sound")]

use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use types::Moment;

/// Starts `command` detached and answers with its process id once its program runs. A program that cannot be
/// executed is an error here, and nothing is left of it. At `not_after` or later it is not executed ([`is_too_late`]):
/// the last look at the clock is the new process's own, as the one that starts it may stand still at any point before.
pub(super) fn detached(mut command: Command, not_after: Option<Moment>) -> io::Result<u32> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: the closure runs in a forked child of a process with threads; `step_out` only makes system calls.
    unsafe { command.pre_exec(move || step_out(&writer, not_after)) };
    let mut in_between = command.spawn()?;
    in_between.wait()?;
    // The closure owns the writing end; without it the read below would wait for ever if nothing was written.
    drop(command);
    let mut id = [0u8; 4];
    File::from(reader).read_exact(&mut id)?;
    Ok(u32::from_ne_bytes(id))
}

/// Whether the program was not executed because its time had passed.
pub(super) fn is_too_late(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ETIMEDOUT)
}

fn step_out(writer: &OwnedFd, not_after: Option<Moment>) -> io::Result<()> {
    // SAFETY: the caller is the only thread of this process; both sides go on with system calls only.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            rustix::process::setsid()?;
            drop_capabilities();
            close_on_exec();
            if not_after.is_some_and(|end| clock::now() >= end) {
                // A number is all that gets to the agent.
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            Ok(())
        }
        child => {
            tell(writer.as_fd(), child);
            // SAFETY: ends this process without running anything that belongs to the agent it is a copy of.
            unsafe { libc::_exit(0) }
        }
    }
}

fn tell(writer: BorrowedFd<'_>, child: libc::pid_t) {
    // Four bytes fit into an empty pipe; if they do not get there, the agent reads an early end.
    let _seen_by_the_reader = rustix::io::write(writer, &child.to_ne_bytes());
}

/// What the service manager gave the agent for its addresses is not for PostgreSQL, nor for what runs inside it.
fn drop_capabilities() {
    // SAFETY: changes a set of this process, which is about to exec.
    // Kernels before 4.3 do not know it, and have no capabilities that are inherited so.
    let _unknown_to_old_kernels =
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
}

/// Marks every descriptor but the standard ones to be closed by exec: also those that the agent was itself given,
/// such as sockets or locks of its service manager, must not stay open for as long as PostgreSQL runs.
fn close_on_exec() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: changes flags of descriptors of this process, which is about to exec.
    // Kernels before 5.11 do not know it; Baton's own descriptors are closed there as well.
    let _unknown_to_old_kernels =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

#[cfg(test)]
mod tests {
    use super::{detached, is_too_late};
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn a_missing_program_is_an_error() {
        let error = detached(Command::new("/var/empty/postgres"), None).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn a_program_whose_time_has_passed_does_not_begin() {
        let begun = std::env::temp_dir().join(format!("baton-spawn-{}", std::process::id()));
        let touch = || {
            let mut command = Command::new("touch");
            command.arg(&begun);
            command
        };
        let now = clock::now();
        let error = detached(touch(), Some(now)).unwrap_err();
        assert!(is_too_late(&error), "{error}");
        assert!(!begun.exists());
        let pid = detached(touch(), Some(now.after(Duration::from_secs(60)))).unwrap();
        // Nobody's child, so nobody here can wait for it.
        let end = now.after(Duration::from_secs(30));
        while !begun.exists() {
            assert!(clock::now() < end, "process {pid} does not begin");
            std::thread::yield_now();
        }
        std::fs::remove_file(&begun).unwrap();
    }
}
