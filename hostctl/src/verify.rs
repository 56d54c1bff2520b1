//! `hostctl image verify`.

use std::io::{IsTerminal, Write};

use http::Method;
use keelson_model::verify::{Damage, VerifyLine, VerifyRequest};

use crate::client::Client;
use crate::error::CtlError;
use crate::options::Format;

const MIB: u64 = 1 << 20;

/// Runs the check. Damage is an error.
pub(crate) async fn run(
    client: &Client,
    format: Format,
    images: &[String],
) -> Result<String, CtlError> {
    let request = VerifyRequest {
        images: images.to_vec(),
    };
    let mut report = Report::default();
    // Progress is for people, so it is not written to a file or a pipe.
    let live = std::io::stderr().is_terminal();
    client
        .lines(Method::POST, "/host/v1/images/verify", &request, |line| {
            if let Some(text) = report.take(line).filter(|_| live) {
                eprint!("\r{text}\x1b[K");
                let _ = std::io::stderr().flush();
            }
        })
        .await?;
    if live {
        eprint!("\r\x1b[K");
    }
    report.finish(format)
}

#[derive(Debug, Default)]
struct Report {
    images: u64,
    layers: u64,
    all: u64,
    read: u64,
    damage: Vec<Damage>,
    finished: bool,
}

impl Report {
    /// Handles a line, and returns the text to show until the next one.
    fn take(&mut self, line: VerifyLine) -> Option<String> {
        match line {
            VerifyLine::Started {
                images,
                layers,
                bytes,
            } => {
                (self.images, self.layers, self.all) = (images, layers, bytes);
            }
            VerifyLine::Progress { bytes } => self.read = bytes,
            VerifyLine::Damaged(damage) => self.damage.push(damage),
            VerifyLine::Finished { bytes, .. } => {
                self.read = bytes;
                self.finished = true;
            }
        }
        Some(format!(
            "{} of {} MiB, {} damaged",
            self.read / MIB,
            self.all / MIB,
            self.damage.len()
        ))
    }

    fn finish(&self, format: Format) -> Result<String, CtlError> {
        if !self.finished {
            return Err(CtlError::Incomplete);
        }
        let text = match format {
            Format::Json => {
                serde_json::to_string_pretty(&self.damage).map_err(CtlError::Answer)? + "\n"
            }
            Format::Table => self.damage.iter().map(describe).collect(),
        };
        let summary = format!(
            "{} images and {} layers checked, {} damaged",
            self.images,
            self.layers,
            self.damage.len()
        );
        if !self.damage.is_empty() {
            print!("{text}");
            return Err(CtlError::Damaged(summary));
        }
        match format {
            Format::Json => Ok(text),
            Format::Table => Ok(summary + "\n"),
        }
    }
}

fn describe(damage: &Damage) -> String {
    let subject = match damage.digest.is_empty() {
        true => damage.kind.clone(),
        false => format!("{} {}", damage.kind, damage.digest),
    };
    let images = match damage.images.is_empty() {
        true => "-".to_owned(),
        false => damage.images.join(", "),
    };
    format!(
        "{subject}\n  file:    {}\n  reason:  {}\n  images:  {images}\n  do this: {}\n",
        damage.path, damage.reason, damage.remedy
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_an_error_and_an_answer_must_be_complete() {
        let mut report = Report::default();
        report.take(VerifyLine::Started {
            images: 2,
            layers: 3,
            bytes: 4 * MIB,
        });
        assert!(matches!(
            report.finish(Format::Table),
            Err(CtlError::Incomplete)
        ));
        let shown = report.take(VerifyLine::Progress { bytes: 2 * MIB });
        assert_eq!(shown.as_deref(), Some("2 of 4 MiB, 0 damaged"));
        report.take(VerifyLine::Finished {
            damaged: 0,
            bytes: 4 * MIB,
        });
        let text = report.finish(Format::Table).unwrap();
        assert_eq!(text, "2 images and 3 layers checked, 0 damaged\n");
        report.take(VerifyLine::Damaged(Damage {
            kind: "layer".to_owned(),
            digest: "sha256:ab".to_owned(),
            path: "/x/layer.tar".to_owned(),
            reason: "its digest is another".to_owned(),
            images: vec!["a:1".to_owned(), "b:1".to_owned()],
            remedy: "pull a:1 again".to_owned(),
        }));
        let error = report.finish(Format::Json).unwrap_err();
        assert_eq!(error.kind().exit_code(), 1);
        assert!(error.to_string().contains("1 damaged"));
        let text = describe(&report.damage[0]);
        for part in [
            "layer sha256:ab",
            "/x/layer.tar",
            "a:1, b:1",
            "pull a:1 again",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
