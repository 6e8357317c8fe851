//! `what-if`: a forecast as prose for somebody who is tired, as a line, or as a document.

use super::Format;
use crate::cli::EventArg;
use crate::forecast::{Bound, Commits, Forecast, Rest, Scenario, Verdict, Witnesses};
use ha::slots::Fate;
use serde_json::{Value, json};

/// The width that a terminal surely has.
const WIDTH: usize = 100;

/// One forecast, told at length.
pub(crate) fn at_length(forecast: &Forecast) -> String {
    let mut out = format!("If {}:\n\n", imagined(&forecast.scenario, forecast.leader.as_deref()));
    out.push_str(&paragraph("", &verdict(forecast)));
    out.push('\n');
    let width = forecast.members.keys().map(String::len).max().unwrap_or_default();
    for (name, text) in &forecast.members {
        out.push_str(&paragraph(&format!("  {name:width$}  "), &sentence(text)));
    }
    out.push('\n');
    out.push_str(&paragraph("  Loss: ", &loss(forecast)));
    if let Some(waits) = &forecast.commits {
        out.push_str(&paragraph("  Commits: ", &commits(waits)));
    }
    if !forecast.slots.is_empty() {
        out.push_str(&paragraph("  Slots: ", &slots(forecast)));
    }
    if let Some(rest) = &forecast.etcd {
        out.push_str(&paragraph("  etcd: ", &etcd(rest)));
    }
    if let Some(waits) = &forecast.witnesses {
        out.push_str(&paragraph("  Routers: ", &witnesses(waits, forecast)));
    }
    let traffic = traffic(forecast);
    if !traffic.is_empty() {
        out.push_str(&paragraph("  Traffic: ", &traffic));
    }
    out
}

/// Many forecasts, a line each.
pub(crate) fn in_lines(forecasts: &[Forecast]) -> String {
    let named: Vec<(String, String)> =
        forecasts.iter().map(|forecast| (event(&forecast.scenario), in_short(forecast))).collect();
    let width = named.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    named.iter().map(|(name, text)| format!("{name:width$}  {text}\n")).collect()
}

/// As a document.
pub(crate) fn document(forecasts: &[Forecast], format: Format) -> String {
    let all: Vec<Value> = forecasts.iter().map(object).collect();
    let value = Value::Array(all);
    match format {
        Format::Yaml => crate::yaml::block(&value),
        Format::Json | Format::Pretty | Format::Tsv => format!("{value}\n"),
    }
}

fn object(forecast: &Forecast) -> Value {
    let (verdict, leader, seconds) = match &forecast.verdict {
        Verdict::Leads { names, seconds, .. } => ("leads", names.clone(), Some(*seconds)),
        Verdict::Stays { name, .. } => ("stays", vec![name.clone()], None),
        Verdict::Refused { .. } => ("refused", forecast.leader.iter().cloned().collect(), None),
        Verdict::Nobody { .. } => ("nobody", Vec::new(), None),
    };
    let slots = forecast.slots.iter().map(|(name, fate)| (name.clone(), Value::from(fate.to_string())));
    json!({
        "event": forecast.scenario.event.word(), "member": forecast.scenario.member, "leader": forecast.leader,
        "verdict": verdict, "leads": leader, "seconds": seconds, "text": self::verdict(forecast),
        "members": forecast.members, "lacks_bytes": forecast.lacks,
        "loss_bound_bytes": forecast.bound.map_or(0, |bound| bound.bytes),
        "commits_wait_for": forecast.commits.as_ref().map(|waits| &waits.names),
        "commits_stand": forecast.commits.as_ref().is_some_and(|waits| waits.stand),
        "slots": slots.collect::<serde_json::Map<_, _>>(),
        "slots_lost": forecast.slots.iter().filter(|(_, fate)| !matches!(fate, Fate::Survives | Fate::NotPromised)).map(|(name, _)| name).collect::<Vec<_>>(),
        "etcd_majority": forecast.etcd.as_ref().map(|rest| rest.majority),
        "awaits_routers": forecast.witnesses.as_ref().map(|waits| &waits.routers),
        "awaits_routers_seconds": forecast.witnesses.as_ref().map(|waits| waits.ms as f64 / 1000.0),
        "exit": forecast.code().number(),
    })
}

/// What is imagined, as the beginning of a sentence.
fn imagined(scenario: &Scenario, leader: Option<&str>) -> String {
    let member = scenario.member.as_deref().unwrap_or("nobody");
    let role = if leader == Some(member) { ", which leads," } else { "" };
    match scenario.event {
        EventArg::Dies => format!("the host of {member}{role} died now"),
        EventArg::Unplugged => format!("the host of {member}{role} lost its network now"),
        EventArg::PostgresCrashes => format!("PostgreSQL of {member}{role} crashed now"),
        EventArg::Switchover => match &scenario.member {
            Some(member) => format!("the lead were handed over to {member} now"),
            None => "the lead were handed over now".to_owned(),
        },
        EventArg::EtcdAway => "nobody could reach etcd any more".to_owned(),
    }
}

fn event(scenario: &Scenario) -> String {
    let member = scenario.member.as_deref().unwrap_or_default();
    match scenario.event {
        EventArg::Dies => format!("{member} dies"),
        EventArg::Unplugged => format!("{member} is unplugged"),
        EventArg::PostgresCrashes => format!("PostgreSQL of {member} crashes"),
        EventArg::Switchover if member.is_empty() => "switchover".to_owned(),
        EventArg::Switchover => format!("switchover to {member}"),
        EventArg::EtcdAway => "etcd is away".to_owned(),
    }
}

fn verdict(forecast: &Forecast) -> String {
    let old = forecast.leader.as_deref().unwrap_or("the leader");
    match &forecast.verdict {
        Verdict::Leads { names, seconds, lease } => {
            let who = names.join(" or ");
            let whichever = if names.len() > 1 { ", whichever is first," } else { "" };
            let how = if *lease > 0.0 {
                format!(
                    "{lease:.1} s at most until the lease of {old} has ended, then the race and the promotion"
                )
            } else {
                "the race and the promotion".to_owned()
            };
            format!("{who}{whichever} would lead and accept writes after about {seconds:.1} s: {how}.")
        }
        Verdict::Stays { name, text } => format!("{name} would go on leading: {}", sentence(text)),
        Verdict::Refused { text } => {
            format!("Nothing would change, because it would be refused: {}", sentence(text))
        }
        Verdict::Nobody { why } => format!("Nobody would accept writes: {}", sentence(why)),
    }
}

fn in_short(forecast: &Forecast) -> String {
    let mut text = match &forecast.verdict {
        Verdict::Leads { names, seconds, .. } => {
            format!("{} leads after about {seconds:.1} s", names.join(" or "))
        }
        Verdict::Stays { name, .. } => format!("{name} leads on"),
        Verdict::Refused { text } => format!("refused: {text}"),
        Verdict::Nobody { why } => format!("NOBODY accepts writes: {why}"),
    };
    if let Some(bound) = &forecast.bound {
        let lacks =
            forecast.lacks.map(|lacks| format!("{} at this moment, ", bytes(lacks))).unwrap_or_default();
        text.push_str(&format!("; may lose {lacks}{} at most", bytes(bound.bytes)));
    }
    if let Some(waits) = &forecast.witnesses {
        let (count, seconds) = (waits.routers.len(), waits.ms as f64 / 1000.0);
        text.push_str(&format!("; {seconds:.1} s more at most for the word of {count} routers"));
    }
    if let Some(waits) = &forecast.commits
        && waits.names.is_empty()
    {
        text.push_str(if waits.stand {
            "; commits WAIT until a standby streams again"
        } else {
            "; commits wait for no standby"
        });
    }
    let lost: Vec<&str> = forecast
        .slots
        .iter()
        .filter(|(_, fate)| !matches!(fate, Fate::Survives | Fate::NotPromised))
        .map(|(name, _)| name.as_str())
        .collect();
    if !lost.is_empty() {
        text.push_str(&format!("; slots not safe: {}", lost.join(", ")));
    }
    text
}

fn loss(forecast: &Forecast) -> String {
    let Some(bound) = &forecast.bound else {
        let why = forecast.lossless.unwrap_or("it is not known, because nobody who would know answers");
        return format!("nothing that was acknowledged; {why}.");
    };
    let next = match &forecast.verdict {
        Verdict::Leads { names, .. } => names.first().map_or("the next leader", String::as_str),
        Verdict::Stays { .. } | Verdict::Refused { .. } | Verdict::Nobody { .. } => "the next leader",
    };
    let old = forecast.leader.as_deref().unwrap_or("the leader");
    let now = match forecast.lacks {
        Some(lacks) => format!("At this moment {next} lacks {} of WAL that {old} has. ", bytes(lacks)),
        None => String::new(),
    };
    format!(
        "replication is asynchronous. {now}At any moment it can be up to {}: {}.",
        bytes(bound.bytes),
        because(bound, old)
    )
}

fn because(bound: &Bound, old: &str) -> String {
    let span = bound.span_ms as f64 / 1000.0;
    format!(
        "maximum_lag_on_failover lets a member lead that is {} behind the position that {old} last published in etcd, and what {old} writes after that, \
         for up to {span:.0} s, nobody knows of ({} in the busiest {span:.0} s of the last ten minutes)",
        bytes(bound.allowed),
        bytes(bound.unseen)
    )
}

fn commits(waits: &Commits) -> String {
    if waits.names.is_empty() && waits.stand {
        return "no standby is left, and synchronous_mode_strict is on: every commit waits until a standby streams again; \
                bring one back, or set synchronous_mode_strict to false and accept that one copy is all there is."
            .to_owned();
    }
    if waits.names.is_empty() {
        return "no standby is left: commits wait for nobody, and until a standby is back nobody else may lead.".to_owned();
    }
    let names = waits.names.join(", ");
    let fewer = if waits.count < waits.wanted {
        format!(" (synchronous_node_count asks for {})", waits.wanted)
    } else {
        String::new()
    };
    let under_way = if waits.interrupted {
        "; those under way wait until the leader has taken the lost one out of synchronous_standby_names, a fraction of a second"
    } else {
        ""
    };
    let some = if waits.count < waits.names.len() { format!("{} of ", waits.count) } else { String::new() };
    format!("each waits for {some}{names}{fewer}{under_way}.")
}

fn slots(forecast: &Forecast) -> String {
    let survive: Vec<&str> = forecast
        .slots
        .iter()
        .filter(|(_, fate)| **fate == Fate::Survives)
        .map(|(name, _)| name.as_str())
        .collect();
    let mut parts = Vec::new();
    if !survive.is_empty() {
        parts.push(format!("{} would survive", survive.join(", ")));
    }
    let others = forecast.slots.iter().filter(|(_, fate)| **fate != Fate::Survives);
    parts.extend(others.map(|(name, fate)| format!("{name} {fate}")));
    parts.join("; ") + "."
}

fn etcd(rest: &Rest) -> String {
    let Rest { members, answer, on_host, majority } = rest;
    let there = match on_host.as_slice() {
        [] => "none of them on that host".to_owned(),
        names => format!("{} of them on that host", names.join(", ")),
    };
    let left = if *majority { "the rest is a majority" } else { "the rest is no majority" };
    format!("{answer} of {members} members answer, {there}: {left}.")
}

fn witnesses(waits: &Witnesses, forecast: &Forecast) -> String {
    let (old, seconds) = (forecast.leader.as_deref().unwrap_or("the leader"), waits.ms as f64 / 1000.0);
    let routers: Vec<&str> = waits.routers.iter().map(String::as_str).collect();
    format!(
        "the promotion waits until each has said that it has no session left on {old} (baton.await_routers): milliseconds, and {seconds:.1} s \
         more than is said above at most, if one of them hangs, is cut off from etcd, or ended less than 10 s before: {}.",
        routers.join(", ")
    )
}

fn traffic(forecast: &Forecast) -> String {
    let Verdict::Leads { .. } = forecast.verdict else { return String::new() };
    let old = forecast.leader.as_deref().unwrap_or("the leader");
    let mut parts = Vec::new();
    match forecast.routers {
        0 => {}
        1 => parts.push(format!(
            "the router ends the sessions of {old} and holds new ones until writes are accepted again"
        )),
        routers => parts.push(format!(
            "{routers} routers end the sessions of {old} and hold new ones until writes are accepted again"
        )),
    }
    if !forecast.addresses.is_empty() {
        parts.push(format!(
            "{} leaves {old} before its lease ends and comes to the next leader when it accepts writes",
            forecast.addresses.join(", ")
        ));
    }
    if parts.is_empty() { String::new() } else { parts.join("; ") + "." }
}

/// Bytes as people read them.
fn bytes(count: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    match count {
        1 => "1 byte".to_owned(),
        0..KIB => format!("{count} bytes"),
        KIB..MIB => format!("{:.1} KiB", count as f64 / KIB as f64),
        MIB..GIB => format!("{:.1} MiB", count as f64 / MIB as f64),
        GIB.. => format!("{:.1} GiB", count as f64 / GIB as f64),
    }
}

fn sentence(text: &str) -> String {
    let text = text.trim().trim_end_matches([';', ' ']);
    if text.is_empty() || text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

/// Lines of a bearable length: the first begins with `head`, the others are indented below it.
fn paragraph(head: &str, text: &str) -> String {
    let indent = if head.is_empty() { 0 } else { 4 };
    let mut out = String::new();
    let mut line = head.to_owned();
    let mut words = 0;
    for word in text.split_whitespace() {
        if words > 0 && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = " ".repeat(indent);
            words = 0;
        }
        if words > 0 {
            line.push(' ');
        }
        line.push_str(word);
        words += 1;
    }
    out + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::{at_length, in_lines};
    use crate::cli::EventArg;
    use crate::exit_codes::Code;
    use crate::forecast::{Answers, Said, Scenario, World, forecast};
    use serde_json::{Value, json};

    fn world() -> World {
        let host = |at: u8| format!("10.0.0.{at}");
        World {
            leader: Some("pg-1".into()),
            optime: Some(83_886_080),
            permanent: [("archive".to_owned(), false), ("cdc".to_owned(), true)].into(),
            routers: ["r1", "r2"].map(str::to_owned).into(),
            hosts: (1..=3).map(|at| (format!("pg-{at}"), host(at))).collect(),
            etcd: (1..=3).map(|at| (format!("etcd{at}"), [host(at)].into(), true)).collect(),
            ..World::default()
        }
    }

    fn slot(name: &str, kind: &str, position: u64, failover: bool, synced: bool) -> Value {
        json!({"name": name, "type": kind, "position": position, "failover": failover, "synced": synced})
    }

    fn answers(edit: impl FnOnce(&mut Vec<(&str, Value)>)) -> Answers {
        let rules = |mode: &str| json!({"ttl": 5, "synchronous_mode": mode, "pause": false});
        let loss = json!({"bytes": 1_441_792, "allowed": 1_048_576, "unseen": 393_216, "span_ms": 3000});
        let mut all = vec![
            (
                "pg-1",
                json!({
                    "outcome": "gone", "text": "its host is gone", "timeline": 3, "lsn": 83_890_176_u64, "lease_ms": 4600,
                    "rules": rules("off"), "loss": loss, "addresses": ["10.0.0.100"],
                    "slots": [slot("archive", "physical", 5, false, false), slot("cdc", "logical", 90, true, false), slot("adhoc", "logical", 9, false, false)],
                }),
            ),
            (
                "pg-2",
                json!({
                    "outcome": "takes the lead", "after_ms": 12, "timeline": 3, "lsn": 83_889_864_u64, "rules": rules("off"),
                    "slots": [slot("archive", "physical", 5, false, false), slot("cdc", "logical", 80, true, true)],
                }),
            ),
            (
                "pg-3",
                json!({
                    "outcome": "does not lead", "timeline": 3, "lsn": 73_400_320_u64, "rules": rules("off"),
                    "text": "it is 10485760 bytes behind the last known position of the leader; maximum_lag_on_failover allows 1048576",
                }),
            ),
        ];
        edit(&mut all);
        let read = |value: Value| serde_json::from_value::<Said>(value).map_err(|error| error.to_string());
        all.into_iter().map(|(name, value)| (name.to_owned(), read(value))).collect()
    }

    fn dies() -> Scenario {
        Scenario { event: EventArg::Dies, member: Some("pg-1".into()) }
    }

    #[test]
    fn the_loss_of_a_host_is_told_in_prose() {
        let told = forecast(&dies(), &world(), &answers(|_| {}));
        assert_eq!(told.code(), Code::WouldLose);
        insta::assert_snapshot!("what_if_dies", at_length(&told));
    }

    #[test]
    fn whose_word_a_promotion_would_wait_for_is_told() {
        let waits = || answers(|all| all[1].1["rules"]["await_routers_ms"] = json!(2000));
        let told = forecast(&dies(), &world(), &waits());
        let text = at_length(&told);
        let routers = text.split("  Routers: ").nth(1).unwrap().split("  Traffic").next().unwrap();
        insta::assert_snapshot!("what_if_routers", format!("{routers}{}", in_lines(&[told])));
        let nobody = World { routers: [].into(), ..world() };
        assert_eq!(forecast(&dies(), &nobody, &waits()).witnesses, None);
        let mut planned = waits();
        planned.insert("pg-1".into(), Ok(Said { outcome: "hands over".into(), ..Said::default() }));
        let switch = Scenario { event: EventArg::Switchover, member: Some("pg-2".into()) };
        let told = forecast(&switch, &world(), &planned);
        assert!(matches!(told.verdict, crate::forecast::Verdict::Leads { .. }) && told.witnesses.is_none());
        assert_eq!(forecast(&dies(), &world(), &answers(|_| {})).witnesses, None, "it is off unless set");
    }

    #[test]
    fn who_would_be_left_without_a_leader_is_told_why() {
        let refused = answers(|all| {
            all[1].1 = json!({"outcome": "does not lead", "text": "its tags forbid it to lead"})
        });
        let told = forecast(&dies(), &world(), &refused);
        assert_eq!(told.code(), Code::NobodyWouldLead);
        insta::assert_snapshot!("what_if_nobody", at_length(&told));
        let mut two = world();
        two.etcd.pop();
        let told = forecast(&dies(), &two, &answers(|_| {}));
        assert_eq!(told.code(), Code::NobodyWouldLead, "the host takes the majority of etcd along");
        let mut silent = answers(|_| {});
        silent.insert("pg-2".into(), Err("it does not answer".into()));
        assert_eq!(forecast(&dies(), &world(), &silent).code(), Code::NobodyWouldLead);
    }

    #[test]
    fn nothing_is_lost_in_synchronous_mode_nor_by_a_switchover() {
        let safe = |all: &mut Vec<(&str, Value)>| {
            all.iter_mut().for_each(|(_, said)| {
                said["rules"]["synchronous_mode"] = json!("on");
                said["loss"] = json!({"bytes": 0});
            });
        };
        let told = forecast(&dies(), &world(), &answers(safe));
        assert_eq!((told.code(), told.bound), (Code::Ok, None));
        let waits = |waits: Value| {
            let told = forecast(
                &dies(),
                &world(),
                &answers(|all| {
                    safe(all);
                    all[1].1["commits"] = waits;
                }),
            );
            at_length(&told) + &in_lines(&[told])
        };
        let few = json!({"names": ["pg-3"], "count": 1, "wanted": 2, "interrupted": true});
        let ends = [few, json!({"names": [], "stand": true}), json!({"names": [], "stand": false})];
        insta::assert_snapshot!("what_if_commits", ends.map(waits).join("\n"));
        let handed = answers(|all| all[0].1["outcome"] = json!("hands over"));
        let switch = Scenario { event: EventArg::Switchover, member: Some("pg-2".into()) };
        let told = forecast(&switch, &world(), &handed);
        assert_eq!(told.code(), Code::Ok);
        insta::assert_snapshot!(
            "what_if_lines",
            in_lines(&[told, forecast(&dies(), &world(), &answers(|_| {}))])
        );
        let stays = answers(|all| all[0].1["outcome"] = json!("keeps the lead"));
        assert_eq!(forecast(&switch, &world(), &stays).code(), Code::Failed, "it would be refused");
        let crash = Scenario { event: EventArg::PostgresCrashes, member: Some("pg-1".into()) };
        assert_eq!(forecast(&crash, &world(), &stays).code(), Code::Ok, "it is restarted");
        let away = Scenario { event: EventArg::EtcdAway, member: None };
        let ends = answers(|all| all[0].1["outcome"] = json!("ends"));
        assert_eq!(forecast(&away, &world(), &ends).code(), Code::NobodyWouldLead);
    }
}
