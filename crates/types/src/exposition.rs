//! The text in which Prometheus reads metrics.

use std::fmt::{Display, Write};

/// Labels as they stand between the braces of a line.
#[must_use]
pub fn labels(pairs: &[(&str, &str)]) -> String {
    let quoted = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let pairs: Vec<String> =
        pairs.iter().map(|(name, text)| format!("{name}=\"{}\"", quoted(text))).collect();
    pairs.join(",")
}

/// A metric (name, kind, help) with a line for each of the things: its labels and its value. Without things it is left out.
pub fn metric<T, V: Display>(
    text: &mut String,
    (name, kind, help): (&str, &str, &str),
    things: &[T],
    line: impl Fn(&T) -> (String, V),
) {
    if things.is_empty() {
        return;
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for thing in things {
        let (labels, value) = line(thing);
        let _ = writeln!(text, "{name}{{{labels}}} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::{labels, metric};

    #[test]
    fn a_metric_has_one_head_and_quoted_labels() {
        let mut text = String::new();
        let own = |thing: &(&str, u8)| (labels(&[("a", thing.0), ("b", "2")]), thing.1);
        metric(&mut text, ("x_total", "counter", "How often."), &[("\"q\\\n", 1), ("", 2)], own);
        assert_eq!(
            text,
            "# HELP x_total How often.\n# TYPE x_total counter\nx_total{a=\"\\\"q\\\\\\n\",b=\"2\"} 1\nx_total{a=\"\",b=\"2\"} 2\n"
        );
        metric(&mut text, ("y", "gauge", "None."), &[], own);
        assert!(!text.contains('y'));
    }
}
