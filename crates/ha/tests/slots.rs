//! Which slots shall be where, and what is done about each.

use ha::slots::{
    Drop, DropWhy, Fate, Memory, Plan, Post, Promised, Report, Rules, Seen, Tenant, fates, plan,
};
use std::collections::BTreeMap;
use std::time::Duration;
use types::{ClusterType, Lsn, Moment, NodeName, PermanentSlot, Slot, SlotKind, SlotMatcher, SlotWish};

const TTL: Duration = Duration::from_secs(1800);
const GRACE: Duration = Duration::from_secs(10);

fn seen(me: &str, post: Post) -> Seen {
    let members = ["n-1", "n-2", "n-3"].map(|name| (NodeName::from(name), Tenant::default()));
    Seen {
        me: NodeName::from(me),
        nofailover: false,
        post,
        standby_cluster: false,
        pause: false,
        rules: Rules {
            use_slots: true,
            ttl: TTL,
            grace: GRACE,
            failover_slots: false,
            patience: Duration::from_secs(5),
        },
        members: members.into(),
        permanent: BTreeMap::new(),
        ignored: Vec::new(),
        there: Vec::new(),
        promised: BTreeMap::new(),
        retained: Vec::new(),
        voters: None,
    }
}

fn follows(replayed: u64) -> Post {
    Post::Follows { leader: Some(NodeName::from("n-1")), replayed: Some(Lsn(replayed)), slot_sync: false }
}

fn at(name: &str, lsn: u64) -> Slot {
    Slot { restart_lsn: Some(Lsn(lsn)), ..Slot::physical(name) }
}

fn wish() -> SlotWish {
    SlotWish::Logical { database: "shop".to_owned(), plugin: "pgoutput".to_owned(), failover: false }
}

fn cdc(confirmed: u64) -> Slot {
    Slot {
        kind: SlotKind::Logical,
        database: Some("shop".to_owned()),
        plugin: Some("pgoutput".to_owned()),
        confirmed_flush_lsn: Some(Lsn(confirmed)),
        ..at("cdc", confirmed / 2)
    }
}

fn permanent(wish: SlotWish) -> PermanentSlot {
    PermanentSlot { wish, only_in: None }
}

fn once(seen: &Seen) -> Plan {
    plan(seen, &Memory::default(), Moment(1000)).0
}

fn made(plan: &Plan) -> Vec<&str> {
    plan.create.iter().map(|(name, _)| name.as_str()).collect()
}

fn dropped(plan: &Plan) -> Vec<(&str, DropWhy)> {
    plan.drop.iter().map(|Drop { name, why }| (name.as_str(), *why)).collect()
}

/// The plan after a slot was seen unused for the time of grace.
fn after_grace(seen: &Seen) -> Plan {
    let (first, memory) = plan(seen, &Memory::default(), Moment(1000));
    assert!(first.drop.is_empty(), "not at first sight: {first:?}");
    plan(seen, &memory, Moment(1000).after(GRACE)).0
}

#[test]
fn every_member_that_may_lead_has_the_slots_of_all_others() {
    assert_eq!(made(&once(&seen("n-1", Post::Leads))), ["n_2", "n_3"]);
    assert_eq!(made(&once(&seen("n-2", follows(100)))), ["n_1", "n_3"]);
    let mut never = seen("n-2", follows(100));
    never.nofailover = true;
    assert!(made(&once(&never)).is_empty());
    let mut no_ttl = seen("n-2", follows(100));
    no_ttl.rules.ttl = Duration::ZERO;
    assert!(made(&once(&no_ttl)).is_empty());
    no_ttl.post = Post::Leads;
    assert_eq!(made(&once(&no_ttl)), ["n_1", "n_3"]);
}

#[test]
fn a_cascading_member_has_its_slot_at_its_parent_and_is_followed_elsewhere() {
    let tag = |seen: &mut Seen, parent: &str| {
        let tenant =
            Tenant { replicatefrom: Some(NodeName::from(parent)), lsn: Some(Lsn(70)), ..Tenant::default() };
        seen.members.insert(NodeName::from("n-3"), tenant);
    };
    let mut parent = seen("n-2", follows(100));
    parent.nofailover = true;
    tag(&mut parent, "n-2");
    assert_eq!(made(&once(&parent)), ["n_3"], "also at a parent that never leads");
    let mut leader = seen("n-1", Post::Leads);
    tag(&mut leader, "n-2");
    leader.there = vec![at("n_2", 50), Slot { holds_xmin: true, ..at("n_3", 50) }];
    let there = once(&leader);
    assert_eq!(there.advance, [("n_3".to_owned(), Lsn(70))]);
    assert_eq!(there.clear, ["n_3"]);
    tag(&mut leader, "gone");
    let there = once(&leader);
    assert!(
        there.advance.is_empty() && there.clear.is_empty(),
        "its parent is away: it streams from the leader"
    );
}

#[test]
fn a_member_that_takes_nothing_from_a_stream_has_no_slot() {
    let mut leader = seen("n-1", Post::Leads);
    leader.members.insert(NodeName::from("n-3"), Tenant { nostream: true, ..Tenant::default() });
    leader.there = vec![at("n_2", 1), at("n_3", 1)];
    assert_eq!(dropped(&after_grace(&leader)), [("n_3", DropWhy::Unknown)]);
}

#[test]
fn the_slot_of_an_absent_member_is_kept_for_its_time_also_by_the_next_leader() {
    let mut leader = seen("n-1", Post::Leads);
    leader.there = vec![at("n_2", 5), at("n_3", 5)];
    let (first, memory) = plan(&leader, &Memory::default(), Moment(0));
    assert_eq!(first.retain, ["n_1", "n_2", "n_3"], "its own as well, for when it is the one that is gone");
    leader.members.remove(&NodeName::from("n-3"));
    let (later, memory) = plan(&leader, &memory, Moment(0).after(TTL));
    assert_eq!((later.retain, later.drop), (first.retain, vec![]));

    // The next leader was told by /status, and counts from when it took over.
    let mut next = seen("n-2", follows(100));
    next.members.remove(&NodeName::from("n-3"));
    next.members.remove(&NodeName::from("n-1"));
    next.retained = ["n_1", "n_2", "n_3"].map(str::to_owned).to_vec();
    next.promised = [("n_3".to_owned(), Lsn(5))].into();
    assert_eq!(made(&once(&next)), ["n_1", "n_3"]);
    next.there = vec![at("n_1", 5), at("n_3", 2)];
    let (kept, _) = plan(&next, &Memory::default(), Moment(0));
    assert_eq!(kept.advance, [("n_3".to_owned(), Lsn(5))]);
    next.post = Post::Leads;
    let (taken_over, _) = plan(&next, &Memory::default(), Moment(0));
    assert_eq!(taken_over.retain, ["n_1", "n_2", "n_3"]);

    let end = Moment(0).after(TTL + Duration::from_secs(1));
    let (over, memory) = plan(&leader, &memory, end);
    assert_eq!(dropped(&over), [("n_3", DropWhy::MemberAway)]);
    assert_eq!(over.retain, ["n_1", "n_2"]);
    leader.there.pop();
    leader.retained = vec!["n_3".to_owned()];
    let (gone, _) = plan(&leader, &memory, end);
    assert_eq!(gone, Plan { retain: over.retain, ..Plan::default() }, "not brought back by an old /status");
}

#[test]
fn permanent_slots_are_made_by_the_leader_and_copied_or_made_by_the_others() {
    let mut leader = seen("n-1", Post::Leads);
    leader.permanent = [
        ("archive".to_owned(), permanent(SlotWish::Physical)),
        ("cdc".to_owned(), permanent(wish())),
        ("n_1".to_owned(), permanent(SlotWish::Physical)),
        ("there".to_owned(), PermanentSlot { wish: SlotWish::Physical, only_in: Some(ClusterType::Standby) }),
    ]
    .into();
    let here = once(&leader);
    assert_eq!(made(&here), ["archive", "cdc", "n_2", "n_3"]);
    let mut follower = Seen { me: NodeName::from("n-2"), post: follows(100), ..leader.clone() };
    let here = once(&follower);
    assert_eq!(made(&here), ["archive", "n_1", "n_3"]);
    assert_eq!(here.copy, [("cdc".to_owned(), wish())]);
    follower.pause = true;
    assert!(once(&follower).copy.is_empty(), "a copy needs a restart");
    follower.pause = false;
    follower.promised = [("cdc".to_owned(), Lsn(400)), ("archive".to_owned(), Lsn(90))].into();
    follower.there = vec![cdc(60), at("archive", 50), at("n_1", 1), at("n_3", 1)];
    let moved = once(&follower);
    assert_eq!(moved.advance, [("archive".to_owned(), Lsn(90))]);
    let to = ("shop".to_owned(), "cdc".to_owned(), Lsn(100));
    assert_eq!(moved.advance_logical, [to], "never beyond what is replayed");
    leader.standby_cluster = true;
    assert_eq!(
        made(&once(&leader)),
        ["archive", "n_2", "n_3", "there"],
        "no logical ones in a standby cluster"
    );
    leader.standby_cluster = false;
    leader.permanent = [("n_3".to_owned(), permanent(wish()))].into();
    let conflict = Report::NamedLikeMember { slot: "n_3".to_owned(), member: NodeName::from("n-3") };
    assert_eq!(once(&leader).reports, [conflict]);
}

#[test]
fn unknown_slots_go_unless_they_are_used_ignored_or_postgresqls_own() {
    let mut leader = seen("n-1", Post::Leads);
    let unknown = |name: &str| at(name, 1);
    leader.there = vec![
        at("n_2", 1),
        at("n_3", 1),
        unknown("left"),
        Slot { active: true, ..unknown("used") },
        Slot { temporary: true, ..unknown("session") },
        Slot { failover: true, ..cdc(5) },
        unknown("theirs"),
    ];
    leader.ignored = vec![SlotMatcher { name: Some("theirs".to_owned()), ..SlotMatcher::default() }];
    assert_eq!(dropped(&after_grace(&leader)), [("left", DropWhy::Unknown)]);
    leader.pause = true;
    assert!(dropped(&after_grace(&leader)).is_empty());
    leader.pause = false;
    leader.rules.use_slots = false;
    assert_eq!(dropped(&after_grace(&leader)), [("n_2", DropWhy::Unknown), ("n_3", DropWhy::Unknown)]);
}

#[test]
fn a_slot_that_is_used_now_and_then_has_its_time_of_grace_again() {
    let mut leader = seen("n-1", Post::Leads);
    leader.there = vec![at("left", 1)];
    let (_, memory) = plan(&leader, &Memory::default(), Moment(0));
    leader.there[0].active = true;
    let (_, memory) = plan(&leader, &memory, Moment(9_000));
    leader.there[0].active = false;
    let (rested, memory) = plan(&leader, &memory, Moment(12_000));
    assert!(rested.drop.is_empty());
    assert_eq!(plan(&leader, &memory, Moment(20_000)).0.drop.len(), 1);
}

#[test]
fn what_is_spoiled_is_made_anew_and_a_lost_logical_slot_on_the_leader_is_told() {
    let mut leader = seen("n-1", Post::Leads);
    leader.permanent = [("cdc".to_owned(), permanent(wish()))].into();
    let lost = |slot: Slot| Slot { wal_status: Some("lost".to_owned()), ..slot };
    leader.there = vec![lost(cdc(9)), lost(at("n_2", 1)), Slot::physical("n_3")];
    let plan = once(&leader);
    assert_eq!(dropped(&plan), [("n_2", DropWhy::Lost), ("n_3", DropWhy::HoldsNothing)]);
    assert_eq!(plan.reports, [Report::LostOnLeader { slot: "cdc".to_owned() }]);
    leader.there = vec![Slot { plugin: Some("wal2json".to_owned()), ..cdc(9) }];
    assert_eq!(dropped(&once(&leader)), [("cdc", DropWhy::WrongKind)]);
    let mut follower = Seen { me: NodeName::from("n-2"), post: follows(100), ..leader };
    follower.there = vec![lost(cdc(9))];
    assert_eq!(dropped(&once(&follower)), [("cdc", DropWhy::Lost)]);
}

#[test]
fn a_former_leaders_logical_slot_that_is_ahead_is_copied_anew() {
    let mut follower = seen("n-2", follows(100));
    follower.permanent = [("cdc".to_owned(), permanent(wish()))].into();
    follower.there = vec![cdc(95)];
    follower.promised = [("cdc".to_owned(), Lsn(90))].into();
    let (first, memory) = plan(&follower, &Memory::default(), Moment(0));
    assert!(first.drop.is_empty(), "a fresh copy may be ahead of /status for a moment");
    let (later, _) = plan(&follower, &memory, Moment(31_000));
    assert_eq!(dropped(&later), [("cdc", DropWhy::AheadOfLeader)]);
    follower.promised = [("cdc".to_owned(), Lsn(95))].into();
    let (caught_up, _) = plan(&follower, &memory, Moment(31_000));
    assert!(caught_up.drop.is_empty());
}

#[test]
fn failover_slots_are_postgresqls_own_and_leftovers_do_not_block_their_copies() {
    let sync = Post::Follows { leader: Some(NodeName::from("n-1")), replayed: Some(Lsn(9)), slot_sync: true };
    let mut follower = seen("n-2", sync);
    follower.permanent = [("cdc".to_owned(), permanent(wish()))].into();
    follower.there = vec![Slot { failover: true, synced: true, ..cdc(9) }];
    assert!(once(&follower).drop.is_empty() && once(&follower).copy.is_empty());
    follower.there = vec![Slot { failover: true, ..cdc(9) }];
    assert_eq!(dropped(&once(&follower)), [("cdc", DropWhy::BlocksSlotSync)]);
    follower.permanent.clear();
    assert_eq!(dropped(&after_grace(&follower)), [("cdc", DropWhy::BlocksSlotSync)]);
}

/// Law 10 in small: whatever happens, a slot that is promised is on the one who follows, never ahead of what it replayed nor of the
/// leader's; so whoever is promoted has it.
#[test]
fn a_promised_slot_is_there_after_any_promotion_and_never_ahead() {
    let mut number: u64 = 7;
    let mut any = |below: u64| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) % below
    };
    for _ in 0..200 {
        let (mut written, mut consumed, mut replayed) = (100, 100, 100);
        let mut promised = BTreeMap::new();
        let mut memory = Memory::default();
        let mut follower = seen("n-2", follows(replayed));
        follower.permanent = [("cdc".to_owned(), permanent(wish()))].into();
        for round in 0..40 {
            written += any(50);
            consumed += any(written - consumed + 1);
            replayed += any(written - replayed + 1);
            if any(3) == 0 {
                promised.insert("cdc".to_owned(), Lsn(consumed));
            }
            follower.post = follows(replayed);
            follower.promised.clone_from(&promised);
            let (plan, next) = plan(&follower, &memory, Moment(round * 1000));
            memory = next;
            assert!(plan.drop.is_empty(), "{plan:?}");
            if !plan.copy.is_empty() {
                follower.there.push(cdc(consumed.min(replayed)));
            }
            for (_, name, to) in &plan.advance_logical {
                let slot = follower.there.iter_mut().find(|slot| slot.name == *name).unwrap();
                slot.confirmed_flush_lsn = Some(*to);
            }
            let slot = follower.there.iter().find(|slot| slot.name == "cdc").unwrap();
            let position = slot.position().unwrap().0;
            assert!(position <= replayed && position <= consumed, "{position} {replayed} {consumed}");
        }
        // Promoted: it stays, and is its consumer's again.
        follower.post = Post::Leads;
        let (plan, _) = plan(&follower, &memory, Moment(100_000));
        assert!(plan.drop.is_empty() && !made(&plan).contains(&"cdc"), "{plan:?}");
        assert!(plan.advance_logical.is_empty());
    }
}

#[test]
fn who_lives_from_the_archive_gets_no_copies_of_logical_slots() {
    let archive = Tenant { nostream: true, ..Tenant::default() };
    let below = Tenant { replicatefrom: Some(NodeName::from("n-2")), ..Tenant::default() };
    let mut standby = seen("n-2", follows(100));
    standby.permanent.insert("cdc".to_owned(), permanent(wish()));
    assert_eq!(once(&standby).copy.len(), 1);
    standby.members.insert(NodeName::from("n-2"), archive.clone());
    assert!(once(&standby).copy.is_empty());
    assert_eq!(made(&once(&standby)), ["n_1", "n_3"], "it may lead: the slots of the others are there");
    // Neither does who streams from such a member; the tag of a leader says nothing.
    let mut below_it = Seen { me: NodeName::from("n-3"), ..standby.clone() };
    assert_eq!(once(&below_it).copy.len(), 1);
    below_it.members.insert(NodeName::from("n-3"), below);
    assert!(once(&below_it).copy.is_empty());
    standby.members.insert(NodeName::from("n-2"), Tenant::default());
    standby.members.insert(NodeName::from("n-1"), archive);
    assert_eq!(once(&standby).copy.len(), 1);
}

fn failover() -> PermanentSlot {
    let (database, plugin) = ("shop".to_owned(), "pgoutput".to_owned());
    permanent(SlotWish::Logical { database, plugin, failover: true })
}

/// From PostgreSQL 17 on.
fn with_failover_slot(me: &str, post: Post) -> Seen {
    let mut seen = seen(me, post);
    seen.rules.failover_slots = true;
    seen.permanent = [("cdc".to_owned(), failover())].into();
    seen
}

#[test]
fn a_failover_slot_is_made_by_the_leader_and_brought_to_standbys_by_postgresql() {
    let sync = Post::Follows { leader: Some(NodeName::from("n-1")), replayed: Some(Lsn(9)), slot_sync: true };
    let mut leader = with_failover_slot("n-1", Post::Leads);
    let made = once(&leader).create.into_iter().find(|(name, _)| name == "cdc");
    assert_eq!(made, Some(("cdc".to_owned(), failover().wish)));
    leader.there = vec![cdc(9)];
    assert_eq!(once(&leader).mark, ["cdc"], "one that was there before is marked");
    leader.there = vec![Slot { failover: true, ..cdc(9) }];
    assert_eq!((once(&leader).mark.len(), once(&leader).drop.len()), (0, 0));
    leader.there = vec![Slot { failover: true, wal_status: Some("lost".to_owned()), ..cdc(9) }];
    assert_eq!(once(&leader).reports, [Report::LostOnLeader { slot: "cdc".to_owned() }]);

    let mut follower = with_failover_slot("n-2", sync);
    assert!(once(&follower).copy.is_empty() && once(&follower).awaited.is_none());
    follower.there = vec![cdc(9)];
    assert_eq!(dropped(&after_grace(&follower)), [("cdc", DropWhy::BlocksSlotSync)]);
    follower.there = vec![Slot { failover: true, synced: true, ..cdc(9) }];
    assert!(after_grace(&follower).drop.is_empty());

    // Older versions: an ordinary one, copied as ever.
    leader.rules.failover_slots = false;
    leader.there.clear();
    let made = once(&leader).create.into_iter().find(|(name, _)| name == "cdc");
    assert_eq!(made, Some(("cdc".to_owned(), wish())));
    assert!(once(&leader).awaited.is_none());
    follower.rules.failover_slots = false;
    follower.there.clear();
    assert_eq!(once(&follower).copy.len(), 1);
}

#[test]
fn consumers_of_a_failover_slot_wait_for_the_standbys_that_may_be_promoted() {
    let used = |name: &str| Slot { active: true, ..at(name, 5) };
    let mut leader = with_failover_slot("n-1", Post::Leads);
    leader.there = vec![used("n_2"), used("n_3")];
    let awaited = |seen: &Seen| once(seen).awaited.unwrap();
    assert_eq!(awaited(&leader), ["n_2", "n_3"]);
    leader.voters = Some([NodeName::from("N-3")].into());
    assert_eq!(awaited(&leader), ["n_3"], "in a synchronous mode only those of /sync");
    leader.voters = None;
    let tag = |seen: &mut Seen, tenant| drop(seen.members.insert(NodeName::from("n-3"), tenant));
    tag(&mut leader, Tenant { nofailover: true, ..Tenant::default() });
    assert_eq!(awaited(&leader), ["n_2"]);
    tag(&mut leader, Tenant { replicatefrom: Some(NodeName::from("n-2")), ..Tenant::default() });
    assert_eq!(awaited(&leader), ["n_2"], "it streams from another member");
    leader.members.remove(&NodeName::from("n-3"));
    assert_eq!(awaited(&leader), ["n_2"], "it is away");
    tag(&mut leader, Tenant::default());
    leader.there = vec![used("n_2"), Slot::physical("n_3")];
    assert_eq!(awaited(&leader), ["n_2"], "it has never streamed from here");

    // One that is restarted is waited for, one that does not come back is not.
    leader.there = vec![used("n_2"), at("n_3", 5)];
    let (first, memory) = plan(&leader, &Memory::default(), Moment(0));
    assert_eq!(first.awaited.unwrap(), ["n_2", "n_3"]);
    let (later, memory) = plan(&leader, &memory, Moment(5_000));
    assert_eq!(later.awaited.unwrap(), ["n_2"]);
    leader.there = vec![used("n_2"), used("n_3")];
    let (back, _) = plan(&leader, &memory, Moment(6_000));
    assert_eq!(back.awaited.unwrap(), ["n_2", "n_3"]);
    leader.permanent.clear();
    assert_eq!(once(&leader).awaited, None);
}

#[test]
fn what_becomes_of_each_slot_is_said() {
    let logical =
        |permanent, failover| Promised { logical: true, permanent, failover, position: Some(Lsn(50)) };
    let here = |slot: Option<Slot>, promised: Promised, unready: &[String]| {
        let there: Vec<Slot> = slot.into_iter().collect();
        fates(&[("cdc".to_owned(), promised)].into(), &there, unready)["cdc"]
    };
    let lost = Slot { wal_status: Some("lost".to_owned()), ..cdc(40) };
    let synced = Slot { failover: true, synced: true, ..cdc(40) };
    for (slot, promised, fate) in [
        (Some(cdc(40)), logical(true, false), Fate::Survives),
        (Some(cdc(60)), logical(true, false), Fate::Ahead { here: Lsn(60), there: Lsn(50) }),
        (None, logical(true, false), Fate::Missing),
        (Some(lost), logical(true, false), Fate::Lost),
        (Some(cdc(40)), logical(false, false), Fate::NotPromised),
        (Some(synced.clone()), logical(true, true), Fate::Survives),
        (Some(synced.clone()), logical(false, true), Fate::Survives),
        (Some(Slot { failover: true, ..cdc(40) }), logical(true, true), Fate::InTheWay),
        (Some(Slot { temporary: true, ..synced }), logical(true, true), Fate::NotReady),
        (Some(at("cdc", 90)), Promised { permanent: true, ..Promised::default() }, Fate::Survives),
    ] {
        assert_eq!(here(slot.clone(), promised.clone(), &[]), fate, "{slot:?} {promised:?}");
    }
    assert_eq!(here(Some(cdc(40)), logical(true, false), &["cdc".to_owned()]), Fate::NotReady);
}
