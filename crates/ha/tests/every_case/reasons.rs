//! All reasons there are, read from the sources of the duties.

const SOURCES: [(&str, &str); 19] = [
    ("not fenced", include_str!("../../src/duties/not_fenced.rs")),
    ("need health", include_str!("../../src/duties/need_health.rs")),
    ("live on", include_str!("../../src/duties/live_on.rs")),
    ("keep deadline", include_str!("../../src/duties/keep_deadline.rs")),
    ("wait for job", include_str!("../../src/duties/wait_for_job.rs")),
    ("carry out order", include_str!("../../src/duties/carry_out_order.rs")),
    ("stand still", include_str!("../../src/duties/stand_still.rs")),
    ("need watchdog", include_str!("../../src/duties/need_watchdog.rs")),
    ("refuse foreign data", include_str!("../../src/duties/refuse_foreign_data.rs")),
    ("survive without etcd", include_str!("../../src/duties/survive_without_etcd.rs")),
    ("bootstrap or clone", include_str!("../../src/duties/bootstrap_or_clone.rs")),
    ("step aside", include_str!("../../src/duties/step_aside.rs")),
    ("keep schedule", include_str!("../../src/duties/keep_schedule.rs")),
    ("recover", include_str!("../../src/duties/recover.rs")),
    ("lead standby cluster", include_str!("../../src/duties/lead_standby_cluster.rs")),
    ("lead", include_str!("../../src/duties/lead.rs")),
    ("synchronize", include_str!("../../src/duties/synchronize.rs")),
    ("race", include_str!("../../src/duties/race.rs")),
    ("follow", include_str!("../../src/duties/follow.rs")),
];

/// Duty and code of every reason.
pub(crate) fn all() -> Vec<(String, String)> {
    let mut reasons = Vec::new();
    for (duty, source) in SOURCES {
        let (_, rest) = source.split_once("pub enum Why {").expect("a duty has reasons");
        let (body, _) = rest.split_once("\n}").expect("an enum ends");
        for line in body.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     ")) {
            let name: String = line.trim().chars().take_while(char::is_ascii_alphanumeric).collect();
            if !name.is_empty() {
                reasons.push((duty.to_owned(), name));
            }
        }
    }
    assert!(reasons.len() > 70, "the sources are laid out differently: {} reasons", reasons.len());
    reasons
}
