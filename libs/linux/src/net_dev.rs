//! The traffic of a network namespace's interfaces, from `/proc/<pid>/net/dev` (proc_pid_net(5)). A
//! line of an unknown form is skipped.

/// The traffic in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets with errors.
    pub errors: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Received traffic.
    pub received: Traffic,
    /// Sent traffic.
    pub sent: Traffic,
}

/// Parses the content of the file. Its first two lines are titles.
pub fn parse(bytes: &[u8]) -> Vec<Interface> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Interface> {
    /// The number of columns of received traffic; those of sent traffic follow.
    const RECEIVED: usize = 8;
    let line = String::from_utf8_lossy(line);
    let (name, figures) = line.split_once(':')?;
    let figures = figures
        .split_ascii_whitespace()
        .map(|figure| figure.parse().ok())
        .collect::<Option<Vec<u64>>>()?;
    let (received, sent) = figures.split_at_checked(RECEIVED)?;
    Some(Interface {
        name: name.trim().to_owned(),
        received: traffic(received)?,
        sent: traffic(sent)?,
    })
}

fn traffic(figures: &[u64]) -> Option<Traffic> {
    match figures {
        [bytes, packets, errors, dropped, ..] => Some(Traffic {
            bytes: *bytes,
            packets: *packets,
            errors: *errors,
            dropped: *dropped,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RECORDED: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1280      16    0    0    0     0          0         0     1280      16    0    0    0     0       0          0
  eth0: 5338 36 1 2 3 4 5 6 648 8 9 10 11 12 13 14
";

    #[test]
    fn interfaces() {
        let found = parse(RECORDED.as_bytes());
        let [lo, eth0] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!((lo.name.as_str(), lo.sent.packets), ("lo", 16));
        assert_eq!(eth0.name, "eth0");
        let traffic = |bytes, packets, errors, dropped| Traffic {
            bytes,
            packets,
            errors,
            dropped,
        };
        assert_eq!(eth0.received, traffic(5338, 36, 1, 2));
        assert_eq!(eth0.sent, traffic(648, 8, 9, 10));
        assert_eq!(parse(b"eth0: 1 2 3 4 5 6 7 8 1 2 3\n"), []);
        assert_eq!(parse(b""), []);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn interfaces_come_back(name in "[a-z0-9.@-]{1,15}", figures in any::<[u64; 16]>()) {
            let columns = figures.map(|figure| figure.to_string()).join(" ");
            let found = parse(format!("{name}: {columns}\n").as_bytes());
            prop_assert_eq!(found.len(), 1);
            let Interface { name: read, received, sent } = &found[0];
            prop_assert_eq!(read, &name);
            prop_assert_eq!([received.bytes, received.dropped, sent.bytes, sent.dropped],
                [figures[0], figures[3], figures[8], figures[11]]);
        }
    }
}
