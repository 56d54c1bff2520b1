//! Changes of the operator's files while the machine runs.
//!
//! A change that waits for a confirmation is remembered on the disk before it is made: which file,
//! the copy of what it was, and when the wait ends. [`expire`] takes it back when that time is over,
//! and after a reboot. Every step replaces one file, in an order in which a crash leaves something
//! that [`expire`] can finish. Callers run one function at a time.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keelson_files::Durability;
use keelson_model::format::DocumentFormat;
use serde::{Deserialize, Serialize};
use toml::Value;

use crate::effective::refresh;
use crate::error::{ChangeError, SaveError};
use crate::load::{Instead, assemble, load, read_operator};
use crate::loaded::{LoadedConfig, masked};
use crate::merge::each_value;
use crate::problem::Problem;
use crate::schema::{self, Effect};
use crate::sources::Sources;
use crate::trial::{make_directory, put};
use crate::{history, layer, not_built};

/// How long a change that can lock the operator out waits when nothing else is said, in seconds.
pub const USUAL_WINDOW: u32 = 120;
/// The longest wait, in seconds.
const LONGEST_WINDOW: u32 = 86_400;

/// File of the change that waits for its confirmation.
const WAITING: &str = "waiting.toml";
/// File of the last change that stayed.
const APPLIED: &str = "applied.toml";

/// A new text for one of the operator's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// `None`: `host.toml`. A name without `.toml`: a file of `host.toml.d`.
    pub drop_in: Option<String>,
    /// The whole text of the file.
    pub text: String,
}

impl Proposal {
    fn file(&self, sources: &Sources) -> Result<PathBuf, ChangeError> {
        let Some(name) = &self.drop_in else {
            return Ok(sources.operator.clone());
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !(1..=64).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(ChangeError::Name(name.clone()));
        }
        Ok(sources.operator_dir.join(format!("{name}.toml")))
    }
}

/// A value that a proposal changes.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueChange {
    /// Its path.
    pub field: String,
    /// The value now, built-in ones included. [`HIDDEN`](crate::HIDDEN) if it is a secret.
    pub before: Option<Value>,
    /// The value then.
    pub after: Option<Value>,
    /// When it works.
    pub effect: Effect,
    /// Whether it can lock the operator out.
    pub can_lock_out: bool,
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The values that it changed.
    pub changes: Vec<ValueChange>,
    /// Seconds until it is taken back, if it waits for a confirmation.
    pub confirm_within: Option<u32>,
    /// The configuration now.
    pub loaded: LoadedConfig,
}

/// A change that was taken back.
#[derive(Debug, Clone, PartialEq)]
pub struct TakenBack {
    /// The operator's file.
    pub file: PathBuf,
    /// The values that are different now.
    pub changes: Vec<ValueChange>,
    /// The configuration now.
    pub loaded: LoadedConfig,
}

/// Version of [`Memory`].
const VERSION: u32 = 1;

/// A change that waits for its confirmation, or the last one that stayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    #[serde(flatten)]
    format: DocumentFormat,
    file: PathBuf,
    /// Name of the copy of what the file was; absent if there was no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    former: Option<String>,
    /// The boot in which it was made, and the second of CLOCK_BOOTTIME at which the wait ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends: Option<Ends>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ends {
    boot: String,
    second: u64,
}

/// A change that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The operator's file.
    pub file: PathBuf,
    /// How long it waits yet; zero after a reboot.
    pub left: Duration,
}

/// The problems of a proposal; none if it can be applied.
///
/// # Errors
/// The name of the drop-in is none.
pub fn validate(sources: &Sources, proposal: &Proposal) -> Result<Vec<Problem>, ChangeError> {
    let file = proposal.file(sources)?;
    Ok(problems(sources, &file, proposal.text.as_bytes()))
}

fn problems(sources: &Sources, file: &Path, text: &[u8]) -> Vec<Problem> {
    let (_, mut problems) = read_operator(sources, Some(Instead { file, text }));
    if let Ok(layer) = layer::parse(text, file) {
        let refused = not_built::warnings(&layer).into_iter();
        problems.extend(refused.map(|problem| Problem {
            warning: false,
            ..problem
        }));
    }
    problems
}

/// The values that a proposal changes.
///
/// # Errors
/// The proposal is wrong.
pub fn diff(sources: &Sources, proposal: &Proposal) -> Result<Vec<ValueChange>, ChangeError> {
    let file = proposal.file(sources)?;
    let text = proposal.text.as_bytes();
    let problems = problems(sources, &file, text);
    if !problems.is_empty() {
        return Err(ChangeError::Wrong(problems));
    }
    let after = assemble(sources, Some(Instead { file: &file, text }));
    Ok(compare(&load(sources), &after))
}

/// The values that are different in two configurations.
#[must_use]
pub fn compare(before: &LoadedConfig, after: &LoadedConfig) -> Vec<ValueChange> {
    let (old, new) = (before.complete(), after.complete());
    let mut fields = std::collections::BTreeMap::new();
    each_value(&old, "", &mut |path, value| {
        fields.insert(path.to_owned(), (Some(value), None));
    });
    each_value(&new, "", &mut |path, value| {
        fields.entry(path.to_owned()).or_insert((None, None)).1 = Some(value);
    });
    fields.retain(|_, (before, after)| before != after);
    let (hidden_old, hidden_new) = (masked(&old), masked(&new));
    let mut shown = std::collections::BTreeMap::new();
    each_value(&hidden_old, "", &mut |path, value| {
        shown.insert((path.to_owned(), false), value.clone());
    });
    each_value(&hidden_new, "", &mut |path, value| {
        shown.insert((path.to_owned(), true), value.clone());
    });
    fields
        .into_keys()
        .map(|field| ValueChange {
            before: shown.remove(&(field.clone(), false)),
            after: shown.remove(&(field.clone(), true)),
            effect: schema::effect(&field),
            can_lock_out: schema::can_lock_out(&field),
            field,
        })
        .collect()
}

/// Replaces one of the operator's files. Without a `confirm_within`, the change waits
/// [`USUAL_WINDOW`] for its confirmation if it can lock the operator out, and otherwise not at all;
/// 0 never waits.
///
/// # Errors
/// The proposal is wrong, another change waits, or a file can't be written. Nothing is changed then.
pub fn apply(
    sources: &Sources,
    proposal: &Proposal,
    confirm_within: Option<u32>,
) -> Result<Applied, ChangeError> {
    if let Some(seconds) = confirm_within.filter(|seconds| *seconds > LONGEST_WINDOW) {
        return Err(ChangeError::Window(seconds));
    }
    if let Some(waits) = read(sources, WAITING)? {
        return Err(ChangeError::Waits(waits.file));
    }
    let changes = diff(sources, proposal)?;
    let usual = || {
        let locks = changes.iter().any(|change| change.can_lock_out);
        locks.then_some(USUAL_WINDOW)
    };
    let window = match confirm_within {
        Some(seconds) => Some(seconds).filter(|seconds| *seconds > 0),
        None => usual(),
    };
    let file = proposal.file(sources)?;
    let former = history::keep(sources, &file)?;
    let ends = match window {
        Some(seconds) => Some(Ends {
            boot: boot_id()?,
            second: uptime()?.saturating_add(u64::from(seconds)),
        }),
        None => None,
    };
    let memory = Memory {
        format: DocumentFormat::FIRST,
        file: file.clone(),
        former,
        ends,
    };
    let name = if window.is_some() { WAITING } else { APPLIED };
    write(sources, name, &memory)?;
    if let Err(error) = replace(&file, proposal.text.as_bytes()) {
        keelson_files::remove(&sources.memory(name))?;
        return Err(error.into());
    }
    Ok(Applied {
        changes,
        confirm_within: window,
        loaded: refresh(sources)?,
    })
}

/// The change that waits for its confirmation.
///
/// # Errors
/// The memory of it can't be read.
pub fn waiting(sources: &Sources) -> Result<Option<Waiting>, ChangeError> {
    let Some(memory) = read(sources, WAITING)? else {
        return Ok(None);
    };
    let left = match memory.ends {
        Some(ends) if ends.boot == boot_id()? => ends.second.saturating_sub(uptime()?),
        _ => 0,
    };
    Ok(Some(Waiting {
        file: memory.file,
        left: Duration::from_secs(left),
    }))
}

/// Keeps the change that waits. Returns its file.
///
/// # Errors
/// No change waits, or its time is over, or a file can't be written.
pub fn confirm(sources: &Sources) -> Result<PathBuf, ChangeError> {
    let waits = waiting(sources)?.filter(|waits| !waits.left.is_zero());
    let (Some(memory), Some(_)) = (read(sources, WAITING)?, waits) else {
        return Err(ChangeError::NothingWaits);
    };
    let applied = Memory {
        ends: None,
        ..memory
    };
    write(sources, APPLIED, &applied)?;
    keelson_files::remove(&sources.memory(WAITING))?;
    Ok(applied.file)
}

/// Takes back the change that waits; else the last one that stayed.
///
/// # Errors
/// There is none, or a file can't be written.
pub fn rollback(sources: &Sources) -> Result<TakenBack, ChangeError> {
    for name in [WAITING, APPLIED] {
        if let Some(memory) = read(sources, name)? {
            return take_back(sources, name, &memory);
        }
    }
    Err(ChangeError::NothingToTakeBack)
}

/// Takes back a change whose confirmation did not come in time, or not before a reboot.
///
/// # Errors
/// The memory of it can't be read, or a file can't be written.
pub fn expire(sources: &Sources) -> Result<Option<TakenBack>, ChangeError> {
    let over = waiting(sources)?.is_some_and(|waits| waits.left.is_zero());
    match read(sources, WAITING)? {
        Some(memory) if over => take_back(sources, WAITING, &memory).map(Some),
        _ => Ok(None),
    }
}

/// Does the same again if it was interrupted.
fn take_back(sources: &Sources, name: &str, memory: &Memory) -> Result<TakenBack, ChangeError> {
    let before = load(sources);
    let former = match &memory.former {
        Some(copy) => {
            let copy = history::path(sources, copy);
            let bytes = fs::read(&copy).map_err(|error| ChangeError::Unreadable {
                path: copy,
                reason: error.to_string(),
            })?;
            Some(bytes)
        }
        None => None,
    };
    let now = fs::read(&memory.file).ok();
    if now != former {
        history::keep(sources, &memory.file)?;
        match former {
            Some(bytes) => replace(&memory.file, &bytes)?,
            None => keelson_files::remove(&memory.file)?,
        }
    }
    keelson_files::remove(&sources.memory(name))?;
    let loaded = refresh(sources)?;
    Ok(TakenBack {
        file: memory.file.clone(),
        changes: compare(&before, &loaded),
        loaded,
    })
}

/// Replaces one of the operator's files. It keeps its permissions; a new one is for root only.
fn replace(file: &Path, bytes: &[u8]) -> Result<(), SaveError> {
    let mode = fs::metadata(file).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
    if let Some(directory) = file.parent() {
        make_directory(directory)?;
        keelson_files::sweep_dead(directory)?;
    }
    keelson_files::write(file, bytes, mode, Durability::Flushed)?;
    Ok(())
}

fn read(sources: &Sources, name: &str) -> Result<Option<Memory>, ChangeError> {
    let path = sources.memory(name);
    let unreadable = |reason: String| ChangeError::Unreadable {
        path: path.clone(),
        reason,
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    let memory: Memory = toml::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    match memory.format.is_readable_by(VERSION) {
        true => Ok(Some(memory)),
        false => Err(unreadable(format!(
            "a newer release wrote it (version {})",
            memory.format.version
        ))),
    }
}

fn write(sources: &Sources, name: &str, memory: &Memory) -> Result<(), SaveError> {
    put(sources, name, &toml::to_string(memory)?)
}

/// The kernel's name of this boot.
///
/// # Errors
/// The kernel does not say it.
pub fn boot_id() -> Result<String, ChangeError> {
    kernel("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned())
}

/// Seconds since the kernel started, suspended time included.
fn uptime() -> Result<u64, ChangeError> {
    let text = kernel("/proc/uptime")?;
    let seconds = text
        .split('.')
        .next()
        .and_then(|seconds| seconds.parse().ok());
    seconds.ok_or_else(|| ChangeError::Unreadable {
        path: "/proc/uptime".into(),
        reason: "it has no number".to_owned(),
    })
}

fn kernel(path: &str) -> Result<String, ChangeError> {
    fs::read_to_string(path).map_err(|error| ChangeError::Unreadable {
        path: path.into(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first release wrote it. Never changed.
    const GOLDEN: &str = include_str!("../tests/golden/waiting.1.toml");

    #[test]
    fn changes_of_other_releases_are_read_if_they_say_so() {
        let root = tempfile::tempdir().unwrap();
        let sources = Sources::under(root.path());
        let path = sources.memory(WAITING);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let read_text = |text: &str| {
            fs::write(&path, text).unwrap();
            read(&sources, WAITING)
        };
        let memory = read_text(GOLDEN).unwrap().unwrap();
        assert_eq!(memory.file, Path::new("/etc/keelson/host.toml"));
        assert_eq!(memory.former.as_deref(), Some("1-host.toml"));
        assert_eq!(memory.ends.as_ref().unwrap().second, 120);
        assert_eq!(toml::to_string(&memory).unwrap(), GOLDEN);
        let newer = GOLDEN.replace("version = 1", "version = 2\nmore = true");
        let newer = read_text(&newer).unwrap().unwrap();
        assert_eq!((newer.file, newer.ends), (memory.file, memory.ends));
        let error = read_text(&GOLDEN.replace("= 1\n", "= 2\n")).unwrap_err();
        assert!(
            error.to_string().contains("a newer release wrote it"),
            "{error}"
        );
    }
}
