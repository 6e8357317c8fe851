//! `GET /metrics`: Prometheus text; Patroni's metrics under their names, and our own.

use super::reply::{self, Reply};
use super::status;
use super::{Shared, health};
use crate::publish;
use etcd::{Contact, Continuity};
use postgres::rewind::preflight::Obstacle;
use settings::SynchronousMode;
use std::fmt::Write;
use std::sync::Arc;
use types::exposition::{labels, metric};
use types::{Lsn, PostgresState};

struct Page {
    labels: String,
    text: String,
}

impl Page {
    fn put(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        metric(&mut self.text, (name, kind, help), &[value], |value| {
            (self.labels.clone(), value.to_string())
        });
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.put(name, "gauge", help, value);
    }

    fn flag(&mut self, name: &str, help: &str, value: bool) {
        self.gauge(name, help, u8::from(value));
    }
}

pub(super) fn metrics(shared: &Arc<Shared>) -> Reply {
    let settings = &shared.settings();
    let labels = labels(&[("scope", &settings.scope), ("name", settings.name.as_str())]);
    let mut page = Page { labels, text: String::new() };
    page.gauge("patroni_version", "Patroni semver without periods.", version(crate::CONTRACT_VERSION));
    postgres(&mut page, shared);
    cluster(&mut page, shared);
    reply::plain(page.text)
}

/// `4.1.5` as `040105`.
fn version(text: &str) -> String {
    text.split('.').map(|part| format!("{part:0>2}")).collect()
}

/// What crashes were and would be like.
fn crashes(page: &mut Page, shared: &Shared) {
    let pace = shared.local.pace();
    page.put(
        "baton_crashes_total",
        "counter",
        "How often PostgreSQL crashed here while it led, or failed to start after that, since the agent was started.",
        pace.counted(),
    );
    let known = pace.observe();
    if let Some(rate) = known.redo_rate {
        page.gauge(
            "baton_redo_rate_bytes_per_second",
            "WAL replayed a second when these data were last recovered.",
            rate,
        );
    }
    if let Some(took) = known.promotion {
        page.gauge("baton_promotion_seconds", "What the last promotion here took.", took.as_secs_f64());
    }
    page.put(
        "baton_wal_handed_bytes_total",
        "counter",
        "Bytes of WAL of a crashed primary that were handed to the next leader.",
        shared.jobs.handed(),
    );
    page.put(
        "baton_wal_taken_bytes_total",
        "counter",
        "Bytes of WAL that the agent of a crashed primary handed to this member.",
        shared.local.taken(),
    );
}

/// Virtual addresses and names.
fn addresses(page: &mut Page, shared: &Shared) {
    page.text += &vip::metrics(&shared.addresses.held(), &shared.addresses.moved(), &page.labels);
    page.text += &bgp::metrics(&shared.addresses.neighbors(), &page.labels, clock::now());
    if let Some(names) = &shared.names {
        page.text += &names.metrics(&page.labels);
    }
}

/// Signs of grey failures.
fn signs(page: &mut Page, shared: &Shared) {
    let signs = shared.signs.now();
    let fenced = shared.health.get().unfenced.is_none();
    page.flag(
        "baton_fenced",
        "Value is 0 while killed processes of this node's primary do not end, else 1.",
        fenced,
    );
    let disk = |disk: ha::Disk| match disk {
        ha::Disk::Unknown => -1,
        ha::Disk::Fine => 0,
        ha::Disk::Low { .. } => 1,
        ha::Disk::Full { .. } => 2,
        ha::Disk::Failed { .. } => 3,
        ha::Disk::Hung { .. } => 4,
    };
    let help = "-1 not known, 0 fine, 1 no room for the next WAL file, 2 full, 3 answers with errors, 4 does not answer.";
    page.gauge("baton_data_disk", &format!("The disk of the data directory: {help}"), disk(signs.data_disk));
    page.gauge("baton_wal_disk", &format!("The disk of the WAL: {help}"), disk(signs.wal_disk));
    let greets = matches!(signs.pulse, ha::Pulse::Beats | ha::Pulse::Unknown);
    page.flag("baton_postgres_greets", "Value is 0 if nobody can connect to Postgres, else 1.", greets);
    if let Some(free) = shared.local.free_slots() {
        page.gauge("baton_free_connection_slots", "So many more clients can connect.", free.max(0));
    }
    let (worst, times) = shared.signs.lateness();
    page.gauge(
        "baton_late_seconds_max",
        "The longest time that the agent was not given the processor.",
        worst.as_secs_f64(),
    );
    page.put(
        "baton_late_total",
        "counter",
        "How often the agent was not given the processor for half a second or more.",
        times,
    );
    page.gauge(
        "baton_stalled_standbys",
        "Streaming standbys that have confirmed nothing for a while although there was something to confirm.",
        shared.signs.stalled().len(),
    );
}

fn postgres(page: &mut Page, shared: &Shared) {
    let seen = shared.local.seen();
    let (state, role) = status::state_and_role(shared, &seen);
    let sync = health::sync_mode(shared, &shared.view.borrow());
    let running = state == "running";
    let facts = seen.facts.as_ref().map(|(facts, _)| facts.clone()).filter(|_| running);
    let facts = facts.as_deref();
    let primary = facts.is_some_and(|facts| !facts.in_recovery);
    let replica = facts.is_some_and(|facts| facts.in_recovery);
    let streaming =
        facts.is_some_and(|facts| facts.receiver.as_ref().is_some_and(|r| r.status == "streaming"));
    let number = |lsn: Option<Lsn>| lsn.map_or(0, |lsn| lsn.0);
    let (flushed, received, replayed) =
        facts.map_or((None, None, None), |facts| (facts.flush_lsn, facts.received_lsn, facts.replayed_lsn));
    page.flag("patroni_postgres_running", "Value is 1 if Postgres is running, 0 otherwise.", running);
    let started = facts.and_then(|facts| facts.postmaster_start_time.parse::<jiff::Timestamp>().ok());
    let started = started.map_or(0, jiff::Timestamp::as_second);
    page.gauge("patroni_postmaster_start_time", "Epoch seconds since Postgres started.", started);
    page.flag("patroni_primary", "Value is 1 if this node is the leader, 0 otherwise.", primary);
    page.put(
        "patroni_xlog_location",
        "counter",
        "Current location of the Postgres transaction log, 0 if this node is not the leader.",
        number(flushed.filter(|_| primary)),
    );
    page.flag(
        "patroni_standby_leader",
        "Value is 1 if this node is the standby_leader, 0 otherwise.",
        role == "standby_leader",
    );
    page.flag(
        "patroni_replica",
        "Value is 1 if this node is a replica, 0 otherwise.",
        replica && role == "replica",
    );
    page.flag(
        "patroni_sync_standby",
        "Value is 1 if this node is a sync standby, 0 otherwise.",
        replica && sync == SynchronousMode::On,
    );
    page.flag(
        "patroni_quorum_standby",
        "Value is 1 if this node is a quorum standby, 0 otherwise.",
        replica && sync == SynchronousMode::Quorum,
    );
    page.put(
        "patroni_xlog_received_location",
        "counter",
        "Current location of the received Postgres transaction log, 0 if this node is not a replica.",
        number(received.filter(|_| replica)),
    );
    page.put(
        "patroni_xlog_replayed_location",
        "counter",
        "Current location of the replayed Postgres transaction log, 0 if this node is not a replica.",
        number(replayed.filter(|_| replica)),
    );
    let replayed_at = facts.and_then(|facts| facts.replayed_at).map_or(0, |micros| micros / 1_000_000);
    page.gauge(
        "patroni_xlog_replayed_timestamp",
        "Current timestamp of the replayed Postgres transaction log, 0 if null.",
        replayed_at,
    );
    page.flag(
        "patroni_xlog_paused",
        "Value is 1 if the Postgres xlog is paused, 0 otherwise.",
        facts.is_some_and(|facts| facts.replay_paused),
    );
    if facts.is_some() {
        page.flag(
            "patroni_postgres_streaming",
            "Value is 1 if Postgres is streaming, 0 otherwise.",
            streaming,
        );
        page.flag(
            "patroni_postgres_in_archive_recovery",
            "Value is 1 if Postgres is replicating from archive, 0 otherwise.",
            facts.and_then(publish::replication_state) == Some("in archive recovery"),
        );
    }
    page.gauge(
        "patroni_postgres_server_version",
        "Version of Postgres (if running), 0 otherwise.",
        facts.map_or(0, |facts| facts.server_version),
    );
    page.gauge(
        "patroni_postgres_timeline",
        "Postgres timeline of this node (if running), 0 otherwise.",
        facts.and_then(|facts| facts.timeline).map_or(0, |timeline| timeline.0),
    );
    page.flag(
        "patroni_pending_restart",
        "Value is 1 if the node needs a restart, 0 otherwise.",
        !shared.local.pending().is_empty(),
    );
    let state = PostgresState::parse(state).map_or(-1, PostgresState::metric);
    page.gauge("patroni_postgres_state", "Numeric representation of Postgres state.", state);
}

/// What a failover now would come to, from what the last turn saw.
fn foresight(page: &mut Page, shared: &Shared) {
    let Some(scene) = shared.what_if.scene() else { return };
    let readiness = ha::what_if::ready(&scene.seen, &scene.memory, clock::now());
    let own = format!("{},reason=\"{}\"", page.labels, readiness.code());
    let labels = std::mem::replace(&mut page.labels, own);
    page.flag(
        "baton_failover_ready",
        "Value is 1 if this member could take over from the leader (of the leader: if another member could), else 0 and why not.",
        readiness == ha::what_if::Readiness::Ready,
    );
    page.labels = labels;
    if matches!(scene.seen.postgres, ha::Postgres::Running(ha::Running::Primary { .. })) {
        let bound = ha::what_if::loss_bound(&scene.seen, |span| shared.what_if.most_in(span), true);
        page.gauge(
            "baton_loss_bound_bytes",
            "Bytes of WAL with acknowledged commits that a failover could lose at most, by the settings and by what was written at most in so long a time of the last minutes.",
            bound.bytes(),
        );
    }
}

fn cluster(page: &mut Page, shared: &Shared) {
    let view = shared.view.borrow().clone();
    let unlocked = view.snapshot.as_ref().is_some_and(|snapshot| snapshot.leader.is_none());
    page.flag("patroni_cluster_unlocked", "Value is 1 if the cluster is unlocked, 0 if locked.", unlocked);
    page.flag(
        "patroni_failsafe_mode_is_active",
        "Value is 1 if failsafe mode is active, 0 if inactive.",
        status::failsafe_is_active(shared),
    );
    let seen = match view.contact {
        Contact::Live { at } | Contact::Lost { since: at, .. } => status::wall_seconds(at),
        Contact::Never { .. } => 0,
    };
    page.gauge(
        "patroni_dcs_last_seen",
        "Epoch timestamp when DCS was last contacted successfully by Patroni.",
        seen,
    );
    page.flag(
        "patroni_is_paused",
        "Value is 1 if auto failover is disabled, 0 otherwise.",
        shared.dynamic().pause,
    );
    let term = view
        .snapshot
        .as_ref()
        .and_then(|snapshot| snapshot.leader.as_ref())
        .map_or(0, |leader| leader.term.0);
    page.gauge("baton_term", "Term of the leader as this node sees it, 0 without one.", term);
    page.flag(
        "baton_leader",
        "Value is 1 if this node holds the lead, 0 otherwise.",
        status::is_leader(shared),
    );
    page.flag(
        "baton_writable",
        "Value is 1 if this node announced that it accepts writes, 0 otherwise.",
        status::is_writable(shared),
    );
    let left = match shared.keeper.authority() {
        ha::Authority::Held { deadline, .. } => clock::now().until(deadline).as_secs_f64(),
        ha::Authority::None => 0.0,
    };
    page.gauge(
        "baton_authority_seconds",
        "Seconds until the authority to lead ends unless it is renewed.",
        left,
    );
    let (duty, _) = shared.journal.with(|journal| journal.now()).unwrap_or_default();
    let own = format!("{},duty=\"{duty}\"", page.labels);
    let labels = std::mem::replace(&mut page.labels, own);
    page.gauge("baton_duty_info", "The duty that gave the last decision, as a label.", 1);
    page.labels = labels;
    crashes(page, shared);
    signs(page, shared);
    foresight(page, shared);
    addresses(page, shared);
    losses(page, shared);
    archive(page, shared);
    rejoin(page, shared);
    page.flag(
        "baton_waits_for_lost_wal",
        "Value is 1 if this standby waits for WAL that the one it follows has removed and no archive gives, 0 otherwise.",
        shared.lost_wal.found().is_some(),
    );
    if let Some(waiting) = shared.archiving.waiting() {
        page.gauge("baton_archive_waiting_files", "Files of WAL that wait for archive_command.", waiting);
        page.flag(
            "baton_archives_nothing",
            "Value is 1 if archive_command fails or does not end, and files wait for it, 0 otherwise.",
            shared.archiving.trouble().is_some(),
        );
    }
}

/// Each thing that a rewind depends on, so that an alert can name it.
fn rejoin(page: &mut Page, shared: &Shared) {
    let Some(obstacles) = shared.readiness.obstacles() else { return };
    let name = "baton_rejoin_ready";
    let help = "Value is 1 if a rewind, were one needed, would not fail of this, 0 otherwise.";
    let _ = writeln!(page.text, "# HELP {name} {help}\n# TYPE {name} gauge");
    for reason in Obstacle::CODES {
        let ready = u8::from(!obstacles.iter().any(|obstacle| obstacle.code() == reason));
        let _ = writeln!(page.text, "{name}{{{},reason=\"{reason}\"}} {ready}", page.labels);
    }
}

/// What the archive holds of the last promotion, told by the member that looked; nothing while nothing is missing yet.
fn archive(page: &mut Page, shared: &Shared) {
    let me = &shared.settings().name;
    let snapshot = shared.view.borrow().snapshot.clone();
    let Some(row) = snapshot.as_ref().and_then(|snapshot| snapshot.archive.last()) else { return };
    let whole = match row.found {
        _ if row.member != *me => return,
        Continuity::Waits => return,
        Continuity::Complete => 1,
        Continuity::Incomplete | Continuity::Unknown => 0,
    };
    page.gauge(
        "baton_archive_continuity",
        "Value is 1 if the archive holds what a restore across the last promotion needs, 0 if it does not or cannot be asked.",
        whole,
    );
    let missing = if row.found == Continuity::Incomplete { row.names.len() } else { 0 };
    page.gauge("baton_archive_missing_files", "Files of that kind that the archive does not hold.", missing);
}

/// What this member had alone when it came back under another leader, since the agent was started; of the last one, what etcd
/// remembers.
fn losses(page: &mut Page, shared: &Shared) {
    let counts = shared.losses.counts();
    page.put(
        "baton_lost_transactions_total",
        "counter",
        "Transactions that only this member had committed or prepared when another led; they are kept aside.",
        counts.transactions,
    );
    page.put(
        "baton_lost_bytes_total",
        "counter",
        "Bytes of WAL that only this member had when another led; they are kept aside.",
        counts.bytes,
    );
    let me = &shared.settings().name;
    let snapshot = shared.view.borrow().snapshot.clone();
    let rows = snapshot.as_ref().map(|snapshot| snapshot.losses.as_slice()).unwrap_or_default();
    let Some(last) = rows.iter().rev().find(|loss| loss.member == *me) else { return };
    let at = last.at.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
    page.gauge("baton_last_loss_timestamp_seconds", "When this member last accounted for a loss.", at);
    page.gauge(
        "baton_last_loss_transactions",
        "Transactions of that loss.",
        last.commits.saturating_add(last.prepared),
    );
    page.gauge("baton_last_loss_bytes", "Bytes of WAL of that loss.", last.bytes);
}
