//! The host API's answers against its own description (`GET /host/v1/openapi.json`).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::common::{PATIENCE, is_root, wait_until};
use super::{Tls, tls_host};

/// A document against a schema: the subset of JSON Schema that the description uses. A keyword that
/// is not known here fails, and so does a member that is not described.
struct Validator<'a> {
    schemas: &'a Value,
}

impl Validator<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let members = schema.as_object().ok_or(format!("{at}: no schema"))?;
        for (keyword, rule) in members {
            match keyword.as_str() {
                "description" | "required" | "additionalProperties" | "propertyNames" => {}
                "format" | "minimum" => self.number(keyword, rule, value, at)?,
                "$ref" => {
                    let name = rule.as_str().and_then(|text| text.rsplit('/').next());
                    let schema = &self.schemas[name.unwrap_or_default()];
                    self.check(schema, value, at)?;
                }
                "type" => {
                    let types = rule.as_array().cloned().unwrap_or(vec![rule.clone()]);
                    if !types.iter().any(|kind| is(kind, value)) {
                        return Err(format!("{at}: {value} is no {rule}"));
                    }
                }
                "enum" => {
                    if !rule.as_array().is_some_and(|values| values.contains(value)) {
                        return Err(format!("{at}: {value} is none of {rule}"));
                    }
                }
                "items" => {
                    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{at}[{number}]"))?;
                    }
                }
                "properties" if value.is_object() => self.members(schema, value, at)?,
                "properties" => {}
                "oneOf" => {
                    let choices = rule.as_array().cloned().unwrap_or_default();
                    let results = choices.iter().map(|choice| self.check(choice, value, at));
                    let (fitting, wrong): (Vec<_>, Vec<_>) = results.partition(Result::is_ok);
                    if fitting.len() != 1 {
                        return Err(format!("{at}: {} fit {value}: {wrong:?}", fitting.len()));
                    }
                }
                other => return Err(format!("{at}: the keyword {other} is not known here")),
            }
        }
        Ok(())
    }

    fn members(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let described = &schema["properties"];
        for (name, value) in value.as_object().into_iter().flatten() {
            let schema = described.get(name);
            let schema = schema.ok_or(format!("{at}.{name} is not described"))?;
            self.check(schema, value, &format!("{at}.{name}"))?;
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            if value.get(name.as_str().unwrap_or_default()).is_none() {
                return Err(format!("{at}: {name} is missing"));
            }
        }
        Ok(())
    }

    fn number(&self, keyword: &str, rule: &Value, value: &Value, at: &str) -> Result<(), String> {
        let fits = match (keyword, rule.as_str()) {
            ("minimum", _) => value.as_f64().is_none_or(|n| Some(n) >= rule.as_f64()),
            (_, Some("int32")) => {
                value.is_null() || value.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
            }
            (_, Some("int64")) => value.is_null() || value.is_i64() || value.is_u64(),
            (_, Some("double")) => value.is_null() || value.is_number(),
            _ => false,
        };
        match fits {
            true => Ok(()),
            false => Err(format!("{at}: {value} does not fit {keyword} {rule}")),
        }
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        _ => false,
    }
}

/// A service that the test adds.
const SERVICE: &str = "judged";

/// A host whose every answer is compared with the description.
struct Judged {
    tls: Tls,
    description: Value,
    /// Which `METHOD path status` were seen.
    seen: BTreeSet<String>,
}

impl Judged {
    #[track_caller]
    fn ask(&mut self, method: &str, path: &str, body: Option<Value>) -> (u16, String) {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let length = body.len();
        // Not 1.1: an answer without chunks.
        let (head, answer) = self.tls.host.exchange(&format!(
            "{method} {path} HTTP/1.0\r\nHost: d\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        // The description knows neither names nor parameters.
        let template = path.replace(&format!("/{SERVICE}"), "/{service}");
        let path = template.split('?').next().unwrap_or_default();
        let operation = &self.description["paths"][path][method.to_lowercase()];
        let described = &operation["responses"][status.to_string()];
        assert!(
            described.is_object(),
            "{method} {path}: {status} is not described: {answer}"
        );
        let content = described["content"].as_object().unwrap();
        let media = head
            .lines()
            .find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-type: ")
                    .map(str::to_owned)
            })
            .unwrap_or_default();
        let schema = &content
            .get(&media)
            .unwrap_or_else(|| panic!("{method} {path}: {media}"))["schema"];
        let documents: Vec<&str> = match media.as_str() {
            "application/x-ndjson" => answer.lines().collect(),
            _ => vec![&answer],
        };
        // A log may be empty yet.
        assert!(
            !documents.is_empty() || path.ends_with("/logs"),
            "{method} {path}"
        );
        let validator = Validator {
            schemas: &self.description["components"]["schemas"],
        };
        for document in documents {
            let value: Value = serde_json::from_str(document).unwrap();
            let result = validator.check(schema, &value, path);
            assert_eq!(result, Ok(()), "{method} {path} {status}: {document}");
        }
        self.seen.insert(format!("{method} {path} {status}"));
        (status, answer)
    }
}

#[test]
fn the_host_api_answers_as_its_description_says() {
    if !is_root() {
        return;
    }
    let tls = tls_host();
    tls.host.load_busybox();
    let (status, text) = tls.host.get("/host/v1/openapi.json");
    assert_eq!(status, 200);
    let description: Value = serde_json::from_str(&text).unwrap();
    let checked_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/host-api.json");
    let checked_in = std::fs::read_to_string(checked_in).unwrap();
    assert_eq!(
        description,
        serde_json::from_str::<Value>(&checked_in).unwrap()
    );
    assert_eq!(description["openapi"], "3.1.0");
    let mut host = Judged {
        tls,
        description,
        seen: BTreeSet::new(),
    };
    let with_init = Path::new(keelson_model::init::CONTROL_SOCKET).exists();

    host.ask("GET", "/host/v1/openapi.json", None);
    assert_eq!(host.ask("GET", "/host/v1/status", None).0, 200);
    assert_eq!(
        host.ask("GET", "/host/v1/services", None),
        (200, "[]\n".to_owned())
    );
    assert_eq!(host.ask("GET", "/host/v1/provision", None).0, 200);
    let boot = host.ask("GET", "/host/v1/boot", None).0;
    assert_eq!(boot, if with_init { 200 } else { 503 });
    assert_eq!(host.ask("POST", "/host/v1/power", None).0, 400);
    let sideways = json!({"action": "sideways"});
    assert_eq!(host.ask("POST", "/host/v1/power", Some(sideways)).0, 400);
    if !with_init {
        let halt = json!({"action": "halt"});
        assert_eq!(host.ask("POST", "/host/v1/power", Some(halt)).0, 503);
    }

    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let certificate = json!({"csr": csr.pem().unwrap(), "name": "judge", "role": "reader"});
    let certificates = "/host/v1/certificates";
    assert_eq!(
        host.ask("GET", certificates, None),
        (200, "[]\n".to_owned())
    );
    assert_eq!(host.ask("POST", certificates, Some(certificate)).0, 201);
    let wrong = json!({"csr": "none", "name": "judge", "role": "reader"});
    assert_eq!(host.ask("POST", certificates, Some(wrong)).0, 400);
    let unknown = json!({"csr": "none", "name": "judge", "role": "reader", "more": 1});
    assert_eq!(host.ask("POST", certificates, Some(unknown)).0, 400);
    assert_eq!(host.ask("GET", certificates, None).0, 200);
    let revoke = "/host/v1/certificates/revoke";
    assert_eq!(
        host.ask("POST", revoke, Some(json!({"name": "nobody"}))).0,
        404
    );
    assert_eq!(host.ask("POST", revoke, Some(json!({}))).0, 400);
    assert_eq!(
        host.ask("POST", revoke, Some(json!({"name": "judge"}))).0,
        200
    );
    assert_eq!(host.ask("GET", certificates, None).0, 200);

    let config = "/host/v1/config";
    assert_eq!(host.ask("GET", config, None).0, 200);
    let text = json!({"text": "[api]\nlisten = []\n[[file]]\npath = '/etc/x'\ncontents = ''\n"});
    for what in ["validate", "diff", "apply", "confirm", "rollback"] {
        let path = format!("{config}/{what}");
        let body = ["validate", "diff", "apply"].contains(&what);
        let body = body.then(|| text.clone());
        assert_eq!(host.ask("POST", &path, body.clone()).0, 200, "{what}");
        let again = host.ask("POST", &path, body.map(|_| json!({"text": "x"})));
        let expected = match what {
            "validate" => 200,
            "diff" => 400,
            "apply" => 409,
            _ => 404,
        };
        assert_eq!(again.0, expected, "{what}: {}", again.1);
    }

    services_answer_as_described(&mut host);
    // There is no time service here.
    assert_eq!(host.ask("GET", "/host/v1/time", None).0, 503);

    let verify = "/host/v1/images/verify";
    let (status, lines) = host.ask("POST", verify, Some(json!({"images": ["busybox"]})));
    assert_eq!(status, 200);
    assert!(lines.contains("\"event\":\"finished\""), "{lines}");
    assert_eq!(
        host.ask("POST", verify, Some(json!({"images": ["none"]})))
            .0,
        404
    );

    let logs = "/host/v1/logs";
    wait_until("a line is stored", || {
        host.tls.host.get(logs).1.contains("\"unit\"")
    });
    assert_eq!(host.ask("GET", logs, None).0, 200);
    assert_eq!(host.ask("GET", "/host/v1/logs/boots", None).0, 200);
    assert_eq!(host.ask("GET", "/host/v1/logs/status", None).0, 200);

    // Each success that can be had here was.
    for (path, item) in host.description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for status in operation["responses"].as_object().unwrap().keys() {
                let name = format!("{} {path} {status}", method.to_uppercase());
                let needs_machine = [
                    "/host/v1/power",
                    "/host/v1/boot",
                    "/host/v1/identity/reset",
                    "/host/v1/time",
                ]
                .contains(&path.as_str());
                let judged = host.seen.contains(&name) || !status.starts_with('2') || needs_machine;
                assert!(judged, "{name} was not tried: {:#?}", host.seen);
            }
        }
    }
}

/// A service of an image that the store has, which a change of the configuration adds.
fn services_answer_as_described(host: &mut Judged) {
    let one = format!("/host/v1/services/{SERVICE}");
    let word = |word: &str| format!("{one}/{word}");
    assert_eq!(host.ask("GET", &one, None).0, 404);
    for what in ["start", "stop", "restart", "enable", "disable"] {
        assert_eq!(host.ask("POST", &word(what), None).0, 404, "{what}");
    }
    let text = format!(
        "[services.{SERVICE}]\nimage = 'busybox'\ncommand = ['sh', '-c', 'trap exit TERM; echo hello; while :; do sleep 0.02; done']\n"
    );
    let text = json!({"text": text, "drop_in": "50-judged"});
    assert_eq!(host.ask("POST", "/host/v1/config/apply", Some(text)).0, 200);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, lines) = host.ask("GET", &word("logs"), None);
        if status == 200 && lines.contains("hello") {
            break;
        }
        assert!(Instant::now() < deadline, "{status} {lines}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (status, wrong) = host.ask("GET", &word("logs?tail=x"), None);
    assert_eq!(status, 400, "{wrong}");
    assert_eq!(host.ask("GET", &one, None).0, 200);
    for what in ["restart", "stop", "start", "disable"] {
        assert_eq!(host.ask("POST", &word(what), None).0, 200, "{what}");
    }
    let (status, refused) = host.ask("POST", &word("start"), None);
    assert!(
        status == 409 && refused.contains("service enable"),
        "{refused}"
    );
    let (_, services) = host.ask("GET", "/host/v1/services", None);
    assert!(services.contains("\"state\":\"disabled\""), "{services}");
    assert_eq!(host.ask("POST", &word("enable"), None).0, 200);
    assert_eq!(host.ask("POST", &word("disable"), None).0, 200);
}

/// The documents that only a machine with Keelson's init returns, and documents that the validator
/// refuses.
#[test]
fn the_validator_refuses_what_is_not_described() {
    let text = include_str!("../../../../docs/host-api.json");
    let description: Value = serde_json::from_str(text).unwrap();
    let schemas = &description["components"]["schemas"];
    let check =
        |name: &str, value: Value| Validator { schemas }.check(&schemas[name], &value, name);
    let status = keelson_model::init::InitStatus {
        deployment: None,
        boot: vec![keelson_model::init::BootStep {
            name: "mounts".to_owned(),
            started: 0.5,
            ended: 1.0,
            error: None,
        }],
        processes: Vec::new(),
    };
    assert_eq!(check("Boot", serde_json::to_value(status).unwrap()), Ok(()));
    let wrong = [
        ("Boot", json!({"deployment": null, "boot": []})),
        (
            "Boot",
            json!({"deployment": 1, "boot": [], "processes": []}),
        ),
        (
            "Boot",
            json!({"deployment": null, "boot": [], "processes": [], "more": 1}),
        ),
        (
            "Boot",
            json!({"deployment": null, "boot": [{"name": "a"}], "processes": []}),
        ),
        ("Power", json!({"action": "sideways"})),
        ("Error", json!({"message": null})),
        ("VerifyLine", json!({"event": "progress"})),
        ("VerifyLine", json!({"event": "unheard", "bytes": 1})),
    ];
    for (name, value) in wrong {
        assert!(check(name, value.clone()).is_err(), "{name}: {value}");
    }
}
