//! What is under the prefix, as values.
//!
//! ```text
//!   a read:        empty ── put every key ──▶ snapshot     what is spoiled keeps the previous snapshot's value
//!   a watch event: snapshot ── put or delete ──▶ snapshot  what is spoiled keeps the value it had
//! ```
//!
//! A value that cannot be understood never fails the read: it is named in `spoiled`, with what to do about it.

use crate::keys::{Key, Keys};
use crate::records::{
    AddressHolder, AddressRow, ArchiveRow, BgpNeighbor, ConfigKey, Failover, Handover, HistoryRow,
    Initialize, Leader, Loss, Member, Router, Status, Sync, Writable, parse_address_rows, parse_archive,
    parse_bgp, parse_failsafe, parse_history, parse_losses,
};
use etcd_client::KeyValue;
use std::collections::BTreeMap;
use types::{LeaseId, Lsn, NodeName, Term, Timeline};

/// How much is read.
pub struct Limits;

impl Limits {
    /// A longer value is not read.
    pub const VALUE_BYTES: usize = 1024 * 1024;
    /// More members are not read.
    pub const MEMBERS: usize = 100;
    /// More virtual addresses are not read.
    pub const ADDRESSES: usize = 100;
    /// More routers are not read.
    pub const ROUTERS: usize = 100;
    /// Of more stays of addresses the newest are kept.
    pub const ADDRESS_ROWS: usize = 200;
    /// Of more losses the newest are kept.
    pub const LOSSES: usize = 50;
    /// Of more promotions the newest are kept.
    pub const ARCHIVE: usize = 50;
    /// More spoiled keys are not listed.
    pub const SPOILED: usize = 100;
    /// With more keys under the prefix nothing is read.
    pub(crate) const KEYS: i64 = 2000;
}

/// What is under the prefix.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Snapshot {
    /// The revision that this is the state at, or the last one that changed it.
    pub revision: i64,
    pub initialize: Option<Initialize>,
    /// The lease of the one who creates the cluster.
    pub initialize_lease: Option<LeaseId>,
    pub config: Option<ConfigKey>,
    pub leader: Option<Leader>,
    pub members: BTreeMap<NodeName, Member>,
    pub status: Option<Status>,
    /// The revision of the last change of `status`: it was written in the present term when it is newer than the leader key.
    pub status_mod: i64,
    /// The leader's WAL position where agents older than `status` write it.
    pub optime_leader: Option<Lsn>,
    /// An order; `None` also when the key is empty.
    pub failover: Option<Failover>,
    /// When the `failover` key was last changed, whatever it says; `None` when it is absent.
    pub failover_mod: Option<i64>,
    pub sync: Option<Sync>,
    pub history: Vec<HistoryRow>,
    pub failsafe: Option<BTreeMap<NodeName, String>>,
    /// When `failsafe` was last changed, whatever it says; 0 when it is absent.
    pub failsafe_mod: i64,
    pub writable: Option<Writable>,
    /// What the last `writable` said; it outlives that member's lease.
    pub last: Option<Writable>,
    /// The leader is about to hand the lead over.
    pub handover: Option<Handover>,
    /// The routers that said to be there, by their names.
    pub routers: BTreeMap<String, Router>,
    /// Who has which virtual address.
    pub addresses: BTreeMap<String, AddressHolder>,
    /// How members stand with their BGP neighbours.
    pub bgp: BTreeMap<NodeName, Vec<BgpNeighbor>>,
    /// Who had which virtual address, from when to when, oldest first.
    pub address_rows: Vec<AddressRow>,
    /// When `address_rows` was last changed; 0 when it is absent.
    pub address_rows_mod: i64,
    /// The newest timeline number that a promotion was begun with.
    pub claimed: Option<Timeline>,
    /// What single members had and the cluster has not, oldest first.
    pub losses: Vec<Loss>,
    /// When `losses` was last changed; 0 when it is absent.
    pub losses_mod: i64,
    /// What the archive holds of each promotion, oldest first.
    pub archive: Vec<ArchiveRow>,
    /// Keys whose values cannot be understood; what was known before is kept.
    pub spoiled: Vec<Spoiled>,
}

/// A key whose value cannot be understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spoiled {
    pub key: String,
    /// What is wrong, and what to do.
    pub why: String,
}

impl Snapshot {
    pub(crate) fn read(
        keys: &Keys,
        revision: i64,
        kvs: &[KeyValue],
        previous: Option<&Snapshot>,
    ) -> Snapshot {
        let mut snapshot = Snapshot { revision, ..Snapshot::default() };
        for kv in kvs {
            snapshot.put_or_keep(keys, kv, previous);
        }
        snapshot
    }

    /// The last known position of the leader's WAL.
    #[must_use]
    pub fn optime(&self) -> Option<Lsn> {
        self.status.as_ref().map(|status| status.optime).or(self.optime_leader)
    }

    /// A key was written.
    pub(crate) fn put(&mut self, keys: &Keys, kv: &KeyValue) {
        self.revision = self.revision.max(kv.mod_revision());
        self.put_or_keep(keys, kv, None);
    }

    /// A key was deleted.
    pub(crate) fn delete(&mut self, keys: &Keys, kv: &KeyValue) {
        self.revision = self.revision.max(kv.mod_revision());
        let text = String::from_utf8_lossy(kv.key());
        self.spoiled.retain(|spoiled| spoiled.key != text);
        let Some(key) = keys.parse(&text) else { return };
        match key {
            Key::Initialize => (self.initialize, self.initialize_lease) = (None, None),
            Key::Config => self.config = None,
            Key::Leader => self.leader = None,
            Key::Member(name) => drop(self.members.remove(&name)),
            Key::Status => self.status = None,
            Key::OptimeLeader => self.optime_leader = None,
            Key::Failover => (self.failover, self.failover_mod) = (None, None),
            Key::Sync => self.sync = None,
            Key::History => self.history.clear(),
            Key::Failsafe => (self.failsafe, self.failsafe_mod) = (None, 0),
            Key::Writable => self.writable = None,
            Key::Last => self.last = None,
            Key::Handover => self.handover = None,
            Key::Router(id) => drop(self.routers.remove(&id)),
            Key::Address(ip) => drop(self.addresses.remove(&ip)),
            Key::Bgp(name) => drop(self.bgp.remove(&name)),
            Key::Timeline => self.claimed = None,
            Key::Archive => self.archive.clear(),
            Key::Losses => (self.losses, self.losses_mod) = (Vec::new(), 0),
            Key::AddressRows => (self.address_rows, self.address_rows_mod) = (Vec::new(), 0),
        }
    }

    fn put_or_keep(&mut self, keys: &Keys, kv: &KeyValue, previous: Option<&Snapshot>) {
        let text = String::from_utf8_lossy(kv.key());
        let Some(key) = keys.parse(&text) else { return };
        self.spoiled.retain(|spoiled| spoiled.key != text);
        match key {
            Key::Failover => self.failover_mod = Some(kv.mod_revision()),
            Key::Failsafe => self.failsafe_mod = kv.mod_revision(),
            _ => {}
        }
        let outcome = value_text(kv).and_then(|value| self.set(&key, kv, value));
        if let Err(why) = outcome {
            if let Some(previous) = previous {
                self.keep(&key, previous);
            }
            if self.spoiled.len() < Limits::SPOILED {
                self.spoiled
                    .push(Spoiled { key: text.into_owned(), why: format!("{why}; {}", remedy(&key)) });
            }
        }
    }

    /// Takes up one value, or says what is wrong with it and changes nothing.
    fn set(&mut self, key: &Key, kv: &KeyValue, value: &str) -> Result<(), String> {
        let mod_revision = kv.mod_revision();
        match key {
            Key::Initialize => {
                self.initialize = Some(Initialize::parse(value)?);
                self.initialize_lease = lease(kv);
            }
            Key::Config => self.config = Some(ConfigKey::parse(value, mod_revision)?),
            Key::Leader => return self.set_leader(kv, value),
            Key::Member(name) => {
                if self.members.len() >= Limits::MEMBERS && !self.members.contains_key(name) {
                    return Err(format!("there are more than {} members", Limits::MEMBERS));
                }
                let member = Member::parse(value)?;
                self.members.insert(name.clone(), Member { lease: lease(kv), mod_revision, ..member });
            }
            Key::Status => {
                self.status = Some(Status::parse(value)?);
                self.status_mod = mod_revision;
            }
            Key::OptimeLeader => {
                let optime = value.trim().parse().map_err(|_| "expected a number".to_owned())?;
                self.optime_leader = Some(Lsn(optime));
            }
            Key::Failover => {
                self.failover = Failover::parse(value)?.map(|order| Failover { mod_revision, ..order });
            }
            Key::Sync => self.sync = Some(Sync { mod_revision, ..Sync::parse(value)? }),
            Key::History => self.history = parse_history(value)?,
            Key::Failsafe => self.failsafe = Some(parse_failsafe(value)?),
            Key::Writable => self.writable = Some(Writable { lease: lease(kv), ..Writable::parse(value)? }),
            Key::Last => self.last = Some(Writable::parse(value)?),
            Key::Handover => self.handover = Some(Handover { mod_revision, ..Handover::parse(value)? }),
            Key::Router(id) => {
                let router = Router::parse(value)?;
                if self.routers.len() < Limits::ROUTERS || self.routers.contains_key(id) {
                    self.routers.insert(id.clone(), router);
                }
            }
            Key::Archive => self.archive = parse_archive(value)?,
            Key::Address(ip) => {
                let holder = AddressHolder::parse(value)?;
                let (term, lease) = (Term(kv.create_revision()), lease(kv));
                if self.addresses.len() < Limits::ADDRESSES || self.addresses.contains_key(ip) {
                    self.addresses.insert(ip.clone(), AddressHolder { term, lease, mod_revision, ..holder });
                }
            }
            Key::Bgp(name) => {
                let neighbors = parse_bgp(value)?;
                if self.bgp.len() < Limits::MEMBERS || self.bgp.contains_key(name) {
                    self.bgp.insert(name.clone(), neighbors);
                }
            }
            Key::Losses => {
                // A list that cannot be understood is written over by the next loss.
                self.losses_mod = mod_revision;
                self.losses = parse_losses(value)?;
            }
            Key::AddressRows => {
                self.address_rows_mod = mod_revision;
                self.address_rows = parse_address_rows(value)?;
            }
            Key::Timeline => {
                let number = value.trim().parse().map_err(|_| "expected a timeline number".to_owned())?;
                self.claimed = Some(Timeline(number));
            }
        }
        Ok(())
    }

    fn set_leader(&mut self, kv: &KeyValue, value: &str) -> Result<(), String> {
        if value.is_empty() || value.contains(|c: char| c.is_control() || c == '/') {
            return Err("expected the name of a member".to_owned());
        }
        self.leader = Some(Leader {
            name: NodeName::from(value),
            lease: LeaseId(kv.lease()),
            term: Term(kv.create_revision()),
            mod_revision: kv.mod_revision(),
        });
        if kv.lease() == 0 {
            return Err("it hangs on no lease and never expires".to_owned());
        }
        Ok(())
    }

    fn keep(&mut self, key: &Key, previous: &Snapshot) {
        match key {
            Key::Initialize => {
                self.initialize = previous.initialize;
                self.initialize_lease = previous.initialize_lease;
            }
            Key::Config => self.config.clone_from(&previous.config),
            Key::Leader => self.leader = self.leader.take().or_else(|| previous.leader.clone()),
            Key::Member(name) => {
                if let Some(member) = previous.members.get(name)
                    && self.members.len() < Limits::MEMBERS
                {
                    self.members.insert(name.clone(), member.clone());
                }
            }
            Key::Status => self.status.clone_from(&previous.status),
            Key::OptimeLeader => self.optime_leader = previous.optime_leader,
            Key::Failover => self.failover.clone_from(&previous.failover),
            Key::Sync => self.sync.clone_from(&previous.sync),
            Key::History => self.history.clone_from(&previous.history),
            Key::Failsafe => self.failsafe.clone_from(&previous.failsafe),
            Key::Writable => self.writable.clone_from(&previous.writable),
            Key::Last => self.last.clone_from(&previous.last),
            Key::Handover => self.handover.clone_from(&previous.handover),
            // One that cannot be understood is not waited for, and has no address.
            Key::Router(_) | Key::Address(_) | Key::Bgp(_) => {}
            Key::Timeline => self.claimed = previous.claimed,
            Key::Archive => self.archive.clone_from(&previous.archive),
            Key::Losses => self.losses.clone_from(&previous.losses),
            Key::AddressRows => self.address_rows.clone_from(&previous.address_rows),
        }
    }
}

fn value_text(kv: &KeyValue) -> Result<&str, String> {
    if kv.value().len() > Limits::VALUE_BYTES {
        return Err(format!("{} bytes are more than the limit of {}", kv.value().len(), Limits::VALUE_BYTES));
    }
    std::str::from_utf8(kv.value()).map_err(|_| "not UTF-8".to_owned())
}

fn lease(kv: &KeyValue) -> Option<LeaseId> {
    Some(LeaseId(kv.lease())).filter(|lease| lease.0 != 0)
}

/// What a person can do about a spoiled value.
fn remedy(key: &Key) -> &'static str {
    match key {
        Key::Initialize => "put the cluster's system identifier back (pg_controldata shows it)",
        Key::Config => "put a JSON object back, with `baton edit-config --replace` or `etcdctl put`",
        Key::Leader => "delete the key; the members elect a leader anew",
        Key::Member(_) => {
            "delete the key, and remove members that no longer exist; a running one writes its own again"
        }
        Key::Status
        | Key::OptimeLeader
        | Key::History
        | Key::Failsafe
        | Key::Writable
        | Key::Last
        | Key::Timeline => "delete the key; the leader writes it again",
        Key::Losses => {
            "delete the key, which only tells people of earlier losses; what was lost lies beside the data directories"
        }
        Key::AddressRows => "delete the key, which only tells people who had which virtual address earlier",
        Key::Archive => "delete the key; it only tells people what the archive held after earlier promotions",
        Key::Handover => "delete the key; it only matters during a switchover",
        Key::Router(_) => "delete the key; routers write theirs when they start",
        Key::Bgp(_) => "delete the key; its member writes it again",
        Key::Address(_) => "delete the key; whoever has the address writes it again",
        Key::Failover => "delete the key, and order the switchover again",
        Key::Sync => "delete the key only when the leader runs; it writes it again",
    }
}
