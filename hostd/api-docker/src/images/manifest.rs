//! The members of an image that describe its manifest.

use hostd_images::Image;
use serde_json::{Value, json};

use crate::Api;

fn platform(image: &Image) -> Value {
    let mut platform = json!({
        "architecture": image.config.architecture,
        "os": image.config.os,
    });
    if let (Some(variant), Some(members)) = (&image.config.variant, platform.as_object_mut()) {
        members.insert("variant".to_owned(), json!(variant));
    }
    platform
}

/// The descriptor of an image's manifest with the platform that the image is for.
pub(crate) fn descriptor(api: &Api, image: &Image) -> Option<Value> {
    let manifest = api.0.images.manifest(&image.id).ok()?;
    Some(json!({
        "mediaType": manifest.media_type,
        "digest": manifest.digest.to_string(),
        "size": manifest.size,
        "platform": platform(image),
    }))
}

/// Adds `Descriptor`, and with `manifests` `Manifests`: an image has one.
pub(crate) fn add(api: &Api, value: &mut Value, image: &Image, manifests: bool, descriptor: bool) {
    if !descriptor && !manifests {
        return;
    }
    let manifest = match api.0.images.manifest(&image.id) {
        Ok(manifest) => manifest,
        // The image has just been removed.
        Err(error) => {
            tracing::debug!(image = %image.id, %error, "manifest not shown");
            return;
        }
    };
    let Some(members) = value.as_object_mut() else {
        return;
    };
    let target = json!({
        "mediaType": manifest.media_type,
        "digest": manifest.digest.to_string(),
        "size": manifest.size,
    });
    if manifests {
        let containers = api.0.images.containers(&image.id);
        let platform = platform(image);
        let mut described = target.clone();
        described["platform"] = platform.clone();
        let entry = json!({
            "ID": manifest.digest.to_string(),
            "Descriptor": described,
            "Available": true,
            "Kind": "image",
            "Size": {
                "Content": manifest.content,
                "Total": manifest.content + manifest.unpacked,
            },
            "ImageData": {
                "Platform": platform,
                "Containers": containers,
                "Size": {"Unpacked": manifest.unpacked},
            },
        });
        members.insert("Manifests".to_owned(), json!([entry]));
    }
    if descriptor {
        members.insert("Descriptor".to_owned(), target);
    }
}
