use proptest::prelude::*;

use super::*;

fn base() -> Base {
    Base {
        passwd: "root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin"
            .to_owned(),
        group: "root:x:0:\nsudo:x:27:\nstaff:x:50:\n".to_owned(),
        shadow: "root:*:20000:0:99999:7:::\n".to_owned(),
    }
}

fn user(name: &str) -> UserConfig {
    UserConfig {
        name: name.to_owned(),
        ssh_authorized_keys: vec!["ssh-ed25519 AAAA a".to_owned()],
        groups: Vec::new(),
        password_hash: None,
        shell: None,
        sudo: false,
        container: None,
    }
}

fn of(users: &[UserConfig]) -> People {
    let ground = Ground {
        docker: Some(970),
        is_program: &|path| path == SHELL,
    };
    make(&base(), users, &mut Ids::default(), &ground)
}

#[test]
fn a_user_has_what_the_configuration_says() {
    let mut core = user("core");
    core.groups = ["docker", "sudo", "staff", "new"]
        .map(str::to_owned)
        .to_vec();
    core.sudo = true;
    core.password_hash = Some("$6$x".to_owned());
    let made = of(&[core, user("anna")]);
    assert!(made.notes.is_empty(), "{:?}", made.notes);
    for line in [
        "root:x:0:0:root:/root:/bin/bash\n",
        "core:x:1000:1000::/home/core:/bin/bash\n",
        "anna:x:1002:1002::/home/anna:/bin/bash\n",
    ] {
        assert!(made.passwd.contains(line), "{}", made.passwd);
    }
    for line in ["core:$6$x:", "anna:*:", "root:*:"] {
        assert!(made.shadow.contains(line), "{}", made.shadow);
    }
    for line in [
        "docker:x:970:core\n",
        "sudo:x:27:core\n",
        "staff:x:50:core\n",
        "new:x:1001:core\n",
        "core:x:1000:\n",
    ] {
        assert!(made.group.contains(line), "{}", made.group);
    }
    assert_eq!(made.sudoers, "core ALL=(ALL:ALL) NOPASSWD: ALL\n");
    assert_eq!(made.keys["anna"], "ssh-ed25519 AAAA a\n");
    assert_eq!(made.homes[0].path, "/home/core");
}

#[test]
fn root_is_changed_and_not_added() {
    let mut root = user("root");
    root.password_hash = Some("$6$r".to_owned());
    let made = of(&[root]);
    assert_eq!(made.passwd.matches("root:x").count(), 1);
    assert!(
        made.shadow.starts_with("root:$6$r:20000:"),
        "{}",
        made.shadow
    );
    assert!(made.homes.is_empty() && made.keys.contains_key("root"));
}

#[test]
fn who_has_a_container_does_not_get_out_of_it() {
    let mut guest = user("guest");
    guest.container = Some("debian:13".to_owned());
    guest.groups = ["docker", "sudo", "video"].map(str::to_owned).to_vec();
    guest.sudo = true;
    guest.shell = Some("/bin/zsh".to_owned());
    let made = of(&[guest]);
    assert!(made.passwd.contains(":/usr/lib/keelson/own-container\n"));
    assert!(made.group.contains("docker:x:970:\n") && made.group.contains("sudo:x:27:\n"));
    assert!(made.group.contains(":guest\n") && made.group.contains("contained:x:"));
    assert_eq!(
        made.sudoers,
        "guest ALL=(root) NOPASSWD: /usr/lib/keelson/enter-container\n"
    );
    assert_eq!(made.notes.len(), 3, "{:?}", made.notes);
}

#[test]
fn a_shell_that_is_not_there_does_not_lock_out() {
    for shell in ["/bin/zsh", "/bin/x:y"] {
        let mut core = user("core");
        core.shell = Some(shell.to_owned());
        let made = of(&[core]);
        assert!(made.passwd.contains("/home/core:/bin/bash\n"));
        assert!(made.notes[0].contains(shell), "{:?}", made.notes);
    }
}

proptest! {
    #[test]
    fn files_keep_their_form(
        base in "\\PC{0,80}",
        names in proptest::collection::btree_set("[a-z_][a-z0-9_-]{0,5}", 0..5),
        shell in proptest::option::of("/[a-z:\\n]{1,8}"),
    ) {
        let base = Base { passwd: base.clone(), group: base.clone(), shadow: base };
        let users: Vec<UserConfig> = names.iter().map(|name| {
            let mut user = user(name);
            user.shell.clone_from(&shell);
            user
        }).collect();
        let ground = Ground { docker: None, is_program: &|_| true };
        let made = make(&base, &users, &mut Ids::default(), &ground);
        for name in names.iter().filter(|name| *name != "root") {
            let line = made.passwd.lines().rfind(|line| line.starts_with(&format!("{name}:x:")));
            prop_assert_eq!(line.map(|line| line.split(':').count()), Some(7));
        }
    }
}
