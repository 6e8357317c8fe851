//! The control file and the data directory, compared with what PostgreSQL's own tools say.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of tests fails by panicking, as tests do")]

mod common;

use common::{Scratch, Server, pg_bin, pg_bins, program, run};
use postgres::control::{self, Control, ControlState};
use postgres::data_dir::{self, DataDir, Work};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use types::{Lsn, Timeline};

fn pg_controldata(server: &Server) -> BTreeMap<String, String> {
    let text = run(program(&server.bin_dir, "pg_controldata").arg(&server.data_dir));
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

fn check_against_controldata(server: &Server) -> Control {
    let control = control::read(&server.data_dir).unwrap();
    let theirs = pg_controldata(server);
    let on = |flag: bool| if flag { "on" } else { "off" }.to_owned();
    let yes = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
    let ours = [
        ("Database system identifier", control.system_id.to_string()),
        ("pg_control version number", control.control_version.to_string()),
        ("Database cluster state", control.state.to_string()),
        ("Latest checkpoint location", control.checkpoint.to_string()),
        ("Latest checkpoint's REDO location", control.redo.to_string()),
        ("Latest checkpoint's TimeLineID", control.timeline.to_string()),
        ("Latest checkpoint's PrevTimeLineID", control.prev_timeline.to_string()),
        ("Minimum recovery ending location", control.min_recovery_end.to_string()),
        ("Min recovery ending loc's timeline", control.min_recovery_timeline.to_string()),
        ("Backup start location", control.backup_start.to_string()),
        ("Backup end location", control.backup_end.to_string()),
        ("End-of-backup record required", yes(control.backup_end_required)),
        ("wal_log_hints setting", on(control.wal_log_hints)),
        ("max_connections setting", control.max_connections.to_string()),
        ("max_worker_processes setting", control.max_worker_processes.to_string()),
        ("max_wal_senders setting", control.max_wal_senders.to_string()),
        ("max_prepared_xacts setting", control.max_prepared_xacts.to_string()),
        ("max_locks_per_xact setting", control.max_locks_per_xact.to_string()),
        ("Bytes per WAL segment", control.wal_segment_size.to_string()),
        ("Data page checksum version", u32::from(control.data_checksums).to_string()),
    ];
    for (name, value) in ours {
        assert_eq!(theirs.get(name), Some(&value), "{name}, {}", server.bin_dir.display());
    }
    for (name, value) in
        [("pg_control last modified", control.time), ("Time of latest checkpoint", control.checkpoint_time)]
    {
        let text = theirs.get(name).unwrap();
        let date = run(program(Path::new("/bin"), "date").args(["--date", text, "+%s"]));
        assert_eq!(date.trim(), value.to_string(), "{name}: {text}");
    }
    control
}

#[test]
fn every_field_is_what_pg_controldata_says() {
    for bin in pg_bins() {
        let scratch = Scratch::new("control");
        let odd = ["--auth=trust", "--wal-segsize=1", "--no-data-checksums"];
        let plain = ["--auth=trust", "--wal-segsize=1"];
        // Checksums are the default since 18.
        let newer = common::major(&bin) >= 18;
        let primary = Server::init_with(&scratch, &bin, "primary", if newer { &odd } else { &plain });
        assert_eq!(check_against_controldata(&primary).state, ControlState::ShutDown);
        primary.append(
            "postgresql.conf",
            "max_connections = 33\nmax_prepared_transactions = 7\nmax_wal_senders = 9\n",
        );
        primary.append("postgresql.conf", "max_worker_processes = 11\nmax_locks_per_transaction = 77\n");
        primary.start();
        let control = check_against_controldata(&primary);
        assert_eq!((control.state, control.data_checksums), (ControlState::InProduction, false));
        assert_eq!((control.max_connections, control.max_prepared_xacts), (33, 7));

        let standby = primary.standby(&scratch, "standby");
        let copied = check_against_controldata(&standby);
        assert!(copied.backup_start.is_valid() || standby.data_dir.join("backup_label").exists());
        standby.start();
        standby.stop("fast");
        let stopped = check_against_controldata(&standby);
        assert_eq!(stopped.state, ControlState::ShutDownInRecovery);
        assert!(stopped.min_recovery_end.is_valid() && stopped.state.is_clean());

        standby.start();
        standby.pg_ctl(&["promote", "--wait"]);
        standby.psql("checkpoint");
        let promoted = check_against_controldata(&standby);
        assert_eq!(promoted.timeline, Timeline(2));
        primary.stop("immediate");
        let crashed = check_against_controldata(&primary);
        assert!(crashed.state == ControlState::InProduction && !crashed.state.is_clean());
    }
}

#[test]
fn the_checksum_variant_is_seen() {
    let scratch = Scratch::new("sums");
    let server = Server::init(&scratch, &pg_bin(), "data");
    assert!(check_against_controldata(&server).data_checksums);
}

#[test]
fn a_damaged_file_is_refused() {
    let scratch = Scratch::new("damage");
    let server = Server::init(&scratch, &pg_bin(), "data");
    let path = server.data_dir.join("global/pg_control");
    let good = fs::read(&path).unwrap();
    for at in [0, 16, 48, 287, 288] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let error = control::read(&server.data_dir).unwrap_err().to_string();
        assert!(error.contains("pg_control") && error.contains("checksum"), "{at}: {error}");
        match data_dir::inspect(&server.data_dir).unwrap() {
            DataDir::Foreign { why } => assert!(why.contains("checksum") && why.contains("restore"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    let mut bad = good.clone();
    bad[8] = 1;
    fs::write(&path, &bad).unwrap();
    assert!(control::read(&server.data_dir).unwrap_err().to_string().contains("format"));
    for length in [0, 11, 290] {
        fs::write(&path, &good[..length]).unwrap();
        let error = control::read(&server.data_dir).unwrap_err().to_string();
        assert!(error.contains(&format!("{length} bytes")), "{error}");
    }
}

#[test]
fn directories_are_told_apart() {
    let scratch = Scratch::new("inspect");
    let missing = scratch.join("missing");
    assert_eq!(data_dir::inspect(&missing).unwrap(), DataDir::Missing);
    let empty = scratch.dir("empty");
    assert_eq!(data_dir::inspect(&empty).unwrap(), DataDir::Empty);
    fs::write(empty.join("notes.txt"), "mine").unwrap();
    foreign(&empty, "PG_VERSION");
    foreign(&empty.join("notes.txt"), "no directory");

    let server = Server::init(&scratch, &pg_bin(), "data");
    server.append("standby.signal", "");
    match data_dir::inspect(&server.data_dir).unwrap() {
        DataDir::Present { control, standby_signal, recovery_signal, backup_label, major } => {
            assert_eq!(control, control::read(&server.data_dir).unwrap());
            assert!(standby_signal && !recovery_signal && !backup_label && major >= 13);
        }
        other => panic!("{other:?}"),
    }
    fs::set_permissions(&server.data_dir, fs::Permissions::from_mode(0o755)).unwrap();
    foreign(&server.data_dir, "0700");
    fs::set_permissions(&server.data_dir, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(data_dir::inspect(&server.data_dir).unwrap(), DataDir::Present { .. }));
}

#[tokio::test]
async fn another_major_version_is_foreign() {
    let scratch = Scratch::new("major");
    let server = Server::init(&scratch, &pg_bin(), "data");
    let mut installation = common::installation(&pg_bin()).await;
    assert!(matches!(
        data_dir::inspect_for(&server.data_dir, &installation).unwrap(),
        DataDir::Present { .. }
    ));
    installation.version.major += 1;
    match data_dir::inspect_for(&server.data_dir, &installation).unwrap() {
        DataDir::Foreign { why } => assert!(why.contains("pg_upgrade") && why.contains("bin_dir"), "{why}"),
        other => panic!("{other:?}"),
    }
}

fn foreign(dir: &Path, word: &str) {
    match data_dir::inspect(dir).unwrap() {
        DataDir::Foreign { why } => assert!(why.contains(word), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_marked_directory_is_nobodys_database() {
    let scratch = Scratch::new("mark");
    let server = Server::init(&scratch, &pg_bin(), "data");
    for work in [Work::Clone, Work::Rewind, Work::Bootstrap] {
        data_dir::mark_incomplete(&server.data_dir, work).unwrap();
        match data_dir::inspect(&server.data_dir).unwrap() {
            DataDir::Incomplete { work: found, since } => {
                assert!(found == work && since.ends_with('Z'), "{since}")
            }
            other => panic!("{other:?}"),
        }
    }
    fs::write(scratch.join("data.baton-incomplete"), "").unwrap();
    assert!(matches!(
        data_dir::inspect(&server.data_dir).unwrap(),
        DataDir::Incomplete { work: Work::Clone, .. }
    ));
    // With a slash at the end it still is the same directory.
    data_dir::clear_mark(&server.data_dir.join("")).unwrap();
    assert!(matches!(data_dir::inspect(&server.data_dir).unwrap(), DataDir::Present { .. }));
    data_dir::clear_mark(&server.data_dir).unwrap();

    // A mark that cannot be read: nobody knows, so these are no data (the agent counts them as unusable).
    fs::create_dir(scratch.join("data.baton-incomplete")).unwrap();
    assert!(data_dir::inspect(&server.data_dir).is_err());
    fs::remove_dir(scratch.join("data.baton-incomplete")).unwrap();

    // The directory may not even exist yet.
    let missing = scratch.join("missing");
    data_dir::mark_incomplete(&missing, Work::Clone).unwrap();
    assert!(matches!(data_dir::inspect(&missing).unwrap(), DataDir::Incomplete { .. }));
}

#[test]
fn moved_aside_and_pruned_by_age() {
    let scratch = Scratch::new("aside");
    let dir = scratch.join("data");
    let bystander = scratch.dir("data.kept-by-hand");
    let mut moved = Vec::new();
    for label in ["diverged", "reinit", "third"] {
        scratch.dir("data");
        fs::write(dir.join("which"), label).unwrap();
        moved.push(data_dir::move_aside(&dir, label).unwrap());
        assert!(!dir.exists());
    }
    let kept = data_dir::kept(&dir).unwrap();
    assert_eq!(kept.iter().map(|kept| kept.path.clone()).collect::<Vec<_>>(), moved, "oldest first");
    assert_eq!(kept[0].label, "diverged");
    let removed = data_dir::prune_kept(&dir, 1).unwrap();
    assert_eq!(removed.len(), 2);
    assert_eq!(data_dir::kept(&dir).unwrap().len(), 1);
    assert_eq!(fs::read_to_string(moved[2].join("which")).unwrap(), "third");
    assert!(bystander.exists() && !moved[0].exists() && !moved[1].exists());
    assert!(data_dir::prune_kept(&dir, 1).unwrap().is_empty());
    assert!(data_dir::move_aside(&dir, "../x").is_err());
    assert!(data_dir::move_aside(&dir, "gone").is_err(), "there is nothing to move");
}

#[test]
fn wal_and_tablespaces_elsewhere_move_along_and_still_work() {
    let scratch = Scratch::new("outside");
    let (wal, space) = (scratch.join("wal"), scratch.dir("space"));
    let waldir = format!("--waldir={}", wal.display());
    let server = Server::init_with(&scratch, &pg_bin(), "data", &["--auth=trust", &waldir]);
    server.start();
    server.psql(&format!("create tablespace elsewhere location '{}'", space.display()));
    server.psql("create table kept tablespace elsewhere as select 42 as answer");
    let error = data_dir::move_aside(&server.data_dir, "diverged").unwrap_err().to_string();
    assert!(error.contains("stop that first"), "{error}");
    server.stop("fast");

    let moved = data_dir::move_aside(&server.data_dir, "diverged").unwrap();
    for place in [&wal, &space] {
        assert_eq!(fs::read_dir(place).unwrap().count(), 0, "{} is free for the next clone", place.display());
        assert_eq!(fs::metadata(place).unwrap().uid(), fs::metadata(&moved).unwrap().uid());
    }
    let again = Server { data_dir: moved, ..server };
    again.start();
    assert_eq!(again.psql("select answer from kept"), "42");
    again.stop("fast");

    let dir = scratch.join("data");
    data_dir::prune_kept(&dir, 0).unwrap();
    let left: Vec<_> =
        fs::read_dir(scratch.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains(".kept-")), "{left:?}");
    assert!(wal.exists() && space.exists());
}

#[test]
fn a_shared_tablespace_is_not_moved() {
    let scratch = Scratch::new("shared");
    let (data, space) = (scratch.dir("data"), scratch.dir("space"));
    fs::create_dir(data.join("pg_tblspc")).unwrap();
    fs::create_dir(space.join("PG_15_202209061")).unwrap();
    fs::create_dir(space.join("somebody")).unwrap();
    symlink(&space, data.join("pg_tblspc/16384")).unwrap();
    let error = data_dir::move_aside(&data, "diverged").unwrap_err().to_string();
    assert!(error.contains("somebody") && error.contains("by hand"), "{error}");
    assert!(data.join("pg_tblspc/16384/somebody").exists(), "nothing was moved");
}

#[test]
fn the_tail_of_the_wal_is_kept() {
    let scratch = Scratch::new("tail");
    let server = Server::init_with(&scratch, &pg_bin(), "data", &["--auth=trust", "--wal-segsize=1"]);
    server.start();
    server.psql("create table t (x text)");
    for _ in 0..4 {
        server.psql(
            "insert into t select repeat('x', 900) from generate_series(1, 500); select pg_switch_wal()",
        );
    }
    // Recycled segments have the names of the future and hold nothing.
    server.psql("checkpoint");
    let from: Lsn = server.psql("select pg_current_wal_insert_lsn()").parse().unwrap();
    server.psql("insert into t select repeat('y', 900) from generate_series(1, 3000)");
    let end: Lsn = server.psql("select pg_current_wal_flush_lsn()").parse().unwrap();
    let expected: Vec<String> = server
        .psql(&format!(
            "select distinct pg_walfile_name('{from}'::pg_lsn + 1 + n * 1048576::numeric) from \
             generate_series(0, ({} - {}) / 1048576) n order by 1",
            end.0, from.0
        ))
        .lines()
        .map(str::to_owned)
        .collect();
    server.stop("immediate");
    assert!(expected.len() > 2, "{expected:?}");

    let into = scratch.join("tail");
    let tail = data_dir::keep_wal_tail(&server.data_dir, from, Timeline(1), &into).unwrap();
    let mut names: Vec<String> = fs::read_dir(&into)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.pop().as_deref(), Some("pg_control"));
    assert!(names.starts_with(&expected), "{names:?} {expected:?}");
    assert!(names.len() <= expected.len() + 1, "at most the segment begun last: {names:?} {expected:?}");
    assert_eq!(tail.files, names.len() + 1);
    for name in &names {
        let original = fs::read(server.data_dir.join("pg_wal").join(name)).unwrap();
        assert_eq!(original, fs::read(into.join(name)).unwrap());
    }
    assert_eq!(tail.bytes, names.len() as u64 * 1_048_576 + 8192);
    // What was kept can be read: the last row is in it.
    let dump = run(program(&server.bin_dir, "pg_waldump").args(["--stats", "--path"]).arg(&into).args([
        "--start",
        &from.to_string(),
        "--end",
        &end.to_string(),
    ]));
    assert!(dump.contains("Heap"), "{dump}");
    let later = data_dir::keep_wal_tail(&server.data_dir, from, Timeline(2), &scratch.join("none")).unwrap();
    assert_eq!(later.files, 1, "only the control file");
}
