//! Who may get a session, for each role in each situation.

use super::{Out, Why, choose, homes};
use crate::config::{Destination, Fallback, Role, Service};
use crate::truth::{Target, Truth};
use crate::verdict::NoPrimary;
use std::collections::BTreeSet;
use types::{Moment, NodeName, Term};

fn target(name: &str) -> Target {
    Target {
        name: NodeName::from(name),
        host: "127.0.0.1".into(),
        port: 5432,
        pooler: None,
        lag: None,
        sync: name.starts_with('s'),
        since: Moment::default(),
    }
}

fn truth(primary: bool, replicas: &[&str], offline: &[&str]) -> Truth {
    let mut truth = Truth::closed("test");
    truth.primary = Err(NoPrimary::NoLeader);
    if primary {
        truth.in_force = Some(Term(7));
        truth.primary = Ok(target("p"));
    }
    truth.replicas = replicas.iter().map(|name| target(name)).collect();
    truth.offline = offline.iter().map(|name| target(name)).collect();
    truth
}

fn service(role: Role) -> Service {
    Service::new("s", ([127, 0, 0, 1], 0).into(), role)
}

fn names(list: &[&str]) -> BTreeSet<NodeName> {
    list.iter().map(|name| NodeName::from(*name)).collect()
}

/// Who may get it; `!` before the primary, `-` when nobody.
fn chosen(service: &Service, truth: &Truth, failed: &[&str], drained: &[&str], lagging: &[&str]) -> String {
    chosen_with(service, truth, &[], [failed, drained, lagging])
}

/// The same with members that a person sent the service to.
fn chosen_with(service: &Service, truth: &Truth, pinned: &[&str], out: [&[&str]; 3]) -> String {
    let [failed, drained, lagging] = out;
    let failed: Vec<NodeName> = failed.iter().map(|name| NodeName::from(*name)).collect();
    let out =
        Out { failed: &failed, drained: &names(drained), lagging: &names(lagging), pinned: &names(pinned) };
    match choose(service, truth, &out) {
        Err(_) => "-".to_owned(),
        Ok(candidates) => {
            assert!(!candidates.is_empty());
            let text = |c: &super::Candidate<'_>| {
                format!("{}{}", if c.term == Some(Term(7)) { "!" } else { "" }, c.target.name)
            };
            candidates.iter().map(text).collect::<Vec<_>>().join(" ")
        }
    }
}

#[test]
fn each_role_in_each_situation() {
    type Case<'a> = (bool, &'a [&'a str], &'a [&'a str], [&'a str; 5]);
    let cases: [Case<'_>; 8] = [
        // primary, replicas, offline → for primary, replica, sync, any, offline
        (true, &["a", "s"], &["o"], ["!p", "a s", "s", "a s o !p", "o"]),
        (true, &["a"], &[], ["!p", "a", "!p", "a !p", "a"]),
        (true, &[], &["o"], ["!p", "o", "!p", "o !p", "o"]),
        (true, &[], &[], ["!p", "!p", "!p", "!p", "-"]),
        (false, &["a", "s"], &["o"], ["-", "a s", "s", "a s o", "o"]),
        (false, &["a"], &[], ["-", "a", "-", "a", "a"]),
        (false, &[], &["o"], ["-", "o", "-", "o", "o"]),
        (false, &[], &[], ["-", "-", "-", "-", "-"]),
    ];
    for (primary, replicas, offline, expected) in cases {
        let truth = truth(primary, replicas, offline);
        let roles = [Role::Primary, Role::Replica, Role::Sync, Role::Any, Role::Offline];
        let found = roles.map(|role| chosen(&service(role), &truth, &[], &[], &[]));
        assert_eq!(found, expected, "{truth:?}");
    }
}

#[test]
fn who_is_out_gets_nothing_and_the_fallback_decides_who_stands_in() {
    let truth = truth(true, &["a", "b"], &[]);
    let mut replica = service(Role::Replica);
    assert_eq!(chosen(&replica, &truth, &["a"], &[], &[]), "b");
    assert_eq!(chosen(&replica, &truth, &["a"], &["b"], &[]), "!p");
    assert_eq!(chosen(&replica, &truth, &[], &["b"], &["a"]), "!p");
    replica.weights.insert("a".into(), 0);
    assert_eq!(chosen(&replica, &truth, &[], &[], &[]), "b");
    replica.fallback = Fallback::None;
    assert_eq!(chosen(&replica, &truth, &[], &[], &["a", "b"]), "-");
    let mut sync = service(Role::Sync);
    sync.fallback = Fallback::Replica;
    assert_eq!(chosen(&sync, &truth, &[], &[], &[]), "a b");
    let mut offline = service(Role::Offline);
    offline.fallback = Fallback::Primary;
    assert_eq!(chosen(&offline, &truth, &[], &[], &["a", "b"]), "!p");
    // A primary that was tried in vain is tried again; one that a person took out is not.
    assert_eq!(chosen(&service(Role::Primary), &truth, &["p"], &[], &["p"]), "!p");
    assert_eq!(chosen(&service(Role::Primary), &truth, &[], &["p"], &[]), "-");
}

#[test]
fn a_pin_is_followed_while_its_member_can_serve() {
    let truth = truth(true, &["a", "b"], &["o"]);
    let replica = service(Role::Replica);
    let sent = |service: &Service, to: &[&str], out| chosen_with(service, &truth, to, out);
    let nobody: [&[&str]; 3] = [&[], &[], &[]];
    assert_eq!(sent(&replica, &["b"], nobody), "b");
    assert_eq!(sent(&replica, &["b", "o"], nobody), "b o");
    assert_eq!(sent(&replica, &["p"], nobody), "!p", "reads may be sent to the primary");
    for out in 0..3 {
        let mut unfit = nobody;
        unfit[out] = &["b"];
        assert_eq!(
            sent(&replica, &["b"], unfit),
            "a",
            "drained, behind or tried in vain: as without the pin"
        );
    }
    assert_eq!(sent(&replica, &["gone"], nobody), "a b");
    let mut weightless = replica.clone();
    weightless.weights.insert("b".into(), 0);
    assert_eq!(sent(&weightless, &["b"], nobody), "b");
    // No pin makes a member something that it is not.
    assert_eq!(sent(&service(Role::Primary), &["a"], nobody), "!p");
    assert_eq!(sent(&service(Role::Offline), &["p"], nobody), "o");
}

#[test]
fn a_service_of_the_pooler_uses_who_has_one() {
    let mut truth = truth(true, &["a", "b"], &[]);
    let pooled = |role| Service { destination: Destination::Pooler, ..service(role) };
    truth.replicas[1].pooler = Some(("127.0.0.2".into(), 6432));
    assert_eq!(chosen(&pooled(Role::Replica), &truth, &[], &[], &[]), "b");
    let out = Out { failed: &[], drained: &names(&[]), lagging: &names(&[]), pinned: &names(&[]) };
    let why = choose(&pooled(Role::Primary), &truth, &out).unwrap_err().to_string();
    assert!(why.contains("no proxy_url"), "{why}");
}

#[test]
fn a_hold_says_why() {
    let truth = Truth::closed("etcd has not answered");
    let out = Out { failed: &[], drained: &names(&[]), lagging: &names(&[]), pinned: &names(&[]) };
    let why = choose(&service(Role::Replica), &truth, &out).unwrap_err();
    assert!(matches!(&why, Why::NoReplica(Some(NoPrimary::NeverSeen { .. }))));
    assert!(why.to_string().ends_with("not known yet: etcd has not answered"), "{why}");
}

#[test]
fn an_unknown_session_may_be_wherever_its_service_leads() {
    let truth = truth(true, &["a"], &["o"]);
    let of = |role| homes(&service(role), &truth).iter().map(|t| t.name.to_string()).collect::<Vec<_>>();
    assert_eq!(of(Role::Primary), ["p"]);
    assert_eq!(of(Role::Replica), ["a", "o", "p"]);
    assert_eq!(of(Role::Any), ["a", "o", "p"]);
    assert_eq!(of(Role::Offline), ["a", "o"]);
}
