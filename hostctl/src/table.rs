//! Results for people.

use keelson_model::host_api::{ClientCertificate, HostStatus, ProvisionReport, Role, TimeStatus};
use keelson_model::init::InitStatus;
use keelson_model::service::ServiceStatus;

use crate::picture;

/// Columns as wide as their widest cell, two spaces apart.
pub(crate) fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain(titles.get(column).map(|title| title.chars().count()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let text: String = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        text.trim_end().to_owned() + "\n"
    };
    let mut out = line(&mut titles.iter().copied());
    for row in rows {
        out += &line(&mut row.iter().map(String::as_str));
    }
    out
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub(crate) fn services(services: &[ServiceStatus]) -> String {
    let rows: Vec<Vec<String>> = services
        .iter()
        .map(|service| {
            vec![
                service.name.clone(),
                service.state.to_string(),
                or_dash(service.pid),
                service.restarts.to_string(),
                service.since.clone(),
                service
                    .error
                    .clone()
                    .unwrap_or_else(|| service.description.clone()),
            ]
        })
        .collect();
    table(
        &["NAME", "STATE", "PID", "RESTARTS", "SINCE", "DESCRIPTION"],
        &rows,
    )
}

pub(crate) fn service(service: &ServiceStatus) -> String {
    let rows = [
        ("name", service.name.clone()),
        ("description", service.description.clone()),
        ("state", service.state.to_string()),
        (
            "enabled",
            if service.enabled { "yes" } else { "no" }.to_owned(),
        ),
        ("image", service.image.clone()),
        ("health", or_dash(service.health.as_ref())),
        ("pid", or_dash(service.pid)),
        ("since", service.since.clone()),
        ("restarts", service.restarts.to_string()),
        ("last exit code", or_dash(service.exit_code)),
        ("error", or_dash(service.error.as_ref())),
    ];
    rows.iter()
        .map(|(name, value)| format!("{:16}{value}\n", format!("{name}:")))
        .collect()
}

pub(crate) fn time(time: &TimeStatus) -> String {
    let rows = [
        ("now", time.now.clone()),
        (
            "synchronized",
            if time.synchronized { "yes" } else { "no" }.to_owned(),
        ),
        ("server", or_dash(time.server.as_ref())),
        ("stratum", or_dash(time.stratum)),
        ("offset", format!("{:+.6} s", time.offset)),
        ("frequency", format!("{:+.3} ppm", time.frequency)),
    ];
    let head: String = rows
        .iter()
        .map(|(name, value)| format!("{:16}{value}\n", format!("{name}:")))
        .collect();
    let servers: Vec<Vec<String>> = time
        .servers
        .iter()
        .map(|server| {
            vec![
                server.name.clone(),
                server.state.clone(),
                server.stratum.to_string(),
                if server.reachable { "yes" } else { "no" }.to_owned(),
                format!("{:+.6}", server.offset),
            ]
        })
        .collect();
    head + "\n"
        + &table(
            &["SERVER", "STATE", "STRATUM", "REACHABLE", "OFFSET"],
            &servers,
        )
}

pub(crate) fn certificates(certificates: &[ClientCertificate]) -> String {
    let rows: Vec<Vec<String>> = certificates
        .iter()
        .map(|certificate| {
            let known = |text: &str| or_dash(Some(text).filter(|text| !text.is_empty()));
            vec![
                known(&certificate.name),
                or_dash(certificate.role.map(Role::as_str)),
                known(&certificate.serial),
                or_dash(certificate.expires.as_ref()),
                or_dash(certificate.revoked.as_ref()),
                known(&certificate.fingerprint),
            ]
        })
        .collect();
    table(
        &[
            "NAME",
            "ROLE",
            "SERIAL",
            "EXPIRES",
            "REVOKED",
            "FINGERPRINT",
        ],
        &rows,
    )
}

pub(crate) fn status(status: &HostStatus) -> String {
    let mut rows = vec![
        ("hostname", status.hostname.clone()),
        ("version", status.version.clone()),
        ("deployment", or_dash(status.deployment.as_ref())),
        ("uptime", format!("{:.0} s", status.uptime)),
        ("ca fingerprint", or_dash(status.ca_fingerprint.as_ref())),
    ];
    rows.extend(status.warnings.iter().map(|text| ("warning", text.clone())));
    let mut out: String = rows
        .iter()
        .map(|(name, value)| format!("{:16}{value}\n", format!("{name}:")))
        .collect();
    if let Some(network) = &status.network {
        out += "network:\n";
        let text = serde_json::to_string_pretty(network).unwrap_or_default();
        out.extend(text.lines().map(|line| format!("  {line}\n")));
    }
    out
}

/// What the platform told the machine: one line for each fact, with the same name for facts of a kind.
pub(crate) fn provisioning(status: &ProvisionReport) -> String {
    let place = status.place.as_deref().filter(|place| !place.is_empty());
    let source = status.source.as_ref().map(|source| match place {
        Some(place) => format!("{source} ({place})"),
        None => source.clone(),
    });
    let mut rows = vec![
        ("state", status.state.as_str().to_owned()),
        ("source", or_dash(source)),
        ("instance-id", or_dash(status.instance_id.as_ref())),
        ("asked", or_dash(status.when.as_ref())),
    ];
    for (name, list) in [
        ("applied", &status.applied),
        ("left out", &status.left_out),
        ("problem", &status.problems),
    ] {
        rows.extend(list.iter().map(|text| (name, text.clone())));
    }
    rows.iter()
        .map(|(name, value)| format!("{:13}{value}\n", format!("{name}:")))
        .collect()
}

pub(crate) fn boot(status: &InitStatus) -> String {
    let steps: Vec<Vec<String>> = status
        .boot
        .iter()
        .map(|step| {
            vec![
                step.name.clone(),
                format!("{:.3}", step.started),
                format!("{:.3}", step.ended),
                step.error.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let processes: Vec<Vec<String>> = status
        .processes
        .iter()
        .map(|process| {
            vec![
                process.name.clone(),
                process.state.to_string(),
                or_dash(process.pid),
                process.restarts.to_string(),
                or_dash(process.last_exit.as_ref()),
            ]
        })
        .collect();
    table(&["STEP", "STARTED", "ENDED", "ERROR"], &steps)
        + "\n"
        + &picture::chart(&status.boot)
        + "\n"
        + &table(
            &["PROCESS", "STATE", "PID", "RESTARTS", "LAST EXIT"],
            &processes,
        )
}

#[cfg(test)]
mod tests {
    use keelson_model::provision::ProvisionState;

    use super::*;

    #[test]
    fn what_was_left_out_has_its_line() {
        let status = ProvisionReport {
            state: ProvisionState::Complete,
            source: Some("nocloud".to_owned()),
            place: Some("/dev/vdb".to_owned()),
            instance_id: Some("i-1".to_owned()),
            when: None,
            applied: vec!["hostname".to_owned()],
            left_out: vec!["user-data:5: unknown key snap".to_owned()],
            problems: Vec::new(),
        };
        let wanted = "state:       complete\nsource:      nocloud (/dev/vdb)\ninstance-id: i-1\n\
            asked:       -\napplied:     hostname\nleft out:    user-data:5: unknown key snap\n";
        assert_eq!(provisioning(&status), wanted);
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["time".to_owned(), "running".to_owned()],
            vec!["a-long-name".to_owned(), "-".to_owned()],
        ];
        assert_eq!(
            table(&["NAME", "STATE"], &rows),
            "NAME         STATE\ntime         running\na-long-name  -\n"
        );
    }
}
