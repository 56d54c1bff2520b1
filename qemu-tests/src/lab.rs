//! Shared by the scenarios: the image under test, permission to run a machine, and reading the
//! machine through containers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use keelson_model::init::InitStatus;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::disk::{Ext4State, check_ext4, copy_sparse, partitions};
use crate::harness::{Boot, CommandOutput, Disk, Machine, MachineSpec, Slot, assets, measurements};

/// How long a boot to the API may take, firmware and software emulation on a busy machine
/// included.
pub const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// How long an orderly stop may take, from the request to QEMU's end.
pub const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Options of a container that sees the whole machine below `/host`, including its processes.
pub const SEES_ALL: [&str; 3] = ["--privileged", "-v", "/:/host"];

/// The image under test.
#[derive(Debug, Clone)]
pub struct Lab {
    image: PathBuf,
    output: PathBuf,
}

impl Lab {
    /// The image in `KEELSON_IMAGE_DIR` (relative to the top of the source tree). Without the
    /// variable there is nothing to test, and
    /// the test is skipped.
    ///
    /// # Errors
    /// The variable names a directory without an image.
    pub fn open() -> Result<Option<Self>> {
        let Some(dir) = std::env::var_os("KEELSON_IMAGE_DIR") else {
            keelson_testing::skip(
                "image",
                "KEELSON_IMAGE_DIR is not set; `cargo xtask test` sets it",
            );
            return Ok(None);
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let image = root.join(dir);
        for file in ["disk.raw", "vmlinuz", "initrd", "cmdline"] {
            ensure!(
                image.join(file).exists(),
                "{} does not exist: build the image with `cargo xtask image`",
                image.join(file).display()
            );
        }
        let parent = image.parent().context("image directory has no parent")?;
        Ok(Some(Self {
            output: parent.join("vm-tests"),
            image,
        }))
    }

    /// The image directory.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// The disk image as it was built. Nothing may write to it.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.image.join("disk.raw")
    }

    /// A copy of the disk image, to which a test's machines may write, and its directory, which is
    /// deleted on drop.
    ///
    /// # Errors
    /// It can't be copied.
    pub fn own_disk(&self) -> Result<(TempDir, PathBuf)> {
        let directory = tempfile::tempdir()?;
        let disk = directory.path().join("disk.raw");
        copy_sparse(&self.disk(), &disk)?;
        Ok((directory, disk))
    }

    /// A machine that boots through UEFI. Its writes are dropped at the end.
    #[must_use]
    pub fn uefi(&self, name: &str) -> MachineSpec {
        MachineSpec::new(name, Boot::Uefi)
            .disk(Disk::snapshot(self.disk()))
            .report_at_end()
    }

    /// A machine whose kernel is loaded by QEMU. Its writes are dropped at the end.
    ///
    /// # Errors
    /// The kernel command line can't be read.
    pub fn direct(&self, name: &str) -> Result<MachineSpec> {
        let boot = Boot::direct_from(&self.image)?;
        Ok(MachineSpec::new(name, boot)
            .disk(Disk::snapshot(self.disk()))
            .report_at_end())
    }

    /// Waits for permission to run a machine.
    ///
    /// # Errors
    /// See [`Slot::acquire`].
    pub fn slot(&self) -> Result<Slot> {
        Ok(Slot::acquire(&self.output)?)
    }

    /// Waits for permission to run alone, for measurements.
    ///
    /// # Errors
    /// See [`Slot::exclusive`].
    pub fn exclusive(&self) -> Result<Slot> {
        Ok(Slot::exclusive(&self.output)?)
    }

    /// Records a figure in `measurements.json`.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn record(&self, name: &str, value: impl Into<Value>) -> Result<()> {
        let file = self.output.join("measurements.json");
        Ok(measurements::record(&file, name, value.into())?)
    }
}

/// Records the console's time stamps of a boot as `<path>_qemu_start_to_…`.
///
/// # Errors
/// A line is missing, or the file can't be written.
pub fn record_steps(lab: &Lab, machine: &Machine, path: &str) -> Result<()> {
    for (name, text) in [
        ("stage1", "keelson: stage1 at"),
        ("pid1", "keelson: init started at"),
        ("netcfg_ready", "keelson: netcfg ready at"),
        ("hostd_ready", "keelson: hostd ready at"),
    ] {
        let line = machine.wait_for_console(text, Duration::from_secs(5))?;
        lab.record(&format!("{path}_qemu_start_to_{name}_s"), seconds(line.at))?;
    }
    Ok(())
}

/// Seconds with three decimal places.
#[must_use]
pub fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Loads the busybox image.
///
/// # Errors
/// docker refuses.
pub fn load_busybox(machine: &Machine) -> Result<()> {
    let limit = Duration::from_secs(180);
    let output = machine.docker_with(&["load"], Some(assets::busybox_archive()?), limit)?;
    let text = output.success()?;
    ensure!(
        text.contains("Loaded image: busybox:latest"),
        "docker load says {text:?}"
    );
    Ok(())
}

/// The directory of the executables that the image was built from: `KEELSON_BIN_DIR`.
///
/// # Errors
/// The variable is not set.
pub fn binaries() -> Result<PathBuf> {
    std::env::var_os("KEELSON_BIN_DIR")
        .map(PathBuf::from)
        .context("KEELSON_BIN_DIR is not set; `cargo xtask test` sets it")
}

/// The tag of [`load_conformance`]'s image.
const CONFORMANCE: &str = "conformance:test";

/// A program of this machine and the libraries that ldd(1) lists for it, each with its path in the
/// image.
///
/// # Errors
/// ldd can't be executed or doesn't know the program.
pub fn with_libraries(program: &Path) -> Result<Vec<(String, PathBuf)>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("execute ldd")?;
    ensure!(
        output.status.success(),
        "ldd {}: {output:?}",
        program.display()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    let files = libraries.map(PathBuf::from).chain([program.to_owned()]);
    let place = |path: &Path| {
        path.display()
            .to_string()
            .trim_start_matches('/')
            .to_owned()
    };
    Ok(files.map(|path| (place(&path), path)).collect())
}

/// Makes an image with busybox, our runtime, the conformance cases and their requirements, and the
/// given files, each with its path.
///
/// # Errors
/// A file can't be read, or docker refuses.
pub fn load_conformance(machine: &Machine, others: &[(String, PathBuf)]) -> Result<()> {
    let directory = binaries()?;
    let parser = with_libraries(Path::new("/usr/sbin/apparmor_parser"))?;
    // Programs may share libraries.
    let others: BTreeSet<_> = others.iter().chain(&parser).cloned().collect();
    let others: Vec<_> = others.into_iter().collect();
    let ours = ["keelson-runtime", "conformance"]
        .map(|name| (format!("bin/{name}"), directory.join(name)));
    let layer = assets::busybox_layer_with(&[&ours, others.as_slice()].concat())?;
    let limit = Duration::from_secs(180);
    let output = machine.docker_with(&["import", "-", CONFORMANCE], Some(layer), limit)?;
    output.success()?;
    Ok(())
}

/// Runs the conformance cases on the machine, in a container that sees the machine's cgroups and
/// may create containers.
///
/// # Errors
/// docker can't be executed. The caller judges the exit code.
pub fn conformance(
    machine: &Machine,
    arguments: &[&str],
    limit: Duration,
) -> Result<CommandOutput> {
    let mut words = vec!["run", "--rm", "--privileged", "--cgroupns", "host"];
    words.extend(["--network", "none", "--tmpfs", "/tmp:exec,dev,suid"]);
    words.extend(["-v", "/sys/fs/cgroup:/sys/fs/cgroup"]);
    words.extend([
        "-v",
        "/sys/kernel/security:/sys/kernel/security",
        CONFORMANCE,
    ]);
    words.extend(["conformance", "--deadline", "60"]);
    words.extend(arguments);
    Ok(machine.docker_with(&words, None, limit)?)
}

/// Runs docker and returns its output; any exit code but 0 is an error.
///
/// # Errors
/// docker fails.
pub fn docker(machine: &Machine, arguments: &[&str]) -> Result<String> {
    Ok(machine.docker(arguments)?.success()?.to_owned())
}

/// What `docker inspect` says about a container.
///
/// # Errors
/// There is none of that name.
pub fn inspect(machine: &Machine, name: &str) -> Result<Value> {
    let text = docker(machine, &["inspect", name])?;
    let value: Value = serde_json::from_str(&text)?;
    value.get(0).cloned().context("docker inspect says nothing")
}

/// Runs a shell command in a new busybox container and returns its output.
///
/// # Errors
/// The command fails.
pub fn shell(machine: &Machine, options: &[&str], script: &str) -> Result<String> {
    let mut arguments = vec!["run", "--rm"];
    arguments.extend(options);
    arguments.extend(["busybox", "sh", "-c", script]);
    docker(machine, &arguments)
}

/// A `GET` on the host API that must answer 200 with JSON.
///
/// # Errors
/// Another answer.
pub fn host_get(machine: &Machine, path: &str) -> Result<Value> {
    let response = machine.api("GET", path, None)?;
    ensure!(
        response.status == 200,
        "GET {path}: status {}, {}",
        response.status,
        response.text()
    );
    serde_json::from_slice(&response.body).with_context(|| format!("GET {path}"))
}

/// PID 1's report on the boot and its processes.
///
/// # Errors
/// The API fails or returns something else.
pub fn boot_status(machine: &Machine) -> Result<InitStatus> {
    let value = host_get(machine, "/host/v1/boot")?;
    serde_json::from_value(value.clone()).with_context(|| format!("GET /host/v1/boot: {value}"))
}

/// The process identifier of a program that PID 1 supervises.
///
/// # Errors
/// It does not run.
pub fn supervised_pid(machine: &Machine, name: &str) -> Result<i32> {
    let status = boot_status(machine)?;
    let process = status.processes.iter().find(|p| p.name == name);
    match process.and_then(|process| process.pid) {
        Some(pid) => Ok(pid),
        None => bail!("{name} does not run: {:?}", status.processes),
    }
}

/// Requests an orderly power-off over the host API.
///
/// # Errors
/// The API refuses.
pub fn request_power_off(machine: &Machine) -> Result<()> {
    let action = json!({"action": "poweroff"});
    let answer = machine.api("POST", "/host/v1/power", Some(&action))?;
    ensure!((200..300).contains(&answer.status), "{}", answer.text());
    Ok(())
}

/// Powers a machine off in an orderly way, and waits for its end.
///
/// # Errors
/// The API refuses, or the machine does not end in time.
pub fn power_off(machine: &Machine) -> Result<()> {
    request_power_off(machine)?;
    machine.wait_for_exit(STOP_LIMIT)?;
    Ok(())
}

/// The system services as the host API lists them.
///
/// # Errors
/// The API fails.
pub fn services(machine: &Machine) -> Result<Vec<Value>> {
    let value = host_get(machine, "/host/v1/services")?;
    value
        .as_array()
        .cloned()
        .with_context(|| format!("GET /host/v1/services is no list: {value}"))
}

/// Calls `poll` until it succeeds, since there is no event to wait for. Fails with its last answer.
///
/// # Errors
/// It does not succeed within `limit`, or fails.
pub fn until<T: std::fmt::Debug>(
    what: &str,
    limit: Duration,
    mut poll: impl FnMut() -> Result<std::result::Result<T, String>>,
) -> Result<T> {
    let deadline = std::time::Instant::now() + limit;
    loop {
        match poll()? {
            Ok(value) => return Ok(value),
            Err(state) if std::time::Instant::now() >= deadline => {
                bail!("no {what} within {} s; last: {state}", limit.as_secs())
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Checks that the machine ended by itself, and that its disk needs no repair.
///
/// # Errors
/// It did not.
pub fn ended_cleanly(machine: &Machine, disk: &Path) -> Result<()> {
    let (status, _) = machine.wait_for_exit(STOP_LIMIT)?;
    ensure!(status.success(), "QEMU ended with {status}");
    for text in ["keelson: powering off", "keelson: unmounted"] {
        ensure!(
            machine.console().find(text).is_some(),
            "no {text:?} on the console\n{}",
            machine.details()
        );
    }
    let root = partitions(disk)?
        .into_iter()
        .max_by_key(|partition| partition.length)
        .context("no partition")?;
    let state = Ext4State::read(disk, &root)?;
    ensure!(
        state.clean && !state.needs_recovery,
        "{state:?}\n{}",
        machine.details()
    );
    let check = check_ext4(disk, &root)?;
    ensure!(check.code == Some(0), "{check}");
    Ok(())
}
