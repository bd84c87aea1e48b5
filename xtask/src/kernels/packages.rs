//! Debian's kernels and the emulator: fetched as packages and only unpacked into the target folder, never installed.
//!
//! Apt is given a list of sources and a state of its own, so that it does not matter which release this machine runs, and
//! nothing of the machine's own is changed.

use crate::process::{Done, Failure, capture, find_program, run_quietly};
use crate::workspace::Workspace;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The series that are tested: bookworm's own kernel and that of its backports.
pub(super) const SERIES: [&str; 2] = ["6.1", "6.12"];

/// The releases that have them, with the key that Debian's package `debian-archive-keyring` installs.
const SOURCES: &str = "\
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-backports main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
";

/// Depends on the newest kernel of a series; a smaller kernel that still has all that is needed here.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

const EMULATOR: &str = "qemu-system-x86_64";
const EMULATOR_PACKAGE: &str = "qemu-system-x86";

/// What of a kernel's modules is unpacked.
const MODULE_FOLDERS: [&str; 2] = ["kernel/net", "kernel/drivers/net"];

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// Its series, as `6.1`.
    pub(super) series: &'static str,
    /// Its version, as `uname -r` prints it.
    pub(super) release: String,
    /// The image.
    pub(super) image: PathBuf,
    /// The folder of its modules.
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// Its version, as `uname -r` prints it.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }
}

/// The emulator, with what it needs to be run from where it is.
#[derive(Clone, Debug)]
pub(crate) struct Emulator {
    program: PathBuf,
    /// Where it was unpacked; none if the machine has it installed.
    folder: Option<PathBuf>,
}

impl Emulator {
    /// The program, with the folders of its libraries and of its firmware.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(folder) = &self.folder {
            let libraries = libraries(folder);
            command
                .env("LD_LIBRARY_PATH", libraries)
                .env("QEMU_MODULE_DIR", folder.join("usr/lib/x86_64-linux-gnu/qemu"));
            for firmware in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(folder.join(firmware));
            }
        }
        command
    }
}

fn libraries(folder: &Path) -> String {
    ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
        .map(|part| folder.join(part).display().to_string())
        .join(":")
}

/// All that booting takes, and whether some of it had to be fetched.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The kernels, oldest first.
    pub(crate) kernels: Vec<Kernel>,
    /// What boots them.
    pub(crate) emulator: Emulator,
    /// Whether anything was missing.
    pub(crate) fetched: bool,
}

/// Fetches what is missing of the kernels and the emulator; silent when nothing is.
pub(crate) fn ensure(workspace: &Workspace) -> Done<Ready> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Failure::new(
            "the kernels that are booted are for x86-64, and so must this machine be",
        ));
    }
    let folder = folder(workspace);
    let mut apt = Apt::new(&folder.join("apt"));
    let mut kernels = Vec::new();
    for series in SERIES {
        let unpacked = folder.join(series);
        let kernel = match kernel_in(series, &unpacked) {
            Some(kernel) => kernel,
            None => fetch_kernel(&mut apt, series, &unpacked)?,
        };
        kernels.push(kernel);
    }
    let emulator = match find_emulator(&folder.join("emulator")) {
        Some(emulator) => emulator,
        None => fetch_emulator(&mut apt, &folder.join("emulator"))?,
    };
    Ok(Ready {
        kernels,
        emulator,
        fetched: apt.ready,
    })
}

/// Where all of it is.
pub(super) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target().join("kernels")
}

fn kernel_in(series: &'static str, folder: &Path) -> Option<Kernel> {
    let release = fs::read_to_string(folder.join("release")).ok()?;
    Some(Kernel {
        series,
        image: folder.join("boot").join(format!("vmlinuz-{release}")),
        modules: folder.join("lib/modules").join(&release),
        release,
    })
}

fn find_emulator(folder: &Path) -> Option<Emulator> {
    let installed = find_program(EMULATOR).map(|program| Emulator { program, folder: None });
    let unpacked = Emulator {
        program: folder.join("usr/bin").join(EMULATOR),
        folder: Some(folder.to_owned()),
    };
    installed
        .into_iter()
        .chain([unpacked])
        .find(|emulator| capture(emulator.command().arg("--version")).is_ok())
}

fn fetch_kernel(apt: &mut Apt, series: &'static str, folder: &Path) -> Done<Kernel> {
    apt.prepare()?;
    let shown = capture(apt.command("apt-cache").args(["show", KERNEL_PACKAGE]))?;
    let package = image_package(&shown, series).ok_or_else(|| {
        Failure::new(format!(
            "Debian bookworm and its backports have no kernel {series}: {KERNEL_PACKAGE} depends on none"
        ))
    })?;
    println!("kernels: fetches {package} into {} (30 MB)", folder.display());
    let archives = folder.with_extension("archives");
    make(&archives)?;
    run_quietly(
        apt.command("apt-get")
            .args(["download", &package])
            .current_dir(&archives),
    )?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    make(folder)?;
    let mut members = vec![format!("./boot/vmlinuz-{release}")];
    members.extend(MODULE_FOLDERS.map(|part| format!("./lib/modules/{release}/{part}")));
    for archive in files(&archives)? {
        unpack(&archive, folder, &members)?;
    }
    remove(&archives)?;
    // Written last: whoever finds it finds all the rest.
    fs::write(folder.join("release"), &release).map_err(|error| cannot("write", &folder.join("release"), &error))?;
    kernel_in(series, folder).ok_or_else(|| Failure::new(format!("kernel {series} was not unpacked")))
}

/// The newest kernel package of a series in what `apt-cache show` says of the package that depends on it.
fn image_package(shown: &str, series: &str) -> Option<String> {
    let wanted = format!("linux-image-{series}.");
    shown
        .lines()
        .filter_map(|line| line.strip_prefix("Depends: "))
        .flat_map(|depends| depends.split(", "))
        .filter_map(|depend| depend.split(' ').next())
        .find(|package| package.starts_with(&wanted))
        .map(str::to_owned)
}

fn fetch_emulator(apt: &mut Apt, folder: &Path) -> Done<Emulator> {
    apt.prepare()?;
    println!("kernels: fetches {EMULATOR_PACKAGE} into {} (20 MB)", folder.display());
    let download = [
        "install",
        "--yes",
        "--download-only",
        "--no-install-recommends",
        "--target-release",
        "bookworm-backports",
        EMULATOR_PACKAGE,
    ];
    run_quietly(apt.command("apt-get").args(download))?;
    make(folder)?;
    for archive in files(&apt.archives())? {
        unpack(&archive, folder, &[])?;
    }
    remove(&apt.archives())?;
    find_emulator(folder).ok_or_else(|| {
        Failure::new(format!(
            "{EMULATOR} was unpacked into {} but does not run there: install Debian's package {EMULATOR_PACKAGE}",
            folder.display()
        ))
    })
}

/// Unpacks these members of a Debian package; all if none is named.
fn unpack(archive: &Path, folder: &Path, members: &[String]) -> Done {
    if archive.extension().is_none_or(|extension| extension != "deb") {
        return Ok(());
    }
    let line = format!(
        "dpkg-deb --fsys-tarfile {} | tar -x -C {} {}",
        quoted(archive),
        quoted(folder),
        members.join(" ")
    );
    run_quietly(Command::new("sh").args(["-c", &line]))
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Apt with a state of its own.
struct Apt {
    folder: PathBuf,
    /// Whether its lists are of now.
    ready: bool,
}

impl Apt {
    fn new(folder: &Path) -> Self {
        Apt {
            folder: folder.to_owned(),
            ready: false,
        }
    }

    fn archives(&self) -> PathBuf {
        self.folder.join("cache/archives")
    }

    fn prepare(&mut self) -> Done {
        if self.ready {
            return Ok(());
        }
        if find_program("apt-get").is_none() {
            return Err(Failure::new(
                "the kernels come from Debian's archive by apt-get, which is not here: run this on Debian or Ubuntu",
            ));
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            make(&self.folder.join(part))?;
        }
        let sources = self.folder.join("sources.list");
        fs::write(&sources, SOURCES).map_err(|error| cannot("write", &sources, &error))?;
        println!("kernels: apt-get update, with sources and lists of its own");
        run_quietly(self.command("apt-get").args(["update", "--quiet"]))?;
        self.ready = true;
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::Etc::SourceList", self.folder.join("sources.list")),
            ("Dir::Etc::SourceParts", PathBuf::from("-")),
            ("Dir::State::Lists", self.folder.join("lists")),
            ("Dir::Cache", self.folder.join("cache")),
            ("Acquire::Languages", PathBuf::from("none")),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        command
    }
}

fn make(folder: &Path) -> Done {
    fs::create_dir_all(folder).map_err(|error| cannot("make", folder, &error))
}

fn remove(folder: &Path) -> Done {
    fs::remove_dir_all(folder).map_err(|error| cannot("remove", folder, &error))
}

fn files(folder: &Path) -> Done<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|error| cannot("read", folder, &error))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// A failure that names the file.
pub(super) fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_of_a_series_is_what_the_package_depends_on() {
        let shown = "Package: linux-image-cloud-amd64\nVersion: 6.12.95-1\nDepends: linux-image-6.12.95+deb12-cloud-amd64 (= 6.12.95-1)\n\n\
                     Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), other\n\n\
                     Package: linux-image-cloud-amd64\nVersion: 6.1.176-1\nDepends: linux-image-6.1.0-50-cloud-amd64\n";
        assert_eq!(
            image_package(shown, "6.1").as_deref(),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(
            image_package(shown, "6.12").as_deref(),
            Some("linux-image-6.12.95+deb12-cloud-amd64")
        );
        assert_eq!(image_package(shown, "5.10"), None);
    }

    #[test]
    fn a_path_is_quoted_for_the_shell() {
        assert_eq!(quoted(Path::new("/a b/c'd")), r"'/a b/c'\''d'");
    }
}
