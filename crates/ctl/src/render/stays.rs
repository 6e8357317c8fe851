//! Who had which virtual address, from when to when: one row for each stay on a member, by address.

use super::{Format, listing};
use etcd::{AddressHolder, AddressRow};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const HEADINGS: [&str; 5] = ["Address", "Role", "Member", "From", "To"];

/// Draws them; `holders` are those of now.
pub(crate) fn stays(
    rows: &[AddressRow],
    holders: &BTreeMap<String, AddressHolder>,
    format: Format,
) -> String {
    let mut sorted: Vec<&AddressRow> = rows.iter().collect();
    sorted.sort_by(|one, other| (&one.address, &one.from).cmp(&(&other.address, &other.from)));
    let cells: Vec<Vec<Value>> = sorted
        .iter()
        .enumerate()
        .map(|(at, row)| {
            let next = sorted.get(at + 1).filter(|next| next.address == row.address);
            let to = json!(end(row, next.copied(), holders));
            vec![json!(row.address), json!(row.role), json!(row.member.as_str()), json!(row.from), to]
        })
        .collect();
    listing(&HEADINGS, 0..0, &cells, format)
}

/// One whose agent was killed or frozen could not say when the kernel removed the address: before the next one had it.
fn end(row: &AddressRow, next: Option<&AddressRow>, holders: &BTreeMap<String, AddressHolder>) -> String {
    let has_it = holders.get(&row.address).is_some_and(|holder| holder.name == row.member);
    match (&row.to, next) {
        (Some(to), _) => to.clone(),
        (None, Some(next)) => format!("not told, before {}", next.from),
        (None, None) if has_it => "now".to_owned(),
        (None, None) => "not told".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, stays};
    use etcd::{AddressHolder, AddressRow};
    use types::NodeName;

    #[test]
    fn all_forms() {
        let row = |member: &str, from: &str, to: Option<&str>, address: &str| AddressRow {
            address: address.into(),
            role: "primary".into(),
            member: NodeName::from(member),
            from: format!("2026-11-27T{from}.000Z"),
            to: to.map(|to| format!("2026-11-27T{to}.000Z")),
        };
        let rows = [
            row("pg-1", "01:00:00", Some("02:00:00"), "10.0.0.9"),
            row("pg-2", "02:00:01", None, "10.0.0.9"),
            row("pg-2", "02:00:01", None, "fd00::9"),
            row("pg-3", "03:12:00", None, "10.0.0.9"),
        ];
        let holder = AddressHolder::new(NodeName::from("pg-3"), "primary");
        let holders = [("10.0.0.9".to_owned(), holder)].into();
        let all = [Format::Pretty, Format::Tsv, Format::Json].map(|format| stays(&rows, &holders, format));
        insta::assert_snapshot!("stays", all.join("\n"));
    }
}
