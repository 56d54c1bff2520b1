//! Serves a client's TCP connection: queries in frames (RFC 1035, 4.2.2; RFC 7766). A client may
//! send several queries before the first is answered; answers are sent as soon as they are known.

use std::io;
use std::rc::Rc;

use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Reply, Served};
use crate::limits::{
    CONNECTIONS, IDLE, IDLE_WHEN_CROWDED, MAX_REQUEST, QUESTIONS_OF_CONNECTION, WRITING,
};
use crate::query::Transport;
use crate::shared::Shared;

/// Size of a frame's length in bytes.
const LENGTH: usize = 2;

/// Serves a connection until it ends, is silent for too long, or sends malformed data.
pub(super) async fn serve(served: &Rc<Served>, shared: &Rc<Shared>, mut stream: TcpStream) {
    let mut received = Vec::new();
    let mut asked: FuturesUnordered<LocalBoxFuture<'static, Vec<u8>>> = FuturesUnordered::new();
    let mut last = Instant::now();
    // A client that has closed its side may still wait for answers.
    let mut open = true;
    loop {
        let room = asked.len() < QUESTIONS_OF_CONNECTION;
        let mut answers = Vec::new();
        if room {
            match take(&mut received) {
                Frame::Whole(packet) => {
                    last = Instant::now();
                    match served.reply(shared, &packet, Transport::Tcp) {
                        Reply::Now(answer) => answers.push(answer),
                        Reply::Later(answer) => {
                            asked.push(answer);
                            continue;
                        }
                        Reply::Never => continue,
                    }
                }
                Frame::Oversized => return,
                Frame::Incomplete if !open && asked.is_empty() => return,
                Frame::Incomplete => {}
            }
        }
        if answers.is_empty() {
            let idle = if served.connections.get() > CONNECTIONS / 2 {
                IDLE_WHEN_CROWDED
            } else {
                IDLE
            };
            tokio::select! {
                Some(answer) = asked.next(), if !asked.is_empty() => {
                    last = Instant::now();
                    answers.push(answer);
                }
                ready = stream.readable(), if open && room => {
                    if ready.is_err() {
                        return;
                    }
                    match read(&stream, &mut received) {
                        Ok(more) => open = more,
                        Err(_) => return,
                    }
                }
                () = sleep_until(last + idle), if asked.is_empty() => return,
            }
        }
        for answer in answers {
            let Ok(length) = u16::try_from(answer.len()) else {
                return;
            };
            let frame = [&length.to_be_bytes()[..], &answer].concat();
            match timeout(WRITING, stream.write_all(&frame)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    }
}

/// Reads available data. Returns whether more may come.
fn read(stream: &TcpStream, received: &mut Vec<u8>) -> io::Result<bool> {
    received.reserve(MAX_REQUEST + LENGTH - received.len().min(MAX_REQUEST));
    match stream.try_read_buf(received) {
        Ok(0) => Ok(false),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

/// The state of a received frame.
enum Frame {
    Whole(Vec<u8>),
    Incomplete,
    /// Longer than any query, so the rest can't be parsed.
    Oversized,
}

/// Takes a frame out of the received data.
fn take(received: &mut Vec<u8>) -> Frame {
    let Some(length) = received.first_chunk().copied().map(u16::from_be_bytes) else {
        return Frame::Incomplete;
    };
    let length = usize::from(length);
    if length > MAX_REQUEST {
        return Frame::Oversized;
    }
    if received.len() < LENGTH + length {
        return Frame::Incomplete;
    }
    let rest = received.split_off(LENGTH + length);
    let mut packet = std::mem::replace(received, rest);
    packet.drain(..LENGTH);
    Frame::Whole(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_one_after_the_other() {
        let mut received = vec![0, 2, 1, 2, 0, 0, 0, 3, 9];
        assert!(matches!(take(&mut received), Frame::Whole(packet) if packet == [1, 2]));
        assert!(matches!(take(&mut received), Frame::Whole(packet) if packet.is_empty()));
        assert!(matches!(take(&mut received), Frame::Incomplete));
        received.extend([9, 9]);
        assert!(matches!(take(&mut received), Frame::Whole(packet) if packet == [9, 9, 9]));
        assert!(matches!(take(&mut received), Frame::Incomplete));
        // This is how HTTP begins.
        received.extend(b"GET /");
        assert!(matches!(take(&mut received), Frame::Oversized));
    }
}
