//! Messages and attributes of netlink(7) as bytes.

/// Length of a message's header and the netfilter header after it.
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;

/// Flags of messages.
pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
/// It must not be there yet.
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;
/// In an answer: the list changed while it was being read.
pub(crate) const INTERRUPTED: u16 = 0x10;

/// Types of messages that all protocols have.
pub(crate) const ERROR: u16 = 2;
pub(crate) const DONE: u16 = 3;

/// The subsystems of netfilter: the upper byte of a message's type.
pub(crate) const CONNTRACK: u16 = 1 << 8;
pub(crate) const NFTABLES: u16 = 10 << 8;
/// `NFNL_SUBSYS_NFTABLES` as the resource of a batch.
pub(crate) const BATCH_RESOURCE: u16 = 10;

const NESTED: u16 = 0x8000;
/// The upper two bits of an attribute's type are flags.
const TYPE_MASK: u16 = 0x3fff;

/// A buffer of messages being written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes a message: its headers, and the attributes that `fill` adds.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        family: u8,
        resource: u16,
        fill: impl FnOnce(&mut Self),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        fill(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.patch(start, &length.to_ne_bytes());
    }

    /// Adds flags to the message that starts at `start`.
    pub(crate) fn add_flags(&mut self, start: usize, flags: u16) {
        let at = start + 6;
        if let Some(&[low, high]) = self.bytes.get(at..at + 2) {
            let old = u16::from_ne_bytes([low, high]);
            self.patch(at, &(old | flags).to_ne_bytes());
        }
    }

    pub(crate) fn attribute(&mut self, kind: u16, payload: &[u8]) {
        self.raw(kind, |writer| writer.bytes.extend_from_slice(payload));
    }

    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Writes a string with the NUL that the kernel expects.
    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        self.raw(kind, |writer| {
            writer.bytes.extend_from_slice(text.as_bytes());
            writer.bytes.push(0);
        });
    }

    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.raw(kind | NESTED, fill);
    }

    /// Writes attributes that were encoded before.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn raw(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        // If the content is too long for an attribute, write a length that the kernel refuses.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(0);
        self.patch(start, &length.to_ne_bytes());
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// A parsed message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The port number of the socket that asked for it or, in a report, that caused it.
    pub(crate) port: u32,
    /// The bytes after the header.
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The error number of an answer; 0 is success. `None` for other messages.
    pub(crate) fn error(&self) -> Option<i32> {
        let code = self.payload.first_chunk::<4>()?;
        (self.kind == ERROR).then(|| i32::from_ne_bytes(*code).saturating_neg())
    }

    /// The attributes behind the netfilter header.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(FAMILY_HEADER..).unwrap_or_default())
    }

    /// The address family in the netfilter header.
    pub(crate) fn family(&self) -> u8 {
        self.payload.first().copied().unwrap_or_default()
    }
}

/// Returns the messages of a datagram. A truncated message is the last one and has what is left of
/// it: the kernel repeats a refused message, whole or cut, after the error number.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.first_chunk::<HEADER>()?;
        let number = |at: usize| {
            let bytes = header.get(at..)?.first_chunk::<4>()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        let length = usize::try_from(number(0)?).ok()?.max(HEADER);
        let word = number(4)?.to_ne_bytes();
        let message = Message {
            kind: u16::from_ne_bytes([word[0], word[1]]),
            flags: u16::from_ne_bytes([word[2], word[3]]),
            sequence: number(8)?,
            port: number(12)?,
            payload: self.0.get(HEADER..length.min(self.0.len()))?,
        };
        let next = length.checked_next_multiple_of(4)?;
        self.0 = self.0.get(next..).unwrap_or_default();
        Some(message)
    }
}

/// Attributes of a message or of an attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first attribute of a type.
    pub(crate) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(found, payload)| (found == kind).then_some(payload))
    }

    pub(crate) fn nested(self, kind: u16) -> Option<Attributes<'a>> {
        self.find(kind).map(Attributes)
    }

    pub(crate) fn number(self, kind: u16) -> Option<u32> {
        let bytes = self.find(kind)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*bytes))
    }

    pub(crate) fn text(self, kind: u16) -> Option<&'a str> {
        let bytes = self.find(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0);
        std::str::from_utf8(bytes.get(..end.unwrap_or(bytes.len()))?).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let &[low, high, kind_low, kind_high] = self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let payload = self.0.get(4..length)?;
        let kind = u16::from_ne_bytes([kind_low, kind_high]) & TYPE_MASK;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_has_headers_lengths_and_padding() {
        let mut writer = Writer::default();
        writer.message(0x0a03, 0x401, 7, 1, 0, |writer| {
            writer.text(1, "ab");
            writer.nested(4, |writer| writer.number(1, 3));
        });
        let expected: [u8; 40] = [
            40, 0, 0, 0, 0x03, 0x0a, 0x01, 0x04, 7, 0, 0, 0, 0, 0, 0, 0, // header
            1, 0, 0, 0, // netfilter header
            7, 0, 1, 0, b'a', b'b', 0, 0, // text
            12, 0, 4, 0x80, 8, 0, 1, 0, 0, 0, 0, 3, // nested number
        ];
        assert_eq!(writer.as_bytes(), expected);
        writer.add_flags(0, ACK);
        let message = Messages(writer.as_bytes()).next().unwrap();
        assert_eq!((message.kind, message.flags), (0x0a03, 0x405));
        assert_eq!(message.attributes().text(1), Some("ab"));
        let nested = message.attributes().nested(4).unwrap();
        assert_eq!(nested.number(1), Some(3));
    }

    proptest! {
        /// Whatever a datagram holds, reading it ends.
        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for message in Messages(&bytes) {
                for (_, payload) in message.attributes() {
                    prop_assert!(Attributes(payload).count() <= bytes.len());
                }
            }
        }
    }
}
