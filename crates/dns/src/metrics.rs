//! What there is to tell about names, as Prometheus reads it.

use crate::server::Counts;
use crate::zone::Zone;
use std::sync::atomic::Ordering;
use types::exposition::metric;

/// The values; `labels` are those that every value has.
pub(crate) fn metrics(counts: &Counts, zone: Option<&Zone>, labels: &str) -> String {
    let mut text = String::new();
    let primary = zone.is_some_and(|zone| zone.primary.is_some());
    let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
    for (name, kind, help, value) in [
        (
            "baton_dns_known",
            "gauge",
            "Value is 1 if etcd was read: questions are answered.",
            u64::from(zone.is_some()),
        ),
        ("baton_dns_primary", "gauge", "Value is 1 if there is a primary to be told.", u64::from(primary)),
        (
            "baton_dns_serial",
            "gauge",
            "The serial of the zone.",
            zone.map_or(0, |zone| u64::from(zone.serial)),
        ),
        (
            "baton_dns_udp_answers_total",
            "counter",
            "Questions for names answered by UDP.",
            count(&counts.udp),
        ),
        ("baton_dns_tcp_answers_total", "counter", "The same by TCP.", count(&counts.tcp)),
        ("baton_dns_updates_total", "counter", "Updates that other servers took.", count(&counts.updates)),
        (
            "baton_dns_update_failures_total",
            "counter",
            "Updates and looks at other servers that failed.",
            count(&counts.update_failures),
        ),
        (
            "baton_dns_hosts_file_failures_total",
            "counter",
            "How often the hosts file could not be written.",
            count(&counts.file_failures),
        ),
    ] {
        metric(&mut text, (name, kind, help), &[value], |value| (labels.to_owned(), *value));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::metrics;
    use crate::server::Counts;
    use crate::zone::tests::{facts, zone};

    #[test]
    fn what_is_told_before_and_after_etcd_was_read() {
        let counts = Counts::default();
        counts.udp.store(5, std::sync::atomic::Ordering::Relaxed);
        let before = metrics(&counts, None, "scope=\"a\"");
        assert!(before.contains("\nbaton_dns_known{scope=\"a\"} 0\n"), "{before}");
        assert!(before.contains("\nbaton_dns_udp_answers_total{scope=\"a\"} 5\n"), "{before}");
        let after = metrics(&counts, Some(&zone(&facts())), "scope=\"a\"");
        assert!(after.contains("\nbaton_dns_primary{scope=\"a\"} 1\n"), "{after}");
    }
}
