//! What the settings ask of the watchdog, and whether that is safe.
//!
//! ```text
//!   last renewal sent ├────────── timeout ──────────┤── safety_margin ──┤ the lease ends
//!                     ├─ rest between renewals ─┤1 s┤
//! ```

use ha::Rules;
use settings::WatchdogDriver;
use std::path::PathBuf;
use std::time::Duration;

/// A renewal that comes back late is no reason to restart the host.
const LATE: Duration = Duration::from_secs(1);

/// How the device is to be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    pub device: PathBuf,
    pub driver: WatchdogDriver,
    /// Seconds without a renewal after which the host is restarted.
    pub timeout: u32,
    pub ttl: u32,
    /// The device bites at most so long after the end of the lease.
    pub tolerance: Duration,
}

/// The settings do not fit each other.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "use the watchdog: ttl {ttl} and watchdog.safety_margin {margin} leave {timeout} s after which it restarts the host, but a healthy leader \
     may need {least:?} between two renewals; raise ttl, or set watchdog.safety_margin to -1, which is half of ttl"
)]
pub(crate) struct Unsuitable {
    ttl: u64,
    margin: i64,
    timeout: u64,
    least: Duration,
}

/// What these settings come to.
pub(super) fn plan(settings: &settings::Watchdog, rules: &Rules) -> Result<Plan, Unsuitable> {
    let ttl = rules.ttl.as_secs();
    let margin = u64::try_from(settings.safety_margin);
    let timeout = margin.map_or(ttl / 2, |margin| ttl.saturating_sub(margin));
    let least = rules.loop_wait.max(rules.renew_every() + LATE);
    if Duration::from_secs(timeout) < least {
        return Err(Unsuitable { ttl, margin: settings.safety_margin, timeout, least });
    }
    let short = |seconds: u64| u32::try_from(seconds).unwrap_or(u32::MAX);
    Ok(Plan {
        device: settings.device.clone(),
        driver: settings.driver,
        timeout: short(timeout),
        ttl: short(ttl),
        tolerance: if ttl > timeout { Duration::ZERO } else { LATE },
    })
}

#[cfg(test)]
mod tests {
    use super::plan;
    use settings::{Watchdog, WatchdogDriver, WatchdogMode};
    use std::time::Duration;

    fn timeout(ttl: u64, loop_wait: u64, safety_margin: i64) -> Result<u32, String> {
        let watchdog = Watchdog {
            mode: WatchdogMode::Required,
            device: "/dev/watchdog".into(),
            driver: WatchdogDriver::Default,
            safety_margin,
        };
        let mut rules = crate::observe::tests::rules();
        rules.ttl = Duration::from_secs(ttl);
        rules.loop_wait = Duration::from_secs(loop_wait);
        plan(&watchdog, &rules).map(|plan| plan.timeout).map_err(|error| error.to_string())
    }

    #[test]
    fn the_device_bites_before_the_lease_ends_and_not_before_a_healthy_leader_renews() {
        assert_eq!(timeout(30, 10, 5), Ok(25));
        assert_eq!(timeout(30, 10, -1), Ok(15));
        assert_eq!(timeout(30, 10, 0), Ok(30));
        assert_eq!(timeout(5, 1, -1), Ok(2));
        let refused = timeout(5, 1, 5).unwrap_err();
        assert!(refused.contains("ttl 5 and watchdog.safety_margin 5 leave 0 s"), "{refused}");
        assert!(timeout(20, 10, 11).is_err(), "shorter than loop_wait");
    }
}
