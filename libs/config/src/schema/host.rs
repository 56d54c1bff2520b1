//! Name, network, APIs and time.

use super::{SchemaEntry, key, table};

pub(super) const ENTRIES: &[SchemaEntry] = &[
    key(
        "hostname",
        "string",
        "`keelson`",
        "the machine's name: 1–63 letters, digits and hyphens (RFC 1123)",
        r#"use letters, digits and hyphens, at most 63, such as "node-1""#,
    ),
    key(
        "fqdn",
        "string",
        "none",
        "the machine's full name. Its first label is the host name, if `hostname` does not say one",
        r#"use a name with a dot, such as "node-1.example.net""#,
    ),
    table("network", "write a table: [network]", "", ""),
    key(
        "network.nameservers",
        "list of IP addresses",
        "from DHCP",
        "used instead of those that DHCP names",
        r#"use a list of addresses, such as ["192.0.2.53"]"#,
    ),
    key(
        "network.search",
        "list of domains",
        "from DHCP",
        "used instead of those that DHCP names",
        r#"use a list of domains, such as ["example.net"]"#,
    ),
    table(
        "network.link[]",
        "write [[network.link]] once for each link",
        "Without any entry, the first Ethernet link asks for an address by DHCPv4.",
        r#"The settings of a DHCP server are used where they make sense. The log and `GET /host/v1/status` report
ignored ones. A router outside of the lease's prefix is assumed to be on the link and gets a route of
its own; classless routes (option 121, else 249) replace the router option; if there are several
routers, one makes the default route. An MTU below 1280 is ignored, since it would switch IPv6 off. A
host name from the server is reported but not used: the machine's name is `hostname`."#,
    ),
    key(
        "network.link[].name",
        "string",
        "required",
        "the kernel's name of the link: `eth0`; a pattern with `*` and `?` means the first hardware link with such a name. With `mac`, any name",
        r#"use the kernel's name of the link, such as "eth0""#,
    ),
    key(
        "network.link[].mac",
        "hardware address",
        "none",
        "the link with this address, whatever the kernel calls it: `02:00:00:00:00:01`",
        r#"use six pairs of hexadecimal digits, such as "02:00:00:00:00:01""#,
    ),
    key(
        "network.link[].driver",
        "string",
        "none",
        "the link with this driver",
        r#"use the name of a driver, such as "virtio_net""#,
    ),
    key(
        "network.link[].dhcp4",
        "boolean",
        "`false`",
        "ask for an IPv4 address by DHCP",
        "use true or false",
    ),
    key(
        "network.link[].dhcp6",
        "boolean",
        "`false`",
        "ask for an IPv6 address by DHCP",
        "use true or false",
    ),
    key(
        "network.link[].accept_ra",
        "boolean",
        "`true`",
        "whether router advertisements are accepted",
        "use true or false",
    ),
    key(
        "network.link[].addresses",
        "list of `address/prefix`",
        "none",
        "`192.0.2.10/24`, `2001:db8::10/64`",
        r#"use a list of addresses with prefix length, such as ["192.0.2.10/24"]"#,
    ),
    key(
        "network.link[].gateways",
        "list of IP addresses",
        "none",
        "default gateways, at most one of each family",
        r#"use a list of addresses, at most one for each family, such as ["192.0.2.1"]"#,
    ),
    key(
        "network.link[].mtu",
        "576–65535",
        "the link's",
        "bytes",
        "use a number of bytes between 576 and 65535, such as 1500",
    ),
    key(
        "network.link[].routes",
        "list of `{ to, via, metric }`",
        "none",
        "further routes",
        r#"use a list of routes, such as [{ to = "10.0.0.0/8", via = "192.0.2.1" }]"#,
    ),
    key(
        "network.link[].bond",
        "`{ members, mode, miimon, options }`",
        "none",
        "the link is a bond of these links",
        r#"write a table, such as { members = ["eth0", "eth1"], mode = "active-backup" }"#,
    ),
    key(
        "network.link[].vlan",
        "`{ id, parent }`",
        "none",
        "the link is a VLAN on another",
        r#"write a table, such as { id = 7, parent = "eth0" }"#,
    ),
    key(
        "network.link[].bridge",
        "`{ members, stp }`",
        "none",
        "the link is a bridge of these links",
        r#"write a table, such as { members = ["eth0"] }"#,
    ),
    table(
        "api",
        "write a table: [api]",
        "",
        "The unix socket `/run/docker.sock` is always there.",
    ),
    key(
        "api.listen",
        "list of `address:port`",
        r#"`["0.0.0.0:2376"]`"#,
        "where the Docker Engine API and the host API listen, with mutual TLS only; `[]` for nowhere",
        r#"use a list of addresses with port, such as ["0.0.0.0:2376"]"#,
    ),
    table("time", "write a table: [time]", "", ""),
    key(
        "time.servers",
        "list of names or addresses",
        "those that DHCP names, else Debian's pool",
        "NTP servers",
        r#"use a list of host names or addresses, such as ["ntp.example.net"]"#,
    ),
];
