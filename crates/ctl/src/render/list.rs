//! `list`: the members of a cluster, one a row. The forms are patronictl's; `-e` adds what only Baton knows.

use super::{Empty, Format, cell_text, document, is_empty, tsv};
use crate::invoked::Manner;
use crate::table::{Column, Side, draw};
use crate::view::{Cluster, Member, Position};
use etcd::BgpNeighbor;
use serde_json::{Value, json};

const MEGABYTE: u64 = 1024 * 1024;

/// One column of the table and of the documents.
struct Field {
    /// The name in documents.
    name: &'static str,
    /// The heading in the table.
    heading: &'static str,
    side: Side,
    shown: Shown,
    value: fn(&Cluster, &Member) -> Value,
}

/// When a column is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Always,
    /// With `-e`, or when a member has something to say there.
    WhenUsed,
    /// With `-e` only: Baton's own.
    Extended,
    /// The same, in documents alone: the table says it below.
    ExtendedDocument,
}

const FIELDS: [Field; 16] = [
    left("Member", Shown::Always, |_, member| json!(member.name)),
    left("Host", Shown::Always, |cluster, member| json!(host(cluster, member))),
    left("Role", Shown::Always, |_, member| json!(member.standing.text())),
    left("State", Shown::Always, |_, member| json!(member.state)),
    right("TL", "TL", |_, member| member.timeline.map_or(Value::Null, |timeline| json!(timeline))),
    right("Receive LSN", "Receive LSN", |_, member| position(member.receive)),
    right("Receive Lag", "Lag", |_, member| lag(member.receive)),
    right("Replay LSN", "Replay LSN", |_, member| position(member.replay)),
    right("Replay Lag", "Lag", |_, member| lag(member.replay)),
    left("Pending restart", Shown::WhenUsed, |_, member| {
        json!(if member.pending_restart { "*" } else { "" })
    }),
    left("Pending restart reason", Shown::WhenUsed, |_, member| {
        json!(member.pending_restart_reason.join("\n"))
    }),
    left("Scheduled restart", Shown::WhenUsed, |_, member| {
        json!(member.scheduled_restart.as_deref().unwrap_or(""))
    }),
    left("Tags", Shown::WhenUsed, |_, member| json!(member.tags)),
    Field { side: Side::Right, ..left("Term", Shown::Extended, term) },
    left("Writable since", Shown::Extended, writable_since),
    left("Addresses", Shown::ExtendedDocument, addresses_of),
];

const fn left(name: &'static str, shown: Shown, value: fn(&Cluster, &Member) -> Value) -> Field {
    Field { name, heading: name, side: Side::Left, shown, value }
}

const fn right(name: &'static str, heading: &'static str, value: fn(&Cluster, &Member) -> Value) -> Field {
    Field { name, heading, side: Side::Right, shown: Shown::Always, value }
}

/// What is asked of the table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    pub format: Format,
    pub extended: bool,
    /// Whether only patronictl's columns are shown.
    pub manner: Manner,
}

/// Draws one cluster.
pub(crate) fn list(cluster: &Cluster, wish: Wish) -> String {
    let fields = fields(cluster, wish);
    let rows: Vec<Vec<Value>> = cluster
        .members
        .iter()
        .map(|member| {
            let cells = fields.iter().map(|field| (field.value)(cluster, member));
            match wish.format {
                Format::Pretty => cells.collect(),
                Format::Tsv | Format::Json | Format::Yaml => {
                    std::iter::once(json!(cluster.name)).chain(cells).collect()
                }
            }
        })
        .collect();
    let names: Vec<&str> = std::iter::once("Cluster").chain(fields.iter().map(|field| field.name)).collect();
    match wish.format {
        Format::Pretty => {
            let addresses = if wish.extended && wish.manner == Manner::Baton {
                addresses(cluster) + &sessions(cluster)
            } else {
                String::new()
            };
            pretty(cluster, &fields, &rows) + &addresses
        }
        Format::Tsv => tsv(&names, &rows),
        Format::Json | Format::Yaml => document(wish.format, &names, &rows, Empty::Left),
    }
}

/// The table with the member names that `topology` indents; tags stay on one line there.
pub(super) fn indented(cluster: &Cluster, rows: &[(usize, &Member)]) -> String {
    let fields = fields(cluster, Wish { manner: Manner::Patronictl, ..Wish::default() });
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|(depth, member)| {
            let mut row: Vec<String> =
                fields.iter().map(|field| cell_text(&(field.value)(cluster, member))).collect();
            if let (Some(name), 1..) = (row.first_mut(), *depth) {
                *name = format!("{}+ {name}", "  ".repeat(depth - 1));
            }
            row
        })
        .collect();
    draw(Some(&title(cluster)), &columns(&fields), &cells) + &below(cluster)
}

fn fields(cluster: &Cluster, wish: Wish) -> Vec<&'static Field> {
    let ours = wish.extended && wish.manner == Manner::Baton;
    let used = |field: &&Field| match field.shown {
        Shown::Always => true,
        Shown::WhenUsed => {
            wish.extended || cluster.members.iter().any(|member| !is_empty(&(field.value)(cluster, member)))
        }
        Shown::Extended => ours,
        Shown::ExtendedDocument => ours && wish.format != Format::Pretty,
    };
    FIELDS.iter().filter(used).collect()
}

fn columns(fields: &[&Field]) -> Vec<Column> {
    fields.iter().map(|field| Column { heading: field.heading.to_owned(), side: field.side }).collect()
}

fn pretty(cluster: &Cluster, fields: &[&Field], rows: &[Vec<Value>]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(tall_text).collect()).collect();
    draw(Some(&title(cluster)), &columns(fields), &cells) + &below(cluster)
}

/// A cell that may have several lines: tags as a block.
fn tall_text(cell: &Value) -> String {
    match cell {
        Value::Object(map) if !map.is_empty() => crate::yaml::block(cell).trim_end().to_owned(),
        Value::String(text) => text.clone(),
        other => cell_text(other),
    }
}

fn title(cluster: &Cluster) -> String {
    let system_id = match cluster.system_id.as_deref() {
        None => "uninitialized",
        Some("") => "initializing",
        Some(id) => id,
    };
    format!("Cluster: {} ({system_id})", cluster.name)
}

/// What stands below the table: the pause, the switchover that waits, and every remark.
fn below(cluster: &Cluster) -> String {
    let mut out = String::new();
    if cluster.paused {
        out.push_str(" Maintenance mode: on\n");
    }
    if let Some(scheduled) = &cluster.scheduled_switchover {
        out.push_str(&format!(" Switchover scheduled at: {}\n", scheduled.at));
        if let Some(from) = &scheduled.from {
            out.push_str(&format!("                    from: {from}\n"));
        }
        if let Some(to) = &scheduled.to {
            out.push_str(&format!("                      to: {to}\n"));
        }
    }
    for remark in cluster.remarks.iter().chain(&cluster.spoiled) {
        out.push_str(&format!(" Note: {remark}\n"));
    }
    out
}

/// Who has which virtual address.
fn addresses(cluster: &Cluster) -> String {
    let line = |(ip, role, name): &(String, String, String)| format!(" Address: {ip} ({role}) on {name}\n");
    cluster.addresses.iter().map(line).collect()
}

/// How members stand with their BGP neighbours.
fn sessions(cluster: &Cluster) -> String {
    let mut out = String::new();
    for (name, neighbors) in &cluster.bgp {
        for BgpNeighbor { address, asn, state, since, announced, trouble } in neighbors {
            out.push_str(&format!(" BGP: {name} with {address} (AS {asn}): {state} since {since}"));
            if !announced.is_empty() {
                out.push_str(&format!(", announces {}", announced.join(", ")));
            }
            if let Some(trouble) = trouble {
                out.push_str(&format!("; failed to {trouble}"));
            }
            out.push('\n');
        }
    }
    out
}

/// The virtual addresses that the member has, each with its role.
fn addresses_of(cluster: &Cluster, member: &Member) -> Value {
    let own = cluster.addresses.iter().filter(|(_, _, name)| *name == member.name);
    Value::Array(own.map(|(ip, role, _)| json!({ "address": ip, "role": role })).collect())
}

/// The port is left out where every member has PostgreSQL's own and a host of its own.
fn host(cluster: &Cluster, member: &Member) -> String {
    let ordinary = cluster.members.iter().all(|other| other.port == 5432 || other.host.is_empty());
    let shared = cluster.members.iter().any(|one| {
        !one.host.is_empty() && cluster.members.iter().filter(|other| other.host == one.host).count() > 1
    });
    if member.host.is_empty() || (ordinary && !shared) {
        return member.host.clone();
    }
    if member.host.contains(':') {
        return format!("[{}]:{}", member.host, member.port);
    }
    format!("{}:{}", member.host, member.port)
}

fn position(position: Position) -> Value {
    match position {
        Position::NotApplicable => Value::Null,
        Position::Unknown => json!("unknown"),
        Position::At { lsn, .. } => json!(lsn.to_string()),
    }
}

/// In megabytes, rounded.
fn lag(position: Position) -> Value {
    match position {
        Position::NotApplicable | Position::Unknown => Value::Null,
        Position::At { lag: None, .. } => json!("unknown"),
        Position::At { lag: Some(bytes), .. } => json!(bytes.saturating_add(MEGABYTE / 2) / MEGABYTE),
    }
}

fn term(cluster: &Cluster, member: &Member) -> Value {
    let lead = cluster.lead.as_ref().filter(|lead| lead.name == member.name);
    lead.map_or(Value::Null, |lead| json!(lead.term))
}

fn writable_since(cluster: &Cluster, member: &Member) -> Value {
    let lead = cluster.lead.as_ref().filter(|lead| lead.name == member.name);
    let writable = cluster.writable.as_ref().filter(|writable| writable.name == member.name);
    match (lead, writable) {
        (Some(lead), Some(writable)) if lead.term == writable.term => {
            json!(format!("{} on timeline {}", writable.lsn, writable.timeline))
        }
        (Some(_), _) => json!("not yet"),
        (None, _) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, Wish, list};
    use crate::render::tests::{plain, rich};
    use crate::view::{Cluster, Writable};
    use etcd::BgpNeighbor;
    use types::Lsn;

    fn wish(format: Format, extended: bool) -> Wish {
        Wish { format, extended, ..Wish::default() }
    }

    #[test]
    fn pretty_is_patronictl_s_table() {
        insta::assert_snapshot!("list_plain", list(&plain(), Wish::default()));
        insta::assert_snapshot!("list_rich", list(&rich(), Wish::default()));
        let nothing = Cluster { name: "nope".into(), ..Cluster::default() };
        insta::assert_snapshot!("list_nothing", list(&nothing, Wish::default()));
    }

    #[test]
    fn extended_adds_the_term_and_who_is_writable() {
        let mut cluster = plain();
        cluster.remarks.push("pg-3 does not answer".into());
        insta::assert_snapshot!("list_extended_not_writable", list(&cluster, wish(Format::Pretty, true)));
        cluster.writable =
            Some(Writable { name: "pg-1".into(), term: 17, timeline: 3, lsn: Lsn(0x400_0060) });
        cluster.addresses.push(("10.0.0.9".into(), "primary".into(), "pg-1".into()));
        let extended = list(&cluster, wish(Format::Pretty, true));
        assert!(extended.ends_with(" Address: 10.0.0.9 (primary) on pg-1\n"), "{extended}");
        let neighbor = |address: &str, state: &str| BgpNeighbor {
            address: address.into(),
            asn: 65_000,
            state: state.into(),
            since: "2026-01-01T00:00:00Z".into(),
            announced: Vec::new(),
            trouble: None,
        };
        let up = BgpNeighbor { announced: vec!["10.0.0.9".into()], ..neighbor("10.0.0.1", "established") };
        let down = BgpNeighbor { trouble: Some("connect to it".into()), ..neighbor("10.0.0.2", "idle") };
        cluster.bgp.push(("pg-1".into(), vec![up, down]));
        let extended = list(&cluster, wish(Format::Pretty, true));
        let lines = " BGP: pg-1 with 10.0.0.1 (AS 65000): established since 2026-01-01T00:00:00Z, announces 10.0.0.9\n \
                     BGP: pg-1 with 10.0.0.2 (AS 65000): idle since 2026-01-01T00:00:00Z; failed to connect to it\n";
        assert!(extended.ends_with(lines), "{extended}");
        cluster.bgp.clear();
        let json = list(&cluster, wish(Format::Json, true));
        assert!(json.contains(r#""Addresses": [{"address": "10.0.0.9", "role": "primary"}]"#), "{json}");
        assert_eq!(json.matches("Addresses").count(), 1, "{json}");
        let yaml = list(&cluster, wish(Format::Yaml, true));
        assert!(yaml.contains("address: 10.0.0.9"), "{yaml}");
        let theirs = Wish { manner: crate::invoked::Manner::Patronictl, ..wish(Format::Json, true) };
        assert!(!list(&cluster, theirs).contains("Addresses"), "what scripts read as patronictl's stays");
        cluster.addresses.clear();
        insta::assert_snapshot!("list_extended", list(&cluster, wish(Format::Pretty, true)));
    }

    #[test]
    fn documents_leave_empty_cells_out() {
        insta::assert_snapshot!("list_rich_tsv", list(&rich(), wish(Format::Tsv, false)));
        insta::assert_snapshot!("list_rich_json", list(&rich(), wish(Format::Json, false)));
        insta::assert_snapshot!("list_rich_yaml", list(&rich(), wish(Format::Yaml, false)));
    }

    #[test]
    fn an_unknown_lag_is_said() {
        let mut cluster = plain();
        cluster.members[1].receive = crate::view::Position::At { lsn: Lsn(1), lag: None };
        assert!(list(&cluster, Wish::default()).contains("unknown"));
    }
}
