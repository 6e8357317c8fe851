//! The memory that agent and guard share.
//!
//! All fields are atomics with a meaning of their own; none is ever torn, and no order between two fields is relied on but one: the
//! deadline is stored before `armed`.

#![expect(unsafe_code, reason = "a shared mapping is made of a file; all access goes through atomics")]

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Raised when a field is moved or changes its meaning; it is part of the file's name, so two versions never share a file.
const LAYOUT: u32 = 2;
/// The longest path of a data directory that can be guarded.
pub(super) const PATH_MAX: usize = 1024;

/// What is in the memory. Zero means: nothing yet.
#[repr(C)]
pub(super) struct Board {
    /// 1 while the deadline is to be enforced. Also the word on which the guard sleeps.
    pub(super) armed: AtomicU32,
    /// The agent's process, 0 after a clean end.
    pub(super) agent: AtomicU32,
    /// Milliseconds on CLOCK_BOOTTIME.
    pub(super) deadline: AtomicU64,
    /// The term the deadline belongs to.
    pub(super) term: AtomicI64,
    /// The agent's lease, for an agent that is started again.
    pub(super) lease: AtomicI64,
    /// The lease's time to live in seconds.
    pub(super) ttl: AtomicU32,
    /// 1 when the guard shall end.
    pub(super) dismissed: AtomicU32,
    /// When the guard last killed, on the same clock; 0 for never.
    pub(super) fired: AtomicU64,
    /// Since when it kills and processes are left, on the same clock; 0 for not now.
    pub(super) firing: AtomicU64,
    /// The postmaster, whose children go first; 0 while it is not known.
    pub(super) postmaster: AtomicU32,
    /// The length of `data_dir`.
    pub(super) data_dir_length: AtomicU32,
    /// The canonical path of the data directory.
    pub(super) data_dir: [AtomicU8; PATH_MAX],
}

/// The mapped memory.
pub(super) struct Shared {
    board: &'static Board,
    file: OwnedFd,
}

impl Shared {
    /// The file for a data directory.
    pub(super) fn path(data_dir: &Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        // FNV-1a: stable between builds, unlike the standard library's hashers.
        let hash = data_dir.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let uid = rustix::process::getuid().as_raw();
        PathBuf::from(format!("/dev/shm/baton-guard-{LAYOUT}-{uid}-{hash:016x}"))
    }

    /// Opens, and makes if need be, the memory at `path`. Nobody but this user can read or write it.
    pub(super) fn open(path: &Path) -> Result<Shared, rustix::io::Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
        let stat = rustix::fs::fstat(&file)?;
        if stat.st_uid != rustix::process::getuid().as_raw() {
            return Err(rustix::io::Errno::PERM);
        }
        rustix::fs::ftruncate(&file, size_of::<Board>() as u64)?;
        // SAFETY: a new mapping, of a file that is at least as long as the board and is never shortened; it is never unmapped, so the
        // reference is good for ever; all fields are atomics, for which every bit pattern is valid.
        let board = unsafe {
            let at = rustix::mm::mmap(
                std::ptr::null_mut(),
                size_of::<Board>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )?;
            &*at.cast::<Board>()
        };
        Ok(Shared { board, file })
    }

    pub(super) fn board(&self) -> &'static Board {
        self.board
    }

    /// Takes the lock that says "a guard lives". Whether it was free.
    pub(super) fn claim(&self) -> bool {
        rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Whether a guard holds the lock. Taken and given back when it is free.
    pub(super) fn guarded(path: &Path) -> bool {
        let Ok(file) = File::open(path) else { return false };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => false,
            Err(errno) => errno == rustix::io::Errno::WOULDBLOCK,
        }
    }
}

impl Board {
    pub(super) fn set_data_dir(&self, path: &[u8]) {
        for (slot, byte) in self.data_dir.iter().zip(path) {
            slot.store(*byte, Ordering::Relaxed);
        }
        self.data_dir_length.store(path.len().min(PATH_MAX) as u32, Ordering::Release);
    }

    /// Whether this path is the data directory. Allocates nothing.
    pub(super) fn is_data_dir(&self, path: &CStr) -> bool {
        let bytes = path.to_bytes();
        let length = self.data_dir_length.load(Ordering::Acquire) as usize;
        length > 0
            && bytes.len() == length
            && self.data_dir.iter().zip(bytes).all(|(slot, byte)| slot.load(Ordering::Relaxed) == *byte)
    }
}
