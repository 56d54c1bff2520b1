//! A machine without an engine: a bridge by the bare kernel, without packet filter and connection
//! tracking. What engines do can be compared with it.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use keelson_netlink::{Batches, LinkChange, LinkId, Namespace, Request, VirtualKind, VirtualLink};
use nix::sched::{CloneFlags, setns};

use crate::place::{self, Machine};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The address of the one container that stays.
pub(crate) const CONTAINER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The address of a container that is made to be measured.
const MEASURED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

/// A machine with a bridge and a container that is only a network namespace.
#[derive(Debug)]
pub(crate) struct Floor {
    /// Its namespaces.
    pub(crate) machine: Machine,
    /// The container's.
    pub(crate) container: Namespace,
    bridge: u32,
}

impl Floor {
    /// Makes it.
    pub(crate) fn new() -> Result<Self> {
        let machine = Machine::new()?;
        let bridge = machine.namespace.run(|| -> Result<u32> {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            let mut batches = Batches::open()?;
            let bridge = VirtualLink::new("bridge", VirtualKind::Bridge);
            batches.run(&[Request::CreateLink(bridge)], None)?;
            place::configure(&mut batches, "bridge", GATEWAY, None)?;
            place::index(&mut batches, "bridge")
        })??;
        let container = Namespace::create()?;
        let floor = Self {
            machine,
            container,
            bridge,
        };
        floor.attach("stays", &floor.container, CONTAINER)?;
        Ok(floor)
    }

    /// How long it takes to connect a namespace that has nothing yet: a pair of links, an address, a
    /// default route.
    pub(crate) fn measure(&self) -> Result<Duration> {
        let namespace = Namespace::create()?;
        let took = self.attach("measured", &namespace, MEASURED)?;
        self.machine.namespace.run(|| {
            let link = LinkId::Name("measured".to_owned());
            Batches::open()?.run(&[Request::RemoveLink(link)], None)
        })??;
        Ok(took)
    }

    fn attach(&self, name: &str, container: &Namespace, address: Ipv4Addr) -> Result<Duration> {
        self.machine.namespace.run(|| {
            let mut host = Batches::open()?;
            let begin = Instant::now();
            let up = |link| Request::ChangeLink(link, LinkChange::up());
            let requests = [
                place::pair(name, "eth0", Some(self.bridge)),
                up(LinkId::Name(name.to_owned())),
            ];
            host.run(&requests, Some(container.as_fd()))?;
            // The thread ends afterwards, so that it needs no way back.
            setns(container, CloneFlags::CLONE_NEWNET)?;
            let mut inside = Batches::open()?;
            inside.run(&[up(LinkId::Name("lo".to_owned()))], None)?;
            place::configure(&mut inside, "eth0", address, Some(GATEWAY))?;
            Ok(begin.elapsed())
        })?
    }
}
