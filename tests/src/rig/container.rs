//! A container: a namespace that `weft network connect` connects.

use super::command::run;
use super::process::Process;
use super::{Error, Host, Netns, Result, program};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// A container of a host. Its processes end with it.
#[derive(Debug)]
pub struct Container {
    processes: Vec<Process>,
    name: String,
    host: String,
    log: PathBuf,
    socket: PathBuf,
    host_netns: PathBuf,
    netns: Netns,
}

impl Container {
    pub(super) fn new(host: &Host, name: &str) -> Result<Self> {
        let netns = Netns::create(&format!("{}-{name}", host.netns().name()))?;
        Ok(Container {
            processes: Vec::new(),
            name: name.to_owned(),
            host: host.name().to_owned(),
            log: host.folder().join(format!("{name}.log")),
            socket: host.socket(),
            host_netns: host.netns().path(),
            netns,
        })
    }

    /// Its name, as DNS answers it once it is connected.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of its host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Arguments of `weft` that connect it to a network.
    pub fn connect_arguments<'a>(&'a self, network: &'a str, service: Option<&'a str>) -> Vec<&'a str> {
        let mut arguments = vec![
            "network",
            "connect",
            network,
            "--netns",
            self.netns.name(),
            "--name",
            &self.name,
        ];
        arguments.extend(service.into_iter().flat_map(|service| ["--service", service]));
        arguments
    }

    /// Connects it to a network, as a task of a service if one is named; what the command printed.
    pub fn connect(&self, network: &str, service: Option<&str>) -> Result<String> {
        self.weft(&self.connect_arguments(network, service))
    }

    /// Disconnects it from a network; what the command printed.
    pub fn disconnect(&self, network: &str) -> Result<String> {
        self.weft(&["network", "disconnect", network, &self.name])
    }

    fn weft(&self, arguments: &[&str]) -> Result<String> {
        let mut command = super::command::limited("nsenter");
        command
            .arg(format!("--net={}", self.host_netns.display()))
            .arg("--")
            .arg(program("weft")?);
        run(command.arg("--socket").arg(&self.socket).args(arguments))
            .map_err(|error| Error::new(format!("on {}: {error}", self.host)))
    }

    /// Its IPv4 addresses on overlays: all but loopback's.
    pub fn addresses(&self) -> Result<Vec<Ipv4Addr>> {
        let text = self.netns.ip("-o -4 addr show scope global")?;
        let addresses = text
            .lines()
            .filter_map(|line| line.split_whitespace().nth(3)?.split('/').next()?.parse().ok());
        Ok(addresses.collect())
    }

    /// Its only overlay address.
    pub fn address(&self) -> Result<Ipv4Addr> {
        match self.addresses()?.as_slice() {
            [address] => Ok(*address),
            other => Err(Error::new(format!(
                "{} has {} addresses, not one: {other:?}",
                self.name,
                other.len()
            ))),
        }
    }

    /// Its only IPv6 address on an overlay.
    pub fn address6(&self) -> Result<Ipv6Addr> {
        let text = self.netns.ip("-o -6 addr show scope global")?;
        let addresses: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
        let of_one = |address: &str| address.split('/').next()?.parse().ok();
        match addresses.as_slice() {
            [address] => of_one(address).ok_or_else(|| Error::new(format!("{} has address {address:?}", self.name))),
            other => Err(Error::new(format!("{} has not one IPv6 address: {other:?}", self.name))),
        }
    }

    /// Runs a program inside; what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run(self.netns.command(program).args(arguments))
            .map_err(|error| Error::new(format!("in {}: {error}", self.name)))
    }

    /// Runs `weft-test-tool` inside; what it printed.
    pub fn tool(&self, arguments: &[&str]) -> Result<String> {
        run(self.netns.command(program("weft-test-tool")?).args(arguments))
            .map_err(|error| Error::new(format!("in {}: {error}", self.name)))
    }

    /// Starts `weft-test-tool` inside, until the container is dropped.
    pub fn serve(&mut self, arguments: &[&str]) -> Result<()> {
        let name = format!("weft-test-tool in {}", self.name);
        let process = Process::start(&self.netns, &name, &self.log, &program("weft-test-tool")?, arguments)?;
        self.processes.push(process);
        Ok(())
    }

    /// Ends everything started by [`serve`](Self::serve).
    pub fn stop_serving(&mut self) {
        self.processes.clear();
    }
}
