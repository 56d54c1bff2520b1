//! Registries, images and the engine.

use super::{SchemaEntry, key, table};

pub(super) const ENTRIES: &[SchemaEntry] = &[
    table(
        "registries",
        "write a table: [registries]",
        "",
        r#"The credentials of the machine are used if a client sends none, for example for workloads that start at
boot. The file has the format of Docker's `config.json` and podman's `auth.json`. Copy one there, or
write it, with mode 0600 (a file that others may read is refused):

```json
{"auths": {
  "registry.lan:5000": {"auth": "dXNlcjpwYXNzd29yZA=="},
  "registry.lan:5000/team": {"identitytoken": "…"},
  "https://index.docker.io/v1/": {"username": "…", "password": "…"}
}}
```

The entry that matches the longest part of a repository's path is used. `auth` is `user:password` in
base64; `identitytoken` and `registrytoken` are understood, credential helpers are not. A mirror gets
credentials only from an entry for the mirror itself. The file is read at each pull and push.

A registry's own certificate authorities are in `/etc/keelson/certs.d/<host[:port]>/*.crt`, client
certificates in the same directory as `*.cert` with `*.key` (`/etc/docker/certs.d` is read, too).
hostd's flags `--registry-mirror` and `--insecure-registry` add to these lists."#,
    ),
    key(
        "registries.mirrors",
        "list of URLs",
        "none",
        "mirrors of Docker Hub, asked in this order before it: `https://mirror.example.net`",
        r#"use a list of URLs without path, such as ["https://mirror.example.net"]"#,
    ),
    key(
        "registries.insecure",
        "list of hosts or prefixes",
        "none",
        "registries that may be used without TLS, and whose certificates are not checked: `registry.lan:5000`, `10.0.0.0/8`. Loopback may always be used without TLS",
        r#"use a list of hosts or prefixes, such as ["registry.lan:5000", "10.0.0.0/8"]"#,
    ),
    key(
        "registries.auth_file",
        "absolute path",
        "`/etc/keelson/registry-auth.json`",
        "credentials of the machine, see below",
        r#"use an absolute path, such as "/etc/keelson/registry-auth.json""#,
    ),
    table("images", "write a table: [images]", "", ""),
    key(
        "images.keep_compressed",
        "boolean",
        "`true`",
        "keep the compressed blob of each pulled or loaded layer beside the layer, so that `docker save` and `docker push` send it with its original digest. `false` saves this disk space; a push then compresses again ([decision](decisions/0008-compressed-blobs-are-kept.md))",
        "use true or false",
    ),
    table("engine", "write a table: [engine]", "", ""),
    key(
        "engine.stop_timeout",
        "seconds, 0–86400",
        "`10`",
        "time between the stop signal and SIGKILL, if the client does not set it",
        "use a number of seconds between 0 and 86400",
    ),
    key(
        "engine.log_max_size",
        "bytes, from 65536 on",
        "`16777216`",
        "size after which a container's log file is rotated (`--log-opt max-size` overrides)",
        "use a number of bytes, at least 65536",
    ),
    key(
        "engine.log_max_files",
        "1–1000",
        "`5`",
        "log files kept per container (`--log-opt max-file` overrides)",
        "use a number of files between 1 and 1000",
    ),
    key(
        "engine.init",
        "boolean",
        "`false`",
        "run a small init as the first process of containers, if the client does not choose (`--init`)",
        "use true or false",
    ),
    key(
        "engine.cdi_directories",
        "list of absolute paths",
        r#"`["/etc/cdi", "/var/run/cdi"]`"#,
        "where vendors describe devices for `--device vendor.com/class=name` (CDI, as JSON or YAML); later directories override earlier ones",
        r#"use a list of absolute paths: ["/etc/cdi"]"#,
    ),
    table(
        "engine.user_namespaces",
        "write a table: [engine.user_namespaces]",
        r#"Users of containers that are not the host's ([decision](decisions/0037-owners-on-the-disk-are-those-inside.md)).
A container keeps what was set when it was made; `docker run --userns=host` makes one without."#,
        "",
    ),
    key(
        "engine.user_namespaces.enabled",
        "boolean",
        "`false`",
        "give containers a user namespace, unless a client says `--userns=host`",
        "use true or false",
    ),
    key(
        "engine.user_namespaces.base",
        "from 65536 on",
        "`100000`",
        "the user and group of the host that root in a container is; nobody else may have the ids from there on",
        "use the first of a range of ids that nobody on the host has, at least 65536, such as 100000",
    ),
    key(
        "engine.user_namespaces.size",
        "from 65536 on",
        "`65536`",
        "how many users and groups there are in a container",
        "use a number of ids, at least 65536, such as 65536",
    ),
    table(
        "engine.networks",
        "write a table: [engine.networks]",
        "Networks of containers. `hostd --bridge` and `--bip` replace the first two.",
        "",
    ),
    key(
        "engine.networks.bridge",
        r#"link's name, or `"none"`"#,
        r#"`"docker0"`"#,
        r#"the link of the default bridge network; `"none"`: there is none, and containers are without a network unless they ask for one"#,
        r#"use a name of a link of at most 15 letters, digits, '.', '_' and '-', or "none""#,
    ),
    key(
        "engine.networks.address",
        "IPv4 address with prefix length",
        "the first free subnet of the pools",
        "the address of the default bridge",
        r#"use an IPv4 address with prefix length, such as "172.17.0.1/16""#,
    ),
    key(
        "engine.networks.address_ipv6",
        "IPv6 address with prefix length",
        "none",
        "the same for IPv6; containers in the default network have IPv6 only with it",
        r#"use an IPv6 address with prefix length, such as "fd00:17::1/64""#,
    ),
    key(
        "engine.networks.mtu",
        "68–65535",
        "the kernel's",
        "of the default network",
        "use a number of bytes between 68 and 65535, such as 1500",
    ),
    key(
        "engine.networks.inter_container",
        "boolean",
        "`true`",
        "whether containers in the default network reach each other",
        "use true or false",
    ),
    key(
        "engine.networks.publish_address",
        "address of the host",
        "all",
        "where ports are published that name no address",
        r#"use an address of the host, such as "127.0.0.1""#,
    ),
    key(
        "engine.networks.address_pools",
        "list of `{ base, size }`",
        "Docker's",
        r#"where networks get subnets that name none: `{ base = "10.200.0.0/16", size = 24 }`"#,
        r#"use a list of pools, such as [{ base = "10.200.0.0/16", size = 24 }]"#,
    ),
    key(
        "engine.networks.nameservers",
        "list of addresses",
        "the host's",
        "name servers of containers that name none",
        r#"use a list of addresses, such as ["192.0.2.53"]"#,
    ),
    key(
        "engine.networks.search",
        "list of domains",
        "the host's",
        "search domains of containers that name none",
        r#"use a list of domains, such as ["example.net"]"#,
    ),
    key(
        "engine.networks.range",
        "subnet",
        "the whole subnet",
        "the part of the default network's subnet that containers get addresses from; only together with `address`",
        r#"use a part of the subnet that address says, such as "172.17.8.0/24""#,
    ),
    key(
        "engine.networks.range_ipv6",
        "subnet",
        "the whole subnet",
        "the same for IPv6; only together with `address_ipv6`",
        r#"use a part of the subnet that address_ipv6 says, such as "fd00:17::100/120""#,
    ),
    key(
        "engine.networks.masquerade",
        "boolean",
        "`true`",
        "whether what leaves the default network gets an address of the host",
        "use true or false",
    ),
    key(
        "engine.networks.resolver_options",
        "list of options",
        "the host's",
        r#"options in the resolv.conf of containers that name none: `["ndots:2"]`"#,
        r#"use a list of options of resolv.conf, such as ["ndots:2"]"#,
    ),
    key(
        "engine.networks.host_addresses",
        "list of addresses",
        "the default network's",
        "what `host-gateway` means in `--add-host`",
        r#"use a list of addresses of the host, such as ["192.0.2.1"]"#,
    ),
    key(
        "engine.networks.direct_routing",
        "boolean",
        "`false`",
        "whether published ports are reached at the containers' own addresses, too, by every link of the host (Docker's `allow-direct-routing`)",
        "use true or false",
    ),
    key(
        "engine.networks.accept_mark",
        r#"`"0x1"` or `"0x1/0xff"`"#,
        "none",
        "packets with this mark of another packet filter pass to and from containers (Docker's `bridge-accept-fwmark`)",
        r#"use a mark of packets with or without a mask, such as "0x1" or "0x1/0xff""#,
    ),
    key(
        "engine.networks.default_options",
        "table of tables",
        "none",
        r#"options of new networks, by driver: `default_options.bridge."com.docker.network.driver.mtu" = "1400"`"#,
        "write a table for each driver: [engine.networks.default_options.bridge]",
    ),
    table(
        "engine.runtimes",
        "write a table for each: [engine.runtimes.NAME], of letters, digits, '.', '_' and '-'",
        "",
        "",
    ),
    table(
        "engine.runtimes.NAME",
        "write a table for each: [engine.runtimes.NAME], of letters, digits, '.', '_' and '-'",
        r#"Further OCI runtimes, which clients ask for by name (`docker run --runtime NAME`). The names `keelson`,
`keelson-runtime`, `runc` and `io.containerd.runc.v2` always mean our own runtime."#,
        "",
    ),
    key(
        "engine.runtimes.NAME.path",
        "absolute path",
        "required",
        "a program that understands runc's command line: `/usr/bin/crun`",
        "write a table for each: [engine.runtimes.NAME], of letters, digits, '.', '_' and '-'",
    ),
    key(
        "engine.runtimes.NAME.arguments",
        "list of strings",
        "none",
        "arguments before the runtime's command",
        "use a list of strings",
    ),
];
