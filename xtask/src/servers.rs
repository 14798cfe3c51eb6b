//! Servers that tests start, fetched where they are missing.
//!
//! Owns: which Debian package brings a server, and where it is unpacked. Never: installs anything for the whole
//! machine, needs root, or starts a server: that is `tests/servers`, which also says where it looks.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::report::Verdict;
use crate::workspace::Workspace;

/// With the value `required`, a test whose server is missing fails; read by `tests/servers`.
pub(crate) const REQUIRED: &str = "KAPELL_TEST_SERVERS";

/// Below the target directory; `tests/servers` looks there.
const UNPACKED: &str = "tools/servers";
/// Instead of it, where the target directory is root's own: a server never runs as root, and could not enter it.
const UNPACKED_BY_ROOT: &str = "/var/tmp/kapell-test-servers";

/// Fetch the servers that tests start
///
/// `cargo xtask test` does it by itself; call it before `cargo nextest run`, which skips tests whose server is missing.
/// What the machine has is used; the Debian packages of what it lacks are unpacked under the target directory, without
/// root and without installing anything.
#[derive(clap::Args)]
pub(crate) struct Args {}

impl Args {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        ensure_all(workspace)?;
        Ok(Verdict::Holds)
    }
}

/// A server that comes in a Debian package.
struct Server {
    /// What to ask apt for.
    package: &'static str,
    /// Whether a package that would be installed with it is unpacked too; libraries are, unless `is_spare`.
    is_part: fn(&str) -> bool,
    /// Its program, below a root: the folders to look in, and its name.
    is_in: fn(&Path) -> bool,
}

/// Whichever version Debian has; 15 or later.
const POSTGRES: Server = Server {
    package: "postgresql",
    is_part: |package| {
        package.strip_prefix("postgresql-").is_some_and(|version| version.parse::<u32>().is_ok())
    },
    is_in: |root| {
        let versions = std::fs::read_dir(root.join("usr/lib/postgresql")).into_iter().flatten();
        let found =
            versions.filter_map(Result::ok).any(|version| version.path().join("bin/postgres").exists());
        found || root == Path::new("/") && on_path("postgres")
    },
};

/// Whichever version Debian has, or a newer one that is on the path; 3.4 or later.
const ETCD: Server = Server {
    package: "etcd-server",
    is_part: |package| package == "etcd-server",
    is_in: |root| root.join("usr/bin/etcd").exists() || root == Path::new("/") && on_path("etcd"),
};

/// Whichever version Debian has; 2.9 or later.
const NATS: Server = Server {
    package: "nats-server",
    is_part: |package| package == "nats-server",
    is_in: |root| {
        let folders = ["usr/bin", "usr/sbin"].map(|folder| root.join(folder).join("nats-server"));
        folders.iter().any(|program| program.exists()) || root == Path::new("/") && on_path("nats-server")
    },
};

/// No server, but what steps the clock of one process: a library that is loaded before others.
const CLOCK: Server = Server {
    package: "libfaketime",
    is_part: |package| package == "libfaketime",
    is_in: |root| {
        let folders = std::fs::read_dir(root.join("usr/lib")).into_iter().flatten();
        let mut found = folders.filter_map(Result::ok).map(|folder| folder.path().join("faketime"));
        found.any(|folder| folder.exists())
    },
};

/// Makes the clocks of processes steppable.
pub(crate) fn ensure_clock(workspace: &Workspace) -> Result<()> {
    ensure(&CLOCK, workspace)
}

/// Makes every server startable by the tests.
pub(crate) fn ensure_all(workspace: &Workspace) -> Result<()> {
    [&POSTGRES, &ETCD, &NATS].into_iter().try_for_each(|server| ensure(server, workspace))
}

/// Whichever version the machine has, else its Debian packages, unpacked under the target directory, in sight.
fn ensure(server: &Server, workspace: &Workspace) -> Result<()> {
    let root = match is_open(workspace.target()) {
        true => workspace.target().join(UNPACKED),
        false => PathBuf::from(UNPACKED_BY_ROOT),
    };
    if (server.is_in)(Path::new("/")) || (server.is_in)(&root) {
        return Ok(());
    }
    eprintln!(
        "unpacking {} and its libraries into {} (once, about a minute)",
        server.package,
        root.display()
    );
    unpack(server, &root).with_context(|| {
        let package = server.package;
        format!("{package} is missing and could not be fetched (hint: apt-get install {package})")
    })?;
    match (server.is_in)(&root) {
        true => Ok(()),
        false => bail!("the packages of {} hold no server", server.package),
    }
}

/// Whether the user that servers run as may enter the folder: whoever calls us, or `nobody` when that is root.
fn is_open(folder: &Path) -> bool {
    let may = |folder: &Path| folder.metadata().is_ok_and(|found| found.mode() & 0o001 != 0);
    let is_root = Path::new("/proc/self").metadata().is_ok_and(|process| process.uid() == 0);
    !is_root || folder.ancestors().all(may)
}

fn unpack(server: &Server, root: &Path) -> Result<()> {
    let apt = Apt::ready(root, server.package)?;
    let archives = root.join("archives");
    // What an interrupted download left behind.
    _ = std::fs::remove_dir_all(&archives);
    std::fs::create_dir_all(&archives)?;
    let packages = missing(&apt.plan(server.package)?, server.is_part);
    process::output(apt.get().arg("download").args(&packages).current_dir(&archives))?;
    for archive in std::fs::read_dir(&archives)? {
        process::output(Command::new("dpkg-deb").arg("--extract").arg(archive?.path()).arg(root))?;
    }
    std::fs::remove_dir_all(archives)?;
    Ok(())
}

/// How apt is asked: with the machine's lists of packages, or, where it has none, with lists of our own.
struct Apt {
    lists: Option<PathBuf>,
}

impl Apt {
    fn ready(root: &Path, package: &str) -> Result<Self> {
        let machine = Self { lists: None };
        if machine.plan(package).is_ok() {
            return Ok(machine);
        }
        let own = Self { lists: Some(root.join("lists")) };
        for folder in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        process::output(own.get().arg("update"))?;
        Ok(own)
    }

    fn get(&self) -> Command {
        let mut apt = Command::new("apt-get");
        // Run as root it would give its downloads to a user who may not see the target directory.
        apt.args(["--quiet", "-o", "APT::Sandbox::User=root"]).env("LC_ALL", "C");
        if let Some(lists) = &self.lists {
            let option = |name: &str, path: &Path| format!("{name}={}", path.display());
            apt.args(["-o", &option("Dir::State::Lists", lists)]);
            apt.args(["-o", &option("Dir::Cache", &lists.with_file_name("cache"))]);
        }
        apt
    }

    /// What an installation would do, a line each; nothing is done.
    fn plan(&self, package: &str) -> Result<String> {
        process::output(self.get().args(["--simulate", "--no-install-recommends", "install", package]))
    }
}

/// Of a plan, the packages to unpack. One that would only be brought up to date (`Inst name [old] (new)`) is there.
fn missing(plan: &str, is_part: fn(&str) -> bool) -> Vec<String> {
    let installed = plan.lines().filter_map(|line| line.strip_prefix("Inst "));
    let new = installed.filter_map(|line| line.split_once(' ').filter(|(_, rest)| !rest.starts_with('[')));
    let wanted = |name: &&str| is_part(name) || (name.starts_with("lib") && !is_spare(name));
    new.map(|(name, _)| name).filter(wanted).map(str::to_owned).collect()
}

/// Libraries that are asked for and not needed: those of scripts, a compiler of queries, and the C library, which the
/// machine has in the version that fits its loader.
fn is_spare(library: &str) -> bool {
    ["libc6", "libc-", "libllvm", "libperl"].iter().any(|begin| library.starts_with(begin))
        || library.ends_with("-perl")
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_the_server_and_the_libraries_that_are_not_there() {
        let plan = "Reading package lists...\n\
                    Inst libpq5 (15.1 Debian:12 [amd64])\n\
                    Inst libssl3 [3.0.1] (3.0.2 Debian:12 [amd64])\n\
                    Inst libllvm14 (14 Debian:12 [amd64])\n\
                    Inst libjson-perl (4 Debian:12 [all])\n\
                    Inst postgresql-client-15 (15.1 Debian:12 [amd64])\n\
                    Inst postgresql-15 (15.1 Debian:12 [amd64])\n\
                    Inst postgresql (15 Debian:12 [all])\n\
                    Conf libpq5 (15.1 Debian:12 [amd64])\n";
        assert_eq!(missing(plan, POSTGRES.is_part), ["libpq5", "postgresql-15"]);
    }
}
