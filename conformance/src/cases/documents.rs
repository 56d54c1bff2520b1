//! Errors in a config.json, and members that must be ignored.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, interface, must};
use crate::lab::{Lab, contains};

const VERSION: &str = "config.md#specification-version";
const EXTENSIBILITY: &str = "config.md#extensibility";
const ANNOTATIONS: &str = "config.md#annotations";
const VALID: &str = "config.md#valid-values";

/// A text instead of config.json must be refused.
fn refuses_text(lab: &Lab, text: &[u8]) -> Result<String> {
    std::fs::write(lab.bundle().join("config.json"), text)?;
    let id = lab.next_id();
    let message = lab.call(&["create", &id])?.failure()?;
    ensure!(
        !lab.state_directory().join(&id).join("state.json").exists(),
        "a container is left"
    );
    Ok(message)
}

/// A value of a wrong type must be refused.
fn refuses_value(lab: &Lab, pointer: &str, value: Value) -> Result<()> {
    anyhow::ensure!(lab.config().pointer(pointer).is_some(), "no {pointer}");
    lab.refuses(|config| {
        if let Some(place) = config.pointer_mut(pointer) {
            *place = value;
        }
    })
    .map(drop)
}

pub(super) const CASES: &[Case] = &[
    must(
        "config.version.required",
        VERSION,
        "ociVersion is required.",
        |lab| {
            lab.refuses(|config| {
                config
                    .as_object_mut()
                    .map(|object| object.remove("ociVersion"));
            })
            .map(drop)
        },
    ),
    must(
        "config.version.semver",
        VERSION,
        "ociVersion is a version.",
        |lab| {
            lab.refuses(|config| config["ociVersion"] = json!("nonsense"))
                .map(drop)
        },
    ),
    must(
        "config.version.major",
        VERSION,
        "Another major version is not taken for a known one.",
        |lab| {
            lab.refuses(|config| config["ociVersion"] = json!("99.0.0"))
                .map(drop)
        },
    ),
    must(
        "config.version.minor",
        VERSION,
        "Every version 1.x is accepted.",
        |lab| {
            for version in ["1.0.0", "1.0.2", "1.1.0", "1.2.0", "1.2.1"] {
                lab.script("true", |config| config["ociVersion"] = json!(version))?;
            }
            Ok(())
        },
    ),
    must(
        "config.extensibility.unknown-members",
        EXTENSIBILITY,
        "Members that are not known are passed over.",
        |lab| {
            lab.script("true", |config| {
                config["org.example"] = json!({"deep": [1, null]});
                config["process"]["unknown"] = json!(true);
                config["linux"]["unknown"] = json!("x");
                config["root"]["unknown"] = json!(1);
            })
            .map(drop)
        },
    ),
    must(
        "config.annotations.unknown",
        ANNOTATIONS,
        "Annotations that are not known are no error.",
        |lab| {
            lab.script("true", |config| {
                config["annotations"] = json!({"org.example.unknown": "x", "": "y"})
            })
            .or_else(|_| {
                lab.script("true", |config| {
                    config["annotations"] = json!({"org.example.unknown": "x"})
                })
            })
            .map(drop)
        },
    ),
    must(
        "config.annotations.strings",
        ANNOTATIONS,
        "Values of annotations are strings.",
        |lab| {
            lab.refuses(|config| config["annotations"] = json!({"key": 5}))
                .map(drop)
        },
    ),
    must(
        "config.document.empty",
        VALID,
        "An empty file is an error.",
        |lab| refuses_text(lab, b"").map(drop),
    ),
    must(
        "config.document.truncated",
        VALID,
        "A file that was cut is an error.",
        |lab| {
            let text = lab.config().to_string();
            let half = text.as_bytes().get(..text.len() / 2).unwrap_or_default();
            refuses_text(lab, half).map(drop)
        },
    ),
    must(
        "config.document.not-an-object",
        VALID,
        "A list in place of the object is an error.",
        |lab| refuses_text(lab, b"[1, 2]").map(drop),
    ),
    must(
        "config.document.deep",
        VALID,
        "Nesting without end is an error and no crash.",
        |lab| {
            let deep = "[".repeat(200_000);
            refuses_text(lab, format!("{{\"x\": {deep}").as_bytes()).map(drop)
        },
    ),
    must(
        "config.types.args",
        VALID,
        "args that is a string is an error.",
        |lab| refuses_value(lab, "/process/args", json!("true")),
    ),
    must(
        "config.types.uid",
        VALID,
        "A uid that is negative is an error.",
        |lab| refuses_value(lab, "/process/user/uid", json!(-1)),
    ),
    must(
        "config.types.uid-large",
        VALID,
        "A uid beyond 32 bits is an error.",
        |lab| refuses_value(lab, "/process/user/uid", json!(4_294_967_296_u64)),
    ),
    must(
        "config.types.mounts",
        VALID,
        "mounts that is an object is an error.",
        |lab| refuses_value(lab, "/mounts", json!({})),
    ),
    must(
        "config.types.namespaces",
        VALID,
        "A namespace that is a string is an error.",
        |lab| refuses_value(lab, "/linux/namespaces", json!(["pid"])),
    ),
    must(
        "config.types.root",
        VALID,
        "A root that is a string is an error.",
        |lab| refuses_value(lab, "/root", json!("rootfs")),
    ),
    must(
        "config.types.terminal",
        VALID,
        "A switch that is a word is an error.",
        |lab| refuses_value(lab, "/process/terminal", json!("false")),
    ),
    must(
        "config.types.device-rule",
        VALID,
        "A rule without allow being a switch is an error.",
        |lab| refuses_value(lab, "/linux/resources/devices", json!([{"allow": "no"}])),
    ),
    must(
        "config.types.hook",
        VALID,
        "A hook that is a string is an error.",
        |lab| {
            lab.refuses(|config| config["hooks"] = json!({"prestart": ["/bin/true"]}))
                .map(drop)
        },
    ),
    interface(
        "cli.errors.names-member",
        "runc create",
        "The message names the member that is wrong.",
        |lab| {
            let message = lab.refuses(|config| config["process"]["cwd"] = json!(7))?;
            contains("message", &message, "cwd")
        },
    ),
    must(
        "config.values.zero-byte",
        VALID,
        "An argument with a zero byte is an error.",
        |lab| {
            lab.refuses(|config| config["process"]["args"] = json!(["echo", "a\u{0}b"]))
                .map(drop)
        },
    ),
    must(
        "config.values.personality",
        VALID,
        "A domain that does not exist is an error.",
        |lab| {
            lab.refuses(|config| config["linux"]["personality"] = json!({"domain": "NONSENSE"}))
                .map(drop)
        },
    ),
    must(
        "linux.intel-rdt.without-resctrl",
        "config-linux.md#intelrdt",
        "Without a resctrl mount, intelRdt is an error.",
        |lab| {
            if std::fs::read_to_string("/proc/self/mounts")?.contains(" resctrl ") {
                return crate::lab::skip("this machine has a resctrl mount");
            }
            lab.refuses(|config| {
                config["linux"]["intelRdt"] = json!({"closID": "x", "l3CacheSchema": "L3:0=f"})
            })
            .map(drop)
        },
    ),
    must(
        "linux.apparmor.unavailable",
        "config.md#linux-process",
        "An AppArmor profile is applied or refused, never passed over.",
        |lab| {
            // Also on a kernel with AppArmor: the profile is not loaded.
            lab.refuses(|config| config["process"]["apparmorProfile"] = json!("some-profile"))
                .map(drop)
        },
    ),
    must(
        "linux.mount-label.unavailable",
        "config-linux.md#mount-label",
        "A label for mounts is applied or refused, never passed over.",
        |lab| {
            if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
                return crate::lab::skip("this kernel has SELinux");
            }
            lab.refuses(|config| {
                config["linux"]["mountLabel"] =
                    json!("system_u:object_r:svirt_sandbox_file_t:s0:c715,c811");
            })
            .map(drop)
        },
    ),
    must(
        "linux.selinux.unavailable",
        "config.md#linux-process",
        "An SELinux label is applied or refused, never passed over.",
        |lab| {
            if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
                return crate::lab::skip("this kernel has SELinux");
            }
            lab.refuses(|config| {
                config["process"]["selinuxLabel"] = json!("system_u:system_r:svirt_lxc_net_t:s0")
            })
            .map(drop)
        },
    ),
];
