//! The Debian package: what is in it, and that it comes and goes on a host without leaving or taking anything else. The host is this
//! machine's own file system with a layer above it that is thrown away.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    text(&output)
}

/// Packs this build; a package that is thrown away need not be small.
fn package(into: &Path) -> PathBuf {
    let made = run(Command::new(repository().join("tools/make-deb"))
        .arg(env!("CARGO_BIN_EXE_baton"))
        .arg(into)
        .env("DEB_COMPRESSION", "none"));
    PathBuf::from(made.lines().last().unwrap())
}

/// Runs a script on a host of its own, with the package in its root: its own mounts, and this machine's files under a layer that takes
/// all changes.
fn on_a_host(dir: &Path, package: &Path, script: &str) -> String {
    let made = format!(
        "set -eu; mount -t tmpfs layer {dir}; mkdir {dir}/upper {dir}/work {dir}/root; \
         mount -t overlay overlay -o lowerdir=/,upperdir={dir}/upper,workdir={dir}/work {dir}/root; \
         mount -t proc proc {dir}/root/proc; mount --bind /dev {dir}/root/dev; \
         cp {package} {dir}/root/baton.deb; exec chroot {dir}/root sh -eu -c '{script}'",
        dir = dir.display(),
        package = package.display()
    );
    run(Command::new("unshare").args(["--mount", "--", "sh", "-c", &made]))
}

#[test]
fn the_package_comes_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let deb = package(dir.path());
    let listed = run(Command::new("dpkg-deb").arg("--contents").arg(&deb));
    for (mode, path) in [
        ("-rwxr-xr-x root/root", "./usr/bin/baton"),
        ("-rw-r--r-- root/root", "./usr/lib/systemd/system/baton-agent.service"),
        ("-rw-r--r-- root/root", "./usr/lib/systemd/system/baton-router.service"),
        ("-rw-r--r-- root/root", "./usr/lib/systemd/system/baton-vip.service"),
        ("-rw-r--r-- root/root", "./usr/lib/systemd/system/baton-dns.service"),
        ("-rw-r--r-- root/root", "./usr/share/man/man1/baton.1.gz"),
        ("-rw-r--r-- root/root", "./usr/share/man/man1/baton-switchover.1.gz"),
        ("-rw-r--r-- root/root", "./usr/share/bash-completion/completions/baton"),
        ("-rw-r--r-- root/root", "./usr/share/zsh/vendor-completions/_baton"),
        ("-rw-r--r-- root/root", "./usr/share/fish/vendor_completions.d/baton.fish"),
        ("-rw-r--r-- root/root", "./usr/share/doc/baton/examples/baton.yml"),
        ("-rw-r--r-- root/root", "./usr/share/doc/baton/examples/router.yml"),
        ("-rw-r--r-- root/root", "./usr/share/doc/baton/examples/alerts.yml"),
        ("drwxr-xr-x root/root", "./etc/baton/"),
    ] {
        let there = listed.lines().any(|line| line.starts_with(mode) && line.ends_with(path));
        assert!(there, "{mode} {path} in\n{listed}");
    }
    let host = dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    let carried = dir.path().join("baton.deb");
    std::fs::rename(&deb, &carried).unwrap();
    let script = format!(
        "dpkg --install {deb}; baton --version; getent passwd baton; \
         if command -v systemd-analyze >/dev/null; then systemd-analyze verify --man=no /usr/lib/systemd/system/baton-*.service >/verify 2>&1 || echo unverified; cat /verify; fi; \
         bash -n /usr/share/bash-completion/completions/baton; zcat /usr/share/man/man1/baton-list.1.gz | head -n 1; \
         echo mine >/etc/baton/baton.yml; dpkg --remove baton; test ! -e /usr/bin/baton; test -e /etc/baton/baton.yml; \
         dpkg --purge baton; cat /etc/baton/baton.yml; rm /etc/baton/baton.yml; dpkg --install {deb}; dpkg --purge baton; test ! -e /etc/baton",
        deb = "/baton.deb"
    );
    let said = on_a_host(&host, &carried, &script);
    assert!(
        !said.contains("unverified") && !said.contains("baton-agent.service:"),
        "systemd dislikes a unit:\n{said}"
    );
    for wanted in [concat!("baton ", env!("CARGO_PKG_VERSION")), "baton:x:", "mine", ".ie"] {
        assert!(said.contains(wanted), "{wanted:?} in\n{said}");
    }
    assert!(
        !Path::new("/usr/lib/systemd/system/baton-agent.service").exists(),
        "nothing of it is on this machine"
    );
}

/// A program that asks for libraries of this machine would fail on another.
#[test]
fn a_tarball_is_made_of_a_static_program_alone() {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new(repository().join("tools/make-tarball"))
        .arg(env!("CARGO_BIN_EXE_baton"))
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(!made.status.success() && text(&made).contains("is not linked statically"), "{}", text(&made));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// As docs/install.md has it. The program is this build's, which the test says is static.
#[test]
fn a_tarball_is_unpacked_over_usr_local() {
    let dir = tempfile::tempdir().unwrap();
    let says = dir.path().join("ldd");
    std::fs::write(&says, "#!/bin/sh\necho '\tstatically linked'\n").unwrap();
    std::fs::set_permissions(&says, std::fs::Permissions::from_mode(0o755)).unwrap();
    let made = run(Command::new(repository().join("tools/make-tarball"))
        .arg(env!("CARGO_BIN_EXE_baton"))
        .arg(dir.path())
        .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display())));
    let tarball = PathBuf::from(made.lines().last().unwrap());
    let host = dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    let said = on_a_host(
        &host,
        &tarball,
        "mv /baton.deb /baton-0-x86_64.tar.gz; tar -xzf baton-*-x86_64.tar.gz -C /usr/local --strip-components=1; \
         /usr/local/bin/baton --version; ls /usr/local/share/baton/systemd /usr/local/share/man/man1 /usr/local/share/baton/examples; \
         grep -h ^ExecStart= /usr/local/share/baton/systemd/*",
    );
    for wanted in [
        concat!("baton ", env!("CARGO_PKG_VERSION")),
        "baton-agent.service",
        "baton-switchover.1.gz",
        "baton.yml",
        "ExecStart=/usr/local/bin/baton agent /etc/baton/baton.yml",
    ] {
        assert!(said.contains(wanted), "{wanted:?} in\n{said}");
    }
    assert!(!Path::new("/usr/local/share/baton/systemd").exists(), "nothing of it is on this machine");
}

#[test]
fn every_command_of_the_units_is_one_of_the_grammar() {
    for unit in ["agent", "router", "vip", "dns"] {
        let path = repository().join(format!("packaging/systemd/baton-{unit}.service"));
        let unit_file = std::fs::read_to_string(&path).unwrap();
        let start =
            unit_file.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/baton ")).unwrap();
        let command = start.split(' ').next().unwrap();
        assert_eq!(command, unit);
        let help = Command::new(env!("CARGO_BIN_EXE_baton")).args([command, "--help"]).output().unwrap();
        assert!(help.status.success(), "{}", text(&help));
    }
}
