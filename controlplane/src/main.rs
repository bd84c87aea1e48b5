//! `weftd`: the daemon, one per host.

use clap::Parser;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};
use weft::api;
use weft::config::{Config, Flags};
use weft::daemon::{Command, Daemon, Handle, Parts};
use weft::dataplane::{self, Dataplane, Hook};
use weft::gossip::Sockets;
use weft::netlink::{self, Netlink};
use weft::store::NodeStore;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let config = match Config::load(&flags) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("weftd: {error}");
            return ExitCode::FAILURE;
        }
    };
    if flags.validate {
        println!("configuration OK");
        return ExitCode::SUCCESS;
    }
    init_log(&config);
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn init_log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::new(&config.log_level);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}

/// Two worker threads: the daemon's loop, and everything that waits for the kernel or for others.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn run(config: Config) -> Result<(), String> {
    // Before anything else is made: a signal on the way up must neither leave that behind nor, as SIGHUP would, end the daemon.
    let (interrupt, terminate) = (
        handle_signal(SignalKind::interrupt())?,
        handle_signal(SignalKind::terminate())?,
    );
    let hangup = handle_signal(SignalKind::hangup())?;
    let netlink = Netlink::open().map_err(|error| error.to_string())?;
    let advertise = advertise_address(&config, &netlink).await?;
    let vtep = data_path_address(&config, advertise)?;
    let uplink = match &config.uplink {
        Some(name) => name.clone(),
        None => {
            netlink
                .default_uplink(Some(vtep))
                .await
                .map_err(|error| error.to_string())?
                .ifname
        }
    };
    let sockets = Sockets::bind(SocketAddr::new(config.listen_addr, config.gossip_port))?;
    let store = NodeStore::open(&config.data_dir).map_err(|error| error.to_string())?;
    let listener = api::bind(&config.api_socket).await.map_err(|error| error.to_string())?;
    let dataplane = load_dataplane(&config, &netlink, &uplink).await?;
    let underlay = netlink::watch_underlay().map_err(|error| error.to_string())?;
    let _pidfile = config.write_pidfile().map_err(|error| error.to_string())?;

    let (handle, commands) = Handle::new();
    tokio::spawn(reload_on_hangup(hangup, handle.clone()));
    tracing::info!(node = config.node_name, %advertise, %vtep, uplink, attach = dataplane.attach_mode().as_str(), "weftd {}", env!("CARGO_PKG_VERSION"));
    let parts = Parts {
        config,
        advertise,
        vtep,
        uplink,
        dataplane,
        sockets,
        store,
        netlink,
        underlay,
    };
    let daemon = Daemon::start(parts, handle.clone()).await?;
    let (stop_api, api_stopped) = tokio::sync::oneshot::channel::<()>();
    let api = tokio::spawn(api::serve(listener, handle, async move {
        let _ = api_stopped.await;
    }));
    daemon.run(commands, either(interrupt, terminate)).await;
    let _ = stop_api.send(());
    // Requests in flight wait for a daemon that is gone; they end at once.
    let _ = api.await;
    tracing::info!("stopped; the programs and maps stay, and traffic goes on");
    Ok(())
}

async fn advertise_address(config: &Config, netlink: &Netlink) -> Result<Ipv4Addr, String> {
    match config.advertise_addr {
        Some(IpAddr::V4(address)) => Ok(address),
        Some(IpAddr::V6(address)) => Err(format!("advertise-addr {address}: an IPv4 address is wanted")),
        None => netlink.default_uplink(None).await.map(|uplink| uplink.address).map_err(|error| {
            format!("advertise-addr is not set and cannot be found ({error}); set it to the address that other nodes reach this one at")
        }),
    }
}

fn data_path_address(config: &Config, advertise: Ipv4Addr) -> Result<Ipv4Addr, String> {
    match config.data_path_addr {
        Some(IpAddr::V4(address)) => Ok(address),
        Some(IpAddr::V6(address)) => Err(format!("data-path-addr {address}: an IPv4 address is wanted")),
        None => Ok(advertise),
    }
}

async fn load_dataplane(config: &Config, netlink: &Netlink, uplink: &str) -> Result<Dataplane, String> {
    let mut dataplane = Dataplane::load(&dataplane::Config {
        object: config.bpf_object.clone(),
        pin_directory: config.bpf_pin_dir.clone(),
        data_path_port: config.data_path_port,
        log_drops: config.log_level == "trace",
        force_clsact: false,
    })
    .map_err(|error| error.to_string())?;
    let ifindex = netlink.ifindex(uplink).await.map_err(|error| error.to_string())?;
    dataplane
        .attach(Hook::Uplink, ifindex)
        .map_err(|error| error.to_string())?;
    match netlink.ensure_gro_device(config.data_path_port).await {
        Ok(outcome) => tracing::debug!(?outcome, "device for receive offload of VXLAN"),
        // Without it packets still flow, one by one.
        Err(error) => tracing::warn!(%error, "no receive offload of VXLAN, bulk traffic will be slower"),
    }
    Ok(dataplane)
}

fn handle_signal(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|error| format!("signal handler not installed: {error}"))
}

async fn either(mut interrupt: Signal, mut terminate: Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

async fn reload_on_hangup(mut hangup: Signal, handle: Handle) {
    while hangup.recv().await.is_some() {
        handle.tell(Command::Reload).await;
    }
}
