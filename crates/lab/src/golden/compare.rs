//! Two captures field by field.

use super::Capture;
use serde_json::Value;
use std::collections::BTreeSet;

/// Where Baton differs on purpose: a part of the line, and why.
const MEANT: [(&str, &str); 8] = [
    (": baton: Patroni has nothing", "the member key says which Baton this is; Patroni ignores the field"),
    (": baton_", "metrics of Baton's own"),
    (": term: Patroni has nothing", "the term of the lead, which Patroni does not know"),
    ("metrics: body: : ", "a comment in the middle of the page, which lists the states by number"),
    (
        ": replayed_timestamp: Patroni has",
        "null until a commit was replayed, which one run sees and another does not",
    ),
    (
        "quorum: POST n1 /switchover {\"leader\":\"n1\",\"candidate\":\"n3\"}",
        "a candidate that could lose commits is refused at once and with the reason; Patroni tries for a while first",
    ),
    (
        "quorum: GET n1 /patroni: body: replication: [0]: sync_state: Patroni has \"sync\", Baton has \"quorum\"",
        "PostgreSQL's own word, which changes a moment after the mode; the capture was taken before",
    ),
    (": help: Patroni has", "the help of a metric is a sentence, not an interface"),
];

/// Whether a line of [`differences`] is a difference on purpose.
#[must_use]
pub fn meant(line: &str) -> bool {
    MEANT.iter().any(|(part, _)| line.contains(part))
}

/// Where `ours` is not what `theirs` is: one line a place, `state: question: path: what`.
#[must_use]
pub fn differences(theirs: &Capture, ours: &Capture) -> Vec<String> {
    let mut found = Vec::new();
    let states: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    for state in states {
        let (Some(theirs), Some(ours)) = (theirs.get(state), ours.get(state)) else {
            found.push(format!("{state}: only one of the two has been in this state"));
            continue;
        };
        let questions: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
        for question in questions {
            let place = format!("{state}: {question}");
            value(&place, theirs.get(question), ours.get(question), &mut found);
        }
    }
    found
}

fn value(place: &str, theirs: Option<&Value>, ours: Option<&Value>, found: &mut Vec<String>) {
    match (theirs, ours) {
        (Some(Value::Object(theirs)), Some(Value::Object(ours))) => {
            let names: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
            for name in names {
                value(&format!("{place}: {name}"), theirs.get(name), ours.get(name), found);
            }
        }
        (Some(Value::Array(theirs)), Some(Value::Array(ours))) => {
            for at in 0..theirs.len().max(ours.len()) {
                value(&format!("{place}: [{at}]"), theirs.get(at), ours.get(at), found);
            }
        }
        (Some(theirs), Some(ours)) if theirs == ours => {}
        (Some(theirs), Some(ours)) => found.push(format!("{place}: Patroni has {theirs}, Baton has {ours}")),
        (Some(theirs), None) => found.push(format!("{place}: Patroni has {theirs}, Baton has nothing")),
        (None, Some(ours)) => found.push(format!("{place}: Patroni has nothing, Baton has {ours}")),
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::differences;
    use crate::golden::Capture;
    use serde_json::{Value, json};

    fn capture(value: Value) -> Capture {
        [("running".to_owned(), [("GET n1 /".to_owned(), value)].into())].into()
    }

    #[test]
    fn names_types_presence_and_values_are_compared() {
        let theirs = capture(json!({ "a": 1, "b": [true, { "c": null }], "d": "x" }));
        assert!(differences(&theirs, &theirs).is_empty());
        let ours = capture(json!({ "a": "1", "b": [true, {}], "d": "x", "e": 0 }));
        assert_eq!(
            differences(&theirs, &ours),
            [
                "running: GET n1 /: a: Patroni has 1, Baton has \"1\"",
                "running: GET n1 /: b: [1]: c: Patroni has null, Baton has nothing",
                "running: GET n1 /: e: Patroni has nothing, Baton has 0",
            ]
        );
        assert_eq!(differences(&theirs, &Capture::new()).len(), 1);
    }
}
