use futures::FutureExt;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// What comes out of pieces that are read one after the other.
fn passed(pieces: &[&[u8]]) -> Vec<u8> {
    let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async move {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut lines = RequestLines::new(server, 1 << 10);
        let mut out = Vec::new();
        for piece in pieces {
            client.write_all(&piece).await.unwrap();
            // Whatever can be passed on is.
            let mut buffer = [0; 64];
            while let Some(read) = lines.read(&mut buffer).now_or_never() {
                out.extend_from_slice(&buffer[..read.unwrap()]);
            }
        }
        drop(client);
        lines.read_to_end(&mut out).await.unwrap();
        out
    })
}

#[test]
fn what_would_be_refused_is_encoded() {
    let request =
        b"GET /a<b>?filters={\"label\":[\"a|b\"]}&x=\xc3\xa9`#%zz HTTP/1.1\r\nA: \"\r\n\r\n";
    let wanted = b"GET /a%3Cb%3E?filters={%22label%22:[%22a|b%22]}&x=%C3%A9%60%23%zz HTTP/1.1\r\nA: \"\r\n\r\n";
    assert_eq!(passed(&[request]), wanted);
    let plain = b"POST /v1.51/x?a=%22{}|\\^ HTTP/1.1\nHost: d\n\n";
    assert_eq!(passed(&[plain]), plain);
}

#[test]
fn bodies_are_left_alone_and_the_next_request_is_found() {
    let body = b"GET /\"x\" HTTP/1.1\r\n\r\n";
    let next = b"GET /?\" HTTP/1.1\r\n\r\n";
    let encoded = b"GET /?%22 HTTP/1.1\r\n\r\n";
    let length = format!(
        "POST /a HTTP/1.1\r\ncontent-LENGTH:  {} \r\n\r\n",
        body.len()
    );
    let chunked = format!(
        "POST /b HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:X};ext=\"\r\n{}\r\n3\r\n\"\r\n\r\n0\r\nTrailer: \"\r\n\r\n",
        body.len(),
        String::from_utf8_lossy(body)
    );
    let given = [
        length.as_bytes(),
        body,
        next,
        chunked.as_bytes(),
        b"\r\n",
        next,
    ]
    .concat();
    let wanted = [
        length.as_bytes(),
        body,
        encoded,
        chunked.as_bytes(),
        b"\r\n",
        encoded,
    ]
    .concat();
    assert_eq!(passed(&[&given]), wanted);
}

#[test]
fn what_cannot_be_followed_is_passed_on_as_it_is() {
    let tail = b"GET /\" HTTP/1.1\r\n\r\n";
    for head in [
        &b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"[..],
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab",
        &[b'x'; 2000],
    ] {
        let given = [head, tail].concat();
        assert_eq!(passed(&[&given]), given);
    }
    let half = b"GET /\"";
    assert_eq!(passed(&[half]), half);
}

#[test]
fn what_was_not_passed_on_is_given_back() {
    let mut lines = RequestLines::new((), 1 << 10);
    lines.take(b"GET / HTTP/1.1\r\n\r\nearly \"");
    lines.gone = 16;
    assert_eq!(lines.into_parts().1, b"\r\nearly \"");
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        parts in prop::collection::vec(0_usize..6, 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let requests: [&[u8]; 6] = [
            b"GET /?\"a HTTP/1.1\r\n\r\n",
            b"POST /\" HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET \"",
            b"POST /<> HTTP/1.1\nTransfer-Encoding: chunked\n\n6\r\n\"\n\n\"\r\n\r\n0\r\n\r\n",
            b"\r\n",
            b"GET /plain HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\na: b\r\n\r\n",
        ];
        let whole: Vec<u8> = parts.iter().flat_map(|part| requests[*part].to_vec()).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([whole.len()]) {
            pieces.push(&whole[from..cut]);
            from = cut;
        }
        prop_assert_eq!(passed(&pieces), passed(&[&whole]));
    }

    #[test]
    fn anything_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        passed(&[&bytes]);
    }
}
