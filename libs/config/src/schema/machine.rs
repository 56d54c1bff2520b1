//! Files, kernel, people, commands and storage.

use super::{SchemaEntry, key, table};

pub(super) const ENTRIES: &[SchemaEntry] = &[
    table(
        "file[]",
        "write [[file]] once for each file",
        r#"Files that each boot writes, before the network and hostd start. What is declared here replaces the content
that the file has. A path with a symbolic link in it is refused, and so are paths outside of /etc and /var,
the configuration itself (`/etc/keelson/host.toml`, `/etc/keelson/host.toml.d`) and hostd's state
(`/var/lib/keelson`). Directories that are missing are made with mode 0755. A file that can't be written is
reported; the others are written."#,
        "",
    ),
    key(
        "file[].path",
        "absolute path",
        "required",
        "below /etc or /var",
        r#"use an absolute path below /etc or /var, such as "/etc/motd""#,
    ),
    key(
        "file[].contents",
        "string",
        "none",
        "content that is text",
        "write exactly one of contents and base64",
    ),
    key(
        "file[].base64",
        "string",
        "none",
        "content in base64; exactly one of the two is there",
        "write exactly one of contents and base64",
    ),
    key(
        "file[].mode",
        "octal digits in quotes",
        r#"`"0644"`"#,
        "permission bits",
        r#"use octal digits in quotes, such as "0644""#,
    ),
    key(
        "file[].owner",
        "`user` or `user:group`",
        r#"`"root:root"`"#,
        "names from /etc/passwd and /etc/group, or numbers",
        r#"use user or user:group, by name or number, such as "root:root""#,
    ),
    key(
        "file[].append",
        "boolean",
        "`false`",
        "add the content to the end of the file, unless it is in it already",
        "use true or false",
    ),
    table(
        "sysctl",
        "write a table: [sysctl]",
        r#"Parameters of the kernel, set at boot before the network starts. The keys are the names of sysctl(8) in quotes:

```toml
[sysctl]
"vm.swappiness" = 10
"net.ipv4.conf.eth0/7.forwarding" = 1
```

A slash stands for a dot in a name. Values are numbers or strings. A parameter that the kernel does not have,
or a value that it refuses, is reported; the others are set. `kernel.modprobe` belongs to PID 1 and is refused."#,
        "",
    ),
    table("modules", "write a table: [modules]", "", ""),
    key(
        "modules.load",
        "list of names",
        "none",
        "kernel modules that each boot loads, whether a device needs them or not",
        r#"use a list of modules, such as ["wireguard"]"#,
    ),
    key(
        "modules.options",
        "table of strings",
        "none",
        "options of modules. Those of the kernel command line (`MODULE.OPTION=VALUE`) have priority, and only they work for modules of the initrd",
        r#"write a table, such as { nvme = "poll_queues=2" }"#,
    ),
    table(
        "user[]",
        "write [[user]] once for each user",
        r#"People who may log in, by ssh and on consoles ([services.md](services.md)). The console has no other
users; `root` may be named here to give it keys. The list of a later layer replaces the whole list of an
earlier one."#,
        "",
    ),
    key(
        "user[].name",
        "string",
        "required",
        "login name: small letters, digits, `_` and `-`, at most 32, and no user of the system",
        r#"use small letters, digits, "_" and "-", at most 32, such as "core""#,
    ),
    key(
        "user[].ssh_authorized_keys",
        "list of keys",
        "none",
        "each as one line of `authorized_keys`; Ed25519, ECDSA, RSA from 2048 bits on, and keys in hardware. Keys in the user's own `~/.ssh/authorized_keys` count, too",
        r#"use lines of authorized_keys, such as ["ssh-ed25519 AAAA… name"]"#,
    ),
    key(
        "user[].groups",
        "list of names",
        "none",
        "further groups: `docker` may use the APIs with the role operator, `sudo` may become root with the password",
        r#"use a list of groups, such as ["docker"]"#,
    ),
    key(
        "user[].password_hash",
        "crypt(5)",
        "none",
        "hash of the password, for consoles and sudo; without one, the password is locked. ssh never takes passwords",
        r#"use a hash as mkpasswd prints it, such as "$6$…""#,
    ),
    key(
        "user[].shell",
        "absolute path",
        "`/bin/bash`",
        "login shell",
        r#"use an absolute path, such as "/bin/bash""#,
    ),
    key(
        "user[].sudo",
        "boolean",
        "`false`",
        "may become root without a password",
        "use true or false",
    ),
    key(
        "user[].container",
        "reference of an image",
        "none",
        "logins land in a container of the user's own, made of this image with the home directory in it, and never in the console",
        r#"use the name of an image, such as "debian:13""#,
    ),
    table(
        "command[]",
        "write [[command]] once for each command",
        "Commands that run when the machine has started. Exactly one of the first three keys is there.",
        "",
    ),
    key(
        "command[].argv",
        "list of strings",
        "none",
        "a program and its arguments",
        "write exactly one of argv, shell and script",
    ),
    key(
        "command[].shell",
        "string",
        "none",
        "lines for `/bin/sh`; one that fails does not keep the next from running",
        "write exactly one of argv, shell and script",
    ),
    key(
        "command[].script",
        "string",
        "none",
        "a whole script, whose first line names its interpreter",
        "begin the script with #!",
    ),
    key(
        "command[].every_boot",
        "boolean",
        "`false`",
        "run at every boot; otherwise once for each instance",
        "use true or false",
    ),
    table(
        "swap",
        "write a table: [swap]",
        "Swap space. `keelson.zram=PERCENT` and `keelson.swap=MIB` on the kernel command line have priority.",
        "",
    ),
    key(
        "swap.zram_percent",
        "0–200",
        "`0`",
        "size of a compressed device in memory, in percent of the memory",
        "use a number between 0 and 200",
    ),
    key(
        "swap.file_bytes",
        "bytes",
        "`0`",
        "size of a file on /var, at most half of the free space there",
        "use a number of bytes",
    ),
    table(
        "watchdog",
        "write a table: [watchdog]",
        "The hardware watchdog. `keelson.hardware_watchdog=SECONDS` on the kernel command line has priority.",
        "",
    ),
    key(
        "watchdog.timeout",
        "seconds, 0–3600",
        "`60`",
        "after how long without a sign of life the device restarts the machine; 0: it is not used",
        "use a number of seconds between 0 and 3600",
    ),
    table(
        "storage",
        "write a table: [storage]",
        r#"File systems that each boot mounts before the network and hostd start. The boot waits for their devices for
half a minute; one that is absent, or whose label several devices have, is reported, and the others are mounted.
An ext4 is checked before if it asks for that, as the root file system is."#,
        "",
    ),
    table(
        "storage.mount[]",
        "write [[storage.mount]] once for each file system",
        "",
        "",
    ),
    key(
        "storage.mount[].device",
        "string",
        "required",
        "`LABEL=`, `UUID=`, `PARTLABEL=`, `PARTUUID=` or a path below /dev",
        "use LABEL=, UUID=, PARTLABEL=, PARTUUID= or a path below /dev",
    ),
    key(
        "storage.mount[].path",
        "absolute path",
        "required",
        "directory below /var, which is made if it is missing; not `/var/lib/keelson/host`",
        r#"use an absolute path below /var, such as "/var/data""#,
    ),
    key(
        "storage.mount[].kind",
        "string",
        "found by looking",
        "type of the file system",
        r#"use a type of file system, such as "ext4""#,
    ),
    key(
        "storage.mount[].options",
        "string",
        "none",
        "mount options, comma-separated. `nosuid` and `nodev` count unless `suid` or `dev` is written",
        r#"use mount options, such as "noatime""#,
    ),
];
