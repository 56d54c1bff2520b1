//! `linux.seccomp`.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result, ensure};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::{Value, json};

use crate::case::{Case, must};
use crate::command::Ended;
use crate::lab::{Lab, contains, same};

const SECCOMP: &str = "config-linux.md#seccomp";

/// Runs a script under a filter that allows everything, with these rules as exceptions.
fn filtered(lab: &Lab, script: &str, rules: Value) -> Result<Ended> {
    lab.run(|config| {
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": rules
        });
    })
}

/// The system calls of `mkdir`.
const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

/// How a process ends if the filter has an action for `mkdir`.
fn mkdir_with(lab: &Lab, action: &str) -> Result<String> {
    filtered(
        lab,
        "mkdir /tmp/x; echo $?",
        json!([{"names": MKDIR, "action": action}]),
    )?
    .output()
}

/// Which of the signals 0, 10, 18 and 28 pass a filter on kill's second argument.
fn signals_passed(lab: &Lab, op: &str, value: u64, value_two: u64) -> Result<String> {
    filtered(
        lab,
        "trap '' 10 18 28; for s in 0 10 18 28; do kill -$s $$ 2>/dev/null && echo $s; done; true",
        json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [
            {"index": 1, "value": value, "valueTwo": value_two, "op": op}
        ]}]),
    )?
    .output()
    .map(|text| text.replace('\n', " "))
}

fn refused(lab: &Lab, seccomp: Value) -> Result<()> {
    lab.refuses_within(
        |config| config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"}),
        |config| config["linux"]["seccomp"] = seccomp,
    )
    .map(drop)
}

pub(super) const CASES: &[Case] = &[
    must(
        "linux.seccomp.mode",
        SECCOMP,
        "The filter is in force in the process.",
        |lab| {
            let text = lab.script("grep Seccomp: /proc/self/status", |config| {
                config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                    {"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}
                ]});
            })?;
            same("Seccomp", &text, "Seccomp:\t2")
        },
    ),
    must(
        "linux.seccomp.absent",
        SECCOMP,
        "Without seccomp there is no filter.",
        |lab| {
            same(
                "Seccomp",
                &lab.script("grep Seccomp: /proc/self/status", |_| {})?,
                "Seccomp:\t0",
            )
        },
    ),
    must(
        "linux.seccomp.errno-default",
        SECCOMP,
        "SCMP_ACT_ERRNO fails the call with EPERM.",
        |lab| {
            let ended = filtered(
                lab,
                "mkdir /tmp/x",
                json!([{"names": MKDIR, "action": "SCMP_ACT_ERRNO"}]),
            )?;
            contains("message", &ended.failure()?, "Operation not permitted")
        },
    ),
    must(
        "linux.seccomp.errno-ret",
        SECCOMP,
        "errnoRet is the error of the call.",
        |lab| {
            let ended = filtered(
                lab,
                "mkdir /tmp/x",
                json!([{"names": MKDIR, "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]),
            )?;
            contains("message", &ended.failure()?, "No space left")
        },
    ),
    must(
        "linux.seccomp.default-errno-ret",
        SECCOMP,
        "defaultErrnoRet is the error of calls that no rule names.",
        |lab| {
            let text = lab.script("mkdir /tmp/x 2>&1; true", |config| {
                config["linux"]["seccomp"] =
                    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []});
            })?;
            same("without rules", &text, "")?;
            // Everything that the shell needs is allowed by number ranges nowhere: all but mkdir is
            // listed by what the kernel's table has for it.
            let ended = lab.run(|config| {
                config["process"]["args"] = json!(["mkdir", "/tmp/y"]);
                config["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 28,
                    "syscalls": [{"names": ALLOWED, "action": "SCMP_ACT_ALLOW"}]
                });
            })?;
            contains("message", &ended.failure()?, "No space left")
        },
    ),
    must(
        "linux.seccomp.allow-list",
        SECCOMP,
        "With a default of SCMP_ACT_ERRNO only listed calls work.",
        |lab| {
            let run = |names: Vec<&str>| {
                lab.run(|config| {
                    config["process"]["args"] = json!(["mkdir", "-p", "/tmp/z"]);
                    config["linux"]["seccomp"] = json!({
                        "defaultAction": "SCMP_ACT_ERRNO",
                        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]
                    });
                })
            };
            let mut names = ALLOWED.to_vec();
            ensure!(
                !run(names.clone())?.status.success(),
                "mkdir works without being listed"
            );
            names.extend(MKDIR);
            run(names)?.output().map(drop)
        },
    ),
    must(
        "linux.seccomp.kill",
        SECCOMP,
        "SCMP_ACT_KILL ends the caller by SIGSYS.",
        |lab| same("exit", &mkdir_with(lab, "SCMP_ACT_KILL")?, "159"),
    ),
    must(
        "linux.seccomp.kill-process",
        SECCOMP,
        "SCMP_ACT_KILL_PROCESS ends the process by SIGSYS.",
        |lab| same("exit", &mkdir_with(lab, "SCMP_ACT_KILL_PROCESS")?, "159"),
    ),
    must(
        "linux.seccomp.kill-thread",
        SECCOMP,
        "SCMP_ACT_KILL_THREAD ends the thread by SIGSYS.",
        |lab| same("exit", &mkdir_with(lab, "SCMP_ACT_KILL_THREAD")?, "159"),
    ),
    must(
        "linux.seccomp.trap",
        SECCOMP,
        "SCMP_ACT_TRAP sends SIGSYS.",
        |lab| same("exit", &mkdir_with(lab, "SCMP_ACT_TRAP")?, "159"),
    ),
    must(
        "linux.seccomp.log",
        SECCOMP,
        "SCMP_ACT_LOG lets the call through.",
        |lab| same("exit", &mkdir_with(lab, "SCMP_ACT_LOG")?, "0"),
    ),
    must(
        "linux.seccomp.trace",
        SECCOMP,
        "SCMP_ACT_TRACE fails the call with ENOSYS when nobody traces.",
        |lab| {
            let ended = filtered(
                lab,
                "mkdir /tmp/x",
                json!([{"names": MKDIR, "action": "SCMP_ACT_TRACE"}]),
            )?;
            contains("message", &ended.failure()?, "not implemented")
        },
    ),
    must(
        "linux.seccomp.op-eq",
        SECCOMP,
        "SCMP_CMP_EQ: equal.",
        |lab| {
            same(
                "signals",
                &signals_passed(lab, "SCMP_CMP_EQ", 10, 0)?,
                "0 18 28",
            )
        },
    ),
    must(
        "linux.seccomp.op-ne",
        SECCOMP,
        "SCMP_CMP_NE: not equal.",
        |lab| same("signals", &signals_passed(lab, "SCMP_CMP_NE", 10, 0)?, "10"),
    ),
    must(
        "linux.seccomp.op-lt",
        SECCOMP,
        "SCMP_CMP_LT: less.",
        |lab| {
            same(
                "signals",
                &signals_passed(lab, "SCMP_CMP_LT", 18, 0)?,
                "18 28",
            )
        },
    ),
    must(
        "linux.seccomp.op-le",
        SECCOMP,
        "SCMP_CMP_LE: less or equal.",
        |lab| same("signals", &signals_passed(lab, "SCMP_CMP_LE", 18, 0)?, "28"),
    ),
    must(
        "linux.seccomp.op-gt",
        SECCOMP,
        "SCMP_CMP_GT: greater.",
        |lab| {
            same(
                "signals",
                &signals_passed(lab, "SCMP_CMP_GT", 10, 0)?,
                "0 10",
            )
        },
    ),
    must(
        "linux.seccomp.op-ge",
        SECCOMP,
        "SCMP_CMP_GE: greater or equal.",
        |lab| same("signals", &signals_passed(lab, "SCMP_CMP_GE", 10, 0)?, "0"),
    ),
    must(
        "linux.seccomp.op-masked-eq",
        SECCOMP,
        "SCMP_CMP_MASKED_EQ: equal under the mask in value.",
        |lab| {
            // Bit 3 is set in 10 (0b01010) and 28 (0b11100), not in 0 and 18 (0b10010).
            same(
                "signals",
                &signals_passed(lab, "SCMP_CMP_MASKED_EQ", 8, 8)?,
                "0 18",
            )
        },
    ),
    must(
        "linux.seccomp.args-all",
        SECCOMP,
        "A rule with several arguments needs all of them to match.",
        |lab| {
            let text = filtered(
                lab,
                "trap '' 10 28; for s in 10 28; do kill -$s $$ 2>/dev/null && echo $s; done; true",
                json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [
                    {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
                    {"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}
                ]}]),
            )?
            .output()?;
            same("signals", &text, "28")
        },
    ),
    must(
        "linux.seccomp.unknown-call",
        SECCOMP,
        "A name that is no system call here is passed over.",
        |lab| {
            filtered(
                lab,
                "true",
                json!([{"names": ["no_such_call", "mkdir"], "action": "SCMP_ACT_ERRNO"}]),
            )?
            .output()
            .map(drop)
        },
    ),
    must(
        "linux.seccomp.unknown-action",
        SECCOMP,
        "An action that does not exist is an error.",
        |lab| {
            refused(
                lab,
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NONSENSE"}]}),
            )
        },
    ),
    must(
        "linux.seccomp.unknown-default",
        SECCOMP,
        "A default action that does not exist is an error.",
        |lab| refused(lab, json!({"defaultAction": "SCMP_ACT_NONSENSE"})),
    ),
    must(
        "linux.seccomp.unknown-operator",
        SECCOMP,
        "An operator that does not exist is an error.",
        |lab| {
            refused(
                lab,
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                    {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_NONSENSE"}]}
                ]}),
            )
        },
    ),
    must(
        "linux.seccomp.unknown-architecture",
        SECCOMP,
        "An architecture that does not exist is an error.",
        |lab| {
            refused(
                lab,
                json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NONSENSE"], "syscalls": [
                    {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}
                ]}),
            )
        },
    ),
    must(
        "linux.seccomp.errno-without-support",
        SECCOMP,
        "errnoRet with an action that has no error is an error.",
        |lab| {
            refused(
                lab,
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                    {"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 5}
                ]}),
            )
        },
    ),
    must(
        "linux.seccomp.default-errno-without-support",
        SECCOMP,
        "defaultErrnoRet with an action that has no error is an error.",
        |lab| {
            refused(
                lab,
                json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 5, "syscalls": [
                    {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}
                ]}),
            )
        },
    ),
    must(
        "linux.seccomp.names-needed",
        SECCOMP,
        "A rule names at least one system call.",
        |lab| {
            refused(
                lab,
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}),
            )
        },
    ),
    must(
        "linux.seccomp.no-new-privileges",
        SECCOMP,
        "The filter works together with noNewPrivileges and without capabilities.",
        |lab| {
            let text = lab.script("mkdir /tmp/x 2>/dev/null || echo refused", |config| {
            config["process"]["noNewPrivileges"] = json!(true);
            config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            config["process"]["capabilities"] = json!({});
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": MKDIR, "action": "SCMP_ACT_ERRNO"}]});
        })?;
            same("output", &text, "refused")
        },
    ),
    must(
        "linux.seccomp.flag-log",
        SECCOMP,
        "The flag SECCOMP_FILTER_FLAG_LOG is taken.",
        |lab| {
            lab.script("true", |config| {
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"], "syscalls": [{"names": MKDIR, "action": "SCMP_ACT_ERRNO"}]});
        })
        .map(drop)
        },
    ),
    must(
        "linux.seccomp.flag-unknown",
        SECCOMP,
        "A flag that does not exist is an error.",
        |lab| {
            refused(
                lab,
                json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NONSENSE"], "syscalls": [{"names": MKDIR, "action": "SCMP_ACT_ERRNO"}]}),
            )
        },
    ),
    must(
        "linux.seccomp.notify",
        "config-linux.md#the-container-process-state",
        "With SCMP_ACT_NOTIFY the listener gets the container process state and the descriptor.",
        |lab| {
            let path = lab.path("notify.sock");
            let listener = UnixListener::bind(&path)?;
            listener.set_nonblocking(true)?;
            let container = lab.create(|config| {
                config["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "listenerPath": path,
                    "listenerMetadata": "opaque",
                    "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
                });
                config["annotations"] = json!({"key": "value"});
            })?;
            container.start()?;
            let mut accepted = None;
            crate::command::eventually("a connection of the runtime", || {
                accepted = listener.accept().ok();
                Ok(accepted.is_some())
            })?;
            let (socket, _) = accepted.context("a connection")?;
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(crate::command::deadline()))?;
            let mut bytes = vec![0; 65536];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = rustix::net::recvmsg(
                &socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut ancillary,
                RecvFlags::empty(),
            )?;
            let descriptors: usize = ancillary
                .drain()
                .map(|message| match message {
                    RecvAncillaryMessage::ScmRights(list) => list.count(),
                    _ => 0,
                })
                .sum();
            bytes.truncate(received.bytes);
            let state: Value = serde_json::from_slice(&bytes)?;
            ensure!(descriptors == 1, "{descriptors} descriptors");
            same("fds", &state["fds"].to_string(), "[\"seccompFd\"]")?;
            same(
                "metadata",
                state["metadata"].as_str().unwrap_or_default(),
                "opaque",
            )?;
            same(
                "state.id",
                state["state"]["id"].as_str().unwrap_or_default(),
                &container.id,
            )?;
            ensure!(
                state["pid"].as_i64().is_some_and(|pid| pid > 1),
                "pid in {state}"
            );
            Ok(())
        },
    ),
    must(
        "linux.seccomp.notify-unreachable",
        SECCOMP,
        "A listener that can't be reached is an error.",
        |lab| {
            let path = lab.path("nobody.sock");
            refused(
                lab,
                json!({
                    "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
                    "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
                }),
            )
        },
    ),
];

/// The system calls that busybox and the runtimes need to get this far, without `mkdir`.
const ALLOWED: &[&str] = &[
    "access",
    "arch_prctl",
    "bind",
    "brk",
    "capget",
    "capset",
    "chdir",
    "clone",
    "clone3",
    "close",
    "close_range",
    "connect",
    "dup",
    "dup2",
    "dup3",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fchmod",
    "fchown",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getpid",
    "getppid",
    "getrandom",
    "getrlimit",
    "gettid",
    "getuid",
    "ioctl",
    "kill",
    "lseek",
    "lstat",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pipe2",
    "poll",
    "ppoll",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "readv",
    "recvfrom",
    "recvmsg",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "sendmsg",
    "sendto",
    "set_robust_list",
    "set_tid_address",
    "setgid",
    "setgroups",
    "setrlimit",
    "setuid",
    "sigaltstack",
    "socket",
    "stat",
    "statfs",
    "statx",
    "tgkill",
    "time",
    "uname",
    "umask",
    "wait4",
    "write",
    "writev",
];
