//! What there is to tell about addresses, as Prometheus reads it. Pure.

use crate::holder::Held;
use crate::hook::HookState;
use types::exposition::metric;

type Of<T> = fn(&T) -> u64;

const HELD: [(&str, &str, &str, Of<Held>); 8] = [
    ("baton_vip_held", "gauge", "Value is 1 if this member holds the virtual address.", |held| {
        u64::from(held.since.is_some())
    }),
    ("baton_vip_taken_total", "counter", "How often this member took it.", |held| held.counts.taken),
    ("baton_vip_given_up_total", "counter", "How often it gave it up.", |held| held.counts.given_up),
    ("baton_vip_repaired_total", "counter", "How often somebody had removed it.", |held| {
        held.counts.repaired
    }),
    ("baton_vip_conflicts_total", "counter", "How often another host said that it has it.", |held| {
        held.counts.conflicts
    }),
    ("baton_vip_carrier_losses_total", "counter", "How often its interface went down with it.", |held| {
        held.counts.carrier_losses
    }),
    ("baton_vip_announcements_total", "counter", "How often it was announced.", |held| held.counts.announced),
    (
        "baton_vip_unusable",
        "gauge",
        "Value is 1 if it could not be held here: its interface does not exist, or it does not belong there.",
        |held| u64::from(held.unusable),
    ),
];

const MOVED: [(&str, &str, &str, Of<HookState>); 3] = [
    ("baton_vip_command_held", "gauge", "Value is 1 after the command has acquired the address.", |moved| {
        u64::from(moved.since.is_some())
    }),
    ("baton_vip_command_runs_total", "counter", "How often the command was run.", |moved| moved.runs),
    ("baton_vip_command_failures_total", "counter", "How often it failed or took too long.", |moved| {
        moved.failures
    }),
];

/// Each value of all addresses together, as the format wants it; `labels` are those that every value has.
#[must_use]
pub fn metrics(held: &[Held], moved: &[HookState], labels: &str) -> String {
    let mut text = String::new();
    let on = |held: &Held| {
        let wanted = &held.wanted;
        format!("address=\"{}\",interface=\"{}\",role=\"{}\"", wanted.ip, wanted.interface, wanted.role)
    };
    rows(&mut text, &HELD, held, labels, on);
    rows(&mut text, &MOVED, moved, labels, |moved| {
        format!("address=\"{}\",role=\"{}\"", moved.ip, moved.role)
    });
    text
}

fn rows<T>(
    text: &mut String,
    rows: &[(&str, &str, &str, Of<T>)],
    things: &[T],
    labels: &str,
    own: impl Fn(&T) -> String,
) {
    for (name, kind, help, value) in rows {
        metric(text, (name, kind, help), things, |thing| (format!("{labels},{}", own(thing)), value(thing)));
    }
}

#[cfg(test)]
mod tests {
    use super::metrics;
    use crate::address::{Role, Wanted};
    use crate::hold::Why;
    use crate::holder::{Counts, Held};
    use types::Moment;

    #[test]
    fn each_value_stands_once_with_all_addresses() {
        let held = |ip: &str, since: Option<Moment>| {
            let wanted = Wanted::new(ip.parse().unwrap(), None, "eth0", Role::Primary).unwrap();
            let counts = Counts { taken: 3, ..Counts::default() };
            Held { wanted, since, why: Why::Holds, unusable: false, conflict: None, counts }
        };
        let text = metrics(&[held("10.0.0.5", Some(Moment(1))), held("fd00::5", None)], &[], "scope=\"a\"");
        assert_eq!(text.matches("# TYPE baton_vip_held gauge").count(), 1);
        for line in [
            "baton_vip_held{scope=\"a\",address=\"10.0.0.5\",interface=\"eth0\",role=\"primary\"} 1\n",
            "baton_vip_held{scope=\"a\",address=\"fd00::5\",interface=\"eth0\",role=\"primary\"} 0\n",
            "baton_vip_taken_total{scope=\"a\",address=\"fd00::5\",interface=\"eth0\",role=\"primary\"} 3\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("command"), "there are none");
    }
}
