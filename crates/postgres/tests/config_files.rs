//! Configuration files: what PostgreSQL makes of them, and what becomes of the user's own.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking, as tests do")]

mod common;

use common::{Scratch, Server, installation, pg_bin, pg_bins};
use postgres::Secret;
use postgres::config_files::{self, Follow, PgPass, Wanted, Written, refusals, write_pgpass};
use postgres::installation::{Installation, Version};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

fn parameters(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn follow(server: &Server) -> Follow {
    let pairs = [
        ("user", "postgres"),
        ("host", "127.0.0.1"),
        ("port", &server.port.to_string()),
        ("application_name", "it's me"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    Follow { primary_conninfo: pairs.into(), ..Follow::default() }
}

fn write(dir: &Path, wanted: &Wanted, installation: &Installation) -> Written {
    config_files::write(dir, None, wanted, installation.version).unwrap()
}

/// Every file of a directory with its content and inode, to see what was written.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
    let files = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).filter(|path| path.is_file());
    files.map(|path| (path.clone(), (fs::metadata(&path).unwrap().ino(), fs::read(&path).unwrap()))).collect()
}

#[tokio::test]
async fn postgresql_reads_what_was_meant() {
    for bin in pg_bins() {
        let scratch = Scratch::new("conf");
        let server = Server::init(&scratch, &bin, "data");
        let installation = installation(&bin).await;
        let original = fs::read_to_string(server.data_dir.join("postgresql.conf")).unwrap();
        let awkward = "it's a \\ \"value\" # with\tall $1 sorts\n of 'things'";
        let wanted = Wanted {
            parameters: parameters(&[
                ("work_mem", "7MB"),
                ("my.setting", awkward),
                ("archive_cleanup_command", "test ! -f '/a b/%f' && cp %p \"/a b/%f\""),
                ("max_connections", "44"),
                ("primary_conninfo", "host=nowhere"),
            ]),
            pg_hba: Some(vec![
                "local all all trust".to_owned(),
                "host all all 127.0.0.1/32 trust".to_owned(),
            ]),
            ..Wanted::default()
        };
        let written = write(&server.data_dir, &wanted, &installation);
        assert!(written.changed);
        assert_eq!(written.ignored, ["primary_conninfo"]);
        assert!(written.restart_needed.contains(&"max_connections".to_owned()), "{written:?}");
        assert_eq!(fs::read_to_string(server.data_dir.join("postgresql.base.conf")).unwrap(), original);
        let before = snapshot(&server.data_dir);
        assert!(!write(&server.data_dir, &wanted, &installation).changed);
        assert_eq!(snapshot(&server.data_dir), before, "nothing was touched");

        server.start();
        assert_eq!(server.psql("show work_mem"), "7MB");
        assert_eq!(server.psql("show my.setting"), awkward.trim_end());
        assert_eq!(server.psql("show archive_cleanup_command"), "test ! -f '/a b/%f' && cp %p \"/a b/%f\"");
        assert_eq!(server.psql("show max_connections"), "44");
        assert_eq!(server.psql("show primary_conninfo"), "");
        // From the user's own file.
        assert_eq!(server.psql("show wal_log_hints"), "on");
        assert_eq!(server.psql("select count(*) from pg_file_settings where error is not null"), "0");
        assert_eq!(server.psql("select count(*) from pg_hba_file_rules"), "2");
        assert!(server.data_dir.join("pg_hba.conf.backup").exists());
    }
}

#[tokio::test]
async fn a_standby_follows_and_a_primary_does_not() {
    for bin in pg_bins() {
        let scratch = Scratch::new("standby");
        let primary = Server::init(&scratch, &bin, "primary");
        let installation = installation(&bin).await;
        primary.start();
        primary.psql("select pg_create_physical_replication_slot('n2')");
        let standby = primary.standby(&scratch, "standby");
        // pg_basebackup wrote these; they must not win over what the cluster decides.
        let auto = fs::read_to_string(standby.data_dir.join("postgresql.auto.conf")).unwrap();
        assert!(auto.contains("primary_conninfo"));
        standby.append("postgresql.auto.conf", "work_mem = '9MB'\nrecovery_target_lsn = '0/1'\n");
        fs::remove_file(standby.data_dir.join("standby.signal")).unwrap();
        let mut wanted = Wanted {
            standby: Some(Follow {
                slot: Some("n2".to_owned()),
                restore_command: Some("/bin/false %f '%p'".to_owned()),
                others: parameters(&[("recovery_min_apply_delay", "0")]),
                ..follow(&primary)
            }),
            ..Wanted::default()
        };
        assert!(write(&standby.data_dir, &wanted, &installation).changed);
        standby.start();
        assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
        let query = "select application_name, slot_name from pg_stat_replication join pg_replication_slots on pid = active_pid";
        let streaming =
            common::until("streaming", || Some(primary.psql(query)).filter(|text| !text.is_empty())).await;
        assert_eq!(streaming, "it's me|n2");
        assert_eq!(standby.psql("show work_mem"), "9MB", "what ALTER SYSTEM set is kept");
        assert_eq!(standby.psql("show recovery_target_timeline"), "latest");
        assert_eq!(standby.psql("show restore_command"), "/bin/false %f '%p'");
        assert!(!write(&standby.data_dir, &wanted, &installation).changed);

        // As long as it is a standby it cannot be made to start as a primary by configuration.
        let primary_again = Wanted { standby: None, ..wanted.clone() };
        for _running_then_stopped in 0..2 {
            let error = config_files::write(&standby.data_dir, None, &primary_again, installation.version)
                .unwrap_err();
            assert!(error.to_string().contains("promote"), "{error}");
            assert!(standby.data_dir.join("standby.signal").exists());
            if standby.data_dir.join("postmaster.pid").exists() {
                standby.stop("fast");
            }
        }
        standby.start();
        standby.pg_ctl(&["promote", "--wait"]);
        assert!(write(&standby.data_dir, &primary_again, &installation).changed);
        standby.pg_ctl(&["reload"]);
        common::until("no connection to follow", || {
            standby.psql("show primary_conninfo").is_empty().then_some(())
        })
        .await;

        // The old primary becomes a standby.
        primary.stop("fast");
        wanted.standby = Some(follow(&standby));
        assert!(write(&primary.data_dir, &wanted, &installation).changed);
        assert!(primary.data_dir.join("standby.signal").exists());
        // Cleanly stopped as a primary, it may be one again.
        assert!(write(&primary.data_dir, &primary_again, &installation).changed);
        assert!(!primary.data_dir.join("standby.signal").exists());
    }
}

#[tokio::test]
async fn the_users_files_are_kept() {
    let scratch = Scratch::new("keep");
    let (dir, installation) = (scratch.dir("data"), installation(&pg_bin()).await);
    let put = |name: &str, text: &str| {
        fs::write(dir.join(name), text).unwrap();
        common::own(&dir.join(name));
    };
    let get = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    put("postgresql.conf", "# mine\n");
    put("pg_hba.conf", "# my rules\n");
    let mut wanted = Wanted { parameters: parameters(&[("work_mem", "1MB")]), ..Wanted::default() };
    write(&dir, &wanted, &installation);
    assert_eq!(
        (get("postgresql.base.conf"), get("pg_hba.conf")),
        ("# mine\n".to_owned(), "# my rules\n".to_owned())
    );
    assert!(get("postgresql.conf").contains(&format!("hba_file = '{}'", dir.join("pg_hba.conf").display())));
    assert!(!get("postgresql.conf").contains("ident_file"), "there is none");

    wanted.pg_hba = Some(vec!["local all all trust".to_owned()]);
    wanted.pg_ident = Some(vec!["map a b".to_owned()]);
    assert!(write(&dir, &wanted, &installation).changed);
    assert_eq!(get("pg_hba.conf.backup"), "# my rules\n");
    assert!(get("pg_ident.conf").ends_with("map a b\n") && !dir.join("pg_ident.conf.backup").exists());
    wanted.pg_hba = Some(vec!["local all all reject".to_owned()]);
    assert!(write(&dir, &wanted, &installation).changed);
    assert_eq!(get("pg_hba.conf.backup"), "# my rules\n", "our own earlier rules are no original");

    // Somebody replaces our file: what they wrote is kept, and the base as well.
    put("postgresql.conf", "# edited\n");
    assert!(write(&dir, &wanted, &installation).changed);
    assert_eq!(
        (get("postgresql.conf.backup"), get("postgresql.base.conf")),
        ("# edited\n".to_owned(), "# mine\n".to_owned())
    );

    // What Patroni wrote is taken over, not kept as an original; the base is not included by itself.
    put(
        "postgresql.conf",
        "# Do not edit this file manually!\n# It will be overwritten by Patroni!\ninclude 'postgresql.base.conf'\n",
    );
    fs::remove_file(dir.join("postgresql.base.conf")).unwrap();
    assert!(write(&dir, &wanted, &installation).changed);
    assert!(!get("postgresql.base.conf").contains("include"));
    assert_eq!(get("postgresql.conf.backup"), "# edited\n");

    // A file that the parameters name is the user's affair.
    wanted.parameters = parameters(&[("hba_file", "/etc/my_hba.conf")]);
    wanted.pg_hba = Some(vec!["local all all trust".to_owned()]);
    write(&dir, &wanted, &installation);
    assert!(get("pg_hba.conf").contains("reject"));
    assert_eq!(get("postgresql.conf").matches("hba_file").count(), 1);

    let owner = fs::metadata(&dir).unwrap().uid();
    for (path, _) in snapshot(&dir) {
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (owner, 0o600), "{}", path.display());
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
    wanted.parameters = parameters(&[("work_mem", "2MB")]);
    write(&dir, &wanted, &installation);
    assert_eq!(
        fs::metadata(dir.join("postgresql.conf")).unwrap().mode() & 0o777,
        0o640,
        "open to the group like its directory"
    );

    wanted.pg_hba = Some(vec!["local all all trust\nhost all all all trust".to_owned()]);
    let error = config_files::write(&dir, None, &wanted, installation.version).unwrap_err().to_string();
    assert!(error.contains("one rule is one line"), "{error}");
}

#[test]
fn files_can_live_elsewhere_and_be_links() {
    let scratch = Scratch::new("etc");
    let (data, etc) = (scratch.dir("data"), scratch.dir("etc"));
    let theirs = scratch.join("managed-by-them.conf");
    for path in [&theirs, &scratch.join("auto")] {
        fs::write(path, "# theirs\nprimary_slot_name = x\n").unwrap();
        common::own(path);
    }
    symlink(&theirs, etc.join("postgresql.conf")).unwrap();
    symlink(scratch.join("auto"), data.join("postgresql.auto.conf")).unwrap();
    let wanted = Wanted {
        standby: Some(Follow::default()),
        custom_conf: Some("/etc/my.conf".into()),
        ..Wanted::default()
    };
    let version = Version { major: 15, minor: 0 };
    assert!(config_files::write(&data, Some(&etc), &wanted, version).unwrap().changed);
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "# theirs\nprimary_slot_name = x\n");
    assert!(etc.join("postgresql.base.conf").is_symlink(), "the original is kept as it was: a link");
    assert!(fs::read_to_string(etc.join("postgresql.conf")).unwrap().contains("include '/etc/my.conf'\n"));
    assert!(data.join("standby.signal").exists() && !data.join("postgresql.conf").exists());
    assert!(data.join("postgresql.auto.conf").is_symlink());
    assert_eq!(fs::read_to_string(scratch.join("auto")).unwrap(), "# theirs\n");
    assert!(!config_files::write(&data, Some(&etc), &wanted, version).unwrap().changed);
}

#[test]
fn only_changes_that_need_a_restart_ask_for_one() {
    let scratch = Scratch::new("restart");
    let dir = scratch.dir("data");
    let version = Version { major: 15, minor: 0 };
    let set = |pairs: &[(&str, &str)]| {
        let wanted = Wanted { parameters: parameters(pairs), ..Wanted::default() };
        config_files::write(&dir, None, &wanted, version).unwrap()
    };
    set(&[("work_mem", "1MB"), ("shared_buffers", "16MB")]);
    let reload = set(&[("work_mem", "2MB"), ("shared_buffers", "16MB")]);
    assert!(reload.changed && reload.restart_needed.is_empty(), "{reload:?}");
    assert_eq!(set(&[("shared_buffers", "32MB")]).restart_needed, ["shared_buffers"]);
    assert_eq!(set(&[]).restart_needed, ["shared_buffers"], "taking it away is a change, too");
    assert_eq!(
        set(&[("cluster_name", "c"), ("max_connections", "9")]).restart_needed,
        ["cluster_name", "max_connections"]
    );
    assert!(!set(&[("cluster_name", "c"), ("max_connections", "9")]).changed);
}

#[tokio::test]
async fn the_password_file_works() {
    let scratch = Scratch::new("pgpass");
    let server = Server::init(&scratch, &pg_bin(), "data");
    let password = r"pass:with\all 'sorts'";
    server.start();
    server.psql("create role \"odd:user\" login");
    server.psql(&format!(
        "set standard_conforming_strings = on; alter role \"odd:user\" password '{}'",
        password.replace('\'', "''")
    ));
    fs::write(server.data_dir.join("pg_hba.conf"), "local all all trust\nhost all all all scram-sha-256\n")
        .unwrap();
    server.pg_ctl(&["reload"]);

    let path = scratch.join("pgpass");
    let any = || "*".to_owned();
    let entry = PgPass {
        host: any(),
        port: server.port.to_string(),
        database: any(),
        user: "odd:user".to_owned(),
        password: Secret::new(password),
    };
    assert!(write_pgpass(&path, std::slice::from_ref(&entry)).unwrap());
    assert!(!write_pgpass(&path, std::slice::from_ref(&entry)).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(!format!("{entry:?}").contains("sorts"));
    let login = || {
        let mut psql = server.psql_command("select 1");
        psql.args(["--host", "127.0.0.1", "--username", "odd:user", "--no-password"])
            .env("PGPASSFILE", &path);
        psql.output().unwrap().status.success()
    };
    common::until("a login with the password", || login().then_some(())).await;
    let wrong = PgPass { password: Secret::new("other"), ..entry.clone() };
    assert!(write_pgpass(&path, &[wrong]).unwrap());
    assert!(!login(), "the password matters");
    let bad = PgPass { password: Secret::new("two\nlines"), ..entry };
    let error = write_pgpass(&path, &[bad]).unwrap_err().to_string();
    assert!(error.contains("line break") && !error.contains("two"), "{error}");
}

#[tokio::test]
async fn postgresql_itself_says_what_it_would_not_start_with() {
    for bin in pg_bins() {
        let scratch = Scratch::new("conf-refusals");
        let server = Server::init(&scratch, &bin, "data");
        let installation = installation(&bin).await;
        let mut wanted = Wanted {
            parameters: parameters(&[
                ("work_mem", "4MB"),
                ("zero_damaged_pages", "off"),
                ("my_extension.mode", "fast"),
                ("log_destination", "csvlog"),
                ("wrk_mem", "4MB"),
                ("shared_buffers", "lots"),
                ("max_connections", "1000000000"),
                ("lc_messages", "C"),
                ("log_line_prefix", "%m [%p] "),
            ]),
            standby: Some(follow(&server)),
            ..Wanted::default()
        };
        let others = &mut wanted.standby.as_mut().unwrap().others;
        others.insert("recovery_min_apply_delay".to_owned(), "soon".to_owned());
        let refused = refusals(&installation, &server.data_dir, None, &wanted).unwrap();
        let mut names: Vec<&str> = refused.iter().map(|refusal| refusal.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["max_connections", "recovery_min_apply_delay", "shared_buffers", "wrk_mem"],
            "{refused:?}"
        );
        assert!(refused.iter().all(|refusal| !refusal.why.contains("baton")), "{refused:?}");

        for name in ["wrk_mem", "shared_buffers", "max_connections"] {
            wanted.parameters.remove(name);
        }
        wanted.standby = None;
        write(&server.data_dir, &wanted, &installation);
        assert_eq!(
            refusals(&installation, &server.data_dir, None, &wanted).unwrap(),
            [],
            "also with our own file there"
        );
        server.start();
        assert_eq!(server.psql("SHOW my_extension.mode"), "fast");
        assert!(!server.data_dir.join("postgresql.conf.baton-draft").exists());
    }
}
