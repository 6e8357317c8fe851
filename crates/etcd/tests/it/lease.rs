//! The lease: kept, gone, and the lead lost while it lives.

use crate::cluster::{Cluster, eventually, servers, within};
use etcd::{AddressHolder, Claimed, Error, Renewed};
use etcd_client::PutOptions;
use types::{LeaseId, NodeName, Term};

fn me() -> NodeName {
    NodeName::from("pg-a")
}

#[tokio::test]
async fn a_lease_is_kept_and_then_gone() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let etcd = cluster.etcd();
        let granted = etcd.grant(10, within(20)).await.unwrap();
        let mut last = granted.sent;
        for _ in 0..5 {
            let Ok(Renewed::Kept { ttl_seconds, sent }) = etcd.renew(granted.lease, None, within(20)).await
            else {
                panic!("the lease was not kept")
            };
            assert_eq!(ttl_seconds, 10);
            assert!(sent >= last && sent <= clock::now());
            last = sent;
        }
        etcd.revoke(granted.lease, within(20)).await.unwrap();
        assert_eq!(
            etcd.renew(granted.lease, None, within(20)).await,
            Ok(Renewed::Gone),
            "on the open stream"
        );
        assert_eq!(etcd.renew(granted.lease, None, within(20)).await, Ok(Renewed::Gone), "on a new stream");
        assert_eq!(etcd.renew(LeaseId(77), Some((&me(), Term(1))), within(20)).await, Ok(Renewed::Gone));

        let short = etcd.grant(1, within(20)).await.unwrap();
        assert!(short.ttl_seconds >= 1, "etcd may raise it, and says so");
        eventually("the lease expires", || async {
            let snapshot = etcd.snapshot(within(20)).await.ok()?;
            let mut raw = cluster.raw(0).await;
            let left = raw.lease_time_to_live(short.lease.0, None).await.ok()?.ttl();
            (snapshot.leader.is_none() && left < 0).then_some(())
        })
        .await;
        assert_eq!(etcd.renew(short.lease, None, within(20)).await, Ok(Renewed::Gone));
    }
}

#[tokio::test]
async fn a_renewal_of_the_lead_counts_only_while_the_key_is_ours() {
    for server in servers() {
        let cluster = Cluster::start(&server, 3).await;
        let etcd = cluster.etcd();
        let lease = etcd.grant(30, within(20)).await.unwrap().lease;
        let other = etcd.grant(30, within(20)).await.unwrap().lease;
        let term = etcd.acquire_leader(&me(), lease, within(20)).await.unwrap().unwrap();
        for at in 0..3 {
            let renewed = cluster.etcd_from(at).renew(lease, Some((&me(), term)), within(20)).await;
            assert!(matches!(renewed, Ok(Renewed::Kept { ttl_seconds: 30, .. })), "{renewed:?}");
        }
        for (name, term) in
            [(NodeName::from("pg-b"), term), (me(), Term(term.0 - 1)), (me(), Term(term.0 + 1))]
        {
            assert_eq!(etcd.renew(lease, Some((&name, term)), within(20)).await, Ok(Renewed::LeadLost));
        }
        assert_eq!(
            etcd.renew(other, Some((&me(), term)), within(20)).await,
            Ok(Renewed::LeadLost),
            "another lease"
        );

        // Somebody put the key on another lease: ours no longer keeps the lead.
        let options = PutOptions::new().with_lease(other.0);
        cluster.raw(0).await.put(etcd.keys().leader(), "pg-a", Some(options)).await.unwrap();
        assert_eq!(etcd.renew(lease, Some((&me(), term)), within(20)).await, Ok(Renewed::LeadLost));
        cluster.raw(0).await.delete(etcd.keys().leader(), None).await.unwrap();
        assert_eq!(etcd.renew(lease, Some((&me(), term)), within(20)).await, Ok(Renewed::LeadLost));
        assert!(matches!(etcd.renew(lease, None, within(20)).await, Ok(Renewed::Kept { .. })));
    }
}

#[tokio::test]
async fn a_renewal_of_claims_shows_those_that_hang_on_the_lease() {
    for server in servers() {
        let cluster = Cluster::start(&server, 3).await;
        let etcd = cluster.etcd();
        let (ours, theirs) = (
            etcd.grant(30, within(20)).await.unwrap().lease,
            etcd.grant(30, within(20)).await.unwrap().lease,
        );
        let own = AddressHolder::new(me(), "any");
        etcd.claim_address("10.0.0.8", &own, ours, within(20)).await.unwrap();
        etcd.claim_address("fd00::9", &own, theirs, within(20)).await.unwrap();
        let claims = async |at: usize| match cluster.etcd_from(at).renew_claims(ours, within(20)).await {
            Ok(Claimed::Kept { ttl_seconds: 30, addresses, .. }) => addresses,
            other => panic!("{other:?}"),
        };
        let snapshot = etcd.snapshot(within(20)).await.unwrap();
        let term = snapshot.addresses["10.0.0.8"].term;
        for at in 0..3 {
            assert_eq!(claims(at).await, [("10.0.0.8".to_owned(), term)].into());
        }
        // Taken away and claimed anew: another term, which shows that somebody else may have had it in between.
        cluster.raw(0).await.delete(etcd.keys().baton_address("10.0.0.8"), None).await.unwrap();
        assert_eq!(claims(1).await, [].into());
        etcd.claim_address("10.0.0.8", &own, ours, within(20)).await.unwrap();
        assert!(claims(2).await["10.0.0.8"] > term);
        etcd.revoke(ours, within(20)).await.unwrap();
        assert_eq!(etcd.renew_claims(ours, within(20)).await, Ok(Claimed::Gone));
    }
}

#[tokio::test]
async fn somebody_asks_how_long_the_leader_s_lease_lives() {
    for server in servers() {
        let cluster = Cluster::start(&server, 3).await;
        let etcd = cluster.etcd();
        let lease = etcd.grant(30, within(20)).await.unwrap().lease;
        let term = etcd.acquire_leader(&me(), lease, within(20)).await.unwrap().unwrap();
        for at in 0..3 {
            let asked = clock::now();
            let until = cluster.etcd_from(at).lead_lives_until(lease, (&me(), term), within(20)).await;
            let rest = until.unwrap().unwrap().since(asked).as_secs();
            assert!((20..=31).contains(&rest), "{rest}");
        }
        let others = [(NodeName::from("pg-b"), term), (me(), Term(term.0 + 1))];
        for (name, term) in others {
            assert_eq!(etcd.lead_lives_until(lease, (&name, term), within(20)).await, Ok(None));
        }
        etcd.revoke(lease, within(20)).await.unwrap();
        assert_eq!(etcd.lead_lives_until(lease, (&me(), term), within(20)).await, Ok(None));
    }
}

#[tokio::test]
async fn without_a_majority_nothing_is_renewed() {
    for server in servers() {
        let mut cluster = Cluster::start(&server, 3).await;
        let leader = cluster.leader().await;
        let etcd = cluster.etcd_from(leader);
        let lease = etcd.grant(60, within(20)).await.unwrap().lease;
        let term = etcd.acquire_leader(&me(), lease, within(20)).await.unwrap().unwrap();
        let renewed = etcd.renew(lease, Some((&me(), term)), within(20)).await;
        assert!(matches!(renewed, Ok(Renewed::Kept { .. })), "{renewed:?}");
        // The leader alone remains. It does not know yet that it leads nobody, and still answers keep-alives.
        for at in (0..3).filter(|at| *at != leader) {
            cluster.members[at].kill();
        }
        let renewed = etcd.renew(lease, Some((&me(), term)), within(3)).await;
        assert!(matches!(renewed, Err(Error::Unreachable { .. })), "{renewed:?}");
        let claims = etcd.renew_claims(lease, within(2)).await;
        assert!(matches!(claims, Err(Error::Unreachable { .. })), "{claims:?}");
        let asked = etcd.lead_lives_until(lease, (&me(), term), within(2)).await;
        assert!(matches!(asked, Err(Error::Unreachable { .. })), "{asked:?}");
        for at in (0..3).filter(|at| *at != leader) {
            cluster.members[at].start();
        }
        let renewed = etcd.renew(lease, Some((&me(), term)), within(40)).await;
        assert!(matches!(renewed, Ok(Renewed::Kept { .. })), "{renewed:?}");
    }
}
