//! The libpq of PostgreSQL 18 through the router, to servers of 18: TLS at once (`sslnegotiation=direct`, which takes ALPN) and asked for, ended
//! at the router and passed through it, the cluster by the server's name, and `target_session_attrs` on both services.

use crate::agent::Agent;
use crate::backends::with_other;
use crate::harness::{ANY, World};
use crate::reloading::lead_other;
use crate::servers::{Scratch, Server, Template, pg_with_tls};
use crate::tls::{identity, psql_of};
use router::{Role as Serves, Service};
use tokio::task::block_in_place;
use types::Role;

/// The server's port, and what it calls the connection.
const WHERE: &str =
    "select current_setting('port') || ' ' || ssl from pg_stat_ssl where pid = pg_backend_pid()";

/// libpq sends the name, and looks it up nowhere.
const NAMED: &str = "host=localhost hostaddr=127.0.0.1";

/// How a session begins.
const NEGOTIATIONS: [&str; 2] = ["sslnegotiation=direct", "sslnegotiation=postgres"];

fn ask(options: &str) -> (bool, String) {
    block_in_place(|| psql_of(&pg_with_tls().join("psql"), options, WHERE))
}

/// db1 leads, db3 streams from it, and db2 leads the other cluster; that agent is everybody's. The services `ended…` end TLS; `…named` know a
/// name.
async fn world(keys: &tempfile::TempDir, scratch: &Scratch, agent: &Agent) -> World {
    let own = identity(keys, "localhost");
    let mut world = World::prepare(0, 0, |config| {
        with_other(config);
        for (name, role, tls) in [
            ("ended", Serves::Primary, true),
            ("ended-replica", Serves::Replica, true),
            ("named", Serves::Primary, false),
            ("ended-named", Serves::Primary, true),
        ] {
            let mut service = Service::new(name, ANY, role);
            service.tls = Some(own.clone()).filter(|_| tls);
            if name.ends_with("named") {
                service.names.insert("localhost".into(), "other".into());
            }
            config.services.push(service);
        }
    });
    world.api_url = agent.url.clone();
    let template = Template::made_by(pg_with_tls());
    for name in ["db1", "db2"] {
        let server = Server::init(&template, scratch.path(), name);
        server.use_tls();
        server.start();
        world.servers.push(server);
    }
    world.servers.push(Server::clone_of(&world.servers[0], "db3"));
    world.servers[2].start();
    world.lead(1).await;
    lead_other(&world).await;
    world.publish(3, &world.member(3, Role::Replica)).await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 1"#).await;
    world.metric(r#"baton_router_primary_up{scope="other"} 1"#).await;
    world.metric(r#"baton_router_replicas{scope="demo"} 1"#).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libpq_18_begins_with_tls_and_finds_the_server_it_asks_for() {
    let (keys, scratch) = (tempfile::tempdir().unwrap(), Scratch::new());
    let agent = Agent::start().await;
    let world = world(&keys, &scratch, &agent).await;
    let port = |service: &str| world.router.address(service).port();
    let there = |server: usize, ssl: bool| (true, format!("{} {ssl}", world.servers[server].port));
    let of_router = keys.path().join("localhost.crt");

    // Whose certificate it is: the server's, or the router's where TLS ends there. Both are made out to the same name.
    for negotiation in NEGOTIATIONS {
        for (service, certificate, expected) in [
            ("primary", world.servers[0].certificate(), there(0, true)),
            ("replica", world.servers[2].certificate(), there(2, true)),
            ("ended", of_router.clone(), there(0, false)),
            ("ended-replica", of_router.clone(), there(2, false)),
            ("named", world.servers[1].certificate(), there(1, true)),
            ("ended-named", of_router.clone(), there(1, false)),
        ] {
            let verified = format!(
                "{NAMED} port={} {negotiation} sslmode=verify-full sslrootcert={}",
                port(service),
                certificate.display()
            );
            assert_eq!(ask(&verified), expected, "{service} {negotiation}");
        }
        let foreign = format!(
            "{NAMED} port={} {negotiation} sslmode=verify-full sslrootcert={}",
            port("primary"),
            of_router.display()
        );
        let (ok, text) = ask(&foreign);
        assert!(!ok && text.contains("certificate verify failed"), "the router's is not seen: {text}");
        // To an address no name is sent.
        for (service, ssl) in [("named", true), ("ended-named", false)] {
            let unnamed = format!("host=127.0.0.1 port={} {negotiation} sslmode=require", port(service));
            assert_eq!(ask(&unnamed), there(0, ssl), "{service} {negotiation}");
        }
    }

    // Several addresses, the service of the replicas first and last.
    for (transport, primary, replica, ssl) in [
        ("sslmode=disable", "primary", "replica", false),
        ("sslmode=require sslnegotiation=direct", "primary", "replica", true),
        ("sslmode=require sslnegotiation=direct", "ended", "ended-replica", false),
    ] {
        let (primary, replica) = (port(primary), port(replica));
        let asked = |attributes: &str, ports: &[u16]| {
            let list = |one: &str| vec![one; ports.len()].join(",");
            let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
            ask(&format!(
                "host={} hostaddr={} port={ports} {transport} target_session_attrs={attributes}",
                list("localhost"),
                list("127.0.0.1")
            ))
        };
        for (attributes, server) in
            [("read-write", 0), ("primary", 0), ("read-only", 2), ("standby", 2), ("prefer-standby", 2)]
        {
            for ports in [[replica, primary], [primary, replica]] {
                assert_eq!(asked(attributes, &ports), there(server, ssl), "{attributes} {transport}");
            }
        }
        assert_eq!(asked("any", &[replica, primary]), there(2, ssl), "{transport}");
        assert_eq!(asked("any", &[primary, replica]), there(0, ssl), "{transport}");
        assert_eq!(asked("prefer-standby", &[primary]), there(0, ssl), "{transport}");
        for (attributes, alone, why) in [
            ("standby", primary, "server is not in hot standby mode"),
            ("read-write", replica, "session is read-only"),
        ] {
            let (ok, text) = asked(attributes, &[alone]);
            assert!(!ok && text.contains(why), "{attributes} {transport}: {text}");
        }
    }
}
