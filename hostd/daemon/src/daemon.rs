//! Puts the parts together, and takes them apart again.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hostd_api_docker::{Api, Facts};
use hostd_api_host::addresses::hostname;
use hostd_api_host::configuration::Configuration;
use hostd_api_host::definitions::definitions;
use hostd_api_host::pki::Pki;
use hostd_api_host::provision::{self, ProvisionPaths};
use hostd_api_host::{HostApi, HostSources};
use hostd_containers::{Engine, EngineOptions, Scope};
use hostd_host_services::{Services, ServicesOptions};
use hostd_images::{ImageStore, ImageStoreOptions, Proxies, RegistryOptions};
use hostd_logs::own::OwnLines;
use hostd_logs::{HostLogs, LogsOptions};
use keelson_blocking::blocking;
use keelson_config::{LoadedConfig, Sources};
use keelson_http::places::{Places, Shortage};
use keelson_linux::notify::Notification;
use keelson_model::host::{EngineConfig, RegistriesConfig};
use keelson_model::init::{SYSTEM_STOP_SHARE, USER_STOP_SHARE};
use keelson_model::provision as provisioning;
use keelson_store::{Durability, Era, FileLock, file};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::answers::Answers;
use crate::connection::Server;
use crate::health;
use crate::listen::Listener;
use crate::notify::{is_supervised, notify, sign_of_life_interval};
use crate::options::{Listen, Options};
use crate::tls::Tls;

/// Version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where local clients look for a Docker daemon.
const DEFAULT_SOCKET: &str = "/run/docker.sock";

/// The same in a directory of its own, which services mount: a mounted socket would be another one
/// when hostd has restarted.
const MOUNTED_SOCKET: &str = "/run/keelson/api/docker.sock";

/// When the start is over. Then the memory of the code that only the start needed is released.
const SETTLED: Duration = Duration::from_secs(10);

/// Problems that both APIs show.
type Warnings = Arc<RwLock<Vec<String>>>;

fn warn(warnings: &Warnings, text: String) {
    tracing::warn!("{text}");
    warnings
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .push(text);
}

/// Runs the daemon until a signal stops it. The threads of `front` serve the connections.
pub(crate) async fn run(options: Options, own: Option<OwnLines>, front: &Handle) -> Result<()> {
    let mut signals = Signals::new()?;
    let root = absolute(&options.root)?;
    let run = absolute(&options.run)?;
    let _locks = (
        FileLock::take(&root.join("hostd.lock"))?,
        FileLock::take(&run.join("hostd.lock"))?,
    );
    let warnings: Warnings = Arc::default();

    // All state stays under the root directory, on a development machine, too.
    let sources = Sources::under(&options.config).with_state(root.join("host"));
    let loaded = keelson_config::current(&sources);
    for problem in &loaded.problems {
        warn(&warnings, format!("configuration: {problem}"));
    }
    for notice in &loaded.notices {
        warn(&warnings, format!("configuration: {notice}"));
    }

    let runtime = own_program("keelson-runtime")?;
    let resolver = own_program("keelson-resolver")?;
    let id = engine_id(&root)?;
    let registries = registry_options(&options, &loaded.config.registries, &warnings);
    let store = ImageStoreOptions {
        registries,
        keep_compressed: loaded.config.images.keep_compressed,
        era: options.era(),
        ..ImageStoreOptions::default()
    };
    let images = ImageStore::open_with(&root.join("engine"), &run, store)
        .with_context(|| format!("can't open the image store in {}", root.display()))?;
    let engine = Engine::open(EngineOptions {
        id: id.clone(),
        root: root.clone(),
        run: run.clone(),
        runtime: runtime.clone(),
        images: images.clone(),
        defaults: engine_config(&options, &loaded.config.engine),
        plugins: options.plugins.clone(),
        resolver,
        cgroup_parent: options.cgroup_parent.clone(),
        read_old: hostd_api_docker::read_old,
    })
    .await
    .with_context(|| format!("can't open the engine in {}", root.display()))?;

    let logs = HostLogs::open(LogsOptions {
        directory: root.join("logs"),
        config: loaded.config.logs.clone(),
        kernel: options.kernel_log(),
        engine: engine.clone(),
        own,
        era: options.era(),
    });

    // In the background: a broken service must not keep the API from answering.
    let services = ServicesOptions {
        layers: options.service_layers.clone(),
        state: root.join("services"),
        run: run.join("services"),
        engine: engine.clone(),
        images: images.clone(),
    };
    let services = Services::open(services, definitions(&loaded)).await;

    let plan = ListenPlan::new(&options, &loaded, &root);
    let tls = open_tls(&plan, options.era(), &warnings)?;
    let pki = tls.as_ref().map(|(_, pki)| pki.clone());
    let tls = tls.map(|(tls, _)| tls);
    let listeners = {
        // The threads of `front` are to watch these sockets.
        let _front = front.enter();
        bind(&plan, tls.as_ref(), &warnings)?
    };
    let all_bound = listeners.len() == plan.listen.len();

    let facts = Facts {
        id,
        runtime,
        version: VERSION,
        warnings: warnings.clone(),
    };
    let restart = Arc::new(Notify::new());
    let configuration = Arc::new(Configuration::new(
        sources.clone(),
        loaded.clone(),
        keelson_model::init::CONTROL_SOCKET.into(),
        is_supervised().then(|| restart.clone()),
        warnings.clone(),
        services.clone(),
    ));
    let host = HostSources {
        version: VERSION,
        warnings,
        configuration: configuration.clone(),
        services: services.clone(),
        images: images.clone(),
        logs: logs.clone(),
        pki: pki.clone(),
        init_socket: keelson_model::init::CONTROL_SOCKET.into(),
        network_status: health::NETWORK_STATUS.into(),
        provision_status: Path::new(provisioning::DIRECTORY).join(provisioning::STATUS_FILE),
    };
    let shortage = Shortage::default();
    let places = Arc::new(Places::new(shortage.clone()));
    let server = Arc::new(Server {
        docker: Api::new(engine.clone(), images.clone(), places, facts),
        host: HostApi::new(host),
        shortage,
        answers: Answers::default(),
        work: Handle::current(),
    });

    let (stop, stopped) = watch::channel(false);
    for listener in listeners {
        front.spawn(listener.serve(server.clone(), stopped.clone()));
    }
    if let Some(tls) = tls {
        tokio::spawn(tls.keep_current());
    }
    notify(&Notification::Ready);
    tracing::info!(listen = ?plan.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), "ready");

    tokio::spawn(configuration.watch());
    tokio::spawn(health::keep_last_good(sources, loaded, all_bound));
    if let Some(pki) = pki {
        let listen = plan.tcp().map(|address| address.to_string()).collect();
        tokio::spawn(async move {
            let provisioned = blocking(move || provision_client(&pki, listen)).await;
            if let Err(error) = provisioned {
                tracing::error!(%error, "no client was provisioned");
            }
        });
    }

    tokio::spawn(async {
        tokio::time::sleep(SETTLED).await;
        keelson_sys::idle::release_code();
    });

    if let Some(interval) = sign_of_life_interval() {
        tokio::spawn(give_signs_of_life(engine.clone(), interval));
    }

    let signal = tokio::select! {
        signal = signals.next() => signal,
        () = restart.notified() => {
            // Containers run on, and are adopted at the next start.
            tracing::info!("restarting for a changed configuration");
            notify(&Notification::Stopping);
            let _ = stop.send(true);
            images.shutdown();
            logs.stop().await;
            return Ok(());
        }
    };
    tracing::info!(signal, "stopping");
    notify(&Notification::Stopping);
    // Fails only when no listener is left, and then none has to stop.
    let _ = stop.send(true);
    let shutdown = async {
        // Each gets its own share of the time, however much the one before has used.
        engine.shutdown_scope(Scope::User, USER_STOP_SHARE).await;
        tracing::info!("containers stopped");
        services.shutdown(SYSTEM_STOP_SHARE).await;
        engine.shutdown().await;
    };
    tokio::select! {
        () = shutdown => images.shutdown(),
        signal = signals.next() => {
            // Containers that still run are adopted at the next start.
            tracing::warn!(signal, "ending at once");
        }
    }
    tracing::info!("stopped");
    logs.stop().await;
    Ok(())
}

/// Reports to the supervisor, at each interval, that this process works. The task runs on the threads
/// that do the work of requests, and lists the containers before each report. So the reports stop
/// when threads, timers or the lock of the containers are stuck, and the supervisor restarts this
/// process.
async fn give_signs_of_life(engine: Engine, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        drop(engine.list(Scope::User));
        notify(&Notification::Alive);
    }
}

/// The configuration of the engine, with overrides from the command line.
fn engine_config(options: &Options, config: &EngineConfig) -> EngineConfig {
    let mut config = config.clone();
    if let Some(bridge) = &options.bridge {
        config.networks.bridge.clone_from(bridge);
    }
    if let Some(address) = options.bip {
        config.networks.address = Some(address.to_string());
    }
    config
}

/// How to connect to registries.
fn registry_options(
    options: &Options,
    config: &RegistriesConfig,
    warnings: &Warnings,
) -> RegistryOptions {
    let proxies = Proxies::from_variables(|name| std::env::var(name).ok());
    RegistryOptions {
        mirrors: [
            options.registry_mirror.clone(),
            parse_all(&config.mirrors, warnings),
        ]
        .concat(),
        insecure: [
            options.insecure_registry.clone(),
            parse_all(&config.insecure, warnings),
        ]
        .concat(),
        certificates: ["etc/keelson/certs.d", "etc/docker/certs.d"]
            .map(|directory| options.config.join(directory))
            .to_vec(),
        credentials: vec![match &config.auth_file {
            Some(path) => path.into(),
            None => options.config.join("etc/keelson/registry-auth.json"),
        }],
        proxies: proxies.unwrap_or_else(|error| {
            warn(warnings, format!("no proxies are used: {error}"));
            Proxies::default()
        }),
        ..RegistryOptions::default()
    }
}

/// Parses entries of the configuration. A wrong entry becomes a warning and is left out.
fn parse_all<T>(entries: &[String], warnings: &Warnings) -> Vec<T>
where
    T: FromStr<Err: fmt::Display>,
{
    entries
        .iter()
        .filter_map(|entry| {
            entry
                .parse()
                .map_err(|error| warn(warnings, format!("configuration: {error}")))
                .ok()
        })
        .collect()
}

/// The signals that ask for an orderly stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("can't handle SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("can't handle SIGINT")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Where to listen.
struct ListenPlan {
    listen: Vec<Listen>,
    tls: Option<PathBuf>,
    /// Whether a listener that fails is only a warning. A machine must serve its API even when its
    /// configuration names an address that the machine does not have.
    lenient: bool,
}

impl ListenPlan {
    fn new(options: &Options, loaded: &LoadedConfig, root: &Path) -> Self {
        if !options.listen.is_empty() {
            return Self {
                listen: options.listen.clone(),
                tls: options.tls.clone(),
                lenient: false,
            };
        }
        let sockets = [DEFAULT_SOCKET, MOUNTED_SOCKET];
        let mut listen: Vec<Listen> = sockets.map(|path| Listen::Unix(path.into())).into();
        listen.extend(loaded.config.api.listen.iter().copied().map(Listen::Tcp));
        Self {
            listen,
            tls: Some(options.tls.clone().unwrap_or_else(|| root.join("host/tls"))),
            lenient: true,
        }
    }

    fn tcp(&self) -> impl Iterator<Item = std::net::SocketAddr> {
        self.listen.iter().filter_map(|listen| match listen {
            Listen::Tcp(address) => Some(*address),
            Listen::Unix(_) => None,
        })
    }
}

fn open_tls(plan: &ListenPlan, era: Era, warnings: &Warnings) -> Result<Option<(Tls, Arc<Pki>)>> {
    let Some(dir) = &plan.tls else {
        return Ok(None);
    };
    let opened = Pki::open_in(dir, era)
        .map_err(anyhow::Error::from)
        .and_then(|pki| {
            let pki = Arc::new(pki);
            Ok((Tls::new(pki.clone())?, pki))
        })
        .context("the machine's keys can't be used");
    match opened {
        Ok((tls, pki)) => {
            tracing::info!(
                fingerprint = pki.fingerprint(),
                "certificate authority (SHA-256)"
            );
            Ok(Some((tls, pki)))
        }
        Err(error) if plan.lenient => {
            warn(warnings, format!("no API over TCP: {error:#}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn bind(plan: &ListenPlan, tls: Option<&Tls>, warnings: &Warnings) -> Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for listen in &plan.listen {
        match Listener::bind(listen, tls) {
            Ok(listener) => listeners.push(listener),
            Err(error) if plan.lenient => warn(warnings, format!("{listen}: {error:#}")),
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty() {
        bail!("nothing to listen on is left");
    }
    Ok(listeners)
}

fn provision_client(pki: &Pki, listen: Vec<String>) {
    match provision::run(&ProvisionPaths::machine(), pki, listen, hostname()) {
        Ok(true) => tracing::info!("the client that started this machine has its certificate"),
        Ok(false) => {}
        Err(error) => {
            tracing::error!(%error, "the client that started this machine gets no certificate")
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is not a path", path.display()))
}

/// A program in the directory of our own executable.
fn own_program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("can't find our own executable")?;
    let program = own.with_file_name(name);
    if !program.is_file() {
        bail!("{} is missing: it belongs beside hostd", program.display());
    }
    Ok(program)
}

/// The engine's identifier: a random UUID (RFC 9562, version 4), made once and kept.
fn engine_id(root: &Path) -> Result<String> {
    let path = root.join("host/engine-id");
    match fs::read(&path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            if uuid::Uuid::try_parse(text.trim()).is_ok() {
                return Ok(text.trim().to_owned());
            }
            // The old content is kept, because it may be needed.
            let kept = path.with_extension("unreadable");
            fs::rename(&path, &kept)
                .with_context(|| format!("can't move {} aside", path.display()))?;
            tracing::warn!(kept = %kept.display(), "the engine's identifier is damaged; a new one is made");
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
    }
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("no random numbers")?;
    let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    let id = id.hyphenated().to_string();
    fs::create_dir_all(root.join("host"))
        .with_context(|| format!("can't make directory {}", root.join("host").display()))?;
    file::write(&path, id.as_bytes(), 0o644, Durability::Flushed)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_stays() {
        let dir = tempfile::tempdir().unwrap();
        let id = engine_id(dir.path()).unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert_eq!(engine_id(dir.path()).unwrap(), id);
        let path = dir.path().join("host/engine-id");
        let damaged = [&b"something else"[..], &[0xff; 36]];
        for text in damaged {
            fs::write(&path, text).unwrap();
            assert_ne!(engine_id(dir.path()).unwrap(), id);
            let kept = fs::read(path.with_extension("unreadable")).unwrap();
            assert_eq!(kept, text);
        }
        // As every release has written it.
        let golden = include_str!("../tests/golden/engine-id");
        fs::write(&path, golden).unwrap();
        assert_eq!(engine_id(dir.path()).unwrap(), golden);
    }
}
