//! The program when it is not the first process.

use std::process::Command;

fn init() -> Command {
    Command::new(env!("CARGO_BIN_EXE_init"))
}

#[test]
fn started_by_hand_it_explains_itself_and_changes_nothing() {
    for arguments in [&[][..], &["0"], &["--help"]] {
        let output = init().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("first process"), "{text}");
    }
}

#[test]
fn the_kernel_may_ask_for_a_module_that_does_not_exist() {
    let output = init()
        .args(["-q", "--", "keelson-no-such-module"])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(output.stdout.is_empty());
}
