//! The truth, case by case: what is seen, what was known before, and where connections go.

use super::{NoPrimary, Truth, Verdict, Vouch, follow, good_until, has_begun, place_of, remember};
use crate::config::TruthLimits;
use crate::seen::{Member, Seen};
use std::time::Duration;
use types::{Lsn, Moment, NodeName, PostgresState, Role, Term};

const NOW: Moment = Moment(1_000_000);

fn limits() -> TruthLimits {
    TruthLimits::default()
}

fn member(number: u8, role: Role) -> Member {
    Member {
        conn_url: format!("postgres://127.0.0.{number}:5432/postgres"),
        api_url: format!("http://127.0.0.{number}:8008/patroni"),
        state: Some(PostgresState::Running),
        state_text: "running".into(),
        role: Some(role),
        role_text: role.to_string(),
        streaming: role == Role::Replica,
        is_baton: true,
        ..Member::default()
    }
}

/// db1 leads and accepts writes in term 10; db2 and db3 stream.
fn healthy() -> Seen {
    let members = [(1, Role::Primary), (2, Role::Replica), (3, Role::Replica)];
    Seen {
        revision: 100,
        leader: Some((NodeName::from("db1"), Term(10))),
        writable: Some((NodeName::from("db1"), Term(10))),
        members: members
            .into_iter()
            .map(|(number, role)| (NodeName(format!("db{number}")), member(number, role)))
            .collect(),
        ..Seen::default()
    }
}

fn healthy_but(change: impl FnOnce(&mut Seen)) -> Seen {
    let mut seen = healthy();
    change(&mut seen);
    seen
}

fn fresh(seen: &Seen) -> Truth {
    follow(seen, &Truth::closed("test"), &limits(), NOW)
}

fn db(number: u8) -> NodeName {
    NodeName(format!("db{number}"))
}

fn names(targets: &[super::Target]) -> Vec<&str> {
    targets.iter().map(|target| target.name.as_str()).collect()
}

#[test]
fn it_starts_closed() {
    let truth = Truth::closed("etcd is away");
    assert!(!truth.is_known());
    assert_eq!(truth.in_force, None);
    assert!(matches!(&truth.primary, Err(NoPrimary::NeverSeen { why }) if why == "etcd is away"));
    assert!(truth.replicas.is_empty() && truth.offline.is_empty());
}

#[test]
fn a_healthy_cluster_has_a_primary_and_replicas() {
    let truth = fresh(&healthy());
    assert_eq!(truth.primary.as_ref().unwrap().name, db(1));
    assert_eq!(truth.in_force, Some(Term(10)));
    assert_eq!(names(&truth.replicas), ["db2", "db3"]);
    assert_eq!(truth.members.get(&db(1)), Some(&Verdict::Primary));
}

/// What has to be true for new sessions to reach a primary, and which term's sessions live, one change at a time.
#[test]
fn a_primary_needs_the_lock_the_word_and_an_address() {
    type Change = fn(&mut Seen);
    let cases: [(&str, Change, Option<i64>, &str); 9] = [
        ("no leader", |s| s.leader = None, None, "no leader"),
        ("lock held, not writable", |s| s.writable = None, Some(10), "does not accept writes"),
        (
            "writable of an older term",
            |s| s.writable = Some((db(1), Term(9))),
            Some(10),
            "does not accept writes",
        ),
        (
            "writable of a later term",
            |s| s.writable = Some((db(1), Term(11))),
            Some(10),
            "does not accept writes",
        ),
        (
            "writable of another member",
            |s| s.writable = Some((db(2), Term(10))),
            Some(10),
            "does not accept writes",
        ),
        ("new leader, old writable", |s| s.leader = Some((db(2), Term(20))), Some(20), "db2 (term 20)"),
        (
            "leader without a member key",
            |s| drop(s.members.remove(&db(1))),
            Some(10),
            "not published its address",
        ),
        (
            "leader with a bad address",
            |s| s.members.get_mut(&db(1)).unwrap().conn_url = "postgres://:x/".into(),
            Some(10),
            "cannot be used",
        ),
        ("an empty cluster", |s| *s = Seen { revision: 5, ..Seen::default() }, None, "no leader"),
    ];
    for (what, change, in_force, why) in cases {
        let truth = fresh(&healthy_but(change));
        let reason = truth.primary.clone().unwrap_err().to_string();
        assert!(reason.contains(why), "{what}: {reason}");
        assert_eq!(truth.in_force, in_force.map(Term), "{what}");
        assert!(truth.is_known(), "{what}");
    }
}

#[test]
fn a_patroni_that_leads_is_believed_by_its_role() {
    let patroni = |change: fn(&mut Member)| {
        fresh(&healthy_but(|seen| {
            seen.writable = None;
            let leader = seen.members.get_mut(&db(1)).unwrap();
            leader.is_baton = false;
            change(leader);
        }))
    };
    assert!(patroni(|_| ()).primary.is_ok());
    assert!(patroni(|leader| leader.role = Some(Role::Replica)).primary.is_err());
    assert!(patroni(|leader| leader.state = Some(PostgresState::Starting)).primary.is_err());
    assert!(patroni(|leader| leader.is_baton = true).primary.is_err());
}

#[test]
fn an_older_term_is_never_followed_within_one_etcd() {
    let newer = fresh(&healthy_but(|seen| {
        seen.leader = Some((db(2), Term(20)));
        seen.writable = seen.leader.clone();
    }));
    assert_eq!(newer.term, Some(Term(20)));
    let back = follow(&healthy_but(|seen| seen.revision = 101), &newer, &limits(), NOW);
    assert!(matches!(back.primary, Err(NoPrimary::TermWentBack { term: Term(10), newest: Term(20) })));
    assert_eq!(back.in_force, None);
    assert_eq!(back.term, Some(Term(20)));
    // Without a leader the newest term is still known.
    let none = follow(&healthy_but(|seen| seen.leader = None), &newer, &limits(), NOW);
    assert_eq!((none.term, none.in_force), (Some(Term(20)), None));
    // A smaller revision is another etcd, restored from a backup: its terms count from anew.
    let restored = follow(&healthy_but(|seen| seen.revision = 50), &newer, &limits(), NOW);
    assert!(restored.primary.is_ok());
    assert_eq!(restored.term, Some(Term(10)));
}

#[test]
fn each_member_that_is_not_used_has_its_reason() {
    type Change = fn(&mut Member);
    let cases: [(Change, &str); 6] = [
        (|m| (m.state, m.state_text) = (Some(PostgresState::Starting), "starting".into()), "\"starting\""),
        (|m| (m.state, m.state_text) = (None, "resting".into()), "\"resting\""),
        (|m| m.streaming = false, "does not stream"),
        (|m| m.noloadbalance = true, "noloadbalance"),
        (|m| m.conn_url = "nonsense".into(), "names no host"),
        (|m| (m.role, m.role_text) = (Some(Role::Primary), "primary".into()), "does not hold the leader key"),
    ];
    for (change, why) in cases {
        let truth = fresh(&healthy_but(|seen| change(seen.members.get_mut(&db(2)).unwrap())));
        assert_eq!(names(&truth.replicas), ["db3"], "{why}");
        let verdict = truth.members.get(&db(2)).unwrap().to_string();
        assert!(verdict.contains(why), "{verdict}");
    }
    let truth = fresh(&healthy_but(|seen| seen.members.get_mut(&db(2)).unwrap().offline = true));
    assert_eq!((names(&truth.replicas), names(&truth.offline)), (vec!["db3"], vec!["db2"]));
}

#[test]
fn replicas_stay_in_use_through_a_failover() {
    let limits = limits();
    let before = fresh(&healthy());
    let silent = |seen: &mut Seen| seen.members.values_mut().for_each(|member| member.streaming = false);
    let leaderless = healthy_but(|seen| {
        silent(seen);
        seen.leader = None;
    });
    let during = follow(&leaderless, &before, &limits, NOW.after(Duration::from_secs(60)));
    assert_eq!(
        names(&during.replicas),
        ["db1", "db2", "db3"].split_at(1).1,
        "db1 still calls itself primary"
    );

    let promoted = healthy_but(|seen| {
        silent(seen);
        seen.leader = Some((db(2), Term(20)));
        seen.writable = seen.leader.clone();
    });
    let at = NOW.after(Duration::from_secs(61));
    let after = follow(&promoted, &during, &limits, at);
    assert_eq!(names(&after.replicas), ["db3"]);
    let later = follow(&promoted, &after, &limits, at.after(limits.streaming_grace));
    assert_eq!(names(&later.replicas), [""; 0], "it never came back");
    let leaderless_again = follow(&leaderless, &later, &limits, at.after(limits.streaming_grace));
    assert_eq!(names(&leaderless_again.replicas), ["db2"], "what did not stream before is not trusted now");
}

#[test]
fn a_member_that_is_gone_is_remembered_for_a_while() {
    let limits = limits();
    let gone = healthy_but(|seen| drop(seen.members.remove(&db(3))));
    let truth = follow(&gone, &fresh(&healthy()), &limits, NOW);
    assert_eq!(truth.members.get(&db(3)), Some(&Verdict::Gone { since: NOW }));
    assert!(truth.remembers(&db(3), limits.gone_grace, NOW));
    let later = NOW.after(limits.gone_grace);
    let truth = follow(&gone, &truth, &limits, later);
    assert!(!truth.remembers(&db(3), limits.gone_grace, later));
    let truth = follow(&gone, &truth, &limits, later.after(limits.gone_grace));
    assert!(!truth.members.contains_key(&db(3)));
}

#[test]
fn lag_is_what_is_not_replayed_yet() {
    let truth = fresh(&healthy_but(|seen| {
        seen.position = Some(Lsn(5000));
        seen.members.get_mut(&db(2)).unwrap().replayed = Some(Lsn(4000));
    }));
    assert_eq!(truth.replicas.iter().map(|target| target.lag).collect::<Vec<_>>(), [Some(1000), None]);
}

/// A watch gives a sign each second; what is older is doubted, unless the agent said it within its time, and for this term.
#[test]
fn what_is_old_is_doubted() {
    let (known, limits) = (fresh(&healthy()), limits());
    let asked = |term, at| Vouch { asked: Some(at), writes: Some((Term(term), at)), ..Vouch::default() };
    let (old, older) = (NOW.after(limits.sign_lifetime), NOW.after(limits.vouch_lifetime));
    assert!(limits.sign_lifetime <= limits.vouch_lifetime && limits.vouch_lifetime < limits.etcd_patience);
    for (now, vouch, expected) in [
        (old.before(Duration::from_millis(1)), Vouch::default(), false),
        (old, Vouch::default(), true),
        (old, asked(10, NOW), false),
        (old, asked(9, NOW), true),
        (older, asked(10, NOW), true),
        (older, asked(10, old), false),
    ] {
        let truth = Truth { doubted: now >= good_until(&known, Some(NOW), &vouch, &limits), ..known.clone() };
        assert_eq!(truth.doubted, expected, "{now:?} {vouch:?}");
        assert_eq!(truth.distrusts_poolers(), expected);
        assert_eq!(truth.same_routes(&known), !expected, "who waits for it is woken");
        assert!(truth.primary.is_ok(), "who is not in a pooler goes on");
    }
}

/// That it takes writes is known from the moment at which it began to, or not from etcd at all.
#[test]
fn whether_it_was_seen_to_begin() {
    let (before, limits) = (fresh(&healthy()), limits());
    let stopping = fresh(&healthy_but(|seen| seen.writable = None));
    let elsewhere = Truth { in_force: Some(Term(9)), ..before.clone() };
    let leaderless = Truth { in_force: None, ..before.clone() };
    assert!(matches!(stopping.primary, Err(NoPrimary::NotWritable { .. })), "{stopping:?}");
    for (from, to, begun) in [
        (&stopping, &before, true),
        (&elsewhere, &before, true),
        (&leaderless, &before, true),
        (&before, &before, false),
        (&before, &stopping, false),
        (&Truth::closed("not asked yet"), &before, false),
    ] {
        assert_eq!(has_begun(from, to), begun, "{from:?} {to:?}");
    }
    let says = Vouch { yes: Some((Term(10), NOW)), ..Vouch::default() };
    assert_eq!(
        good_until(&before, None, &says, &limits),
        Moment::default(),
        "it leads, and may have to promote first"
    );
    let says = Vouch { writes: Some((Term(10), NOW)), ..says };
    assert_eq!(good_until(&before, None, &says, &limits), NOW.after(limits.vouch_lifetime));
}

#[test]
fn without_etcd_the_leader_needs_its_agents_word_in_the_end() {
    let limits = limits();
    let known = fresh(&healthy());
    let nobody = Vouch::default();
    let patient = NOW.after(limits.etcd_patience).before(Duration::from_millis(1));
    assert_eq!(remember(&known, NOW, &nobody, &limits, patient), known);
    let denied = Vouch { why_not: Some("answered 503".into()), denied: true, ..Vouch::default() };
    let truth = remember(&known, NOW, &denied, &limits, patient);
    assert_eq!(truth.in_force, None, "its own no needs no patience");

    let late = NOW.after(limits.etcd_patience);
    let truth = remember(&known, NOW, &nobody, &limits, late);
    assert_eq!(truth.in_force, None);
    assert!(truth.primary.clone().unwrap_err().to_string().contains("not answered"));
    assert_eq!(names(&truth.replicas), ["db2", "db3"], "reads go on");
    assert_eq!(truth.term, Some(Term(10)), "and the term is not forgotten");

    let yes = |term: i64, at: Moment| Vouch {
        asked: Some(NOW),
        yes: Some((Term(term), at)),
        why_not: Some("an older no".into()),
        ..Vouch::default()
    };
    assert_eq!(remember(&known, NOW, &yes(10, late), &limits, late), known);
    assert!(remember(&known, NOW, &yes(9, late), &limits, late).primary.is_err());
    let stale = late.before(limits.vouch_lifetime);
    let asked = |at: Moment| Vouch { asked: Some(at), ..Vouch::default() };
    assert_eq!(remember(&known, NOW, &asked(late), &limits, late), known, "it gets the time to answer");
    assert!(remember(&known, NOW, &asked(stale), &limits, late).primary.is_err());
    assert!(remember(&known, NOW, &yes(10, stale), &limits, late).primary.is_err());

    let closed = Truth::closed("etcd is away");
    assert_eq!(
        remember(&closed, NOW, &yes(10, late), &limits, late),
        closed,
        "nobody vouches for what was never seen"
    );
}

#[test]
fn addresses_are_read_from_conn_urls() {
    let place = |url: &str| place_of(url).map(|(host, port)| format!("{host} {port}"));
    for (url, expected) in [
        ("postgres://10.0.0.1:5433/postgres", Some("10.0.0.1 5433")),
        ("postgresql://db.example:5433/postgres?x=y", Some("db.example 5433")),
        ("postgres://db.example/postgres", Some("db.example 5432")),
        ("postgres://user@db.example:6000", Some("db.example 6000")),
        ("postgres://[fd00::1]:5433/postgres", Some("fd00::1 5433")),
        ("postgres://[fd00::1]/postgres", Some("fd00::1 5432")),
        ("postgres://[fd00::1/postgres", None),
        ("postgres://db:0/", None),
        ("postgres://db:70000/", None),
        ("postgres:///postgres", None),
        ("http://db:5432/", None),
        ("", None),
    ] {
        assert_eq!(place(url).as_deref(), expected, "{url}");
    }
}

#[test]
fn an_announced_switchover_holds_for_a_while_and_once() {
    let (limits, known) = (limits(), fresh(&healthy()));
    let announced = healthy_but(|seen| seen.handover = Some((Term(10), 101)));
    let holding = follow(&announced, &known, &limits, NOW);
    assert_eq!(holding.primary, Err(NoPrimary::HandingOver { leader: db(1) }));
    assert_eq!(holding.in_force, Some(Term(10)), "its sessions live");
    let late = NOW.after(limits.drain);
    let before = follow(&announced, &holding, &limits, Moment(late.0 - 1));
    assert!(before.primary.is_err());
    let over = follow(&announced, &before, &limits, late);
    assert!(over.primary.is_ok(), "the leader did not stop");
    assert!(follow(&announced, &over, &limits, late.after(limits.drain)).primary.is_ok(), "for good");
    // Another announcement counts anew; one of another term does not count.
    let again = healthy_but(|seen| seen.handover = Some((Term(10), 102)));
    assert!(follow(&again, &over, &limits, late).primary.is_err());
    let old = healthy_but(|seen| seen.handover = Some((Term(9), 99)));
    assert!(follow(&old, &known, &limits, NOW).primary.is_ok());
    // Writes were withdrawn: that is the reason then.
    let stopping = healthy_but(|seen| (seen.handover, seen.writable) = (Some((Term(10), 101)), None));
    let stopping = follow(&stopping, &holding, &limits, NOW);
    assert!(matches!(stopping.primary, Err(NoPrimary::NotWritable { .. })), "{stopping:?}");
}

#[test]
fn a_member_is_as_old_as_its_use() {
    let limits = limits();
    let without = healthy_but(|seen| drop(seen.members.remove(&db(3))));
    let first = fresh(&without);
    assert_eq!(first.replicas[0].since, Moment::default(), "who was there at the start is no newcomer");
    let second = follow(&healthy(), &first, &limits, NOW);
    let since: Vec<Moment> = second.replicas.iter().map(|target| target.since).collect();
    assert_eq!(since, [Moment::default(), NOW]);
    let third = follow(&healthy(), &second, &limits, NOW.after(Duration::from_secs(9)));
    assert_eq!(third.replicas[1].since, NOW);
}
