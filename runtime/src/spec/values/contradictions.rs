//! Settings that exclude each other or are impossible. Each is refused before anything is made,
//! with an error that names the member, the value, and what would be right.

use serde_json::{Value, json};

use super::tests::document;
use crate::check;

/// A change of a document (by JSON pointer), the member that the error must name, and words that it
/// must contain.
fn contradictions() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    vec![
        (
            "/ociVersion",
            json!("2.0.0"),
            "ociVersion",
            r#""2.0.0" is not a version 1"#,
        ),
        (
            "/annotations",
            json!({"": "x"}),
            "annotations",
            "key is empty",
        ),
        (
            "/hostname",
            json!("h".repeat(65)),
            "hostname",
            "longer than 64",
        ),
        (
            "/process/args",
            json!([]),
            "process.args",
            "must not be empty",
        ),
        (
            "/process/cwd",
            json!("x"),
            "process.cwd",
            r#""x" is not an absolute path"#,
        ),
        (
            "/process/env/0",
            json!("A\0"),
            "process.env[0]",
            "zero byte",
        ),
        (
            "/process/user/uid",
            json!(4294967295u32),
            "process.user.uid",
            "4294967295",
        ),
        (
            "/process/user/additionalGids/0",
            json!(4294967295u32),
            "process.user.additionalGids[0]",
            "4294967295",
        ),
        (
            "/process/user/umask",
            json!(4096),
            "process.user.umask",
            "0o10000 has bits beyond 0777",
        ),
        (
            "/process/oomScoreAdj",
            json!(1001),
            "process.oomScoreAdj",
            "1001 is not between -1000 and 1000",
        ),
        (
            "/process/rlimits/1",
            json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 1}),
            "process.rlimits[1].type",
            r#""RLIMIT_CORE" is listed twice"#,
        ),
        (
            "/process/rlimits/1/soft",
            json!(10),
            "process.rlimits[1].soft",
            "10 is more than the hard limit 9",
        ),
        (
            "/process/rlimits/1/type",
            json!("RLIMIT_X"),
            "process.rlimits[1].type",
            r#""RLIMIT_X" is not a limit"#,
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_X"}),
            "process.scheduler.policy",
            r#""SCHED_X" is none of SCHED_OTHER"#,
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_FIFO"}),
            "process.scheduler.priority",
            "0 is not between 1 and 99",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_BATCH", "priority": 5}),
            "process.scheduler.priority",
            "5 is not between 0 and 0",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "nice": 20}),
            "process.scheduler.nice",
            "20 is not between -20 and 19",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "runtime": 9}),
            "process.scheduler.runtime",
            "only for SCHED_DEADLINE",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_DEADLINE", "runtime": 9, "deadline": 8}),
            "process.scheduler.runtime",
            "9 is more than the deadline 8",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_DEADLINE", "deadline": 8, "period": 7}),
            "process.scheduler.deadline",
            "8 is more than the period 7",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "flags": ["F"]}),
            "process.scheduler.flags[0]",
            r#""F" is none of"#,
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_NONE"}),
            "process.ioPriority.class",
            "is none of IOPRIO_CLASS_RT, IOPRIO_CLASS_BE",
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
            "process.ioPriority.priority",
            "8 is not a level (0 to 7)",
        ),
        (
            "/process/execCPUAffinity",
            json!({"initial": "3-1"}),
            "process.execCPUAffinity.initial",
            r#""3-1" is not a list"#,
        ),
        (
            "/process/execCPUAffinity",
            json!({"final": "x"}),
            "process.execCPUAffinity.final",
            r#""x" is not a list"#,
        ),
        (
            "/mounts/0/destination",
            json!(""),
            "mounts[0].destination",
            "is missing",
        ),
        (
            "/mounts/0",
            json!({"destination": "/x", "source": "y"}),
            "mounts[0].type",
            "is missing for /x",
        ),
        (
            "/mounts/0",
            json!({"destination": "/x", "type": "bind"}),
            "mounts[0].source",
            "is missing for /x",
        ),
        (
            "/mounts/0",
            json!({"destination": "/x", "source": "/y", "options": ["bind", "nothing"]}),
            "mounts[0].options",
            r#""nothing" has no meaning for a bind mount"#,
        ),
        (
            "/mounts/0",
            json!({"destination": "/x", "type": "proc", "options": ["tmpcopyup"]}),
            "mounts[0].options",
            r#""tmpcopyup" is for tmpfs only"#,
        ),
        (
            "/mounts/0/uidMappings",
            json!([{"containerID": 0, "hostID": 1, "size": 1}]),
            "mounts[0].gidMappings",
            "both kinds",
        ),
        (
            "/hooks/prestart/0/path",
            json!("x"),
            "hooks.prestart[0].path",
            r#""x" is not an absolute path"#,
        ),
        (
            "/hooks/prestart/0/timeout",
            json!(-1),
            "hooks.prestart[0].timeout",
            "-1 is not greater than zero",
        ),
        (
            "/linux/namespaces/4/type",
            json!("mount"),
            "linux.namespaces[4].type",
            "listed twice",
        ),
        (
            "/linux/namespaces/1/type",
            json!("disk"),
            "linux.namespaces[1].type",
            "expected one of",
        ),
        (
            "/linux/namespaces/6",
            json!({"type": "ipc", "path": "x"}),
            "linux.namespaces[6].path",
            r#""x" is not an absolute path"#,
        ),
        (
            "/linux/namespaces/0/type",
            json!("cgroup"),
            "linux.namespaces",
            "a user namespace needs a mount namespace",
        ),
        (
            "/linux/namespaces/2/type",
            json!("cgroup"),
            "hostname",
            "needs a uts namespace",
        ),
        (
            "/linux/namespaces/1/type",
            json!("cgroup"),
            "linux.timeOffsets",
            "needs a new time namespace",
        ),
        (
            "/linux/namespaces/3/type",
            json!("cgroup"),
            "linux.sysctl",
            "needs a network namespace",
        ),
        (
            "/linux/uidMappings",
            json!([]),
            "linux.uidMappings",
            "is missing",
        ),
        (
            "/linux/namespaces/5/type",
            json!("cgroup"),
            "linux.uidMappings",
            "without a user namespace",
        ),
        (
            "/linux/timeOffsets",
            json!({"boottime": {"secs": "1"}}),
            "linux.timeOffsets.boottime",
            "expected i64",
        ),
        (
            "/linux/timeOffsets",
            json!({"realtime": {"secs": 1}}),
            "linux.timeOffsets",
            r#""realtime" is not a clock (monotonic, boottime)"#,
        ),
        (
            "/linux/timeOffsets/boottime/nanosecs",
            json!(1_000_000_000),
            "linux.timeOffsets.boottime.nanosecs",
            "a second or more",
        ),
        (
            "/linux/devices/0/type",
            json!("x"),
            "linux.devices[0].type",
            r#""x" is not b, c, u or p"#,
        ),
        (
            "/linux/devices/0/path",
            json!("dev/x"),
            "linux.devices[0].path",
            r#""dev/x" is not the absolute path"#,
        ),
        (
            "/linux/devices/0/major",
            json!(-1),
            "linux.devices[0].major",
            "-1 is not a device number",
        ),
        (
            "/linux/devices/0",
            json!({"type": "c", "path": "/dev/x", "major": 1}),
            "linux.devices[0].minor",
            "is missing",
        ),
        (
            "/linux/devices/1/path",
            json!("/dev/x"),
            "linux.devices[1].path",
            "/dev/x is another device in linux.devices[0]",
        ),
        (
            "/linux/rootfsPropagation",
            json!("x"),
            "linux.rootfsPropagation",
            r#""x" is not a propagation type"#,
        ),
        (
            "/linux/personality",
            json!({"domain": "LINUX64"}),
            "linux.personality.domain",
            r#""LINUX64" is not LINUX or LINUX32"#,
        ),
        (
            "/linux/personality",
            json!({"domain": "LINUX", "flags": ["F"]}),
            "linux.personality.flags",
            r#""F" is not supported"#,
        ),
        (
            "/linux/intelRdt",
            json!({}),
            "linux.intelRdt",
            "not supported",
        ),
        (
            "/linux/maskedPaths/0",
            json!("x"),
            "linux.maskedPaths",
            r#""x" is not an absolute path"#,
        ),
        (
            "/linux/readonlyPaths/0",
            json!("x"),
            "linux.readonlyPaths",
            r#""x" is not an absolute path"#,
        ),
        (
            "/linux/sysctl",
            json!({"vm.swappiness": "1"}),
            "linux.sysctl",
            "vm.swappiness does not belong to a namespace",
        ),
        (
            "/linux/sysctl",
            json!({"net/../vm/x": "1"}),
            "linux.sysctl",
            r#""net/../vm/x" is not the name"#,
        ),
        (
            "/linux/resources/devices/0/access",
            json!("rx"),
            "linux.resources.devices[0].access",
            "'x' is not r, w or m",
        ),
        (
            "/linux/resources/devices/0/type",
            json!("p"),
            "linux.resources.devices[0].type",
            r#""p" is not a, b, c or u"#,
        ),
        (
            "/linux/resources/devices/0/major",
            json!(-2),
            "linux.resources.devices[0].major",
            "-2 is not a device number",
        ),
        (
            "/linux/resources/memory/limit",
            json!(-2),
            "linux.resources.memory.limit",
            "-2 is neither a limit nor -1",
        ),
        (
            "/linux/resources/memory",
            json!({"limit": 9, "swap": 5}),
            "linux.resources.memory.swap",
            "5 is less than memory.limit 9",
        ),
        (
            "/linux/resources/memory",
            json!({"swap": 5}),
            "linux.resources.memory.swap",
            "5 needs memory.limit",
        ),
        (
            "/linux/resources/memory",
            json!({"disableOOMKiller": true}),
            "linux.resources.memory.disableOOMKiller",
            "cgroup v2 does not have it",
        ),
        (
            "/linux/resources/cpu/quota",
            json!(-2),
            "linux.resources.cpu.quota",
            "-2 is neither a limit nor -1",
        ),
        (
            "/linux/resources/cpu/quota",
            json!(999),
            "linux.resources.cpu.quota",
            "999 is less than 1000",
        ),
        (
            "/linux/resources/cpu/period",
            json!(5),
            "linux.resources.cpu.period",
            "5 is not between 1000 and 1000000",
        ),
        (
            "/linux/resources/cpu",
            json!({"quota": 5000, "burst": 6000}),
            "linux.resources.cpu.burst",
            "6000 is more than cpu.quota 5000",
        ),
        (
            "/linux/resources/cpu",
            json!({"idle": 2}),
            "linux.resources.cpu.idle",
            "2 is neither 0 nor 1",
        ),
        (
            "/linux/resources/cpu/cpus",
            json!("all"),
            "linux.resources.cpu.cpus",
            r#""all" is not a list"#,
        ),
        (
            "/linux/resources/pids/limit",
            json!(-2),
            "linux.resources.pids.limit",
            "-2 is neither a limit nor -1",
        ),
        (
            "/linux/resources/blockIO/weight",
            json!(9),
            "linux.resources.blockIO.weight",
            "9 is not between 10 and 1000",
        ),
        (
            "/linux/resources/blockIO/weightDevice",
            json!([{"major": 8, "minor": 0, "weight": 1001}]),
            "linux.resources.blockIO.weightDevice[0].weight",
            "1001 is not between",
        ),
        (
            "/linux/resources/blockIO/throttleReadBpsDevice",
            json!([{"major": -8, "minor": 0, "rate": 1}]),
            "linux.resources.blockIO.throttleReadBpsDevice[0].major",
            "-8 is not a device number",
        ),
        (
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "2MB", "limit": 1}, {"pageSize": "2MB", "limit": 2}]),
            "linux.resources.hugepageLimits[1].pageSize",
            r#""2MB" is listed twice"#,
        ),
        (
            "/linux/resources/hugepageLimits/0/pageSize",
            json!("2/B"),
            "linux.resources.hugepageLimits[0].pageSize",
            r#""2/B" is not a page size"#,
        ),
        (
            "/linux/resources/rdma",
            json!({"mlx": {}}),
            "linux.resources.rdma.mlx",
            "neither hcaHandles nor hcaObjects",
        ),
        (
            "/linux/resources/network",
            json!({"classID": 5}),
            "linux.resources.network",
            "cgroup v2 has no network classes",
        ),
        (
            "/linux/resources/unified",
            json!({"a/b.c": "1"}),
            "linux.resources.unified.a/b.c",
            "not a cgroup file's name",
        ),
        (
            "/linux/seccomp/defaultAction",
            json!("SCMP_ACT_X"),
            "linux.seccomp.defaultAction",
            r#""SCMP_ACT_X" is not an action"#,
        ),
        (
            "/linux/seccomp/architectures/0",
            json!("X"),
            "linux.seccomp.architectures[0]",
            r#""X" is not an architecture"#,
        ),
        (
            "/linux/seccomp/flags",
            json!(["X"]),
            "linux.seccomp.flags[0]",
            r#""X" is not"#,
        ),
        (
            "/linux/seccomp/listenerPath",
            json!(""),
            "linux.seccomp.listenerMetadata",
            "without listenerPath",
        ),
        (
            "/linux/seccomp/syscalls/0/names",
            json!([]),
            "linux.seccomp.syscalls[0].names",
            "names no system call",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "linux.seccomp.listenerPath",
            "SCMP_ACT_NOTIFY needs it",
        ),
        (
            "/linux/seccomp/syscalls/0/errnoRet",
            json!(1),
            "linux.seccomp.syscalls[0].action",
            "takes no errnoRet",
        ),
        (
            "/linux/seccomp/syscalls/0/args/0/index",
            json!(6),
            "linux.seccomp.syscalls[0].args[0].index",
            "6 is not an argument",
        ),
        (
            "/linux/seccomp/syscalls/0/args/0/op",
            json!("X"),
            "linux.seccomp.syscalls[0].args[0].op",
            r#""X" is not an operator"#,
        ),
    ]
}

/// Sets a member of an object, or appends to a list. The member need not exist.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Object(members) => {
            members.insert(name.to_owned(), value);
        }
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
        other => panic!("{parent} is {other}"),
    }
}

#[test]
fn contradictions_are_refused_by_name() {
    check::config(document().to_string().as_bytes()).unwrap();
    let mut wrong = Vec::new();
    for (pointer, value, member, words) in contradictions() {
        let mut bad = document();
        set(&mut bad, pointer, value);
        let error = match check::config(bad.to_string().as_bytes()) {
            Ok(_) => "it is accepted".to_owned(),
            Err(error) => error.to_string(),
        };
        if !error.contains(member) || !error.contains(words) {
            wrong.push(format!("{pointer}: no {member} or no {words}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
