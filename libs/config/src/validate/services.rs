//! Checks of `[services.NAME]`. Each layer is checked by itself, so a service may be incomplete here;
//! hostd checks the whole one.

use std::collections::BTreeMap;

use keelson_model::host::{ServiceConfig, ServiceHealth, ServiceMount};

use super::Faults;
use super::words::{is_no_reference, is_path};
use crate::path;

/// Least memory that a container can start with, in bytes.
const LEAST_MEMORY: u64 = 6 << 20;
/// Most seconds of a time.
const DAY: u32 = 86_400;

pub(super) fn check(services: &BTreeMap<String, ServiceConfig>, faults: &mut Faults) {
    for (name, service) in services {
        let at = path::join("services", name);
        if !is_service_name(name) {
            faults.advise(
                &at,
                format!("{name:?} is no name of a service"),
                "use 2 to 32 small letters, digits and hyphens, such as [services.backup]",
            );
        }
        check_service(name, service, &at, faults);
    }
}

/// The name is also the container's, and a directory's.
fn is_service_name(name: &str) -> bool {
    (2..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Part of the name of a file.
fn is_layer(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

fn is_text(text: &str) -> bool {
    !text.contains('\0')
}

fn check_service(name: &str, service: &ServiceConfig, at: &str, faults: &mut Faults) {
    let member = |name: &str| format!("{at}.{name}");
    let indexed = |name: &str, index: usize| format!("{at}.{name}[{index}]");
    if service.image.as_deref().is_some_and(is_no_reference) {
        faults.add(&member("image"), "this is no name of an image".to_owned());
    }
    for (index, layer) in service.layers.iter().enumerate() {
        if !is_layer(layer) {
            let why = format!("{layer:?} is no name of a layer");
            faults.add(&indexed("layers", index), why);
        }
    }
    let others = service.health.command.iter().chain(&service.reload.command);
    let texts = service.command.iter().chain(others);
    if service.command.first().is_some_and(String::is_empty) || !texts.clone().all(|t| is_text(t)) {
        faults.add(&member("command"), "this is no command".to_owned());
    }
    for (variable, value) in &service.environment {
        if variable.is_empty() || variable.contains('=') || !is_text(variable) || !is_text(value) {
            let why = format!("{variable:?} is no variable");
            faults.add(&member("environment"), why);
        }
    }
    if let Some(network) = &service.network
        && !matches!(network.as_str(), "none" | "host" | "bridge")
    {
        let why = format!("{network:?} is no network of a service");
        faults.add(&member("network"), why);
    }
    for (index, capability) in service.capabilities.iter().enumerate() {
        let rest = capability.strip_prefix("CAP_").unwrap_or(capability);
        let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        if rest.is_empty() || rest == "ALL" || !rest.bytes().all(plain) {
            let why = format!("{capability:?} is no capability");
            faults.add(&indexed("capabilities", index), why);
        }
    }
    let profile = service.apparmor.as_deref().unwrap_or("profile");
    if profile.is_empty() || profile.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let why = format!("{profile:?} is no name of a profile");
        faults.add(&member("apparmor"), why);
    }
    for (index, device) in service.devices.iter().enumerate() {
        if !device.starts_with("/dev/") || !is_path(device) {
            let why = format!("{device:?} is no path below /dev");
            faults.add(&indexed("devices", index), why);
        }
    }
    for (index, mount) in service.mounts.iter().enumerate() {
        check_mount(mount, &indexed("mounts", index), faults);
    }
    for (list, names) in [("after", &service.after), ("requires", &service.requires)] {
        for (index, other) in names.iter().enumerate() {
            if other == name {
                let why = "a service can't wait for itself".to_owned();
                faults.add(&indexed(list, index), why);
            } else if !is_service_name(other) {
                let why = format!("{other:?} is no name of a service");
                faults.add(&indexed(list, index), why);
            }
        }
    }
    for (index, path) in service.reload.watch.iter().enumerate() {
        if !is_path(path) {
            let why = format!("{path:?} is not an absolute path");
            faults.add(&indexed("reload.watch", index), why);
        }
    }
    check_limits(service, at, faults);
    check_health(&service.health, &member("health"), faults);
}

fn check_mount(mount: &ServiceMount, at: &str, faults: &mut Faults) {
    let source = mount
        .source
        .strip_prefix("{state}")
        .unwrap_or(&mount.source);
    let own = source.len() != mount.source.len();
    if !(is_path(source) || own && source.is_empty()) {
        let why = format!("{:?} is no path that can be mounted", mount.source);
        faults.add(&format!("{at}.source"), why);
    }
    if !is_path(&mount.target) {
        let why = format!("{:?} is not an absolute path", mount.target);
        faults.add(&format!("{at}.target"), why);
    }
    if mount.optional && mount.create {
        faults.advise(
            at,
            "it has both optional and create".to_owned(),
            "write one of them",
        );
    }
}

fn check_limits(service: &ServiceConfig, at: &str, faults: &mut Faults) {
    let resources = &service.resources;
    if let Some(memory) = resources.memory.filter(|m| (1..LEAST_MEMORY).contains(m)) {
        let why = format!("{memory} is too little");
        faults.add(&format!("{at}.resources.memory"), why);
    }
    if let Some(pids) = resources.pids.filter(|pids| *pids == 0 || *pids < -1) {
        let why = format!("{pids} is out of range");
        faults.add(&format!("{at}.resources.pids"), why);
    }
    if let Some(millicpus) = resources.millicpus
        && millicpus != 0
        && !(10..=1_000_000).contains(&millicpus)
    {
        let why = format!("{millicpus} is out of range");
        faults.add(&format!("{at}.resources.millicpus"), why);
    }
    if let Some(size) = service.log.max_size.filter(|size| *size < 64 << 10) {
        let why = format!("{size} is too small");
        faults.add(&format!("{at}.log.max_size"), why);
    }
    if let Some(files) = service.log.max_files
        && !(1..=1000).contains(&files)
    {
        let why = format!("{files} is out of range");
        faults.add(&format!("{at}.log.max_files"), why);
    }
}

fn check_health(health: &ServiceHealth, at: &str, faults: &mut Faults) {
    for (member, value, least, most) in [
        ("interval", health.interval, 1, DAY),
        ("timeout", health.timeout, 1, DAY),
        ("retries", health.retries, 1, 1000),
        ("start_period", health.start_period, 0, DAY),
    ] {
        if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
            let why = format!("{value} is out of range");
            faults.add(&format!("{at}.{member}"), why);
        }
    }
}
