//! One function for each compare-and-swap. What only the leader may write compares the leader key's create revision
//! with the caller's term, in the same transaction.

mod adopt;
mod initialize;
mod leader;
mod put;
mod remove;

use crate::Etcd;
use crate::error::Error;
use crate::records::{
    AddressHolder, AddressRow, ArchiveRow, BgpNeighbor, Failover, Handover, HistoryRow, Loss, Member, Router,
    Status, Sync, Writable, address_rows_json, archive_json, bgp_json, failsafe_json, history_json,
    losses_json,
};
use crate::snapshot::{Limits, Snapshot};
pub use leader::Grounds;
use put::{Expected, Put};
use serde_json::Value;
use std::collections::BTreeMap;
use types::{LeaseId, Moment, NodeName, Term, Timeline};

impl Etcd {
    /// Publishes this member, with its own lease. [`Error::LeaseGone`] when that has expired.
    pub async fn put_member(
        &self,
        name: &NodeName,
        value: &Member,
        lease: LeaseId,
        by: Moment,
    ) -> Result<(), Error> {
        let key = self.keys().member(name);
        let put = Put { lease: Some(lease), ..Put::own("publish this member", key, value.to_json()) };
        self.commit(&put, by).await.map(drop)
    }

    /// Takes this member off the list, at a clean stop.
    pub async fn delete_member(&self, name: &NodeName, by: Moment) -> Result<(), Error> {
        let delete = Put::delete("take this member off the list", self.keys().member(name), Expected::Own);
        self.commit(&delete, by).await.map(drop)
    }

    /// Says, or takes back with `None`, that processes of this member's primary were killed and do not end. It vanishes with the lease.
    pub async fn put_unfenced(
        &self,
        name: &NodeName,
        value: Option<String>,
        lease: LeaseId,
        by: Moment,
    ) -> Result<(), Error> {
        let key = self.keys().baton_unfenced(name);
        let put = match value {
            Some(value) => {
                Put { lease: Some(lease), ..Put::own("say that the primary is not fenced", key, value) }
            }
            None => Put::delete("say that the primary is gone", key, Expected::Own),
        };
        self.commit(&put, by).await.map(drop)
    }

    /// Publishes how far the leader's WAL is, and the slots to keep.
    pub async fn put_status(&self, status: &Status, term: Term, by: Moment) -> Result<(), Error> {
        self.put_as_leader("publish the status", self.keys().status(), status.to_json(), term, by).await
    }

    /// Patroni before 2.1 reads the leader's WAL position here.
    pub async fn put_optime_leader(&self, optime: types::Lsn, term: Term, by: Moment) -> Result<(), Error> {
        let key = self.keys().optime_leader();
        self.put_as_leader("publish the WAL position", key, optime.0.to_string(), term, by).await
    }

    /// Publishes the timeline history.
    pub async fn put_history(&self, rows: &[HistoryRow], term: Term, by: Moment) -> Result<(), Error> {
        self.put_as_leader("publish the history", self.keys().history(), history_json(rows), term, by).await
    }

    /// Publishes whom the leader must reach to keep the lead without etcd.
    pub async fn put_failsafe(
        &self,
        members: &BTreeMap<NodeName, String>,
        term: Term,
        by: Moment,
    ) -> Result<(), Error> {
        let value = failsafe_json(members);
        self.put_as_leader("publish the failsafe members", self.keys().failsafe(), value, term, by).await
    }

    /// Publishes that this primary accepts writes. It vanishes with the lease; who said so last remains.
    pub async fn put_writable(
        &self,
        writable: &Writable,
        lease: LeaseId,
        term: Term,
        by: Moment,
    ) -> Result<(), Error> {
        let key = self.keys().baton_writable();
        let put = Put::own("publish that this primary is writable", key, writable.to_json());
        let also = Some(self.keys().baton_last());
        let leader = Some((self.keys().leader(), term));
        self.commit(&Put { lease: Some(lease), also, leader, ..put }, by).await.map(drop)
    }

    /// Takes a timeline number for the promotion that is about to begin.
    pub async fn put_timeline(&self, timeline: Timeline, term: Term, by: Moment) -> Result<(), Error> {
        let (what, key) = ("take a timeline number", self.keys().baton_timeline());
        self.put_as_leader(what, key, timeline.0.to_string(), term, by).await
    }

    /// Withdraws that this primary accepts writes.
    pub async fn delete_writable(&self, term: Term, by: Moment) -> Result<(), Error> {
        let key = self.keys().baton_writable();
        let delete = Put::delete("withdraw that this primary is writable", key, Expected::Own);
        self.commit(&Put { leader: Some((self.keys().leader(), term)), ..delete }, by).await.map(drop)
    }

    /// Announces that the lead is about to be handed over. It vanishes with the lease.
    pub async fn put_handover(
        &self,
        handover: &Handover,
        lease: LeaseId,
        term: Term,
        by: Moment,
    ) -> Result<(), Error> {
        let (what, key) = ("announce the switchover to routers", self.keys().baton_handover());
        let leader = Some((self.keys().leader(), term));
        let put = Put { lease: Some(lease), leader, ..Put::own(what, key, handover.to_json()) };
        self.commit(&put, by).await.map(drop)
    }

    /// Publishes what a router says about itself. [`Error::LeaseGone`] when its lease has expired.
    pub async fn put_router(
        &self,
        id: &str,
        router: &Router,
        lease: LeaseId,
        by: Moment,
    ) -> Result<(), Error> {
        let key = self.keys().baton_router(id);
        let put = Put { lease: Some(lease), ..Put::own("publish this router", key, router.to_json()) };
        self.commit(&put, by).await.map(drop)
    }

    /// Claims a virtual address that nobody has; [`Error::Conflict`] when somebody was faster.
    pub async fn claim_address(
        &self,
        ip: &str,
        holder: &AddressHolder,
        lease: LeaseId,
        by: Moment,
    ) -> Result<(), Error> {
        let put = self.address("claim a virtual address", ip, holder, lease);
        self.commit(&Put { expected: Expected::Revision(0), ..put }, by).await.map(drop)
    }

    /// Tells that this member has an address that is its own by the lead.
    pub async fn tell_address(
        &self,
        ip: &str,
        holder: &AddressHolder,
        lease: LeaseId,
        by: Moment,
    ) -> Result<(), Error> {
        let put = self.address("tell who has a virtual address", ip, holder, lease);
        self.commit(&put, by).await.map(drop)
    }

    fn address(&self, what: &'static str, ip: &str, holder: &AddressHolder, lease: LeaseId) -> Put {
        let put = Put::own(what, self.keys().baton_address(ip), holder.to_json());
        Put { lease: Some(lease), ..put }
    }

    /// Tells how this member stands with its BGP neighbours, for as long as its lease lives.
    pub async fn put_bgp(
        &self,
        me: &NodeName,
        neighbors: &[BgpNeighbor],
        lease: LeaseId,
        by: Moment,
    ) -> Result<(), Error> {
        let put = Put::own("tell of BGP neighbours", self.keys().baton_bgp(me), bgp_json(neighbors));
        self.commit(&Put { lease: Some(lease), ..put }, by).await.map(drop)
    }

    /// Gives a virtual address back, unless somebody else has it by now.
    pub async fn leave_address(&self, ip: &str, holder: &AddressHolder, by: Moment) -> Result<(), Error> {
        let expected = Expected::Revision(holder.mod_revision);
        let delete = Put::delete("give a virtual address back", self.keys().baton_address(ip), expected);
        self.commit(&delete, by).await.map(drop)
    }

    /// Writes down who had which virtual address, over the list as `snapshot` has it; the oldest rows go when there are too many.
    /// [`Error::Conflict`] when another member was faster: read, and add again.
    pub async fn put_address_rows(
        &self,
        mut rows: Vec<AddressRow>,
        snapshot: &Snapshot,
        by: Moment,
    ) -> Result<(), Error> {
        rows.drain(..rows.len().saturating_sub(Limits::ADDRESS_ROWS));
        let key = self.keys().baton_address_rows();
        let put = Put {
            expected: Expected::Revision(snapshot.address_rows_mod),
            ..Put::own("write down who had which virtual address", key, address_rows_json(&rows))
        };
        self.commit(&put, by).await.map(drop)
    }

    /// Publishes the synchronous standbys, unless `/sync` is no longer at `expected_mod`. The new revision.
    pub async fn put_sync(
        &self,
        sync: &Sync,
        expected_mod: Option<i64>,
        term: Term,
        by: Moment,
    ) -> Result<i64, Error> {
        let put = Put {
            leader: Some((self.keys().leader(), term)),
            expected: expected_mod.map_or(Expected::Own, Expected::Revision),
            ..Put::own("publish the synchronous standbys", self.keys().sync(), sync.to_json())
        };
        self.commit(&put, by).await
    }

    /// Removes `/sync`, when the synchronous mode is switched off.
    pub async fn delete_sync(&self, expected_mod: i64, term: Term, by: Moment) -> Result<(), Error> {
        let expected = Expected::Revision(expected_mod);
        let delete = Put::delete("remove the synchronous standbys", self.keys().sync(), expected);
        self.commit(&Put { leader: Some((self.keys().leader(), term)), ..delete }, by).await.map(drop)
    }

    /// Writes the dynamic configuration if there is none. Whether it was this call that did.
    pub async fn create_config(&self, value: &Value, by: Moment) -> Result<bool, Error> {
        match self.put_config(value, Some(0), by).await {
            Ok(_) => Ok(true),
            Err(Error::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes the dynamic configuration; with `expected_mod` only over that revision of it. The new revision.
    pub async fn put_config(
        &self,
        value: &Value,
        expected_mod: Option<i64>,
        by: Moment,
    ) -> Result<i64, Error> {
        let put = Put {
            expected: expected_mod.map_or(Expected::Anything, Expected::Revision),
            ..Put::own("write the dynamic configuration", self.keys().config(), value.to_string())
        };
        self.commit(&put, by).await
    }

    /// Adds what this member had and the cluster has not to the list as `snapshot` has it; the oldest go when it is full.
    /// [`Error::Conflict`] when another member was faster: read, and add again.
    pub async fn add_loss(&self, loss: &Loss, snapshot: &Snapshot, by: Moment) -> Result<(), Error> {
        let mut rows = snapshot.losses.clone();
        rows.push(loss.clone());
        rows.drain(..rows.len().saturating_sub(Limits::LOSSES));
        let put = Put {
            expected: Expected::Revision(snapshot.losses_mod),
            ..Put::own("tell what was lost", self.keys().baton_losses(), losses_json(&rows))
        };
        self.commit(&put, by).await.map(drop)
    }

    /// Writes down what the archive holds of a promotion, over what was said of that timeline before; the oldest rows go when there
    /// are too many.
    pub async fn put_archive_row(
        &self,
        row: &ArchiveRow,
        snapshot: &Snapshot,
        term: Term,
        by: Moment,
    ) -> Result<(), Error> {
        let others = snapshot.archive.iter().filter(|other| other.timeline != row.timeline);
        let mut rows: Vec<ArchiveRow> = others.cloned().collect();
        rows.push(row.clone());
        rows.drain(..rows.len().saturating_sub(Limits::ARCHIVE));
        let value = archive_json(&rows);
        self.put_as_leader("tell what the archive has", self.keys().baton_archive(), value, term, by).await
    }

    /// Orders a switchover or failover; with `expected_mod` only over that revision of the key. The new revision.
    pub async fn put_failover(
        &self,
        failover: &Failover,
        expected_mod: Option<i64>,
        by: Moment,
    ) -> Result<i64, Error> {
        let put = Put {
            expected: expected_mod.map_or(Expected::Anything, Expected::Revision),
            ..Put::own("order the failover", self.keys().failover(), failover.to_json())
        };
        self.commit(&put, by).await
    }

    /// Takes the order back, or marks it as done. The key stays, empty.
    pub async fn clear_failover(&self, expected_mod: i64, by: Moment) -> Result<(), Error> {
        let put = Put {
            expected: Expected::Revision(expected_mod),
            ..Put::own("clear the failover order", self.keys().failover(), "{}".to_owned())
        };
        self.commit(&put, by).await.map(drop)
    }

    async fn put_as_leader(
        &self,
        what: &'static str,
        key: String,
        value: String,
        term: Term,
        by: Moment,
    ) -> Result<(), Error> {
        let put = Put { leader: Some((self.keys().leader(), term)), ..Put::own(what, key, value) };
        self.commit(&put, by).await.map(drop)
    }
}
