//! Namespaces for a test: gone when it ends, however it ends.
#![allow(dead_code, clippy::unwrap_used)]

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::future::Future;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use weft::netns::{Netns, NetnsSpec};

/// How long a condition may take to come true on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A namespace as `ip netns add` makes it.
pub(crate) struct NetnsGuard {
    pub(crate) name: String,
}

impl NetnsGuard {
    pub(crate) fn new() -> NetnsGuard {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces: run it as root"
        );
        let name = format!(
            "weft-test-{}-{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        run("ip", &["netns", "add", &name]);
        let guard = NetnsGuard { name };
        guard.ip("link set lo up");
        guard
    }

    pub(crate) fn spec(&self) -> NetnsSpec {
        NetnsSpec::Name(self.name.clone())
    }

    pub(crate) fn open(&self) -> Netns {
        Netns::open(&self.spec()).unwrap()
    }

    /// `ip <words>` inside.
    pub(crate) fn ip(&self, words: &str) -> String {
        let mut arguments = vec!["-n", &self.name];
        arguments.extend(words.split_whitespace());
        run("ip", &arguments)
    }

    /// Any program inside.
    pub(crate) fn exec(&self, words: &str) -> String {
        let mut arguments = vec!["netns", "exec", &self.name];
        arguments.extend(words.split_whitespace());
        run("ip", &arguments)
    }

    /// Runs `test` on a thread inside, with a tokio runtime there: what a daemon that was started inside would see.
    pub(crate) fn block_on<T: Send>(&self, test: impl AsyncFnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = File::open(self.spec().path()).unwrap();
                setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(test())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for NetnsGuard {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Waits until `condition` answers something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}
