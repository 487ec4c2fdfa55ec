//! WebSocket (RFC 6455), the server's side, for a stream of bytes: frames of the peer become bytes, bytes become binary
//! frames. Where a message ends does not matter to a stream, so fragments are passed on as they come. Pure.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Larger than anything that a console's client sends; a clipboard of that size is refused.
const PAYLOAD_BYTES_MAX: u64 = 256 * 1024;
const CONTROL_BYTES_MAX: u64 = 125;

/// Section 7.4.1.
pub const NORMAL: u16 = 1000;
pub const GOING_AWAY: u16 = 1001;
pub const PROTOCOL_ERROR: u16 = 1002;
pub const NOT_ALLOWED: u16 = 1008;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of the peer is not masked")]
    NotMasked,
    #[error("a frame has a reserved bit or an unknown kind")]
    Reserved,
    #[error("a control frame is fragmented or longer than {CONTROL_BYTES_MAX} bytes")]
    Control,
    #[error("a frame is longer than {PAYLOAD_BYTES_MAX} bytes")]
    TooLong,
    #[error("text where bytes are expected")]
    Text,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Bytes(Vec<u8>),
    /// To be answered with the same payload.
    Ping(Vec<u8>),
    Pong,
    Close,
}

/// What proves to the browser that the handshake was understood. Section 4.2.2, 5.4.
pub fn accept(key: &str) -> String {
    let mut text = key.to_owned();
    text.push_str("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    STANDARD.encode(digest)
}

/// 16 bytes in base64.
pub fn is_key(key: &str) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 10);
    out.push(0x80 | kind);
    match payload.len() {
        short @ 0..=125 => out.push(short as u8),
        middle @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

pub fn bytes(payload: &[u8]) -> Vec<u8> {
    frame(2, payload)
}

pub fn ping() -> Vec<u8> {
    frame(9, b"")
}

pub fn pong(payload: &[u8]) -> Vec<u8> {
    frame(10, payload)
}

/// `reason` has at most 123 bytes.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    frame(8, &payload)
}

/// Cuts what arrives into frames. Holds at most one frame and what was pushed last.
#[derive(Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    pub fn push(&mut self, arrived: &[u8]) {
        self.buffer.extend_from_slice(arrived);
    }

    /// The next whole frame. After an error the stream is lost.
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let &[first, second, ..] = self.buffer.as_slice() else {
            return Ok(None);
        };
        let (last, kind) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 || !matches!(kind, 0..=2 | 8..=10) {
            return Err(FrameError::Reserved);
        }
        if second & 0x80 == 0 {
            return Err(FrameError::NotMasked);
        }
        let (len, mask_at) = match second & 0x7f {
            126 => match self.buffer.get(2..4).and_then(|part| part.try_into().ok()) {
                Some(part) => (u64::from(u16::from_be_bytes(part)), 4),
                None => return Ok(None),
            },
            127 => match self.buffer.get(2..10).and_then(|part| part.try_into().ok()) {
                Some(part) => (u64::from_be_bytes(part), 10),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        if kind >= 8 && (!last || len > CONTROL_BYTES_MAX) {
            return Err(FrameError::Control);
        }
        if kind == 1 {
            return Err(FrameError::Text);
        }
        if len > PAYLOAD_BYTES_MAX {
            return Err(FrameError::TooLong);
        }
        let begin = mask_at + 4;
        let end = begin + len as usize;
        let (Some(mask), Some(masked)) = (self.buffer.get(mask_at..begin), self.buffer.get(begin..end))
        else {
            return Ok(None);
        };
        let payload = masked
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        self.buffer.drain(..end);
        Ok(Some(match kind {
            8 => Frame::Close,
            9 => Frame::Ping(payload),
            10 => Frame::Pong,
            _ => Frame::Bytes(payload),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = frame(0, payload);
        out[0] = first;
        let head = out.len() - payload.len();
        out[1] |= 0x80;
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let hidden: Vec<u8> = payload
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ mask[at % 4])
            .collect();
        out.truncate(head);
        out.extend_from_slice(&mask);
        out.extend_from_slice(&hidden);
        out
    }

    #[test]
    fn the_handshake_of_the_specification() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(!is_key("dGhlIHNhbXBsZQ==") && !is_key(""));
    }

    #[test]
    fn frames_of_the_specification() {
        let mut decoder = Decoder::default();
        // Section 5.7: "Hello", masked, here as bytes.
        decoder.push(&[0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        assert_eq!(decoder.next(), Ok(Some(Frame::Bytes(b"Hello".to_vec()))));
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(close(NORMAL, "over"), b"\x88\x06\x03\xe8over");
        assert_eq!(bytes(&[7; 126])[..4], [0x82, 126, 0, 126]);
        assert_eq!(bytes(&vec![7; 65_536])[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(ping(), [0x89, 0]);
        assert_eq!(pong(b"a"), [0x8a, 1, b'a']);
    }

    #[test]
    fn what_is_not_allowed_is_refused_before_it_is_kept() {
        let error = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.next().unwrap_err()
        };
        assert_eq!(error(&[0x82, 0x05]), FrameError::NotMasked);
        assert_eq!(error(&[0xc2, 0x85]), FrameError::Reserved);
        assert_eq!(error(&[0x83, 0x85]), FrameError::Reserved);
        assert_eq!(error(&[0x81, 0x85]), FrameError::Text);
        assert_eq!(error(&[0x09, 0x80]), FrameError::Control);
        assert_eq!(error(&[0x89, 0xfe, 0, 126]), FrameError::Control);
        let mut long = vec![0x82, 0xff];
        long.extend_from_slice(&(PAYLOAD_BYTES_MAX + 1).to_be_bytes());
        assert_eq!(error(&long), FrameError::TooLong);
        long.truncate(2);
        long.extend_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(error(&long), FrameError::TooLong);
    }

    proptest! {
        #[test]
        fn the_bytes_come_out_however_they_are_cut(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6), cut in 1usize..17) {
            let mut wire = Vec::new();
            for (at, part) in parts.iter().enumerate() {
                // The first fragment says the kind, the others go on; the last one says that it is the last.
                let first = if at == 0 { 2 } else { 0 } | if at + 1 == parts.len() { 0x80 } else { 0 };
                wire.extend(masked(first, part));
            }
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for chunk in wire.chunks(cut) {
                decoder.push(chunk);
                while let Some(frame) = decoder.next().unwrap() {
                    let Frame::Bytes(bytes) = frame else { panic!("another kind") };
                    found.extend(bytes);
                }
            }
            prop_assert_eq!(found, parts.concat());
        }

        #[test]
        fn nothing_that_arrives_makes_it_panic(arrived in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut decoder = Decoder::default();
            decoder.push(&arrived);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }
}
