//! `write_files`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::fields::Fields;
use crate::gzip;
use crate::notes::Notes;
use crate::paths;
use crate::settings::{File, Settings};
use crate::yaml::YamlNode;

/// Largest file, in bytes.
const MAX_FILE: usize = 1 << 20;

/// Takes `write_files`.
pub(super) fn translate(fields: &mut Fields<'_>, settings: &mut Settings, notes: &mut Notes) {
    for node in fields.list("write_files", notes) {
        if let Some(file) = file(node, notes) {
            settings.write(file);
        }
    }
}

fn file(node: &YamlNode, notes: &mut Notes) -> Option<File> {
    let mut fields = Fields::of(node, "write_files[]", notes);
    let path = fields.text("path", notes).unwrap_or_default();
    let shown: String = path.chars().take(200).collect();
    let place = match paths::placed(path) {
        Ok(place) => place,
        Err(error) => {
            notes.at(node.line, format!("file {shown:?} is left out: {error}"));
            return None;
        }
    };
    let mode = fields.text("permissions", notes);
    let mode = match mode.map(octal) {
        None => None,
        Some(Some(mode)) => Some(mode),
        // Permissions that are wider than meant would be worse than no file.
        Some(None) => {
            notes.at(
                node.line,
                format!(
                    "file {shown:?} is left out: permissions must be octal digits such as '0644'"
                ),
            );
            return None;
        }
    };
    let encoding = fields.text("encoding", notes).unwrap_or("text/plain");
    let content = fields.take("content");
    let bytes = content.map_or(Some(Default::default()), YamlNode::bytes);
    let bytes = bytes.and_then(|bytes| decoded(&bytes, encoding));
    let Some(bytes) = bytes else {
        notes.at(
            node.line,
            format!(
                "file {shown:?} is left out: its content is not valid {encoding}, or above 1 MiB"
            ),
        );
        return None;
    };
    let owner = fields.text("owner", notes).map(str::to_owned);
    let append = fields.boolean("append", notes).unwrap_or(false);
    // Users exist before files are written, so both orders are the same here.
    fields.ignore(&["defer"]);
    fields.unsupported(&[("source", "write the content into the document")], notes);
    fields.finish(notes);
    Some(File {
        mode,
        owner,
        append,
        ..File::of_bytes(place, bytes)
    })
}

/// Octal digits, with or without `0o`, in four places.
fn octal(text: &str) -> Option<String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).ok()?;
    (mode <= 0o7777).then(|| format!("{mode:04o}"))
}

fn decoded(bytes: &[u8], encoding: &str) -> Option<Vec<u8>> {
    let encoding = encoding.to_ascii_lowercase();
    let (packed, base64) = match encoding.trim() {
        "" | "text/plain" => (false, false),
        "b64" | "base64" => (false, true),
        "gz" | "gzip" => (true, false),
        "gz+b64" | "gz+base64" | "gzip+b64" | "gzip+base64" => (true, true),
        _ => return None,
    };
    let mut bytes = bytes.to_vec();
    if base64 {
        bytes.retain(|byte| !byte.is_ascii_whitespace());
        bytes = BASE64_STANDARD.decode(bytes).ok()?;
    }
    if packed {
        bytes = gzip::unpack(&bytes, MAX_FILE).ok()?;
    }
    (bytes.len() <= MAX_FILE).then_some(bytes)
}
