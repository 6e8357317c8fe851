//! The life of a postmaster: started, found, watched, stopped, killed.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking, as tests do")]

mod common;

use common::{SOON, Scratch, Server, installation, pg_bin, pg_bins, processes_below, program, until};
use postgres::Error;
use postgres::control::{self, ControlState};
use postgres::installation::Installation;
use postgres::postmaster::{Postmaster, StartOptions, Stop, kill_leftovers, last_log_lines};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::time::timeout;

fn options(server: &Server) -> StartOptions {
    StartOptions { log_file: server.log.clone(), ..StartOptions::default() }
}

async fn started(installation: &Installation, server: &Server) -> Postmaster {
    let postmaster = Postmaster::start(installation, &server.data_dir, &options(server)).await.unwrap();
    let ended = || server.try_psql("select 1").ok().or((!postmaster.alive()).then(String::new));
    until("a server, ready or dead", ended).await;
    assert!(postmaster.alive(), "{}", server.log());
    postmaster
}

async fn ready(server: &Server) {
    until("a ready server", || server.try_psql("select 1").ok()).await;
}

async fn ended(postmaster: &Postmaster) {
    timeout(SOON, postmaster.exited()).await.unwrap();
    assert!(!postmaster.alive());
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

/// A client program that is ended with the test.
struct Client(Child);

impl Client {
    fn start(command: &mut Command) -> Client {
        Client(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_backend_that_was_stopped_does_not_hold_a_fast_stop_up() {
    let (scratch, bin) = (Scratch::new("stopped-backend"), pg_bin());
    let server = Server::init(&scratch, &bin, "data");
    let installation = installation(&bin).await;
    let postmaster = started(&installation, &server).await;
    ready(&server).await;
    let mut client = Client::start(
        Command::new(bin.join("psql"))
            .args(["-h", server.socket_dir.to_str().unwrap(), "-p", &server.port.to_string()])
            .args(["-U", common::SUPERUSER, "-d", "postgres", "-c", "SELECT pg_sleep(1000)"]),
    );
    let sleeper = until("the client's backend", || {
        let sql = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'";
        server.try_psql(sql).ok().filter(|pid| !pid.is_empty())
    })
    .await;
    kill_process(pid(sleeper.trim().parse().unwrap()), Signal::STOP).unwrap();
    postmaster.signal(Stop::Fast).unwrap();
    ended(&postmaster).await;
    assert!(control::read(&server.data_dir).unwrap().state == ControlState::ShutDown, "a clean stop");
    let _ended_with_its_server = client.0.wait().unwrap();
}

#[tokio::test]
async fn started_adopted_and_stopped() {
    for bin in pg_bins() {
        let scratch = Scratch::new("life");
        let server = Server::init(&scratch, &bin, "data");
        let installation = installation(&bin).await;
        assert!(Postmaster::adopt(&server.data_dir).unwrap().is_none());

        let first = started(&installation, &server).await;
        assert_eq!(first.pid, server.pid());
        let second = Postmaster::adopt(&server.data_dir).unwrap().expect("it runs");
        assert_eq!(
            (second.pid, second.start_ticks, &second.boot_id),
            (first.pid, first.start_ticks, &first.boot_id)
        );
        // A process gives itself its title when it has begun.
        until("a checkpointer", || {
            let mut children = second.children().unwrap().into_iter();
            children.any(|child| child.title.contains("checkpointer")).then_some(())
        })
        .await;

        match Postmaster::start(&installation, &server.data_dir, &options(&server)).await {
            Err(Error::AlreadyRunning { pid }) => assert_eq!(pid, first.pid),
            other => panic!("{other:?}"),
        }
        assert!(matches!(kill_leftovers(&server.data_dir).await, Err(Error::AlreadyRunning { .. })));

        second.signal(Stop::Fast).unwrap();
        // Both handles see the end, and so do two who wait with the same one.
        timeout(SOON, async { tokio::join!(first.exited(), second.exited(), second.exited()) })
            .await
            .unwrap();
        assert!(!first.alive() && !second.alive());
        assert!(Postmaster::adopt(&server.data_dir).unwrap().is_none());
        assert_eq!(control::read(&server.data_dir).unwrap().state, ControlState::ShutDown);
        second.signal(Stop::Immediate).unwrap();
        let lines = last_log_lines(&server.log, 3);
        assert!(lines.len() == 3 && lines.iter().any(|line| line.contains("shut down")), "{lines:?}");
    }
}

#[tokio::test]
async fn command_line_and_configuration_reach_it() {
    let scratch = Scratch::new("args");
    let server = Server::init(&scratch, &pg_bin(), "data");
    let installation = installation(&pg_bin()).await;
    let conf = scratch.join("elsewhere.conf");
    fs::copy(server.data_dir.join("postgresql.conf"), &conf).unwrap();
    common::own(&conf);
    fs::remove_file(server.data_dir.join("postgresql.conf")).unwrap();
    let mut options = options(&server);
    options.config_file = Some(conf.clone());
    options.args = vec![
        ("cluster_name".to_owned(), "it's one".to_owned()),
        ("max_connections".to_owned(), "29".to_owned()),
        ("hba_file".to_owned(), server.data_dir.join("pg_hba.conf").display().to_string()),
    ];
    let postmaster = Postmaster::start(&installation, &server.data_dir, &options).await.unwrap();
    ready(&server).await;
    assert_eq!(server.psql("show cluster_name"), "it's one");
    assert_eq!(server.psql("show max_connections"), "29");

    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{text}\nwork_mem = '7MB'\n")).unwrap();
    postmaster.reload().unwrap();
    until("the new value", || (server.psql("show work_mem") == "7MB").then_some(())).await;

    options.args = vec![("a b".to_owned(), "1".to_owned())];
    postmaster.signal(Stop::Fast).unwrap();
    ended(&postmaster).await;
    let refused = Postmaster::start(&installation, &server.data_dir, &options).await.unwrap_err();
    assert!(refused.to_string().contains("not a parameter name"), "{refused}");
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let scratch = Scratch::new("fail");
    let server = Server::init(&scratch, &pg_bin(), "data");
    let mut installation = installation(&pg_bin()).await;
    let mut options = options(&server);
    options.args = vec![("no_such_parameter".to_owned(), "1".to_owned())];
    match Postmaster::start(&installation, &server.data_dir, &options).await {
        Ok(postmaster) => ended(&postmaster).await,
        Err(error) => assert!(matches!(&error, Error::Program { .. }), "{error}"),
    }
    let said = || {
        last_log_lines(&server.log, 10).iter().any(|line| line.contains("no_such_parameter")).then_some(())
    };
    until("the reason in the log", said).await;

    installation.bin_dir = PathBuf::from("/var/empty");
    let error = Postmaster::start(&installation, &server.data_dir, &options).await.unwrap_err();
    assert!(error.to_string().contains("/var/empty/postgres"), "{error}");
}

#[tokio::test]
async fn a_killed_postmaster_is_noticed_and_its_leftovers_are_ended() {
    for bin in pg_bins() {
        let scratch = Scratch::new("crash");
        let server = Server::init(&scratch, &bin, "data");
        let installation = installation(&bin).await;
        let postmaster = started(&installation, &server).await;
        server.psql("create table t as select 1 as x");
        let _client = Client::start(&mut server.psql_command("select 'sleeper', pg_sleep(1000)"));
        let query =
            "select pid from pg_stat_activity where query like '%sleeper%' and pid <> pg_backend_pid()";
        let backend: u32 = until("a backend", || server.psql(query).parse().ok()).await;
        // A stopped backend does not notice that the postmaster is gone and keeps the shared memory.
        kill_process(pid(backend), Signal::STOP).unwrap();
        kill_process(pid(postmaster.pid), Signal::KILL).unwrap();
        ended(&postmaster).await;
        assert!(Path::new(&format!("/proc/{backend}")).exists());
        assert!(Postmaster::adopt(&server.data_dir).unwrap().is_none(), "the file is stale");

        let again = started(&installation, &server).await;
        assert!(!processes_below(&server.data_dir).contains(&backend));
        assert_eq!(server.psql("select x from t"), "1");
        assert_ne!(again.pid, postmaster.pid);
        again.signal(Stop::Immediate).unwrap();
        ended(&again).await;
        assert_eq!(control::read(&server.data_dir).unwrap().state, ControlState::InProduction);
    }
}

#[tokio::test]
async fn a_smart_stop_waits_for_clients() {
    let scratch = Scratch::new("smart");
    let server = Server::init(&scratch, &pg_bin(), "data");
    let postmaster = started(&installation(&pg_bin()).await, &server).await;
    let client = Client::start(&mut server.psql_command("select pg_sleep(1000)"));
    until("the client", || {
        (server.psql("select count(*) from pg_stat_activity where query like '%1000)'") == "1").then_some(())
    })
    .await;
    postmaster.signal(Stop::Smart).unwrap();
    until("no new clients", || server.try_psql("select 1").err()).await;
    assert!(postmaster.alive(), "the client is still there");
    drop(client);
    kill_backends_of_lost_clients(&postmaster);
    ended(&postmaster).await;
}

/// A sleeping backend does not look at its connection.
fn kill_backends_of_lost_clients(postmaster: &Postmaster) {
    let children = postmaster.children().unwrap();
    let backends: Vec<_> = children.iter().filter(|child| child.title.contains("SELECT")).collect();
    assert_eq!(backends.len(), 1, "{children:?}");
    kill_process(pid(backends[0].pid), Signal::TERM).unwrap();
}

#[tokio::test]
async fn kill_all_leaves_nothing_of_a_busy_server() {
    for bin in pg_bins() {
        let scratch = Scratch::new("killall");
        let server = Server::init(&scratch, &bin, "data");
        server.append(
            "postgresql.conf",
            "archive_mode = on\narchive_command = 'sleep 1000'\nmax_connections = 60\n",
        );
        let installation = installation(&bin).await;
        let postmaster = started(&installation, &server).await;
        let mut initialise = program(&bin, "pgbench");
        initialise.arg("--initialize").args(["--quiet", "--username", common::SUPERUSER, "--host"]);
        initialise.arg(&server.socket_dir).args(["--port", &server.port.to_string(), "postgres"]);
        common::run(&mut initialise);
        let mut load = program(&bin, "pgbench");
        load.args(["--client=20", "--time=1000", "--connect", "--username", common::SUPERUSER, "--host"]);
        load.arg(&server.socket_dir).args(["--port", &server.port.to_string(), "postgres"]);
        let _load = Client::start(&mut load);
        let _fixed: Vec<Client> =
            (0..20).map(|_| Client::start(&mut server.psql_command("select pg_sleep(1000)"))).collect();
        server.psql("select pg_switch_wal()");
        let busy = || {
            let backends = server.psql("select count(*) from pg_stat_activity where query like '%1000)'");
            let archiving = processes_below(&server.data_dir).into_iter().any(|pid| {
                fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.contains("sleep\u{0}1000"))
            });
            (backends == "20" && archiving).then_some(())
        };
        until("20 backends and the archiver at work", busy).await;

        let killed = postmaster.kill_all().unwrap();
        assert!(killed > 25, "{killed}");
        assert!(postmaster.all_gone(SOON).await.unwrap());
        ended(&postmaster).await;
        until("nothing in the data directory", || processes_below(&server.data_dir).is_empty().then_some(()))
            .await;
        assert_eq!(kill_leftovers(&server.data_dir).await.unwrap(), 0);

        let again = started(&installation, &server).await;
        assert_eq!(server.psql("select count(*) from pgbench_branches"), "1");
        again.kill_all().unwrap();
        assert!(again.all_gone(SOON).await.unwrap());
    }
}

#[tokio::test]
async fn a_stale_or_missing_pid_file_does_not_confuse() {
    let scratch = Scratch::new("pidfile");
    let server = Server::init(&scratch, &pg_bin(), "data");
    let other = Server::init(&scratch, &pg_bin(), "other");
    let installation = installation(&pg_bin()).await;
    let stranger = started(&installation, &other).await;
    // The id of a process that is no PostgreSQL, and of one that serves another directory.
    for id in [std::process::id(), stranger.pid] {
        server.append("postmaster.pid", &format!("{id}\n"));
        assert!(Postmaster::adopt(&server.data_dir).unwrap().is_none());
        fs::remove_file(server.data_dir.join("postmaster.pid")).unwrap();
    }
    // It is in the way of nobody: not even when it names a process that PostgreSQL would take for its own.
    server.append(
        "postmaster.pid",
        &format!("{}\n{}\n1\n{}\n", stranger.pid, server.data_dir.display(), server.port),
    );
    let mine = started(&installation, &server).await;
    mine.signal(Stop::Fast).unwrap();
    ended(&mine).await;
    assert!(stranger.alive());
    // Somebody removed the file of a running server.
    fs::rename(other.data_dir.join("postmaster.pid"), scratch.join("saved")).unwrap();
    let found = Postmaster::adopt(&other.data_dir).unwrap().expect("found in the process table");
    assert_eq!(found.pid, stranger.pid);
    // It was started a moment ago: the file is still that of the one before.
    server.append("postmaster.pid", &format!("{}\n", std::process::id()));
    fs::rename(server.data_dir.join("postmaster.pid"), other.data_dir.join("postmaster.pid")).unwrap();
    let found = Postmaster::adopt(&other.data_dir).unwrap().expect("found in spite of the file");
    assert_eq!(found.pid, stranger.pid);
    fs::rename(scratch.join("saved"), other.data_dir.join("postmaster.pid")).unwrap();
    // By another name the directory is the same.
    std::os::unix::fs::symlink(&other.data_dir, scratch.join("link")).unwrap();
    assert!(Postmaster::adopt(&scratch.join("link")).unwrap().is_some());
    assert!(Postmaster::adopt(&scratch.join("nowhere")).unwrap().is_none());
}

#[tokio::test]
async fn promotion_makes_a_primary() {
    for bin in pg_bins() {
        let scratch = Scratch::new("promote");
        let primary = Server::init(&scratch, &bin, "primary");
        primary.start();
        let standby = primary.standby(&scratch, "standby");
        let installation = installation(&bin).await;
        let postmaster = started(&installation, &standby).await;
        assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
        postmaster.promote().unwrap();
        until("a primary", || (standby.psql("select pg_is_in_recovery()") == "f").then_some(())).await;
        assert!(!standby.data_dir.join("standby.signal").exists());
        postmaster.kill_all().unwrap();
        assert!(postmaster.all_gone(SOON).await.unwrap());
        let error = postmaster.promote().unwrap_err().to_string();
        assert!(error.contains("gone"), "{error}");
        assert!(!standby.data_dir.join("promote").exists(), "no request is left for the next start");
    }
}

const STARTER: &str = "BATON_TEST_STARTER";

/// Runs itself once more as the process that starts the server, and kills that with its whole process group.
#[tokio::test]
async fn the_death_of_its_starter_does_not_reach_it() {
    if let Some(directory) = std::env::var_os(STARTER) {
        return start_and_be_killed(Path::new(&directory)).await;
    }
    let scratch = Scratch::new("orphan");
    let server = Server::init(&scratch, &pg_bin(), "data");
    let mut starter = Command::new(std::env::current_exe().unwrap());
    starter.args(["--exact", "the_death_of_its_starter_does_not_reach_it", "--nocapture"]).process_group(0);
    starter
        .env(STARTER, scratch.path())
        .env("PATRONI_SUPERUSER_PASSWORD", "hunter2")
        .env("PGPASSWORD", "hunter2");
    let mut starter = starter.env("WALG_PREFIX", "kept").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(starter.stdout.take().unwrap()).lines();
    let number =
        lines.find_map(|line| line.unwrap().strip_prefix("started ").map(str::to_owned)).expect("it starts");
    ready(&server).await;

    rustix::process::kill_process_group(pid(starter.id()), Signal::KILL).unwrap();
    starter.wait().unwrap();
    assert_eq!(server.psql("select 'alive'"), "alive");
    let postmaster = Postmaster::adopt(&server.data_dir).unwrap().expect("it runs");
    assert_eq!(postmaster.pid.to_string(), number);
    assert!(postmaster.alive());

    let environment = fs::read(format!("/proc/{}/environ", postmaster.pid)).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(!environment.contains("hunter2") && environment.contains("WALG_PREFIX=kept"), "{environment}");
    let descriptors = fs::read_dir(format!("/proc/{}/fd", postmaster.pid)).unwrap().flatten();
    let open: Vec<PathBuf> = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    assert!(!open.contains(&scratch.join("lock")), "{open:?}");
    assert!(open.iter().filter(|path| **path == server.log).count() >= 2, "{open:?}");
    postmaster.signal(Stop::Fast).unwrap();
    ended(&postmaster).await;
}

#[expect(clippy::print_stdout, reason = "the test that started this process reads it")]
async fn start_and_be_killed(scratch: &Path) {
    // A descriptor that was given to the agent and that it did not open itself is inheritable.
    let lock = File::create(scratch.join("lock")).unwrap();
    rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty()).unwrap();
    let options = StartOptions { log_file: scratch.join("data.log"), ..StartOptions::default() };
    let installation = installation(&pg_bin()).await;
    let postmaster = Postmaster::start(&installation, &scratch.join("data"), &options).await.unwrap();
    println!("started {}", postmaster.pid);
    std::future::pending::<()>().await;
    drop(lock);
}
