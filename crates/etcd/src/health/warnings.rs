//! What of etcd's state somebody should do something about. Pure: a value in, a list out.

use super::{Alarm, Health, Status, Whole};
use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime};

/// etcd's own default quota, when a member does not tell.
const DEFAULT_QUOTA: u64 = 2 << 30;
/// Full to this share in percent is too full.
const FULL: u64 = 80;
/// Patroni's members together write some 35,000 revisions a day; a cluster that is compacted keeps a few thousand.
const REVISIONS_KEPT: i64 = 100_000;
/// A member that has applied so many entries fewer than the first is behind.
const BEHIND: u64 = 1_000;
/// A cluster adds about one revision a second; many of them together still fewer than this.
const GROWS_FAST: u64 = 200;
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 24 * 3600);
const SLOW: Duration = Duration::from_millis(200);

/// One thing to do something about. Its text says what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Warning {
    NoMajority { why: String },
    NoSpace { member: String },
    Corrupt { member: String },
    Silent { endpoint: String, why: String },
    CertificateExpired { holder: String },
    CertificateExpires { holder: String, days: u64 },
    CertificateUnreadable { holder: String, why: String },
    NearlyFull { endpoint: String, size: u64, quota: u64, quota_told: bool },
    NotCompacted { kept: i64 },
    Grows { a_second: u64 },
    Fragmented { endpoint: String, size: u64, used: u64 },
    Behind { endpoint: String, entries: u64 },
    OtherTerm { endpoint: String, term: u64, newest: u64 },
    Reports { endpoint: String, error: String },
    MixedVersions { versions: Vec<String> },
    NotConfigured { member: String },
    NeverStarted { id: u64 },
    FewMembers { members: usize },
    EvenMembers { members: usize },
    Slow { endpoint: String, within: Duration },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        match self {
            Warning::NoMajority { why } => write!(
                f,
                "no majority of etcd answers: {why}; docs/etcd.md says how to recover when members are lost for good"
            ),
            Warning::NoSpace { member } => write!(
                f,
                "the alarm NOSPACE of member {member} is raised, etcd takes no writes: compact, defragment every member, then `etcdctl alarm disarm`"
            ),
            Warning::Corrupt { member } => write!(
                f,
                "the alarm CORRUPT of member {member} is raised, members hold different data: remove that member, empty its data directory and add it again"
            ),
            Warning::Silent { endpoint, why } => {
                write!(f, "{endpoint} does not answer ({why}): one more that fails may cost the majority")
            }
            Warning::CertificateExpired { holder } => {
                write!(f, "the certificate of {holder} has expired: replace it now")
            }
            Warning::CertificateExpires { holder, days } => write!(
                f,
                "the certificate of {holder} expires in {days} days: replace it; new connections read the file again"
            ),
            Warning::CertificateUnreadable { holder, why } => {
                write!(f, "the certificate of {holder} cannot be read: {why}")
            }
            Warning::NearlyFull { endpoint, size, quota, quota_told } => {
                let told =
                    if *quota_told { "" } else { ", etcd's default: this version does not tell its own" };
                write!(
                    f,
                    "{endpoint} holds {} MiB of {} MiB{told}: at the quota etcd takes no writes; compact and defragment, or raise --quota-backend-bytes",
                    size / MIB,
                    quota / MIB
                )
            }
            Warning::NotCompacted { kept } => write!(
                f,
                "{kept} old revisions are kept: nobody compacts; start etcd with --auto-compaction-mode=periodic --auto-compaction-retention=1h"
            ),
            Warning::Grows { a_second } => write!(
                f,
                "{a_second} revisions are added a second, and a cluster adds about one: find out who else writes to this etcd, and give it one of its own"
            ),
            Warning::Fragmented { endpoint, size, used } => write!(
                f,
                "{endpoint} uses {} MiB of a file of {} MiB: `etcdctl defrag`, one member at a time, the leader last",
                used / MIB,
                size / MIB
            ),
            Warning::Behind { endpoint, entries } => {
                write!(f, "{endpoint} is {entries} entries behind: look at its disk and network")
            }
            Warning::OtherTerm { endpoint, term, newest } => {
                write!(f, "{endpoint} is in raft term {term}, others in {newest}: it is cut off from them")
            }
            Warning::Reports { endpoint, error } => write!(f, "{endpoint} reports: {error}"),
            Warning::MixedVersions { versions } => {
                write!(f, "members run different versions ({}): finish the upgrade", versions.join(", "))
            }
            Warning::NotConfigured { member } => write!(
                f,
                "member {member} is not among the configured endpoints: while it is one of the living, nobody asks it"
            ),
            Warning::NeverStarted { id } => write!(
                f,
                "member {id:x} was added and has never started: it counts for the majority; start or remove it"
            ),
            Warning::FewMembers { members } => write!(
                f,
                "etcd has {members} member{}: it does not survive the loss of one; three do",
                if *members == 1 { "" } else { "s" }
            ),
            Warning::EvenMembers { members } => write!(
                f,
                "etcd has {members} members, which survives no more losses than {}: remove one or add one",
                members - 1
            ),
            Warning::Slow { endpoint, within } => write!(
                f,
                "{endpoint} took {} ms to answer: renewals of the lead share that way; look at its disk (fsync) and network",
                within.as_millis()
            ),
        }
    }
}

/// All warnings, the worst first.
pub(super) fn of(health: &Health, now: SystemTime) -> Vec<Warning> {
    let mut found = Vec::new();
    match &health.cluster {
        Ok(whole) => of_alarms(health, whole, &mut found),
        Err(error) => found.push(Warning::NoMajority { why: error.to_string() }),
    }
    for endpoint in &health.endpoints {
        if let Err(why) = &endpoint.status {
            found.push(Warning::Silent { endpoint: endpoint.url.clone(), why: why.clone() });
        }
    }
    of_certificates(health, now, &mut found);
    if let Ok(whole) = &health.cluster {
        let kept = whole.revision - whole.oldest;
        if kept > REVISIONS_KEPT {
            found.push(Warning::NotCompacted { kept });
        }
    }
    if let Some(a_second) = health.growth.filter(|a_second| *a_second > GROWS_FAST) {
        found.push(Warning::Grows { a_second });
    }
    of_endpoints(health, &mut found);
    if let Ok(whole) = &health.cluster {
        of_members(health, whole, &mut found);
    }
    found
}

fn of_alarms(health: &Health, whole: &Whole, found: &mut Vec<Warning>) {
    let named = |id: u64| {
        let listed = whole.members.iter().find(|member| member.id == id).map(|member| member.name.clone());
        let url = health
            .endpoints
            .iter()
            .find(|endpoint| endpoint.status.as_ref().is_ok_and(|status| status.member == id));
        listed
            .filter(|name| !name.is_empty())
            .or_else(|| url.map(|endpoint| endpoint.url.clone()))
            .unwrap_or_else(|| format!("{id:x}"))
    };
    found.extend(whole.alarms.iter().map(|alarm| match alarm {
        Alarm::NoSpace { member } => Warning::NoSpace { member: named(*member) },
        Alarm::Corrupt { member } => Warning::Corrupt { member: named(*member) },
    }));
}

fn of_certificates(health: &Health, now: SystemTime, found: &mut Vec<Warning>) {
    for certificate in &health.certificates {
        let holder = certificate.holder.to_string();
        match &certificate.expires {
            Err(why) => found.push(Warning::CertificateUnreadable { holder, why: why.clone() }),
            Ok(at) => match at.duration_since(now) {
                Err(_) => found.push(Warning::CertificateExpired { holder }),
                Ok(left) if left < EXPIRES_SOON => {
                    found.push(Warning::CertificateExpires { holder, days: left.as_secs() / 86_400 });
                }
                Ok(_) => {}
            },
        }
    }
}

fn of_endpoints(health: &Health, found: &mut Vec<Warning>) {
    let answered: Vec<(&String, &Status)> = health
        .endpoints
        .iter()
        .filter_map(|endpoint| Some((&endpoint.url, endpoint.status.as_ref().ok()?)))
        .collect();
    let newest = answered.iter().map(|(_, status)| status.raft_term).max().unwrap_or_default();
    let first = answered.iter().map(|(_, status)| status.applied_index).max().unwrap_or_default();
    for (url, status) in &answered {
        let endpoint = (*url).clone();
        let quota = status.quota.unwrap_or(DEFAULT_QUOTA);
        if status.size > quota / 100 * FULL {
            let quota_told = status.quota.is_some();
            found.push(Warning::NearlyFull {
                endpoint: endpoint.clone(),
                size: status.size,
                quota,
                quota_told,
            });
        }
        if let Some(used) = status.used.filter(|used| status.size > 256 << 20 && *used < status.size / 2) {
            found.push(Warning::Fragmented { endpoint: endpoint.clone(), size: status.size, used });
        }
        let entries = first - status.applied_index;
        if entries > BEHIND {
            found.push(Warning::Behind { endpoint: endpoint.clone(), entries });
        }
        if status.raft_term < newest {
            found.push(Warning::OtherTerm { endpoint: endpoint.clone(), term: status.raft_term, newest });
        }
        for error in
            status.errors.iter().filter(|error| !error.contains("NOSPACE") && !error.contains("CORRUPT"))
        {
            found.push(Warning::Reports { endpoint: endpoint.clone(), error: error.clone() });
        }
        if status.answered_in > SLOW {
            found.push(Warning::Slow { endpoint, within: status.answered_in });
        }
    }
    let versions: BTreeSet<&str> = answered.iter().map(|(_, status)| status.version.as_str()).collect();
    if versions.len() > 1 {
        found.push(Warning::MixedVersions { versions: versions.into_iter().map(str::to_owned).collect() });
    }
}

fn of_members(health: &Health, whole: &Whole, found: &mut Vec<Warning>) {
    for member in &whole.members {
        if member.name.is_empty() {
            found.push(Warning::NeverStarted { id: member.id });
            continue;
        }
        let asked = health.endpoints.iter().any(|endpoint| {
            endpoint.status.as_ref().is_ok_and(|status| status.member == member.id)
                || member.client_urls.contains(&endpoint.url)
        });
        if !asked && !member.learner {
            found.push(Warning::NotConfigured { member: member.name.clone() });
        }
    }
    let members = whole.members.iter().filter(|member| !member.learner).count();
    if members < 3 {
        found.push(Warning::FewMembers { members });
    } else if members % 2 == 0 {
        found.push(Warning::EvenMembers { members });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Certificate, Endpoint, Holder, Listed};

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + NOW
    }

    fn sound() -> Health {
        let endpoint = |member: u64| Endpoint {
            url: format!("http://10.0.0.{member}:2379"),
            status: Ok(Status {
                member,
                version: "3.5.1".to_owned(),
                size: 20 << 20,
                used: Some(10 << 20),
                quota: None,
                leads: member == 1,
                learner: false,
                raft_term: 4,
                raft_index: 5_000,
                applied_index: 5_000,
                errors: Vec::new(),
                answered_in: Duration::from_millis(2),
            }),
        };
        let listed = |id: u64| Listed {
            id,
            name: format!("etcd{id}"),
            client_urls: vec![format!("http://10.0.0.{id}:2379")],
            learner: false,
        };
        Health {
            endpoints: vec![endpoint(1), endpoint(2), endpoint(3)],
            cluster: Ok(Whole {
                members: vec![listed(1), listed(2), listed(3)],
                alarms: Vec::new(),
                revision: 9_000,
                oldest: 8_000,
            }),
            certificates: vec![Certificate {
                holder: Holder::Client("/etc/etcd.crt".into()),
                expires: Ok(now() + 2 * EXPIRES_SOON),
            }],
            growth: Some(3),
        }
    }

    fn with(change: impl FnOnce(&mut Health)) -> Vec<Warning> {
        let mut health = sound();
        change(&mut health);
        health.warnings(now())
    }

    fn status(health: &mut Health, at: usize) -> &mut Status {
        health.endpoints[at].status.as_mut().unwrap()
    }

    fn whole(health: &mut Health) -> &mut Whole {
        health.cluster.as_mut().unwrap()
    }

    #[test]
    fn a_sound_cluster_gives_no_warning() {
        assert_eq!(with(|_| {}), []);
    }

    #[test]
    fn each_fault_gives_its_own_warning() {
        let third = "http://10.0.0.3:2379".to_owned();
        let holder = || Holder::Client("/etc/etcd.crt".into()).to_string();
        assert_eq!(
            with(|health| whole(health).alarms.push(Alarm::NoSpace { member: 2 })),
            [Warning::NoSpace { member: "etcd2".to_owned() }]
        );
        assert_eq!(
            with(|health| health.endpoints[2].status = Err("connection refused".to_owned())),
            [Warning::Silent { endpoint: third.clone(), why: "connection refused".to_owned() }]
        );
        assert_eq!(
            with(|health| whole(health).revision = 200_000),
            [Warning::NotCompacted { kept: 192_000 }]
        );
        assert_eq!(with(|health| health.growth = Some(900)), [Warning::Grows { a_second: 900 }]);
        assert_eq!(
            with(|health| status(health, 2).size = 1_900 << 20),
            [
                Warning::NearlyFull {
                    endpoint: third.clone(),
                    size: 1_900 << 20,
                    quota: DEFAULT_QUOTA,
                    quota_told: false
                },
                Warning::Fragmented { endpoint: third.clone(), size: 1_900 << 20, used: 10 << 20 },
            ]
        );
        assert_eq!(
            with(|health| status(health, 2).applied_index = 100),
            [Warning::Behind { endpoint: third.clone(), entries: 4_900 }]
        );
        assert_eq!(
            with(|health| status(health, 2).raft_term = 3),
            [Warning::OtherTerm { endpoint: third.clone(), term: 3, newest: 4 }]
        );
        assert_eq!(
            with(|health| status(health, 2).version = "3.4.23".to_owned()),
            [Warning::MixedVersions { versions: vec!["3.4.23".to_owned(), "3.5.1".to_owned()] }]
        );
        assert_eq!(
            with(|health| drop(health.endpoints.pop())),
            [Warning::NotConfigured { member: "etcd3".to_owned() }]
        );
        assert_eq!(with(|health| drop(whole(health).members.pop())), [Warning::FewMembers { members: 2 }]);
        assert_eq!(
            with(|health| health.certificates[0].expires = Ok(now() + Duration::from_secs(5 * 86_400))),
            [Warning::CertificateExpires { holder: holder(), days: 5 }]
        );
        assert_eq!(
            with(|health| health.certificates[0].expires = Ok(now() - Duration::from_secs(1))),
            [Warning::CertificateExpired { holder: holder() }]
        );
    }

    #[test]
    fn the_worst_comes_first() {
        let found = with(|health| {
            status(health, 0).version = "3.4.23".to_owned();
            health.endpoints[2].status = Err("connection refused".to_owned());
            whole(health).alarms.push(Alarm::NoSpace { member: 9 });
        });
        assert!(matches!(found.first(), Some(Warning::NoSpace { member }) if member == "9"), "{found:?}");
        assert!(matches!(found.last(), Some(Warning::MixedVersions { .. })), "{found:?}");
    }
}
