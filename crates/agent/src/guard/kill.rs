//! Killing every PostgreSQL process of a data directory. Reads /proc only, allocates nothing.
//!
//! All of PostgreSQL's processes have the data directory as their working directory. The postmaster goes first, so that nothing new is
//! forked; then all are killed in rounds until a round finds none. A zombie has no working directory any more and counts as gone.

use super::memory::Board;
use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::process::{Pid, Signal};
use std::ffi::CStr;
use std::mem::MaybeUninit;

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
