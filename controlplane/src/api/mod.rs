//! What users declare, over a unix socket: HTTP in the shapes of Docker's Engine API (`spec/ipam.md` 6.5, 6.6).

mod cluster;
mod debug;
mod networks;
mod reply;
mod services;
mod swarm;
pub mod types;

use crate::daemon::Handle;
use axum::Router;
use axum::extract::{self, DefaultBodyLimit, State};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, delete, get, post};
use reply::Refusal;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// Requests are small.
const MAX_BODY: usize = 1 << 20;

/// Owner and group of the socket may use it, as Docker's.
const SOCKET_MODE: u32 = 0o660;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers there.
    #[error("api-socket {0}: another weftd answers there; stop it or choose another api-socket")]
    InUse(PathBuf),
    /// Something that is no socket is there.
    #[error("api-socket {0}: a file that is no socket is there; move it away or choose another api-socket")]
    NotASocket(PathBuf),
    /// The file system refused.
    #[error("api-socket {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Removes a socket's file when dropped, unless another daemon has put its own there meanwhile.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: Option<u64>,
}

impl SocketFile {
    /// The file that is there now.
    pub fn at(path: &Path) -> SocketFile {
        SocketFile {
            path: path.to_owned(),
            inode: inode(path),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            // Nothing is lost if it stays: the next daemon replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|found| found.ino())
}

/// Makes the socket. One that a dead daemon left behind is replaced.
pub async fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let io = |source| BindError::Io {
        path: path.to_owned(),
        source,
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(io)?;
    }
    if let Ok(there) = std::fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(BindError::InUse(path.to_owned()));
        }
        std::fs::remove_file(path).map_err(io)?;
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(io)?;
    Ok(listener)
}

/// Serves until `shutdown`, and lets requests in flight end.
pub async fn serve(
    listener: UnixListener,
    handle: Handle,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(handle))
        .with_graceful_shutdown(shutdown)
        .await
}

fn router(handle: Handle) -> Router {
    Router::new()
        .route("/_ping", get(async || "OK"))
        .route("/version", get(cluster::version))
        .route("/info", get(cluster::info))
        .route("/networks", get(networks::list))
        .route(
            "/networks/create",
            post(networks::create).merge(named_create(networks::inspect, networks::remove)),
        )
        .route("/networks/{network}", get(networks::inspect).delete(networks::remove))
        .route("/networks/{network}/connect", post(networks::connect))
        .route("/networks/{network}/disconnect", post(networks::disconnect))
        .route("/services", get(services::list))
        .route(
            "/services/create",
            post(services::create).merge(named_create(services::inspect, services::remove)),
        )
        .route(
            "/services/{service}",
            get(services::inspect).merge(delete(services::remove)),
        )
        .route("/services/{service}/update", post(services::update))
        .route("/tasks", get(services::tasks))
        .route("/nodes", get(cluster::nodes))
        .route("/cluster/init", post(cluster::init))
        .route("/cluster/join", post(cluster::join))
        .route("/cluster/leave", post(cluster::leave))
        .route("/cluster/token", get(cluster::token))
        .route("/swarm", get(swarm::status))
        .route("/swarm/join", post(swarm::join))
        .route("/swarm/leave", post(swarm::leave))
        .route("/cluster/token/rotate", post(cluster::rotate_token))
        .route("/cluster/keys", get(cluster::keys))
        .route("/cluster/keys/rotate", post(cluster::rotate_keys))
        .route("/debug/recording", post(debug::record))
        .route("/debug/recording/stop", post(debug::stop))
        .fallback(async |uri: axum::http::Uri| Refusal::not_found(format!("page not found: {}", uri.path())))
        .method_not_allowed_fallback(async |method: axum::http::Method, uri: axum::http::Uri| {
            Refusal::invalid(format!("{} is not possible with {method}", uri.path()))
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(handle)
}

/// A network or service may be named `create` too: what is not a POST to that path is about it.
fn named_create<A, AF, B, BF>(inspect: A, remove: B) -> MethodRouter<Handle>
where
    A: FnOnce(State<Handle>, extract::Path<String>) -> AF + Clone + Send + Sync + 'static,
    B: FnOnce(State<Handle>, extract::Path<String>) -> BF + Clone + Send + Sync + 'static,
    AF: Future<Output: IntoResponse> + Send + 'static,
    BF: Future<Output: IntoResponse> + Send + 'static,
{
    let name = || extract::Path("create".to_owned());
    get(async move |handle| inspect(handle, name()).await).delete(async move |handle| remove(handle, name()).await)
}
