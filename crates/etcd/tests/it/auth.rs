//! etcd's own users and permissions.

use crate::cluster::{ATTEMPT, Cluster, keys, servers, within};
use etcd::{Config, Contact, Credentials, Error, Etcd, Renewed, watch};
use etcd_client::{Client, ConnectOptions, Permission, RoleRevokePermissionOptions};
use serde_json::json;
use types::NodeName;

fn client(cluster: &Cluster, user: Option<(&str, &str)>) -> Etcd {
    let auth =
        user.map(|(user, password)| Credentials { user: user.to_owned(), password: password.to_owned() });
    Etcd::new(Config { endpoints: cluster.urls(), attempt: ATTEMPT * 4, tls: None, auth }, keys()).unwrap()
}

/// Users are switched on under running clients: those that have one carry on, the others are told.
#[tokio::test]
async fn users_are_switched_on_while_we_run() {
    for server in servers() {
        let mut cluster = Cluster::start(&server, 1).await;
        let mut raw = cluster.raw(0).await;
        raw.user_add("root", "secret", None).await.unwrap();
        raw.user_grant_role("root", "root").await.unwrap();
        // Ours may do what it likes under its prefix, and nothing else.
        raw.role_add("batman").await.unwrap();
        let permission = Permission::read_write(keys().prefix()).with_prefix();
        raw.role_grant_permission("batman", permission).await.unwrap();
        raw.user_add("baton", "word", None).await.unwrap();
        raw.user_grant_role("baton", "batman").await.unwrap();

        let ours = client(&cluster, Some(("baton", "word")));
        let (nobody, wrong) = (client(&cluster, None), client(&cluster, Some(("baton", "guess"))));
        let me = NodeName::from("pg-a");
        let lease = ours.grant(60, within(20)).await.unwrap().lease;
        let term = ours.acquire_leader(&me, lease, within(20)).await.unwrap().unwrap();
        let (mut views, _watcher) = watch(ours.clone());
        nobody.snapshot(within(20)).await.unwrap();

        raw.auth_enable().await.unwrap();
        ours.put_config(&json!({"n": 1}), None, within(20)).await.unwrap();
        let renewed = ours.renew(lease, Some((&me, term)), within(20)).await;
        assert!(matches!(renewed, Ok(Renewed::Kept { .. })), "{renewed:?}");
        assert_eq!(ours.snapshot(within(20)).await.unwrap().config.unwrap().value, json!({"n": 1}));
        // A right that is taken away for a moment is no loss of the lease, nor of the lead.
        let options = ConnectOptions::new().with_user("root", "secret");
        let mut root = Client::connect(cluster.urls(), Some(options)).await.unwrap();
        let below = RoleRevokePermissionOptions::new().with_prefix();
        root.role_revoke_permission("batman", keys().prefix(), Some(below)).await.unwrap();
        let refused = ours.renew(lease, Some((&me, term)), within(20)).await;
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
        let permission = Permission::read_write(keys().prefix()).with_prefix();
        root.role_grant_permission("batman", permission).await.unwrap();
        let renewed = ours.renew(lease, Some((&me, term)), within(20)).await;
        assert!(matches!(renewed, Ok(Renewed::Kept { .. })), "{renewed:?}");
        for other in [&nobody, &wrong] {
            let error = other.snapshot(within(20)).await.unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{error:?}");
            let error = other.put_config(&json!({}), None, within(20)).await.unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        }

        // A restarted server has forgotten every token it gave.
        cluster.members[0].kill();
        cluster.members[0].start();
        ours.put_config(&json!({"n": 2}), None, within(40)).await.unwrap();
        assert_eq!(ours.release_leader(&me, term, within(20)).await, Ok(true));
        let seen = views.wait_for(|view| {
            let config = view.snapshot.as_ref().and_then(|snapshot| snapshot.config.as_ref());
            matches!(view.contact, Contact::Live { .. })
                && config.is_some_and(|config| config.value == json!({"n": 2}))
        });
        tokio::time::timeout(std::time::Duration::from_secs(60), seen).await.unwrap().unwrap();
        assert_eq!(ours.remove_cluster(within(20)).await, Ok(()));
    }
}
