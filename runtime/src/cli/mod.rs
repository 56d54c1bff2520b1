//! The command line, compatible with runc's.

mod arguments;
mod create;
mod exec;
mod features;
mod log;
mod manage;
mod relay;
mod resources;

use std::path::PathBuf;

use arguments::Arguments;

use crate::failure::Failure;

const USAGE: &str = "\
usage: keelson-runtime [global options] command [options] [arguments]

global options:
  --root DIR            where the state of containers is kept (/run/keelson-runtime)
  --log FILE            write errors to a file as well
  --log-format FORMAT   text or json
  --cgroup-manager M    cgroupfs, or disabled: containers stay in the caller's cgroup
  --debug               accepted, has no effect yet
  --version, -v         print the version

commands:
  create [--bundle DIR] [--console-socket PATH] [--pid-file FILE] [--preserve-fds N]
         [--no-new-keyring] ID
  start ID
  run [--detach] [--keep] [options of create] ID
  exec [--process FILE] [--tty] [--console-socket PATH] [--pid-file FILE] [--detach]
       [--user UID[:GID]] [--additional-gids GID] [--cap NAME] [--cwd DIR] [--env NAME=VALUE]
       [--preserve-fds N] [--no-new-privs] [--apparmor NAME] [--process-label LABEL]
       [--cgroup PATH] [--ignore-paused] ID COMMAND...
  state ID
  kill [--all] ID [SIGNAL]
  delete [--force] ID
  list [--format table|json] [--quiet]
  ps [--format table|json] ID [options of ps]
  update [--resources FILE|-] [--memory N, --cpu-quota N, --pids-limit N, ...] ID
  events [--stats] [--interval TIME] ID
  pause ID
  resume ID
  spec [--bundle DIR]
  features
";

/// Commands of runc's that need a program that this one does without.
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
    let log = log::Log::new(
        arguments.leading_value("--log"),
        arguments.leading_value("--log-format"),
    );
    // As runc: a command's own exit codes are below.
    const EXEC_FAILED: u8 = 255;
    let mut failed = 1;
    let result = run(arguments, || failed = EXEC_FAILED);
    match result {
        Ok(code) => code,
        Err(failure) => {
            log.error(&failure.message);
            eprintln!("keelson-runtime: {failure}");
            // As runc: scripts tell failures by this code alone.
            failed
        }
    }
}

/// `execs` is called when the command is `exec`.
fn run(mut arguments: Arguments, mut execs: impl FnMut()) -> Result<u8, Failure> {
    let mut root = PathBuf::from("/run/keelson-runtime");
    let mut cgroups = true;
    let command = loop {
        let Some(argument) = arguments.next() else {
            return Err(Failure::invalid(format!("no command is given\n\n{USAGE}")));
        };
        match argument.as_str() {
            "--root" => root = PathBuf::from(arguments.value("--root")?),
            "--log" | "--log-format" | "--criu" => {
                arguments.value(&argument)?;
            }
            "--debug" => {}
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
                println!(
                    "keelson-runtime version {}\nspec: 1.2.0",
                    env!("CARGO_PKG_VERSION")
                );
                return Ok(0);
            }
            "--help" | "-h" => {
                print!("{USAGE}");
                return Ok(0);
            }
            option if option.starts_with('-') => {
                return Err(Failure::invalid(format!("unknown option {option}")));
            }
            _ => break argument,
        }
    };
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
            print!("{USAGE}");
            Ok(0)
        }
        refused if REFUSED.contains(&refused) => Err(Failure::unsupported(format!(
            "{refused}: checkpoints are not supported"
        ))),
        other => Err(Failure::invalid(format!(
            "unknown command {other:?}\n\n{USAGE}"
        ))),
    }
}
