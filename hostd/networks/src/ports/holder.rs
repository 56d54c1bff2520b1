//! Finds the program of the host that has a port. Only used when a reservation failed.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use keelson_model::spec::Protocol;

/// How long processes are searched.
const PATIENCE: Duration = Duration::from_millis(500);

/// A socket in the kernel's table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    address: IpAddr,
    port: u16,
    inode: u64,
}

/// Finds the program that has a port: `nginx, process 812`. `None`: none was found.
pub(super) fn program(protocol: Protocol, host: IpAddr, port: u16) -> Option<String> {
    let found = entries(protocol, host, port);
    let sockets: Vec<_> = found.iter().filter(|entry| entry.inode != 0).collect();
    if sockets.is_empty() {
        return None;
    }
    let until = Instant::now() + PATIENCE;
    let links: Vec<_> = sockets
        .iter()
        .map(|entry| format!("socket:[{}]", entry.inode))
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| is_number(name)) else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for file in files.flatten() {
            let Ok(target) = fs::read_link(file.path()) else {
                continue;
            };
            if links.iter().any(|link| target.as_os_str() == link.as_str()) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some(format!("{}, process {pid},", name.trim_end()));
            }
        }
        if Instant::now() > until {
            break;
        }
    }
    None
}

/// Whether a TCP port is only used by connections that their programs have closed. Such sockets
/// belong to no process.
pub(super) fn only_lingers(host: IpAddr, port: u16) -> bool {
    let found = entries(Protocol::Tcp, host, port);
    !found.is_empty() && found.iter().all(|entry| entry.inode == 0)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The sockets that prevent others from binding to a port at an address.
fn entries(protocol: Protocol, host: IpAddr, port: u16) -> Vec<Entry> {
    let files = match protocol {
        Protocol::Tcp => ["tcp", "tcp6"],
        Protocol::Udp => ["udp", "udp6"],
        // The kernel's table has another format, and the protocol is rarely used.
        Protocol::Sctp => return Vec::new(),
    };
    let texts = files.map(|file| {
        // Use the thread's network namespace: `/proc/net` is that of the first thread.
        fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default()
    });
    let all = texts.iter().flat_map(|text| parse(text));
    all.filter(|entry| entry.port == port && overlap(entry.address, host))
        .collect()
}

fn overlap(one: IpAddr, other: IpAddr) -> bool {
    // An IPv6 socket bound to all addresses may take IPv4, too.
    let (one, other) = (one.to_canonical(), other.to_canonical());
    one == other || one.is_unspecified() || other.is_unspecified()
}

/// Parses a table of sockets (proc_net(5)). Addresses are hexadecimal numbers of 32 bits in the
/// machine's byte order.
fn parse(text: &str) -> impl Iterator<Item = Entry> {
    text.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().take(10).collect();
        let (address, port) = fields.get(1)?.split_once(':')?;
        let word = |at: usize| {
            let digits = address.get(at..at + 8)?;
            Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
        };
        let address = match address.len() {
            8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
            32 => {
                let words = [word(0)?, word(8)?, word(16)?, word(24)?];
                let bytes: [u8; 16] = words.concat().try_into().ok()?;
                IpAddr::V6(Ipv6Addr::from(bytes))
            }
            _ => return None,
        };
        Some(Entry {
            address,
            port: u16::from_str_radix(port, 16).ok()?,
            inode: fields.get(9)?.parse().ok()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_parsed() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0
   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 06 00000000:00000000 03:0000 0 0 0 0 1
   2: torn line
";
        let found: Vec<_> = parse(text).collect();
        let expected = |address: &str, port, inode| Entry {
            address: address.parse().unwrap(),
            port,
            inode,
        };
        assert_eq!(
            found,
            [expected("127.0.0.1", 80, 4711), expected("::1", 8080, 0)]
        );
    }
}
