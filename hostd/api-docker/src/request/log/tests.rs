use keelson_model::error::ErrorKind;

use super::*;

fn understand(driver: &str, options: &[(&str, &str)]) -> Result<LogSpec, ApiError> {
    let pairs = options.iter();
    let asked = LogConfig {
        r#type: driver.to_owned(),
        config: pairs.map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
    };
    let config = Config {
        env: vec!["OS=linux".to_owned(), "SECRET=x".to_owned()],
        labels: [("app", "web"), ("app.tier", "front"), ("other", "y")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        ..Config::default()
    };
    log(&asked, &config)
}

/// What `/info` shows is accepted, and the first of it is what a container gets without a request.
#[test]
fn every_driver_that_is_shown_can_be_asked_for() {
    for driver in LOG_DRIVERS {
        understand(driver, &[]).unwrap();
    }
    assert_eq!(
        understand("", &[]).unwrap(),
        understand(LOG_DRIVER, &[]).unwrap()
    );
}

#[test]
fn sizes() {
    for (text, base, size) in [
        ("10m", 1000, 10_000_000),
        ("10m", 1024, 10 << 20),
        ("64K", 1024, 64 << 10),
        ("1gb", 1000, 1_000_000_000),
        ("1.5k", 1000, 1500),
        ("5", 1000, 5),
        ("0", 1000, 0),
        ("1GiB", 1024, 1 << 30),
    ] {
        assert_eq!(parse_size(text, base), Some(size), "{text}");
    }
    for text in [
        "",
        "m",
        "-2",
        "1x",
        "99999999999g",
        ".5m",
        "1e3",
        "lots",
        "ä",
    ] {
        assert_eq!(parse_size(text, 1000), None, "{text}");
    }
}

#[test]
fn files_by_both_names() {
    for driver in ["", "json-file", "local"] {
        assert_eq!(understand(driver, &[]).unwrap(), LogSpec::default());
        let limited = [("max-size", "10m"), ("max-file", "3"), ("compress", "true")];
        let LogSpec::Files {
            max_size,
            max_files,
            ..
        } = understand(driver, &limited).unwrap()
        else {
            panic!("{driver}");
        };
        assert_eq!((max_size, max_files), (Some(10_000_000), Some(3)));
    }
    let unlimited = understand("json-file", &[("max-size", "-1")]).unwrap();
    assert!(matches!(
        unlimited,
        LogSpec::Files {
            max_size: Some(u64::MAX),
            ..
        }
    ));
    assert_eq!(
        understand("none", &[("any", "thing")]).unwrap(),
        LogSpec::Nowhere
    );
}

#[test]
fn marks_come_from_labels_and_variables() {
    let options = [
        ("labels", "other,absent"),
        ("labels-regex", "^app"),
        ("env", "OS"),
        ("tag", "{{.Name}}/{{.ID}}"),
    ];
    let spec = understand("json-file", &options).unwrap();
    let marks = spec.marks().unwrap();
    let names: Vec<_> = marks.attributes.keys().map(String::as_str).collect();
    assert_eq!(names, ["OS", "app", "app.tier", "other"]);
    assert_eq!(marks.attributes["app.tier"], "front");
    assert_eq!(marks.tag, "{{.Name}}/{{.ID}}");
}

#[test]
fn syslog_servers() {
    let server = |address| match understand("syslog", &[("syslog-address", address)]) {
        Ok(LogSpec::Syslog { server, .. }) => Ok(server),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    };
    let udp = |text: &str| Ok(SyslogServer::Udp(text.to_owned()));
    assert_eq!(server(""), Ok(SyslogServer::Local));
    assert_eq!(server("udp://10.0.0.1"), udp("10.0.0.1:514"));
    assert_eq!(server("udp://[::1]:99"), udp("[::1]:99"));
    assert_eq!(server("udp://[::1]"), udp("[::1]:514"));
    let tcp = SyslogServer::Tcp("log.example:6514".to_owned());
    assert_eq!(server("tcp://log.example:6514"), Ok(tcp));
    let unix = SyslogServer::Unix("/run/log".into());
    assert_eq!(server("unix:///run/log"), Ok(unix));
    for (address, part) in [
        ("10.0.0.1:514", "unsupported scheme: ''"),
        ("http://x", "unsupported scheme: 'http'"),
        ("udp://x:port", "it must be host:port"),
        ("udp://:514", "the host is missing"),
        ("unix://relative", "absolute"),
        ("tcp+tls://x", "TLS"),
    ] {
        let error = server(address).unwrap_err();
        assert!(error.contains(part), "{address}: {error}");
    }
    let usual = understand("syslog", &[]).unwrap();
    let LogSpec::Syslog {
        facility,
        format,
        marks,
        ..
    } = usual
    else {
        panic!("{usual:?}");
    };
    assert_eq!((facility, format), (3, SyslogFormat::Local));
    assert_eq!(marks.tag, "{{.ID}}");
    for (name, number) in [("local7", 23), ("0", 0), ("23", 23), ("cron", 9)] {
        let spec = understand("syslog", &[("syslog-facility", name)]).unwrap();
        assert!(matches!(spec, LogSpec::Syslog { facility, .. } if facility == number));
    }
}

#[test]
fn what_is_wrong_is_refused_in_dockers_words() {
    for (driver, options, words) in [
        (
            "mine",
            &[][..],
            "logger: no log driver named 'mine' is registered",
        ),
        (
            "journald",
            &[],
            "logger: no log driver named 'journald' is registered: Keelson has",
        ),
        ("fluentd", &[], "none; use one of them"),
        (
            "json-file",
            &[("mode", "lazy")],
            "logger: logging mode not supported: lazy",
        ),
        (
            "local",
            &[("max-buffer-size", "1m")],
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            "local",
            &[("mode", "non-blocking"), ("max-buffer-size", "x")],
            "error parsing option max-buffer-size: invalid size: 'x'",
        ),
        (
            "json-file",
            &[("nope", "1")],
            "unknown log opt 'nope' for json-file log driver",
        ),
        (
            "",
            &[("nope", "1")],
            "unknown log opt 'nope' for json-file log driver",
        ),
        (
            "local",
            &[("nope", "1")],
            "unknown log opt 'nope' for log driver local",
        ),
        (
            "syslog",
            &[("max-size", "1m")],
            "unknown log opt 'max-size' for syslog log driver",
        ),
        (
            "syslog",
            &[("syslog-facility", "24")],
            "invalid syslog facility",
        ),
        (
            "syslog",
            &[("syslog-format", "rfc1")],
            "Invalid syslog format",
        ),
        (
            "syslog",
            &[("syslog-tls-key", "/k")],
            "TLS is not implemented",
        ),
        (
            "syslog",
            &[("cache-max-size", "1m")],
            "cache-max-size is not implemented",
        ),
        ("local", &[("max-size", "lots")], "invalid size: 'lots'"),
        (
            "local",
            &[("max-size", "0")],
            "max-size must be a positive number",
        ),
        (
            "local",
            &[("max-file", "0")],
            "max-file cannot be less than 1",
        ),
        (
            "local",
            &[("max-file", "x")],
            "invalid value for max-file: x",
        ),
        (
            "local",
            &[("compress", "maybe")],
            "invalid boolean value for compress",
        ),
        (
            "json-file",
            &[("compress", "true")],
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        (
            "local",
            &[("compress", "1"), ("max-file", "1")],
            "compression cannot be enabled when max file count is 1",
        ),
        ("local", &[("labels-regex", "(")], "labels-regex"),
        ("local", &[("tag", "{{.Nope}}")], "{{.Nope}}"),
    ] {
        let error = understand(driver, options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(words), "{driver}: {error}");
    }
}
