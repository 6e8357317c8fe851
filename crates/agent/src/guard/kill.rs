//! Killing every PostgreSQL process of a data directory. Reads /proc only, allocates nothing.
//!
//! All of PostgreSQL's processes have the data directory as their working directory. The postmaster goes first, so that nothing new is
//! forked; then all are killed in rounds until a round finds none. A zombie has no working directory any more and counts as gone.
//!
//! Reading all of /proc takes a millisecond or more, in which a backend could answer a client. So the children of the postmaster that
//! the agent has named, which are all backends, are killed first: that is one short file.

use super::memory::Board;
use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::process::{Pid, Signal};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

/// One round: signals all that are found, and says how many there were.
pub(super) fn round(board: &Board, signal: Option<Signal>) -> usize {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(proc) = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty()) else { return 0 };
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let mut entries = RawDir::new(&proc, &mut buffer);
    let mut found = 0;
    while let Some(Ok(entry)) = entries.next() {
        let Some(pid) = pid(entry.file_name()) else { continue };
        if !works_in(board, &proc, entry.file_name()) {
            continue;
        }
        found += 1;
        if let Some(signal) = signal {
            // Gone in between, or not ours: the next round sees.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
    found
}

/// Kills the children of the known postmaster, then itself. What is missed, the rounds find.
pub(super) fn family(board: &Board) {
    let postmaster = board.postmaster.load(Ordering::Acquire);
    let Some(postmaster) = i32::try_from(postmaster).ok().and_then(Pid::from_raw) else { return };
    let mut name = [0_u8; 12];
    let Some(name) = digits(postmaster.as_raw_pid(), &mut name) else { return };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(proc) = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty()) else { return };
    // The number may be somebody else's by now.
    if !works_in(board, &proc, name) {
        return;
    }
    let Ok(own) = rustix::fs::openat(&proc, name, flags, Mode::empty()) else { return };
    let Ok(task) = rustix::fs::openat(&own, c"task", flags, Mode::empty()) else { return };
    let Ok(thread) = rustix::fs::openat(&task, name, flags, Mode::empty()) else { return };
    // Kernels without CONFIG_PROC_CHILDREN do not have it.
    if let Ok(children) =
        rustix::fs::openat(&thread, c"children", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    {
        kill_listed(&children);
    }
    let _ = rustix::process::kill_process(postmaster, Signal::KILL);
}

/// Kills the processes whose numbers are in this file, separated by spaces.
fn kill_listed(list: &impl std::os::fd::AsFd) {
    let mut buffer = [0_u8; 4096];
    let mut number: i32 = 0;
    while let Ok(length) = rustix::io::read(list, &mut buffer) {
        if length == 0 {
            return;
        }
        for byte in buffer.get(..length).unwrap_or_default() {
            if byte.is_ascii_digit() {
                number = number.saturating_mul(10).saturating_add(i32::from(byte - b'0'));
            } else {
                if let Some(pid) = Pid::from_raw(number) {
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                }
                number = 0;
            }
        }
    }
}

/// A number as text, without allocating.
fn digits(number: i32, room: &mut [u8; 12]) -> Option<&CStr> {
    let mut rest = u32::try_from(number).ok()?;
    let mut at = room.len() - 1;
    loop {
        at = at.checked_sub(1)?;
        *room.get_mut(at)? = b'0' + u8::try_from(rest % 10).ok()?;
        rest /= 10;
        if rest == 0 {
            return CStr::from_bytes_with_nul(room.get(at..)?).ok();
        }
    }
}

/// Whether the process named by this entry of /proc works in the data directory.
fn works_in(board: &Board, proc: &impl std::os::fd::AsFd, name: &CStr) -> bool {
    let mut path = [0_u8; 32];
    let digits = name.to_bytes();
    let Some(room) = path.get_mut(..digits.len()) else { return false };
    room.copy_from_slice(digits);
    let Some(rest) = path.get_mut(digits.len()..digits.len() + 5) else { return false };
    rest.copy_from_slice(b"/cwd\0");
    let Ok(path) = CStr::from_bytes_until_nul(&path) else { return false };
    let mut target = [MaybeUninit::<u8>::uninit(); super::memory::PATH_MAX + 1];
    let Ok((target, _)) = rustix::fs::readlinkat_raw(proc, path, &mut target) else { return false };
    let mut ended = [0_u8; super::memory::PATH_MAX + 1];
    match ended.get_mut(..target.len()) {
        Some(room) if target.len() < super::memory::PATH_MAX => room.copy_from_slice(target),
        Some(_) | None => return false,
    }
    CStr::from_bytes_until_nul(&ended).is_ok_and(|path| board.is_data_dir(path))
}

fn pid(name: &CStr) -> Option<Pid> {
    let mut number: i32 = 0;
    for byte in name.to_bytes() {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(i32::from(byte - b'0'))?;
    }
    Pid::from_raw(number)
}

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn numbers_are_written_as_proc_writes_them() {
        for number in [1, 9, 10, 4242, i32::MAX] {
            let mut room = [0; 12];
            assert_eq!(digits(number, &mut room).unwrap().to_str().unwrap(), number.to_string());
        }
        assert_eq!(digits(-1, &mut [0; 12]), None);
    }
}
