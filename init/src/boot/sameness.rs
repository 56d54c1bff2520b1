//! Whether this is the machine that the identity on the disk was made for.
//!
//! A copied disk carries machine-id, keys and random seed along: two machines that share a DHCP
//! lease and a private key. So the facts about the machine are kept beside its identity. One of them
//! may change for many reasons: a cloud moves a machine, a board is exchanged, a hypervisor
//! is updated. Live machines were cut off from their users by a new identity for such a reason.
//! Hence only two facts that both differ count, and a fact that is missing says nothing.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use keelson_model::format::DocumentFormat;
use serde::{Deserialize, Serialize};

use crate::{console, devices, files};

/// The facts about the machine that the identity was made for. Mode 0600.
const RECORD: &str = "var/lib/keelson/host/identity.json";
/// Asks for a new identity at this boot; its first line says why. It is removed when the new identity
/// is complete, so that a power failure leaves the request.
const REQUEST: &str = "var/lib/keelson/host/identity-reset";
/// Where the former identity is kept, should the decision have been wrong.
const FORMER: &str = "var/lib/keelson/host/former-identity";
/// What makes up the identity. The machine makes what is missing. The first one is on another mount
/// and is not kept.
const MACHINE_ID: &str = "etc/machine-id";
const PARTS: [&str; 3] = [
    "var/lib/keelson/host/tls",
    "var/lib/keelson/host/ssh",
    "var/lib/keelson/random-seed",
];
/// The report of the provisioning, which knows the cloud's name for this machine.
const PROVISIONED: &str = "var/lib/keelson/host/platform/status.json";
/// How many facts must differ.
const SIGNS: usize = 2;
/// Version of [`Record`].
const VERSION: u32 = 1;

/// What is known about a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Facts {
    /// UUID in SMBIOS, lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    product_uuid: Option<String>,
    /// The platform's name for this instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id: Option<String>,
    /// Serial number or world-wide name of the disk with the root file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<String>,
}

impl Facts {
    fn all(&self) -> [(&'static str, &Option<String>); 3] {
        [
            ("product_uuid", &self.product_uuid),
            ("instance-id", &self.instance_id),
            ("disk", &self.disk),
        ]
    }

    /// Names of the facts that both know and that differ.
    fn differing(&self, other: &Self) -> Vec<&'static str> {
        self.all()
            .into_iter()
            .zip(other.all())
            .filter(|((_, left), (_, right))| left.is_some() && right.is_some() && left != right)
            .map(|((name, _), _)| name)
            .collect()
    }

    /// Adds what the other knows beyond this.
    fn completed(&self, other: &Self) -> Self {
        let either = |own: &Option<String>, new: &Option<String>| own.clone().or(new.clone());
        Self {
            product_uuid: either(&self.product_uuid, &other.product_uuid),
            instance_id: either(&self.instance_id, &other.instance_id),
            disk: either(&self.disk, &other.disk),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    format: DocumentFormat,
    made_for: Facts,
}

/// The decision.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// The identity stays; these facts are kept from now on.
    Keep(Facts),
    /// It stays, although this fact differs.
    Doubt(&'static str),
    /// The disk was copied, or the operator asks for it: why.
    Renew(String),
}

fn decide(known: Option<&Facts>, present: &Facts, request: Option<&str>) -> Decision {
    if let Some(reason) = request {
        return Decision::Renew(reason.to_owned());
    }
    let Some(known) = known else {
        return Decision::Keep(present.clone());
    };
    match known.differing(present).as_slice() {
        [] => Decision::Keep(known.completed(present)),
        [one] => Decision::Doubt(one),
        several => {
            debug_assert!(several.len() >= SIGNS);
            Decision::Renew(format!("{} have changed", several.join(" and ")))
        }
    }
}

/// Why the identity could not be compared or renewed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// A call on a path.
    #[error("{operation} {}: {source}", path.display())]
    Path {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A file can't be written.
    #[error(transparent)]
    File(#[from] keelson_files::FileError),
    /// The record is not one.
    #[error("read {}: {source}; it is left as it is", path.display())]
    Record {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// A later release wrote the record.
    #[error("{} has version {version}, which this release does not know; it is left as it is", path.display())]
    Version { path: PathBuf, version: u32 },
}

fn path_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Path {
        operation,
        path,
        source,
    }
}

/// Compares the machine with the one that the identity was made for, and removes an identity that
/// belongs to another machine. Runs before anything of the identity is read or made.
pub(super) fn check(root: &Path) -> Vec<String> {
    let present = Facts {
        product_uuid: files::first_line("/sys/class/dmi/id/product_uuid")
            .and_then(|text| plausible_uuid(&text)),
        instance_id: instance_id(root),
        disk: root_disk(),
    };
    check_with(root, &present)
}

fn check_with(root: &Path, present: &Facts) -> Vec<String> {
    compare(root, present)
        .err()
        .map(|error| error.to_string())
        .into_iter()
        .collect()
}

fn compare(root: &Path, present: &Facts) -> Result<(), IdentityError> {
    let record = root.join(RECORD);
    // A record that can't be read is neither forgotten nor obeyed.
    let known = read(&record)?;
    let request = files::first_line(root.join(REQUEST));
    let facts = match decide(known.as_ref(), present, request.as_deref()) {
        Decision::Keep(facts) => facts,
        Decision::Doubt(fact) => {
            console::warning(&format!(
                "{fact} is not the one that this machine's identity was made for; if its disk was \
                 copied, `hostctl identity reset` makes a new identity"
            ));
            return Ok(());
        }
        Decision::Renew(reason) => {
            console::warning(&format!("this machine gets a new identity: {reason}"));
            forget(root, &reason)?;
            present.clone()
        }
    };
    if known.as_ref() != Some(&facts) {
        write(&record, &facts)?;
    }
    // Last, and also a request that `forget` has written.
    remove(&root.join(REQUEST))
}

/// Notes that a new identity is wanted at the next boot.
pub(crate) fn request(reason: &str) -> Result<(), IdentityError> {
    let path = Path::new("/").join(REQUEST);
    Ok(files::replace(
        &path,
        format!("{reason}\n").as_bytes(),
        0o600,
    )?)
}

/// Moves the identity aside. The request is written first: after a power failure the rest follows.
fn forget(root: &Path, reason: &str) -> Result<(), IdentityError> {
    let request = root.join(REQUEST);
    if !exists(&request)? {
        files::replace(&request, format!("{reason}\n").as_bytes(), 0o600)?;
    }
    let former = root.join(FORMER);
    fs::create_dir_all(&former).map_err(path_error("create", &former))?;
    for part in PARTS {
        let path = root.join(part);
        if !exists(&path)? {
            continue;
        }
        let target = former.join(path.file_name().unwrap_or_default());
        remove(&target)?;
        fs::rename(&path, &target).map_err(path_error("move aside", &path))?;
    }
    remove(&root.join(MACHINE_ID))?;
    // The record is written after this and the request is removed last, see `compare`.
    fs::File::open(&former)
        .and_then(|directory| directory.sync_all())
        .map_err(path_error("sync", &former))
}

/// A part that can't be looked at must not pass for one that is absent: it would stay in use.
fn exists(path: &Path) -> Result<bool, IdentityError> {
    path.try_exists().map_err(path_error("look for", path))
}

fn remove(path: &Path) -> Result<(), IdentityError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(path_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<Option<Facts>, IdentityError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(path_error("read", path))?,
    };
    let record: Record =
        serde_json::from_slice(&bytes).map_err(|source| IdentityError::Record {
            path: path.to_owned(),
            source,
        })?;
    if !record.format.is_readable_by(VERSION) {
        return Err(IdentityError::Version {
            path: path.to_owned(),
            version: record.format.version,
        });
    }
    Ok(Some(record.made_for))
}

fn write(path: &Path, facts: &Facts) -> Result<(), IdentityError> {
    let record = Record {
        format: DocumentFormat::FIRST,
        made_for: facts.clone(),
    };
    let text = serde_json::to_vec(&record).map_err(|source| IdentityError::Record {
        path: path.to_owned(),
        source,
    })?;
    Ok(files::replace(path, &text, 0o600)?)
}

/// A UUID, unless it is one of those that makers of boards leave in all of them.
fn plausible_uuid(text: &str) -> Option<String> {
    const EVERYWHERE: [&str; 3] = [
        "03000200-0400-0500-0006-000700080009",
        "12345678-1234-5678-90ab-cddeefaabbcc",
        "fefefefe-fefe-fefe-fefe-fefefefefefe",
    ];
    let uuid = uuid::Uuid::parse_str(text.trim()).ok()?;
    let text = uuid.hyphenated().to_string();
    (!uuid.is_nil() && !uuid.is_max() && !EVERYWHERE.contains(&text.as_str())).then_some(text)
}

fn instance_id(root: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Status {
        instance_id: Option<String>,
    }
    let status: Status = serde_json::from_slice(&fs::read(root.join(PROVISIONED)).ok()?).ok()?;
    status
        .instance_id
        .filter(|id| !id.is_empty() && id != "nocloud")
}

/// The identifier of the disk with /sysroot.
fn root_disk() -> Option<String> {
    let device = fs::metadata("/sysroot").ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let own: PathBuf = Path::new("/sys/dev/block")
        .join(format!("{major}:{minor}"))
        .canonicalize()
        .ok()?;
    let disk = match own.join("partition").exists() {
        true => own.parent()?,
        false => &own,
    };
    devices::identifiers(disk).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(uuid: &str, instance: Option<&str>, disk: Option<&str>) -> Facts {
        Facts {
            product_uuid: Some(uuid.to_owned()),
            instance_id: instance.map(str::to_owned),
            disk: disk.map(str::to_owned),
        }
    }

    #[test]
    fn two_signs_are_needed() {
        let known = facts("a", Some("i-1"), Some("d"));
        let decision = |present: &Facts| decide(Some(&known), present, None);
        assert_eq!(decision(&known), Decision::Keep(known.clone()));
        // Moved by its cloud, or the metadata service is down.
        let moved = facts("a", Some("i-2"), Some("d"));
        assert_eq!(decision(&moved), Decision::Doubt("instance-id"));
        assert_eq!(
            decision(&facts("a", None, None)),
            Decision::Keep(known.clone())
        );
        assert_eq!(decision(&Facts::default()), Decision::Keep(known.clone()));
        // One sign differs and the other is missing.
        assert_eq!(
            decision(&facts("b", None, None)),
            Decision::Doubt("product_uuid")
        );
        let Decision::Renew(reason) = decision(&facts("b", None, Some("e"))) else {
            panic!("kept");
        };
        assert_eq!(reason, "product_uuid and disk have changed");
    }

    #[test]
    fn what_is_learnt_later_is_kept_and_the_operator_is_obeyed() {
        let known = facts("a", None, None);
        let present = facts("a", Some("i-1"), None);
        assert_eq!(
            decide(Some(&known), &present, None),
            Decision::Keep(present.clone())
        );
        assert_eq!(
            decide(None, &present, None),
            Decision::Keep(present.clone())
        );
        let asked = decide(Some(&present), &present, Some("asked"));
        assert_eq!(asked, Decision::Renew("asked".to_owned()));
    }

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for directory in ["etc", "var/lib/keelson/host/tls"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        for file in [MACHINE_ID, "var/lib/keelson/host/tls/ca-key.pem", PARTS[2]] {
            fs::write(root.path().join(file), "first").unwrap();
        }
        root
    }

    #[test]
    fn a_copied_disk_loses_its_identity_and_keeps_everything_else() {
        let root = machine();
        let other = root.path().join("var/lib/keelson/host/other");
        fs::write(&other, "kept").unwrap();
        let first = facts("a", None, Some("d"));
        assert!(check_with(root.path(), &first).is_empty());
        assert!(check_with(root.path(), &facts("b", None, Some("d"))).is_empty());
        assert!(root.path().join(MACHINE_ID).exists(), "one sign");
        let copy = facts("b", None, Some("e"));
        assert!(check_with(root.path(), &copy).is_empty());
        for part in PARTS.into_iter().chain([MACHINE_ID, REQUEST]) {
            assert!(!root.path().join(part).exists(), "{part}");
        }
        assert!(other.exists());
        let key = root.path().join(FORMER).join("tls/ca-key.pem");
        assert_eq!(fs::read_to_string(key).unwrap(), "first");
        // It is this machine's from now on.
        fs::write(root.path().join(MACHINE_ID), "second").unwrap();
        assert!(check_with(root.path(), &copy).is_empty());
        assert!(root.path().join(MACHINE_ID).exists());
    }

    #[test]
    fn a_power_cut_in_the_middle_is_completed() {
        let root = machine();
        assert!(check_with(root.path(), &facts("a", None, Some("d"))).is_empty());
        let copy = facts("b", None, Some("e"));
        // The request was written, and one of the parts was moved.
        forget(root.path(), "a copy").unwrap();
        fs::write(root.path().join(MACHINE_ID), "old").unwrap();
        assert!(root.path().join(REQUEST).exists());
        assert!(check_with(root.path(), &copy).is_empty());
        assert!(!root.path().join(MACHINE_ID).exists());
        assert!(!root.path().join(REQUEST).exists());
        let key = root.path().join(FORMER).join("tls/ca-key.pem");
        assert!(key.exists(), "a second run keeps what the first one moved");
    }

    #[test]
    fn an_unreadable_record_changes_nothing() {
        let root = machine();
        for text in ["{", "{\"version\":9,\"made_for\":{}}"] {
            fs::write(root.path().join(RECORD), text).unwrap();
            assert_eq!(check_with(root.path(), &facts("b", None, None)).len(), 1);
            assert_eq!(fs::read_to_string(root.path().join(RECORD)).unwrap(), text);
            assert!(root.path().join(MACHINE_ID).exists());
        }
    }

    /// As the first release wrote it. Never changed.
    #[test]
    fn records_of_other_releases_are_read_if_they_say_so() {
        let golden = include_str!("../../tests/golden/made-for.1.json");
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("made-for.json");
        let read_text = |text: &str| {
            fs::write(&path, text).unwrap();
            read(&path)
        };
        let known = facts(
            "4c4c4544-0051-3010-8053-b9c04f4d4e32",
            Some("i-1"),
            Some("QM00001"),
        );
        assert_eq!(read_text(golden).unwrap(), Some(known.clone()));
        let newer = golden.replace("\"version\": 1", "\"version\": 2, \"more\": 0");
        assert_eq!(read_text(&newer).unwrap(), Some(known.clone()));
        assert!(read_text(&newer.replace("_from\": 1", "_from\": 2")).is_err());
        write(&path, &known).unwrap();
        assert_eq!(read(&path).unwrap(), Some(known));
    }

    #[test]
    fn uuids_of_careless_makers_say_nothing() {
        let good = "4C4C4544-0051-3010-8053-B9C04F4D4E32";
        assert_eq!(plausible_uuid(good), Some(good.to_ascii_lowercase()));
        for bad in [
            "",
            "Not Settable",
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "03000200-0400-0500-0006-000700080009",
        ] {
            assert_eq!(plausible_uuid(bad), None, "{bad}");
        }
    }
}
