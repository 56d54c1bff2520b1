//! What the program says about itself, in runc's form: scripts and shell completions read it.

use std::path::Path;

/// A command: its name, what it does, and its arguments.
struct Command {
    name: &'static str,
    summary: &'static str,
    usage: &'static str,
}

const fn command(name: &'static str, summary: &'static str, usage: &'static str) -> Command {
    Command {
        name,
        summary,
        usage,
    }
}

const COMMANDS: &[Command] = &[
    command(
        "checkpoint",
        "not supported: checkpoints need another program",
        "ID",
    ),
    command(
        "create",
        "create a container; its command waits to be started",
        "[--bundle DIR] [--console-socket PATH] [--pidfd-socket PATH] [--pid-file FILE] [--preserve-fds N]
          [--no-new-keyring] ID",
    ),
    command("delete", "forget a container", "[--force] ID"),
    command(
        "events",
        "report statistics and out-of-memory kills",
        "[--stats] [--interval TIME] ID",
    ),
    command(
        "exec",
        "run an additional process in a container",
        "[--process FILE] [--tty] [--console-socket PATH] [--pidfd-socket PATH] [--pid-file FILE] [--detach]
        [--user UID[:GID]] [--additional-gids GID] [--cap NAME] [--cwd DIR] [--env NAME=VALUE]
        [--preserve-fds N] [--no-new-privs] [--apparmor NAME] [--process-label LABEL]
        [--cgroup PATH] [--ignore-paused] ID COMMAND...",
    ),
    command("features", "print what this program supports, as JSON", ""),
    command(
        "kill",
        "send a signal to a container's first process, or to all",
        "[--all] ID [SIGNAL]",
    ),
    command(
        "list",
        "list the containers of a root",
        "[--format table|json] [--quiet]",
    ),
    command("pause", "suspend all processes of a container", "ID"),
    command(
        "ps",
        "list the processes of a container",
        "[--format table|json] ID [options of ps]",
    ),
    command(
        "restore",
        "not supported: checkpoints need another program",
        "ID",
    ),
    command("resume", "let a paused container go on", "ID"),
    command(
        "run",
        "create a container and start it",
        "[--detach] [--keep] [options of create] ID",
    ),
    command(
        "spec",
        "write a config.json to begin with",
        "[--bundle DIR] [--rootless]",
    ),
    command("start", "execute the command of a created container", "ID"),
    command("state", "print a container's state, as JSON", "ID"),
    command(
        "update",
        "change a container's limits",
        "[--resources FILE|-] [--memory N, --cpu-quota N, --pids-limit N, ...] ID",
    ),
];

const GLOBAL: &str = "\
   --root DIR            where the state of containers is kept (/run/keelson-runtime)
   --log FILE            write errors to a file as well
   --log-format FORMAT   text or json
   --cgroup-manager M    cgroupfs, or disabled: containers stay in the caller's cgroup
   --debug               log the steps of making and starting processes, too
   --help, -h            print this, or what a command takes
   --version, -v         print the version
";

/// The name that the program was called by: it may be installed in place of another runtime.
fn program() -> String {
    keelson_sys::entry::name()
        .as_deref()
        .and_then(|path| Path::new(path).file_name())
        .map_or("keelson-runtime".into(), |name| name.to_string_lossy())
        .into_owned()
}

/// The help text of the whole program.
pub(super) fn general() -> String {
    let program = program();
    let mut text = format!(
        "NAME:
   {program} - Open Container Initiative runtime

USAGE:
   {program} [global options] COMMAND [options] [arguments]

COMMANDS:
"
    );
    for Command { name, summary, .. } in COMMANDS {
        text.push_str(&format!("   {name:<12}{summary}\n"));
    }
    text.push_str("\nGLOBAL OPTIONS:\n");
    text.push_str(GLOBAL);
    text
}

/// The help text of one command. `None`: there is no such command.
pub(super) fn of(command: &str) -> Option<String> {
    let program = program();
    let Command {
        name,
        summary,
        usage,
    } = COMMANDS.iter().find(|it| it.name == command)?;
    Some(format!(
        "NAME:\n   {program} {name} - {summary}\n\nUSAGE:\n   {program} {name} {usage}\n"
    ))
}

/// What `--version` prints: clients read the lines that begin with a name and a colon.
pub(super) fn version() -> String {
    let (program, version) = (program(), env!("CARGO_PKG_VERSION"));
    format!("{program} version {version}\ncommit: v{version}\nspec: 1.2.0")
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_command_says_what_it_takes() {
        assert!(super::of("exec").unwrap().contains("keelson-runtime exec"));
        assert_eq!(super::of("nothing"), None);
        assert!(super::general().contains("   spec "));
    }
}
