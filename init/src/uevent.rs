//! Device events of the kernel (NETLINK_KOBJECT_UEVENT, `lib/kobject_uevent.c`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt,
};

/// Multicast group of events from the kernel itself (2 is udev's).
const GROUP_KERNEL: u32 = 1;
/// The kernel builds an event in 2 KiB (UEVENT_BUFFER_SIZE) plus the header.
const LONGEST: usize = 8192;
/// Room for the burst of a big coldplug, in bytes.
const RECEIVE_BUFFER: usize = 2 << 20;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Uevent {
    /// `add`, `change`, `remove`, `bind`, …
    pub(crate) action: String,
    /// Path below /sys.
    pub(crate) path: String,
    /// `SUBSYSTEM`.
    pub(crate) subsystem: String,
    /// `MODALIAS`, for devices that a module may serve.
    pub(crate) modalias: Option<String>,
    /// `DEVNAME`: node relative to /dev.
    pub(crate) node: Option<String>,
}

impl Uevent {
    /// Reads `ACTION@PATH\0KEY=VALUE\0…`. `None` when it is not such a message.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.split(|byte| *byte == 0);
        let (action, path) = std::str::from_utf8(fields.next()?).ok()?.split_once('@')?;
        let mut event = Self {
            action: action.to_owned(),
            path: path.to_owned(),
            ..Self::default()
        };
        for field in fields {
            let Some((key, value)) = std::str::from_utf8(field)
                .ok()
                .and_then(|text| text.split_once('='))
            else {
                continue;
            };
            match key {
                "SUBSYSTEM" => value.clone_into(&mut event.subsystem),
                "MODALIAS" => event.modalias = Some(value.to_owned()),
                "DEVNAME" => event.node = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(event)
    }
}

/// What was read from the socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// An event.
    Event(Uevent),
    /// The buffer overflowed and events are missing: all devices must be examined again.
    Lost,
    /// Something that is no event of the kernel: any process may send to a netlink socket.
    Foreign,
    /// Nothing more for now.
    Nothing,
}

/// A socket that receives the kernel's events from now on.
pub(crate) struct UeventSocket(OwnedFd);

impl UeventSocket {
    /// Opens the socket, without blocking.
    pub(crate) fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // Beyond net.core.rmem_max, which root may exceed; a smaller buffer also works.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUP_KERNEL))?;
        Ok(Self(fd))
    }

    /// Returns the next pending event.
    pub(crate) fn receive(&self) -> io::Result<Received> {
        let mut buffer = [0u8; LONGEST];
        loop {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                Ok((length, sender)) => {
                    // Any process may send to a netlink socket, but only the kernel has port 0.
                    let kernel = sender.is_some_and(|sender| sender.pid() == 0);
                    let message = buffer.get(..length).unwrap_or_default();
                    let event = Uevent::parse(message).filter(|_| kernel);
                    return Ok(event.map_or(Received::Foreign, Received::Event));
                }
                Err(Errno::EAGAIN) => return Ok(Received::Nothing),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Ok(Received::Lost),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for UeventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_event_of_a_partition() {
        let event = Uevent::parse(
            b"add@/devices/pci0000:00/virtio1/block/vda/vda1\0ACTION=add\0SUBSYSTEM=block\0\
              DEVNAME=vda1\0PARTNAME=root\0SEQNUM=7\0",
        )
        .unwrap();
        assert_eq!(event.action, "add");
        assert_eq!(event.subsystem, "block");
        assert_eq!(event.node.as_deref(), Some("vda1"));
        assert_eq!(event.modalias, None);
    }

    #[test]
    fn other_messages_are_refused() {
        assert_eq!(Uevent::parse(b"libudev\0\xfe\xed"), None);
        assert_eq!(Uevent::parse(b""), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_accepted(bytes: Vec<u8>) {
            Uevent::parse(&bytes);
        }
    }
}
