//! Names to addresses and services: the system's way, and a fixed table for tests.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use hickory_resolver::config::{ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, TokioResolver};

/// A lookup of services gets no more time: hardly any server has such records, and the next step works without.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(5);

/// A service as an SRV record tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Lower ones are tried first.
    pub priority: u16,
    /// Among equals, heavier ones are tried more often.
    pub weight: u16,
    /// The host; empty if the service is decidedly not offered.
    pub target: String,
    /// The port.
    pub port: u16,
}

/// Why a name leads nowhere.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// There is no such name, or nothing of the kind asked for.
    #[error("no such name")]
    NotFound,
    /// Whoever should know did not answer.
    #[error("{0}")]
    Failed(String),
}

/// Where names are looked up.
pub trait Names: Send + Sync + 'static {
    /// The addresses at which a port of a host is reached, best first.
    fn addresses(&self, host: &str, port: u16) -> BoxFuture<'static, Result<Vec<SocketAddr>, NameError>>;

    /// The services of a name such as `_matrix-fed._tcp.example.org`, in any order.
    fn services(&self, name: &str) -> BoxFuture<'static, Result<Vec<Service>, NameError>>;
}

/// Names as the system knows them: its hosts file, its name servers. With a cache.
#[derive(Clone)]
pub struct SystemNames {
    resolver: TokioResolver,
    hosts: Arc<Hosts>,
}

impl SystemNames {
    /// Reads the system's configuration. Without a usable one, only names in the hosts file are found.
    pub fn new() -> Result<Self, NameError> {
        let failed = |error: NetError| NameError::Failed(error.to_string());
        let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(%error, "the system's resolver configuration can't be read: no name server");
            TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
        });
        let options = builder.options_mut();
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = 1024;
        Ok(Self {
            resolver: builder.build().map_err(failed)?,
            hosts: Arc::new(Hosts::from_system().unwrap_or_default()),
        })
    }

    /// A host in the hosts file has the addresses that stand there, and no others.
    fn in_hosts_file(&self, host: &str) -> Vec<IpAddr> {
        let Ok(name) = Name::from_utf8(host) else { return Vec::new() };
        [RecordType::AAAA, RecordType::A]
            .into_iter()
            .filter_map(|kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind)))
            .flat_map(|found| found.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
            .collect()
    }
}

impl Names for SystemNames {
    fn addresses(&self, host: &str, port: u16) -> BoxFuture<'static, Result<Vec<SocketAddr>, NameError>> {
        let known = self.in_hosts_file(host);
        if !known.is_empty() {
            return std::future::ready(Ok(with_port(known, port))).boxed();
        }
        let (resolver, host) = (self.resolver.clone(), host.to_owned());
        async move {
            let found = resolver.lookup_ip(host).await.map_err(name_error)?;
            Ok(with_port(found.iter(), port))
        }
        .boxed()
    }

    fn services(&self, name: &str) -> BoxFuture<'static, Result<Vec<Service>, NameError>> {
        let (resolver, name) = (self.resolver.clone(), format!("{name}."));
        async move {
            let lookup = tokio::time::timeout(SERVICE_TIMEOUT, resolver.srv_lookup(name));
            let found = lookup.await.map_err(|_| NameError::Failed("timed out".to_owned()))?.map_err(name_error)?;
            let services = found.answers().iter().filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(Service {
                    priority: srv.priority,
                    weight: srv.weight,
                    target: srv.target.to_ascii().trim_end_matches('.').to_owned(),
                    port: srv.port,
                }),
                _ => None,
            });
            Ok(services.collect())
        }
        .boxed()
    }
}

fn with_port(addresses: impl IntoIterator<Item = IpAddr>, port: u16) -> Vec<SocketAddr> {
    addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()
}

fn name_error(error: NetError) -> NameError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(_)) => NameError::NotFound,
        other => NameError::Failed(other.to_string()),
    }
}

/// Names from a table, and no others. Cheap to clone; clones share the table.
#[derive(Clone, Default)]
pub struct FixedNames {
    table: Arc<RwLock<Table>>,
}

#[derive(Default)]
struct Table {
    addresses: HashMap<String, Vec<IpAddr>>,
    sockets: HashMap<(String, u16), SocketAddr>,
    services: HashMap<String, Vec<Service>>,
}

impl FixedNames {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a host its addresses.
    pub fn host(&self, host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> &Self {
        if let Ok(mut table) = self.table.write() {
            table.addresses.insert(host.to_owned(), addresses.into_iter().collect());
        }
        self
    }

    /// Puts one port of a host somewhere else, so that servers without fixed ports can have names without ports.
    pub fn socket(&self, host: &str, port: u16, socket: SocketAddr) -> &Self {
        if let Ok(mut table) = self.table.write() {
            table.sockets.insert((host.to_owned(), port), socket);
        }
        self
    }

    /// Adds a service to a name.
    pub fn service(&self, name: &str, service: Service) -> &Self {
        if let Ok(mut table) = self.table.write() {
            table.services.entry(name.to_owned()).or_default().push(service);
        }
        self
    }
}

impl Names for FixedNames {
    fn addresses(&self, host: &str, port: u16) -> BoxFuture<'static, Result<Vec<SocketAddr>, NameError>> {
        let found = self.table.read().ok().and_then(|table| {
            let socket = table.sockets.get(&(host.to_owned(), port)).map(|socket| vec![*socket]);
            socket.or_else(|| Some(with_port(table.addresses.get(host)?.iter().copied(), port)))
        });
        std::future::ready(found.ok_or(NameError::NotFound)).boxed()
    }

    fn services(&self, name: &str) -> BoxFuture<'static, Result<Vec<Service>, NameError>> {
        let found = self.table.read().ok().and_then(|table| table.services.get(name).cloned());
        std::future::ready(found.ok_or(NameError::NotFound)).boxed()
    }
}
