//! Virtual addresses on real parts: real etcd, the real binary with no more rights than it needs, hosts in network namespaces.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "addresses/bgp.rs"]
mod bgp;
#[path = "stories/document.rs"]
mod document;

use lab::netns::{Frame, Holders, Host, Listener, Network};
use lab::{Binaries, Gateway, NAMESPACE, SCOPE, baton_of_this_build};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use testbed::Running;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));
const V6: &str = "fd77::100";
const PORT: u16 = 5432;
const SPAN: Duration = Duration::from_secs(20);
/// Where `baton vip` tells its metrics.
const API: &str = "  api: 0.0.0.0:8010\n";

fn signal(process: &Running, what: Signal) {
    kill_process(Pid::from_raw(i32::try_from(process.0.id()).unwrap()).unwrap(), what).unwrap();
}

/// Who has both addresses.
struct Watch(Holders);

impl Watch {
    fn start(network: &Network) -> Watch {
        Watch(Holders::watch(&network.hosts, &[V4, V6.parse().unwrap()]).unwrap())
    }

    /// Waits until exactly these hosts hold both addresses.
    async fn until(&self, wanted: &[usize], what: &str) {
        self.0.at(wanted, SPAN, what).await.unwrap();
    }

    fn never_twice(&self) {
        let (looks, twice) = self.0.looks();
        assert!(looks > 10 && twice == 0, "{twice} of {looks} looks saw two hosts with an address");
    }
}

/// How many frames there are of each kind, in the first second and later.
fn counted(frames: &[Frame], kind: impl Fn(&[u8]) -> bool) -> (usize, usize) {
    let Some(first) = frames.first().map(|frame| frame.at) else { return (0, 0) };
    let early = |frame: &&Frame| frame.at.since(first) < Duration::from_millis(500);
    let of_kind = || frames.iter().filter(|frame| kind(&frame.bytes));
    (of_kind().filter(early).count(), of_kind().filter(|frame| !early(frame)).count())
}

/// Whether there is a frame of a kind that is later than all bursts.
fn refreshed(frames: &[Frame], kind: impl Fn(&[u8]) -> bool) -> bool {
    let Some(first) = frames.first().map(|frame| frame.at) else { return false };
    let late = |frame: &Frame| frame.at.since(first) > Duration::from_millis(5500);
    frames.iter().any(|frame| late(frame) && kind(&frame.bytes))
}

/// Answers every connection with the host's number.
fn answer(host: &Host, number: u8) {
    let host = host.clone();
    std::thread::spawn(move || {
        host.enter().unwrap();
        let listener = TcpListener::bind(("::", PORT)).unwrap();
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(&[number]));
        }
    });
}

/// Who answers at an address, asked from a host. One that asks before it was told where the address is now asks again after a second.
fn ask(host: &Host, ip: IpAddr) -> Option<u8> {
    let host = host.clone();
    let asked = std::thread::spawn(move || {
        host.enter().unwrap();
        let mut stream =
            TcpStream::connect_timeout(&SocketAddr::new(ip, PORT), Duration::from_secs(5)).ok()?;
        let mut number = [0];
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.read_exact(&mut number).ok()?;
        Some(number[0])
    });
    asked.join().unwrap()
}

struct Site {
    network: Network,
    dir: PathBuf,
    keys: Gateway,
    _etcd: Running,
}

impl Site {
    async fn start() -> Site {
        let network = Network::create(3).unwrap();
        network.switch.enter().unwrap();
        let dir = tempfile::Builder::new().prefix("baton-vip-").tempdir().unwrap().keep();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let etcd = &lab::etcd_bins()[0];
        let url = format!("http://{}:2379", network.switch.v4);
        let mut command = network.switch.command(&etcd.display().to_string());
        command.arg(format!("--data-dir={}", dir.join("etcd").display()));
        command.arg(format!("--listen-client-urls={url}")).arg(format!("--advertise-client-urls={url}"));
        let running = Running::start(&mut command, &dir.join("etcd.log"));
        let endpoint = SocketAddrV4::new(network.switch.v4, 2379);
        let keys = Gateway::new(vec![endpoint], NAMESPACE, SCOPE);
        lab::wait::until(SPAN, "etcd", async || keys.read().await.ok()).await.unwrap();
        // Before there is a lease that runs out meanwhile, and not by this process: what other threads start would have the file open for writing,
        // and a file that somebody writes cannot be run.
        let built = Binaries::find(baton_of_this_build().unwrap()).unwrap().baton;
        assert!(Command::new("cp").arg(built).arg(dir.join("baton")).status().unwrap().success());
        Site { network, dir, keys, _etcd: running }
    }

    /// `baton vip` on a host, as a user who may do nothing but this.
    fn hold(&self, at: usize, name: &str, scope: &str, interface: &str) -> Running {
        let both = format!(
            "    - {{address: {V4}, interface: {interface}}}\n    - {{address: {V6}/128, interface: {interface}, role: primary}}\n"
        );
        self.hold_these(at, name, scope, &both)
    }

    /// The same with other addresses.
    fn hold_these(&self, at: usize, name: &str, scope: &str, addresses: &str) -> Running {
        let file = self.dir.join(format!("{name}.yml"));
        let text = format!(
            "scope: {scope}\nnamespace: {NAMESPACE}\nname: {name}\netcd3:\n  host: {}:2379\nvip:\n  addresses:\n{addresses}",
            self.network.switch.v4
        );
        fs::write(&file, text).unwrap();
        self.run(at, name, "baton", &["vip", &file.display().to_string()])
    }

    /// The binary under this name.
    fn run(&self, at: usize, name: &str, program: &str, words: &[&str]) -> Running {
        self.run_with(at, name, program, words, &[])
    }

    /// The same with variables.
    fn run_with(
        &self,
        at: usize,
        name: &str,
        program: &str,
        words: &[&str],
        variables: &[(&str, &str)],
    ) -> Running {
        let baton = self.dir.join("baton");
        let mut command = self.network.hosts[at].command("setpriv");
        let rights = "+net_admin,+net_raw";
        command.args([
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--bounding-set=-all,+net_admin,+net_raw",
        ]);
        command.args(["--inh-caps", rights, "--ambient-caps", rights]);
        let called = self.dir.join(program);
        if !called.exists() {
            std::os::unix::fs::symlink(&baton, &called).unwrap();
        }
        command.arg(called).args(words).envs(variables.iter().copied());
        Running::start(&mut command, &self.log(name))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    fn gateway(&self, scope: &str) -> Gateway {
        Gateway::new(vec![SocketAddrV4::new(self.network.switch.v4, 2379)], NAMESPACE, scope)
    }

    async fn logged(&self, name: &str, text: &str) {
        self.logged_times(name, text, 1).await;
    }

    async fn logged_times(&self, name: &str, text: &str, times: usize) {
        lab::wait::until(SPAN, &format!("{text:?} in the log of {name}"), async || {
            (fs::read_to_string(self.log(name)).unwrap().matches(text).count() >= times).then_some(())
        })
        .await
        .unwrap();
    }

    /// Waits until a metric of the holder on a host, asked there, has such a value for the IPv4 address.
    async fn measured(&self, at: usize, metric: &str, wanted: impl Fn(u64) -> bool) {
        let page = || {
            let host = self.network.hosts[at].clone();
            let asked = std::thread::spawn(move || {
                host.enter().unwrap();
                let mut stream = TcpStream::connect(("127.0.0.1", 8010)).ok()?;
                stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").ok()?;
                let mut page = String::new();
                stream.read_to_string(&mut page).ok()?;
                Some(page)
            });
            asked.join().unwrap()
        };
        let (begins, has) = (format!("{metric}{{"), format!("address=\"{V4}\""));
        lab::wait::until(SPAN, metric, async || {
            let page = page()?;
            let line = page.lines().find(|line| line.starts_with(&begins) && line.contains(&has))?;
            wanted(line.rsplit(' ').next()?.parse().ok()?).then_some(())
        })
        .await
        .unwrap();
    }
}

/// What an agent of Patroni writes that leads, with a lease of its own.
async fn lead(keys: &Gateway, name: &str) -> i64 {
    let lease = keys.grant(4).await.unwrap();
    let member = r#"{"state":"running","role":"primary","conn_url":"postgres://h:5432/postgres","api_url":"http://h:8008/patroni"}"#;
    keys.put_leased(&format!("members/{name}"), member, lease).await.unwrap();
    keys.put_leased("leader", name, lease).await.unwrap();
    lease
}

/// What an agent of Patroni writes of itself, without a lease.
async fn member(keys: &Gateway, name: &str, role: &str) {
    let value = format!(
        r#"{{"state":"running","role":"{role}","replication_state":"streaming","conn_url":"postgres://h:5432/postgres","api_url":"http://h:8008/patroni"}}"#
    );
    keys.put(&format!("members/{name}"), &value).await.unwrap();
}

/// Renews a lease until the returned task is aborted.
fn renew(keys: &Gateway, lease: i64) -> tokio::task::JoinHandle<()> {
    let keys = keys.clone();
    tokio::spawn(async move {
        while keys.keep_alive(lease).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
}

/// Runs a test on a thread that is in no network of this machine.
fn in_the_network(test: impl AsyncFnOnce(Site) + Send + 'static) {
    let thread = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let site = Site::start().await;
            let dir = site.dir.clone();
            test(site).await;
            fs::remove_dir_all(dir).unwrap();
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn addresses_follow_the_lead_and_end_before_the_lease() {
    in_the_network(async |site| {
        let (h1, h2, client) = (&site.network.hosts[0], &site.network.hosts[1], &site.network.hosts[2]);
        answer(h1, 1);
        answer(h2, 2);
        let watch = Watch::start(&site.network);
        let (n1, n2) = (site.hold(0, "n1", SCOPE, "eth0"), site.hold(1, "n2", SCOPE, "eth0"));
        let lease = lead(&site.keys, "n1").await;
        let renewed = renew(&site.keys, lease);
        watch.until(&[0], "both addresses on n1").await;
        let v6: IpAddr = V6.parse().unwrap();
        assert_eq!((ask(client, V4), ask(client, v6)), (Some(1), Some(1)));
        // Nobody else has it, so nothing is asked for a second before it can be used.
        let shown = h1.command("ip").args(["-6", "-o", "addr", "show", "dev", "eth0"]).output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let line = shown.lines().find(|line| line.contains("fd77::100/128")).unwrap();
        assert!(line.contains("nodad") && !line.contains("tentative"), "{line}");

        // A lead that is given up takes the addresses along; neighbours are told where they are then.
        site.keys.delete("leader").await.unwrap();
        watch.until(&[], "no addresses without a leader").await;
        renewed.abort();
        let lease = lead(&site.keys, "n2").await;
        let renewed = renew(&site.keys, lease);
        watch.until(&[1], "both addresses on n2").await;
        assert_eq!((ask(client, V4), ask(client, v6)), (Some(2), Some(2)));

        // Removed by hand, they come back.
        for address in ["10.77.0.100/32", "fd77::100/128"] {
            lab::wait::until(SPAN, "the repair in the log", async || {
                let log = fs::read_to_string(site.log("n2")).unwrap();
                let repaired = |line: &str| line.contains("was installed again") && line.contains(address);
                if log.lines().any(repaired) {
                    return Some(());
                }
                // A renewal at the same moment puts it back without a word: then once more. Away, it cannot be removed.
                let _: anyhow::Result<()> = h2.ip(&["addr", "del", address, "dev", "eth0"]);
                None
            })
            .await
            .unwrap();
        }
        watch.until(&[1], "both addresses on n2 again").await;

        // Frozen, their holder renews nothing, and the kernel removes them while the lease still lives.
        signal(&n2, Signal::STOP);
        renewed.abort();
        site.keys.keep_alive(lease).await.unwrap();
        watch.until(&[], "no addresses with a frozen holder").await;
        let rest = site.keys.remaining(lease).await.unwrap();
        assert!(rest >= 0, "the addresses were there longer than the lease");
        // Thawed into another term, it leaves the other's addresses alone. That term begins when its lease has ended: until then it is right to
        // take them once more.
        lab::wait::until(SPAN, "the lead to end with its lease", async || {
            (!site.keys.read().await.ok()?.contains_key("leader")).then_some(())
        })
        .await
        .unwrap();
        let lease = lead(&site.keys, "n1").await;
        let renewed = renew(&site.keys, lease);
        watch.until(&[0], "both addresses on n1 again").await;
        signal(&n2, Signal::CONT);
        assert_eq!(ask(client, V4), Some(1));

        // Asked to end, it takes them along.
        signal(&n1, Signal::TERM);
        watch.until(&[], "no addresses after SIGTERM").await;
        renewed.abort();
        watch.never_twice();
        for name in ["n1", "n2"] {
            let log = fs::read_to_string(site.log(name)).unwrap();
            assert!(!log.contains("ERROR"), "{name}: {log}");
        }
    });
}

#[test]
fn addresses_that_are_kept_wait_for_a_successor_and_end_by_themselves() {
    in_the_network(async |site| {
        let watch = Watch::start(&site.network);
        let lease = lead(&site.keys, "n1").await;
        let renewed = renew(&site.keys, lease);
        let first = site.hold(0, "n1", SCOPE, "eth0");
        watch.until(&[0], "both addresses on n1").await;
        signal(&first, Signal::TERM);
        watch.until(&[], "no addresses after SIGTERM").await;

        let file = site.dir.join("n1.yml").display().to_string();
        let keeps = || site.run(0, "n1", "baton", &["vip", "--keep-vip", &file]);
        let second = keeps();
        watch.until(&[0], "both addresses on n1 again").await;
        signal(&second, Signal::TERM);
        ended(&second).await;
        watch.until(&[0], "both addresses without their holder").await;
        let third = keeps();
        site.logged("n1", "found the address here").await;
        watch.until(&[0], "both addresses under the successor").await;

        // Nobody comes: the kernel ends them.
        signal(&third, Signal::TERM);
        ended(&third).await;
        watch.until(&[], "no addresses after their lifetimes").await;
        renewed.abort();
    });
}

/// Waits until a process has ended.
async fn ended(process: &Running) {
    let pid = i32::try_from(process.0.id()).unwrap();
    lab::wait::until(SPAN, "the holder to end", async || (!lab::processes::alive(pid)).then_some(()))
        .await
        .unwrap();
}

/// The link address of a host's interface.
fn mac(host: &Host) -> [u8; 6] {
    let shown = host.command("cat").arg("/sys/class/net/eth0/address").output().unwrap();
    let text = String::from_utf8_lossy(&shown.stdout).trim().to_owned();
    let bytes: Vec<u8> = text.split(':').map(|part| u8::from_str_radix(part, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

#[test]
fn neighbours_hear_bursts_in_both_forms_and_the_switch_learns() {
    in_the_network(async |site| {
        let (h1, h2, client) = (&site.network.hosts[0], &site.network.hosts[1], &site.network.hosts[2]);
        let v6: IpAddr = V6.parse().unwrap();
        answer(h1, 1);
        answer(h2, 2);
        let heard = Listener::start(client).unwrap();
        let addresses = format!(
            "    - {{address: {V4}, interface: eth0, refresh: 6s}}\n    - {{address: {V6}/128, interface: eth0, refresh: 6s}}\n"
        );
        let n1 = site.hold_these(0, "n1", SCOPE, &addresses);
        let lease = lead(&site.keys, "n1").await;
        let renewed = renew(&site.keys, lease);
        let own = mac(h1);
        let form = |operation: u8| {
            move |frame: &[u8]| {
                frame[..6] == [0xff; 6]
                    && frame[6..12] == own
                    && frame[20..22] == [0, operation]
                    && frame[22..28] == own
                    && frame[28..32] == [10, 77, 0, 100]
                    && frame[38..42] == [10, 77, 0, 100]
            }
        };
        let advertisement = |frame: &[u8]| {
            // To all nodes of the link, hop limit 255, with the flag that overrides and the link address as an option.
            frame[..6] == [0x33, 0x33, 0, 0, 0, 1]
                && frame[21] == 255
                && frame[38..54] == "ff02::1".parse::<std::net::Ipv6Addr>().unwrap().octets()
                && frame[58] & 0x20 != 0
                && frame[78..80] == [2, 1]
                && frame[80..86] == own
        };
        // 5 at once, 3 after a second, 3 after five: in each of both forms for IPv4. A busy machine may leave some of a burst out.
        // Then again and again, as often as is written.
        lab::wait::until(SPAN, "the bursts and a refresh", async || {
            let (arp, advertisements) = (heard.about(V4), heard.about(v6));
            (refreshed(&arp, form(1))
                && refreshed(&arp, form(2))
                && refreshed(&advertisements, advertisement))
            .then_some(())
        })
        .await
        .unwrap();
        let (arp, advertisements) = (heard.about(V4), heard.about(v6));
        let (requests, replies) = (counted(&arp, form(1)), counted(&arp, form(2)));
        for (early, late) in [requests, replies] {
            assert!((2..=5).contains(&early) && (3..=7).contains(&late), "{arp:?}");
        }
        assert!(requests.0 == replies.0 && requests.1.abs_diff(replies.1) <= 1, "{arp:?}");
        let (early, late) = counted(&advertisements, advertisement);
        assert!((2..=5).contains(&early) && (3..=7).contains(&late), "{advertisements:?}");

        // Whatever the client knew: an entry in use, an old one, none.
        for known in ["reachable", "stale", "none"] {
            assert_eq!((ask(client, V4), ask(client, v6)), (Some(1), Some(1)), "{known}");
        }
        drop(heard);
        signal(&n1, Signal::TERM);
        site.logged("n1", "gave the address up").await;
        renewed.abort();
        for ip in [V4.to_string(), V6.to_owned()] {
            client
                .ip(&["neigh", "replace", &ip, "lladdr", "02:00:00:00:00:77", "dev", "eth0", "nud", "stale"])
                .unwrap();
        }
        let heard = Listener::start(client).unwrap();
        let _n2 = site.hold(1, "n2", SCOPE, "eth0");
        let lease = lead(&site.keys, "n2").await;
        let _renewed = renew(&site.keys, lease);
        lab::wait::until(SPAN, "both announcements", async || {
            (!heard.about(V4).is_empty() && !heard.about(v6).is_empty()).then_some(())
        })
        .await
        .unwrap();
        assert_eq!((ask(client, V4), ask(client, v6)), (Some(2), Some(2)), "what it knew was wrong");
        // The port behind which the switch has the new holder.
        let table =
            site.network.switch.command("bridge").args(["fdb", "show", "br", "br0"]).output().unwrap();
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        let own = mac(h2).map(|byte| format!("{byte:02x}")).join(":");
        assert!(table.lines().any(|line| line.starts_with(&own) && line.contains("dev p12")), "{table}");
    });
}

#[test]
fn an_address_of_another_network_is_refused_unless_it_is_routed() {
    in_the_network(async |site| {
        let h1 = &site.network.hosts[0];
        let addresses = "    - {address: 10.78.0.9, interface: eth0}\n    - {address: 10.77.0.98/16, interface: eth0}\n    \
                         - {address: \"fd78::9\", interface: eth0}\n    - {address: 10.78.0.10, interface: eth0, routed: true}\n    \
                         - {address: 10.78.0.11, interface: lo}\n";
        let n1 = site.hold_these(0, "n1", SCOPE, addresses);
        // Told before anybody needs it.
        for says in [
            "failed to hold 10.78.0.9/32 on eth0: it is in no network of the interface, which has 10.77.0.11/24; correct vip.addresses",
            "failed to hold 10.77.0.98/16 on eth0: its length is not that of the network there, 10.77.0.11/24; leave it out, or write /24",
            "failed to hold fd78::9/128 on eth0: it is in no network of the interface",
        ] {
            site.logged("n1", says).await;
        }
        let lease = lead(&site.keys, "n1").await;
        let _renewed = renew(&site.keys, lease);
        let here = |host: &Host, ip: &str| {
            let (host, ip) = (host.clone(), ip.parse().unwrap());
            std::thread::spawn(move || host.enter().map(|()| Host::here(ip)).unwrap()).join().unwrap()
        };
        for routed in ["10.78.0.10", "10.78.0.11"] {
            lab::wait::until(SPAN, routed, async || here(h1, routed).then_some(())).await.unwrap();
        }
        for refused in ["10.78.0.9", "10.77.0.98", "fd78::9"] {
            assert!(!here(h1, refused), "{refused}");
        }
        // The interface gets an address of that network: now it belongs there.
        h1.ip(&["addr", "add", "10.78.0.1/24", "dev", "eth0"]).unwrap();
        lab::wait::until(SPAN, "the address", async || here(h1, "10.78.0.9").then_some(())).await.unwrap();
        signal(&n1, Signal::TERM);
        lab::wait::until(SPAN, "no address", async || (!here(h1, "10.78.0.9")).then_some(())).await.unwrap();
    });
}

#[test]
fn who_had_an_address_is_written_down_and_metrics_are_told() {
    in_the_network(async |site| {
        let h2 = &site.network.hosts[1];
        let entry = format!("    - {{address: {V4}, interface: eth0}}\n{API}");
        let n1 = site.hold_these(0, "n1", SCOPE, &entry);
        let lease = lead(&site.keys, "n1").await;
        let renewed = renew(&site.keys, lease);
        site.logged("n1", "took the address").await;
        site.measured(0, "baton_vip_held", |held| held == 1).await;
        // Given up in good order: both ends are known.
        site.keys.delete("leader").await.unwrap();
        site.logged("n1", "gave the address up").await;
        renewed.abort();
        let n2 = site.hold_these(1, "n2", SCOPE, &entry);
        let lease = lead(&site.keys, "n2").await;
        let _renewed = renew(&site.keys, lease);
        site.logged("n2", "took the address").await;
        let history = || {
            let file = site.dir.join("n1.yml");
            let mut command = h2.command(&site.dir.join("baton").display().to_string());
            let made = command.args([
                "--config-file",
                &file.display().to_string(),
                "history",
                "--addresses",
                "-f",
                "json",
            ]);
            String::from_utf8_lossy(&made.output().unwrap().stdout).into_owned()
        };
        lab::wait::until(SPAN, "both stays", async || {
            let told = history();
            let rows: Vec<&str> = told.split("{").filter(|row| row.contains("\"Member\"")).collect();
            let [first, second] = rows.as_slice() else { return None };
            let closed = first.contains("\"n1\"") && first.contains("\"To\": \"20");
            (closed && second.contains("\"n2\"") && second.contains("\"To\": \"now\"")).then_some(())
        })
        .await
        .unwrap();
        // An agent that is killed cannot say when it ended.
        signal(&n2, Signal::KILL);
        lab::wait::until(SPAN, "an end that nobody told", async || {
            history().contains("\"To\": \"not told\"").then_some(())
        })
        .await
        .unwrap();
        signal(&n1, Signal::TERM);
    });
}

#[test]
fn a_duplicate_and_a_missing_interface_are_named() {
    in_the_network(async |site| {
        let addresses = format!(
            "    - {{address: {V4}, interface: eth0}}\n    - {{address: {V6}/128, interface: eth0}}\n{API}"
        );
        let _first = site.hold_these(0, "n1", SCOPE, &addresses);
        let lease = lead(&site.keys, "n1").await;
        let _renewed = renew(&site.keys, lease);
        let watch = Watch::start(&site.network);
        watch.until(&[0], "both addresses on n1").await;
        // Another cluster on the same network was given the same addresses, and a third an interface that is not there.
        let _second = site.hold(1, "n2", "foreign", "eth0");
        let foreign = site.gateway("foreign");
        let lease = lead(&foreign, "n2").await;
        let _renewed = renew(&foreign, lease);
        site.logged("n1", "another host with the link address").await;
        site.logged("n2", "another host with the link address").await;
        site.measured(0, "baton_vip_conflicts_total", |conflicts| conflicts > 0).await;
        let addresses = format!("    - {{address: {V4}, interface: eth9}}\n{API}");
        let _third = site.hold_these(2, "n3", "third", &addresses);
        let third = site.gateway("third");
        let lease = lead(&third, "n3").await;
        let _renewed = renew(&third, lease);
        site.logged("n3", "failed to hold 10.77.0.100/32 on eth9: its interface does not exist").await;
        site.measured(2, "baton_vip_unusable", |unusable| unusable == 1).await;
        // Nothing of it is there, and nobody was told that it is.
        assert_eq!(watch.0.now()[2], 0);
        let told = third.read().await.unwrap();
        assert!(!told.contains_key("baton/addresses"), "{:?}", told.keys());
    });
}

#[test]
fn an_address_of_replicas_has_one_holder_and_leaves_a_cable_that_is_out() {
    in_the_network(async |site| {
        let addresses = format!(
            "    - {{address: {V4}, interface: eth0, role: replica}}\n    - {{address: {V6}, interface: eth0, role: replica}}\n{API}"
        );
        let lease = lead(&site.keys, "n1").await;
        let _renewed = renew(&site.keys, lease);
        member(&site.keys, "n2", "replica").await;
        let watch = Watch::start(&site.network);
        let _n1 = site.hold_these(0, "n1", SCOPE, &addresses);
        let n2 = site.hold_these(1, "n2", SCOPE, &addresses);
        watch.until(&[1], "both addresses on the only replica").await;
        // Another replica does not take what has a holder, and takes it when that one is no replica any more.
        member(&site.keys, "n3", "replica").await;
        let _n3 = site.hold_these(2, "n3", SCOPE, &addresses);
        member(&site.keys, "n2", "uninitialized").await;
        watch.until(&[2], "both addresses on the other replica").await;
        member(&site.keys, "n2", "replica").await;
        // Its cable is pulled: it gives them up by itself, its claim ends with its lease, and the next one has them.
        site.network.unplug(&site.network.hosts[2]).unwrap();
        site.logged("n3", "its interface is down or has no carrier").await;
        site.measured(2, "baton_vip_carrier_losses_total", |losses| losses == 1).await;
        watch.until(&[1], "both addresses on the first replica again").await;
        signal(&n2, Signal::TERM);
        watch.until(&[], "no addresses after SIGTERM").await;
        watch.never_twice();
    });
}

#[test]
fn vip_manager_s_file_is_used_as_it_is_and_a_command_moves_what_arp_cannot() {
    in_the_network(async |site| {
        let (h1, client) = (&site.network.hosts[0], &site.network.hosts[2]);
        answer(h1, 1);
        let file = site.dir.join("vip-manager.yml");
        let text = format!(
            "interval: 1000\ntrigger-key: /{NAMESPACE}/{SCOPE}/leader\ntrigger-value: n1\nip: 10.77.0.99\nnetmask: 24\ninterface: eth0\n\
             hosting-type: basic\ndcs-type: etcd\ndcs-endpoints:\n  - http://{}:2379\nretry-num: 2\nverbose: false\n",
            site.network.switch.v4
        );
        fs::write(&file, text).unwrap();
        let config = format!("--config={}", file.display());
        // A variable goes over the file.
        let ip = V4.to_string();
        let manager = site.run_with(0, "n1", "vip-manager", &[&config], &[("VIP_IP", &ip)]);
        let lease = lead(&site.keys, "n1").await;
        let _renewed = renew(&site.keys, lease);
        site.logged("n1", "took the address").await;
        assert_eq!(ask(client, V4), Some(1));
        signal(&manager, Signal::TERM);
        site.logged("n1", "gave the address up").await;

        // The command hangs when it shall acquire, and is killed; it is told to release what may be half done.
        let (script, told) = (site.dir.join("move"), site.dir.join("told"));
        let lines = format!(
            "#!/bin/sh\necho \"$1 $2 $BATON_VIP_ACTION $BATON_VIP_ADDRESS $BATON_VIP_ROLE $BATON_TERM\" >> {}\n[ $1 = release ] || exec sleep 600\n",
            told.display()
        );
        fs::write(&script, lines).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&told, "").unwrap();
        fs::set_permissions(&told, fs::Permissions::from_mode(0o666)).unwrap();
        let section = document::with(
            &document::example("## An address in a cloud", "yaml"),
            &[
                ("vip:\n  addresses:\n", ""),
                ("/usr/local/bin/move-address ", &format!("{} ", script.display())),
                ("timeout: 30s", "timeout: 1s"),
            ],
        );
        let _cloud = site.hold_these(1, "n2", "cloud", &section);
        let cloud = site.gateway("cloud");
        let lease = lead(&cloud, "n2").await;
        let _renewed = renew(&cloud, lease);
        site.logged("n2", "failed to end within 1s: killed").await;
        cloud.delete("leader").await.unwrap();
        site.logged("n2", "the command to release the address has succeeded").await;
        let told = fs::read_to_string(told).unwrap();
        let (first, last) = (told.lines().next().unwrap(), told.lines().last().unwrap());
        for (line, action) in [(first, "acquire"), (last, "release")] {
            let begins = format!("{action} 203.0.113.7 {action} 203.0.113.7 primary ");
            let term = line.strip_prefix(&begins).unwrap_or_else(|| panic!("{told}"));
            assert!(term.parse::<i64>().is_ok_and(|term| term > 0), "{told}");
        }
    });
}

#[test]
fn a_route_by_bgp_ends_with_the_address_when_its_holder_is_killed() {
    in_the_network(async |site| {
        let (h1, router) = (&site.network.hosts[0], &site.network.hosts[2]);
        let n1 = site.hold_these(0, "n1", SCOPE, &format!("    - {{address: {V4}, interface: eth0}}\n"));
        let bird = Path::new(&std::env::var("BATON_TEST_PEERS").unwrap()).join("bird");
        let neighbor = format!("--neighbor={}=65000", router.v4);
        let number = format!("--router-id={}", h1.v4);
        let file = site.dir.join("n1.yml").display().to_string();
        let words = ["bird-config", file.as_str(), "--as=65001", number.as_str(), neighbor.as_str()];
        let made = Command::new(site.dir.join("baton")).args(words).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let theirs = format!(
            "router id {};\nprotocol device {{ }}\nprotocol kernel {{ ipv4 {{ import none; export all; }}; }}\n\
             protocol bgp {{ local as 65000; neighbor {} as 65001; hold time 3; ipv4 {{ import all; export none; }}; }}\n",
            router.v4, h1.v4
        );
        let mut birds = Vec::new();
        for (host, name, text) in [(h1, "bird1", made.stdout), (router, "bird3", theirs.into_bytes())] {
            let (conf, socket) =
                (site.dir.join(format!("{name}.conf")), site.dir.join(format!("{name}.ctl")));
            fs::write(&conf, text).unwrap();
            let mut command = host.command(&bird.display().to_string());
            command.arg("-f").arg("-c").arg(conf).arg("-s").arg(socket);
            birds.push(Running::start(&mut command, &site.log(name)));
        }
        let route = || {
            let shown = router.command("ip").args(["route", "show", &V4.to_string()]).output().unwrap();
            String::from_utf8_lossy(&shown.stdout).contains("via 10.77.0.11")
        };
        let lease = lead(&site.keys, "n1").await;
        let _renewed = renew(&site.keys, lease);
        lab::wait::until(SPAN, "the route", async || route().then_some(())).await.unwrap();
        // Nobody withdraws it, and the lease goes on: what ends it is the lifetime of the address.
        signal(&n1, Signal::KILL);
        lab::wait::until(SPAN, "no route", async || (!route()).then_some(())).await.unwrap();
        let rest = site.keys.remaining(lease).await.unwrap();
        assert!(rest >= 0, "the lease had ended as well");
    });
}
