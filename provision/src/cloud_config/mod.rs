//! cloud-config, the YAML of cloud-init (its documentation: "Cloud config reference").
//!
//! Unknown members are left out with a warning, as cloud-init does: half of the files found in the
//! wild have some ([`crate::fields`]).

mod files;
mod users;

use crate::fields::Fields;
use crate::notes::Notes;
use crate::settings::{Command, Settings, TimeSettings};
use crate::yaml::{self, Value, YamlError, YamlNode};

/// Members that ask for what happens anyway, or that say nothing about the machine.
const SATISFIED: &[&str] = &[
    "cloud_config_modules",
    "cloud_final_modules",
    "cloud_init_modules",
    "datasource",
    "datasource_list",
    "debug",
    "disable_root",
    "final_message",
    "growpart",
    "merge_how",
    "merge_type",
    "no_ssh_fingerprints",
    "output",
    "preserve_hostname",
    "reporting",
    "resize_rootfs",
    "ssh_deletekeys",
    "ssh_fp_console_blacklist",
    "syslog_fix_perms",
    "vendor_data",
    "vendor_data2",
];

/// Members of cloud-config that have no effect here, and what to do instead.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("apk_repos", PACKAGES),
    ("apt", PACKAGES),
    (
        "ca_certs",
        "put authorities of registries below /etc/docker/certs.d by write_files",
    ),
    ("chef", AGENT),
    ("device_aliases", DISKS),
    ("disk_setup", DISKS),
    ("fs_setup", DISKS),
    ("groups", "name the groups of a user in users[].groups"),
    ("keyboard", "consoles have the layout us"),
    ("landscape", AGENT),
    (
        "locale",
        "the host speaks English; containers set their own locale",
    ),
    ("manage_etc_hosts", "/etc/hosts belongs to the host"),
    ("manage_resolv_conf", "use network-config"),
    ("resolv_conf", "use network-config"),
    ("mcollective", AGENT),
    ("mounts", DISKS),
    ("package_reboot_if_required", PACKAGES),
    ("package_update", PACKAGES),
    ("package_upgrade", PACKAGES),
    ("packages", PACKAGES),
    ("phone_home", "watch the host API instead"),
    ("power_state", "use hostctl power"),
    ("puppet", AGENT),
    (
        "random_seed",
        "the kernel's generator is seeded by the hypervisor and from /var",
    ),
    ("rh_subscription", PACKAGES),
    ("rsyslog", "use the host's log forwarding"),
    ("salt_minion", AGENT),
    ("snap", PACKAGES),
    ("spacewalk", AGENT),
    ("ssh", "host keys are made at the first boot"),
    ("ssh_genkeytypes", "host keys are made at the first boot"),
    ("ssh_import_id", "write the keys into ssh_authorized_keys"),
    ("ssh_keys", "host keys are made at the first boot"),
    ("ssh_publish_hostkeys", "host keys are on the console"),
    ("ssh_pwauth", "logins by ssh need a key"),
    ("swap", "swap is configured in host.toml"),
    ("timezone", "the host's clock is UTC; containers set TZ"),
    ("ubuntu_advantage", PACKAGES),
    ("ubuntu_pro", PACKAGES),
    ("updates", PACKAGES),
    ("wireguard", "use network-config"),
    ("yum_repos", PACKAGES),
    ("zypper", PACKAGES),
];
const PACKAGES: &str = "the operating system is immutable; run software in containers";
const AGENT: &str = "run the agent in a container";
const DISKS: &str = "disks are configured in host.toml";

/// Translates one document into `settings`. What was there before stays unless the document says
/// something else.
///
/// # Errors
/// The document is no YAML. Nothing was changed then.
pub fn translate(text: &[u8], settings: &mut Settings, notes: &mut Notes) -> Result<(), YamlError> {
    let root = yaml::parse(text)?;
    let mut fields = Fields::of(&root, "", notes);
    if root.map().is_none() {
        return Ok(());
    }
    names(&mut fields, settings, notes);
    users::translate(&mut fields, settings, notes);
    files::translate(&mut fields, settings, notes);
    commands(&mut fields, settings, notes);
    time(&mut fields, settings, notes);
    fields.ignore(SATISFIED);
    fields.unsupported(UNSUPPORTED, notes);
    fields.finish(notes);
    Ok(())
}

/// `hostname`, `fqdn`, `prefer_fqdn_over_hostname`.
fn names(fields: &mut Fields<'_>, settings: &mut Settings, notes: &mut Notes) {
    let hostname = fields.text("hostname", notes);
    let fqdn = fields.text("fqdn", notes);
    fields.ignore(&["prefer_fqdn_over_hostname", "create_hostname_file"]);
    // The kernel's name is the short one, so the preference changes nothing.
    if let Some(fqdn) = fqdn {
        settings.name(fqdn);
    }
    if let Some(hostname) = hostname {
        let full = settings.fqdn.take();
        settings.name(hostname);
        // A document says both, or a full name of a layer below is no longer true.
        settings.fqdn = settings.fqdn.take().or(full.filter(|_| fqdn.is_some()));
    }
}

/// `bootcmd` and `runcmd`.
fn commands(fields: &mut Fields<'_>, settings: &mut Settings, notes: &mut Notes) {
    for (name, every_boot) in [("bootcmd", true), ("runcmd", false)] {
        let lines = shell_lines(fields.list(name, notes), name, notes);
        if !lines.is_empty() {
            settings.command.push(Command {
                shell: Some(lines.join("\n")),
                every_boot,
                ..Command::default()
            });
        }
    }
}

/// One script of all commands, so that `cd` and variables reach the next line, as in cloud-init.
fn shell_lines(list: &[YamlNode], name: &str, notes: &mut Notes) -> Vec<String> {
    let mut lines = Vec::new();
    for node in list {
        match (&node.value, node.texts()) {
            (Value::Scalar { text, .. }, Some(_)) if !node.is_null() => lines.push(text.clone()),
            (Value::List(_), Some(words)) if !words.is_empty() => {
                let words: Vec<String> = words.iter().map(|(_, word)| quoted(word)).collect();
                lines.push(words.join(" "));
            }
            _ if node.is_null() => {}
            _ => notes.at(
                node.line,
                format!("{name}[] must be a line or a list of words and is left out"),
            ),
        }
    }
    lines
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// `ntp`.
fn time(fields: &mut Fields<'_>, settings: &mut Settings, notes: &mut Notes) {
    let Some(node) = fields.take("ntp") else {
        return;
    };
    let mut ntp = Fields::of(node, "ntp", notes);
    let mut servers = ntp.texts("servers", notes);
    servers.extend(ntp.texts("pools", notes));
    servers.extend(ntp.texts("peers", notes));
    ntp.ignore(&["enabled"]);
    ntp.unsupported(
        &[
            ("ntp_client", "the host uses chrony"),
            ("config", "the host's chrony has its own configuration"),
            ("allow", "the host serves no time"),
        ],
        notes,
    );
    ntp.finish(notes);
    if !servers.is_empty() {
        let servers = servers.into_iter().map(str::to_owned).collect();
        settings.time = Some(TimeSettings { servers });
    }
}
