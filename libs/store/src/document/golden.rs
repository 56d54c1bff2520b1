//! The test of every crate's documents with golden files: one file for each version, written by the
//! release that introduced the version. A golden file is never changed.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Document, Era, Members, bytes, bytes_of_version, parse, version_of};
use crate::StoreError;

/// A member that no release uses.
const UNKNOWN: &str = "of_a_newer_release";

/// Checks a document against its golden files, given as `(version, content)`:
/// * there is one of each version from the first to the last;
/// * each is read and migrated forward; written in its own version again, it has the same content;
/// * an engine on trial writes the format of [`Document::WRITES`], or the document's own version;
/// * a newer document that this version's readers understand is read, and written again with its
///   unknown members, for which the type needs a [`super::Rest`];
/// * a document that they don't understand causes the error "too new", and no other.
///
/// # Panics
/// When one of these does not hold.
#[allow(clippy::expect_used, clippy::panic, reason = "for tests")]
pub fn assert_goes_back<T: Document>(golden: &[(u32, &str)]) {
    let name = std::any::type_name::<T>();
    let path = Path::new(name);
    let versions: Vec<u32> = golden.iter().map(|(version, _)| *version).collect();
    let first = versions.first().copied().unwrap_or(T::VERSION);
    let expected: Vec<u32> = (first..=T::VERSION).collect();
    assert_eq!(versions, expected, "{name}: a golden file of each version");
    assert!(T::WRITES <= T::VERSION, "{name}");
    assert!(versions.contains(&T::WRITES), "{name}");
    for (version, text) in golden {
        let context = format!("{name}, version {version}");
        let read: T = parse(path, text.as_bytes()).expect(&context);
        let again = bytes_of_version(path, &read, *version).expect(&context);
        assert_eq!(body(&again), body(text.as_bytes()), "{context}");
        let (own, oldest) = versions_of(&again);
        assert_eq!(own, *version, "{context}");
        assert!(oldest <= own, "{context}: readable from {oldest}");
        let trial = bytes(path, &read, Era::Trial).expect(&context);
        let on_trial = version_of(&read, Era::Trial);
        assert_eq!(versions_of(&trial).0, on_trial, "{context}");
        if *version == on_trial {
            assert_eq!(body(&trial), body(text.as_bytes()), "{context}, on trial");
        }
    }
    let (_, newest) = golden.last().expect("a golden file");
    let future = |readable_from: u32| {
        let mut members = body(newest.as_bytes());
        members.insert("version".to_owned(), (T::VERSION + 1).into());
        members.insert("readable_from".to_owned(), readable_from.into());
        members.insert(UNKNOWN.to_owned(), Value::from("kept"));
        Value::Object(members).to_string()
    };
    let read: T = parse(path, future(T::VERSION).as_bytes()).expect("a newer document");
    let again = body(&bytes(path, &read, Era::Blessed).expect("written again"));
    assert_eq!(
        again.get(UNKNOWN),
        Some(&Value::from("kept")),
        "{name} drops members that it does not know"
    );
    match parse::<T>(path, future(T::VERSION + 1).as_bytes()) {
        Err(StoreError::TooNew { .. }) => {}
        Err(error) => panic!("{name}: {error}"),
        Ok(_) => panic!("{name}: a document from the future is taken for one of today"),
    }
}

/// Checks that a reader of the first releases, which do not know `readable_from`, reads present
/// documents. `Old` is the type of that time.
///
/// # Panics
/// When it does not.
#[allow(clippy::expect_used, reason = "for tests")]
pub fn assert_first_release_reads<T: Document, Old: DeserializeOwned>(document: &T, version: u32) {
    for era in [Era::Trial, Era::Blessed] {
        let bytes = bytes(Path::new("document"), document, era).expect("written");
        // The code of parse() at that time.
        let mut members: Members = serde_json::from_slice(&bytes).expect("an object");
        let found = members.remove("version").expect("a version");
        assert_eq!(found, Value::from(version), "{era:?}");
        let _: Old = serde_json::from_value(Value::Object(members)).expect("its members");
    }
}

/// The members without the versions.
#[allow(clippy::expect_used, reason = "for tests")]
fn body(bytes: &[u8]) -> Members {
    let mut members: Members = serde_json::from_slice(bytes).expect("a JSON object");
    members.remove("version");
    members.remove("readable_from");
    members
}

#[allow(clippy::expect_used, reason = "for tests")]
fn versions_of(bytes: &[u8]) -> (u32, u32) {
    let members: Members = serde_json::from_slice(bytes).expect("a JSON object");
    let version = |name: &str| {
        let number = members.get(name).and_then(Value::as_u64);
        u32::try_from(number.expect("a number")).expect("a version")
    };
    (version("version"), version("readable_from"))
}
