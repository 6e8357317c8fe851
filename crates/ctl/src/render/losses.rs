//! What single members had and the cluster has not: one row for each member that came back with it.

use super::{Format, listing};
use etcd::Loss;
use serde_json::{Value, json};

const HEADINGS: [&str; 9] =
    ["Member", "At", "TL", "Fork", "Transactions", "Bytes", "Last Commit", "Touched", "Kept"];

/// Draws the rows; as a document they are whole.
pub(crate) fn losses(rows: &[Loss], format: Format) -> String {
    let cells: Vec<Vec<Value>> = rows.iter().map(cells).collect();
    listing(&HEADINGS, 2..6, &cells, format)
}

fn cells(loss: &Loss) -> Vec<Value> {
    let at_least = if loss.complete { "" } else { "at least " };
    let prepared = if loss.prepared > 0 { format!(" + {} prepared", loss.prepared) } else { String::new() };
    let touched: Vec<String> = loss.relations.iter().map(|relation| relation.name.clone()).collect();
    vec![
        json!(loss.member.as_str()),
        json!(loss.at),
        json!(loss.timeline.0),
        json!(loss.fork.to_string()),
        json!(format!("{at_least}{}{prepared}", loss.commits)),
        json!(loss.bytes),
        json!(loss.last_commit.as_deref().unwrap_or_default()),
        json!(touched.join(", ")),
        json!(loss.kept),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Format, losses};
    use crate::render::tests::loss;
    use etcd::Loss;

    #[test]
    fn all_forms() {
        let one = loss();
        let unsure = Loss {
            commits: 0,
            prepared: 0,
            complete: false,
            last_commit: None,
            relations: vec![],
            ..one.clone()
        };
        let drawn = losses(&[one, unsure], Format::Pretty);
        for words in ["2 + 1 prepared", "at least 0", "app.public.orders", "0/3000060", "pg-1"] {
            assert!(drawn.contains(words), "{words}:\n{drawn}");
        }
        assert!(losses(&[], Format::Json).contains("[]"));
        assert!(losses(&[], Format::Tsv).starts_with("Member\tAt\tTL"));
    }
}
