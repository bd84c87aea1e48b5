//! Run this inside that network namespace.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use nix::{getsockopt_impl, libc, sockopt_impl};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How a user names a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetnsSpec {
    /// A name under `/run/netns`, as `ip netns add` makes it.
    Name(String),
    /// A path to a namespace file.
    Path(PathBuf),
    /// The namespace of a process.
    Pid(u32),
}

/// Where `ip netns add` keeps its names.
const NAMED: &str = "/run/netns";

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

impl NetnsSpec {
    /// The namespace file that it means.
    pub fn path(&self) -> PathBuf {
        match self {
            NetnsSpec::Name(name) => Path::new(NAMED).join(name),
            NetnsSpec::Path(path) => path.clone(),
            NetnsSpec::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
        }
    }
}

impl fmt::Display for NetnsSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetnsSpec::Name(name) => write!(f, "network namespace {name:?}"),
            NetnsSpec::Path(path) => write!(f, "network namespace {}", path.display()),
            NetnsSpec::Pid(pid) => write!(f, "network namespace of process {pid}"),
        }
    }
}

/// Why a namespace could not be opened or entered. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The text can be no name of a namespace.
    #[error(
        "{name:?} is not a name of a network namespace: a name has 1 to 255 characters and no '/'; give a file with its whole path"
    )]
    InvalidName {
        /// What was given.
        name: String,
    },
    /// No such name.
    #[error(
        "network namespace {name:?} does not exist: `ip netns ls` lists the names, `ip netns add {name}` makes one"
    )]
    NoSuchName {
        /// What was given.
        name: String,
    },
    /// No such file.
    #[error("network namespace file {} does not exist", path.display())]
    NoSuchPath {
        /// What was given.
        path: PathBuf,
    },
    /// No such process.
    #[error("no process with pid {pid}")]
    NoSuchProcess {
        /// What was given.
        pid: u32,
    },
    /// A file, but of another kind.
    #[error("{} is not a network namespace: a file as /run/netns/NAME or /proc/PID/ns/net is", path.display())]
    NotANetns {
        /// The file.
        path: PathBuf,
    },
    /// The daemon's own namespace.
    #[error("{spec} is the namespace that the daemon itself runs in: an endpoint needs one of its own")]
    Own {
        /// What was given.
        spec: NetnsSpec,
    },
    /// Entering needs a privilege.
    #[error("missing capability CAP_SYS_ADMIN to enter {spec}: run weftd as root")]
    NotPermitted {
        /// What was given.
        spec: NetnsSpec,
    },
    /// The kernel refused for another reason.
    #[error("cannot {action} {spec}: {source}")]
    Kernel {
        /// `open` or `enter`.
        action: &'static str,
        /// What was given.
        spec: NetnsSpec,
        /// Why.
        source: io::Error,
    },
    /// No socket there.
    #[error("cannot bind {protocol} {address} in {spec}: {source}")]
    Bind {
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// The address wanted.
        address: SocketAddr,
        /// Where.
        spec: NetnsSpec,
        /// Why.
        source: io::Error,
    },
    /// What was to be run inside ended by a panic.
    #[error("a task inside {spec} panicked")]
    Panicked {
        /// What was given.
        spec: NetnsSpec,
    },
}

/// An open network namespace. It lives in the kernel at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    spec: NetnsSpec,
    file: OwnedFd,
    identity: Identity,
}

/// Device and inode of a namespace file: two files mean the same namespace when they are equal.
type Identity = (u64, u64);

impl Netns {
    /// Opens a namespace, and proves that it is one, that it can be entered and that it is not the caller's own.
    pub fn open(spec: &NetnsSpec) -> Result<Netns, NetnsError> {
        check_name(spec)?;
        let path = spec.path();
        // Without O_NONBLOCK a path to a FIFO would hang here.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = open(&path, flags, Mode::empty()).map_err(|errno| cannot_open(spec, errno))?;
        let kind = fstatfs(&file).map_err(|errno| kernel("open", spec, errno))?;
        if kind.filesystem_type() != NSFS_MAGIC {
            return Err(NetnsError::NotANetns { path });
        }
        let identity = identity(&file).map_err(|errno| kernel("open", spec, errno))?;
        if own_identity().map_err(|errno| kernel("open", spec, errno))? == identity {
            return Err(NetnsError::Own { spec: spec.clone() });
        }
        let netns = Netns {
            spec: spec.clone(),
            file,
            identity,
        };
        netns.run(|| ())?;
        Ok(netns)
    }

    /// How the user named it.
    pub fn spec(&self) -> &NetnsSpec {
        &self.spec
    }

    /// The namespace's inode number: equal for equal namespaces as long as one of them is open.
    pub fn inode(&self) -> u64 {
        self.identity.1
    }

    /// Runs `task` inside, on a thread of its own that ends with it, and waits for its result: no other thread ever changes its
    /// namespace. Meant for tasks of microseconds, as opening a socket: a socket stays in the namespace that it was made in.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        std::thread::scope(|scope| {
            let inside = || setns(&self.file, CloneFlags::CLONE_NEWNET).map(|()| task());
            let thread = std::thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, inside)
                .map_err(|source| NetnsError::Kernel {
                    action: "enter",
                    spec: self.spec.clone(),
                    source,
                })?;
            match thread.join() {
                Ok(Ok(result)) => Ok(result),
                Ok(Err(errno)) => Err(self.cannot_enter(errno)),
                Err(_) => Err(NetnsError::Panicked {
                    spec: self.spec.clone(),
                }),
            }
        })
    }

    /// A UDP socket bound inside, for use outside.
    pub fn udp_socket(&self, address: SocketAddr) -> Result<UdpSocket, NetnsError> {
        self.run(|| UdpSocket::bind(address))?
            .map_err(|source| NetnsError::Bind {
                protocol: "UDP",
                address,
                spec: self.spec.clone(),
                source,
            })
    }

    /// A TCP socket listening inside, for use outside.
    pub fn tcp_listener(&self, address: SocketAddr) -> Result<TcpListener, NetnsError> {
        self.run(|| TcpListener::bind(address))?
            .map_err(|source| NetnsError::Bind {
                protocol: "TCP",
                address,
                spec: self.spec.clone(),
                source,
            })
    }

    /// The kernel's cookie of the namespace, which no other one gets before the host starts again (Linux 5.14).
    pub fn cookie(&self) -> Result<u64, NetnsError> {
        self.run(cookie_of_caller)?
            .map_err(|errno| kernel("tell the cookie of", &self.spec, errno))
    }

    fn cannot_enter(&self, errno: Errno) -> NetnsError {
        match errno {
            Errno::EPERM => NetnsError::NotPermitted {
                spec: self.spec.clone(),
            },
            // The file is a namespace, but of another kind.
            Errno::EINVAL => NetnsError::NotANetns { path: self.spec.path() },
            errno => kernel("enter", &self.spec, errno),
        }
    }
}

sockopt_impl!(
    /// `SO_NETNS_COOKIE`.
    NetnsCookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

/// The cookie of the namespace that the calling thread is in.
pub fn cookie_of_caller() -> nix::Result<u64> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    getsockopt(&socket, NetnsCookie)
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl PartialEq for Netns {
    fn eq(&self, other: &Netns) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Netns {}

fn check_name(spec: &NetnsSpec) -> Result<(), NetnsError> {
    match spec {
        NetnsSpec::Name(name)
            if name.is_empty() || name.len() > 255 || name.contains(['/', '\0']) || name == "." || name == ".." =>
        {
            Err(NetnsError::InvalidName { name: name.clone() })
        }
        _ => Ok(()),
    }
}

fn cannot_open(spec: &NetnsSpec, errno: Errno) -> NetnsError {
    match (errno, spec) {
        (Errno::ENOENT | Errno::ENOTDIR, NetnsSpec::Name(name)) => NetnsError::NoSuchName { name: name.clone() },
        (Errno::ENOENT | Errno::ENOTDIR, NetnsSpec::Path(path)) => NetnsError::NoSuchPath { path: path.clone() },
        (Errno::ENOENT | Errno::ESRCH, NetnsSpec::Pid(pid)) => NetnsError::NoSuchProcess { pid: *pid },
        (Errno::EACCES | Errno::EPERM, _) => NetnsError::NotPermitted { spec: spec.clone() },
        // What an open with O_NONBLOCK says of a socket or of a device without a driver.
        (Errno::ENXIO | Errno::ENODEV, _) => NetnsError::NotANetns { path: spec.path() },
        (errno, _) => kernel("open", spec, errno),
    }
}

fn kernel(action: &'static str, spec: &NetnsSpec, errno: Errno) -> NetnsError {
    NetnsError::Kernel {
        action,
        spec: spec.clone(),
        source: errno.into(),
    }
}

fn identity(file: impl AsFd) -> nix::Result<Identity> {
    fstat(file).map(|stat| (stat.st_dev, stat.st_ino))
}

fn own_identity() -> nix::Result<Identity> {
    identity(open(OWN, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
}
