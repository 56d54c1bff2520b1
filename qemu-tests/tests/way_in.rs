//! The way into a booted machine: ssh with a key, docker and hostctl in the console, docker over ssh,
//! the system bus; services that can't run, and a console that is switched off.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::harness::Machine;
use qemu_tests::lab::{
    BOOT_LIMIT, Lab, STOP_LIMIT, host_get, load_busybox, seconds, services, shell, until,
};
use serde_json::{Value, json};

/// How long a service may take to be as it should.
const SOON: Duration = Duration::from_secs(90);
/// Clients at once. sshd would drop some of more than ten if its limits were the usual ones.
const CLIENTS: usize = 14;

/// A person with a key, and without anything of this machine's user.
struct Person {
    directory: tempfile::TempDir,
    port: u16,
}

impl Person {
    fn new() -> Result<Self> {
        let person = Self {
            directory: tempfile::tempdir()?,
            port: 0,
        };
        for key in ["key", "other"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]);
            let output = keygen.arg(person.path(key)).output()?;
            ensure!(output.status.success(), "ssh-keygen: {output:?}");
        }
        Ok(person)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn public_key(&self) -> Result<String> {
        Ok(fs::read_to_string(self.path("key.pub"))?.trim().to_owned())
    }

    /// Options of ssh that keep this machine's user and its files out.
    fn options(&self, key: &str) -> Vec<String> {
        let known = self.path("known_hosts");
        let mut options = vec!["-F".to_owned(), "/dev/null".to_owned()];
        options.extend(["-i".to_owned(), self.path(key).display().to_string()]);
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=accept-new",
            "ConnectTimeout=60",
            &format!("UserKnownHostsFile={}", known.display()),
        ] {
            options.extend(["-o".to_owned(), option.to_owned()]);
        }
        options
    }

    fn ssh(&self, key: &str, user: &str, command: &str) -> Result<Output> {
        let mut ssh = Command::new("ssh");
        ssh.args(self.options(key))
            .args(["-p", &self.port.to_string()]);
        ssh.arg(format!("{user}@127.0.0.1")).arg(command);
        ssh.output().context("execute ssh")
    }

    /// What a command prints that must succeed.
    fn says(&self, command: &str) -> Result<String> {
        let output = self.ssh("key", "core", command)?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(output.status.success(), "{command}: {output:?}");
        Ok(text)
    }

    /// `docker -H ssh://`, which executes the `ssh` that it finds.
    fn docker(&self, arguments: &[&str]) -> Result<Command> {
        let wrapper = self.path("bin/ssh");
        if !wrapper.exists() {
            fs::create_dir(self.path("bin"))?;
            let words = self.options("key").join("' '");
            fs::write(
                &wrapper,
                format!("#!/bin/sh\nexec /usr/bin/ssh '{words}' \"$@\"\n"),
            )?;
            fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let mut docker = Command::new("docker");
        docker
            .args(["-H", &format!("ssh://core@127.0.0.1:{}", self.port)])
            .args(arguments)
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("DOCKER_CONFIG", self.directory.path());
        Ok(docker)
    }
}

fn configuration(key: &str) -> String {
    format!(
        "[[user]]\nname = 'core'\nssh_authorized_keys = ['{key}']\ngroups = ['docker']\nsudo = true\n\
         [services.absent]\nlayers = ['absent']\ncommand = ['/x']\n\
         [services.loops]\nlayers = ['bus', 'base']\ncommand = ['/usr/bin/dbus-send', '--nonsense']\n"
    )
}

/// Waits until a service is in this state.
fn service(machine: &Machine, name: &str, state: &str) -> Result<Value> {
    until(&format!("{state} service {name}"), SOON, || {
        let all = services(machine)?;
        let found = all.iter().find(|service| service["name"] == name);
        Ok(match found {
            Some(service) if service["state"] == state => Ok(service.clone()),
            other => Err(format!("{other:?}")),
        })
    })
}

fn listens_on_22(machine: &Machine) -> Result<bool> {
    let listed = shell(machine, &["--network=host"], "netstat -ltn")?;
    Ok(listed.contains(":22 "))
}

#[test]
fn people_come_in_by_ssh_and_nobody_when_it_is_switched_off() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    if !Path::new("/usr/bin/ssh").exists() {
        keelson_testing::skip("ssh", "there is no /usr/bin/ssh");
        return Ok(());
    }
    let _slot = lab.slot()?;
    let mut person = Person::new()?;
    let machine = lab
        .direct("way-in")?
        .host_toml(configuration(&person.public_key()?))
        .forward(0, 22)
        .launch()?;
    person.port = machine.port(22)?;
    // What can't run does not keep the API from coming.
    machine.wait_api(BOOT_LIMIT)?;
    let begin = Instant::now();
    until("login by ssh", SOON, || {
        let output = person.ssh("key", "core", "id -un")?;
        Ok(match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        })
    })
    .with_context(|| {
        let logs = machine.api("GET", "/host/v1/services/console/logs", None);
        logs.map_or_else(|error| error.to_string(), |logs| logs.text().to_owned())
    })?;
    lab.record("api_to_login_by_ssh_s", seconds(begin.elapsed()))?;

    in_the_console(&person)?;
    only_keys_of_the_configuration(&person)?;
    docker_over_ssh(&person)?;
    broken_services_are_reported(&machine)?;

    // Switched off: nothing listens. Then on again, with the same host keys.
    load_busybox(&machine)?;
    ensure!(listens_on_22(&machine)?, "nothing listens on port 22");
    let answer = machine.api("POST", "/host/v1/services/console/disable", None)?;
    ensure!(answer.status == 200, "disable: {}", answer.text());
    service(&machine, "console", "disabled")?;
    ensure!(!listens_on_22(&machine)?, "something listens on port 22");
    let answer = machine.api("POST", "/host/v1/services/console/start", None)?;
    ensure!(answer.status == 409, "start: {}", answer.text());
    let answer = machine.api("POST", "/host/v1/services/console/enable", None)?;
    ensure!(answer.status == 200, "enable: {}", answer.text());
    service(&machine, "console", "running")?;
    until("login by ssh", SOON, || {
        let output = person.ssh("key", "core", "id -un")?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if error.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
            bail!("the host keys are others: {error}");
        }
        Ok(if output.status.success() {
            Ok(())
        } else {
            Err(error)
        })
    })?;

    // What people type stops the machine, not the console.
    // Only root may: others have the role operator.
    let time = person.ssh("key", "core", "hostctl time");
    let refused = person.ssh("key", "core", "reboot")?;
    let error = String::from_utf8_lossy(&refused.stderr);
    ensure!(error.contains("takes role admin"), "{refused:?}");
    let output = person.ssh("key", "core", "sudo reboot")?;
    let ended = machine.wait_for_exit(STOP_LIMIT);
    let (status, _) = ended.with_context(|| format!("sudo reboot: {output:?}"))?;
    ensure!(
        status.success(),
        "QEMU ended with {status}, after {output:?}"
    );
    let rebooting = machine.console().find("keelson: rebooting").is_some();
    ensure!(rebooting, "no reboot: {}", machine.details());
    let time = time?;
    let text = String::from_utf8_lossy(&time.stdout);
    ensure!(text.contains("synchronized:"), "hostctl time: {time:?}");
    Ok(())
}

fn in_the_console(person: &Person) -> Result<()> {
    person.says("docker ps")?;
    person.says("docker compose version && docker buildx version")?;
    let listed = person.says("hostctl service list")?;
    for name in ["bus", "console", "time", "absent"] {
        ensure!(listed.contains(name), "hostctl service list: {listed}");
    }
    ensure!(person.says("sudo -n id -u")? == "0");
    ensure!(person.says("hostname")? == "keelson");
    let programs = "for p in bash scp rsync curl ip tcpdump strace vi nano less ps; do \
                    command -v $p > /dev/null || echo $p; done";
    ensure!(
        person.says(programs)?.is_empty(),
        "{}",
        person.says(programs)?
    );
    let names = person.says(
        "dbus-send --system --print-reply --dest=org.freedesktop.DBus / \
         org.freedesktop.DBus.ListNames",
    )?;
    ensure!(names.contains("org.freedesktop.DBus"), "{names}");
    // Confined by profiles of their own.
    let profile = person.says("cat /proc/self/attr/current")?;
    ensure!(
        profile.starts_with("keelson-console (enforce)"),
        "{profile}"
    );
    // Homes are on /var and the user's own.
    ensure!(person.says("stat -c '%U %a' ~")? == "core 700");
    Ok(())
}

fn only_keys_of_the_configuration(person: &Person) -> Result<()> {
    for (key, user) in [("other", "core"), ("key", "root"), ("key", "nobody")] {
        let output = person.ssh(key, user, "id")?;
        let error = String::from_utf8_lossy(&output.stderr);
        // No password is asked for either.
        ensure!(
            error.contains("Permission denied (publickey)"),
            "{key} as {user}: {output:?}"
        );
    }
    Ok(())
}

fn docker_over_ssh(person: &Person) -> Result<()> {
    let clients = (0..CLIENTS)
        .map(|_| Ok(person.docker(&["ps", "-q"])?.spawn()?))
        .collect::<Result<Vec<_>>>()?;
    for mut client in clients {
        let status = client.wait()?;
        ensure!(status.success(), "docker -H ssh://: {status}");
    }
    Ok(())
}

fn broken_services_are_reported(machine: &Machine) -> Result<()> {
    let absent = service(machine, "absent", "failing")?;
    let error = absent["error"].as_str().unwrap_or_default();
    for part in [
        "services.absent.layers[0]",
        "absent.erofs",
        "base, bus, console, time",
    ] {
        ensure!(error.contains(part), "{absent}");
    }
    let loops = service(machine, "loops", "failing")?;
    ensure!(loops["restarts"].as_u64() >= Some(3), "{loops}");
    ensure!(
        loops["exit_code"] != json!(0) && !loops["exit_code"].is_null(),
        "{loops}"
    );
    for name in ["time", "bus", "console"] {
        service(machine, name, "running")?;
    }
    let one = host_get(machine, "/host/v1/services/bus")?;
    ensure!(one["image"] == "bus + base", "{one}");
    Ok(())
}
