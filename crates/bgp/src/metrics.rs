//! How it stands with the neighbours, for Prometheus. Pure.

use crate::neighbor::{Phase, State};
use types::Moment;
use types::exposition::metric;

type Value = fn(&State, Moment) -> u64;

const ROWS: [(&str, &str, &str, Value); 7] = [
    (
        "baton_bgp_session_up",
        "gauge",
        "Value is 1 while the session with the neighbour is established.",
        |state, _| u64::from(state.phase == Phase::Established),
    ),
    ("baton_bgp_session_age_seconds", "gauge", "How long it has been up, or down.", |state, now| {
        now.since(state.since).as_secs()
    }),
    (
        "baton_bgp_announced_addresses",
        "gauge",
        "So many addresses the neighbour has been told.",
        |state, _| state.announced.len() as u64,
    ),
    ("baton_bgp_sessions_total", "counter", "How often a session came up.", |state, _| {
        state.counts.established
    }),
    ("baton_bgp_failures_total", "counter", "Sessions that ended and attempts that failed.", |state, _| {
        state.counts.failures
    }),
    ("baton_bgp_announcements_total", "counter", "Routes that were announced.", |state, _| {
        state.counts.announced
    }),
    ("baton_bgp_withdrawals_total", "counter", "Routes that were withdrawn.", |state, _| {
        state.counts.withdrawn
    }),
];

/// The page's lines; `labels` is what every line has, without braces.
#[must_use]
pub fn metrics(states: &[State], labels: &str, now: Moment) -> String {
    let mut text = String::new();
    for (name, kind, help, value) in ROWS {
        metric(&mut text, (name, kind, help), states, |state| {
            let State { address, asn, .. } = state;
            (format!("{labels},neighbor=\"{address}\",as=\"{asn}\""), value(state, now))
        });
    }
    text
}
