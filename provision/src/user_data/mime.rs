//! MIME multipart messages.

use mail_parser::{MessageParser, MimeHeaders, PartType};

/// A part with what it is called.
pub(super) struct Part {
    pub(super) name: Option<String>,
    pub(super) bytes: Vec<u8>,
}

/// Whether bytes begin with a header of a MIME message.
pub(super) fn is_message(bytes: &[u8]) -> bool {
    let start = bytes.get(..64).unwrap_or(bytes).to_ascii_lowercase();
    ["content-type:", "mime-version:"]
        .iter()
        .any(|header| start.starts_with(header.as_bytes()))
        // What write-mime-multipart and mbox files have before it.
        || start.starts_with(b"from nobody ")
}

/// The parts that hold something, in their order.
pub(super) fn parts(bytes: &[u8]) -> Option<Vec<Part>> {
    let message = MessageParser::new().parse(bytes)?;
    let mut parts = Vec::new();
    for part in &message.parts {
        let content = match &part.body {
            PartType::Text(_)
            | PartType::Html(_)
            | PartType::Binary(_)
            | PartType::InlineBinary(_) => part.contents().to_vec(),
            PartType::Message(_) | PartType::Multipart(_) => continue,
        };
        let name = part.attachment_name().map(str::to_owned);
        parts.push(Part {
            name,
            bytes: content,
        });
    }
    (!parts.is_empty()).then_some(parts)
}
