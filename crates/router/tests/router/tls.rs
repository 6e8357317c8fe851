//! psql, with and without encryption, through the router.

use crate::harness::World;
use crate::servers::pg_bin;
use std::process::Command;

fn psql(world: &World, options: &str) -> (bool, String) {
    let address = world.router.address("primary");
    let target =
        format!("host={} port={} user=postgres dbname=postgres {options}", address.ip(), address.port());
    let sql = "select 'ssl=' || ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let mut psql = Command::new(pg_bin("psql"));
    psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", sql, &target]).current_dir("/");
    let output = psql.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encryption_is_between_client_and_server() {
    let world = World::prepare(1, 0, |_| {});
    world.servers[0].use_tls();
    world.servers[0].start();
    world.lead(1).await;
    for (options, expected) in [
        ("sslmode=require", (true, "ssl=true")),
        ("sslmode=prefer", (true, "ssl=true")),
        ("sslmode=disable", (true, "ssl=false")),
    ] {
        let (ok, text) = tokio::task::block_in_place(|| psql(&world, options));
        assert_eq!((ok, text.as_str()), expected, "{options}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_encryption_is_asked_and_says_no() {
    let world = World::start(1, |_| {}).await;
    world.lead(1).await;
    let (ok, text) = tokio::task::block_in_place(|| psql(&world, "sslmode=prefer"));
    assert_eq!((ok, text.as_str()), (true, "ssl=false"));
    let (ok, text) = tokio::task::block_in_place(|| psql(&world, "sslmode=require"));
    assert!(!ok && text.contains("does not support SSL"), "{text}");
    world.metric(r#"baton_router_sessions{scope="demo",service="primary"} 0"#).await;
}
