//! What users ask where a cluster of weft's own would ask its manager: addresses come from the swarm's managers.

use super::{Member, detach, not_in_swarm, wrong_port};
use crate::daemon::membership::{Membership, unix_nanos};
use crate::daemon::{Daemon, Refused, RefusedKind, ReplyTo, SwarmCommand};
use crate::swarm::{AgentCommand, Attached};
use weft_core::cluster::{Allocation, Network, Reply, Request, check_endpoint};
use weft_core::id::{EndpointId, MacAddress};

impl Daemon {
    /// A user's request, where a cluster of weft's own would ask its manager.
    pub(in crate::daemon) fn ask_swarm(&mut self, request: Request, reply: ReplyTo<Result<Reply, Refused>>) {
        let answer = match request {
            Request::Allocate { .. } => return self.attach_to_swarm(request, reply),
            Request::Release { endpoint } => return self.detach_from_swarm(endpoint, reply),
            Request::NetworkList => Ok(Reply::Networks(self.endpoints.networks())),
            Request::NetworkInspect { network } => self.find_swarm_network(&network).map(Reply::Network),
            Request::NetworkCreate { .. } | Request::NetworkRemove { .. } => Err(managers_do("networks", "network")),
            Request::ServiceCreate { .. }
            | Request::ServiceUpdate { .. }
            | Request::ServiceList
            | Request::ServiceInspect { .. }
            | Request::ServiceRemove { .. }
            | Request::AllocationList => Err(managers_do("services", "service")),
            Request::MemberList | Request::MemberAdd { .. } | Request::MemberRemove { .. } => {
                Err(managers_do("nodes", "node"))
            }
        };
        let _ = reply.send(answer);
    }

    /// Of the networks that are attached here: a worker is told of no others.
    fn find_swarm_network(&self, text: &str) -> Result<Network, Refused> {
        let networks = self.endpoints.networks();
        let exact = networks
            .iter()
            .find(|network| network.id.as_str() == text || network.name == text);
        let mut with_prefix = networks
            .iter()
            .filter(|network| !text.is_empty() && network.id.as_str().starts_with(text));
        match (exact, with_prefix.next(), with_prefix.next()) {
            (Some(network), _, _) | (None, Some(network), None) => Ok(network.clone()),
            _ => Err(Refused::not_found(format!(
                "network {text} not found: of a swarm's networks, a node knows those that it is attached to"
            ))),
        }
    }

    fn attach_to_swarm(&mut self, request: Request, reply: ReplyTo<Result<Reply, Refused>>) {
        let Request::Allocate {
            endpoint,
            network,
            node,
            name,
            service,
            aliases,
            ip,
            weight,
        } = request
        else {
            return;
        };
        let Membership::Swarm(member) = &self.membership else {
            let _ = reply.send(Err(not_in_swarm()));
            return;
        };
        if let Some(weight) = weight {
            let _ = reply.send(Err(Refused::invalid(format!(
                "weight {weight}: a swarm's managers make its services' tasks; leave --weight out"
            ))));
            return;
        }
        let possible = self.may_attach(member, &network, &name, service.as_deref(), &aliases);
        if let Err(refused) = possible {
            let _ = reply.send(Err(refused));
            return;
        }
        let (commands, handle) = (member.commands.clone(), self.handle.clone());
        tokio::spawn(async move {
            let wanted = endpoint.clone();
            let attached = Member::ask(commands, |reply| AgentCommand::Attach {
                endpoint: wanted,
                network,
                ip,
                reply,
            });
            let attached = attached.await;
            let answered = !matches!(&attached, Err(refused) if refused.kind == RefusedKind::Unavailable);
            let ended = |reply| SwarmCommand::Asked {
                endpoint: endpoint.clone(),
                answered,
                reply,
            };
            // A daemon that stops takes it for unanswered when it starts again.
            let _ = handle.ask(|reply| ended(reply).into()).await;
            let answer = attached.map(|Attached { network, ip }| {
                let allocation = Allocation {
                    endpoint,
                    network: network.id.clone(),
                    node,
                    name,
                    service: None,
                    aliases,
                    ip,
                    mac: MacAddress::from_ipv4(ip),
                    created: unix_nanos(),
                    weight: 1,
                };
                Reply::Allocated {
                    network,
                    service: None,
                    allocation,
                }
            });
            let _ = reply.send(answer);
        });
    }

    fn may_attach(
        &self,
        member: &Member,
        network: &str,
        name: &str,
        service: Option<&str>,
        aliases: &[String],
    ) -> Result<(), Refused> {
        if let Some(port) = member.data_path_port.filter(|port| *port != self.config.data_path_port) {
            return Err(Refused::conflict(wrong_port(port, self.config.data_path_port)));
        }
        if let Some(service) = service {
            return Err(Refused::invalid(format!(
                "service {service}: a swarm's managers make its services' tasks; leave --service out"
            )));
        }
        check_endpoint(name, aliases).map_err(|refusal| Refused::invalid(refusal.message))?;
        if self.endpoints.is_connected(network, name) {
            return Err(Refused::conflict(format!(
                "endpoint with name {name} already exists in network {network} on this node"
            )));
        }
        Ok(())
    }

    fn detach_from_swarm(&mut self, endpoint: EndpointId, reply: ReplyTo<Result<Reply, Refused>>) {
        let Membership::Swarm(member) = &self.membership else {
            let _ = reply.send(Err(not_in_swarm()));
            return;
        };
        let attachment = member.attachments.get(&endpoint).map(|held| held.id.clone());
        let (commands, handle) = (member.commands.clone(), self.handle.clone());
        tokio::spawn(async move {
            let outcome = detach(commands, &endpoint, attachment).await;
            if outcome.is_ok() {
                handle.tell(SwarmCommand::Detached(endpoint).into()).await;
            }
            let _ = reply.send(outcome.map(|()| Reply::Done));
        });
    }
}

fn managers_do(what: &str, command: &str) -> Refused {
    Refused::conflict(format!(
        "this node is in a Docker swarm, whose managers look after its {what}: `docker {command}` on one of them"
    ))
}
