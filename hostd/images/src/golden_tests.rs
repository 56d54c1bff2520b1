//! Compares the documents of the store with their golden files (docs/decisions/0019).

use std::collections::BTreeMap;

use keelson_oci::digest::Digest;
use keelson_store::Rest;
use keelson_store::document::{assert_first_release_reads, assert_goes_back};
use serde::Deserialize;

use crate::layer::{BlobFormat, CompressedBlob, LayerForm, LayerRecord};
use crate::records::{ImageRecord, Repositories, Tagged};
use crate::registry::CompressedRecord;
use crate::seal::Seal;

macro_rules! golden {
    ($($name:literal: $document:ty),+ $(,)?) => {
        $(assert_goes_back::<$document>(&[
            (1, include_str!(concat!("../tests/golden/", $name, ".1.json"))),
        ]);)+
    };
}

#[test]
fn documents_migrate_forward_and_back() {
    golden! {
        "image": ImageRecord,
        "repositories": Repositories,
        "layer": LayerRecord,
        "seal": Seal,
        "compressed": CompressedRecord,
    }
}

/// The types of the first releases, whose readers do not know `readable_from`.
#[allow(dead_code, reason = "only read")]
mod first {
    use super::*;

    #[derive(Deserialize)]
    pub(super) struct ImageRecord {
        id: Digest,
        manifest: Option<Digest>,
        parent: Option<Digest>,
        #[serde(default)]
        hidden: bool,
    }

    #[derive(Deserialize)]
    pub(super) struct Repositories {
        references: BTreeMap<String, Tagged>,
    }

    #[derive(Deserialize)]
    pub(super) struct Tagged {
        id: Digest,
        time: String,
    }

    #[derive(Deserialize)]
    pub(super) struct LayerRecord {
        diff_id: Digest,
        size: u64,
        form: LayerForm,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compressed: Option<CompressedBlob>,
    }

    #[derive(Deserialize)]
    pub(super) struct Seal {
        archive: Digest,
        index: Digest,
    }

    #[derive(Deserialize)]
    pub(super) struct CompressedRecord {
        blob: Digest,
        size: u64,
    }
}

#[test]
fn the_first_releases_read_them() {
    let digest = Digest::of(b"x");
    let image = ImageRecord {
        id: digest,
        manifest: Some(digest),
        parent: None,
        hidden: true,
        rest: Rest::default(),
    };
    assert_first_release_reads::<_, first::ImageRecord>(&image, 1);
    let tagged = Tagged::new(digest, "2026-01-01T00:00:00Z".to_owned());
    let names = Repositories {
        references: BTreeMap::from([("docker.io/library/a:1".to_owned(), tagged)]),
        rest: Rest::default(),
    };
    assert_first_release_reads::<_, first::Repositories>(&names, 1);
    let layer = LayerRecord {
        diff_id: digest,
        size: 1,
        form: LayerForm::Erofs,
        compressed: Some(CompressedBlob {
            digest,
            size: 1,
            format: BlobFormat::Zstd,
        }),
        rest: Rest::default(),
    };
    assert_first_release_reads::<_, first::LayerRecord>(&layer, 1);
    let seal = Seal {
        archive: digest,
        index: digest,
        rest: Rest::default(),
    };
    assert_first_release_reads::<_, first::Seal>(&seal, 1);
    let compressed = CompressedRecord {
        blob: digest,
        size: 1,
        rest: Rest::default(),
    };
    assert_first_release_reads::<_, first::CompressedRecord>(&compressed, 1);
}

/// Members that a newer release wrote for one name survive when this release adds another name.
#[test]
fn members_of_names_are_kept() {
    let text = include_str!("../tests/golden/repositories.1.json");
    let text = text.replacen("\"time\"", "\"newer\":1,\"time\"", 1);
    let path = std::path::Path::new("repositories.json");
    let mut names: Repositories = keelson_store::document::parse(path, text.as_bytes()).unwrap();
    let tagged = Tagged::new(Digest::of(b"y"), String::new());
    names
        .references
        .insert("docker.io/library/y:1".to_owned(), tagged);
    let era = keelson_store::Era::Blessed;
    let bytes = keelson_store::document::bytes(path, &names, era).unwrap();
    assert!(String::from_utf8(bytes).unwrap().contains("\"newer\":1"));
}
