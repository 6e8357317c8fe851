//! Virtual addresses on real parts: real etcd, the real binary with no more rights than it needs, hosts in network namespaces.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use lab::netns::{Host, Network};
use lab::{Binaries, Gateway, NAMESPACE, SCOPE, baton_of_this_build};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));
const V6: &str = "fd77::100";
const PORT: u16 = 5432;
const SPAN: Duration = Duration::from_secs(20);

/// A process that is killed when the test ends.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, log: &Path) -> Running {
        let log = fs::File::create(log).unwrap();
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Running(command.spawn().unwrap())
    }

    fn signal(&self, what: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap(), what).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks every 2 ms at which hosts have an address, and remembers whether two ever had it at once.
struct Watch {
    holding: Arc<Vec<[AtomicBool; 2]>>,
    twice: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    fn start(network: &Network) -> Watch {
        let holding =
            network.hosts.iter().map(|_| [AtomicBool::new(false), AtomicBool::new(false)]).collect();
        let watch = Watch { holding: Arc::new(holding), twice: Arc::default(), stop: Arc::default() };
        for (at, host) in network.hosts.iter().cloned().enumerate() {
            let (holding, twice, stop) = (watch.holding.clone(), watch.twice.clone(), watch.stop.clone());
            std::thread::spawn(move || {
                host.enter().unwrap();
                let ips = [V4, V6.parse().unwrap()];
                while !stop.load(Ordering::SeqCst) {
                    for (family, ip) in ips.into_iter().enumerate() {
                        holding[at][family].store(Host::here(ip), Ordering::SeqCst);
                        let holders =
                            holding.iter().filter(|host| host[family].load(Ordering::SeqCst)).count();
                        twice.fetch_add(usize::from(holders > 1), Ordering::SeqCst);
                    }
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "the pace of the looking; nothing is ordered by it"
                    )]
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        watch
    }

    /// Waits until exactly these hosts hold both addresses.
    async fn until(&self, wanted: &[usize], what: &str) {
        lab::wait::until(SPAN, what, async || {
            let so = |(at, host): (usize, &[AtomicBool; 2])| {
                host.iter().all(|held| held.load(Ordering::SeqCst) == wanted.contains(&at))
            };
            self.holding.iter().enumerate().all(so).then_some(())
        })
        .await
        .unwrap();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
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

/// Who answers at an address, asked from a host.
fn ask(host: &Host, ip: IpAddr) -> Option<u8> {
    let host = host.clone();
    let asked = std::thread::spawn(move || {
        host.enter().unwrap();
        let mut stream =
            TcpStream::connect_timeout(&SocketAddr::new(ip, PORT), Duration::from_secs(1)).ok()?;
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
        Site { network, dir, keys, _etcd: running }
    }

    /// `baton vip` on a host, as a user who may do nothing but this.
    fn hold(&self, at: usize, name: &str, scope: &str, interface: &str) -> Running {
        let file = self.dir.join(format!("{name}.yml"));
        let text = format!(
            "scope: {scope}\nnamespace: {NAMESPACE}\nname: {name}\netcd3:\n  host: {}:2379\nvip:\n  addresses:\n\
             \x20   - {{address: {V4}, interface: {interface}}}\n    - {{address: {V6}/128, interface: {interface}, role: primary}}\n",
            self.network.switch.v4
        );
        fs::write(&file, text).unwrap();
        let baton = self.dir.join("baton");
        if !baton.exists() {
            fs::copy(Binaries::find(baton_of_this_build().unwrap()).unwrap().baton, &baton).unwrap();
        }
        let mut command = self.network.hosts[at].command("setpriv");
        let rights = "+net_admin,+net_raw";
        command.args([
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--bounding-set=-all,+net_admin,+net_raw",
        ]);
        command.args(["--inh-caps", rights, "--ambient-caps", rights]);
        command.arg(baton).arg("vip").arg(file);
        Running::start(&mut command, &self.log(name))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    fn gateway(&self, scope: &str) -> Gateway {
        Gateway::new(vec![SocketAddrV4::new(self.network.switch.v4, 2379)], NAMESPACE, scope)
    }

    async fn logged(&self, name: &str, text: &str) {
        lab::wait::until(SPAN, &format!("{text:?} in the log of {name}"), async || {
            fs::read_to_string(self.log(name)).unwrap().contains(text).then_some(())
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

        // A lead that is given up takes the addresses along; neighbours are told where they are then.
        site.keys.delete("leader").await.unwrap();
        watch.until(&[], "no addresses without a leader").await;
        renewed.abort();
        let lease = lead(&site.keys, "n2").await;
        let renewed = renew(&site.keys, lease);
        watch.until(&[1], "both addresses on n2").await;
        assert_eq!((ask(client, V4), ask(client, v6)), (Some(2), Some(2)));

        // Removed by hand, they come back.
        h2.ip(&["addr", "del", "10.77.0.100/32", "dev", "eth0"]).unwrap();
        h2.ip(&["addr", "del", "fd77::100/128", "dev", "eth0"]).unwrap();
        lab::wait::until(SPAN, "the repair in the log", async || {
            let log = fs::read_to_string(site.log("n2")).unwrap();
            (log.matches("was installed again").count() == 2).then_some(())
        })
        .await
        .unwrap();
        watch.until(&[1], "both addresses on n2 again").await;

        // Frozen, their holder renews nothing, and the kernel removes them while the lease still lives.
        n2.signal(Signal::STOP);
        renewed.abort();
        site.keys.keep_alive(lease).await.unwrap();
        watch.until(&[], "no addresses with a frozen holder").await;
        let rest = site.keys.remaining(lease).await.unwrap();
        assert!(rest >= 0, "the addresses were there longer than the lease");
        // Thawed into another term, it leaves the other's addresses alone.
        site.keys.delete("leader").await.unwrap();
        let lease = lead(&site.keys, "n1").await;
        let renewed = renew(&site.keys, lease);
        watch.until(&[0], "both addresses on n1 again").await;
        n2.signal(Signal::CONT);
        assert_eq!(ask(client, V4), Some(1));

        // Asked to end, it takes them along.
        n1.signal(Signal::TERM);
        watch.until(&[], "no addresses after SIGTERM").await;
        renewed.abort();
        assert_eq!(watch.twice.load(Ordering::SeqCst), 0, "two hosts had an address at once");
        for name in ["n1", "n2"] {
            let log = fs::read_to_string(site.log(name)).unwrap();
            assert!(!log.contains("ERROR"), "{name}: {log}");
        }
    });
}

#[test]
fn a_duplicate_and_a_missing_interface_are_named() {
    in_the_network(async |site| {
        let _first = site.hold(0, "n1", SCOPE, "eth0");
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
        let _third = site.hold(2, "n3", "third", "eth9");
        let third = site.gateway("third");
        let lease = lead(&third, "n3").await;
        let _renewed = renew(&third, lease);
        site.logged("n3", "failed to hold 10.77.0.100/32 on eth9: its interface does not exist").await;
    });
}
