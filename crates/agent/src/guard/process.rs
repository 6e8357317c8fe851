//! The guard's own process.

#![expect(unsafe_code, reason = "mlockall, sched_setscheduler and signal dispositions have no safe wrapper")]

use super::kill;
use super::memory::{Board, Shared};
use rustix::process::Signal;
use rustix::thread::futex;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// While armed, the deadline is looked at this often at least: a suspended host does not count this sleep.
const GLANCE: Duration = Duration::from_millis(50);
/// While disarmed.
const NAP: Duration = Duration::from_secs(5);

/// Runs the guard on the memory at `path`. Called before any thread or runtime exists.
#[must_use]
pub fn main(path: &Path) -> ExitCode {
    let Ok(shared) = Shared::open(path) else {
        say(b"baton guard: failed to open its memory\n");
        return ExitCode::FAILURE;
    };
    // Before the agent sees that it is there, and counts on it.
    harden();
    if !shared.claim() {
        return ExitCode::SUCCESS; // there is one already
    }
    // Once now, without a signal: the pages of this path are in memory when they are needed.
    let _ = kill::round(shared.board(), None);
    shared.board().firing.store(0, Ordering::Release);
    watch(shared.board());
    ExitCode::SUCCESS
}

fn watch(board: &Board) {
    loop {
        let armed = board.armed.load(Ordering::Acquire) == 1;
        if armed && now() >= board.deadline.load(Ordering::Acquire) {
            fire(board);
            continue;
        }
        if board.dismissed.load(Ordering::Acquire) == 1 || (!armed && !agent_lives(board)) {
            return;
        }
        let rest = if armed {
            GLANCE.min(Duration::from_millis(board.deadline.load(Ordering::Acquire).saturating_sub(now())))
        } else {
            NAP
        };
        sleep(board, u32::from(armed), rest);
    }
}

/// The deadline has passed: end every process of PostgreSQL. Disarmed only when none is left.
fn fire(board: &Board) {
    say(b"baton guard: the deadline has passed and PostgreSQL may still be a primary: killing it\n");
    board.firing.store(now(), Ordering::Release);
    kill::family(board);
    let mut rounds = 0_u32;
    while kill::round(board, Some(Signal::KILL)) > 0 {
        rounds = rounds.saturating_add(1);
        if rounds == 1000 {
            say(b"baton guard: processes of PostgreSQL do not end (uninterruptible sleep?); going on\n");
        }
        sleep(board, 1, Duration::from_millis(if rounds < 20 { 2 } else { 20 }));
    }
    board.fired.store(now(), Ordering::Release);
    board.firing.store(0, Ordering::Release);
    board.armed.store(0, Ordering::Release);
    say(b"baton guard: no process of PostgreSQL is left\n");
}

fn sleep(board: &Board, while_armed_is: u32, rest: Duration) {
    let rest = rustix::time::Timespec {
        tv_sec: rest.as_secs().try_into().unwrap_or(1),
        tv_nsec: rest.subsec_nanos().into(),
    };
    // Woken, timed out, interrupted, or the word has changed: in every case the loop looks again.
    let _ = futex::wait(&board.armed, futex::Flags::empty(), while_armed_is, Some(&rest));
}

fn agent_lives(board: &Board) -> bool {
    let pid = board.agent.load(Ordering::Acquire);
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    match rustix::process::test_kill_process(pid) {
        Ok(()) => true,
        Err(errno) => errno == rustix::io::Errno::PERM,
    }
}

fn now() -> u64 {
    clock::now().0
}

/// Everything that keeps this process able to act, as far as the system allows it.
fn harden() {
    let _ = rustix::process::setsid(); // no terminal's signals
    // SAFETY: plain system calls without pointers into our memory, or with pointers to values that live during the call.
    unsafe {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE, libc::SIGUSR1, libc::SIGUSR2]
        {
            libc::signal(signal, libc::SIG_IGN); // it ends by its memory's word only
        }
        if libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) != 0 {
            libc::mlockall(libc::MCL_CURRENT);
        }
        // An account that is not root gets as much as LimitRTPRIO allows; 1 is before everything that is not real-time.
        let real_time = [10, 1].into_iter().any(|priority| {
            let priority: libc::c_int = priority;
            // The call itself: musl's function of that name only refuses. The kernel's structure is this one number.
            libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &raw const priority) == 0
        });
        if !real_time {
            libc::setpriority(libc::PRIO_PROCESS, 0, -20);
        }
    }
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
}

/// One line to the log that the agent gave us, without allocating.
fn say(text: &[u8]) {
    let _ = rustix::io::write(rustix::stdio::stderr(), text);
}
