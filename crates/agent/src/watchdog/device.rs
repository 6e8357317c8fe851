//! The device itself: `/dev/watchdog` of the kernel, or in tests a pipe that hears what the device would be told.
//!
//! ```text
//!   open ──► it counts ──[set timeout]──► [keep alive] … ──► V, close: it stops counting
//!                                             └── neither in time, or closed without V: the kernel restarts the host
//! ```

#![expect(unsafe_code, reason = "an ioctl has no safe wrapper")]

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Updater, ioctl, opcode};
use settings::WatchdogDriver;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `WDIOC_SETTIMEOUT`: seconds in, what the driver made of them out.
const SET_TIMEOUT: Opcode = opcode::read_write::<i32>(b'W', 6);
/// `WDIOC_GETTIMEOUT`
const GET_TIMEOUT: Opcode = opcode::read::<i32>(b'W', 7);

/// An open device. Dropped without [`Device::close`] it goes on counting.
pub(super) struct Device {
    file: File,
    driver: WatchdogDriver,
}

impl Device {
    /// Opens it, which is when it begins to count. A pipe that nobody reads is an error, not something to wait for.
    pub(super) fn open(path: &Path, driver: WatchdogDriver) -> io::Result<Device> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        Ok(Device { file, driver })
    }

    /// Sets the time after which it restarts the host; answers with what it made of it.
    pub(super) fn set_timeout(&mut self, seconds: u32) -> io::Result<u32> {
        match self.driver {
            WatchdogDriver::Testing => {
                writeln!(self.file, "Ctimeout={seconds}")?;
                Ok(seconds)
            }
            WatchdogDriver::Default => {
                let mut value = i32::try_from(seconds).unwrap_or(i32::MAX);
                // SAFETY: the kernel reads and writes one int there, as `linux/watchdog.h` says of this request.
                let set = unsafe { ioctl(&self.file, Updater::<SET_TIMEOUT, i32>::new(&mut value)) };
                match set {
                    Ok(()) => {}
                    // A device with a fixed time: it may fit.
                    Err(Errno::OPNOTSUPP | Errno::NOTTY) => {
                        // SAFETY: the kernel writes one int, as `linux/watchdog.h` says of this request.
                        value = unsafe { ioctl(&self.file, Getter::<GET_TIMEOUT, i32>::new()) }?;
                    }
                    Err(error) => return Err(error.into()),
                }
                Ok(u32::try_from(value).unwrap_or_default())
            }
        }
    }

    /// Makes it begin to count anew.
    pub(super) fn keep_alive(&mut self) -> io::Result<()> {
        self.file.write_all(b"1")
    }

    /// Makes it stop counting, where its driver lets it (`nowayout` is off).
    pub(super) fn close(mut self) -> io::Result<()> {
        self.file.write_all(b"V")
    }
}

#[cfg(test)]
mod tests {
    use super::{GET_TIMEOUT, SET_TIMEOUT};

    #[test]
    fn the_requests_have_the_numbers_of_the_kernels_header() {
        assert_eq!((SET_TIMEOUT, GET_TIMEOUT), (0xc004_5706, 0x8004_5707));
    }
}
