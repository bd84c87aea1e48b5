//! `weftd`: the daemon, one per host.

mod cleanup;

use clap::Parser;
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use weft::api;
use weft::config::{Config, Flags};
use weft::daemon::{Command, Daemon, Handle, Parts, Uplink};
use weft::dataplane::{self, Dataplane, Hook, ProgramLog};
use weft::gossip::Sockets;
use weft::netlink::{self, GroDevice, Netlink};
use weft::store::NodeStore;

/// At this level the programs log each dropped packet; below it they do not contain the code for it.
const LOG_DROPS_AT: &str = "trace";

/// What libraries tell of each frame is nobody's business here.
const LIBRARIES: &str = ",h2=info,hyper_util=info,rustls=info,tonic=info,tower=info";

/// How often the programs' ring buffer is emptied, at that level: soon for a reader, and long before it is full at a few thousand
/// drops a second.
const PROGRAM_LOG_INTERVAL: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => return weft::usage::tell("weftd", &error),
    };
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
    if flags.cleanup {
        return match cleanup::run(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("weftd: cleanup: {error}");
                ExitCode::FAILURE
            }
        };
    }
    raise_open_files();
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn init_log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::new(format!("{}{LIBRARIES}", config.log_level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// Two worker threads: the daemon's loop, and everything that waits for the kernel or for others.
///
/// What only looks comes first, the kernel is changed last: a start that fails leaves nothing attached, pinned or listening.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn run(config: Config) -> Result<(), String> {
    // First, so that a signal during the start does not kill it half-way.
    let (interrupt, terminate) = (
        stop_signal(SignalKind::interrupt())?,
        stop_signal(SignalKind::terminate())?,
    );
    let hangup = stop_signal(SignalKind::hangup())?;
    dataplane::check_host().map_err(|error| error.to_string())?;
    let netlink = Netlink::open().map_err(|error| error.to_string())?;
    let advertise = advertise_address(&config, &netlink).await?;
    let vtep = config.data_path_addr.unwrap_or(advertise);
    let listen = config.listen_on(advertise).map_err(|error| error.to_string())?;
    let uplink = match &config.uplink {
        Some(name) => name.clone(),
        None => {
            let key = match config.data_path_addr {
                Some(_) => "data-path-addr",
                None => "advertise-addr",
            };
            let found = netlink.default_uplink(Some(vtep)).await;
            found.map_err(|error| format!("{key}: {error}"))?.ifname
        }
    };
    let uplink_failed = |error: netlink::NetlinkError| format!("uplink: {error}");
    let uplink = Uplink {
        ifindex: netlink.ifindex(&uplink).await.map_err(uplink_failed)?,
        name: uplink,
        named: config.uplink.is_some(),
    };
    if let Some(enslaved) = netlink.enslaved(uplink.ifindex).await.map_err(uplink_failed)? {
        return Err(format!("uplink: {enslaved}"));
    }
    let sockets = Sockets::bind(SocketAddr::new(listen, config.gossip_port)).await?;
    let store = NodeStore::open(&config.data_dir).map_err(|error| format!("data-dir: {error}"))?;
    let listener = api::bind(&config.api_socket).await.map_err(|error| error.to_string())?;
    let _socket_file = api::SocketFile::at(&config.api_socket);
    let underlay = netlink::watch_underlay().map_err(|error| error.to_string())?;
    let neighbors = netlink::watch_neighbors().map_err(|error| error.to_string())?;
    let _pidfile = config.write_pidfile().map_err(|error| error.to_string())?;
    let (dataplane, encap_device) = load_dataplane(&config, &netlink, uplink.ifindex, vtep).await?;

    let (handle, commands) = Handle::new();
    tokio::spawn(reload_on_hangup(hangup, handle.clone()));
    tracing::info!(node = config.node_name, %advertise, %vtep, uplink = uplink.name, "weftd {}", env!("CARGO_PKG_VERSION"));
    for choice in dataplane.features().choices() {
        if choice.better {
            tracing::debug!("feature {choice}");
        } else {
            tracing::info!("feature {choice}");
        }
    }
    let parts = Parts {
        config,
        advertise,
        listen,
        vtep,
        uplink,
        dataplane,
        encap_device,
        sockets,
        store,
        netlink,
        underlay,
        neighbors,
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

async fn advertise_address(config: &Config, netlink: &Netlink) -> Result<IpAddr, String> {
    match config.advertise_addr {
        Some(address) => Ok(address),
        None => netlink.default_uplink(None).await.map(|uplink| uplink.address).map_err(|error| {
            format!("advertise-addr is not set and cannot be found ({error}); set it to the address that other nodes reach this one at")
        }),
    }
}

/// The data plane, and the index of the vxlan device that it sends to, if it does.
type Loaded = (Dataplane, Option<u32>);

async fn load_dataplane(config: &Config, netlink: &Netlink, uplink: u32, vtep: IpAddr) -> Result<Loaded, String> {
    if !dataplane::wants_encap_device(&config.features).map_err(|error| error.to_string())? {
        let dataplane = attach_dataplane(config, uplink, vtep, None)?;
        ensure_receive_offload(config, netlink).await;
        return Ok((dataplane, None));
    }
    // The programs are told its index as they are loaded.
    let device = netlink.ensure_encap_device(config.data_path_port, None).await;
    let device = device.map_err(|error| format!("features \"encap=collect_md\": {error}"))?;
    let attached = attach_dataplane(config, uplink, vtep, Some(device.ifindex));
    if attached.is_err() && device.created {
        netlink.remove_gro_device().await.map_err(|error| error.to_string())?;
    }
    Ok((attached?, Some(device.ifindex)))
}

fn attach_dataplane(
    config: &Config,
    uplink: u32,
    vtep: IpAddr,
    encap_device: Option<u32>,
) -> Result<Dataplane, String> {
    let mut dataplane = Dataplane::load(&dataplane::Config {
        object: config.bpf_object.clone(),
        pin_directory: config.bpf_pin_dir.clone(),
        data_path_port: config.data_path_port,
        log_drops: config.log_level == LOG_DROPS_AT,
        features: config.features,
        encap_device,
        timeouts: config.timeouts.seconds_in_ticks(),
        sizes: config.sizes,
        vtep: Some(vtep),
    })
    .map_err(|error| error.to_string())?;
    if config.log_level == LOG_DROPS_AT
        && let Some(log) = dataplane.take_log()
    {
        tokio::spawn(follow_program_log(log));
    }
    match dataplane.attach(Hook::Uplink, uplink) {
        Ok(()) => Ok(dataplane),
        Err(error) => {
            // What an earlier weftd left goes on; what this one made goes with it.
            if dataplane.attached().is_ok_and(|attached| attached.is_empty())
                && let Err(error) = dataplane.remove()
            {
                tracing::warn!(%error, "programs and maps of a failed start stay");
            }
            Err(error.to_string())
        }
    }
}

async fn ensure_receive_offload(config: &Config, netlink: &Netlink) {
    match netlink.ensure_gro_device(config.data_path_port).await {
        Ok(GroDevice::AlreadyServed { name }) => tracing::info!(
            "UDP port {} is also that of the vxlan device {name:?}: it keeps its VNIs, and packets of weft's never get there",
            config.data_path_port
        ),
        Ok(outcome) => tracing::debug!(?outcome, "device for receive offload of VXLAN"),
        // Without it packets still flow, one by one; the daemon tells, and tries again.
        Err(error) => tracing::debug!(%error, "no device for receive offload of VXLAN"),
    }
}

/// Each forwarded DNS query holds a descriptor; the usual soft limit of 1024 is for programs that use `select`.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "limit of open files not raised");
    }
}

/// What the programs log goes to the daemon's log as it comes.
async fn follow_program_log(mut log: ProgramLog) {
    let mut look = tokio::time::interval(PROGRAM_LOG_INTERVAL);
    loop {
        look.tick().await;
        log.flush();
    }
}

fn stop_signal(kind: SignalKind) -> Result<Signal, String> {
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
