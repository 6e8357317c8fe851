//! `members/<name>`: what a member says about itself.

use super::json;
use super::or_text::OrText;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use types::{LeaseId, Lsn, PostgresState, Role, TagValue, Tags, Timeline};

/// What a member says about itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Member {
    /// `postgres://host:port/db`; every agent writes it.
    pub conn_url: Option<String>,
    /// `http[s]://host:port/patroni`; every agent writes it.
    pub api_url: Option<String>,
    pub state: OrText<PostgresState>,
    pub role: OrText<Role>,
    /// Dotted numbers. Patroni reads capabilities from it and wants at least 4.0.0.
    pub version: Option<String>,
    /// Baton's version, when the member's agent is Baton; Patroni neither writes nor reads it.
    pub baton: Option<String>,
    /// Of Baton alone: its disk is full, hangs or fails, in words. It shall not lead while another can.
    pub sick: Option<String>,
    /// Of Baton alone: it waits for WAL that the one it follows has removed, in words.
    pub waits_for: Option<String>,
    /// Of Baton alone: its archive takes nothing, in words.
    pub archives_nothing: Option<String>,
    pub proxy_url: Option<String>,
    /// `Some(false)` on a leader until its first checkpoint after the promotion.
    pub checkpoint_after_promote: Option<bool>,
    pub tags: Tags,
    pub pending_restart: bool,
    pub pending_restart_reason: BTreeMap<String, PendingChange>,
    /// A primary's flush position, a standby's newest position.
    pub xlog_location: Option<Lsn>,
    pub replay_lsn: Option<Lsn>,
    pub receive_lsn: Option<Lsn>,
    /// `streaming` or `in archive recovery`.
    pub replication_state: Option<String>,
    pub timeline: Option<Timeline>,
    /// `schedule`, `postmaster_start_time` and the filters of the restart.
    pub scheduled_restart: Option<Map<String, Value>>,
    pub pause: bool,
    /// As read: the lease on which the key hangs. Not part of the value.
    pub lease: Option<LeaseId>,
    /// As read: when the key was last changed. Not part of the value.
    pub mod_revision: i64,
}

/// A parameter that takes effect with the next restart.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct PendingChange {
    pub old_value: Option<String>,
    pub new_value: Option<String>,
}

impl Member {
    /// A member of which nothing else is known.
    #[must_use]
    pub fn new(state: PostgresState, role: Role) -> Member {
        Member {
            conn_url: None,
            api_url: None,
            state: OrText::Known(state),
            role: OrText::Known(role),
            version: None,
            baton: None,
            sick: None,
            waits_for: None,
            archives_nothing: None,
            proxy_url: None,
            checkpoint_after_promote: None,
            tags: Tags::default(),
            pending_restart: false,
            pending_restart_reason: BTreeMap::new(),
            xlog_location: None,
            replay_lsn: None,
            receive_lsn: None,
            replication_state: None,
            timeline: None,
            scheduled_restart: None,
            pause: false,
            lease: None,
            mod_revision: 0,
        }
    }

    /// The value as written; equal texts mean that there is nothing to publish.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(name.to_owned(), value);
            }
        };
        let text = |text: &Option<String>| text.clone().map(Value::String);
        let position = |lsn: Option<Lsn>| lsn.map(|lsn| Value::from(lsn.0));
        put("conn_url", text(&self.conn_url));
        put("api_url", text(&self.api_url));
        put("state", Some(Value::from(self.state.as_str())));
        put("role", Some(Value::from(self.role.as_str())));
        put("version", text(&self.version));
        put("proxy_url", text(&self.proxy_url));
        put("checkpoint_after_promote", self.checkpoint_after_promote.map(Value::Bool));
        put("tags", (!self.tags.0.is_empty()).then(|| tags_value(&self.tags)));
        put("pending_restart", self.pending_restart.then_some(Value::Bool(true)));
        put("pending_restart_reason", changes_value(&self.pending_restart_reason));
        put("xlog_location", position(self.xlog_location));
        put("replay_lsn", position(self.replay_lsn));
        put("receive_lsn", position(self.receive_lsn));
        put("replication_state", text(&self.replication_state));
        put("timeline", self.timeline.map(|timeline| Value::from(timeline.0)));
        put("scheduled_restart", self.scheduled_restart.clone().map(Value::Object));
        put("baton", text(&self.baton));
        put("baton_sick", text(&self.sick));
        put("baton_waits_for", text(&self.waits_for));
        put("baton_archives_nothing", text(&self.archives_nothing));
        put("pause", self.pause.then_some(Value::Bool(true)));
        Value::Object(map).to_string()
    }

    /// Reads the value; what is wrong with it, if it is no JSON object. A field of the wrong type is left out.
    pub fn parse(value: &str) -> Result<Member, String> {
        let map = json::object(value)?;
        let text = |name: &str| map.get(name).and_then(json::text);
        let position = |name: &str| map.get(name).and_then(json::lsn);
        let flag = |name: &str| map.get(name).and_then(Value::as_bool);
        Ok(Member {
            conn_url: text("conn_url"),
            api_url: text("api_url"),
            state: OrText::parse_state(&text("state").unwrap_or_default()),
            role: OrText::parse_role(&text("role").unwrap_or_default()),
            version: text("version"),
            baton: text("baton"),
            sick: text("baton_sick"),
            waits_for: text("baton_waits_for"),
            archives_nothing: text("baton_archives_nothing"),
            proxy_url: text("proxy_url"),
            checkpoint_after_promote: flag("checkpoint_after_promote"),
            tags: map.get("tags").and_then(Value::as_object).map(tags).unwrap_or_default(),
            pending_restart: flag("pending_restart").unwrap_or(false),
            pending_restart_reason: map
                .get("pending_restart_reason")
                .and_then(Value::as_object)
                .map(changes)
                .unwrap_or_default(),
            xlog_location: position("xlog_location"),
            replay_lsn: position("replay_lsn"),
            receive_lsn: position("receive_lsn"),
            replication_state: text("replication_state"),
            timeline: map.get("timeline").and_then(json::timeline),
            scheduled_restart: map.get("scheduled_restart").and_then(Value::as_object).cloned(),
            pause: flag("pause").unwrap_or(false),
            lease: None,
            mod_revision: 0,
        })
    }
}

fn tags_value(tags: &Tags) -> Value {
    let value = |tag: &TagValue| match tag {
        TagValue::Bool(flag) => Value::Bool(*flag),
        TagValue::Int(number) => Value::from(*number),
        TagValue::Text(text) => Value::from(text.as_str()),
    };
    Value::Object(tags.0.iter().map(|(name, tag)| (name.clone(), value(tag))).collect())
}

fn tags(map: &Map<String, Value>) -> Tags {
    let tag = |value: &Value| match value {
        Value::Bool(flag) => TagValue::Bool(*flag),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| TagValue::Text(number.to_string()), TagValue::Int)
        }
        Value::String(text) => TagValue::Text(text.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => TagValue::Text(value.to_string()),
    };
    Tags(map.iter().map(|(name, value)| (name.clone(), tag(value))).collect())
}

fn changes_value(changes: &BTreeMap<String, PendingChange>) -> Option<Value> {
    if changes.is_empty() {
        return None;
    }
    let side = |text: &Option<String>| text.clone().map_or(Value::Null, Value::String);
    let change = |change: &PendingChange| {
        let sides = [("old_value", &change.old_value), ("new_value", &change.new_value)];
        Value::Object(sides.into_iter().map(|(name, value)| (name.to_owned(), side(value))).collect())
    };
    Some(Value::Object(changes.iter().map(|(name, value)| (name.clone(), change(value))).collect()))
}

fn changes(map: &Map<String, Value>) -> BTreeMap<String, PendingChange> {
    let side = |change: &Value, name: &str| match change.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Null) | None => None,
        Some(other) => Some(other.to_string()),
    };
    let change = |value: &Value| PendingChange {
        old_value: side(value, "old_value"),
        new_value: side(value, "new_value"),
    };
    map.iter().map(|(name, value)| (name.clone(), change(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Member, OrText, PendingChange};
    use types::{Lsn, PostgresState, Role, TagValue, Timeline};

    /// As a Patroni 4.1.5 wrote it.
    const MEASURED: &str = concat!(
        r#"{"conn_url":"postgres://127.0.0.1:15433/postgres","api_url":"http://127.0.0.1:18009/patroni","#,
        r#""state":"running","role":"replica","version":"4.1.5","xlog_location":67108960,"#,
        r#""replay_lsn":67108960,"receive_lsn":67108960,"replication_state":"streaming","timeline":1}"#
    );

    #[test]
    fn what_patroni_wrote_is_read_and_written_again() {
        let member = Member::parse(MEASURED).unwrap();
        assert_eq!(member.state.known(), Some(PostgresState::Running));
        assert_eq!(member.role.known(), Some(Role::Replica));
        assert_eq!(member.xlog_location, Some(Lsn(67_108_960)));
        assert_eq!(member.timeline, Some(Timeline(1)));
        assert_eq!(member.to_json(), MEASURED);
    }

    #[test]
    fn every_field_goes_both_ways_in_the_writers_order() {
        let full = concat!(
            r#"{"conn_url":"postgres://a:1/b","api_url":"https://a:2/patroni","state":"start failed","#,
            r#""role":"standby_leader","version":"4.1.5","proxy_url":"postgres://c:3/b","#,
            r#""checkpoint_after_promote":false,"tags":{"clonefrom":true,"failover_priority":"1","zone":3},"#,
            r#""pending_restart":true,"pending_restart_reason":{"port":{"old_value":"1","new_value":null}},"#,
            r#""xlog_location":18446744073709551615,"replay_lsn":2,"receive_lsn":3,"#,
            r#""replication_state":"in archive recovery","timeline":7,"#,
            r#""scheduled_restart":{"schedule":"2026-11-23T10:00:00+00:00","role":"replica"},"pause":true}"#
        );
        let member = Member::parse(full).unwrap();
        assert_eq!(member.to_json(), full);
        assert_eq!(member.tags.0.get("failover_priority"), Some(&TagValue::Text("1".into())));
        assert_eq!(member.tags.0.get("zone"), Some(&TagValue::Int(3)));
        let change = PendingChange { old_value: Some("1".into()), new_value: None };
        assert_eq!(member.pending_restart_reason.get("port"), Some(&change));
    }

    #[test]
    fn other_orders_unknown_fields_and_quoted_numbers_are_read() {
        let odd = r#"{"timeline":"4","new":[1],"xlog_location":"99","role":"master","state":"resting","tags":7,
            "replay_lsn":{"a":1},"pause":"yes"}"#;
        let member = Member::parse(odd).unwrap();
        assert_eq!(member.timeline, Some(Timeline(4)));
        assert_eq!(member.xlog_location, Some(Lsn(99)));
        assert_eq!(member.role.known(), Some(Role::Primary));
        assert_eq!(member.state, OrText::Other("resting".into()));
        assert_eq!((member.replay_lsn, member.pause, member.conn_url), (None, false, None));
        for spoiled in ["", "null", "[]", "{", "postgres://old"] {
            assert!(Member::parse(spoiled).is_err(), "{spoiled}");
        }
    }
}
