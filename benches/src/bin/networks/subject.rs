//! What is asked of each engine.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use keelson_benches::engines::Engine;
use keelson_benches::http;
use keelson_netlink::Namespace;
use serde_json::{Value, json};

use crate::place::Machine;

const IMAGE: &str = "bench";
/// The user-defined network that every engine has.
pub(crate) const OWN: &str = "own";

/// An engine on a machine of its own.
#[derive(Debug)]
pub(crate) struct Subject {
    // Before the machine, which goes with its last process.
    pub(crate) engine: Engine,
    pub(crate) machine: Machine,
}

impl Subject {
    /// Starts an engine on a new machine, and gives it an image and a network.
    pub(crate) fn start(
        archive: &[u8],
        start: impl FnOnce() -> Result<Option<Engine>> + Send,
    ) -> Result<Option<Self>> {
        let machine = Machine::new()?;
        let Some(engine) = machine.namespace.run(start)?? else {
            return Ok(None);
        };
        let subject = Self { engine, machine };
        let import = format!("/images/create?fromSrc=-&repo={IMAGE}&tag=latest");
        http::call(subject.engine.socket(), "POST", &import, archive)?;
        subject.network(OWN, &json!({}))?;
        Ok(Some(subject))
    }

    /// Creates a network.
    pub(crate) fn network(&self, name: &str, options: &Value) -> Result<()> {
        let body = json!({"Name": name, "CheckDuplicate": true, "Options": options});
        http::post(self.engine.socket(), "/networks/create", &body).map(drop)
    }

    /// Creates a container that waits. `host`: its `HostConfig`.
    pub(crate) fn create(&self, name: Option<&str>, host: &Value) -> Result<String> {
        let ports = host.get("PortBindings").and_then(Value::as_object);
        let exposed = ports.into_iter().flatten();
        let exposed: serde_json::Map<_, _> =
            exposed.map(|(port, _)| (port.clone(), json!({}))).collect();
        let body = json!({
            "Image": IMAGE,
            "Cmd": ["sleep", "100000"],
            "ExposedPorts": exposed,
            "HostConfig": host,
        });
        let query = name.map_or_else(String::new, |name| format!("?name={name}"));
        let path = format!("/containers/create{query}");
        let answer = http::post(self.engine.socket(), &path, &body)?;
        let id = answer.pointer("/Id").and_then(Value::as_str);
        Ok(id.context("no Id")?.to_owned())
    }

    /// Creates a container and starts it.
    pub(crate) fn launch(&self, name: Option<&str>, host: &Value) -> Result<String> {
        let id = self.create(name, host)?;
        let start = format!("/containers/{id}/start");
        http::call(self.engine.socket(), "POST", &start, b"")?;
        Ok(id)
    }

    /// How long it takes until a new container's process runs. It is removed afterwards.
    pub(crate) fn launching(&self, host: &Value, rest: Duration) -> Result<Duration> {
        std::thread::sleep(rest);
        let begin = Instant::now();
        let id = self.launch(None, host)?;
        let took = begin.elapsed();
        self.remove(&id)?;
        Ok(took)
    }

    /// Removes a container, whatever it does.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        let path = format!("/containers/{id}?force=1");
        http::call(self.engine.socket(), "DELETE", &path, b"").map(drop)
    }

    fn inspect(&self, id: &str) -> Result<Value> {
        let path = format!("/containers/{id}/json");
        let answer = http::call(self.engine.socket(), "GET", &path, b"")?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// A running container.
    pub(crate) fn inside(&self, id: &str) -> Result<Inside> {
        let about = self.inspect(id)?;
        let pid = about.pointer("/State/Pid").and_then(Value::as_i64);
        let process = PathBuf::from(format!("/proc/{}", pid.context("no process")?));
        let networks = about.pointer("/NetworkSettings/Networks");
        let mut networks = networks.and_then(Value::as_object).into_iter().flatten();
        let address = networks.find_map(|(_, network)| network.get("IPAddress")?.as_str());
        Ok(Inside {
            namespace: Namespace::open(&process.join("ns/net"))?,
            address: address.context("no address")?.parse()?,
            process,
        })
    }
}

/// The network of a running container.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) namespace: Namespace,
    pub(crate) address: Ipv4Addr,
    process: PathBuf,
}

impl Inside {
    /// Whom it asks for names.
    pub(crate) fn name_server(&self) -> Result<Ipv4Addr> {
        let text = fs::read_to_string(self.process.join("root/etc/resolv.conf"))?;
        let mut lines = text.lines();
        let server = lines.find_map(|line| line.strip_prefix("nameserver "));
        Ok(server.context("no name server")?.trim().parse()?)
    }
}

/// The `HostConfig` of a container in a network.
pub(crate) fn host_config(network: &str) -> Value {
    json!({"NetworkMode": network})
}
