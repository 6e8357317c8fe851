//! What a host lacks on which the kernel gives the router no io_uring, and what to do about it.

use std::io;

/// 1 allows it to a group, 2 to nobody. Since Linux 6.6, and on many older kernels of distributions.
const DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

/// The error of the kernel in the words of who can change something.
pub(crate) fn lacking(error: &io::Error) -> String {
    // Where it is not, no setting of the kernel forbids it.
    let disabled = std::fs::read_to_string(DISABLED).unwrap_or_default();
    format!("{error}: {}", advice(error, disabled.trim()))
}

fn advice(error: &io::Error, disabled: &str) -> &'static str {
    match (error.raw_os_error(), disabled) {
        (Some(libc::EPERM), "2") => "kernel.io_uring_disabled is 2, which forbids it to all: set it to 0",
        (Some(libc::EPERM), "1") => {
            "kernel.io_uring_disabled is 1: set it to 0, or put the router's user into the group of kernel.io_uring_group"
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "the unit or the container forbids it: allow io_uring_setup and io_uring_enter (SystemCallFilter of the unit, seccomp profile of \
             the container)"
        }
        (Some(libc::ENOSYS), _) => {
            "the kernel was built without it, or the container hides it: allow io_uring_setup and io_uring_enter in its seccomp profile"
        }
        (Some(libc::EINVAL), _) => "the kernel is too old: it has to be Linux 6.1 or newer",
        (Some(libc::ENOMEM), _) => {
            "there is too little memory for it: raise the limit of the unit or the container"
        }
        _ => "see kernel.io_uring_disabled, and the system calls that the unit or the container allows",
    }
}

#[cfg(test)]
mod tests {
    use super::{advice, lacking};
    use std::io;

    #[test]
    fn it_says_who_forbids_it_and_how_to_allow_it() {
        for (error, disabled, told) in [
            (libc::EPERM, "2", "kernel.io_uring_disabled is 2"),
            (libc::EPERM, "1", "kernel.io_uring_group"),
            (libc::EPERM, "0", "seccomp"),
            (libc::EPERM, "", "SystemCallFilter"),
            (libc::ENOSYS, "0", "built without"),
            (libc::EINVAL, "0", "Linux 6.1"),
            (libc::ENOMEM, "0", "memory"),
            (libc::EMFILE, "0", "see"),
        ] {
            let error = io::Error::from_raw_os_error(error);
            assert!(advice(&error, disabled).contains(told), "{error}");
            assert!(lacking(&error).starts_with(&format!("{error}: ")));
        }
    }
}
