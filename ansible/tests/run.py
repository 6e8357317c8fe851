#!/usr/bin/python3
"""Runs the playbooks for real: ansible-core over SSH into three hosts that are network namespaces of this machine. Needs root.

    ansible/tests/run.py BATON        the program; `make playbooks` builds it, and tools/setup installs the rest

From nothing to a cluster, a second run, orders under a load, an upgrade, an etcd member replaced, a member removed, all removed. The
hosts share a file system, so each has its directories below one of its own, and no systemd, so the services run by baton-service.
Prints what was measured; what failed is kept, with the output of the playbook.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NET = "10.78.0"
HOSTS = [11, 12, 13]
SWITCH = f"baton-play-{os.getpid()}-sw"
LOAD = """
import psycopg2, sys, time
last, worst, count = None, 0.0, 0
with open(sys.argv[2], "w", buffering=1) as out:
    while True:
        try:
            with psycopg2.connect(sys.argv[1]) as link:
                link.autocommit = True
                cursor = link.cursor()
                cursor.execute("CREATE TABLE IF NOT EXISTS load (n bigint PRIMARY KEY)")
                cursor.execute("SELECT coalesce(max(n), 0) FROM load")
                count = max(count, cursor.fetchone()[0])
                while True:
                    cursor.execute("INSERT INTO load VALUES (%s)", (count + 1,))
                    count += 1
                    now = time.monotonic()
                    out.write(f"{now} {count}\\n")
                    time.sleep(0.01)
        except psycopg2.Error as error:
            time.sleep(0.02)
"""


def env(name):
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set: run tools/setup playbooks, and source its env")
    return value.split(":")[0]


def sh(*words, **more):
    return subprocess.run(words, check=True, capture_output=True, text=True, **more).stdout


def check(truth, what):
    if not truth:
        raise AssertionError(what)


class World:
    """The hosts, and what runs on them."""

    def __init__(self, baton):
        self.base = tempfile.mkdtemp(prefix="baton-playbooks-")
        os.chmod(self.base, 0o755)
        self.started = []
        self.baton = os.path.join(self.base, "baton")
        shutil.copy(baton, self.baton)
        subprocess.run(["strip", self.baton], check=False)
        self.ansible = env("BATON_TEST_ANSIBLE")
        self.client = os.path.join(env("BATON_TEST_PATRONI"), "python")
        self.figures = []

    def namespace(self, number):
        return f"baton-play-{os.getpid()}-h{number}"

    def build(self):
        sh("ip", "netns", "add", SWITCH)
        in_switch = ["ip", "-n", SWITCH]
        sh(*in_switch, "link", "add", "br0", "type", "bridge")
        sh(*in_switch, "addr", "add", f"{NET}.254/24", "dev", "br0")
        for link in ["lo", "br0"]:
            sh(*in_switch, "link", "set", link, "up")
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{self.base}/key")
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{self.base}/hostkey")
        os.makedirs("/run/sshd", exist_ok=True)
        for number in HOSTS:
            name, home = self.namespace(number), f"{self.base}/{number}"
            os.makedirs(f"{home}/bin")
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"p{number}", "netns", SWITCH)
            sh(*in_switch, "link", "set", f"p{number}", "master", "br0", "up")
            sh("ip", "-n", name, "addr", "add", f"{NET}.{number}/24", "dev", "eth0")
            for link in ["lo", "eth0"]:
                sh("ip", "-n", name, "link", "set", link, "up")
            with open(f"{home}/sshd_config", "w", encoding="ascii") as file:
                file.write(
                    f"ListenAddress {NET}.{number}\nHostKey {self.base}/hostkey\nAuthorizedKeysFile {self.base}/key.pub\n"
                    f"PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\nMaxStartups 50\n"
                    f"Subsystem sftp internal-sftp\n"
                )
            self.start("ip", "netns", "exec", name, "/usr/sbin/sshd", "-D", "-e", "-f", f"{home}/sshd_config", log=f"{home}/sshd.log")
        self.write_inventory("inventory.json", {11: "primary"})

    def write_inventory(self, name, roles, more=()):
        etcd = env("BATON_TEST_ETCD_BINS")
        host = lambda number: {
            "etcd_seq": number - 10,
            "ansible_ssh_private_key_file": f"{self.base}/key",
            "baton_bin": f"{self.base}/{number}/bin/baton",
            "baton_etc": f"{self.base}/{number}/etc",
            "baton_log": f"{self.base}/{number}/log",
            "baton_run": f"{self.base}/{number}/run",
            "baton_service_script": f"{self.base}/{number}/bin/baton-service",
            "etcd_etc": f"{self.base}/{number}/etc/etcd",
            "etcd_data": f"{self.base}/{number}/etcd",
            "pg_data": f"{self.base}/{number}/pg/data",
            "pg_socket_dir": f"{self.base}/{number}/sock",
        }
        every = {
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
            "baton_service_manager": "script",
            "baton_binary": self.baton,
            "etcd_tls": True,
            "etcd_pki": f"{self.base}/pki",
            "etcd_packages": [],
            "pg_packages": [],
            "etcd_bin": etcd,
            "etcdctl_bin": os.path.join(os.path.dirname(etcd), "etcdctl"),
            "etcd_user": "postgres",
            "baton_router_user": "postgres",
            "pg_bin_dir": env("BATON_TEST_PG_BINS"),
            "pg_rto": "fast",
            "pg_vip_enabled": True,
            "pg_vip_address": f"{NET}.50/24",
            "pg_vip_interface": "eth0",
            "pg_parameters": {"max_connections": 60, "shared_buffers": "32MB"},
            "pg_admin_password": "secret-admin",
            "pg_replication_password": "secret-replication",
            "pg_rewind_password": "secret-rewind",
            "baton_rest_password": "secret-rest",
        }
        member = lambda number: {"pg_seq": number - 10, "pg_role": roles.get(number, "replica")}
        hosts = [*HOSTS, *more]
        names = {number: f"{NET}.{number}" for number in hosts}
        inventory = {
            "all": {
                "vars": every,
                "children": {
                    "etcd": {"hosts": {names[number]: host(number) for number in HOSTS}, "vars": {"etcd_cluster": "etcd"}},
                    "pg-meta": {"hosts": {names[number]: {**host(number), **member(number)} for number in hosts}, "vars": {"pg_cluster": "pg-meta"}},
                },
            }
        }
        with open(f"{self.base}/{name}", "w", encoding="ascii") as file:
            json.dump(inventory, file)

    def start(self, *words, log):
        with open(log, "wb") as out:
            self.started.append(subprocess.Popen(words, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True))
        return self.started[-1]

    def play(self, book, *words, inventory="inventory.json", fails=False):
        """Runs a playbook; answers with its output and how many changes each host counts."""
        began = time.monotonic()
        command = ["ip", "netns", "exec", SWITCH, f"{self.ansible}/ansible-playbook", "-i", f"{self.base}/{inventory}", book, *words]
        environment = {**os.environ, "ANSIBLE_CONFIG": f"{HERE}/ansible.cfg", "LC_ALL": "C.UTF-8", "ANSIBLE_HOME": f"{self.base}/ansible"}
        done = subprocess.run(command, cwd=HERE, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False)
        took = time.monotonic() - began
        with open(f"{self.base}/plays.log", "a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
        check((done.returncode != 0) == fails, f"{book} {words} ended with {done.returncode}:\n{done.stdout[-6000:]}{done.stderr[-2000:]}")
        changed = {host: int(count) for host, count in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", done.stdout, re.M)}
        shown = " ".join([book, *words])
        self.figure(f"{shown}{' (refused)' if fails else ''}", f"{took:.1f} s, {sum(changed.values())} changes")
        return done.stdout + done.stderr, changed

    def figure(self, what, value):
        self.figures.append((what, value))
        print(f"{value:>24}  {what}", flush=True)

    def rows(self, number=11):
        return json.loads(sh("ip", "netns", "exec", SWITCH, self.baton, "-c", f"{self.base}/{number}/etc/baton.yml", "list", "-f", "json"))

    def etcdctl(self, *words):
        etc, etcd = f"{self.base}/12/etc/etcd", env("BATON_TEST_ETCD_BINS")
        tls = [f"--cacert={etc}/etcd-ca.crt", f"--cert={etc}/etcd.crt", f"--key={etc}/etcd.key"]
        program = os.path.join(os.path.dirname(etcd), "etcdctl")
        return sh("ip", "netns", "exec", SWITCH, program, f"--endpoints=https://{NET}.12:2379", *tls, *words, env={**os.environ, "ETCDCTL_API": "3"})

    def leader(self, number=11):
        return next((row["Member"] for row in self.rows(number) if row["Role"] == "Leader"), None)

    def timeline(self):
        return max(row["TL"] for row in self.rows())

    def await_vip(self, number):
        """The address is on this host and on no other."""
        until, holders = time.monotonic() + 20, None
        while holders != [number]:
            check(time.monotonic() < until, f"the virtual address is on {holders}, and not on {number}")
            shown = {host: sh("ip", "-n", self.namespace(host), "-4", "addr", "show", "dev", "eth0") for host in HOSTS}
            holders = [host for host in HOSTS if f"{NET}.50/24" in shown[host]]
            time.sleep(0.1)

    def postmaster(self, number):
        with open(f"{self.base}/{number}/pg/data/postmaster.pid", encoding="ascii") as lines:
            return lines.readline().strip()

    def config(self):
        return sh("ip", "netns", "exec", SWITCH, self.baton, "-c", f"{self.base}/11/etc/baton.yml", "show-config", "pg-meta")

    def begin_load(self):
        self.commits = f"{self.base}/commits"
        link = f"host={NET}.11 port=5433 user=postgres password=secret-admin dbname=postgres connect_timeout=5"
        return self.start("ip", "netns", "exec", SWITCH, self.client, "-c", LOAD, link, self.commits, log=f"{self.base}/load.log")

    def times(self):
        if not os.path.exists(self.commits):
            return []
        with open(self.commits, encoding="ascii") as lines:
            return [float(line.split()[0]) for line in lines if line.endswith("\n")]

    def await_commits(self, more=20):
        count, until = len(self.times()), time.monotonic() + 60
        while len(self.times()) < count + more:
            check(time.monotonic() < until, "the load does not commit")
            time.sleep(0.05)

    def longest_pause(self, since):
        times = [moment for moment in self.times() if moment >= since]
        return max((b - a for a, b in zip(times, times[1:])), default=float("inf"))

    def end(self):
        for name in [*map(self.namespace, HOSTS), SWITCH]:
            for pid in self.pids(name):
                subprocess.run(["kill", "-9", pid], check=False, capture_output=True)
        for process in self.started:
            process.kill()
            process.wait()
        for name in [*map(self.namespace, HOSTS), SWITCH]:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def pids(self, namespace):
        done = subprocess.run(["ip", "netns", "pids", namespace], check=False, capture_output=True, text=True)
        return done.stdout.split()


def story(world):
    world.write_inventory("two-primaries.json", {11: "primary", 12: "primary"})
    said, changed = world.play("pgsql.yml", inventory="two-primaries.json", fails=True)
    check("needs exactly one member with pg_role: primary, and has 2" in said, said)
    check(sum(changed.values()) == 0, f"a refused inventory changed something: {changed}")

    world.write_inventory("unreachable.json", {11: "primary"}, more=[99])
    said, changed = world.play("pgsql.yml", inventory="unreachable.json", fails=True)
    check("UNREACHABLE" in said and sum(changed.values()) == 0, f"a host that nobody reaches: {said}")
    check(not os.path.exists(f"{world.base}/11/etc"), "something was begun although a host is missing")

    began = time.monotonic()
    world.play("etcd.yml")
    world.play("pgsql.yml")
    world.figure("from bare hosts to a cluster", f"{time.monotonic() - began:.1f} s")
    check(len(world.rows()) == 3 and world.leader() == "pg-meta-1", world.rows())
    world.await_vip(11)
    for book in ["etcd.yml", "pgsql.yml"]:
        _, changed = world.play(book)
        check(sum(changed.values()) == 0, f"the second run of {book} changed something: {changed}")

    with open(f"{world.base}/11/etc/etcd/etcd.yml", encoding="ascii") as file:
        check("client-cert-auth: true" in file.read(), "etcd without TLS")
    try:
        world.etcdctl("get", "/", "--prefix", "--cert=", "--key=")
        check(False, "etcd lets in whoever has no certificate")
    except subprocess.CalledProcessError as error:
        check(not error.stdout, error)

    world.begin_load()
    world.await_commits()
    for inventory, why in [("two-primaries.json", "needs exactly one member"), ("unreachable.json", "UNREACHABLE")]:
        said, changed = world.play("pgsql.yml", inventory=inventory, fails=True)
        check(why in said and sum(changed.values()) == 0 and world.leader() == "pg-meta-1", said)
    servers = [world.postmaster(number) for number in HOSTS]
    for book in ["pgsql-reload.yml", "upgrade.yml", "pgsql-rm.yml"]:
        said, changed = world.play(book, "-e", "force=true", inventory="unreachable.json", fails=True)
        check("UNREACHABLE" in said and sum(changed.values()) == 0, f"{book} and a host that nobody reaches: {said}")
    check([world.postmaster(number) for number in HOSTS] == servers and world.leader() == "pg-meta-1", world.rows())
    world.write_inventory("other-primary.json", {13: "primary"})
    said, changed = world.play("pgsql.yml", inventory="other-primary.json")
    check("pg-meta-3 is not the primary" in said and "pg-meta-1 leads" in said, said)
    check(sum(changed.values()) == 0 and world.leader() == "pg-meta-1", f"a role that contradicts the cluster changed it: {changed}")
    _, changed = world.play("pgsql-reload.yml", "-l", "pg-meta", "-t", "replica")
    check([host for host, count in changed.items() if count] == [f"{NET}.12", f"{NET}.13"], f"not the replicas alone: {changed}")
    orders(world)
    _, changed = world.play("pgsql-reload.yml", "-l", "pg-meta", "-t", "primary")
    check([host for host, count in changed.items() if count] == [f"{NET}.11"], f"not the primary alone: {changed}")
    said, _ = world.play("pgsql-reload.yml", "-l", "pg-meta", "-t", "switchover", fails=True)
    check("nobody said yes" in said and world.leader() == "pg-meta-1", said)
    world.play("pgsql-reload.yml", "-l", "pg-meta", "-t", "switchover", "-e", "force=true", "-e", "candidate=pg-meta-2")
    check(world.leader() == "pg-meta-2", world.rows())
    world.await_vip(12)
    _, changed = world.play("pgsql-reload.yml", "-l", "pg-meta", "-t", "primary")
    check([host for host, count in changed.items() if count] == [f"{NET}.12"], f"not the new primary alone: {changed}")
    said, changed = world.play("pgsql.yml")
    check("pg-meta-2 leads" in said and world.leader() == "pg-meta-2", said)

    world.await_commits()
    timeline, began = world.timeline(), time.monotonic()
    world.play("upgrade.yml")
    world.await_commits()
    world.await_vip(12)
    check((world.leader(), world.timeline()) == ("pg-meta-2", timeline), f"the upgrade was a failover: {world.rows()}")
    world.figure("longest pause between commits during the upgrade", f"{world.longest_pause(began):.2f} s")

    world.play("upgrade.yml", "-e", "pg_minor=true")
    check(world.leader() != "pg-meta-2" and world.timeline() == timeline + 1, f"not one switchover: {world.rows()}")
    leader = world.leader()
    world.await_commits()

    members = lambda: len(json.loads(world.etcdctl("member", "list", "-w", "json"))["members"])
    world.play("etcd-member.yml", "-l", f"{NET}.13", "-e", "member=replace", "-e", "force=true")
    check(world.leader() == leader and members() == 3, world.rows())
    said, _ = world.play("etcd-member.yml", "-l", f"{NET}.13", "-e", "member=remove", fails=True)
    check("nobody said yes" in said and members() == 3, said)
    world.play("etcd-member.yml", "-l", f"{NET}.13", "-e", "member=remove", "-e", "force=true")
    check(world.leader() == leader and members() == 2, world.rows())
    world.play("etcd-member.yml", "-l", f"{NET}.13", "-e", "member=add")
    check(world.leader() == leader and members() == 3, world.rows())
    world.await_commits()
    said, _ = world.play("pgsql-rm.yml", "-l", f"{NET}.13", fails=True)
    check("nobody said yes" in said and len(world.rows()) == 3, said)
    world.play("pgsql-rm.yml", "-l", f"{NET}.13", "-e", "force=true")
    check([row["Member"] for row in world.rows()] == ["pg-meta-1", "pg-meta-2"], world.rows())
    check(os.path.exists(f"{world.base}/13/pg/data/PG_VERSION"), "the data of a removed member are gone")
    world.await_commits()
    world.play("pgsql.yml")
    check(len(world.rows()) == 3, world.rows())
    world.play("pgsql-rm.yml", "-e", "force=true", "-e", "pg_rm_data=true")
    check(not any(os.path.exists(f"{world.base}/{number}/pg/data") for number in HOSTS), "data are left")


def orders(world):
    """What pgsql-reload.yml does beside the reload, each with its refusal."""
    before = [world.postmaster(number) for number in HOSTS]
    for tag in ["restart", "reinit", "failover"]:
        said, _ = world.play("pgsql-reload.yml", "-l", "pg-meta", "-t", tag, "-e", "candidate=pg-meta-3", fails=True)
        check("nobody said yes" in said, said)
    check([world.postmaster(number) for number in HOSTS] == before and world.leader() == "pg-meta-1", "a refused order did something")
    world.play("pgsql-reload.yml", "-l", f"{NET}.12,{NET}.13", "-t", "restart", "-e", "force=true")
    after = [world.postmaster(number) for number in HOSTS]
    check([a == b for a, b in zip(before, after)] == [True, False, False], f"not the chosen ones were restarted: {before} {after}")
    world.play("pgsql-reload.yml", "-l", f"{NET}.11,{NET}.12", "-t", "reinit", "-e", "force=true")
    again = [world.postmaster(number) for number in HOSTS]
    check([a == b for a, b in zip(after, again)] == [True, False, True], f"not the chosen replica was copied: {after} {again}")
    world.play("pgsql-reload.yml", "-l", "pg-meta", "-t", "pause")
    check("pause: true" in world.config(), world.config())
    world.play("pgsql-reload.yml", "-l", "pg-meta", "-t", "resume")
    check("pause: true" not in world.config(), world.config())
    said, _ = world.play("pgsql-reload.yml", "-l", "pg-meta", "-t", "failover", "-e", "force=true", fails=True)
    check("failover needs -e candidate" in said, said)
    world.play("pgsql-reload.yml", "-l", "pg-meta", "-t", "failover", "-e", "force=true", "-e", "candidate=pg-meta-3")
    check(world.leader() == "pg-meta-3", world.rows())
    world.play("pgsql-reload.yml", "-l", "pg-meta", "-t", "switchover", "-e", "force=true", "-e", "candidate=pg-meta-1")
    check(world.leader() == "pg-meta-1", world.rows())
    world.await_commits()


def main():
    if len(sys.argv) != 2 or os.geteuid() != 0:
        sys.exit(__doc__)
    # Ended from outside, it ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    world = World(sys.argv[1])
    try:
        world.build()
        story(world)
    except BaseException:
        print(f"what there is of it is kept in {world.base}", file=sys.stderr)
        raise
    finally:
        world.end()
    shutil.rmtree(world.base)


main()
