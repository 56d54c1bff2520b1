//! `cargo xtask run` and `cargo xtask stop`: the developer's virtual machine.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal};
use qemu_tests::harness::{Boot, DetachedMachine, Disk, Machine, MachineSpec, Stopped};

use crate::disk::Image;
use crate::progress::{self, Step};
use crate::workspace::Workspace;
use crate::{image, tools, vm_disk};

/// How long an orderly power-off may take; hostd gives containers up to 30 s.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// The options of `cargo xtask run`.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Return once the API answers, and leave the machine running.
    pub detach: bool,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Virtual processors.
    pub cpus: Option<u32>,
    /// Bytes of the disk.
    pub disk_size: Option<u64>,
    /// Load the kernel directly instead of through UEFI.
    pub direct: bool,
    /// Ports of 127.0.0.1 and of the machine.
    pub publish: Vec<(u16, u16)>,
    /// A `host.toml`.
    pub config: Option<PathBuf>,
    /// Begin with an empty disk.
    pub fresh: bool,
    /// Use the existing executables.
    pub prebuilt: bool,
}

struct Files {
    directory: PathBuf,
}

impl Files {
    fn of(workspace: &Workspace) -> Self {
        Self {
            directory: workspace.vm(),
        }
    }

    fn state(&self) -> PathBuf {
        self.directory.join("machine.json")
    }

    fn environment(&self) -> PathBuf {
        self.directory.join("env")
    }

    fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    /// Only one process at a time starts, runs or stops the machine.
    fn lock(&self) -> Result<Flock<File>> {
        fs::create_dir_all(&self.directory)
            .with_context(|| format!("create {}", self.directory.display()))?;
        let path = self.directory.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, _)| {
            anyhow::anyhow!(
                "another `cargo xtask run` or `stop` is at work on {}; a machine in the \
                 foreground ends with Ctrl-C in its terminal",
                self.directory.display()
            )
        })
    }

    /// Forgets a machine that has ended.
    fn forget(&self) {
        for file in [self.state(), self.environment()] {
            let _ = fs::remove_file(file);
        }
    }
}

/// Builds everything that is out of date, boots the machine, and stays in the foreground unless
/// asked otherwise.
///
/// # Errors
/// A machine runs already, something cannot be built, or the machine does not come up.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let files = Files::of(workspace);
    let _lock = files.lock()?;
    if let Some(known) = DetachedMachine::open(&files.state())? {
        if known.is_running() {
            bail!(
                "the machine runs already (process {}). Use it with `. {}`, or end it with \
                 `cargo xtask stop`.",
                known.state().pid,
                workspace.display(&files.environment())
            );
        }
        progress::say("   ! the machine of the last run has ended by itself");
        files.forget();
    }
    let config = options
        .config
        .as_ref()
        .map(|path| fs::read(path).with_context(|| format!("--config: read {}", path.display())))
        .transpose()?;
    for (host, _) in &options.publish {
        TcpListener::bind(("127.0.0.1", *host))
            .with_context(|| format!("--publish: port {host} of 127.0.0.1 cannot be used"))?;
    }
    let build = image::BuildOptions {
        prebuilt: options.prebuilt,
        ..image::BuildOptions::default()
    };
    let image = image::build(workspace, build)?;
    let docker = tools::docker(workspace)?;
    let disk = vm_disk::prepare(workspace, &image, options.fresh, options.disk_size)?;
    let spec = specification(&files, &image, options, disk, config)?;

    let ends = Ends::listen()?;
    let machine = Arc::new(spec.launch()?);
    ends.watch(&machine);
    match boot(workspace, &files, &machine, options, &docker) {
        Ok(()) => {}
        Err(_) if ends.asked() => {
            files.forget();
            progress::say("The machine was ended before its API answered.");
            return Ok(());
        }
        Err(error) => {
            files.forget();
            return Err(error);
        }
    }
    if options.detach {
        return detach(machine, &files, &ends);
    }
    let result = foreground(&machine, &files, &ends);
    files.forget();
    result
}

fn specification(
    files: &Files,
    image: &Image,
    options: &Options,
    disk: PathBuf,
    config: Option<Vec<u8>>,
) -> Result<MachineSpec> {
    let boot = if options.direct {
        Boot::direct_from(&image.directory)?
    } else {
        Boot::Uefi
    };
    let mut spec = MachineSpec::new("keelson", boot)
        .disk(Disk::writable(disk))
        .dir(&files.directory);
    if let Some(memory) = options.memory {
        let mib = u32::try_from(memory >> 20).context("--memory is too large")?;
        if mib < 128 {
            bail!("--memory: less than 128M is too little to boot");
        }
        spec = spec.memory_mib(mib);
    }
    if let Some(cpus) = options.cpus {
        spec = spec.cpus(cpus);
    }
    if let Some(config) = config {
        spec = spec.host_toml(config);
    }
    for (host, guest) in &options.publish {
        spec = spec.forward(*host, *guest);
    }
    if options.detach {
        spec = spec.outlives();
    }
    Ok(spec)
}

/// Waits for the API, and prints how to use the machine.
fn boot(
    workspace: &Workspace,
    files: &Files,
    machine: &Machine,
    options: &Options,
    docker: &Path,
) -> Result<()> {
    let how = format!(
        "{}, {}",
        if machine.uses_kvm() {
            "KVM"
        } else {
            "software emulation"
        },
        if options.direct {
            "direct kernel boot"
        } else {
            "UEFI"
        }
    );
    let limit = Duration::from_secs(if machine.uses_kvm() { 90 } else { 300 });
    let step = Step::begin(format!("boot ({how})"));
    let time = machine.wait_api(limit)?;
    step.done("the API answers");
    let port = machine.api_port()?;
    let certificates = machine.provision(Duration::ZERO)?.dir;
    let environment = files.environment();
    fs::write(&environment, environment_text(port, &certificates))
        .with_context(|| format!("write {}", environment.display()))?;

    let quoted = |path: &Path| shell_quoted(&workspace.display(path));
    let steps: Vec<String> = machine
        .console()
        .lines()
        .into_iter()
        .filter(|line| line.text.starts_with("keelson: ") && line.text.contains(" at "))
        .map(|line| format!("            {}", line.text.trim_start_matches("keelson: ")))
        .collect();
    let program = if docker.parent() == Some(&workspace.tools().join("docker/usr/bin")) {
        quoted(docker)
    } else {
        "docker".to_owned()
    };
    let certs = certificates.display();
    progress::say(&format!(
        "\nKeelson is up: its API answered {:.1} s after QEMU was started ({how}).\n\
         Since the kernel was started, by the machine's own clock:\n{}\n\
         \n\
         docker      . {}\n            {program} version\n\
         or          {program} context create keelson --docker \"host=tcp://127.0.0.1:{port},ca={certs}/ca.pem,cert={certs}/cert.pem,key={certs}/key.pem\"\n\
         console     {}\n\
         published   {}\n",
        time.as_secs_f64(),
        steps.join("\n"),
        quoted(&environment),
        workspace.display(&files.console()),
        machine
            .forwards()
            .iter()
            .map(|forward| format!("127.0.0.1:{} → {}", forward.host, forward.guest))
            .collect::<Vec<_>>()
            .join(", "),
    ));
    Ok(())
}

/// Lines for a shell to read.
fn environment_text(port: u16, certificates: &Path) -> String {
    format!(
        "export DOCKER_HOST=tcp://127.0.0.1:{port}\n\
         export DOCKER_TLS_VERIFY=1\n\
         export DOCKER_CERT_PATH={}\n",
        shell_quoted(&certificates.display().to_string())
    )
}

/// `text` as one word of a POSIX shell.
fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn detach(machine: Arc<Machine>, files: &Files, ends: &Ends) -> Result<()> {
    // The watcher holds the machine only while it ends it.
    let Some(machine) = Arc::into_inner(machine).filter(|_| !ends.asked()) else {
        bail!("the machine was ended");
    };
    machine.detach(&files.state())?;
    progress::say("It runs in the background; `cargo xtask stop` ends it in order.");
    Ok(())
}

/// Copies the console to standard output until the machine has ended.
fn foreground(machine: &Machine, files: &Files, ends: &Ends) -> Result<()> {
    progress::say("The console follows; Ctrl-C powers the machine off.\n");
    let path = files.console();
    let mut log = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let mut shown = 0;
    loop {
        let running = machine.is_running();
        log.seek(SeekFrom::Start(shown))?;
        let mut text = Vec::new();
        shown += log.read_to_end(&mut text)? as u64;
        // The machine must be stopped even when the terminal is closed.
        let mut output = std::io::stdout();
        let _ = output.write_all(&text).and_then(|()| output.flush());
        if !running {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let (status, _) = machine.wait_for_exit(Duration::from_secs(1))?;
    if !status.success() && !ends.asked() {
        bail!("QEMU ended ({status}):\n{}", machine.details());
    }
    progress::say("\nThe machine is off.");
    Ok(())
}

/// Ctrl-C and its relatives.
struct Ends {
    signals: SigSet,
    count: Arc<AtomicUsize>,
}

impl Ends {
    /// Starts to take the signals. They are blocked in all threads that are created later.
    fn listen() -> Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        signals.thread_block().context("block signals")?;
        Ok(Self {
            signals,
            count: Arc::new(AtomicUsize::new(0)),
        })
    }

    /// Whether the machine was asked to end.
    fn asked(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// At the first signal presses the machine's power button, and ends QEMU when that takes too
    /// long; at the second ends QEMU at once.
    fn watch(&self, machine: &Arc<Machine>) {
        let signals = self.signals;
        let count = Arc::clone(&self.count);
        let machine = Arc::downgrade(machine);
        std::thread::spawn(move || {
            while signals.wait().is_ok() {
                let before = count.fetch_add(1, Ordering::SeqCst);
                let Some(machine) = machine.upgrade() else {
                    std::process::exit(130);
                };
                if before == 0 {
                    std::thread::spawn(move || power_off(&machine));
                } else {
                    progress::say("\nThe machine is ended at once.");
                    machine.kill();
                }
            }
        });
    }
}

fn power_off(machine: &Machine) {
    progress::say("\nPowering off; Ctrl-C once more ends the machine at once.");
    let pressed = machine
        .qmp()
        .is_ok_and(|mut qmp| qmp.system_powerdown().is_ok());
    if pressed && machine.wait_for_exit(STOP_LIMIT).is_ok() {
        return;
    }
    if machine.is_running() {
        progress::say("The machine did not power off in time; QEMU is ended.");
        machine.kill();
    }
}

/// Ends the machine in the background.
///
/// # Errors
/// Another command is at work on it, or QEMU cannot be ended.
pub fn stop(workspace: &Workspace) -> Result<()> {
    let files = Files::of(workspace);
    if !files.directory.exists() {
        progress::say("No machine was started here.");
        return Ok(());
    }
    let _lock = files.lock()?;
    let Some(machine) = DetachedMachine::open(&files.state())? else {
        progress::say("No machine runs in the background.");
        return Ok(());
    };
    let step = Step::begin("power off");
    let stopped = machine.stop(STOP_LIMIT)?;
    step.done(match stopped {
        Stopped::Orderly => "the machine stopped in order",
        Stopped::Quit => "the machine did not power off in time; QEMU was asked to end",
        Stopped::Killed => "the machine did not power off in time; QEMU was killed",
        Stopped::NotRunning => "it had ended by itself",
    });
    files.forget();
    Ok(())
}

/// Reads `HOST:GUEST`.
///
/// # Errors
/// It is not two port numbers.
pub fn parse_publish(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("{text:?} is not HOST:GUEST, two port numbers such as 8080:80");
    let (host, guest) = text.split_once(':').ok_or_else(wrong)?;
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    port(host).zip(port(guest)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        assert_eq!(parse_publish("8080:80"), Ok((8080, 80)));
        for wrong in ["", "80", "80:", "0:80", "80:70000", "a:b", "1:2:3"] {
            assert!(parse_publish(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_environment_survives_odd_paths() {
        assert_eq!(shell_quoted("/a/b-c.d"), "/a/b-c.d");
        assert_eq!(shell_quoted("/it's here"), "'/it'\\''s here'");
        let text = environment_text(4711, Path::new("/a b"));
        assert!(text.contains("DOCKER_HOST=tcp://127.0.0.1:4711\n"));
        assert!(text.contains("DOCKER_CERT_PATH='/a b'\n"));
    }
}
