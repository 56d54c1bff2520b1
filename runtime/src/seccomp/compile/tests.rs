use proptest::prelude::*;

use super::*;
use crate::seccomp::meaning::{self, SystemCall};
use crate::seccomp::profile::default_profile;
use crate::seccomp::table::{SYSCALLS, find};

fn number(name: &str) -> u32 {
    u32::from(find(name).unwrap().1)
}

fn interpret(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let call = SystemCall {
        architecture,
        number,
        arguments,
    };
    meaning::run(program, &call).unwrap()
}

fn run(filter: &Filter, name: &str, args: [u64; 6]) -> u32 {
    interpret(&filter.program, AUDIT_X86_64, number(name), args)
}

fn first(value: u64) -> [u64; 6] {
    [value, 0, 0, 0, 0, 0]
}

#[test]
fn the_default_profile_decides_as_dockers() {
    let filter = compile(&default_profile(&[])).unwrap();
    // The kernel translates it for each process.
    assert!(filter.program.len() < 500, "{}", filter.program.len());
    assert_eq!(run(&filter, "read", [0; 6]), ALLOW);
    assert_eq!(run(&filter, "mount", [0; 6]), ERRNO | EPERM);
    assert_eq!(run(&filter, "keyctl", [0; 6]), ERRNO | EPERM);
    assert_eq!(run(&filter, "bpf", [0; 6]), ERRNO | EPERM);
    assert_eq!(run(&filter, "unshare", [0; 6]), ERRNO | EPERM);
    assert_eq!(run(&filter, "io_uring_setup", [0; 6]), ERRNO | EPERM);
    assert_eq!(run(&filter, "clone3", [0; 6]), ERRNO | ENOSYS);
    assert_eq!(run(&filter, "clone", first(0x11)), ALLOW);
    assert_eq!(run(&filter, "clone", first(0x1000_0011)), ERRNO | EPERM);
    assert_eq!(run(&filter, "personality", first(0xffff_ffff)), ALLOW);
    assert_eq!(run(&filter, "personality", first(0x4_0000)), ERRNO | EPERM);
    assert_eq!(run(&filter, "settimeofday", [0; 6]), ERRNO | EPERM);
    // Newer than every call of the profile.
    let newest = interpret(&filter.program, AUDIT_X86_64, 9_999, [0; 6]);
    assert_eq!(newest, ERRNO | ENOSYS);
}

/// Linux has 46 families. The kernel takes the lower half of the argument.
#[test]
fn sockets_of_the_kernels_cryptography_and_of_the_hypervisor_are_refused() {
    let filter = compile(&default_profile(&[])).unwrap();
    for family in 0..64 {
        let wanted = match family {
            38 | 40 => ERRNO | EPERM,
            _ => ALLOW,
        };
        for argument in [family, 1 << 32 | family, u64::MAX << 32 | family] {
            assert_eq!(
                run(&filter, "socket", first(argument)),
                wanted,
                "{argument:#x}"
            );
            // i386's own call, beside the one for all of them.
            let by_i386 = interpret(&filter.program, AUDIT_I386, 359, first(family));
            assert_eq!(by_i386, wanted, "{family}");
            let by_x32 = interpret(&filter.program, AUDIT_X86_64, X32_BIT | 41, first(argument));
            assert_eq!(by_x32, wanted, "{argument:#x}");
        }
    }
}

#[test]
fn capabilities_open_the_profile() {
    let filter = compile(&default_profile(&["CAP_SYS_ADMIN".to_owned()])).unwrap();
    assert_eq!(run(&filter, "mount", [0; 6]), ALLOW);
    assert_eq!(run(&filter, "clone3", [0; 6]), ALLOW);
    assert_eq!(run(&filter, "clone", first(0x1000_0011)), ALLOW);
    let filter = compile(&default_profile(&["CAP_SYS_TIME".to_owned()])).unwrap();
    assert_eq!(run(&filter, "settimeofday", [0; 6]), ALLOW);
    assert_eq!(run(&filter, "adjtimex", [0; 6]), ALLOW);
}

#[test]
fn other_architectures_have_their_own_numbers() {
    let filter = compile(&default_profile(&[])).unwrap();
    // i386: 11 is execve, 21 is mount.
    assert_eq!(interpret(&filter.program, AUDIT_I386, 11, [0; 6]), ALLOW);
    let mount = interpret(&filter.program, AUDIT_I386, 21, [0; 6]);
    assert_eq!(mount, ERRNO | EPERM);
    // x32: 520 is execve; the native number 59 is no x32 call.
    let x32 = |number| interpret(&filter.program, AUDIT_X86_64, X32_BIT | number, [0; 6]);
    assert_eq!(x32(520), ALLOW);
    assert_eq!(x32(59), ERRNO | EPERM);
    // aarch64.
    let foreign = interpret(&filter.program, 0xc000_00b7, 0, [0; 6]);
    assert_eq!(foreign, KILL_PROCESS);
    let mut native = default_profile(&[]);
    native.architectures = vec!["SCMP_ARCH_X86_64".to_owned()];
    let filter = compile(&native).unwrap();
    let program = &filter.program;
    assert_eq!(interpret(program, AUDIT_I386, 11, [0; 6]), KILL_PROCESS);
    assert_eq!(
        interpret(program, AUDIT_X86_64, X32_BIT, [0; 6]),
        KILL_PROCESS
    );
}

#[test]
fn errors_name_the_member() {
    let mut profile = default_profile(&[]);
    profile.syscalls[3].action = "SCMP_ACT_MAYBE".to_owned();
    let error = compile(&profile).unwrap_err().to_string();
    assert!(
        error.contains("linux.seccomp.syscalls[3].action"),
        "{error}"
    );
    let mut profile = default_profile(&[]);
    profile.architectures.push("SCMP_ARCH_Z80".to_owned());
    let error = compile(&profile).unwrap_err().to_string();
    assert!(error.contains("architectures[3]"), "{error}");
    let mut profile = default_profile(&[]);
    profile.syscalls[1].args[0].index = 6;
    let error = compile(&profile).unwrap_err().to_string();
    assert!(error.contains("syscalls[1].args[0].index"), "{error}");
}

fn arbitrary_rule() -> impl Strategy<Value = SeccompRule> {
    const OPERATORS: &[&str] = &[
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
    ];
    // Few values, near each other in both halves, so that all branches are taken.
    let value = || prop_oneof![0u64..3, (0u64..3).prop_map(|high| high << 32 | 1)];
    let argument = (
        0u32..3,
        value(),
        value(),
        proptest::sample::select(OPERATORS),
    )
        .prop_map(|(index, value, value_two, op)| SeccompArgument {
            index,
            value,
            value_two,
            op: op.to_owned(),
        });
    let names = proptest::sample::select(SYSCALLS).prop_map(|entry| entry.0.to_owned());
    const ACTIONS: &[&str] = &[
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_LOG",
    ];
    (
        proptest::collection::vec(names, 1..12),
        proptest::sample::select(ACTIONS),
        proptest::collection::vec(argument, 0..3),
    )
        .prop_map(|(names, action, args)| SeccompRule {
            names,
            action: action.to_owned(),
            errno_ret: None,
            args,
        })
}

/// A call through any interface, mostly one in the table.
fn arbitrary_call() -> impl Strategy<Value = SystemCall> {
    let value = prop_oneof![0u64..4, (0u64..4).prop_map(|high| high << 32 | 1)];
    let architecture = prop_oneof![
        Just((AUDIT_X86_64, 0)),
        Just((AUDIT_X86_64, X32_BIT)),
        Just((AUDIT_I386, 0)),
        Just((0xc000_00b7, 0)),
    ];
    let number = prop_oneof![4 => 0u32..560, 1 => 0u32..X32_BIT];
    (architecture, number, proptest::array::uniform6(value)).prop_map(
        |((architecture, marker), number, arguments)| SystemCall {
            architecture,
            number: number | marker,
            arguments,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn programs_decide_as_the_profile_says(
        rules in proptest::collection::vec(arbitrary_rule(), 0..10),
        (default, errno) in prop_oneof![
            Just(("SCMP_ACT_ERRNO", None)),
            Just(("SCMP_ACT_ERRNO", Some(7))),
            Just(("SCMP_ACT_ALLOW", None)),
            Just(("SCMP_ACT_KILL", None)),
        ],
        architectures in proptest::sample::subsequence(
            &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
            0..4,
        ),
        mut calls in proptest::collection::vec(arbitrary_call(), 60),
    ) {
        let mut profile = default_profile(&[]);
        profile.default_action = default.to_owned();
        profile.default_errno_ret = errno;
        profile.architectures = architectures.into_iter().map(str::to_owned).collect();
        profile.syscalls = rules;
        // Each call that a rule names occurs at least once.
        let names = profile.syscalls.iter().flat_map(|rule| &rule.names);
        let entries: Vec<_> = names.filter_map(|name| find(name)).collect();
        for (position, entry) in entries.iter().enumerate() {
            let mut call = calls[position % calls.len()];
            (call.architecture, call.number) = match position % 3 {
                0 => (AUDIT_I386, u32::from(entry.2)),
                1 => (AUDIT_X86_64, u32::from(entry.3) | X32_BIT),
                _ => (AUDIT_X86_64, u32::from(entry.1)),
            };
            calls.push(call);
        }
        let filter = compile(&profile).unwrap();
        for call in &calls {
            let meant = meaning::of(&profile, call).unwrap();
            prop_assert_eq!(meaning::run(&filter.program, call), Some(meant), "{:x?}", call);
        }
    }
}

fn profile(json: serde_json::Value) -> Result<Filter, String> {
    compile(&serde_json::from_value(json).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn a_listener_is_asked_for_when_it_is_needed() {
    use serde_json::json;
    let notify = |path: Option<&str>, flags: &[&str], call: &str| {
        profile(json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "flags": flags,
            "syscalls": [{"names": [call], "action": "SCMP_ACT_NOTIFY"}],
        }))
    };
    let filter = notify(Some("/a"), &[], "mkdir").unwrap();
    assert_eq!(filter.flags, NEW_LISTENER | SPEC_ALLOW);
    assert_eq!(run(&filter, "mkdir", [0; 6]), NOTIFY);
    let both = [
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];
    let filter = notify(Some("/a"), &both, "mkdir").unwrap();
    assert_eq!(
        filter.flags,
        NEW_LISTENER | TSYNC | TSYNC_ESRCH | WAIT_KILLABLE_RECV
    );
    assert!(
        notify(None, &[], "mkdir")
            .unwrap_err()
            .contains("listenerPath")
    );
    for needed in ["sendmsg", "write"] {
        let error = notify(Some("/a"), &[], needed).unwrap_err();
        assert!(error.contains(needed), "{error}");
    }

    // Without a rule that notifies, the path has no meaning.
    let quiet = |flags: &[&str], metadata: Option<&str>, path: Option<&str>| {
        profile(json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "flags": flags,
            "listenerMetadata": metadata,
        }))
    };
    assert_eq!(quiet(&[], None, Some("/a")).unwrap().flags, SPEC_ALLOW);
    let error = quiet(&["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], None, None).unwrap_err();
    assert!(error.contains("flags[0]"), "{error}");
    let error = quiet(&["SECCOMP_FILTER_FLAG_X"], None, None).unwrap_err();
    assert!(error.contains("flags[0]"), "{error}");
    let error = quiet(&[], Some("m"), None).unwrap_err();
    assert!(error.contains("listenerMetadata"), "{error}");
}
