//! Reports of links that are gone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use keelson_sys::packet::{FilterInstruction, attach_filter};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket};

use crate::namespace::run_in;
use crate::{NetlinkError, batch};

/// RTNLGRP_LINK.
const LINKS: u32 = 1;
/// RTM_DELLINK.
const DELETE_LINK: u16 = 17;

/// Longest report. The report of one link is about 2 KiB long.
const REPORT: usize = 32 * 1024;

/// Reports removed links, and nothing else. The start of a container causes a dozen reports of
/// changes; a filter in the kernel drops them, so that they wake nobody.
pub struct Removals {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// The links of these indices.
    Links(Vec<u32>),
    /// There were too many reports, and some were lost: any link may be removed.
    Anything,
}

impl Removals {
    /// Starts to report links removed from the network namespace of the calling thread. Must be
    /// called inside a tokio runtime.
    ///
    /// # Errors
    /// No socket could be opened.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let mut tokio = TokioSocket::new(NETLINK_ROUTE)?;
            let socket = tokio.socket_mut();
            attach_filter(socket.as_fd(), &only(DELETE_LINK))?;
            socket.bind_auto()?;
            socket.add_membership(LINKS)?;
            Ok(tokio)
        };
        Ok(Self {
            socket: open().map_err(NetlinkError::Socket)?,
            buffer: Vec::with_capacity(REPORT),
        })
    }

    /// Starts to report links removed from another network namespace.
    ///
    /// # Errors
    /// The caller may not enter the namespace, or no socket could be opened.
    pub fn open_in(namespace: BorrowedFd<'_>) -> Result<Self, NetlinkError> {
        let runtime = tokio::runtime::Handle::current();
        run_in(namespace, || {
            let _runtime = runtime.enter();
            Self::open()
        })?
    }

    /// Waits until a link is removed.
    ///
    /// # Errors
    /// The socket fails.
    pub async fn next(&mut self) -> Result<Removed, NetlinkError> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) => {
                    let links: Vec<_> = batch::removed_links(&self.buffer).collect();
                    if !links.is_empty() {
                        return Ok(Removed::Links(links));
                    }
                }
                Err(error) if is_overrun(&error) => return Ok(Removed::Anything),
                Err(error) => return Err(NetlinkError::Socket(error)),
            }
        }
    }
}

fn is_overrun(error: &io::Error) -> bool {
    const ENOBUFS: i32 = 105;
    error.raw_os_error() == Some(ENOBUFS)
}

/// Passes messages of one type. Filters load values in network byte order, but netlink headers are
/// in the machine's byte order.
fn only(kind: u16) -> [FilterInstruction; 4] {
    const LOAD_HALF: u16 = 0x28;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let instruction = |code, jump_true, jump_false, operand| FilterInstruction {
        code,
        jump_true,
        jump_false,
        operand,
    };
    let kind = u16::from_be_bytes(kind.to_ne_bytes());
    [
        // `nlmsg_type` follows the length.
        instruction(LOAD_HALF, 0, 0, 4),
        instruction(JUMP_IF_EQUAL, 0, 1, kind.into()),
        instruction(RETURN, 0, 0, u32::MAX),
        instruction(RETURN, 0, 0, 0),
    ]
}
