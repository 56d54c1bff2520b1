//! Reads again what start-up could not read, and reports it.

use std::path::Path;

use keelson_model::verify::Damage;
use keelson_store::document;

use crate::disk::{AsideKind, Disk};
use crate::records::ImageRecord;
use crate::state::State;
use crate::unreadable::Unreadable;

impl State {
    /// Tries again to read images, because the cause may be gone.
    pub(crate) fn read_again(&mut self, disk: &Disk) {
        for (id, unreadable) in std::mem::take(&mut self.unreadable.images) {
            let record = match unreadable.record.clone() {
                Some(record) => Some(record),
                None => document::read::<ImageRecord>(&disk.image(&id))
                    .ok()
                    .flatten()
                    .filter(|record| record.id == id),
            };
            let reason = unreadable.reason.clone();
            match disk.read_image(id, record, reason) {
                Ok(entry) => match self.has_layers(&entry) {
                    Ok(()) => {
                        tracing::info!(image = %id, "image can be read again");
                        self.images.insert(id, entry);
                    }
                    Err(reason) => {
                        let unreadable =
                            Unreadable::of(&entry.record, entry.diff_ids(), reason.to_string());
                        self.unreadable.images.insert(id, unreadable);
                    }
                },
                Err(unreadable) => {
                    self.unreadable.images.insert(id, *unreadable);
                }
            }
        }
    }

    /// The report of a check about unreadable objects.
    pub(crate) fn unreadable_damage(&self, disk: &Disk) -> Vec<Damage> {
        let damage = |kind: &str, digest: String, path: &Path, reason: &str, remedy: &str| Damage {
            kind: kind.to_owned(),
            digest,
            path: path.display().to_string(),
            reason: reason.to_owned(),
            images: Vec::new(),
            remedy: remedy.to_owned(),
        };
        let mut all = Vec::new();
        for (id, one) in &self.unreadable.images {
            let remedy = "its files are kept; pull or load it again, or remove it (docker image \
                          rm -f); look at the disk's health";
            let mut found = damage(
                "record",
                id.to_string(),
                &disk.image(id),
                &one.reason,
                remedy,
            );
            let names = self.references_of(*id).into_iter();
            found.images = names.map(|(name, _)| name.familiar()).collect();
            if found.images.is_empty() {
                found.images.push(id.to_string());
            }
            all.push(found);
        }
        for (diff_id, reason) in &self.unreadable.layers {
            let remedy = "its files are kept; pull or load an image that has it";
            let path = disk.layer(diff_id);
            all.push(damage("layer", diff_id.to_string(), &path, reason, remedy));
        }
        if let Some((path, reason)) = &self.unreadable.names {
            let remedy = "until then nothing is pruned; tag images again whose names are missed";
            all.push(damage("names", String::new(), path, reason, remedy));
        }
        for (kind, path) in disk.aside() {
            let reason = "it could not be read, and was put aside";
            let remedy = "remove it when nothing is missed";
            let kind = match kind {
                AsideKind::Image => "record",
                AsideKind::Layer => "layer",
            };
            all.push(damage(kind, String::new(), &path, reason, remedy));
        }
        all
    }
}
