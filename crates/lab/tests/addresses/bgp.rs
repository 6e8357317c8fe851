//! Virtual addresses by BGP on real parts: `baton vip` with its own speaker, and the routers BIRD and FRR as the distribution has them.
//!
//! ```text
//!   n1, n2 (hosts 1, 2): 192.0.2.100 and 2001:db8::100 on lo ── BGP ──► router (host 3): the kernel's table is what counts
//! ```

use super::document;
use super::{SPAN, Site, in_the_network, renew, signal};
use lab::netns::Host;
use lab::{Gateway, SCOPE};
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testbed::Running;
use types::Moment;

const V4: &str = "192.0.2.100";
const V6: &str = "2001:db8::100";
/// The members' number, and one that takes four bytes.
const AS: u32 = 65_001;
const LARGE_AS: u32 = 4_200_000_001;
/// Longer than any hold time here needs.
const LEASE: u32 = 15;
const BOTH: &str =
    "    - {address: 192.0.2.100, interface: lo}\n    - {address: '2001:db8::100', interface: lo}\n";

/// What `baton vip` is told of the router: its sessions over IPv4 and over IPv6.
fn speaker(site: &Site, at: usize, neighbors: &str) -> String {
    format!(
        "{BOTH}  bgp: {{as: {LARGE_AS}, med: 20, communities: [\"65001:77\"], router_id: {}, neighbors: [{neighbors}]}}\n",
        site.network.hosts[at].v4
    )
}

/// The router as neighbour, by both kinds of addresses.
fn router_twice(site: &Site, more: &str) -> String {
    let router = &site.network.hosts[2];
    format!("{{address: {}, as: 65000{more}}}, {{address: '{}', as: 65000{more}}}", router.v4, router.v6)
}

/// The leader key with a lease that proves enough.
async fn lead(keys: &Gateway, name: &str) -> i64 {
    let lease = keys.grant(LEASE).await.unwrap();
    let member = r#"{"state":"running","role":"primary","conn_url":"postgres://h:5432/postgres","api_url":"http://h:8008/patroni"}"#;
    keys.put_leased(&format!("members/{name}"), member, lease).await.unwrap();
    keys.put_leased("leader", name, lease).await.unwrap();
    lease
}

/// BIRD on a host.
struct Bird {
    process: Running,
    socket: PathBuf,
}

impl Bird {
    fn start(site: &Site, host: &Host, name: &str, text: &str) -> Bird {
        let program = Path::new(&std::env::var("BATON_TEST_PEERS").unwrap()).join("bird");
        let (conf, socket) = (site.dir.join(format!("{name}.conf")), site.dir.join(format!("{name}.ctl")));
        fs::write(&conf, text).unwrap();
        let mut command = host.command(&program.display().to_string());
        command.arg("-f").arg("-c").arg(conf).arg("-s").arg(&socket);
        Bird { process: Running::start(&mut command, &site.log(name)), socket }
    }

    /// The router, much as docs/vip.md has it, for neighbours of this AS, with these lines in its sessions with n1 and n2.
    fn router(site: &Site, theirs: u32, session: &str) -> Bird {
        let router = &site.network.hosts[2];
        let mut text = format!(
            "router id {};\nprotocol device {{ }}\nprotocol kernel {{ ipv4 {{ import none; export all; }}; }}\n\
             protocol kernel {{ ipv6 {{ import none; export all; }}; }}\n",
            router.v4
        );
        for (at, host) in site.network.hosts.iter().take(2).enumerate() {
            for (kind, own, peer) in [
                ("ipv4", router.v4.to_string(), host.v4.to_string()),
                ("ipv6", router.v6.to_string(), host.v6.to_string()),
            ] {
                text.push_str(&format!(
                    "protocol bgp n{}_{kind} {{ local {own} as 65000; neighbor {peer} as {theirs}; error wait time 1, 2; connect delay time 1; \
                     {session} {kind} {{ import all; export none; }}; }}\n",
                    at + 1
                ));
            }
        }
        Bird::start(site, router, "bird", &text)
    }

    /// What it answers to a question.
    fn ask(&self, question: &str) -> String {
        asked(&self.socket, question)
    }
}

/// What the BIRD at a socket answers to a question; nothing when it is not there.
fn asked(socket: &Path, question: &str) -> String {
    let Ok(mut stream) = UnixStream::connect(socket) else { return String::new() };
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    let mut asked = false;
    // A line with a code and a space ends an answer: 0001 is the greeting.
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let ends = |line: &str| {
            line.len() > 4
                && line.as_bytes()[4] == b' '
                && line[..4].parse::<u16>().is_ok_and(|code| code == 0 || code >= 8000)
        };
        if !asked && text.lines().any(|line| line.starts_with("0001 ")) {
            asked = true;
            answer.clear();
            stream.write_all(format!("{question}\n").as_bytes()).unwrap();
        } else if asked && text.ends_with('\n') && text.lines().next_back().is_some_and(ends) {
            return text;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Looks every few milliseconds at whom a router's BIRD knows to announce an address, and counts the looks that saw two.
struct Announcers {
    stop: Arc<AtomicBool>,
    looking: std::thread::JoinHandle<(usize, usize)>,
}

impl Announcers {
    fn watch(bird: &Bird) -> Announcers {
        let (socket, stop) = (bird.socket.clone(), Arc::new(AtomicBool::new(false)));
        let ends = stop.clone();
        let looking = std::thread::spawn(move || {
            let (mut looks, mut twice) = (0, 0);
            while !ends.load(Ordering::SeqCst) {
                for (ip, kind) in [(V4, "ipv4"), (V6, "ipv6")] {
                    let shown = asked(&socket, &format!("show route for {ip} all"));
                    let by = |name: &str| shown.contains(&format!("[{name}_{kind}"));
                    looks += usize::from(by("n1") || by("n2"));
                    twice += usize::from(by("n1") && by("n2"));
                }
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the pace of the looking; nothing is ordered by it"
                )]
                std::thread::sleep(Duration::from_millis(2));
            }
            (looks, twice)
        });
        Announcers { stop, looking }
    }

    /// How many looks saw an announcer, and how many saw two.
    fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::SeqCst);
        self.looking.join().unwrap()
    }
}

/// FRR on a host: zebra and bgpd.
struct Frr {
    _daemons: [Running; 2],
}

impl Frr {
    fn start(site: &Site, host: &Host, text: &str) -> Frr {
        let programs = Path::new(&std::env::var("BATON_TEST_PEERS").unwrap()).to_owned();
        let (conf, run) = (site.dir.join("frr.conf"), site.dir.join("frr"));
        fs::create_dir(&run).unwrap();
        fs::write(&conf, text).unwrap();
        // Its programs want a group that its package would have made; `ip netns exec` gives them a view of the files of their own.
        let group = site.dir.join("group");
        fs::write(&group, fs::read_to_string("/etc/group").unwrap() + "frrvty:x:64999:root\n").unwrap();
        let start = |name: &str| {
            let mut command = host.command("sh");
            let line = format!(
                "mount --bind {group} /etc/group && exec {program} -u root -g root -f {conf} -i {run}/{name}.pid -z {run}/zserv.api \
                 --vty_socket {run} -P 0 --log stdout",
                group = group.display(),
                program = programs.join(name).display(),
                conf = conf.display(),
                run = run.display()
            );
            command.args(["-c", &line]);
            Running::start(&mut command, &site.log(name))
        };
        Frr { _daemons: [start("zebra"), start("bgpd")] }
    }
}

/// Looks every few milliseconds at the routes of a host, as its kernel has them.
struct Routes {
    host: Host,
}

impl Routes {
    fn of(host: &Host) -> Routes {
        Routes { host: host.clone() }
    }

    /// Through which hosts both addresses are reached now; `None` for one that is not.
    fn now(&self) -> [Option<String>; 2] {
        [("-4", V4), ("-6", V6)].map(|(kind, ip)| {
            let shown = self.host.command("ip").args([kind, "route", "show", ip]).output().unwrap();
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            let via = shown.split_whitespace().skip_while(|word| *word != "via").nth(1);
            via.map(str::to_owned)
        })
    }

    async fn until(&self, to: Option<&Host>, what: &str) -> Moment {
        let wanted = to.map_or([None, None], |to| [Some(to.v4.to_string()), Some(to.v6.to_string())]);
        lab::wait::until(SPAN, what, async || (self.now() == wanted).then_some(())).await.unwrap();
        clock::now()
    }
}

#[test]
fn our_speaker_s_routes_follow_the_lead_in_bird_and_end_with_its_silence() {
    in_the_network(async |site| {
        let (h1, h2, router) = (&site.network.hosts[0], &site.network.hosts[1], &site.network.hosts[2]);
        let bird = Bird::router(&site, LARGE_AS, "");
        let routes = Routes::of(router);
        let (n1, n2) = {
            let start = |at: usize, name: &str| {
                site.hold_these(at, name, SCOPE, &speaker(&site, at, &router_twice(&site, "")))
            };
            (start(0, "n1"), start(1, "n2"))
        };
        for name in ["n1", "n2"] {
            site.logged_times(name, "the BGP session is up", 2).await;
        }
        // The hold time of BIRD is 240 s; ours is what counts.
        lab::wait::until(SPAN, "BIRD to have the hold time of 3 s", async || {
            let session = bird.ask("show protocols all n1_ipv4");
            let hold = session.lines().find(|line| line.contains("Hold timer:"))?;
            hold.trim_end().ends_with("/3").then_some(())
        })
        .await
        .unwrap();
        let lease = lead(&site.keys, "n1").await;
        let renewed = renew(&site.keys, lease);
        let announcers = Announcers::watch(&bird);
        routes.until(Some(h1), "both routes to n1").await;
        let shown = bird.ask(&format!("show route all for {V4}"));
        assert!(
            ["BGP.as_path: 4200000001", "BGP.origin: IGP", "BGP.med: 20", "BGP.community: (65001,77)"]
                .iter()
                .all(|said| shown.contains(said)),
            "{shown}"
        );
        // Both tell in etcd how it stands, and their operator reads it.
        let listed = || {
            let file = site.dir.join("n1.yml");
            let mut command = h1.command(&site.dir.join("baton").display().to_string());
            let made = command.arg("--config-file").arg(file).args(["list", "-e"]).output().unwrap();
            String::from_utf8_lossy(&made.stdout).into_owned()
        };
        for (name, announces) in [("n1", true), ("n2", false)] {
            for (ip, own) in [(router.v4.to_string(), V4), (router.v6.to_string(), V6)] {
                let line = format!("BGP: {name} with {ip} (AS 65000): established since ");
                lab::wait::until(SPAN, &line, async || {
                    let told = listed();
                    let found = told.lines().find(|told| told.contains(&line))?;
                    (found.contains(&format!(", announces {own}")) == announces).then_some(())
                })
                .await
                .unwrap();
            }
        }

        // A switchover: withdrawn here, announced there.
        site.keys.delete("leader").await.unwrap();
        routes.until(None, "no routes without a leader").await;
        renewed.abort();
        let lease = lead(&site.keys, "n2").await;
        let renewed = renew(&site.keys, lease);
        routes.until(Some(h2), "both routes to n2").await;
        let (looks, twice) = announcers.end();
        assert!(looks > 10 && twice == 0, "{twice} of {looks} looks saw two announcers");

        // The router is restarted: it is connected to again, and told again.
        signal(&bird.process, Signal::TERM);
        routes.until(None, "no routes without the router's BIRD").await;
        drop(bird);
        let bird = Bird::router(&site, LARGE_AS, "");
        routes.until(Some(h2), "both routes to n2 after the restart").await;
        let announcers = Announcers::watch(&bird);

        // Frozen, it says nothing more, and the neighbour's clock takes the routes: also when it could only just announce them.
        renewed.abort();
        lab::wait::until(SPAN, "a lease that barely does", async || {
            (site.keys.remaining(lease).await.ok()? <= 8).then_some(())
        })
        .await
        .unwrap();
        signal(&n2, Signal::STOP);
        let frozen = clock::now();
        let gone = routes.until(None, "no routes with a frozen speaker").await.since(frozen);
        assert!(gone < Duration::from_millis(4500), "{gone:?}");
        assert!(site.keys.read().await.unwrap().contains_key("leader"), "the routes outlived the lead");
        // The next one leads as soon as it can.
        lab::wait::until(SPAN, "the lead to end with its lease", async || {
            (!site.keys.read().await.ok()?.contains_key("leader")).then_some(())
        })
        .await
        .unwrap();
        let lease = lead(&site.keys, "n1").await;
        let _renewed = renew(&site.keys, lease);
        routes.until(Some(h1), "both routes to n1 again").await;
        // Thawed into another term, it announces nothing.
        signal(&n2, Signal::CONT);
        site.logged_times("n2", "the BGP session is up", 6).await;
        assert_eq!(routes.now()[0].as_deref(), Some(h1.v4.to_string().as_str()));
        assert!(!bird.ask(&format!("show route for {V4} all")).contains(&h2.v4.to_string()));
        let (looks, twice) = announcers.end();
        assert!(looks > 10 && twice == 0, "{twice} of {looks} looks saw two announcers");

        // Killed, it takes the connection along, and BIRD the routes.
        signal(&n1, Signal::KILL);
        let killed = clock::now();
        let gone = routes.until(None, "no routes of a killed speaker").await.since(killed);
        assert!(gone < Duration::from_secs(2), "{gone:?}");
        // What it said of its sessions goes with its lease, and that of one that ends in order at once.
        signal(&n2, Signal::TERM);
        for name in ["n2", "n1"] {
            let key = format!("baton/bgp/{name}");
            lab::wait::until(SPAN, &format!("no more word of {name}"), async || {
                (!site.keys.read().await.ok()?.contains_key(&key)).then_some(())
            })
            .await
            .unwrap();
        }
        for name in ["n1", "n2"] {
            let log = fs::read_to_string(site.log(name)).unwrap();
            assert!(!log.contains("ERROR"), "{name}: {log}");
        }
    });
}

#[test]
fn frr_learns_the_same_and_forgets_it_the_same() {
    in_the_network(async |site| {
        let (h1, router) = (&site.network.hosts[0], &site.network.hosts[2]);
        let text = document::with(
            &document::example("or for an FRR as their router", "text"),
            &[("10.0.0.11", &h1.v4.to_string()), ("fd00::11", &h1.v6.to_string()), ("…", "swordfish")],
        );
        let _frr = Frr::start(&site, router, &text);
        let routes = Routes::of(router);
        let section = document::with(
            &document::example("### The agent's own speaker", "yaml"),
            &[
                ("vip:\n  addresses:\n", ""),
                ("router_id: 10.0.0.11 ", &format!("router_id: {} ", h1.v4)),
                ("address: 10.0.0.1 ", &format!("address: {} ", router.v4)),
                ("address: fd00::1 ", &format!("address: '{}' ", router.v6)),
                ("…", "swordfish"),
            ],
        );
        let n1 = site.hold_these(0, "n1", SCOPE, &section);
        site.logged_times("n1", "the BGP session is up", 2).await;
        let lease = lead(&site.keys, "n1").await;
        let _renewed = renew(&site.keys, lease);
        routes.until(Some(h1), "both routes to n1").await;
        site.keys.delete("leader").await.unwrap();
        routes.until(None, "no routes without a leader").await;
        site.keys.put_leased("leader", "n1", lease).await.unwrap();
        routes.until(Some(h1), "both routes to n1 again").await;
        signal(&n1, Signal::STOP);
        let frozen = clock::now();
        let gone = routes.until(None, "no routes with a frozen speaker").await.since(frozen);
        assert!(gone < Duration::from_millis(4500), "{gone:?}");
    });
}

#[test]
fn a_bird_that_is_wrong_is_named_and_ten_thousand_routes_leave_no_trace() {
    in_the_network(async |site| {
        let router = &site.network.hosts[2];
        // n1 has another password than the router, n2 none of it right but the AS number.
        let mut bird = Bird::router(&site, AS, "password \"swordfish\"; ttl security on;");
        let neighbor = format!("address: {}, as: 65000", router.v4);
        let with = |more: &str| format!("{{{neighbor}{more}}}");
        // The wrong ones lead, so that they have something to announce: nothing of it may arrive.
        let routes = Routes::of(router);
        let lease = lead(&site.keys, "n1").await;
        let renewed = renew(&site.keys, lease);
        let v4 = |at: usize, neighbors: &str| {
            format!(
                "    - {{address: {V4}, interface: lo}}\n  bgp: {{as: 65001, router_id: {}, neighbors: [{neighbors}]}}\n",
                site.network.hosts[at].v4
            )
        };
        let n1 = site.hold_these(0, "n1", SCOPE, &v4(0, &with(", password: sardine, ttl_security: true")));
        let n2 = site.hold_these(1, "n2", SCOPE, &v4(1, &with(", password: swordfish, ttl_security: true")));
        site.logged("n2", "the BGP session is up").await;
        site.logged("n1", "compare password (TCP-MD5) and ttl_security on both sides").await;
        site.logged("n1", "took the address").await;
        assert_eq!(routes.now(), [None, None], "with a wrong password");
        drop((n1, n2));
        let _n1 = site.hold_these(
            0,
            "n1b",
            SCOPE,
            &v4(0, &with(", password: swordfish, ttl_security: true").replace("65000", "65009")),
        );
        site.logged("n1b", "it says that its AS number is 65000, and 65009 is configured").await;
        let other =
            v4(1, &with(", password: swordfish, ttl_security: true")).replace("as: 65001", "as: 65002");
        let _n2 = site.hold_these(1, "n2b", SCOPE, &other);
        site.logged("n2b", "bad peer AS: compare the AS numbers on both sides (NOTIFICATION 2/2)").await;
        assert_eq!(routes.now(), [None, None], "with a wrong AS number");
        renewed.abort();
        site.keys.delete("leader").await.unwrap();
        lab::wait::until(SPAN, "no address without a leader", async || {
            let shown =
                site.network.hosts[0].command("ip").args(["addr", "show", "dev", "lo"]).output().ok()?;
            (!String::from_utf8_lossy(&shown.stdout).contains(V4)).then_some(())
        })
        .await
        .unwrap();
        for name in ["n1", "n1b", "n2b"] {
            let log = fs::read_to_string(site.log(name)).unwrap();
            assert!(
                !log.contains("session is up") && !log.contains("swordfish") && !log.contains("sardine"),
                "{log}"
            );
        }
        drop((_n1, _n2));
        bird.process.0.kill().unwrap();
        bird.process.0.wait().unwrap();

        // A router that tells everything it knows to everybody.
        let host = &site.network.hosts[0];
        let many: String =
            (0..10_000).map(|n| format!(" route 100.{}.{}.0/24 blackhole;\n", n / 250, n % 250)).collect();
        let text = format!(
            "router id {own};\nprotocol device {{ }}\nprotocol static {{ ipv4;\n{many}}}\nprotocol bgp n1 {{ local {own} as 65000; neighbor {} as \
             65001; ipv4 {{ import all; export all; }}; }}\n",
            host.v4,
            own = router.v4
        );
        let noisy = Bird::start(&site, router, "noisy", &text);
        let quiet = site.hold_these(0, "n1c", SCOPE, &v4(0, &with("")));
        site.logged("n1c", "the BGP session is up").await;
        lab::wait::until(SPAN, "10000 exported routes", async || {
            noisy.ask("show protocols all n1").contains("10000 exported").then_some(())
        })
        .await
        .unwrap();
        // Memory of its own: pages of the program itself come in whenever it does something for the first time.
        let held = || {
            let status = fs::read_to_string(format!("/proc/{}/status", quiet.0.id())).unwrap();
            let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let read = || {
            let said = site.network.hosts[0].command("ss").args(["-tinH"]).output().unwrap();
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let bytes = said.split_whitespace().filter_map(|word| word.strip_prefix("bytes_received:"));
            bytes.map(|bytes| bytes.parse::<u64>().unwrap()).max().unwrap_or(0)
        };
        let told_again = async |rounds: usize| {
            for round in 0..rounds {
                let before = read();
                noisy.ask("reload out n1");
                // Three bytes of a prefix and one of its length.
                lab::wait::until(SPAN, &format!("all routes once more, {round}"), async || {
                    (read() >= before + 40_000).then_some(())
                })
                .await
                .unwrap();
            }
        };
        // What it needs to read them at all it has after the first rounds. A route that it kept would take 8 bytes at least: 3 MiB.
        told_again(5).await;
        let before = held();
        told_again(40).await;
        let after = held();
        assert!(after < before + 1024, "{before} kB became {after} kB");
        let log = fs::read_to_string(site.log("n1c")).unwrap();
        assert!(log.matches("the BGP session is up").count() == 1, "{log}");
    });
}

/// Beside a holder that is frozen, then killed: what ends the routes is the lifetime of the addresses.
fn ends_with_the_addresses(dialect: &'static str) {
    in_the_network(async move |site| {
        let (h1, router) = (&site.network.hosts[0], &site.network.hosts[2]);
        let _bird = Bird::router(&site, AS, "");
        let n1 = site.hold_these(0, "n1", SCOPE, BOTH);
        let mut command = Command::new(site.dir.join("baton"));
        command.arg(dialect).arg(site.dir.join("n1.yml")).arg("--as=65001");
        command.arg(format!("--router-id={}", h1.v4));
        command.arg(format!("--neighbor={}=65000", router.v4)).arg(format!("--neighbor={}=65000", router.v6));
        let made = command.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let text = String::from_utf8(made.stdout).unwrap();
        let (_frr, _beside) = match dialect {
            "frr-config" => (Some(Frr::start(&site, h1, &text)), None),
            _ => (None, Some(Bird::start(&site, h1, "beside", &text))),
        };
        let routes = Routes::of(router);
        // The next hop of IPv6 may be the link-local one.
        let there = async |wanted: [bool; 2], what: &str| {
            let so = async || (routes.now().map(|via| via.is_some()) == wanted).then_some(());
            lab::wait::until(SPAN, what, so).await.unwrap();
            clock::now()
        };
        let lease = super::lead(&site.keys, "n1").await;
        let _renewed = renew(&site.keys, lease);
        for what in [Signal::STOP, Signal::KILL] {
            there([true, true], "both routes").await;
            signal(&n1, what);
            let (ended, rest) = (clock::now(), lifetime(h1));
            let gone = there([false, false], "no routes").await.since(ended);
            // Half a second is the aim, and measured by make bench-vip; a busy machine may look later.
            assert!(gone < rest + Duration::from_secs(3), "{dialect} {what:?}: {gone:?} after {rest:?}");
            assert!(site.keys.remaining(lease).await.unwrap() >= 0, "the lease had ended as well");
            signal(&n1, Signal::CONT);
        }
    });
}

/// The longest that an address of ours stays on a host: what the kernel says, and 0.4 s that it may be late.
fn lifetime(host: &Host) -> Duration {
    let shown = host.command("ip").args(["addr", "show", "dev", "lo"]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let words: Vec<&str> = shown.split_whitespace().collect();
    let rests = words.windows(2).filter(|pair| pair[0] == "valid_lft");
    let seconds = rests.filter_map(|pair| pair[1].strip_suffix("sec")?.parse::<u64>().ok()).max();
    Duration::from_millis(seconds.unwrap() * 1000 + 400)
}

#[test]
fn routes_of_a_frr_beside_a_frozen_or_killed_holder_end_with_the_addresses() {
    ends_with_the_addresses("frr-config");
}

#[test]
fn routes_of_a_bird_beside_a_frozen_or_killed_holder_end_with_the_addresses() {
    ends_with_the_addresses("bird-config");
}
