use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Version 1 had no size; version 2 called the name `title`. Version 4 added `color`, which readers
/// of version 3 do not need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Thing {
    name: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    color: Option<String>,
    #[serde(flatten)]
    rest: Rest,
}

impl Document for Thing {
    const VERSION: u32 = 4;
    const WRITES: u32 = 2;

    fn readable_from(version: u32) -> u32 {
        match version {
            4 => 3,
            same => same,
        }
    }

    fn forward(from: u32, mut members: Members) -> Result<Members, Misfit> {
        let misfit = |text: &str| Misfit(text.to_owned());
        match from {
            1 => {
                members.insert("size".to_owned(), Value::from(0));
            }
            2 => {
                let title = members
                    .remove("title")
                    .ok_or_else(|| misfit("title is missing"))?;
                members.insert("name".to_owned(), title);
            }
            3 => {}
            other => return Err(Misfit(format!("version {other} is not known"))),
        }
        Ok(members)
    }

    fn backward(to: u32, mut members: Members) -> Result<Members, Misfit> {
        match to {
            1 => {
                members.remove("size");
            }
            2 => {
                let name = members.remove("name").unwrap_or_default();
                members.insert("title".to_owned(), name);
            }
            // Readers of version 3 keep the color.
            3 => {}
            other => return Err(Misfit(format!("version {other} is not known"))),
        }
        Ok(members)
    }
}

/// The release before: it reads versions up to 3.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct OldThing {
    name: String,
    size: u64,
    #[serde(flatten)]
    rest: Rest,
}

impl Document for OldThing {
    const VERSION: u32 = 3;

    fn forward(from: u32, members: Members) -> Result<Members, Misfit> {
        Thing::forward(from, members)
    }

    fn backward(to: u32, members: Members) -> Result<Members, Misfit> {
        Thing::backward(to, members)
    }
}

fn parse_text(text: &str) -> Result<Thing, StoreError> {
    parse(Path::new("thing.json"), text.as_bytes())
}

#[test]
fn golden_files_migrate_forward_and_back() {
    assert_goes_back::<Thing>(&[
        (1, r#"{"version":1,"title":"a"}"#),
        (2, r#"{"version":2,"title":"a","size":1}"#),
        (3, r#"{"version":3,"name":"a","size":1}"#),
        (
            4,
            r#"{"version":4,"readable_from":3,"name":"a","size":1,"color":"red"}"#,
        ),
    ]);
}

#[test]
fn older_versions_are_migrated_step_by_step() {
    let thing = parse_text(r#"{"version":1,"title":"a"}"#).unwrap();
    assert_eq!(thing.name, "a");
    assert_eq!(thing.size, 0);
    let error = parse_text(r#"{"version":2,"size":1}"#).unwrap_err();
    assert!(matches!(error, StoreError::Migration { from: 2, .. }));
    let error = parse_text(r#"{"version":0}"#).unwrap_err();
    assert!(matches!(error, StoreError::Migration { from: 0, .. }));
}

#[test]
fn newer_unversioned_and_foreign_files_are_refused() {
    for text in [
        r#"{"version":5,"anything":true}"#,
        r#"{"version":9,"readable_from":5}"#,
    ] {
        let error = parse_text(text).unwrap_err();
        assert!(error.is_too_new(), "{error}");
        assert!(!error.is_damage());
        let text = error.to_string();
        assert!(text.contains("version 5 or newer"), "{text}");
    }
    assert!(matches!(
        parse_text(r#"{"name":"a","size":1}"#).unwrap_err(),
        StoreError::Unversioned { .. }
    ));
    for text in [
        "",
        "{",
        "[]",
        "null",
        r#"{"version":"3"}"#,
        "{\"version\":-1}",
        r#"{"version":4,"readable_from":"x","name":"a","size":1}"#,
    ] {
        assert!(parse_text(text).is_err(), "{text}");
    }
}

#[test]
fn a_rollback_loses_nothing() {
    let new = Thing {
        name: "a".to_owned(),
        size: 7,
        color: Some("red".to_owned()),
        rest: Rest::default(),
    };
    let path = Path::new("thing.json");
    // On trial the new release writes version 2, blessed version 4, which version 3 understands.
    for (era, version) in [(Era::Trial, 2), (Era::Blessed, 4)] {
        let written = bytes(path, &new, era).unwrap();
        let found: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(found["version"], json!(version));
        let mut old: OldThing = parse(path, &written).unwrap();
        assert_eq!((&*old.name, old.size), ("a", 7));
        old.size = 8;
        // The old release writes its own version, and the color is not lost.
        let again = bytes(path, &old, Era::Blessed).unwrap();
        let thing: Thing = parse(path, &again).unwrap();
        assert_eq!(
            thing,
            Thing {
                size: 8,
                ..new.clone()
            },
            "{era:?}"
        );
    }
}

#[test]
fn the_first_releases_read_present_documents() {
    #[derive(Deserialize)]
    struct First {
        #[allow(dead_code, reason = "read only")]
        name: String,
    }
    let old = OldThing {
        name: "a".to_owned(),
        size: 1,
        rest: Rest::default(),
    };
    assert_first_release_reads::<OldThing, First>(&old, 3);
}

#[test]
#[should_panic(expected = "drops members that it does not know")]
fn a_type_without_a_rest_is_found() {
    #[derive(Serialize, Deserialize)]
    struct Bare {
        name: String,
    }
    impl Document for Bare {
        const VERSION: u32 = 1;
    }
    assert_goes_back::<Bare>(&[(1, r#"{"version":1,"name":"a"}"#)]);
}

#[test]
fn a_missing_file_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let read: Option<Thing> = read(&directory.path().join("absent")).unwrap();
    assert_eq!(read, None);
}

proptest! {
    #[test]
    fn written_documents_are_read(
        name: String,
        size: u64,
        color: Option<String>,
        unknown: Option<String>,
        trial: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("thing.json");
        let members = unknown.map(|value| ("unknown".to_owned(), Value::from(value)));
        let rest = Rest(members.into_iter().collect());
        let thing = Thing { name, size, color, rest };
        let era = if trial { Era::Trial } else { Era::Blessed };
        write(&path, &thing, era, Durability::Relaxed).unwrap();
        prop_assert_eq!(super::read::<Thing>(&path).unwrap(), Some(thing));
    }

    #[test]
    fn truncated_documents_are_refused(name: String, cut in 0_usize..64) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("thing.json");
        let thing = Thing { name, size: 1, color: None, rest: Rest::default() };
        write(&path, &thing, Era::Blessed, Durability::Relaxed).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let kept = bytes.get(..cut.min(bytes.len() - 2)).unwrap();
        prop_assert!(parse::<Thing>(&path, kept).is_err());
    }
}
