//! DHCPv4 messages: makes a client's requests, and reads a server's answers (RFC 2131; `options`
//! reads the options).
//!
//! A wrong option is ignored and does not make the message unreadable: servers with one wrong
//! option are common, and only the lease matters.

use std::net::Ipv4Addr;

use dhcproto::v4::borrowed;
use dhcproto::v4::{
    self, DhcpOption, Encodable, Encoder, Flags, MAGIC, MIN_PACKET_SIZE, MessageType, Opcode,
    OptionCode,
};

use super::arp::Mac;
pub use super::options::MessageOptions;
use super::options::{Gathered, code};

/// Largest message that we ask servers to send, in bytes (what fits into one Ethernet packet).
const MAX_MESSAGE: u16 = 1472;

/// A client's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// DHCPDISCOVER: asks all servers for an address, perhaps an earlier one.
    Discover {
        /// Address that would be welcome.
        wish: Option<Ipv4Addr>,
    },
    /// DHCPREQUEST: accepts a server's offer.
    Select {
        /// The offered address.
        address: Ipv4Addr,
        /// The server that offered it.
        server: Ipv4Addr,
    },
    /// DHCPREQUEST in INIT-REBOOT: asks whether a remembered address is still valid.
    Reboot {
        /// The address.
        address: Ipv4Addr,
    },
    /// DHCPREQUEST while bound: asks for more time.
    Renew {
        /// The address.
        address: Ipv4Addr,
    },
    /// DHCPDECLINE: another machine uses the offered address.
    Decline {
        /// The address.
        address: Ipv4Addr,
        /// The server that gave it.
        server: Ipv4Addr,
    },
    /// DHCPRELEASE: the address is not needed any more.
    Release {
        /// The address.
        address: Ipv4Addr,
        /// The server that gave it.
        server: Ipv4Addr,
    },
}

/// The parts of a message that are the same for all requests of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Transaction.
    pub xid: u32,
    /// Hardware address of the link.
    pub mac: Mac,
    /// Seconds since the client began to look for a lease.
    pub seconds: u16,
    /// The machine's name, sent to the server.
    pub hostname: Option<&'a str>,
}

/// The bytes of a request.
///
/// # Errors
/// When the codec refuses a value. That should not happen for the values used here.
pub fn encode(header: &Header<'_>, request: Request) -> Result<Vec<u8>, v4::EncodeError> {
    let mut message = v4::Message::new_with_id(
        header.xid,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        &header.mac,
    );
    message.set_opcode(Opcode::BootRequest);
    message.set_secs(header.seconds);
    let (kind, asks) = match request {
        Request::Discover { .. } => (MessageType::Discover, true),
        Request::Select { .. } | Request::Reboot { .. } | Request::Renew { .. } => {
            (MessageType::Request, true)
        }
        Request::Decline { .. } => (MessageType::Decline, false),
        Request::Release { .. } => (MessageType::Release, false),
    };
    if let Request::Renew { address } | Request::Release { address, .. } = request {
        message.set_ciaddr(address);
    }
    // No broadcast flag: our packet socket receives unicasts to an address that the link does not
    // have yet.
    message.set_flags(Flags::default());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    let mut identifier = vec![1];
    identifier.extend(header.mac);
    options.insert(DhcpOption::ClientIdentifier(identifier));
    match request {
        Request::Discover {
            wish: Some(address),
        }
        | Request::Reboot { address } => {
            options.insert(DhcpOption::RequestedIpAddress(address));
        }
        Request::Select { address, server } | Request::Decline { address, server } => {
            options.insert(DhcpOption::RequestedIpAddress(address));
            options.insert(DhcpOption::ServerIdentifier(server));
        }
        Request::Release { server, .. } => {
            options.insert(DhcpOption::ServerIdentifier(server));
        }
        Request::Discover { wish: None } | Request::Renew { .. } => {}
    }
    if asks {
        options.insert(DhcpOption::MaxMessageSize(MAX_MESSAGE));
        if let Some(name) = header.hostname {
            options.insert(DhcpOption::Hostname(name.to_owned()));
        }
        // Option 121 comes before 3, as RFC 3442 asks.
        options.insert(DhcpOption::ParameterRequestList(vec![
            OptionCode::ClasslessStaticRoute,
            OptionCode::SubnetMask,
            OptionCode::Router,
            OptionCode::DomainNameServer,
            OptionCode::Hostname,
            OptionCode::DomainName,
            OptionCode::InterfaceMtu,
            OptionCode::NtpServers,
            OptionCode::Renewal,
            OptionCode::Rebinding,
            OptionCode::DomainSearch,
            OptionCode::Unknown(code::CLASSLESS_ROUTES_MICROSOFT),
        ]));
    }
    let mut bytes = Vec::with_capacity(MIN_PACKET_SIZE);
    message.encode(&mut Encoder::new(&mut bytes))?;
    // Old BOOTP relays drop shorter messages.
    if bytes.len() < MIN_PACKET_SIZE {
        bytes.resize(MIN_PACKET_SIZE, 0);
    }
    Ok(bytes)
}

/// The kind of a server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// DHCPOFFER: offers an address.
    Offer,
    /// DHCPACK: grants the address.
    Ack,
    /// DHCPNAK: refuses the address.
    Nak,
}

/// A server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its kind.
    pub kind: ReplyKind,
    /// The address (`yiaddr`).
    pub address: Ipv4Addr,
    /// The known options.
    pub options: MessageOptions,
}

/// Why a message is not an answer to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Cut off, or without DHCP's magic number.
    #[error("not a DHCP message")]
    Format,
    /// A request, or not for Ethernet.
    #[error("not an answer for an Ethernet link")]
    NotReply,
    /// For another client, or for another transaction of this one.
    #[error("an answer for another client")]
    NotOurs,
    /// No message type, or one that servers don't send to clients.
    #[error("not an offer, acknowledgement or refusal")]
    Kind,
}

/// Reads an answer to the transaction `xid` of the link `mac`.
///
/// # Errors
/// Why the message is not for us.
pub fn decode(bytes: &[u8], mac: Mac, xid: u32) -> Result<Reply, MessageError> {
    let message = borrowed::Message::new(bytes).map_err(|_| MessageError::Format)?;
    if bytes.get(236..240) != Some(&MAGIC[..]) {
        return Err(MessageError::Format);
    }
    if message.opcode() != Opcode::BootReply
        || message.htype() != v4::HType::Eth
        // The length decides how much of the packet is the address, so it is checked first.
        || message.hlen() != 6
    {
        return Err(MessageError::NotReply);
    }
    if message.xid() != xid || message.chaddr() != mac {
        return Err(MessageError::NotOurs);
    }
    let options = Gathered::of(bytes);
    let kind = match options.byte(code::MESSAGE_TYPE).map(MessageType::from) {
        Some(MessageType::Offer) => ReplyKind::Offer,
        Some(MessageType::Ack) => ReplyKind::Ack,
        Some(MessageType::Nak) => ReplyKind::Nak,
        _ => return Err(MessageError::Kind),
    };
    Ok(Reply {
        kind,
        address: message.yiaddr(),
        options: options.read(),
    })
}
