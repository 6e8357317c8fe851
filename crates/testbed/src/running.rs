//! A process of a test.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A process that is killed when the test ends.
pub struct Running(pub Child);

impl Running {
    /// Starts it; what it says goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Running {
        let log = File::create(log).expect("create the log of a process");
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().expect("share a log")).stderr(log);
        Running(command.spawn().expect("start a process"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
