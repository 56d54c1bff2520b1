//! Requests whose answers are held against the description of the Docker Engine API.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Host, PATIENCE};

/// The version of the API that is described.
const VERSION: &str = "/v1.51";

/// Statuses that Docker answers with, too, where its description does not name them: it names 400
/// for few of the requests that can be wrong, and 404 for few that name something.
const UNNAMED: &[(u16, &str)] = &[
    (400, ""),
    (404, "/distribution/{name}/json"),
    (404, "/images/get"),
    (404, "/images/{name}/get"),
    // Another network has the name; clients retry.
    (409, "/networks/create"),
];

/// Members that Docker answers with, too, although they are not described: clients read them.
const UNDESCRIBED: &[(&str, &[&str])] = &[
    // The form of events before API 1.22.
    ("EventMessage", &["status", "id", "from"]),
    // The layer of the step, and the result of the push.
    ("PushImageInfo", &["id", "aux"]),
    // The words of a load.
    ("CreateImageInfo", &["stream"]),
];

/// Definitions whose members Docker shows as null if they are not set, even if that is not
/// described: clients see by it that they are not set.
const NULL_MEMBERS: &[&str] = &[
    "ContainerBlkioStats",
    "ContainerConfig",
    "EndpointSettings",
    "HostConfig",
    "IPAM",
    "ImageConfig",
    "VolumeListResponse",
];

/// The description.
pub struct Description(Value);

/// An answer that is as described.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    pub content_type: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Description {
    pub fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../api-docker/description")
            .join("v1.51.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        Self(serde_saphyr::from_str(&text).unwrap())
    }

    /// Sends a request with a body, and compares the answer with the description: the request and
    /// the status must be described, and the body must match.
    #[track_caller]
    pub fn send(&self, host: &Host, method: &str, path: &str, body: &[u8]) -> Answer {
        let answer = exchange(host, method, path, body);
        let mut found = Vec::new();
        self.judge(method, path, &answer, &mut found);
        let start = answer.body.get(..2000).unwrap_or(&answer.body);
        let text = String::from_utf8_lossy(start);
        assert!(
            found.is_empty(),
            "{method} {path}: {}\n{}\n{text}",
            answer.status,
            found.join("\n")
        );
        answer
    }

    /// Like [`Self::send`] of a request that succeeds.
    #[track_caller]
    pub fn succeed(&self, host: &Host, method: &str, path: &str, body: &[u8]) -> Answer {
        let answer = self.send(host, method, path, body);
        let text = String::from_utf8_lossy(&answer.body);
        assert!(answer.status < 300, "{method} {path}: {text}");
        answer
    }

    /// The document that a `GET` answers with.
    #[track_caller]
    pub fn get(&self, host: &Host, path: &str) -> Value {
        self.succeed(host, "GET", path, b"").json()
    }

    /// Holds each line of a stream against a definition.
    #[track_caller]
    pub fn lines(&self, answer: &Answer, definition: &str) -> Vec<Value> {
        let schema = Value::String(format!("#/definitions/{definition}"));
        let schema = Value::Object(Map::from_iter([("$ref".to_owned(), schema)]));
        let lines: Vec<Value> = answer
            .body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.trim_ascii().is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        let mut found = Vec::new();
        for line in &lines {
            self.check(&schema, line, definition, &mut found);
        }
        assert!(found.is_empty(), "{}\n{lines:?}", found.join("\n"));
        lines
    }

    fn judge(&self, method: &str, path: &str, answer: &Answer, found: &mut Vec<String>) {
        let path = path.split('?').next().unwrap_or_default();
        let Some((template, operations)) = self.path(path) else {
            return found.push("no such path is described".to_owned());
        };
        let operation = &operations[method.to_lowercase()];
        if operation.is_null() {
            return found.push(format!("{template} has no such method"));
        }
        let responses = &operation["responses"];
        let response = &responses[answer.status.to_string()];
        let unnamed = UNNAMED.iter().any(|(status, place)| {
            *status == answer.status && (place.is_empty() || *place == template)
        });
        let schema = match (response.is_null(), unnamed) {
            (false, _) => &response["schema"],
            (true, true) => &responses["500"]["schema"],
            (true, false) => return found.push(format!("{template} has no such status")),
        };
        let produces = operation["produces"].as_array();
        if answer.status < 300
            && let Some(produces) = produces.filter(|_| !answer.body.is_empty())
            && !produces
                .iter()
                .any(|kind| answer.content_type.starts_with(kind.as_str().unwrap()))
        {
            found.push(format!(
                "the content type {} is not described",
                answer.content_type
            ));
        }
        let is_document = matches!(schema["type"].as_str(), Some("object" | "array"))
            || schema.get("$ref").is_some();
        // Streams of several documents have none as a whole.
        if !is_document || template == "/events" {
            return;
        }
        match serde_json::from_slice(&answer.body) {
            Ok(value) => self.check(schema, &value, "", found),
            Err(error) => found.push(format!("the body is no JSON: {error}")),
        }
    }

    /// The most literal template of a path, and its description.
    fn path(&self, path: &str) -> Option<(&str, &Value)> {
        let fits = |template: &str| match template.split_once('{') {
            None => template == path,
            Some((before, rest)) => {
                let after = rest.split_once('}').map_or("", |(_, after)| after);
                path.strip_prefix(before)
                    .and_then(|rest| rest.strip_suffix(after))
                    .is_some_and(|name| !name.is_empty())
            }
        };
        self.0["paths"]
            .as_object()?
            .iter()
            .filter(|(template, _)| fits(template))
            .max_by_key(|(template, _)| (!template.contains('{'), template.len()))
            .map(|(template, operations)| (template.as_str(), operations))
    }

    /// A schema with its references followed, and the name of the last one.
    fn follow<'a>(&'a self, mut schema: &'a Value) -> (&'a Value, &'a str) {
        let mut name = "";
        while let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            name = reference.strip_prefix("#/definitions/").unwrap();
            schema = &self.0["definitions"][name];
            assert!(schema.is_object(), "{reference} is not defined");
        }
        (schema, name)
    }

    fn check(&self, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
        let nullable = |schema: &Value| schema["x-nullable"] == true;
        let (own, (schema, name)) = (schema, self.follow(schema));
        if value.is_null() {
            // An exec that still runs has none.
            if !nullable(own) && !nullable(schema) && place != ".ExitCode" {
                found.push(format!("{place} is null"));
            }
            return;
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            found.push(format!("{place} is {value}, not one of {allowed:?}"));
        }
        let is_array = matches!(schema["type"].as_str(), Some("array"));
        // Of one part, to which a text is added.
        if let (Some(parts), false) = (schema["allOf"].as_array(), value.is_object()) {
            for part in parts {
                self.check(part, value, place, found);
            }
            return;
        }
        let fits = match schema["type"].as_str() {
            Some("string") => value.as_str().is_some_and(|text| has_format(schema, text)),
            Some("integer") => in_range(schema, value),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            Some("array") => value.is_array(),
            _ => value.is_object(),
        };
        if !fits {
            return found.push(format!("{place} is {value}, wanted {}", schema["type"]));
        }
        for (at, item) in value.as_array().into_iter().flatten().enumerate() {
            if is_array {
                self.check(&schema["items"], item, &format!("{place}[{at}]"), found);
            }
        }
        if let Some(members) = value.as_object() {
            self.check_members(schema, name, members, place, found);
        }
    }

    fn check_members(
        &self,
        schema: &Value,
        name: &str,
        members: &Map<String, Value>,
        place: &str,
        found: &mut Vec<String>,
    ) {
        let mut described = Map::new();
        let mut required = Vec::new();
        self.gather(schema, &mut described, &mut required);
        for member in required {
            // One requirement names a member that is not described.
            if described.contains_key(&member) && !members.contains_key(&member) {
                found.push(format!("{place}.{member} is missing"));
            }
        }
        let others = &schema["additionalProperties"];
        let anything = described.is_empty() && others.is_null();
        let known = UNDESCRIBED
            .iter()
            .find(|(definition, _)| *definition == name);
        for (member, value) in members {
            let place = format!("{place}.{member}");
            let extra = known.is_some_and(|(_, names)| names.contains(&member.as_str()));
            if value.is_null() && NULL_MEMBERS.contains(&name) {
                continue;
            }
            if let Some(schema) = described.get(member) {
                self.check(schema, value, &place, found);
            } else if others.is_object() {
                self.check(others, value, &place, found);
            } else if !(anything || extra || *others == true) {
                found.push(format!("{place} is not described"));
            }
        }
    }

    /// All members of the body of a `POST`, down to those that have no members of their own. The
    /// steps to each are names, `[]` for an item of a list and `*` for a value of a map.
    pub fn body(&self, path: &str) -> Vec<(Vec<String>, Value)> {
        let parameters = self.0["paths"][path]["post"]["parameters"].as_array();
        let body = parameters
            .into_iter()
            .flatten()
            .find(|parameter| parameter["in"] == "body")
            .unwrap_or_else(|| panic!("{path} has no body"));
        let mut found = Vec::new();
        self.leaves(&body["schema"], &mut Vec::new(), &mut found);
        found
    }

    fn leaves(
        &self,
        schema: &Value,
        steps: &mut Vec<String>,
        found: &mut Vec<(Vec<String>, Value)>,
    ) {
        let (schema, _) = self.follow(schema);
        let (mut members, mut required) = (Map::new(), Vec::new());
        self.gather(schema, &mut members, &mut required);
        // An object without members marks a set, which is a value.
        for (step, part) in [
            ("[]", &schema["items"]),
            ("*", &schema["additionalProperties"]),
        ] {
            if part.is_object() {
                members.insert(step.to_owned(), part.clone());
            }
        }
        if members.is_empty() {
            return found.push((steps.clone(), schema.clone()));
        }
        for (name, member) in members {
            steps.push(name);
            self.leaves(&member, steps, found);
            steps.pop();
        }
    }

    /// The members of an object, including those of its parts.
    fn gather(&self, schema: &Value, members: &mut Map<String, Value>, required: &mut Vec<String>) {
        let (schema, _) = self.follow(schema);
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.gather(part, members, required);
        }
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            members.insert(name.clone(), member.clone());
        }
        let names = schema["required"].as_array().into_iter().flatten();
        required.extend(names.filter_map(Value::as_str).map(str::to_owned));
    }
}

fn has_format(schema: &Value, text: &str) -> bool {
    match schema["format"].as_str() {
        Some("dateTime" | "date-time") => text.parse::<jiff::Timestamp>().is_ok(),
        Some("ip-address") => text.is_empty() || text.parse::<std::net::IpAddr>().is_ok(),
        _ => true,
    }
}

fn in_range(schema: &Value, value: &Value) -> bool {
    let (least, most) = match schema["format"].as_str() {
        Some("uint8") => (0, u8::MAX.into()),
        Some("uint16") => (0, u16::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        Some("uint64") => (0, u64::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    };
    let number = value
        .as_i64()
        .map(i128::from)
        .or(value.as_u64().map(i128::from));
    number.is_some_and(|number| (least..=most).contains(&number))
}

/// Sends a request and reads the answer to its end.
#[track_caller]
pub fn exchange(host: &Host, method: &str, path: &str, body: &[u8]) -> Answer {
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let kind = match body.first() {
        Some(b'{') => "Content-Type: application/json\r\n",
        _ => "",
    };
    // In version 1.0 bodies come in one piece.
    let head = format!(
        "{method} {VERSION}{path} HTTP/1.0\r\nHost: d\r\n{kind}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("{method} {path}: no answer"));
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let content_type = head
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-type")
                .then(|| value.trim().to_owned())
        })
        .unwrap_or_default();
    Answer {
        status,
        body: answer.split_off(end + 4),
        content_type,
    }
}
