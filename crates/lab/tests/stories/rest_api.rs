//! The REST API over TLS, byte by byte: who may do what, every verb's code and text, the health checks in real states.

use crate::story::{SPAN, Story, directory};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;
use testbed::Authority;
use tls::{Authorities, Identity, ServerName, TlsConnector, Trust};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

/// Somebody who asks.
#[derive(Clone)]
struct Caller {
    from: &'static str,
    trust: Trust,
    identity: Option<Identity>,
    credentials: &'static str,
}

/// What was answered.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// `u:p`
const RIGHT: &str = "Authorization: Basic dTpw\r\n";

impl Caller {
    /// Sends this text, with `Content-Length` when there is a body; `Err` when the two do not agree on TLS.
    async fn ask(
        &self,
        to: SocketAddrV4,
        request: &str,
        body: Option<&str>,
    ) -> Result<Answer, std::io::Error> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(format!("{}:0", self.from).parse().unwrap())?;
        let stream = socket.connect(to.into()).await?;
        let config = tls::client(&self.trust, self.identity.as_ref()).unwrap();
        let name = ServerName::try_from(to.ip().to_string()).unwrap();
        let mut stream = TlsConnector::from(config).connect(name, stream).await?;
        let length = body.map(|body| format!("Content-Length: {}\r\n", body.len())).unwrap_or_default();
        let text =
            format!("{request} HTTP/1.0\r\n{}{length}\r\n{}", self.credentials, body.unwrap_or_default());
        stream.write_all(text.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 "), "{head}");
        Ok(Answer { status: head[9..12].parse().unwrap(), head: head.to_owned(), body: body.to_owned() })
    }

    async fn get(&self, to: SocketAddrV4, path: &str) -> Answer {
        self.ask(to, &format!("GET {path}"), None).await.unwrap()
    }

    /// The answers of all health checks as the contract's table has them: 2 is 200, 5 is 503, and ? where the verbs did not agree, as the
    /// state may change between two questions.
    async fn row(&self, to: SocketAddrV4) -> String {
        let mut row = String::new();
        for path in [
            "primary",
            "leader",
            "standby-leader",
            "replica",
            "read-only",
            "sync",
            "async",
            "quorum",
            "read-only-sync",
            "read-only-quorum",
            "health",
        ] {
            let by_get = self.get(to, &format!("/{path}")).await.status;
            let mut agree = true;
            for verb in ["HEAD", "OPTIONS"] {
                let other = self.ask(to, &format!("{verb} /{path}"), None).await.unwrap();
                assert!(other.body.is_empty(), "{verb} {path}: {}", other.body);
                agree &= other.status == by_get;
            }
            row.push(match by_get {
                _ if !agree => '?',
                200 => '2',
                503 => '5',
                other => panic!("GET /{path}: {other}"),
            });
        }
        row
    }
}

fn settings(authority: &Authority) -> Value {
    let path = |file: &str| authority.path(file).display().to_string();
    json!({
        "restapi": {
            "certfile": path("member.pem"), "keyfile": path("member.key"), "cafile": path("ca.pem"),
            "verify_client": "optional",
            "authentication": { "username": "u", "password": "p" },
            "allowlist": ["127.0.0.1"], "allowlist_include_members": true,
            "http_extra_headers": { "X-Plain": "a" }, "https_extra_headers": { "X-Secure": "b" },
            "server_tokens": "Minimal",
        },
    })
}

fn identity(authority: &Authority, name: &str) -> Identity {
    let (certfile, keyfile) =
        (authority.path(&format!("{name}.pem")), authority.path(&format!("{name}.key")));
    Identity { certfile, keyfile: Some(keyfile), password: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_api_keeps_the_contract_over_tls() {
    let dir = directory("rest-certificates");
    let authority = Authority::new(&dir);
    authority.sign("member", &["127.0.0.1"]);
    authority.sign("person", &["somewhere"]);
    let mut story = Story::begin("rest", |spec| {
        spec.agent = settings(&authority);
        spec.tags = json!({ "nofailover": true, "noloadbalance": true, "dc": "east", "clonefrom": false });
    })
    .await;
    let person = Caller {
        from: "127.0.0.1",
        trust: Trust::Chain(Authorities::File(authority.path("ca.pem"))),
        identity: Some(identity(&authority, "person")),
        credentials: RIGHT,
    };
    // The last member never leads: of the other two one does.
    let primary = story.primary().await;
    let replica = if primary == "n1" { "n2" } else { "n1" };
    let rest = |name: &str| story.lab.nodes[story.lab.index(name).unwrap()].rest;
    let (leads, follows, tagged) = (rest(&primary), rest(replica), rest("n3"));

    row_becomes(&person, leads, "22552555222").await;
    row_becomes(&person, follows, "55522525552").await;
    row_becomes(&person, tagged, "55555555552").await;
    queries(&person, leads, follows, tagged).await;
    dress(&person, leads, tagged).await;
    access(&person, &authority, leads).await;
    unsafe_verbs(&person, leads, follows, &primary).await;
    renewed(&person, &dir, &story, &primary).await;

    // The members ask each other over TLS as well, or nobody could take over.
    let body = format!("{{\"leader\": \"{primary}\"}}");
    let answer = person.ask(leads, "POST /switchover", Some(&body)).await.unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, &*format!("Successfully switched over to \"{replica}\""))
    );
    story.healthy().await;
    alone(&person, &mut story, replica, &primary).await;
    story.end().await;
    std::fs::remove_dir_all(dir).unwrap();
}

/// Query parameters.
async fn queries(person: &Caller, leads: SocketAddrV4, follows: SocketAddrV4, tagged: SocketAddrV4) {
    for (to, path, status) in [
        (leads, "/primary?writable", 200),
        (follows, "/primary?writable", 503),
        (leads, "/primary?tag_dc=east", 200),
        (leads, "/health?tag_dc=east", 503),
        (tagged, "/health?tag_dc=east", 200),
        (tagged, "/health?tag_noloadbalance=True", 200),
        (tagged, "/health?tag_clonefrom=false", 503),
        (follows, "/replica?lag=1GB", 200),
        (follows, "/replica?lag=no+number", 200),
        (follows, "/replica?replication_state=streaming", 200),
        (follows, "/replica?replication_state=in%20archive%20recovery", 503),
        (follows, "/readiness?lag=1GB&mode=write", 200),
        (leads, "/readiness", 200),
        (leads, "/liveness", 200),
        (leads, "/no-such-thing", 503),
        (follows, "/xreplica/y", 200),
        (leads, "/patroni", 200),
        (leads, "/history", 200),
        (leads, "/config/anything", 200),
        (leads, "/metrics", 200),
        (leads, "/failsafe", 200),
    ] {
        assert_eq!(person.get(to, path).await.status, status, "{to} {path}");
    }
}

/// What answers look like.
async fn dress(person: &Caller, leads: SocketAddrV4, tagged: SocketAddrV4) {
    let own = person.get(leads, "/patroni").await;
    for header in
        ["Server: Patroni/4.1.5", "Content-Type: application/json", "X-Plain: a", "X-Secure: b", "Date: "]
    {
        assert!(own.head.contains(header), "{header}: {}", own.head);
    }
    assert!(own.body.starts_with("{\"state\": \"running\", \"postmaster_start_time\": \""), "{}", own.body);
    let own: Value = serde_json::from_str(&own.body).unwrap();
    for field in [
        "role",
        "server_version",
        "xlog",
        "timeline",
        "dcs_last_seen",
        "database_system_identifier",
        "patroni",
    ] {
        assert!(!own[field].is_null(), "{field}: {own}");
    }
    assert_eq!(own["replication"].as_array().unwrap().len(), 2, "{own}");
    let other = person.get(tagged, "/patroni").await;
    let other: Value = serde_json::from_str(&other.body).unwrap();
    assert_eq!(other["tags"], json!({ "dc": "east", "nofailover": true, "noloadbalance": true }));
    assert_eq!(other["replication_state"], "streaming");
    let cluster = person.get(leads, "/cluster").await;
    let cluster: Value = serde_json::from_str(&cluster.body).unwrap();
    assert!(cluster["members"].as_array().unwrap().iter().all(|member| {
        member["api_url"].as_str().unwrap().starts_with("https://") && !member["host"].is_null()
    }));
    assert!(person.get(leads, "/liveness").await.body.is_empty());
}

/// The allowlist, then the certificate, then the credentials; reading needs none of them.
async fn access(person: &Caller, authority: &Authority, leads: SocketAddrV4) {
    let body = Some("{\"loop_wait\": 1}");
    let far = Caller { from: "127.0.0.99", identity: None, credentials: "", ..person.clone() };
    let bare = Caller { identity: None, credentials: "", ..person.clone() };
    let nobody = Caller { credentials: "", ..person.clone() };
    let wrong = Caller { credentials: "Authorization: Basic dTpx\r\n", ..person.clone() };
    for caller in [&far, &bare, &nobody] {
        assert_eq!(caller.get(leads, "/primary").await.status, 200);
    }
    for (caller, status, text) in [
        (&far, 403, "Access is denied"),
        (&bare, 403, "client certificate required"),
        (&nobody, 401, "no auth header received"),
        (&wrong, 401, "not authenticated"),
    ] {
        for request in [
            "PATCH /config",
            "PUT /config",
            "POST /restart",
            "POST /mpp",
            "POST /citus",
            "DELETE /switchover",
        ] {
            let answer = caller.ask(leads, request, body).await.unwrap();
            assert_eq!((answer.status, answer.body.as_str()), (status, text), "{request}");
            let asked = answer.head.contains("Www-Authenticate: Basic realm=\"Patroni\"");
            assert_eq!(asked, status == 401, "{}", answer.head);
        }
    }
    let strangers = directory("rest-strangers");
    let foreign = Authority::new(&strangers);
    foreign.sign("person", &["somewhere"]);
    let stranger = Caller { identity: Some(identity(&foreign, "person")), ..person.clone() };
    assert!(stranger.ask(leads, "GET /primary", None).await.is_err(), "a certificate of nobody's is refused");
    let doubtful =
        Caller { trust: Trust::Chain(Authorities::File(foreign.path("ca.pem"))), ..person.clone() };
    assert!(doubtful.ask(leads, "GET /primary", None).await.is_err());
    let strict = Caller { trust: Trust::Name(Authorities::File(authority.path("ca.pem"))), ..person.clone() };
    assert!(strict.ask(leads, "GET /primary", None).await.is_err(), "the certificate is for another address");
    std::fs::remove_dir_all(strangers).unwrap();
}

/// The codes and texts of the verbs that change something.
async fn unsafe_verbs(person: &Caller, leads: SocketAddrV4, follows: SocketAddrV4, primary: &str) {
    let page = "<p>Error code:";
    let same = format!("{{\"leader\": \"{primary}\", \"candidate\": \"{primary}\"}}");
    let unknown = format!("{{\"leader\": \"{primary}\", \"candidate\": \"n9\"}}");
    for (to, request, body, status, text) in [
        (leads, "FOO /config", None, 501, "Unsupported method ('FOO')"),
        (leads, "POST /config", Some("{}"), 501, page),
        (leads, "DELETE /config", None, 501, page),
        (leads, "POST /nothing", None, 501, page),
        (leads, "PATCH /config", None, 411, page),
        (leads, "PATCH /config", Some(""), 400, page),
        (leads, "PATCH /config", Some("{"), 400, page),
        (leads, "PATCH /config", Some("[1]"), 400, page),
        (leads, "PATCH /config", Some("{}"), 400, page),
        (leads, "PUT /config", None, 411, page),
        (leads, "PATCH /config", Some("{\"loop_wait\": 1}"), 200, "\"loop_wait\": 1"),
        (leads, "POST /reload", None, 202, "reload scheduled"),
        (leads, "POST /restart", Some("{"), 400, page),
        (
            leads,
            "POST /restart",
            Some("{\"frob\": 1}"),
            400,
            "Unknown filter for the scheduled restart: frob",
        ),
        (
            leads,
            "POST /restart",
            Some("{\"timeout\": -1}"),
            400,
            "Timeout should be a positive number of seconds",
        ),
        (
            leads,
            "POST /restart",
            Some("{\"role\": \"replica\"}"),
            503,
            "restart conditions are not satisfied",
        ),
        (follows, "POST /restart", None, 200, "restarted successfully"),
        (leads, "DELETE /restart", None, 404, "no restarts are scheduled"),
        (leads, "DELETE /switchover", None, 404, "no switchover is scheduled"),
        (leads, "POST /reinitialize", None, 503, "I am the leader, can not reinitialize"),
        (leads, "POST /switchover", None, 411, page),
        (leads, "POST /switchover", Some("{}"), 400, page),
        (
            leads,
            "POST /switchover",
            Some("{\"x\": 1}"),
            400,
            "Switchover could be performed only from a specific leader",
        ),
        (leads, "POST /switchover", Some("{\"leader\": \"n9\"}"), 412, "leader name does not match"),
        (leads, "POST /switchover", Some(&same), 400, "Switchover target and source are the same"),
        (leads, "POST /switchover", Some(&unknown), 412, "candidate does not exists"),
        (
            leads,
            "POST /failover",
            Some("{\"x\": 1}"),
            400,
            "Failover could be performed only to a specific candidate",
        ),
        (leads, "POST /sigterm", None, 202, "shutdown scheduled"),
    ] {
        let answer = person.ask(to, request, body).await.unwrap();
        assert_eq!(answer.status, status, "{request} {body:?}: {}", answer.body);
        assert!(answer.body.contains(text), "{request} {body:?}: {}", answer.body);
    }
}

/// A renewed certificate is taken up by a reload.
async fn renewed(person: &Caller, dir: &Path, story: &Story, name: &str) {
    let node = &story.lab.nodes[story.lab.index(name).unwrap()];
    let before = std::fs::read(dir.join("member.pem")).unwrap();
    let key = std::fs::read(dir.join("member.key")).unwrap();
    let other = directory("rest-renewed");
    let authority = Authority::new(&other);
    authority.sign("member", &["127.0.0.1"]);
    for file in ["member.pem", "member.key"] {
        std::fs::copy(authority.path(file), dir.join(file)).unwrap();
    }
    let pid = Pid::from_raw(node.agent_pid().unwrap()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    let trust = Trust::Chain(Authorities::File(authority.path("ca.pem")));
    // Its own certificate changes nothing for those who call it.
    let caller = Caller { trust, identity: None, ..person.clone() };
    lab::wait::until(SPAN, "the new certificate", async || {
        caller.ask(node.rest, "GET /primary", None).await.is_ok().then_some(())
    })
    .await
    .unwrap();
    std::fs::write(dir.join("member.pem"), before).unwrap();
    std::fs::write(dir.join("member.key"), key).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    lab::wait::until(SPAN, "the old certificate", async || {
        person.ask(node.rest, "GET /primary", None).await.is_ok().then_some(())
    })
    .await
    .unwrap();
    std::fs::remove_dir_all(other).unwrap();
}

/// Paused, a PostgreSQL that is down, and then no etcd: what PostgreSQL is counts.
async fn alone(person: &Caller, story: &mut Story, primary: &str, replica: &str) {
    for expected in ["etcd", "lease", "pause", "PostgreSQL", "watch"] {
        story.expect(expected);
    }
    let rest = |name: &str| story.lab.nodes[story.lab.index(name).unwrap()].rest;
    let (leads, follows, down) = (rest(primary), rest(replica), rest("n3"));
    let answer = person.ask(leads, "PATCH /config", Some("{\"pause\": true}")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    for to in [leads, follows, down] {
        lab::wait::until(SPAN, "every member to know of the pause", async || {
            person.get(to, "/patroni").await.body.contains("\"pause\": true").then_some(())
        })
        .await
        .unwrap();
    }
    let text = "Can't schedule switchover in the paused state";
    let body = format!(
        "{{\"leader\": \"{primary}\", \"candidate\": \"{replica}\", \"scheduled_at\": \"2099-01-01T00:00:00Z\"}}"
    );
    let answer = person.ask(leads, "POST /switchover", Some(&body)).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (400, text));

    story.lab.node("n3").unwrap().kill_postmaster().unwrap();
    row_becomes(person, down, "55555555555").await;
    assert_eq!(person.get(down, "/liveness").await.status, 200);
    assert_eq!(person.get(down, "/patroni").await.status, 200);
    story.lab.etcd.iter_mut().for_each(lab::EtcdMember::freeze);
    row_becomes(person, leads, "22552555552").await;
    row_becomes(person, follows, "55522555552").await;
    story.lab.etcd.iter_mut().for_each(lab::EtcdMember::thaw);
    row_becomes(person, leads, "22552555222").await;
    let answer = person.ask(leads, "PATCH /config", Some("{\"pause\": null}")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    story.healthy().await;
}

async fn row_becomes(person: &Caller, to: SocketAddrV4, row: &str) {
    let mut last = String::new();
    let reached = tokio::time::timeout(SPAN, async {
        loop {
            last = person.row(to).await;
            if last == row {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    assert!(reached.is_ok(), "{to} answers {last}, not {row}");
}
