//! Where each record lives: Patroni's layout, and our own additions below `baton/`, which Patroni ignores.

use types::NodeName;

/// The keys of one cluster: everything below `/<namespace>/<scope>/`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    prefix: String,
}

/// Which record a key holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Key {
    Initialize,
    Config,
    Leader,
    Member(NodeName),
    Status,
    OptimeLeader,
    Failover,
    Sync,
    History,
    Failsafe,
    Writable,
    /// A switchover is about to begin.
    Handover,
    /// What a router says about itself.
    Router(String),
    /// Which member has a virtual address.
    Address(String),
    /// How a member stands with its BGP neighbours.
    Bgp(NodeName),
    /// Which member had which virtual address, from when to when.
    AddressRows,
    /// Who accepted writes last.
    Last,
    /// The newest timeline number taken.
    Timeline,
    /// What single members had and the cluster has not.
    Losses,
    /// What the archive holds of each promotion.
    Archive,
}

impl Keys {
    /// The keys of the cluster `scope`; slashes too many in either part do no harm.
    #[must_use]
    pub fn new(namespace: &str, scope: &str) -> Keys {
        let parts = namespace.split('/').chain(scope.split('/')).filter(|part| !part.is_empty());
        let mut prefix = String::from("/");
        for part in parts {
            prefix.push_str(part);
            prefix.push('/');
        }
        Keys { prefix }
    }

    /// What all keys of the cluster begin with; it ends in a slash.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    #[must_use]
    pub fn initialize(&self) -> String {
        self.at("initialize")
    }

    #[must_use]
    pub fn config(&self) -> String {
        self.at("config")
    }

    #[must_use]
    pub fn leader(&self) -> String {
        self.at("leader")
    }

    #[must_use]
    pub fn member(&self, name: &NodeName) -> String {
        format!("{}members/{name}", self.prefix)
    }

    /// What the keys of all members begin with.
    #[must_use]
    pub fn members(&self) -> String {
        self.at("members/")
    }

    #[must_use]
    pub fn status(&self) -> String {
        self.at("status")
    }

    #[must_use]
    pub fn optime_leader(&self) -> String {
        self.at("optime/leader")
    }

    #[must_use]
    pub fn failover(&self) -> String {
        self.at("failover")
    }

    #[must_use]
    pub fn sync(&self) -> String {
        self.at("sync")
    }

    #[must_use]
    pub fn history(&self) -> String {
        self.at("history")
    }

    #[must_use]
    pub fn failsafe(&self) -> String {
        self.at("failsafe")
    }

    /// Who accepts writes, since when: what routers follow.
    #[must_use]
    pub fn baton_writable(&self) -> String {
        self.at("baton/writable")
    }

    /// The lead is about to be handed over: routers let no transaction begin.
    #[must_use]
    pub fn baton_handover(&self) -> String {
        self.at("baton/handover")
    }

    /// What the router of that name says about itself.
    #[must_use]
    pub fn baton_router(&self, id: &str) -> String {
        format!("{}baton/routers/{id}", self.prefix)
    }

    /// Who accepted writes last: what `baton_writable` said, without a lease.
    #[must_use]
    pub fn baton_last(&self) -> String {
        self.at("baton/last")
    }

    /// The newest timeline number that a promotion was begun with.
    #[must_use]
    pub fn baton_timeline(&self) -> String {
        self.at("baton/timeline")
    }

    /// Which member has this virtual address.
    #[must_use]
    pub fn baton_address(&self, ip: &str) -> String {
        format!("{}baton/vip/{ip}", self.prefix)
    }

    /// How this member stands with its BGP neighbours.
    #[must_use]
    pub fn baton_bgp(&self, name: &NodeName) -> String {
        format!("{}baton/bgp/{name}", self.prefix)
    }

    /// Which member had which virtual address, from when to when. Written for people: nobody decides by it.
    #[must_use]
    pub fn baton_address_rows(&self) -> String {
        self.at("baton/addresses")
    }

    /// What was lost in failovers, as the former leaders found when they came back.
    #[must_use]
    pub fn baton_losses(&self) -> String {
        self.at("baton/losses")
    }

    /// Whether the archive holds what a restore across each promotion needs.
    #[must_use]
    pub fn baton_archive(&self) -> String {
        self.at("baton/archive")
    }

    /// That member killed its primary, and processes of it do not end. Written for people: nobody reads it.
    #[must_use]
    pub fn baton_unfenced(&self, name: &NodeName) -> String {
        format!("{}baton/unfenced/{name}", self.prefix)
    }

    /// Who created the empty `initialize`, which has no name in it.
    #[must_use]
    pub fn baton_bootstrap(&self) -> String {
        self.at("baton/bootstrap")
    }

    /// Who took the lead last: changed with every taking, so that one that arrives late is recognised.
    #[must_use]
    pub fn baton_lead(&self) -> String {
        self.at("baton/lead")
    }

    /// The record that `key` holds; `None` when it is not ours to read.
    #[must_use]
    pub fn parse(&self, key: &str) -> Option<Key> {
        Some(match key.strip_prefix(&self.prefix)? {
            "initialize" => Key::Initialize,
            "config" => Key::Config,
            "leader" => Key::Leader,
            "status" => Key::Status,
            "optime/leader" => Key::OptimeLeader,
            "failover" => Key::Failover,
            "sync" => Key::Sync,
            "history" => Key::History,
            "failsafe" => Key::Failsafe,
            "baton/writable" => Key::Writable,
            "baton/handover" => Key::Handover,
            "baton/last" => Key::Last,
            "baton/timeline" => Key::Timeline,
            "baton/losses" => Key::Losses,
            "baton/addresses" => Key::AddressRows,
            "baton/archive" => Key::Archive,
            other => {
                let below = |section: &str| {
                    other.strip_prefix(section).filter(|name| !name.is_empty() && !name.contains('/'))
                };
                if let Some(name) = below("baton/bgp/") {
                    return Some(Key::Bgp(NodeName::from(name)));
                }
                match (below("members/"), below("baton/routers/"), below("baton/vip/")) {
                    (Some(name), _, _) => Key::Member(NodeName::from(name)),
                    (None, Some(id), _) => Key::Router(id.to_owned()),
                    (None, None, Some(ip)) => Key::Address(ip.to_owned()),
                    (None, None, None) => return None,
                }
            }
        })
    }

    fn at(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Keys};
    use types::NodeName;

    #[test]
    fn slashes_are_collapsed() {
        for (namespace, scope) in [("service", "batman"), ("/service/", "batman"), ("//service", "/batman/")]
        {
            assert_eq!(Keys::new(namespace, scope).prefix(), "/service/batman/", "{namespace} {scope}");
        }
        assert_eq!(Keys::new("/", "batman").prefix(), "/batman/");
        assert_eq!(Keys::new("a/b", "c").leader(), "/a/b/c/leader");
    }

    #[test]
    fn every_key_is_recognised_by_its_text() {
        let keys = Keys::new("service", "batman");
        let name = NodeName::from("pg-1");
        for (text, key) in [
            (keys.initialize(), Key::Initialize),
            (keys.config(), Key::Config),
            (keys.leader(), Key::Leader),
            (keys.member(&name), Key::Member(name.clone())),
            (keys.status(), Key::Status),
            (keys.optime_leader(), Key::OptimeLeader),
            (keys.failover(), Key::Failover),
            (keys.sync(), Key::Sync),
            (keys.history(), Key::History),
            (keys.failsafe(), Key::Failsafe),
            (keys.baton_writable(), Key::Writable),
            (keys.baton_handover(), Key::Handover),
            (keys.baton_router("r1"), Key::Router("r1".to_owned())),
            (keys.baton_address("fd00::5"), Key::Address("fd00::5".to_owned())),
            (keys.baton_bgp(&name), Key::Bgp(name.clone())),
            (keys.baton_last(), Key::Last),
            (keys.baton_timeline(), Key::Timeline),
            (keys.baton_losses(), Key::Losses),
            (keys.baton_address_rows(), Key::AddressRows),
            (keys.baton_archive(), Key::Archive),
        ] {
            assert_eq!(keys.parse(&text), Some(key), "{text}");
        }
        for other in [
            "/service/batman/members/",
            "/service/batman/members/a/b",
            "/service/robin/leader",
            "/service/batman/x",
        ] {
            assert_eq!(keys.parse(other), None, "{other}");
        }
        assert_eq!(keys.members(), "/service/batman/members/");
        assert_eq!(keys.baton_bootstrap(), "/service/batman/baton/bootstrap");
    }
}
