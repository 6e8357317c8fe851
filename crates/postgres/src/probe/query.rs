//! The one query of the probe, and its answer: JSON on the wire, [`Facts`] behind it.

use super::{Facts, Pending, Receiver, Slot, SlotKind, Standby};
use serde::Deserialize;
use types::{Lsn, SystemId, Timeline};

/// Everything at once, as one JSON text. `pg_is_in_recovery` is asked once and guards the functions that fail on the
/// other side of it; `to_jsonb(row)->>'column'` gives NULL for a column that this version does not have.
pub(super) const QUERY: &str = "
SELECT row_to_json(facts)::text FROM (
 SELECT r AS in_recovery,
  CASE WHEN NOT r THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS written_timeline,
  CASE WHEN r THEN (SELECT greatest(c.timeline_id, m.min_recovery_end_timeline)
                    FROM pg_control_checkpoint() c, pg_control_recovery() m) END AS replayed_timeline,
  CASE WHEN NOT r THEN pg_current_wal_flush_lsn() END AS flush_lsn,
  CASE WHEN r THEN pg_last_wal_receive_lsn() END AS received_lsn,
  CASE WHEN r THEN pg_last_wal_replay_lsn() END AS replayed_lsn,
  CASE WHEN r THEN pg_is_wal_replay_paused() ELSE false END AS replay_paused,
  CASE WHEN r THEN (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint END AS replayed_at,
  r AND coalesce(current_setting('restore_command', true), '') <> '' AS restores,
  CASE WHEN r THEN (SELECT row_to_json(w) FROM (
    SELECT status, sender_host, sender_port, slot_name, latest_end_lsn, received_tli
    FROM pg_stat_wal_receiver) w LIMIT 1) END AS receiver,
  to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00:00'
    AS postmaster_start_time,
  current_setting('server_version_num')::int AS server_version,
  (SELECT system_identifier::text FROM pg_control_system()) AS system_id,
  (SELECT coalesce(json_agg(s), '[]') FROM (
    SELECT pid, usename AS \"user\", application_name, host(client_addr) AS client_addr, state, sync_state,
      sync_priority, sent_lsn, write_lsn, flush_lsn, replay_lsn
    FROM pg_stat_replication ORDER BY application_name, pid LIMIT 1000) s) AS replication,
  (SELECT coalesce(json_agg(s), '[]') FROM (
    SELECT slot_name AS name, slot_type = 'logical' AS logical, active, temporary, restart_lsn, confirmed_flush_lsn,
      plugin, database, wal_status, xmin IS NOT NULL OR catalog_xmin IS NOT NULL AS holds_xmin,
      catalog_xmin::text AS catalog_xmin,
      coalesce((to_jsonb(p)->>'failover')::bool, false) AS failover,
      coalesce((to_jsonb(p)->>'synced')::bool, false) AS synced
    FROM pg_replication_slots p ORDER BY slot_name LIMIT 1000) s) AS slots,
  (SELECT coalesce(json_agg(p), '[]') FROM (
    SELECT name, current_setting(name, true) AS running, coalesce(
      (SELECT f.setting FROM pg_file_settings f WHERE lower(f.name) = lower(s.name) ORDER BY f.seqno DESC LIMIT 1),
      boot_val) AS wanted
    FROM pg_settings s WHERE pending_restart AND name NOT LIKE 'recovery_target%' ORDER BY name) p)
    AS pending_restart,
  coalesce(current_setting('sync_replication_slots', true) = 'on', false) AS slot_sync,
  current_setting('synchronous_standby_names') AS synchronous_standby_names,
  current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true)::int, 0)
    - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS free_slots,
  (SELECT coalesce(bool_and(coalesce(wait_event IN ('CheckpointerMain', 'CheckpointWriteDelay'), false)), true)
     FROM pg_stat_activity WHERE backend_type = 'checkpointer') AS checkpointer_rests
 FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) once
) facts";

#[derive(Deserialize)]
struct RawFacts {
    in_recovery: bool,
    written_timeline: Option<String>,
    replayed_timeline: Option<u32>,
    flush_lsn: Option<String>,
    received_lsn: Option<String>,
    replayed_lsn: Option<String>,
    replay_paused: bool,
    replayed_at: Option<i64>,
    restores: bool,
    receiver: Option<RawReceiver>,
    postmaster_start_time: String,
    server_version: u32,
    system_id: String,
    replication: Vec<RawStandby>,
    slots: Vec<RawSlot>,
    pending_restart: Vec<RawPending>,
    slot_sync: bool,
    synchronous_standby_names: String,
    checkpointer_rests: bool,
    free_slots: i64,
}

#[derive(Deserialize)]
struct RawReceiver {
    status: Option<String>,
    sender_host: Option<String>,
    sender_port: Option<u16>,
    slot_name: Option<String>,
    latest_end_lsn: Option<String>,
    received_tli: Option<u32>,
}

#[derive(Deserialize)]
struct RawStandby {
    pid: u32,
    user: Option<String>,
    application_name: Option<String>,
    client_addr: Option<String>,
    state: Option<String>,
    sync_state: Option<String>,
    sync_priority: Option<u32>,
    sent_lsn: Option<String>,
    write_lsn: Option<String>,
    flush_lsn: Option<String>,
    replay_lsn: Option<String>,
}

#[derive(Deserialize)]
struct RawSlot {
    name: String,
    logical: bool,
    active: bool,
    temporary: bool,
    restart_lsn: Option<String>,
    confirmed_flush_lsn: Option<String>,
    plugin: Option<String>,
    database: Option<String>,
    wal_status: Option<String>,
    holds_xmin: bool,
    catalog_xmin: Option<String>,
    failover: bool,
    synced: bool,
}

#[derive(Deserialize)]
struct RawPending {
    name: String,
    running: Option<String>,
    wanted: Option<String>,
}

/// Reads the answer to [`QUERY`]; the error says what is odd about it.
pub(super) fn parse(text: &str) -> Result<Facts, String> {
    let raw: RawFacts = serde_json::from_str(text).map_err(|error| format!("its facts: {error}"))?;
    let receiver = raw.receiver.map(receiver).transpose()?;
    let timeline = if raw.in_recovery {
        let received = receiver.as_ref().and_then(|receiver| receiver.received_tli);
        // The receiver is ahead of the control file, unless it waits on an older timeline for a new order.
        received.max(raw.replayed_timeline.filter(|timeline| *timeline > 0).map(Timeline))
    } else {
        let digits = raw.written_timeline.as_deref().unwrap_or_default();
        let number = u32::from_str_radix(digits, 16).map_err(|_| format!("a timeline {digits:?}"))?;
        Some(Timeline(number))
    };
    Ok(Facts {
        in_recovery: raw.in_recovery,
        timeline,
        flush_lsn: lsn(raw.flush_lsn)?,
        received_lsn: lsn(raw.received_lsn)?,
        replayed_lsn: lsn(raw.replayed_lsn)?,
        replay_paused: raw.replay_paused,
        replayed_at: raw.replayed_at,
        restores: raw.restores,
        receiver,
        postmaster_start_time: raw.postmaster_start_time,
        server_version: raw.server_version,
        system_id: system_id(&raw.system_id)?,
        replication: raw.replication.into_iter().map(standby).collect::<Result<_, _>>()?,
        slots: raw.slots.into_iter().map(slot).collect::<Result<_, _>>()?,
        pending_restart: raw.pending_restart.into_iter().map(pending).collect(),
        slot_sync: raw.slot_sync,
        synchronous_standby_names: raw.synchronous_standby_names,
        checkpointer_rests: raw.checkpointer_rests,
        free_slots: raw.free_slots,
    })
}

fn receiver(raw: RawReceiver) -> Result<Receiver, String> {
    Ok(Receiver {
        status: raw.status.unwrap_or_default(),
        sender_host: raw.sender_host,
        sender_port: raw.sender_port,
        slot_name: raw.slot_name.filter(|name| !name.is_empty()),
        latest_end_lsn: lsn(raw.latest_end_lsn)?,
        received_tli: raw.received_tli.filter(|timeline| *timeline > 0).map(Timeline),
    })
}

fn standby(raw: RawStandby) -> Result<Standby, String> {
    Ok(Standby {
        pid: raw.pid,
        user: raw.user,
        application_name: raw.application_name.unwrap_or_default(),
        client_addr: raw.client_addr,
        state: raw.state,
        sync_state: raw.sync_state,
        sync_priority: raw.sync_priority,
        sent_lsn: lsn(raw.sent_lsn)?,
        write_lsn: lsn(raw.write_lsn)?,
        flush_lsn: lsn(raw.flush_lsn)?,
        replay_lsn: lsn(raw.replay_lsn)?,
    })
}

fn pending(raw: RawPending) -> Pending {
    Pending { name: raw.name, running: raw.running, wanted: raw.wanted }
}

fn slot(raw: RawSlot) -> Result<Slot, String> {
    Ok(Slot {
        name: raw.name,
        kind: if raw.logical { SlotKind::Logical } else { SlotKind::Physical },
        active: raw.active,
        temporary: raw.temporary,
        restart_lsn: lsn(raw.restart_lsn)?,
        confirmed_flush_lsn: lsn(raw.confirmed_flush_lsn)?,
        plugin: raw.plugin,
        database: raw.database,
        wal_status: raw.wal_status,
        holds_xmin: raw.holds_xmin,
        catalog_xmin: raw.catalog_xmin.and_then(|xid| xid.parse().ok()),
        failover: raw.failover,
        synced: raw.synced,
    })
}

fn lsn(text: Option<String>) -> Result<Option<Lsn>, String> {
    let lsn = text.map(|text| text.parse::<Lsn>()).transpose().map_err(|error| error.to_string())?;
    Ok(lsn.filter(|lsn| lsn.is_valid()))
}

/// The view shows the number as a signed one.
fn system_id(text: &str) -> Result<SystemId, String> {
    let number: i64 = text.parse().map_err(|_| format!("a system identifier {text:?}"))?;
    Ok(SystemId(number.cast_unsigned()))
}
