//! Reports that somebody else changed a table.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::object::Table;
use crate::wire::{Messages, NFTABLES};
use crate::{NftError, socket};

/// `NFNLGRP_NFTABLES`, as a bit.
const GROUP: u32 = 1 << 6;
const DELETE_TABLE: u16 = NFTABLES | 2;
/// Its attributes have other meanings than those of all other reports.
const NEW_GENERATION: u16 = NFTABLES | 15;
/// Room for one datagram.
const REPORT: usize = 64 << 10;

/// What happened to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableChange {
    /// There were more reports than fit into the socket: anything may have happened.
    Unknown,
    /// Somebody changed something in it.
    Changed,
    /// Somebody deleted it, as `nft flush ruleset` does.
    Deleted,
}

/// Reports changes of one table that were made by anybody but one socket. Belongs to the network
/// namespace of the thread that opened it.
#[derive(Debug)]
pub struct Monitor {
    socket: OwnedFd,
    table: Table,
    own: u32,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Opens a monitor of a table. It ignores changes made by the socket of this number. See
    /// [`Netfilter::port`](crate::Netfilter::port).
    ///
    /// # Errors
    /// No socket could be opened.
    pub fn open(table: Table, own: u32) -> Result<Self, NftError> {
        let (socket, _) = socket::open(GROUP)?;
        Ok(Self {
            socket,
            table,
            own,
            buffer: vec![0; REPORT],
        })
    }

    /// Returns the most serious change since the last call, if there was one. Never waits; the
    /// descriptor becomes readable when there may be a change.
    ///
    /// # Errors
    /// The socket can't be read.
    pub fn read(&mut self) -> Result<Option<TableChange>, NftError> {
        let mut gravest = None;
        loop {
            let length = match recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => return Ok(gravest),
                Err(Errno::INTR) => continue,
                Err(Errno::NOBUFS) => {
                    gravest = gravest.max(Some(TableChange::Unknown));
                    continue;
                }
                Err(error) => return Err(socket::failed("read")(error)),
            };
            for message in Messages(self.buffer.get(..length).unwrap_or_default()) {
                let of_table = message.kind & 0xff00 == NFTABLES
                    && message.kind != NEW_GENERATION
                    && message.family() == self.table.family.number()
                    && message.attributes().text(1) == Some(self.table.name);
                if of_table && message.port != self.own {
                    let change = match message.kind {
                        DELETE_TABLE => TableChange::Deleted,
                        _ => TableChange::Changed,
                    };
                    gravest = gravest.max(Some(change));
                }
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The descriptor for an event loop.
impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
