//! AF_PACKET sockets of type SOCK_DGRAM: the kernel makes and strips the Ethernet header.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// The Ethernet broadcast address.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// `struct tpacket_auxdata` of linux/if_packet.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct AuxData {
    status: u32,
    length: u32,
    captured: u32,
    mac_offset: u16,
    net_offset: u16,
    vlan_tci: u16,
    vlan_protocol: u16,
}

const PACKET_AUXDATA: libc::c_int = 8;
/// The sender left the transport checksum to hardware that the packet never passed.
const TP_STATUS_CSUMNOTREADY: u32 = 1 << 3;

/// One instruction of a classic BPF socket filter (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct FilterInstruction {
    /// Operation.
    pub code: u16,
    /// Jump when true.
    pub jump_true: u8,
    /// Jump when false.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

/// A non-blocking packet socket that is bound to one link and one EtherType.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    link: libc::c_int,
    ethertype: u16,
}

/// The result of [`PacketSocket::receive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes written to the buffer.
    pub length: usize,
    /// The packet was longer than the buffer.
    pub truncated: bool,
    /// This machine sent the packet.
    pub outgoing: bool,
    /// The transport checksum is not filled in, because the packet came from this very machine
    /// (veth, virtio) and checksums are offloaded.
    pub checksum_pending: bool,
}

impl PacketSocket {
    /// Opens a socket for packets of `ethertype` on the link with the index `link`. `filter` is
    /// attached before the first packet can arrive; an empty one takes everything.
    ///
    /// # Errors
    /// The system's answer: EPERM without CAP_NET_RAW, ENODEV when the link is gone.
    pub fn open(link: u32, ethertype: u16, filter: &[FilterInstruction]) -> io::Result<Self> {
        let link = libc::c_int::try_from(link).map_err(|_| invalid("link index"))?;
        // Protocol 0 receives nothing until bind names the protocol, so no packet can bypass the
        // filter. SAFETY: socket takes no pointers; the descriptor it returns is owned by nobody
        // else.
        let fd = unsafe {
            let fd = libc::socket(
                libc::AF_PACKET,
                libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                0,
            );
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let socket = Self {
            fd,
            link,
            ethertype,
        };
        if !filter.is_empty() {
            attach_filter(socket.as_fd(), filter)?;
        }
        let fd = socket.as_fd();
        set_option::<libc::c_int>(fd, libc::SOL_PACKET, PACKET_AUXDATA, &1)?;
        let address = socket.address([0; 6]);
        // SAFETY: the pointer and the length describe `address`, which outlives the call.
        let result = unsafe {
            libc::bind(
                socket.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of_address(),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }

    /// Sends `payload` (the bytes after the Ethernet header) to a hardware address.
    ///
    /// # Errors
    /// The system's answer: ENETDOWN when the link is down, EAGAIN when its queue is full.
    pub fn send(&self, destination: [u8; 6], payload: &[u8]) -> io::Result<()> {
        send_to(self.fd.as_fd(), &self.address(destination), payload)
    }

    /// Receives one packet, without its Ethernet header.
    ///
    /// # Errors
    /// EAGAIN when there is none; ENETDOWN once after the link went down.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        // SAFETY: sockaddr_ll and msghdr are plain data for which all zeros are valid.
        let (mut address, mut message): (libc::sockaddr_ll, libc::msghdr) =
            unsafe { (mem::zeroed(), mem::zeroed()) };
        let mut vector = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // u64s align the control buffer as cmsghdr wants it.
        let mut control = [0u64; 16];
        message.msg_name = (&raw mut address).cast();
        message.msg_namelen = size_of_address();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = mem::size_of_val(&control) as _;
        // SAFETY: every pointer in `message` refers to a live local of the length named beside
        // it, and `buffer` is writable for its whole length.
        let length = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let mut checksum_pending = false;
        // SAFETY: the CMSG functions walk the control buffer that the kernel filled in; data is
        // read only when the message is long enough for it, and unaligned reads are used.
        unsafe {
            let mut header = libc::CMSG_FIRSTHDR(&raw const message);
            while !header.is_null() {
                let wanted = libc::CMSG_LEN(mem::size_of::<AuxData>() as u32) as usize;
                if (*header).cmsg_level == libc::SOL_PACKET
                    && (*header).cmsg_type == PACKET_AUXDATA
                    && (*header).cmsg_len as usize >= wanted
                {
                    let data: AuxData = libc::CMSG_DATA(header).cast::<AuxData>().read_unaligned();
                    checksum_pending = data.status & TP_STATUS_CSUMNOTREADY != 0;
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
        }
        Ok(Received {
            length: length.min(buffer.len()),
            truncated: message.msg_flags & libc::MSG_TRUNC != 0,
            outgoing: address.sll_pkttype == libc::PACKET_OUTGOING,
            checksum_pending,
        })
    }

    fn address(&self, hardware: [u8; 6]) -> libc::sockaddr_ll {
        address(self.link, self.ethertype, hardware)
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A packet socket that only sends, to one link. It never receives anything, so it costs nothing
/// while it is open.
///
/// Closing it waits for an RCU grace period, which can take milliseconds, so close it where nobody
/// waits.
#[derive(Debug)]
pub struct PacketSender {
    fd: OwnedFd,
    link: libc::c_int,
}

impl PacketSender {
    /// Opens a socket that sends on the link with the index `link`.
    ///
    /// # Errors
    /// The system's answer: EPERM without CAP_NET_RAW.
    pub fn open(link: u32) -> io::Result<Self> {
        let link = libc::c_int::try_from(link).map_err(|_| invalid("link index"))?;
        // SAFETY: socket takes no pointers; the descriptor it returns is owned by nobody else.
        let fd = unsafe {
            let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            // Protocol 0 receives nothing.
            let fd = libc::socket(libc::AF_PACKET, kind, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { fd, link })
    }

    /// Sends `payload` (what follows the Ethernet header) to a hardware address.
    ///
    /// # Errors
    /// The system's answer: ENETDOWN when the link is down, ENXIO when it is gone, EAGAIN when its
    /// queue is full.
    pub fn send(&self, ethertype: u16, destination: [u8; 6], payload: &[u8]) -> io::Result<()> {
        send_to(
            self.fd.as_fd(),
            &address(self.link, ethertype, destination),
            payload,
        )
    }
}

/// Attaches a filter to a socket, which drops messages that do not pass.
///
/// # Errors
/// EINVAL when the filter is wrong.
pub fn attach_filter(socket: BorrowedFd<'_>, filter: &[FilterInstruction]) -> io::Result<()> {
    let program = Program {
        length: u16::try_from(filter.len()).map_err(|_| invalid("filter"))?,
        instructions: filter.as_ptr(),
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

fn set_option<T>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: pointer and length describe `value`; a filter program's own pointer was made from a
    // slice that outlives the call, and the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn send_to(socket: BorrowedFd<'_>, address: &libc::sockaddr_ll, payload: &[u8]) -> io::Result<()> {
    // SAFETY: both pointer and length pairs describe live values that are only read.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            payload.as_ptr().cast(),
            payload.len(),
            libc::MSG_NOSIGNAL,
            std::ptr::from_ref(address).cast(),
            size_of_address(),
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn address(link: libc::c_int, ethertype: u16, hardware: [u8; 6]) -> libc::sockaddr_ll {
    let mut sll_addr = [0; 8];
    for (to, from) in sll_addr.iter_mut().zip(hardware) {
        *to = from;
    }
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: link,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr,
    }
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const FilterInstruction,
}

fn size_of_address() -> libc::socklen_t {
    mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{what} is out of range"),
    )
}
