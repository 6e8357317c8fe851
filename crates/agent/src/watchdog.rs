//! The kernel's watchdog: it restarts a host that hangs as a whole, so that a primary on it ends before another member leads.
//!
//! ```text
//!   guard armed, we lead ──► open ──► kept alive by every confirmed renewal of the lease ──► guard disarmed ──► closed
//!                              │ fails                  │ fails
//!                              ▼                        ▼
//!            automatic: said, tried again later    required: `Failed`, nothing may be a primary here
//! ```
//! The guard ends a primary whose agent hangs; the watchdog is for the case in which the guard hangs, too. A thread of its own speaks
//! to the device: a driver that hangs delays neither a decision nor a renewal. An agent that dies leaves the device counting.

mod device;
mod plan;

use crate::wake::{Cell, Wake};
use device::Device;
use ha::{Guard, Rules};
use plan::{Plan, plan};
use rustix::fs::Access;
use settings::WatchdogMode;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::oneshot;
use types::Moment;

/// A device that failed is tried again after this time.
const AGAIN: Duration = Duration::from_secs(60);
/// A driver answers within this time, or counts as one that hangs.
const WITHIN: Duration = Duration::from_secs(2);

/// Why the watchdog is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchdogError {
    #[error(transparent)]
    Unsuitable(#[from] plan::Unsuitable),
    #[error("open the watchdog {device}: {source}; let the agent's account write to it")]
    Open { device: PathBuf, source: io::Error },
    #[error("set the timeout of the watchdog {device}: {source}")]
    SetTimeout { device: PathBuf, source: io::Error },
    #[error(
        "use the watchdog {device}: it restarts the host after {actual} s at the soonest, but the lease ends after {ttl} s; raise ttl"
    )]
    TooSlow { device: PathBuf, actual: u32, ttl: u32 },
    #[error("keep the watchdog {device} alive: {source}")]
    KeepAlive { device: PathBuf, source: io::Error },
    #[error("use the watchdog {device}: its driver does not answer")]
    Hangs { device: PathBuf },
}

/// The agent's hold on the device; a cheap clone.
#[derive(Clone)]
pub(crate) struct Watchdog {
    orders: SyncSender<Order>,
    state: Arc<Cell<State>>,
}

/// What the thread that speaks to the device is told.
enum Order {
    Open(Plan, oneshot::Sender<Result<(), WatchdogError>>),
    /// The lease was renewed and ends then.
    KeepAlive(Moment),
    Close(Option<oneshot::Sender<()>>),
}

struct State {
    mode: WatchdogMode,
    wanted: Option<Plan>,
    /// As it was opened.
    active: Option<Plan>,
    /// When it failed last, and whether that was told.
    failed: Option<Moment>,
    said: Option<String>,
    seen: ha::Watchdog,
}

impl Watchdog {
    pub(crate) fn new(wake: Wake) -> io::Result<Watchdog> {
        let state = Arc::new(Cell::new(State {
            mode: WatchdogMode::Off,
            wanted: None,
            active: None,
            failed: None,
            said: None,
            seen: ha::Watchdog::Fine,
        }));
        let (orders, received) = sync_channel(16);
        let keeper = state.clone();
        std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || speak(&received, &keeper, &wake))?;
        Ok(Watchdog { orders, state })
    }

    /// Takes up the settings, and says whether a primary may rely on them.
    pub(crate) fn look(&self, settings: &settings::Watchdog, rules: &Rules) -> ha::Watchdog {
        let planned = plan(settings, rules);
        let changed = self.state.with(|state| {
            let wanted = planned.as_ref().ok().filter(|_| settings.mode != WatchdogMode::Off).cloned();
            state.mode = settings.mode;
            if state.wanted != wanted {
                state.failed = None;
            }
            let changed = state.active.is_some() && state.active != wanted;
            state.wanted = wanted;
            changed
        });
        if changed {
            self.close();
        }
        let problem = match (settings.mode, planned) {
            (WatchdogMode::Off, _) => None,
            (_, Err(unsuitable)) => Some(WatchdogError::from(unsuitable)),
            (_, Ok(plan)) => self.inaccessible(plan),
        };
        let fine = problem.is_none() && !self.failed_lately();
        if let Some(problem) = problem {
            self.say(&problem);
        }
        let seen = match settings.mode {
            WatchdogMode::Required if !fine => ha::Watchdog::Failed,
            WatchdogMode::Required | WatchdogMode::Automatic | WatchdogMode::Off => ha::Watchdog::Fine,
        };
        self.state.with(|state| state.seen = seen);
        seen
    }

    /// Whether a watchdog is required and does not work, as last looked at.
    pub(crate) fn failed(&self) -> bool {
        self.state.with(|state| state.seen == ha::Watchdog::Failed)
    }

    /// A device that could not be opened; opening it for a try would make it count.
    fn inaccessible(&self, plan: Plan) -> Option<WatchdogError> {
        if self.state.with(|state| state.active.is_some()) {
            return None;
        }
        let source = rustix::fs::access(&plan.device, Access::WRITE_OK).err()?;
        Some(WatchdogError::Open { device: plan.device, source: source.into() })
    }

    fn failed_lately(&self) -> bool {
        self.state.with(|state| state.failed.is_some_and(|at| clock::now().since(at) < AGAIN))
    }

    /// Opens the device before PostgreSQL becomes a primary. An error only where it is required.
    pub(crate) async fn activate(&self) -> Result<(), WatchdogError> {
        let (mode, wanted) =
            self.state.with(|state| (state.mode, state.wanted.clone().filter(|_| state.active.is_none())));
        let Some(plan) = wanted else { return Ok(()) };
        let (answer, answered) = oneshot::channel();
        let hangs = || WatchdogError::Hangs { device: plan.device.clone() };
        let sent = self.orders.try_send(Order::Open(plan.clone(), answer)).map_err(|_| hangs());
        let opened = match sent {
            Ok(()) => match tokio::time::timeout(WITHIN, answered).await {
                Ok(Ok(opened)) => opened,
                Ok(Err(_)) | Err(_) => Err(hangs()),
            },
            Err(error) => Err(error),
        };
        match opened {
            Ok(()) => {
                self.state.with(|state| {
                    state.active = Some(plan.clone());
                    state.failed = None;
                    state.said = None;
                });
                let slack = u64::from(plan.timeout).saturating_sub(1);
                tracing::info!(
                    device = %plan.device.display(),
                    "watchdog activated with {} second timeout; a renewal may be {slack} seconds late",
                    plan.timeout
                );
                Ok(())
            }
            Err(error) => {
                self.state.with(|state| state.failed = Some(clock::now()));
                self.say(&error);
                match mode {
                    WatchdogMode::Required => Err(error),
                    WatchdogMode::Automatic | WatchdogMode::Off => Ok(()),
                }
            }
        }
    }

    /// The lease was renewed, is confirmed and ends then.
    pub(crate) fn keep_alive(&self, lease_ends: Moment) {
        if self.state.with(|state| state.active.is_some()) {
            // A full queue is a driver that hangs: it bites, as it must.
            let _ = self.orders.try_send(Order::KeepAlive(lease_ends));
        }
    }

    /// Follows the guard: where that has nothing to end, the host has no reason to be restarted.
    pub(crate) fn follow(&self, guard: Guard, leads: bool) {
        let (active, wanted) = self.state.with(|state| (state.active.is_some(), state.wanted.is_some()));
        match guard {
            Guard::Disarmed if active => self.close(),
            Guard::Armed if leads && wanted && !active && !self.failed_lately() => {
                let watchdog = self.clone();
                // What it says, it says in the log; the next turn sees whether it works.
                tokio::spawn(async move { watchdog.activate().await.is_ok() });
            }
            Guard::Armed | Guard::Disarmed | Guard::Absent => {}
        }
    }

    fn close(&self) {
        self.state.with(|state| state.active = None);
        let _ = self.orders.try_send(Order::Close(None));
    }

    /// Closes the device and waits until that is done, before the agent ends.
    pub(crate) async fn dismiss(&self) {
        self.state.with(|state| state.active = None);
        let (closed, waits) = oneshot::channel();
        if self.orders.try_send(Order::Close(Some(closed))).is_ok() {
            let _ = tokio::time::timeout(WITHIN, waits).await;
        }
    }

    /// Says once what is wrong. Where a watchdog is used only if there is one, its absence is no fault.
    fn say(&self, error: &WatchdogError) {
        let text = error.to_string();
        let (news, required) = self.state.with(|state| {
            let news = state.said.as_ref() != Some(&text);
            state.said = Some(text.clone());
            (news, state.mode == WatchdogMode::Required)
        });
        let absent = matches!(error, WatchdogError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound)
            || matches!(error, WatchdogError::Unsuitable(_));
        match (news, required) {
            (false, _) => {}
            (true, true) => tracing::warn!("Configuration requires watchdog, but the agent failed to {text}"),
            (true, false) if absent => tracing::info!("no watchdog is used: failed to {text}"),
            (true, false) => tracing::warn!("Could not activate the watchdog: failed to {text}"),
        }
    }
}

/// The thread's life.
fn speak(orders: &Receiver<Order>, state: &Cell<State>, wake: &Wake) {
    let mut open: Option<(Device, Plan)> = None;
    while let Ok(order) = orders.recv() {
        match order {
            Order::Open(plan, answer) => {
                if let Some((device, _)) = open.take() {
                    end(device);
                }
                let opened = begin(&plan).map(|device| open = Some((device, plan)));
                let _ = answer.send(opened);
            }
            Order::KeepAlive(ends) => {
                let Some((device, plan)) = &mut open else { continue };
                let bites = clock::now().after(Duration::from_secs(plan.timeout.into()));
                if bites > ends.after(plan.tolerance) {
                    tracing::debug!("a renewal came back too late to keep the watchdog alive by it");
                    continue;
                }
                if let Err(source) = device.keep_alive() {
                    let error = WatchdogError::KeepAlive { device: plan.device.clone(), source };
                    tracing::warn!("failed to {error}");
                    if let Some((device, _)) = open.take() {
                        end(device);
                    }
                    state.with(|state| {
                        state.active = None;
                        state.failed = Some(clock::now());
                    });
                    wake.wake();
                }
            }
            Order::Close(closed) => {
                if let Some((device, _)) = open.take() {
                    end(device);
                    tracing::info!("the watchdog is closed");
                }
                if let Some(closed) = closed {
                    let _ = closed.send(());
                }
            }
        }
    }
}

/// Opens the device and sets its time; it counts from here on.
fn begin(plan: &Plan) -> Result<Device, WatchdogError> {
    let path = || plan.device.clone();
    let opened = Device::open(&plan.device, plan.driver);
    let mut device = opened.map_err(|source| WatchdogError::Open { device: path(), source })?;
    let set = device.set_timeout(plan.timeout);
    let fits = match set {
        Ok(actual) if actual == 0 || (actual > plan.timeout && actual >= plan.ttl) => {
            Err(WatchdogError::TooSlow { device: path(), actual, ttl: plan.ttl })
        }
        Ok(_) => device.keep_alive().map_err(|source| WatchdogError::KeepAlive { device: path(), source }),
        Err(source) => Err(WatchdogError::SetTimeout { device: path(), source }),
    };
    match fits {
        Ok(()) => Ok(device),
        Err(error) => {
            end(device);
            Err(error)
        }
    }
}

fn end(device: Device) {
    if let Err(error) = device.close() {
        tracing::warn!(
            "failed to stop the watchdog: {error}; it restarts this host unless its driver stops it by itself"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::Watchdog;
    use crate::wake::Wake;
    use ha::Guard;
    use rustix::fs::{CWD, FileType, Mode, OFlags};
    use settings::{WatchdogDriver, WatchdogMode};
    use std::io::Read;
    use std::path::Path;
    use std::time::Duration;

    fn settings(device: &Path, mode: WatchdogMode) -> settings::Watchdog {
        settings::Watchdog {
            mode,
            device: device.to_owned(),
            driver: WatchdogDriver::Testing,
            safety_margin: -1,
        }
    }

    fn read(pipe: &mut std::fs::File) -> String {
        let mut heard = [0_u8; 256];
        let length = pipe.read(&mut heard).unwrap_or_default();
        String::from_utf8_lossy(&heard[..length]).into_owned()
    }

    #[tokio::test]
    async fn it_hears_of_renewals_that_are_in_time_and_of_a_wanted_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dog");
        let watchdog = Watchdog::new(Wake::default()).unwrap();
        let rules = crate::observe::tests::rules();
        let required = settings(&path, WatchdogMode::Required);
        assert_eq!(watchdog.look(&required, &rules), ha::Watchdog::Failed, "there is no device");
        assert_eq!(watchdog.look(&settings(&path, WatchdogMode::Automatic), &rules), ha::Watchdog::Fine);

        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(watchdog.look(&required, &rules), ha::Watchdog::Fine);
        assert!(watchdog.activate().await.is_err(), "nobody is there to hear it");
        assert!(watchdog.failed() || watchdog.look(&required, &rules) == ha::Watchdog::Failed);

        let mut pipe = std::fs::File::from(
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap(),
        );
        watchdog.activate().await.unwrap();
        assert_eq!(read(&mut pipe), "Ctimeout=2\n1");
        assert_eq!(watchdog.look(&required, &rules), ha::Watchdog::Fine);
        let now = clock::now();
        watchdog.keep_alive(now.after(Duration::from_secs(1)));
        watchdog.keep_alive(now.after(Duration::from_secs(60)));
        watchdog.follow(Guard::Armed, true);
        watchdog.follow(Guard::Disarmed, false);
        watchdog.dismiss().await;
        assert_eq!(read(&mut pipe), "1V", "the first of the two renewals came back too late");
    }
}
