//! For tests of readers of documents from outside: a good document, changed in the ways in which
//! real documents differ.

use super::Json;

/// The change of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is `null`.
    Null,
    /// It is missing.
    Dropped,
    /// It occurs twice, first as `null`.
    Twice,
    /// Its name is in capitals.
    Capitals,
}

const CHANGES: [Change; 4] = [
    Change::Null,
    Change::Dropped,
    Change::Twice,
    Change::Capitals,
];

/// A changed document.
#[derive(Debug, Clone)]
pub struct Mangled {
    /// The member that was changed, such as `layers[0].digest`.
    pub path: String,
    /// The change.
    pub change: Change,
    /// The document.
    pub bytes: Vec<u8>,
}

impl Mangled {
    /// The name of the member itself.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }
}

/// All documents that differ from a good one in one member, at any depth. Names are joined by `.`,
/// so they should have none themselves.
///
/// # Panics
/// When the document is not JSON.
#[allow(clippy::expect_used, reason = "called by tests only")]
pub fn all(document: &str) -> Vec<Mangled> {
    let good = Json::parse(document.as_bytes()).expect("a good document");
    let mut members = Vec::new();
    gather(&good, &mut Vec::new(), &mut members);
    let mut all = Vec::new();
    for way in &members {
        for change in CHANGES {
            let mut changed = good.clone();
            apply(&mut changed, way, change);
            let bytes = serde_json::to_vec(&changed).expect("a document");
            all.push(Mangled {
                path: shown(&good, way),
                change,
                bytes,
            });
        }
    }
    all
}

/// The path of each member: its position in each object or list.
fn gather(value: &Json, way: &mut Vec<usize>, members: &mut Vec<Vec<usize>>) {
    let inside: Vec<&Json> = match value {
        Json::Object(entries) => entries.iter().map(|(_, value)| value).collect(),
        Json::List(list) => list.iter().collect(),
        _ => return,
    };
    for (at, value_inside) in inside.into_iter().enumerate() {
        way.push(at);
        if matches!(value, Json::Object(_)) {
            members.push(way.clone());
        }
        gather(value_inside, way, members);
        way.pop();
    }
}

fn shown(value: &Json, way: &[usize]) -> String {
    let Some((at, rest)) = way.split_first() else {
        return String::new();
    };
    let (name, inner) = match value {
        Json::Object(entries) => match entries.get(*at) {
            Some((name, inner)) => (name.clone(), inner),
            None => return String::new(),
        },
        Json::List(list) => match list.get(*at) {
            Some(inner) => (format!("[{at}]"), inner),
            None => return String::new(),
        },
        _ => return String::new(),
    };
    match shown(inner, rest) {
        inner if inner.is_empty() || inner.starts_with('[') => name + &inner,
        inner => format!("{name}.{inner}"),
    }
}

fn apply(value: &mut Json, way: &[usize], change: Change) {
    let Some((at, rest)) = way.split_first() else {
        return;
    };
    match value {
        Json::Object(entries) if rest.is_empty() && *at < entries.len() => match change {
            Change::Null => entries[*at].1 = Json::Null,
            Change::Dropped => drop(entries.remove(*at)),
            Change::Twice => entries.insert(0, (entries[*at].0.clone(), Json::Null)),
            Change::Capitals => entries[*at].0.make_ascii_uppercase(),
        },
        Json::Object(entries) => {
            if let Some((_, inner)) = entries.get_mut(*at) {
                apply(inner, rest, change);
            }
        }
        Json::List(list) => {
            if let Some(inner) = list.get_mut(*at) {
                apply(inner, rest, change);
            }
        }
        _ => {}
    }
}
