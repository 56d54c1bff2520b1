//! `GET /host/v1/time`: what the time service knows of the clock.

use http::{Request, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use keelson_http::{Failure, reply};
use keelson_model::error::ErrorKind;

use crate::state::{Answer, HostApi};
use crate::wire_time as wire;

/// The service.
const SERVICE: &str = "time";
/// Its program that answers questions, with its socket.
const ASK: [&str; 5] = [
    "/usr/bin/chronyc",
    "-h",
    "/var/lib/chrony/chronyd.sock",
    "-c",
    "-n",
];

/// `GET /host/v1/time`.
pub(crate) async fn status(api: &HostApi, _: Request<Incoming>) -> Answer {
    let mut answers = Vec::new();
    for word in ["tracking", "sources"] {
        let mut command = ASK.map(str::to_owned).to_vec();
        command.push(word.to_owned());
        let answer = api.sources.services.ask(SERVICE, command).await;
        answers.push(answer.map_err(|error| {
            Failure::new(
                ErrorKind::Unavailable,
                format!("the clock can't be asked for: {error}"),
            )
        })?);
    }
    let [tracking, sources] = answers.as_slice() else {
        return Err(Failure::new(ErrorKind::Internal, "two answers were wanted"));
    };
    let status = read(tracking, sources).ok_or_else(|| {
        let text = format!("chronyc's answer is not understood: {tracking:?}");
        Failure::new(ErrorKind::Internal, text)
    })?;
    Ok(reply::json(StatusCode::OK, &status))
}

/// Reads `chronyc -c tracking` and `chronyc -c sources` (chronyc(1)).
fn read(tracking: &str, sources: &str) -> Option<wire::Time> {
    let fields: Vec<&str> = tracking.trim().split(',').collect();
    let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let leap = *fields.get(13)?;
    let synchronized = leap != "Not synchronised";
    let stratum: u32 = fields.get(2)?.parse().ok()?;
    let server = fields
        .get(1)
        .filter(|name| synchronized && !name.is_empty());
    Some(wire::Time {
        now: Timestamp::now().to_string(),
        synchronized,
        server: server.map(|name| (*name).to_owned()),
        stratum: synchronized.then_some(stratum),
        offset: number(4)?,
        frequency: number(7)?,
        servers: sources.lines().filter_map(source).collect(),
    })
}

fn source(line: &str) -> Option<wire::TimeServer> {
    let fields: Vec<&str> = line.trim().split(',').collect();
    let [_, state, name, stratum, _, reach, _, _, offset, ..] = fields.as_slice() else {
        return None;
    };
    Some(wire::TimeServer {
        name: (*name).to_owned(),
        state: match *state {
            "*" => wire::TimeServerState::Followed,
            "+" => wire::TimeServerState::Combined,
            "-" => wire::TimeServerState::NotCombined,
            "x" => wire::TimeServerState::Wrong,
            "~" => wire::TimeServerState::Unstable,
            _ => wire::TimeServerState::Unreachable,
        },
        stratum: stratum.parse().ok()?,
        // The last eight questions, as bits in octal digits.
        reachable: u32::from_str_radix(reach, 8).ok()? != 0,
        offset: offset.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_chronyc_are_read() {
        let tracking = "C0000205,192.0.2.5,3,1764500000.123,0.000012,-0.000002,0.000100,-7.250,\
                        0.001,0.050,0.010,0.002,64.2,Normal\n";
        let sources = "^,*,192.0.2.5,2,6,377,12,0.000020,0.000015,0.000900\n\
                       ^,?,192.0.2.6,0,6,0,4294967295,0.0,0.0,0.0\nnonsense\n";
        let time = read(tracking, sources).unwrap();
        assert!(time.synchronized);
        assert_eq!(time.server.as_deref(), Some("192.0.2.5"));
        assert_eq!(time.stratum, Some(3));
        assert_eq!((time.offset, time.frequency), (0.000_012, -7.25));
        let reachable: Vec<bool> = time.servers.iter().map(|server| server.reachable).collect();
        assert_eq!(reachable, [true, false]);

        let none = "00000000,,0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised\n";
        let time = read(none, "").unwrap();
        assert!(!time.synchronized && time.server.is_none() && time.servers.is_empty());
        assert!(read("506 Cannot talk to daemon", "").is_none());
    }
}
