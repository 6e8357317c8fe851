//! The cluster as its keys tell it: who leads, who follows, how far behind. Pure; `keys` reads, this understands.

use crate::keys::Entry;
use serde_json::Value;
use std::collections::BTreeMap;

/// The cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The holder of the leader key and its term (the key's create revision).
    pub leader: Option<(String, i64)>,
    /// Who says that it accepts writes.
    pub writable: Option<String>,
    /// Whether automatic failover is off.
    pub paused: bool,
    /// Who may be promoted because commits wait for them, as `/sync` says.
    pub synchronous: Vec<String>,
    /// Whom `/failsafe` lists, where the mode is on: one that is not listed yet does not lead.
    pub failsafe: Option<Vec<String>>,
    pub members: Vec<Member>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub role: String,
    pub state: String,
    pub timeline: Option<i64>,
    /// Where its WAL ends: written on a primary, received on a replica.
    pub position: Option<i64>,
    /// `streaming` on a replica that is connected to its primary.
    pub replication: Option<String>,
    /// Whether its agent is Baton's.
    pub baton: bool,
}

impl View {
    /// Reads the keys.
    #[must_use]
    pub fn of(keys: &BTreeMap<String, Entry>) -> View {
        let leader = keys.get("leader").map(|entry| (entry.value.clone(), entry.create_revision));
        let object =
            |name: &str| keys.get(name).and_then(|entry| serde_json::from_str::<Value>(&entry.value).ok());
        let writable =
            object("baton/writable").and_then(|value| Some(value.get("name")?.as_str()?.to_owned()));
        let configured =
            |name: &str| object("config").is_some_and(|config| config.get(name) == Some(&Value::Bool(true)));
        let paused = configured("pause");
        let listed = || object("failsafe")?.as_object().map(|listed| listed.keys().cloned().collect());
        let failsafe = configured("failsafe_mode").then(|| listed().unwrap_or_default());
        let names = object("sync").and_then(|sync| Some(sync.get("sync_standby")?.as_str()?.to_owned()));
        let synchronous = names
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        let members = keys.iter().filter_map(|(key, entry)| {
            let name = key.strip_prefix("members/")?;
            let value: Value = serde_json::from_str(&entry.value).ok()?;
            Some(Member::of(name, &value))
        });
        View { leader, writable, paused, synchronous, failsafe, members: members.collect() }
    }

    /// The member called `name`.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The leader's own record.
    #[must_use]
    pub fn leading(&self) -> Option<&Member> {
        self.member(&self.leader.as_ref()?.0)
    }

    /// The writable primary's name, if the leader is it. Of a Patroni its role says so, it has no word of its own for it.
    #[must_use]
    pub fn primary(&self) -> Option<&str> {
        let leader = &self.leader.as_ref()?.0;
        let patroni =
            |member: &Member| !member.baton && member.role == "primary" && member.state == "running";
        (self.writable.as_ref() == Some(leader) || self.leading().is_some_and(patroni))
            .then_some(leader.as_str())
    }

    /// Whether `count` members are there, one a writable primary, all others streaming on its timeline and able to succeed it.
    #[must_use]
    pub fn healthy(&self, count: usize) -> bool {
        let (Some(primary), Some(leading)) = (self.primary(), self.leading()) else { return false };
        let follows = |member: &Member| {
            member.replication.as_deref() == Some("streaming") && member.timeline == leading.timeline
        };
        let listed =
            |member: &Member| self.failsafe.as_ref().is_none_or(|listed| listed.contains(&member.name));
        self.members.len() == count
            && self.members.iter().all(listed)
            && self.members.iter().all(|member| member.state == "running")
            && self.members.iter().filter(|member| member.name != primary).all(follows)
    }

    /// How many bytes `member` is behind the leader; unknown when either does not say.
    #[must_use]
    pub fn lag(&self, member: &Member) -> Option<i64> {
        Some((self.leading()?.position? - member.position?).max(0))
    }
}

impl Member {
    fn of(name: &str, value: &Value) -> Member {
        let text = |field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
        let number = |field: &str| value.get(field).and_then(Value::as_i64);
        Member {
            name: name.to_owned(),
            role: text("role").unwrap_or_default(),
            state: text("state").unwrap_or_default(),
            timeline: number("timeline"),
            position: number("receive_lsn").or_else(|| number("xlog_location")),
            replication: text("replication_state"),
            baton: text("baton").is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::View;
    use crate::keys::Entry;
    use std::collections::BTreeMap;

    fn keys(rows: &[(&str, &str)]) -> BTreeMap<String, Entry> {
        let entry = |value: &str| Entry { value: value.to_owned(), create_revision: 7, lease: 1 };
        rows.iter().map(|(key, value)| ((*key).to_owned(), entry(value))).collect()
    }

    const N1: (&str, &str) = (
        "members/n1",
        r#"{"role":"primary","state":"running","xlog_location":100,"timeline":2,"baton":"0"}"#,
    );
    const N2: (&str, &str) = (
        "members/n2",
        r#"{"role":"replica","state":"running","receive_lsn":90,"timeline":2,"replication_state":"streaming"}"#,
    );

    #[test]
    fn a_cluster_is_healthy_when_all_follow_the_writable_leader() {
        let view =
            View::of(&keys(&[N1, N2, ("leader", "n1"), ("baton/writable", r#"{"name":"n1","term":7}"#)]));
        assert_eq!(view.leader, Some(("n1".to_owned(), 7)));
        assert!(view.healthy(2) && !view.healthy(3));
        assert_eq!(view.lag(view.member("n2").unwrap()), Some(10));
        let held = View::of(&keys(&[N1, N2, ("leader", "n1"), ("baton/writable", r#"{"name":"n2"}"#)]));
        assert_eq!(held.primary(), None);
        assert!(!held.healthy(2));
        assert!(!View::of(&keys(&[N1, N2])).healthy(2));
        let failsafe = |names| {
            keys(&[
                N1,
                N2,
                ("leader", "n1"),
                ("baton/writable", r#"{"name":"n1"}"#),
                ("config", r#"{"failsafe_mode":true}"#),
                ("failsafe", names),
            ])
        };
        assert!(View::of(&failsafe(r#"{"n1":"","n2":""}"#)).healthy(2));
        assert!(!View::of(&failsafe(r#"{"n1":""}"#)).healthy(2), "n2 may not lead yet");
        let patroni = ("members/n1", r#"{"role":"primary","state":"running","timeline":2}"#);
        assert!(View::of(&keys(&[patroni, N2, ("leader", "n1")])).healthy(2));
        let starting = ("members/n1", r#"{"role":"primary","state":"starting","timeline":2}"#);
        assert_eq!(View::of(&keys(&[starting, N2, ("leader", "n1")])).primary(), None);
    }
}
