//! Images that clients mount: `--mount type=image`.

use std::path::{Component, Path};

use keelson_model::spec::ImageMount;

use super::invalid;
use super::mounts::target;
use crate::error::ApiError;
use crate::wire::{HostConfig, Mount};

/// All image mounts. The engine resolves the names of the images.
pub(super) fn parse(host: &HostConfig) -> Result<Vec<ImageMount>, ApiError> {
    let mounts = host.mounts.iter().flatten();
    let mounts = mounts.filter(|mount| mount.r#type == "image");
    mounts.map(from_mount).collect()
}

fn from_mount(mount: &Mount) -> Result<ImageMount, ApiError> {
    let unfit =
        |reason: &str| invalid(format!("invalid mount config for type \"image\": {reason}"));
    if mount.source.is_empty() {
        return unfit("field Source must not be empty");
    }
    let options = mount.image_options.clone().unwrap_or_default();
    let mut parts = Path::new(&options.subpath).components();
    if !parts.all(|part| matches!(part, Component::Normal(_))) {
        return unfit("subpath must be a relative path within the volume");
    }
    Ok(ImageMount {
        target: target(&mount.target, &mount.target)?,
        name: mount.source.clone(),
        id: String::new(),
        subpath: (!options.subpath.is_empty()).then(|| options.subpath.into()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(mount: Value) -> Result<Vec<ImageMount>, ApiError> {
        parse(&serde_json::from_value(json!({"Mounts": [mount]})).unwrap())
    }

    #[test]
    fn images_have_a_source_and_may_have_a_subpath() {
        let mount = json!({
            "Type": "image", "Source": "box:1", "Target": "/a/../i", "ImageOptions": {"Subpath": "a/b"},
        });
        let mounts = read(mount).unwrap();
        let wanted = ImageMount {
            target: "/i".into(),
            name: "box:1".to_owned(),
            id: String::new(),
            subpath: Some("a/b".into()),
        };
        assert_eq!(mounts, [wanted]);
        for (wrong, word) in [
            (json!({"Type": "image", "Target": "/i"}), "Source"),
            (
                json!({"Type": "image", "Source": "x", "Target": "i"}),
                "absolute",
            ),
            (
                json!({"Type": "image", "Source": "x", "Target": "/i", "ImageOptions": {"Subpath": "../a"}}),
                "subpath must be a relative path",
            ),
            (
                json!({"Type": "image", "Source": "x", "Target": "/i", "ImageOptions": {"Subpath": "/a"}}),
                "subpath must be a relative path",
            ),
        ] {
            let message = read(wrong).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
