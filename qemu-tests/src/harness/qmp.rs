//! A client of the QEMU Machine Protocol (QMP) over a unix socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

/// How long QEMU may take to answer one command.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Why a QMP command failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed or was closed.
    #[error("QMP {command}: {source}")]
    Io {
        /// The command in hand.
        command: String,
        /// The error of the socket.
        source: io::Error,
    },
    /// QEMU refused the command.
    #[error("QMP {command}: {class}: {description}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's error class.
        class: String,
        /// QEMU's description.
        description: String,
    },
    /// The received data is not QMP.
    #[error("QMP {command}: unexpected message {message:?}")]
    Protocol {
        /// The command in hand.
        command: String,
        /// The received data.
        message: String,
    },
}

/// One message from QEMU.
#[derive(Debug, Clone, PartialEq)]
enum Message {
    Greeting,
    Return(Value),
    Error { class: String, description: String },
    Event(String),
}

fn parse(line: &[u8]) -> Option<Message> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let object = value.as_object()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if object.contains_key("QMP") {
        Some(Message::Greeting)
    } else if let Some(result) = object.get("return") {
        Some(Message::Return(result.clone()))
    } else if let Some(error) = object.get("error") {
        Some(Message::Error {
            class: text(error.get("class")?)?,
            description: text(error.get("desc")?)?,
        })
    } else {
        object.get("event").and_then(text).map(Message::Event)
    }
}

/// A connection to QEMU's monitor, ready for commands.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    events: Vec<String>,
}

impl Qmp {
    /// Takes over a connected socket and negotiates capabilities.
    ///
    /// # Errors
    /// The other side is not a QMP server or ended.
    pub fn new(stream: UnixStream) -> Result<Self, QmpError> {
        let command = "greeting";
        let io = |source| QmpError::Io {
            command: command.to_owned(),
            source,
        };
        stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(io)?;
        stream.set_write_timeout(Some(ANSWER_LIMIT)).map_err(io)?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
            events: Vec::new(),
        };
        match qmp.message(command)? {
            Message::Greeting => {}
            other => {
                return Err(QmpError::Protocol {
                    command: command.to_owned(),
                    message: format!("{other:?}"),
                });
            }
        }
        qmp.execute("qmp_capabilities", None)?;
        Ok(qmp)
    }

    fn message(&mut self, command: &str) -> Result<Message, QmpError> {
        let io = |source| QmpError::Io {
            command: command.to_owned(),
            source,
        };
        let mut line = Vec::new();
        if self.reader.read_until(b'\n', &mut line).map_err(io)? == 0 {
            return Err(io(io::ErrorKind::UnexpectedEof.into()));
        }
        parse(&line).ok_or_else(|| QmpError::Protocol {
            command: command.to_owned(),
            message: String::from_utf8_lossy(&line).into_owned(),
        })
    }

    /// Runs one command and returns its result. Events that come in between are kept.
    ///
    /// # Errors
    /// QEMU refuses the command, ends, or does not answer within 20 seconds.
    pub fn execute(&mut self, command: &str, arguments: Option<Value>) -> Result<Value, QmpError> {
        let mut request = json!({ "execute": command });
        if let (Some(arguments), Some(object)) = (arguments, request.as_object_mut()) {
            object.insert("arguments".to_owned(), arguments);
        }
        let mut line = request.to_string();
        line.push('\n');
        self.reader
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(|source| QmpError::Io {
                command: command.to_owned(),
                source,
            })?;
        loop {
            match self.message(command)? {
                Message::Return(value) => return Ok(value),
                Message::Error { class, description } => {
                    return Err(QmpError::Refused {
                        command: command.to_owned(),
                        class,
                        description,
                    });
                }
                Message::Event(name) => self.events.push(name),
                Message::Greeting => {}
            }
        }
    }

    /// Presses the ACPI power button.
    ///
    /// # Errors
    /// See [`Qmp::execute`].
    pub fn system_powerdown(&mut self) -> Result<(), QmpError> {
        self.execute("system_powerdown", None).map(drop)
    }

    /// Resets the machine without asking its operating system.
    ///
    /// # Errors
    /// See [`Qmp::execute`].
    pub fn system_reset(&mut self) -> Result<(), QmpError> {
        self.execute("system_reset", None).map(drop)
    }

    /// Ends QEMU at once, as if the power failed.
    ///
    /// # Errors
    /// See [`Qmp::execute`].
    pub fn quit(&mut self) -> Result<(), QmpError> {
        self.execute("quit", None).map(drop)
    }

    /// The machine's state as QEMU sees it: `running`, `paused`, `shutdown`, ….
    ///
    /// # Errors
    /// See [`Qmp::execute`].
    pub fn status(&mut self) -> Result<String, QmpError> {
        let value = self.execute("query-status", None)?;
        value
            .get("status")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .ok_or_else(|| QmpError::Protocol {
                command: "query-status".to_owned(),
                message: value.to_string(),
            })
    }

    /// Names of the events that came while commands were waited for.
    #[must_use]
    pub fn events(&self) -> &[String] {
        &self.events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_four_kinds_of_messages() {
        let greeting = br#"{"QMP":{"version":{"qemu":{"major":7}},"capabilities":["oob"]}}"#;
        assert_eq!(parse(greeting), Some(Message::Greeting));
        assert_eq!(parse(br#"{"return":{}}"#), Some(Message::Return(json!({}))));
        let error = parse(br#"{"error":{"class":"CommandNotFound","desc":"no"},"id":1}"#);
        assert!(matches!(error, Some(Message::Error { class, .. }) if class == "CommandNotFound"));
        let event = parse(br#"{"timestamp":{"seconds":1},"event":"SHUTDOWN","data":{}}"#);
        assert_eq!(event, Some(Message::Event("SHUTDOWN".to_owned())));
        for bad in [
            &b"garbage"[..],
            b"[]",
            b"{}",
            br#"{"error":{}}"#,
            b"",
            br#"{"event":3}"#,
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn talks_to_a_server_that_mixes_events_in() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            let mut lines = BufReader::new(theirs).lines();
            writer.write_all(b"{\"QMP\":{}}\r\n").unwrap();
            assert!(lines.next().unwrap().unwrap().contains("qmp_capabilities"));
            writer.write_all(b"{\"return\":{}}\r\n").unwrap();
            assert!(lines.next().unwrap().unwrap().contains("query-status"));
            writer
                .write_all(b"{\"event\":\"RESET\"}\r\n{\"return\":{\"status\":\"running\"}}\r\n")
                .unwrap();
            assert!(lines.next().unwrap().unwrap().contains("bogus"));
            writer
                .write_all(b"{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"what?\"}}\r\n")
                .unwrap();
        });
        let mut qmp = Qmp::new(ours).unwrap();
        assert_eq!(qmp.status().unwrap(), "running");
        assert_eq!(qmp.events(), ["RESET"]);
        let refused = qmp.execute("bogus", None).unwrap_err();
        assert_eq!(refused.to_string(), "QMP bogus: CommandNotFound: what?");
        server.join().unwrap();
        assert!(matches!(qmp.quit(), Err(QmpError::Io { .. })));
    }
}
