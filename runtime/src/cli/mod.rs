//! The command line, compatible with runc's.

mod arguments;
mod create;
mod exec;
mod features;
mod help;
mod log;
mod manage;
mod readiness;
mod relay;
mod resources;
mod time;

use std::path::PathBuf;

use arguments::Arguments;

use crate::failure::Failure;

/// Commands of runc that need another program (CRIU), which this runtime does not use.
const REFUSED: &[&str] = &["checkpoint", "restore"];

/// Options before the command.
struct Global {
    root: PathBuf,
    /// Whether containers get a cgroup.
    cgroups: bool,
}

/// Runs a command line (without the program's name).
pub(crate) fn main(arguments: Vec<String>) -> u8 {
    let arguments = Arguments::new(arguments);
    log::open(log::Log {
        path: arguments.leading_value("--log"),
        json: arguments.leading_value("--log-format").as_deref() == Some("json"),
    });
    // As runc: the exit codes of the container's commands are lower.
    const EXEC_FAILED: u8 = 255;
    let mut failed = 1;
    let result = run(arguments, || failed = EXEC_FAILED);
    match result {
        Ok(code) => code,
        Err(failure) => {
            log::error(&failure.message);
            // As runc: scripts tell failures by this code alone.
            failed
        }
    }
}

/// Where containers are kept without `--root`. As runc: a user without the rights of root has a
/// directory of their own, even as root of a user namespace.
fn default_root() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
    match own {
        Some(own) if crate::sandbox::userns::is_restricted() => {
            PathBuf::from(own).join("keelson-runtime")
        }
        _ => PathBuf::from("/run/keelson-runtime"),
    }
}

/// Calls `execs` when the command is `exec`.
fn run(mut arguments: Arguments, mut execs: impl FnMut()) -> Result<u8, Failure> {
    let mut root = default_root();
    let mut cgroups = true;
    let command = loop {
        let Some(argument) = arguments.next() else {
            return Err(Failure::invalid(format!(
                "no command is given\n\n{}",
                help::general()
            )));
        };
        match argument.as_str() {
            "--root" => root = PathBuf::from(arguments.value("--root")?),
            "--log" | "--log-format" | "--criu" => {
                arguments.value(&argument)?;
            }
            "--debug" => log::tell_steps(arguments.switch()),
            "--systemd-cgroup" => {
                return Err(Failure::unsupported(
                    "--systemd-cgroup: the systemd cgroup driver is not supported; cgroups are managed directly",
                ));
            }
            // As crun, for Podman's --cgroups=disabled.
            "--cgroup-manager" => match arguments.value("--cgroup-manager")?.as_str() {
                "cgroupfs" => cgroups = true,
                "disabled" => cgroups = false,
                other => {
                    return Err(Failure::unsupported(format!(
                        "--cgroup-manager {other}: not supported, cgroupfs and disabled are"
                    )));
                }
            },
            "--rootless" => match arguments.value("--rootless")?.as_str() {
                "false" | "auto" => {}
                other => {
                    return Err(Failure::unsupported(format!(
                        "--rootless {other}: not supported yet"
                    )));
                }
            },
            "--version" | "-v" => {
                println!("{}", help::version());
                return Ok(0);
            }
            "--help" | "-h" => {
                print!("{}", help::general());
                return Ok(0);
            }
            option if option.starts_with('-') => {
                return Err(Failure::invalid(format!("unknown option {option}")));
            }
            _ => break argument,
        }
    };
    if arguments.asks_for_help()
        && let Some(text) = help::of(&command)
    {
        print!("{text}");
        return Ok(0);
    }
    let global = Global { root, cgroups };
    match command.as_str() {
        "create" => create::create(&global, arguments),
        "run" => create::run(&global, arguments),
        "exec" => {
            execs();
            exec::exec(&global, arguments)
        }
        "start" => manage::start(&global, arguments),
        "state" => manage::state(&global, arguments),
        "kill" => manage::kill(&global, arguments),
        "delete" => manage::delete(&global, arguments),
        "list" => manage::list(&global, arguments),
        "ps" => resources::ps(&global, arguments),
        "update" => resources::update(&global, arguments),
        "events" => resources::events(&global, arguments),
        "pause" => manage::freeze(&global, arguments, true),
        "resume" => manage::freeze(&global, arguments, false),
        "features" => features::print(),
        "spec" => features::write_spec(arguments),
        "help" => {
            let text = arguments.next().and_then(|command| help::of(&command));
            print!("{}", text.unwrap_or_else(help::general));
            Ok(0)
        }
        refused if REFUSED.contains(&refused) => Err(Failure::unsupported(format!(
            "{refused}: checkpoints are not supported"
        ))),
        // runc's words: its tests and others look for them.
        other => Err(Failure::invalid(format!(
            "No help topic for '{other}': there is no such command\n\n{}",
            help::general()
        ))),
    }
}
