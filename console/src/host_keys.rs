//! The keys of this machine's sshd: made once, kept on /var.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::accounts::directory;
use crate::error::ConsoleError;
use crate::program::output_of;

/// Where they are; `sshd_config` names them.
const KEYS: &str = "/etc/ssh/keys";
/// The kinds, by their names in ssh-keygen(1). A key of RSA takes a slow machine half a minute.
const KINDS: [&str; 2] = ["ed25519", "ecdsa"];

/// Makes those that are missing. Returns the fingerprints.
pub(crate) fn ensure() -> Result<Vec<String>, ConsoleError> {
    let keys = Path::new(KEYS);
    directory(keys, 0o700)?;
    let mut prints = Vec::new();
    for kind in KINDS {
        let key = keys.join(format!("ssh_host_{kind}_key"));
        // An empty file is what a crash may leave.
        if fs::metadata(&key).map_or(0, |key| key.len()) == 0 {
            make(kind, &key)?;
        }
        let public = key.with_extension("pub");
        let print = output_of(
            "ssh-keygen",
            Command::new("ssh-keygen").args(["-l", "-f"]).arg(&public),
        );
        prints.push(print.unwrap_or_else(|error| error.to_string()));
    }
    Ok(prints)
}

/// Under another name first, so that nothing incomplete gets the name.
fn make(kind: &str, key: &Path) -> Result<(), ConsoleError> {
    let fresh = key.with_extension("new");
    for file in [fresh.clone(), fresh.with_extension("new.pub")] {
        // They may not be there.
        let _ = fs::remove_file(file);
    }
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", kind, "-N", "", "-C", "", "-f"]);
    output_of("ssh-keygen", command.arg(&fresh))?;
    let public = fresh.with_extension("new.pub");
    for (from, to) in [
        (&public, key.with_extension("pub")),
        (&fresh, key.to_owned()),
    ] {
        fs::File::open(from)
            .and_then(|file| file.sync_all())
            .map_err(ConsoleError::io("fsync", from))?;
        fs::rename(from, &to).map_err(ConsoleError::io("rename", from))?;
    }
    Ok(())
}
