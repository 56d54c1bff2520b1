//! Logins that land in a container of the user's own.
//!
//! The login shell of such a user executes `enter-container` by sudo, because the user may not use the
//! APIs. As root that finds the user's image in the configuration, lets the container run, and executes
//! a shell in it as the user.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use keelson_config::{Sources, current};
use rustix::termios::isatty;

use crate::error::ConsoleError;
use crate::people::ENTER_CONTAINER;
use crate::program::output_of;

/// Label with the image that a container was made of.
const IMAGE: &str = "io.keelson.login.image";
/// What the container does while nobody is in it.
const IDLE: [&str; 2] = ["sleep", "infinity"];

/// `own-container [-c COMMAND]`: the login shell.
pub(crate) fn leave(arguments: Vec<OsString>) -> Result<ExitCode, ConsoleError> {
    let program = "sudo";
    let mut command = Command::new("/usr/bin/sudo");
    command.args(["-n", "--", ENTER_CONTAINER]).args(arguments);
    let source = command.exec();
    Err(ConsoleError::Execute { program, source })
}

/// `enter-container [-c COMMAND]`, as root.
pub(crate) fn enter(arguments: Vec<OsString>) -> Result<ExitCode, ConsoleError> {
    // sudo sets these; nobody else may execute this as root.
    let of_sudo = |name: &str| env::var(name).unwrap_or_default();
    let user = of_sudo("SUDO_USER");
    let owner = format!("{}:{}", of_sudo("SUDO_UID"), of_sudo("SUDO_GID"));
    let loaded = current(&Sources::machine());
    let found = loaded.config.user.iter().find(|known| known.name == user);
    let image = found.and_then(|known| known.container.clone());
    let image = image.ok_or_else(|| ConsoleError::NoContainer(user.clone()))?;
    let name = format!("login-{user}");
    let home = format!("/home/{user}");
    ensure(&name, &image, &user, &home)?;
    let mut command = docker();
    command.args(["exec", "--interactive"]);
    if isatty(std::io::stdin()) {
        command.arg("--tty");
    }
    command.args(["--user", &owner, "--workdir", &home]);
    for variable in [format!("HOME={home}"), format!("USER={user}")] {
        command.args(["--env", &variable]);
    }
    if let Ok(terminal) = env::var("TERM") {
        command.args(["--env", &format!("TERM={terminal}")]);
    }
    command.args([&name, "/bin/sh"]);
    match arguments.is_empty() {
        true => command.arg("-l"),
        false => command.args(arguments),
    };
    let source = command.exec();
    Err(ConsoleError::Execute {
        program: "docker",
        source,
    })
}

fn docker() -> Command {
    let mut command = Command::new("/usr/bin/docker");
    // Nothing of the user's environment may lead elsewhere.
    command
        .env_remove("DOCKER_HOST")
        .env_remove("DOCKER_CONTEXT");
    command.env_remove("DOCKER_CONFIG").env("HOME", "/root");
    command
}

/// Lets the container run. One that was made of another image is made anew.
fn ensure(name: &str, image: &str, user: &str, home: &str) -> Result<(), ConsoleError> {
    let format = format!("{{{{index .Config.Labels {IMAGE:?}}}}}");
    let known = output_of(
        "docker",
        docker().args(["container", "inspect", "--format", &format, name]),
    )
    .ok();
    match known {
        Some(made_of) if made_of == image => {
            output_of("docker", docker().args(["start", name]))?;
            return Ok(());
        }
        Some(_) => {
            output_of("docker", docker().args(["rm", "--force", name]))?;
        }
        None => {}
    }
    let mut command = docker();
    command.args(["run", "--detach", "--init", "--restart", "unless-stopped"]);
    command.args(["--name", name, "--hostname", name]);
    command.args(["--label", &format!("{IMAGE}={image}")]);
    // The console's /home is the machine's /var/home.
    command.args(["--volume", &format!("/var/home/{user}:{home}")]);
    command.args(["--security-opt", "no-new-privileges"]);
    output_of("docker", command.arg(image).args(IDLE))?;
    Ok(())
}
