//! The guard on a host that has no memory left: a control group with little of it, and somebody in it who wants all.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up fails")]

use agent::guard::Warden;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use testbed::Running;
use types::Term;

/// A control group with a limit of memory; its processes are killed and it is removed when dropped.
struct Tight(PathBuf);

impl Tight {
    fn make(megabytes: u64) -> Tight {
        let first = Path::new("/sys/fs/cgroup/memory");
        let name = format!("baton-guard-{}", std::process::id());
        let (group, limit) = if first.exists() {
            (first.join(name), "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup").join(name), "memory.max")
        };
        fs::create_dir(&group).expect("make a control group with a limit of memory, as root");
        let tight = Tight(group);
        fs::write(tight.0.join(limit), (megabytes << 20).to_string())
            .expect("limit the memory of a control group");
        tight
    }

    /// A command by which a shell goes into it and becomes a program.
    fn run(&self, program: &str) -> String {
        format!("echo $$ > {}/cgroup.procs && exec {program}", self.0.display())
    }
}

fn shell(script: &str) -> Running {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running(shell.process_group(0).spawn().unwrap())
}

impl Drop for Tight {
    fn drop(&mut self) {
        let end = clock::now().after(Duration::from_secs(20));
        while fs::remove_dir(&self.0).is_err() && clock::now() < end {
            for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
                let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
                if let Some(pid) = pid {
                    let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            pause();
        }
    }
}

fn pause() {
    let wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
    let mut nothing: [rustix::event::PollFd<'_>; 0] = [];
    let _ = rustix::event::poll(&mut nothing, Some(&wait));
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = clock::now().after(Duration::from_secs(30));
    while !holds() {
        assert!(clock::now() < end, "waited in vain for {what}");
        pause();
    }
}

/// What makes a shell, and all that it starts, the kernel's first choice, where the guard may not be spared for want of CAP_SYS_RESOURCE: it
/// could be killed instead while the memory of a hog that was is not free yet. Elsewhere nothing, once the guard is spared.
fn first_to_go(guard: &Child) -> &'static str {
    let mut spares = Command::new("sh");
    spares.args(["-c", "echo -1000 > /proc/self/oom_score_adj"]).stderr(Stdio::null());
    if !spares.status().unwrap().success() {
        return "echo 1000 > /proc/self/oom_score_adj;";
    }
    let score = format!("/proc/{}/oom_score_adj", guard.id());
    until("the guard to be spared", || fs::read_to_string(&score).is_ok_and(|score| score.trim() == "-1000"));
    ""
}

#[test]
fn without_memory_the_guard_still_kills_in_time() {
    let data = tempfile::tempdir().unwrap();
    let warden = Warden::open(data.path()).unwrap();
    let tight = Tight::make(24);
    let baton = env!("CARGO_BIN_EXE_baton");
    let mut guard = shell(&tight.run(&format!("{baton} guard {}", warden.memory().display())));
    until("a guard", || format!("{:?}", warden.state()) == "Disarmed");
    // What the guard takes for PostgreSQL is what works in the data directory.
    let mut primary = Running(Command::new("sleep").arg("1000").current_dir(data.path()).spawn().unwrap());
    // So many that there is one to choose while others end.
    let hog = format!("{} while :; do sh -c '{}'; done", first_to_go(&guard.0), tight.run("tail /dev/zero"));
    let hogs: Vec<Running> = (0..4).map(|_| shell(&hog)).collect();
    let deadline = clock::now().after(Duration::from_secs(2));
    assert!(warden.arm(Term(7), deadline));
    until("the end of the primary", || primary.0.try_wait().unwrap().is_some());
    let late = clock::now().since(deadline);
    println!("the guard killed {late:?} after the deadline");
    assert!(clock::now() >= deadline, "not before its time");
    assert!(late < Duration::from_secs(2), "{late:?} late");
    until("the guard to rest", || format!("{:?}", warden.state()) == "Disarmed");
    assert!(warden.fired().is_some() && warden.firing().is_none());
    assert!(guard.0.try_wait().unwrap().is_none(), "it lives");
    drop(hogs);
    warden.dismiss();
    until("the end of the guard", || guard.0.try_wait().unwrap().is_some());
    drop(tight);
}
