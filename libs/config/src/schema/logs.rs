//! Logs.

use super::{SchemaEntry, key, table};

pub(super) const ENTRIES: &[SchemaEntry] = &[
    table(
        "logs",
        "write a table: [logs]",
        "The store of the machine's logs ([logs.md](logs.md)).",
        "",
    ),
    key(
        "logs.max_size",
        "bytes, at least 1048576",
        "`134217728`",
        "how large the store may be; never more than a tenth of its file system. Then the oldest lines of the unit that occupies most are removed",
        "use a number of bytes, at least 1048576",
    ),
    key(
        "logs.max_age",
        "days, 0–36500",
        "`90`",
        "when lines are removed; 0: never",
        "use a number of days between 0 and 36500",
    ),
    table(
        "logs.forward[]",
        "write [[logs.forward]] once for each target",
        r#"Where lines are forwarded to, at most 8. A target that is gone loses nothing that the store still has.

```toml
[[logs.forward]]
name = "central"
target = "tls://logs.example.net:6514"
ca = "/etc/keelson/logs-ca.pem"
```"#,
        "",
    ),
    key(
        "logs.forward[].name",
        "string",
        "required",
        "1–32 small letters, digits and hyphens; how far lines were sent is remembered under it",
        r#"use small letters, digits and hyphens, at most 32, such as "central""#,
    ),
    key(
        "logs.forward[].target",
        "URL",
        "required",
        "syslog (RFC 5424): `udp://HOST[:514]`, `tcp://HOST[:514]`, `tls://HOST[:6514]`; documents of JSON, one on each line: `http://HOST[:80]/PATH`, `https://HOST[:443]/PATH`",
        r#"use a URL such as "tls://logs.example.net:6514" or "https://logs.example.net/ingest""#,
    ),
    key(
        "logs.forward[].units",
        "list of names",
        "all",
        "only lines of these: `kernel`, `init`, `netcfg`, `hostd`, `logs`, names of services",
        r#"use a list of names, such as ["kernel", "hostd"]"#,
    ),
    key(
        "logs.forward[].priority",
        "string",
        "`\"info\"`",
        "the least urgent lines that are sent: `emergency`, `alert`, `critical`, `error`, `warning`, `notice`, `info`, `debug`",
        r#"use one of "emergency", "alert", "critical", "error", "warning", "notice", "info" and "debug""#,
    ),
    key(
        "logs.forward[].ca",
        "absolute path",
        "the system's",
        "authorities, in PEM, of which one must have signed the target's certificate",
        r#"use the absolute path of a file, such as "/etc/keelson/logs-ca.pem""#,
    ),
    key(
        "logs.forward[].certificate",
        "absolute path",
        "none",
        "the machine's own certificate in PEM, with `key`",
        "write both certificate and key, as absolute paths",
    ),
    key(
        "logs.forward[].key",
        "absolute path",
        "none",
        "the certificate's key in PEM",
        "write both certificate and key, as absolute paths",
    ),
    key(
        "logs.forward[].token",
        "absolute path",
        "none",
        "file whose content is sent as `Authorization: Bearer`; only with https",
        "use the absolute path of a file, with an https:// target",
    ),
];
