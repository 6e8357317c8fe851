//! Which member has an address that does not belong to the primary. Pure.
//!
//! ```text
//!            no key, and fit for the role                    no longer fit            gone from this host
//!   nobody ──────────────────────────────► claimed, held ──────────────────► leaving ─────────────────────► nobody
//!                                             └── the lease ends: the right ended a second before it
//! ```
//! Who has it keeps it while it is fit: an address that wanders needs a reason.

use crate::address::Role;
use etcd::{AddressHolder, Snapshot};
use types::{LeaseId, NodeName, PostgresState, Term};

/// What to do about the key of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// This member has the claim.
    Hold {
        term: Term,
    },
    Claim,
    /// The address is gone from this host: others may have it.
    Leave(AddressHolder),
    /// It belongs to the primary, and is here.
    Tell,
    Rest,
}

/// What to do.
#[must_use]
pub(crate) fn turn(
    snapshot: &Snapshot,
    me: &NodeName,
    lease: Option<LeaseId>,
    ip: &str,
    role: Role,
    here: bool,
) -> Turn {
    let holder = snapshot.addresses.get(ip);
    // A key of an earlier run of this program goes with its own lease.
    let ours = holder.filter(|holder| holder.name == *me && lease.is_some() && holder.lease == lease);
    let fit = fit(snapshot, me, role);
    match (role, ours) {
        (Role::Primary, Some(ours)) if !here => Turn::Leave(ours.clone()),
        (Role::Primary, None) if here => Turn::Tell,
        (Role::Primary, _) => Turn::Rest,
        (_, Some(ours)) if fit => Turn::Hold { term: ours.term },
        (_, Some(ours)) if !here => Turn::Leave(ours.clone()),
        (_, None) if fit && holder.is_none() && lease.is_some() => Turn::Claim,
        (Role::Replica | Role::Sync | Role::Any, _) => Turn::Rest,
    }
}

/// Whether this member is what the role asks for.
#[must_use]
pub(crate) fn fit(snapshot: &Snapshot, me: &NodeName, role: Role) -> bool {
    let Some(member) = snapshot.members.get(me) else { return false };
    if member.state.known() != Some(PostgresState::Running) {
        return false;
    }
    let replica = member.role.known() == Some(types::Role::Replica);
    match role {
        Role::Any => true,
        Role::Sync => replica && snapshot.sync.as_ref().is_some_and(|sync| sync.sync_standby.contains(me)),
        // Without a leader nobody streams, and reads go on where they are.
        Role::Replica => {
            let streams = member.replication_state.as_deref() == Some("streaming");
            replica && !member.tags.noloadbalance() && (streams || snapshot.leader.is_none())
        }
        Role::Primary => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Turn, turn};
    use crate::address::Role;
    use etcd::{AddressHolder, Leader, Member, Snapshot, Sync};
    use types::{LeaseId, NodeName, PostgresState, Term};

    const IP: &str = "10.0.0.9";
    const OURS: LeaseId = LeaseId(5);

    fn cluster() -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, role) in
            [("a", types::Role::Primary), ("b", types::Role::Replica), ("c", types::Role::Replica)]
        {
            let mut member = Member::new(PostgresState::Running, role);
            member.replication_state = (role == types::Role::Replica).then(|| "streaming".to_owned());
            snapshot.members.insert(NodeName::from(name), member);
        }
        let name = NodeName::from("a");
        snapshot.leader = Some(Leader { name, lease: LeaseId(1), term: Term(3), mod_revision: 3 });
        snapshot
    }

    fn held(mut snapshot: Snapshot, by: &str, lease: LeaseId) -> Snapshot {
        let holder = AddressHolder {
            term: Term(8),
            lease: Some(lease),
            mod_revision: 9,
            ..AddressHolder::new(NodeName::from(by), "replica")
        };
        snapshot.addresses.insert(IP.to_owned(), holder);
        snapshot
    }

    fn of(snapshot: &Snapshot, me: &str, role: Role, here: bool) -> Turn {
        turn(snapshot, &NodeName::from(me), Some(OURS), IP, role, here)
    }

    #[test]
    fn only_who_is_fit_claims_and_only_what_nobody_has() {
        let free = cluster();
        assert_eq!(of(&free, "b", Role::Replica, false), Turn::Claim);
        assert_eq!(of(&free, "a", Role::Replica, false), Turn::Rest, "the primary is no replica");
        assert_eq!(of(&free, "a", Role::Any, false), Turn::Claim);
        assert_eq!(of(&free, "b", Role::Sync, false), Turn::Rest, "it is not synchronous");
        assert_eq!(of(&free, "x", Role::Any, false), Turn::Rest, "no member");
        let without_lease = turn(&free, &NodeName::from("b"), None, IP, Role::Replica, false);
        assert_eq!(without_lease, Turn::Rest);
        let mut sync = free.clone();
        sync.sync = Some(Sync { sync_standby: [NodeName::from("b")].into(), ..Sync::parse("{}").unwrap() });
        assert_eq!(of(&sync, "b", Role::Sync, false), Turn::Claim);
        let taken = held(free, "c", LeaseId(6));
        assert_eq!(of(&taken, "b", Role::Replica, false), Turn::Rest);
    }

    #[test]
    fn a_claim_is_held_while_fit_and_left_only_when_the_address_is_gone() {
        let ours = held(cluster(), "b", OURS);
        assert_eq!(of(&ours, "b", Role::Replica, false), Turn::Hold { term: Term(8) });
        let mut lags = ours.clone();
        lags.members.get_mut(&NodeName::from("b")).unwrap().replication_state = None;
        assert_eq!(of(&lags, "b", Role::Replica, true), Turn::Rest, "first it must go from here");
        assert!(matches!(of(&lags, "b", Role::Replica, false), Turn::Leave(_)));
        lags.leader = None;
        assert_eq!(of(&lags, "b", Role::Replica, true), Turn::Hold { term: Term(8) });
        let earlier = held(cluster(), "b", LeaseId(4));
        assert_eq!(of(&earlier, "b", Role::Replica, false), Turn::Rest, "an earlier run's");
    }

    #[test]
    fn whose_the_primary_s_address_is_is_only_told() {
        let free = cluster();
        assert_eq!(of(&free, "a", Role::Primary, false), Turn::Rest);
        assert_eq!(of(&free, "a", Role::Primary, true), Turn::Tell);
        assert_eq!(of(&held(free.clone(), "c", LeaseId(6)), "a", Role::Primary, true), Turn::Tell);
        assert_eq!(of(&held(free.clone(), "a", OURS), "a", Role::Primary, true), Turn::Rest);
        assert!(matches!(of(&held(free, "a", OURS), "a", Role::Primary, false), Turn::Leave(_)));
    }
}
